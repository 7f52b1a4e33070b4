//! The gate of the block GRU: the new deterministic state from three pre-activations and the old state.

use crate::buffer::Buffer;
use crate::cpu::{gru as kernel, vectorized};
use crate::cuda::{Arg, Grid, at_once};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// gates [M, 3 D] (per block: reset, candidate, update, each D / blocks wide) and deter [M, D] -> deter [M, D]:
/// `u c + (1 - u) h` with `c = tanh(sigmoid(reset) cand)`, `u = sigmoid(update - 1)` (official rssm.py, `_core`).
pub fn gru(gates: &Tensor, deter: &Tensor, blocks: usize) -> Tensor {
    assert_eq!(gates.len(), 3 * deter.len());
    let (width, n) = (deter.width() / blocks, deter.len());
    let keep = recording(&[gates, deter]);
    let mut activated = [(); 3].map(|()| Buffer::stale(0));
    let (mut gates_kept, mut deter_kept) = (gates.detach(), deter.detach());
    let out = match gates.device() {
        Device::Cpu => {
            let mut out = Buffer::stale(n);
            activated = activated.map(|_| Buffer::stale(if keep { n } else { 0 }));
            let [reset, candidate, update] = &mut activated;
            let kept = keep.then_some(kernel::Activated { reset, candidate, update });
            kernel::gru(gates.data(), deter.data(), width, &mut out, kept);
            Tensor::new(deter.shape(), out)
        }
        Device::Gpu(gpu) => {
            (gates_kept, deter_kept) = (gpu.act(gates), gpu.act(deter));
            let out = gpu.empty_act(deter.shape());
            let each = at_once(width, &[&gates_kept, &deter_kept, &out]);
            let args: [&dyn Arg; 6] = [&gates_kept, &deter_kept, &width, &n, &each, &out];
            gpu.launch("gru", "gru", Grid::elements(n / each), &args);
            out
        }
    };
    if !keep {
        return out;
    }
    record1(&[gates, deter], out, move |dy, _| {
        let [dgates, dh] = match dy.device() {
            Device::Cpu => grad_cpu(&gates_kept, &deter_kept, &activated, width, dy),
            Device::Gpu(gpu) => {
                let dy = gpu.act(dy);
                let (dgates, dh) = (gpu.empty_act(gates_kept.shape()), gpu.empty_act(deter_kept.shape()));
                let each = at_once(width, &[&gates_kept, &deter_kept, &dy, &dgates, &dh]);
                let args: [&dyn Arg; 8] = [&gates_kept, &deter_kept, &dy, &width, &n, &each, &dgates, &dh];
                gpu.launch("gru", "gru_grad", Grid::elements(n / each), &args);
                [dgates, dh]
            }
        };
        vec![Some(dgates), Some(dh)]
    })
}

/// The gradients of gates and deter, from what the forward pass left.
fn grad_cpu(gates: &Tensor, deter: &Tensor, [r, c, u]: &[Buffer; 3], w: usize, dy: &Tensor) -> [Tensor; 2] {
    let (mut dgates, mut dh) = (Buffer::stale(gates.len()), Buffer::stale(deter.len()));
    let cand = gates.data();
    let (dy, h) = (dy.data(), deter.data());
    for (b, dgates) in dgates.chunks_exact_mut((3 * w).max(1)).enumerate() {
        let span = b * w..(b + 1) * w;
        let (dreset, rest) = dgates.split_at_mut(w);
        let (dcand, dupdate) = rest.split_at_mut(w);
        let cand = &cand[3 * span.start + w..][..w];
        let (r, c, u) = (&r[span.clone()], &c[span.clone()], &u[span.clone()]);
        let (dy, h, dh) = (&dy[span.clone()], &h[span.clone()], &mut dh[span]);
        vectorized(
            #[inline(always)]
            || {
                for j in 0..w {
                    let dpre = dy[j] * u[j] * (1.0 - c[j] * c[j]); // d (sigmoid(reset) cand)
                    dreset[j] = dpre * cand[j] * r[j] * (1.0 - r[j]);
                    dcand[j] = dpre * r[j];
                    dupdate[j] = dy[j] * (c[j] - h[j]) * u[j] * (1.0 - u[j]);
                    dh[j] = dy[j] * (1.0 - u[j]);
                }
            },
        );
    }
    [Tensor::new(gates.shape(), dgates), Tensor::new(deter.shape(), dh)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_devices, sigmoid};

    #[test]
    fn gradient() {
        for (m, d, blocks) in [(3, 8, 4), (1, 5, 1), (0, 4, 2)] {
            check(
                &[&[m, 3 * d], &[m, d]],
                |x| gru(&x[0], &x[1], blocks),
                |x| {
                    let w = d / blocks;
                    let at = |i: usize, gate: usize| x[0][i / w * 3 * w + gate * w + i % w];
                    (0..m * d)
                        .map(|i| {
                            let c = (sigmoid(at(i, 0)) * at(i, 1)).tanh();
                            let u = sigmoid(at(i, 2) - 1.0);
                            u * c + (1.0 - u) * x[1][i]
                        })
                        .collect()
                },
            );
        }
        check_devices(&[&[3, 3 * 32], &[3, 32]], |x| gru(&x[0], &x[1], 2));
    }
}
