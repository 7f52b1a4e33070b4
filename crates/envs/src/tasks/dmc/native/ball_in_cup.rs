//! `ball_in_cup_catch`: swing a ball on a string into the cup that it hangs from.

use super::control::{Observation, Parts, Task};
use super::model;
use super::physics::{Joint, Physics};
use crate::numpy::RandomState;
use anyhow::Result;
use std::path::Path;

/// The axes of the plane in which everything moves.
const PLANE: [usize; 2] = [0, 2];

struct BallInCup {
    /// The ball's joints, across and up.
    joints: [Joint; 2],
    ball: usize,
    ball_geom: usize,
    target: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    if task != "catch" {
        return Ok(None);
    }
    let physics = model::build(folder, model::read(folder, "ball_in_cup")?)?;
    let task = Box::new(BallInCup {
        joints: [physics.joint("ball_x")?, physics.joint("ball_z")?],
        ball: physics.body("ball")?,
        ball_geom: physics.geom("ball")?,
        target: physics.site("target")?,
    });
    Ok(Some(Parts { physics, task, time_limit: 20.0, step: Some(0.02) }))
}

impl Task for BallInCup {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        loop {
            for (joint, [low, high]) in self.joints.into_iter().zip([[-0.2, 0.2], [0.2, 0.5]]) {
                physics.qpos_mut()[joint.qpos] = random.uniform(low, high);
            }
            physics.forward()?;
            if physics.ncon() == 0 {
                return Ok(());
            }
        }
    }

    fn observe(&self, physics: &Physics) -> Observation {
        vec![("position", physics.qpos().into()), ("velocity", physics.qvel().into())]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let (target, ball) = (physics.site_xpos()[self.target], physics.xpos()[self.ball]);
        let (cup, radius) = (physics.model().site_size()[self.target], physics.model().geom_size()[self.ball_geom][0]);
        let inside = PLANE.iter().all(|&axis| (target[axis] - ball[axis]).abs() < cup[axis] - radius);
        f64::from(inside)
    }
}
