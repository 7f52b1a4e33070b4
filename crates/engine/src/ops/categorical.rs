//! Categorical and Bernoulli outputs: log-probability, entropy, losses and samples.

use super::full;
use super::latent::{Draw, Share, log_mixed, mix, sample_cpu, sample_gpu, softmax, softmax_grad};
use crate::buffer::Buffer;
use crate::cpu::math;
use crate::cuda::{Arg, Gpu, Grid};
use crate::graph::{record, record1, recording};
use crate::tensor::{Device, Tensor};

/// logits [.., K*C] for K choices of C classes, mixed with `unimix` of the uniform distribution, and the chosen
/// classes [.., K], which travel as floats -> log-probability and entropy, each summed over K: [..], [..].
pub fn categorical(logits: &Tensor, classes: usize, unimix: f32, chosen: &Tensor) -> [Tensor; 2] {
    match logits.device() {
        Device::Cpu => categorical_cpu(logits, classes, unimix, chosen),
        Device::Gpu(gpu) => categorical_gpu(gpu, logits, classes, unimix, chosen),
    }
}

fn categorical_gpu(gpu: &'static Gpu, logits: &Tensor, classes: usize, unimix: f32, chosen: &Tensor) -> [Tensor; 2] {
    let (rows, groups) = (logits.rows(), logits.width() / classes);
    let shape = &logits.shape()[..logits.shape().len() - 1];
    let (kept, chosen) = (gpu.act(logits), gpu.full(chosen));
    let outputs = vec![gpu.empty(shape), gpu.empty(shape)];
    let Share { lanes, vector } = Share::new(classes, &[&kept]);
    let (logp, entropy) = (&outputs[0], &outputs[1]);
    let args: [&dyn Arg; 10] = [&kept, &chosen, &rows, &groups, &classes, &lanes, &vector, &unimix, logp, entropy];
    gpu.launch("latent", "categorical", Grid::warps(rows), &args);
    if !recording(&[logits]) {
        return outputs.try_into().expect("two outputs");
    }
    let outputs = record(&[logits], outputs, move |grads, _| {
        let dx = gpu.empty_act(kept.shape());
        let share = Share::new(classes, &[&kept, &dx]);
        let [dlogp, dentropy] = [0, 1].map(|i| grads[i].as_ref().map(|dy| gpu.full(dy)));
        #[rustfmt::skip] // logits; what flows in; sizes; constants; result
        let args: [&dyn Arg; 11] = [
            &kept, &chosen, &dlogp, &dentropy,
            &rows, &groups, &classes, &share.lanes, &share.vector, &unimix,
            &dx,
        ];
        gpu.launch("latent", "categorical_grad", share.groups(rows * groups), &args);
        vec![Some(dx)]
    });
    outputs.try_into().expect("two outputs")
}

fn categorical_cpu(logits: &Tensor, classes: usize, unimix: f32, chosen: &Tensor) -> [Tensor; 2] {
    let soft = softmax(logits, classes);
    let p = mix(&soft, classes, unimix);
    let width = logits.width();
    let shape = logits.shape()[..logits.shape().len() - 1].to_vec();
    let (log_p, logp, ent) = forward_cpu(logits, &p, classes, unimix, chosen.data());
    let outputs = vec![Tensor::from_slice(&shape, &logp), Tensor::from_slice(&shape, &ent)];
    if !recording(&[logits]) {
        return outputs.try_into().expect("two outputs");
    }
    let (chosen, full) = (chosen.detach(), logits.shape().to_vec());
    let outputs = record(&[logits], outputs, move |grads, _| {
        // The gradient with respect to the mixed probabilities, then back through the mixture and the softmax.
        let mut g = Buffer::zeros(p.len());
        if let Some(d) = &grads[1] {
            for (i, x) in g.iter_mut().enumerate() {
                *x -= d.data()[i / width] * log_p[i];
            }
        }
        softmax_grad(&soft, classes, 1.0 - unimix, &mut g);
        if let Some(d) = &grads[0] {
            logp_grad(&soft, &p, classes, 1.0 - unimix, chosen.data(), d.data(), &mut g);
        }
        vec![Some(Tensor::new(&full, g))]
    });
    outputs.try_into().expect("two outputs")
}

