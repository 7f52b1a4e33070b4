//! Elementwise sums with constant coefficients: the glue between losses and their weights.

use crate::buffer::Buffer;
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// The sum over all terms of `x * c` elementwise, where `c` is a constant of the shape of `x`.
pub fn linear_combination(terms: &[(&Tensor, &Tensor)]) -> Tensor {
    let shape = terms[0].0.shape().to_vec();
    assert!(terms.iter().all(|(x, c)| x.shape() == shape && c.shape() == shape), "terms of one shape {shape:?}");
    let mut y = Buffer::zeros(shape.iter().product());
    match terms[0].0.device() {
        Device::Cpu => {
            for (x, c) in terms {
                y.iter_mut().zip(x.data().iter().zip(c.data())).for_each(|(y, (x, c))| *y += x * c);
            }
        }
    }
    let y = Tensor::new(&shape, y);
    let inputs: Vec<&Tensor> = terms.iter().map(|(x, _)| *x).collect();
    if !recording(&inputs) {
        return y;
    }
    let kept: Vec<(bool, Tensor)> = terms.iter().map(|(x, c)| (x.requires_grad(), c.detach())).collect();
    record1(&inputs, y, move |dy, _| kept.iter().map(|(flow, c)| flow.then(|| product(dy, c))).collect())
}

/// Elementwise product, no gradient.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let mut y = Buffer::from_slice(a.data());
    y.iter_mut().zip(b.data()).for_each(|(y, b)| *y *= b);
    Tensor::new(a.shape(), y)
}

/// Multiplies every row of x [N, ...] with its factor [N]. No gradient flows to the factors.
pub fn scale_rows(x: &Tensor, factors: &[f32]) -> Tensor {
    let width = x.len() / factors.len().max(1);
    let mut c = Buffer::stale(x.len());
    for (row, f) in c.chunks_exact_mut(width.max(1)).zip(factors) {
        row.fill(*f);
    }
    linear_combination(&[(x, &Tensor::new(x.shape(), c))])
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
            |x| linear_combination(&[(&x[0], &a), (&x[1], &b)]),
            |x| (0..3).map(|i| x[0][i] * a.data()[i] as f64 + x[1][i] * b.data()[i] as f64).collect(),
        );
        check(
            &[&[2, 3]],
            |x| scale_rows(&x[0], &[2.0, -1.0]),
            |x| (0..6).map(|i| x[0][i] * [2.0, -1.0][i / 3]).collect(),
        );
    }
}
