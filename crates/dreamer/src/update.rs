//! One gradient update: computed eagerly, or, on a GPU, recorded once and replayed with one call.

use crate::Carry;
use crate::agent::Agent;
use crate::batch::Batch;
use crate::gauges::Readings;
use crate::loss::Loss;
use crate::noise::Noise;
use crate::params::Params;
use crate::rssm::Latent;
use crate::transfer::Transfer;
use anyhow::{Result, bail};
use engine::cuda::{Between, Gpu, KernelTime, Member, Point, Recording, Upload};
use engine::ops::{self, Varying};
use engine::profile::{self, Costs, part};
use engine::{Bytes, Device, Sink, Tensor, backward};
use spaces::{Array, Record};
use std::collections::BTreeMap;

/// The results of an update besides new parameters, on the agent's device.
#[derive(Clone)]
pub(crate) struct Updated {
    pub numbers: Readings,
    /// The norms of gradients, changes and parameters, and the first tensor that is not finite, or -1: [4].
    verdict: Tensor,
    /// Names of the losses: `verdict[3]` counts through these first, then through the gradients of the parameters.
    losses: Vec<String>,
    /// The state after the last step of each sequence.
    pub last: Latent,
    /// Deter in half precision and stoch as class indices, for the replay.
    pub latents: Option<(Bytes, Bytes)>,
}

/// An update that [`Agent::begin`] has begun; on a GPU it may be under way.
pub struct Begun {
    pub(crate) updated: Updated,
    /// Number of updates, this one included.
    pub(crate) count: u64,
    /// Elements of all parameters.
    pub(crate) params: usize,
    /// Sequences and steps.
    pub(crate) shape: [usize; 2],
    /// Ids of the trained steps [B, T, 20], where latents are written back.
    pub(crate) ids: Option<Array>,
    /// Reached when a GPU has done it.
    pub(crate) done: Option<Point>,
    /// The parts of the other GPUs, where several work together.
    pub(crate) others: Vec<Begun>,
    pub(crate) member: Option<Member>,
}

/// A recorded update, with the tensors that it reads and writes. A clone of the agent starts without one.
#[derive(Default)]
pub(crate) struct Repeat {
    /// Sequences and steps of the last update, and of what is recorded.
    last: Option<Shape>,
    /// Updates that were computed eagerly, so that kernels are loaded and constants copied.
    seen: Vec<Seen>,
    recorded: Option<Recorded>,
}

struct Recorded {
    /// The addresses of the agent's tensors when it was recorded.
    places: Vec<u64>,
    /// The memory that the batch's tensors are views of.
    block: Tensor,
    varying: Varying,
    recording: Recording,
    updated: Updated,
}

/// An update that was computed eagerly.
#[derive(Clone, Copy)]
struct Seen {
    shape: Shape,
    /// GPU memory that it took, in bytes.
    memory: usize,
}

/// Operations by part of an update (see [`engine::profile`]).
pub type PartCosts = BTreeMap<&'static str, Costs>;

/// Sequences and steps of a batch, which the sequence of kernels depends on.
type Shape = [usize; 2];

impl Clone for Repeat {
    fn clone(&self) -> Self {
        Repeat::default()
    }
}

impl Repeat {
    #[cfg(test)]
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Kernels of the recorded update, where there is one and that is known.
    #[cfg(test)]
    pub fn launches(&self) -> Option<usize> {
        self.recorded.as_ref()?.recording.launches()
    }
}

impl Agent {
    /// One update on a batch on the processor, which `upload` may be copying to the agent's GPU already; does not wait
    /// for a GPU. If a number is not finite, no parameter changes, and [`judge`](Agent::judge) returns an error.
    pub(crate) fn update(&mut self, batch: &Batch, upload: Option<Upload>, noise: &Noise) -> Result<Updated> {
        let mut repeat = std::mem::take(&mut self.on_gpu.repeat);
        let updated = match (self.device(), noise) {
            (Device::Gpu(gpu), Noise::Counter { .. }) => self.repeated(gpu, batch, upload, noise, &mut repeat),
            (device, _) => {
                let rates = self.opt.rates().to(device);
                self.compute(&batch.to(device), noise, &rates, self.slow_moves())
            }
        };
        self.on_gpu.repeat = repeat;
        let updated = updated?;
        if self.device() == Device::Cpu {
            self.judge(&updated)?;
        }
        self.opt.step += 1;
        self.slow_count += 1;
        Ok(updated)
    }

