//! `cheetah_run`: a planar animal runs as fast as it can, up to 10 m/s.

use super::control::{Observation, Parts, Task};
use super::model;
use super::physics::Physics;
use super::reward::{Slope, tolerance};
use crate::numpy::RandomState;
use anyhow::Result;
use std::path::Path;

/// Speed in m/s above which the reward is 1.
const SPEED: f64 = 10.0;
/// Timesteps in which the animal falls to the floor before an episode.
const SETTLING: usize = 200;

struct Cheetah {
    /// Index in `sensordata` of the velocity of its centre of mass.
    velocity: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    if task != "run" {
        return Ok(None);
    }
    let physics = model::build(folder, model::read(folder, "cheetah")?)?;
    let task = Box::new(Cheetah { velocity: physics.sensor("torso_subtreelinvel")?.start });
    Ok(Some(Parts { physics, task, time_limit: 10.0, step: None }))
}

impl Task for Cheetah {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        for joint in 0..physics.model().njnt() as usize {
            if physics.model().jnt_limited()[joint] {
                let [low, high] = physics.model().jnt_range()[joint];
                let at = physics.nth_joint(joint).qpos;
                physics.qpos_mut()[at] = random.uniform(low, high);
            }
        }
        physics.step(SETTLING)?;
        physics.set_time(0.0);
        Ok(())
    }

    fn observe(&self, physics: &Physics) -> Observation {
        // The position along the track is left out.
        vec![("position", physics.qpos()[1..].into()), ("velocity", physics.qvel().into())]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let speed = physics.sensordata()[self.velocity];
        tolerance(speed, [SPEED, f64::INFINITY], SPEED, Slope::Linear(0.0))
    }
}
