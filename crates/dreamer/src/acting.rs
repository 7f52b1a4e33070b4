//! `act`: one acting step, computed eagerly, or, in a snapshot on a GPU, recorded once and replayed with one call.

use crate::Carry;
use crate::agent::Agent;
use crate::data;
use crate::noise::{At, Noise, Purpose};
use crate::observations::Observations;
use crate::params::Params;
use crate::rssm::Latent;
use crate::transfer::{Map, Transfer};
use anyhow::{Result, bail};
use engine::cuda::{Gpu, Recording, Side};
use engine::ops::{self, NotFinite};
use engine::{Bytes, Device, Tensor};
use spaces::{Record, Space};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether actions are taken for training or evaluation. Both sample from the policy, as in the official code, with
/// separate random streams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    Train,
    Eval,
}

/// What [`Agent::act`] returns: `action` for the environments, [N, ...] per key, and `replay`, what
/// belongs into the replay beside the step (`dyn/deter` float16 [N, D], `dyn/stoch` uint8 [N, S]).
///
/// Continuous actions are on the scale of -1 to 1 and not clipped, whatever the bounds of their space;
/// [`Space::from_policy`] maps them to those. The replay stores them as they are.
pub struct Acted {
    pub action: Record,
    pub replay: Record,
}

/// The inputs of one acting step.
struct Seen {
    obs: Observations,
    /// [N, 1]: zero where an episode starts, else one.
    keep: Tensor,
    /// The number of earlier steps: the bits of a 32-bit integer [1].
    step: Tensor,
}

/// The results of a step, on the agent's device.
#[derive(Clone)]
struct Taken {
    latent: Latent,
    /// The action as the recurrent model will see it.
    prevact: Tensor,
    actions: Vec<Tensor>,
    /// Deter in half precision and stoch as class indices, for the replay.
    latents: Option<(Bytes, Bytes)>,
    /// Checks deter and each action.
    not_finite: NotFinite,
}

impl Agent {
    /// One acting step on `obs` [N, ...] per key (keys beyond the observation space are ignored). If a number is not
    /// finite, the error says where, and the carry is unchanged.
    pub fn act(&self, carry: &mut Carry, obs: &Record, mode: Mode) -> Result<Acted> {
        carry.check(self)?;
        match (self.device(), &self.on_gpu.acting) {
            (Device::Gpu(gpu), Some(lent)) => {
                gpu.aside(Side::Act, || self.act_again(gpu, &mut lent.lock(), carry, obs, mode))
            }
            _ => self.act_with(carry, obs, &self.draws(carry, mode)),
        }
    }

    pub(crate) fn act_with(&self, carry: &mut Carry, obs: &Record, noise: &Noise) -> Result<Acted> {
        let seen = self.seen(carry, obs)?.to(self.device());
        let taken = self.step(&carry.to(self.device()), &seen, noise);
        self.acted(carry, taken)
    }

    /// The same by replaying recorded kernels. The first step with each number of environments is computed eagerly,
    /// which loads the kernels before they are recorded.
    fn act_again(
        &self,
        gpu: &'static Gpu,
        acting: &mut Acting,
        carry: &mut Carry,
        obs: &Record,
        mode: Mode,
    ) -> Result<Acted> {
        let noise = self.draws(carry, mode);
        let seen = self.seen(carry, obs)?;
        let Some(step) = acting.steps.get_mut(&(carry.len(), mode)) else {
            acting.steps.insert((carry.len(), mode), None);
            return self.act_with(carry, obs, &noise);
        };
        // The high half of the count of steps is part of what was recorded.
        step.take_if(|step| step.high != carry.step >> 32);
        let step = match step {
            Some(step) => step,
            none => none.insert(self.recorded_step(gpu, carry, &seen, noise)),
        };
        let mut upload = seen.send(self.device());
        upload.iter_mut().for_each(|upload| upload.receive(&step.block));
        carry.to(self.device()).copy_over(&step.carry);
        if std::mem::take(&mut step.stale) {
            step.packing.run();
        }
        step.stepping.run();
        drop(upload); // which waits until it has arrived
        self.acted(carry, step.taken.kept())
    }

