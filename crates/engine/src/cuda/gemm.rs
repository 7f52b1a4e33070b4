//! Matrix products on a GPU: which kernel of kernels/gemm.cu computes one, and how it is cut.

use super::gpu::{Gpu, Precision};
use super::launch::{Addresses, Arg, Grid, Piece};
use super::tiles::{MIDDLE, PRODUCTS, Plan, Tile, WEIGHT_GRADS, plan};
use crate::profile;
use crate::tensor::{Dtype, PackKey, Tensor};

/// A matrix, or several of one shape, in a tensor: the address of the first element and the strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    address: u64,
    dtype: Dtype,
    /// Elements from one row, column and matrix to the next.
    row: usize,
    column: usize,
    block: usize,
}

impl Matrix {
    /// Matrices with rows `row` numbers apart, the first one from element `start` of `x` on.
    pub fn new(x: &Tensor, start: usize, row: usize, block: usize) -> Matrix {
        Matrix { address: x.address(), dtype: x.dtype(), row, column: 1, block }.after(start)
    }

    /// The memory of `blocks` matrices of `numbers` elements, which are one and the same if their stride is 0.
    fn piece(&self, numbers: usize, blocks: usize) -> Piece {
        let blocks = if self.block == 0 { 1 } else { blocks };
        Piece { address: self.address, bytes: self.dtype.bytes() * numbers * blocks }
    }

    fn after(self, numbers: usize) -> Matrix {
        Matrix { address: self.address + (self.dtype.bytes() * numbers) as u64, ..self }
    }

    pub fn transposed(self) -> Matrix {
        Matrix { row: self.column, column: self.row, ..self }
    }

    /// Whether rows in bfloat16 consist of aligned pieces of eight numbers (16 bytes).
    fn in_eights(&self) -> bool {
        self.in_steps(8) && self.address.is_multiple_of(16)
    }

    /// Whether rows can be read or written in aligned pieces of four numbers.
    fn in_fours(&self) -> bool {
        self.in_steps(4) && self.address.is_multiple_of(4 * self.dtype.bytes() as u64)
    }

    fn in_steps(&self, of: usize) -> bool {
        self.row.max(self.column).is_multiple_of(of) && self.block.is_multiple_of(of)
    }
}

/// One term of a product: a [m, k] b [k, n].
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub a: Matrix,
    pub b: Matrix,
    pub k: usize,
}

/// `c =` the sum of up to three terms `+ bias + add`, for `blocks` matrices. `add` has the strides of `c`; `bias` has n
/// numbers for each block. `a` and `add` are activations, and `b` weights as [`weight_rows`] returns them.
pub(crate) struct Gemm<'a> {
    pub terms: Vec<Product>,
    /// The number of positions (laps) that a single term is summed over, and the strides between them in `a` and in
    /// `b`.
    pub laps: [usize; 3],
    pub c: Matrix,
    pub bias: Option<&'a Tensor>,
    pub add: Option<Matrix>,
    pub size: [usize; 2],
    pub blocks: usize,
}

/// The most terms that a kernel takes.
const TERMS: usize = 3;
/// Flags of an output (kernels/gemm.cu).
const FULL: u32 = 1;
const ACCUMULATE: u32 = 2;
const FOURS: u32 = 4;

