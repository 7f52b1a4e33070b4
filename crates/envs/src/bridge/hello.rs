//! The handshake: what the trainer asks of a worker, what it answers, and where values lie.

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spaces::{Array, DType, Record, Space, Spaces};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Version of the protocol.
pub const VERSION: u32 = 2;
/// Bytes of a slot at most: several times what the largest observation takes.
const STRIDE: usize = 1 << 32;
/// Classes that a discrete key may have: the agent sees it one-hot, with weights for each.
const CLASSES: f64 = 65536.0;

/// The trainer's request, one line.
#[derive(Clone, Debug, Serialize)]
pub struct Ask {
    pub version: u32,
    /// The descriptor whose other end closes when the trainer ends; known once the process is about to start.
    pub lifeline: i32,
    pub task: String,
    /// Number of the first environment within the run.
    pub index: usize,
    pub slots: usize,
    pub seed: u32,
    pub options: Value,
    pub kwargs: Value,
}

/// The worker's answer if it cannot do what was asked.
#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
    cure: Option<String>,
    /// Whether the log says more, such as the lines of the program where it happened.
    #[serde(default)]
    log: bool,
}

/// The worker's answer if it can.
#[derive(Debug, Deserialize)]
struct Hello {
    slots: usize,
    stride: usize,
    act: IndexMap<String, Key>,
    obs: IndexMap<String, Key>,
    logs: Option<Logs>,
    #[serde(default)]
    together: bool,
    #[serde(default)]
    notes: Vec<String>,
}

/// The version, read first: in another one the rest may differ.
#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Debug, Deserialize)]
struct Key {
    dtype: String,
    shape: Vec<usize>,
    low: Option<f64>,
    high: Option<f64>,
    offset: usize,
}

/// What a worker tells of itself.
#[derive(Debug)]
pub struct Answer {
    pub layout: Layout,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// A worker's spaces and where their values lie in its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Bytes from one slot to the next.
    pub stride: usize,
    pub act: Side,
    pub obs: Side,
    pub logs: Option<Logs>,
    /// Whether all slots step together: a step takes all their actions, and all answer at once.
    pub together: bool,
}

/// Where each slot has further metrics of the step: a JSON object of numbers as text, ended by a zero byte.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Logs {
    pub offset: usize,
    pub size: usize,
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

/// The name of the memory file in a worker's answer, whatever else is in it.
pub fn memory(line: &str) -> Option<PathBuf> {
    let json: Value = serde_json::from_str(line).ok()?;
    Some(json.get("memory")?.as_str()?.into())
}

/// The sentence of an error line, with its cure; and whether the log says more.
pub fn refusal(line: &str) -> Option<(String, bool)> {
    let Refusal { error, cure, log } = serde_json::from_str(line).ok()?;
    Some((error + &cure.map(|cure| format!("; this helps: {cure}")).unwrap_or_default(), log))
}

/// Reads a worker's answer to a question for `slots` environments.
pub fn read(line: &str, slots: usize) -> Result<Answer> {
    let foreign = || format!("the worker's answer is not of the protocol: {}", line.trim_end());
    let Versioned { version } = serde_json::from_str(line).with_context(foreign)?;
    ensure!(
        version == VERSION,
        "the worker speaks version {version} of the protocol, but this program {VERSION}; for the Python package, \
         `pip install ./python` in the repository brings the one that fits"
    );
    let hello: Hello = serde_json::from_str(line).with_context(foreign)?;
    let held = hello.slots;
    ensure!(held == slots, "the worker holds {held} environments, but {slots} were asked for; change env.slots");
    ensure!(
        hello.stride <= STRIDE,
        "the worker's slots have {} bytes, and more than {STRIDE} is too much",
        hello.stride
    );
    let (act, obs) = (Side::new(hello.act)?, Side::new(hello.obs)?);
    if let Some((key, space)) = act.spaces.iter().find(|(_, space)| space.low == space.high) {
        bail!("the worker's key '{key}' is an action that can only be {}; leave it out", space.low);
    }
    for (name, side) in [("act", &act), ("obs", &obs)] {
        let (end, stride) = (side.start + side.len, hello.stride);
        ensure!(end <= stride, "the worker's keys of '{name}' end at byte {end} of a slot of {stride} bytes");
    }
    if let Some(Logs { offset, size }) = hello.logs {
        let fits = offset.checked_add(size).is_some_and(|end| end <= hello.stride);
        ensure!(fits, "the worker's logs do not fit into a slot of {} bytes", hello.stride);
    }
    let layout = Layout { stride: hello.stride, act, obs, logs: hello.logs, together: hello.together };
    Ok(Answer { layout, notes: hello.notes })
}

impl Layout {
    /// What makes this layout another one than `other`, in words.
    pub fn difference(&self, other: &Layout) -> Option<String> {
        let spaces = crate::record::difference(&self.act.spaces, &other.act.spaces)
            .or_else(|| crate::record::difference(&self.obs.spaces, &other.obs.spaces));
        let together = if self.together { "its environments step only together" } else { "they step by themselves" };
        let spaces = spaces.or_else(|| (self.together != other.together).then(|| together.into()));
        spaces.or_else(|| (self != other).then(|| "its values lie elsewhere in its memory".into()))
    }
}

/// The metrics in the text of a step, each by its name in the record.
pub fn metrics(text: &[u8]) -> Result<Vec<(String, Array)>> {
    let end = text.iter().position(|&byte| byte == 0);
    let text = &text[..end.context("the worker's logs have no end: a zero byte ends their text")?];
    if text.is_empty() {
        return Ok(vec![]);
    }
    let numbers: BTreeMap<String, f64> = serde_json::from_slice(text).with_context(|| {
        format!("the worker's logs are no JSON object of numbers: {}", String::from_utf8_lossy(text))
    })?;
    let named = numbers.into_iter().map(|(name, value)| (format!("log/{name}"), value as f32));
    Ok(named.filter(|(_, value)| value.is_finite()).map(|(name, value)| (name, Array::f32(value))).collect())
}

