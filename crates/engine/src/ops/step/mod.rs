//! One step of a recurrent state-space model's prior for many rows, and multilayer perceptrons, on a GPU and without
//! gradient: what imagination is made of. Where a model is small one kernel takes each row through all of it.

mod mlp;
#[cfg(test)]
mod tests;

pub use mlp::mlp;

use super::latent::{Draw, latent};
use super::noise::DrawArgs;
use super::scan::pack::Packer;
use super::scan::{Core, Layer, panels, spans};
use super::{Act, Norm, Term, affine, gru, linear, linear_parts, norm_act};
use crate::cpu::norm::{Act as Plain, Norm as NormKind};
use crate::cuda::{Arg, Gpu, Grid, Precision, Table, weight_rows};
use crate::profile;
use crate::tensor::{Device, Tensor};

/// The core with the prior.
#[derive(Clone)]
pub struct Step {
    pub core: Core,
    /// The embedding of actions [A, H].
    pub actions: Layer,
    /// Any number of layers, the first one [D, H].
    pub prior: Vec<Layer>,
    /// [H, Z]
    pub logits: Layer,
    pub classes: usize,
    pub unimix: f32,
}

/// Weights up to which one kernel does everything: each 16 rows read all of them.
const SMALL: usize = 600_000;
/// Bytes of shared memory that such a kernel may take: every GPU from Ampere on has so much.
const ROOM: usize = 96 << 10;
/// As in kernels/step.cu: warps of a block, one for each of its rows; layers.
const CREW: usize = 16;
const LAYERS: usize = 16;
/// Classes that such a kernel has room for.
const MOST_CLASSES: usize = 128;
/// Width of actions, and of hidden layers, that the kernels have room for.
const MOST_ACTIONS: usize = 1024;
const MOST_HIDDEN: usize = 4096;

impl Step {
    /// Whether `run` can compute this model on `device`: a GPU. In bfloat16 weights are read eight numbers at a time.
    pub fn fits(&self, device: Device) -> bool {
        let Device::Gpu(gpu) = device else { return false };
        let s = self.sizes();
        let widths = [s.own, s.h, s.z].iter().all(|n| n.is_multiple_of(8));
        let learned = self.layers().flat_map(Layer::parameters).any(Tensor::requires_grad);
        !learned && (gpu.precision() == Precision::Float32 || widths) && s.a <= MOST_ACTIONS && s.h <= MOST_HIDDEN
    }

    /// deter [N, D] and stoch [N, Z], one-hot or zero, after `action` [N, A]: the next deter, and a sample of the
    /// prior.
    pub fn run(&self, deter: &Tensor, stoch: &Tensor, action: &Tensor, draw: Draw) -> [Tensor; 2] {
        let Device::Gpu(gpu) = deter.device() else { panic!("the fused step runs on a GPU") };
        let [deter, stoch, action] = [deter, stoch, action].map(|x| gpu.act(x));
        match self.is_small() {
            true => self.run_small(gpu, &deter, &stoch, &action, draw),
            false => self.run_large(gpu, &deter, &stoch, &action, draw),
        }
    }

    fn sizes(&self) -> Sizes {
        let (hidden, logits) = (&self.core.hidden.weight, &self.logits.weight);
        let (blocks, own) = (hidden.dim(0), hidden.dim(2));
        let (h, a, z) = (self.actions.weight.width(), self.actions.weight.dim(0), logits.width());
        Sizes { blocks, own, d: blocks * own, h, a, z, groups: z / self.classes }
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        [&self.actions, &self.logits].into_iter().chain(&self.prior).chain(self.core.layers())
    }

    /// Numbers of all weights.
    fn weights(&self) -> usize {
        self.layers().map(|layer| layer.weight.len()).sum()
    }

