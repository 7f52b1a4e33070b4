//! Memory and processor use of this process, under the official names (`psutil/proc_ram_gb`, …).

use super::metrics::{Metrics, insert_scalar};
use std::fs;
use std::time::Instant;

const GB: f64 = (1u64 << 30) as f64;

/// Reads the process's use of the machine. Where the system has no `/proc`, there is nothing to tell.
pub struct Usage {
    since: Instant,
    ticks: f64,
}

impl Default for Usage {
    fn default() -> Self {
        Usage { since: Instant::now(), ticks: ticks().unwrap_or(0.0) }
    }
}

impl Usage {
    pub fn new() -> Self {
        Self::default()
    }

    /// `proc_ram_gb` (resident), its share of the machine's memory, processors in use since the last call (1 is one
    /// core fully busy), and the machine's totals.
    pub fn stats(&mut self) -> Metrics {
        let mut stats = Metrics::new();
        let mut put = |key: &str, x: f64| insert_scalar(&mut stats, format!("psutil/{key}"), x);
        if let Some(now) = ticks() {
            // Linux counts processor time in hundredths of a second towards user space.
            put("proc_cpu_usage", (now - self.ticks) / 100.0 / self.since.elapsed().as_secs_f64().max(1e-9));
            (self.since, self.ticks) = (Instant::now(), now);
        }
        let total = kilobytes("/proc/meminfo", "MemTotal:");
        if let (Some(rss), Some(total)) = (resident(), total) {
            put("proc_ram_frac", rss / total);
            put("proc_ram_gb", rss / GB);
        }
        if let Ok(cores) = std::thread::available_parallelism() {
            put("total_cpu_count", cores.get() as f64);
        }
        if let (Some(total), Some(free)) = (total, kilobytes("/proc/meminfo", "MemAvailable:")) {
            put("total_ram_frac", 1.0 - free / total);
            put("total_ram_total_gb", total / GB);
            put("total_ram_avail_gb", free / GB);
        }
        stats
    }
}

/// Bytes of memory that this process has resident, where the system tells.
pub fn resident() -> Option<f64> {
    kilobytes("/proc/self/status", "VmRSS:")
}

/// The bytes behind a line such as `VmRSS:  1234 kB`.
pub fn kilobytes(path: &str, field: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// Processor time that all threads of this process have had, in hundredths of a second.
fn ticks() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, may hold blanks: count from its closing bracket.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Value;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_seen() {
        // Other tests of this process come and go, so only a lower bound holds.
        let block = vec![1u8; 64 << 20];
        let bytes = resident().unwrap();
        assert!(bytes > 6e7, "{bytes} {}", block[1 << 20]);
        let stats = Usage::new().stats();
        let Value::Scalar(gb) = stats["psutil/proc_ram_gb"] else { panic!("not a scalar") };
        assert!(gb > 0.05 && gb < 100.0, "{gb}");
        assert!(matches!(stats["psutil/proc_cpu_usage"], Value::Scalar(x) if x >= 0.0));
    }
}
