//! The posterior of a recurrent state-space model over whole sequences, on a GPU (official rssm.py, `observe`): a few
//! kernels a step instead of an operation for each layer, or one kernel for all steps, and weight gradients in one product
//! each after the last step.

mod backward;
mod forward;
pub(super) mod pack;
#[cfg(test)]
mod tests;

use super::latent::Draw;
use crate::cuda::{Arg, Gpu, Grid, Meeting, Piece, Precision, Table};
use crate::graph::{record, recording};
use crate::tensor::{Device, Tensor};

/// A linear layer and the scale of the rms norm after it, where there is one. Cloning shares the values.
#[derive(Clone)]
pub struct Layer {
    pub weight: Tensor,
    pub bias: Tensor,
    pub scale: Option<Tensor>,
}

/// The recurrent core: all norms are rms, all activations silu. D is the width of deter, H of the hidden layers, Z of
/// stoch.
#[derive(Clone)]
pub struct Core {
    /// Embeddings of deter [D, H] and stoch [Z, H].
    pub embeddings: [Layer; 2],
    /// Each block's part of the first layer [blocks, D/blocks + 3 H, D/blocks]: of its own deter, of the embeddings of
    /// deter and stoch, and of that of actions.
    pub hidden: Layer,
    /// [blocks, D/blocks, 3 D/blocks]
    pub gates: Layer,
    /// Of all norms.
    pub eps: f32,
}

/// The core with the posterior.
#[derive(Clone)]
pub struct Scan {
    pub core: Core,
    /// The first rows, D of them, are of deter. Other rows, and the bias, are in `tokens` already.
    pub posterior: Layer,
    /// [H, Z]
    pub logits: Layer,
    pub classes: usize,
    pub unimix: f32,
    /// Whether the posterior leaves deter out.
    pub absolute: bool,
}

/// What the model is given: the state before, deter [B, D] and stoch [B, Z]; for each step, what the posterior's first
/// layer makes of tokens [B, T, H], what the core's makes of actions [B, T, D], and zero in keep [B, T] where an
/// episode starts; and draws, uniform [B, T, groups] or Gumbel noise [B, T, Z], or where to draw them from: for B T
/// rows of which each sequence has T.
pub struct ScanInputs<'a> {
    pub deter: &'a Tensor,
    pub stoch: &'a Tensor,
    pub tokens: &'a Tensor,
    pub actions: &'a Tensor,
    pub keep: &'a Tensor,
    pub draw: Draw<'a>,
}

/// Classes that the kernels have room for.
const MOST_CLASSES: usize = 128;
/// Width of hidden layers that the kernels have room for.
const MOST_HIDDEN: usize = 8192;

impl Scan {
    /// Whether `run` can compute this model on `device`: a GPU that has room for it. In bfloat16 rows are read eight
    /// numbers at a time.
    pub fn fits(&self, device: Device) -> bool {
        let Device::Gpu(gpu) = device else { return false };
        let s = Sizes::new(self, 0, 0);
        let mut scales = self.parameters().filter(|x| x.shape().len() == 1);
        let aligned = [s.own, s.h, s.z].iter().all(|n| n.is_multiple_of(8))
            && scales.all(|x| x.device() != device || x.address().is_multiple_of(16));
        let whole = gpu.precision() == Precision::Float32 || aligned;
        whole && s.classes <= MOST_CLASSES && s.h <= MOST_HIDDEN
    }

    /// deter [B, T, D], stoch [B, T, Z] and logits [B, T, Z] of the posterior at each step.
    pub fn run(&self, x: &ScanInputs) -> [Tensor; 3] {
        let Device::Gpu(gpu) = x.tokens.device() else { panic!("the fused scan runs on a GPU") };
        self.run_by(gpu.meeting(), x)
    }

