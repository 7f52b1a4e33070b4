//! The scan forward: five launches a step, or one for all (kernels/scan.cu).

use super::pack::Forward;
use super::{Chain, MANY_PANELS, ROWS, Scan, ScanInputs, Sizes, Together, at, panels};
use crate::cuda::{Arg, Gpu, Grid, Piece, Table};
use crate::ops::affine::{Term, affine};
use crate::ops::latent::Draw;
use crate::ops::noise::DrawArgs;
use crate::profile;
use crate::tensor::Tensor;

/// What the backward pass needs of the forward pass, all [B, T, ..]; the outputs among it.
pub(super) struct Kept {
    pub keep: Tensor,
    /// deter [D] and stoch [Z] before each step, forgotten where an episode starts.
    pub prev: Tensor,
    pub prev_stoch: Tensor,
    /// Embeddings before their norms [H] each, and after them [2 H].
    pub embedded: [Tensor; 2],
    pub inputs: Tensor,
    /// The first layer of all blocks before its norm [D], and what the rows are multiplied by in that.
    pub hidden: Tensor,
    pub hidden_inverse: Tensor,
    pub gates: Tensor,
    /// The posterior's first layer before its norm [H], likewise.
    pub posterior: Tensor,
    pub posterior_inverse: Tensor,
    pub deter: Tensor,
    pub stoch: Tensor,
    pub logit: Tensor,
}

impl Kept {
    fn new(gpu: &'static Gpu, s: &Sizes, keep: &Tensor) -> Kept {
        let [d, h, z] = [s.d, s.h, s.z];
        Kept {
            keep: keep.view(0, &[s.rows, s.steps, 1]),
            prev: s.act(gpu, d),
            prev_stoch: s.act(gpu, z),
            embedded: [s.act(gpu, h), s.act(gpu, h)],
            inputs: s.act(gpu, 2 * h),
            hidden: s.act(gpu, d),
            hidden_inverse: s.numbers(gpu),
            gates: s.act(gpu, 3 * d),
            posterior: s.act(gpu, h),
            posterior_inverse: s.numbers(gpu),
            deter: s.act(gpu, d),
            stoch: s.act(gpu, z),
            logit: s.act(gpu, z),
        }
    }
}

pub(super) fn run(gpu: &'static Gpu, scan: &Scan, s: &Sizes, x: &ScanInputs) -> Kept {
    let kept = Kept::new(gpu, s, x.keep);
    if s.rows * s.steps == 0 {
        return kept;
    }
    let [flops, of_stoch] = s.flops(scan);
    profile::count(flops, flops + of_stoch); // rows of the embedding of stoch are added up instead
    let pass = Pass::new(gpu, scan, s, &kept, x);
    if let Some(together) = &s.together {
        pass.together(together);
        return kept;
    }
    pass.project(None, Some(0));
    for t in 0..s.steps {
        pass.inputs(t);
        pass.hidden(t);
        pass.gates(t);
        pass.project(Some(t), Some(t + 1));
        pass.latent(t);
    }
    kept
}

/// What all launches of the forward pass take.
struct Pass<'a> {
    chain: Chain,
    scan: &'a Scan,
    s: &'a Sizes,
    kept: &'a Kept,
    w: Forward,
    tokens: Tensor,
    actions: Tensor,
    /// The embedding of the first stoch, which may be anything, without its bias; later ones choose rows of the weight.
    dense: Tensor,
    /// Indices of 32 bits [B, groups].
    chosen: Tensor,
    /// Sums of squares that norms are made of, by blocks of threads and rows.
    hidden_squares: Tensor,
    posterior_squares: Tensor,
    /// Given noise of all steps, its kind, and how to draw it otherwise.
    noise: (Option<Tensor>, u32, DrawArgs),
}

