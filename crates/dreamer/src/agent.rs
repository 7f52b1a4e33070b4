//! The agent: its parts, and the verb `act`.

use crate::Carry;
use crate::actor_critic::Normalizers;
use crate::batch::{Batch, Layout, Preparer, layout};
use crate::checks;
use crate::config::AgentConfig;
use crate::data::{self, encoded_space};
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::heads::ScalarHead;
use crate::loss::{Inputs, Loss, loss};
use crate::noise::{Noise, Purpose};
use crate::observations::Observations;
use crate::optimizer::Optimizer;
use crate::params::{Builder, Params};
use crate::policy::Policy;
use crate::rssm::{Latent, Rssm};
use crate::update::{Repeat, copy_parts};
use anyhow::{Result, bail};
use engine::cuda::{Member, Side};
use engine::ops;
use engine::{Bytes, Device, Tensor};
use spaces::{Array, Record, Space, Spaces};
use std::sync::Arc;

/// A DreamerV3 agent. Cloning is cheap: parameters and moments are shared until the next update replaces them.
/// To act in one thread while another trains, take a [`snapshot`](Agent::snapshot).
#[derive(Clone)]
pub struct Agent {
    pub(crate) config: AgentConfig,
    pub(crate) obs_space: Spaces,
    pub(crate) act_space: Spaces,
    pub(crate) parts: Arc<Parts>,
    pub(crate) params: Params,
    /// The slow value: a moving average of the value head's parameters.
    pub(crate) slow: Params,
    pub(crate) slow_count: u64,
    pub(crate) norms: Normalizers,
    pub(crate) opt: Optimizer,
    pub(crate) repeat: Repeat,
    /// Whether it acts beside the update of another: on a queue of its own where there are queues.
    pub(crate) aside: bool,
    /// Where several GPUs work together: this one among them, and the agents of the others, which the first one has.
    pub(crate) member: Option<Member>,
    pub(crate) followers: Vec<Agent>,
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

/// Whether actions are taken for training or evaluation. Both sample from the policy, as officially, with draws of
/// their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Train,
    Eval,
}

/// What [`Agent::act`] returns: `action` for the environments, [N, ...] per key, and `replay`, what
/// belongs into the replay beside the step (`dyn/deter` float16 [N, D], `dyn/stoch` uint8 [N, S]).
pub struct Acted {
    pub action: Record,
    pub replay: Record,
}

