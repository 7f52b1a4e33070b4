//! `hopper_stand` and `hopper_hop`: a planar leg stands upright, or hops at 2 m/s.

use super::control::{Observation, Parts, Task};
use super::physics::Physics;
use super::reward::{Slope, tolerance};
use super::{joints, model};
use crate::numpy::RandomState;
use anyhow::Result;
use std::path::Path;

/// Height in metres of the torso over the foot at which it counts as standing.
const STANDING: f64 = 0.6;
/// Speed in m/s above which the reward of hopping is 1.
const SPEED: f64 = 2.0;

struct Hopper {
    hopping: bool,
    torso: usize,
    foot: usize,
    velocity: usize,
    touches: [usize; 2],
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    let hopping = match task {
        "stand" => false,
        "hop" => true,
        _ => return Ok(None),
    };
    let physics = model::build(folder, model::read(folder, "hopper")?)?;
    let task = Box::new(Hopper {
        hopping,
        torso: physics.body("torso")?,
        foot: physics.body("foot")?,
        velocity: physics.sensor("torso_subtreelinvel")?.start,
        touches: [physics.sensor("touch_toe")?.start, physics.sensor("touch_heel")?.start],
    });
    Ok(Some(Parts { physics, task, time_limit: 20.0, step: Some(0.02) }))
}

impl Task for Hopper {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        joints::randomize(physics, random);
        Ok(())
    }

    fn observe(&self, physics: &Physics) -> Observation {
        // The position along the track is left out.
        vec![
            ("position", physics.qpos()[1..].into()),
            ("velocity", physics.qvel().into()),
            ("touch", self.touches.map(|at| physics.sensordata()[at].ln_1p()).into()),
        ]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let height = physics.xipos()[self.torso][2] - physics.xipos()[self.foot][2];
        let standing = tolerance(height, [STANDING, 2.0], 0.0, Slope::Cliff);
        if self.hopping {
            let speed = physics.sensordata()[self.velocity];
            return standing * tolerance(speed, [SPEED, f64::INFINITY], SPEED / 2.0, Slope::Linear(0.5));
        }
        let controls = physics.ctrl();
        let small = controls.iter().map(|&x| tolerance(x, [0.0; 2], 1.0, Slope::Quadratic)).sum::<f64>();
        standing * ((small / controls.len() as f64 + 4.0) / 5.0)
    }
}
