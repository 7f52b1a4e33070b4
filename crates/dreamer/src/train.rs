//! `train`: one gradient update, and its two halves `begin` and `finish`, between which a GPU computes it.

use crate::agent::Agent;
use crate::batch::Prepared;
use crate::noise::{Noise, Purpose};
use crate::update::Begun;
use crate::{Carry, Metrics};
use anyhow::{Result, ensure};
use engine::Device;
use engine::cuda::{Member, Point, Side};
use spaces::Record;

/// What [`Agent::train`] returns: metrics and `replay`, the fresh latents to write back
/// (`stepid` uint8 [B, T, 20], `dyn/deter`, `dyn/stoch`); `replay` is empty where `replay_context` is 0.
pub struct Trained {
    pub metrics: Metrics,
    pub replay: Record,
}

impl Agent {
    /// One gradient update on `batch` [B, K+T, ...] as the replay delivers it; without the key `consec`, no row continues
    /// the batch before (unless `replay_context` is 0, where all do). An Err names the first
    /// tensor that holds a number which is not finite; agent and carry are then unchanged.
    pub fn train(&mut self, carry: &mut Carry, batch: &Record) -> Result<Trained> {
        self.train_prepared(carry, &mut self.preparer().prepare(batch.clone())?)
    }

    /// [`train`](Agent::train) on a batch that was prepared by this agent's [`preparer`](Agent::preparer).
    pub fn train_prepared(&mut self, carry: &mut Carry, batch: &mut Prepared) -> Result<Trained> {
        let noise = self.noise();
        self.train_with(carry, batch, &noise)
    }

    /// Begins an update. Once updates are recorded this waits for no GPU: a snapshot can act, and the next update
    /// begin, while this one is under way. [`finish`](Agent::finish) returns its results. An error changes nothing.
    pub fn begin(&mut self, carry: &mut Carry, batch: &mut Prepared) -> Result<Begun> {
        let noise = self.noise();
        self.begin_with(carry, batch, &noise)
    }

    pub(crate) fn noise(&self) -> Noise {
        let part = self.on_gpu.member.as_ref().map_or(0, Member::rank);
        Noise::Counter { seed: self.config().seed, purpose: Purpose::Train, step: self.opt.step, step_at: None, part }
    }

    pub(crate) fn train_with(&mut self, carry: &mut Carry, batch: &mut Prepared, noise: &Noise) -> Result<Trained> {
        let before = carry.clone();
        let begun = self.begin_with(carry, batch, noise)?;
        self.finish(begun).inspect_err(|_| {
            *carry = before;
            self.uncount();
        })
    }

    /// Takes back the count of an update that has changed nothing else.
    fn uncount(&mut self) {
        self.opt.step -= 1;
        self.slow_count -= 1;
        self.on_gpu.followers.iter_mut().for_each(Agent::uncount);
    }

    fn begin_with(&mut self, carry: &mut Carry, batch: &mut Prepared, noise: &Noise) -> Result<Begun> {
        ensure!(!self.is_snapshot(), "a snapshot of an agent cannot be trained; train the agent itself");
        let (parts, prepared) = (self.devices(), 1 + batch.others.len());
        ensure!(
            parts == prepared,
            "a batch in {prepared} parts is not for an agent on {parts} devices; each batch is trained on once, prepared by its agent's preparer"
        );
        if self.on_gpu.followers.is_empty() {
            carry.check(self)?;
            batch.complete(carry, &self.layout)?;
            let begun = self.begin_part(batch, noise)?;
            carry.latent = begun.updated.last.clone();
            carry.prevact = batch.last.to(self.device());
            carry.step += 1;
            Ok(begun)
        } else {
            let begun = self.begin_together(batch, noise)?;
            carry.step += 1; // the rest is of no use: nothing is carried
            Ok(begun)
        }
    }

    /// An update on a batch that is complete, or on this GPU's part of one.
    pub(crate) fn begin_part(&mut self, batch: &mut Prepared, noise: &Noise) -> Result<Begun> {
        let updated = self.update(&batch.batch, batch.upload.take(), noise)?;
        let done = match self.device() {
            Device::Cpu => None,
            Device::Gpu(gpu) => Some(gpu.point()),
        };
        let (shape, ids) = ([batch.batch.b, batch.batch.t], batch.ids.take());
        let (count, params, member) = (self.opt.step, self.params.count(""), self.on_gpu.member.clone());
        Ok(Begun { updated, count, params, shape, ids, done, others: vec![], member })
    }

    /// Waits for an update that this agent, or the one that it is a snapshot of, has begun. An Err names the first tensor
    /// that holds a number which is not finite; that update has changed no parameter.
    pub fn finish(&self, mut begun: Begun) -> Result<Trained> {
        if !begun.others.is_empty() {
            begun.wait_for_all()?;
        }
        let others = std::mem::take(&mut begun.others);
        let trained = self.finish_part(begun)?;
        let others = others.into_iter().map(|other| self.finish_part(other)).collect::<Result<Vec<_>>>()?;
        Ok(trained.with(others))
    }

    fn finish_part(&self, begun: Begun) -> Result<Trained> {
        match begun.updated.device() {
            Device::Cpu => self.results(begun),
            // Waited for before anything is copied: a copy that waits in the driver may keep others from starting work.
            Device::Gpu(gpu) => gpu.aside(Side::Fetch, || {
                begun.done.iter().for_each(Point::wait);
                self.results(begun)
            }),
        }
    }

    fn results(&self, begun: Begun) -> Result<Trained> {
        let Begun { updated, count, params, shape, ids, .. } = begun;
        self.judge(&updated)?;
        let mut metrics = updated.numbers.read();
        metrics.extend(optimizer_metrics(count, params, updated.norms()));
        let mut replay = Record::new();
        if let Some((deter, stoch)) = &updated.latents {
            self.store_latents(deter, stoch, &shape, &mut replay);
        }
        replay.extend(ids.map(|ids| ("stepid".to_string(), ids)));
        Ok(Trained { metrics, replay })
    }
}

/// Metrics after `count` updates of `params` numbers, from the norms of unclipped gradients, changes and parameters.
fn optimizer_metrics(count: u64, params: usize, [grad, update, param]: [f32; 3]) -> Metrics {
    let rms = |norm: f32| norm / (params as f32).sqrt();
    let named = [
        ("opt/updates", count as f32),
        ("opt/grad_norm", grad),
        ("opt/grad_rms", rms(grad)),
        ("opt/update_rms", rms(update)),
        ("opt/param_rms", rms(param)),
        ("opt/param_count", params as f32),
    ];
    named.into_iter().map(|(name, x)| (name.to_string(), x)).collect()
}
