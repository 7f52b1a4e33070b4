//! The categorical latent: mixes the prediction with a uniform distribution, samples one-hot vectors, and
//! passes gradients straight through to the probabilities.

use crate::buffer::Buffer;
use crate::cpu::softmax::softmax_rows;
use crate::cpu::{math, sample};
use crate::cuda::{Arg, Gpu, Grid};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// The randomness of a sample.
pub enum Draw<'a> {
    /// Gumbel noise [M, S*C]: the class of the largest log-probability plus noise, ties to the lowest index.
    Gumbel(&'a Tensor),
    /// A uniform number per latent [M, S]: the class whose share of the unit interval it falls in.
    Uniform(&'a Tensor),
}

/// logits [.., S*C] -> one-hot samples [.., S*C] of `(1 - unimix) softmax(logits) + unimix / C`.
/// The gradient is that of the probabilities (official outs.py, `OneHot`).
pub fn latent(logits: &Tensor, classes: usize, unimix: f32, draw: Draw) -> Tensor {
    let y = match logits.device() {
        Device::Cpu => {
            let mut y = Buffer::zeros(logits.len());
            sample_cpu(logits, classes, unimix, draw, |i, class| y[i * classes + class] = 1.0);
            Tensor::new(logits.shape(), y)
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty(logits.shape());
            sample_gpu(gpu, logits, classes, unimix, draw, Some(&y), None);
            y
        }
    };
    if !recording(&[logits]) {
        return y;
    }
    let shape = logits.shape().to_vec();
    match logits.device() {
        Device::Cpu => {
            let soft = softmax(logits, classes);
            record1(&[logits], y, move |dy, _| {
                let mut dx = Buffer::from_slice(dy.data());
                softmax_grad(&soft, classes, 1.0 - unimix, &mut dx);
                vec![Some(Tensor::new(&shape, dx))]
            })
        }
        Device::Gpu(gpu) => {
            let (kept, groups) = (logits.detach(), logits.len() / classes);
            record1(&[logits], y, move |dy, _| {
                let dx = gpu.empty(&shape);
                let args: [&dyn Arg; 6] = [&kept, dy, &groups, &classes, &unimix, &dx];
                gpu.launch("latent", "mixed_grad", Grid::elements(groups), &args);
                vec![Some(dx)]
            })
        }
    }
}

/// Draws a class for each group of logits: as one-hot vectors, as indices, or both.
pub(super) fn sample_gpu(
    gpu: &'static Gpu,
    logits: &Tensor,
    classes: usize,
    unimix: f32,
    draw: Draw,
    one_hot: Option<&Tensor>,
    index: Option<&Tensor>,
) {
    let (noise, gumbel) = match draw {
        Draw::Gumbel(noise) => (noise, 1u32),
        Draw::Uniform(noise) => (noise, 0),
    };
    let groups = logits.len() / classes;
    let args: [&dyn Arg; 8] = [logits, noise, &gumbel, &groups, &classes, &unimix, &one_hot, &index];
    gpu.launch("latent", "sample", Grid::elements(groups), &args);
}

/// Softmax over groups of `classes` values.
pub(super) fn softmax(logits: &Tensor, classes: usize) -> Buffer {
    let mut p = Buffer::from_slice(logits.data());
    softmax_rows(&mut p, classes, &mut []);
    p
}

/// Turns the gradient of softmax probabilities, in place, into `scale` times that of their logits.
pub(super) fn softmax_grad(soft: &[f32], classes: usize, scale: f32, grad: &mut [f32]) {
    for (s, g) in soft.chunks_exact(classes).zip(grad.chunks_exact_mut(classes)) {
        let mean: f32 = s.iter().zip(g.iter()).map(|(s, g)| s * g).sum();
        s.iter().zip(g.iter_mut()).for_each(|(s, g)| *g = scale * s * (*g - mean));
    }
}

/// `(1 - unimix) p + unimix / classes`.
pub(super) fn mix(p: &[f32], classes: usize, unimix: f32) -> Buffer {
    let mut q = Buffer::from_slice(p);
    if unimix > 0.0 {
        q.iter_mut().for_each(|x| *x = (1.0 - unimix) * *x + unimix / classes as f32);
    }
    q
}

/// Logarithms of the mixed probabilities `p` of `logits`: finite where a probability underflows, too.
pub(super) fn log_mixed(logits: &Tensor, p: &[f32], classes: usize, unimix: f32) -> Buffer {
    if unimix > 0.0 {
        let mut log_p = Buffer::from_slice(p);
        math::log_slice(&mut log_p);
        return log_p;
    }
    let mut log_p = Buffer::from_slice(logits.data());
    let mut sums = Buffer::stale(log_p.len() / classes);
    softmax_rows(&mut log_p, classes, &mut sums);
    log_p.copy_from_slice(logits.data());
    for (row, sum) in log_p.chunks_exact_mut(classes).zip(sums.iter()) {
        row.iter_mut().for_each(|x| *x -= sum);
    }
    log_p
}

/// Calls `f(group, class)` with a class for each group of logits.
pub(super) fn sample_cpu(logits: &Tensor, classes: usize, unimix: f32, draw: Draw, mut f: impl FnMut(usize, usize)) {
    let mixed = || mix(&softmax(logits, classes), classes, unimix);
    match draw {
        Draw::Uniform(u) if classes <= sample::NARROW => {
            sample::sample_classes(logits.data(), classes, unimix, u.data(), f);
        }
        Draw::Uniform(u) => {
            let groups = mixed();
            let groups = groups.chunks_exact(classes).zip(u.data()).enumerate();
            groups.for_each(|(i, (p, &u))| f(i, quantile(p, u)));
        }
        Draw::Gumbel(noise) => {
            // Log-probabilities and logits differ by a constant a row; where nothing is mixed in, the logits
            // themselves keep ties and order exactly as given.
            let mut x = if unimix > 0.0 { mixed() } else { Buffer::from_slice(logits.data()) };
            if unimix > 0.0 {
                math::log_slice(&mut x);
            }
            x.iter_mut().zip(noise.data()).for_each(|(x, n)| *x += n);
            x.chunks_exact(classes).enumerate().for_each(|(i, row)| f(i, argmax(row)));
        }
    }
}

/// Index of the largest value, the lowest among ties.
pub(super) fn argmax(xs: &[f32]) -> usize {
    (1..xs.len()).fold(0, |best, i| if xs[i] > xs[best] { i } else { best })
}

/// The class in whose share of the total `u` in (0, 1) falls.
pub(super) fn quantile(p: &[f32], u: f32) -> usize {
    let target = u * p.iter().sum::<f32>();
    let mut sum = 0.0;
    let below = |x: &&f32| {
        sum += **x;
        sum <= target
    };
    p.iter().take_while(below).count().min(p.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{self, assert_close};
    use crate::graph::{Leaf, backward};
    use crate::rng::Rng;
    use crate::sink::Sink;

    /// The straight-through gradient is that of the mixed probabilities.
    #[test]
    fn gradient_is_that_of_the_probabilities() {
        let (shape, classes, unimix) = ([3, 10], 5, 0.01);
        let x = check::random(&shape, 1, 1.5);
        let noise = check::random(&shape, 2, 1.0);
        let weights = check::random(&shape, 3, 1.0);
        let leaf = Leaf::new();
        let y = latent(&x.leaf(leaf), classes, unimix, Draw::Gumbel(&noise));
        let mut sink = Sink::new();
        backward(&[(&y, weights.clone())], &mut sink);
        let got = sink.finish(&[(leaf, shape.to_vec())]).remove(0);

        let exact: Vec<f64> = x.data().iter().map(|&v| v as f64).collect();
        let total = |x: &[f64]| -> f64 {
            let p = check::softmax(x, classes);
            let mixed = p.iter().map(|p| (1.0 - unimix as f64) * p + unimix as f64 / classes as f64);
            mixed.zip(weights.data()).map(|(p, &w)| p * w as f64).sum()
        };
        let slope = |i: usize| {
            let (mut a, mut b) = (exact.clone(), exact.clone());
            a[i] += 1e-5;
            b[i] -= 1e-5;
            (total(&a) - total(&b)) / 2e-5
        };
        let expected: Vec<f64> = (0..exact.len()).map(slope).collect();
        let got: Vec<f64> = got.data().iter().map(|&v| v as f64).collect();
        assert_close("latent gradient", &got, &expected, 1e-4);
    }

    #[test]
    fn both_draws_follow_the_mixed_distribution() {
        let (m, classes, unimix) = (40_000, 3, 0.3);
        let logits: Vec<f32> = [1.0, -1.0, 0.5].repeat(m);
        let logits = Tensor::from_slice(&[m, classes], &logits);
        let mut u = vec![0.0; m * classes];
        Rng::new(0, 0, 0).uniform(0, &mut u);
        let gumbel: Vec<f32> = u.iter().map(|u| -(-u.ln()).ln()).collect();
        let gumbel = Tensor::from_slice(&[m, classes], &gumbel);
        let uniform = Tensor::from_slice(&[m, 1], &u[..m]);
        let expected = check::softmax(&[1.0, -1.0, 0.5], 3).into_iter().map(|p| 0.7 * p + 0.1);
        let expected: Vec<f64> = expected.collect();
        for draw in [Draw::Gumbel(&gumbel), Draw::Uniform(&uniform)] {
            let y = latent(&logits, classes, unimix, draw);
            for c in 0..classes {
                let share = y.data().iter().skip(c).step_by(classes).sum::<f32>() / m as f32;
                assert!((share as f64 - expected[c]).abs() < 0.01, "class {c}: {share} of {}", expected[c]);
            }
        }
    }

    #[test]
    fn ties_go_to_the_lowest_index_and_the_ends_of_the_interval_stay_inside() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(quantile(&[0.5, 0.5], 0.999_999_9), 1);
        assert_eq!(quantile(&[0.5, 0.5, 0.0], 1.0), 2);
        assert_eq!(quantile(&[0.5, 0.5], 1e-7), 0);
    }
}
