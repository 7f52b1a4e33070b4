//! The training loop, with evaluation (`train_eval`) or without (`train`).

use crate::batches::{Shared, lock};
use crate::checkpoint::{Checkpoints, Moment};
use crate::driver::Driver;
use crate::evaluation::Evaluation;
use crate::folder::Folder;
use crate::log::println_above;
use crate::saving::{self, State};
use crate::signals::Stop;
use crate::trainer::{Parts, Trainer};
use crate::{banner, setup, unless_it_panics};
use anyhow::{Context, Result};
use config::Config;
use std::sync::{Arc, Mutex};

/// Trains until `run.steps` policy steps are done, `run.duration` has passed, or `stop` is asked.
pub fn train(config: Config, stop: &Stop) -> Result<()> {
    let mut trainer = open(config)?;
    trainer.stop = stop.clone();
    println_above(&trainer.banner()?);
    if trainer.resumed {
        note_resumed(&trainer);
    }
    let result = trainer.run();
    match result {
        Ok(()) => trainer.finish(),
        Err(error) => {
            trainer.logger.close().ok();
            Err(error.context("the run ended early"))
        }
    }
}

/// Opens the run folder and builds the run, from its last checkpoint where there is one.
fn open(mut config: Config) -> Result<Trainer> {
    let folder = Folder::of(&mut config)?;
    let mut checkpoints = Checkpoints::new(&folder.path("ckpt"));
    let (parts, saved) = prepare(&config, &folder, &mut checkpoints).inspect_err(|_| folder.leave())?;
    match saved {
        Some((moment, state)) => resume(config, folder, checkpoints, parts, &moment, state),
        None => {
            saving::write_config(folder.root(), &config)?;
            let mut trainer = Trainer::new(config, folder, checkpoints, parts, None)?;
            trainer.save()?; // once before the first step
            Ok(trainer)
        }
    }
}

/// The parts of the run and its last checkpoint, or, for a new run, those of `run.from_checkpoint` and none. What is
/// refused is refused here, before anything in the folder changes.
fn prepare(
    config: &Config,
    folder: &Folder,
    checkpoints: &mut Checkpoints,
) -> Result<(Parts, Option<(Moment, State)>)> {
    let (moment, warnings) = checkpoints.load().with_context(|| {
        let root = folder.root().display();
        format!("the run in {root} cannot go on; choose another --logdir, or move the whole folder away, to start anew")
    })?;
    warnings.iter().for_each(|text| println_above(&format!("warning: {text}")));
    let Some(moment) = moment else {
        folder.refuse_remains()?;
        let mut parts = build(config, folder, 0)?;
        let (path, regex) = (&config.run.from_checkpoint, &config.run.from_checkpoint_regex);
        if let Some(agent) = parts.agent.as_mut().filter(|_| !path.is_empty()) {
            setup::load_checkpoint(agent, "run.from_checkpoint", path, regex)?;
        }
        return Ok((parts, None));
    };
    let state = State::read(&moment, config)?;
    let mut parts = build(config, folder, state.counters.step)?;
    saving::take_agent(parts.agent.as_mut(), &moment, &state)?; // which takes precedence over `run.from_checkpoint`
    check_replays(&parts)?;
    Ok((parts, Some((moment, state))))
}

