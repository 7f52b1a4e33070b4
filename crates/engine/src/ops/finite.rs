//! Finds numbers that are not finite.

use crate::cuda::{Arg, Gpu, Grid, Table};
use crate::tensor::{Device, Tensor};

/// Numbers that one block of threads looks at.
const SLICE: usize = 1 << 16;
/// Tensors of one launch, as in kernels/optimizer.cu.
const TENSORS: usize = 200;

/// Whether some tensors are finite, checked on their device and read later.
#[derive(Clone)]
pub struct NotFinite {
    tensors: Vec<Tensor>,
    /// Of a GPU: how many numbers are not finite in each slice, the slices of all tensors side by side.
    counts: Option<Tensor>,
}

/// Looks for numbers that are not finite; does not wait for a GPU.
pub fn not_finite(tensors: &[&Tensor]) -> NotFinite {
    let counts = match tensors.first().map(|x| x.device()) {
        Some(Device::Gpu(gpu)) => Some(count(gpu, tensors)),
        _ => None,
    };
    NotFinite { tensors: tensors.iter().map(|x| x.detach()).collect(), counts }
}

/// Which of `tensors` is the first to hold a number that is not finite, and that number. Waits for a GPU once, where all
/// of them are finite.
pub fn first_not_finite(tensors: &[&Tensor]) -> Option<(usize, f32)> {
    not_finite(tensors).first()
}

impl NotFinite {
    /// The first tensor that holds a number which is not finite, and that number. Waits for a GPU.
    pub fn first(&self) -> Option<(usize, f32)> {
        let found = |x: &Tensor| x.data().iter().find(|v| !v.is_finite()).copied();
        let Some(counts) = &self.counts else {
            return self.tensors.iter().enumerate().find_map(|(i, x)| Some((i, found(x)?)));
        };
        let bad = counts.host().data().iter().position(|&count| count != 0.0)?;
        let mut end = 0;
        let first = self.tensors.iter().position(|x| {
            end += slices(x);
            bad < end
        })?;
        Some((first, found(&self.tensors[first].host())?))
    }
}

fn slices(x: &Tensor) -> usize {
    x.len().div_ceil(SLICE)
}

fn count(gpu: &'static Gpu, tensors: &[&Tensor]) -> Tensor {
    let counts = gpu.empty(&[tensors.iter().map(|x| slices(x)).sum()]);
    let mut start = 0;
    for tensors in tensors.chunks(TENSORS) {
        let mut table = Table::default();
        table.addresses(TENSORS, tensors.iter().map(|x| x.address()));
        table.numbers(TENSORS, tensors.iter().map(|x| x.len()));
        table.moves(tensors.iter().map(|x| x.bytes()).sum());
        let blocks = table.ends(TENSORS, tensors.iter().map(|x| slices(x)));
        let bits = |some: &[&Tensor]| some.iter().rev().fold(0, |bits, x| bits << 1 | x.is_wide() as usize);
        table.numbers(TENSORS.div_ceil(32) * 2, tensors.chunks(32).map(bits));
        let counts = counts.view(start, &[blocks]);
        gpu.launch("optimizer", "count_bad", Grid::blocks(blocks, 256), &[&table, &tensors.len(), &SLICE, &counts]);
        start += blocks;
    }
    counts
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
