//! What a GPU can do at best: multiply-adds in registers, and copies in its memory.

use super::gpu::{Gpu, Precision};
use super::launch::Grid;
use std::time::Instant;

/// Peak rates per second, to compare measured rates with.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Operations of products in the GPU's precision; a multiply-add is two.
    pub flops: f64,
    /// Bytes that a copy reads and writes.
    pub bytes: f64,
}

/// As in kernels/peak.cu.
const CHAINS: usize = 8;
const THREADS: usize = 256;
/// Blocks of threads for each multiprocessor: enough to keep it busy.
const BLOCKS: usize = 4;
/// Each rate is the best of this many tries.
const TRIES: usize = 5;

impl Gpu {
    /// Measures for some hundredths of a second. Waits for everything else.
    pub fn peaks(&'static self) -> Peaks {
        let real = self.properties().arch > 0;
        let blocks = BLOCKS * if real { self.properties().multiprocessors as usize } else { 1 };
        let out = self.empty(&[blocks * THREADS]);
        let (kernel, rounds, each) = match self.precision() {
            Precision::Bfloat16 => ("peak_bf16", 20_000, THREADS / 32 * CHAINS * 2 * 16 * 8 * 16),
            Precision::Float32 => ("peak_f32", 100_000, THREADS * CHAINS * 2),
        };
        let rounds = if real { rounds } else { 2 }; // an emulated GPU is for tests
        let multiply = || self.launch("peak", kernel, Grid::blocks(blocks, THREADS as u32), &[&rounds, &out]);
        let flops = (blocks * rounds * each) as f64 / self.least(multiply);

        let len = if real { 1 << 27 } else { 1 << 10 }; // half a gigabyte: no cache holds it
        let (from, to) = (self.zeros(&[len]), self.empty(&[len]));
        let bytes = 8.0 * len as f64 / self.least(|| self.copy(&from, &to, 0));
        drop((from, to));
        self.release_pool();
        Peaks { flops, bytes }
    }

    /// The least seconds that `f` takes on the GPU.
    fn least(&self, f: impl Fn()) -> f64 {
        let time = |_| {
            self.wait();
            let start = Instant::now();
            f();
            self.wait();
            start.elapsed().as_secs_f64()
        };
        (0..TRIES).map(time).fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use crate::cuda::{Precision, test_gpu_in};

    #[test]
    fn peaks_are_measured_in_both_precisions() {
        for gpu in [Precision::Float32, Precision::Bfloat16].into_iter().filter_map(test_gpu_in) {
            let peaks = gpu.peaks();
            assert!(peaks.flops > 0.0 && peaks.flops.is_finite() && peaks.bytes > 0.0, "{peaks:?}");
        }
    }
}
