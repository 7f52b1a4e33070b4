//! `pendulum_swingup`: bring a pendulum up with a motor too weak to lift it at once.

use super::control::{Observation, Parts, Task};
use super::model;
use super::physics::{Joint, Physics, XZ, ZZ};
use super::reward::{Slope, tolerance};
use crate::numpy::RandomState;
use anyhow::Result;
use std::f64::consts::PI;
use std::path::Path;

/// Degrees from upright within which there is a reward.
const ANGLE: f64 = 8.0;

struct Pendulum {
    hinge: Joint,
    pole: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    if task != "swingup" {
        return Ok(None);
    }
    let physics = model::build(folder, model::read(folder, "pendulum")?)?;
    let task = Box::new(Pendulum { hinge: physics.joint("hinge")?, pole: physics.body("pole")? });
    Ok(Some(Parts { physics, task, time_limit: 20.0, step: None }))
}

impl Task for Pendulum {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        physics.qpos_mut()[self.hinge.qpos] = random.uniform(-PI, PI);
        Ok(())
    }

    fn observe(&self, physics: &Physics) -> Observation {
        let pole = physics.xmat()[self.pole];
        vec![("orientation", [pole[ZZ], pole[XZ]].into()), ("velocity", [physics.qvel()[self.hinge.qvel]].into())]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        tolerance(physics.xmat()[self.pole][ZZ], [ANGLE.to_radians().cos(), 1.0], 0.0, Slope::Cliff)
    }
}
