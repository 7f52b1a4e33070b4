//! Environments in other processes: workers that speak the protocol of `docs/bridge.md`.
//!
//! A [`Process`](process::Process) is a running worker, a [`Link`](link::Link) keeps track of what it was asked, a
//! [`Worker`](worker::Worker) starts it again when it fails, and a [`Slot`](slot::Slot) is one of its environments,
//! which is what the rest of the program sees. A [`Group`](group::Group) ends with all that it started, and so do the
//! processes of [`Alone`], which need no bridge; those of a run are [`Leaving`] together.

mod alone;
mod group;
mod hello;
mod link;
mod log;
mod process;
mod slot;
mod worker;

#[cfg(test)]
mod tests;

pub use alone::Alone;

use crate::notice::notice;
use crate::{Env, Rng};
use anyhow::{Error, Result, anyhow, ensure};
use group::Leaving;
use hello::Ask;
use indexmap::IndexSet;
use serde_json::{Value, json};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use worker::{Launch, Worker};

/// The interpreter where the configuration names no other.
const PYTHON: &str = "python3";

/// A suite of tasks that the Python package runs.
pub struct Suite {
    /// The first word of its tasks.
    pub name: &'static str,
    /// What it is, with a task of it.
    pub about: &'static str,
    /// The package's extra that installs what it needs; empty where that takes more than pip.
    extra: &'static str,
}

/// Every suite of the Python package.
pub const SUITES: [Suite; 12] = [
    Suite { name: "gym", about: "Any Gymnasium environment: gym_CartPole-v1.", extra: "gym" },
    Suite { name: "atari", about: "Atari games, the protocol of 200M frames: atari_pong.", extra: "atari" },
    Suite { name: "atari100k", about: "Atari games, the protocol of 100k steps: atari100k_boxing.", extra: "atari" },
    Suite { name: "dmc", about: "DeepMind Control: dmc_walker_walk.", extra: "dmc" },
    Suite {
        name: "crafter",
        about: "Crafter, native with the pictures of its package: crafter_reward, crafter_noreward.",
        extra: "crafter",
    },
    Suite { name: "procgen", about: "Procgen: procgen_coinrun.", extra: "procgen" },
    Suite { name: "minigrid", about: "MiniGrid: minigrid_Empty-5x5-v0.", extra: "minigrid" },
    Suite { name: "bsuite", about: "Behaviour Suite: bsuite_mnist/0.", extra: "bsuite" },
    Suite { name: "memmaze", about: "Memory Maze: memmaze_9x9.", extra: "memmaze" },
    Suite { name: "loconav", about: "Walkers in mazes: loconav_ant_maze_m.", extra: "loconav" },
    Suite { name: "dmlab", about: "DeepMind Lab: dmlab_explore_goal_locations_small.", extra: "" },
    Suite { name: "minecraft", about: "Minecraft: minecraft_diamond.", extra: "" },
];

impl Suite {
    /// The command that installs what the suite needs, in the repository.
    pub fn install(&self) -> String {
        match self.extra {
            "" => "its engine is not on the package index, see docs/environments.md".into(),
            extra => format!("pip install \"./python[{extra}]\""),
        }
    }
}

/// The suite of a task: `py` and `exec` for what the user wrote, else the task's first word.
pub fn suite(task: &str) -> &str {
    let end = if task.starts_with("py:") || task.starts_with("exec:") { ':' } else { '_' };
    task.split(end).next().unwrap_or(task)
}

/// Whether there is a worker that knows the task.
pub fn has_worker(task: &str) -> bool {
    let suite = suite(task);
    ["py", "exec"].contains(&suite) && task.contains(':') || SUITES.iter().any(|known| known.name == suite)
}

/// The seed of a run's `index`-th environment; `rng` draws a number for the run.
pub fn env_seed(rng: &mut Rng, index: usize) -> u32 {
    (rng.bits() >> 34) as u32 + index as u32
}

