//! The scan forward: five launches a step (kernels/scan.cu).

use super::pack::Forward;
use super::{Chain, MANY_PANELS, Scan, ScanInputs, Sizes, at, panels};
use crate::cuda::{Arg, Gpu, Grid};
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

pub(super) fn run(gpu: &'static Gpu, scan: &Scan, s: &Sizes, x: &ScanInputs) -> Kept {
    let &Sizes { rows, steps, d, own, h, z, .. } = s;
    let (noise, kind, draws) = match x.draw {
        Draw::Uniform(noise) => (Some(gpu.full(noise)), 0u32, DrawArgs::none()),
        Draw::Gumbel(noise) => (Some(gpu.full(noise)), 1, DrawArgs::none()),
        Draw::Counter(rng, at) => (None, 2, DrawArgs::new(rng, at)),
    };
    let [tokens, actions] = [x.tokens, x.actions].map(|x| gpu.act(x));
    let kept = Kept {
        keep: x.keep.view(0, &[rows, steps, 1]),
        prev: s.act(gpu, d),
        prev_stoch: s.act(gpu, z),
        embedded: [s.act(gpu, h), s.act(gpu, h)],
        inputs: s.act(gpu, 2 * h),
        hidden: s.act(gpu, d),
        hidden_inverse: s.numbers(gpu),
        gates: s.act(gpu, 3 * d),
        // Without deter its first layer is what it makes of tokens.
        posterior: s.act(gpu, h),
        posterior_inverse: s.numbers(gpu),
        deter: s.act(gpu, d),
        stoch: s.act(gpu, z),
        logit: s.act(gpu, z),
    };
    if rows * steps == 0 {
        return kept;
    }
    let [flops, of_stoch] = s.flops(scan);
    profile::count(flops, flops + of_stoch); // rows of the embedding of stoch are added up instead
    let w = Forward::new(gpu, scan, s);
    let [project_stays, hidden_stays, gates_stay, logits_stay] = w.stay();
    let first_stoch = gpu.empty_act(&[rows, z]);
    let (deter, stoch) = (gpu.act(x.deter), gpu.act(x.stoch));
    let args: [&dyn Arg; 10] =
        [&deter, &stoch, &kept.keep, &rows, &steps, &d, &z, &kept.prev, &kept.prev_stoch, &first_stoch];
    gpu.launch("scan", "start", Grid::elements(rows * (d + z)), &args);
    // The first stoch may be anything; later ones choose rows of the weight.
    let dense = affine(&[Term::new(&first_stoch, 0)], &scan.core.embeddings[1].weight.detach(), None, None);
    let dense = gpu.act(&dense);

    let chain = Chain { gpu, module: "scan", rows };
    let (parts, many) = s.blocks_of(panels(own), 2);
    let of_hidden = gpu.empty(&[parts, rows]); // sums of squares
    let of_posterior = gpu.empty(&[panels(h), rows]);
    let chosen = gpu.empty(&[rows, s.groups]); // indices of 32 bits
    let [deter_scale, stoch_scale] = [0, 1].map(|i| scan.core.embeddings[i].scale());
    let (chunks, width) = s.chunks();
    // Products with deter `of` a step, for the posterior and for the step after it.
    let project = |of: Option<usize>, next: Option<usize>| {
        let first = if of.is_some() { 0 } else { panels(h) };
        let count = if next.is_some() { 2 * panels(h) } else { panels(h) } - first;
        let step = |x: &Tensor, t: Option<usize>| t.map(|t| at(x, t));
        #[rustfmt::skip] // inputs, sizes, outputs
        let args: [&dyn Arg; 15] = [
            &w.posterior, &w.deter, &project_stays, &step(&kept.deter, of), &step(&kept.prev, next), &step(&tokens, of), &scan.core.embeddings[0].bias,
            &rows, &steps, &d, &h, &first,
            &step(&kept.posterior, of), &of_posterior, &step(&kept.embedded[0], next),
        ];
        chain.launch("project", count, [1, 0], &args);
    };
    project(None, Some(0));
    for t in 0..steps {
        let next = Some(t + 1).filter(|&t| t < steps);
        let later = |x: &Tensor| next.map(|t| at(x, t));
        #[rustfmt::skip]
        let args: [&dyn Arg; 15] = [
            &at(&kept.embedded[0], t), &w.stoch, &Some(&dense).filter(|_| t == 0), &chosen, &at(&kept.keep, t),
            &scan.core.embeddings[1].bias, deter_scale, stoch_scale,
            &steps, &h, &s.groups, &s.classes, &scan.core.eps,
            &at(&kept.embedded[1], t), &at(&kept.inputs, t),
        ];
        chain.start("inputs", [rows, 1, 1], s.inputs_shared(), &args);
        #[rustfmt::skip]
        let args: [&dyn Arg; 12] = [
            &w.hidden, &hidden_stays, &at(&kept.prev, t), &at(&kept.inputs, t), &at(&actions, t),
            &rows, &steps, &d, &own, &h,
            &at(&kept.hidden, t), &of_hidden,
        ];
        chain.launch(if many { "hidden_wide" } else { "hidden" }, parts, [1 + many as usize, 0], &args);
        #[rustfmt::skip]
        let args: [&dyn Arg; 18] = [
            &w.gates, &gates_stay, &at(&kept.hidden, t), &of_hidden, &parts, scan.core.hidden.scale(), &scan.core.gates.bias,
            &at(&kept.prev, t), &later(&kept.keep),
            &rows, &steps, &d, &own, &scan.core.eps,
            &at(&kept.gates, t), &at(&kept.deter, t), &later(&kept.prev), &at(&kept.hidden_inverse, t),
        ];
        chain.launch(if many { "gates_wide" } else { "gates" }, parts, [3 * (1 + many as usize), 0], &args);
        project(Some(t), next);
        #[rustfmt::skip]
        let (first, last): ([&dyn Arg; 9], [&dyn Arg; 15]) = (
            [
                &w.logits, &logits_stay, &at(&kept.posterior, t), &of_posterior, &panels(h), scan.posterior.scale(), &scan.logits.bias,
                &noise, &kind,
            ],
            [
                &t, &later(&kept.keep),
                &rows, &steps, &h, &s.groups, &s.classes, &s.per, &scan.unimix, &scan.core.eps,
                &at(&kept.logit, t), &at(&kept.stoch, t), &later(&kept.prev_stoch), &chosen, &at(&kept.posterior_inverse, t),
            ],
        );
        let args: Vec<&dyn Arg> = first.into_iter().chain(draws.args()).chain(last).collect();
        chain.launch("latent", chunks, [4, PANEL_ROWS * width], &args);
    }
    kept
}

/// Rows of a tile.
const PANEL_ROWS: usize = 16;

impl Sizes {
    /// Blocks of threads for `each` panels of every block of the model, and whether they are the kind that takes `n` panels.
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
