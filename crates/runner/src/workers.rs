//! Environments in worker threads: each thread steps a few of them and answers in order.

use anyhow::{Result, anyhow};
use envs::Env;
use spaces::Record;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// All environments, wherever they run. Results come in the order of the environments, so nothing
/// depends on which thread is faster.
pub enum Workers {
    /// Stepped by the caller.
    Inline(Vec<Slot>),
    Threads(Vec<Worker>),
}

/// One environment and its number.
pub struct Slot {
    index: usize,
    env: Box<dyn Env>,
}

/// A thread with its share of the environments.
pub struct Worker {
    count: usize,
    ask: Option<SyncSender<Ask>>,
    answer: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

enum Ask {
    Step(Vec<Record>),
    Save,
    Load(Vec<Option<Vec<u8>>>),
}

enum Answer {
    Steps(Vec<Result<Record>>),
    Saved(Vec<Option<Vec<u8>>>),
    Loaded(Vec<Result<()>>),
}

impl Workers {
    /// Spreads `envs` over `threads`. A single environment, or a single thread, gains nothing from a thread, so there the
    /// caller steps them itself.
    pub fn new(envs: Vec<Box<dyn Env>>, threads: usize) -> Result<Self> {
        let mut slots: Vec<Slot> = envs.into_iter().enumerate().map(|(index, env)| Slot { index, env }).collect();
        let threads = slots.len().min(threads);
        if threads <= 1 {
            return Ok(Workers::Inline(slots));
        }
        let mut workers = Vec::with_capacity(threads);
        for i in (0..threads).rev() {
            let share = slots.split_off(i * slots.len() / (i + 1));
            workers.push(Worker::start(share)?);
        }
        workers.reverse();
        Ok(Workers::Threads(workers))
    }

    /// Steps every environment with its action; the records come in the same order.
    pub fn step(&mut self, actions: Vec<Record>) -> Result<Vec<Record>> {
        let results = match self {
            Workers::Inline(slots) => step_all(slots, &actions),
            Workers::Threads(workers) => {
                let mut actions = actions.into_iter();
                for worker in workers.iter() {
                    worker.send(Ask::Step(actions.by_ref().take(worker.count).collect()))?;
                }
                gather(workers, |answer| match answer {
                    Answer::Steps(records) => records,
                    _ => Vec::new(),
                })?
            }
        };
        results.into_iter().collect()
    }

    /// The state of every environment; none where it cannot be saved.
    pub fn save(&mut self) -> Result<Vec<Option<Vec<u8>>>> {
        match self {
            Workers::Inline(slots) => Ok(slots.iter().map(|slot| slot.env.save()).collect()),
            Workers::Threads(workers) => {
                for worker in workers.iter() {
                    worker.send(Ask::Save)?;
                }
                gather(workers, |answer| match answer {
                    Answer::Saved(states) => states,
                    _ => Vec::new(),
                })
            }
        }
    }

    /// Hands every environment its state; each answer says whether it was taken.
    pub fn load(&mut self, states: Vec<Option<Vec<u8>>>) -> Result<Vec<Result<()>>> {
        match self {
            Workers::Inline(slots) => Ok(slots.iter_mut().zip(states).map(|(slot, s)| slot.load(s)).collect()),
            Workers::Threads(workers) => {
                let mut states = states.into_iter();
                for worker in workers.iter() {
                    worker.send(Ask::Load(states.by_ref().take(worker.count).collect()))?;
                }
                gather(workers, |answer| match answer {
                    Answer::Loaded(results) => results,
                    _ => Vec::new(),
                })
            }
        }
    }
}

fn gather<T>(workers: &mut [Worker], take: impl Fn(Answer) -> Vec<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for worker in workers {
        let answer = worker.answer.recv().map_err(|_| anyhow!("an environment thread ended; restart the run"))?;
        all.extend(take(answer));
    }
    Ok(all)
}

/// Steps each environment; those in other processes work at the same time.
fn step_all(slots: &mut [Slot], actions: &[Record]) -> Vec<Result<Record>> {
    for (slot, action) in slots.iter_mut().zip(actions) {
        slot.begin(action);
    }
    slots.iter_mut().zip(actions).map(|(slot, action)| slot.step(action)).collect()
}

impl Slot {
    /// A panic here shows again in `step`, which can report it.
    fn begin(&mut self, action: &Record) {
        catch_unwind(AssertUnwindSafe(|| self.env.begin(action))).ok();
    }

    /// One step. A panic becomes an error, so that it can be told which environment it was.
    fn step(&mut self, action: &Record) -> Result<Record> {
        let result = catch_unwind(AssertUnwindSafe(|| self.env.step(action)));
        let index = self.index;
        match result {
            Ok(Ok(record)) => Ok(record),
            Ok(Err(error)) => Err(error.context(format!("environment {index} failed"))),
            Err(panic) => Err(anyhow!("environment {index} panicked: {}", panic_text(&*panic))),
        }
    }

    fn load(&mut self, state: Option<Vec<u8>>) -> Result<()> {
        let state = state.ok_or_else(|| anyhow!("environment {} cannot be saved", self.index))?;
        self.env.load(&state)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

impl Worker {
    fn start(mut slots: Vec<Slot>) -> Result<Self> {
        let (ask, asked) = sync_channel::<Ask>(1);
        let (reply, answer) = sync_channel::<Answer>(1);
        let count = slots.len();
        let name = format!("env{}", slots.first().map_or(0, |slot| slot.index));
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            while let Ok(ask) = asked.recv() {
                let answer = match ask {
                    Ask::Step(actions) => Answer::Steps(step_all(&mut slots, &actions)),
                    Ask::Save => Answer::Saved(slots.iter().map(|slot| slot.env.save()).collect()),
                    Ask::Load(states) => {
                        Answer::Loaded(slots.iter_mut().zip(states).map(|(slot, s)| slot.load(s)).collect())
                    }
                };
                if reply.send(answer).is_err() {
                    break;
                }
            }
        })?;
        Ok(Worker { count, ask: Some(ask), answer, thread: Some(thread) })
    }

    fn send(&self, ask: Ask) -> Result<()> {
        let sent = self.ask.as_ref().is_some_and(|sender| sender.send(ask).is_ok());
        anyhow::ensure!(sent, "an environment thread ended; restart the run");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ask = None; // closes the channel, which ends the thread
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
