//! Normal outputs for continuous actions: bounded, or with a free log standard deviation.

use super::noise::{DrawArgs, DrawnRows, standard_normal};
use super::{full, linear_combination};
use crate::buffer::Buffer;
use crate::cpu::math;
use crate::cuda::{Arg, Gpu, Grid};
use crate::graph::{record, recording};
use crate::rng::Rng;
use crate::tensor::{Device, Tensor};

/// How the two raw outputs of a head become mean and standard deviation (official heads.py).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum NormalKind {
    /// `tanh(mean)`, `(max - min) sigmoid(std + 2) + min`.
    Bounded { min: f32, max: f32 },
    /// `mean`, `exp(std)`.
    LogStd,
}

impl NormalKind {
    /// What the kernels of a GPU take: whether it is bounded, and by what.
    fn gpu(self) -> (u32, f32, f32) {
        match self {
            NormalKind::Bounded { min, max } => (1, min, max),
            NormalKind::LogStd => (0, 0.0, 0.0),
        }
    }
}

/// Mean and standard deviation from the raw outputs. No gradient.
pub fn normal_params(mean: &Tensor, std: &Tensor, kind: NormalKind) -> [Tensor; 2] {
    if let Device::Gpu(gpu) = mean.device() {
        let (m, s) = (gpu.empty(mean.shape()), gpu.empty(std.shape()));
        let (bounded, low, high) = kind.gpu();
        let args: [&dyn Arg; 8] = [&gpu.act(mean), &gpu.act(std), &mean.len(), &bounded, &low, &high, &m, &s];
        gpu.launch("heads", "normal_params", Grid::elements(mean.len()), &args);
        return [m, s];
    }
    let (mut m, mut s) = (Buffer::from_slice(mean.data()), Buffer::from_slice(std.data()));
    match kind {
        NormalKind::Bounded { min, max } => {
            math::tanh_slice(&mut m);
            s.iter_mut().for_each(|x| *x += 2.0);
            math::sigmoid_slice(&mut s);
            s.iter_mut().for_each(|x| *x = (max - min) * *x + min);
        }
        NormalKind::LogStd => math::exp_slice(&mut s),
    }
    [Tensor::new(mean.shape(), m), Tensor::new(std.shape(), s)]
}

/// The randomness of a normal sample.
pub enum NormalDraw<'a> {
    /// Standard normal numbers of the shape of the mean.
    Given(&'a Tensor),
    /// Numbers drawn on the way, [rows, A], for a mean of this shape.
    Counter(&'a Rng, &'a DrawnRows),
}

/// Actions `mean + std noise` [.., A] for raw outputs [.., A]. No gradient.
pub fn normal_sample(mean: &Tensor, std: &Tensor, kind: NormalKind, draw: NormalDraw) -> Tensor {
    if let Device::Gpu(gpu) = mean.device() {
        let (y, n, (bounded, low, high)) = (gpu.empty(mean.shape()), mean.len(), kind.gpu());
        let (mean, std) = (gpu.act(mean), gpu.act(std));
        let (noise, draws) = match draw {
            NormalDraw::Given(noise) => (Some(gpu.full(noise)), DrawArgs::none()),
            NormalDraw::Counter(rng, at) => (None, DrawArgs::new(rng, at)),
        };
        let first: [&dyn Arg; 7] = [&mean, &std, &n, &bounded, &low, &high, &noise];
        let args: Vec<&dyn Arg> = first.into_iter().chain(draws.args()).chain([&y as &dyn Arg]).collect();
        gpu.launch("heads", "normal_sample", Grid::elements(n), &args);
        return y;
    }
    let noise = match draw {
        NormalDraw::Given(noise) => noise.detach(),
        NormalDraw::Counter(rng, at) => standard_normal(rng, at, Device::Cpu),
    };
    let [mean, std] = normal_params(mean, std, kind);
    linear_combination(&[(&mean, &full(mean.shape(), 1.0, mean.device())), (&std, &noise)])
}

/// Raw outputs [.., A] and the action taken [.., A] -> log-probability and entropy, each summed over A: [..], [..].
pub fn normal(mean: &Tensor, std: &Tensor, kind: NormalKind, action: &Tensor) -> [Tensor; 2] {
    match mean.device() {
        Device::Cpu => normal_cpu(mean, std, kind, action),
        Device::Gpu(gpu) => normal_gpu(gpu, mean, std, kind, action),
    }
}

fn normal_gpu(gpu: &'static Gpu, mean: &Tensor, std: &Tensor, kind: NormalKind, action: &Tensor) -> [Tensor; 2] {
    let (rows, width) = (mean.rows(), mean.width());
    let (bounded, low, high) = kind.gpu();
    let shape = &mean.shape()[..mean.shape().len() - 1];
    let outputs = vec![gpu.empty(shape), gpu.empty(shape)];
    let (m, s, action) = (gpu.act(mean), gpu.act(std), gpu.full(action));
    let args: [&dyn Arg; 10] = [&m, &s, &action, &rows, &width, &bounded, &low, &high, &outputs[0], &outputs[1]];
    gpu.launch("heads", "normal", Grid::elements(rows), &args);
    if !recording(&[mean, std]) {
        return outputs.try_into().expect("two outputs");
    }
    let outputs = record(&[mean, std], outputs, move |grads, _| {
        let (dm, ds) = (gpu.empty_act(m.shape()), gpu.empty_act(m.shape()));
        let [dlogp, dentropy] = [0, 1].map(|i| grads[i].as_ref().map(|dy| gpu.full(dy)));
        let n = m.len();
        let args: [&dyn Arg; 12] = [&m, &s, &action, &dlogp, &dentropy, &n, &width, &bounded, &low, &high, &dm, &ds];
        gpu.launch("heads", "normal_grad", Grid::elements(n), &args);
        vec![Some(dm), Some(ds)]
    });
    outputs.try_into().expect("two outputs")
}

