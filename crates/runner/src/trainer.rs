//! `Trainer`: everything that a training run holds, and its verbs: act, update, report, log.

use crate::batches::{Shared, lock};
use crate::checkpoint::Checkpoints;
use crate::clock::{Clocks, Ratio};
use crate::driver::Driver;
use crate::episodes::Episodes;
use crate::evaluation::Evaluation;
use crate::film::Film;
use crate::flight::{Flight, Landed};
use crate::folder::Folder;
use crate::log::{Agg, Fps, Logger, Metrics, Usage, Value, insert_scalar};
use crate::policy::Policy;
use crate::signals::Stop;
use crate::stream::Stream;
use crate::{banner, diagnostic, setup};
use anyhow::Result;
use config::Config;
use dreamer_agent::{Agent, Begun, Mode, Prepared, Trained};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use spaces::Record;
use std::time::Instant;

/// A training run, with or without evaluation.
pub struct Trainer {
    pub config: Config,
    pub folder: Folder,
    pub checkpoints: Checkpoints,
    /// Whether it goes on from a checkpoint.
    pub resumed: bool,
    /// None where actions are random: then nothing is trained. While an update is under way, a snapshot from before it.
    pub agent: Option<Agent>,
    pub driver: Driver,
    pub policy: Policy,
    pub replay: Shared,
    /// Batches and recurrent states of training and of reports.
    pub train: Stream,
    pub report: Stream,
    pub evaluation: Option<Evaluation>,
    pub episodes: Episodes,
    film: Film,
    pub losses: Agg,
    pub ratio: Ratio,
    pub clocks: Clocks,
    pub counters: Counters,
    /// The update under way.
    pub flight: Option<Flight>,
    /// Threads for acting beside it: on the common ones it would wait behind the update's tasks.
    pub acting: ThreadPool,
    /// Where the run was when it was last saved.
    pub saved: Option<Place>,
    pub logger: Logger,
    pub speed: Speed,
    /// Whether a signal asked the run to end.
    pub stop: Stop,
}

/// The progress of the run.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Policy steps of all environments together.
    pub step: u64,
    /// Updates that are due before the next step.
    pub owed: u64,
    /// The step at which the clocks were looked at last.
    pub checked: Option<u64>,
    pub updates: u64,
    /// Seconds that earlier processes of this run took.
    pub seconds: f64,
}

/// One point of a run: step, updates, and the step at which the clocks were looked at.
pub type Place = (u64, u64, Option<u64>);

impl Counters {
    pub fn place(&self) -> Place {
        (self.step, self.updates, self.checked)
    }
}

/// Counts that depend on the wall clock.
pub struct Speed {
    pub started: Instant,
    usage: Usage,
    policy: Fps,
    train: Fps,
}

impl Speed {
    pub fn new() -> Self {
        Speed { started: Instant::now(), usage: Usage::new(), policy: Fps::new(), train: Fps::new() }
    }
}

