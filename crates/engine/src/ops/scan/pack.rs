//! Weights as the kernels of the scan multiply with them: tiles of 16 columns by 32 rows, in the order of a warp's
//! threads, rounded to bfloat16 where activations are. Kept with the weights until these change.

use super::{PANEL, SPAN, Scan, Sizes, bytes, panels, spans, stays};
use crate::cuda::{Gpu, Grid, Table, weight_rows};
use crate::tensor::{PackKey, Tensor};

/// A part of a weight, from number `start` on: for each of `outer` times `inner` blocks a matrix [depth, columns]. Each
/// axis has a size and the distance from one to the next in the weight.
struct Part {
    start: usize,
    outer: [usize; 2],
    inner: [usize; 2],
    depth: [usize; 2],
    columns: [usize; 2],
}

/// Where it goes: panels for each outer block, the first of them, and from one to the next; the first span.
struct Place {
    outer: usize,
    first: usize,
    step: usize,
    span: usize,
}

const ONE: [usize; 2] = [1, 0];
/// Threads of a block.
const THREADS: usize = 256;

impl Part {
    /// A whole matrix.
    fn matrix(depth: [usize; 2], columns: [usize; 2]) -> Part {
        Part { start: 0, outer: ONE, inner: ONE, depth, columns }
    }

    fn tiles(&self) -> usize {
        self.outer[0] * self.inner[0] * panels(self.columns[0]) * spans(self.depth[0])
    }
}

/// The only part, `panels` of each outer block side by side.
fn whole(panels: usize) -> Place {
    Place { outer: panels, first: 0, step: 1, span: 0 }
}

/// Packs weights, all of them in one launch.
pub(in crate::ops) struct Packer {
    gpu: &'static Gpu,
    parts: Vec<(u64, Part, Place, usize, Tensor)>,
}

/// Parts that one launch packs (`PARTS` in kernels/scan.cu).
const PARTS: usize = 48;

impl Packer {
    pub fn new(gpu: &'static Gpu) -> Packer {
        Packer { gpu, parts: Vec::new() }
    }

