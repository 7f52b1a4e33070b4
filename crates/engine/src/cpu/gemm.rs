//! Matrix products with weights packed once and used many times: `c[m, n] (+)= a[m, k] w[k, n] (+ bias)`.
//!
//! A panel is two vectors wide and all of `k` long, so the inner loop streams it once while up to eight
//! rows of `c` stay in registers. Each element of `c` is one sum over `k` in order, however rows are cut.

use super::simd::{Isa, Simd, with_simd};
use crate::{Buffer, profile};

/// Inner length for which a slice of a panel (64 KiB at most) and a few rows of `a` stay in the near caches.
const BLOCK_K: usize = 512;
/// Rows of `a` that are kept near while all panels pass by.
const BLOCK_M: usize = 128;

/// Weights `[k, n]` as panels `[ceil(n / width)][k][width]`, padded with zeros.
#[derive(Clone)]
pub struct Packed {
    panels: Buffer,
    k: usize,
    n: usize,
    width: usize,
}

impl Packed {
    /// Packs `w[k, n]`, whose rows start `ldw` floats apart.
    pub fn new(w: &[f32], k: usize, n: usize, ldw: usize) -> Self {
        check_matrix("w", w.len(), k, n, ldw);
        let mut packed = Self::empty(k, n);
        let width = packed.width;
        for (p, panel) in packed.panels.chunks_exact_mut((k * width).max(1)).enumerate() {
            let j = p * width;
            let used = width.min(n - j);
            for (i, row) in panel.chunks_exact_mut(width).enumerate() {
                row[..used].copy_from_slice(&w[i * ldw + j..][..used]);
                row[used..].fill(0.0);
            }
        }
        packed
    }

    /// Packs the transpose of `w[n, k]`, whose rows start `ldw` floats apart: the weights of `dx = dy wᵀ`.
    pub fn transposed(w: &[f32], k: usize, n: usize, ldw: usize) -> Self {
        check_matrix("w", w.len(), n, k, ldw);
        let mut packed = Self::empty(k, n);
        let width = packed.width;
        for (p, panel) in packed.panels.chunks_exact_mut((k * width).max(1)).enumerate() {
            let j = p * width;
            let used = width.min(n - j);
            let source = &w[j * ldw..];
            for (i, row) in panel.chunks_exact_mut(width).enumerate() {
                for (c, to) in row[..used].iter_mut().enumerate() {
                    *to = source[c * ldw + i];
                }
                row[used..].fill(0.0);
            }
        }
        packed
    }

    fn empty(k: usize, n: usize) -> Self {
        let width = 2 * Isa::get().lanes();
        Self { panels: Buffer::stale(n.div_ceil(width) * k * width), k, n, width }
    }

    /// Inner length: the number of input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns: the number of output features.
    pub fn n(&self) -> usize {
        self.n
    }
}

/// Panics unless a slice of `len` floats holds a matrix of `rows` by `cols` with rows `ld` apart.
fn check_matrix(name: &str, len: usize, rows: usize, cols: usize, ld: usize) {
    assert!(ld >= cols || rows <= 1, "{name}: rows of {cols} floats cannot start {ld} apart");
    assert!(
        fits(len, rows, cols, ld),
        "{name}: {len} floats are too few for a [{rows}, {cols}] matrix, rows {ld} apart"
    );
}

/// Whether `len` floats hold `rows` rows of `cols` floats that start `ld` apart.
pub(super) fn fits(len: usize, rows: usize, cols: usize, ld: usize) -> bool {
    let need = || (rows - 1).checked_mul(ld)?.checked_add(cols);
    rows == 0 || cols == 0 || need().is_some_and(|need| need <= len)
}

/// `c[m, n] (+)= a[m, k] w[row0..row0 + k, n] (+ bias[n])`, where `w` is packed.
///
/// Rows of `a` start `lda` floats apart, those of `c` `ldc`; `accumulate` adds to what `c` holds. `row0` and `k` select
/// rows of the weights, so that inputs need not be copied to be concatenated.
#[allow(clippy::too_many_arguments)] // the operands of a matrix product
pub fn gemm_packed(
    m: usize,
    k: usize,
    a: &[f32],
    lda: usize,
    w: &Packed,
    row0: usize,
    bias: Option<&[f32]>,
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
) {
    check_matrix("a", a.len(), m, k, lda);
    check_matrix("c", c.len(), m, w.n, ldc);
    assert!(row0 <= w.k && k <= w.k - row0, "{k} rows from {row0} of packed weights that have {}", w.k);
    assert!(bias.is_none_or(|b| b.len() >= w.n), "bias is shorter than the {} columns", w.n);
    assert_eq!(w.width, 2 * Isa::get().lanes(), "weights were packed for another instruction set");
    profile::count(2 * m * k * w.n, 2 * m * k * w.n);
    let bias = bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
    let product = Product { k, a: a.as_ptr(), lda, w, row0, bias, c: c.as_mut_ptr(), ldc, accumulate };
    // SAFETY: the lengths were checked above.
    with_simd!(S, unsafe { product.run::<S>(m) })
}

/// The operands of one product; pointers cover the matrices that `gemm_packed` checked.
#[derive(Clone, Copy)]
struct Product<'a> {
    k: usize,
    a: *const f32,
    lda: usize,
    w: &'a Packed,
    row0: usize,
    bias: *const f32,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
}

