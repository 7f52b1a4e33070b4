//! The machine's peak, the process's memory, and the cost of each part of an update.

use anyhow::Result;
use engine::cpu::peak::multiply_adds;
use engine::profile::{self, Cost, Costs};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// What one part of an update costs. Milliseconds are thread time divided by the number of threads, so that those
/// of all parts, `idle` included, add up to the update.
#[derive(Serialize, Default, Clone)]
pub struct PartCost {
    pub forward_ms: f64,
    pub forward_gflop: f64,
    pub backward_ms: f64,
    pub backward_gflop: f64,
    /// Both directions in the official formulation.
    pub official_gflop: f64,
    /// Both directions' rate as a share of the measured peak of multiply-adds, for parts that count operations.
    pub share_of_peak: f64,
    /// On a GPU, both directions: memory that kernels read or wrote, each kernel's operands counted once, hits in the
    /// L2 cache included; and the rate as a share of the measured rate of copies.
    pub gigabytes: f64,
    pub share_of_copy: f64,
}

impl PartCost {
    /// Compares with the best rate of multiply-adds, 10^9 operations a second.
    pub fn rate(&mut self, peak_gflops: f64) {
        let (gflop, ms) = (self.forward_gflop + self.backward_gflop, self.forward_ms + self.backward_ms);
        self.share_of_peak = share(gflop, ms, peak_gflops);
    }

    /// Compares with the best rate of copies, 10^9 bytes a second.
    pub fn rate_of_copy(&mut self, copy_gbs: f64) {
        self.share_of_copy = share(self.gigabytes, self.forward_ms + self.backward_ms, copy_gbs);
    }
}

/// The rate of `gflop` operations in `ms` milliseconds as a share of the peak; 0 for what took no time.
pub fn share(gflop: f64, ms: f64, peak_gflops: f64) -> f64 {
    if ms > 0.0 { gflop / (ms * 1e-3) / peak_gflops } else { 0.0 }
}

/// Seconds of one round of the peak, about.
const ROUND: f64 = 0.01;
const ROUNDS: usize = 30;

/// Multiply-adds in registers on all threads of the pool, in 10^9 operations a second: the best of some rounds.
pub fn peak() -> f64 {
    let iterations = {
        let (start, count) = (Instant::now(), 100_000);
        multiply_adds(count);
        (ROUND / start.elapsed().as_secs_f64().max(1e-6) * count as f64) as usize
    };
    let round = |_| {
        let start = Instant::now();
        let flops: f64 = rayon::broadcast(|_| multiply_adds(iterations)).into_iter().sum();
        flops / start.elapsed().as_secs_f64() / 1e9
    };
    (0..ROUNDS).map(round).fold(0.0, f64::max)
}

/// Runs `update` and returns the cost of its parts by name.
pub fn parts(update: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, PartCost>> {
    let start = Instant::now();
    let (result, costs) = profile::measure(update);
    let wall = start.elapsed().as_secs_f64() * 1e3;
    result?;
    Ok(divide(costs, wall, rayon::current_num_threads() as f64))
}

/// The cost of each part, of `wall` milliseconds on `threads` threads; the remainder is `idle`.
fn divide(costs: BTreeMap<&'static str, Costs>, wall: f64, threads: f64) -> BTreeMap<String, PartCost> {
    let ms = |cost: Cost| cost.seconds * 1e3 / threads;
    let mut parts: BTreeMap<String, PartCost> = costs
        .into_iter()
        .filter(|(name, _)| *name != profile::WAITING)
        .map(|(name, c)| {
            let part = PartCost {
                forward_ms: ms(c.forward),
                forward_gflop: c.forward.flops as f64 / 1e9,
                backward_ms: ms(c.backward),
                backward_gflop: c.backward.flops as f64 / 1e9,
                official_gflop: (c.forward.official + c.backward.official) as f64 / 1e9,
                ..PartCost::default()
            };
            (name.to_string(), part)
        })
        .collect();
    let busy: f64 = parts.values().map(|p| p.forward_ms + p.backward_ms).sum();
    parts.insert("idle".into(), PartCost { forward_ms: (wall - busy).max(0.0), ..PartCost::default() });
    parts
}

/// The middle of `times`, which must not be empty; the mean of two in the middle.
pub fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0
}

/// Resets [`largest_memory`], where the system can.
pub fn forget_memory() {
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

/// Largest resident memory of the process so far, in bytes; 0 where the system does not tell.
pub fn largest_memory() -> f64 {
    crate::log::kilobytes("/proc/self/status", "VmHWM:").unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let cost = |seconds, flops, official| Cost { seconds, flops, official };
        let encoder =
            Costs { forward: cost(0.02, 3_000_000_000, 5_000_000_000), backward: cost(0.04, 0, 1_000_000_000) };
        let waiting = Costs { forward: cost(9.0, 0, 0), backward: cost(9.0, 0, 0) };
        let parts = divide(BTreeMap::from([("encoder", encoder), (profile::WAITING, waiting)]), 50.0, 2.0);
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["encoder", "idle"]);
        let part = &parts["encoder"];
        assert_eq!([part.forward_ms, part.backward_ms, parts["idle"].forward_ms], [10.0, 20.0, 20.0]);
        assert_eq!([part.forward_gflop, part.backward_gflop, part.official_gflop], [3.0, 0.0, 6.0]);
    }

    /// Other tests compute meanwhile, and are charged for it: only the part of this one can be told.
    #[test]
    fn the_time_of_a_part_is_that_spent_in_it() {
        let wait = || std::thread::sleep(std::time::Duration::from_millis(20));
        let mut inside = 0.0;
        let parts = parts(|| {
            wait();
            let start = Instant::now();
            profile::part("bench test", wait);
            inside = start.elapsed().as_secs_f64() * 1e3;
            Ok(())
        })
        .unwrap();
        let part = parts["bench test"].forward_ms * rayon::current_num_threads() as f64;
        assert!((20.0..=inside).contains(&part), "{part} of {inside}");
        assert_eq!(parts["bench test"].backward_ms, 0.0);
    }

    #[test]
    fn the_middle_of_some_times() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [5.0]), 5.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