    /// The copy of `w` called `name`, of [panels, spans] tiles: what its layout depends on besides the weight's own
    /// shape is `size`. It is there after `run`.
    fn packed(
        &mut self,
        w: &Tensor,
        (name, size): (&'static str, usize),
        [panels, spans]: [usize; 2],
        parts: impl IntoIterator<Item = (Part, Place)>,
    ) -> Tensor {
        w.packed_gpu(PackKey::Scan(name, size), || {
            let out = self.gpu.empty_act(&[panels * spans, SPAN * PANEL]);
            let part =
                |(part, place): (Part, Place)| (w.address() + 4 * part.start as u64, part, place, spans, out.clone());
            self.parts.extend(parts.into_iter().map(part));
            out
        })
    }

    /// Packs what was asked for and is not there yet.
    pub fn run(self) {
        self.gpu.packing(|| self.launch());
    }

    fn launch(&self) {
        for parts in self.parts.chunks(PARTS) {
            let mut table = Table::default();
            table.addresses(PARTS, parts.iter().map(|part| part.0));
            table.addresses(PARTS, parts.iter().map(|part| part.4.address()));
            let mut numbers = |f: &dyn Fn(&Part, &Place, usize) -> usize| {
                table.numbers(PARTS, parts.iter().map(|(_, part, place, spans, _)| f(part, place, *spans)));
            };
            let axes: [fn(&Part) -> [usize; 2]; 4] = [|p| p.outer, |p| p.inner, |p| p.depth, |p| p.columns];
            for axis in axes {
                numbers(&|part, _, _| axis(part)[0]);
                numbers(&|part, _, _| axis(part)[1]);
            }
            numbers(&|_, place, _| place.outer);
            numbers(&|_, place, _| place.first);
            numbers(&|_, place, _| place.step);
            numbers(&|_, _, spans| spans);
            numbers(&|_, place, _| place.span);
            let packed = |part: &Part| part.tiles() * SPAN * PANEL * (4 + self.gpu.activations().bytes());
            table.moves(parts.iter().map(|part| packed(&part.1)).sum());
            let blocks = |part: &Part| (part.tiles() * SPAN * PANEL / 8).div_ceil(THREADS);
            let end = table.ends(PARTS, parts.iter().map(|part| blocks(&part.1)));
            self.gpu.launch("scan", "pack", Grid::blocks(end, THREADS as u32), &[&table, &parts.len()]);
        }
    }

    /// The first `depth` rows of a weight [.., columns].
    pub fn dense(&mut self, w: &Tensor, depth: usize) -> Tensor {
        let n = w.width();
        self.packed(w, ("rows", depth), [panels(n), spans(depth)], [(Part::matrix([depth, n], [n, 1]), whole(0))])
    }

    /// Of each block's part of the core's first layer, the rows of its own deter and of `h` numbers that all blocks
    /// see.
    pub fn inputs(&mut self, w: &Tensor, h: usize) -> Tensor {
        let (blocks, own) = (w.dim(0), w.dim(2));
        let (each, size) = (panels(own), w.dim(1) * own);
        let rows = |start: usize, depth: usize| Part {
            start: start * own,
            outer: [blocks, size],
            inner: ONE,
            depth: [depth, own],
            columns: [own, 1],
        };
        let below = Place { span: spans(own), ..whole(each) };
        let tiles = [blocks * each, spans(own) + spans(h)];
        self.packed(w, ("inputs", h), tiles, [(rows(0, own), whole(each)), (rows(own, h), below)])
    }

    /// The three gates of each block side by side [blocks, own, panel, 3].
    pub fn gates(&mut self, w: &Tensor) -> Tensor {
        let (blocks, own, each) = (w.dim(0), w.dim(1), panels(w.dim(1)));
        let part = Part {
            start: 0,
            outer: [blocks, own * 3 * own],
            inner: [3, own],
            depth: [own, 3 * own],
            columns: [own, 1],
        };
        let side_by_side = Place { outer: 3 * each, first: 0, step: 3, span: 0 };
        self.packed(w, ("gates", 0), [blocks * 3 * each, spans(own)], [(part, side_by_side)])
    }
}

/// What the forward pass multiplies with.
pub(super) struct Forward {
    /// The posterior's first layer [D, H]; none where that leaves deter out.
    pub posterior: Option<Tensor>,
    /// The embedding of deter [D, H].
    pub deter: Tensor,
    /// [blocks, own + 2 H, own]
    pub hidden: Tensor,
    pub gates: Tensor,
    /// [H, Z], a few groups after the other.
    pub logits: Tensor,
    /// The embedding of stoch row by row [Z, H]: rows of it are added up.
    pub stoch: Tensor,
}

impl Forward {
    pub fn new(gpu: &'static Gpu, scan: &Scan, s: &Sizes) -> Forward {
        let &Sizes { d, h, z, .. } = s;
        let [deter, stoch] = &scan.core.embeddings;
        let (chunks, width) = s.chunks();
        let part = Part { outer: [chunks, width], ..Part::matrix([h, z], [width, 1]) };
        let tiles = [chunks * panels(width), spans(h)];
        let mut packer = Packer::new(gpu);
        let packed = Forward {
            posterior: (!scan.absolute).then(|| packer.dense(&scan.posterior.weight, d)),
            deter: packer.dense(&deter.weight, d),
            hidden: packer.inputs(&scan.core.hidden.weight, 2 * h),
            gates: packer.gates(&scan.core.gates.weight),
            logits: packer.packed(&scan.logits.weight, ("groups", width), tiles, [(part, whole(panels(width)))]),
            stoch: weight_rows(gpu, &stoch.weight).0,
        };
        packer.run();
        packed
    }

    /// Whether the second cache is to keep the weights of the kernels project, hidden, gates, latent for the next step, if
    /// there is one. In the last step they give way: nobody else wants them there.
    pub fn stay(&self, more: bool) -> [u32; 4] {
        let project = bytes(&self.deter) + self.posterior.as_ref().map_or(0, bytes);
        stays([project, bytes(&self.hidden), bytes(&self.gates), bytes(&self.logits)], more)
    }