impl Gemm<'_> {
    pub fn run(mut self, gpu: &'static Gpu) {
        let first = self.terms[0];
        self.terms.retain(|term| term.k > 0);
        if self.terms.is_empty() {
            self.terms.push(first); // bias and addend are still to be written
        }
        let ([m, n], depth) = (self.size, self.terms.iter().map(|term| term.k).sum::<usize>() * self.laps[0]);
        let flops = 2 * m * n * depth * self.blocks;
        profile::count(flops, flops);
        match gpu.precision() {
            Precision::Float32 => self.run_simple(gpu),
            Precision::Bfloat16 => {
                let plan = self.plan(gpu);
                self.run_as(gpu, plan)
            }
        }
    }

    /// In float32: a launch for each term and lap.
    fn run_simple(&self, gpu: &'static Gpu) {
        let ([laps, a_lap, b_lap], [m, n], c) = (self.laps, self.size, self.c);
        let all = (0..laps).flat_map(|lap| self.terms.iter().map(move |term| (lap, term)));
        for (i, (lap, term)) in all.enumerate() {
            let (a, b, accumulate) = (term.a.after(lap * a_lap), term.b.after(lap * b_lap), (i > 0) as u32);
            let bias = self.bias.filter(|_| i == 0);
            let [a_all, b_all, c_all] =
                [(&a, m * term.k), (&b, term.k * n), (&c, m * n)].map(|(x, numbers)| x.piece(numbers, self.blocks));
            let add = self.add.filter(|_| i == 0).map(|x| x.piece(m * n, self.blocks));
            let grid = Grid::of([n.div_ceil(64), m.div_ceil(64), self.blocks], 256);
            #[rustfmt::skip] // one operand per line, as in the kernel
            let args: [&dyn Arg; 17] = [
                &a_all, &a.row, &a.column, &a.block,
                &b_all, &b.row, &b.column, &b.block,
                &c_all, &c.row, &c.block,
                &bias, &add, &m, &n, &term.k, &accumulate,
            ];
            gpu.launch("gemm", "gemm", grid, &args);
        }
    }

    fn transposed(&self) -> bool {
        self.terms[0].b.column != 1
    }

    fn plan(&self, gpu: &Gpu) -> Plan {
        let depths: Vec<usize> = self.terms.iter().map(|term| term.k * self.laps[0]).collect();
        let even = self.terms.iter().all(|term| term.a.in_eights() && term.k.is_multiple_of(8));
        let even = even && (self.laps[0] == 1 || self.laps[1].is_multiple_of(8));
        let tiles: &[Tile] = if even { &PRODUCTS } else { &[ODD] };
        plan(&gpu.able(tiles), self.size, self.blocks, &depths)
    }

    /// In bfloat16.
    pub(super) fn run_as(&self, gpu: &'static Gpu, Plan { tile, parts }: Plan) {
        let ([laps, a_lap, b_lap], [m, n], c, blocks) = (self.laps, self.size, self.c, self.blocks);
        assert!(self.terms.len() <= TERMS && (laps == 1 || self.terms.len() == 1));
        let nothing = Product { k: 0, ..self.terms[0] };
        let terms: [Product; TERMS] = std::array::from_fn(|i| *self.terms.get(i).unwrap_or(&nothing));
        let (b, count) = (terms[0].b, self.terms.len());
        let b_row = b.row.max(b.column);
        let add = self.add.map(|x| x.piece(m * n, blocks));
        let whole = c.in_fours() && n.is_multiple_of(4) && self.add.is_none_or(|x| x.in_fours());
        let full = if c.dtype == Dtype::F32 { FULL } else { 0 };
        let flags = if whole { FOURS } else { 0 } | full;
        let sums = (parts > 1).then(|| gpu.empty(&[parts, blocks, m, n]));
        let (out, out_bias, out_add, out_flags) = match &sums {
            Some(sums) => (Piece::of(sums), None, None, parts_flags(n)),
            None => (c.piece(m * n, blocks), self.bias, add, flags),
        };
        let [t0, t1, t2] = &terms;
        let [a0, a1, a2] = [t0, t1, t2].map(|term| term.a.piece(m * term.k * laps, blocks));
        let [b0, b1, b2] = [t0, t1, t2].map(|term| term.b.piece(term.k * n * laps, blocks));
        #[rustfmt::skip] // one operand per line, as in the kernel
        let args: [&dyn Arg; 30] = [
            &a0, &b0, &t0.k, &t0.a.row, &t0.a.block,
            &a1, &b1, &t1.k, &t1.a.row, &t1.a.block,
            &a2, &b2, &t2.k, &t2.a.row, &t2.a.block,
            &count, &laps, &a_lap, &b_lap,
            &b_row, &b.block,
            &out, &c.row, &c.block,
            &out_bias, &out_add, &m, &n, &blocks, &out_flags,
        ];
        let (module, kernel) =
            if self.transposed() { ("gemm_transposed", tile.input_grad) } else { ("gemm", tile.forward) };
        gpu.launch(module, kernel, tile.grid([m, n], blocks * parts), &args);
        if let Some(sums) = sums {
            sum_parts(gpu, &sums, [m, n], self.bias, add, (c.piece(m * n, blocks), [c.row, c.block]), flags);
        }
    }
}

/// Flags of partial sums: float32, and four at a time if rows allow it.
fn parts_flags(n: usize) -> u32 {
    FULL | if n.is_multiple_of(4) { FOURS } else { 0 }
}

