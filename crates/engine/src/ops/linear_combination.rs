//! Elementwise sums with constant coefficients: the glue between losses and their weights.

use crate::buffer::Buffer;
use crate::cuda::{Gpu, Grid};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// The sum over all terms of `x * c` elementwise, where `c` is a constant of the shape of `x`.
pub fn linear_combination(terms: &[(&Tensor, &Tensor)]) -> Tensor {
    let shape = terms[0].0.shape().to_vec();
    assert!(terms.iter().all(|(x, c)| x.shape() == shape && c.shape() == shape), "terms of one shape {shape:?}");
    let y = match terms[0].0.device() {
        Device::Cpu => {
            let mut y = Buffer::zeros(shape.iter().product());
            for (x, c) in terms {
                y.iter_mut().zip(x.data().iter().zip(c.data())).for_each(|(y, (x, c))| *y += x * c);
            }
            Tensor::new(&shape, y)
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty(&shape);
            terms.iter().enumerate().for_each(|(i, (x, c))| multiply(gpu, x, c, &y, i > 0));
            y
        }
    };
    let inputs: Vec<&Tensor> = terms.iter().map(|(x, _)| *x).collect();
    if !recording(&inputs) {
        return y;
    }
    let kept: Vec<(bool, Tensor)> = terms.iter().map(|(x, c)| (x.requires_grad(), c.detach())).collect();
    record1(&inputs, y, move |dy, _| kept.iter().map(|(flow, c)| flow.then(|| product(dy, c))).collect())
}

/// `y = a b` elementwise, or `y += a b`.
fn multiply(gpu: &'static Gpu, a: &Tensor, b: &Tensor, y: &Tensor, accumulate: bool) {
    gpu.launch("elementwise", "multiply", Grid::elements(y.len()), &[a, b, y, &y.len(), &(accumulate as u32)]);
}

/// Elementwise product, no gradient.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    match a.device() {
        Device::Cpu => {
            let mut y = Buffer::from_slice(a.data());
            y.iter_mut().zip(b.data()).for_each(|(y, b)| *y *= b);
            Tensor::new(a.shape(), y)
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty(a.shape());
            multiply(gpu, a, b, &y, false);
            y
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;

    #[test]
    fn values_and_gradients() {
        let (a, b) = (Tensor::from_slice(&[3], &[1.0, -2.0, 0.5]), Tensor::from_slice(&[3], &[0.0, 4.0, 1.0]));
        check(
            &[&[3], &[3]],
            |x| linear_combination(&[(&x[0], &a.to(x[0].device())), (&x[1], &b.to(x[0].device()))]),
            |x| (0..3).map(|i| x[0][i] * a.data()[i] as f64 + x[1][i] * b.data()[i] as f64).collect(),
        );
    }
}
