//! `Logger`: hands scalars and videos to the outputs that `logger.outputs` names.

use super::appender::{Appender, WAITING};
use super::board::Board;
use super::jsonl::{self, Jsonl};
use super::metrics::{Metrics, Value, join};
use super::tensorboard::EventWriter;
use super::terminal::{println_above, screen};
use super::{gif, usage};
use crate::files::{make_dir, replace_file};
use anyhow::{Context, Error, Result, ensure};
use indexmap::IndexMap;
use regex::Regex;
use spaces::Array;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The metrics files: all metrics, and the scores.
pub const LINES: [&str; 2] = ["metrics.jsonl", "scores.jsonl"];
/// What `scores.jsonl` holds.
const SCORES: [&str; 2] = ["episode/score", "episode/length"];
/// The shortest time between redraws of the display.
const REDRAW: Duration = Duration::from_millis(200);

/// How a run is logged: the keys `logger.*` of the configuration and what the run adds to them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run folder.
    pub logdir: PathBuf,
    /// `logger.outputs`: any of `jsonl` and `tensorboard`.
    pub outputs: Vec<String>,
    /// Whether the terminal shows how the run goes.
    pub terminal: bool,
    /// `logger.filter`: a regular expression; scalars whose name it matches are shown on the terminal.
    pub filter: String,
    /// `logger.fps`: frames a second of videos.
    pub fps: f64,
    /// Environment frames a policy step, that is the action repeat: logged steps are multiplied by it.
    pub multiplier: u64,
    /// Policy steps at which the run ends, where that is known.
    pub total: Option<u64>,
    /// The policy step at which a resumed run goes on; TensorBoard is told to forget later ones.
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
    /// Why metrics wait, while they cannot be written.
    trouble: Option<Error>,
}

