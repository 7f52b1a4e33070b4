//! Reading runs and reference curves.

use super::curve::{Curve, Point};
use crate::log::jsonl;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the plot knows of a run: the name of its curve and `(environment frames, value)` of each point.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Reads runs; there must be one at least.
pub fn load_all(runs: &[String], key: &str) -> Result<Vec<Run>> {
    ensure!(!runs.is_empty(), "give at least one run: a run folder, a .jsonl file or a step,score CSV");
    runs.iter().map(|run| load(run, key)).collect()
}

/// Reads one run: a run folder, a `.jsonl` file or a CSV `step,score`, or `NAME=` and one of these.
pub fn load(run: &str, key: &str) -> Result<Run> {
    // A folder's own name may hold '='.
    let (name, path) = match run.split_once('=') {
        Some((name, path)) if !Path::new(run).exists() => (name, path),
        _ => ("dreamer", run),
    };
    let path = PathBuf::from(config::expand_home(path));
    let file = if path.is_dir() { path.join(file_of(key)) } else { path.to_path_buf() };
    ensure!(file.is_file(), "there is no run at {}: the file {} is missing", path.display(), file.display());
    let points = match file.extension().is_some_and(|e| e == "csv") {
        true => small_csv(&file)?,
        false => from_jsonl(&file, key)?,
    };
    Ok(Run { name: name.to_string(), points })
}

/// The file of a run folder that holds a key.
fn file_of(key: &str) -> &'static str {
    if key.starts_with("episode/") { "scores.jsonl" } else { "metrics.jsonl" }
}

fn from_jsonl(file: &Path, key: &str) -> Result<Vec<(f64, f64)>> {
    let rows = jsonl::read(file)?;
    let mut keys = BTreeSet::new();
    let mut points = vec![];
    for row in &rows {
        for (name, x) in &row.values {
            keys.insert(name.as_str());
            if name == key {
                points.push((row.step as f64, *x));
            }
        }
    }
    if points.is_empty() {
        let near = config::nearest(key, keys.iter().copied());
        let first: Vec<&str> =
            near.into_iter().chain(keys.iter().copied().filter(|name| Some(*name) != near)).take(20).collect();
        let more =
            if keys.len() > first.len() { format!(" and {} more", keys.len() - first.len()) } else { String::new() };
        let holds = if keys.is_empty() { "nothing yet".to_string() } else { first.join(", ") };
        bail!("{} has no value of '{key}'; it holds {holds}{more}", file.display());
    }
    Ok(points)
}

/// The lines of a CSV that are neither comments nor empty, split at commas, without the header.
fn table(file: &Path, columns: &[&str]) -> Result<Vec<(usize, Vec<String>)>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut lines = (1..)
        .zip(text.trim_start_matches('\u{feff}').lines())
        .filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty())
        .map(|(i, line)| (i, line.split(',').map(|field| field.trim().to_string()).collect::<Vec<_>>()));
    let header = lines.next().map(|(_, header)| header).unwrap_or_default();
    ensure!(
        header == columns,
        "{} must have the columns {}, but has {}",
        file.display(),
        columns.join(","),
        header.join(",")
    );
    let lines: Vec<_> = lines.collect();
    if let Some((i, _)) = lines.iter().find(|(_, fields)| fields.len() != columns.len()) {
        bail!("line {i} of {} must have {} fields", file.display(), columns.len());
    }
    Ok(lines)
}

fn number(file: &Path, line: usize, text: &str) -> Result<f64> {
    text.parse().ok().with_context(|| format!("line {line} of {} holds '{text}', not a number", file.display()))
}

fn small_csv(file: &Path) -> Result<Vec<(f64, f64)>> {
    let lines = table(file, &["step", "score"])?;
    ensure!(!lines.is_empty(), "{} holds no line", file.display());
    lines.iter().map(|(i, f)| Ok((number(file, *i, &f[0])?, number(file, *i, &f[1])?))).collect()
}

/// One task's curve from a CSV `task,frames,mean,sd,seeds`. Where the file holds a single task, it need not be named.
pub fn reference(file: &Path, task: Option<&str>) -> Result<Curve> {
    let lines = table(file, &["task", "frames", "mean", "sd", "seeds"])?;
    let tasks: BTreeSet<&str> = lines.iter().map(|(_, fields)| fields[0].as_str()).collect();
    let list = || tasks.iter().copied().collect::<Vec<_>>().join(", ");
    ensure!(!tasks.is_empty(), "{} holds no curve", file.display());
    let task = match task {
        Some(task) => task,
        None if tasks.len() == 1 => tasks.first().copied().unwrap_or_default(),
        None => bail!("{} holds several tasks; choose one by --task: {}", file.display(), list()),
    };
    ensure!(tasks.contains(task), "{} has no task '{task}'; it has {}", file.display(), list());
    let mut points = vec![];
    for (i, fields) in lines.iter().filter(|(_, fields)| fields[0] == task) {
        let [frames, mean, sd, seeds] = [1, 2, 3, 4].map(|k| number(file, *i, &fields[k]));
        let point = Point { frames: frames?, mean: mean?, sd: sd?, seeds: seeds? as usize };
        let finite = [point.frames, point.mean, point.sd].iter().all(|x| x.is_finite());
        ensure!(finite, "line {i} of {} holds a number that is not finite", file.display());
        points.push(point);
    }
    let seeds = points.iter().map(|p| p.seeds).max().unwrap_or(0);
    Ok(Curve { name: "official".into(), note: format!("{seeds} seeds, shade: sd"), points, official: true })
}
