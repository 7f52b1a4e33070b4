//! Checkpoints: each a folder that appears as a whole or not at all, the last two kept.

use crate::files::{make_dir, replace_file, sync_dir, sync_name};
use crate::tensors;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

const AGENT: &str = "agent.safetensors";
const ARRAYS: &str = "state.safetensors";
const STATE: &str = "state.json";
const SUMS: &str = "checksums.json";
const LATEST: &str = "latest";
const KEEP: usize = 2;

/// One consistent moment of a run.
pub struct Moment {
    /// The agent's tensors by their official names.
    pub agent: Record,
    /// Carries, environment states and pending actions.
    pub arrays: Record,
    /// Counters, clocks and aggregators.
    pub state: serde_json::Value,
}

/// Puts `part` under `prefix/` into `whole`, the arrays of a [`Moment`].
pub fn nest(whole: &mut Record, prefix: &str, part: Record) {
    whole.extend(part.into_iter().map(|(key, value)| (format!("{prefix}/{key}"), value)));
}

/// What lies under `prefix/` in `whole`.
pub fn unnest(whole: &Record, prefix: &str) -> Record {
    let inner = |(key, value): (&String, &Array)| {
        let key = key.strip_prefix(prefix)?.strip_prefix('/')?;
        Some((key.to_string(), value.clone()))
    };
    whole.iter().filter_map(inner).collect()
}

/// The folder `ckpt` of a run.
pub struct Checkpoints {
    dir: PathBuf,
    /// Names of the checkpoints that this process wrote or read, oldest first.
    good: Vec<String>,
}

/// Size and checksum of one file of a checkpoint.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    crc32: u32,
}

impl Checkpoints {
    pub fn new(dir: &Path) -> Self {
        Checkpoints { dir: dir.to_path_buf(), good: Vec::new() }
    }

    /// Writes `moment` as the checkpoint of policy step `step` and drops all but the last two.
    /// Where it fails, the earlier checkpoints are as they were.
    pub fn save(&mut self, step: u64, moment: &Moment) -> Result<PathBuf> {
        let name = self.free_name(step);
        let (temporary, path) = (self.dir.join(format!(".tmp-{name}")), self.dir.join(&name));
        fs::remove_dir_all(&temporary).ok();
        let written = self.write(&temporary, &path, moment).and_then(|()| self.point_to(&name));
        if written.is_err() {
            fs::remove_dir_all(&temporary).ok();
            if !self.latest().is_ok_and(|latest| latest == name) {
                fs::remove_dir_all(&path).ok();
            }
        }
        written.with_context(|| format!("the checkpoint of step {step} could not be saved to {}", path.display()))?;
        self.good.push(name);
        self.prune();
        Ok(path)
    }

    /// The newest checkpoint that is whole, beginning with the one that `latest` names, and a
    /// warning for each one that is not. `None` where there is none yet; an error where all are damaged.
    pub fn load(&mut self) -> Result<(Option<Moment>, Vec<String>)> {
        let mut names = self.names()?;
        names.reverse();
        if let Ok(latest) = self.latest() {
            // A stable sort: `latest` first, the others from new to old.
            names.sort_by_key(|name| *name != latest);
        }
        let mut warnings = Vec::new();
        for name in &names {
            match read(&self.dir.join(name)) {
                Ok(moment) => {
                    self.good = vec![name.clone()];
                    return Ok((Some(moment), warnings));
                }
                Err(error) => warnings.push(format!("checkpoint {name} is skipped: {error:#}")),
            }
        }
        if !names.is_empty() {
            let all = warnings.join("; ");
            bail!("no checkpoint in {} can be read ({all})", self.dir.display());
        }
        Ok((None, warnings))
    }

    fn write(&self, temporary: &Path, path: &Path, moment: &Moment) -> Result<()> {
        make_dir(&self.dir)?;
        make_dir(temporary)?;
        tensors::write(&temporary.join(AGENT), &moment.agent, "dreamer agent")?;
        tensors::write(&temporary.join(ARRAYS), &moment.arrays, "dreamer run state")?;
        fs::write(temporary.join(STATE), serde_json::to_vec_pretty(&moment.state)?)?;
        let mut sums = BTreeMap::new();
        for file in [AGENT, ARRAYS, STATE] {
            sums.insert(file, checksum(&temporary.join(file))?);
        }
        fs::write(temporary.join(SUMS), serde_json::to_vec_pretty(&sums)?)?;
        for file in [AGENT, ARRAYS, STATE, SUMS] {
            File::open(temporary.join(file))?.sync_all()?;
        }
        sync_dir(temporary);
        fs::rename(temporary, path)?;
        sync_name(&self.dir); // which the first checkpoint made
        sync_dir(&self.dir);
        Ok(())
    }