/// The second pass over `parts` [parts, blocks, m, n]: adds them up in order.
fn sum_parts(
    gpu: &'static Gpu,
    parts: &Tensor,
    [m, n]: [usize; 2],
    bias: Option<&Tensor>,
    add: Option<Piece>,
    (c, [c_row, c_block]): (Piece, [usize; 2]),
    flags: u32,
) {
    let (count, blocks) = (parts.dim(0), parts.dim(1));
    let grid = Grid::elements(blocks * m * n.div_ceil(4));
    gpu.launch("gemm", "sum_parts", grid, &[parts, &count, &m, &n, &blocks, &bias, &add, &c, &c_row, &c_block, &flags]);
}

/// For operands whose rows are not multiples of eight numbers, or not aligned: it reads one number at a time.
const ODD: Tile =
    Tile { forward: "gemm_odd", input_grad: "gemm_odd_transposed", weight_grad: "weight_grad_odd", ..MIDDLE };

/// The weight w [.., k, n] as products take it, and the stride of its rows: in bfloat16 a copy with rows padded to
/// multiples of 16 bytes, made anew when the weight has changed.
pub(crate) fn weight_rows(gpu: &'static Gpu, w: &Tensor) -> (Tensor, usize) {
    let n = w.width();
    if gpu.precision() == Precision::Float32 {
        return (w.detach(), n);
    }
    let padded = n.next_multiple_of(8);
    let rows = w.packed_gpu(PackKey::Rows, || {
        let y = gpu.empty_as(&[w.rows(), padded], Dtype::Bf16);
        gpu.launch("gemm", "halve", Grid::elements(y.len() / 2), &[w, &w.rows(), &n, &padded, &y]);
        y
    });
    (rows, padded)
}

/// The most uses of a weight that one product takes (`Uses` in kernels/gemm.cu).
pub(crate) const MOST_USES: usize = 64;

/// Part of the gradient of a weight [blocks, .., n]: `k` rows of each block, `start` numbers into it.
#[derive(Clone, Copy)]
pub(crate) struct WeightGrad {
    pub blocks: usize,
    pub k: usize,
    pub n: usize,
    pub start: usize,
    /// From one block of the weight to the next.
    pub block: usize,
    /// Whether all blocks see the same columns of the input.
    pub shared: bool,
}

impl WeightGrad {
    /// `grad = (grad +)` the sum over uses of `xᵀ dy`: inputs [rows, ..] and output gradients [rows, blocks * n], all
    /// with the same number of rows, which is a power of two if there are several uses.
    pub fn run(self, gpu: &'static Gpu, uses: &[(Tensor, Tensor)], grad: &Tensor, accumulate: bool) {
        let rows = uses[0].0.rows();
        let flops = 2 * rows * uses.len() * self.k * self.n * self.blocks;
        profile::count(flops, flops);
        let odd = |x: &Tensor| !x.width().is_multiple_of(8) || !x.address().is_multiple_of(16);
        let odd = uses.iter().any(|(x, dy)| odd(x) || odd(dy))
            || self.blocks > 1 && !(self.k.is_multiple_of(8) && self.n.is_multiple_of(8));
        let tiles: &[Tile] = if odd { &[ODD] } else { &WEIGHT_GRADS };
        let plan = plan(&gpu.able(tiles), [self.k, self.n], self.blocks, &[rows * uses.len()]);
        self.run_as(gpu, uses, grad, accumulate, plan);
    }