    fn recorded_step(&self, gpu: &'static Gpu, carry: &Carry, seen: &Seen, noise: Noise) -> Step {
        let block = ops::zeros(&[seen.size() / 4], self.device());
        let (seen, high) = (seen.over(&block), carry.step >> 32);
        let carry = self.initial(carry.len());
        let noise = noise.with_step_at(&seen.step);
        // Weights that an eager step has packed would not be packed again by the recording.
        self.params.forget_packed();
        let ([packing, stepping], taken) = gpu.record_apart(|| self.step(&carry, &seen, &noise));
        self.params.forget_packed(); // eager steps cannot tell when the recording packs
        Step { packing, stale: true, stepping, high, block, carry, taken }
    }

    fn draws(&self, carry: &Carry, mode: Mode) -> Noise {
        let purpose = if mode == Mode::Train { Purpose::Act } else { Purpose::Eval };
        Noise::Counter { seed: self.config().seed, purpose, step: carry.step, step_at: None, part: 0 }
    }

    /// The inputs of a step from an observation, on the processor.
    fn seen(&self, carry: &Carry, obs: &Record) -> Result<Seen> {
        let n = carry.len();
        let first = data::fetch(obs, "is_first", &[n], &[])?.to_bool();
        let keep: Vec<f32> = first.iter().map(|&first| if first { 0.0 } else { 1.0 }).collect();
        let get = |key: &str, space: &Space| data::fetch(obs, key, &[n], &space.shape).cloned();
        Ok(Seen {
            obs: Observations::new(self.obs_space(), self.config(), n, false, get)?,
            keep: Tensor::from_slice(&[n, 1], &keep),
            step: Tensor::from_slice(&[1], &[f32::from_bits(carry.step as u32)]),
        })
    }

    /// The step itself; does not wait for a GPU.
    fn step(&self, carry: &Carry, seen: &Seen, noise: &Noise) -> Taken {
        let n = carry.len();
        let p = self.params.frozen();
        let tokens = self.parts.enc.apply(&p, &seen.obs);
        let steps = |x: &Tensor| ops::reshape(x, &[n, 1, x.width()]);
        let (tokens, prevact) = (steps(&tokens), steps(&carry.prevact));
        let observed = self.parts.dyn_.observe(&p, &carry.latent, &tokens, &prevact, &seen.keep, noise);
        let flat = |x: &Tensor| ops::reshape(x, &[n, x.width()]);
        let latent = Latent { deter: flat(&observed.deter), stoch: flat(&observed.stoch) };
        let at = At { rows: 0..n, step: 0, steps: 1, device: self.device() };
        let (actions, prevact) = self.parts.pol.sample(&p, &[&latent.deter, &latent.stoch], noise, &at);
        let latents = self.packed_latents(&latent.deter, &latent.stoch);
        let not_finite = ops::not_finite(&[&latent.deter].into_iter().chain(&actions).collect::<Vec<_>>());
        Taken { latent, prevact, actions, latents, not_finite }
    }

    /// The actions and replay entries of a step, on the processor; updates `carry`. Waits for a GPU.
    fn acted(&self, carry: &mut Carry, taken: Taken) -> Result<Acted> {
        if let Some((i, value)) = taken.not_finite.first() {
            let name = match i.checked_sub(1).and_then(|i| self.parts.pol.names().nth(i)) {
                Some(name) => format!("the action '{name}'"),
                None => "the latent state while acting".into(),
            };
            bail!("{name} holds {value}; lower agent.opt.lr, or look at the rewards and observations");
        }
        *carry = Carry { latent: taken.latent, prevact: taken.prevact, step: carry.step + 1 };
        let mut replay = Record::new();
        if let Some((deter, stoch)) = &taken.latents {
            self.store_latents(deter, stoch, &[carry.len()], &mut replay);
        }
        Ok(Acted { action: self.parts.pol.arrays(&taken.actions).into_iter().collect(), replay })
    }
}