impl Side {
    fn new(keys: IndexMap<String, Key>) -> Result<Self> {
        let start = keys.values().map(|key| key.offset).min().unwrap_or(0);
        let (mut spaces, mut offsets, mut len) = (Spaces::new(), vec![], 0);
        for (name, key) in keys {
            ensure!(key.offset <= STRIDE, "the worker's key '{name}' lies at byte {}, too far away", key.offset);
            let offset = key.offset - start;
            let space = key.space().with_context(|| format!("the worker's key '{name}'"))?;
            let many = space.dtype == DType::I32 && space.high - space.low > CLASSES && !spaces::is_log(&name);
            ensure!(!many, "the worker's key '{name}' has more than {CLASSES} classes; send it as float32");
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

    /// The span's bytes with `reset` set; the rest of such an action is ignored.
    pub fn reset(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        if let Some(i) = self.spaces.get_index_of("reset") {
            bytes[self.offsets[i]] = 1;
        }
        bytes
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
        // `high` is exclusive for integers and inclusive for floats.
        let hold = if dtype == DType::F32 { low <= high } else { low < high };
        ensure!(hold, "has the bounds {low} to {high}, which hold nothing");
        let size = self.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        ensure!(size.is_some_and(|n| n <= 1 << 28), "has the shape {:?}, which is too large", self.shape);
        Ok(Space { dtype, shape: self.shape, low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hello(change: impl Fn(&mut Value)) -> Result<Layout> {
        let flag = |offset| json!({"dtype": "bool", "shape": [], "offset": offset});
        let mut json = json!({
            "version": 2, "slots": 1, "memory": "", "stride": 64, "logs": {"offset": 32, "size": 32},
            "act": {"reset": flag(0)},
            "obs": {"room": {"dtype": "int32", "shape": [], "low": 0, "high": 4, "offset": 4}},
        });
        change(&mut json);
        Ok(read(&json.to_string(), 1)?.layout)
    }

    #[test]
    fn answers_that_cannot_be_are_refused() {
        assert!(hello(|_| ()).is_ok());
        let error = |change: fn(&mut Value)| format!("{:#}", hello(change).unwrap_err());
        assert!(error(|json| json["logs"]["size"] = json!(33)).contains("the worker's logs do not fit"));
        assert!(error(|json| json["stride"] = json!(4)).contains("end at byte"));
        let many = error(|json| json["obs"]["room"]["high"] = json!(1u64 << 40));
        assert_eq!(many, "the worker's key 'room' has more than 65536 classes; send it as float32");
        fn push(json: &mut Value, kind: &str, low: f64) {
            json[kind]["push"] = json!({"dtype": "float32", "shape": [], "low": low, "high": 1, "offset": 8});
        }
        assert!(hello(|json| push(json, "obs", 1.0)).is_ok(), "a value that never changes can be seen");
        assert!(error(|json| push(json, "obs", 2.0)).contains("has the bounds 2 to 1, which hold nothing"));
        let fixed = error(|json| push(json, "act", 1.0));
        assert_eq!(fixed, "the worker's key 'push' is an action that can only be 1; leave it out");
        assert!(error(|json| json["obs"]["room"]["offset"] = json!(u64::MAX)).contains("too far away"));
        assert!(error(|json| json["stride"] = json!(u64::MAX)).contains("too much"));
        let newer = error(|json| *json = json!({"version": 3, "slots": "many"}));
        assert!(newer.contains("speaks version 3 of the protocol, but this program 2; for the Python"), "{newer}");
    }

    #[test]
    fn what_an_answer_need_not_have() {
        let plain = json!({"version": 2, "slots": 1, "stride": 0, "act": {}, "obs": {}});
        let Answer { layout, notes } = read(&plain.to_string(), 1).unwrap();
        assert!(!layout.together && layout.logs.is_none() && notes.is_empty());
        let mut more = plain;
        (more["together"], more["notes"], more["later"]) = (json!(true), json!(["a sentence"]), json!("is ignored"));
        let Answer { layout, notes } = read(&more.to_string(), 1).unwrap();
        assert!(layout.together && notes == ["a sentence"]);
    }

    #[test]
    fn differences_are_told() {
        let plain = hello(|_| ()).unwrap();
        let other = hello(|json| json["obs"]["room"]["high"] = json!(5)).unwrap();
        assert_eq!(other.difference(&plain).unwrap(), "'room' is int32 [] of 5 classes, not int32 [] of 4 classes");
        let moved = hello(|json| json["obs"]["room"]["offset"] = json!(8)).unwrap();
        assert_eq!(moved.difference(&plain).unwrap(), "its values lie elsewhere in its memory");
        assert_eq!(plain.difference(&plain.clone()), None);
    }

    #[test]
    fn metrics_are_numbers_with_names() {
        let named = metrics(b"{\"hit\": 1, \"episode/r\": -0.5}\0rest").unwrap();
        assert_eq!(named, [("log/episode/r".into(), Array::f32(-0.5)), ("log/hit".into(), Array::f32(1.0))]);
        assert!(metrics(b"\0{").unwrap().is_empty());
        assert!(metrics(b"{}").unwrap_err().to_string().contains("have no end"));
        for text in [&b"[1]\0"[..], b"{\"a\": \"b\"}\0", b"{\"a\": 1\0"] {
            assert!(metrics(text).unwrap_err().to_string().contains("no JSON object of numbers"));
        }
    }
}
