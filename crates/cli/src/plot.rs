//! `dreamer plot`: learning curves of runs as SVG or CSV.

use crate::{Failure, complain, count, print};
use anyhow::{Context, Result, anyhow, bail};
use config::Args;
use runner::plot::Options;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The flags of `plot`; each takes one value.
const FLAGS: [&str; 8] = ["reference", "task", "key", "out", "format", "bins", "title", "xmax"];
const FORMATS: [&str; 3] = ["svg", "csv", "scores"];

/// What the command line asks for.
struct Request {
    runs: Vec<String>,
    options: Options,
    out: Option<PathBuf>,
    format: String,
}

/// Draws the runs and writes the result to `--out`, or to standard output.
pub fn run(args: Args) -> Result<(), Failure> {
    let request = read(args).map_err(Failure::Usage)?;
    let text = draw(&request).map_err(Failure::Run)?;
    match &request.out {
        None => print(&text),
        Some(path) => {
            let name = path.display();
            std::fs::write(path, text).with_context(|| format!("cannot write '{name}'")).map_err(Failure::Run)?;
            complain(&format!("wrote {name}"));
            Ok(())
        }
    }
}

fn draw(request: &Request) -> Result<String> {
    match (request.format.as_str(), request.runs.as_slice()) {
        ("csv", runs) => runner::plot::csv(runs, &request.options),
        ("scores", [run]) => runner::plot::export(run, &request.options.key),
        (_, runs) => runner::plot::plot(runs, &request.options),
    }
}

fn read(args: Args) -> Result<Request> {
    let mut runs = args.words;
    let mut options = Options::default();
    let (mut out, mut format) = (None, None);
    if !args.configs.is_empty() {
        bail!("'plot' does not take --configs");
    }
    for (flag, words) in args.flags {
        let (value, more) = words.split_first().ok_or_else(|| anyhow!("the flag '--{flag}' needs a value after it"))?;
        // Words after a flag's value are runs again.
        runs.extend_from_slice(more);
        match flag.as_str() {
            "reference" => options.reference = Some(value.into()),
            "task" => options.task = Some(value.clone()),
            "key" => options.key = value.clone(),
            "out" => out = Some(PathBuf::from(value)),
            "format" => format = Some(value.clone()),
            "title" => options.title = Some(value.clone()),
            "xmax" => match value.parse::<f64>() {
                Ok(frames) if frames > 0.0 && frames.is_finite() => options.xmax = Some(frames),
                _ => bail!("'--xmax' is '{value}', but expects a positive number of frames"),
            },
            "bins" => options.bins = Some(count("bins", value)?),
            _ => {
                let near = config::nearest(&flag, FLAGS).unwrap_or_default();
                bail!("unknown flag '--{flag}' of 'plot'; the nearest is '--{near}'");
            }
        }
    }
    if runs.is_empty() {
        bail!("'plot' needs at least one run folder");
    }
    let format = match (format, out.as_deref().and_then(Path::extension).and_then(OsStr::to_str)) {
        (Some(format), _) => format,
        (None, Some(kind)) if kind.eq_ignore_ascii_case("csv") => "csv".into(),
        (None, Some(kind)) if ["png", "jpg", "jpeg", "gif", "pdf"].contains(&kind.to_lowercase().as_str()) => {
            bail!("'--out' ends in .{kind}, but plots are .svg or .csv; --format forces one of them")
        }
        (None, _) => "svg".into(),
    };
    if !FORMATS.contains(&format.as_str()) {
        let near = config::nearest(&format, FORMATS).unwrap_or_default();
        bail!("'--format' is '{format}', but must be one of {}; the nearest is '{near}'", FORMATS.join(", "));
    }
    if format == "scores" && runs.len() > 1 {
        bail!("--format scores takes one run, but got {}", runs.len());
    }
    Ok(Request { runs, options, out, format })
}