    /// The update on a batch on the agent's device; `slow` says whether the slow value moves. Waits for nothing.
    fn compute(&mut self, batch: &Batch, noise: &Noise, rates: &Tensor, slow: bool) -> Result<Updated> {
        let mut out = self.loss(batch, noise, true)?;
        let mut grads = self.gradients(&out);
        if let Some(member) = &self.on_gpu.member {
            // The loss is averaged too: if it is not finite on one GPU, its mean is finite on none, and none updates.
            member.average(&mut grads.iter_mut().chain([&mut out.total]).collect::<Vec<_>>());
            out.losses.push(("total".into(), out.total.clone()));
        }
        let watched: Vec<&Tensor> = out.losses.iter().map(|(_, x)| x).collect();
        let verdict = part("optimizer", || {
            let verdict = self.opt.update(&mut self.params, &mut grads, &watched, rates);
            if slow {
                self.move_slow(&verdict);
            }
            verdict
        });
        self.norms.follow(&out.norms, &verdict);
        let latents = self.packed_latents(&out.observed.deter, &out.observed.stoch);
        let mut metrics = std::mem::take(&mut out.metrics);
        metrics.put("opt/loss", &out.total);
        Ok(Updated {
            numbers: metrics.readings(),
            verdict,
            losses: out.losses.iter().map(|(name, _)| name.clone()).collect(),
            last: out.observed.last(),
            latents,
        })
    }

    /// The gradients of a loss for all parameters.
    pub(crate) fn gradients(&self, out: &Loss) -> Vec<Tensor> {
        let mut sink = Sink::new();
        backward(&[(&out.total, ops::full(&[], 1.0, self.device()))], &mut sink);
        sink.finish(&self.params.leaves())
    }

    /// The same update as `compute` makes, from a recording where there is one.
    fn repeated(
        &mut self,
        gpu: &'static Gpu,
        batch: &Batch,
        upload: Option<Upload>,
        noise: &Noise,
        repeat: &mut Repeat,
    ) -> Result<Updated> {
        let device = Device::Gpu(gpu);
        let shape = [batch.b, batch.t];
        let memory = repeat.seen.iter().find(|seen| seen.shape == shape).map(|seen| seen.memory);
        if repeat.last.replace(shape) != Some(shape) {
            repeat.recorded = None;
            let (batch, rates) = (batch.to(device), self.opt.rates().to(device));
            if memory.is_some() {
                return self.compute(&batch, noise, &rates, self.slow_moves());
            }
            let (updated, memory) = self.compute_sparing(gpu, &batch, noise, &rates);
            repeat.seen.push(Seen { shape, memory });
            return updated;
        }
        let memory = memory.unwrap_or(0); // each shape is seen before it is the last one
        let places = self.settle();
        repeat.recorded.take_if(|recorded| recorded.places != places);
        let recorded = match &mut repeat.recorded {
            Some(recorded) => recorded,
            none => {
                gpu.release_pool(); // a recording has memory of its own
                none.insert(self.recorded(gpu, places, batch, |f| gpu.record_within(memory, f))?)
            }
        };
        upload.or_else(|| batch.send(device)).iter_mut().for_each(|upload| upload.receive(&recorded.block));
        recorded.varying.set(self.opt.constants().varying(), self.opt.step);
        match &self.on_gpu.member {
            Some(member) => member.together(|| recorded.recording.run()),
            None => recorded.recording.run(),
        }
        self.move_slow_apart(&recorded.updated.verdict);
        Ok(recorded.updated.kept())
    }

    /// An update that is computed eagerly, with little memory, and how much that was.
    fn compute_sparing(
        &mut self,
        gpu: &'static Gpu,
        batch: &Batch,
        noise: &Noise,
        rates: &Tensor,
    ) -> (Result<Updated>, usize) {
        let (updated, memory) = gpu.most_during(|| self.compute(batch, noise, rates, self.slow_moves()));
        // Results that live on are copied, so as not to keep blocks that a recording will not need.
        let kept = |updated: Updated| {
            gpu.release_pool();
            updated.kept()
        };
        (updated.map(kept), memory)
    }

    /// One update on a GPU that has done one of the same shapes before: the time of each of its kernels or parts, and
    /// the operations of each part. Empty on the processor, and where several GPUs work together.
    pub fn kernel_times(
        &mut self,
        carry: &mut Carry,
        record: &Record,
        between: Between,
    ) -> Result<(Vec<KernelTime>, PartCosts)> {
        let Device::Gpu(gpu) = self.device() else { return Ok(Default::default()) };
        if self.on_gpu.member.is_some() {
            return Ok(Default::default()); // one GPU cannot do the work of several
        }
        self.on_gpu.repeat = Repeat::default();
        let mut prepared = self.preparer().prepare(record.clone())?;
        prepared.complete(carry, &self.layout)?;
        let batch = &prepared.batch;
        let places = self.settle();
        gpu.release_pool();
        let mut costs = PartCosts::new();
        let record = |f: &mut dyn FnMut() -> Result<Updated>| {
            let (recorded, measured) = profile::measure(|| gpu.record_marked(between, f));
            costs = measured;
            recorded
        };
        let recorded = self.recorded(gpu, places, batch, record)?;
        batch.send(self.device()).iter_mut().for_each(|upload| upload.receive(&recorded.block));
        recorded.varying.set(self.opt.constants().varying(), self.opt.step);
        let times = recorded.recording.times();
        self.move_slow_apart(&recorded.updated.verdict);
        self.judge(&recorded.updated)?;
        self.opt.step += 1;
        self.slow_count += 1;
        Ok((times, costs))
    }