impl<'a> Pass<'a> {
    fn new(gpu: &'static Gpu, scan: &'a Scan, s: &'a Sizes, kept: &'a Kept, x: &ScanInputs) -> Pass<'a> {
        let &Sizes { rows, steps, d, z, .. } = s;
        let w = Forward::new(gpu, scan, s);
        let first_stoch = gpu.empty_act(&[rows, z]);
        let (deter, stoch) = (gpu.act(x.deter), gpu.act(x.stoch));
        let args: [&dyn Arg; 10] =
            [&deter, &stoch, &kept.keep, &rows, &steps, &d, &z, &kept.prev, &kept.prev_stoch, &first_stoch];
        gpu.launch("scan", "start", Grid::elements(rows * (d + z)), &args);
        let dense = affine(&[Term::new(&first_stoch, 0)], &scan.core.embeddings[1].weight.detach(), None, None);
        Pass {
            chain: Chain { gpu, module: "scan", rows },
            scan,
            s,
            kept,
            w,
            tokens: gpu.act(x.tokens),
            actions: gpu.act(x.actions),
            dense: gpu.act(&dense),
            chosen: gpu.empty(&[rows, s.groups]),
            hidden_squares: gpu.empty(&[s.slots(), rows]),
            posterior_squares: gpu.empty(&[panels(s.h), rows]),
            noise: match x.draw {
                Draw::Uniform(noise) => (Some(gpu.full(noise)), 0, DrawArgs::none()),
                Draw::Gumbel(noise) => (Some(gpu.full(noise)), 1, DrawArgs::none()),
                Draw::Counter(rng, at) => (None, 2, DrawArgs::new(rng, at)),
            },
        }
    }

    /// All steps in one launch.
    fn together(&self, together: &Together) {
        let (Pass { s, kept, w, scan, .. }, (noise, kind, draws)) = (self, &self.noise);
        let [of_deter, of_stoch] = &scan.core.embeddings;
        let (hidden, gates) = (&scan.core.hidden, &scan.core.gates);
        let count = together.counter(self.chain.gpu);
        let given = draws.args();
        #[rustfmt::skip] // as in `Forward` of kernels/scan.cu: weights, parameters, inputs, results, what is handed on
        let addresses: [&dyn Arg; 37] = [
            &w.posterior, &w.deter, &w.hidden, &w.gates, &w.logits, &w.stoch,
            &of_deter.bias, of_deter.scale(), &of_stoch.bias, of_stoch.scale(), hidden.scale(), &gates.bias,
            scan.posterior.scale(), &scan.logits.bias,
            &self.tokens, &self.actions, &self.dense, &kept.keep, noise, given[4],
            &kept.prev, &kept.prev_stoch, &kept.embedded[0], &kept.embedded[1], &kept.inputs, &kept.hidden, &kept.gates,
            &kept.posterior, &kept.deter, &kept.stoch, &kept.logit,
            &kept.hidden_inverse, &kept.posterior_inverse, &self.hidden_squares, &self.posterior_squares,
            &self.chosen, &count,
        ];
        let [project, of_hidden, of_gates, latent] = w.stay(true);
        #[rustfmt::skip]
        let numbers: [&dyn Arg; 20] = [
            &s.rows, &s.steps, &s.d, &s.own, &s.h, &s.groups, &s.classes, &s.per,
            kind, given[0], given[1], given[2], given[3], given[5], given[6], given[7],
            &project, &of_hidden, &of_gates, &latent,
        ];
        let mut table = Table::default();
        table.args(&addresses, &numbers, &[scan.unimix, scan.core.eps]);
        table.moves((s.steps - 1) * w.step_bytes()); // weights, which are read again at each step
        self.chain.together(if together.many { "forward_wide" } else { "forward" }, together, &table);
    }

    /// Where the step after `t` begins in x, if there is one.
    fn later(&self, x: &Tensor, t: usize) -> Option<Piece> {
        (t + 1 < self.s.steps).then(|| at(x, t + 1))
    }

    /// The normed embeddings.
    fn inputs(&self, t: usize) {
        let (Pass { s, kept, w, .. }, core) = (self, &self.scan.core);
        let [of_deter, of_stoch] = &core.embeddings;
        let all = Piece::of(&w.stoch);
        let chosen_rows = Piece { bytes: all.bytes.min(s.rows * s.groups * s.h * w.stoch.dtype().bytes()), ..all };
        #[rustfmt::skip] // inputs, sizes, results
        let args: [&dyn Arg; 15] = [
            &at(&kept.embedded[0], t), &chosen_rows, &Some(&self.dense).filter(|_| t == 0), &self.chosen,
            &at(&kept.keep, t), &of_stoch.bias, of_deter.scale(), of_stoch.scale(),
            &s.steps, &s.h, &s.groups, &s.classes, &core.eps,
            &at(&kept.embedded[1], t), &at(&kept.inputs, t),
        ];
        self.chain.start("inputs", [s.rows, 1, 1], s.inputs_shared(), &args);
    }

    /// The core's first layer.
    fn hidden(&self, t: usize) {
        let Pass { s, kept, w, .. } = self;
        let [_, stays, ..] = w.stay(t + 1 < s.steps);
        #[rustfmt::skip]
        let args: [&dyn Arg; 12] = [
            &w.hidden, &stays, &at(&kept.prev, t), &at(&kept.inputs, t), &at(&self.actions, t),
            &s.rows, &s.steps, &s.d, &s.own, &s.h,
            &at(&kept.hidden, t), &self.hidden_squares,
        ];
        let (columns, many) = s.blocks_of(panels(s.own), 2);
        self.chain.launch(if many { "hidden_wide" } else { "hidden" }, columns, [1 + many as usize, 0], &args);
    }

    /// The gates and the next deter.
    fn gates(&self, t: usize) {
        let (Pass { s, kept, w, .. }, core) = (self, &self.scan.core);
        let [_, _, stay, _] = w.stay(t + 1 < s.steps);
        let (columns, many) = s.blocks_of(panels(s.own), 2);
        #[rustfmt::skip]
        let args: [&dyn Arg; 18] = [
            &w.gates, &stay, &at(&kept.hidden, t), &self.hidden_squares, &columns, core.hidden.scale(),
            &core.gates.bias, &at(&kept.prev, t), &self.later(&kept.keep, t),
            &s.rows, &s.steps, &s.d, &s.own, &core.eps,
            &at(&kept.gates, t), &at(&kept.deter, t), &self.later(&kept.prev, t), &at(&kept.hidden_inverse, t),
        ];
        self.chain.launch(if many { "gates_wide" } else { "gates" }, columns, [3 * (1 + many as usize), 0], &args);
    }

    /// Products with the deter of step `of`, for its posterior, and with what step `next`, if there is one, makes of
    /// it.
    fn project(&self, of: Option<usize>, next: Option<usize>) {
        let Pass { s, kept, w, .. } = self;
        let next = next.filter(|&t| t < s.steps);
        let of_h = panels(s.h);
        let first = if of.is_some() { 0 } else { of_h };
        let count = if next.is_some() { 2 * of_h } else { of_h } - first;
        let step = |x: &Tensor, t: Option<usize>| t.map(|t| at(x, t));
        let [stays, ..] = w.stay(next.is_some_and(|t| t + 1 < s.steps));
        #[rustfmt::skip]
        let args: [&dyn Arg; 15] = [
            &w.posterior, &w.deter, &stays,
            &step(&kept.deter, of), &step(&kept.prev, next), &step(&self.tokens, of),
            &self.scan.core.embeddings[0].bias, &s.rows, &s.steps, &s.d, &s.h, &first,
            &step(&kept.posterior, of), &self.posterior_squares, &step(&kept.embedded[0], next),
        ];
        self.chain.launch("project", count, [1, 0], &args);
    }

    /// Logits and samples.
    fn latent(&self, t: usize) {
        let (Pass { s, kept, w, scan, .. }, (noise, kind, draws)) = (self, &self.noise);
        let [_, _, _, stay] = w.stay(t + 1 < s.steps);
        let (chunks, width) = s.chunks();
        #[rustfmt::skip]
        let first: [&dyn Arg; 9] = [
            &w.logits, &stay, &at(&kept.posterior, t), &self.posterior_squares, &panels(s.h),
            scan.posterior.scale(), &scan.logits.bias, noise, kind,
        ];
        #[rustfmt::skip]
        let last: [&dyn Arg; 15] = [
            &t, &self.later(&kept.keep, t),
            &s.rows, &s.steps, &s.h, &s.groups, &s.classes, &s.per, &scan.unimix, &scan.core.eps,
            &at(&kept.logit, t), &at(&kept.stoch, t), &self.later(&kept.prev_stoch, t), &self.chosen,
            &at(&kept.posterior_inverse, t),
        ];
        let args: Vec<&dyn Arg> = first.into_iter().chain(draws.args()).chain(last).collect();
        self.chain.launch("latent", chunks, [4, ROWS * width], &args);
    }
}

impl Sizes {
    /// Blocks of threads for `each` panels of every block of the model, and whether they are the kind that takes `n`
    /// panels.
    pub(super) fn blocks_of(&self, each: usize, n: usize) -> (usize, bool) {
        let many = self.blocks * each > MANY_PANELS;
        (self.blocks * if many { each.div_ceil(n) } else { each }, many)
    }

    /// Bytes of shared memory that the kernel `inputs` takes.
    fn inputs_shared(&self) -> usize {
        let eights = self.h.div_ceil(8);
        4 * 8 * eights * (256 / eights).max(1)
    }
}