/// Adds the gradient of the chosen classes' log-probabilities: with s the softmax and p the mixture, that of logit k is
/// `(1 - unimix) s_k (1[k = c] - s_c) / p_c`, where s_c / p_c is 1 without a mixture, however small both are.
fn logp_grad(soft: &[f32], p: &[f32], classes: usize, scale: f32, chosen: &[f32], d: &[f32], g: &mut [f32]) {
    let choices = chosen.len() / d.len().max(1);
    for (i, &c) in chosen.iter().enumerate().filter(|(_, c)| (0.0..classes as f32).contains(*c)) {
        let (span, at) = (i * classes, i * classes + c as usize);
        let ratio = if scale == 1.0 { 1.0 } else { soft[at] / p[at] };
        let factor = d[i / choices] * scale * ratio;
        for k in 0..classes {
            g[span + k] -= factor * soft[span + k];
        }
        g[at] += factor;
    }
}

/// log p, and per row of `width` the log-probability of what was chosen and the entropy.
fn forward_cpu(x: &Tensor, p: &[f32], classes: usize, unimix: f32, chosen: &[f32]) -> (Buffer, Vec<f32>, Vec<f32>) {
    let width = x.width();
    let log_p = log_mixed(x, p, classes, unimix);
    let choices = width / classes;
    let rows = p.len() / width;
    // A class that does not exist, such as the -1 of a value that is not available, adds no log-probability (in the
    // official code its one-hot vector is zero).
    let one = |i: usize, k: usize| match chosen[i * choices + k] {
        c if (0.0..classes as f32).contains(&c) => log_p[i * width + k * classes + c as usize],
        _ => 0.0,
    };
    let logp = |i: usize| (0..choices).map(|k| one(i, k)).sum();
    let term = |j: usize| if p[j] > 0.0 { -p[j] * log_p[j] } else { 0.0 };
    let ent = |i: usize| (i * width..(i + 1) * width).map(term).sum();
    let (logp, ent) = ((0..rows).map(logp).collect(), (0..rows).map(ent).collect());
    (log_p, logp, ent)
}

/// Negative log-probability of the targets [.., K] under logits [.., K*C], summed over K -> [..].
pub fn categorical_loss(logits: &Tensor, classes: usize, targets: &Tensor) -> Tensor {
    let [logp, _] = categorical(logits, classes, 0.0, targets);
    super::linear_combination(&[(&logp, &full(logp.shape(), -1.0, logp.device()))])
}

/// Classes [M, K], as floats, drawn from logits [M, K*C] mixed with `unimix` of the uniform distribution; and the same as
/// one-hot vectors [M, K*C].
pub fn sample_categorical(logits: &Tensor, classes: usize, unimix: f32, draw: Draw) -> [Tensor; 2] {
    let shape = [logits.rows(), logits.width() / classes];
    match logits.device() {
        Device::Cpu => {
            let mut chosen = Buffer::stale(shape.iter().product());
            sample_cpu(logits, classes, unimix, draw, |i, class| chosen[i] = class as f32);
            let chosen = Tensor::new(&shape, chosen);
            let hot = one_hot(&chosen, classes);
            [chosen, hot]
        }
        Device::Gpu(gpu) => {
            let (chosen, hot) = (gpu.empty(&shape), gpu.empty_act(&[shape[0], shape[1] * classes]));
            sample_gpu(gpu, &gpu.act(logits), classes, unimix, draw, Some(&hot), Some(&chosen));
            [chosen, hot]
        }
    }
}

/// Class indices [M, K] -> [M, K*C]; an index outside the classes gives zeros, as in the official code. No gradient.
pub fn one_hot(indices: &Tensor, classes: usize) -> Tensor {
    let shape = [indices.dim(0), indices.width() * classes];
    match indices.device() {
        Device::Cpu => {
            let mut out = Buffer::zeros(indices.len() * classes);
            for (row, &i) in out.chunks_exact_mut(classes).zip(indices.data()) {
                if i >= 0.0 && (i as usize) < classes {
                    row[i as usize] = 1.0;
                }
            }
            Tensor::new(&shape, out)
        }
        Device::Gpu(gpu) => {
            let out = gpu.empty_act(&shape);
            let args: [&dyn Arg; 4] = [&gpu.full(indices), &out.len(), &classes, &out];
            gpu.launch("latent", "one_hot", Grid::elements(out.len()), &args);
            out
        }
    }
}

/// Cross entropy of Bernoulli logits [M, ..] with targets in [0, 1], elementwise and summed over the last axis -> [M].
pub fn binary_loss(logits: &Tensor, targets: &Tensor) -> Tensor {
    assert_eq!(logits.len(), targets.len());
    match logits.device() {
        Device::Cpu => binary_loss_cpu(logits, targets),
        Device::Gpu(gpu) => binary_loss_gpu(gpu, logits, targets),
    }
}

