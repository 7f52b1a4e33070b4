//! The categorical latent: mixes the prediction with a uniform distribution, samples one-hot vectors, and
//! passes gradients straight through to the probabilities.

use super::noise::{DrawArgs, DrawnRows, uniform};
use crate::buffer::Buffer;
use crate::cpu::softmax::softmax_rows;
use crate::cpu::{math, sample};
use crate::cuda::{Arg, Gpu, Grid, at_once};
use crate::graph::{record1, recording};
use crate::rng::Rng;
use crate::tensor::{Device, Tensor};

/// The randomness of a sample.
pub enum Draw<'a> {
    /// Gumbel noise [M, S*C]: the class of the largest log-probability plus noise, ties to the lowest index.
    Gumbel(&'a Tensor),
    /// A uniform number per latent [M, S]: the class whose share of the unit interval it falls in.
    Uniform(&'a Tensor),
    /// The same with numbers drawn on the way: `width` of the rows is S.
    Counter(&'a Rng, &'a DrawnRows),
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
            let y = gpu.empty_act(logits.shape());
            sample_gpu(gpu, &gpu.act(logits), classes, unimix, draw, Some(&y), None);
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
            let (kept, groups) = (gpu.act(logits), logits.len() / classes);
            record1(&[logits], y, move |dy, _| {
                let (dy, dx) = (gpu.act(dy), gpu.empty_act(&shape));
                let share = Share::new(classes, &[&kept, &dy, &dx]);
                let Share { lanes, vector, .. } = share;
                let args: [&dyn Arg; 8] = [&kept, &dy, &groups, &classes, &lanes, &vector, &unimix, &dx];
                gpu.launch("latent", "mixed_grad", share.groups(groups), &args);
                vec![Some(dx)]
            })
        }
    }
}

/// How the threads of a GPU share groups of classes (kernels/latent.cu).
pub(super) struct Share {
    /// Threads of a group, a power of two.
    pub lanes: usize,
    /// Classes that may be read at a time, or 0.
    pub vector: usize,
}

impl Share {
    /// For groups of `classes` numbers in all of `tensors`.
    pub fn new(classes: usize, tensors: &[&Tensor]) -> Share {
        let vector = match at_once(classes, tensors) {
            each @ (4 | 8) => each,
            _ => 0,
        };
        let each = if vector == 4 { 4 } else { 8 };
        Share { lanes: classes.div_ceil(each).next_power_of_two().min(32), vector }
    }

    /// The threads of `n` groups.
    pub fn groups(&self, n: usize) -> Grid {
        Grid::elements(n * self.lanes)
    }
}

/// Draws a class for each group of logits, which are an activation: as one-hot vectors (an activation), as indices, or both.
pub(super) fn sample_gpu(
    gpu: &'static Gpu,
    logits: &Tensor,
    classes: usize,
    unimix: f32,
    draw: Draw,
    one_hot: Option<&Tensor>,
    index: Option<&Tensor>,
) {
    let (noise, kind, draws) = match draw {
        Draw::Uniform(noise) => (Some(gpu.full(noise)), 0u32, DrawArgs::none()),
        Draw::Gumbel(noise) => (Some(gpu.full(noise)), 1, DrawArgs::none()),
        Draw::Counter(rng, at) => (None, 2, DrawArgs::new(rng, at)),
    };
    let groups = logits.len() / classes;
    let share = Share::new(classes, &[logits].into_iter().chain(one_hot).collect::<Vec<_>>());
    let first: [&dyn Arg; 3] = [logits, &noise, &kind];
    let last: [&dyn Arg; 7] = [&groups, &classes, &share.lanes, &share.vector, &unimix, &one_hot, &index];
    let args: Vec<&dyn Arg> = first.into_iter().chain(draws.args()).chain(last).collect();
    gpu.launch("latent", "sample", share.groups(groups), &args);
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
    let drawn;
    let draw = match draw {
        Draw::Counter(rng, at) => {
            drawn = uniform(rng, at, Device::Cpu);
            Draw::Uniform(&drawn)
        }
        given => given,
    };
    match draw {
        Draw::Counter(..) => unreachable!("drawn above"),
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
    use crate::check::check_devices;
    use crate::check::{self, assert_close};
    use crate::cuda::{Precision, test_gpu_in};
    use crate::graph::{Leaf, backward};
    use crate::ops::{full, linear_combination};
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

    /// Groups of any size, alone and shared by threads, with each kind of noise; bfloat16 keeps logits as coarse as these.
    #[test]
    fn a_gpu_draws_the_same_classes() {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let Some(gpu) = test_gpu_in(precision) else { return };
            for (m, s, c) in [(7, 3, 2), (5, 2, 4), (9, 4, 16), (3, 2, 24), (4, 1, 43), (2, 1, 300), (0, 2, 3)] {
                let logits: Vec<f32> =
                    check::random(&[m, s * c], 5, 2.0).data().iter().map(|x| x.round() / 4.0).collect();
                let logits = Tensor::from_slice(&[m, s * c], &logits);
                let at = DrawnRows { rows: 2..2 + m, step: 1, steps: 3, width: s };
                let rng = Rng::new(7, 2000, 5);
                let uniform = uniform(&rng, &at, Device::Cpu);
                let gumbel = check::random(&[m, s * c], 6, 1.0);
                let drawn =
                    |draw: Draw, device: Device| latent(&logits.to(device), c, 0.01, draw).host().data().to_vec();
                let cpu = drawn(Draw::Uniform(&uniform), Device::Cpu);
                let device = Device::Gpu(gpu);
                assert_eq!(drawn(Draw::Uniform(&uniform.to(device)), device), cpu, "{c} classes in {precision:?}");
                assert_eq!(drawn(Draw::Counter(&rng, &at), device), cpu);
                assert_eq!(drawn(Draw::Counter(&rng, &at), Device::Cpu), cpu);
                let expected = drawn(Draw::Gumbel(&gumbel), Device::Cpu);
                assert_eq!(drawn(Draw::Gumbel(&gumbel.to(device)), device), expected);
            }
        }
    }

    #[test]
    fn gradients_on_a_gpu() {
        for (m, s, c) in [(7, 3, 3), (9, 4, 16), (2, 1, 300)] {
            let noise = Tensor::full(&[m, s], 0.5);
            // The value is a sample, which may differ in bfloat16: only the gradient is compared.
            check_devices(&[&[m, s * c]], |x| {
                let y = latent(&x[0], c, 0.01, Draw::Uniform(&noise.to(x[0].device())));
                let [one, minus] = [1.0, -1.0].map(|v| full(y.shape(), v, y.device()));
                linear_combination(&[(&y, &one), (&y.detach(), &minus)])
            });
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