    pub(super) fn run_as(
        self,
        gpu: &'static Gpu,
        uses: &[(Tensor, Tensor)],
        grad: &Tensor,
        accumulate: bool,
        Plan { tile, parts }: Plan,
    ) {
        let WeightGrad { blocks, k, n, start, block, shared } = self;
        let (depth, shift) = joined(uses.iter().map(|(x, _)| x));
        let mut addresses = [0; 2 * MOST_USES];
        for (i, (x, dy)) in uses.iter().enumerate() {
            (addresses[i], addresses[MOST_USES + i]) = (x.address(), dy.address());
        }
        let (x_row, dy_row) = (uses[0].0.width(), uses[0].1.width());
        let (x_block, grad) = (if shared { 0 } else { k }, Matrix::new(grad, start, n, block));
        let per_row = (if shared { k } else { k * blocks }) + n * blocks;
        let addresses = Addresses(&addresses, depth * per_row * uses[0].0.dtype().bytes());
        let whole = grad.piece(k * n, blocks);
        let accumulate = if accumulate { ACCUMULATE } else { 0 };
        if gpu.precision() == Precision::Float32 {
            #[rustfmt::skip]
            let args: [&dyn Arg; 12] =
                [&addresses, &shift, &depth, &x_row, &x_block, &dy_row, &n, &whole, &block, &k, &n, &accumulate];
            let grid = Grid::of([n.div_ceil(64), k.div_ceil(64), blocks], 256);
            return gpu.launch("gemm_weight_grad", "weight_grad", grid, &args);
        }
        let flags = accumulate | FULL | if grad.in_fours() && n.is_multiple_of(4) { FOURS } else { 0 };
        let sums = (parts > 1).then(|| gpu.empty(&[parts, blocks, k, n]));
        let (out, out_flags) = match &sums {
            Some(sums) => (Piece::of(sums), parts_flags(n)),
            None => (whole, flags),
        };
        #[rustfmt::skip]
        let args: [&dyn Arg; 13] =
            [&addresses, &shift, &depth, &x_row, &x_block, &dy_row, &n, &out, &block, &k, &n, &blocks, &out_flags];
        gpu.launch("gemm_weight_grad", tile.weight_grad, tile.grid([k, n], blocks * parts), &args);
        if let Some(sums) = sums {
            sum_parts(gpu, &sums, [k, n], None, None, (whole, [n, block]), flags);
        }
    }
}

/// The rows of all tensors together, and the base-2 logarithm of the rows of each, or one that is large enough for a
/// single tensor.
fn joined<'a>(xs: impl ExactSizeIterator<Item = &'a Tensor>) -> (usize, u32) {
    let count = xs.len();
    let each = xs.map(Tensor::rows).max().unwrap_or(0);
    assert!(count == 1 || each.is_power_of_two());
    (each * count, if count == 1 { 31 } else { each.ilog2() })
}

/// The rows of a slice, which one thread block adds up before the slices' sums are added: small enough for many blocks,
/// large enough for few slices.
fn slice_of(rows: usize) -> usize {
    rows.div_ceil(128).next_power_of_two().clamp(128, 4096)
}