    /// The same with blocks of threads that meet in this way between kernels, or a launch for each kernel.
    fn run_by(&self, meeting: Meeting, x: &ScanInputs) -> [Tensor; 3] {
        let Device::Gpu(gpu) = x.tokens.device() else { panic!("the fused scan runs on a GPU") };
        let mut sizes = Sizes::new(self, x.tokens.dim(0), x.tokens.dim(1));
        sizes.together = Together::new(gpu, &sizes, meeting);
        let kept = forward::run(gpu, self, &sizes, x);
        let outputs = vec![kept.deter.clone(), kept.stoch.clone(), kept.logit.clone()];
        let mut inputs = vec![x.deter, x.stoch, x.tokens, x.actions];
        inputs.extend(self.parameters());
        let outputs = match recording(&inputs) {
            false => outputs,
            true => {
                let (model, count) = (self.clone(), inputs.len());
                record(&inputs, outputs, move |grads, sink| {
                    let mut found = backward::run(gpu, &model, &sizes, &kept, grads, sink).map(Some).to_vec();
                    found.resize(count, None); // those of parameters are in the sink
                    found
                })
            }
        };
        outputs.try_into().expect("three outputs")
    }

    fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.core.layers().into_iter().chain([&self.posterior, &self.logits]).flat_map(Layer::parameters)
    }
}

impl Core {
    pub(super) fn layers(&self) -> [&Layer; 4] {
        let [deter, stoch] = &self.embeddings;
        [deter, stoch, &self.hidden, &self.gates]
    }
}

impl Layer {
    pub(super) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        [&self.weight, &self.bias].into_iter().chain(&self.scale)
    }

    pub(super) fn scale(&self) -> &Tensor {
        self.scale.as_ref().expect("this layer has a norm")
    }
}

/// Sizes as in kernels/scan.cu.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    steps: usize,
    d: usize,
    blocks: usize,
    own: usize,
    h: usize,
    z: usize,
    groups: usize,
    classes: usize,
    /// Groups that one block of threads takes: as many as there are columns for.
    per: usize,
    /// One launch for all steps, where it is wanted and possible.
    together: Option<Together>,
}

impl Sizes {
    fn new(scan: &Scan, rows: usize, steps: usize) -> Sizes {
        let (blocks, own) = (scan.core.hidden.weight.dim(0), scan.core.hidden.weight.dim(2));
        let (h, z, classes) = (scan.logits.weight.dim(0), scan.logits.weight.dim(1), scan.classes);
        let groups = z / classes;
        let most = (PANEL / classes).max(1);
        let per = (1..=most).rev().find(|per| groups % per == 0).unwrap_or(1);
        Sizes { rows, steps, d: blocks * own, blocks, own, h, z, groups, classes, per, together: None }
    }

    /// Tiles of 16 rows.
    fn tiles(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Parts of a row's sum over the core's columns, one from each block of threads.
    fn slots(&self) -> usize {
        match self.together {
            Some(together) => self.blocks * panels(self.own).div_ceil(PANELS[together.many as usize][0]),
            None => self.blocks_of(panels(self.own), 2).0,
        }
    }

    /// Operations of all steps' products, forward or with respect to inputs, and how many are with stoch.
    fn flops(&self, scan: &Scan) -> [usize; 2] {
        let &Sizes { rows, steps, d, own, h, z, .. } = self;
        let of_deter = if scan.absolute { d * h } else { 2 * d * h };
        [of_deter + d * (4 * own + 2 * h) + h * z, z * h].map(|weights| 2 * rows * steps * weights)
    }

    /// Room for an activation of all steps.
    fn act(&self, gpu: &'static Gpu, width: usize) -> Tensor {
        gpu.empty_act(&[self.rows, self.steps, width])
    }

    /// Room for a number of each step.
    fn numbers(&self, gpu: &'static Gpu) -> Tensor {
        gpu.empty(&[self.rows, self.steps, 1])
    }
}

/// Rows of the batch that a block of threads takes, and columns and rows of a tile of a weight, as in kernels/scan.cuh.
const ROWS: usize = 16;
const PANEL: usize = 16;
const SPAN: usize = 32;
/// Panels from which on a block of threads takes several: fewer blocks read less of what all of them need.
const MANY_PANELS: usize = 192;

pub(super) fn panels(columns: usize) -> usize {
    columns.div_ceil(PANEL)
}

pub(super) fn spans(depth: usize) -> usize {
    depth.div_ceil(SPAN)
}

/// Bytes of weights that a GPU's second cache is expected to keep from step to step, beside everything else.
const KEPT: usize = 42 << 20;

/// Which of a step's weights, by their sizes in bytes, are to stay in the second cache where `more` steps follow: the
/// smallest ones that fit there together. To pass all of them through it in turn would leave none there.
fn stays<const N: usize>(sizes: [usize; N], more: bool) -> [u32; N] {
    sizes.map(|size| (more && sizes.iter().filter(|&&other| other <= size).sum::<usize>() <= KEPT) as u32)
}

fn bytes(x: &Tensor) -> usize {
    x.len() * x.dtype().bytes()
}

/// Step `t` of x [rows, steps, ..].
fn at(x: &Tensor, t: usize) -> Piece {
    let (width, each) = (x.width(), x.dtype().bytes());
    Piece { address: x.address() + (t * width * each) as u64, bytes: x.dim(0) * width * each }
}

/// Starts kernels of the chain, each of which begins while the one before it ends.
struct Chain {
    gpu: &'static Gpu,
    module: &'static str,
    rows: usize,
}

impl Chain {
    /// `columns` blocks of threads for each 16 rows, with products of `n` panels each and `more` numbers in shared
    /// memory.
    fn launch(&self, name: &'static str, columns: usize, [n, more]: [usize; 2], args: &[&dyn Arg]) {
        let shared = 4 * (WARPS * ROWS * (n * PANEL + 8) + more);
        self.start(name, [columns, self.rows.div_ceil(ROWS), 1], shared, args);
    }

