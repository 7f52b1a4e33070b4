//! `Sink`: where the gradients of parameters collect during a backward sweep.
//!
//! A recurrent network uses each weight once a step. Adding up one small product a step would cost more than
//! the recurrence itself, so products only leave their factors here, and `finish` multiplies them all in one go,
//! cut into jobs by their shapes alone and added up in a fixed order.

use crate::buffer::Buffer;
use crate::cpu::conv::{ConvShape, UpsampleShape, reduce_bias_grad, reduce_upsample_grad, reduce_weight_grad};

use crate::cpu::gemm_tn::{Segment, column_sums, gemm_tn};
use crate::cuda::{Gpu, Grid};
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

impl Factors {
    fn segment(&self) -> Segment<'_> {
        let (x, dy) = (&self.x.data()[self.x_start..], &self.dy.data()[self.dy_start..]);
        Segment { x, ldx: self.x.width(), dy, ldy: self.dy.width(), rows: self.rows }
    }
}

/// What has come in for one leaf.
struct Entry {
    /// The part of the computation that first left something here.
    part: Part,
    dense: Option<Tensor>,
    products: BTreeMap<usize, Products>,
    lanes: Option<Lanes>,
}

impl Default for Entry {
    fn default() -> Self {
        let (dense, products, lanes) = Default::default();
        Entry { part: profile::here(), dense, products, lanes }
    }
}

impl Entry {
    fn add(&mut self, grad: &Tensor) {
        match &mut self.dense {
            None => self.dense = Some(grad.detach()),
            Some(sum) => add_assign(sum, grad),
        }
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
        self.entries.entry(leaf).or_default().add(grad);
    }

    /// Adds `xᵀ dy` [k, n] at `offset` of the leaf's gradient, later.
    pub(crate) fn product(&mut self, leaf: Leaf, offset: usize, k: usize, n: usize, factors: Factors) {
        let products = self.entries.entry(leaf).or_default().products.entry(offset).or_default();
        (products.k, products.n) = (k, n);
        products.factors.push(factors);
    }

    /// Adds the column sums of `dy` [M, n] to the leaf's gradient [n].
    pub(crate) fn column_sums(&mut self, leaf: Leaf, n: usize, dy: &Tensor) {
        match dy.device() {
            Device::Cpu => {
                let sums = self.entries.entry(leaf).or_default().dense.get_or_insert_with(|| Tensor::zeros(&[n]));
                column_sums(dy.len() / n.max(1), n, dy.data(), n, sums.make_mut());
            }
            Device::Gpu(gpu) => self.add(leaf, &column_sums_gpu(gpu, &gpu.full(dy), n)),
        }
    }

    /// The leaf's gradient of `shape` so far, in memory of its own, for kernels that add to it.
    pub(crate) fn dense(&mut self, leaf: Leaf, shape: &[usize], device: Device) -> &Tensor {
        let dense = &mut self.entries.entry(leaf).or_default().dense;
        let sum = dense.get_or_insert_with(|| zeros(shape, device));
        sum.unshare();
        sum
    }

    /// Lane accumulators of `len` floats for the leaf's gradient, zero at first.
    pub(crate) fn lanes(&mut self, leaf: Leaf, kind: LaneSums, len: usize) -> &mut [f32] {
        let entry = self.entries.entry(leaf).or_default();
        &mut entry.lanes.get_or_insert_with(|| Lanes { kind, buffer: Buffer::zeros(len) }).buffer
    }

    /// Takes over what another sink collected, after what is here.
    pub fn merge(&mut self, other: Sink) {
        for (leaf, theirs) in other.entries {
            let ours = self.entries.entry(leaf).or_insert_with(|| Entry { part: theirs.part, ..Entry::default() });
            if let Some(grad) = &theirs.dense {
                ours.add(grad);
            }
            for (offset, products) in theirs.products {
                let mine = ours.products.entry(offset).or_default();
                (mine.k, mine.n) = (products.k, products.n);
                mine.factors.extend(products.factors);
            }
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
        let device =
            self.entries.values().find_map(|entry| Some(entry.dense.as_ref()?.device())).unwrap_or(Device::Cpu);
        let mut entries: Vec<Entry> =
            leaves.iter().map(|(leaf, _)| self.entries.remove(leaf).unwrap_or_default()).collect();
        let all: Vec<_> = entries.iter_mut().map(|entry| std::mem::take(&mut entry.products)).collect();
        let mut jobs: Vec<Job> = Vec::new();
        for (leaf, (products, entry)) in all.iter().zip(&entries).enumerate() {
            products.iter().for_each(|(offset, p)| p.cut(leaf, *offset, entry.part, &mut jobs));
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

/// Rows whose column sums one thread of a GPU adds up, before the sums of the slices are.
const SLICE: usize = 256;

/// The column sums [n] of x [M, n].
pub(crate) fn column_sums_gpu(gpu: &'static Gpu, x: &Tensor, n: usize) -> Tensor {
    let sums = |x: &Tensor, rows: usize, slice: usize| {
        let slices = rows.div_ceil(slice).max(1);
        let out = gpu.empty(&[slices, n]);
        let grid = Grid::of([n.div_ceil(128), slices, 1], 128);
        gpu.launch("elementwise", "column_sums", grid, &[x, &rows, &n, &slice, &out]);
        out
    };
    let rows = x.len() / n.max(1);
    let slices = sums(x, rows, SLICE);
    let total = if rows > SLICE { sums(&slices, slices.dim(0), slices.dim(0)) } else { slices };
    total.view(0, &[n])
}

/// Floats of a weight's gradient that one job adds to: they stay in the second cache.
const NEAR: usize = 1 << 17;
/// Jobs of one product at least, where its rows allow it: one for each of so many threads.
const JOBS: usize = 8;
/// Rows of a job at least: fewer would not pay for adding up its result.
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
    fn cut<'a>(&'a self, leaf: usize, offset: usize, part: Part, jobs: &mut Vec<Job<'a>>) {
        let (k, n) = (self.k, self.n);
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
fn finish_leaf(entry: Entry, jobs: &[&Job], shape: &[usize], device: Device) -> Tensor {
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
