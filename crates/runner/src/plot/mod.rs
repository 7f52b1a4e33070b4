//! Learning curves: a run's scores binned over environment frames, as an SVG or a CSV.

mod curve;
mod data;
mod svg;

pub use data::{Run, load};

use anyhow::{Result, ensure};
use curve::{Curve, Point};
use std::path::PathBuf;

/// What is drawn and how. The defaults are those of the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scalar to draw: those of episodes come from scores.jsonl, others from metrics.jsonl.
    pub key: String,
    /// A CSV `task,frames,mean,sd,seeds` with the official curve, and the task to take from it.
    pub reference: Option<PathBuf>,
    /// Task in the reference CSV; also the first column of [`csv`].
    pub task: Option<String>,
    /// Bins over the frames; without it the reference's spacing, else 40.
    pub bins: Option<usize>,
    /// Text above the plot.
    pub title: Option<String>,
    /// Frames at the right end; without it the last frame of any run.
    pub xmax: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Options { key: "episode/score".into(), reference: None, task: None, bins: None, title: None, xmax: None }
    }
}

/// Draws runs, each a run folder, a `.jsonl` or a `step,score` CSV, as an SVG. Runs are seeds of
/// one curve, mean and standard deviation, unless they are given as `NAME=PATH`: then one curve a name.
pub fn plot(runs: &[String], options: &Options) -> Result<String> {
    let runs = data::load_all(runs, &options.key)?;
    let (mut curves, xmax) = curves(&runs, options)?;
    if let Some(reference) = reference(options)? {
        let shown = |p: &Point| p.frames <= xmax * (1.0 + 1e-9);
        curves.push(Curve { points: reference.points.into_iter().filter(shown).collect(), ..reference });
    }
    Ok(svg::draw(&curves, xmax, options))
}

/// The curves of [`plot`] without the reference, as a CSV `task,frames,mean,sd,seeds` that can
/// itself serve as a reference. Several named curves are told apart in the first column.
pub fn csv(runs: &[String], options: &Options) -> Result<String> {
    let runs = data::load_all(runs, &options.key)?;
    let (curves, _) = curves(&runs, options)?;
    let mut out = format!(
        "# Mean of {} in each bin, then mean and standard deviation over runs; frames: right edge of the bin.\n\
         task,frames,mean,sd,seeds\n",
        options.key
    );
    for curve in &curves {
        let name = match &options.task {
            Some(task) if curves.len() == 1 => task,
            _ => &curve.name,
        };
        for p in &curve.points {
            let [mean, sd] = [p.mean, p.sd].map(six_digits);
            out += &format!("{},{},{mean},{sd},{}\n", name.replace(',', "_"), p.frames, p.seeds);
        }
    }
    Ok(out)
}

