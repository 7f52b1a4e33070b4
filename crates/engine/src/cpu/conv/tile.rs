//! The inner loop of all convolutions except the weight gradient: four pixels by a block of output channels.

use crate::cpu::simd::Simd;

/// The most output channels in a block.
pub(super) const MAX_CHANNELS: usize = 4;

/// The taps that a row of outputs is summed over: where inputs and weights are, with strides in floats.
#[derive(Clone, Copy)]
pub(super) struct Taps {
    /// First tap of the first pixel, in the first channel.
    pub x: *const f32,
    /// Its weight for the first output channel of the block.
    pub w: *const f32,
    /// One number for each channel of the block, or null.
    pub bias: *const f32,
    pub channels: usize,
    pub rows: usize,
    pub cols: usize,
    pub x_channel: usize,
    pub x_row: usize,
    /// From the taps of one pixel to those of the next.
    pub x_pixel: usize,
    pub w_channel: usize,
    pub w_row: usize,
    pub w_col: usize,
}

/// Where a row of outputs goes: `p + channel[c] + pixel * i`.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub p: *mut f32,
    pub channel: [usize; MAX_CHANNELS],
    pub pixel: usize,
}

impl Taps {
    /// Sums of `P` pixels from pixel `x0`, for `C` channels.
    ///
    /// `K > 0` promises `K` columns of taps, contiguous rows of weights, and a stride of one.
    ///
    /// # Safety
    /// All taps and weights that the fields describe exist.
    #[inline(always)]
    pub unsafe fn tile<S: Simd, const K: usize, const P: usize, const C: usize>(&self, x0: usize) -> [[S; C]; P] {
        let l = S::LANES;
        let (cols, pixel, w_col) = if K > 0 { (K, l, C) } else { (self.cols, self.x_pixel, self.w_col) };
        // SAFETY: the caller's promise, for every load below.
        unsafe {
            let mut acc = [[S::zero(); C]; P];
            if !self.bias.is_null() {
                for c in 0..C {
                    let b = S::splat(*self.bias.add(c));
                    for p in 0..P {
                        acc[p][c] = b;
                    }
                }
            }
            for channel in 0..self.channels {
                // Wrapping, as these may be out of bounds if there are no rows, and after the last one.
                let mut xr = self.x.wrapping_add(channel * self.x_channel + x0 * pixel);
                let mut wr = self.w.wrapping_add(channel * self.w_channel);
                for _ in 0..self.rows {
                    for col in 0..cols {
                        let mut xv = [S::zero(); P];
                        for p in 0..P {
                            xv[p] = S::load(xr.add(col * l + p * pixel));
                        }
                        for c in 0..C {
                            let wv = S::splat(*wr.add(col * w_col + c));
                            for p in 0..P {
                                acc[p][c] = xv[p].mul_add(wv, acc[p][c]);
                            }
                        }
                    }
                    xr = xr.wrapping_add(self.x_row);
                    wr = wr.wrapping_add(self.w_row);
                }
            }
            acc
        }
    }

    /// Computes a row of `n` pixels for a block of `C` channels.
    ///
    /// # Safety
    /// As for `tile`, and the target's addresses are writable.
    #[inline(always)]
    unsafe fn row<S: Simd, const K: usize, const C: usize>(&self, n: usize, to: Target) {
        if C > S::TILE_CHANNELS {
            return; // unreachable; keeps the compiler from generating the rest
        }
        // SAFETY: the caller's promise; the tiles lie inside the row, and the last one may overlap its neighbour.
        unsafe {
            if n < 4 {
                for x0 in 0..n {
                    to.put(x0, self.tile::<S, K, 1, C>(x0));
                }
                return;
            }
            for x0 in (0..n).step_by(4) {
                let x0 = x0.min(n - 4);
                to.put(x0, self.tile::<S, K, 4, C>(x0));
            }
        }
    }

    /// Computes a row of `n` pixels for a block of `channels` channels.
    ///
    /// # Safety
    /// As for `row`.
    #[inline(always)]
    pub unsafe fn run<S: Simd, const K: usize>(&self, channels: usize, n: usize, to: Target) {
        // SAFETY: the caller's promise.
        unsafe {
            match channels {
                1 => self.row::<S, K, 1>(n, to),
                2 => self.row::<S, K, 2>(n, to),
                3 => self.row::<S, K, 3>(n, to),
                _ => self.row::<S, K, 4>(n, to),
            }
        }
    }
}

impl Target {
    #[inline(always)]
    unsafe fn put<S: Simd, const P: usize, const C: usize>(&self, x0: usize, acc: [[S; C]; P]) {
        for c in 0..C {
            for p in 0..P {
                // SAFETY: `row`'s caller promised that the addresses are writable.
                unsafe { acc[p][c].store(self.p.add(self.channel[c] + (x0 + p) * self.pixel)) };
            }
        }
    }
}