/// One pass over part of `k`: its operands at the tile's first row, panel and column.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    a: *const f32,
    lda: usize,
    panel: *const f32,
    /// Null if there is none to add.
    bias: *const f32,
    c: *mut f32,
    ldc: usize,
    /// Columns to write, at most two vectors.
    n: usize,
    accumulate: bool,
}

impl Product<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self, m: usize) {
        let w = self.w;
        // A single tile of rows reads each panel once, so blocking would not help the caches.
        let block_k = if m <= S::TILE_ROWS { self.k.max(1) } else { BLOCK_K };
        for m0 in (0..m).step_by(BLOCK_M) {
            let rows = BLOCK_M.min(m - m0);
            let mut k0 = 0;
            loop {
                let k = block_k.min(self.k - k0);
                for p in 0..w.n.div_ceil(w.width) {
                    let j = p * w.width;
                    // SAFETY: panel p, rows m0.., and columns j.. exist by the loops' bounds.
                    unsafe {
                        let tile = Tile {
                            k,
                            a: self.a.add(m0 * self.lda + k0),
                            lda: self.lda,
                            panel: w.panels.as_ptr().add((p * w.k + self.row0 + k0) * w.width),
                            bias: if k0 + k < self.k || self.bias.is_null() {
                                std::ptr::null()
                            } else {
                                self.bias.add(j)
                            },
                            c: self.c.add(m0 * self.ldc + j),
                            ldc: self.ldc,
                            n: w.width.min(w.n - j),
                            accumulate: self.accumulate || k0 > 0,
                        };
                        tile.rows::<S>(rows);
                    }
                }
                k0 += k;
                if k0 >= self.k {
                    break;
                }
            }
        }
    }
}

impl Tile {
    /// Cuts `m` rows into tiles of nearly equal height.
    #[inline(always)]
    unsafe fn rows<S: Simd>(mut self, m: usize) {
        let tiles = m.div_ceil(S::TILE_ROWS);
        let full = self.n == 2 * S::LANES;
        for t in 0..tiles {
            let rows = (t + 1) * m / tiles - t * m / tiles;
            // SAFETY: `rows` more rows exist in `a` and `c`.
            unsafe {
                match rows {
                    1 => self.run::<S, 1>(full),
                    2 => self.run::<S, 2>(full),
                    3 => self.run::<S, 3>(full),
                    4 => self.run::<S, 4>(full),
                    5 => self.run::<S, 5>(full),
                    6 => self.run::<S, 6>(full),
                    7 => self.run::<S, 7>(full),
                    _ => self.run::<S, 8>(full),
                }
            }
            // Wrapping, as these may be out of bounds after the last rows.
            self.a = self.a.wrapping_add(rows * self.lda);
            self.c = self.c.wrapping_add(rows * self.ldc);
        }
    }

    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize>(&self, full: bool) {
        if R > S::TILE_ROWS {
            return; // unreachable; keeps the compiler from generating the rest
        }
        let l = S::LANES;
        let mut acc = [[S::zero(); 2]; R];
        // SAFETY: `c` and `bias` hold `n` columns here, `panel` holds `k` rows of two vectors, `a` `R` rows of `k`.
        unsafe {
            if self.accumulate {
                for r in 0..R {
                    acc[r] = load_pair::<S>(self.c.add(r * self.ldc), self.n, full);
                }
            }
            let mut panel = self.panel;
            for i in 0..self.k {
                let (b0, b1) = (S::load(panel), S::load(panel.add(l)));
                for r in 0..R {
                    let a = S::splat(*self.a.add(r * self.lda + i));
                    acc[r] = [a.mul_add(b0, acc[r][0]), a.mul_add(b1, acc[r][1])];
                }
                panel = panel.add(2 * l);
            }
            // Added last: a large bias would cost precision in every partial sum.
            if !self.bias.is_null() {
                let b = load_pair::<S>(self.bias, self.n, full);
                for r in 0..R {
                    acc[r] = [acc[r][0] + b[0], acc[r][1] + b[1]];
                }
            }
            for r in 0..R {
                store_pair(acc[r], self.c.add(r * self.ldc), self.n, full);
            }
        }
    }
}

/// Loads two vectors from `n` floats; `full` says that these fill both.
///
/// # Safety
/// `p` is readable for `n` floats, at most two vectors.
#[inline(always)]
pub(super) unsafe fn load_pair<S: Simd>(p: *const f32, n: usize, full: bool) -> [S; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        if full {
            return [S::load(p), S::load(p.add(S::LANES))];
        }
        let first = n.min(S::LANES);
        [S::load_first(p, first), S::load_first(p.add(first), n - first)]
    }
}

/// Stores the first `n` floats of two vectors; `full` says that these are all.
///
/// # Safety
/// `p` is writable for `n` floats, at most two vectors.
#[inline(always)]
pub(super) unsafe fn store_pair<S: Simd>(v: [S; 2], p: *mut f32, n: usize, full: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        if full {
            v[0].store(p);
            v[1].store(p.add(S::LANES));
        } else {
            let first = n.min(S::LANES);
            v[0].store_first(p, first);
            v[1].store_first(p.add(first), n - first);
        }
    }
}

#[cfg(test)]
mod tests;
