//! Forward convolutions of one image at a time, for acting on few images: a vector holds neighbouring pixels of a row.
//! The lanes layout would leave most lanes empty.

use super::ConvShape;
use super::weights::{ConvWeights, block_channels};
use crate::Buffer;
use crate::cpu::simd::{Simd, with_simd};

/// One image as planes `[c][h + 2 pad][row_len]`, `pad` rows and columns of zeros before and after the pixels.
///
/// The width is rounded up to whole vectors, so kernels may compute meaningless pixels beyond it. With `pad` 0 the
/// buffer is one group of the lanes layout whose width is counted in vectors.
pub struct Image {
    pub data: Buffer,
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub pad: usize,
}

/// `w` rounded up to whole vectors, in floats.
fn vectors(w: usize) -> usize {
    w.next_multiple_of(crate::cpu::lanes())
}

impl Image {
    /// An image of zeros.
    pub fn zeros(c: usize, h: usize, w: usize, pad: usize) -> Self {
        let mut image = Image { data: Buffer::zeros(0), c, h, w, pad };
        image.data = Buffer::zeros(c * image.plane());
        image
    }

    /// Floats of a row.
    fn row_len(&self) -> usize {
        vectors(self.w) + 2 * self.pad
    }

    fn plane(&self) -> usize {
        (self.h + 2 * self.pad) * self.row_len()
    }

    /// Width of the rows in vectors.
    pub fn vectors(&self) -> usize {
        vectors(self.w) / crate::cpu::lanes()
    }

    fn row(&self, c: usize, y: usize) -> usize {
        c * self.plane() + (y + self.pad) * self.row_len() + self.pad
    }

    /// The pixels of row `y` of channel `c`.
    pub fn pixels(&self, c: usize, y: usize) -> &[f32] {
        &self.data[self.row(c, y)..][..self.w]
    }

    pub fn pixels_mut(&mut self, c: usize, y: usize) -> &mut [f32] {
        let (start, w) = (self.row(c, y), self.w);
        &mut self.data[start..][..w]
    }

    /// The same pixels with another padding.
    pub fn padded(&self, pad: usize) -> Self {
        let mut out = Self::zeros(self.c, self.h, self.w, pad);
        for (c, y) in (0..self.c).flat_map(|c| (0..self.h).map(move |y| (c, y))) {
            out.pixels_mut(c, y).copy_from_slice(self.pixels(c, y));
        }
        out
    }

    /// A 2x2 max pool, without padding; an odd last row or column is dropped.
    pub fn pooled(&self) -> Self {
        let mut out = Self::zeros(self.c, self.h / 2, self.w / 2, 0);
        for (c, y) in (0..out.c).flat_map(|c| (0..self.h / 2).map(move |y| (c, y))) {
            let (above, below) = (self.pixels(c, 2 * y), self.pixels(c, 2 * y + 1));
            let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
            for (to, (a, b)) in out.pixels_mut(c, y).iter_mut().zip(pairs) {
                *to = larger(larger(a[0], a[1]), larger(b[0], b[1]));
            }
        }
        out
    }
}

/// The larger one; NaN if either is.
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// The convolution of an image with stride 1. The image's padding must be `shape.pad()`; the output has none.
pub fn conv_image(shape: &ConvShape, weights: &ConvWeights, bias: &[f32], x: &Image) -> Image {
    shape.check();
    assert_eq!((weights.k, weights.ci, weights.co), (shape.k, shape.ci, shape.co), "weights of another shape");
    assert_eq!((x.c, x.h, x.w), (shape.ci, shape.h, shape.w), "an image of another shape");
    assert!(x.data.len() >= x.c * x.plane(), "an image without its pixels");
    assert!(
        shape.stride == 1 && x.pad == shape.pad() && bias.len() >= shape.co,
        "stride, padding or bias of {shape:?}"
    );
    let mut out = Image::zeros(shape.co, shape.h, shape.w, 0);
    let block = block_channels();
    with_simd!(S, {
        for first in (0..shape.co).step_by(block) {
            let job = Job { k: shape.k, ci: shape.ci, w: &weights.forward[first * shape.ci * shape.k * shape.k..], x };
            let bias = &bias[first..shape.co.min(first + block)];
            for y in 0..shape.h {
                let rows: [usize; 4] = std::array::from_fn(|c| out.row(first + c.min(bias.len() - 1), y));
                let to = out.data.as_mut_ptr();
                // SAFETY: the rows of the block's channels exist, of all vectors that `row` is asked for.
                unsafe {
                    match bias.len() {
                        1 => job.row::<S, 1>(y, bias, to, rows),
                        2 => job.row::<S, 2>(y, bias, to, rows),
                        3 => job.row::<S, 3>(y, bias, to, rows),
                        _ => job.row::<S, 4>(y, bias, to, rows),
                    }
                }
            }
        }
    });
    out
}

/// One block of output channels.
struct Job<'a> {
    k: usize,
    ci: usize,
    /// `[ci][k][k][channels in the block]`
    w: &'a [f32],
    x: &'a Image,
}

impl Job<'_> {
    /// Row `y` of `C` channels, which begin at `rows` of `to`.
    #[inline(always)]
    unsafe fn row<S: Simd, const C: usize>(&self, y: usize, bias: &[f32], to: *mut f32, rows: [usize; 4]) {
        let vectors = self.x.vectors();
        let mut v = 0;
        while v < vectors {
            // SAFETY: as many vectors are left as are asked for.
            unsafe {
                match vectors - v {
                    1 => v += self.tile::<S, C, 1>(y, v, bias, to, rows),
                    2 | 3 => v += self.tile::<S, C, 2>(y, v, bias, to, rows),
                    _ => v += self.tile::<S, C, 4>(y, v, bias, to, rows),
                }
            }
        }
    }

    /// `V` vectors of pixels from vector `v` on. Returns `V`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const C: usize, const V: usize>(
        &self,
        y: usize,
        v: usize,
        bias: &[f32],
        to: *mut f32,
        rows: [usize; 4],
    ) -> usize {
        let mut acc = [[S::zero(); V]; C];
        for c in 0..C {
            acc[c] = [S::splat(bias[c]); V];
        }
        let mut w = self.w.as_ptr();
        let row = self.x.row_len();
        // SAFETY: row y + dy of the padded image and its columns up to the last pixel's kernel exist; the weights
        // hold `C` numbers a tap.
        unsafe {
            for i in 0..self.ci {
                for dy in 0..self.k {
                    let from = self.x.data.as_ptr().add(i * self.x.plane() + (y + dy) * row + v * S::LANES);
                    for dx in 0..self.k {
                        let mut pixels = [S::zero(); V];
                        for p in 0..V {
                            pixels[p] = S::load(from.add(dx + p * S::LANES));
                        }
                        for c in 0..C {
                            let weight = S::splat(*w.add(c));
                            for p in 0..V {
                                acc[c][p] = weight.mul_add(pixels[p], acc[c][p]);
                            }
                        }
                        w = w.add(C);
                    }
                }
            }
            for c in 0..C {
                for p in 0..V {
                    acc[c][p].store(to.add(rows[c] + (v + p) * S::LANES));
                }
            }
        }
        V
    }
}