impl Transfer for Seen {
    fn map(&self, f: &mut impl Map) -> Seen {
        Seen { obs: self.obs.map(f), keep: f.tensor(&self.keep), step: f.tensor(&self.step) }
    }
}

impl Taken {
    /// A copy whose state the next run of the recording does not overwrite; the rest is read before that.
    fn kept(&self) -> Taken {
        let mut kept = self.clone();
        [&mut kept.latent.deter, &mut kept.latent.stoch, &mut kept.prevact].into_iter().for_each(Tensor::unshare);
        kept
    }
}

/// What a snapshot acts with on a GPU: parameters of its own, and the steps that were recorded with these.
#[derive(Default)]
pub(crate) struct Acting {
    params: Params,
    /// By number of environments and mode; `None` after the first, eager step.
    steps: BTreeMap<(usize, Mode), Option<Step>>,
}

/// A recorded step, with the tensors that it reads and writes.
struct Step {
    packing: Recording,
    /// Whether the weights have changed, and must be packed before the next run.
    stale: bool,
    stepping: Recording,
    /// The high 32 bits of the step count.
    high: u64,
    /// The memory that the tensors of `Seen` are views of.
    block: Tensor,
    carry: Carry,
    taken: Taken,
}

impl Acting {
    fn new(params: &Params) -> Acting {
        let copy = |name: &str, x: &Tensor| {
            let acts = ["enc/", "dyn/", "pol/"].iter().any(|prefix| name.starts_with(prefix));
            let mut copy = if acts { x.detach() } else { ops::zeros(&[0], x.device()) };
            copy.unshare();
            copy
        };
        Acting { params: params.map(copy), ..Acting::default() }
    }

    /// Takes over the values of `params`.
    fn refresh(&mut self, params: &Params) {
        let pairs = params.iter().zip(self.params.iter()).map(|((_, x), (_, own))| (x, own));
        ops::copy_all(&pairs.filter(|(_, own)| !own.is_empty()).collect::<Vec<_>>());
        self.params.forget_packed();
        self.steps.values_mut().flatten().for_each(|step| step.stale = true);
    }
}

/// The acting state of snapshots that have ended, for later ones to reuse.
#[derive(Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Vec<Acting>>>);

/// The acting state of one snapshot, given back when its last clone is dropped.
pub(crate) struct Lent {
    acting: Mutex<Acting>,
    home: Spare,
}

impl Spare {
    /// Acting state with the values that `params` have after the update under way; the next update waits for the copy.
    pub fn lend(&self, gpu: &'static Gpu, params: &Params) -> Lent {
        let now = gpu.point();
        let before = lock(&self.0).pop();
        let (acting, copied) = gpu.aside(Side::Act, || {
            now.precede();
            let acting = match before {
                Some(mut acting) => {
                    acting.refresh(params);
                    acting
                }
                None => Acting::new(params),
            };
            (acting, gpu.point())
        });
        copied.precede();
        Lent { acting: Mutex::new(acting), home: self.clone() }
    }
}

impl Lent {
    pub fn params(&self) -> Params {
        self.lock().params.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Acting> {
        lock(&self.acting)
    }

    /// Kernels that each recorded step launches, to pack weights and otherwise, where that is known.
    #[cfg(test)]
    pub fn launches(&self) -> Vec<(usize, usize)> {
        let acting = self.lock();
        let steps = acting.steps.values().flatten();
        steps.filter_map(|step| Some((step.packing.launches()?, step.stepping.launches()?))).collect()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let acting = std::mem::take(&mut *self.lock());
        lock(&self.home.0).push(acting);
    }
}

/// Panics leave nothing half done under these locks, except failures of the GPU, after which nobody uses it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
