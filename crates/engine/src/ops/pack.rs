//! Latents as they are stored: half precision and class indices, made where they are, so that less is copied.

use crate::bytes::Bytes;
use crate::cuda::Grid;
use crate::tensor::{Device, Tensor};
use half::f16;

/// The numbers in half precision (IEEE 754, little-endian, rounded to nearest): two bytes each.
pub fn half_bytes(x: &Tensor) -> Bytes {
    match x.device() {
        Device::Cpu => Bytes::new(x.data().iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
        Device::Gpu(gpu) => {
            let (x, y) = (gpu.full(x), Bytes::empty(gpu, 2 * x.len()));
            gpu.launch("copies", "to_f16", Grid::elements(x.len()), &[&x, &x.len(), y.words()]);
            y
        }
    }
}

/// The index of the one in each group of `classes` numbers, a byte each.
pub fn index_bytes(one_hot: &Tensor, classes: usize) -> Bytes {
    let groups = one_hot.len() / classes.max(1);
    match one_hot.device() {
        Device::Cpu => {
            let index = |group: &[f32]| group.iter().position(|&x| x == 1.0).unwrap_or(0) as u8;
            Bytes::new(one_hot.data().chunks_exact(classes.max(1)).map(index).collect())
        }
        Device::Gpu(gpu) => {
            let (x, y) = (gpu.full(one_hot), Bytes::empty(gpu, groups));
            gpu.launch("copies", "class_index", Grid::elements(groups), &[&x, &groups, &classes, y.words()]);
            y
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{devices, random};

    #[test]
    fn halves_are_rounded_as_ieee_says() {
        let mut values = random(&[1000], 5, 300.0).data().to_vec();
        let odd = [0.0, -0.0, 1e-8, 6e-8, -9e-8, 6.1e-5, 6.103e-5, 65503.0, 65519.9, 65520.0, -1e9, 2049.0, 2051.0];
        values.extend(odd);
        values.extend(odd.map(|x: f32| x * 1e-3));
        values.extend([f32::INFINITY, f32::NEG_INFINITY]);
        let expected: Vec<u8> = values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        for device in devices() {
            let x = Tensor::from_slice(&[values.len()], &values).to(device);
            assert_eq!(&*half_bytes(&x).host(), &expected[..]);
            let nan = half_bytes(&Tensor::full(&[1], f32::NAN).to(device));
            assert!(f16::from_le_bytes([nan.host()[0], nan.host()[1]]).is_nan());
        }
    }

    #[test]
    fn indices_of_ones() {
        for device in devices() {
            let x = Tensor::from_slice(&[2, 6], &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
            assert_eq!(&*index_bytes(&x.to(device), 3).host(), &[1, 2, 0, 0]);
        }
    }
}
