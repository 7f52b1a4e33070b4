//! Weights as the kernels of the scan multiply with them: tiles of 16 columns by 32 rows, in the order of a warp's threads,
//! rounded to bfloat16 where activations are. Kept with the weights until these change.

use super::{PANEL, SPAN, Scan, Sizes, panels, spans};
use crate::cuda::{Arg, Gpu, Grid, weight_rows};
use crate::tensor::{PackKey, Tensor};

/// A part of a weight, from number `start` on: for each of `outer` times `inner` blocks a matrix [depth, columns]. Each axis
/// has a size and the distance from one to the next in the weight.
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

/// The packed copy of `w` called `name`, of [panels, spans] tiles: what its layout depends on besides the weight's own shape
/// is `size`.
fn packed(
    gpu: &'static Gpu,
    w: &Tensor,
    (name, size): (&'static str, usize),
    [panels, spans]: [usize; 2],
    parts: &[(Part, Place)],
) -> Tensor {
    w.packed_gpu(PackKey::Scan(name, size), || {
        let out = gpu.empty_act(&[panels * spans, SPAN * PANEL]);
        for (part, place) in parts {
            let address = w.address() + 4 * part.start as u64;
            #[rustfmt::skip] // an axis a line
            let args: [&dyn Arg; 15] = [
                &address,
                &part.outer[0], &part.outer[1],
                &part.inner[0], &part.inner[1],
                &part.depth[0], &part.depth[1],
                &part.columns[0], &part.columns[1],
                &place.outer, &place.first, &place.step, &spans, &place.span,
                &out,
            ];
            gpu.launch("scan", "pack", Grid::elements(part.tiles() * SPAN * PANEL / 8), &args);
        }
        out
    })
}

/// The first `depth` rows of a weight [.., columns].
pub(in crate::ops) fn dense(gpu: &'static Gpu, w: &Tensor, depth: usize) -> Tensor {
    let n = w.width();
    packed(gpu, w, ("rows", depth), [panels(n), spans(depth)], &[(Part::matrix([depth, n], [n, 1]), whole(0))])
}

/// Of each block's part of the core's first layer, the rows of its own deter and of `h` numbers that all blocks see.
pub(in crate::ops) fn inputs(gpu: &'static Gpu, w: &Tensor, h: usize) -> Tensor {
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
    packed(gpu, w, ("inputs", h), tiles, &[(rows(0, own), whole(each)), (rows(own, h), below)])
}

/// The three gates of each block side by side [blocks, own, panel, 3].
pub(in crate::ops) fn gates(gpu: &'static Gpu, w: &Tensor) -> Tensor {
    let (blocks, own, each) = (w.dim(0), w.dim(1), panels(w.dim(1)));
    let part =
        Part { start: 0, outer: [blocks, own * 3 * own], inner: [3, own], depth: [own, 3 * own], columns: [own, 1] };
    let side_by_side = Place { outer: 3 * each, first: 0, step: 3, span: 0 };
    packed(gpu, w, ("gates", 0), [blocks * 3 * each, spans(own)], &[(part, side_by_side)])
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
        Forward {
            posterior: (!scan.absolute).then(|| dense(gpu, &scan.posterior.weight, d)),
            deter: dense(gpu, &deter.weight, d),
            hidden: inputs(gpu, &scan.core.hidden.weight, 2 * h),
            gates: gates(gpu, &scan.core.gates.weight),
            logits: packed(gpu, &scan.logits.weight, ("groups", width), tiles, &[(part, whole(panels(width)))]),
            stoch: weight_rows(gpu, &stoch.weight).0,
        }
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
        let dense = |w: &Tensor| {
            let part = Part::matrix([h, 1], [d, h]);
            packed(gpu, w, ("rows transposed", d), [panels(d), spans(h)], &[(part, whole(0))])
        };

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
            packed(gpu, &scan.core.hidden.weight, ("inputs transposed", h), [blocks * all, spans(own)], &parts);

        let part = Part { outer: [blocks, own * 3 * own], ..Part::matrix([3 * own, 1], [own, 3 * own]) };
        let tiles = [blocks * each, spans(3 * own)];
        let gates = packed(gpu, &scan.core.gates.weight, ("gates transposed", 0), tiles, &[(part, whole(each))]);

        let part = Part::matrix([z, 1], [h, z]);
        let tiles = [panels(h), spans(z)];
        let logits = packed(gpu, &scan.logits.weight, ("rows transposed", z), tiles, &[(part, whole(0))]);

        let (chunks, width) = s.chunks();
        let part = Part { outer: [chunks, width * h], ..Part::matrix([h, 1], [width, h]) };
        let tiles = [chunks * panels(width), spans(h)];
        let groups = packed(gpu, &stoch.weight, ("groups transposed", width), tiles, &[(part, whole(panels(width)))]);
        Backward {
            posterior: (!scan.absolute).then(|| dense(&scan.posterior.weight)),
            deter: dense(&deter.weight),
            hidden,
            gates,
            logits,
            stoch: groups,
        }
    }
}

impl Sizes {
    /// The groups of stoch are shared out in chunks: how many, and the columns of each.
    pub(super) fn chunks(&self) -> (usize, usize) {
        (self.groups / self.per, self.per * self.classes)
    }
}
