//! The agent: its parts, and the verbs `act`, `train` and `report`.

use crate::{AgentConfig, Metrics};
use anyhow::Result;
use spaces::{Record, Spaces};
use std::collections::BTreeMap;

/// A DreamerV3 agent. Cloning is cheap: parameters are shared until the next update replaces them,
/// so a clone is a frozen snapshot that another thread may act with.
#[derive(Clone)]
pub struct Agent {
    config: AgentConfig,
}

/// Recurrent state of `n` environments (or sequences): the latent, the previous action, and how many
/// steps were taken (which keys the noise).
#[derive(Clone)]
pub struct Carry {}

/// Whether actions are taken for training or evaluation; both sample from the policy, as officially.
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

/// What [`Agent::train`] returns: metrics and `replay`, the fresh latents to write back
/// (`stepid` uint8 [B, T, 20], `dyn/deter`, `dyn/stoch`); `replay` is empty where `replay_context` is 0.
pub struct Trained {
    pub metrics: Metrics,
    pub replay: Record,
}

/// What [`Agent::report`] returns: metrics, and videos uint8 [T, H, W, C] by name (`openloop/KEY`).
pub struct Reported {
    pub metrics: Metrics,
    pub videos: BTreeMap<String, spaces::Array>,
}

/// Every tensor of the agent by its official name: parameters, slow value, normalisers, optimizer.
pub type State = Record;

impl Agent {
    /// Builds an agent with freshly initialised parameters (keyed by `config.seed`). `act_space` is without `reset`.
    /// Fails with a sentence that names the key where the configuration cannot work with these spaces.
    pub fn new(_obs_space: &Spaces, _act_space: &Spaces, _config: &AgentConfig) -> Result<Agent> {
        todo!()
    }
    pub fn config(&self) -> &AgentConfig {
        &self.config
    }
    /// Keys that `act` adds to each replayed step, with their spaces (no batch axis).
    pub fn replay_space(&self) -> Spaces {
        todo!()
    }
    /// Trainable parameters per part (`enc`, `dyn`, `dec`, `rew`, `con`, `pol`, `val`).
    pub fn param_counts(&self) -> Vec<(String, usize)> {
        todo!()
    }
    /// The state before the first step, of `n` environments or sequences.
    pub fn initial(&self, _n: usize) -> Carry {
        todo!()
    }
    /// One acting step on `obs` [N, ...] per key (extra keys are ignored).
    pub fn act(&self, _carry: &mut Carry, _obs: &Record, _mode: Mode) -> Result<Acted> {
        todo!()
    }
    /// One gradient update on `batch` [B, K+T, ...] as the replay delivers it. An Err names the first
    /// tensor that is not finite; the agent is then unchanged.
    pub fn train(&mut self, _carry: &mut Carry, _batch: &Record) -> Result<Trained> {
        todo!()
    }
    /// Metrics and open-loop videos on a batch, without an update.
    pub fn report(&self, _carry: &mut Carry, _batch: &Record) -> Result<Reported> {
        todo!()
    }
    /// Updates done so far.
    pub fn updates(&self) -> u64 {
        todo!()
    }
    pub fn save(&self) -> State {
        todo!()
    }
    /// Takes over the tensors of `state` whose names match `regex` (all of them where it is `None`).
    /// Names the tensors that are missing or of another shape in the error.
    pub fn load(&mut self, _state: &State, _regex: Option<&str>) -> Result<()> {
        todo!()
    }
}

impl Carry {
    /// The carry as named arrays, for checkpoints; the inverse of [`Carry::from_record`].
    pub fn to_record(&self) -> Record {
        todo!()
    }
    pub fn from_record(_record: &Record) -> Result<Carry> {
        todo!()
    }
}
