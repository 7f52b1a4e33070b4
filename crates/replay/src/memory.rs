//! How much memory the machine has, and what of it a replay may take.

use crate::chunk::{Column, step_bytes};
use spaces::Spaces;
use std::fs;

/// The fewest steps for which a chunk is worth a file.
const SMALL: u64 = 16;

/// Assumed where the system does not say.
const FALLBACK: u64 = 8 << 30;

/// Bytes of memory that one stored step takes: every key of `spaces` but `log/…`, so include the
/// latents (`dyn/deter` as float16, `dyn/stoch` as uint8 indices), and some bytes of bookkeeping.
pub fn bytes_per_step(spaces: &Spaces) -> usize {
    let kept = spaces.iter().filter(|(name, _)| !spaces::is_log(name));
    let column =
        |(name, s): (&String, &spaces::Space)| Column { name: name.clone(), dtype: s.dtype, shape: s.shape.clone() };
    step_bytes(&kept.map(column).collect())
}

/// The largest chunks, of at most `chunksize` steps, so that `bytes` hold two of them and a sequence of `length` steps
/// for each worker. Chunks are freed whole: larger ones would leave next to nothing to sample. None where not even a
/// small one fits.
pub fn fitting_chunksize(chunksize: usize, length: usize, workers: usize, step: usize, bytes: u64) -> Option<usize> {
    let steps = bytes / (workers * step).max(1) as u64; // of each worker
    let fits = steps.saturating_sub(length as u64) / 2;
    (fits >= SMALL).then(|| chunksize.min(fits as usize))
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
    let limits = limits(&read("/proc/self/cgroup"));
    limits.iter().filter_map(|path| read(path).trim().parse().ok()).fold(machine, u64::min)
}

/// The files that may limit this process's memory, by what `/proc/self/cgroup` says: those of its control group of either
/// version and of all groups around it, as batch systems and services set them.
fn limits(groups: &str) -> Vec<String> {
    let mut files = vec![];
    for line in groups.lines().chain(["0::/", "0:memory:/"]) {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers.is_empty() {
            true => ("/sys/fs/cgroup", "memory.max"),
            false if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            false => continue,
        };
        let around = std::path::Path::new(group).ancestors();
        files.extend(around.map(|group| format!("{root}{}/{file}", group.display().to_string().trim_end_matches('/'))));
    }
    files
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
    fn limits_of_all_groups_around_the_process_count() {
        let system = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(limits(""), system);
        let slurm = limits("0::/system.slice/job_7\n");
        assert_eq!(
            slurm[..2],
            ["/sys/fs/cgroup/system.slice/job_7/memory.max", "/sys/fs/cgroup/system.slice/memory.max"]
        );
        assert_eq!(slurm[2], system[0]);
        let older = limits("9:cpu,cpuacct:/a\n4:memory:/a/b\nno group\n");
        assert_eq!(older[0], "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes");
        assert!(!older.iter().any(|file| file.contains("cpu")) && older.contains(&system[1].to_string()));
    }

    #[test]
    fn chunks_are_as_large_as_memory_lets_two_of_each_worker_be() {
        assert_eq!(fitting_chunksize(1024, 64, 16, 100, 1 << 30), Some(1024));
        assert_eq!(fitting_chunksize(1024, 64, 16, 20_000, 256 << 20), Some((838 - 64) / 2));
        assert_eq!(fitting_chunksize(1024, 64, 16, 20_000, 32 << 20), Some(20));
        assert_eq!(fitting_chunksize(1024, 64, 16, 20_000, 16 << 20), None);
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