/// Environments, agent and replays of a run that goes on at `step`.
fn build(config: &Config, folder: &Folder, step: u64) -> Result<Parts> {
    let driver = setup::driver(config, false, step)?;
    let agent = setup::agent(config, &driver)?;
    let open = |name: &str, eval, driver: &Driver| -> Result<_> {
        let dir = folder.path(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let step = replay::bytes_per_step(&setup::step_spaces(driver, agent.as_ref()));
        let mut replay = setup::replay(config, dir, eval, driver.count(), step)?;
        replay.warnings().iter().for_each(|text| println_above(&format!("warning: {text}")));
        Ok(Arc::new(Mutex::new(replay)))
    };
    let replay = open("replay", false, &driver)?;
    let evaluation = match config.script.as_str() {
        "train_eval" => {
            let driver = setup::driver(config, true, step)?;
            let replay = open("eval_replay", true, &driver)?;
            Some(Evaluation::new(config, driver, replay, agent.as_ref()))
        }
        _ => None,
    };
    Ok(Parts { driver, agent, evaluation, replay })
}

/// Resumes from `moment`, whose agent was loaded already.
fn resume(
    config: Config,
    folder: Folder,
    checkpoints: Checkpoints,
    parts: Parts,
    moment: &Moment,
    state: State,
) -> Result<Trainer> {
    let changes = saving::differences(&state.config, &serde_json::to_value(&config)?);
    saving::rewind_lines(folder.root(), state.lines)?;
    let mut trainer = Trainer::new(config, folder, checkpoints, parts, Some(state.counters.step))?;
    trainer.load(moment, state)?;
    if !changes.is_empty() {
        println_above("warning: the configuration differs from that of the run folder:");
        changes.iter().for_each(|change| println_above(&format!("  {change}")));
    }
    saving::write_config(trainer.folder.root(), &trainer.config)?;
    Ok(trainer)
}

/// Refuses replays of other keys than the environments and the agent now have.
fn check_replays(parts: &Parts) -> Result<()> {
    let check =
        |driver: &Driver, replay: &Shared| lock(replay).check_spaces(&setup::step_spaces(driver, parts.agent.as_ref()));
    check(&parts.driver, &parts.replay)?;
    parts.evaluation.as_ref().map_or(Ok(()), |evaluation| check(&evaluation.driver, &evaluation.replay))
}

fn note_resumed(trainer: &Trainer) {
    let (counters, run) = (&trainer.counters, &trainer.config.run);
    let sequences = lock(&trainer.replay).len();
    let (step, updates) = (counters.step, counters.updates);
    println_above(&format!("resumed at step {step} after {updates} updates, {sequences} sequences in the replay"));
    if sequences == 0 && updates > 0 {
        println_above(
            "warning: the replay holds no sequence, so updates begin anew once there is something to learn from",
        );
    }
    if step >= run.steps {
        println_above(&format!("note: its {} steps (run.steps) are done; for more, raise --run.steps", run.steps));
    }
    if trainer.is_late() {
        let seconds = run.duration;
        println_above(&format!(
            "note: its {seconds} seconds (run.duration), which count all processes of a run, are over; for more, raise \
             --run.duration"
        ));
    }
    if !run.from_checkpoint.is_empty() && step > 0 {
        println_above("note: run.from_checkpoint is for the beginning of a run; this one goes on with its own agent");
    }
}

impl Trainer {
    fn run(&mut self) -> Result<()> {
        let mut going = Ok(true);
        while !self.stop.asked() && matches!(going, Ok(true)) {
            going = unless_it_panics(|| self.turn());
        }
        // Whatever ended the loop, the update under way ends too, and says what went wrong in it.
        match (going, unless_it_panics(|| self.land())) {
            (Err(error), Ok(())) if self.has_broken_environment() => Err(error.context(self.last_save())),
            (Err(error), Err(late)) => Err(error.context(format!("the update under way failed, too: {late:#}"))),
            (going, landed) => going.map(drop).and(landed),
        }
    }

    /// Whether an environment failed for good, which leaves the run sound; after other failures only the last save is.
    fn has_broken_environment(&self) -> bool {
        self.driver.is_broken() || self.evaluation.as_ref().is_some_and(|evaluation| evaluation.driver.is_broken())
    }

    /// Saves a run that cannot go on, and says so.
    fn last_save(&mut self) -> String {
        let root = self.folder.root().display().to_string();
        match self.save() {
            Ok(()) => format!("it is saved, and the same command with --logdir {root} resumes it"),
            Err(error) => format!("it could not be saved as a whole ({error:#})"),
        }
    }

    /// Whether `run.duration` is over.
    fn is_late(&self) -> bool {
        let duration = self.config.run.duration;
        duration > 0.0 && self.seconds() >= duration
    }

    /// One update where one is owed, else a look at the clocks and one step of the environments; false
    /// at the end of the run. A run may stop, and be resumed, between any two turns.
    fn turn(&mut self) -> Result<bool> {
        if self.is_late() {
            return Ok(false);
        }
        if self.counters.owed > 0 {
            self.update()?;
            self.counters.owed -= 1;
        } else {
            self.look_at_clocks()?;
            if self.counters.step >= self.config.run.steps {
                return Ok(false);
            }
            self.act()?;
        }
        self.logger.progress(self.counters.step);
        Ok(true)
    }

    /// Evaluates, reports, logs and saves what is due; at most once a step.
    fn look_at_clocks(&mut self) -> Result<()> {
        let step = self.counters.step;
        if self.counters.checked == Some(step) {
            return Ok(());
        }
        self.counters.checked = Some(step);
        if self.evaluation.is_some() && self.clocks.eval.due(step) {
            let evaluated = self.evaluate();
            if !matches!(evaluated, Ok(true)) {
                self.clocks.eval.again(); // when the run is resumed
            }
            evaluated?;
        }
        if self.clocks.report.due(step) {
            self.report()?;
        }
        if self.clocks.log.due(step) {
            self.log();
        }
        if self.clocks.save.due(step) {
            self.land()?; // what goes wrong in an update ends the run, what goes wrong in saving does not
            self.try_save();
        }
        Ok(())
    }

    /// Saves for the last time, and says what was reached or how to go on.
    fn finish(mut self) -> Result<()> {
        if self.stop.asked() {
            println_above("stopping: the run is saved first (Ctrl-C again ends it at once)");
        }
        if !self.config.run.sync && !self.is_saved() {
            self.log(); // what came since the last line; a synchronous run writes the same lines wherever it stops
        }
        let saved = if self.is_saved() { Ok(()) } else { self.save() };
        let text = banner::end(
            self.folder.root(),
            self.counters.step,
            self.counters.updates,
            self.logger
                .mean_score()
                .map(|(score, count)| format!("mean score of the last {count} episodes {score:.3}")),
            self.seconds(),
        );
        let written = self.logger.close();
        saved.context("the run ended and could not be saved as a whole")?;
        println_above(&text);
        if self.stop.asked() {
            let root = self.folder.root().display();
            println_above(&format!("stopped and saved; the same command with --logdir {root} resumes the run"));
        }
        written.context("the run is saved, but not all that it measured")
    }
}

#[cfg(test)]
#[path = "alignment_tests.rs"]
mod alignment_tests;
#[cfg(test)]
#[path = "resume_tests.rs"]
mod resume_tests;
#[cfg(test)]
#[path = "train_tests.rs"]
pub mod tests;
