//! The gradients of a convolution with respect to its weights and bias, summed per lane until the end.

use super::{ConvShape, check_group};
use crate::cpu::simd::{Simd, with_simd};

/// Pixels in a band of rows: enough to amortise loading the accumulators, few enough to stay in the near caches.
const BAND: usize = 64;
/// The same for many channels, and for tiles of few channels (as in AVX2), which do less work with each pixel.
const LONG_BAND: usize = 256;

/// Adds one group's weight gradient to `acc`, the lane accumulators of [`ConvShape::weight_grad_len`] floats.
///
/// `x` is `[ci][h][w + 2 xpad][lanes]` with `xpad >= shape.pad()`; `dy` is `[co][out_h][out_w + 2 dpad][lanes]`.
pub fn conv_weight_grad(shape: &ConvShape, x: &[f32], xpad: usize, dy: &[f32], dpad: usize, acc: &mut [f32]) {
    shape.check();
    check_group("x", x.len(), [shape.ci, shape.h, shape.w], xpad, shape.pad());
    check_group("dy", dy.len(), [shape.co, shape.out_h(), shape.out_w()], dpad, 0);
    assert_eq!(acc.len(), shape.weight_grad_len(), "weight gradient accumulators of {shape:?}");
    let job = WeightGrad { shape, x: x.as_ptr(), xpad, dy: dy.as_ptr(), dpad, acc: acc.as_mut_ptr() };
    // SAFETY: the lengths were checked above.
    with_simd!(S, unsafe { job.run::<S>() })
}

/// Output channels of a tile: with few kernel columns, registers have room for more.
#[inline(always)]
fn block_channels<S: Simd>(k: usize) -> usize {
    if k > 3 { S::TILE_CHANNELS } else { 2 * S::TILE_CHANNELS }
}

/// The accumulators are `[block of co][ci][row][column][co in block][lanes]`.
struct WeightGrad<'a> {
    shape: &'a ConvShape,
    x: *const f32,
    xpad: usize,
    dy: *const f32,
    dpad: usize,
    acc: *mut f32,
}

/// Rows `y0..y1` of the output, one input channel, one row of the kernel.
#[derive(Clone, Copy)]
struct Strip {
    x: *const f32,
    dy: *const f32,
    rows: usize,
}

