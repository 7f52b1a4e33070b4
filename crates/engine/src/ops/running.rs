//! Running statistics on a device: how targets are normalised without waiting for their values.

use super::returns::rank;
use super::{Summary, percentile, summary};
use crate::cuda::{Arg, Grid};
use crate::tensor::{Device, Tensor};

/// The kind of running statistics, and how they become an offset and a scale.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Mean and mean square; else a low and a high percentile.
    pub moments: bool,
    /// Correct the bias of the zero start.
    pub debias: bool,
    pub rate: f32,
    /// The smallest scale.
    pub limit: f32,
}

impl Running {
    /// Moves state [3] (two statistics, and the average of 1) towards those of `x`: mean and mean square, or the two
    /// percentiles (0 to 100). Returns the offset and scale [2] of the new state.
    pub fn update(&self, state: &mut Tensor, x: &Tensor, percentiles: [f64; 2]) -> Tensor {
        match state.device() {
            Device::Cpu => {
                let [first, second] = match self.moments {
                    true => {
                        let summary = summary(x);
                        [Summary::Mean, Summary::MeanSquare].map(|number| number.of(&summary).item())
                    }
                    false => percentiles.map(|q| percentile(x, q).item()),
                };
                let rate = self.rate;
                let fresh = [first, second, 1.0];
                state.make_mut().iter_mut().zip(fresh).for_each(|(old, new)| *old = (1.0 - rate) * *old + rate * new);
                self.stats(state)
            }
            Device::Gpu(gpu) => {
                let (moved, stats, x) = (gpu.empty(&[3]), gpu.empty(&[2]), gpu.full(x));
                let [(low_a, share_a), (low_b, share_b)] = percentiles.map(|q| rank(x.len(), q));
                let (share_a, share_b) = (share_a as f32, share_b as f32);
                let (moments, debias) = (self.moments as u32, self.debias as u32);
                #[rustfmt::skip] // numbers; places; constants; results
                let args: [&dyn Arg; 13] = [
                    &*state, &x, &x.len(),
                    &moments, &low_a, &share_a, &low_b, &share_b,
                    &debias, &self.rate, &self.limit,
                    &moved, &stats,
                ];
                gpu.launch("targets", "move_running", Grid::blocks(1, 1024), &args);
                *state = moved;
                stats
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
            let x = Tensor::from_slice(&[2], &[1.0, 3.0]).to(device);
            let stats = running.update(&mut state, &x, [0.0; 2]).host();
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
            let x = Tensor::from_slice(&[3], &[9.0, 1.0, 4.0]).to(device);
            assert_eq!(running.update(&mut state, &x, [0.0, 100.0]).host().data(), [0.5, 4.0]);
            assert_eq!(stats(&state), [0.5, 4.0]);
        }
    }
}
