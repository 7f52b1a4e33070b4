//! Convolution weights in the order in which the kernels read them.

use crate::cpu::simd::{Simd, with_simd};

/// The weights of one convolution, packed for the forward pass and for the input gradient.
///
/// They are packed as `[block of output channels][input channel][row][column][channel in block]`; for the input
/// gradient, kernels are rotated by 180 degrees and the roles of the channels exchanged.
#[derive(Clone)]
pub struct ConvWeights {
    pub(super) forward: Vec<f32>,
    pub(super) backward: Vec<f32>,
    pub(super) k: usize,
    pub(super) ci: usize,
    pub(super) co: usize,
}

impl ConvWeights {
    /// Packs `hwio[k, k, ci, co]`.
    pub fn new(hwio: &[f32], k: usize, ci: usize, co: usize) -> Self {
        let taps = k * k;
        assert_eq!(hwio.len(), taps * ci * co, "weights of a {k}x{k} convolution from {ci} to {co} channels");
        let at = |t: usize, i: usize, o: usize| hwio[(t * ci + i) * co + o];
        Self {
            forward: pack(taps, ci, co, at),
            backward: pack(taps, co, ci, |t, o, i| at(taps - 1 - t, i, o)),
            k,
            ci,
            co,
        }
    }
}

/// `[block][from][tap][to in block]` of `at(tap, from, to)`; the last block may be narrower.
fn pack(taps: usize, from: usize, to: usize, at: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
    let block = block_channels();
    let mut packed = Vec::with_capacity(taps * from * to);
    for first in (0..to).step_by(block) {
        for f in 0..from {
            for t in 0..taps {
                packed.extend((first..to.min(first + block)).map(|o| at(t, f, o)));
            }
        }
    }
    packed
}

/// Output channels that a tile computes at once.
pub(super) fn block_channels() -> usize {
    with_simd!(S, S::TILE_CHANNELS)
}
