//! Environments in worker threads: each thread steps a few of them and answers in order.

use anyhow::{Result, anyhow};
use envs::Env;
use spaces::Record;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
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
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What a thread is to do with its environments; it sends the answer itself.
type Job = Box<dyn FnOnce(&mut [Slot]) + Send>;

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
        self.each(actions, step_all)?.into_iter().collect()
    }

    /// The state of every environment; none where it cannot be saved.
    pub fn save(&mut self) -> Result<Vec<Option<Vec<u8>>>> {
        self.each::<(), _>(vec![], |slots, _| slots.iter().map(|slot| slot.env.save()).collect())
    }

    /// Hands every environment its state; each answer says whether it was taken.
    pub fn load(&mut self, states: Vec<Option<Vec<u8>>>) -> Result<Vec<Result<()>>> {
        self.each(states, |slots, states| slots.iter_mut().zip(states).map(|(slot, s)| slot.load(s)).collect())
    }

    /// What `f` makes of the environments and of their arguments, in each thread for its share of both.
    fn each<A, T>(&mut self, args: Vec<A>, f: fn(&mut [Slot], Vec<A>) -> Vec<T>) -> Result<Vec<T>>
    where
        A: Send + 'static,
        T: Send + 'static,
    {
        let workers = match self {
            Workers::Inline(slots) => return Ok(f(slots, args)),
            Workers::Threads(workers) => workers,
        };
        let (mut args, mut answers, mut all) = (args.into_iter(), vec![], vec![]);
        for worker in workers {
            let share = args.by_ref().take(worker.count).collect();
            let (reply, answer) = sync_channel(1);
            worker.send(Box::new(move |slots| reply.send(f(slots, share)).unwrap_or(())))?;
            answers.push(answer);
        }
        for answer in answers {
            all.extend(answer.recv().map_err(|_| anyhow!("an environment thread ended; restart the run"))?);
        }
        Ok(all)
    }
}

/// Steps each environment; those in other processes work at the same time.
fn step_all(slots: &mut [Slot], actions: Vec<Record>) -> Vec<Result<Record>> {
    for (slot, action) in slots.iter_mut().zip(&actions) {
        slot.begin(action);
    }
    slots.iter_mut().zip(&actions).map(|(slot, action)| slot.step(action)).collect()
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
            Err(panic) => Err(anyhow!("environment {index} panicked: {}", envs::panic_text(&*panic))),
        }
    }

    fn load(&mut self, state: Option<Vec<u8>>) -> Result<()> {
        let state = state.ok_or_else(|| anyhow!("environment {} cannot be saved", self.index))?;
        self.env.load(&state)
    }
}

impl Worker {
    fn start(mut slots: Vec<Slot>) -> Result<Self> {
        let (jobs, given) = sync_channel::<Job>(1);
        let count = slots.len();
        let name = format!("env{}", slots.first().map_or(0, |slot| slot.index));
        let work = move || given.into_iter().for_each(|job| job(&mut slots));
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Worker { count, jobs: Some(jobs), thread: Some(thread) })
    }

    fn send(&self, job: Job) -> Result<()> {
        let sent = self.jobs.as_ref().is_some_and(|sender| sender.send(job).is_ok());
        anyhow::ensure!(sent, "an environment thread ended; restart the run");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None; // closes the channel, which ends the thread
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
