//! `Logger`: hands scalars and videos to the outputs that `logger.outputs` names.

use super::board::Board;
use super::jsonl::{self, Jsonl};
use super::metrics::{Metrics, Value, join};
use super::tensorboard::EventWriter;
use super::terminal::{println_above, screen};
use super::{gif, usage};
use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use regex::Regex;
use spaces::Array;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What `scores.jsonl` holds.
const SCORES: [&str; 2] = ["episode/score", "episode/length"];
/// The display is drawn anew no more often.
const REDRAW: Duration = Duration::from_millis(200);

/// How a run is logged: the keys `logger.*` of the configuration and what the run adds to them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run folder.
    pub logdir: PathBuf,
    /// `logger.outputs`: any of `jsonl`, `tensorboard`, `terminal`.
    pub outputs: Vec<String>,
    /// `logger.filter`: a regular expression; scalars whose name it matches are shown on the terminal.
    pub filter: String,
    /// `logger.fps`: frames a second of videos.
    pub fps: f64,
    /// Environment frames a policy step, that is the action repeat: logged steps are multiplied by it.
    pub multiplier: u64,
    /// Policy steps at which the run ends, where that is known.
    pub total: Option<u64>,
    /// Policy steps at which a resumed run goes on; what the files say of later ones is dropped.
    pub resume: Option<u64>,
    /// Shown beside the progress bar: the task.
    pub title: String,
}

/// What was measured at one step, in environment frames.
struct Row {
    step: u64,
    scalars: IndexMap<String, f64>,
}

impl Row {
    fn pairs(&self, keep: impl Fn(&str) -> bool) -> (u64, Vec<(&str, f64)>) {
        let scalars = self.scalars.iter().map(|(key, &x)| (key.as_str(), x));
        (self.step, scalars.filter(|(key, _)| keep(key)).collect())
    }
}

/// Gathers metrics and writes them when told to.
pub struct Logger {
    settings: Settings,
    filter: Regex,
    metrics: Option<Jsonl>,
    scores: Option<Jsonl>,
    events: Option<EventWriter>,
    terminal: bool,
    board: Board,
    start: Instant,
    drawn: Instant,
    rows: Vec<Row>,
    videos: Vec<(u64, String, Array)>,
}

impl Logger {
    /// Makes the run folder and opens the outputs, repaired and rewound where the run resumes.
    pub fn open(settings: Settings) -> Result<Self> {
        let Settings { logdir, outputs, multiplier, .. } = &settings;
        let filter = Regex::new(&settings.filter)
            .with_context(|| format!("logger.filter '{}' is not a regular expression", settings.filter))?;
        ensure!(settings.fps.is_finite() && settings.fps > 0.0, "logger.fps must be positive, but is {}", settings.fps);
        for name in outputs {
            check_output(name)?;
        }
        fs::create_dir_all(logdir).with_context(|| format!("cannot make the run folder {}", logdir.display()))?;

        let wants = |name: &str| outputs.iter().any(|output| output == name);
        let resume = settings.resume.map(|step| step * multiplier);
        let (mut metrics, mut scores, mut events) = (None, None, None);
        let total = settings.total.map(|steps| steps * multiplier);
        let mut board = Board::new(&settings.title, resume.unwrap_or(0), total);
        if wants("jsonl") {
            metrics = Some(Jsonl::open(&logdir.join("metrics.jsonl"), resume)?);
            scores = Some(Jsonl::open(&logdir.join("scores.jsonl"), resume)?);
            let past = jsonl::read(&logdir.join("scores.jsonl"))?;
            past.iter().flat_map(|row| &row.values).filter(|(k, _)| k == SCORES[0]).for_each(|(_, x)| board.score(*x));
        }
        if wants("tensorboard") {
            events = Some(EventWriter::create(logdir, resume)?);
        }
        Ok(Logger {
            filter,
            metrics,
            scores,
            events,
            terminal: wants("terminal"),
            board,
            start: Instant::now(),
            drawn: Instant::now(),
            rows: vec![],
            videos: vec![],
            settings,
        })
    }

