//! The gate of the block GRU: the new deterministic state from three pre-activations and the old state.

use crate::buffer::Buffer;
use crate::cpu::{gru as kernel, vectorized};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// gates [M, 3 D] (per block: reset, candidate, update, each D / blocks wide) and deter [M, D] -> deter [M, D]:
/// `u c + (1 - u) h` with `c = tanh(sigmoid(reset) cand)`, `u = sigmoid(update - 1)` (official rssm.py, `_core`).
pub fn gru(gates: &Tensor, deter: &Tensor, blocks: usize) -> Tensor {
    assert_eq!(gates.len(), 3 * deter.len());
    let (width, n) = (deter.width() / blocks, deter.len());
    let mut out = Buffer::stale(n);
    let keep = recording(&[gates, deter]);
    let mut activated = [(); 3].map(|()| Buffer::stale(if keep { n } else { 0 }));
    match gates.device() {
        Device::Cpu => {
            let [reset, candidate, update] = &mut activated;
            let kept = keep.then_some(kernel::Activated { reset, candidate, update });
            kernel::gru(gates.data(), deter.data(), width, &mut out, kept);
        }
    }
    let out = Tensor::new(deter.shape(), out);
    if !keep {
        return out;
    }
    let (gates_kept, deter_kept) = (gates.detach(), deter.detach());
    record1(&[gates, deter], out, move |dy, _| {
        let [r, c, u] = &activated;
        let w = deter_kept.width() / blocks;
        let (mut dgates, mut dh) = (Buffer::stale(gates_kept.len()), Buffer::stale(deter_kept.len()));
        let cand = gates_kept.data();
        let (dy, h) = (dy.data(), deter_kept.data());
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
        vec![Some(Tensor::new(gates_kept.shape(), dgates)), Some(Tensor::new(deter_kept.shape(), dh))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, sigmoid};

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
    }
}
