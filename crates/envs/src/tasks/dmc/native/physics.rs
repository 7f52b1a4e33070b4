//! A simulated world: MuJoCo's model and data, stepped as dm_control steps them.

use anyhow::{Context, Result, bail, ensure};
use mujoco_rs::prelude::{MjData, MjModel, MjtDisableBit, MjtIntegrator, MjtObjBase, MjtState};
use std::ops::{Deref, DerefMut, Range};

/// MuJoCo's kinds of warnings, in its order.
const WARNINGS: [&str; 7] = [
    "a singular inertia",
    "too many contacts",
    "too many constraints",
    "a bad position",
    "a bad velocity",
    "a bad acceleration",
    "a bad control",
];

/// What [`Physics::state`] holds: everything that the next step depends on, except the model.
const STATE: u32 = MjtState::mjSTATE_INTEGRATION as u32;

/// Entries of a row-major 3x3 orientation by the axes of the world and of the body.
pub const XX: usize = 0;
pub const XZ: usize = 2;
pub const ZZ: usize = 8;

/// Euclidean length, rounded as numpy's is: each square is added in one operation.
pub fn norm(xs: &[f64]) -> f64 {
    xs.iter().fold(0.0f64, |sum, x| x.mul_add(*x, sum)).sqrt()
}

/// A world at some time. Its arrays are those of MuJoCo's `mjData`.
pub struct Physics {
    data: MjData<Box<MjModel>>,
    /// A second copy of the model, once [`Physics::edit`] needs one.
    spare: Option<Box<MjModel>>,
}

/// A joint's number in the model, and where its numbers begin in `qpos` and `qvel`.
#[derive(Clone, Copy)]
pub struct Joint {
    pub id: usize,
    pub qpos: usize,
    pub qvel: usize,
}

impl Deref for Physics {
    type Target = MjData<Box<MjModel>>;

    fn deref(&self) -> &Self::Target {
        &self.data
    }
}

impl DerefMut for Physics {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.data
    }
}

impl Physics {
    pub fn new(model: MjModel) -> Result<Self> {
        let data = MjData::try_new(Box::new(model)).context("there is no memory for a simulation")?;
        Ok(Physics { data, spare: None })
    }

    /// Scales masses and inertias to a sum of `total` kilograms, as the compiler's attribute `settotalmass` does.
    pub fn set_total_mass(&mut self, total: f64) {
        self.edit(|model| model.set_totalmass(total));
        self.data.set_const();
        let inertia = self.model().dof_m0();
        let mean = inertia.iter().sum::<f64>() / inertia.len() as f64;
        self.data.model_stat_mut().meaninertia = mean; // the solver's scale, which the above leaves as it was
        self.spare = None;
    }

    /// Resets to the model's own state at time 0. Errors are ignored, as another state follows.
    pub fn reset(&mut self) {
        self.data.reset();
        let _ = self.forward();
    }

    /// Computes everything that follows from positions and velocities, without the actuators' forces, as there is no
    /// action yet.
    pub fn forward(&mut self) -> Result<()> {
        let flags = self.model_opt().disableflags;
        self.data.model_opt_mut().disableflags = flags | MjtDisableBit::mjDSBL_ACTUATION as i32;
        let done = self.watched(MjData::forward);
        self.data.model_opt_mut().disableflags = flags;
        done
    }

    /// Advances by `count` timesteps. Before and after, everything that follows from positions and velocities is up to
    /// date: the previous call has done the first half of the first step.
    pub fn step(&mut self, count: usize) -> Result<()> {
        // The Runge-Kutta integrator cannot be entered halfway.
        let whole = self.model_opt().integrator == MjtIntegrator::mjINT_RK4 as i32;
        self.watched(|data| {
            if whole {
                data.step();
            } else {
                data.step2();
            }
            (1..count).for_each(|_| data.step());
            data.step1();
        })
    }

    /// Does something; a new warning of MuJoCo is an error, as it then has given up on the state, or part of it.
    fn watched(&mut self, action: impl FnOnce(&mut MjData<Box<MjModel>>)) -> Result<()> {
        let counts = |data: &MjData<_>| data.warning().each_ref().map(|warning| warning.number);
        let (before, time) = (counts(&self.data), self.time());
        action(&mut self.data);
        let new = counts(&self.data).into_iter().zip(before).position(|(now, before)| now > before);
        let Some(kind) = new else { return Ok(()) };
        bail!("the simulation broke down at {time:.2} s of an episode: MuJoCo found {}", WARNINGS[kind])
    }

    /// Changes constants of the model.
    pub fn edit(&mut self, change: impl Fn(&mut MjModel)) {
        // The model cannot be changed in place, but it can be swapped for another of the same sizes.
        let mut model = self.spare.take().unwrap_or_else(|| self.data.model_clone());
        change(&mut model);
        let mut old = self.data.swap_model(model);
        change(&mut old);
        self.spare = Some(old);
    }

    /// What the next step depends on, as numbers; [`Physics::restore`] puts it back.
    pub fn state(&self) -> Vec<f64> {
        self.data.state(STATE).into_vec()
    }

    /// Continues from a saved state.
    pub fn restore(&mut self, state: &[f64]) -> Result<()> {
        let needed = self.model().state_size(STATE);
        ensure!(state.len() == needed, "it has {} numbers, but this model {needed}", state.len());
        ensure!(state.iter().all(|x| x.is_finite()), "it has numbers that are not finite");
        self.data.reset();
        self.data.set_state(state, STATE)?;
        self.watched(MjData::step1)
    }

    pub fn body(&self, name: &str) -> Result<usize> {
        self.find(MjtObjBase::mjOBJ_BODY, "body", name)
    }

    pub fn geom(&self, name: &str) -> Result<usize> {
        self.find(MjtObjBase::mjOBJ_GEOM, "geom", name)
    }

    pub fn site(&self, name: &str) -> Result<usize> {
        self.find(MjtObjBase::mjOBJ_SITE, "site", name)
    }

    pub fn joint(&self, name: &str) -> Result<Joint> {
        Ok(self.nth_joint(self.find(MjtObjBase::mjOBJ_JOINT, "joint", name)?))
    }

    pub fn nth_joint(&self, id: usize) -> Joint {
        let model = self.model();
        Joint { id, qpos: model.jnt_qposadr()[id] as usize, qvel: model.jnt_dofadr()[id] as usize }
    }

    /// Where a sensor's values are in `sensordata`.
    pub fn sensor(&self, name: &str) -> Result<Range<usize>> {
        let sensor = self.find(MjtObjBase::mjOBJ_SENSOR, "sensor", name)?;
        let (start, len) = (self.model().sensor_adr()[sensor] as usize, self.model().sensor_dim()[sensor] as usize);
        Ok(start..start + len)
    }

    fn find(&self, kind: MjtObjBase, word: &str, name: &str) -> Result<usize> {
        self.model().name_to_id(kind, name).with_context(|| {
            format!("the model has no {word} '{name}'; try dm_control 1.0.50, or --env.dmc.engine python")
        })
    }
}
