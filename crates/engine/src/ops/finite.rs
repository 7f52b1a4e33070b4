//! Finds numbers that are not finite.

use crate::cuda::{Grid, Table};
use crate::tensor::{Device, Tensor};

/// Numbers that one block of threads looks at.
const SLICE: usize = 1 << 16;
/// Tensors of one launch, as in kernels/optimizer.cu.
const TENSORS: usize = 200;

/// Which of `tensors` is the first to hold a number that is not finite, and that number. Waits for a GPU once, where all
/// of them are finite.
pub fn first_not_finite(tensors: &[&Tensor]) -> Option<(usize, f32)> {
    let Some(Device::Gpu(gpu)) = tensors.first().map(|x| x.device()) else {
        let bad = |x: &Tensor| x.data().iter().find(|v| !v.is_finite()).copied();
        return tensors.iter().enumerate().find_map(|(i, x)| Some((i, bad(x)?)));
    };
    // Slices of all tensors side by side.
    let parts: Vec<usize> = tensors.iter().map(|x| x.len().div_ceil(SLICE)).collect();
    let counts = gpu.empty(&[parts.iter().sum()]);
    let mut start = 0;
    for (tensors, parts) in tensors.chunks(TENSORS).zip(parts.chunks(TENSORS)) {
        let mut table = Table::default();
        table.addresses(TENSORS, tensors.iter().map(|x| x.address()));
        table.numbers(TENSORS, tensors.iter().map(|x| x.len()));
        let blocks = table.ends(TENSORS, parts.iter().copied());
        let bits = |some: &[&Tensor]| some.iter().rev().fold(0, |bits, x| bits << 1 | x.is_wide() as usize);
        table.numbers(TENSORS.div_ceil(32) * 2, tensors.chunks(32).map(bits));
        let counts = counts.view(start, &[blocks]);
        gpu.launch("optimizer", "count_bad", Grid::blocks(blocks, 256), &[&table, &tensors.len(), &SLICE, &counts]);
        start += blocks;
    }
    let bad = counts.host().data().iter().position(|&count| count != 0.0)?;
    let ends = parts.iter().scan(0, |end, &parts| {
        *end += parts;
        Some(*end)
    });
    let first = ends.take_while(|&end| end <= bad).count();
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
            let (large, empty) = (x(&vec![1.0; 2 * SLICE + 1]), x(&[]));
            assert_eq!(first_not_finite(&[&good, &large, &empty, &good]), None);
            assert_eq!(first_not_finite(&[&large, &empty, &good, &bad, &good]), Some((3, f32::NEG_INFINITY)));
            assert_eq!(first_not_finite(&[]), None);
        }
    }
}
