//! Convolution fused with a 2x2 max pool, and the gradient of the pool.

use super::forward::Source;
use super::tile::Taps;
use super::weights::ConvWeights;
use super::{ConvShape, check_group, zero_padding};
use crate::cpu::simd::{Simd, four, with_simd};

/// `out = max over 2x2 of (x * weights (+ bias))` for one group; stride 1, even height and width.
///
/// `x` is `[ci][h][w + 2 xpad][lanes]` with `xpad >= shape.pad()`; `out` is `[co][h/2][w/2 + 2 opad][lanes]`.
/// `ties[co][h/2][w/2][4]` receives, for each of the four positions (row by row), one bit per lane: whether the maximum
/// was there. Flat regions of an image tie often, and all tied positions share the gradient.
#[allow(clippy::too_many_arguments)] // three buffers with their padding
pub fn conv_pool(
    shape: &ConvShape,
    weights: &ConvWeights,
    x: &[f32],
    xpad: usize,
    bias: Option<&[f32]>,
    out: &mut [f32],
    opad: usize,
    ties: &mut [u16],
) {
    let source = Source::new(shape, weights, x, xpad, bias);
    assert!(
        shape.stride == 1 && shape.h.is_multiple_of(2) && shape.w.is_multiple_of(2),
        "a pooled convolution needs stride 1 and even sizes, not {shape:?}"
    );
    let (h, w) = (shape.h / 2, shape.w / 2);
    check_group("out", out.len(), [shape.co, h, w], opad, 0);
    assert!(ties.len() >= shape.co * h * w * 4, "ties: {} masks for {} pooled pixels", ties.len(), shape.co * h * w);
    zero_padding(out, shape.co * h, w, opad);
    let pooled = Pooled { out: out.as_mut_ptr(), opad, ties: ties.as_mut_ptr(), h, w };
    // SAFETY: the lengths were checked above.
    with_simd!(S, unsafe {
        match shape.k {
            3 => sweep::<S, 3>(&source, &pooled),
            5 => sweep::<S, 5>(&source, &pooled),
            _ => sweep::<S, 0>(&source, &pooled),
        }
    })
}

/// The pooled output and its record of ties.
struct Pooled {
    out: *mut f32,
    opad: usize,
    ties: *mut u16,
    h: usize,
    w: usize,
}

#[inline(always)]
unsafe fn sweep<S: Simd, const K: usize>(source: &Source, pooled: &Pooled) {
    let co = source.shape.co;
    for y in 0..pooled.h {
        for first in (0..co).step_by(S::TILE_CHANNELS) {
            // SAFETY: both rows, the block and the pooled row exist.
            unsafe {
                let rows = [source.taps::<S>(2 * y, first), source.taps::<S>(2 * y + 1, first)];
                match S::TILE_CHANNELS.min(co - first) {
                    1 => row::<S, K, 1>(rows, pooled, y, first),
                    2 => row::<S, K, 2>(rows, pooled, y, first),
                    3 => row::<S, K, 3>(rows, pooled, y, first),
                    _ => row::<S, K, 4>(rows, pooled, y, first),
                }
            }
        }
    }
}

/// One row of pooled pixels, from tiles of two rows and four columns (two if the image has no more).
#[inline(always)]
unsafe fn row<S: Simd, const K: usize, const C: usize>(rows: [Taps; 2], pooled: &Pooled, y: usize, first: usize) {
    if C > S::TILE_CHANNELS {
        return; // unreachable; keeps the compiler from generating the rest
    }
    // SAFETY: the tiles lie inside the row, and the last one may overlap its neighbour.
    unsafe {
        if pooled.w < 2 {
            let [a, b] = [rows[0].tile::<S, K, 2, C>(0), rows[1].tile::<S, K, 2, C>(0)];
            pooled.put(y, 0, first, a, b);
            return;
        }
        for x in (0..pooled.w).step_by(2) {
            let x = x.min(pooled.w - 2);
            let [a, b] = [rows[0].tile::<S, K, 4, C>(2 * x), rows[1].tile::<S, K, 4, C>(2 * x)];
            pooled.put(y, x, first, a, b);
        }
    }
}

impl Pooled {
    #[inline(always)]
    unsafe fn put<S: Simd, const P: usize, const C: usize>(
        &self,
        y: usize,
        x: usize,
        first: usize,
        above: [[S; C]; P],
        below: [[S; C]; P],
    ) {
        let l = S::LANES;
        for c in 0..C {
            for p in 0..P / 2 {
                let four = [above[2 * p][c], above[2 * p + 1][c], below[2 * p][c], below[2 * p + 1][c]];
                let max = four[0].max(four[1]).max(four[2].max(four[3]));
                // `max` may drop a NaN, a sum does not: a NaN must come out as one, to be noticed.
                let sum = (four[0] + four[1]) + (four[2] + four[3]);
                let max = S::select(sum.eq(sum), max, sum);
                let row = (first + c) * self.h + y;
                // SAFETY: the pooled pixel exists.
                unsafe {
                    max.store(self.out.add((row * (self.w + 2 * self.opad) + self.opad + x + p) * l));
                    let ties = self.ties.add((row * self.w + x + p) * 4);
                    for (i, v) in four.into_iter().enumerate() {
                        *ties.add(i) = S::mask_bits(v.eq(max));
                    }
                }
            }
        }
    }
}

/// The pool's gradient: shares each of `g[channels][h/2][w/2 + 2 gpad][lanes]` equally among the tied maxima.
///
/// `h` and `w` are the sizes before the pool; `out` is `[channels][h][w + 2 opad][lanes]`, all of it written.
#[allow(clippy::too_many_arguments)] // three buffers with their padding
pub fn unpool(channels: usize, h: usize, w: usize, g: &[f32], gpad: usize, ties: &[u16], out: &mut [f32], opad: usize) {
    assert!(h.is_multiple_of(2) && w.is_multiple_of(2), "a 2x2 pool of {h} x {w} pixels leaves some over");
    check_group("g", g.len(), [channels, h / 2, w / 2], gpad, 0);
    check_group("out", out.len(), [channels, h, w], opad, 0);
    assert!(ties.len() >= channels * h * w, "ties: {} masks for {} pixels", ties.len(), channels * h * w);
    zero_padding(out, channels * h, w, opad);
    let (g, ties, out) = (g.as_ptr(), ties.as_ptr(), out.as_mut_ptr());
    with_simd!(S, {
        let l = S::LANES;
        let (g_row, out_row) = ((w / 2 + 2 * gpad) * l, (w + 2 * opad) * l);
        for row in 0..channels * h / 2 {
            for x in 0..w / 2 {
                // SAFETY: the pooled pixel and its four sources exist.
                unsafe {
                    let g = S::load(g.add(row * g_row + (gpad + x) * l));
                    let ties = ties.add((row * (w / 2) + x) * 4);
                    let to = out.add(2 * row * out_row + (opad + 2 * x) * l);
                    share(g, ties, [to, to.add(l), to.add(out_row), to.add(out_row + l)]);
                }
            }
        }
    })
}

/// # Safety
/// `ties` holds four masks, and a vector can be written to each of `to`.
#[inline(always)]
unsafe fn share<S: Simd>(g: S, ties: *const u16, to: [*mut f32; 4]) {
    let one = S::splat(1.0);
    // SAFETY: the caller's promise.
    unsafe {
        let tied: [S; 4] = four!(i => S::select(S::mask_from_bits(*ties.add(i)), one, S::zero()));
        let each = g / (tied[0] + tied[1] + (tied[2] + tied[3]));
        for i in 0..4 {
            (each * tied[i]).store(to[i]);
        }
    }
}
