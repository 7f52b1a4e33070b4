//! The forward convolution.

use super::tile::{MAX_CHANNELS, Taps, Target};
use super::weights::ConvWeights;
use super::{ConvShape, check_group, zero_padding};
use crate::cpu::simd::{Simd, with_simd};

/// `out = x * weights (+ bias)` for one group.
///
/// `x` is `[ci][h][w + 2 xpad][lanes]` with `xpad >= shape.pad()`; `out` is
/// `[co][out_h][out_w + 2 opad][lanes]`; `bias` has `co` numbers.
pub fn conv(
    shape: &ConvShape,
    weights: &ConvWeights,
    x: &[f32],
    xpad: usize,
    bias: Option<&[f32]>,
    out: &mut [f32],
    opad: usize,
) {
    let source = Source::new(shape, weights, x, xpad, bias);
    let (oh, ow) = (shape.out_h(), shape.out_w());
    check_group("out", out.len(), [shape.co, oh, ow], opad, 0);
    zero_padding(out, shape.co * oh, ow, opad);
    let out = out.as_mut_ptr();
    with_simd!(S, {
        let row = (ow + 2 * opad) * S::LANES;
        let to = |y: usize, c: usize| Target {
            // SAFETY: row y of channel c exists in `out`.
            p: unsafe { out.add((c * oh + y) * row + opad * S::LANES) },
            channel: std::array::from_fn(|i| i * oh * row),
            pixel: S::LANES,
        };
        // SAFETY: `Source::new` and the check above cover all taps and targets.
        unsafe { source.sweep::<S>(to) }
    })
}

/// A convolution whose operands have been checked; only its output is missing.
pub(super) struct Source<'a> {
    pub shape: ConvShape,
    weights: &'a ConvWeights,
    x: *const f32,
    xpad: usize,
    bias: *const f32,
}

impl<'a> Source<'a> {
    pub fn new(shape: &ConvShape, weights: &'a ConvWeights, x: &[f32], xpad: usize, bias: Option<&[f32]>) -> Self {
        shape.check();
        assert_eq!((weights.k, weights.ci, weights.co), (shape.k, shape.ci, shape.co), "weights of another shape");
        check_group("x", x.len(), [shape.ci, shape.h, shape.w], xpad, shape.pad());
        assert!(bias.is_none_or(|b| b.len() >= shape.co), "bias is shorter than the {} channels", shape.co);
        Self { shape: *shape, weights, x: x.as_ptr(), xpad, bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr) }
    }

    /// The taps of output row `y` for the block of channels that begins at `first`.
    ///
    /// # Safety
    /// `y` and `first` are inside the output.
    #[inline(always)]
    pub unsafe fn taps<S: Simd>(&self, y: usize, first: usize) -> Taps {
        let (s, l) = (&self.shape, S::LANES);
        let block = S::TILE_CHANNELS.min(s.co - first);
        let (top, left) = (s.before(s.h), s.before(s.w));
        let begin = top.saturating_sub(y * s.stride);
        let end = s.k.min(s.h + top - y * s.stride);
        let row = (s.w + 2 * self.xpad) * l;
        // SAFETY: rows begin.. of the kernel lie inside the image, and the padding is at least `left` wide.
        unsafe {
            Taps {
                x: self.x.add((y * s.stride + begin - top) * row + (self.xpad - left) * l),
                w: self.weights.forward.as_ptr().add((first * s.ci * s.k + begin * block) * s.k),
                bias: if self.bias.is_null() { self.bias } else { self.bias.add(first) },
                channels: s.ci,
                rows: end - begin,
                cols: s.k,
                x_channel: s.h * row,
                x_row: row,
                x_pixel: s.stride * l,
                w_channel: s.k * s.k * block,
                w_row: s.k * block,
                w_col: block,
            }
        }
    }

    /// Computes every row; `to(y, first)` says where row `y` of the block of channels from `first` goes.
    ///
    /// # Safety
    /// All targets are writable.
    #[inline(always)]
    pub unsafe fn sweep<S: Simd>(&self, to: impl Fn(usize, usize) -> Target) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.shape.k, self.shape.stride) {
                (3, 1) => self.sweep_kernel::<S, 3>(to),
                (5, 1) => self.sweep_kernel::<S, 5>(to),
                _ => self.sweep_kernel::<S, 0>(to),
            }
        }
    }

    #[inline(always)]
    unsafe fn sweep_kernel<S: Simd, const K: usize>(&self, to: impl Fn(usize, usize) -> Target) {
        const { assert!(MAX_CHANNELS >= S::TILE_CHANNELS) };
        let (co, n) = (self.shape.co, self.shape.out_w());
        for y in 0..self.shape.out_h() {
            for first in (0..co).step_by(S::TILE_CHANNELS) {
                // SAFETY: row and block exist; the caller's promise for the target.
                unsafe { self.taps::<S>(y, first).run::<S, K>(S::TILE_CHANNELS.min(co - first), n, to(y, first)) };
            }
        }
    }
}
