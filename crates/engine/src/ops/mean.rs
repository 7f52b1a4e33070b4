//! The total loss: a weighted sum of means.

use crate::cuda::Grid;
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// The sum over all terms of `scale * mean(x)` -> a scalar.
pub fn weighted_mean(terms: &[(&Tensor, f32)]) -> Tensor {
    let y = match terms[0].0.device() {
        // In float64: a mean over many steps must not depend on how they are summed.
        Device::Cpu => {
            let mean = |x: &Tensor| x.data().iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64;
            Tensor::scalar(terms.iter().map(|(x, scale)| *scale as f64 * mean(x)).sum::<f64>() as f32)
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty(&[]);
            for (i, (x, scale)) in terms.iter().enumerate() {
                let accumulate = (i > 0) as u32;
                gpu.launch(
                    "elementwise",
                    "weighted_mean",
                    Grid::blocks(1, 256),
                    &[*x, &x.len(), scale, &y, &accumulate],
                );
            }
            y
        }
    };
    let inputs: Vec<&Tensor> = terms.iter().map(|(x, _)| *x).collect();
    if !recording(&inputs) {
        return y;
    }
    let kept: Vec<(bool, Vec<usize>, f32)> =
        terms.iter().map(|(x, s)| (x.requires_grad(), x.shape().to_vec(), s / x.len() as f32)).collect();
    record1(&inputs, y, move |dy, _| {
        let grad = |shape: &[usize], scale: f32| match dy.device() {
            Device::Cpu => Tensor::full(shape, dy.item() * scale),
            Device::Gpu(gpu) => {
                let dx = gpu.empty(shape);
                gpu.launch("elementwise", "fill_from", Grid::elements(dx.len()), &[&dx, dy, &scale, &dx.len()]);
                dx
            }
        };
        kept.iter().map(|(flow, shape, scale)| flow.then(|| grad(shape, *scale))).collect()
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