    /// The name that `latest` holds.
    fn latest(&self) -> std::io::Result<String> {
        Ok(fs::read_to_string(self.dir.join(LATEST))?.trim().to_string())
    }

    /// Makes `latest` name the checkpoint `name`.
    fn point_to(&self, name: &str) -> Result<()> {
        replace_file(&self.dir.join(LATEST), format!("{name}\n").as_bytes())
    }

    /// Checkpoint names, oldest first; none where there is no folder yet.
    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.with_context(|| format!("the folder {} cannot be read", self.dir.display()))?,
        };
        let folders = entries.flatten().filter(|entry| entry.path().is_dir());
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_name(name)).collect();
        names.sort();
        Ok(names)
    }

    /// The step with leading zeros, so that names sort as numbers; a second checkpoint of one step gets a suffix.
    fn free_name(&self, step: u64) -> String {
        let taken = |name: &String| self.dir.join(name).exists();
        let mut name = format!("{step:012}");
        let mut again = 0;
        while taken(&name) {
            again += 1;
            name = format!("{step:012}.{again:03}");
        }
        name
    }

    /// Removes every checkpoint but the last two good ones, and what interrupted saves left.
    fn prune(&mut self) {
        self.good.drain(..self.good.len().saturating_sub(KEEP));
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let old = is_name(&name) && !self.good.contains(&name);
            if (old || name.starts_with(".tmp-")) && entry.path().is_dir() {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

/// Whether a checkpoint may have this name. Copies of other names are the user's own.
fn is_name(name: &str) -> bool {
    let (step, again) = name.split_once('.').unwrap_or((name, "000"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    step.len() >= 12 && again.len() >= 3 && digits(step) && digits(again)
}

/// Reads and verifies one checkpoint folder.
pub fn read(path: &Path) -> Result<Moment> {
    verify(path)?;
    let agent = tensors::read(&path.join(AGENT))?;
    let broken = agent.iter().find(|(_, x)| !x.is_finite());
    ensure!(broken.is_none(), "its '{}' holds NaN or infinity", broken.map_or("", |(name, _)| name));
    let arrays = tensors::read(&path.join(ARRAYS))?;
    let state = serde_json::from_slice(&fs::read(path.join(STATE))?).context("state.json is damaged")?;
    Ok(Moment { agent, arrays, state })
}

/// Reads the agent's tensors from what `run.from_checkpoint` names: a safetensors file, a
/// checkpoint folder, a folder of checkpoints or a run folder. Where newer checkpoints are damaged,
/// a warning for each comes with them.
pub fn read_agent(path: &Path) -> Result<(Record, Vec<String>)> {
    if path.is_file() {
        return Ok((tensors::read(path)?, vec![]));
    }
    find(path).map(|(moment, warnings)| (moment.agent, warnings))
}

/// Writes an agent's tensors to a safetensors file, beside and renamed; [`read_agent`] and `run.from_checkpoint` take it.
pub fn write_agent(path: &Path, agent: &Record) -> Result<()> {
    replay::files::replace_by(path, |beside| tensors::write(beside, agent, "dreamer agent"))
        .with_context(|| format!("the agent cannot be written to {}", path.display()))?;
    sync_name(path);
    Ok(())
}

/// The checkpoint that `path` is, or the newest whole one of a folder of checkpoints or of a run, as [`read_agent`] says.
pub fn find(path: &Path) -> Result<(Moment, Vec<String>)> {
    for dir in [path.to_path_buf(), path.join("ckpt")] {
        if dir.join(SUMS).is_file() {
            return Ok((read(&dir)?, vec![]));
        }
        if let (Some(moment), warnings) = Checkpoints::new(&dir).load()? {
            return Ok((moment, warnings));
        }
    }
    bail!("{} holds no checkpoint; name a run folder or a checkpoint in it", path.display())
}

fn verify(path: &Path) -> Result<()> {
    let sums = fs::read(path.join(SUMS)).context("checksums.json is missing")?;
    let sums: BTreeMap<String, Sum> = serde_json::from_slice(&sums).context("checksums.json is damaged")?;
    for file in [AGENT, ARRAYS, STATE] {
        let expect = sums.get(file).with_context(|| format!("checksums.json does not name {file}"))?;
        let found = checksum(&path.join(file)).with_context(|| format!("{file} cannot be read"))?;
        ensure!(found == *expect, "{file} does not match its checksum");
    }
    Ok(())
}

fn checksum(path: &Path) -> Result<Sum> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sum { bytes, crc32: hasher.finalize() }),
            n => {
                hasher.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
