//! `Sink`: where the gradients of parameters collect during a backward sweep.
//!
//! A recurrent network uses each weight once a step. Adding up one small product a step would cost more than
//! the recurrence itself, so products only leave their factors here, and `finish` multiplies them all in one go,
//! cut into jobs by their shapes alone and added up in a fixed order.

use crate::buffer::Buffer;
use crate::cpu::conv::{ConvShape, UpsampleShape, reduce_bias_grad, reduce_upsample_grad, reduce_weight_grad};
use crate::cpu::gemm_tn::{Segment, column_sums, gemm_tn};
use crate::cuda::{MOST_USES, WeightGrad, column_sums as column_sums_gpu};
use crate::graph::Leaf;
use crate::ops::{add_assign, zeros};
use crate::parallel::par_items;
use crate::profile::{self, Part};
use crate::tensor::{Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;

/// A part of a weight's gradient, at `offset` in it: the sum over all factors of `xᵀ dy`, [k, n].
#[derive(Default)]
struct Products {
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

impl Factors {
    fn segment(&self) -> Segment<'_> {
        let (x, dy) = (&self.x.data()[self.x_start..], &self.dy.data()[self.dy_start..]);
        Segment { x, ldx: self.x.width(), dy, ldy: self.dy.width(), rows: self.rows }
    }
}

/// The same on a GPU, for all blocks of a weight of `shape`: inputs and output gradients of the steps so far.
struct Uses {
    shape: Vec<usize>,
    grad: WeightGrad,
    uses: Vec<(Tensor, Tensor)>,
}

/// What was collected for one leaf.
struct Entry {
    /// The part of the computation that first left something here.
    part: Part,
    dense: Option<Tensor>,
    /// By offset in the gradient and number of rows.
    products: BTreeMap<[usize; 2], Products>,
    lanes: Option<Lanes>,
    /// On a GPU: by start in the weight and number of rows; and what the column sums are of.
    uses: BTreeMap<[usize; 2], Uses>,
    columns: Vec<Tensor>,
}

impl Default for Entry {
    fn default() -> Self {
        let (dense, products, lanes, uses, columns) = Default::default();
        Entry { part: profile::here(), dense, products, lanes, uses, columns }
    }
}

/// Most rows that wait for more: more would hold memory without making a GPU's product faster.
const WAITING: usize = 1 << 14;

/// Whether the rows of `x` may be multiplied together with those that wait, equally many and a power of two.
fn joins(waiting: Option<&Tensor>, count: usize, x: &Tensor) -> bool {
    waiting.is_none_or(|first| {
        let alike = first.rows() == x.rows() && first.width() == x.width() && first.dtype() == x.dtype();
        alike && !full(first, count)
    })
}

/// Whether no more may wait with `count` tensors like this one.
fn full(first: &Tensor, count: usize) -> bool {
    let rows = first.rows();
    !rows.is_power_of_two() || count >= MOST_USES || (count + 1) * rows > WAITING
}

impl Entry {
    fn add(&mut self, grad: &Tensor) {
        match &mut self.dense {
            None => self.dense = Some(grad.detach()),
            Some(sum) => add_assign(sum, grad),
        }
    }

    /// A use of a weight of `shape` on a GPU.
    fn add_use(&mut self, shape: &[usize], grad: WeightGrad, x: Tensor, dy: Tensor) {
        let new = || Uses { shape: shape.to_vec(), grad, uses: Vec::new() };
        let waiting = &mut self.uses.entry([grad.start, grad.k]).or_insert_with(new).uses;
        let alike = waiting.first().is_none_or(|(_, first)| first.width() == dy.width()); // zero padding included
        if alike && joins(waiting.first().map(|(x, _)| x), waiting.len(), &x) {
            waiting.push((x, dy));
        } else {
            let before = std::mem::replace(waiting, vec![(x, dy)]);
            let sum = self.dense.get_or_insert_with(|| zeros(shape, before[0].0.device()));
            multiply(grad, &before, sum, true);
        }
        // Waiting longer would only hold memory, unless parts of the weight are missing: once all are there, it needs
        // no zeroing.
        let full = |x: &Uses| x.uses.first().is_some_and(|(first, _)| full(first, x.uses.len()));
        if self.uses.values().all(full) && (self.dense.is_some() || covered(&self.uses)) {
            self.multiply_all();
        }
    }

    fn add_columns(&mut self, dy: Tensor) {
        if !joins(self.columns.first(), self.columns.len(), &dy) {
            self.sum_columns();
        }
        self.columns.push(dy);
        if full(&self.columns[0], self.columns.len()) {
            self.sum_columns();
        }
    }

    fn sum_columns(&mut self) {
        let waiting = std::mem::take(&mut self.columns);
        let Some((Device::Gpu(gpu), n)) = waiting.first().map(|x| (x.device(), x.width())) else { return };
        self.add(&column_sums_gpu(gpu, &waiting, n));
    }

    /// Does the work that still waits on a GPU.
    fn settle(&mut self) {
        self.sum_columns();
        self.multiply_all();
    }

    fn multiply_all(&mut self) {
        let uses = std::mem::take(&mut self.uses);
        let Some(Uses { shape, uses: first, .. }) = uses.values().next() else { return };
        let add = self.dense.is_some() || !covered(&uses);
        let Device::Gpu(gpu) = first[0].0.device() else { return };
        let sum = self.dense.get_or_insert_with(|| if add { gpu.zeros(shape) } else { gpu.empty(shape) });
        uses.values().for_each(|x| multiply(x.grad, &x.uses, sum, add));
    }

    fn device(&self) -> Option<Device> {
        let waiting = self.uses.values().flat_map(|x| x.uses.first()).map(|(x, _)| x);
        self.dense.iter().chain(waiting).chain(&self.columns).next().map(Tensor::device)
    }
}

/// Whether the products cover all of a weight, so that it need not be zeroed first.
fn covered(uses: &BTreeMap<[usize; 2], Uses>) -> bool {
    let next = |at: usize, x: &Uses| if x.grad.start == at { at + x.grad.k * x.grad.n } else { 0 };
    let whole = uses.values().next().map(|x| x.shape.iter().rev().take(2).product());
    whole == Some(uses.values().fold(0, next))
}

/// `sum = (sum +)` the products of `uses`, on a GPU.
fn multiply(grad: WeightGrad, uses: &[(Tensor, Tensor)], sum: &mut Tensor, add: bool) {
    if let Device::Gpu(gpu) = sum.device() {
        sum.unshare();
        grad.run(gpu, uses, sum, add);
    }
}

/// Accumulators with one sum a lane, which the end of the sweep adds up.
struct Lanes {
    kind: LaneSums,
    buffer: Buffer,
}

/// What lane accumulators add up to.
#[derive(Clone, Copy)]
pub(crate) enum LaneSums {
    /// One number per channel.
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
        self.entries.entry(leaf).or_default().add(grad);
    }

    /// Adds `xᵀ dy` [k, n] at `offset` of the leaf's gradient, later.
    pub(crate) fn product(&mut self, leaf: Leaf, offset: usize, k: usize, n: usize, factors: Factors) {
        let products = self.entries.entry(leaf).or_default().products.entry([offset, k]).or_default();
        products.n = n;
        products.factors.push(factors);
    }

    /// The same on a GPU: adds `xᵀ dy` of x [M, ..] and dy [M, ..] to the part `grad` of a gradient of `shape`.
    pub(crate) fn product_gpu(&mut self, leaf: Leaf, shape: &[usize], grad: WeightGrad, x: &Tensor, dy: &Tensor) {
        let rows = |x: &Tensor| x.view(0, &[x.rows(), x.width()]);
        self.entries.entry(leaf).or_default().add_use(shape, grad, rows(x), rows(dy));
    }

    /// Adds the column sums of `dy` [M, n] to the leaf's gradient [n].
    pub(crate) fn column_sums(&mut self, leaf: Leaf, n: usize, dy: &Tensor) {
        match dy.device() {
            Device::Cpu => {
                let sums = self.entries.entry(leaf).or_default().dense.get_or_insert_with(|| Tensor::zeros(&[n]));
                column_sums(dy.len() / n.max(1), n, dy.data(), n, sums.make_mut());
            }
            Device::Gpu(_) => {
                let rows = dy.view(0, &[dy.len() / n.max(1), n]);
                self.entries.entry(leaf).or_default().add_columns(rows);
            }
        }
    }

    /// Lane accumulators of `len` floats for the leaf's gradient, zero at first.
    pub(crate) fn lanes(&mut self, leaf: Leaf, kind: LaneSums, len: usize) -> &mut [f32] {
        let entry = self.entries.entry(leaf).or_default();
        &mut entry.lanes.get_or_insert_with(|| Lanes { kind, buffer: Buffer::zeros(len) }).buffer
    }

    /// Adds what another sink collected, after what is here.
    pub fn merge(&mut self, other: Sink) {
        for (leaf, theirs) in other.entries {
            let ours = self.entries.entry(leaf).or_insert_with(|| Entry { part: theirs.part, ..Entry::default() });
            if let Some(grad) = &theirs.dense {
                ours.add(grad);
            }
            for (place, products) in theirs.products {
                let mine = ours.products.entry(place).or_default();
                mine.n = products.n;
                mine.factors.extend(products.factors);
            }
            for Uses { shape, grad, uses } in theirs.uses.into_values() {
                uses.into_iter().for_each(|(x, dy)| ours.add_use(&shape, grad, x, dy));
            }
            theirs.columns.into_iter().for_each(|x| ours.add_columns(x));
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
        let device = self.entries.values().find_map(Entry::device).unwrap_or(Device::Cpu);
        let mut entries: Vec<Entry> =
            leaves.iter().map(|(leaf, _)| self.entries.remove(leaf).unwrap_or_default()).collect();
        let all: Vec<_> = entries.iter_mut().map(|entry| std::mem::take(&mut entry.products)).collect();
        let mut jobs: Vec<Job> = Vec::new();
        for (leaf, (products, entry)) in all.iter().zip(&entries).enumerate() {
            products.iter().for_each(|(&place, p)| p.cut(leaf, place, entry.part, &mut jobs));
        }
        let flops = jobs.iter().map(Job::flops).sum();
        par_items(jobs.iter_mut(), flops, |_, job| profile::within(job.part, || job.run()));
        let mut jobs = jobs.iter().peekable();
        let finish = |(leaf, (entry, (_, shape))): (usize, (Entry, &(Leaf, Vec<usize>)))| {
            let done: Vec<&Job> = std::iter::from_fn(|| jobs.next_if(|job| job.leaf == leaf)).collect();
            profile::within(entry.part, || finish_leaf(entry, &done, shape, device))
        };
        entries.into_iter().zip(leaves).enumerate().map(finish).collect()
    }
}

/// Floats of a weight's gradient that one job adds to: they stay in the L2 cache.
const NEAR: usize = 1 << 17;
/// Fewest jobs of a product, where its rows allow it: one for each of this many threads.
const JOBS: usize = 8;
/// Fewest rows of a job: with fewer, adding up its result would not pay.
const ROWS: usize = 1024;

/// Some rows of the gradient of one product, from some of its factors.
struct Job<'a> {
    leaf: usize,
    part: Part,
    /// Where the result belongs in the leaf's gradient.
    offset: usize,
    /// Rows of the product's gradient [k, n].
    band: Range<usize>,
    n: usize,
    factors: &'a [Factors],
    /// [band, n], once it ran.
    out: Buffer,
}