impl WeightGrad<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let s = self.shape;
        let pixels = if s.ci * s.co > 1000 || S::TILE_CHANNELS < 4 { LONG_BAND } else { BAND };
        let band = (pixels / s.out_w()).max(1);
        for y0 in (0..s.out_h()).step_by(band) {
            for first in (0..s.co).step_by(block_channels::<S>(s.k)) {
                for c in 0..s.ci {
                    for ky in 0..s.k {
                        // SAFETY: band, block, channel and kernel row exist.
                        unsafe { self.kernel_row::<S>(y0, (y0 + band).min(s.out_h()), first, c, ky) };
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn kernel_row<S: Simd>(&self, y0: usize, y1: usize, first: usize, c: usize, ky: usize) {
        let (s, l) = (self.shape, S::LANES);
        let (top, left) = (s.before(s.h), s.before(s.w));
        let block = block_channels::<S>(s.k).min(s.co - first);
        // Output rows whose input row y stride + ky - top exists.
        let y0 = y0.max(top.saturating_sub(ky).div_ceil(s.stride));
        let y1 = y1.min((s.h + top).saturating_sub(ky).div_ceil(s.stride));
        if y0 >= y1 {
            return;
        }
        let (x_row, dy_row) = ((s.w + 2 * self.xpad) * l, (s.out_w() + 2 * self.dpad) * l);
        // SAFETY: the rows exist, and the padding of `x` is at least `left` wide.
        unsafe {
            let strip = Strip {
                x: self.x.add((c * s.h + y0 * s.stride + ky - top) * x_row + (self.xpad - left) * l),
                dy: self.dy.add((first * s.out_h() + y0) * dy_row + self.dpad * l),
                rows: y1 - y0,
            };
            let acc = self.acc.add(((first * s.ci + block * c) * s.k + block * ky) * s.k * l);
            match block {
                1 => self.columns::<S, 1>(strip, acc),
                2 => self.columns::<S, 2>(strip, acc),
                3 => self.columns::<S, 3>(strip, acc),
                4 => self.columns::<S, 4>(strip, acc),
                5 => self.columns::<S, 5>(strip, acc),
                6 => self.columns::<S, 6>(strip, acc),
                7 => self.columns::<S, 7>(strip, acc),
                _ => self.columns::<S, 8>(strip, acc),
            }
        }
    }

    /// Cuts the kernel's row into at most five columns at a time, so that all sums stay in registers.
    #[inline(always)]
    unsafe fn columns<S: Simd, const C: usize>(&self, strip: Strip, acc: *mut f32) {
        if C > 2 * S::TILE_CHANNELS {
            return; // unreachable; keeps the compiler from generating the rest
        }
        for kx in (0..self.shape.k).step_by(5) {
            // SAFETY: columns kx.. of the kernel's row exist.
            unsafe {
                let strip = Strip { x: strip.x.add(kx * S::LANES), ..strip };
                let acc = acc.add(kx * C * S::LANES);
                match self.shape.k - kx {
                    1 => self.tile::<S, 1, C>(strip, acc),
                    2 => self.tile::<S, 2, C>(strip, acc),
                    3 => self.tile::<S, 3, C>(strip, acc),
                    4 => self.tile::<S, 4, C>(strip, acc),
                    _ => self.tile::<S, 5, C>(strip, acc),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const K: usize, const C: usize>(&self, strip: Strip, acc: *mut f32) {
        if K > 3 && C > S::TILE_CHANNELS {
            return; // unreachable; keeps the compiler from generating the rest
        }
        let (s, l) = (self.shape, S::LANES);
        let (x_row, dy_row) = ((s.w + 2 * self.xpad) * l, (s.out_w() + 2 * self.dpad) * l);
        let dy_channel = s.out_h() * dy_row;
        let mut sum = [[S::zero(); C]; K];
        // SAFETY: `strip` holds the rows it says, `acc` K columns of C channels.
        unsafe {
            for k in 0..K {
                for c in 0..C {
                    sum[k][c] = S::load(acc.add((k * C + c) * l));
                }
            }
            for row in 0..strip.rows {
                let mut x = strip.x.add(row * s.stride * x_row);
                let mut dy = strip.dy.add(row * dy_row);
                for _ in 0..s.out_w() {
                    let mut v = [S::zero(); K];
                    for k in 0..K {
                        v[k] = S::load(x.add(k * l));
                    }
                    for c in 0..C {
                        let d = S::load(dy.add(c * dy_channel));
                        for k in 0..K {
                            sum[k][c] = v[k].mul_add(d, sum[k][c]);
                        }
                    }
                    x = x.wrapping_add(s.stride * l); // beyond the row after its last pixel
                    dy = dy.wrapping_add(l);
                }
            }
            for k in 0..K {
                for c in 0..C {
                    sum[k][c].store(acc.add((k * C + c) * l));
                }
            }
        }
    }
}

/// Adds the lanes of `acc` to `dw[k, k, ci, co]`.
pub fn reduce_weight_grad(shape: &ConvShape, acc: &[f32], dw: &mut [f32]) {
    let ConvShape { k, ci, co, .. } = *shape;
    assert_eq!(acc.len(), shape.weight_grad_len(), "weight gradient accumulators of {shape:?}");
    assert_eq!(dw.len(), k * k * ci * co, "weight gradient of {shape:?}");
    let block = with_simd!(S, block_channels::<S>(k));
    let mut vectors = acc.chunks_exact(crate::cpu::lanes());
    for first in (0..co).step_by(block) {
        for i in 0..ci {
            for tap in 0..k * k {
                for (o, lanes) in (first..co.min(first + block)).zip(&mut vectors) {
                    dw[(tap * ci + i) * co + o] += lanes.iter().sum::<f32>();
                }
            }
        }
    }
}

/// Adds the sums over the pixels of `dy[channels][h][w + 2 dpad][lanes]` to `acc[channels][lanes]`.
pub fn conv_bias_grad(channels: usize, h: usize, w: usize, dy: &[f32], dpad: usize, acc: &mut [f32]) {
    check_group("dy", dy.len(), [channels, h, w], dpad, 0);
    assert_eq!(acc.len(), channels * crate::cpu::lanes(), "bias gradient accumulators of {channels} channels");
    let (dy, acc) = (dy.as_ptr(), acc.as_mut_ptr());
    with_simd!(S, {
        let l = S::LANES;
        for row in 0..channels * h {
            // SAFETY: the lengths were checked above.
            unsafe {
                let to = acc.add(row / h * l);
                let from = dy.add((row * (w + 2 * dpad) + dpad) * l);
                let mut sum = S::load(to);
                for x in 0..w {
                    sum = sum + S::load(from.add(x * l));
                }
                sum.store(to);
            }
        }
    })
}

/// Adds the lanes of `acc[channels][lanes]` to `db[channels]`; also for the gradients of scale and shift.
pub fn reduce_bias_grad(acc: &[f32], db: &mut [f32]) {
    let l = crate::cpu::lanes();
    assert_eq!(acc.len(), db.len() * l, "bias gradient accumulators of {} channels", db.len());
    for (sum, lanes) in db.iter_mut().zip(acc.chunks_exact(l)) {
        *sum += lanes.iter().sum::<f32>();
    }
}
