//! Weight gradients as one product over all rows: `dw[k, n] += Σ xᵀ dy`, from rows that lie in several places.
//!
//! Rows are processed in blocks. Both operands of a block are packed in the order in which the inner loop reads them:
//! `dy` as panels two vectors wide, `x` as strips as wide as a tile has rows. Packing reads whole rows one after the
//! other; a tile that read its few columns of each row itself would wait for memory, as rows are far apart and often
//! not cached.

use super::gemm::{fits, load_pair, store_pair};
use super::simd::{Simd, with_simd};
use crate::{Buffer, profile};
use std::ops::Range;

/// The most rows in a block.
const BLOCK: usize = 256;
/// Floats of packed `dy` that stay in the near caches.
const NEAR: usize = 1 << 16;
/// Columns of `x` that are copied at a time.
const COLUMNS: usize = 512;
/// Floats between strips, without which all strips would begin in the same cache set.
const GAP: usize = 16;

/// Rows `x[rows, k]` and `dy[rows, n]` of one product, `ldx` and `ldy` floats apart.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    pub x: &'a [f32],
    pub ldx: usize,
    pub dy: &'a [f32],
    pub ldy: usize,
    pub rows: usize,
}

/// One block of rows, gathered from the segments.
struct Block {
    /// Where each row begins in `x` and in `dy`.
    x: [*const f32; BLOCK],
    dy: [*const f32; BLOCK],
    rows: usize,
    /// Rows of a full block.
    limit: usize,
    /// `dy` as panels `[ceil(n / width)][rows][width]`, two vectors wide.
    panels: Buffer,
    /// Columns of `x` as strips `[columns / tile][limit][tile]`, with gaps.
    strips: Buffer,
}

/// The gradient to be added to: `[k, n]`, rows `ld` floats apart.
#[derive(Clone, Copy)]
struct Gradient {
    p: *mut f32,
    k: usize,
    n: usize,
    ld: usize,
}

/// `dw[k, n] += Σ over segments of x[rows, k]ᵀ dy[rows, n]` for a range of `k`.
///
/// `dw` begins at row `k.start` of the gradient, and its rows start `ldw` floats apart, so a caller can hand ranges of
/// `k` to its workers; the result does not depend on the cut, to the last bit. Rows are summed in the segments' order.
pub fn gemm_tn(k: Range<usize>, n: usize, segments: &[Segment], dw: &mut [f32], ldw: usize) {
    for s in segments.iter().filter(|s| s.rows > 0) {
        assert!(fits(s.x.len(), s.rows, k.end, s.ldx), "x: {} floats for {} rows of {}", s.x.len(), s.rows, k.end);
        assert!(fits(s.dy.len(), s.rows, n, s.ldy), "dy: {} floats for {} rows of {n}", s.dy.len(), s.rows);
    }
    if k.is_empty() || n == 0 {
        return;
    }
    assert!(ldw >= n && fits(dw.len(), k.len(), n, ldw), "dw: {} floats for {} rows of {n}", dw.len(), k.len());
    let flops = 2 * k.len() * n * segments.iter().map(|s| s.rows).sum::<usize>();
    profile::count(flops, flops);
    let dw = Gradient { p: dw.as_mut_ptr(), k: k.len(), n, ld: ldw };
    // SAFETY: the lengths were checked above.
    with_simd!(S, unsafe { run::<S>(k.start, segments, dw) })
}

