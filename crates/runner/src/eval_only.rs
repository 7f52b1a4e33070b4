//! `eval_only`: plays with the agent of a checkpoint and learns nothing.

use crate::clock::Clock;
use crate::driver::Driver;
use crate::episodes::Episodes;
use crate::film::Film;
use crate::folder::Folder;
use crate::log::{Fps, Logger, Metrics, Usage, Value, insert_scalar, println_above};
use crate::policy::Policy;
use crate::signals::Stop;
use crate::{banner, saving, setup};
use anyhow::{Context, Result, ensure};
use config::{Config, Run};
use dreamer_agent::{Agent, Mode};
use std::path::Path;
use std::time::Instant;

/// Plays `run.steps` policy steps, and until every environment has ended `run.eval_eps` episodes, with the agent that
/// `run.from_checkpoint` names; where that is empty, with the one of the run in `logdir`. What is written goes to
/// `logdir`, or where a run has trained there, to the folder `eval` in it.
pub fn eval_only(mut config: Config, stop: &Stop) -> Result<()> {
    let driver = setup::driver(&config, false, 0)?;
    let mut agent = setup::agent(&config, &driver)?;
    if let Some(agent) = &mut agent {
        load(agent, &config)?;
    }
    let logdir = Path::new(&config.logdir);
    let trained = logdir.join("ckpt").is_dir();
    let folder = if trained { Folder::open(&logdir.join("eval"))? } else { Folder::of(&mut config)? };
    ensure!(
        !folder.path("ckpt").exists(),
        "{} holds a training run, of which an evaluation of the run above it would overwrite files; choose another \
         --logdir",
        folder.root().display()
    );
    if !trained {
        let own = "an evaluation needs a folder of its own";
        folder.refuse_remains().inspect_err(|_| folder.leave()).context(own)?;
    }
    saving::write_config(folder.root(), &config)?;
    println_above(&banner::text(&config, folder.root(), &driver, agent.as_ref(), Default::default())?);
    if trained {
        saving::rewind_lines(folder.root(), [0, 0])?; // these lines are of the last evaluation only
    }
    let logger = setup::logger(&config, folder.root(), trained.then_some(0))?;
    let agent = agent.map(|agent| agent.snapshot()); // without what only training needs
    let mut play = Play::new(config, folder, driver, agent, logger);
    let played = play.run(stop);
    play.end(played)
}

/// Takes over the agent to play with.
fn load(agent: &mut Agent, config: &Config) -> Result<()> {
    let run = &config.run;
    if run.from_checkpoint.is_empty() {
        let why = "without --run.from_checkpoint, the agent of --logdir is evaluated";
        return setup::load_checkpoint(agent, "logdir", &config.logdir, "").context(why);
    }
    setup::load_checkpoint(agent, "run.from_checkpoint", &run.from_checkpoint, &run.from_checkpoint_regex)
}

/// An evaluation under way.
struct Play {
    config: Config,
    folder: Folder,
    driver: Driver,
    /// None where actions are random.
    agent: Option<Agent>,
    policy: Policy,
    episodes: Episodes,
    /// Scores of the episodes that ended, by environment.
    scores: Vec<Vec<f64>>,
    film: Film,
    logger: Logger,
    clock: Clock,
    usage: Usage,
    fps: Fps,
    started: Instant,
    step: u64,
    /// The step of the last line of metrics.
    logged: u64,
    /// Whether the user was told that `run.steps` are done.
    overtime: bool,
}

impl Play {
    fn new(config: Config, folder: Folder, driver: Driver, agent: Option<Agent>, logger: Logger) -> Self {
        Play {
            policy: Policy::new(agent.as_ref(), driver.act_space(), driver.count(), config.seed, Mode::Eval),
            episodes: Episodes::new(driver.count()),
            scores: vec![vec![]; driver.count()],
            film: Film::default(),
            clock: Clock::new(config.run.log_every, true, config.run.sync),
            usage: Usage::new(),
            fps: Fps::new(),
            started: Instant::now(),
            step: 0,
            logged: 0,
            overtime: false,
            config,
            folder,
            driver,
            agent,
            logger,
        }
    }