    fn start(&self, name: &'static str, blocks: [usize; 3], shared: usize, args: &[&dyn Arg]) {
        let grid = Grid { shared: shared as u32, ..Grid::of(blocks, THREADS) };
        self.gpu.launch(self.module, name, grid, args);
    }

    /// All steps of the chain at once.
    fn together(&self, name: &'static str, together: &Together, args: &Table) {
        let Together { meeting, blocks, .. } = *together;
        let grid = Grid { shared: TOGETHER, meeting, ..Grid::blocks(blocks, THREADS) };
        self.gpu.launch(self.module, name, grid, &[args]);
    }
}

/// Bytes of shared memory of a launch for all steps: as much as any of its kernels takes.
const TOGETHER: u32 = (4 * WARPS * ROWS * (6 * PANEL + 8)) as u32;

/// One launch for all steps, whose blocks of threads meet between the kernels of the chain (kernels/meeting.cuh).
#[derive(Clone, Copy, Debug)]
struct Together {
    meeting: Meeting,
    /// As many as the kernel with the most.
    blocks: usize,
    /// Whether a block takes the larger number of panels.
    many: bool,
}

/// Panels of the core's layers and of the gradients of its inputs that a block takes, few or many, as the kernels do.
const PANELS: [[usize; 2]; 2] = [[1, 4], [2, 6]];

impl Together {
    /// None where the chain is one of launches: where that is wanted, where there is next to no chain, and where not all
    /// blocks of threads could run at the same time.
    fn new(gpu: &Gpu, s: &Sizes, meeting: Meeting) -> Option<Together> {
        let properties = gpu.properties();
        let most = match meeting {
            Meeting::Cluster => properties.most_in_cluster(),
            _ => properties.multiprocessors as usize,
        };
        let found = [false, true].into_iter().find_map(|many| {
            let [core, inputs] = PANELS[many as usize];
            let core = s.blocks * panels(s.own).div_ceil(core) * s.tiles();
            let inputs = s.blocks * (panels(s.own) + panels(2 * s.h)).div_ceil(inputs) * s.tiles();
            let others = [s.rows, 2 * panels(s.h) * s.tiles(), s.chunks().0 * s.tiles()];
            let blocks = others.into_iter().fold(core.max(inputs), usize::max);
            // Larger clusters of other sizes than powers of two are not known to exist; spare blocks only meet the others.
            let blocks = if meeting == Meeting::Cluster { blocks.next_power_of_two() } else { blocks };
            (blocks <= most).then_some(Together { meeting, blocks, many })
        });
        match meeting {
            Meeting::Never => None,
            _ if s.steps < FEW_STEPS => None,
            Meeting::Cluster => found.or_else(|| Together::new(gpu, s, Meeting::Grid)),
            Meeting::Grid => found,
        }
    }

    /// The counter of a meeting that needs one.
    fn counter(&self, gpu: &'static Gpu) -> Option<Tensor> {
        (self.meeting == Meeting::Grid).then(|| gpu.zeros(&[1]))
    }
}

/// Steps below which launches do.
const FEW_STEPS: usize = 4;

const WARPS: usize = 8;
const THREADS: u32 = 256;