#[inline(always)]
unsafe fn run<S: Simd>(first: usize, segments: &[Segment], dw: Gradient) {
    let null = std::ptr::null();
    let padded = dw.n.next_multiple_of(2 * S::LANES);
    let limit = (NEAR / padded).clamp(32, BLOCK);
    let strips = dw.k.min(COLUMNS).div_ceil(S::TILE_ROWS) * (limit * S::TILE_ROWS + GAP);
    let mut block = Block {
        x: [null; BLOCK],
        dy: [null; BLOCK],
        rows: 0,
        limit,
        panels: Buffer::stale(limit * padded),
        strips: Buffer::stale(strips),
    };
    for segment in segments {
        for row in 0..segment.rows {
            // SAFETY: the row exists; a full block is added and emptied before the next row.
            unsafe {
                block.x[block.rows] = segment.x.as_ptr().add(row * segment.ldx + first);
                block.dy[block.rows] = segment.dy.as_ptr().add(row * segment.ldy);
                block.rows += 1;
                if block.rows == limit {
                    block.add_to::<S>(dw);
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { block.add_to::<S>(dw) }
}

impl Block {
    /// Adds the block's rows to the gradient and empties it.
    #[inline(always)]
    unsafe fn add_to<S: Simd>(&mut self, dw: Gradient) {
        // SAFETY: the tile's rows and columns exist by the loops' bounds.
        unsafe {
            self.pack::<S>(dw.n);
            let columns = COLUMNS / S::TILE_ROWS * S::TILE_ROWS;
            for first in (0..dw.k).step_by(columns) {
                let end = dw.k.min(first + columns);
                self.copy_columns::<S>(first, end - first);
                for i in (first..end).step_by(S::TILE_ROWS) {
                    let strip = self.strips.as_ptr().add(self.strip::<S>((i - first) / S::TILE_ROWS));
                    match S::TILE_ROWS.min(end - i) {
                        1 => self.row::<S, 1>(i, strip, dw),
                        2 => self.row::<S, 2>(i, strip, dw),
                        3 => self.row::<S, 3>(i, strip, dw),
                        4 => self.row::<S, 4>(i, strip, dw),
                        5 => self.row::<S, 5>(i, strip, dw),
                        6 => self.row::<S, 6>(i, strip, dw),
                        7 => self.row::<S, 7>(i, strip, dw),
                        _ => self.row::<S, 8>(i, strip, dw),
                    }
                }
            }
        }
        self.rows = 0;
    }

    /// Where strip number `i` begins.
    #[inline(always)]
    fn strip<S: Simd>(&self, i: usize) -> usize {
        i * (self.limit * S::TILE_ROWS + GAP)
    }

    #[inline(always)]
    unsafe fn pack<S: Simd>(&mut self, n: usize) {
        let width = 2 * S::LANES;
        for r in 0..self.rows {
            for (p, j) in (0..n).step_by(width).enumerate() {
                let columns = width.min(n - j);
                // SAFETY: columns j.. of every row of `dy` exist, and `panels` has room for all.
                unsafe {
                    let to = self.panels.as_mut_ptr().add((p * self.rows + r) * width);
                    store_pair(load_pair::<S>(self.dy[r].add(j), columns, columns == width), to, width, true);
                }
            }
        }
    }

    /// Copies `count` columns of `x` from `first` into strips.
    #[inline(always)]
    unsafe fn copy_columns<S: Simd>(&mut self, first: usize, count: usize) {
        let whole = count / S::TILE_ROWS;
        for r in 0..self.rows {
            // SAFETY: row r of `x` has the columns, and the strips have room for them.
            unsafe {
                let from = self.x[r].add(first);
                let to = self.strips.as_mut_ptr().add(r * S::TILE_ROWS);
                for i in 0..whole {
                    // The length is a compile-time constant.
                    std::ptr::copy_nonoverlapping(from.add(i * S::TILE_ROWS), to.add(self.strip::<S>(i)), S::TILE_ROWS);
                }
                let done = whole * S::TILE_ROWS;
                if done < count {
                    std::ptr::copy_nonoverlapping(from.add(done), to.add(self.strip::<S>(whole)), count - done);
                }
            }
        }
    }

    /// `R` rows of the gradient from inner index `i`, whose columns of `x` are in `strip`.
    #[inline(always)]
    unsafe fn row<S: Simd, const R: usize>(&self, i: usize, strip: *const f32, dw: Gradient) {
        if R > S::TILE_ROWS {
            return; // unreachable; keeps the compiler from generating the rest
        }
        let width = 2 * S::LANES;
        // SAFETY: the strip holds `R` floats of each row, `dw` has `R` rows from `i`.
        unsafe {
            for j in (0..dw.n).step_by(width) {
                let panel = self.panels.as_ptr().add(j * self.rows);
                let to = dw.p.add(i * dw.ld + j);
                tile::<S, R>(self.rows, strip, panel, to, dw.ld, width.min(dw.n - j));
            }
        }
    }
}

/// `R` rows of the gradient, two vectors wide: `dw[q] += Σ over rows of x[row][q] dy[row]`.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize>(
    rows: usize,
    mut x: *const f32,
    mut dy: *const f32,
    dw: *mut f32,
    ldw: usize,
    columns: usize,
) {
    let full = columns == 2 * S::LANES;
    let mut acc = [[S::zero(); 2]; R];
    // SAFETY: `R` rows of `dw` with `columns` floats exist; `x` holds `rows` times a tile's rows, `dy` two vectors.
    unsafe {
        for r in 0..R {
            acc[r] = load_pair(dw.add(r * ldw), columns, full);
        }
        for _ in 0..rows {
            let (d0, d1) = (S::load(dy), S::load(dy.add(S::LANES)));
            for r in 0..R {
                let a = S::splat(*x.add(r));
                acc[r] = [a.mul_add(d0, acc[r][0]), a.mul_add(d1, acc[r][1])];
            }
            x = x.add(S::TILE_ROWS);
            dy = dy.add(2 * S::LANES);
        }
        for r in 0..R {
            store_pair(acc[r], dw.add(r * ldw), columns, full);
        }
    }
}

/// `db[n] += Σ over rows of dy[m, n]`, rows `ldy` floats apart: the gradient of a bias.
pub fn column_sums(m: usize, n: usize, dy: &[f32], ldy: usize, db: &mut [f32]) {
    let db = &mut db[..n];
    super::vectorized(
        #[inline(always)]
        || {
            for row in 0..m {
                let dy = &dy[row * ldy..][..n];
                db.iter_mut().zip(dy).for_each(|(sum, d)| *sum += d);
            }
        },
    );
}
