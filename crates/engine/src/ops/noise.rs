//! Random numbers for rows of a larger whole, on any device.

use crate::buffer::Buffer;
use crate::cuda::{Arg, Grid};
use crate::rng::Rng;
use crate::tensor::{Device, Tensor};
use std::ops::Range;

/// Which rows are drawn, out of `rows` times `steps`: row `r` at `step` has the draws from `(r steps + step) width` on.
#[derive(Clone, Debug)]
pub struct DrawnRows {
    pub rows: Range<usize>,
    pub step: usize,
    pub steps: usize,
    pub width: usize,
}

/// What the kernels of a GPU take to draw such numbers by themselves (kernels/philox.cuh).
pub(super) struct DrawArgs {
    key: [u32; 2],
    stream: u32,
    step: u32,
    step_at: Option<Tensor>,
    first: usize,
    stride: usize,
    width: usize,
}

impl DrawArgs {
    pub fn new(rng: &Rng, at: &DrawnRows) -> Self {
        let (key, stream, step, step_at) = rng.counter();
        let first = at.rows.start * at.steps + at.step;
        DrawArgs { key, stream, step, step_at: step_at.clone(), first, stride: at.steps, width: at.width }
    }

    /// For kernels that draw nothing this time.
    pub fn none() -> Self {
        DrawArgs { key: [0; 2], stream: 0, step: 0, step_at: None, first: 0, stride: 0, width: 1 }
    }

    pub fn args(&self) -> [&dyn Arg; 8] {
        let DrawArgs { key: [key0, key1], stream, step, step_at, first, stride, width } = self;
        [key0, key1, stream, step, step_at, first, stride, width]
    }
}

/// Uniform numbers in (0, 1), [rows, width].
pub fn uniform(rng: &Rng, at: &DrawnRows, device: Device) -> Tensor {
    draw(rng, at, device, "uniform", |start, out| rng.uniform(start, out))
}

/// Standard normal numbers, [rows, width].
pub fn standard_normal(rng: &Rng, at: &DrawnRows, device: Device) -> Tensor {
    draw(rng, at, device, "normal", |start, out| rng.normal(start, out))
}

fn draw(rng: &Rng, at: &DrawnRows, device: Device, kernel: &'static str, fill: impl Fn(u64, &mut [f32])) -> Tensor {
    let (rows, width) = (at.rows.len(), at.width);
    match device {
        Device::Cpu => {
            let mut out = Buffer::stale(rows * width);
            for (row, to) in at.rows.clone().zip(out.chunks_exact_mut(width.max(1))) {
                fill(((row * at.steps + at.step) * width) as u64, to);
            }
            Tensor::new(&[rows, width], out)
        }
        Device::Gpu(gpu) => {
            let (y, draws, n) = (gpu.empty(&[rows, width]), DrawArgs::new(rng, at), rows * width);
            let args: Vec<&dyn Arg> = draws.args().into_iter().chain([&n as &dyn Arg, &y]).collect();
            gpu.launch("noise", kernel, Grid::elements(rows * width), &args);
            y
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::test_gpu;
    use crate::ops::Varying;

    #[test]
    fn the_step_can_be_read_from_memory() {
        let Some(gpu) = test_gpu() else { return };
        let device = Device::Gpu(gpu);
        let varying = Varying::new(device);
        let at = DrawnRows { rows: 0..3, step: 1, steps: 2, width: 5 };
        for step in [3, 1 << 31] {
            varying.set([0.0; 3], step);
            let moved = Rng::new(7, 2000, 0).with_step_at(&varying.step());
            assert_eq!(
                uniform(&moved, &at, device).host().data(),
                uniform(&Rng::new(7, 2000, step), &at, device).host().data()
            );
            assert_eq!(
                standard_normal(&moved, &at, device).host().data(),
                standard_normal(&Rng::new(7, 2000, step), &at, device).host().data()
            );
        }
    }

    #[test]
    fn every_device_draws_the_same_numbers() {
        let Some(gpu) = test_gpu() else { return };
        let rng = Rng::new(7 << 33 | 5, 2001, 1 << 35 | 9);
        for width in [1, 3, 8] {
            let at = DrawnRows { rows: 2..9, step: 4, steps: 15, width };
            let on = |device: Device| uniform(&rng, &at, device).host();
            assert_eq!(on(Device::Cpu).data(), on(Device::Gpu(gpu)).data());
            let on = |device: Device| standard_normal(&rng, &at, device).host();
            let (a, b) = (on(Device::Cpu), on(Device::Gpu(gpu)));
            assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
        }
    }
}
