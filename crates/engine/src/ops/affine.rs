//! Products with weights: linear and block-linear layers over one or several inputs.
//!
//! A layer over a concatenation is a sum of products with row ranges of its weight. Taking the parts as they
//! are saves the copy, and a part that does not depend on a recurrence can be multiplied beforehand and
//! handed in as `add`.

use super::images_gpu::resize_pixels;
use crate::buffer::Buffer;
use crate::cpu::gemm::{Packed, gemm_packed};
use crate::cuda::{Gemm, Gpu, Matrix, Precision, Product, WeightGrad, weight_rows};
use crate::graph::{record1, recording};
use crate::parallel::par_items;
use crate::sink::{Factors, Sink};
use crate::tensor::{Device, Tensor};
use std::sync::Arc;

/// One part of a layer's input: `x` [M, K] is multiplied with the weight's rows from `row` on.
/// Of a block-linear weight, each block sees its own K/blocks columns of `x`, or all of them where `shared`.
#[derive(Clone, Copy)]
pub struct Term<'a> {
    pub x: &'a Tensor,
    pub row: usize,
    pub shared: bool,
}

impl<'a> Term<'a> {
    pub fn new(x: &'a Tensor, row: usize) -> Self {
        Term { x, row, shared: false }
    }

    pub fn shared(x: &'a Tensor, row: usize) -> Self {
        Term { x, row, shared: true }
    }
}

/// Linear layer `x w + bias`: x [.., K], w [K, N] or blocks [g, K/g, N/g], bias [N] -> [.., N].
pub fn linear(x: &Tensor, w: &Tensor, bias: &Tensor) -> Tensor {
    affine(&[Term::new(x, 0)], w, Some(bias), None)
}

/// The same on the concatenation of `xs` along the last axis, which is never made.
pub fn linear_parts(xs: &[&Tensor], w: &Tensor, bias: &Tensor) -> Tensor {
    let (mut terms, mut row) = (Vec::with_capacity(xs.len()), 0);
    for x in xs {
        terms.push(Term::new(x, row));
        row += x.width();
    }
    affine(&terms, w, Some(bias), None)
}

/// The sum over all terms of `x w[row..]`, plus `bias` [N], plus `add` [.., N].
pub fn affine(terms: &[Term], w: &Tensor, bias: Option<&Tensor>, add: Option<&Tensor>) -> Tensor {
    let layout = Layout::new(terms, w);
    let kept: Vec<Tensor> = terms.iter().map(|t| as_factor(t.x)).collect();
    let y = match w.device() {
        Device::Cpu => forward_cpu(&layout, terms, w, bias, add),
        Device::Gpu(gpu) => forward_gpu(gpu, &layout, &kept, w, bias, add),
    };
    let mut inputs: Vec<&Tensor> = terms.iter().map(|t| t.x).collect();
    inputs.extend([w].into_iter().chain(bias).chain(add));
    if !recording(&inputs) {
        return y;
    }
    let (w_kept, bias_leaf) = (w.clone(), bias.and_then(Tensor::as_leaf));
    let (has_bias, has_add) = (bias.is_some(), add.is_some_and(Tensor::requires_grad));
    record1(&inputs, y, move |dy, sink| {
        let dy = &as_factor(dy);
        let factor = &in_eights(&layout, dy);
        let mut grads: Vec<Option<Tensor>> = Vec::with_capacity(kept.len() + 3);
        for (x, part) in kept.iter().zip(&layout.parts) {
            let grad = || match dy.device() {
                Device::Cpu => input_grad_cpu(&layout, part, &w_kept, dy, x.shape()),
                Device::Gpu(gpu) => input_grad_gpu(gpu, &layout, part, &w_kept, factor, x.shape()),
            };
            grads.push(x.requires_grad().then(grad));
        }
        if w_kept.requires_grad() {
            weight_grad(&layout, &kept, &w_kept, factor, sink);
        }
        if let Some(leaf) = bias_leaf {
            sink.column_sums(leaf, layout.blocks * layout.n, dy);
        }
        grads.push(None); // the weight's went to the sink
        if has_bias {
            grads.push(None);
        }
        if has_add {
            grads.push(Some(dy.clone()));
        }
        grads
    })
}

