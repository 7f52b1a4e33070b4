//! `Dmc`: a task of DeepMind Control as an environment, with the keys that the Python worker gives it.

use super::control::{Control, Parts, Saved, Seen};
use super::{acrobot, ball_in_cup, cartpole, cheetah, finger, hopper, pendulum, quadruped, reacher, walker};
use crate::record::{Moment, act_space, flag, obs_space};
use crate::{Env, state};
use anyhow::{Context, Result, bail, ensure};
use mujoco_rs::prelude::MjModel;
use spaces::{Array, Record, Space, Spaces};
use std::path::Path;

/// One step is one of dm_control's control steps, or `repeat` of them, whose rewards are summed.
pub struct Dmc {
    name: String,
    obs_space: Spaces,
    act_space: Spaces,
    repeat: usize,
    /// Bounds of each actuator where these differ: the action `[-1, 1]` is then stretched to them.
    bounds: Option<Vec<[f64; 2]>>,
    control: Control,
    /// The next step starts an episode.
    over: bool,
}

impl Dmc {
    /// A task of `domain`, its model from the `folder` of dm_control's suite.
    pub fn new(domain: &str, task: &str, folder: &Path, repeat: usize, seed: u32) -> Result<Self> {
        let parts = parts(domain, task, folder)?;
        let parts = parts.with_context(|| format!("there is no native task '{task}' of '{domain}'"))?;
        let (action, bounds) = action_space(parts.physics.model())?;
        let mut control = Control::new(parts, seed);
        control.physics.reset();
        let seen = control.observe();
        Ok(Dmc {
            name: format!("dmc_{domain}_{task}"),
            obs_space: obs_space(seen.iter().map(|(key, value)| (*key, Space::float(&shape(value))))),
            act_space: act_space([("action", action)]),
            repeat,
            bounds,
            control,
            over: true,
        })
    }

    /// The action as the actuators take it.
    fn controls(&self, action: &Record) -> Result<Vec<f64>> {
        let action = action.get("action").context("the key 'action' is missing")?;
        let count = self.act_space["action"].shape[0];
        ensure!(action.len() == count, "the key 'action' holds {} values where {count} are needed", action.len());
        let mut controls: Vec<f64> = action.to_f32().into_iter().map(f64::from).collect();
        if let Some(wrong) = controls.iter().find(|x| !x.is_finite()) {
            bail!("the action 'action' has a value that is {wrong}; it must be a number within its bounds");
        }
        for (x, [low, high]) in controls.iter_mut().zip(self.bounds.iter().flatten()) {
            *x = low + (*x + 1.0) / 2.0 * (high - low);
        }
        Ok(controls)
    }

    fn record(&self, moment: Moment) -> Record {
        moment.record(self.control.observe().into_iter().map(|(key, value)| (key, array(value))))
    }
}

/// The task's world and rules; none where there is no such task.
pub fn parts(domain: &str, task: &str, folder: &Path) -> Result<Option<Parts>> {
    match domain {
        "acrobot" => acrobot::make(task, folder),
        "ball_in_cup" => ball_in_cup::make(task, folder),
        "cartpole" => cartpole::make(task, folder),
        "cheetah" => cheetah::make(task, folder),
        "finger" => finger::make(task, folder),
        "hopper" => hopper::make(task, folder),
        "pendulum" => pendulum::make(task, folder),
        "quadruped" => quadruped::make(task, folder),
        "reacher" => reacher::make(task, folder),
        "walker" => walker::make(task, folder),
        _ => Ok(None),
    }
}

/// The space of the action, and the bounds to which it is stretched where actuators have different ones.
fn action_space(model: &MjModel) -> Result<(Space, Option<Vec<[f64; 2]>>)> {
    let (bounds, limited) = (model.actuator_ctrlrange(), model.actuator_ctrllimited());
    ensure!(limited.iter().all(|&limited| limited), "the model has an actuator without bounds");
    let first = bounds.first().context("the model has no actuators")?;
    let alike = bounds.iter().all(|other| other == first);
    let [low, high] = if alike { *first } else { [-1.0, 1.0] };
    Ok((Space::bounded(&[bounds.len()], low, high), (!alike).then(|| bounds.to_vec())))
}

fn shape(value: &Seen) -> Vec<usize> {
    match value {
        Seen::Number(_) => vec![],
        Seen::Vector(xs) => vec![xs.len()],
    }
}

fn array(value: Seen) -> Array {
    match value {
        Seen::Number(x) => Array::f32(x as f32),
        Seen::Vector(xs) => Array::from_f32(&[xs.len()], xs.into_iter().map(|x| x as f32).collect()),
    }
}

impl Env for Dmc {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        if flag(action, "reset")? || self.over {
            self.control.reset()?;
            self.over = false;
            return Ok(self.record(Moment::FIRST));
        }
        let controls = self.controls(action)?;
        let mut reward = 0.0;
        for _ in 0..self.repeat {
            reward += self.control.step(&controls)?;
            self.over = self.control.is_over();
            if self.over {
                break;
            }
        }
        Ok(self.record(Moment { reward: reward as f32, is_last: self.over, ..Moment::default() }))
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save(&self.name, &(self.over, self.control.save()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let (over, saved): (bool, Saved) = state::load(&self.name, bytes)?;
        self.control.load(saved).with_context(|| format!("the saved state of '{}' is damaged", self.name))?;
        self.over = over;
        Ok(())
    }
}
