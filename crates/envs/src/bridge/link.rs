//! `Link`: a running process, what each of its slots waits for, and the first thing that went wrong.

use super::hello::{Layout, metrics, refusal};
use super::process::Process;
use crate::record::{flag, number};
use anyhow::{Result, anyhow, bail, ensure};
use spaces::Record;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The byte that announces a line with an error.
const ERROR: u8 = 255;

// The states of a slot.
const IDLE: u8 = 0;
const ASKED: u8 = 1;
/// Answered, while others that step together with it have not.
const EARLY: u8 = 2;
const ANSWERED: u8 = 3;

/// A process whose slots may be asked from several threads.
pub struct Link {
    pub process: Process,
    pub generation: u64,
    seats: Vec<Seat>,
    started: Instant,
    /// When an answer was last read, in milliseconds since the link's start. A worker may step its slots one after the
    /// other, and has the time of an answer for each.
    heard: AtomicU64,
    /// Slots whose actions are written and not announced yet: joined, as each announcement wakes the process.
    untold: Mutex<Vec<u8>>,
    reading: Mutex<()>,
    /// Why this process is unusable: the same for all threads, whichever found it out.
    fault: OnceLock<String>,
}

/// One slot.
struct Seat {
    /// One of the states above.
    state: AtomicU8,
    /// When it was asked, in milliseconds since the link's start.
    asked: AtomicU64,
    /// Whether its answer must begin an episode.
    first: AtomicBool,
    /// The answer, if it was read before it was asked for.
    values: Mutex<Option<Record>>,
}

impl Link {
    pub fn new(process: Process, slots: usize, generation: u64) -> Self {
        let seats = (0..slots).map(|_| Seat::new()).collect();
        let (untold, reading, fault) = (Mutex::default(), Mutex::default(), OnceLock::new());
        Link { process, generation, seats, started: Instant::now(), heard: AtomicU64::new(0), untold, reading, fault }
    }

    /// Writes the action of a slot; `first` says whether it begins an episode. An answer that was not taken is dropped.
    /// The process is told once all slots are asked, or when somebody waits for an answer.
    pub fn ask(&self, layout: &Layout, slot: usize, action: &[u8], first: bool) -> Result<()> {
        self.process.write_memory(action, slot * layout.stride + layout.act.start)?;
        let seat = &self.seats[slot];
        seat.asked.store(self.now(), Ordering::Relaxed);
        seat.first.store(first, Ordering::Relaxed);
        seat.values().take();
        seat.state.store(ASKED, Ordering::Release);
        let mut untold = self.untold();
        untold.push(slot as u8);
        if untold.len() == self.seats.len() { self.tell(untold) } else { Ok(()) }
    }

    /// Resets every slot and waits until all have answered; the answers, which are sound, can then be taken.
    pub fn reset_all(&mut self, layout: &Layout) -> Result<()> {
        let action = layout.act.reset();
        for slot in 0..self.seats.len() {
            self.ask(layout, slot, &action, true)?;
        }
        for slot in 0..self.seats.len() {
            self.wait(layout, slot)?;
            self.look(layout, slot)?;
            self.seats[slot].state.store(ANSWERED, Ordering::Release);
        }
        Ok(())
    }

    /// Waits for the answer of a slot, takes it and reads its values.
    pub fn answer(&self, layout: &Layout, slot: usize) -> Result<Record> {
        self.wait(layout, slot)?;
        let seen = self.seats[slot].values().take();
        seen.map_or_else(|| self.values(layout, slot), Ok).map_err(|error| self.fail(error))
    }

    /// Reads the values of a slot that has answered, and keeps them for whoever takes the answer.
    fn look(&self, layout: &Layout, slot: usize) -> Result<()> {
        *self.seats[slot].values() = Some(self.values(layout, slot)?);
        Ok(())
    }

    /// The values of a slot that has answered. An error says what is wrong with them.
    fn values(&self, layout: &Layout, slot: usize) -> Result<Record> {
        let (start, obs) = (slot * layout.stride, &layout.obs);
        let mut record = obs.read(&self.process.read_memory(obs.len, start + obs.start)?)?;
        if let Some(logs) = &layout.logs {
            for (name, value) in metrics(&self.process.read_memory(logs.size, start + logs.offset)?)? {
                record.entry(name).or_insert(value);
            }
        }
        let (first, due) = (flag(&record, "is_first")?, self.seats[slot].first.load(Ordering::Relaxed));
        ensure!(first || !due, "in the observation, is_first is not set where an episode begins");
        ensure!(due || !first, "in the observation, is_first is set in the middle of an episode");
        let reward = number(&record, "reward")?;
        ensure!(
            !first || reward == 0.0,
            "in the observation, reward is {reward} where an episode begins, but must be 0"
        );
        Ok(record)
    }