/// `x`, with its origin, as products read it: on a GPU in the type of activations.
fn as_factor(x: &Tensor) -> Tensor {
    match x.device() {
        Device::Cpu => x.clone(),
        Device::Gpu(gpu) => gpu.act(x).with_origin(x.origin.clone()),
    }
}

/// With fewer rows, an output gradient is not padded; products then read it number by number.
const WORTH_COPYING: usize = 256;

/// The gradient of a layer's outputs, its rows padded with zeros to multiples of eight numbers, which products on
/// tensor cores read at a time; for widths such as 255 bins or six actions.
fn in_eights(l: &Layout, dy: &Tensor) -> Tensor {
    match dy.device() {
        Device::Gpu(gpu)
            if gpu.precision() == Precision::Bfloat16
                && l.blocks == 1
                && l.m >= WORTH_COPYING
                && !l.n.is_multiple_of(8) =>
        {
            let n = l.n.next_multiple_of(8);
            resize_pixels(gpu, dy, [l.n, n], &[l.m, n])
        }
        _ => dy.clone(),
    }
}

/// Leaves the gradients of a layer's weight and bias in the sink, from `dy` [.., N], that of the layer's output.
pub(super) fn parameter_grads(terms: &[Term], w: &Tensor, bias: Option<&Tensor>, dy: &Tensor, sink: &mut Sink) {
    let dy = &as_factor(dy);
    if w.requires_grad() {
        let xs: Vec<Tensor> = terms.iter().map(|t| as_factor(t.x)).collect();
        weight_grad(&Layout::new(terms, w), &xs, w, dy, sink);
    }
    if let Some((bias, leaf)) = bias.and_then(|bias| Some((bias, bias.as_leaf()?))) {
        sink.column_sums(leaf, bias.len(), dy);
    }
}

/// Sizes of a product: M rows, and per term its columns and place in the weight.
struct Layout {
    m: usize,
    blocks: usize,
    /// Outputs of one block.
    n: usize,
    /// Rows of one block's weight.
    k: usize,
    parts: Vec<Part>,
}

/// A term's share: `k` columns of the input per block, from weight row `row` on.
struct Part {
    row: usize,
    k: usize,
    width: usize,
    shared: bool,
}

impl Layout {
    fn new(terms: &[Term], w: &Tensor) -> Self {
        let rank = w.shape().len();
        let (blocks, k, n) = (if rank == 3 { w.dim(0) } else { 1 }, w.dim(rank - 2), w.dim(rank - 1));
        let part = |t: &Term| {
            let width = t.x.width();
            let columns = if t.shared { width } else { width / blocks };
            assert!(t.row + columns <= k, "rows {} + {columns} of a weight with {k}", t.row);
            Part { row: t.row, k: columns, width, shared: t.shared }
        };
        Layout { m: terms[0].x.rows(), blocks, n, k, parts: terms.iter().map(part).collect() }
    }

    fn flops(&self) -> usize {
        2 * self.m * self.n * self.blocks * self.parts.iter().map(|p| p.k).sum::<usize>()
    }
}

impl Part {
    /// First input column of a block.
    fn start(&self, block: usize) -> usize {
        if self.shared { 0 } else { block * self.k }
    }

    /// The columns of an input that belong to each block, [M, k].
    fn input(&self, x: &Tensor) -> Matrix {
        Matrix::new(x, 0, self.width, if self.shared { 0 } else { self.k })
    }

    /// The rows of each block of a weight that this part multiplies with, [k, n].
    fn weight(&self, l: &Layout, (w, stride): &(Tensor, usize)) -> Matrix {
        Matrix::new(w, self.row * stride, *stride, l.k * stride)
    }

    fn pack(&self, w: &Tensor, transposed: bool) -> Arc<Vec<Packed>> {
        w.packed(self.row, self.k, transposed)
    }
}

/// Rows that one thread multiplies at a time: enough to reuse a panel of weights, few enough to share.
const ROWS: usize = 64;

