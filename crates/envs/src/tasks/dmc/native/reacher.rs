//! `reacher_easy` and `reacher_hard`: a planar arm of two links brings its finger to a target.

use super::control::{Observation, Parts, Task};
use super::physics::{Physics, norm};
use super::reward::{Slope, tolerance};
use super::{joints, model};
use crate::numpy::RandomState;
use anyhow::{Context, Result};
use std::f64::consts::TAU;
use std::path::Path;

struct Reacher {
    /// Radius of the target in metres.
    size: f64,
    target: usize,
    finger: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    let size = match task {
        "easy" => 0.05,
        "hard" => 0.015,
        _ => return Ok(None),
    };
    let physics = model::build(folder, model::read(folder, "reacher")?)?;
    let task = Box::new(Reacher { size, target: physics.geom("target")?, finger: physics.geom("finger")? });
    Ok(Some(Parts { physics, task, time_limit: 20.0, step: None }))
}

impl Reacher {
    /// From the finger to the target.
    fn to_target(&self, physics: &Physics) -> [f64; 2] {
        let (target, finger) = (physics.geom_xpos()[self.target], physics.geom_xpos()[self.finger]);
        [target[0] - finger[0], target[1] - finger[1]]
    }
}

impl Task for Reacher {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        joints::randomize(physics, random);
        let (angle, radius) = (random.uniform(0.0, TAU), random.uniform(0.05, 0.20));
        self.restore(physics, &[radius * angle.sin(), radius * angle.cos()])
    }

    fn observe(&self, physics: &Physics) -> Observation {
        vec![
            ("position", physics.qpos().into()),
            ("to_target", self.to_target(physics).into()),
            ("velocity", physics.qvel().into()),
        ]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let radii = [self.target, self.finger].iter().map(|&geom| physics.model().geom_size()[geom][0]).sum();
        tolerance(norm(&self.to_target(physics)), [0.0, radii], 0.0, Slope::Cliff)
    }

    fn drawn(&self, physics: &Physics) -> Vec<f64> {
        physics.model().geom_pos()[self.target][..2].to_vec()
    }

    fn restore(&mut self, physics: &mut Physics, drawn: &[f64]) -> Result<()> {
        let &[x, y] = drawn.first_chunk().context("its target lacks a coordinate")?;
        physics.edit(|model| {
            model.geom_size_mut()[self.target][0] = self.size;
            let place = &mut model.geom_pos_mut()[self.target];
            (place[0], place[1]) = (x, y);
        });
        Ok(())
    }
}