    fn run(&mut self, stop: &Stop) -> Result<()> {
        while !self.is_enough() && !stop.asked() && !self.is_late() {
            self.note_overtime();
            self.act()?;
        }
        Ok(())
    }

    /// Whether enough was played. Each environment must end some episodes, so that long ones count too.
    fn is_enough(&self) -> bool {
        let Run { steps, eval_eps, .. } = self.config.run;
        self.step >= steps && self.scores.iter().all(|scores| scores.len() >= eval_eps)
    }

    /// Says once why the evaluation goes on beyond its steps.
    fn note_overtime(&mut self) {
        if self.step >= self.config.run.steps && !std::mem::replace(&mut self.overtime, true) {
            println_above(&format!(
                "note: run.steps are done; the evaluation goes on until each environment has ended run.eval_eps episodes \
                 ({}), or until Ctrl-C",
                self.config.run.eval_eps
            ));
        }
    }

    fn is_late(&self) -> bool {
        let duration = self.config.run.duration;
        duration > 0.0 && self.started.elapsed().as_secs_f64() >= duration
    }

    /// One step of every environment. Scores are written at once, as they are the purpose of the run.
    fn act(&mut self) -> Result<()> {
        let (policy, agent) = (&mut self.policy, self.agent.as_ref());
        let transitions = self.driver.step(|obs| policy.act(agent, obs))?;
        self.film.add(&transitions)?;
        let before = self.episodes.ended;
        for (i, transition) in transitions.iter().enumerate() {
            self.step += 1;
            self.fps.step(1);
            if let Some(episode) = self.episodes.add(i, transition)? {
                if let Some(&Value::Scalar(score)) = episode.get("score") {
                    self.scores[i].push(score);
                }
                self.logger.add(self.step, &episode, "episode");
            }
        }
        if self.clock.due(self.step) {
            self.log();
        } else if self.episodes.ended > before {
            self.logger.flush();
        }
        self.logger.progress(self.step);
        Ok(())
    }

    /// Writes a line of metrics.
    fn log(&mut self) {
        self.logger.add(self.step, &self.episodes.stats(), "epstats");
        if !self.config.run.sync {
            self.logger.add(self.step, &self.usage.stats(), "usage");
            let mut speed = Metrics::new();
            insert_scalar(&mut speed, "policy", self.fps.result());
            self.logger.add(self.step, &speed, "fps");
        }
        self.logger.write(self.step);
        self.logged = self.step;
    }

    /// Writes what is left, also after a failure; on success prints the result.
    fn end(mut self, played: Result<()>) -> Result<()> {
        let film = std::mem::take(&mut self.film);
        self.logger.add(self.step, &film.finish(), "epstats");
        if self.step > self.logged {
            self.log(); // what came since the last line
        }
        let root = self.folder.root();
        let text = banner::end(root, self.step, 0, summary(&self.scores), self.started.elapsed().as_secs_f64());
        let written = self.logger.close();
        played.with_context(|| format!("the evaluation ended early; what it measured is in {}", root.display()))?;
        println_above(&text);
        written
    }
}

/// Mean and standard deviation of all scores, in words.
fn summary(scores: &[Vec<f64>]) -> Option<String> {
    let count = scores.iter().flatten().count();
    let mean = |f: &dyn Fn(f64) -> f64| scores.iter().flatten().map(|&x| f(x)).sum::<f64>() / count as f64;
    let score = mean(&|x| x);
    let deviation = mean(&|x| (x - score).powi(2)).sqrt();
    let all = if count == 1 { "one episode".to_string() } else { format!("{count} episodes") };
    (count > 0).then(|| format!("mean score of {all} {score:.3} (standard deviation {deviation:.3})"))
}

#[cfg(test)]
#[path = "eval_only_tests.rs"]
mod tests;
