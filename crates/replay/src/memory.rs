//! How much memory the machine has, and what of it a replay may take.

use crate::chunk::{Column, step_bytes};
use spaces::Spaces;
use std::fs;

/// The part of the machine's memory that a replay takes by default.
pub const MEMORY_SHARE: f64 = 0.25;

/// Assumed where the system does not say.
const FALLBACK: u64 = 8 << 30;

/// Bytes of memory that one stored step takes: every key of `spaces` but `log/…`, so include the
/// latents (`dyn/deter` as float16, `dyn/stoch` as uint8 indices), and some bytes of bookkeeping.
pub fn bytes_per_step(spaces: &Spaces) -> usize {
    let kept = spaces.iter().filter(|(name, _)| !name.starts_with("log/"));
    let column =
        |(name, s): (&String, &spaces::Space)| Column { name: name.clone(), dtype: s.dtype, shape: s.shape.clone() };
    step_bytes(&kept.map(column).collect())
}

/// Bytes that a replay may take when it is to have `share` (0 to 1) of the machine's memory.
pub fn capacity_bytes(share: f64) -> u64 {
    (memory_bytes() as f64 * share.clamp(0.0, 1.0)) as u64
}

/// The machine's memory in bytes, or the limit that a container sets where that is lower; 8 GiB
/// where the system does not say.
pub fn memory_bytes() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine = meminfo(&read("/proc/meminfo")).unwrap_or(FALLBACK);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    limits.iter().filter_map(|path| read(path).trim().parse().ok()).fold(machine, u64::min)
}

/// `MemTotal:  16316412 kB` as bytes.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::STEP_OVERHEAD;
    use spaces::Space;

    #[test]
    fn memory_is_read_and_shared() {
        assert_eq!(meminfo("MemTotal:       16316412 kB\nMemFree: 1 kB\n"), Some(16316412 * 1024));
        assert_eq!(meminfo("MemFree: 1 kB\n"), None);
        assert_eq!(meminfo("MemTotal: many kB\n"), None);
        assert!(memory_bytes() > 1 << 20);
        assert_eq!(capacity_bytes(0.25), (memory_bytes() as f64 * 0.25) as u64);
    }

    #[test]
    fn a_step_of_the_smallest_size_takes_about_thirteen_kilobytes() {
        let latent = |dtype, n| Space { dtype, shape: vec![n], low: 0.0, high: 4.0 };
        let spaces = Spaces::from([
            ("image".into(), Space::image(64, 64, 3)),
            ("reward".into(), Space::float(&[])),
            ("dyn/deter".into(), latent(spaces::DType::F16, 512)),
            ("dyn/stoch".into(), latent(spaces::DType::U8, 32)),
            ("log/position".into(), Space::float(&[1000])),
        ]);
        assert_eq!(bytes_per_step(&spaces), 64 * 64 * 3 + 4 + 1024 + 32 + STEP_OVERHEAD);
    }
}
