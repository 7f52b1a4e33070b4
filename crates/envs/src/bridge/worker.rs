//! `Worker`: a process with one or more environments, started again when it fails.

use super::hello::{Ask, Layout};
use super::process::Process;
use crate::Rng;
use anyhow::{Result, bail, ensure};
use spaces::{Array, Record};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// Answers after which an earlier failure is forgiven.
const FORGIVEN: u64 = 100;
/// The byte that announces a line with an error.
const ERROR: u8 = 255;

/// How to start a worker.
pub struct Launch {
    pub command: Vec<String>,
    pub ask: Ask,
    /// Draws a number for each start, which together with the environment's own is its seed: how environments are
    /// shared out among workers does not matter.
    pub rng: Rng,
    pub timeout: Duration,
}

/// A worker that was asked, and has not answered yet.
pub struct Starting {
    launch: Launch,
    process: Process,
    limit: usize,
}

/// A worker whose environments may be stepped from several threads.
pub struct Worker {
    layout: Layout,
    limit: usize,
    link: RwLock<Link>,
    history: Mutex<History>,
    answers: AtomicU64,
}

/// The present process, and what each slot waits for.
struct Link {
    process: Process,
    generation: u64,
    asked: Vec<AtomicBool>,
    done: Vec<AtomicBool>,
    reading: Mutex<()>,
}

struct History {
    launch: Launch,
    in_a_row: usize,
    answers: u64,
}

impl Launch {
    fn start(&mut self) -> Result<Process> {
        self.ask.seed = (self.rng.bits() >> 34) as u32 + self.ask.index as u32;
        Process::start(&self.command, &self.ask, self.timeout)
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

    /// Sends the action of a slot. Returns to which process, and whether it took it.
    pub fn begin(&self, slot: usize, action: &Record) -> (u64, Result<()>) {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        // After a restart every slot was asked to reset, and perhaps nobody has taken the answer yet.
        let pending = link.asked[slot].load(Ordering::Acquire) || link.done[slot].load(Ordering::Acquire);
        let free = if pending { link.wait(slot) } else { Ok(()) };
        let sent = free.and_then(|()| link.ask(&self.layout, slot, &self.layout.act.write(action)?));
        (link.generation, sent)
    }

    /// The observation of a slot that was asked in `generation`.
    pub fn finish(&self, slot: usize, generation: u64) -> Result<Record> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        ensure!(link.generation == generation, "the worker was restarted");
        link.wait(slot)?;
        let (layout, obs) = (&self.layout, &self.layout.obs);
        let bytes = link.process.read_memory(obs.len, slot * layout.stride + obs.start)?;
        let record = obs.read(&bytes)?;
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(record)
    }

    /// Starts the process anew, unless another slot already did so since `generation`, and asks all slots to
    /// reset. Returns the new generation, or an error after too many failures in a row.
    pub fn restart(&self, generation: u64, mut cause: anyhow::Error) -> Result<u64> {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if generation != link.generation {
            return Ok(link.generation);
        }
        let mut history = self.history();
        loop {
            let answers = self.answers.load(Ordering::Relaxed);
            let fresh = answers >= history.answers + FORGIVEN;
            history.in_a_row = if fresh { 1 } else { history.in_a_row + 1 };
            history.answers = answers;
            let last_words = indent(&link.process.last_words());
            let (count, limit) = (history.in_a_row, self.limit);
            if count > limit {
                return Err(cause.context(format!(
                    "the worker failed {count} times in a row (env.restarts is {limit}){last_words}"
                )));
            }
            eprintln!(
                "warning: an environment's worker failed and is started anew ({count} of {limit} in a row): {cause:#}{last_words}"
            );
            match self.relaunch(&mut history.launch, link.generation + 1) {
                Ok(new) => {
                    *link = new;
                    return Ok(link.generation);
                }
                Err(error) => cause = error,
            }
        }
    }

    fn relaunch(&self, launch: &mut Launch, generation: u64) -> Result<Link> {
        let slots = launch.ask.slots;
        let mut process = launch.start()?;
        match process.hello(slots) {
            Ok(layout) => ensure!(layout == self.layout, "the new worker has other spaces than the one before"),
            Err(error) => return Err(error.context(indent(&process.last_words()))),
        }
        let link = Link::new(process, slots, generation);
        let mut reset: Record =
            self.layout.act.spaces.iter().map(|(key, space)| (key.clone(), space.zeros())).collect();
        reset.insert("reset".into(), Array::bool(true));
        let bytes = self.layout.act.write(&reset)?;
        for slot in 0..slots {
            link.ask(&self.layout, slot, &bytes)?;
        }
        Ok(link)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Starting {
    /// Waits for the worker's answer.
    pub fn ready(mut self) -> Result<Worker> {
        let slots = self.launch.ask.slots;
        let layout = match self.process.hello(slots) {
            Ok(layout) => layout,
            Err(error) => return Err(explain(error, &self.process.last_words())),
        };
        let link = RwLock::new(Link::new(self.process, slots, 0));
        let history = Mutex::new(History { launch: self.launch, in_a_row: 0, answers: 0 });
        Ok(Worker { layout, limit: self.limit, link, history, answers: AtomicU64::new(0) })
    }
}

impl Link {
    fn new(process: Process, slots: usize, generation: u64) -> Self {
        let flags = || (0..slots).map(|_| AtomicBool::new(false)).collect();
        Link { process, generation, asked: flags(), done: flags(), reading: Mutex::new(()) }
    }

    fn ask(&self, layout: &Layout, slot: usize, action: &[u8]) -> Result<()> {
        self.process.write_memory(action, slot * layout.stride + layout.act.start)?;
        self.asked[slot].store(true, Ordering::Release);
        self.process.send(slot as u8)
    }

    /// Waits for the answer of a slot and takes it. Answers of other slots are noted on the way.
    fn wait(&self, slot: usize) -> Result<()> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 64];
        while !self.done[slot].swap(false, Ordering::AcqRel) {
            let count = self.process.read(&mut bytes)?;
            ensure!(count > 0, "the worker ended");
            for (i, &byte) in bytes[..count].iter().enumerate() {
                if byte == ERROR {
                    bail!("{}", self.complaint(&bytes[i + 1..count])?);
                }
                let asked = self.asked.get(byte as usize).is_some_and(|asked| asked.swap(false, Ordering::AcqRel));
                ensure!(asked, "the worker answered for slot {byte}, which was not asked");
                self.done[byte as usize].store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The sentence of an error line whose first bytes have been read.
    fn complaint(&self, begun: &[u8]) -> Result<String> {
        let mut line = String::from_utf8_lossy(begun).into_owned();
        if !line.ends_with('\n') {
            line += &self.process.line()?;
        }
        let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        Ok(json.get("error").and_then(|text| text.as_str()).unwrap_or(line.trim_end()).to_string())
    }
}

/// An error at the first start with what the worker printed.
fn explain(error: anyhow::Error, log: &[String]) -> anyhow::Error {
    // A sentence that the worker chose to send needs no log beside it.
    if error.chain().count() == 1 {
        error
    } else {
        error.context(format!("the worker failed at its start{}", indent(log)))
    }
}

/// The last lines of a log below a sentence.
fn indent(log: &[String]) -> String {
    log.iter().map(|line| format!("\n    {line}")).collect()
}
