//! `acrobot_swingup`: two links, whose tip a motor between them must bring up to a target.

use super::control::{Observation, Parts, Task};
use super::model;
use super::physics::{Joint, Physics, XZ, ZZ, norm};
use super::reward::{Slope, tolerance};
use crate::numpy::RandomState;
use anyhow::Result;
use std::f64::consts::PI;
use std::path::Path;

struct Acrobot {
    joints: [Joint; 2],
    arms: [usize; 2],
    tip: usize,
    target: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    if task != "swingup" {
        return Ok(None);
    }
    let physics = model::build(folder, model::read(folder, "acrobot")?)?;
    let task = Box::new(Acrobot {
        joints: [physics.joint("shoulder")?, physics.joint("elbow")?],
        arms: [physics.body("upper_arm")?, physics.body("lower_arm")?],
        tip: physics.site("tip")?,
        target: physics.site("target")?,
    });
    Ok(Some(Parts { physics, task, time_limit: 10.0, step: None }))
}

impl Task for Acrobot {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        for joint in self.joints {
            physics.qpos_mut()[joint.qpos] = random.uniform(-PI, PI);
        }
        Ok(())
    }

    fn observe(&self, physics: &Physics) -> Observation {
        let [upper, lower] = self.arms.map(|arm| physics.xmat()[arm]);
        let orientations = [upper[XZ], lower[XZ], upper[ZZ], lower[ZZ]];
        vec![("orientations", orientations.into()), ("velocity", physics.qvel().into())]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let (target, tip) = (physics.site_xpos()[self.target], physics.site_xpos()[self.tip]);
        let distance = norm(&[0, 1, 2].map(|axis| target[axis] - tip[axis]));
        let radius = physics.model().site_size()[self.target][0];
        tolerance(distance, [0.0, radius], 1.0, Slope::Gaussian)
    }
}
