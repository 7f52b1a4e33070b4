//! What a run writes and shows: metrics files, TensorBoard events, videos, the progress display.

mod appender;
mod board;
pub mod format;
pub mod gif;
pub mod jsonl;
pub mod logger;
pub mod metrics;
pub mod tensorboard;
pub mod terminal;
pub mod usage;

pub use board::Board;
pub use logger::{LINES, Logger, Settings};
pub use metrics::{Agg, Fps, How, Metrics, Value, insert_scalar};
pub use terminal::{eprintln_above, println_above};
pub use usage::{Usage, kilobytes};
