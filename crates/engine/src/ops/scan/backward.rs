//! The scan backward: six launches a step (kernels/scan_grad.cu), then everything that is added up over all steps.

use super::forward::Kept;
use super::pack::Backward;
use super::{Chain, Layer, MANY_PANELS, Scan, Sizes, at, panels, spans};
use crate::cpu::norm::{Act as Plain, Norm as NormKind};
use crate::cuda::{Arg, Gpu};
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
    };
    let start = sweep(gpu, scan, s, kept, grads, &left);
    let [tokens, actions] = parameters(gpu, scan, s, kept, &left, sink);
    let [deter, stoch] = start;
    [deter, stoch, tokens, actions]
}

/// All steps, the last one first: the gradients of the first deter and stoch.
fn sweep(gpu: &'static Gpu, scan: &Scan, s: &Sizes, kept: &Kept, grads: &[Option<Tensor>], left: &Left) -> [Tensor; 2] {
    let &Sizes { rows, steps, d, own, h, z, .. } = s;
    let [dstart_deter, dstart_stoch] = [d, z].map(|width| gpu.empty_act(&[rows, width]));
    if rows * steps == 0 {
        return [dstart_deter, dstart_stoch];
    }
    let grads: Vec<Option<Tensor>> = grads.iter().map(|grad| grad.as_ref().map(|x| gpu.act(x))).collect();
    let flops = s.flops(scan).iter().sum();
    profile::count(flops, flops);
    let w = Backward::new(gpu, scan, s);
    let [stoch_stays, logits_stay, deter_stays, gates_stay, hidden_stays] = w.stay();
    let chain = Chain { gpu, module: "scan_grad", rows };
    let (chunks, _) = s.chunks();
    let (of_own, own_many) = s.blocks_of(panels(own), 2);
    let (of_inputs, inputs_many) = s.blocks_of(panels(own) + panels(2 * h), 4);
    let many = panels(d) > MANY_PANELS;
    let of_deter = if many { panels(d).div_ceil(2) } else { panels(d) };
    let [posterior_sums, hidden_sums] = [panels(h), of_own].map(|slots| gpu.empty(&[slots, rows]));
    let carried = gpu.empty(&[rows, d]);
    let dembedded = gpu.empty_act(&[rows, 2 * h]);
    let parts = gpu.empty(&[s.blocks, rows, 2 * h]);
    let [deter_scale, stoch_scale] = [0, 1].map(|i| scan.core.embeddings[i].scale());
    let second = dembedded.address() + (h * dembedded.dtype().bytes()) as u64;
    let stride = 2 * h;

    // From t = steps - 1 down to 0, and once more for the state before.
    for t in (0..=steps).rev().map(|t| t.checked_sub(1)) {
        let last = t == Some(steps - 1); // nothing comes back from a next step
        let now = |x: &Tensor| t.map(|t| at(x, t));
        let given = |i: usize| t.and_then(|t| grads[i].as_ref().map(|x| at(x, t)));
        let from_next = if last { 0 } else { spans(h) };
        #[rustfmt::skip] // inputs, sizes, outputs
        let args: [&dyn Arg; 17] = [
            &w.stoch, &stoch_stays, &second, &stride, &given(1), &given(2), &now(&kept.logit),
            &rows, &steps, &h, &s.groups, &s.classes, &s.per, &from_next, &scan.unimix,
            &now(&left.logit), &Some(&dstart_stoch).filter(|_| t.is_none()),
        ];
        chain.launch("latent_grad", chunks, [4, ROOM], &args);
        if t.is_some() {
            #[rustfmt::skip]
            let args: [&dyn Arg; 12] = [
                &w.logits, &logits_stay, &now(&left.logit), &now(&kept.posterior), &now(&kept.posterior_inverse), scan.posterior.scale(),
                &rows, &steps, &z, &h,
                &now(&left.posterior), &posterior_sums,
            ];
            chain.launch("posterior_grad", panels(h), [1, 0], &args);
        }
        let of_posterior = w.posterior.as_ref().filter(|_| t.is_some());
        #[rustfmt::skip]
        let args: [&dyn Arg; 23] = [
            &of_posterior, &w.deter, &deter_stays,
            &now(&left.posterior), &now(&kept.posterior), &now(&kept.posterior_inverse), &posterior_sums, &panels(h),
            scan.posterior.scale(), &dembedded, &stride, &(!last as u32), &now(&kept.gates), &now(&kept.prev), &given(0),
            &rows, &steps, &h, &d, &own,
            &carried, &now(&left.gates), &Some(&dstart_deter).filter(|_| t.is_none()),
        ];
        chain.launch(if many { "gates_grad_wide" } else { "gates_grad" }, of_deter, [1 + many as usize, 0], &args);
        let Some(t) = t else { break };
        #[rustfmt::skip]
        let args: [&dyn Arg; 12] = [
            &w.gates, &gates_stay, &at(&left.gates, t), &at(&kept.hidden, t), &at(&kept.hidden_inverse, t), scan.core.hidden.scale(),
            &rows, &steps, &d, &own,
            &at(&left.hidden, t), &hidden_sums,
        ];
        let name = if own_many { "hidden_grad_wide" } else { "hidden_grad" };
        chain.launch(name, of_own, [1 + own_many as usize, 0], &args);
        #[rustfmt::skip]
        let args: [&dyn Arg; 16] = [
            &w.hidden, &hidden_stays, &at(&left.hidden, t), &at(&kept.hidden, t), &at(&kept.hidden_inverse, t), &hidden_sums, &of_own,
            scan.core.hidden.scale(), &at(&kept.keep, t),
            &rows, &steps, &d, &own, &h,
            &carried, &parts,
        ];
        let name = if inputs_many { "inputs_grad_wide" } else { "inputs_grad" };
        chain.launch(name, of_inputs, [if inputs_many { 4 } else { 1 }, 0], &args);
        #[rustfmt::skip]
        let args: [&dyn Arg; 14] = [
            &parts, &at(&kept.embedded[0], t), &at(&kept.embedded[1], t), deter_scale, stoch_scale, &at(&kept.keep, t),
            &rows, &steps, &h, &s.blocks, &scan.core.eps,
            &at(&left.embedded[0], t), &at(&left.embedded[1], t), &dembedded,
        ];
        chain.start("embed_grad", [rows, 2, 1], 4 * h, &args);
    }
    [dstart_deter, dstart_stoch]
}

/// Numbers in shared memory that the kernel `latent_grad` may need: always as many, as the first launch decides.
const ROOM: usize = 2 * 16 * super::MOST_CLASSES;

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
