//! The agent: its parts, where it is, and what it hands out: snapshots, initial states, preparers of batches.

use crate::Carry;
use crate::acting::{Lent, Spare};
use crate::actor_critic::Normalizers;
use crate::batch::{Batch, Kept, Layout, Preparer};
use crate::checks;
use crate::config::AgentConfig;
use crate::data::encoded_space;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::heads::ScalarHead;
use crate::loss::{Learner, Loss};
use crate::noise::Noise;
use crate::optimizer::Optimizer;
use crate::params::{Builder, Params};
use crate::policy::Policy;
use crate::rssm::{Latent, Rssm};
use crate::update::Repeat;
use anyhow::Result;
use engine::cuda::{Frames, Member, Side};
use engine::ops;
use engine::{Bytes, Device, Tensor};
use spaces::{Array, Record, Space, Spaces};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A DreamerV3 agent. Cloning is cheap: parameters and moments are shared until the next update replaces them.
/// To act in one thread while another trains, take a [`snapshot`](Agent::snapshot).
#[derive(Clone)]
pub struct Agent {
    pub(crate) layout: Arc<Layout>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) params: Params,
    /// The slow value: a moving average of the value head's parameters.
    pub(crate) slow: Params,
    pub(crate) slow_count: u64,
    pub(crate) norms: Normalizers,
    pub(crate) opt: Optimizer,
    pub(crate) on_gpu: OnGpu,
}

/// What an agent needs only on a GPU; on the processor it stays empty.
#[derive(Clone, Default)]
pub(crate) struct OnGpu {
    pub repeat: Repeat,
    /// Of a snapshot: its copy of the parameters that acting needs, with recorded steps.
    pub acting: Option<Arc<Lent>>,
    /// Acting state of snapshots that have ended, for later ones to reuse.
    pub spare: Spare,
    pub kept: Kept,
    /// Where several GPUs train together: this one among them and, in the first agent, the agents of the others.
    pub member: Option<Member>,
    pub followers: Vec<Agent>,
}

/// The networks, under their official names.
pub struct Parts {
    pub enc: Encoder,
    pub dyn_: Rssm,
    pub dec: Decoder,
    pub rew: ScalarHead,
    pub con: ScalarHead,
    pub pol: Policy,
    pub val: ScalarHead,
    pub slow: ScalarHead,
}

/// Names of the parts whose parameters are trained, in order.
const PARTS: [&str; 7] = ["enc", "dyn", "dec", "rew", "con", "pol", "val"];

impl Agent {
    /// Builds an agent with freshly initialised parameters (keyed by `config.seed`). `reset` and keys that start with
    /// `log/` are left out of the spaces. If the configuration cannot work with these spaces, the error names the key.
    pub fn new(obs_space: &Spaces, act_space: &Spaces, config: &AgentConfig) -> Result<Agent> {
        let (obs_space, act_space) = (spaces::observed(obs_space), spaces::chosen(act_space));
        checks::check(&obs_space, &act_space, config)?;
        let mut params = Params::default();
        let mut slow = Params::default();
        let parts = Parts::new(&mut params, &mut slow, &obs_space, &act_space, config);
        copy_value(&params, &mut slow);
        let opt = Optimizer::new(&params, &config.opt)?;
        Ok(Agent {
            layout: Arc::new(Layout { config: config.clone(), obs_space, act_space }),
            parts: Arc::new(parts),
            params,
            slow,
            slow_count: 0,
            norms: Normalizers::new(config),
            opt,
            on_gpu: OnGpu::default(),
        })
    }

    /// Where the agent computes.
    pub fn device(&self) -> Device {
        self.params.device()
    }

    /// The same agent on another device. Carried states follow by themselves.
    pub fn to(&self, device: Device) -> Agent {
        let all = |tensors: &[Tensor]| tensors.iter().map(|x| x.to(device)).collect();
        let mut opt = self.opt.clone();
        (opt.rms, opt.momentum) = (all(&self.opt.rms), all(&self.opt.momentum));
        let Normalizers { ret, val, adv } = &self.norms;
        let norms = Normalizers { ret: ret.to(device), val: val.to(device), adv: adv.to(device) };
        let (params, slow) = (self.params.to(device), self.slow.to(device));
        // A snapshot that stays where it is goes on with what it has.
        let acting = self.on_gpu.acting.clone().filter(|_| device == self.device());
        let on_gpu = OnGpu { acting, ..OnGpu::default() };
        Agent { params, slow, opt, norms, on_gpu, ..self.clone() }
    }