/// The environments `indices` of an external task. `options` is the block `env` of the configuration with, as
/// `timeout`, the seconds that one answer may take, and as `start` the step at which a resumed run goes on: seeds
/// depend on it, so that it does not repeat its beginning. All workers start at once, and this waits for all of them.
pub fn make(task: &str, indices: Range<usize>, seed: u64, options: &Value) -> Result<Vec<Box<dyn Env>>> {
    let number = |key: &str, default| options.get(key).and_then(Value::as_f64).unwrap_or(default);
    let slots = slots(task, indices.len(), options)?;
    let timeout = number("timeout", 180.0);
    ensure!(
        timeout > 0.0 && timeout < 1e9,
        "run.episode_timeout is {timeout}, but must be a positive number of seconds"
    );
    let timeout = Duration::from_secs_f64(timeout);
    let restarts = number("restarts", 5.0);
    ensure!(restarts >= 0.0, "env.restarts is {restarts}, but must be 0 or more");
    let (restarts, start) = (restarts as usize, number("start", 0.0) as u64);
    let (mut workers, leaving) = (vec![], Arc::new(Leaving::default()));
    for first in indices.clone().step_by(slots) {
        let count = slots.min(indices.end - first);
        let ask = Ask {
            version: hello::VERSION,
            lifeline: -1, // each process has its own
            task: task.strip_prefix("exec:").unwrap_or(task).to_string(),
            index: first,
            slots: count,
            seed: 0, // drawn for each start
            options: options.get(suite(task)).cloned().unwrap_or(json!({})),
            kwargs: options.get("kwargs").cloned().unwrap_or(json!({})),
        };
        let (command, rng) = (arguments(task, options)?, Rng::new(seed, start));
        let launch = Launch { command, ask, rng, timeout, leaving: leaving.clone() };
        let worker = Worker::start(launch, restarts).map_err(|error| name_another_python(error, task))?;
        workers.push((count, worker));
    }
    let (mut envs, mut notes): (Vec<Box<dyn Env>>, IndexSet<String>) = Default::default();
    for (count, starting) in workers {
        let mut worker = starting.ready().map_err(|error| explain(error, task, options))?;
        notes.extend(std::mem::take(&mut worker.notes));
        let worker = Arc::new(worker);
        envs.extend((0..count).map(|slot| Box::new(slot::Slot::new(worker.clone(), slot)) as Box<dyn Env>));
    }
    notes.iter().for_each(|note| notice(&format!("note: {note}")));
    Ok(envs)
}

/// Says what helps where there is no Python to start.
fn name_another_python(error: Error, task: &str) -> Error {
    let absent = error.root_cause().downcast_ref::<io::Error>().is_some_and(|x| x.kind() == io::ErrorKind::NotFound);
    if absent && !task.starts_with("exec:") {
        return error.context("install Python 3, or name where it is with --env.python");
    }
    error
}

/// Environments in one worker, of `count` in all.
fn slots(task: &str, count: usize, options: &Value) -> Result<usize> {
    let slots = options.get("slots").and_then(Value::as_f64).unwrap_or(0.0);
    ensure!(
        slots == 0.0 || (1.0..=250.0).contains(&slots),
        "env.slots is {slots}, but a worker holds 1 to 250 environments; 0 shares them out among the processors"
    );
    Ok(if slots == 0.0 { shared_out(task, count) } else { slots as usize })
}

/// The default number of environments in a worker. One worker per processor is woken less often than one per
/// environment, which makes a third more steps of Pong and nearly twice those of CartPole. User-written environments,
/// and those that wait for another program, have a process each.
fn shared_out(task: &str, count: usize) -> usize {
    if ["py", "exec", "minecraft"].contains(&suite(task)) {
        return 1;
    }
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    count.div_ceil(processors).clamp(1, 250)
}

/// The program of a task's worker and its arguments.
fn arguments(task: &str, options: &Value) -> Result<Vec<String>> {
    if let Some(program) = task.strip_prefix("exec:") {
        let words: Vec<String> = program.split_whitespace().map(String::from).collect();
        ensure!(!words.is_empty(), "task 'exec:' names no program; write exec:./worker");
        return Ok(words);
    }
    Ok([python(options), "-m", "dreamer_envs"].map(String::from).into())
}

/// The interpreter that the configuration names.
pub fn python(options: &Value) -> &str {
    options.get("python").and_then(Value::as_str).unwrap_or(PYTHON)
}

/// An error at the start of a task's worker: names the task, and the cure where the package or numpy is not there.
/// Commands that install something do so for the Python that was chosen.
fn explain(error: anyhow::Error, task: &str, options: &Value) -> anyhow::Error {
    let mut text = format!("{error:#}");
    let lacks = [("dreamer_envs", "No module named dreamer_envs"), ("numpy", "No module named 'numpy'")];
    let missing = lacks.into_iter().find(|(_, said)| text.contains(said));
    if let Some((module, _)) = missing.filter(|_| !task.starts_with("exec:")) {
        let install = SUITES.iter().find(|known| known.name == suite(task) && !known.extra.is_empty());
        let install = install.map_or("pip install ./python".into(), Suite::install);
        text = format!(
            "this Python lacks the package {module}: run `{install}` in the repository, or name another Python \
             with --env.python"
        );
    }
    if text.contains("this program is started by the trainer: dreamer train") {
        // Version 1 of the package says so of anything that is no socket.
        text = "the package dreamer_envs of this Python is of another version: run `pip install ./python` in the \
                repository"
            .into();
    }
    if python(options) != PYTHON {
        text = text.replace("pip install", &format!("{} -m pip install", python(options)));
    }
    if text.contains(&format!("'{task}'")) { anyhow!(text) } else { anyhow!("task '{task}': {text}") }
}
