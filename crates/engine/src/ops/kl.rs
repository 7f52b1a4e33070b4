//! Kullback-Leibler divergence and entropy of the categorical latents.

use super::latent::{Share, log_mixed, mix, softmax, softmax_grad};
use crate::buffer::Buffer;
use crate::cuda::{Arg, Gpu, Grid};
use crate::graph::{record, record1, recording};
use crate::tensor::{Device, Tensor};

/// KL(p || q) of two sets of logits [.., S*C], each mixed with `unimix` of the uniform distribution, summed
/// over the S latents and raised to at least `free_nats` -> [..].
pub fn kl(p: &Tensor, q: &Tensor, classes: usize, unimix: f32, free_nats: f32) -> Tensor {
    match p.device() {
        Device::Cpu => kl_cpu(p, q, classes, unimix, free_nats),
        Device::Gpu(gpu) => kl_gpu(gpu, p, q, classes, unimix, free_nats),
    }
}

fn kl_gpu(gpu: &'static Gpu, p: &Tensor, q: &Tensor, classes: usize, unimix: f32, free_nats: f32) -> Tensor {
    let kl = Divergence::new(gpu, p, q, classes, unimix, free_nats);
    let y = kl.forward(None, None);
    if !recording(&[p, q]) {
        return y;
    }
    let flows = [p.requires_grad(), q.requires_grad()];
    record1(&[p, q], y, move |dy, _| {
        let dy = gpu.full(dy);
        kl.backward(flows.map(|flow| flow.then_some(&dy)))
    })
}

/// Both KL losses of the world model and the entropies, each summed over the latents, for logits of the posterior and
/// the prior [.., S*C]: `kl(post, prior)` with gradient to the prior alone, the same with gradient to the posterior
/// alone, and the entropies (without gradient) of prior and posterior -> [..] each.
pub fn kl_both(post: &Tensor, prior: &Tensor, classes: usize, unimix: f32, free_nats: f32) -> [Tensor; 4] {
    let Device::Gpu(gpu) = post.device() else {
        return [
            kl(&post.detach(), prior, classes, unimix, free_nats),
            kl(post, &prior.detach(), classes, unimix, free_nats),
            entropy(prior, classes, unimix),
            entropy(post, classes, unimix),
        ];
    };
    let kl = Divergence::new(gpu, post, prior, classes, unimix, free_nats);
    let [of_post, of_prior, second] = [(); 3].map(|()| gpu.empty(&kl.shape));
    let first = kl.forward(Some(&second), Some([&of_post, &of_prior]));
    let mut losses = vec![first, second];
    if recording(&[post, prior]) {
        let flows = [post.requires_grad(), prior.requires_grad()];
        losses = record(&[post, prior], losses, move |grads, _| {
            // The first is for the prior, the second for the posterior.
            let [for_prior, for_post] = [0, 1].map(|i| grads[i].as_ref().map(|dy| gpu.full(dy)));
            kl.backward([for_post.as_ref().filter(|_| flows[0]), for_prior.as_ref().filter(|_| flows[1])])
        });
    }
    let [dynamics, representation] = losses.try_into().unwrap_or_else(|_| unreachable!("two losses"));
    [dynamics, representation, of_prior, of_post]
}

/// KL(p || q) on a GPU, with what its gradient takes.
struct Divergence {
    gpu: &'static Gpu,
    p: Tensor,
    q: Tensor,
    classes: usize,
    unimix: f32,
    free_nats: f32,
    /// The shape of the result.
    shape: Vec<usize>,
    /// The divergence before the free nats.
    raw: Tensor,
}

impl Divergence {
    fn new(gpu: &'static Gpu, p: &Tensor, q: &Tensor, classes: usize, unimix: f32, free_nats: f32) -> Self {
        let shape = p.shape()[..p.shape().len() - 1].to_vec();
        let raw = gpu.empty(&shape);
        Divergence { gpu, p: gpu.act(p), q: gpu.act(q), classes, unimix, free_nats, shape, raw }
    }

    /// The divergence [..], which is written to `second` as well; and the entropies of p and q.
    fn forward(&self, second: Option<&Tensor>, entropies: Option<[&Tensor; 2]>) -> Tensor {
        let Divergence { gpu, p, q, classes, unimix, free_nats, shape, raw } = self;
        let (rows, groups, y) = (p.rows(), p.width() / classes, gpu.empty(shape));
        let Share { lanes, vector } = Share::new(*classes, &[p, q]);
        let [of_p, of_q] = [0, 1].map(|i| entropies.map(|both| both[i]));
        #[rustfmt::skip] // logits; sizes; constants; results
        let args: [&dyn Arg; 14] = [
            p, q,
            &rows, &groups, classes, &lanes, &vector,
            unimix, free_nats,
            raw, &y, &second, &of_p, &of_q,
        ];
        gpu.launch("latent", "kl", Grid::warps(rows), &args);
        y
    }

