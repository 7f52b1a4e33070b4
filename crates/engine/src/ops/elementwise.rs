//! Elementwise arithmetic without gradient, for targets and their statistics.

use crate::cuda::{Arg, Grid};
use crate::tensor::{Device, Tensor};

/// `a x + b`.
pub fn scale_shift(x: &Tensor, a: f32, b: f32) -> Tensor {
    unary(x, "scale_shift", &[&a, &b], |v| a * v + b)
}

/// `(x - offset) / scale` for stats [offset, scale]; `x / scale` where not `centred`.
pub fn normalize(x: &Tensor, stats: &Tensor, centred: bool) -> Tensor {
    let [offset, scale] = host_pair(stats);
    let offset = if centred { offset } else { 0.0 };
    unary(x, "normalize", &[stats, &(centred as u32)], |v| (v - offset) / scale)
}

/// `x scale + offset` for stats [offset, scale].
pub fn denormalize(x: &Tensor, stats: &Tensor) -> Tensor {
    let [offset, scale] = host_pair(stats);
    unary(x, "denormalize", &[stats], |v| v * scale + offset)
}

/// `a - b`.
pub fn subtract(a: &Tensor, b: &Tensor) -> Tensor {
    binary(a, b, |x, y| x - y, "subtract")
}

/// `a b`.
pub fn multiply(a: &Tensor, b: &Tensor) -> Tensor {
    super::linear_combination(&[(&a.detach(), b)])
}

/// Two numbers on the processor; zeros where they are on a GPU, whose kernels read them there.
fn host_pair(x: &Tensor) -> [f32; 2] {
    if x.device() == Device::Cpu { [x.data()[0], x.data()[1]] } else { [0.0; 2] }
}

/// The kernel takes `x`, `args`, the number of elements, and the output.
fn unary(x: &Tensor, kernel: &'static str, args: &[&dyn Arg], f: impl Fn(f32) -> f32) -> Tensor {
    match x.device() {
        Device::Cpu => Tensor::from_slice(x.shape(), &x.data().iter().map(|&v| f(v)).collect::<Vec<f32>>()),
        Device::Gpu(gpu) => {
            let (y, n, x) = (gpu.empty(x.shape()), x.len(), &gpu.full(x));
            let all: Vec<&dyn Arg> =
                [x as &dyn Arg].into_iter().chain(args.iter().copied()).chain([&n as &dyn Arg, &y]).collect();
            gpu.launch("targets", kernel, Grid::elements(n), &all);
            y
        }
    }
}

fn binary(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32, kernel: &'static str) -> Tensor {
    assert_eq!(a.len(), b.len());
    match a.device() {
        Device::Cpu => {
            let out: Vec<f32> = a.data().iter().zip(b.data()).map(|(&x, &y)| f(x, y)).collect();
            Tensor::from_slice(a.shape(), &out)
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty(a.shape());
            let args: [&dyn Arg; 4] = [&gpu.full(a), &gpu.full(b), &y.len(), &y];
            gpu.launch("targets", kernel, Grid::elements(y.len()), &args);
            y
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::devices;

    #[test]
    fn arithmetic_on_every_device() {
        for device in devices() {
            let x = Tensor::from_slice(&[3], &[1.0, -2.0, 0.5]).to(device);
            let stats = Tensor::from_slice(&[2], &[0.5, 4.0]).to(device);
            assert_eq!(scale_shift(&x, -1.0, 1.0).host().data(), [0.0, 3.0, 0.5]);
            assert_eq!(normalize(&x, &stats, true).host().data(), [0.125, -0.625, 0.0]);
            assert_eq!(normalize(&x, &stats, false).host().data(), [0.25, -0.5, 0.125]);
            assert_eq!(denormalize(&x, &stats).host().data(), [4.5, -7.5, 2.5]);
            assert_eq!(subtract(&x, &x).host().data(), [0.0; 3]);
            assert_eq!(multiply(&x, &x).host().data(), [1.0, 4.0, 0.25]);
        }
    }
}
