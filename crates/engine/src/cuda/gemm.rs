//! Matrix products on a GPU.

use super::gpu::{Arg, Gpu, Grid, Precision};
use crate::tensor::Tensor;

/// A matrix, or several of one shape, in a tensor: where the first element is and how far apart others are.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    address: u64,
    /// From one row, column and matrix to the next.
    row: usize,
    column: usize,
    block: usize,
}

impl Matrix {
    /// Matrices with rows `row` numbers apart, the first one from element `start` of `x` on.
    pub fn new(x: &Tensor, start: usize, row: usize, block: usize) -> Matrix {
        Matrix { address: x.address() + 4 * start as u64, row, column: 1, block }
    }

    /// Matrix number `index` and those after it.
    pub fn block(self, index: usize) -> Matrix {
        Matrix { address: self.address + 4 * (index * self.block) as u64, ..self }
    }

    pub fn transposed(self) -> Matrix {
        Matrix { row: self.column, column: self.row, ..self }
    }
}

/// Rows and columns of the output that one block of threads computes, as in kernels/gemm.cu.
const TILE: usize = 64;

/// `c = a b + bias + add` (`c + ...` where `accumulate`), with a [m, k] and b [k, n], for `blocks` matrices.
/// `add` lies as `c` does; `bias` has n numbers for each block.
pub(crate) struct Gemm<'a> {
    pub a: Matrix,
    pub b: Matrix,
    pub c: Matrix,
    pub bias: Option<&'a Tensor>,
    pub add: Option<Matrix>,
    pub size: [usize; 3],
    pub blocks: usize,
    pub accumulate: bool,
}

impl Gemm<'_> {
    pub fn run(self, gpu: &'static Gpu) {
        let Gemm { a, b, c, bias, add, size: [m, n, k], blocks, accumulate } = self;
        let grid = Grid::of([n.div_ceil(TILE), m.div_ceil(TILE), blocks], 256);
        let (add, accumulate) = (add.map(|x| x.address), accumulate as u32);
        #[rustfmt::skip] // an operand a line, as the kernel has them
        let args: [&dyn Arg; 17] = [
            &a.address, &a.row, &a.column, &a.block,
            &b.address, &b.row, &b.column, &b.block,
            &c.address, &c.row, &c.block,
            &bias, &add, &m, &n, &k, &accumulate,
        ];
        let kernel = match gpu.precision() {
            Precision::Float32 => "gemm",
            Precision::Bfloat16 => "gemm_bf16",
        };
        gpu.launch("gemm", kernel, grid, &args);
    }
}