fn forward_cpu(l: &Layout, terms: &[Term], w: &Tensor, bias: Option<&Tensor>, add: Option<&Tensor>) -> Tensor {
    let width = l.blocks * l.n;
    let mut shape = terms[0].x.shape().to_vec();
    *shape.last_mut().expect("an input has at least one axis") = width;
    let mut y = match add {
        Some(add) => Buffer::from_slice(add.data()),
        None => Buffer::stale(l.m * width),
    };
    let packs: Vec<Arc<Vec<Packed>>> = l.parts.iter().map(|p| p.pack(w, false)).collect();
    par_items(y.chunks_mut((ROWS * width).max(1)), l.flops(), |i, y| {
        let rows = y.len() / width;
        for g in 0..l.blocks {
            for (j, (part, term)) in l.parts.iter().zip(terms).enumerate() {
                let x = &term.x.data()[i * ROWS * part.width + part.start(g)..];
                let bias = bias.filter(|_| j + 1 == terms.len()).map(|b| &b.data()[g * l.n..(g + 1) * l.n]);
                let accumulate = j > 0 || add.is_some();
                let y = &mut y[g * l.n..];
                gemm_packed(rows, part.k, x, part.width, &packs[j][g], 0, bias, y, width, accumulate);
            }
        }
    });
    Tensor::new(&shape, y)
}

/// dx = dy wᵀ, where a shared input sums over the blocks.
fn input_grad_cpu(l: &Layout, part: &Part, w: &Tensor, dy: &Tensor, shape: &[usize]) -> Tensor {
    let width = l.blocks * l.n;
    let mut dx = Buffer::stale(l.m * part.width);
    if !part.shared && part.k * l.blocks < part.width || l.n == 0 {
        dx.fill(0.0);
    }
    let packs = part.pack(w, true);
    let flops = 2 * l.m * l.n * l.blocks * part.k;
    par_items(dx.chunks_mut((ROWS * part.width).max(1)), flops, |i, dx| {
        let rows = dx.len() / part.width;
        for (g, pack) in packs.iter().enumerate() {
            let dy = &dy.data()[i * ROWS * width + g * l.n..];
            let accumulate = part.shared && g > 0;
            let dx = &mut dx[part.start(g)..];
            gemm_packed(rows, l.n, dy, width, pack, 0, None, dx, part.width, accumulate);
        }
    });
    Tensor::new(shape, dx)
}

fn forward_gpu(
    gpu: &'static Gpu,
    l: &Layout,
    xs: &[Tensor],
    w: &Tensor,
    bias: Option<&Tensor>,
    add: Option<&Tensor>,
) -> Tensor {
    let width = l.blocks * l.n;
    let mut shape = xs[0].shape().to_vec();
    *shape.last_mut().expect("an input has at least one axis") = width;
    let y = gpu.empty_act(&shape);
    let (add, w) = (add.map(|add| gpu.act(add)), weight_rows(gpu, w));
    let term = |(part, x): (&Part, &Tensor)| Product { a: part.input(x), b: part.weight(l, &w), k: part.k };
    Gemm {
        terms: l.parts.iter().zip(xs).map(term).collect(),
        laps: [1, 0, 0],
        c: Matrix::new(&y, 0, width, l.n),
        bias,
        add: add.as_ref().map(|add| Matrix::new(add, 0, width, l.n)),
        size: [l.m, l.n],
        blocks: l.blocks,
    }
    .run(gpu);
    y
}

fn input_grad_gpu(gpu: &'static Gpu, l: &Layout, part: &Part, w: &Tensor, dy: &Tensor, shape: &[usize]) -> Tensor {
    let covered = part.shared || part.k * l.blocks == part.width;
    let dx = if covered { gpu.empty_act(shape) } else { gpu.zeros_act(shape) };
    let w = &weight_rows(gpu, w);
    let n = dy.width() / l.blocks; // zero padding included, which the weight's rows have as well
    // A shared input sums over the blocks, in order; otherwise each block has columns of its own.
    let (laps, blocks) = if part.shared { ([l.blocks, n, l.k * w.1], 1) } else { ([1, 0, 0], l.blocks) };
    Gemm {
        terms: vec![Product { a: Matrix::new(dy, 0, l.blocks * n, n), b: part.weight(l, w).transposed(), k: n }],
        laps,
        c: Matrix::new(&dx, 0, part.width, part.k),
        bias: None,
        add: None,
        size: [l.m, part.k],
        blocks,
    }
    .run(gpu);
    dx
}

