//! The gradient of a convolution with respect to its input: a convolution with kernels rotated by 180 degrees and input
//! and output channels exchanged.

use super::tile::{Taps, Target};
use super::weights::ConvWeights;
use super::{ConvShape, check_group, zero_padding};
use crate::cpu::simd::{Simd, with_simd};

/// `dx` from `dy` for one group; what `dx` held is overwritten.
///
/// `dy` is `[co][out_h][out_w + 2 dpad][lanes]` with `dpad >= shape.pad()`; `dx` is `[ci][h][w + 2 xpad][lanes]`.
pub fn conv_input_grad(shape: &ConvShape, weights: &ConvWeights, dy: &[f32], dpad: usize, dx: &mut [f32], xpad: usize) {
    shape.check();
    assert_eq!((weights.k, weights.ci, weights.co), (shape.k, shape.ci, shape.co), "weights of another shape");
    check_group("dy", dy.len(), [shape.co, shape.out_h(), shape.out_w()], dpad, shape.pad());
    check_group("dx", dx.len(), [shape.ci, shape.h, shape.w], xpad, 0);
    zero_padding(dx, shape.ci * shape.h, shape.w, xpad);
    let job = InputGrad { shape, weights, dy: dy.as_ptr(), dpad, dx: dx.as_mut_ptr(), xpad };
    // SAFETY: the lengths were checked above.
    with_simd!(S, unsafe {
        match (shape.k, shape.stride) {
            (3, 1) => job.run::<S, 3>(),
            (5, 1) => job.run::<S, 5>(),
            _ => job.run::<S, 0>(),
        }
    })
}

struct InputGrad<'a> {
    shape: &'a ConvShape,
    weights: &'a ConvWeights,
    dy: *const f32,
    dpad: usize,
    dx: *mut f32,
    xpad: usize,
}

/// The taps of the rotated kernel that contribute to one input position, along one axis.
struct Reach {
    /// First tap; the following ones are a stride apart.
    first: usize,
    count: usize,
    /// The position in `dy` that the first tap reads; each following tap reads the next one.
    from: isize,
}

/// The taps of a kernel of size `k` that have a `dy` for input position `at`: those with `at + tap - after` divisible
/// by the stride, where `after` is the rotated kernel's offset. Taps that read outside `0..limit` are dropped.
#[inline(always)]
fn reach(at: usize, k: usize, stride: usize, after: usize, limit: Option<usize>) -> Reach {
    let first = (after + stride * at - at) % stride; // smallest tap >= 0 that is congruent to after - at
    let count = if first < k { (k - first).div_ceil(stride) } else { 0 };
    let from = (at as isize + first as isize - after as isize) / stride as isize;
    let Some(limit) = limit else { return Reach { first, count, from } };
    let skip = (-from).max(0) as usize;
    let end = (limit as isize - from).clamp(0, count as isize) as usize;
    Reach { first: first + skip * stride, count: end.saturating_sub(skip), from: from + skip as isize }
}

impl InputGrad<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const K: usize>(&self) {
        let s = self.shape;
        for y in 0..s.h {
            for first in (0..s.ci).step_by(S::TILE_CHANNELS) {
                for phase in 0..s.stride.min(s.w) {
                    // SAFETY: row, block and first pixel exist.
                    unsafe { self.row::<S, K>(y, first, phase) };
                }
            }
        }
    }

    /// Every `stride`-th pixel of row `y` from `phase`, which all have the same taps.
    #[inline(always)]
    unsafe fn row<S: Simd, const K: usize>(&self, y: usize, first: usize, phase: usize) {
        let (s, l) = (self.shape, S::LANES);
        let (oh, ow) = (s.out_h(), s.out_w());
        let block = S::TILE_CHANNELS.min(s.ci - first);
        let rows = reach(y, s.k, s.stride, s.k - 1 - s.before(s.h), Some(oh));
        let cols = reach(phase, s.k, s.stride, s.k - 1 - s.before(s.w), None);
        let (dy_row, dx_row) = ((ow + 2 * self.dpad) * l, (s.w + 2 * self.xpad) * l);
        let x = rows.from.max(0) * dy_row as isize + (cols.from + self.dpad as isize) * l as isize;
        let w = (first * s.co * s.k + rows.first * block) * s.k + cols.first * block;
        // SAFETY: where there are taps, they lie inside `dy` and its padding (see `ConvShape::pad`) and the
        // weights; where there are none, the pointers are not read. The target is row y of channel `first`.
        unsafe {
            let taps = Taps {
                x: self.dy.wrapping_offset(x),
                w: self.weights.backward.as_ptr().wrapping_add(w),
                bias: std::ptr::null(),
                channels: s.co,
                rows: rows.count,
                cols: cols.count,
                x_channel: oh * dy_row,
                x_row: dy_row,
                x_pixel: l,
                w_channel: s.k * s.k * block,
                w_row: s.stride * s.k * block,
                w_col: s.stride * block,
            };
            let to = Target {
                p: self.dx.add((first * s.h + y) * dx_row + (self.xpad + phase) * l),
                channel: std::array::from_fn(|i| i * s.h * dx_row),
                pixel: s.stride * l,
            };
            taps.run::<S, K>(block, (s.w - phase).div_ceil(s.stride), to);
        }
    }
}