impl Trainer {
    /// Builds the run in its folder, without looking for a checkpoint.
    /// `resume` is the policy step at which the logs go on.
    pub fn new(
        config: Config,
        folder: Folder,
        checkpoints: Checkpoints,
        parts: Parts,
        resume: Option<u64>,
    ) -> Result<Self> {
        let Parts { driver, agent, evaluation, replay } = parts;
        let logger = setup::logger(&config, folder.root(), resume)?;
        let stream = |mode| Stream::new(&config, &replay, mode, agent.as_ref());
        Ok(Trainer {
            train: stream(replay::Mode::Train),
            report: stream(replay::Mode::Report),
            policy: Policy::new(agent.as_ref(), driver.act_space(), driver.count(), config.seed, Mode::Train),
            episodes: Episodes::new(driver.count()),
            film: Film::default(),
            losses: Agg::new(),
            ratio: Ratio::new(config.run.train_ratio / (config.batch_size * config.batch_length) as f64),
            clocks: Clocks::new(&config.run),
            counters: Counters::default(),
            saved: None,
            flight: None,
            acting: ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).build()?,
            stop: Stop::default(),
            logger,
            speed: Speed::new(),
            replay,
            evaluation,
            driver,
            agent,
            checkpoints,
            resumed: resume.is_some(),
            folder,
            config,
        })
    }

    /// One step of every environment, added to the replay and the statistics; counts the updates owed for it.
    ///
    /// The official loop trains after each environment's step; here all have stepped before the
    /// same number of updates is done, so that a run can stop between any two updates.
    pub fn act(&mut self) -> Result<()> {
        let (policy, agent) = (&mut self.policy, self.agent.as_ref());
        let steps = match (&self.flight, &self.acting) {
            (Some(_), pool) => self.driver.step(|obs| pool.install(|| policy.act(agent, obs)))?,
            (None, _) => self.driver.step(|obs| policy.act(agent, obs))?,
        };
        let mut ended = false;
        self.film.add(&steps)?;
        for (i, step) in steps.iter().enumerate() {
            self.counters.step += 1;
            self.speed.policy.step(1);
            lock(&self.replay).add(step, i)?;
            if let Some(episode) = self.episodes.add(i, step)? {
                self.logger.add(self.counters.step, &episode, "episode");
                ended = true;
            }
        }
        if ended {
            self.logger.flush();
        }
        if self.agent.is_some() && self.has_enough() {
            self.counters.owed = self.ratio.owed(self.counters.step);
        }
        Ok(())
    }

    /// Whether there is enough to learn from. The official condition counts sequences: one for each step of a stream but
    /// its first `length - 1`.
    pub fn has_enough(&self) -> bool {
        lock(&self.replay).len() >= self.config.batch_size * self.config.batch_length
    }

    /// One gradient update on the next batch. In synchronous mode it is done when this returns; else it is under way,
    /// with a snapshot from before it as `agent` until it lands, and the update before it is done.
    ///
    /// A GPU gets the next update before the results of the last one are fetched, so that it never waits for that.
    pub fn update(&mut self) -> Result<()> {
        let before = self.recall()?;
        let (Some(agent), Some(carry)) = (&mut self.agent, &mut self.train.carry) else { return Ok(()) };
        let mut batch = self.train.batches.prepared(&agent.preparer())?;
        if self.config.run.sync {
            let result = agent.train_prepared(carry, &mut batch);
            return self.learned(&batch, result);
        }
        let snapshot = agent.snapshot();
        let agent = std::mem::replace(agent, snapshot);
        if let Some(carry) = self.train.carry.take() {
            self.flight = Some(Flight::start(agent, carry, batch)?);
        }
        before.map_or(Ok(()), |before| self.fetch(before))
    }

    /// Waits for the update under way, if there is one: saving, reporting and evaluating need its agent.
    pub fn land(&mut self) -> Result<()> {
        self.recall()?.map_or(Ok(()), |begun| self.fetch(begun))
    }

    /// Brings agent and carry back from the update under way, whose results are still to be fetched.
    fn recall(&mut self) -> Result<Option<(Prepared, Begun)>> {
        let Some(flight) = self.flight.take() else { return Ok(None) };
        let Landed { agent, carry, batch, begun } = flight.land()?;
        (self.agent, self.train.carry) = (Some(agent), Some(carry));
        match begun {
            Ok(begun) => Ok(Some((batch, begun))),
            Err(error) => Err(self.diagnose(batch.record(), error)),
        }
    }

    /// Waits for an update's results and takes them in.
    fn fetch(&mut self, (batch, begun): (Prepared, Begun)) -> Result<()> {
        let Some(result) = self.agent.as_ref().map(|agent| agent.finish(begun)) else { return Ok(()) };
        if result.is_err() {
            drop(self.recall()); // brings the agent back to be saved, though it is an update further
        }
        self.learned(&batch, result)
    }

    /// Takes in what an update on `batch` returned.
    fn learned(&mut self, batch: &Prepared, result: Result<Trained>) -> Result<()> {
        match result {
            Ok(trained) => {
                if !trained.replay.is_empty() {
                    lock(&self.replay).update(&trained.replay)?;
                }
                for (name, &x) in &trained.metrics {
                    self.losses.add(&format!("train/{name}"), x as f64, crate::log::How::Avg);
                }
                self.speed.train.step((self.config.batch_size * self.config.batch_length) as u64);
                self.counters.updates += 1;
                Ok(())
            }
            Err(error) => Err(self.diagnose(batch.record(), error)),
        }
    }

    /// Saves the inputs of a failed update, and adds to the error where they are.
    fn diagnose(&mut self, batch: &Record, error: anyhow::Error) -> anyhow::Error {
        let dir = self.folder.path("diagnostic").join(format!("{:012}", self.counters.step));
        let state = self.agent.as_ref().map(Agent::save).unwrap_or_default();
        let saved = match diagnostic::save(&dir, batch, &state, self.losses.result(), &error) {
            Ok(()) => format!("the batch and the agent are in {}", dir.display()),
            Err(failed) => format!("the diagnostic could not be saved: {failed:#}"),
        };
        let text = format!(
            "update {} at step {} failed; {saved}; the last good checkpoint is in {}",
            self.counters.updates + 1,
            self.counters.step,
            self.folder.path("ckpt").display()
        );
        error.context(text)
    }

    /// Metrics and videos on fresh batches, without an update, and what the first environment showed since the last time.
    pub fn report(&mut self) -> Result<()> {
        self.land()?;
        self.logger.add(self.counters.step, &self.film.take(), "epstats");
        let batches = self.config.consec_report * self.config.run.report_batches;
        let Some(agent) = &self.agent else { return Ok(()) };
        if lock(&self.replay).is_empty() {
            return Ok(());
        }
        let metrics = self.report.report(agent, batches)?;
        self.logger.add(self.counters.step, &metrics, "report");
        self.logger.flush();
        Ok(())
    }

    /// Evaluates, where the script has an evaluation; false where `stop` ended that early.
    pub fn evaluate(&mut self) -> Result<bool> {
        self.land()?;
        let Some(evaluation) = &mut self.evaluation else { return Ok(true) };
        let (config, step) = (&self.config, self.counters.step);
        let whole = evaluation.run(config, self.agent.as_ref(), step, &mut self.logger, &self.stop)?;
        self.logger.flush();
        Ok(whole)
    }

    /// Writes a line of metrics. In synchronous mode those that the wall clock decides stay out, so
    /// that equal runs write equal files.
    pub fn log(&mut self) {
        let step = self.counters.step;
        self.logger.add(step, &self.losses.result(), "");
        self.logger.add(step, &self.episodes.stats(), "epstats");
        let stats = lock(&self.replay).stats();
        let stats: Metrics = stats.into_iter().map(|(name, x)| (name, Value::Scalar(x))).collect();
        self.logger.add(step, &stats, "replay");
        if !self.config.run.sync {
            self.logger.add(step, &self.speed.usage.stats(), "usage");
            let mut fps = Metrics::new();
            insert_scalar(&mut fps, "policy", self.speed.policy.result());
            insert_scalar(&mut fps, "train", self.speed.train.result());
            self.logger.add(step, &fps, "fps");
        }
        self.logger.write(step);
    }

    /// Seconds that the run has taken, earlier processes included.
    pub fn seconds(&self) -> f64 {
        self.counters.seconds + self.speed.started.elapsed().as_secs_f64()
    }

    /// What is printed before the first step.
    pub fn banner(&self) -> Result<String> {
        let Counters { step: steps, updates, owed, .. } = self.counters;
        let done = banner::Done { steps, updates: updates + owed };
        banner::text(&self.config, self.folder.root(), &self.driver, self.agent.as_ref(), done)
    }
}

/// What a run is made of besides its logs and counters.
pub struct Parts {
    pub driver: Driver,
    pub agent: Option<Agent>,
    pub evaluation: Option<Evaluation>,
    pub replay: Shared,
}
