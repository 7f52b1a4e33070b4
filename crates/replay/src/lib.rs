//! The replay buffer: streams of steps in memory and on disk, sampled as sequences.
//!
//! Every worker adds its steps to a stream of its own. A stream is a chain of chunks; any `length`
//! consecutive steps of it are an item that can be sampled, across chunk borders and episode
//! borders alike. The oldest items leave first. [`Replay::save`] writes what has changed, and
//! [`Replay::new`] on the same folder continues bit for bit where that left off.
//!
//! ```
//! use replay::{Mode, Options, Replay};
//! use spaces::{Array, Record};
//!
//! let mut replay = Replay::new(Options { length: 3, online: false, ..Options::default() })?;
//! for t in 0..10 {
//!     let flags = [("is_first", t == 0), ("is_last", t == 9)];
//!     let mut step: Record = flags.map(|(k, x)| (k.into(), Array::bool(x))).into();
//!     step.insert("reward".into(), Array::f32(t as f32));
//!     replay.add(&step, 0)?;
//! }
//! assert_eq!(replay.len(), 8);
//! let batch = replay.sample(4, Mode::Train).unwrap();
//! assert_eq!(batch["reward"].shape, [4, 3]);
//! assert_eq!(batch["stepid"].shape, [4, 3, 20]);
//! # anyhow::Ok(())
//! ```

mod blockfile;
mod buffer;
mod chunk;
mod consec;
mod disk;
pub mod files;
mod manifest;
mod memory;
mod rebuild;
mod rng;
pub mod selectors;
mod store;
mod update;

pub use buffer::Replay;
pub use consec::Consec;
pub use memory::{bytes_per_step, capacity_bytes, fitting_chunksize, memory_bytes};
pub use rng::Draws;

use anyhow::{Result, ensure};
use std::path::PathBuf;

/// How a replay samples, what it keeps and where. The defaults are the official ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Steps in one sampled sequence: `consec * batch_length + replay_context`.
    pub length: usize,
    /// Sequences to keep (`replay.size`): about as many as steps in memory.
    pub capacity: usize,
    /// Bytes of memory the steps may take, if limited. Chunks are freed whole: see [`fitting_chunksize`].
    pub capacity_bytes: Option<u64>,
    /// Steps in one chunk.
    pub chunksize: usize,
    /// Deliver every fresh sequence once, without overlap, before others are sampled.
    pub online: bool,
    pub fracs: Fracs,
    pub prio: Prio,
    /// Recency selection: weight (age + 1)^-recexp.
    pub recexp: f64,
    pub seed: u64,
    /// Workers whose streams go on when a folder is loaded: those below this number.
    pub workers: usize,
    /// Where to save to and load from; without one, nothing is kept beyond the process.
    pub dir: Option<PathBuf>,
}

/// Which part of the samples each selector draws; the sum must be 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Fracs {
    pub uniform: f64,
    pub priority: f64,
    pub recency: f64,
}

/// Prioritized selection.
#[derive(Clone, Debug, PartialEq)]
pub struct Prio {
    /// Every step's priority is raised to this.
    pub exponent: f64,
    /// Weight of the sequence's largest priority against its mean.
    pub maxfrac: f64,
    /// The priority of steps that never had one.
    pub initial: f64,
    /// Whether a sequence's steps drop to priority 0 once it is drawn by priority for training.
    pub zero_on_sample: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            length: 65,
            capacity: 5_000_000,
            capacity_bytes: None,
            chunksize: 1024,
            online: true,
            fracs: Fracs { uniform: 1.0, priority: 0.0, recency: 0.0 },
            prio: Prio { exponent: 0.8, maxfrac: 0.5, initial: f64::INFINITY, zero_on_sample: true },
            recexp: 1.0,
            seed: 0,
            workers: usize::MAX,
            dir: None,
        }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        ensure!(self.length > 0, "the replay's sequence length is 0; give at least 1");
        ensure!(self.capacity > 0, "replay.size is 0; give at least 1");
        ensure!(self.chunksize > 0, "replay.chunksize is 0; give at least 1");
        ensure!(self.chunksize <= u32::MAX as usize, "replay.chunksize is {}; give less than 2^32", self.chunksize);
        self.prio.check()
    }

    /// Whether steps have priorities at all.
    fn prioritized(&self) -> bool {
        self.fracs.priority > 0.0
    }

    /// The priority of a fresh step, if steps have one.
    fn initial(&self) -> Option<f32> {
        self.prioritized().then_some(self.prio.initial as f32)
    }
}

/// What a sampled batch is for. Each has its own random numbers, so reports do not change training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Train,
    Report,
    Eval,
}
