//! Episodes of a task: what dm_control's `control.Environment` does.

use super::physics::Physics;
use crate::numpy::RandomState;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What distinguishes tasks.
pub trait Task: Send {
    /// Puts the world, fresh from its reset, into the first state of an episode.
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()>;

    /// What the agent sees: names in dm_control's order.
    fn observe(&self, physics: &Physics) -> Observation;

    /// The reward of the present state, from 0 to 1.
    fn reward(&self, physics: &Physics) -> f64;

    /// The random numbers by which `start` changed the model, for [`Task::restore`].
    fn drawn(&self, _physics: &Physics) -> Vec<f64> {
        vec![]
    }

    /// Changes the model as `start` did when it drew these numbers.
    fn restore(&mut self, _physics: &mut Physics, drawn: &[f64]) -> Result<()> {
        ensure!(drawn.is_empty(), "it has {} numbers of a target, but this task has none", drawn.len());
        Ok(())
    }
}

/// Values by name.
pub type Observation = Vec<(&'static str, Seen)>;

/// One key's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Number(f64),
    Vector(Vec<f64>),
}

impl From<f64> for Seen {
    fn from(x: f64) -> Self {
        Seen::Number(x)
    }
}

impl<const N: usize> From<[f64; N]> for Seen {
    fn from(xs: [f64; N]) -> Self {
        Seen::Vector(xs.into())
    }
}

impl From<&[f64]> for Seen {
    fn from(xs: &[f64]) -> Self {
        Seen::Vector(xs.into())
    }
}

impl From<Vec<f64>> for Seen {
    fn from(xs: Vec<f64>) -> Self {
        Seen::Vector(xs)
    }
}

/// A task with its world and the time it takes.
pub struct Parts {
    pub physics: Physics,
    pub task: Box<dyn Task>,
    /// Seconds of an episode.
    pub time_limit: f64,
    /// Seconds of a step; none for the timestep of the physics.
    pub step: Option<f64>,
}

/// A task in play.
pub struct Control {
    pub physics: Physics,
    pub task: Box<dyn Task>,
    random: RandomState,
    /// Timesteps of the physics in a step.
    substeps: usize,
    /// Steps of an episode.
    limit: f64,
    steps: u64,
}

/// The saved state of [`Control`].
#[derive(Serialize, Deserialize)]
pub struct Saved {
    physics: Vec<f64>,
    drawn: Vec<f64>,
    random: RandomState,
    steps: u64,
}

impl Control {
    /// `seed` is dm_control's `task_kwargs={'random': seed}`.
    pub fn new(parts: Parts, seed: u32) -> Self {
        let Parts { physics, task, time_limit, step } = parts;
        let timestep = physics.model_opt().timestep;
        let substeps = step.map_or(1, |step| (step / timestep).round() as usize);
        let limit = time_limit / (timestep * substeps as f64);
        Control { physics, task, random: RandomState::new(seed), substeps, limit, steps: 0 }
    }

    /// Starts an episode.
    pub fn reset(&mut self) -> Result<()> {
        self.steps = 0;
        self.physics.reset();
        self.task.start(&mut self.physics, &mut self.random)?;
        self.physics.forward()
    }

    /// Acts with one number for each actuator. Returns the reward.
    pub fn step(&mut self, action: &[f64]) -> Result<f64> {
        self.physics.ctrl_mut().copy_from_slice(action);
        self.physics.step(self.substeps)?;
        self.steps += 1;
        Ok(self.task.reward(&self.physics))
    }

    /// Whether the episode's time is up. No task ends before.
    pub fn is_over(&self) -> bool {
        self.steps as f64 >= self.limit
    }

    pub fn observe(&self) -> Observation {
        self.task.observe(&self.physics)
    }

    pub fn save(&self) -> Saved {
        let (physics, drawn) = (self.physics.state(), self.task.drawn(&self.physics));
        Saved { physics, drawn, random: self.random.clone(), steps: self.steps }
    }

    pub fn load(&mut self, saved: Saved) -> Result<()> {
        ensure!(saved.drawn.iter().all(|x| x.is_finite()), "its target is not finite");
        self.task.restore(&mut self.physics, &saved.drawn)?;
        self.physics.restore(&saved.physics)?;
        (self.random, self.steps) = (saved.random, saved.steps);
        Ok(())
    }
}
