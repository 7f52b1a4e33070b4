//! Squared-error and Huber losses with an optional symlog of the target, and the symlog pair.

use crate::buffer::Buffer;
use crate::cuda::{Arg, Gpu, Grid};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// `sign(x) ln(1 + |x|)` (paper, equation 9).
pub fn symlog(x: f32) -> f32 {
    x.signum() * x.abs().ln_1p()
}

/// Which difference the loss measures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Squash {
    /// The squared difference to the target.
    Identity,
    /// The squared difference to the target's symlog.
    Symlog,
    /// The smooth absolute difference `sqrt(d^2 + 1) - 1` to the target (official outs.py, `Huber`).
    Huber,
}

/// Loss of predictions [.., N] against targets, summed over the last axis -> [..]. No gradient flows to the target.
pub fn squared_error(x: &Tensor, target: &Tensor, squash: Squash) -> Tensor {
    assert_eq!(x.len(), target.len());
    match x.device() {
        Device::Cpu => squared_error_cpu(x, target, squash),
        Device::Gpu(gpu) => squared_error_gpu(gpu, x, target, squash),
    }
}

fn squared_error_gpu(gpu: &'static Gpu, x: &Tensor, target: &Tensor, squash: Squash) -> Tensor {
    let (rows, n, squash) = (x.rows(), x.width(), squash as u32);
    let y = gpu.empty(&x.shape()[..x.shape().len() - 1]);
    let (kept, target) = (gpu.act(x), gpu.full(target));
    gpu.launch("heads", "squared_error", Grid::warps(rows), &[&kept, &target, &rows, &n, &squash, &y]);
    if !recording(&[x]) {
        return y;
    }
    record1(&[x], y, move |dy, _| {
        let (dy, dx) = (gpu.full(dy), gpu.empty_act(kept.shape()));
        let args: [&dyn Arg; 7] = [&kept, &target, &dy, &rows, &n, &squash, &dx];
        gpu.launch("heads", "squared_error_grad", Grid::elements(rows * n), &args);
        vec![Some(dx)]
    })
}

fn squared_error_cpu(x: &Tensor, target: &Tensor, squash: Squash) -> Tensor {
    let width = x.width();
    let shape = x.shape()[..x.shape().len() - 1].to_vec();
    let mut difference = Buffer::stale(x.len());
    for (d, (x, t)) in difference.iter_mut().zip(x.data().iter().zip(target.data())) {
        *d = x - if squash == Squash::Symlog { symlog(*t) } else { *t };
    }
    let value = |d: &f32| if squash == Squash::Huber { (d * d + 1.0).sqrt() - 1.0 } else { d * d };
    let loss: Vec<f32> =
        (0..x.rows()).map(|i| difference[i * width..(i + 1) * width].iter().map(value).sum()).collect();
    let y = Tensor::from_slice(&shape, &loss);
    if !recording(&[x]) {
        return y;
    }
    let full = x.shape().to_vec();
    record1(&[x], y, move |dy, _| {
        for (i, d) in difference.iter_mut().enumerate() {
            let slope = if squash == Squash::Huber { *d / (*d * *d + 1.0).sqrt() } else { 2.0 * *d };
            *d = dy.data()[i / width] * slope;
        }
        vec![Some(Tensor::new(&full, difference))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, random};

    #[test]
    fn losses_and_gradients() {
        for squash in [Squash::Identity, Squash::Symlog, Squash::Huber] {
            for shape in [[3, 5], [4, 1], [0, 2]] {
                let target = random(&shape, 5, 30.0);
                check(
                    &[&shape],
                    |x| squared_error(&x[0], &target.to(x[0].device()), squash),
                    |x| {
                        let term = |i: usize| {
                            let t = target.data()[i] as f64;
                            match squash {
                                Squash::Identity => (x[0][i] - t).powi(2),
                                Squash::Symlog => (x[0][i] - t.signum() * t.abs().ln_1p()).powi(2),
                                Squash::Huber => ((x[0][i] - t).powi(2) + 1.0).sqrt() - 1.0,
                            }
                        };
                        (0..shape[0]).map(|r| (r * shape[1]..(r + 1) * shape[1]).map(term).sum()).collect()
                    },
                );
            }
        }
    }

    #[test]
    fn symlog_is_the_inverse_of_symexp() {
        let symexp = |x: f64| x.signum() * x.abs().exp_m1();
        for x in [-1e4f32, -1.0, -1e-3, 0.0, 0.5, 30.0, 1e6] {
            assert!((symexp(symlog(x) as f64) - x as f64).abs() <= 1e-5 * x.abs() as f64);
        }
        assert_eq!(symlog(0.0), 0.0);
    }
}
