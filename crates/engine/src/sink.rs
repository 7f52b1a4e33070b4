//! `Sink`: where the gradients of parameters collect during a backward sweep.
//!
//! A recurrent network uses each weight once a step. Adding up one small product a step would cost more than
//! the recurrence itself, so small products only leave their factors here, and `finish` multiplies
//! them in one go, in a fixed order.

use crate::buffer::Buffer;
use crate::cpu::conv::{ConvShape, UpsampleShape, reduce_bias_grad, reduce_upsample_grad, reduce_weight_grad};

use crate::cpu::gemm_tn::{Segment, column_sums, gemm_tn};
use crate::graph::Leaf;
use crate::parallel::par_items;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// A part of a weight's gradient, at `offset` in it: the sum over all factors of `xᵀ dy`, [k, n].
#[derive(Default)]
struct Products {
    k: usize,
    n: usize,
    factors: Vec<Factors>,
}

/// `rows` rows of an input and of an output gradient, with their strides and first columns.
pub(crate) struct Factors {
    pub x: Tensor,
    pub x_start: usize,
    pub dy: Tensor,
    pub dy_start: usize,
    pub rows: usize,
}

/// What has come in for one leaf.
#[derive(Default)]
struct Entry {
    dense: Option<Tensor>,
    products: BTreeMap<usize, Products>,
    /// Output gradients whose column sums are the gradient of a bias.
    sums: Vec<Tensor>,
    lanes: Option<Lanes>,
}

/// Accumulators with one sum a lane, which the end of the sweep adds up.
struct Lanes {
    kind: LaneSums,
    buffer: Buffer,
}

/// What lane accumulators add up to.
#[derive(Clone, Copy)]
pub(crate) enum LaneSums {
    /// A number a channel.
    Channels,
    Conv(ConvShape),
    Upsample(UpsampleShape),
}

/// Gradients by leaf.
#[derive(Default)]
pub struct Sink {
    entries: BTreeMap<Leaf, Entry>,
}

impl Sink {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a gradient of the leaf's own shape.
    pub fn add(&mut self, leaf: Leaf, grad: &Tensor) {
        let entry = self.entries.entry(leaf).or_default();
        match &mut entry.dense {
            None => entry.dense = Some(grad.detach()),
            Some(sum) => sum.make_mut().iter_mut().zip(grad.data()).for_each(|(a, b)| *a += b),
        }
    }

    /// Adds `xᵀ dy` [k, n] at `offset` of the leaf's gradient, later.
    pub(crate) fn product(&mut self, leaf: Leaf, offset: usize, k: usize, n: usize, factors: Factors) {
        let products = self.entries.entry(leaf).or_default().products.entry(offset).or_default();
        (products.k, products.n) = (k, n);
        products.factors.push(factors);
    }

    /// Adds the column sums of `dy` [M, n] to the leaf's gradient [n], later.
    pub(crate) fn column_sums(&mut self, leaf: Leaf, dy: Tensor) {
        self.entries.entry(leaf).or_default().sums.push(dy);
    }

    /// Lane accumulators of `len` floats for the leaf's gradient, zero at first.
    pub(crate) fn lanes(&mut self, leaf: Leaf, kind: LaneSums, len: usize) -> &mut [f32] {
        let entry = self.entries.entry(leaf).or_default();
        &mut entry.lanes.get_or_insert_with(|| Lanes { kind, buffer: Buffer::zeros(len) }).buffer
    }

    /// Takes over what another sink collected, after what is here.
    pub fn merge(&mut self, other: Sink) {
        for (leaf, theirs) in other.entries {
            if let Some(grad) = &theirs.dense {
                self.add(leaf, grad);
            }
            let ours = self.entries.entry(leaf).or_default();
            for (offset, products) in theirs.products {
                let mine = ours.products.entry(offset).or_default();
                (mine.k, mine.n) = (products.k, products.n);
                mine.factors.extend(products.factors);
            }
            ours.sums.extend(theirs.sums);
            match (&mut ours.lanes, theirs.lanes) {
                (None, lanes) => ours.lanes = lanes,
                (Some(a), Some(b)) => a.buffer.iter_mut().zip(b.buffer.iter()).for_each(|(x, y)| *x += y),
                (Some(_), None) => {}
            }
        }
    }

    /// The gradient collected for an inner leaf of `shape`, where there is any.
    pub(crate) fn take(&mut self, leaf: Leaf) -> Option<Tensor> {
        self.entries.remove(&leaf).and_then(|entry| entry.dense)
    }

    /// Does the deferred work and returns the gradient of each of `leaves` (zeros where none came).
    pub fn finish(mut self, leaves: &[(Leaf, Vec<usize>)]) -> Vec<Tensor> {
        let work: Vec<_> = leaves.iter().map(|(leaf, shape)| (self.entries.remove(leaf), shape)).collect();
        // A task a tensor would leave the largest for the end of one thread; a product splits itself further.
        work.into_iter().map(|(entry, shape)| finish_leaf(entry.unwrap_or_default(), shape)).collect()
    }
}

fn finish_leaf(entry: Entry, shape: &[usize]) -> Tensor {
    let mut grad = entry.dense.unwrap_or_else(|| Tensor::zeros(shape));
    let out = grad.make_mut();
    for (offset, products) in &entry.products {
        let Products { k, n, factors } = products;
        multiply(factors, *k, *n, &mut out[*offset..offset + k * n]);
    }
    for dy in &entry.sums {
        column_sums(dy.len() / out.len().max(1), out.len(), dy.data(), out.len(), out);
    }
    if let Some(lanes) = &entry.lanes {
        match &lanes.kind {
            LaneSums::Channels => reduce_bias_grad(&lanes.buffer, out),
            LaneSums::Conv(shape) => reduce_weight_grad(shape, &lanes.buffer, out),
            LaneSums::Upsample(shape) => reduce_upsample_grad(shape, &lanes.buffer, out),
        }
    }
    grad
}

/// dw [k, n] += Σ xᵀ dy over all factors, in bands of rows of dw that threads share.
fn multiply(factors: &[Factors], k: usize, n: usize, dw: &mut [f32]) {
    const BAND: usize = 32;
    if k * n == 0 {
        return;
    }
    let flops = 2 * k * n * factors.iter().map(|f| f.rows).sum::<usize>();
    par_items(dw.chunks_mut(BAND * n), flops, |i, band| {
        let from = i * BAND;
        let segments: Vec<Segment> = factors
            .iter()
            .map(|f| Segment {
                x: &f.x.data()[f.x_start..],
                ldx: f.x.width(),
                dy: &f.dy.data()[f.dy_start..],
                ldy: f.dy.width(),
                rows: f.rows,
            })
            .collect();
        gemm_tn(from..(from + BAND).min(k), n, &segments, band, n);
    });
}
