//! Constants on any device, and sums in place: what gradients are added up with.

use crate::cuda::{Arg, Grid, at_once};
use crate::tensor::{Device, Tensor};

/// A tensor of zeros on `device`.
pub fn zeros(shape: &[usize], device: Device) -> Tensor {
    match device {
        Device::Cpu => Tensor::zeros(shape),
        Device::Gpu(gpu) => gpu.zeros(shape),
    }
}

/// A tensor of one value on `device`.
pub fn full(shape: &[usize], value: f32, device: Device) -> Tensor {
    match device {
        Device::Cpu => Tensor::full(shape, value),
        Device::Gpu(gpu) => {
            let x = gpu.empty(shape);
            gpu.launch("elementwise", "fill", Grid::elements(x.len()), &[&x, &value, &x.len()]);
            x
        }
    }
}

/// `a += b`, in the memory of `a` where nothing else holds it. The sum is of the type of `a`.
pub(crate) fn add_assign(a: &mut Tensor, b: &Tensor) {
    assert_eq!(a.len(), b.len());
    match a.device() {
        Device::Cpu => a.make_mut().iter_mut().zip(b.data()).for_each(|(a, b)| *a += b),
        Device::Gpu(gpu) => {
            let to = if a.is_unshared() { a.detach() } else { gpu.empty_as(a.shape(), a.dtype()) };
            to.forget_packed();
            let each = if at_once(a.len(), &[a, b, &to]) == 8 { 8 } else { 1 };
            let args: [&dyn Arg; 7] = [&*a, &a.is_wide(), b, &b.is_wide(), &a.len(), &each, &to];
            gpu.launch("elementwise", "add", Grid::elements(a.len() / each), &args);
            *a = to.with_origin(a.origin.clone());
        }
    }
}
