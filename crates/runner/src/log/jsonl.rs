//! Append-only metrics files: one JSON object a line, `step` first, repaired and rewound on opening.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One line of a file: its step in environment frames and the numbers beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub step: u64,
    pub values: Vec<(String, f64)>,
}

/// A file open for appending.
pub struct Jsonl {
    path: PathBuf,
    file: File,
}

impl Jsonl {
    /// Opens `path` for appending, creating it where it is missing. A last line that a crash
    /// left half-written is cut off. With `resume`, lines of a larger step are dropped too, so
    /// that a resumed run's file equals that of a run that was never interrupted.
    pub fn open(path: &Path, resume: Option<u64>) -> Result<Self> {
        let name = path.display();
        if path.exists() {
            let old = fs::read(path).with_context(|| format!("cannot read the metrics file {name}"))?;
            let kept = keep(&old, resume);
            if kept.len() < old.len() {
                let beside = path.with_extension("jsonl.tmp");
                fs::write(&beside, &kept)
                    .and_then(|()| fs::rename(&beside, path))
                    .with_context(|| format!("cannot repair the metrics file {name}"))?;
            }
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open the metrics file {name} for appending"))?;
        Ok(Jsonl { path: path.to_path_buf(), file })
    }

    /// Appends rows, all of them in one write. Numbers that JSON cannot hold become null.
    pub fn write<'a>(&mut self, rows: impl IntoIterator<Item = (u64, Vec<(&'a str, f64)>)>) -> Result<()> {
        let mut text = String::new();
        for (step, values) in rows {
            let mut object = Map::new();
            object.insert("step".into(), json!(step));
            object.extend(values.into_iter().map(|(key, x)| (key.to_string(), json!(x))));
            text += &Value::Object(object).to_string();
            text.push('\n');
        }
        self.file
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write to {}; is the disk full?", self.path.display()))
    }
}

#[derive(Deserialize)]
struct Step {
    step: u64,
}

/// The whole lines of a file that parse and whose step is not past `resume`.
fn keep(bytes: &[u8], resume: Option<u64>) -> Vec<u8> {
    let whole = |line: &&[u8]| {
        line.ends_with(b"\n")
            && serde_json::from_slice::<Step>(line).is_ok_and(|row| resume.is_none_or(|limit| row.step <= limit))
    };
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

    fn rows(steps: std::ops::Range<u64>) -> Vec<(u64, Vec<(&'static str, f64)>)> {
        steps.map(|i| (i * 10, vec![("episode/score", i as f64 / 3.0), ("episode/length", 7.0)])).collect()
    }

    #[test]
    fn step_comes_first_and_values_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let values = vec![("b", 0.1), ("a", 1.0 / 3.0), ("bad", f64::NAN)];
        Jsonl::open(&path, None).unwrap().write([(20, values)]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":20,\"b\":0.1,\"a\":0.3333333333333333,\"bad\":null}\n");
        let back = read(&path).unwrap();
        assert_eq!(back[0].values[1], ("a".to_string(), 1.0 / 3.0));
        assert!(back[0].values[2].1.is_nan());
    }

    proptest! {
        /// A run of `total` rows that is cut anywhere in the file after the save at row `saved`,
        /// and resumes from that save, leaves the file of a run that was never cut.
        #[test]
        fn interrupted_equals_uninterrupted(total in 1u64..12, saved in 0u64..12, cut in 0usize..10_000) {
            let saved = saved.min(total);
            let dir = tempfile::tempdir().unwrap();
            let (whole, path) = (dir.path().join("whole.jsonl"), dir.path().join("cut.jsonl"));
            Jsonl::open(&whole, None).unwrap().write(rows(0..total)).unwrap();
            let wanted = fs::read(&whole).unwrap();

            Jsonl::open(&path, None).unwrap().write(rows(0..saved)).unwrap();
            let safe = fs::metadata(&path).unwrap().len() as usize;
            let cut = safe + cut % (wanted.len() - safe + 1);
            fs::write(&path, &wanted[..cut]).unwrap();
            // The save was made at the last safe row's step; before the first row there is none.
            match saved.checked_sub(1) {
                Some(last) => Jsonl::open(&path, Some(last * 10)),
                None => { fs::remove_file(&path).unwrap(); Jsonl::open(&path, None) }
            }.unwrap().write(rows(saved..total)).unwrap();
            prop_assert_eq!(fs::read(&path).unwrap(), wanted);
        }
    }

    #[test]
    fn a_half_line_and_rubbish_are_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        fs::write(&path, b"{\"step\":1,\"a\":1.0}\n\0\0\0\0\n{\"step\":2,\"a\":2").unwrap();
        Jsonl::open(&path, None).unwrap().write([(3, vec![("a", 3.0)])]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1,\"a\":1.0}\n{\"step\":3,\"a\":3.0}\n");
    }
}
