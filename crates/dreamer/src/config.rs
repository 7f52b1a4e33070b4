//! The agent's configuration: official names and official defaults. What cannot work is refused in `checks.rs`.

use serde::{Deserialize, Serialize};

/// Everything under `agent` in the configuration, plus the top-level values that the official
/// code hands to its agent (`seed`, `batch_size`, `batch_length`, `replay_context`, `report_length`).
/// `Default` is the official default, size200m.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    pub loss_scales: LossScales,
    pub opt: Opt,
    /// Whether the actor and critic losses reach into the world model through the first imagined feature.
    pub ac_grads: bool,
    #[serde(rename = "dyn")]
    pub dynamics: Dynamics,
    pub enc: Encoder,
    pub dec: Decoder,
    pub rewhead: Head,
    pub conhead: Head,
    pub policy: Head,
    pub value: Head,
    /// `categorical`, or `categorical_unimix` to mix `policy.unimix` in, which the official code forgets.
    pub policy_dist_disc: String,
    /// `bounded_normal` or `normal_logstd`.
    pub policy_dist_cont: String,
    /// How many of the last steps of a sequence to imagine from; 0 means all.
    pub imag_last: usize,
    pub imag_length: usize,
    pub horizon: f64,
    pub contdisc: bool,
    pub imag_loss: ImagLoss,
    pub repl_loss: ReplLoss,
    pub slowvalue: SlowValue,
    pub retnorm: Normalize,
    pub valnorm: Normalize,
    pub advnorm: Normalize,
    pub reward_grad: bool,
    pub repval_loss: bool,
    pub repval_grad: bool,
    pub report: bool,
    pub report_gradnorms: bool,
    pub seed: u64,
    pub batch_size: usize,
    pub batch_length: usize,
    pub replay_context: usize,
    pub report_length: usize,
}

