//! Normal outputs for continuous actions: bounded, or with a free log standard deviation.

use crate::buffer::Buffer;
use crate::cpu::math;
use crate::graph::{record, recording};
use crate::tensor::{Device, Tensor};

/// How the two raw outputs of a head become mean and standard deviation (official heads.py).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum NormalKind {
    /// `tanh(mean)`, `(max - min) sigmoid(std + 2) + min`.
    Bounded { min: f32, max: f32 },
    /// `mean`, `exp(std)`.
    LogStd,
}

/// Mean and standard deviation from the raw outputs. No gradient.
pub fn normal_params(mean: &Tensor, std: &Tensor, kind: NormalKind) -> [Tensor; 2] {
    let (mut m, mut s) = (Buffer::from_slice(mean.data()), Buffer::from_slice(std.data()));
    match (mean.device(), kind) {
        (Device::Cpu, NormalKind::Bounded { min, max }) => {
            math::tanh_slice(&mut m);
            s.iter_mut().for_each(|x| *x += 2.0);
            math::sigmoid_slice(&mut s);
            s.iter_mut().for_each(|x| *x = (max - min) * *x + min);
        }
        (Device::Cpu, NormalKind::LogStd) => math::exp_slice(&mut s),
    }
    [Tensor::new(mean.shape(), m), Tensor::new(std.shape(), s)]
}

/// Raw outputs [.., A] and the action taken [.., A] -> log-probability and entropy, each summed over A: [..], [..].
pub fn normal(mean: &Tensor, std: &Tensor, kind: NormalKind, action: &Tensor) -> [Tensor; 2] {
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
    // sigmoid(std + 2): not from the deviation, which does not tell it where minimum and maximum are (nearly) the same.
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
    use crate::ops::linear_combination;

    #[test]
    fn log_probability_and_entropy() {
        for (kind, m, a) in
            [(NormalKind::Bounded { min: 0.1, max: 1.0 }, 4, 3), (NormalKind::LogStd, 3, 1), (NormalKind::LogStd, 0, 2)]
        {
            let action = random(&[m, a], 7, 0.7);
            let (p, q) = (Tensor::full(&[m], 0.8), Tensor::full(&[m], 0.5));
            let op = |x: &[Tensor]| {
                let [logp, ent] = normal(&x[0], &x[1], kind, &action);
                linear_combination(&[(&logp, &p), (&ent, &q)])
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
