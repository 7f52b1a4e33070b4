//! Tensors, reverse-mode gradients, and the coarse operations that DreamerV3 is made of; knows nothing of agents.
//!
//! Operations run as they are called (`ops`) and record how to differentiate themselves (`graph`) where an
//! input requires a gradient. Weight gradients collect in a `Sink`. Kernels for the processor are in `cpu`,
//! those for NVIDIA GPUs in `cuda`.

mod buffer;
mod bytes;
pub mod cpu;
pub mod cuda;
mod graph;
pub mod ops;
mod parallel;
pub mod profile;
mod rng;
mod sink;
mod tensor;

#[cfg(test)]
mod check;

pub use buffer::{Buffer, release_pool};
pub use bytes::{Bytes, Pixels};
pub use graph::{Leaf, Origin, backward};
pub use parallel::par_items;
pub use rng::Rng;
pub use sink::Sink;
pub use tensor::{Device, Tensor};
