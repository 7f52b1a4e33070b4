//! What only a GPU has: its own peaks, its memory, and the time of each kernel.

use super::measure::PartCost;
use anyhow::Result;
use config::Config;
use dreamer_agent::{Agent, Carry};
use engine::cuda::{Between, Gpu, KernelTime};
use engine::profile::{self, Costs};
use serde::Serialize;
use spaces::Record;
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// The figures of a GPU.
#[derive(Serialize)]
pub struct OnGpu {
    pub name: String,
    /// Best rates in the same process: multiply-adds in registers, 10^12 operations a second, and copies, 10^9 bytes read
    /// or written a second.
    pub peak_tflops: f64,
    pub copy_gbs: f64,
    /// Largest memory of the GPU that was held, 10^6 bytes, by updates and acting.
    pub memory_mb: f64,
    /// Seconds from before the GPU is opened to the end of the agent's first update; a process that measures several
    /// cases opens it for the first of them alone.
    pub first_update_s: f64,
    /// The costliest first.
    pub kernels: Vec<Kernel>,
}

/// All launches of one kernel in an update.
#[derive(Serialize)]
pub struct Kernel {
    pub name: &'static str,
    pub launches: usize,
    pub ms: f64,
}

/// Resets the peak of memory, after freeing what a case before has left.
pub fn forget_memory(config: &Config) -> Result<()> {
    for gpu in crate::device::gpus(config)? {
        gpu.release_pool();
        gpu.most_memory();
    }
    Ok(())
}

impl OnGpu {
    pub fn new(gpu: &'static Gpu, first_update_s: f64) -> OnGpu {
        let memory_mb = gpu.most_memory() as f64 / 1e6;
        let peaks = gpu.peaks();
        let name = gpu.properties().name.clone();
        let (peak_tflops, copy_gbs) = (peaks.flops / 1e12, peaks.bytes / 1e9);
        OnGpu { name, peak_tflops, copy_gbs, memory_mb, first_update_s, kernels: vec![] }
    }

    /// Times the kernels of an update, and then its parts, without timing marks between their kernels.
    pub fn time(&mut self, agent: &mut Agent, carry: &mut Carry, batch: &Record) -> Result<BTreeMap<String, PartCost>> {
        let (times, _) = agent.kernel_times(carry, batch, Between::Kernels)?;
        self.kernels = by_kernel(&times);
        let (times, costs) = agent.kernel_times(carry, batch, Between::Parts)?;
        let mut parts: BTreeMap<String, PartCost> = BTreeMap::new();
        for (name, Costs { forward, backward }) in costs.into_iter().filter(|(name, _)| *name != profile::WAITING) {
            let part = parts.entry(name.to_string()).or_default();
            (part.forward_gflop, part.backward_gflop) = (forward.flops as f64 / 1e9, backward.flops as f64 / 1e9);
            part.official_gflop = (forward.official + backward.official) as f64 / 1e9;
        }
        for KernelTime { part, backward, bytes, seconds, .. } in &times {
            let part = parts.entry(part.to_string()).or_default();
            *(if *backward { &mut part.backward_ms } else { &mut part.forward_ms }) += seconds * 1e3;
            part.gigabytes += *bytes as f64 / 1e9;
        }
        Ok(parts)
    }
}

/// Milliseconds between the ends of `count` updates that follow each other as in training: a thread prepares batches, each
/// update leaves a snapshot behind for acting, and is begun before the results of the one before it are fetched.
pub fn in_flow(count: usize, agent: &mut Agent, carry: &mut Carry, batch: &Record) -> Result<Vec<f64>> {
    let preparer = agent.preparer();
    let (send, ready) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || while send.send(preparer.prepare(batch.clone())).is_ok() {});
        let (mut times, mut before, mut end) = (Vec::new(), None, None::<Instant>);
        // Times are between finished updates: none ends at the first one, and the last one has no successor.
        while times.len() < count {
            let mut batch = ready.recv()??;
            drop(agent.snapshot()); // which copies the parameters that acting needs
            let begun = agent.begin(carry, &mut batch)?;
            if let Some(before) = before.replace(begun) {
                agent.finish(before)?;
                let now = Instant::now();
                times.extend(end.replace(now).map(|end| (now - end).as_secs_f64() * 1e3));
            }
        }
        before.map_or(Ok(()), |last| agent.finish(last).map(drop))?;
        drop(ready); // which ends the thread
        Ok(times)
    })
}

fn by_kernel(times: &[KernelTime]) -> Vec<Kernel> {
    let mut all: BTreeMap<&str, Kernel> = BTreeMap::new();
    for time in times {
        let kernel = all.entry(time.kernel).or_insert(Kernel { name: time.kernel, launches: 0, ms: 0.0 });
        kernel.launches += 1;
        kernel.ms += time.seconds * 1e3;
    }
    let mut all: Vec<Kernel> = all.into_values().collect();
    all.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_added_up_by_name() {
        let time = |kernel, seconds| KernelTime { part: "scan", backward: false, kernel, bytes: 0, seconds };
        let kernels = by_kernel(&[time("a", 1e-3), time("b", 5e-3), time("a", 2e-3)]);
        let seen: Vec<_> = kernels.iter().map(|k| (k.name, k.launches, k.ms.round())).collect();
        assert_eq!(seen, [("b", 1, 5.0), ("a", 2, 3.0)]);
    }
}
