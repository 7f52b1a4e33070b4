//! Elementwise sums with constant coefficients: the glue between losses and their weights.

use crate::buffer::Buffer;
use crate::cuda::{Arg, Gpu, Grid, Table};
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
            for (i, terms) in terms.chunks(TERMS).enumerate() {
                let pairs: Vec<[Tensor; 2]> = terms.iter().map(|(x, c)| [gpu.full(x), gpu.full(c)]).collect();
                let args: [&dyn Arg; 5] = [&table(&pairs), &terms.len(), &y.len(), &((i > 0) as u32), &y];
                gpu.launch("elementwise", "sum_of_products", Grid::elements(y.len()), &args);
            }
            y
        }
    };
    let inputs: Vec<&Tensor> = terms.iter().map(|(x, _)| *x).collect();
    if !recording(&inputs) {
        return y;
    }
    let kept: Vec<(bool, Tensor)> = terms.iter().map(|(x, c)| (x.requires_grad(), c.detach())).collect();
    record1(&inputs, y, move |dy, _| match dy.device() {
        Device::Cpu => kept.iter().map(|(flow, c)| flow.then(|| product(dy, c))).collect(),
        Device::Gpu(gpu) => products_gpu(gpu, &gpu.full(dy), &kept),
    })
}

/// Pairs of one launch, as in kernels/elementwise.cu.
const TERMS: usize = 200;

fn table(pairs: &[[Tensor; 2]]) -> Table {
    let mut table = Table::default();
    (0..2).for_each(|i| table.addresses(TERMS, pairs.iter().map(|pair| pair[i].address())));
    table.moves(pairs.iter().flatten().map(Arg::bytes).sum());
    table
}

/// `dy` times the constant of each term that has a gradient.
fn products_gpu(gpu: &'static Gpu, dy: &Tensor, kept: &[(bool, Tensor)]) -> Vec<Option<Tensor>> {
    let product = |c: &Tensor| [gpu.full(c), gpu.empty(c.shape())];
    let pairs: Vec<[Tensor; 2]> = kept.iter().filter(|(flow, _)| *flow).map(|(_, c)| product(c)).collect();
    for pairs in pairs.chunks(TERMS) {
        let args: [&dyn Arg; 4] = [&table(pairs), &pairs.len(), &dy.len(), dy];
        gpu.launch("elementwise", "products_with", Grid::elements(dy.len()), &args);
    }
    let mut products = pairs.into_iter().map(|[_, product]| product);
    kept.iter().map(|(flow, _)| flow.then(|| products.next().expect("one for each that flows"))).collect()
}

/// Elementwise product on the processor.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let mut y = Buffer::from_slice(a.data());
    y.iter_mut().zip(b.data()).for_each(|(y, b)| *y *= b);
    Tensor::new(a.shape(), y)
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
