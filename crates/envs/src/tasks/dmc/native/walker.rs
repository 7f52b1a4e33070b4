//! `walker_stand`, `walker_walk` and `walker_run`: a planar figure on two legs.

use super::control::{Observation, Parts, Task};
use super::physics::{Physics, XX, XZ, ZZ};
use super::reward::{Slope, tolerance};
use super::{joints, model};
use crate::numpy::RandomState;
use anyhow::Result;
use std::path::Path;

/// Height of the torso in metres at which it counts as standing.
const STANDING: f64 = 1.2;

struct Walker {
    /// The target speed in m/s; 0 for standing.
    speed: f64,
    torso: usize,
    velocity: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    let speed = match task {
        "stand" => 0.0,
        "walk" => 1.0,
        "run" => 8.0,
        _ => return Ok(None),
    };
    let physics = model::build(folder, model::read(folder, "walker")?)?;
    let (torso, velocity) = (physics.body("torso")?, physics.sensor("torso_subtreelinvel")?.start);
    let task = Box::new(Walker { speed, torso, velocity });
    Ok(Some(Parts { physics, task, time_limit: 25.0, step: Some(0.025) }))
}

impl Task for Walker {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        joints::randomize(physics, random);
        Ok(())
    }

    fn observe(&self, physics: &Physics) -> Observation {
        let orientations: Vec<f64> = physics.xmat()[1..].iter().flat_map(|body| [body[XX], body[XZ]]).collect();
        vec![
            ("orientations", orientations.into()),
            ("height", physics.xpos()[self.torso][2].into()),
            ("velocity", physics.qvel().into()),
        ]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let height = physics.xpos()[self.torso][2];
        let standing = tolerance(height, [STANDING, f64::INFINITY], STANDING / 2.0, Slope::Gaussian);
        let upright = (1.0 + physics.xmat()[self.torso][ZZ]) / 2.0;
        let standing = (3.0 * standing + upright) / 4.0;
        if self.speed == 0.0 {
            return standing;
        }
        let velocity = physics.sensordata()[self.velocity];
        let moving = tolerance(velocity, [self.speed, f64::INFINITY], self.speed / 2.0, Slope::Linear(0.5));
        standing * (5.0 * moving + 1.0) / 6.0
    }
}
