//! CPU kernels: serial functions on slices, chosen at run time for the machine's vector instructions.
//!
//! Nothing here starts a thread: the caller hands groups of images, chunks of rows or tiles of an
//! output to its workers. Work is cut by shape alone and every sum has a fixed order, so the same
//! numbers come out whatever the number of threads.
//!
//! Layouts: matrices are row-major with a stated row length; images live in the *lanes layout* of
//! [`conv`], where one vector holds the same pixel and channel of [`lanes()`] images.
//!
//! Every slice length is checked where a public function is entered; a wrong one is a bug of the
//! caller and panics with its sizes.
#![allow(unsafe_code)] // vector instructions and threads that write parts of one slice; each block says why it is sound

pub mod conv;
pub mod gemm;
pub mod gemm_tn;
pub mod gru;
pub mod math;
pub mod norm;
pub mod peak;
pub mod pixel_loss;
pub mod sample;
pub(crate) mod simd;
pub mod softmax;
#[cfg(test)]
mod testing;
pub mod twohot;

pub use simd::{Isa, MAX_LANES};

/// Runs plain loops compiled for the instruction set in use: the compiler vectorises them as far as it can.
#[inline(always)]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    simd::with_simd!(S, {
        let _ = <S as simd::Simd>::LANES;
        f()
    })
}

/// Floats in a vector of the instruction set in use, and images in a group of the lanes layout.
pub fn lanes() -> usize {
    Isa::get().lanes()
}
