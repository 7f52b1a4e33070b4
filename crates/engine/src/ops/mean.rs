//! Means of many tensors: metrics, and the total loss, a weighted sum of means.

use crate::cuda::{Arg, Gpu, Grid, Table};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// The mean of all elements of each tensor [count], in float64 until the end. No gradient.
pub fn means(xs: &[&Tensor]) -> Tensor {
    match xs.first().map_or(Device::Cpu, |x| x.device()) {
        Device::Cpu => Tensor::from_slice(&[xs.len()], &xs.iter().map(|x| mean_cpu(x) as f32).collect::<Vec<f32>>()),
        Device::Gpu(gpu) => {
            let means = gpu.empty(&[xs.len()]);
            for (i, xs) in xs.chunks(MEANS).enumerate() {
                let terms: Vec<(&Tensor, f32)> = xs.iter().map(|x| (*x, 1.0)).collect();
                launch(gpu, &terms, Some(&means.view(i * MEANS, &[xs.len()])), None, false);
            }
            means
        }
    }
}

/// The sum over all terms of `scale * mean(x)` -> a scalar.
pub fn weighted_mean(terms: &[(&Tensor, f32)]) -> Tensor {
    let y = match terms[0].0.device() {
        // In float64: a mean over many steps must not depend on how they are summed.
        Device::Cpu => Tensor::scalar(terms.iter().map(|(x, scale)| *scale as f64 * mean_cpu(x)).sum::<f64>() as f32),
        Device::Gpu(gpu) => {
            let y = gpu.empty(&[]);
            terms.chunks(MEANS).enumerate().for_each(|(i, terms)| launch(gpu, terms, None, Some(&y), i > 0));
            y
        }
    };
    let inputs: Vec<&Tensor> = terms.iter().map(|(x, _)| *x).collect();
    if !recording(&inputs) {
        return y;
    }
    let kept: Vec<(bool, Vec<usize>, f32)> =
        terms.iter().map(|(x, s)| (x.requires_grad(), x.shape().to_vec(), s / x.len() as f32)).collect();
    record1(&inputs, y, move |dy, _| match dy.device() {
        Device::Cpu => {
            let grad = |shape: &[usize], scale: f32| Tensor::full(shape, dy.item() * scale);
            kept.iter().map(|(flow, shape, scale)| flow.then(|| grad(shape, *scale))).collect()
        }
        Device::Gpu(gpu) => grads_gpu(gpu, dy, &kept),
    })
}

fn mean_cpu(x: &Tensor) -> f64 {
    x.data().iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64
}

/// Tensors of one launch, and numbers that a block fills, as in kernels/elementwise.cu.
const MEANS: usize = 160;
const BLOCK: usize = 256;

/// Leaves each mean in `means`, and their weighted sum in `total`, added to what is there where `accumulate` says so.
fn launch(
    gpu: &'static Gpu,
    terms: &[(&Tensor, f32)],
    means: Option<&Tensor>,
    total: Option<&Tensor>,
    accumulate: bool,
) {
    let mut table = Table::default();
    table.addresses(MEANS, terms.iter().map(|(x, _)| x.address()));
    table.numbers(MEANS, terms.iter().map(|(x, _)| x.len()));
    table.floats(MEANS, terms.iter().map(|(_, scale)| *scale));
    table.moves(terms.iter().map(|(x, _)| x.bytes()).sum());
    table.numbers(MEANS, terms.iter().map(|(x, _)| x.is_wide() as usize));
    let exact = total.map(|_| gpu.empty(&[2 * terms.len()])); // float64
    let args: [&dyn Arg; 7] = [&table, &terms.len(), &means, &exact, &gpu.counters(1), &(accumulate as u32), &total];
    gpu.launch("elementwise", "means", Grid::blocks(terms.len(), 1024), &args);
}

fn grads_gpu(gpu: &'static Gpu, dy: &Tensor, kept: &[(bool, Vec<usize>, f32)]) -> Vec<Option<Tensor>> {
    let flowing = kept.iter().filter(|(flow, ..)| *flow);
    let grads: Vec<(Tensor, f32)> = flowing.map(|(_, shape, scale)| (gpu.empty(shape), *scale)).collect();
    for some in grads.chunks(MEANS) {
        let mut table = Table::default();
        table.addresses(MEANS, some.iter().map(|(x, _)| x.address()));
        table.numbers(MEANS, some.iter().map(|(x, _)| x.len()));
        let blocks = table.ends(MEANS, some.iter().map(|(x, _)| x.len().div_ceil(BLOCK)));
        table.floats(MEANS, some.iter().map(|(_, scale)| *scale));
        table.moves(some.iter().map(|(x, _)| x.bytes()).sum());
        let args: [&dyn Arg; 3] = [&table, &some.len(), &gpu.full(dy)];
        gpu.launch("elementwise", "fill_from", Grid::blocks(blocks, BLOCK as u32), &args);
    }
    let mut grads = grads.into_iter().map(|(x, _)| x);
    kept.iter().map(|(flow, ..)| flow.then(|| grads.next().expect("one for each that flows"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, devices};

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

    #[test]
    fn means_of_many() {
        for device in devices() {
            let xs: Vec<Tensor> = (0..200).map(|i| Tensor::from_slice(&[2], &[i as f32, 2.0]).to(device)).collect();
            let means = means(&xs.iter().collect::<Vec<_>>()).host();
            assert!((0..200).all(|i| means.data()[i] == (i as f32 + 2.0) / 2.0));
            let terms: Vec<(&Tensor, f32)> = xs.iter().map(|x| (x, 0.5)).collect();
            assert_eq!(weighted_mean(&terms).item(), 5075.0);
        }
    }
}