fn weight_grad(l: &Layout, xs: &[Tensor], w: &Tensor, dy: &Tensor, sink: &mut Sink) {
    let leaf = w.as_leaf().expect("weights are leaves");
    for (x, part) in xs.iter().zip(&l.parts) {
        if dy.device() != Device::Cpu {
            let (blocks, block) = (l.blocks, l.k * l.n);
            let grad = WeightGrad { blocks, k: part.k, n: l.n, start: part.row * l.n, block, shared: part.shared };
            sink.product_gpu(leaf, w.shape(), grad, x, dy);
            continue;
        }
        for g in 0..l.blocks {
            let factors =
                Factors { x: x.detach(), x_start: part.start(g), dy: dy.detach(), dy_start: g * l.n, rows: l.m };
            sink.product(leaf, (g * l.k + part.row) * l.n, part.k, l.n, factors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::graph::{Leaf, backward};
    use crate::ops::concat;
    use crate::sink::Sink;

    /// x [m, g * k] times blocks w [g, rows, n], from row `row` of each block.
    fn product(x: &[f64], w: &[f64], [m, g, k, n]: [usize; 4], rows: usize, row: usize, shared: bool) -> Vec<f64> {
        let width = if shared { k } else { g * k };
        let at = |i: usize, o: usize| {
            let block = o / n;
            let start = if shared { 0 } else { block * k };
            (0..k).map(|j| x[i * width + start + j] * w[(block * rows + row + j) * n + o % n]).sum::<f64>()
        };
        (0..m * g * n).map(|i| at(i / (g * n), i % (g * n))).collect()
    }

    #[test]
    fn linear_layers_of_odd_sizes() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (17, 33, 50), (130, 20, 3), (260, 8, 6), (0, 4, 2)] {
            check(
                &[&[m, k], &[k, n], &[n]],
                |x| linear(&x[0], &x[1], &x[2]),
                |x| {
                    let y = product(&x[0], &x[1], [m, 1, k, n], k, 0, false);
                    y.iter().enumerate().map(|(i, y)| y + x[2][i % n]).collect()
                },
            );
        }
    }

    #[test]
    fn block_linear_layers_without_rows() {
        check(&[&[0, 6], &[2, 3, 4], &[8]], |x| affine(&[Term::new(&x[0], 0)], &x[1], Some(&x[2]), None), |_| vec![]);
    }

    /// A weight's gradient does not depend on how other layers take it apart, and its packed copy is of the part taken.
    #[test]
    fn one_weight_whole_and_in_parts() {
        for whole_first in [false, true] {
            check(
                &[&[4, 3], &[4, 5], &[5, 2]],
                |x| {
                    let part = || affine(&[Term::new(&x[0], 0)], &x[2], None, None);
                    let whole = || affine(&[Term::new(&x[1], 0)], &x[2], None, None);
                    let [a, b] = if whole_first {
                        let b = whole();
                        [part(), b]
                    } else {
                        [part(), whole()]
                    };
                    concat(&[&a, &b])
                },
                |x| {
                    let part: Vec<f64> = x[2][..6].to_vec();
                    [product(&x[0], &part, [4, 1, 3, 2], 3, 0, false), product(&x[1], &x[2], [4, 1, 5, 2], 5, 0, false)]
                        .concat()
                },
            );
        }
        let block = Tensor::from_slice(&[8], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let x = Tensor::from_slice(&[1, 2], &[1.0, 10.0]);
        for (start, y) in [(0, [31.0, 42.0]), (4, [75.0, 86.0])] {
            let w = block.view(start, &[2, 2]);
            assert_eq!(affine(&[Term::new(&x, 0)], &w, None, None).data(), y);
        }
    }

    #[test]
    fn a_layer_with_very_many_outputs_has_a_gradient() {
        let (x, n) = (Tensor::from_slice(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (1 << 17) + 1);
        let leaf = Leaf::new();
        let y = linear(&x, &Tensor::zeros(&[3, n]).leaf(leaf), &Tensor::zeros(&[n]));
        let mut sink = Sink::new();
        backward(&[(&y, Tensor::full(&[2, n], 1.0))], &mut sink);
        let grad = &sink.finish(&[(leaf, vec![3, n])])[0];
        for (row, sum) in grad.data().chunks(n).zip([5.0, 7.0, 9.0]) {
            assert!(row.iter().all(|&g| g == sum));
        }
    }

    #[test]
    fn block_linear_over_parts_equals_the_concatenation() {
        let (m, g, own, other, n) = (9, 3, 4, 5, 6);
        let rows = own + other;
        let shapes: [&[usize]; 5] = [&[m, g * own], &[m, other], &[g, rows, n], &[g * n], &[m, g * n]];
        let op = |x: &[Tensor]| {
            let terms = [Term::new(&x[0], 0), Term::shared(&x[1], own)];
            affine(&terms, &x[2], Some(&x[3]), Some(&x[4]))
        };
        check(&shapes, op, |x| {
            let a = product(&x[0], &x[2], [m, g, own, n], rows, 0, false);
            let b = product(&x[1], &x[2], [m, g, other, n], rows, own, true);
            (0..m * g * n).map(|i| a[i] + b[i] + x[3][i % (g * n)] + x[4][i]).collect()
        });
    }

    #[test]
    fn a_part_computed_ahead_gives_the_same_gradients() {
        // Rows 3.. of the weight meet another input beforehand, as the recurrent model does with tokens.
        let op = |x: &[Tensor]| {
            let ahead = affine(&[Term::new(&x[1], 3)], &x[2], Some(&x[3]), None);
            affine(&[Term::new(&x[0], 0)], &x[2], None, Some(&ahead))
        };
        check(&[&[4, 3], &[4, 2], &[5, 6], &[6]], op, |x| {
            let a = product(&x[0], &x[2], [4, 1, 3, 6], 5, 0, false);
            let b = product(&x[1], &x[2], [4, 1, 2, 6], 5, 3, false);
            (0..24).map(|i| a[i] + b[i] + x[3][i % 6]).collect()
        });
    }

    /// Steps whose products are multiplied together, and others, whose rows are no power of two, that are not.
    #[test]
    fn a_weight_in_several_steps() {
        for m in [4, 3] {
            let op = |x: &[Tensor]| {
                let y = linear(&x[0], &x[2], &x[3]);
                let y = linear(&y, &x[2], &x[3]);
                affine(&[Term::new(&x[1], 0)], &x[2], Some(&x[3]), Some(&y))
            };
            check(&[&[m, 5], &[m, 5], &[5, 5], &[5]], op, |x| {
                let layer = |y: &[f64]| -> Vec<f64> {
                    let y = product(y, &x[2], [m, 1, 5, 5], 5, 0, false);
                    y.iter().enumerate().map(|(i, y)| y + x[3][i % 5]).collect()
                };
                let y = layer(&layer(&x[0]));
                layer(&x[1]).iter().zip(&y).map(|(a, b)| a + b).collect()
            });
        }
    }

    /// An update in place is seen by the next product, whatever copies of the weight there were.
    #[test]
    fn a_changed_weight_is_seen() {
        for device in crate::check::devices_in_all_precisions() {
            let (x, bias) = (Tensor::full(&[1, 1], 2.0).to(device), Tensor::zeros(&[1]).to(device));
            let mut w = Tensor::full(&[1, 1], 3.0).to(device);
            assert_eq!(linear(&x, &w, &bias).item(), 6.0);
            crate::ops::add_assign(&mut w, &Tensor::full(&[1, 1], 1.0).to(device));
            assert_eq!(linear(&x, &w, &bias).item(), 8.0);
        }
    }
}
