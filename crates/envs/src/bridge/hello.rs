//! The handshake: what the trainer asks of a worker, what it answers, and where values lie.

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spaces::{Array, DType, Record, Space, Spaces};
use std::path::PathBuf;

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// The trainer's line.
#[derive(Clone, Debug, Serialize)]
pub struct Ask {
    pub version: u32,
    pub task: String,
    /// Number of the first environment within the run.
    pub index: usize,
    pub slots: usize,
    pub seed: u32,
    pub options: Value,
    pub kwargs: Value,
}

/// The worker's line where it cannot do what was asked.
#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
    cure: Option<String>,
}

/// The worker's line where it can.
#[derive(Debug, Deserialize)]
struct Hello {
    version: u32,
    slots: usize,
    memory: PathBuf,
    stride: usize,
    act: IndexMap<String, Key>,
    obs: IndexMap<String, Key>,
}

#[derive(Debug, Deserialize)]
struct Key {
    dtype: String,
    shape: Vec<usize>,
    low: Option<f64>,
    high: Option<f64>,
    offset: usize,
}

/// A worker's spaces and where their values lie in its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Bytes from one slot to the next.
    pub stride: usize,
    pub act: Side,
    pub obs: Side,
}

/// Actions or observations: a span of bytes of each slot with several keys in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    pub spaces: Spaces,
    /// Bytes of each key from the start of the span, in the order of `spaces`.
    offsets: Vec<usize>,
    /// Bytes of the span from the start of a slot.
    pub start: usize,
    pub len: usize,
}

/// Reads a worker's answer to a question for `slots` environments: the layout and the memory file's name.
pub fn read(line: &str, slots: usize) -> Result<(Layout, PathBuf)> {
    if let Ok(Refusal { error, cure }) = serde_json::from_str(line) {
        bail!("{error}{}", cure.map(|cure| format!("; this helps: {cure}")).unwrap_or_default());
    }
    let hello: Hello = serde_json::from_str(line)
        .with_context(|| format!("the worker's answer is not of the protocol: {}", line.trim_end()))?;
    let version = hello.version;
    ensure!(version == VERSION, "the worker speaks version {version} of the protocol, but this program {VERSION}");
    let held = hello.slots;
    ensure!(held == slots, "the worker holds {held} environments, but {slots} were asked for; change env.slots");
    let (act, obs) = (Side::new(hello.act)?, Side::new(hello.obs)?);
    for (name, side) in [("act", &act), ("obs", &obs)] {
        let (end, stride) = (side.start + side.len, hello.stride);
        ensure!(end <= stride, "the worker's keys of '{name}' end at byte {end} of a slot of {stride} bytes");
    }
    Ok((Layout { stride: hello.stride, act, obs }, hello.memory))
}

impl Side {
    fn new(keys: IndexMap<String, Key>) -> Result<Self> {
        let start = keys.values().map(|key| key.offset).min().unwrap_or(0);
        let (mut spaces, mut offsets, mut len) = (Spaces::new(), vec![], 0);
        for (name, key) in keys {
            let offset = key.offset - start;
            let space = key.space().with_context(|| format!("the worker's key '{name}'"))?;
            len = len.max(offset + space.size() * space.dtype.size());
            offsets.push(offset);
            spaces.insert(name, space);
        }
        Ok(Side { spaces, offsets, start, len })
    }

    /// The span's bytes with the values of `record`, which must have every key; others are left out.
    pub fn write(&self, record: &Record) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        for ((key, space), &offset) in self.spaces.iter().zip(&self.offsets) {
            let value = record.get(key).with_context(|| format!("the action lacks the key '{key}'"))?;
            space.check(key, value).map_err(|error| anyhow::anyhow!("in the action, {error}"))?;
            let value = value.to_bytes();
            bytes[offset..offset + value.len()].copy_from_slice(&value);
        }
        Ok(bytes)
    }

    /// The values in the span's bytes. An error names the first one that is not what its space says.
    pub fn read(&self, bytes: &[u8]) -> Result<Record> {
        let mut record = Record::new();
        for ((key, space), &offset) in self.spaces.iter().zip(&self.offsets) {
            let bytes = &bytes[offset..][..space.size() * space.dtype.size()];
            let value = Array::from_bytes(space.dtype, &space.shape, bytes).context("a key of another length")?;
            if !(space.dtype == DType::U8 && space.low <= 0.0 && space.high >= 256.0) {
                space.check(key, &value).map_err(|error| anyhow::anyhow!("in the observation, {error}"))?;
            }
            let wild =
                if space.dtype == DType::F32 { value.to_f32().into_iter().find(|x| !x.is_finite()) } else { None };
            ensure!(wild.is_none(), "in the observation, key '{key}' holds {}", wild.unwrap_or_default());
            record.insert(key.clone(), value);
        }
        Ok(record)
    }
}

impl Key {
    fn space(self) -> Result<Space> {
        let known = [DType::Bool, DType::U8, DType::I32, DType::F32];
        let dtype = known.into_iter().find(|dtype| dtype.name() == self.dtype);
        let dtype = dtype.with_context(|| format!("is {}; send bool, uint8, int32 or float32", self.dtype))?;
        let (low, high) = match dtype {
            DType::F16 | DType::F32 => (self.low.unwrap_or(f64::NEG_INFINITY), self.high.unwrap_or(f64::INFINITY)),
            DType::U8 => (self.low.unwrap_or(0.0), self.high.unwrap_or(256.0)),
            DType::Bool => (0.0, 2.0),
            DType::I32 => match (self.low, self.high) {
                (Some(low), Some(high)) => (low, high),
                _ => bail!("is int32, but lacks the bounds low and high"),
            },
        };
        ensure!(low < high, "has the bounds {low} to {high}, which hold nothing");
        let size = self.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        ensure!(size.is_some_and(|n| n <= 1 << 28), "has the shape {:?}, which is too large", self.shape);
        Ok(Space { dtype, shape: self.shape, low, high })
    }
}