    /// How many devices train together.
    pub fn devices(&self) -> usize {
        1 + self.on_gpu.followers.len()
    }

    pub fn config(&self) -> &AgentConfig {
        &self.layout.config
    }

    /// The keys that the agent was built for, flags included, without `log/…`.
    pub fn obs_space(&self) -> &Spaces {
        &self.layout.obs_space
    }

    /// The keys that it chooses, without `reset`. Continuous actions: see [`Acted`](crate::Acted).
    pub fn act_space(&self) -> &Spaces {
        &self.layout.act_space
    }

    /// Keys that `act` adds to each replayed step, with their spaces (no batch axis).
    pub fn replay_space(&self) -> Spaces {
        if self.config().replay_context == 0 {
            return Spaces::new();
        }
        let r = &self.config().dynamics.rssm;
        let deter = Space { dtype: spaces::DType::F16, ..Space::float(&[r.deter]) };
        let stoch = Space { dtype: spaces::DType::U8, ..Space::discrete(&[r.stoch], r.classes) };
        [("dyn/deter".to_string(), deter), ("dyn/stoch".to_string(), stoch)].into_iter().collect()
    }

    /// A copy of the agent as it is now, for another thread to act with while this one trains. It shares the parameters
    /// until they change, and lacks what only training needs: it cannot train, load or report, and what it saves cannot
    /// restore a whole agent. On a GPU, where parameters change in place, it copies those that acting needs and acts on
    /// a separate queue; when it is dropped, a later snapshot reuses that copy.
    pub fn snapshot(&self) -> Agent {
        let (params, acting) = match self.device() {
            Device::Cpu => (self.params.clone(), None),
            Device::Gpu(gpu) => {
                let lent = self.on_gpu.spare.lend(gpu, &self.params);
                (lent.params(), Some(Arc::new(lent)))
            }
        };
        Agent {
            layout: self.layout.clone(),
            parts: self.parts.clone(),
            params,
            slow: Params::default(),
            slow_count: self.slow_count,
            norms: Normalizers::new(self.config()),
            opt: self.opt.without_moments(),
            on_gpu: OnGpu { acting, spare: self.on_gpu.spare.clone(), ..OnGpu::default() },
        }
    }

    /// Trainable parameters per part (`enc`, `dyn`, `dec`, `rew`, `con`, `pol`, `val`).
    pub fn param_counts(&self) -> Vec<(String, usize)> {
        PARTS.iter().map(|part| (part.to_string(), self.params.count(&format!("{part}/")))).collect()
    }

    /// Updates done so far.
    pub fn updates(&self) -> u64 {
        self.opt.step
    }

    /// The state before the first step, for `n` environments or sequences. Keep it across episodes: `is_first` resets
    /// it, and another fresh state would repeat its random draws, which depend on the seed, the environment's number
    /// and the number of steps taken. Where several loops act with one agent, separate them by [`Carry::at_step`].
    pub fn initial(&self, n: usize) -> Carry {
        let carry = || {
            let [deter, stoch, prevact] = self.sizes().map(|width| ops::zeros(&[n, width], self.device()));
            Carry { latent: Latent { deter, stoch }, prevact, step: 0 }
        };
        match self.device() {
            Device::Gpu(gpu) if self.on_gpu.acting.is_some() => gpu.aside(Side::Act, carry),
            _ => carry(),
        }
    }