impl Products {
    /// Cuts the product into jobs: bands of rows of the gradient, and for each of them slices of the factors.
    fn cut<'a>(&'a self, leaf: usize, [offset, k]: [usize; 2], part: Part, jobs: &mut Vec<Job<'a>>) {
        let n = self.n;
        if k * n == 0 {
            return;
        }
        let band = if k * n <= NEAR { k } else { (NEAR / n).max(1).next_multiple_of(32) };
        let rows: usize = self.factors.iter().map(|f| f.rows).sum();
        let slices = JOBS.div_ceil(k.div_ceil(band)).min(rows / ROWS).max(1);
        let slice = self.factors.len().div_ceil(slices).max(1);
        for start in (0..k).step_by(band) {
            let band = start..(start + band).min(k);
            for factors in self.factors.chunks(slice) {
                let (offset, band) = (offset + start * n, band.clone());
                jobs.push(Job { leaf, part, offset, band, n, factors, out: Buffer::zeros(0) });
            }
        }
    }
}

impl Job<'_> {
    fn flops(&self) -> usize {
        2 * self.band.len() * self.n * self.factors.iter().map(|f| f.rows).sum::<usize>()
    }

    fn run(&mut self) {
        // Without rows there may be no columns to point at either.
        let factors = self.factors.iter().filter(|factors| factors.rows > 0);
        let segments: Vec<Segment> = factors.map(Factors::segment).collect();
        self.out = Buffer::zeros(self.band.len() * self.n);
        gemm_tn(self.band.clone(), self.n, &segments, &mut self.out, self.n);
    }
}

