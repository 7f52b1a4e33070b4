//! `quadruped_walk` and `quadruped_run`: an animal on four legs in three dimensions.

use super::control::{Observation, Parts, Task};
use super::model;
use super::physics::{Joint, Physics, ZZ, norm};
use super::reward::{Slope, tolerance};
use crate::numpy::RandomState;
use anyhow::{Result, ensure};
use mujoco_rs::prelude::{MjtJoint, MjtSensor};
use std::path::Path;

/// Seconds of an episode, which also determine the size of the floor.
const TIME_LIMIT: f64 = 20.0;
/// The most heights that are tried to find one without contact, each a centimetre above the last.
const ATTEMPTS: usize = 10_000;
/// Elements of the file for other tasks of the animal, by where they begin and end.
const OTHERS: [(&str, &str); 7] = [
    ("<geom name=\"wall_px\"", "/>"),
    ("<geom name=\"wall_py\"", "/>"),
    ("<geom name=\"wall_nx\"", "/>"),
    ("<geom name=\"wall_ny\"", "/>"),
    ("<site name=\"target\"", "/>"),
    ("<geom name=\"terrain\"", "/>"),
    ("<body name=\"ball\"", "</body>"),
];

struct Quadruped {
    /// The target speed in m/s.
    speed: f64,
    torso: usize,
    /// Index of the free joint in `qpos`: three numbers of the position, four of the orientation.
    root: usize,
    hinges: Vec<Joint>,
    velocity: usize,
    /// Indices into `sensordata` of the accelerometer and the gyroscope, and of forces and torques at the toes.
    motion: Vec<usize>,
    toes: Vec<usize>,
}

pub fn make(task: &str, folder: &Path) -> Result<Option<Parts>> {
    let speed = match task {
        "walk" => 0.5,
        "run" => 5.0,
        _ => return Ok(None),
    };
    let physics = model::build(folder, text(folder, TIME_LIMIT * speed)?)?;
    let hinges = (0..physics.model().njnt() as usize)
        .filter(|&joint| physics.model().jnt_type()[joint] == MjtJoint::mjJNT_HINGE)
        .map(|joint| physics.nth_joint(joint));
    let task = Box::new(Quadruped {
        speed,
        torso: physics.body("torso")?,
        root: physics.joint("root")?.qpos,
        hinges: hinges.collect(),
        velocity: physics.sensor("velocimeter")?.start,
        motion: sensors(&physics, [MjtSensor::mjSENS_GYRO, MjtSensor::mjSENS_ACCELEROMETER]),
        toes: sensors(&physics, [MjtSensor::mjSENS_FORCE, MjtSensor::mjSENS_TORQUE]),
    });
    Ok(Some(Parts { physics, task, time_limit: TIME_LIMIT, step: Some(0.02) }))
}

/// The model on a floor of `size` metres from its middle, with nothing else in its world.
fn text(folder: &Path, size: f64) -> Result<String> {
    let mut text = model::read(folder, "quadruped")?;
    for (start, end) in OTHERS {
        model::replace(&mut text, start, end, "")?;
    }
    while model::replace(&mut text, "<rangefinder ", "/>", "").is_ok() {}
    let floor = "<geom name=\"floor\" type=\"plane\" size=\"";
    model::replace(&mut text, floor, "\"", &format!("{floor}{size} {size} .5\""))?;
    Ok(text)
}

/// Indices of the values of sensors of either kind, in the model's order.
fn sensors(physics: &Physics, kinds: [MjtSensor; 2]) -> Vec<usize> {
    let model = physics.model();
    let wanted = (0..model.nsensor() as usize).filter(|&sensor| kinds.contains(&model.sensor_type()[sensor]));
    let values = |sensor: usize| {
        let start = model.sensor_adr()[sensor] as usize;
        start..start + model.sensor_dim()[sensor] as usize
    };
    wanted.flat_map(values).collect()
}

impl Task for Quadruped {
    fn start(&mut self, physics: &mut Physics, random: &mut RandomState) -> Result<()> {
        let mut orientation = [(); 4].map(|_| random.randn());
        let length = norm(&orientation);
        orientation.iter_mut().for_each(|x| *x /= length);
        // From within the floor upwards until nothing touches.
        let mut height = 0.0;
        for attempt in 0.. {
            ensure!(attempt < ATTEMPTS, "no height without a contact was found in {ATTEMPTS} attempts");
            physics.reset();
            let root = &mut physics.qpos_mut()[self.root..self.root + 7];
            root[..3].copy_from_slice(&[0.0, 0.0, height]);
            root[3..].copy_from_slice(&orientation);
            let _ = physics.forward(); // there may be more contacts than can be listed
            if physics.ncon() == 0 {
                break;
            }
            height += 0.01;
        }
        Ok(())
    }

    fn observe(&self, physics: &Physics) -> Observation {
        let data = physics.sensordata();
        let angles = self.hinges.iter().map(|joint| physics.qpos()[joint.qpos]);
        let speeds = self.hinges.iter().map(|joint| physics.qvel()[joint.qvel]);
        let own: Vec<f64> = angles.chain(speeds).chain(physics.act().iter().copied()).collect();
        let motion: Vec<f64> = self.motion.iter().map(|&at| data[at]).collect();
        let toes: Vec<f64> = self.toes.iter().map(|&at| data[at].asinh()).collect();
        vec![
            ("egocentric_state", own.into()),
            ("torso_velocity", data[self.velocity..self.velocity + 3].into()),
            ("torso_upright", physics.xmat()[self.torso][ZZ].into()),
            ("imu", motion.into()),
            ("force_torque", toes.into()),
        ]
    }

    fn reward(&self, physics: &Physics) -> f64 {
        let forward = physics.sensordata()[self.velocity];
        let moving = tolerance(forward, [self.speed, f64::INFINITY], self.speed, Slope::Linear(0.5));
        let upright = physics.xmat()[self.torso][ZZ];
        tolerance(upright, [1.0, f64::INFINITY], 2.0, Slope::Linear(0.0)) * moving
    }
}
