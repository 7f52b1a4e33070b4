//! NVIDIA GPUs: libraries found at run time, kernels compiled for the GPU at hand, memory and launches.
//!
//! Operations reach a GPU through [`Gpu`] alone, in the `match` on a tensor's device in their own file; the kernels they
//! launch are in `kernels/`, one file for each kind of operation. What trains on a GPU happens in order on one stream, so
//! that results do not depend on timing, and no kernel adds with atomics, so that sums have a fixed order.
#![allow(unsafe_code)] // calls of the driver, the compiler and the emulator; each block says why it is sound

mod cache;
mod driver;
mod emulator;
mod frames;
mod gemm;
mod gpu;
mod kernels;
mod launch;
mod library;
mod loading;
mod memory;
mod nccl;
mod nvrtc;
mod peak;
mod pool;
mod queue;
mod side;
mod survey;
mod team;
#[cfg(test)]
pub(crate) mod tile_times;
mod tiles;
mod timing;
mod trust;
mod upload;

pub use driver::{Driver, Properties};
pub use frames::{Frames, Images, StepId};
pub(crate) use gemm::{Gemm, MOST_USES, Matrix, Product, WeightGrad, column_sums, weight_rows};
pub use gpu::{Gpu, Precision};
pub(crate) use launch::{Arg, Grid, Meeting, Piece, Table, at_once};
pub(crate) use memory::Memory;
pub use memory::Pinned;
pub use nvrtc::Nvrtc;
pub use peak::Peaks;
pub use queue::Recording;
pub use side::{Point, Side};
pub use survey::{Found, Survey, emulated_test_gpu, is_there, open, survey, test_gpu, test_gpu_in};
pub use team::Member;
pub(crate) use tiles::{CONV_1, CONV_4, CONV_8, CONV_POOLED, Divider, Plan, Tile, plan, plan_whole};
pub use timing::{Between, KernelTime};
pub use upload::{ALIGNED, Upload};