    /// Bytes of weights that a step reads; of the embedding of stoch it reads a few rows.
    pub fn step_bytes(&self) -> usize {
        let all = [&self.deter, &self.hidden, &self.gates, &self.logits];
        all.into_iter().chain(&self.posterior).map(bytes).sum()
    }
}

/// What the backward pass multiplies with: the same transposed.
pub(super) struct Backward {
    /// [H, D]
    pub posterior: Option<Tensor>,
    pub deter: Tensor,
    /// The block's own deter, then both embeddings [blocks, own, own + 2 H].
    pub hidden: Tensor,
    /// [blocks, 3 own, own]
    pub gates: Tensor,
    /// [Z, H]
    pub logits: Tensor,
    /// [H, Z], a few groups after the other.
    pub stoch: Tensor,
}

impl Backward {
    pub fn new(gpu: &'static Gpu, scan: &Scan, s: &Sizes) -> Backward {
        let &Sizes { d, blocks, own, h, z, .. } = s;
        let [deter, stoch] = &scan.core.embeddings;
        let mut packer = Packer::new(gpu);
        let mut dense = |w: &Tensor| {
            let part = Part::matrix([h, 1], [d, h]);
            packer.packed(w, ("rows transposed", d), [panels(d), spans(h)], [(part, whole(0))])
        };
        let of_posterior = (!scan.absolute).then(|| dense(&scan.posterior.weight));
        let of_deter = dense(&deter.weight);

        let (each, size) = (panels(own), scan.core.hidden.weight.dim(1) * own);
        let all = each + panels(2 * h);
        let rows = |start: usize, count: usize| Part {
            start: start * own,
            outer: [blocks, size],
            inner: ONE,
            depth: [own, 1],
            columns: [count, own],
        };
        let beside = Place { first: each, ..whole(all) };
        let parts = [(rows(0, own), whole(all)), (rows(own, 2 * h), beside)];
        let hidden =
            packer.packed(&scan.core.hidden.weight, ("inputs transposed", h), [blocks * all, spans(own)], parts);

        let part = Part { outer: [blocks, own * 3 * own], ..Part::matrix([3 * own, 1], [own, 3 * own]) };
        let tiles = [blocks * each, spans(3 * own)];
        let gates = packer.packed(&scan.core.gates.weight, ("gates transposed", 0), tiles, [(part, whole(each))]);

        let part = Part::matrix([z, 1], [h, z]);
        let tiles = [panels(h), spans(z)];
        let logits = packer.packed(&scan.logits.weight, ("rows transposed", z), tiles, [(part, whole(0))]);

        let (chunks, width) = s.chunks();
        let part = Part { outer: [chunks, width * h], ..Part::matrix([h, 1], [width, h]) };
        let tiles = [chunks * panels(width), spans(h)];
        let groups = packer.packed(&stoch.weight, ("groups transposed", width), tiles, [(part, whole(panels(width)))]);
        packer.run();
        Backward { posterior: of_posterior, deter: of_deter, hidden, gates, logits, stoch: groups }
    }

    /// Whether the second cache is to keep the weights of the kernels latent_grad, posterior_grad, gates_grad,
    /// hidden_grad, inputs_grad for the step before, if there is one.
    pub fn stay(&self, more: bool) -> [u32; 5] {
        let deter = bytes(&self.deter) + self.posterior.as_ref().map_or(0, bytes);
        stays([bytes(&self.stoch), bytes(&self.logits), deter, bytes(&self.gates), bytes(&self.hidden)], more)
    }

    /// Bytes of weights that a step reads.
    pub fn step_bytes(&self) -> usize {
        let all = [&self.deter, &self.hidden, &self.gates, &self.logits, &self.stoch];
        all.into_iter().chain(&self.posterior).map(bytes).sum()
    }
}

impl Sizes {
    /// The groups of stoch are shared out in chunks: how many, and the columns of each.
    pub(super) fn chunks(&self) -> (usize, usize) {
        (self.groups / self.per, self.per * self.classes)
    }
}