    /// Takes in metrics measured at this policy step, their names behind `prefix/` unless that is empty.
    /// What comes of one step ends up in one line, unless a name comes twice.
    pub fn add(&mut self, step: u64, metrics: &Metrics, prefix: &str) {
        let step = step * self.settings.multiplier;
        for (name, value) in metrics {
            let name = join(prefix, name);
            match value {
                Value::Scalar(x) => {
                    self.board.scalar(&name, *x, self.filter.is_match(&name));
                    let free = |row: &&mut Row| row.step == step && !row.scalars.contains_key(&name);
                    match self.rows.iter_mut().rev().find(free) {
                        Some(row) => drop(row.scalars.insert(name, *x)),
                        None => self.rows.push(Row { step, scalars: IndexMap::from([(name, *x)]) }),
                    }
                }
                Value::Video(video) => self.videos.push((step, name, video.clone())),
            }
        }
    }

    /// Redraws the display, now and then, on a terminal. To be called as often as one likes.
    pub fn progress(&mut self, step: u64) {
        self.board.advance(self.start.elapsed(), step * self.settings.multiplier);
        if self.drawn.elapsed() >= REDRAW {
            self.draw();
        }
    }

    /// Writes what was added since the last call: at every `log_every`, and before every checkpoint, so
    /// that a resumed run has lost nothing. Prints a line where the output is not a terminal.
    pub fn write(&mut self, step: u64) -> Result<()> {
        self.flush()?;
        self.board.advance(self.start.elapsed(), step * self.settings.multiplier);
        if !self.terminal {
            return Ok(());
        }
        if screen().live() {
            self.draw();
        } else {
            println_above(&self.board.plain(self.start.elapsed()));
        }
        Ok(())
    }

    /// Writes what was added since the last call to the files, and shows nothing.
    pub fn flush(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if let Some(file) = &mut self.metrics {
            file.write(rows.iter().map(|row| row.pairs(|_| true)))?;
        }
        if let Some(file) = &mut self.scores {
            let some = rows.iter().map(|row| row.pairs(|key| SCORES.contains(&key)));
            file.write(some.filter(|(_, pairs)| !pairs.is_empty()))?;
        }
        if let Some(events) = &mut self.events {
            for row in &rows {
                for (name, &x) in &row.scalars {
                    events.scalar(row.step, name, x)?;
                }
            }
        }
        for (step, name, video) in std::mem::take(&mut self.videos) {
            // Training is worth more than a picture of it.
            if let Err(error) = self.write_video(step, &name, &video) {
                println_above(&format!("warning: the video '{name}' of step {step} is left out: {error:#}"));
            }
        }
        if let Some(events) = &mut self.events {
            events.flush()?;
        }
        Ok(())
    }

    /// One file a step, `videos/<name>-<step>.gif` in the run folder, and a TensorBoard image.
    fn write_video(&mut self, step: u64, name: &str, video: &Array) -> Result<()> {
        let bytes = gif::encode(video, self.settings.fps).with_context(|| format!("cannot log the video '{name}'"))?;
        let folder = self.settings.logdir.join("videos");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let safe: String =
            name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        gif::write(&folder.join(format!("{safe}-{step:010}.gif")), &bytes)?;
        if let Some(events) = &mut self.events {
            events.image(step, name, [video.shape[1], video.shape[2], video.shape[3]], &bytes)?;
        }
        Ok(())
    }

    /// Mean score of the last 50 episodes, those before a resume among them.
    pub fn mean_score(&self) -> Option<f64> {
        self.board.mean_score()
    }

    /// Writes what is left and leaves the display on the screen.
    pub fn close(mut self) -> Result<()> {
        self.flush()?;
        if self.terminal {
            self.draw();
            screen().release();
        }
        Ok(())
    }

    fn draw(&mut self) {
        self.drawn = Instant::now();
        if self.terminal && screen().live() {
            if let Some(bytes) = usage::resident() {
                self.board.memory(bytes);
            }
            let _ = screen().draw(self.board.block(self.start.elapsed()));
        }
    }
}

