//! Running statistics on a device: how targets are normalised without waiting for their values.

use crate::cuda::Grid;
use crate::tensor::{Device, Tensor};

/// What running numbers are, and how they become an offset and a scale.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Mean and mean square; else a low and a high percentile.
    pub moments: bool,
    /// Correct the start, where the state was zero.
    pub debias: bool,
    pub rate: f32,
    /// The smallest scale.
    pub limit: f32,
}

impl Running {
    /// Moves state [3] (two numbers, and the average of one) towards two fresh numbers [1].
    pub fn update(&self, state: &mut Tensor, [first, second]: [&Tensor; 2]) {
        match state.device() {
            Device::Cpu => {
                let rate = self.rate;
                let fresh = [first.data()[0], second.data()[0], 1.0];
                state.make_mut().iter_mut().zip(fresh).for_each(|(old, new)| *old = (1.0 - rate) * *old + rate * new);
            }
            Device::Gpu(gpu) => {
                state.unshare();
                gpu.launch("targets", "move_running", Grid::blocks(1, 1), &[&*state, first, second, &self.rate]);
            }
        }
    }

    /// Offset and scale [2].
    pub fn stats(&self, state: &Tensor) -> Tensor {
        match state.device() {
            Device::Cpu => {
                let [a, b, corr] = [state.data()[0], state.data()[1], state.data()[2]];
                let correct = if self.debias { 1.0 / corr.max(self.rate) } else { 1.0 };
                let (a, b) = (a * correct, b * correct);
                let scale = if self.moments { (b - a * a).max(0.0).sqrt() } else { b - a };
                Tensor::from_slice(&[2], &[a, scale.max(self.limit)])
            }
            Device::Gpu(gpu) => {
                let stats = gpu.empty(&[2]);
                let (moments, debias) = (self.moments as u32, self.debias as u32);
                let grid = Grid::blocks(1, 1);
                gpu.launch(
                    "targets",
                    "running_stats",
                    grid,
                    &[state, &moments, &debias, &self.rate, &self.limit, &stats],
                );
                stats
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::devices;

    #[test]
    fn debiased_moments_are_right_from_the_first_update() {
        for device in devices() {
            let running = Running { moments: true, debias: true, rate: 0.01, limit: 1e-8 };
            let mut state = Tensor::zeros(&[3]).to(device);
            let [mean, square] = [2.0, 5.0].map(|v| Tensor::full(&[1], v).to(device));
            running.update(&mut state, [&mean, &square]);
            let stats = running.stats(&state).host();
            assert!(stats.data().iter().zip([2.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-4), "{stats:?}");
        }
    }

    #[test]
    fn the_scale_is_at_least_the_limit() {
        for device in devices() {
            let running = Running { moments: false, debias: false, rate: 0.5, limit: 1.0 };
            let mut state = Tensor::zeros(&[3]).to(device);
            let stats = |state: &Tensor| running.stats(state).host().data().to_vec();
            assert_eq!(stats(&state), [0.0, 1.0]);
            let [low, high] = [1.0, 9.0].map(|v| Tensor::full(&[1], v).to(device));
            running.update(&mut state, [&low, &high]);
            assert_eq!(stats(&state), [0.5, 4.0]);
        }
    }
}
