//! Weight gradients as one product over all rows: `dw[k, n] += Σ xᵀ dy`, from rows that lie in several places.

use super::gemm::{load_pair, store_pair};
use super::simd::{Simd, with_simd};
use crate::Buffer;
use std::ops::Range;

/// Most rows taken at a time: their part of `dy` is packed and used for every tile of `dw`.
const BLOCK: usize = 256;
/// Floats of packed `dy` that stay in the near caches.
const NEAR: usize = 1 << 16;
/// Columns of `x` in a tile, at most.
const TILE: usize = 8;

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
    /// The columns of `x` that a tile wants, `[rows][TILE]`, where they are wanted often.
    columns: [f32; BLOCK * TILE],
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
    let mut block = Block { x: [null; BLOCK], dy: [null; BLOCK], rows: 0, panels, columns: [0.0; BLOCK * TILE] };
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
            let tiles = dw.k.div_ceil(S::TILE_ROWS);
            for t in 0..tiles {
                let (i, end) = (t * dw.k / tiles, (t + 1) * dw.k / tiles);
                match end - i {
                    1 => self.row::<S, 1>(i, copy, dw),
                    2 => self.row::<S, 2>(i, copy, dw),
                    3 => self.row::<S, 3>(i, copy, dw),
                    4 => self.row::<S, 4>(i, copy, dw),
                    5 => self.row::<S, 5>(i, copy, dw),
                    6 => self.row::<S, 6>(i, copy, dw),
                    7 => self.row::<S, 7>(i, copy, dw),
                    _ => self.row::<S, 8>(i, copy, dw),
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

    /// `R` rows of the gradient from inner index `i`.
    #[inline(always)]
    unsafe fn row<S: Simd, const R: usize>(&mut self, i: usize, copy: bool, dw: Gradient) {
        if R > S::TILE_ROWS {
            return; // never asked for; keeps the compiler from generating it
        }
        let width = 2 * S::LANES;
        // SAFETY: rows of `x` hold `R` floats from `i`, `dw` has `R` rows from `i`.
        unsafe {
            if copy {
                for r in 0..self.rows {
                    let to = self.columns.as_mut_ptr().add(r * TILE);
                    to.cast::<[f32; R]>().write_unaligned(self.x[r].add(i).cast::<[f32; R]>().read_unaligned());
                }
            }
            for j in (0..dw.n).step_by(width) {
                let panel = self.panels.as_ptr().add(j * self.rows);
                let to = dw.p.add(i * dw.ld + j);
                let columns = width.min(dw.n - j);
                if copy {
                    let x = self.columns.as_ptr();
                    tile::<S, R>(self.rows, |r| x.add(r * TILE), panel, to, dw.ld, columns);
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
