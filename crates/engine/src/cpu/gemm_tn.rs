//! Weight gradients as one product over all rows: `dw[k, n] += Σ xᵀ dy`, from rows that lie in several places.

use super::gemm::{load_pair, store_pair};
use super::simd::{Simd, with_simd};
use crate::Buffer;
use std::ops::Range;

/// Most rows taken at a time: their part of `dy` is packed and used for every tile of `dw`.
const BLOCK: usize = 256;
/// Floats of packed `dy` that stay in the near caches.
const NEAR: usize = 1 << 16;
/// Columns of `x` that are copied at a time: two cache lines, a whole number of tiles.
const GROUP: usize = 32;

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
    /// `dy` as panels `[ceil(n / width)][rows][width]`, two vectors wide.
    panels: Buffer,
    /// The columns of `x` that the next tiles want, `[rows][GROUP]`, where they are wanted often.
    columns: [f32; BLOCK * GROUP],
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
/// `dw` begins at row `k.start` of the gradient, and its rows start `ldw` floats apart, so a caller can hand
/// ranges of `k` to its workers; the bits do not depend on the cut. Rows are summed in the segments' order.
pub fn gemm_tn(k: Range<usize>, n: usize, segments: &[Segment], dw: &mut [f32], ldw: usize) {
    for s in segments.iter().filter(|s| s.rows > 0) {
        assert!(s.x.len() >= (s.rows - 1) * s.ldx + k.end, "x: {} floats for {} rows of {}", s.x.len(), s.rows, k.end);
        assert!(s.dy.len() >= (s.rows - 1) * s.ldy + n, "dy: {} floats for {} rows of {n}", s.dy.len(), s.rows);
    }
    if k.is_empty() || n == 0 {
        return;
    }
    assert!(ldw >= n && dw.len() >= (k.len() - 1) * ldw + n, "dw: {} floats for {} rows of {n}", dw.len(), k.len());
    let dw = Gradient { p: dw.as_mut_ptr(), k: k.len(), n, ld: ldw };
    // SAFETY: the lengths were checked above.
    with_simd!(S, unsafe { run::<S>(k.start, segments, dw) })
}

#[inline(always)]
unsafe fn run<S: Simd>(first: usize, segments: &[Segment], dw: Gradient) {
    let null = std::ptr::null();
    let padded = dw.n.next_multiple_of(2 * S::LANES);
    let limit = (NEAR / padded).clamp(32, BLOCK);
    let panels = Buffer::stale(limit * padded);
    let mut block = Block { x: [null; BLOCK], dy: [null; BLOCK], rows: 0, panels, columns: [0.0; BLOCK * GROUP] };
    for segment in segments {
        for row in 0..segment.rows {
            // SAFETY: the row exists; a full block is used up before the next row comes.
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
            // With few panels a copy of x would cost more than the distance between its rows.
            let copy = dw.n > 4 * S::LANES;
            let group = GROUP / S::TILE_ROWS * S::TILE_ROWS;
            for first in (0..dw.k).step_by(group) {
                let end = dw.k.min(first + group);
                if copy {
                    self.copy_columns::<S>(first, end - first);
                }
                for i in (first..end).step_by(S::TILE_ROWS) {
                    let x = if copy { Some(i - first) } else { None };
                    match S::TILE_ROWS.min(end - i) {
                        1 => self.row::<S, 1>(i, x, dw),
                        2 => self.row::<S, 2>(i, x, dw),
                        3 => self.row::<S, 3>(i, x, dw),
                        4 => self.row::<S, 4>(i, x, dw),
                        5 => self.row::<S, 5>(i, x, dw),
                        6 => self.row::<S, 6>(i, x, dw),
                        7 => self.row::<S, 7>(i, x, dw),
                        _ => self.row::<S, 8>(i, x, dw),
                    }
                }
            }
        }
        self.rows = 0;
    }

    #[inline(always)]
    unsafe fn pack<S: Simd>(&mut self, n: usize) {
        let width = 2 * S::LANES;
        let mut to = self.panels.as_mut_ptr();
        for j in (0..n).step_by(width) {
            let columns = width.min(n - j);
            for r in 0..self.rows {
                // SAFETY: columns j.. of every row of `dy` exist, and `panels` has room for all.
                unsafe {
                    store_pair(load_pair::<S>(self.dy[r].add(j), columns, columns == width), to, width, true);
                    to = to.add(width);
                }
            }
        }
    }

    /// Copies `count` columns of `x` from `first`.
    #[inline(always)]
    unsafe fn copy_columns<S: Simd>(&mut self, first: usize, count: usize) {
        let group = GROUP / S::TILE_ROWS * S::TILE_ROWS;
        for r in 0..self.rows {
            // SAFETY: row r of `x` has the columns, and `columns` has `GROUP` floats for it.
            unsafe {
                let (from, to) = (self.x[r].add(first), self.columns.as_mut_ptr().add(r * GROUP));
                if count == group {
                    std::ptr::copy_nonoverlapping(from, to, group); // a length known when compiled
                } else {
                    std::ptr::copy_nonoverlapping(from, to, count);
                }
            }
        }
    }

    /// `R` rows of the gradient from inner index `i`, which may lie at some column of the copy.
    #[inline(always)]
    unsafe fn row<S: Simd, const R: usize>(&self, i: usize, copied: Option<usize>, dw: Gradient) {
        if R > S::TILE_ROWS {
            return; // never asked for; keeps the compiler from generating it
        }
        let width = 2 * S::LANES;
        // SAFETY: rows of `x` hold `R` floats from `i`, `dw` has `R` rows from `i`.
        unsafe {
            for j in (0..dw.n).step_by(width) {
                let panel = self.panels.as_ptr().add(j * self.rows);
                let to = dw.p.add(i * dw.ld + j);
                let columns = width.min(dw.n - j);
                if let Some(column) = copied {
                    let x = self.columns.as_ptr().add(column);
                    tile::<S, R>(self.rows, |r| x.add(r * GROUP), panel, to, dw.ld, columns);
                } else {
                    let x = self.x.as_ptr();
                    tile::<S, R>(self.rows, |r| (*x.add(r)).add(i), panel, to, dw.ld, columns);
                }
            }
        }
    }
}

/// `R` rows of the gradient, two vectors wide: `dw[q] += Σ over rows of x(row)[q] dy[row]`.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize>(
    rows: usize,
    x: impl Fn(usize) -> *const f32,
    mut dy: *const f32,
    dw: *mut f32,
    ldw: usize,
    columns: usize,
) {
    let full = columns == 2 * S::LANES;
    let mut acc = [[S::zero(); 2]; R];
    // SAFETY: `R` rows of `dw` with `columns` floats exist; `x` gives places with `R` floats.
    unsafe {
        for r in 0..R {
            acc[r] = load_pair(dw.add(r * ldw), columns, full);
        }
        for row in 0..rows {
            let (d0, d1) = (S::load(dy), S::load(dy.add(S::LANES)));
            let x = x(row);
            for r in 0..R {
                let a = S::splat(*x.add(r));
                acc[r] = [a.mul_add(d0, acc[r][0]), a.mul_add(d1, acc[r][1])];
            }
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
    for row in 0..m {
        let dy = &dy[row * ldy..][..n];
        db.iter_mut().zip(dy).for_each(|(sum, d)| *sum += d);
    }
}
