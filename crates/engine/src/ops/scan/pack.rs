//! Weights as the kernels of the scan multiply with them: tiles of 16 columns by 32 rows, in the order of a warp's threads,
//! rounded to bfloat16 where activations are. Packed anew at each use: weights change with every update.

use super::{PANEL, SPAN, Scan, Sizes, panels, spans};
use crate::cuda::{Arg, Gpu, Grid};
use crate::tensor::Tensor;

/// A packed weight, zero where nothing was put.
struct Packed {
    tiles: Tensor,
    spans: usize,
}

/// A part of a weight: for each of `outer` times `inner` blocks a matrix [depth, columns]. Each axis has a size and the
/// distance from one to the next in the weight.
struct Part {
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

impl Packed {
    fn new(gpu: &'static Gpu, panels: usize, spans: usize) -> Packed {
        Packed { tiles: gpu.empty_act(&[panels * spans, SPAN * PANEL]), spans }
    }

    fn put(self, gpu: &'static Gpu, w: &Tensor, start: usize, part: Part, place: Place) -> Packed {
        let address = w.address() + 4 * start as u64;
        let tiles = part.outer[0] * part.inner[0] * panels(part.columns[0]) * spans(part.depth[0]);
        #[rustfmt::skip] // an axis a line
        let args: [&dyn Arg; 15] = [
            &address,
            &part.outer[0], &part.outer[1],
            &part.inner[0], &part.inner[1],
            &part.depth[0], &part.depth[1],
            &part.columns[0], &part.columns[1],
            &place.outer, &place.first, &place.step, &self.spans, &place.span,
            &self.tiles,
        ];
        gpu.launch("scan", "pack", Grid::elements(tiles * SPAN * PANEL / 8), &args);
        self
    }
}

/// What the forward pass multiplies with.
pub(super) struct Forward {
    /// The posterior's first layer [D, H], then the embedding of deter [D, H].
    pub project: Tensor,
    /// [blocks, own + 2 H, own]
    pub hidden: Tensor,
    /// The three gates side by side [blocks, own, panel, 3]
    pub gates: Tensor,
    /// [H, Z], a few groups after the other.
    pub logits: Tensor,
    /// The embedding of stoch as it is [Z, H]: rows of it are added up.
    pub stoch: Tensor,
}

impl Forward {
    pub fn new(gpu: &'static Gpu, scan: &Scan, s: &Sizes) -> Forward {
        let &Sizes { d, blocks, own, h, .. } = s;
        let [deter, stoch] = &scan.embeddings;
        let one = [1, 0];
        let columns = |first: usize| Place { outer: 0, first, step: 1, span: 0 };
        let dense = || Part { outer: one, inner: one, depth: [d, h], columns: [h, 1] };
        let mut project = Packed::new(gpu, 2 * panels(h), spans(d));
        if !scan.absolute {
            project = project.put(gpu, &scan.posterior.weight, 0, dense(), columns(0));
        }
        let project = project.put(gpu, &deter.weight, 0, dense(), columns(panels(h)));

        let each = panels(own); // of a block
        let size = scan.hidden.weight.dim(1) * own;
        let rows = |depth: usize| Part { outer: [blocks, size], inner: one, depth: [depth, own], columns: [own, 1] };
        let from = |span: usize| Place { outer: each, first: 0, step: 1, span };
        let hidden = Packed::new(gpu, blocks * each, spans(own) + spans(2 * h))
            .put(gpu, &scan.hidden.weight, 0, rows(own), from(0))
            .put(gpu, &scan.hidden.weight, own * own, rows(2 * h), from(spans(own)));

        let gates = Part { outer: [blocks, own * 3 * own], inner: [3, own], depth: [own, 3 * own], columns: [own, 1] };
        let side_by_side = Place { outer: 3 * each, first: 0, step: 3, span: 0 };
        let gates =
            Packed::new(gpu, blocks * 3 * each, spans(own)).put(gpu, &scan.gates.weight, 0, gates, side_by_side);

        let (chunks, width) = s.chunks();
        let logits = Part { outer: [chunks, width], inner: one, depth: [h, s.z], columns: [width, 1] };
        let in_chunks = Place { outer: panels(width), first: 0, step: 1, span: 0 };
        let logits =
            Packed::new(gpu, chunks * panels(width), spans(h)).put(gpu, &scan.logits.weight, 0, logits, in_chunks);
        Forward {
            project: project.tiles,
            hidden: hidden.tiles,
            gates: gates.tiles,
            logits: logits.tiles,
            stoch: gpu.act(&stoch.weight),
        }
    }
}

/// What the backward pass multiplies with: the same transposed.
pub(super) struct Backward {
    /// [H, Z], a few groups after the other.
    pub stoch: Tensor,
    /// [Z, H]
    pub logits: Tensor,
    /// The posterior's first layer, then below it the embedding of deter: [H + H, D].
    pub deter: Tensor,
    /// [blocks, 3 own, own]
    pub gates: Tensor,
    /// The block's own deter, then both embeddings [blocks, own, own + 2 H].
    pub hidden: Tensor,
}

impl Backward {
    pub fn new(gpu: &'static Gpu, scan: &Scan, s: &Sizes) -> Backward {
        let &Sizes { d, blocks, own, h, z, .. } = s;
        let [deter, stoch] = &scan.embeddings;
        let one = [1, 0];
        let place = |outer: usize, first: usize, span: usize| Place { outer, first, step: 1, span };

        let (chunks, width) = s.chunks();
        let of_stoch = Part { outer: [chunks, width * h], inner: one, depth: [h, 1], columns: [width, h] };
        let of_stoch = Packed::new(gpu, chunks * panels(width), spans(h)).put(
            gpu,
            &stoch.weight,
            0,
            of_stoch,
            place(panels(width), 0, 0),
        );

        let logits = Part { outer: one, inner: one, depth: [z, 1], columns: [h, z] };
        let logits = Packed::new(gpu, panels(h), spans(z)).put(gpu, &scan.logits.weight, 0, logits, place(0, 0, 0));

        let dense = || Part { outer: one, inner: one, depth: [h, 1], columns: [d, h] };
        let mut of_deter = Packed::new(gpu, panels(d), 2 * spans(h));
        if !scan.absolute {
            of_deter = of_deter.put(gpu, &scan.posterior.weight, 0, dense(), place(0, 0, 0));
        }
        let of_deter = of_deter.put(gpu, &deter.weight, 0, dense(), place(0, 0, spans(h)));

        let each = panels(own);
        let gates = Part { outer: [blocks, own * 3 * own], inner: one, depth: [3 * own, 1], columns: [own, 3 * own] };
        let gates =
            Packed::new(gpu, blocks * each, spans(3 * own)).put(gpu, &scan.gates.weight, 0, gates, place(each, 0, 0));

        let (size, all) = (scan.hidden.weight.dim(1) * own, each + panels(2 * h));
        let rows = |count: usize| Part { outer: [blocks, size], inner: one, depth: [own, 1], columns: [count, own] };
        let hidden = Packed::new(gpu, blocks * all, spans(own))
            .put(gpu, &scan.hidden.weight, 0, rows(own), place(all, 0, 0))
            .put(gpu, &scan.hidden.weight, own * own, rows(2 * h), place(all, each, 0));
        Backward {
            stoch: of_stoch.tiles,
            logits: logits.tiles,
            deter: of_deter.tiles,
            gates: gates.tiles,
            hidden: hidden.tiles,
        }
    }
}

impl Sizes {
    /// The groups of stoch are shared out in chunks: how many, and the columns of each.
    pub(super) fn chunks(&self) -> (usize, usize) {
        (self.groups / self.per, self.per * self.classes)
    }
}