/// Adds up what came for one leaf.
fn finish_leaf(mut entry: Entry, jobs: &[&Job], shape: &[usize], device: Device) -> Tensor {
    entry.settle();
    let mut grad = entry.dense.unwrap_or_else(|| zeros(shape, device));
    if device != Device::Cpu {
        return grad; // kernels have added everything up already
    }
    let out = grad.make_mut();
    for job in jobs {
        out[job.offset..].iter_mut().zip(job.out.iter()).for_each(|(sum, x)| *sum += x);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    #[test]
    fn a_product_cut_into_bands_and_slices() {
        let (rows, k, n) = (1024, 600, 300);
        let factors: Vec<[Tensor; 2]> =
            (0..5).map(|i| [random(&[rows, k], i, 1.0), random(&[rows, n], 10 + i, 1.0)]).collect();
        let grad = |threads: usize| {
            let leaf = Leaf::new();
            let mut sink = Sink::new();
            for [x, dy] in &factors {
                let (x, dy) = (x.detach(), dy.detach());
                sink.product(leaf, 0, k, n, Factors { x, x_start: 0, dy, dy_start: 0, rows });
            }
            let mut jobs = vec![];
            let products = &sink.entries[&leaf].products[&[0, k]];
            products.cut(0, [0, k], profile::here(), &mut jobs);
            assert_eq!(jobs.len(), 2 * 3, "two bands of three slices");
            drop(jobs);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| sink.finish(&[(leaf, vec![k, n])]).remove(0))
        };
        let (one, three) = (grad(1), grad(3));
        assert_eq!(one.data(), three.data());
        for at in (0..k * n).step_by(997) {
            let (i, j) = (at / n, at % n);
            let term = |[x, dy]: &[Tensor; 2], row: usize| x.data()[row * k + i] as f64 * dy.data()[row * n + j] as f64;
            let want: f64 = factors.iter().map(|pair| (0..rows).map(|row| term(pair, row)).sum::<f64>()).sum();
            // The sum of 5120 products of standard normal numbers is about 72.
            assert!((one.data()[at] as f64 - want).abs() < 1e-3, "{i}, {j}: {} {want}", one.data()[at]);
        }
    }
}