    /// Widths of deter, stoch and the embedded action.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        let r = &self.config().dynamics.rssm;
        [r.deter, r.stoch * r.classes, self.act_space().values().map(Space::width).sum()]
    }

    /// Deter in half precision and stoch as class indices, on the agent's device, if the replay stores them.
    pub(crate) fn packed_latents(&self, deter: &Tensor, stoch: &Tensor) -> Option<(Bytes, Bytes)> {
        let classes = self.config().dynamics.rssm.classes;
        (self.config().replay_context > 0).then(|| (ops::half_bytes(deter), ops::index_bytes(stoch, classes)))
    }

    /// Whether this is a snapshot, which lacks what only training needs.
    pub(crate) fn is_snapshot(&self) -> bool {
        self.opt.rms.len() != self.params.len()
    }

    /// The latents as the replay stores them: deter in half precision, stoch as class indices.
    pub(crate) fn store_latents(&self, deter: &Bytes, stoch: &Bytes, lead: &[usize], out: &mut Record) {
        let r = &self.config().dynamics.rssm;
        let half = |x: &[u8]| spaces::f16::from_le_bytes([x[0], x[1]]);
        let halves = deter.host().chunks_exact(2).map(half).collect();
        let shape = |tail: usize| [lead, &[tail]].concat();
        out.insert("dyn/deter".into(), Array::new(&shape(r.deter), spaces::Data::F16(halves)));
        out.insert("dyn/stoch".into(), Array::from_u8(&shape(r.stoch), stoch.host().into_owned()));
    }

    /// Keeps the images of up to `steps` replayed steps on each of the agent's GPUs once they have been sent, in about
    /// `bytes` bytes of its memory plus a second copy of one batch's images. They are identified by the replay's
    /// `stepid`, so from then on all batches must come from one replay. Returns for how many steps there is room: none
    /// on the processor, without images, with a `replay_context` of 0, where an image's bytes are no multiple of four,
    /// or if the GPU lacks the memory.
    pub fn keep_frames(&mut self, bytes: usize, steps: usize) -> usize {
        let images = encoded_space(self.obs_space()).into_iter().filter(|(_, space)| space.is_image());
        let sizes: BTreeMap<String, usize> = images.map(|(key, space)| (key, space.size())).collect(); // as in a batch
        let sizes: Vec<usize> = sizes.into_values().collect();
        let (each, context) = (sizes.iter().sum::<usize>(), self.config().replay_context);
        let count = if context > 0 { steps.min(bytes / each.max(1)) } else { 0 };
        let room = |device| match device {
            Device::Gpu(gpu) => Kept(Frames::new(gpu, count, &sizes).map(|frames| Arc::new(Mutex::new(frames)))),
            Device::Cpu => Kept::default(),
        };
        self.on_gpu.followers.iter_mut().for_each(|follower| follower.on_gpu.kept = room(follower.device()));
        self.on_gpu.kept = room(self.device());
        let everywhere = [&*self].into_iter().chain(&self.on_gpu.followers).all(|agent| agent.on_gpu.kept.0.is_some());
        if everywhere {
            return count;
        }
        self.on_gpu.kept = Kept::default();
        self.on_gpu.followers.iter_mut().for_each(|follower| follower.on_gpu.kept = Kept::default());
        0
    }

    /// A cutter of batches for another thread, which copies them to this agent's GPU while the agent is busy.
    pub fn preparer(&self) -> Preparer {
        let all = [self].into_iter().chain(&self.on_gpu.followers);
        Preparer {
            layout: self.layout.clone(),
            devices: all.map(|agent| (agent.device(), agent.on_gpu.kept.0.clone())).collect(),
        }
    }

    pub(crate) fn loss(&self, batch: &Batch, noise: &Noise, training: bool) -> Result<Loss> {
        self.learner(noise, training).loss(batch)
    }

    pub(crate) fn learner<'a>(&'a self, noise: &'a Noise, training: bool) -> Learner<'a> {
        Learner {
            config: self.config(),
            parts: &self.parts,
            params: &self.params,
            frozen: self.params.frozen(),
            slow: &self.slow,
            norms: &self.norms,
            noise,
            training,
        }
    }
}

impl Parts {
    fn new(params: &mut Params, slow: &mut Params, obs_space: &Spaces, act_space: &Spaces, c: &AgentConfig) -> Self {
        let r = &c.dynamics.rssm;
        let encoded = encoded_space(obs_space);
        let actions: usize = act_space.values().map(Space::width).sum();
        let latent = r.stoch * r.classes;
        let feat = r.deter + latent;
        let mut b = Builder::new(params, c.seed);
        let enc = Encoder::new(&mut b.scope("enc"), &encoded, &c.enc.simple);
        let dyn_ = Rssm::new(&mut b.scope("dyn"), enc.width(), actions, r);
        let dec = Decoder::new(&mut b.scope("dec"), &encoded, r.deter, latent, &c.dec.simple);
        let rew = ScalarHead::new(&mut b.scope("rew"), feat, &c.rewhead);
        let con = ScalarHead::new(&mut b.scope("con"), feat, &c.conhead);
        let pol = Policy::new(&mut b.scope("pol"), feat, act_space, c);
        let val = ScalarHead::new(&mut b.scope("val"), feat, &c.value);
        let slow = ScalarHead::new(&mut Builder::new(slow, c.seed).scope("slowval"), feat, &c.value);
        Parts { enc, dyn_, dec, rew, con, pol, val, slow }
    }
}

/// The slow value starts as a copy of the value.
fn copy_value(params: &Params, slow: &mut Params) {
    let source = params.iter().filter(|(name, _)| name.starts_with("val/")).map(|(_, x)| x.detach());
    for (target, source) in slow.values_mut().iter_mut().zip(source) {
        *target = source;
    }
}