/// Official outputs that need a service or a viewer of their own are passed over with a
/// warning, so that old command lines keep working; other names are errors.
fn check_output(name: &str) -> Result<()> {
    match name {
        "jsonl" | "tensorboard" | "terminal" => {}
        "scope" | "wandb" | "expa" => {
            println_above(&format!("warning: the logger output '{name}' is not supported and is left out"))
        }
        _ => bail!("logger.outputs holds '{name}', which is not one of jsonl, tensorboard, terminal"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::metrics::{insert_scalar, insert_video};
    use std::path::Path;

    fn settings(dir: &Path, outputs: &[&str]) -> Settings {
        Settings {
            logdir: dir.to_path_buf(),
            outputs: outputs.iter().map(|s| s.to_string()).collect(),
            filter: "score|train/loss/".into(),
            fps: 15.0,
            multiplier: 2,
            total: Some(100),
            resume: None,
            title: "dummy".into(),
        }
    }

    fn episode(logger: &mut Logger, step: u64) {
        let mut metrics = Metrics::new();
        insert_scalar(&mut metrics, "score", step as f64 / 7.0);
        insert_scalar(&mut metrics, "length", 5.0);
        logger.add(step, &metrics, "episode");
        if step.is_multiple_of(4) {
            logger.add(step, &Metrics::from([("train/loss/dyn".to_string(), Value::Scalar(1.5))]), "");
        }
    }

    fn text(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn steps_are_frames_and_lines_are_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut logger = Logger::open(settings(dir.path(), &["jsonl"])).unwrap();
        episode(&mut logger, 7);
        episode(&mut logger, 8);
        episode(&mut logger, 8); // two at once, as parallel environments may finish
        assert_eq!(logger.mean_score(), Some((1.0 + 16.0 / 7.0) / 3.0));
        logger.close().unwrap();
        let line =
            |step, score: f64| format!("{{\"step\":{step},\"episode/score\":{score:?},\"episode/length\":5.0}}\n");
        let scores = [line(14, 1.0), line(16, 8.0 / 7.0), line(16, 8.0 / 7.0)].concat();
        assert_eq!(text(dir.path(), "scores.jsonl"), scores);
        assert_eq!(text(dir.path(), "metrics.jsonl").matches("train/loss/dyn").count(), 2);
        assert_eq!(text(dir.path(), "metrics.jsonl").lines().count(), 3);
    }

    #[test]
    fn a_resumed_run_leaves_the_same_files() {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = |dir: &Path, resume, steps: std::ops::Range<u64>, close: bool| {
            let mut logger = Logger::open(Settings { resume, ..settings(dir, &["jsonl", "tensorboard"]) }).unwrap();
            for step in steps {
                episode(&mut logger, step);
                logger.flush().unwrap();
            }
            let mean = logger.mean_score();
            if close {
                logger.close().unwrap();
            }
            mean
        };
        let mean = run(whole.path(), None, 0..20, true);
        run(parts.path(), None, 0..15, false); // dies at 15, its checkpoint is of step 9
        assert_eq!(run(parts.path(), Some(9), 10..20, true), mean);
        for name in ["metrics.jsonl", "scores.jsonl"] {
            assert_eq!(text(parts.path(), name), text(whole.path(), name));
        }
    }

    #[test]
    fn videos_become_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut logger = Logger::open(settings(dir.path(), &["tensorboard"])).unwrap();
        let mut metrics = Metrics::new();
        insert_video(&mut metrics, "openloop/image", Array::from_u8(&[2, 4, 4, 3], vec![9; 96]));
        logger.add(6, &metrics, "report");
        logger.close().unwrap();
        let bytes = fs::read(dir.path().join("videos/report_openloop_image-0000000012.gif")).unwrap();
        assert!(bytes.starts_with(b"GIF89a"));
        let event = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap()).find(|e| e.path().is_file()).unwrap();
        let events = fs::read(event.path()).unwrap();
        assert!(events.windows(bytes.len()).any(|part| part == bytes), "the same bytes are in the event file");
    }

    #[test]
    fn bad_settings_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let says = |settings: Settings, words: &str| {
            let message = format!("{:#}", Logger::open(settings).err().unwrap());
            assert!(message.contains(words), "{message}");
        };
        says(settings(dir.path(), &["jsonlines"]), "jsonlines");
        says(Settings { filter: "(".into(), ..settings(dir.path(), &[]) }, "logger.filter");
        says(Settings { fps: 0.0, ..settings(dir.path(), &[]) }, "logger.fps");
    }
}
