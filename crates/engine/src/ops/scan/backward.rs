//! The scan backward: six launches a step, or one for all (kernels/scan_grad.cu), then everything that is added up over
//! all steps.

use super::forward::Kept;
use super::pack::Backward;
use super::{Chain, Layer, MANY_PANELS, MOST_CLASSES, ROWS, Scan, Sizes, Together, at, panels, spans};
use crate::cpu::norm::{Act as Plain, Norm as NormKind};
use crate::cuda::{Arg, Gpu, Piece, Table};
use crate::ops::affine::{Term, parameter_grads};
use crate::ops::norm_act::{Act, Norm, norm_act, norm_act_grad};
use crate::profile;
use crate::sink::Sink;
use crate::tensor::Tensor;

/// Gradients that the steps leave for what follows, all [B, T, ..].
struct Left {
    /// Of embeddings after norm and activation.
    embedded: [Tensor; 2],
    /// Of the first layer of all blocks after norm and activation.
    hidden: Tensor,
    gates: Tensor,
    /// Of the posterior's first layer after norm and activation.
    posterior: Tensor,
    logit: Tensor,
    /// Of deter [B, D] and stoch [B, Z] before the first step.
    first: [Tensor; 2],
}

/// Gradients of the first deter and stoch, of tokens and of actions, from those of deter, stoch and logits.
pub(super) fn run(
    gpu: &'static Gpu,
    scan: &Scan,
    s: &Sizes,
    kept: &Kept,
    grads: &[Option<Tensor>],
    sink: &mut Sink,
) -> [Tensor; 4] {
    let left = Left {
        embedded: [s.act(gpu, s.h), s.act(gpu, s.h)],
        hidden: s.act(gpu, s.d),
        gates: s.act(gpu, 3 * s.d),
        posterior: s.act(gpu, s.h),
        logit: s.act(gpu, s.z),
        first: [s.d, s.z].map(|width| gpu.empty_act(&[s.rows, width])),
    };
    if s.rows * s.steps > 0 {
        let flops = s.flops(scan).iter().sum();
        profile::count(flops, flops);
        Sweep::new(gpu, scan, s, kept, &left, grads).run();
    }
    let [tokens, actions] = parameters(gpu, scan, s, kept, &left, sink);
    let [deter, stoch] = left.first;
    [deter, stoch, tokens, actions]
}

/// What all launches of the sweep take. Methods take a step, or none for the state before the first.
struct Sweep<'a> {
    chain: Chain,
    scan: &'a Scan,
    s: &'a Sizes,
    kept: &'a Kept,
    left: &'a Left,
    w: Backward,
    /// Of deter, stoch and logits, where somebody used them.
    grads: Vec<Option<Tensor>>,
    /// Sums that gradients of norms are made of, by blocks of threads and rows.
    hidden_sums: Tensor,
    posterior_sums: Tensor,
    /// What a step hands to the one before it: the gradients of its deter [B, D], as far as that does not come through
    /// its embeddings, and of both embeddings [B, 2 H].
    carried: Tensor,
    dembedded: Tensor,
    /// Of the normed embeddings, by blocks of the model [blocks, B, 2 H].
    parts: Tensor,
}

