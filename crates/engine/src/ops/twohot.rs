//! Symexp two-hot regression: a categorical over exponentially spaced bins (paper, "Critic learning").

use crate::buffer::Buffer;
use crate::cpu::twohot as kernel;
use crate::cuda::{Arg, Gpu, Grid};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// The `count` bins: symexp of evenly spaced points from -20 to 20, mirrored exactly (official heads.py).
pub fn symexp_bins(count: usize) -> Vec<f32> {
    let symexp = |x: f32| -((-x) as f64).exp_m1() as f32; // for x <= 0
    let points = if count % 2 == 1 { (count - 1) / 2 + 1 } else { count / 2 };
    // In single precision, as XLA compiles `jnp.linspace`: a unit in the last place of a point is 2e-6 of its bin.
    let step = 1.0 / (points - 1).max(1) as f32;
    let at = |i: usize| if i > 0 && i == points - 1 { 0.0 } else { -20.0 * (1.0 - i as f32 * step) };
    let half: Vec<f32> = (0..points).map(|i| symexp(at(i))).collect();
    let mirrored = half[..points - count % 2].iter().rev().map(|x| -x);
    half.iter().copied().chain(mirrored).collect()
}

/// The two bins around `target` and their weights; beyond the ends all weight is on the last bin.
fn two_hot(bins: &[f32], target: f32) -> kernel::TwoHot {
    if target.is_nan() {
        return [(0, f32::NAN); 2]; // a bad reward must not pass for a very small one
    }
    let not_above = bins.partition_point(|&b| b <= target);
    let below = not_above.saturating_sub(1);
    let above = not_above.min(bins.len() - 1);
    if below == above {
        return [(below, 0.5), (above, 0.5)];
    }
    let (to_below, to_above) = ((bins[below] - target).abs(), (bins[above] - target).abs());
    let total = to_below + to_above;
    [(below, to_above / total), (above, to_below / total)]
}

/// Cross entropy of logits [M, bins] with the two-hot of targets [M], summed over one or two targets with a coefficient
/// each -> [M]. No gradient flows to the targets.
pub fn twohot_loss(logits: &Tensor, bins: &[f32], targets: &[(&Tensor, f32)]) -> Tensor {
    assert_eq!(logits.width(), bins.len());
    match logits.device() {
        Device::Cpu => twohot_loss_cpu(logits, bins, targets),
        Device::Gpu(gpu) => twohot_gpu(gpu, logits, bins, targets),
    }
}

fn twohot_gpu(gpu: &'static Gpu, logits: &Tensor, bins: &[f32], targets: &[(&Tensor, f32)]) -> Tensor {
    assert!(matches!(targets.len(), 1 | 2), "{} targets", targets.len());
    let (rows, n, bins, kept) = (logits.rows(), logits.width(), gpu.constant(bins), gpu.act(logits));
    let (target0, c0) = (gpu.full(targets[0].0), targets[0].1);
    let (target1, c1) = targets.get(1).map_or((None, 0.0), |(x, c)| (Some(gpu.full(x)), *c));
    let shape = &logits.shape()[..logits.shape().len() - 1];
    let (y, none) = (gpu.empty(shape), None::<&Tensor>);
    let args: [&dyn Arg; 10] = [&kept, &bins, &rows, &n, &target0, &c0, &target1, &c1, &y, &none];
    gpu.launch("heads", "twohot", Grid::warps(rows), &args);
    if !recording(&[logits]) {
        return y;
    }
    record1(&[logits], y, move |dy, _| {
        let (dy, dx) = (gpu.full(dy), gpu.empty_act(kept.shape()));
        let args: [&dyn Arg; 10] = [&kept, &bins, &dy, &rows, &n, &target0, &c0, &target1, &c1, &dx];
        gpu.launch("heads", "twohot_grad", Grid::warps(rows), &args);
        vec![Some(dx)]
    })
}

fn twohot_loss_cpu(logits: &Tensor, bins: &[f32], targets: &[(&Tensor, f32)]) -> Tensor {
    let shape = logits.shape()[..logits.shape().len() - 1].to_vec();
    let (loss, grad) = loss_cpu(logits, bins, targets, recording(&[logits]));
    let y = Tensor::new(&shape, loss);
    let Some(mut grad) = grad else { return y };
    let full = logits.shape().to_vec();
    record1(&[logits], y, move |dy, _| {
        let width = *full.last().expect("logits have an axis");
        for (row, dy) in grad.chunks_exact_mut(width).zip(dy.data()) {
            row.iter_mut().for_each(|x| *x *= dy);
        }
        vec![Some(Tensor::new(&full, grad))]
    })
}

