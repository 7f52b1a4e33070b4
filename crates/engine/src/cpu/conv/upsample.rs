//! Upsampling by two followed by a convolution, computed at low resolution.
//!
//! An output pixel of phase (py, px), its parity in either direction, sees each low-resolution pixel through several
//! taps of the kernel, so their weights can be summed beforehand: a 5x5 kernel on the upsampled image is a 3x3 kernel
//! on the small one with four times the output channels and 2.8 times fewer operations, and zero padding has the same
//! effect on both. Channel `4 o + 2 py + px` of the small convolution is phase (py, px) of output channel `o`.

use super::forward::Source;
use super::tile::Target;
use super::weights::ConvWeights;
use super::{ConvShape, check_group, reduce_weight_grad, zero_padding};
use crate::cpu::simd::{Simd, with_simd};

/// Upsampling by two, then a `k`x`k` convolution with SAME padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpsampleShape {
    /// Height and width before upsampling.
    pub h: usize,
    pub w: usize,
    /// Input and output channels.
    pub ci: usize,
    pub co: usize,
    /// Kernel size at high resolution, odd.
    pub k: usize,
    /// Only the odd rows and columns of the large image hold a pixel, the rest is zero (a transposed
    /// convolution); otherwise each pixel is repeated four times (nearest).
    pub sparse: bool,
}

impl UpsampleShape {
    /// The convolution that is computed: `ci` to `4 co` channels at low resolution.
    ///
    /// To be used for `pad`, the input gradient (of what [`split_phases`] gives) and the weight gradient's
    /// accumulators.
    pub fn low(&self) -> ConvShape {
        ConvShape { h: self.h, w: self.w, ci: self.ci, co: 4 * self.co, k: self.low_kernel(), stride: 1 }
    }

    /// Size of the small kernel, which holds the taps of all phases: those of phase 1 reach
    /// `(k / 2 + 1) / 2` low rows down, those of phase 0 as many up.
    fn low_kernel(&self) -> usize {
        (self.k / 2).div_ceil(2) * 2 + 1
    }

    /// Packs `hwio[k, k, ci, co]`, its taps summed by phase.
    pub fn weights(&self, hwio: &[f32]) -> ConvWeights {
        let low = self.low();
        assert_eq!(hwio.len(), self.k * self.k * self.ci * self.co, "weights of {self:?}");
        let mut folded = vec![0.0; low.k * low.k * low.ci * low.co];
        self.fold(|small, large| folded[small] += hwio[large]);
        ConvWeights::new(&folded, low.k, low.ci, low.co)
    }

    /// Calls `f(small, large)` with the indices of each weight of the small kernel and each large one summed into it.
    fn fold(&self, mut f: impl FnMut(usize, usize)) {
        let (k, low) = (self.k, self.low());
        // High row 2 i + p reads high row 2 i + p + a - k/2 through tap a: low row i + floor((p + a - k/2) / 2).
        let shifted = |p: usize, a: usize| p + a + 2 * (low.k / 2) - k / 2;
        let small = |p: usize, a: usize| shifted(p, a) / 2;
        let empty = |p: usize, a: usize| self.sparse && shifted(p, a) % 2 == 0;
        for (a, b) in (0..k * k).map(|t| (t / k, t % k)) {
            for phase in 0..4 {
                if empty(phase / 2, a) || empty(phase % 2, b) {
                    continue;
                }
                let tap = small(phase / 2, a) * low.k + small(phase % 2, b);
                for i in 0..self.ci {
                    for o in 0..self.co {
                        f((tap * self.ci + i) * low.co + 4 * o + phase, ((a * k + b) * self.ci + i) * self.co + o);
                    }
                }
            }
        }
    }
}

/// `out = upsample(x) * weights (+ bias)` for one group, with weights of [`UpsampleShape::weights`].
///
/// `x` is `[ci][h][w + 2 xpad][lanes]` with `xpad >= shape.low().pad()`; `out` is
/// `[co][2 h][2 w + 2 opad][lanes]`; `bias` has `co` numbers.
pub fn upsample_conv(
    shape: &UpsampleShape,
    weights: &ConvWeights,
    x: &[f32],
    xpad: usize,
    bias: Option<&[f32]>,
    out: &mut [f32],
    opad: usize,
) {
    assert!(bias.is_none_or(|b| b.len() >= shape.co), "bias is shorter than the {} channels", shape.co);
    let bias: Option<Vec<f32>> = bias.map(|b| b.iter().flat_map(|&v| [v; 4]).collect());
    let source = Source::new(&shape.low(), weights, x, xpad, bias.as_deref());
    let (h, w) = (2 * shape.h, 2 * shape.w);
    check_group("out", out.len(), [shape.co, h, w], opad, 0);
    zero_padding(out, shape.co * h, w, opad);
    let out = out.as_mut_ptr();
    with_simd!(S, {
        let l = S::LANES;
        let row = (w + 2 * opad) * l;
        let at = |channel: usize| channel / 4 * h * row + channel % 4 / 2 * row + channel % 2 * l;
        let to = |y: usize, first: usize| Target {
            // SAFETY: rows 2 y and 2 y + 1 of every channel exist in `out`.
            p: unsafe { out.add(2 * y * row + opad * l) },
            channel: std::array::from_fn(|i| at(first + i)),
            pixel: 2 * l,
        };
        // SAFETY: `Source::new` and the check above cover all taps and targets.
        unsafe { source.sweep::<S>(to) }
    })
}

/// Sorts `dy[co][2 h][2 w + 2 dpad][lanes]` by phase into `out[4 co][h][w + 2 opad][lanes]`, the `dy` of the
/// small convolution.
pub fn split_phases(shape: &UpsampleShape, dy: &[f32], dpad: usize, out: &mut [f32], opad: usize) {
    let UpsampleShape { h, w, co, .. } = *shape;
    check_group("dy", dy.len(), [co, 2 * h, 2 * w], dpad, 0);
    check_group("out", out.len(), [4 * co, h, w], opad, 0);
    zero_padding(out, 4 * co * h, w, opad);
    let (dy, out) = (dy.as_ptr(), out.as_mut_ptr());
    with_simd!(S, {
        let l = S::LANES;
        let (from_row, to_row) = ((2 * w + 2 * dpad) * l, (w + 2 * opad) * l);
        for row in 0..4 * co * h {
            let (channel, y) = (row / h, row % h);
            // SAFETY: the row exists on both sides.
            unsafe {
                let from = dy.add((channel / 4 * 2 * h + 2 * y + channel % 4 / 2) * from_row);
                let from = from.add((dpad + channel % 2) * l);
                let to = out.add(row * to_row + opad * l);
                for x in 0..w {
                    S::load(from.add(2 * x * l)).store(to.add(x * l));
                }
            }
        }
    })
}

/// Adds the lanes of the small convolution's weight gradient to `dw[k, k, ci, co]`.
pub fn reduce_upsample_grad(shape: &UpsampleShape, acc: &[f32], dw: &mut [f32]) {
    let low = shape.low();
    assert_eq!(dw.len(), shape.k * shape.k * shape.ci * shape.co, "weight gradient of {shape:?}");
    let mut folded = vec![0.0; low.k * low.k * low.ci * low.co];
    reduce_weight_grad(&low, acc, &mut folded);
    shape.fold(|small, large| dw[large] += folded[small]);
}