fn binary_loss_gpu(gpu: &'static Gpu, logits: &Tensor, targets: &Tensor) -> Tensor {
    let (rows, n) = (logits.rows(), logits.width());
    let y = gpu.empty(&logits.shape()[..logits.shape().len() - 1]);
    let (kept, targets) = (gpu.act(logits), gpu.full(targets));
    gpu.launch("heads", "binary_loss", Grid::warps(rows), &[&kept, &targets, &rows, &n, &y]);
    if !recording(&[logits]) {
        return y;
    }
    record1(&[logits], y, move |dy, _| {
        let (dy, dx) = (gpu.full(dy), gpu.empty_act(kept.shape()));
        gpu.launch("heads", "binary_grad", Grid::elements(rows * n), &[&kept, &targets, &dy, &rows, &n, &dx]);
        vec![Some(dx)]
    })
}

fn binary_loss_cpu(logits: &Tensor, targets: &Tensor) -> Tensor {
    let width = logits.width();
    let shape = logits.shape()[..logits.shape().len() - 1].to_vec();
    // -t log s(x) - (1 - t) log s(-x) = max(x, 0) - t x + softplus(-|x|), accurate also where t is 1 and x large.
    let (x, t) = (logits.data(), targets.data());
    let mut soft = Buffer::from_slice(x);
    soft.iter_mut().for_each(|x| *x = -x.abs());
    math::softplus_slice(&mut soft);
    let term = |j: usize| (x[j].max(0.0) - t[j] * x[j]) + soft[j];
    let loss: Vec<f32> = (0..logits.rows()).map(|i| (i * width..(i + 1) * width).map(term).sum()).collect();
    let y = Tensor::from_slice(&shape, &loss);
    if !recording(&[logits]) {
        return y;
    }
    let (logits_kept, targets) = (logits.detach(), targets.detach());
    record1(&[logits], y, move |dy, _| {
        // s(x) - t = (1 - t) s(x) - t s(-x), of which one term is 0 where the target is 0 or 1.
        let [mut one, zero] = [1.0, -1.0].map(|sign| {
            let mut p = Buffer::from_slice(logits_kept.data());
            p.iter_mut().for_each(|x| *x *= sign);
            math::sigmoid_slice(&mut p);
            p
        });
        for (i, ((one, zero), t)) in one.iter_mut().zip(zero.iter()).zip(targets.data()).enumerate() {
            *one = dy.data()[i / width] * ((1.0 - t) * *one - t * zero);
        }
        vec![Some(Tensor::new(logits_kept.shape(), one))]
    })
}

