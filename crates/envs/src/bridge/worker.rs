//! `Worker`: a process with one or more environments, started again when it fails.

use super::group::Leaving;
use super::hello::{Answer, Ask, Layout};
use super::link::Link;
use super::process::Process;
use crate::Rng;
use crate::notice::notice;
use crate::record::flag;
use anyhow::{Context, Result, anyhow, bail, ensure};
use spaces::{DType, Record};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// An earlier failure is forgiven after this many answers of each slot.
const FORGIVEN: u64 = 100;
/// Before a second attempt at a restart, as what does not start may need some time to pass; three times as long before
/// the next one, and so on.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(8);

/// How to start a worker.
pub struct Launch {
    pub command: Vec<String>,
    pub ask: Ask,
    /// Draws a number for each start. An environment's seed combines it with its index, so that it does not matter how
    /// environments are shared out among workers.
    pub rng: Rng,
    pub timeout: Duration,
    /// Shared by workers that leave together.
    pub leaving: Arc<Leaving>,
}

/// A worker that was asked, and has not answered yet.
pub struct Starting {
    launch: Launch,
    process: Process,
    limit: usize,
}

/// A worker whose environments may be stepped from several threads.
pub struct Worker {
    /// What it has to say before the first step, a sentence each.
    pub notes: Vec<String>,
    layout: Layout,
    limit: usize,
    link: RwLock<Link>,
    /// Answers of the last process that failed, by its generation and the slot, which nobody has taken yet.
    late: Mutex<BTreeMap<(u64, usize), Record>>,
    history: Mutex<History>,
    answers: AtomicU64,
}

struct History {
    launch: Launch,
    in_a_row: usize,
    answers: u64,
    /// The cause of the last failure, which is told once in a row.
    told: String,
    /// The error that ended the run, after too many failures.
    last: Option<String>,
}

impl Launch {
    fn start(&mut self) -> Result<Process> {
        self.ask.seed = super::env_seed(&mut self.rng, self.ask.index);
        Process::start(&self.command, &self.ask, self.timeout, self.leaving.clone())
    }
}

impl Worker {
    /// Starts a worker that may fail `limit` times in a row.
    pub fn start(mut launch: Launch, limit: usize) -> Result<Starting> {
        let process = launch.start()?;
        Ok(Starting { launch, process, limit })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sends the action of a slot to the process of `generation`.
    pub fn begin(&self, slot: usize, generation: u64, action: &Record) -> Result<()> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        ensure!(link.generation == generation, "the worker was restarted");
        link.ask(&self.layout, slot, &self.layout.act.write(action)?, flag(action, "reset")?)
    }

    /// The observation of a slot that was asked in `generation`. Where another slot's fault has ended that process
    /// since, this one may have answered before.
    pub fn finish(&self, slot: usize, generation: u64) -> Result<Record> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        let record = match link.generation == generation {
            true => link.answer(&self.layout, slot)?,
            false => self.late().remove(&(generation, slot)).context("the worker was restarted")?,
        };
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(record)
    }

    /// Starts the process anew, unless another slot already did so since `generation`, and takes the first
    /// observation of every slot. Returns the new generation, or an error after too many failures in a row.
    pub fn restart(&self, generation: u64, mut cause: anyhow::Error) -> Result<u64> {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        let mut history = self.history();
        if let Some(text) = &history.last {
            bail!("{text}");
        }
        if generation != link.generation {
            return Ok(link.generation);
        }
        let mut pause = Duration::ZERO;
        let mut last_words = link.process.last_words();
        *self.late() = link.left(&self.layout).into_iter().map(|(slot, obs)| ((generation, slot), obs)).collect();
        loop {
            let answers = self.answers.load(Ordering::Relaxed);
            let fresh = answers >= history.answers + FORGIVEN * history.launch.ask.slots as u64;
            history.in_a_row = if fresh { 1 } else { history.in_a_row + 1 };
            history.answers = answers;
            let (count, limit) = (history.in_a_row, self.limit);
            if count > limit {
                let text = format!(
                    "the worker failed {count} times in a row (env.restarts is {limit}): {cause:#}{last_words}"
                );
                history.last = Some(text.clone());
                bail!("{text}");
            }
            let cause_now = format!("{cause:#}{}", self.cure(&history.launch.ask, &cause));
            let place = format!("({count} of {limit} in a row)");
            if count > 1 && history.told == cause_now {
                notice(&format!("warning: an environment's worker failed in the same way and is restarted {place}"));
            } else {
                notice(&format!(
                    "warning: an environment's worker failed and is restarted {place}: {cause_now}{last_words}"
                ));
            }
            history.told = cause_now;
            std::thread::sleep(pause);
            pause = (3 * pause).clamp(PAUSE, LONGEST);
            match self.relaunch(&mut history.launch, link.generation + 1) {
                Ok(new) => {
                    *link = new;
                    return Ok(link.generation);
                }
                Err(error) => (cause, last_words) = (error, String::new()),
            }
        }
    }

    /// What helps where an observation in floats exceeds the bounds of its space.
    fn cure(&self, ask: &Ask, cause: &anyhow::Error) -> String {
        let (suite, text) = (super::suite(&ask.task), format!("{cause:#}"));
        let floats = self.layout.obs.spaces.iter().filter(|(_, space)| space.dtype == DType::F32);
        let exceeded = |key: &String| text.contains(&format!("in the observation, key '{key}' holds "));
        let helps = ["gym", "py"].contains(&suite) && ask.options["bounds"] != false;
        match helps && text.contains("outside its bounds") && floats.map(|(key, _)| key).any(exceeded) {
            true => format!("; --env.{suite}.bounds false lets floats exceed them"),
            false => String::new(),
        }
    }

    /// A new process in which every slot has been reset.
    fn relaunch(&self, launch: &mut Launch, generation: u64) -> Result<Link> {
        let slots = launch.ask.slots;
        let mut process = launch.start()?;
        let layout = process.hello(slots).map_err(|error| explain(error, &mut process))?.layout;
        if let Some(how) = layout.difference(&self.layout) {
            process.last_words(); // which ends it: left to itself it might stay until the run ends
            bail!("the new worker is not like the one before: {how}");
        }
        let mut link = Link::new(process, slots, generation);
        match link.reset_all(&self.layout) {
            Ok(()) => Ok(link),
            Err(error) => Err(anyhow!("{error:#}{}", link.process.last_words())),
        }
    }

    fn late(&self) -> MutexGuard<'_, BTreeMap<(u64, usize), Record>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Starting {
    /// Waits for the worker's answer.
    pub fn ready(mut self) -> Result<Worker> {
        let slots = self.launch.ask.slots;
        let answer = self.process.hello(slots);
        let Answer { layout, notes } = answer.map_err(|error| explain(error, &mut self.process))?;
        let link = RwLock::new(Link::new(self.process, slots, 0));
        let history =
            Mutex::new(History { launch: self.launch, in_a_row: 0, answers: 0, told: String::new(), last: None });
        let (late, answers) = (Mutex::default(), AtomicU64::new(0));
        Ok(Worker { notes, layout, limit: self.limit, link, late, history, answers })
    }
}

/// An error at a start with what the worker printed, unless it is a sentence that the worker chose to send.
fn explain(error: anyhow::Error, process: &mut Process) -> anyhow::Error {
    match error.chain().count() {
        1 => error,
        _ => anyhow!("{error:#}{}", process.last_words()),
    }
}
