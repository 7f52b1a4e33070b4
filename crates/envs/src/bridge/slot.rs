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
    /// The process that has the action of the coming step; none where it was not sent.
    begun: Option<u64>,
    /// The last observation while an episode is under way.
    last: Option<Record>,
}

impl Slot {
    pub fn new(worker: Arc<Worker>, slot: usize) -> Self {
        Slot { worker, slot, begun: None, last: None }
    }

    /// Sends the action if it has not been sent, and waits for its observation.
    fn attempt(&mut self, action: &Record) -> (u64, Result<Record>) {
        let (generation, sent) = match self.begun.take() {
            Some(generation) => (generation, Ok(())),
            None => self.worker.begin(self.slot, action),
        };
        (generation, sent.and_then(|()| self.worker.finish(self.slot, generation)))
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
        let (generation, sent) = self.worker.begin(self.slot, action);
        self.begun = sent.ok().map(|()| generation);
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        if flag(action, "reset")? {
            self.last = None;
        }
        let (mut generation, mut result) = self.attempt(action);
        while let Err(cause) = result {
            generation = self.worker.restart(generation, cause)?;
            if let Some(last) = self.last.take() {
                return Ok(close(last));
            }
            // The new process was asked to reset; this takes its answer.
            result = self.worker.finish(self.slot, generation);
        }
        if let Ok(obs) = &result {
            self.last = (!flag(obs, "is_last")?).then(|| obs.clone());
        }
        result
    }
}

/// The end of an episode that was cut off: the last observation once more, with `is_last` and no reward.
fn close(mut obs: Record) -> Record {
    for (_, value) in obs.iter_mut().filter(|(key, _)| key.starts_with("log/")) {
        *value = Array::zeros(value.dtype(), &value.shape);
    }
    obs.insert("reward".into(), Array::f32(0.0));
    obs.insert("is_first".into(), Array::bool(false));
    obs.insert("is_last".into(), Array::bool(true));
    obs.insert("is_terminal".into(), Array::bool(false));
    obs
}