impl Logger {
    /// Makes the run folder and opens the outputs, repaired where a crash left half a line.
    pub fn open(settings: Settings) -> Result<Self> {
        let Settings { logdir, outputs, multiplier, .. } = &settings;
        let filter = Regex::new(&settings.filter)
            .with_context(|| format!("logger.filter '{}' is not a regular expression", settings.filter))?;
        ensure!(settings.fps.is_finite() && settings.fps > 0.0, "logger.fps must be positive, but is {}", settings.fps);
        fs::create_dir_all(logdir).with_context(|| format!("cannot make the run folder {}", logdir.display()))?;

        let wants = |name: &str| outputs.iter().any(|output| output == name);
        let resume = settings.resume.map(|step| step * multiplier);
        let (mut metrics, mut scores, mut events) = (None, None, None);
        let total = settings.total.map(|steps| steps * multiplier);
        let mut board = Board::new(&settings.title, resume.unwrap_or(0), total);
        if wants("jsonl") {
            let [all, some] = LINES.map(|name| logdir.join(name));
            (metrics, scores) = (Some(Jsonl::open(&all)?), Some(Jsonl::open(&some)?));
            let past = jsonl::read(&some)?;
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
            terminal: settings.terminal,
            board,
            start: Instant::now(),
            drawn: Instant::now(),
            rows: vec![],
            videos: vec![],
            trouble: None,
            settings,
        })
    }

    /// Takes in metrics measured at this policy step, their names behind `prefix/` unless that is empty. Metrics of one
    /// step share a line, unless a name comes twice.
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

    /// Redraws the display on a terminal. May be called often: most calls draw nothing.
    pub fn progress(&mut self, step: u64) {
        self.board.advance(self.start.elapsed(), step * self.settings.multiplier);
        if self.drawn.elapsed() >= REDRAW {
            self.draw();
        }
    }

    /// Writes what was added since the last call, at every `log_every`. Prints a line if the output is no terminal.
    pub fn write(&mut self, step: u64) {
        self.flush();
        self.board.advance(self.start.elapsed(), step * self.settings.multiplier);
        if !self.terminal {
            return;
        }
        if screen().live() {
            self.draw();
        } else {
            println_above(&self.board.plain(self.start.elapsed()));
        }
    }

    /// Writes what was added since the last call to the files, and shows nothing. What cannot be written waits for the
    /// next call: that is a warning, and does not end the run.
    pub fn flush(&mut self) {
        let written = self.write_files();
        self.tell(written);
    }

    /// Writes all there is and brings it to the disk, before a checkpoint counts on it.
    pub fn sync(&mut self) {
        self.flush();
        self.files().for_each(|file| file.sync());
    }

    fn write_files(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if let Some(lines) = &mut self.metrics {
            lines.add(rows.iter().map(|row| row.pairs(|_| true)));
        }
        if let Some(lines) = &mut self.scores {
            let some = rows.iter().map(|row| row.pairs(|key| SCORES.contains(&key)));
            lines.add(some.filter(|(_, pairs)| !pairs.is_empty()));
        }
        if let Some(events) = &mut self.events {
            for row in &rows {
                row.scalars.iter().for_each(|(name, &x)| events.scalar(row.step, name, x));
            }
        }
        for (step, name, video) in std::mem::take(&mut self.videos) {
            // Training is worth more than a picture of it.
            if let Err(error) = self.write_video(step, &name, &video) {
                println_above(&format!("warning: the video '{name}' of step {step} is left out: {error:#}"));
            }
        }
        // Each file by itself: one that cannot be written keeps no other waiting.
        let written: Vec<Result<()>> = self.files().map(|file| file.flush()).collect();
        written.into_iter().collect()
    }

    fn files(&mut self) -> impl Iterator<Item = &mut Appender> {
        let lines = [&mut self.metrics, &mut self.scores].into_iter().flatten().map(|lines| &mut lines.file);
        lines.chain(self.events.iter_mut().map(|events| &mut events.file))
    }

    /// Says when metrics can no longer be written, and when they can again; not at every try between.
    fn tell(&mut self, written: Result<()>) {
        match (&written, &self.trouble) {
            (Err(error), None) => {
                let kept = WAITING >> 20;
                println_above(&format!(
                    "WARNING: METRICS NOT WRITTEN: {error:#}. The run goes on, keeps up to {kept} MB of them and \
                     tries again."
                ));
            }
            (Ok(()), Some(_)) => println_above("note: metrics are written again, with those that waited"),
            _ => {}
        }
        self.trouble = written.err();
    }

    /// Bytes of whole lines in the files [`LINES`], including files that this process does not write.
    pub fn lengths(&self) -> [u64; 2] {
        let found = LINES.map(|name| self.settings.logdir.join(name).metadata().map_or(0, |file| file.len()));
        let length = |lines: &Option<Jsonl>, found| lines.as_ref().map_or(found, |lines| lines.file.length());
        [length(&self.metrics, found[0]), length(&self.scores, found[1])]
    }

    /// One file a step, `videos/<name>-<step>.gif` in the run folder, and a TensorBoard image.
    fn write_video(&mut self, step: u64, name: &str, video: &Array) -> Result<()> {
        let bytes = gif::encode(video, self.settings.fps).with_context(|| format!("cannot log the video '{name}'"))?;
        let folder = self.settings.logdir.join("videos");
        make_dir(&folder)?;
        let safe: String =
            name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        replace_file(&folder.join(format!("{safe}-{step:010}.gif")), &bytes)?;
        if let Some(events) = &mut self.events {
            events.image(step, name, [video.shape[1], video.shape[2], video.shape[3]], &bytes);
        }
        Ok(())
    }

    /// Mean score of the last episodes, those before a resume among them, and how many these are.
    pub fn mean_score(&self) -> Option<(f64, usize)> {
        self.board.mean_score()
    }

    /// Writes what is left, with an error if it still cannot be written, and leaves the display on the screen.
    pub fn close(mut self) -> Result<()> {
        self.flush();
        if self.terminal {
            self.draw();
            screen().release();
        }
        self.trouble.map_or(Ok(()), |error| Err(error.context("the last metrics are lost")))
    }

    /// Has no file be writable, as on a full disk, or all of them again.
    #[cfg(test)]
    pub fn obstruct(&mut self, on: bool) {
        self.files().for_each(|file| file.obstruct(on));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::metrics::insert_scalar;
    use crate::saving::rewind_lines;
    use std::path::Path;

    fn settings(dir: &Path, outputs: &[&str]) -> Settings {
        Settings {
            logdir: dir.to_path_buf(),
            outputs: outputs.iter().map(|s| s.to_string()).collect(),
            terminal: false,
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
        assert_eq!(logger.mean_score(), Some(((1.0 + 16.0 / 7.0) / 3.0, 3)));
        logger.close().unwrap();
        let line =
            |step, score: f64| format!("{{\"step\":{step},\"episode/score\":{score:?},\"episode/length\":5.0}}\n");
        let scores = [line(14, 1.0), line(16, 8.0 / 7.0), line(16, 8.0 / 7.0)].concat();
        assert_eq!(text(dir.path(), "scores.jsonl"), scores);
        assert_eq!(text(dir.path(), "metrics.jsonl").matches("train/loss/dyn").count(), 2);
        assert_eq!(text(dir.path(), "metrics.jsonl").lines().count(), 3);
    }

    #[test]
    fn a_resumed_run_leaves_the_same_files_whatever_its_action_repeat() {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = |dir: &Path, resume, steps: std::ops::Range<u64>| {
            let mut logger = Logger::open(Settings { resume, ..settings(dir, &["jsonl", "tensorboard"]) }).unwrap();
            for step in steps {
                episode(&mut logger, step);
                logger.flush();
            }
            (logger.mean_score(), logger.lengths())
        };
        let (mean, lengths) = run(whole.path(), None, 0..20);
        let (_, saved) = run(parts.path(), None, 0..10);
        run(parts.path(), Some(9), 10..15); // dies without another checkpoint
        rewind_lines(parts.path(), saved).unwrap();
        // With half the frames a step, what is there counts as much as ever.
        let fewer = Settings { resume: Some(9), multiplier: 1, ..settings(parts.path(), &["jsonl"]) };
        assert_eq!(Logger::open(fewer).unwrap().lengths(), saved);
        assert_eq!(run(parts.path(), Some(9), 10..20), (mean, lengths));
        for name in LINES {
            assert_eq!(text(parts.path(), name), text(whole.path(), name));
        }
    }

    #[test]
    fn what_cannot_be_written_waits_and_is_an_error_at_the_end() {
        let (whole, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outputs = ["jsonl", "tensorboard"];
        let mut loggers = [whole.path(), dir.path()].map(|dir| Logger::open(settings(dir, &outputs)).unwrap());
        for step in 0..9 {
            loggers[1].obstruct((3..6).contains(&step));
            for logger in &mut loggers {
                episode(logger, step);
                logger.sync();
            }
            assert_eq!(loggers[1].trouble.is_some(), (3..6).contains(&step));
        }
        for name in LINES {
            assert_eq!(text(dir.path(), name), text(whole.path(), name));
        }
        let [_, mut logger] = loggers;
        logger.obstruct(true);
        episode(&mut logger, 9);
        let error = format!("{:#}", logger.close().unwrap_err());
        assert!(
            error.starts_with("the last metrics are lost: cannot write to ") && error.contains(LINES[0]),
            "{error}"
        );
    }

    #[test]
    fn videos_become_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut logger = Logger::open(settings(dir.path(), &["tensorboard"])).unwrap();
        let video = Value::Video(Array::from_u8(&[2, 4, 4, 3], vec![9; 96]));
        logger.add(6, &Metrics::from([("openloop/image".to_string(), video)]), "report");
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
        says(Settings { filter: "(".into(), ..settings(dir.path(), &[]) }, "logger.filter");
        says(Settings { fps: 0.0, ..settings(dir.path(), &[]) }, "logger.fps");
    }
}