    /// The gradients of p and q, each where the gradient of the divergence is given that flows there.
    fn backward(&self, [for_p, for_q]: [Option<&Tensor>; 2]) -> Vec<Option<Tensor>> {
        let Divergence { gpu, p, q, classes, unimix, free_nats, raw, .. } = self;
        let (rows, groups) = (p.rows(), p.width() / classes);
        let [dp, dq] = [for_p, for_q].map(|dy| dy.map(|_| gpu.empty_act(p.shape())));
        let all: Vec<&Tensor> = [p, q].into_iter().chain(&dp).chain(&dq).collect();
        let share = Share::new(*classes, &all);
        #[rustfmt::skip] // logits; what flows in; sizes; constants; results
        let args: [&dyn Arg; 14] = [
            p, q,
            raw, &for_p, &for_q,
            &rows, &groups, classes, &share.lanes, &share.vector,
            unimix, free_nats,
            &dp, &dq,
        ];
        gpu.launch("latent", "kl_grad", share.groups(rows * groups), &args);
        vec![dp, dq]
    }
}

fn kl_cpu(p: &Tensor, q: &Tensor, classes: usize, unimix: f32, free_nats: f32) -> Tensor {
    let (soft_p, soft_q) = (softmax(p, classes), softmax(q, classes));
    let (mixed_p, mixed_q) = (mix(&soft_p, classes, unimix), mix(&soft_q, classes, unimix));
    let width = p.width();
    let logs = [log_mixed(p, &mixed_p, classes, unimix), log_mixed(q, &mixed_q, classes, unimix)];
    let (log_ratio, raw) = divergence_cpu(&mixed_p, logs, width);
    // Without free nats the official code takes no maximum at all. NaN stays NaN.
    let clipped: Vec<f32> = raw.iter().map(|&x| if free_nats > 0.0 && x < free_nats { free_nats } else { x }).collect();
    let shape = p.shape()[..p.shape().len() - 1].to_vec();
    let y = Tensor::from_slice(&shape, &clipped);
    if !recording(&[p, q]) {
        return y;
    }
    let (flow_p, flow_q, full) = (p.requires_grad(), q.requires_grad(), p.shape().to_vec());
    record1(&[p, q], y, move |dy, _| {
        let flow = |row: usize| if free_nats > 0.0 && raw[row] < free_nats { 0.0 } else { dy.data()[row] };
        // With l the logs of the mixed probabilities, dKL/dl_p = p (log p/q - KL) and dKL/dl_q = q - p; dividing by
        // p and q gives the gradients of the mixed probabilities, up to constants that softmax_grad removes.
        let grad_p = flow_p.then(|| {
            let mut g = Buffer::from_slice(&log_ratio);
            scale(&mut g, width, flow);
            softmax_grad(&soft_p, classes, 1.0 - unimix, &mut g);
            Tensor::new(&full, g)
        });
        let grad_q = flow_q.then(|| {
            let mut g = Buffer::stale(mixed_q.len());
            if unimix > 0.0 {
                g.iter_mut().zip(mixed_p.iter().zip(mixed_q.iter())).for_each(|(g, (p, q))| *g = -p / q);
                softmax_grad(&soft_q, classes, 1.0 - unimix, &mut g);
            } else {
                // The quotient and the softmax gradient cancel; by themselves they may overflow.
                g.iter_mut().zip(mixed_p.iter().zip(mixed_q.iter())).for_each(|(g, (p, q))| *g = q - p);
            }
            scale(&mut g, width, flow);
            Tensor::new(&full, g)
        });
        vec![grad_p, grad_q]
    })
}

fn scale(grad: &mut [f32], width: usize, factor: impl Fn(usize) -> f32) {
    for (row, g) in grad.chunks_exact_mut(width).enumerate() {
        let f = factor(row);
        g.iter_mut().for_each(|x| *x *= f);
    }
}

/// log(p / q) elementwise, and its p-weighted sum over each row of `width`.
fn divergence_cpu(p: &[f32], [mut ratio, log_q]: [Buffer; 2], width: usize) -> (Buffer, Vec<f32>) {
    ratio.iter_mut().zip(log_q.iter()).for_each(|(a, b)| *a -= b);
    let sum = |(p, r): (&[f32], &[f32])| p.iter().zip(r).map(|(p, r)| p * r).sum();
    let sums = p.chunks_exact(width).zip(ratio.chunks_exact(width)).map(sum).collect();
    (ratio, sums)
}