    /// Waits for the answer of a slot and takes it. Answers of other slots are noted on the way.
    fn wait(&self, layout: &Layout, slot: usize) -> Result<()> {
        if self.seats[slot].take() {
            return Ok(());
        }
        self.tell(self.untold())?;
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = self.seats[slot].asked.load(Ordering::Relaxed);
        while !self.seats[slot].take() {
            if let Some(fault) = self.fault.get() {
                bail!("{fault}");
            }
            let since = Duration::from_millis(asked.max(self.heard.load(Ordering::Relaxed)));
            let deadline = self.started + since + self.process.timeout();
            // An answer that came together with a fault of another slot counts: the next round takes it.
            self.receive(layout, deadline).map_err(|error| self.fail(error)).ok();
        }
        Ok(())
    }

    /// The answers of a dead process that nobody has taken. None if slots step together, as a fault fails them all in
    /// the same step.
    pub fn left(&self, layout: &Layout) -> Vec<(usize, Record)> {
        if layout.together {
            return vec![];
        }
        let mut bytes = [0; 64];
        while let count @ 1.. = self.process.unread(&mut bytes)
            && self.note(layout, &bytes[..count]).is_ok()
        {}
        let answered = (0..self.seats.len()).filter(|&slot| self.seats[slot].take());
        answered.filter_map(|slot| Some((slot, self.values(layout, slot).ok()?))).collect()
    }

    /// Waits for some answers and notes them.
    fn receive(&self, layout: &Layout, deadline: Instant) -> Result<()> {
        let mut bytes = [0; 64];
        let count = self.process.read(&mut bytes, deadline)?;
        self.heard.store(self.now(), Ordering::Relaxed);
        self.note(layout, &bytes[..count])
    }

    /// Notes answers. Those of slots that step together count once all of them are there and sound: one that is not
    /// fails them all in the same step, so that all are asked again in the next.
    fn note(&self, layout: &Layout, bytes: &[u8]) -> Result<()> {
        let answered = if layout.together { EARLY } else { ANSWERED };
        for (i, &byte) in bytes.iter().enumerate() {
            if byte == ERROR {
                bail!("{}", self.complaint(&bytes[i + 1..])?);
            }
            let asked = self.seats.get(byte as usize).is_some_and(|seat| seat.turn(ASKED, answered));
            ensure!(asked, "the worker answered for slot {byte}, which was not asked");
        }
        if self.seats.iter().all(|seat| seat.state.load(Ordering::Acquire) == EARLY) {
            (0..self.seats.len()).try_for_each(|slot| self.look(layout, slot))?;
            self.seats.iter().for_each(|seat| seat.state.store(ANSWERED, Ordering::Release));
        }
        Ok(())
    }

    /// The sentence of an error line whose first bytes have been read.
    fn complaint(&self, begun: &[u8]) -> Result<String> {
        let mut line = String::from_utf8_lossy(begun).into_owned();
        match line.find('\n') {
            Some(end) => line.truncate(end), // what follows it answers nobody
            None => line += &self.process.line()?,
        }
        Ok(refusal(&line).map_or(line.trim_end().to_string(), |(sentence, _)| sentence))
    }

    /// Milliseconds since the link's start.
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn untold(&self) -> MutexGuard<'_, Vec<u8>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces slots that were asked to the process.
    fn tell(&self, mut untold: MutexGuard<'_, Vec<u8>>) -> Result<()> {
        self.process.send(&untold)?;
        untold.clear();
        Ok(())
    }

    /// The first fault of this process, which is this error unless there was one before.
    fn fail(&self, error: anyhow::Error) -> anyhow::Error {
        anyhow!("{}", self.fault.get_or_init(|| format!("{error:#}")))
    }
}

impl Seat {
    fn new() -> Self {
        let (state, asked, first) = (AtomicU8::new(IDLE), AtomicU64::new(0), AtomicBool::new(false));
        Seat { state, asked, first, values: Mutex::new(None) }
    }

    fn values(&self) -> MutexGuard<'_, Option<Record>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes from one state to another; false where it was not in the first.
    fn turn(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes an answer, if there is one.
    fn take(&self) -> bool {
        self.turn(ANSWERED, IDLE)
    }
}
