//! The gate of the block GRU: the new deterministic state from three pre-activations and the old state.

use crate::buffer::Buffer;
use crate::cpu::math;
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// gates [M, 3 D] (per block: reset, candidate, update, each D / blocks wide) and deter [M, D] -> deter [M, D]:
/// `u c + (1 - u) h` with `c = tanh(sigmoid(reset) cand)`, `u = sigmoid(update - 1)` (official rssm.py, `_core`).
pub fn gru(gates: &Tensor, deter: &Tensor, blocks: usize) -> Tensor {
    assert_eq!(gates.len(), 3 * deter.len());
    let activated = match gates.device() {
        Device::Cpu => activate_cpu(gates, deter.width() / blocks),
    };
    let [_, c, u] = &activated;
    let mut out = Buffer::stale(deter.len());
    for (i, (y, h)) in out.iter_mut().zip(deter.data()).enumerate() {
        *y = u[i] * c[i] + (1.0 - u[i]) * h;
    }
    let out = Tensor::new(deter.shape(), out);
    if !recording(&[gates, deter]) {
        return out;
    }
    let (gates_kept, deter_kept) = (gates.detach(), deter.detach());
    record1(&[gates, deter], out, move |dy, _| {
        let [r, c, u] = &activated;
        let w = deter_kept.width() / blocks;
        let (mut dgates, mut dh) = (Buffer::stale(gates_kept.len()), Buffer::stale(deter_kept.len()));
        let cand = gates_kept.data();
        let (dy, h) = (dy.data(), deter_kept.data());
        for b in 0..h.len() / w.max(1) {
            let (at, to) = (b * w, b * 3 * w);
            for j in 0..w {
                let (i, o) = (at + j, to + j);
                let dpre = dy[i] * u[i] * (1.0 - c[i] * c[i]); // d (sigmoid(reset) cand)
                dgates[o] = dpre * cand[o + w] * r[i] * (1.0 - r[i]);
                dgates[o + w] = dpre * r[i];
                dgates[o + 2 * w] = dy[i] * (c[i] - h[i]) * u[i] * (1.0 - u[i]);
                dh[i] = dy[i] * (1.0 - u[i]);
            }
        }
        vec![Some(Tensor::new(gates_kept.shape(), dgates)), Some(Tensor::new(deter_kept.shape(), dh))]
    })
}

/// sigmoid(reset), the candidate and sigmoid(update - 1), each [M, D].
fn activate_cpu(gates: &Tensor, w: usize) -> [Buffer; 3] {
    let n = gates.len() / 3;
    let (mut r, mut c, mut u) = (Buffer::stale(n), Buffer::stale(n), Buffer::stale(n));
    for (b, block) in gates.data().chunks_exact(3 * w).enumerate() {
        let span = b * w..(b + 1) * w;
        r[span.clone()].copy_from_slice(&block[..w]);
        c[span.clone()].copy_from_slice(&block[w..2 * w]);
        u[span].iter_mut().zip(&block[2 * w..]).for_each(|(u, x)| *u = x - 1.0);
    }
    math::sigmoid_slice(&mut r);
    c.iter_mut().zip(r.iter()).for_each(|(c, r)| *c *= r);
    math::tanh_slice(&mut c);
    math::sigmoid_slice(&mut u);
    [r, c, u]
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