fn loss_cpu(logits: &Tensor, bins: &[f32], targets: &[(&Tensor, f32)], want: bool) -> (Buffer, Option<Buffer>) {
    let total: f32 = targets.iter().map(|(_, c)| c).sum();
    let mut loss = Buffer::stale(logits.rows());
    let mut grad = Buffer::stale(if want { logits.len() } else { 0 });
    let each = |i: usize, f: &mut dyn FnMut(kernel::TwoHot, f32)| {
        targets.iter().for_each(|(target, coefficient)| f(two_hot(bins, target.data()[i]), *coefficient));
    };
    kernel::loss_rows(logits.data(), bins.len(), total, each, &mut loss, &mut grad);
    (loss, want.then_some(grad))
}

/// The mean of the bins under logits [.., bins] -> [..]. Summed in mirrored pairs from the inside out, so
/// that uniform logits give exactly zero: bins reach 4.85e8 and any other order leaves garbage. No gradient.
pub fn twohot_pred(logits: &Tensor, bins: &[f32]) -> Tensor {
    assert_eq!(logits.width(), bins.len());
    let (rows, shape) = (logits.rows(), &logits.shape()[..logits.shape().len() - 1]);
    match logits.device() {
        Device::Cpu => {
            let mut y = Buffer::stale(rows);
            kernel::predict_rows(logits.data(), bins, &mut y);
            Tensor::new(shape, y)
        }
        Device::Gpu(gpu) => {
            let (y, n, none) = (gpu.empty(shape), logits.width(), None::<&Tensor>);
            let (logits, bins) = (gpu.act(logits), gpu.constant(bins));
            let args: [&dyn Arg; 10] = [&logits, &bins, &rows, &n, &none, &0.0f32, &none, &0.0f32, &none, &y];
            gpu.launch("heads", "twohot", Grid::warps(rows), &args);
            y
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_devices, devices, random, softmax};
    use crate::ops::{full, linear_combination};

    #[test]
    fn bins_are_mirrored_and_reach_symexp_20() {
        for count in [5, 8, 41, 255] {
            let bins = symexp_bins(count);
            assert_eq!(bins.len(), count);
            assert!(bins.windows(2).all(|w| w[0] < w[1] || (count % 2 == 0 && w[0] == w[1])), "{bins:?}");
            assert!(bins.iter().zip(bins.iter().rev()).all(|(a, b)| *a == -b));
            assert!((bins[count - 1] / 4.851_652e8 - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn uniform_logits_predict_exactly_zero() {
        for device in devices() {
            for count in [5, 8, 255, 400] {
                let pred = twohot_pred(&Tensor::full(&[3, count], 0.7).to(device), &symexp_bins(count));
                assert_eq!(pred.host().data(), [0.0; 3]);
            }
        }
    }

    #[test]
    fn rows_of_any_number_of_bins() {
        for (m, n) in [(5, 41), (3, 255), (2, 700)] {
            let bins: Vec<f32> = (0..n).map(|i| (i as f32 - (n - 1) as f32 / 2.0) / 20.0).collect();
            let target = random(&[m], 9, 2.0);
            check_devices(&[&[m, n]], |x| {
                let targets = [(&target.to(x[0].device()), 0.7)];
                let (loss, pred) = (twohot_loss(&x[0], &bins, &targets), twohot_pred(&x[0], &bins));
                let [one, two] = [1.0, 2.0].map(|v| full(&[m], v, x[0].device()));
                linear_combination(&[(&loss, &one), (&pred, &two)])
            });
        }
    }

    #[test]
    fn loss_and_gradient() {
        let bins: Vec<f32> = vec![-3.0, -1.0, 0.0, 1.0, 3.0];
        let targets = [-9.0f32, -1.0, 0.25, 3.0, 7.0, 0.0];
        let other = [1.0f32, 2.0, -2.5, 0.0, -1.0, 0.5];
        let (a, b) = (Tensor::from_slice(&[6], &targets), Tensor::from_slice(&[6], &other));
        let weights = |t: f64| -> Vec<f64> {
            let t = t.clamp(-3.0, 3.0);
            let hat = |i: usize| {
                let left = if i > 0 { (t - bins[i - 1] as f64) / (bins[i] - bins[i - 1]) as f64 } else { 1.0 };
                let right = if i < 4 { (bins[i + 1] as f64 - t) / (bins[i + 1] - bins[i]) as f64 } else { 1.0 };
                left.min(right).clamp(0.0, 1.0)
            };
            (0..5).map(hat).collect()
        };
        check(
            &[&[6, 5]],
            |x| twohot_loss(&x[0], &bins, &[(&a.to(x[0].device()), 1.0), (&b.to(x[0].device()), 0.3)]),
            |x| {
                let p = softmax(&x[0], 5);
                let row = |i: usize| {
                    let (wa, wb) = (weights(targets[i] as f64), weights(other[i] as f64));
                    (0..5).map(|j| -(wa[j] + 0.3f32 as f64 * wb[j]) * p[i * 5 + j].ln()).sum::<f64>()
                };
                (0..6).map(row).collect()
            },
        );
    }
}
