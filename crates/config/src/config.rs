//! `Config`: the resolved settings with their types.

use dreamer_agent::AgentConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Everything a run depends on. See `configs/defaults.yaml` for the meaning of each key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `SUITE_TASK`, or only the suite.
    pub task: String,
    /// `train`, `train_eval` or `eval_only`.
    pub script: String,
    /// Run folder; `{timestamp}` in it is replaced when the run begins.
    pub logdir: String,
    pub seed: u64,
    /// `cpu`, `cuda`, or `auto`: a GPU if one is found that computes what the processor does, else the processor.
    pub device: String,
    /// Numbers of the GPUs that train.
    pub devices: Vec<usize>,
    pub compute_dtype: String,
    /// CPU threads; 0 is all cores.
    pub threads: usize,
    pub random_agent: bool,
    pub batch_size: usize,
    pub batch_length: usize,
    pub report_length: usize,
    pub consec_train: usize,
    pub consec_report: usize,
    pub replay_context: usize,
    pub logger: LoggerConfig,
    /// The options of every suite, as nested objects: `env["catch"]["size"]`.
    pub env: serde_json::Value,
    pub replay: ReplayConfig,
    pub run: Run,
    /// With `seed`, `batch_size`, `batch_length`, `replay_context` and `report_length` from above.
    pub agent: AgentConfig,
}

/// What a run writes and shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggerConfig {
    /// Any of `jsonl` and `tensorboard`.
    pub outputs: Vec<String>,
    /// Regular expression: the metrics that the terminal shows.
    pub filter: String,
    /// Frames per second in videos.
    pub fps: u32,
}

/// What is remembered and how it is sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// Capacity in steps.
    pub size: usize,
    /// Largest share of the machine's memory, above 0 and at most 1.
    pub memory_share: f64,
    /// Gigabytes of a GPU's memory for keeping images that were sent there.
    pub gpu_gb: f64,
    pub online: bool,
    pub fracs: Fracs,
    pub prio: Prio,
    pub recexp: f64,
    /// Steps in one file.
    pub chunksize: usize,
}

/// Share of each way to choose sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fracs {
    pub uniform: f64,
    pub priority: f64,
    pub recency: f64,
}

/// How prioritised sampling chooses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prio {
    pub exponent: f64,
    pub maxfrac: f64,
    /// May be infinite.
    #[serde(serialize_with = "write_float", deserialize_with = "read_float")]
    pub initial: f64,
    pub zero_on_sample: bool,
}

/// How long and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Policy steps of the run.
    pub steps: u64,
    /// Seconds of the run; 0 is unlimited.
    pub duration: f64,
    /// Replayed steps per policy step; 0 never trains, negative trains at every step.
    pub train_ratio: f64,
    /// Interval in seconds, or in policy steps with `sync`; negative is never, 0 always. So are the next three.
    pub log_every: f64,
    pub report_every: f64,
    pub eval_every: f64,
    pub save_every: f64,
    /// Nothing happens ahead of time, and clocks count policy steps: repeatable bit for bit.
    pub sync: bool,
    pub envs: usize,
    pub eval_envs: usize,
    /// Episodes of an evaluation.
    pub eval_eps: usize,
    pub report_batches: usize,
    /// Seconds that one step or reset of an environment in another process may take.
    pub episode_timeout: f64,
    /// Empty for none.
    pub from_checkpoint: String,
    pub from_checkpoint_regex: String,
}

impl Run {
    /// Policy steps after which the run ends; none from 1e10 on, the official value for a run without end.
    pub fn limit(&self) -> Option<u64> {
        (self.steps < 10_000_000_000).then_some(self.steps)
    }
}

impl Config {
    /// Puts the time in the place of `{timestamp}` in `logdir`, as a run does when it begins.
    pub fn expand_timestamp(&mut self) {
        self.logdir = crate::paths::expand_timestamp(&self.logdir);
    }

    /// The block `env` as environments take it: with `run.episode_timeout` as its `timeout`.
    pub fn env_options(&self) -> serde_json::Value {
        let mut options = self.env.clone();
        options["timeout"] = self.run.episode_timeout.into();
        options
    }
}

/// JSON lacks infinities: they are written as strings.
fn write_float<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if x.is_finite() { serializer.serialize_f64(*x) } else { serializer.serialize_str(&x.to_string()) }
}

fn read_float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f64),
        Text(String),
    }
    match Number::deserialize(deserializer)? {
        Number::Finite(x) => Ok(x),
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}
