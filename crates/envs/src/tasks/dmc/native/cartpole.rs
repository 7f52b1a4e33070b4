//! `cartpole_balance`, `cartpole_swingup` and their sparse kin: keep a pole upright by moving its cart.

use super::control::{Observation, Parts, Task};
use super::model;
use super::physics::{Joint, Physics, XZ, ZZ};
use super::reward::{Slope, tolerance};
use crate::numpy::RandomState;
use anyhow::Result;
use std::f64::consts::PI;
use std::path::Path;

struct Cartpole {
    swing_up: bool,
    sparse: bool,
    slider: Joint,
    hinge: Joint,
    pole: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    let (swing_up, sparse) = match task {
        "balance" => (false, false),
        "balance_sparse" => (false, true),
        "swingup" => (true, false),
        "swingup_sparse" => (true, true),
        _ => return Ok(None),
    };
    let physics = model::build(folder, model::read(folder, "cartpole")?)?;
    let (slider, hinge, pole) = (physics.joint("slider")?, physics.joint("hinge_1")?, physics.body("pole_1")?);
    let task = Box::new(Cartpole { swing_up, sparse, slider, hinge, pole });
    Ok(Some(Parts { physics, task, time_limit: 10.0, step: None }))
}

impl Task for Cartpole {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        let (position, angle) = if self.swing_up {
            (0.01 * random.randn(), PI + 0.01 * random.randn())
        } else {
            (random.uniform(-0.1, 0.1), random.uniform(-0.034, 0.034))
        };
        physics.qpos_mut()[self.slider.qpos] = position;
        physics.qpos_mut()[self.hinge.qpos] = angle;
        physics.qvel_mut().iter_mut().for_each(|velocity| *velocity = 0.01 * random.randn());
        Ok(())
    }

    fn observe(&self, physics: &Physics) -> Observation {
        let (position, pole) = (physics.qpos()[self.slider.qpos], physics.xmat()[self.pole]);
        vec![("position", [position, pole[ZZ], pole[XZ]].into()), ("velocity", physics.qvel().into())]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let (position, cosine) = (physics.qpos()[self.slider.qpos], physics.xmat()[self.pole][ZZ]);
        if self.sparse {
            let centered = tolerance(position, [-0.25, 0.25], 0.0, Slope::Cliff);
            return centered * tolerance(cosine, [0.995, 1.0], 0.0, Slope::Cliff);
        }
        let upright = (cosine + 1.0) / 2.0;
        let centered = (1.0 + tolerance(position, [0.0; 2], 2.0, Slope::Gaussian)) / 2.0;
        let small_control = (4.0 + tolerance(physics.ctrl()[0], [0.0; 2], 1.0, Slope::Quadratic)) / 5.0;
        let spin = physics.qvel()[self.hinge.qvel];
        let small_velocity = (1.0 + tolerance(spin, [0.0; 2], 5.0, Slope::Gaussian)) / 2.0;
        upright * small_control * small_velocity * centered
    }
}