/// The column sums [n] over all rows of `xs`, [rows, n] each: of one type, and rows as for [`WeightGrad::run`].
pub(crate) fn column_sums(gpu: &'static Gpu, xs: &[Tensor], n: usize) -> Tensor {
    let sums = |xs: &[Tensor], slice: usize| {
        let flat: Vec<Tensor> = xs.iter().map(|x| x.view(0, &[x.len() / n.max(1), n])).collect();
        let (rows, shift) = joined(flat.iter());
        let slices = rows.div_ceil(slice.max(1)).max(1);
        let out = gpu.empty(&[slices, n]);
        let mut addresses = [0; MOST_USES];
        addresses.iter_mut().zip(xs).for_each(|(to, x)| *to = x.address());
        // Four columns per thread, if every four are aligned to their size.
        let aligned = |x: &Tensor| x.address().is_multiple_of(4 * x.dtype().bytes() as u64);
        let wide = n.is_multiple_of(4) && xs.iter().all(aligned);
        let columns = if wide { n / 4 } else { n };
        let lanes = columns.next_power_of_two().clamp(1, 32);
        let kernel = match (xs[0].dtype(), wide) {
            (Dtype::F32, false) => "column_sums",
            (Dtype::F32, true) => "column_sums_wide",
            (Dtype::Bf16, false) => "column_sums_act",
            (Dtype::Bf16, true) => "column_sums_act_wide",
        };
        let grid = Grid::of([columns.div_ceil(lanes), slices, 1], 256);
        let addresses = Addresses(&addresses, rows * n * xs[0].dtype().bytes());
        gpu.launch("gemm", kernel, grid, &[&addresses, &shift, &rows, &n, &slice, &lanes, &out]);
        out
    };
    let rows: usize = xs.iter().map(|x| x.len() / n.max(1)).sum();
    let slices = sums(xs, slice_of(rows));
    let total = if slices.dim(0) > 1 { sums(std::slice::from_ref(&slices), slices.dim(0)) } else { slices };
    total.view(0, &[n])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, doubles, random, random_bf16};
    use crate::cuda::test_gpu_in;
    use crate::tensor::Device;

    /// Rounding of outputs to bfloat16.
    const TOLERANCE: f64 = 3e-3;

    /// Every tile and cut of the depth, with b as it is and transposed, over three terms and over laps.
    #[test]
    fn every_tile_multiplies() {
        let Some(gpu) = test_gpu_in(Precision::Bfloat16) else { return };
        for tile in gpu.able(&PRODUCTS).into_iter().chain([ODD]) {
            for parts in [1, 3] {
                // Of the last row and column of tiles there is but a part.
                let sizes: &[[usize; 5]] = if tile.forward == ODD.forward {
                    &[[67, 37, 5, 37, 3], [3, 6, 1, 2, 0]]
                } else {
                    &[[70, 72, 136, 40, 8]]
                };
                for &[m, n, k0, k1, k2] in sizes {
                    terms(gpu, tile, parts, [m, n], [k0, k1, k2]);
                    laps(gpu, tile, parts, [m, n], k0);
                }
            }
            if tile.by_warpgroups {
                // Rows of every warpgroup, and more steps than stages.
                terms(gpu, tile, 1, [tile.rows + 6, tile.columns + 8], [136, 200, 72]);
                laps(gpu, tile, 2, [tile.rows + 6, tile.columns + 8], 136);
            }
        }
    }

    /// Two blocks of products over three terms, the last two of which see the same columns in both blocks.
    fn terms(gpu: &'static Gpu, tile: Tile, parts: usize, [m, n]: [usize; 2], ks: [usize; 3]) {
        let (blocks, rows) = (2, ks.iter().sum::<usize>());
        let w = random(&[blocks, rows, n], 1, 1.0).to(Device::Gpu(gpu));
        let (half, stride) = weight_rows(gpu, &w);
        let bias = random(&[blocks * n], 2, 1.0);
        let add = random_bf16(&[m, blocks * n], 3, 1.0);
        let xs: Vec<Tensor> =
            (0..3).map(|i| random_bf16(&[m, ks[i] * if i == 0 { blocks } else { 1 }], 4 + i as u32, 1.0)).collect();
        let on_gpu: Vec<Tensor> = xs.iter().map(|x| gpu.act(&x.to(Device::Gpu(gpu)))).collect();
        let term = |i: usize| Product {
            a: Matrix::new(&on_gpu[i], 0, xs[i].width(), if i == 0 { ks[0] } else { 0 }),
            b: Matrix::new(&half, ks[..i].iter().sum::<usize>() * stride, stride, rows * stride),
            k: ks[i],
        };
        let y = gpu.empty_act(&[m, blocks * n]);
        let (bias_there, add_there) = (bias.to(Device::Gpu(gpu)), gpu.act(&add.to(Device::Gpu(gpu))));
        let product = Gemm {
            terms: (0..3).map(term).filter(|term| term.k > 0).collect(),
            laps: [1, 0, 0],
            c: Matrix::new(&y, 0, blocks * n, n),
            bias: Some(&bias_there),
            add: Some(Matrix::new(&add_there, 0, blocks * n, n)),
            size: [m, n],
            blocks,
        };
        product.run_as(gpu, Plan { tile, parts });
        let (w, width) = (doubles(&half), half.width());
        let expected: Vec<f64> = (0..m * blocks * n)
            .map(|at| {
                let (r, block, j) = (at / (blocks * n), at / n % blocks, at % n);
                let x = (0..3).flat_map(|i| {
                    let start = r * xs[i].width() + if i == 0 { block * ks[0] } else { 0 };
                    xs[i].data()[start..start + ks[i]].iter()
                });
                let sum: f64 = x.enumerate().map(|(d, x)| *x as f64 * w[(block * rows + d) * width + j]).sum();
                sum + bias.data()[block * n + j] as f64 + add.data()[at] as f64
            })
            .collect();
        assert_close(&format!("{} in {parts} parts", tile.forward), &doubles(&y), &expected, TOLERANCE);
    }

    /// A product that is a sum over two blocks, with the transposed weight.
    fn laps(gpu: &'static Gpu, tile: Tile, parts: usize, [m, n]: [usize; 2], k: usize) {
        let (blocks, x) = (2, random_bf16(&[m, 2 * k], 5, 1.0));
        let w = random(&[blocks, n, k], 6, 1.0).to(Device::Gpu(gpu));
        let (half, stride) = weight_rows(gpu, &w);
        let (there, y) = (gpu.act(&x.to(Device::Gpu(gpu))), gpu.empty_act(&[m, n]));
        let product = Gemm {
            terms: vec![Product {
                a: Matrix::new(&there, 0, blocks * k, 0),
                b: Matrix::new(&half, 0, stride, 0).transposed(),
                k,
            }],
            laps: [blocks, k, n * stride],
            c: Matrix::new(&y, 0, n, 0),
            bias: None,
            add: None,
            size: [m, n],
            blocks: 1,
        };
        product.run_as(gpu, Plan { tile, parts });
        let w = doubles(&half);
        let at = |i: usize| -> f64 {
            let x = x.data()[i / n * blocks * k..][..blocks * k].iter().enumerate();
            x.map(|(d, x)| *x as f64 * w[(d / k * n + i % n) * stride + d % k]).sum()
        };
        let expected: Vec<f64> = (0..m * n).map(at).collect();
        assert_close(&format!("{} in {parts} parts", tile.input_grad), &doubles(&y), &expected, TOLERANCE);
    }

    /// Gradients over several uses, added to what is there and not, in parts and not.
    #[test]
    fn every_tile_multiplies_over_uses() {
        let Some(gpu) = test_gpu_in(Precision::Bfloat16) else { return };
        let sizes = |tile: &Tile| match tile.rows {
            _ if tile.forward == ODD.forward => [67, 37],
            64 => [72, 40],
            rows => [rows + 8, 136],
        };
        for tile in gpu.able(&WEIGHT_GRADS).into_iter().chain([ODD]) {
            let [k, n] = sizes(&tile);
            let mut cases = vec![(1, 3, 16, false, true), (2, 1, 70, true, false)];
            if tile.by_warpgroups {
                cases.extend([(1, 3, 128, true, false), (2, 1, 600, false, true)]); // more steps than stages
            }
            for (parts, count, rows, accumulate, shared) in cases {
                let blocks = 2;
                let width = if shared { k } else { blocks * k };
                let factor =
                    |width: usize, i: usize| gpu.act(&random_bf16(&[rows, width], i as u32, 1.0).to(Device::Gpu(gpu)));
                let uses: Vec<(Tensor, Tensor)> =
                    (0..count).map(|i| (factor(width, i), factor(blocks * n, 10 + i))).collect();
                let (before, start) = (random(&[blocks, k + 2, n], 20, 1.0), n);
                let mut grad = before.to(Device::Gpu(gpu));
                grad.unshare();
                let part = WeightGrad { blocks, k, n, start, block: (k + 2) * n, shared };
                part.run_as(gpu, &uses, &grad, accumulate, Plan { tile, parts });
                let values: Vec<(Vec<f64>, Vec<f64>)> = uses.iter().map(|(x, dy)| (doubles(x), doubles(dy))).collect();
                let mut expected = doubles(&before);
                for at in 0..blocks * k * n {
                    let (block, i, j) = (at / (k * n), at / n % k, at % n);
                    let column = i + if shared { 0 } else { block * k };
                    let product = |(x, dy): &(Vec<f64>, Vec<f64>)| -> f64 {
                        (0..rows).map(|r| x[r * width + column] * dy[(r * blocks + block) * n + j]).sum()
                    };
                    let sum: f64 = values.iter().map(product).sum();
                    let to = &mut expected[block * (k + 2) * n + start + i * n + j];
                    *to = if accumulate { *to + sum } else { sum };
                }
                assert_close(tile.weight_grad, &doubles(&grad), &expected, 1e-5);
            }
        }
    }

    #[test]
    fn columns_add_up_over_places() {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let Some(gpu) = test_gpu_in(precision) else { return };
            for (count, rows, n) in [(1, 1100, 3), (1, 5, 70), (4, 256, 33), (2, 512, 136), (1, 20000, 3), (1, 0, 2)] {
                let xs: Vec<Tensor> =
                    (0..count).map(|i| gpu.act(&random_bf16(&[rows, n], i, 1.0).to(Device::Gpu(gpu)))).collect();
                let mut expected = vec![0.0; n];
                for x in &xs {
                    doubles(x).iter().enumerate().for_each(|(i, x)| expected[i % n] += x);
                }
                assert_close("column sums", &doubles(&column_sums(gpu, &xs, n)), &expected, 1e-5);
            }
        }
    }
}
