//! Constants on any device, and sums in place: what gradients are added up with.

use crate::cuda::Grid;
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

/// `a += b`, in the memory of `a` where nothing else holds it.
pub(crate) fn add_assign(a: &mut Tensor, b: &Tensor) {
    assert_eq!(a.len(), b.len());
    match a.device() {
        Device::Cpu => a.make_mut().iter_mut().zip(b.data()).for_each(|(a, b)| *a += b),
        Device::Gpu(gpu) => {
            a.unshare();
            gpu.launch("elementwise", "add", Grid::elements(a.len()), &[a, b, &a.len()]);
        }
    }
}
