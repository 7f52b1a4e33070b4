//! `Slot`: one environment of a worker, whose failures cost an episode and never a wrong value.

use super::worker::Worker;
use crate::Env;
use crate::record::flag;
use anyhow::Result;
use spaces::{Array, Record, Spaces};
use std::sync::Arc;

/// One environment of a worker.
pub struct Slot {
    worker: Arc<Worker>,
    slot: usize,
    /// The process that this slot has last heard of. Another one knows nothing of the episode under way.
    generation: u64,
    /// Whether that process has the action of the coming step.
    begun: bool,
    /// The last observation while an episode is under way.
    last: Option<Record>,
}

impl Slot {
    pub fn new(worker: Arc<Worker>, slot: usize) -> Self {
        Slot { worker, slot, generation: 0, begun: false, last: None }
    }

    /// Sends the action, with `reset` where no episode is under way: a restarted process has begun one of its own.
    fn send(&self, action: &Record) -> Result<()> {
        if self.last.is_some() {
            return self.worker.begin(self.slot, self.generation, action);
        }
        let mut reset = action.clone();
        reset.insert("reset".into(), Array::bool(true));
        self.worker.begin(self.slot, self.generation, &reset)
    }

    /// Sends the action if it has not been sent, and waits for its observation.
    fn attempt(&mut self, action: &Record) -> Result<Record> {
        if !std::mem::take(&mut self.begun) {
            self.send(action)?;
        }
        self.worker.finish(self.slot, self.generation)
    }
}

impl Env for Slot {
    fn obs_space(&self) -> &Spaces {
        &self.worker.layout().obs.spaces
    }

    fn act_space(&self) -> &Spaces {
        &self.worker.layout().act.spaces
    }

    fn begin(&mut self, action: &Record) {
        // What goes wrong here shows again in `step`, which can say so.
        self.begun = self.begun || self.send(action).is_ok();
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        if flag(action, "reset")? {
            self.last = None;
        }
        let mut result = self.attempt(action);
        while let Err(cause) = result {
            self.generation = self.worker.restart(self.generation, cause)?;
            if let Some(last) = self.last.take() {
                return Ok(close(last, self.obs_space()));
            }
            // The new process was asked to reset; this takes its answer.
            result = self.worker.finish(self.slot, self.generation);
        }
        if let Ok(obs) = &result {
            self.last = (!flag(obs, "is_last")?).then(|| obs.clone());
        }
        result
    }
}

/// The end of an episode that was cut off: the last observation once more, with `is_last` and no reward.
fn close(mut obs: Record, space: &Spaces) -> Record {
    obs.retain(|key, _| space.contains_key(key));
    for (_, value) in obs.iter_mut().filter(|(key, _)| spaces::is_log(key)) {
        *value = Array::zeros(value.dtype(), &value.shape);
    }
    obs.insert("reward".into(), Array::f32(0.0));
    obs.insert("is_first".into(), Array::bool(false));
    obs.insert("is_last".into(), Array::bool(true));
    obs.insert("is_terminal".into(), Array::bool(false));
    obs
}
