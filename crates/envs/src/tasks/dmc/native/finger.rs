//! `finger_spin`, `finger_turn_easy` and `finger_turn_hard`: a finger of two links turns a body on a hinge.

use super::control::{Observation, Parts, Task};
use super::physics::{Joint, Physics, norm};
use super::{joints, model};
use crate::numpy::RandomState;
use anyhow::{Context, Result};
use std::f64::consts::PI;
use std::path::Path;

/// Speed in rad/s above which the body counts as spinning.
const SPIN: f64 = 15.0;
/// Damping of the hinge, in N m per rad/s, if the goal is to spin.
const SPIN_DAMPING: f64 = 0.03;

#[derive(Clone, Copy)]
enum Goal {
    Spin,
    /// The body's tip within this distance of a target in metres.
    Turn(f64),
}

struct Finger {
    goal: Goal,
    hinge: Joint,
    cap: usize,
    target: usize,
    sensors: Sensors,
}

/// Indices of sensors in `sensordata`: positions have three numbers, the rest one.
struct Sensors {
    angles: [usize; 2],
    velocities: [usize; 3],
    touches: [usize; 2],
    spinner: usize,
    tip: usize,
    target: usize,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    let goal = match task {
        "spin" => Goal::Spin,
        "turn_easy" => Goal::Turn(0.07),
        "turn_hard" => Goal::Turn(0.03),
        _ => return Ok(None),
    };
    let physics = model::build(folder, model::read(folder, "finger")?)?;
    let sensor = |name| physics.sensor(name).map(|at| at.start);
    let sensors = Sensors {
        angles: [sensor("proximal")?, sensor("distal")?],
        velocities: [sensor("proximal_velocity")?, sensor("distal_velocity")?, sensor("hinge_velocity")?],
        touches: [sensor("touchtop")?, sensor("touchbottom")?],
        spinner: sensor("spinner")?,
        tip: sensor("tip")?,
        target: sensor("target")?,
    };
    let task = Box::new(Finger {
        goal,
        hinge: physics.joint("hinge")?,
        cap: physics.geom("cap1")?,
        target: physics.site("target")?,
        sensors,
    });
    Ok(Some(Parts { physics, task, time_limit: 20.0, step: Some(0.02) }))
}

impl Finger {
    /// Where a sensor is, relative to the hinge: across and up.
    fn relative(&self, physics: &Physics, sensor: usize) -> [f64; 2] {
        let data = physics.sensordata();
        [0, 2].map(|axis| data[sensor + axis] - data[self.sensors.spinner + axis])
    }

    /// From the tip to the target's surface in metres, negative within.
    fn distance(&self, physics: &Physics) -> f64 {
        let [tip, target] = [self.sensors.tip, self.sensors.target].map(|sensor| self.relative(physics, sensor));
        norm(&[target[0] - tip[0], target[1] - tip[1]]) - physics.model().site_size()[self.target][0]
    }
}

impl Task for Finger {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        let drawn = match self.goal {
            Goal::Spin => vec![],
            Goal::Turn(_) => {
                let angle = random.uniform(-PI, PI);
                let hinge = physics.xanchor()[self.hinge.id];
                let radius = physics.model().geom_size()[self.cap].iter().sum::<f64>();
                vec![hinge[0] + radius * angle.sin(), hinge[2] + radius * angle.cos()]
            }
        };
        self.restore(physics, &drawn)?;
        joints::randomize_apart(physics, random)
    }

    fn observe(&self, physics: &Physics) -> Observation {
        let data = physics.sensordata();
        let ([proximal, distal], [x, z]) =
            (self.sensors.angles.map(|at| data[at]), self.relative(physics, self.sensors.tip));
        let mut all: Observation = vec![
            ("position", [proximal, distal, x, z].into()),
            ("velocity", self.sensors.velocities.map(|at| data[at]).into()),
            ("touch", self.sensors.touches.map(|at| data[at].ln_1p()).into()),
        ];
        if let Goal::Turn(_) = self.goal {
            all.push(("target_position", self.relative(physics, self.sensors.target).into()));
            all.push(("dist_to_target", self.distance(physics).into()));
        }
        all
    }

    fn reward(&self, physics: &Physics) -> f64 {
        f64::from(match self.goal {
            Goal::Spin => physics.sensordata()[self.sensors.velocities[2]] <= -SPIN,
            Goal::Turn(_) => self.distance(physics) <= 0.0,
        })
    }

    fn drawn(&self, physics: &Physics) -> Vec<f64> {
        let [x, _, z] = physics.model().site_pos()[self.target];
        match self.goal {
            Goal::Spin => vec![],
            Goal::Turn(_) => vec![x, z],
        }
    }

    fn restore(&mut self, physics: &mut Physics, drawn: &[f64]) -> Result<()> {
        match self.goal {
            Goal::Spin => physics.edit(|model| model.dof_damping_mut()[self.hinge.qvel] = SPIN_DAMPING),
            Goal::Turn(radius) => {
                let &[x, z] = drawn.first_chunk().context("its target lacks a coordinate")?;
                physics.edit(|model| {
                    let place = &mut model.site_pos_mut()[self.target];
                    (place[0], place[2]) = (x, z);
                    model.site_size_mut()[self.target][0] = radius;
                });
            }
        }
        Ok(())
    }
}