    /// For tests of memory: allocates what updates on such batches need, by recording one without running it. Only for
    /// an emulated GPU, where that saves hours; its kernels and constants must have been used before.
    #[doc(hidden)]
    pub fn rehearse(&mut self, carry: &mut Carry, record: &Record) -> Result<()> {
        let Device::Gpu(gpu) = self.device() else { return Ok(()) };
        if self.on_gpu.member.is_some() {
            return Ok(()); // one GPU cannot do the work of several
        }
        let mut prepared = self.preparer().prepare(record.clone())?;
        prepared.complete(carry, &self.layout)?;
        let batch = &prepared.batch;
        let shape = [batch.b, batch.t];
        let places = self.settle();
        let (input, varying, noise) = (batch.to(self.device()), Varying::new(self.device()), self.noise());
        let (updated, memory) = gpu.most_of_recording(|| self.compute(&input, &noise, &varying.rates(), true));
        let _results = updated?.kept(); // held, as those of the first update are while the second is recorded
        let recorded = self.recorded(gpu, places, batch, |f| gpu.record_within(memory, f))?;
        self.on_gpu.repeat = Repeat { last: Some(shape), seen: vec![Seen { shape, memory }], recorded: Some(recorded) };
        Ok(())
    }

    fn recorded(
        &mut self,
        gpu: &'static Gpu,
        places: Vec<u64>,
        batch: &Batch,
        record: impl FnOnce(&mut dyn FnMut() -> Result<Updated>) -> (Recording, Result<Updated>),
    ) -> Result<Recorded> {
        let device = Device::Gpu(gpu);
        let (block, varying) = (ops::zeros(&[batch.size() / 4], device), Varying::new(device));
        let batch = batch.over(&block);
        let (noise, rates) = (self.noise().with_step_at(&varying.step()), varying.rates());
        let (recording, updated) = record(&mut || self.compute(&batch, &noise, &rates, self.slow_always_moves()));
        [&self.params, &self.slow].into_iter().for_each(Params::forget_packed); // they are the recording's
        Ok(Recorded { places, block, varying, recording, updated: updated? })
    }

    /// Makes this agent the only owner of every tensor that an update changes, and returns their addresses.
    pub(crate) fn settle(&mut self) -> Vec<u64> {
        let all = self.params.values_mut().iter_mut().chain(self.slow.values_mut());
        let all = all.chain(&mut self.opt.rms).chain(&mut self.opt.momentum).chain(self.norms.states_mut());
        all.map(|x| {
            x.unshare();
            x.address()
        })
        .collect()
    }

    /// An error where the verdict is that a number was not finite. Waits for a GPU.
    pub(crate) fn judge(&self, updated: &Updated) -> Result<()> {
        let bad = updated.verdict.host().data()[3];
        if bad < 0.0 {
            return Ok(());
        }
        let gradient = |i: usize| self.params.iter().nth(i).map(|(name, _)| format!("the gradient of '{name}'"));
        let index = bad as usize;
        let name = match updated.losses.get(index) {
            Some(name) => format!("the loss '{name}'"),
            None => gradient(index - updated.losses.len()).unwrap_or_default(),
        };
        bail!("{name} holds a number that is not finite; lower agent.opt.lr, or look at the rewards and observations")
    }

    fn slow_moves(&self) -> bool {
        self.slow_count.is_multiple_of(self.config().slowvalue.every)
    }

    /// Whether the slow value moves in every update, and so in a recorded one.
    fn slow_always_moves(&self) -> bool {
        self.config().slowvalue.every == 1
    }

    fn move_slow(&mut self, verdict: &Tensor) {
        let source = self.params.iter().filter(|(name, _)| name.starts_with("val/")).map(|(_, x)| x);
        let mut pairs: Vec<(&Tensor, &mut Tensor)> = source.zip(self.slow.values_mut()).collect();
        ops::ema_all(&mut pairs, self.layout.config.slowvalue.rate, Some(verdict));
    }

    /// Moves the slow value after a recorded update that does not, if it is due.
    fn move_slow_apart(&mut self, verdict: &Tensor) {
        if self.slow_moves() && !self.slow_always_moves() {
            self.move_slow(verdict);
        }
    }
}

impl Updated {
    /// The norms of gradients before clipping, of changes, and of parameters. Waits for a GPU.
    pub fn norms(&self) -> [f32; 3] {
        let verdict = self.verdict.host();
        [verdict.data()[0], verdict.data()[1], verdict.data()[2]]
    }

    pub fn device(&self) -> Device {
        self.verdict.device()
    }

    /// A copy that the next run of the recording does not overwrite.
    fn kept(&self) -> Updated {
        let mut kept = self.clone();
        kept.numbers.unshare();
        [&mut kept.verdict, &mut kept.last.deter, &mut kept.last.stoch].into_iter().for_each(Tensor::unshare);
        kept.latents.iter_mut().for_each(|(deter, stoch)| {
            deter.unshare();
            stoch.unshare();
        });
        kept
    }
}