impl<'a> Sweep<'a> {
    fn new(
        gpu: &'static Gpu,
        scan: &'a Scan,
        s: &'a Sizes,
        kept: &'a Kept,
        left: &'a Left,
        grads: &[Option<Tensor>],
    ) -> Sweep<'a> {
        Sweep {
            chain: Chain { gpu, module: "scan_grad", rows: s.rows },
            scan,
            s,
            kept,
            left,
            w: Backward::new(gpu, scan, s),
            grads: grads.iter().map(|grad| grad.as_ref().map(|x| gpu.act(x))).collect(),
            hidden_sums: gpu.empty(&[s.slots(), s.rows]),
            posterior_sums: gpu.empty(&[panels(s.h), s.rows]),
            carried: gpu.empty(&[s.rows, s.d]),
            dembedded: gpu.empty_act(&[s.rows, 2 * s.h]),
            parts: gpu.empty(&[s.blocks, s.rows, 2 * s.h]),
        }
    }

    fn run(&self) {
        if let Some(together) = &self.s.together {
            return self.together(together);
        }
        // The kernel after the packing of weights must not be one that reads them before it waits for its predecessor: at
        // the last step `latent` has no embedding to go through.
        for t in (0..self.s.steps).rev() {
            self.latent(Some(t));
            self.posterior(t);
            self.gates(Some(t));
            self.hidden(t);
            self.inputs(t);
            self.embeddings(t);
        }
        self.latent(None);
        self.gates(None);
    }

    /// All steps in one launch.
    fn together(&self, together: &Together) {
        let (Sweep { s, kept, left, w, scan, .. }, core) = (self, &self.scan.core);
        let [of_deter, of_stoch] = &core.embeddings;
        let count = together.counter(self.chain.gpu);
        #[rustfmt::skip] // as in `Backward` of kernels/scan_grad.cu: weights, parameters, inputs, results, what is handed on
        let addresses: [&dyn Arg; 37] = [
            &w.posterior, &w.deter, &w.hidden, &w.gates, &w.logits, &w.stoch,
            of_deter.scale(), of_stoch.scale(), core.hidden.scale(), scan.posterior.scale(),
            &self.grads[0], &self.grads[1], &self.grads[2], &kept.keep, &kept.hidden_inverse, &kept.posterior_inverse,
            &kept.prev, &kept.embedded[0], &kept.embedded[1], &kept.hidden, &kept.gates, &kept.posterior, &kept.logit,
            &left.embedded[0], &left.embedded[1], &left.hidden, &left.gates, &left.posterior, &left.logit,
            &left.first[0], &left.first[1], &self.dembedded,
            &self.hidden_sums, &self.posterior_sums, &self.carried, &self.parts, &count,
        ];
        let [latent, posterior, gates, hidden, inputs] = w.stay(true);
        #[rustfmt::skip]
        let numbers: [&dyn Arg; 14] = [
            &s.rows, &s.steps, &s.d, &s.own, &s.h, &s.groups, &s.classes, &s.per,
            &latent, &posterior, &gates, &hidden, &inputs, &0u32,
        ];
        let mut table = Table::default();
        table.args(&addresses, &numbers, &[scan.unimix, core.eps]);
        table.moves((s.steps - 1) * w.step_bytes());
        self.chain.together(if together.many { "backward_wide" } else { "backward" }, together, &table);
    }

    /// Where step `t` of the gradient of an output begins.
    fn given(&self, output: usize, t: Option<usize>) -> Option<Piece> {
        Some(at(self.grads[output].as_ref()?, t?))
    }

    /// Whether a step comes after `t`, from which something comes back.
    fn has_next(&self, t: Option<usize>) -> bool {
        t.is_none_or(|t| t + 1 < self.s.steps)
    }

    /// Of the sample, and of the logits.
    fn latent(&self, t: Option<usize>) {
        let Sweep { s, kept, left, w, .. } = self;
        let [stays, ..] = w.stay(t > Some(0));
        let now = |x: &Tensor| t.map(|t| at(x, t));
        let of_stoch = self.dembedded.address() + (s.h * self.dembedded.dtype().bytes()) as u64;
        let last = if self.has_next(t) { spans(s.h) } else { 0 };
        #[rustfmt::skip] // inputs, sizes, results
        let args: [&dyn Arg; 17] = [
            &w.stoch, &stays, &of_stoch, &(2 * s.h), &self.given(1, t), &self.given(2, t), &now(&kept.logit),
            &s.rows, &s.steps, &s.h, &s.groups, &s.classes, &s.per, &last, &self.scan.unimix,
            &now(&left.logit), &Some(&left.first[1]).filter(|_| t.is_none()),
        ];
        self.chain.launch("latent_grad", s.chunks().0, [4, ROOM], &args);
    }

    /// Of the posterior's hidden layer.
    fn posterior(&self, t: usize) {
        let Sweep { s, kept, left, w, scan, .. } = self;
        let [_, stay, ..] = w.stay(t > 0);
        #[rustfmt::skip]
        let args: [&dyn Arg; 12] = [
            &w.logits, &stay, &at(&left.logit, t), &at(&kept.posterior, t), &at(&kept.posterior_inverse, t),
            scan.posterior.scale(), &s.rows, &s.steps, &s.z, &s.h,
            &at(&left.posterior, t), &self.posterior_sums,
        ];
        self.chain.launch("posterior_grad", panels(s.h), [1, 0], &args);
    }

    /// Of deter, by all ways, and of the gates.
    fn gates(&self, t: Option<usize>) {
        let Sweep { s, kept, left, w, scan, .. } = self;
        let [_, _, stays, ..] = w.stay(t > Some(0));
        let now = |x: &Tensor| t.map(|t| at(x, t));
        let of_posterior = w.posterior.as_ref().filter(|_| t.is_some());
        #[rustfmt::skip]
        let args: [&dyn Arg; 23] = [
            &of_posterior, &w.deter, &stays,
            &now(&left.posterior), &now(&kept.posterior), &now(&kept.posterior_inverse),
            &self.posterior_sums, &panels(s.h), scan.posterior.scale(),
            &self.dembedded, &(2 * s.h), &(self.has_next(t) as u32),
            &now(&kept.gates), &now(&kept.prev), &self.given(0, t),
            &s.rows, &s.steps, &s.h, &s.d, &s.own,
            &self.carried, &now(&left.gates), &Some(&left.first[0]).filter(|_| t.is_none()),
        ];
        let many = panels(s.d) > MANY_PANELS;
        let (name, n) = if many { ("gates_grad_wide", 2) } else { ("gates_grad", 1) };
        self.chain.launch(name, panels(s.d).div_ceil(n), [n, 0], &args);
    }

    /// Of the core's first layer.
    fn hidden(&self, t: usize) {
        let (Sweep { s, kept, left, w, .. }, core) = (self, &self.scan.core);
        let [_, _, _, stay, _] = w.stay(t > 0);
        #[rustfmt::skip]
        let args: [&dyn Arg; 12] = [
            &w.gates, &stay, &at(&left.gates, t), &at(&kept.hidden, t), &at(&kept.hidden_inverse, t),
            core.hidden.scale(), &s.rows, &s.steps, &s.d, &s.own,
            &at(&left.hidden, t), &self.hidden_sums,
        ];
        let (columns, many) = s.blocks_of(panels(s.own), 2);
        self.chain.launch(
            if many { "hidden_grad_wide" } else { "hidden_grad" },
            columns,
            [1 + many as usize, 0],
            &args,
        );
    }

    /// Of the state before, and by blocks of the embeddings.
    fn inputs(&self, t: usize) {
        let (Sweep { s, kept, left, w, .. }, core) = (self, &self.scan.core);
        let [.., stays] = w.stay(t > 0);
        let slots = self.hidden_sums.dim(0);
        #[rustfmt::skip]
        let args: [&dyn Arg; 16] = [
            &w.hidden, &stays, &at(&left.hidden, t), &at(&kept.hidden, t), &at(&kept.hidden_inverse, t),
            &self.hidden_sums, &slots, core.hidden.scale(), &at(&kept.keep, t),
            &s.rows, &s.steps, &s.d, &s.own, &s.h,
            &self.carried, &self.parts,
        ];
        let (columns, many) = s.blocks_of(panels(s.own) + panels(2 * s.h), 4);
        let (name, n) = if many { ("inputs_grad_wide", 4) } else { ("inputs_grad", 1) };
        self.chain.launch(name, columns, [n, 0], &args);
    }

    /// Of the embeddings.
    fn embeddings(&self, t: usize) {
        let (Sweep { s, kept, left, .. }, core) = (self, &self.scan.core);
        let [of_deter, of_stoch] = &core.embeddings;
        #[rustfmt::skip]
        let args: [&dyn Arg; 14] = [
            &self.parts, &at(&kept.embedded[0], t), &at(&kept.embedded[1], t), of_deter.scale(), of_stoch.scale(),
            &at(&kept.keep, t), &s.rows, &s.steps, &s.h, &s.blocks, &core.eps,
            &at(&left.embedded[0], t), &at(&left.embedded[1], t), &self.dembedded,
        ];
        self.chain.start("embed_grad", [s.rows, 2, 1], 4 * s.h, &args);
    }
}

