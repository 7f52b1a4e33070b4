//! `Probe`: the environment that the wrappers' tests wrap.

use crate::Env;
use crate::record::{Moment, act_space, flag, number, obs_space};
use anyhow::{Result, bail};
use spaces::{Array, Record, Space, Spaces};

/// Actions that make the probe fail and panic.
pub const CRASH: f32 = 666.0;
pub const PANIC: f32 = 999.0;

/// Its reward is the action, its observation the number of the step.
pub struct Probe {
    pub obs_space: Spaces,
    pub act_space: Spaces,
    length: u32,
    step: u32,
    done: bool,
}

impl Probe {
    fn build(action: Space, length: u32) -> Box<Probe> {
        Box::new(Probe {
            obs_space: obs_space([("step", Space::float(&[]))]),
            act_space: act_space([("action", action)]),
            length,
            step: 0,
            done: true,
        })
    }

    pub fn endless() -> Box<Probe> {
        Self::build(Space::float(&[]), u32::MAX)
    }

    pub fn ending_after(length: u32) -> Box<Probe> {
        Self::build(Space::float(&[]), length)
    }

    pub fn bounded(low: f64, high: f64) -> Box<Probe> {
        Self::build(Space::bounded(&[], low, high), u32::MAX)
    }
}

pub fn act(x: f32) -> Record {
    Record::from([("action".into(), Array::f32(x)), ("reset".into(), Array::bool(false))])
}

pub fn reset() -> Record {
    Record::from([("action".into(), Array::f32(0.0)), ("reset".into(), Array::bool(true))])
}

impl Env for Probe {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        if flag(action, "reset")? || self.done {
            (self.step, self.done) = (0, false);
            return Ok(Moment::FIRST.record([("step", Array::f32(0.0))]));
        }
        let reward = number(action, "action")?;
        if reward == CRASH {
            bail!("the probe was told to fail");
        }
        assert!(reward != PANIC, "the probe was told to panic");
        self.step += 1;
        self.done = self.step >= self.length;
        let moment = Moment { reward, is_first: false, is_last: self.done, is_terminal: self.done };
        Ok(moment.record([("step", Array::f32(self.step as f32))]))
    }
}