    fn is_small(&self) -> bool {
        let s = self.sizes();
        let each = panels(s.own);
        let inputs = spans(s.own) + spans(3 * s.h);
        let prior = [panels(s.h), spans(s.d)];
        let sums = [prior, [s.blocks * each, inputs], [panels(s.z), spans(s.h.max(s.d))]].map(sums_bytes);
        let shelves: usize = [s.d, s.d, 3 * s.h].map(|n| shelf_bytes(n, self.activation())).iter().sum();
        let room = shelves + 4 * CREW * (s.groups + s.a) + sums.into_iter().max().unwrap_or(0);
        // The last layers take turns in shelves that are as wide as deter and as three hidden layers.
        let fits = room <= ROOM && s.h <= s.d && self.prior.len() + 6 <= LAYERS && self.classes <= MOST_CLASSES;
        self.weights() <= SMALL && fits
    }

    /// Bytes of an activation.
    fn activation(&self) -> usize {
        let Device::Gpu(gpu) = self.actions.weight.device() else { return 4 };
        gpu.activations().bytes()
    }

    fn run_small(&self, gpu: &'static Gpu, deter: &Tensor, stoch: &Tensor, action: &Tensor, draw: Draw) -> [Tensor; 2] {
        let (s, rows) = (self.sizes(), deter.rows());
        let [of_deter, of_stoch] = &self.core.embeddings;
        let (action_rows, action_stride) = weight_rows(gpu, &self.actions.weight);
        let (all, added) = (self.weights(), of_stoch.weight.len());
        profile::count(2 * rows * (all - added), 2 * rows * all);
        let mut packer = Packer::new(gpu);
        let mut layers = vec![
            (packer.dense(&of_deter.weight, s.d), of_deter),
            (weight_rows(gpu, &of_stoch.weight).0, of_stoch),
            (action_rows, &self.actions),
            (packer.inputs(&self.core.hidden.weight, 3 * s.h), &self.core.hidden),
            (packer.gates(&self.core.gates.weight), &self.core.gates),
        ];
        let prior = self.prior.iter().chain([&self.logits]);
        layers.extend(prior.map(|layer| (packer.dense(&layer.weight, layer.weight.dim(0)), layer)));
        packer.run();
        let table = table(&layers);
        let (next, sample) = (gpu.empty_act(deter.shape()), gpu.empty_act(stoch.shape()));
        let (noise, kind, draws) = match draw {
            Draw::Uniform(noise) => (Some(gpu.full(noise)), 0u32, DrawArgs::none()),
            Draw::Gumbel(noise) => (Some(gpu.full(noise)), 1, DrawArgs::none()),
            Draw::Counter(rng, at) => (None, 2, DrawArgs::new(rng, at)),
        };
        let first: [&dyn Arg; 6] = [&table, deter, stoch, action, &noise, &kind];
        let count = self.prior.len();
        #[rustfmt::skip] // sizes, constants, results
        let last: [&dyn Arg; 13] = [
            &rows, &s.d, &s.own, &s.h, &s.a, &action_stride, &s.groups, &self.classes, &count,
            &self.unimix, &self.core.eps,
            &next, &sample,
        ];
        let args: Vec<&dyn Arg> = first.into_iter().chain(draws.args()).chain(last).collect();
        gpu.launch("step", "prior_step", rows_grid(rows), &args);
        [next, sample]
    }

    /// The same by operations of their own, but for the embeddings of the core.
    fn run_large(&self, gpu: &'static Gpu, deter: &Tensor, stoch: &Tensor, action: &Tensor, draw: Draw) -> [Tensor; 2] {
        let Core { embeddings: [of_deter, of_stoch], hidden, gates, .. } = &self.core;
        let s = self.sizes();
        let inputs = self.embed(gpu, deter, stoch, action, [of_deter, of_stoch]);
        let terms = [Term::new(deter, 0), Term::shared(&inputs, s.own)];
        let x = self.activated(hidden, &affine(&terms, &hidden.weight, Some(&hidden.bias), None));
        let next = gru(&linear(&x, &gates.weight, &gates.bias), deter, s.blocks);
        let x = self.prior.iter().fold(next.clone(), |x, layer| {
            let y = linear(&x, &layer.weight, &layer.bias);
            self.activated(layer, &y)
        });
        let logits = linear(&x, &self.logits.weight, &self.logits.bias);
        [next, latent(&logits, self.classes, self.unimix, draw)]
    }

