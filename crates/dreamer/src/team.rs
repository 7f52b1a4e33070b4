//! Several GPUs of a machine: each computes on a part of the batch, and all do the same update with the mean of their
//! gradients.
//!
//! Parameters are bitwise equal on all GPUs, as they start equal and get the same mean gradients. Return statistics are
//! those of the whole batch, and a sequence draws the random numbers that it would draw on one GPU, so the update is
//! that of one GPU up to the order of sums.

use crate::agent::Agent;
use crate::batch::Prepared;
use crate::noise::Noise;
use crate::train::Trained;
use crate::update::Begun;
use anyhow::{Result, anyhow, ensure};
use engine::Device;
use engine::cuda::{Gpu, Member, Point};
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Agent {
    /// The same agent on several GPUs, each of which trains on an equal part of each batch. It acts and reports on the
    /// first one. Batches must not be consecutive, and `replay_context` at least 1, as states are not carried over.
    pub fn spread(&self, gpus: &[&'static Gpu]) -> Result<Agent> {
        ensure!(!gpus.is_empty(), "no GPU was named; at least one is needed");
        ensure!(
            self.config().batch_size.is_multiple_of(gpus.len()),
            "batch_size is {}, which cannot be divided among {} GPUs; choose a multiple",
            self.config().batch_size,
            gpus.len()
        );
        ensure!(
            self.config().replay_context > 0,
            "replay_context is 0, but several GPUs need at least 1, as they carry no states from batch to batch"
        );
        let members = Member::connect(gpus).map_err(|sentence| anyhow!(sentence))?;
        let mut agents: Vec<Agent> = members.iter().map(|member| self.member(member)).collect();
        let mut first = agents.remove(0);
        first.on_gpu.followers = agents;
        Ok(first)
    }

    /// This agent as one of several.
    fn member(&self, member: &Member) -> Agent {
        let mut agent = self.to(Device::Gpu(member.gpu()));
        agent.norms.join(member);
        agent.on_gpu.member = Some(member.clone());
        agent
    }

    /// Copies this agent to the other GPUs, after it was loaded.
    pub(crate) fn refresh_followers(&mut self) {
        let followers = std::mem::take(&mut self.on_gpu.followers);
        let refreshed = |mut follower: Agent| {
            let member = follower.on_gpu.member.take().expect("a follower is one of several");
            let mut agent = self.member(&member);
            agent.on_gpu.kept = std::mem::take(&mut follower.on_gpu.kept);
            agent
        };
        self.on_gpu.followers = followers.into_iter().map(refreshed).collect();
    }

    /// An update on all GPUs. Each has a thread of its own, as they wait for each other.
    pub(crate) fn begin_together(&mut self, batch: &mut Prepared, noise: &Noise) -> Result<Begun> {
        let (mut followers, mut others) =
            (std::mem::take(&mut self.on_gpu.followers), std::mem::take(&mut batch.others));
        let all = std::thread::scope(|scope| {
            let begin = |(agent, part): (&mut Agent, &mut Prepared)| {
                let noise = agent.noise();
                begin_alone(agent, part, &noise)
            };
            let threads: Vec<_> =
                followers.iter_mut().zip(&mut others).map(|pair| scope.spawn(move || begin(pair))).collect();
            let mut all = vec![begin_alone(self, batch, noise)];
            all.extend(threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))));
            all
        });
        self.on_gpu.followers = followers;
        let mut all = all.into_iter().collect::<Result<Vec<Begun>>>()?.into_iter();
        let mut begun = all.next().expect("this GPU's own part");
        begun.others = all.collect();
        Ok(begun)
    }
}

impl Begun {
    /// Waits until all GPUs have done their parts. Where one fails, the others, which may wait for it, are told.
    pub(crate) fn wait_for_all(&self) -> Result<()> {
        let wait = |part: &Begun| {
            or_leave(&part.member, || {
                part.done.iter().for_each(Point::wait);
                Ok(())
            })
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.others.iter().map(|part| scope.spawn(move || wait(part))).collect();
            let first = wait(self);
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).fold(first, Result::and)
        })
    }
}

/// One GPU's part of an update. Where it fails, the others are told.
fn begin_alone(agent: &mut Agent, part: &mut Prepared, noise: &Noise) -> Result<Begun> {
    let member = agent.on_gpu.member.clone();
    or_leave(&member, || agent.begin_part(part, noise))
}

/// What `f` returns on one GPU. Where it fails, or panics, the others are told.
fn or_leave<T>(member: &Option<Member>, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(panicked()));
    result.inspect_err(|_| member.iter().for_each(Member::leave))
}

fn panicked() -> anyhow::Error {
    anyhow!("the update on one of the GPUs panicked; what it said is above")
}

impl Trained {
    /// The results of the whole batch, from those of its parts: the mean of each metric, and all sequences.
    pub(crate) fn with(mut self, others: Vec<Trained>) -> Trained {
        let parts = 1.0 + others.len() as f32;
        for other in &others {
            self.metrics.values_mut().zip(other.metrics.values()).for_each(|(sum, x)| *sum += x);
            self.replay.iter_mut().for_each(|(key, rows)| rows.append(&other.replay[key]));
        }
        if !others.is_empty() {
            self.metrics.values_mut().for_each(|x| *x /= parts);
        }
        self
    }
}