fn normal_cpu(mean: &Tensor, std: &Tensor, kind: NormalKind, action: &Tensor) -> [Tensor; 2] {
    let [m, s] = normal_params(mean, std, kind);
    let width = mean.width();
    let shape = mean.shape()[..mean.shape().len() - 1].to_vec();
    let half_log_tau = 0.5 * std::f32::consts::TAU.ln();
    let mut log_s = Buffer::from_slice(s.data());
    math::log_slice(&mut log_s);
    let (mut logp, mut ent) = (Buffer::zeros(mean.rows()), Buffer::zeros(mean.rows()));
    for (i, a) in action.data().iter().enumerate() {
        let z = (a - m.data()[i]) / s.data()[i];
        logp[i / width] -= 0.5 * z * z + log_s[i] + half_log_tau;
        ent[i / width] += log_s[i] + half_log_tau + 0.5;
    }
    let outputs = vec![Tensor::new(&shape, logp), Tensor::new(&shape, ent)];
    if !recording(&[mean, std]) {
        return outputs.try_into().expect("two outputs");
    }
    let action = action.detach();
    // sigmoid(std + 2): cannot be recovered from the deviation where minimum and maximum are (nearly) equal.
    let mut q = Buffer::from_slice(std.data());
    if let NormalKind::Bounded { .. } = kind {
        q.iter_mut().for_each(|x| *x += 2.0);
        math::sigmoid_slice(&mut q);
    }
    let outputs = record(&[mean, std], outputs, move |grads, _| {
        let (mut dm, mut ds) = (Buffer::stale(m.len()), Buffer::stale(m.len()));
        let at = |g: &Option<Tensor>, i: usize| g.as_ref().map_or(0.0, |g| g.data()[i / width]);
        for i in 0..m.len() {
            let (mu, sigma) = (m.data()[i], s.data()[i]);
            let z = (action.data()[i] - mu) / sigma;
            let (dlogp, dent) = (at(&grads[0], i), at(&grads[1], i));
            let (dmu, dsigma) = (dlogp * z / sigma, (dlogp * (z * z - 1.0) + dent) / sigma);
            (dm[i], ds[i]) = match kind {
                NormalKind::Bounded { min, max } => (dmu * (1.0 - mu * mu), dsigma * (max - min) * q[i] * (1.0 - q[i])),
                NormalKind::LogStd => (dmu, dsigma * sigma),
            };
        }
        vec![Some(Tensor::new(m.shape(), dm)), Some(Tensor::new(m.shape(), ds))]
    });
    outputs.try_into().expect("two outputs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, random, sigmoid};
    use crate::cuda::test_gpu;
    use crate::ops::linear_combination;

    #[test]
    fn a_gpu_samples_what_the_processor_does() {
        let Some(gpu) = test_gpu() else { return };
        let (mean, std, rng) = (random(&[4, 3], 1, 1.0), random(&[4, 3], 2, 1.0), Rng::new(3, 2002, 9));
        let at = DrawnRows { rows: 1..5, step: 2, steps: 4, width: 3 };
        let noise = standard_normal(&rng, &at, Device::Cpu);
        for kind in [NormalKind::Bounded { min: 0.1, max: 1.0 }, NormalKind::LogStd] {
            let on = |device: Device, draw: NormalDraw| {
                normal_sample(&mean.to(device), &std.to(device), kind, draw).host().data().to_vec()
            };
            let expected = on(Device::Cpu, NormalDraw::Given(&noise));
            assert_eq!(on(Device::Cpu, NormalDraw::Counter(&rng, &at)), expected);
            let device = Device::Gpu(gpu);
            for draw in [NormalDraw::Counter(&rng, &at), NormalDraw::Given(&noise.to(device))] {
                assert!(on(device, draw).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }

    #[test]
    fn log_probability_and_entropy() {
        for (kind, m, a) in
            [(NormalKind::Bounded { min: 0.1, max: 1.0 }, 4, 3), (NormalKind::LogStd, 3, 1), (NormalKind::LogStd, 0, 2)]
        {
            let action = random(&[m, a], 7, 0.7);
            let (p, q) = (Tensor::full(&[m], 0.8), Tensor::full(&[m], 0.5));
            let op = |x: &[Tensor]| {
                let device = x[0].device();
                let [logp, ent] = normal(&x[0], &x[1], kind, &action.to(device));
                linear_combination(&[(&logp, &p.to(device)), (&ent, &q.to(device))])
            };
            check(&[&[m, a], &[m, a]], op, |x| {
                let term = |i: usize| {
                    let (mu, sigma) = match kind {
                        NormalKind::Bounded { min, max } => {
                            let (min, max) = (min as f64, max as f64);
                            (x[0][i].tanh(), (max - min) * sigmoid(x[1][i] + 2.0) + min)
                        }
                        NormalKind::LogStd => (x[0][i], x[1][i].exp()),
                    };
                    let half_log_tau = 0.5 * std::f64::consts::TAU.ln();
                    let z = (action.data()[i] as f64 - mu) / sigma;
                    0.8f32 as f64 * (-0.5 * z * z - sigma.ln() - half_log_tau) + 0.5 * (sigma.ln() + half_log_tau + 0.5)
                };
                (0..m).map(|r| (r * a..(r + 1) * a).map(term).sum()).collect()
            });
        }
    }
}
