//! The total loss: a weighted sum of means.

use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// The sum over all terms of `scale * mean(x)` -> a scalar.
pub fn weighted_mean(terms: &[(&Tensor, f32)]) -> Tensor {
    let mean = |x: &Tensor| match x.device() {
        // In float64: a mean over many steps must not depend on how they are summed.
        Device::Cpu => x.data().iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64,
    };
    let total: f64 = terms.iter().map(|(x, scale)| *scale as f64 * mean(x)).sum();
    let y = Tensor::scalar(total as f32);
    let inputs: Vec<&Tensor> = terms.iter().map(|(x, _)| *x).collect();
    if !recording(&inputs) {
        return y;
    }
    let kept: Vec<(bool, Vec<usize>, f32)> =
        terms.iter().map(|(x, s)| (x.requires_grad(), x.shape().to_vec(), s / x.len() as f32)).collect();
    record1(&inputs, y, move |dy, _| {
        kept.iter().map(|(flow, shape, s)| flow.then(|| Tensor::full(shape, dy.item() * s))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;

    #[test]
    fn value_and_gradient() {
        check(
            &[&[2, 3], &[5]],
            |x| weighted_mean(&[(&x[0], 0.3), (&x[1], 2.0)]),
            |x| {
                let mean = |v: &Vec<f64>| v.iter().sum::<f64>() / v.len() as f64;
                vec![0.3f32 as f64 * mean(&x[0]) + 2.0 * mean(&x[1])]
            },
        );
    }
}