/// A number without the digits that come from rounding.
fn six_digits(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

/// One run's points as the small CSV `step,score` that [`plot`] reads back.
pub fn export(run: &str, key: &str) -> Result<String> {
    let run = load(run, key)?;
    let lines = run.points.iter().map(|(step, x)| format!("{step},{x}\n"));
    Ok(["step,score\n".to_string()].into_iter().chain(lines).collect())
}

/// The official curve that the options name, if they do.
fn reference(options: &Options) -> Result<Option<Curve>> {
    let Some(path) = &options.reference else { return Ok(None) };
    data::reference(path, options.task.as_deref()).map(Some)
}

/// One curve a name, and the frames at the right end.
fn curves(runs: &[Run], options: &Options) -> Result<(Vec<Curve>, f64)> {
    let last = runs.iter().flat_map(|run| &run.points).map(|&(step, _)| step).fold(0.0, f64::max);
    let xmax = options.xmax.unwrap_or(last);
    ensure!(xmax.is_finite() && xmax > 0.0, "the plot's right end must be a positive number of frames, but is {xmax}");
    ensure!(options.bins != Some(0), "--bins must be at least 1, but is 0");
    let spacing = match (options.bins, reference(options)?) {
        (None, Some(reference)) => reference.spacing(),
        _ => None,
    };
    let width = spacing.unwrap_or(xmax / options.bins.unwrap_or(40) as f64);
    ensure!(xmax / width <= 1e5, "{xmax} frames in bins of {width} would be more than 100000; give fewer by --bins");
    let curves = curve::by_name(runs, width, xmax);
    ensure!(
        curves.iter().any(|curve| !curve.points.is_empty()),
        "there is nothing to draw: no finite value up to {xmax} frames"
    );
    Ok((curves, xmax.max(width))) // a run may be shorter than a bin of the reference
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::slice::from_ref;

    fn run(dir: &Path, name: &str, scores: &[(u64, f64)]) -> String {
        let folder = dir.join(name);
        fs::create_dir(&folder).unwrap();
        let line = |&(step, x): &(u64, f64)| format!("{{\"step\":{step},\"episode/score\":{x:?}}}\n");
        // A run that is being written may end in half a line.
        let text: String = scores.iter().map(line).collect::<String>() + "{\"step\":9";
        fs::write(folder.join("scores.jsonl"), text).unwrap();
        folder.to_str().unwrap().to_string()
    }

    #[test]
    fn bins_mean_and_spread() {
        let dir = tempfile::tempdir().unwrap();
        let a = run(dir.path(), "a", &[(10, 1.0), (100, 3.0), (101, 8.0), (200, 8.0)]);
        let b = run(dir.path(), "b", &[(50, 4.0), (350, 1.0), (400, 5.0)]);
        let options = Options { bins: Some(4), task: Some("catch".into()), ..Options::default() };
        let text = csv(&[a, b], &options).unwrap();
        // Right edges belong to their bin; the bin up to 300 has no episode.
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines, ["catch,100,3,1,2", "catch,200,8,0,1", "catch,400,3,0,1"]);
    }

    #[test]
    fn export_and_csv_can_be_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let a = run(dir.path(), "a", &[(10, 1.5), (20, -2.25)]);
        let small = export(&a, "episode/score").unwrap();
        assert_eq!(small, "step,score\n10,1.5\n20,-2.25\n");
        let path = dir.path().join("small.csv");
        fs::write(&path, &small).unwrap();
        let options = Options { bins: Some(2), task: Some("t".into()), ..Options::default() };
        let text = csv(&[path.to_str().unwrap().into()], &options).unwrap();
        assert_eq!(text, csv(&[a], &options).unwrap());
        let path = dir.path().join("binned.csv");
        fs::write(&path, text).unwrap();
        let back = data::reference(&path, Some("t")).unwrap();
        assert_eq!(back.points.iter().map(|p| (p.frames, p.mean)).collect::<Vec<_>>(), [(10.0, 1.5), (20.0, -2.25)]);
    }

    #[test]
    fn a_run_that_is_shorter_than_a_bin_of_the_reference_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let a = load(&run(dir.path(), "a", &[(10, 1.0), (15, 3.0)]), "episode/score").unwrap();
        let reference = dir.path().join("ref.csv");
        fs::write(&reference, "task,frames,mean,sd,seeds\nx,20,1,1,5\nx,40,2,1,5\n").unwrap();
        let options = Options { reference: Some(reference), task: Some("x".into()), ..Options::default() };
        let (curves, end) = curves(&[a], &options).unwrap();
        assert_eq!((curves[0].points[0].frames, end), (20.0, 20.0));
    }

    #[test]
    fn the_reference_sets_the_bins_and_is_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let a = run(dir.path(), "a", &[(10, 1.0), (25, 3.0), (60, 8.0)]);
        let reference = dir.path().join("ref.csv");
        let rows: String = (1..9).map(|i| format!("swing,{},{},1.5,5\nother,{},9,9,1\n", 20 * i, i, 20 * i)).collect();
        fs::write(&reference, format!("# a comment\ntask,frames,mean,sd,seeds\n{rows}")).unwrap();
        let options = Options {
            reference: Some(reference),
            task: Some("swing".into()),
            title: Some("a < b & c".into()),
            ..Options::default()
        };
        let binned = csv(from_ref(&a), &options).unwrap();
        assert_eq!(
            binned.lines().skip(2).map(|l| l.split(',').nth(1).unwrap()).collect::<Vec<_>>(),
            ["20", "40", "60"]
        );
        let svg = plot(from_ref(&a), &options).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("official") && svg.contains("5 seeds"));
        assert_eq!(svg.matches("<polyline class=\"line ").count(), 2);
        assert_eq!(svg.matches("class=\"band ").count(), 2);
        let wrong = Options { task: Some("swong".into()), ..options };
        let message = plot(&[a], &wrong).unwrap_err().to_string();
        assert!(message.contains("'swong'") && message.contains("other, swing"), "{message}");
    }

    #[test]
    fn names_make_curves() {
        let dir = tempfile::tempdir().unwrap();
        let a = run(dir.path(), "a", &[(10, 1.0), (20, 3.0)]);
        let b = run(dir.path(), "b", &[(10, 4.0), (20, 5.0)]);
        let runs = [format!("small={a}"), format!("large={b}"), format!("large={a}")];
        let svg = plot(&runs, &Options::default()).unwrap();
        assert!(svg.contains("small (1 run") && svg.contains("large (2 seeds"), "{svg}");
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let says = |runs: &[String], options: Options, words: &str| {
            let message = format!("{:#}", plot(runs, &options).unwrap_err());
            assert!(message.contains(words), "{message}");
        };
        let a = run(dir.path(), "a", &[(10, 1.0)]);
        let empty = run(dir.path(), "empty", &[]);
        says(&[], Options::default(), "at least one run");
        says(&["/no/such/run".into()], Options::default(), "/no/such/run");
        says(&[empty], Options::default(), "episode/score");
        says(from_ref(&a), Options { key: "episode/skore".into(), ..Options::default() }, "it holds episode/score");
        says(from_ref(&a), Options { bins: Some(0), ..Options::default() }, "--bins");
        says(&[a], Options { xmax: Some(-1.0), ..Options::default() }, "right end");
    }
}
