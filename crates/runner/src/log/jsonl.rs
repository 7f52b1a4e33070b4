//! Append-only metrics files: one JSON object a line, `step` first, repaired on opening.

use super::appender::Appender;
use crate::files::replace_file;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// One line of a file: its step in environment frames and the numbers beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub step: u64,
    pub values: Vec<(String, f64)>,
}

/// A file open for appending.
pub struct Jsonl {
    pub file: Appender,
}

impl Jsonl {
    /// Opens `path` for appending, creating it where it is missing. A last line that a crash
    /// left half-written is cut off.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        if path.exists() {
            let old = fs::read(path).with_context(|| format!("cannot read the metrics file {name}"))?;
            let kept = keep(&old);
            if kept.len() < old.len() {
                replace_file(path, &kept).with_context(|| format!("cannot repair the metrics file {name}"))?;
            }
        }
        Ok(Jsonl { file: Appender::open(path)? })
    }

    /// Adds rows for the file's next flush. Numbers that JSON cannot hold become null.
    pub fn add<'a>(&mut self, rows: impl IntoIterator<Item = (u64, Vec<(&'a str, f64)>)>) {
        for (step, values) in rows {
            let mut object = Map::new();
            object.insert("step".into(), json!(step));
            object.extend(values.into_iter().map(|(key, x)| (key.to_string(), json!(x))));
            self.file.add(format!("{}\n", Value::Object(object)).as_bytes());
        }
    }
}

#[derive(Deserialize)]
struct Step {
    #[serde(rename = "step")]
    _step: u64,
}

/// The whole lines of a file that parse.
fn keep(bytes: &[u8]) -> Vec<u8> {
    let whole = |line: &&[u8]| line.ends_with(b"\n") && serde_json::from_slice::<Step>(line).is_ok();
    bytes.split_inclusive(|&b| b == b'\n').filter(whole).flatten().copied().collect()
}

/// Every readable row of a file, in order; null is NaN. Lines that are not such rows, as the one
/// that a run is just writing, are skipped.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the metrics file {}", path.display()))?;
    let row = |line: &[u8]| -> Option<Row> {
        let object: Map<String, Value> = serde_json::from_slice(line).ok()?;
        let number = |x: &Value| if x.is_null() { Some(f64::NAN) } else { x.as_f64() };
        // The official code, too, writes whole steps, but a CSV converter may not.
        let step = object.get("step")?.as_f64()? as u64;
        let values = object.iter().filter(|(key, _)| *key != "step");
        Some(Row { step, values: values.filter_map(|(key, x)| Some((key.clone(), number(x)?))).collect() })
    };
    Ok(bytes.split(|&b| b == b'\n').filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn append<'a>(path: &Path, rows: impl IntoIterator<Item = (u64, Vec<(&'a str, f64)>)>) {
        let mut lines = Jsonl::open(path).unwrap();
        lines.add(rows);
        lines.file.flush().unwrap();
    }

    fn rows(steps: std::ops::Range<u64>) -> Vec<(u64, Vec<(&'static str, f64)>)> {
        steps.map(|i| (i * 10, vec![("episode/score", i as f64 / 3.0), ("episode/length", 7.0)])).collect()
    }

    #[test]
    fn step_comes_first_and_values_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let values = vec![("b", 0.1), ("a", 1.0 / 3.0), ("bad", f64::NAN)];
        append(&path, [(20, values)]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":20,\"b\":0.1,\"a\":0.3333333333333333,\"bad\":null}\n");
        let back = read(&path).unwrap();
        assert_eq!(back[0].values[1], ("a".to_string(), 1.0 / 3.0));
        assert!(back[0].values[2].1.is_nan());
    }

    proptest! {
        /// A file that is cut anywhere loses no whole row, and goes on behind the last one.
        #[test]
        fn cut_anywhere_only_the_half_row_is_lost(total in 1u64..12, cut in 0usize..10_000) {
            let dir = tempfile::tempdir().unwrap();
            let (whole, path) = (dir.path().join("whole.jsonl"), dir.path().join("cut.jsonl"));
            append(&whole, rows(0..total));
            let wanted = fs::read(&whole).unwrap();
            let left = &wanted[..cut % (wanted.len() + 1)];
            fs::write(&path, left).unwrap();
            let kept = left.iter().filter(|&&b| b == b'\n').count() as u64;
            append(&path, rows(kept..total));
            prop_assert_eq!(fs::read(&path).unwrap(), wanted);
        }
    }

    #[test]
    fn a_half_line_and_rubbish_are_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        fs::write(&path, b"{\"step\":1,\"a\":1.0}\n\0\0\0\0\n{\"step\":2,\"a\":2").unwrap();
        append(&path, [(3, vec![("a", 3.0)])]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1,\"a\":1.0}\n{\"step\":3,\"a\":3.0}\n");
    }
}