/// The probability of 1 under Bernoulli logits. No gradient.
pub fn binary_prob(logits: &Tensor) -> Tensor {
    if let Device::Gpu(gpu) = logits.device() {
        let p = gpu.empty(logits.shape());
        gpu.launch("heads", "binary_prob", Grid::elements(p.len()), &[&gpu.act(logits), &p.len(), &p]);
        return p;
    }
    let mut p = Buffer::from_slice(logits.data());
    math::sigmoid_slice(&mut p);
    Tensor::new(logits.shape(), p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, check_devices, sigmoid, softmax};
    use crate::ops::linear_combination;

    #[test]
    fn log_probability_and_entropy() {
        for (m, k, c, unimix) in [(3, 2, 4, 0.0), (4, 1, 6, 0.05), (0, 1, 2, 0.0)] {
            let chosen: Vec<f32> = (0..m * k).map(|i| (i * 7 % c) as f32).collect();
            let indices = Tensor::from_slice(&[m, k], &chosen);
            let (a, b) = (Tensor::full(&[m], 1.3), Tensor::full(&[m], -0.4));
            let op = |x: &[Tensor]| {
                let device = x[0].device();
                let [logp, ent] = categorical(&x[0], c, unimix, &indices.to(device));
                linear_combination(&[(&logp, &a.to(device)), (&ent, &b.to(device))])
            };
            check(&[&[m, k * c]], op, |x| {
                let u = unimix as f64;
                let p: Vec<f64> = softmax(&x[0], c).iter().map(|p| (1.0 - u) * p + u / c as f64).collect();
                let row = |i: usize| {
                    let choice = |j: usize| {
                        let p = &p[j * c..(j + 1) * c];
                        let ent: f64 = p.iter().map(|p| -p * p.ln()).sum();
                        1.3f32 as f64 * p[chosen[j] as usize].ln() - 0.4f32 as f64 * ent
                    };
                    (i * k..(i + 1) * k).map(choice).sum()
                };
                (0..m).map(row).collect()
            });
        }
    }

    #[test]
    fn groups_that_threads_share() {
        for (m, k, c) in [(5, 2, 16), (3, 3, 43), (2, 1, 300)] {
            let chosen: Vec<f32> = (0..m * k).map(|i| (i * 7 % c) as f32).collect();
            let chosen = Tensor::from_slice(&[m, k], &chosen);
            check_devices(&[&[m, k * c]], |x| {
                let device = x[0].device();
                let [logp, ent] = categorical(&x[0], c, 0.01, &chosen.to(device));
                let [a, b] = [1.0, -0.4].map(|v| full(&[m], v, device));
                linear_combination(&[(&logp, &a), (&ent, &b)])
            });
        }
    }

    #[test]
    fn a_class_that_does_not_exist_adds_nothing() {
        let x = Tensor::from_slice(&[1, 4], &[1.0, 2.0, 3.0, 4.0]);
        let at = |classes: &[f32]| Tensor::from_slice(&[1, classes.len()], classes);
        let loss = categorical_loss(&x, 2, &at(&[-1.0, 1.0]));
        assert_eq!(loss.data(), categorical_loss(&Tensor::from_slice(&[1, 2], &[3.0, 4.0]), 2, &at(&[1.0])).data());
        let missing = Tensor::from_slice(&[2, 1], &[-1.0, 3.0]);
        check(&[&[2, 3]], |x| categorical_loss(&x[0], 3, &missing.to(x[0].device())), |_| vec![0.0; 2]);
    }

    #[test]
    fn a_hopeless_class_has_a_finite_loss_and_gradient() {
        let op = |x: &[Tensor]| {
            let [logp, ent] = categorical(&x[0], 2, 0.0, &Tensor::full(&[1, 1], 1.0));
            let one = Tensor::full(&[1], 1.0);
            linear_combination(&[(&logp, &one), (&ent, &one)])
        };
        let leaf = crate::graph::Leaf::new();
        let x = Tensor::from_slice(&[1, 2], &[0.0, -200.0]).leaf(leaf);
        let y = op(&[x]);
        assert_eq!(y.data(), [-200.0]);
        let mut sink = crate::sink::Sink::new();
        crate::graph::backward(&[(&y, Tensor::full(&[1], 1.0))], &mut sink);
        assert_eq!(sink.finish(&[(leaf, vec![1, 2])])[0].data(), [-1.0, 1.0]);
    }

    #[test]
    fn bernoulli() {
        let targets = Tensor::from_slice(&[2, 3], &[1.0, 0.0, 0.3, 0.997, 0.5, 0.0]);
        check(
            &[&[2, 3]],
            |x| binary_loss(&x[0], &targets.to(x[0].device())),
            |x| {
                let term = |i: usize| {
                    let (t, s) = (targets.data()[i] as f64, sigmoid(x[0][i]));
                    -(t * s.ln() + (1.0 - t) * (1.0 - s).ln())
                };
                (0..2).map(|r| (3 * r..3 * r + 3).map(term).sum()).collect()
            },
        );
    }

    #[test]
    fn bernoulli_that_is_nearly_certain() {
        let (x, t) = ([12.0f32, 16.0, 24.0, -12.0, -24.0], [1.0f32, 1.0, 1.0, 0.0, 0.0]);
        for device in crate::check::devices() {
            let leaf = crate::graph::Leaf::new();
            let column = |x: &[f32]| Tensor::from_slice(&[x.len(), 1], x).to(device);
            let loss = binary_loss(&column(&x).leaf(leaf), &column(&t));
            let mut sink = crate::sink::Sink::new();
            crate::graph::backward(&[(&loss, crate::ops::full(&[x.len()], 1.0, device))], &mut sink);
            let grad = sink.finish(&[(leaf, vec![x.len(), 1])]).remove(0);
            for i in 0..x.len() {
                let rest = (-(x[i] as f64).abs()).exp();
                let close =
                    |got: f32, want: f64| assert!((got as f64 / want - 1.0).abs() < 1e-2, "{x:?}: {got} {want}");
                close(loss.host().data()[i], rest.ln_1p());
                close(grad.host().data()[i], -x[i].signum() as f64 * rest / (1.0 + rest));
            }
        }
    }

    #[test]
    fn samples_with_gumbel_noise_take_the_largest() {
        let logits = Tensor::from_slice(&[2, 3], &[0.0, 1.0, 2.0, 5.0, 0.0, 0.0]);
        let noise = Tensor::from_slice(&[2, 3], &[3.0, 0.0, 0.0, 0.0, 0.0, 6.0]);
        let [chosen, hot] = sample_categorical(&logits, 3, 0.0, Draw::Gumbel(&noise));
        assert_eq!(chosen.data(), [0.0, 2.0]);
        assert_eq!(hot.data(), [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }
}
