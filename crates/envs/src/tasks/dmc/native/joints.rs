//! Random joint angles, as several tasks begin with.

use super::physics::Physics;
use crate::numpy::RandomState;
use anyhow::{Result, ensure};
use mujoco_rs::prelude::MjtJoint;
use std::f64::consts::PI;

/// The most states that are tried to find one without a collision.
const ATTEMPTS: usize = 1000;

/// Draws every limited joint between its limits, and every unlimited hinge from -pi to pi. Unlimited slides, which
/// place a body in the world, stay as they are; the models have no other joints.
pub fn randomize(physics: &mut Physics, random: &mut RandomState) {
    for joint in 0..physics.model().njnt() as usize {
        let model = physics.model();
        let hinge = model.jnt_type()[joint] == MjtJoint::mjJNT_HINGE;
        let [low, high] = match (model.jnt_limited()[joint], hinge) {
            (true, _) => model.jnt_range()[joint],
            (false, true) => [-PI, PI],
            (false, false) => continue,
        };
        let at = physics.nth_joint(joint).qpos;
        physics.qpos_mut()[at] = random.uniform(low, high);
    }
}

/// Draws joints again and again until nothing touches.
pub fn randomize_apart(physics: &mut Physics, random: &mut RandomState) -> Result<()> {
    for attempt in 0.. {
        ensure!(attempt < ATTEMPTS, "no state without a collision was found in {ATTEMPTS} attempts");
        randomize(physics, random);
        physics.forward()?;
        if physics.ncon() == 0 {
            break;
        }
    }
    Ok(())
}