    fn activated(&self, layer: &Layer, x: &Tensor) -> Tensor {
        let norm = Norm { kind: NormKind::Rms, eps: self.core.eps, scale: layer.scale.as_ref(), shift: None };
        norm_act(x, &norm, Act::Plain(Plain::Silu))
    }

    /// All embeddings side by side, normed and activated: [N, 3 H].
    fn embed(
        &self,
        gpu: &'static Gpu,
        deter: &Tensor,
        stoch: &Tensor,
        action: &Tensor,
        [of_deter, of_stoch]: [&Layer; 2],
    ) -> Tensor {
        let (s, rows) = (self.sizes(), deter.rows());
        let embedded = gpu.act(&linear(deter, &of_deter.weight, &of_deter.bias));
        // Adding up rows of the weight saves a launch, and reads more than the product of wide layers.
        let dense = (s.h > GATHERED).then(|| gpu.act(&linear(stoch, &of_stoch.weight, &of_stoch.bias)));
        let added = self.actions.weight.len() + if dense.is_some() { 0 } else { of_stoch.weight.len() };
        profile::count(2 * rows * self.actions.weight.len(), 2 * rows * added);
        let stoch_rows = weight_rows(gpu, &of_stoch.weight).0;
        let (action_rows, action_stride) = weight_rows(gpu, &self.actions.weight);
        let out = gpu.empty_act(&[rows, 3 * s.h]);
        #[rustfmt::skip] // inputs; parameters; sizes and results
        let args: [&dyn Arg; 18] = [
            &embedded, &dense, stoch, action,
            &stoch_rows, &action_rows, &of_stoch.bias, &self.actions.bias,
            of_deter.scale(), of_stoch.scale(), self.actions.scale(),
            &s.h, &s.a, &action_stride, &s.groups, &self.classes, &self.core.eps, &out,
        ];
        let eights = s.h.div_ceil(8);
        let sums = 8 * eights * (THREADS / eights).max(1);
        let grid = Grid { shared: 4 * (sums + s.a + s.groups) as u32, ..Grid::blocks(rows, THREADS as u32) };
        gpu.launch("step", "embed", grid, &args);
        out
    }
}

/// Width of the hidden layers up to which the chosen rows of the embedding of stoch are added up.
const GATHERED: usize = 512;

struct Sizes {
    blocks: usize,
    own: usize,
    d: usize,
    h: usize,
    a: usize,
    z: usize,
    groups: usize,
}

const THREADS: usize = 32 * CREW;

/// A block of threads for each 16 rows.
fn rows_grid(rows: usize) -> Grid {
    Grid { shared: ROOM as u32, ..Grid::blocks(rows.div_ceil(16), THREADS as u32) }
}

/// Weights, biases and scales as the kernels take them.
fn table(layers: &[(Tensor, &Layer)]) -> Table {
    let address = |x: Option<&Tensor>| x.map_or(0, Tensor::address);
    let mut table = Table::default();
    let words = layers.iter().flat_map(|(w, l)| [w.address(), l.bias.address(), address(l.scale.as_ref())]);
    table.addresses(3 * LAYERS, words);
    table.moves(layers.iter().map(|(w, _)| w.bytes()).sum());
    table
}

/// Shared memory of 16 rows of activations of so many bytes each (`shelf` in kernels/step.cu).
fn shelf_bytes(n: usize, bytes: usize) -> usize {
    16 * (n.next_multiple_of(64) + 32) * bytes
}

/// Shared memory of the sums of a product of so many panels, in as many parts as there are warps for.
fn sums_bytes([panels, spans]: [usize; 2]) -> usize {
    let split = (CREW / panels).min(spans).max(1);
    4 * split * 16 * (16 * panels + 8)
}
