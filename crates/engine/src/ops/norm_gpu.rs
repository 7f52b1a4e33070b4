//! Norm with activation over rows on a GPU (kernels/norm.cu).

use super::norm_act::Held;
use crate::cuda::{Arg, Gpu, Grid, at_once};
use crate::sink::Sink;
use crate::tensor::Tensor;

/// How threads share rows: each reads `each` numbers at a time, and `lanes` (a power of two) take one row.
struct Split {
    each: usize,
    lanes: usize,
    threads: usize,
}

impl Split {
    fn new(n: usize, tensors: &[&Tensor]) -> Split {
        let each = at_once(n, tensors);
        let lanes = n.div_ceil(each).next_power_of_two().min(1024);
        Split { each, lanes, threads: lanes.max(256) }
    }

    /// Rows that a block processes at the same time.
    fn rows(&self) -> usize {
        self.threads / self.lanes
    }

    fn grid(&self, blocks: usize) -> Grid {
        Grid::blocks(blocks, self.threads as u32)
    }
}

/// Up to this many numbers, the last block to finish adds them up faster than another kernel could be launched.
const FEW: usize = 1 << 13;
/// Fewest rows that a block sums for the parameters' gradients.
const SLAB: usize = 8;
/// Most blocks, and the fewest that keep a GPU busy.
const SLABS: usize = 1024;
const BUSY: usize = 128;

/// Rows out of `m` for each block that sums `columns` numbers over its rows, `at_once` of them at the same time.
fn slab(m: usize, columns: usize, at_once: usize) -> usize {
    let most = if FEW / columns >= BUSY { (FEW / columns).min(SLABS) } else { SLABS };
    SLAB.div_ceil(at_once).max(m.div_ceil(at_once * most)) * at_once
}

/// act(norm(x)) of x [.., n]; an activation.
pub(super) fn forward(gpu: &'static Gpu, held: &Held, x: &Tensor) -> Tensor {
    let (x, y) = (gpu.act(x), gpu.empty_act(x.shape()));
    let (m, n) = (x.rows(), x.width());
    let (scale, shift, kind, act) = held.gpu();
    let all: Vec<&Tensor> = [&x, &y].into_iter().chain(scale).chain(shift).collect();
    let split = Split::new(n, &all);
    #[rustfmt::skip] // tensors; sizes; constants
    let args: [&dyn Arg; 11] =
        [&x, &scale, &shift, &m, &n, &split.each, &split.lanes, &kind, &act, &held.eps, &y];
    gpu.launch("norm", "norm_act", split.grid(m.div_ceil(split.rows())), &args);
    y
}

/// The gradient of `x`; those of scale and shift go to the sink.
pub(super) fn backward(gpu: &'static Gpu, held: &Held, x: &Tensor, dy: &Tensor, sink: &mut Sink) -> Tensor {
    let (x, dy, dx) = (gpu.act(x), gpu.act(dy), gpu.empty_act(x.shape()));
    let (m, n) = (x.rows(), x.width());
    let (scale, shift, kind, act) = held.gpu();
    let leaves = [scale, shift].map(|parameter| parameter.and_then(Tensor::as_leaf));
    let make = if m == 0 { Gpu::zeros } else { Gpu::empty };
    let grads = leaves.map(|leaf| leaf.map(|_| make(gpu, &[n])));
    let [dscale, dshift] = &grads;
    let columns = n * grads.iter().flatten().count();
    let all: Vec<&Tensor> = [&x, &dy, &dx].into_iter().chain(scale).chain(shift).chain(dscale).chain(dshift).collect();
    let split = Split::new(n, &all);
    let slab = if columns > 0 { slab(m, columns, split.rows()) } else { split.rows() };
    let slabs = m.div_ceil(slab);
    let parts = (columns > 0 && slabs > 1).then(|| gpu.empty(&[slabs, columns]));
    let counter = parts.as_ref().filter(|parts| parts.len() <= FEW).map(|_| gpu.counters(1));
    let kernel = if n > split.lanes * split.each { "norm_act_grad_wide" } else { "norm_act_grad" };
    #[rustfmt::skip] // tensors; sizes; constants; results
    let args: [&dyn Arg; 17] = [
        &x, &scale, &shift, &dy,
        &m, &n, &split.each, &split.lanes,
        &kind, &act, &held.eps, &slab,
        &dx, dscale, dshift, &parts, &counter,
    ];
    gpu.launch("norm", kernel, split.grid(slabs), &args);
    if let Some(parts) = parts.filter(|parts| parts.len() > FEW) {
        let grid = Grid::blocks(columns.div_ceil(32), 1024);
        gpu.launch("norm", "norm_act_grad_finish", grid, &[&parts, &slabs, &columns, &n, dscale, dshift]);
    }
    for (leaf, grad) in leaves.iter().zip(&grads) {
        if let (Some(leaf), Some(grad)) = (leaf, grad) {
            sink.add(*leaf, grad);
        }
    }
    dx
}

/// `silu(a) * b` of the halves of x [.., 2 n].
pub(super) fn swiglu(gpu: &'static Gpu, x: &Tensor, shape: &[usize]) -> Tensor {
    let (x, y) = (gpu.act(x), gpu.empty_act(shape));
    let (m, n) = (y.rows(), y.width());
    let each = if at_once(n, &[&x, &y]) == 8 { 8 } else { 1 };
    gpu.launch("norm", "swiglu", Grid::elements(m * n / each), &[&x, &m, &n, &each, &y]);
    y
}

pub(super) fn swiglu_grad(gpu: &'static Gpu, x: &Tensor, dy: &Tensor) -> Tensor {
    let (x, dy, dx) = (gpu.act(x), gpu.act(dy), gpu.empty_act(x.shape()));
    let (m, n) = (dy.rows(), dy.width());
    let each = if at_once(n, &[&x, &dy, &dx]) == 8 { 8 } else { 1 };
    gpu.launch("norm", "swiglu_grad", Grid::elements(m * n / each), &[&x, &dy, &m, &n, &each, &dx]);
    dx
}
