//! Finds numbers that are not finite.

use crate::cuda::Grid;
use crate::tensor::{Device, Tensor};

/// Which of `tensors` is the first to hold a number that is not finite, and that number. Waits for a GPU once, where all
/// of them are finite.
pub fn first_not_finite(tensors: &[&Tensor]) -> Option<(usize, f32)> {
    let Some(Device::Gpu(gpu)) = tensors.first().map(|x| x.device()) else {
        let bad = |x: &Tensor| x.data().iter().find(|v| !v.is_finite()).copied();
        return tensors.iter().enumerate().find_map(|(i, x)| Some((i, bad(x)?)));
    };
    let counts = gpu.empty(&[tensors.len()]);
    for (i, x) in tensors.iter().enumerate() {
        gpu.launch("optimizer", "count_bad", Grid::blocks(1, 256), &[*x, &x.len(), &counts.view(i, &[1])]);
    }
    let first = counts.host().data().iter().position(|&count| count != 0.0)?;
    first_not_finite(&[&tensors[first].host()]).map(|(_, value)| (first, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::devices;

    #[test]
    fn the_first_bad_tensor_is_named() {
        for device in devices() {
            let x = |values: &[f32]| Tensor::from_slice(&[values.len()], values).to(device);
            let (good, bad) = (x(&[1.0, f32::MAX, -0.0]), x(&[0.0, f32::NEG_INFINITY, f32::NAN]));
            assert_eq!(first_not_finite(&[&good, &good]), None);
            assert_eq!(first_not_finite(&[&good, &bad, &good]), Some((1, f32::NEG_INFINITY)));
        }
    }
}