/// Numbers in shared memory that the kernel `latent_grad` may need: always as many, as the first launch decides.
const ROOM: usize = 2 * ROWS * MOST_CLASSES;

/// Leaves the gradients of all parameters in the sink; those of tokens and actions.
fn parameters(gpu: &'static Gpu, scan: &Scan, s: &Sizes, kept: &Kept, left: &Left, sink: &mut Sink) -> [Tensor; 2] {
    let [deter, stoch] = &scan.core.embeddings;
    let norm = |layer: &Layer, x: &Tensor, dy: &Tensor, sink: &mut Sink| {
        let norm = Norm { kind: NormKind::Rms, eps: scan.core.eps, scale: layer.scale.as_ref(), shift: None };
        norm_act_grad(gpu, x, &norm, SILU, dy, sink)
    };
    let activated = |layer: &Layer, x: &Tensor| {
        let scale = layer.scale().detach();
        norm_act(x, &Norm { kind: NormKind::Rms, eps: scan.core.eps, scale: Some(&scale), shift: None }, SILU)
    };
    let layer = |terms: &[Term], layer: &Layer, bias: bool, dy: &Tensor, sink: &mut Sink| {
        parameter_grads(terms, &layer.weight, Some(&layer.bias).filter(|_| bias), dy, sink);
    };

    let dposterior = norm(&scan.posterior, &kept.posterior, &left.posterior, sink);
    layer(&[Term::new(&activated(&scan.posterior, &kept.posterior), 0)], &scan.logits, true, &left.logit, sink);
    if !scan.absolute {
        layer(&[Term::new(&kept.deter, 0)], &scan.posterior, false, &dposterior, sink);
    }
    let dhidden = norm(&scan.core.hidden, &kept.hidden, &left.hidden, sink);
    layer(&[Term::new(&activated(&scan.core.hidden, &kept.hidden), 0)], &scan.core.gates, true, &left.gates, sink);
    layer(&[Term::new(&kept.prev, 0), Term::shared(&kept.inputs, s.own)], &scan.core.hidden, false, &dhidden, sink);
    for (i, (embedding, x)) in [(deter, &kept.prev), (stoch, &kept.prev_stoch)].into_iter().enumerate() {
        let dy = norm(embedding, &kept.embedded[i], &left.embedded[i], sink);
        layer(&[Term::new(x, 0)], embedding, true, &dy, sink);
    }
    [dposterior, dhidden]
}

const SILU: Act = Act::Plain(Plain::Silu);
