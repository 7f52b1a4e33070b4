//! Weight gradients as one product over all rows: `dw[k, n] += Σ xᵀ dy`, from rows that lie in several places.

use super::gemm::{load_pair, store_pair};
use super::simd::{MAX_LANES, Simd, with_simd};
use std::ops::Range;

/// Rows taken at a time: their part of `dy` is packed (32 KiB at most) and used for every tile of `dw`.
const BLOCK: usize = 256;

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
#[repr(C, align(64))]
struct Block {
    /// Two vectors of `dy` a row, one after the other.
    dy: [f32; BLOCK * 2 * MAX_LANES],
    /// Where the row begins in `x`.
    x: [*const f32; BLOCK],
    /// Where the row begins in `dy`.
    source: [*const f32; BLOCK],
    rows: usize,
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
    // SAFETY: the lengths were checked above.
    with_simd!(S, unsafe { run::<S>(k, n, segments, dw.as_mut_ptr(), ldw) })
}

#[inline(always)]
unsafe fn run<S: Simd>(k: Range<usize>, n: usize, segments: &[Segment], dw: *mut f32, ldw: usize) {
    let null = std::ptr::null();
    let mut block = Block { dy: [0.0; BLOCK * 2 * MAX_LANES], x: [null; BLOCK], source: [null; BLOCK], rows: 0 };
    for segment in segments {
        for row in 0..segment.rows {
            // SAFETY: the row exists; a full block is used up before the next row comes.
            unsafe {
                block.x[block.rows] = segment.x.as_ptr().add(row * segment.ldx + k.start);
                block.source[block.rows] = segment.dy.as_ptr().add(row * segment.ldy);
                block.rows += 1;
                if block.rows == BLOCK {
                    block.add::<S>(k.len(), n, dw, ldw);
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { block.add::<S>(k.len(), n, dw, ldw) }
}

impl Block {
    /// Adds the block's rows to the gradient and empties it.
    #[inline(always)]
    unsafe fn add<S: Simd>(&mut self, k: usize, n: usize, dw: *mut f32, ldw: usize) {
        let width = 2 * S::LANES;
        let tiles = k.div_ceil(S::TILE_ROWS);
        for j in (0..n).step_by(width) {
            let columns = width.min(n - j);
            // SAFETY: columns j.. of every row of `dy`, and the tile's rows of `dw`, exist by the loops' bounds.
            unsafe {
                for r in 0..self.rows {
                    let v = load_pair::<S>(self.source[r].add(j), columns, columns == width);
                    store_pair(v, self.dy.as_mut_ptr().add(r * width), width, true);
                }
                for t in 0..tiles {
                    let (i, end) = (t * k / tiles, (t + 1) * k / tiles);
                    let to = dw.add(i * ldw + j);
                    match end - i {
                        1 => self.tile::<S, 1>(i, to, ldw, columns),
                        2 => self.tile::<S, 2>(i, to, ldw, columns),
                        3 => self.tile::<S, 3>(i, to, ldw, columns),
                        4 => self.tile::<S, 4>(i, to, ldw, columns),
                        5 => self.tile::<S, 5>(i, to, ldw, columns),
                        6 => self.tile::<S, 6>(i, to, ldw, columns),
                        7 => self.tile::<S, 7>(i, to, ldw, columns),
                        _ => self.tile::<S, 8>(i, to, ldw, columns),
                    }
                }
            }
        }
        self.rows = 0;
    }

    /// `R` rows of the gradient from inner index `i`, two vectors wide.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize>(&self, i: usize, dw: *mut f32, ldw: usize, columns: usize) {
        if R > S::TILE_ROWS {
            return; // never asked for; keeps the compiler from generating it
        }
        let full = columns == 2 * S::LANES;
        let mut acc = [[S::zero(); 2]; R];
        // SAFETY: `R` rows of `dw` with `columns` floats exist; `x` rows hold `R` floats from `i`.
        unsafe {
            for r in 0..R {
                acc[r] = load_pair(dw.add(r * ldw), columns, full);
            }
            let mut dy = self.dy.as_ptr();
            for row in 0..self.rows {
                let (d0, d1) = (S::load(dy), S::load(dy.add(S::LANES)));
                let x = (*self.x.as_ptr().add(row)).add(i);
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
}

/// `db[n] += Σ over rows of dy[m, n]`, rows `ldy` floats apart: the gradient of a bias.
pub fn column_sums(m: usize, n: usize, dy: &[f32], ldy: usize, db: &mut [f32]) {
    let db = &mut db[..n];
    for row in 0..m {
        let dy = &dy[row * ldy..][..n];
        db.iter_mut().zip(dy).for_each(|(sum, d)| *sum += d);
    }
}