/// Entropy of logits [.., S*C] mixed with `unimix` of the uniform distribution, summed over S -> [..]. No gradient.
pub fn entropy(logits: &Tensor, classes: usize, unimix: f32) -> Tensor {
    if let Device::Gpu(gpu) = logits.device() {
        let (logits, rows, groups) = (gpu.act(logits), logits.rows(), logits.width() / classes);
        let y = gpu.empty(&logits.shape()[..logits.shape().len() - 1]);
        let (Share { lanes, vector }, none) = (Share::new(classes, &[&logits]), None::<&Tensor>);
        let args: [&dyn Arg; 10] = [&logits, &none, &rows, &groups, &classes, &lanes, &vector, &unimix, &none, &y];
        gpu.launch("latent", "categorical", Grid::warps(rows), &args);
        return y;
    }
    let p = mix(&softmax(logits, classes), classes, unimix);
    let log_p = log_mixed(logits, &p, classes, unimix);
    let width = logits.width();
    let sum = |(p, l): (&[f32], &[f32])| -p.iter().zip(l).map(|(p, l)| if *p > 0.0 { p * l } else { 0.0 }).sum::<f32>();
    let sums: Vec<f32> = p.chunks_exact(width).zip(log_p.chunks_exact(width)).map(sum).collect();
    Tensor::from_slice(&logits.shape()[..logits.shape().len() - 1], &sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check_devices, check_scaled, random, softmax};
    use crate::ops::{full, linear_combination};

    fn mixed(x: &[f64], classes: usize, unimix: f64) -> Vec<f64> {
        softmax(x, classes).into_iter().map(|p| (1.0 - unimix) * p + unimix / classes as f64).collect()
    }

    fn reference(x: &[Vec<f64>], classes: usize, width: usize, unimix: f64) -> Vec<f64> {
        let (p, q) = (mixed(&x[0], classes, unimix), mixed(&x[1], classes, unimix));
        let terms: Vec<f64> = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).collect();
        terms.chunks(width).map(|row| row.iter().sum()).collect()
    }

    #[test]
    fn divergence_and_gradients() {
        for (m, s, c) in [(3, 2, 4), (2, 1, 7), (5, 3, 1), (0, 2, 3)] {
            let shape = [m, s * c];
            let op = |x: &[Tensor]| kl(&x[0], &x[1], c, 0.01, 0.0);
            check_scaled(&[&shape, &shape], 1.5, op, |x| reference(x, c, s * c, 0.01f32 as f64));
            let op = |x: &[Tensor]| kl(&x[0], &x[1], c, 0.0, 0.0);
            check_scaled(&[&shape, &shape], 1.5, op, |x| reference(x, c, s * c, 0.0));
        }
    }

    #[test]
    fn free_nats_are_a_floor_without_gradient() {
        let op = |x: &[Tensor]| kl(&x[0], &x[1], 4, 0.01, 0.5);
        let floor = |x: &[Vec<f64>]| reference(x, 4, 4, 0.01f32 as f64).into_iter().map(|k| k.max(0.5)).collect();
        check_scaled(&[&[6, 4], &[6, 4]], 0.8, op, floor);
    }

    /// The pair is what its parts are, on every device, with gradients to either side.
    #[test]
    fn both_at_once() {
        for (m, s, c, free) in [(3, 2, 5, 0.0), (4, 3, 16, 2.0), (2, 2, 300, 0.5)] {
            let weights = random(&[m], 7, 1.0);
            check_devices(&[&[m, s * c], &[m, s * c]], |x| {
                let device = x[0].device();
                let [dynamics, representation, of_prior, of_post] = kl_both(&x[0], &x[1], c, 0.01, free);
                let parts = [
                    kl(&x[0].detach(), &x[1].detach(), c, 0.01, free),
                    entropy(&x[1].detach(), c, 0.01),
                    entropy(&x[0].detach(), c, 0.01),
                ];
                for (a, b) in [&dynamics, &of_prior, &of_post].into_iter().zip(&parts) {
                    assert!(a.host().data().iter().zip(b.host().data()).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs()));
                }
                assert_eq!(dynamics.host().data(), representation.host().data());
                let [one, half] = [full(&[m], 1.0, device), weights.to(device)];
                linear_combination(&[(&dynamics, &one), (&representation, &half), (&of_prior, &half), (&of_post, &one)])
            });
        }
    }

    #[test]
    fn entropy_of_uniform_logits_is_the_log_of_the_classes() {
        let h = entropy(&Tensor::zeros(&[2, 6]), 3, 0.01);
        assert!((h.data()[0] - 2.0 * 3f32.ln()).abs() < 1e-6);
    }
}
