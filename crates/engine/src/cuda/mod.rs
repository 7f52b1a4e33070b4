//! NVIDIA GPUs: libraries found at run time, kernels compiled for the GPU at hand, memory and launches.
//!
//! Operations reach a GPU through [`Gpu`] alone, in the `match` on a tensor's device in their own file; the kernels they
//! launch are in `kernels/`, one file for each kind of operation. Everything on a GPU happens in order on one stream, so
//! that results do not depend on timing, and no kernel adds with atomics, so that sums have a fixed order.
#![allow(unsafe_code)] // calls of the driver, the compiler and the emulator; each block says why it is sound

mod cache;
mod driver;
mod emulator;
mod gemm;
mod gpu;
mod kernels;
mod library;
mod memory;
mod nvrtc;
mod survey;
mod tiles;
#[cfg(test)]
pub(crate) mod timing;

pub use driver::{Driver, Properties};
pub(crate) use gemm::{Gemm, MOST_USES, Matrix, Product, WeightGrad, column_sums, handed_on, weight_rows};
pub(crate) use gpu::{Arg, Grid};
pub use gpu::{Gpu, Precision};
pub(crate) use memory::Memory;
pub use nvrtc::Nvrtc;
pub use survey::{Found, Survey, open, survey, test_gpu, test_gpu_in};
pub(crate) use tiles::{CONV_1, CONV_4, CONV_8, CONV_POOLED, Divider, Plan, Tile, plan, plan_whole};