impl Agent {
    /// Builds an agent with freshly initialised parameters (keyed by `config.seed`). `act_space` is without `reset`.
    /// Fails with a sentence that names the key where the configuration cannot work with these spaces.
    pub fn new(obs_space: &Spaces, act_space: &Spaces, config: &AgentConfig) -> Result<Agent> {
        let act_space: Spaces =
            act_space.iter().filter(|(k, _)| *k != "reset").map(|(k, s)| (k.clone(), s.clone())).collect();
        let obs_space: Spaces =
            obs_space.iter().filter(|(k, _)| !k.starts_with("log/")).map(|(k, s)| (k.clone(), s.clone())).collect();
        checks::check(&obs_space, &act_space, config)?;
        let mut params = Params::default();
        let mut slow = Params::default();
        let parts = Parts::new(&mut params, &mut slow, &obs_space, &act_space, config);
        copy_value(&params, &mut slow);
        let opt = Optimizer::new(&params, &config.opt)?;
        let norms = Normalizers::new(config);
        let (config, parts, repeat) = (config.clone(), Arc::new(parts), Repeat::default());
        Ok(Agent {
            config,
            obs_space,
            act_space,
            parts,
            params,
            slow,
            slow_count: 0,
            norms,
            opt,
            repeat,
            aside: false,
            member: None,
            followers: vec![],
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
        Agent { params, slow, opt, norms, member: None, followers: vec![], ..self.clone() }
    }

    /// How many devices train together.
    pub fn devices(&self) -> usize {
        1 + self.followers.len()
    }

    pub fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// Keys that `act` adds to each replayed step, with their spaces (no batch axis).
    pub fn replay_space(&self) -> Spaces {
        if self.config.replay_context == 0 {
            return Spaces::new();
        }
        let r = &self.config.dynamics.rssm;
        let deter = Space { dtype: spaces::DType::F16, ..Space::float(&[r.deter]) };
        let stoch = Space { dtype: spaces::DType::U8, ..Space::discrete(&[r.stoch], r.classes) };
        [("dyn/deter".to_string(), deter), ("dyn/stoch".to_string(), stoch)].into_iter().collect()
    }

    /// The agent as it is now, for another thread to act with while this one trains. It shares the parameters until they
    /// change (on a GPU, where they change in place, it has a copy of those that acting needs, and a queue of its own), and
    /// leaves out what only training needs: it cannot be trained, saved, or asked for a report.
    pub fn snapshot(&self) -> Agent {
        Agent {
            config: self.config.clone(),
            obs_space: self.obs_space.clone(),
            act_space: self.act_space.clone(),
            parts: self.parts.clone(),
            params: match self.device() {
                Device::Cpu => self.params.clone(),
                // After the update under way, and before the next one changes them.
                Device::Gpu(gpu) => {
                    let now = gpu.point();
                    let (params, copied) = gpu.aside(Side::Act, || {
                        now.precede();
                        (copy_parts(&self.params, &["enc/", "dyn/", "pol/"]), gpu.point())
                    });
                    copied.precede();
                    params
                }
            },
            aside: true,
            member: None,
            followers: vec![],
            slow: Params::default(),
            slow_count: self.slow_count,
            norms: Normalizers::new(&self.config),
            opt: self.opt.without_moments(),
            repeat: Repeat::default(),
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

    /// The state before the first step, of `n` environments or sequences.
    pub fn initial(&self, n: usize) -> Carry {
        let r = &self.config.dynamics.rssm;
        let width: usize = self.act_space.values().map(Space::width).sum();
        let zeros = |width: usize| ops::zeros(&[n, width], self.device());
        let carry = || Carry {
            latent: Latent { deter: zeros(r.deter), stoch: zeros(r.stoch * r.classes) },
            prevact: zeros(width),
            step: 0,
        };
        match self.device() {
            Device::Gpu(gpu) if self.aside => gpu.aside(Side::Act, carry),
            _ => carry(),
        }
    }

    /// One acting step on `obs` [N, ...] per key (keys beyond the observation space are ignored).
    pub fn act(&self, carry: &mut Carry, obs: &Record, mode: Mode) -> Result<Acted> {
        let purpose = if mode == Mode::Train { Purpose::Act } else { Purpose::Eval };
        let noise = Noise::Counter { seed: self.config.seed, purpose, step: carry.step, step_at: None, part: 0 };
        match self.device() {
            Device::Gpu(gpu) if self.aside => gpu.aside(Side::Act, || self.act_with(carry, obs, &noise)),
            _ => self.act_with(carry, obs, &noise),
        }
    }

    pub(crate) fn act_with(&self, carry: &mut Carry, obs: &Record, noise: &Noise) -> Result<Acted> {
        let n = carry.len();
        let first = data::fetch(obs, "is_first", &[n], &[])?.to_bool();
        let keep: Vec<f32> = first.iter().map(|&first| if first { 0.0 } else { 1.0 }).collect();
        let keep = Tensor::from_slice(&[n, 1], &keep).to(self.device());
        let get = |key: &str, space: &Space| data::fetch(obs, key, &[n], &space.shape).cloned();
        let obs = Observations::new(&self.obs_space, &self.config, n, false, get)?.to(self.device());
        let p = self.params.frozen();
        *carry = carry.to(self.device());
        let tokens = self.parts.enc.apply(&p, &obs);
        let steps = |x: &Tensor| ops::reshape(x, &[n, 1, x.width()]);
        let seen = self.parts.dyn_.observe(&p, &carry.latent, &steps(&tokens), &steps(&carry.prevact), &keep, noise);
        let flat = |x: &Tensor| ops::reshape(x, &[n, x.width()]);
        let latent = Latent { deter: flat(&seen.deter), stoch: flat(&seen.stoch) };
        let at = crate::noise::At { rows: 0..n, step: 0, steps: 1, device: self.device() };
        let (actions, prevact) = self.parts.pol.sample(&p, &[&latent.deter, &latent.stoch], noise, &at);
        let names = self.parts.pol.names().map(|name| format!("the action '{name}'"));
        finite([("the latent state while acting".to_string(), &latent.deter)].into_iter().chain(names.zip(&actions)))?;
        carry.prevact = prevact;
        carry.latent = latent;
        carry.step += 1;
        let mut replay = Record::new();
        if self.config.replay_context > 0 {
            let stoch = ops::index_bytes(&carry.latent.stoch, self.config.dynamics.rssm.classes);
            self.store_latents(&ops::half_bytes(&carry.latent.deter), &stoch, &[n], &mut replay);
        }
        Ok(Acted { action: self.parts.pol.arrays(&actions).into_iter().collect(), replay })
    }

    /// The latents as the replay stores them: deter in half precision, stoch as class indices.
    pub(crate) fn store_latents(&self, deter: &Bytes, stoch: &Bytes, lead: &[usize], out: &mut Record) {
        let r = &self.config.dynamics.rssm;
        let half = |x: &[u8]| spaces::f16::from_le_bytes([x[0], x[1]]);
        let halves = deter.host().chunks_exact(2).map(half).collect();
        let shape = |tail: usize| [lead, &[tail]].concat();
        out.insert("dyn/deter".into(), Array::new(&shape(r.deter), spaces::Data::F16(halves)));
        out.insert("dyn/stoch".into(), Array::from_u8(&shape(r.stoch), stoch.host().into_owned()));
    }

    /// Cuts batches for this agent in another thread, while it is busy: on a GPU they are copied meanwhile.
    pub fn preparer(&self) -> Preparer {
        Preparer {
            config: self.config.clone(),
            obs_space: self.obs_space.clone(),
            act_space: self.act_space.clone(),
            devices: [self].into_iter().chain(&self.followers).map(Agent::device).collect(),
        }
    }

    pub(crate) fn loss(&self, batch: &Batch, noise: &Noise, training: bool) -> Result<Loss> {
        let inputs = Inputs {
            config: &self.config,
            parts: &self.parts,
            params: &self.params,
            slow: &self.slow,
            norms: &self.norms,
            noise,
            training,
        };
        loss(&inputs, batch)
    }

    pub(crate) fn layout(&self) -> Layout<'_> {
        layout(&self.obs_space, &self.act_space, &self.config)
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

/// Fails with the name of the first tensor that holds a number that is not finite.
fn finite<'a>(named: impl Iterator<Item = (String, &'a Tensor)>) -> Result<()> {
    let (names, tensors): (Vec<String>, Vec<&Tensor>) = named.unzip();
    match ops::first_not_finite(&tensors) {
        None => Ok(()),
        Some((i, value)) => bail!("{} holds {value}; nothing good can come after it", names[i]),
    }
}