/// Scale of each loss; `rec` is the scale of every observation key's reconstruction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossScales {
    pub rec: f32,
    pub rew: f32,
    pub con: f32,
    #[serde(rename = "dyn")]
    pub dynamics: f32,
    pub rep: f32,
    pub policy: f32,
    pub value: f32,
    pub repval: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Opt {
    pub lr: f64,
    /// Adaptive gradient clipping: the largest gradient norm as a share of the parameter norm; 0 is off.
    pub agc: f32,
    pub eps: f32,
    pub beta1: f64,
    pub beta2: f64,
    /// Read and ignored, as in the official code: momentum is always on (set `beta1: 0` for none).
    pub momentum: bool,
    pub nesterov: bool,
    pub wd: f32,
    pub wdregex: String,
    /// `const`, `linear` or `cosine`.
    pub schedule: String,
    pub warmup: u64,
    pub anneal: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dynamics {
    pub typ: String,
    pub rssm: Rssm,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rssm {
    pub deter: usize,
    pub hidden: usize,
    pub stoch: usize,
    pub classes: usize,
    pub act: String,
    pub norm: String,
    pub unimix: f32,
    pub outscale: f32,
    pub winit: String,
    pub imglayers: usize,
    pub obslayers: usize,
    pub dynlayers: usize,
    pub absolute: bool,
    pub blocks: usize,
    pub free_nats: f32,
    /// An ablation of ours: the state is forgotten at every step, so that nothing is remembered.
    pub reset_every_step: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encoder {
    pub typ: String,
    pub simple: SimpleEncoder,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimpleEncoder {
    pub depth: usize,
    pub mults: Vec<usize>,
    pub layers: usize,
    pub units: usize,
    pub act: String,
    pub norm: String,
    pub winit: String,
    pub symlog: bool,
    pub outer: bool,
    pub kernel: usize,
    pub strided: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decoder {
    pub typ: String,
    pub simple: SimpleDecoder,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimpleDecoder {
    pub depth: usize,
    pub mults: Vec<usize>,
    pub layers: usize,
    pub units: usize,
    pub act: String,
    pub norm: String,
    pub outscale: f32,
    pub winit: String,
    pub symlog: bool,
    pub outer: bool,
    pub kernel: usize,
    pub bspace: usize,
    pub strided: bool,
}

/// One multilayer perceptron with an output distribution: reward, continue, policy or value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Head {
    pub layers: usize,
    pub units: usize,
    pub act: String,
    pub norm: String,
    pub output: String,
    pub minstd: f32,
    pub maxstd: f32,
    pub outscale: f32,
    pub unimix: f32,
    pub winit: String,
    pub bins: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagLoss {
    pub slowtar: bool,
    pub lam: f32,
    pub actent: f32,
    pub slowreg: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplLoss {
    pub slowtar: bool,
    pub lam: f32,
    pub slowreg: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlowValue {
    pub rate: f32,
    pub every: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Normalize {
    /// `none`, `meanstd` or `perc`.
    #[serde(rename = "impl")]
    pub kind: String,
    pub rate: f32,
    pub limit: f32,
    pub perclo: f64,
    pub perchi: f64,
    pub debias: bool,
}

impl Default for AgentConfig {
    fn default() -> Self {
        let head = Head::default();
        let twohot = Head { output: "symexp_twohot".into(), outscale: 0.0, ..head.clone() };
        let norm = Normalize::default();
        AgentConfig {
            loss_scales: LossScales::default(),
            opt: Opt::default(),
            ac_grads: false,
            dynamics: Dynamics::default(),
            enc: Encoder::default(),
            dec: Decoder::default(),
            rewhead: Head { layers: 1, ..twohot.clone() },
            conhead: Head { layers: 1, output: "binary".into(), ..head.clone() },
            policy: Head { outscale: 0.01, minstd: 0.1, maxstd: 1.0, unimix: 0.01, ..head },
            value: twohot,
            policy_dist_disc: "categorical".into(),
            policy_dist_cont: "bounded_normal".into(),
            imag_last: 0,
            imag_length: 15,
            horizon: 333.0,
            contdisc: true,
            imag_loss: ImagLoss::default(),
            repl_loss: ReplLoss::default(),
            slowvalue: SlowValue::default(),
            retnorm: Normalize { kind: "perc".into(), limit: 1.0, debias: false, ..norm.clone() },
            valnorm: norm.clone(),
            advnorm: norm,
            reward_grad: true,
            repval_loss: true,
            repval_grad: true,
            report: true,
            report_gradnorms: false,
            seed: 0,
            batch_size: 16,
            batch_length: 64,
            replay_context: 1,
            report_length: 32,
        }
    }
}

impl Default for LossScales {
    fn default() -> Self {
        LossScales { rec: 1.0, rew: 1.0, con: 1.0, dynamics: 1.0, rep: 0.1, policy: 1.0, value: 1.0, repval: 0.3 }
    }
}

impl Default for Opt {
    fn default() -> Self {
        Opt {
            lr: 4e-5,
            agc: 0.3,
            eps: 1e-20,
            beta1: 0.9,
            beta2: 0.999,
            momentum: true,
            nesterov: false,
            wd: 0.0,
            wdregex: "/kernel$".into(),
            schedule: "const".into(),
            warmup: 1000,
            anneal: 0,
        }
    }
}

impl Default for Dynamics {
    fn default() -> Self {
        Dynamics { typ: "rssm".into(), rssm: Rssm::default() }
    }
}

impl Default for Rssm {
    fn default() -> Self {
        Rssm {
            deter: 8192,
            hidden: 1024,
            stoch: 32,
            classes: 64,
            act: "silu".into(),
            norm: "rms".into(),
            unimix: 0.01,
            outscale: 1.0,
            winit: "trunc_normal_in".into(),
            imglayers: 2,
            obslayers: 1,
            dynlayers: 1,
            absolute: false,
            blocks: 8,
            free_nats: 1.0,
            reset_every_step: false,
        }
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder { typ: "simple".into(), simple: SimpleEncoder::default() }
    }
}

impl Default for SimpleEncoder {
    fn default() -> Self {
        SimpleEncoder {
            depth: 64,
            mults: vec![2, 3, 4, 4],
            layers: 3,
            units: 1024,
            act: "silu".into(),
            norm: "rms".into(),
            winit: "trunc_normal_in".into(),
            symlog: true,
            outer: false,
            kernel: 5,
            strided: false,
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { typ: "simple".into(), simple: SimpleDecoder::default() }
    }
}

impl Default for SimpleDecoder {
    fn default() -> Self {
        SimpleDecoder {
            depth: 64,
            mults: vec![2, 3, 4, 4],
            layers: 3,
            units: 1024,
            act: "silu".into(),
            norm: "rms".into(),
            outscale: 1.0,
            winit: "trunc_normal_in".into(),
            symlog: true,
            outer: false,
            kernel: 5,
            bspace: 8,
            strided: false,
        }
    }
}

impl Default for Head {
    fn default() -> Self {
        Head {
            layers: 3,
            units: 1024,
            act: "silu".into(),
            norm: "rms".into(),
            output: String::new(),
            minstd: 1.0,
            maxstd: 1.0,
            outscale: 1.0,
            unimix: 0.0,
            winit: "trunc_normal_in".into(),
            bins: 255,
        }
    }
}

impl Default for ImagLoss {
    fn default() -> Self {
        ImagLoss { slowtar: false, lam: 0.95, actent: 3e-4, slowreg: 1.0 }
    }
}

impl Default for ReplLoss {
    fn default() -> Self {
        ReplLoss { slowtar: false, lam: 0.95, slowreg: 1.0 }
    }
}

impl Default for SlowValue {
    fn default() -> Self {
        SlowValue { rate: 0.02, every: 1 }
    }
}

impl Default for Normalize {
    fn default() -> Self {
        Normalize { kind: "none".into(), rate: 0.01, limit: 1e-8, perclo: 5.0, perchi: 95.0, debias: true }
    }
}
