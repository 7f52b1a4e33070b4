//! Environments in other processes: workers that speak the protocol of `docs/bridge.md`.
//!
//! A [`Process`](process::Process) is a running worker, a [`Worker`](worker::Worker) one that is started again when
//! it fails, and a [`Slot`](slot::Slot) one of its environments, which is what the rest of the program sees.

mod hello;
mod process;
mod slot;
mod worker;

#[cfg(test)]
mod tests;

use crate::{Env, Rng};
use anyhow::{Context, Result, ensure};
use hello::Ask;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use worker::{Launch, Worker};

/// Suites that live in the Python package, with what they are and the command that installs what they need.
pub const SUITES: [(&str, &str, &str); 12] = [
    ("gym", "any Gymnasium environment: gym_CartPole-v1", "pip install gymnasium"),
    ("atari", "Atari games, the 200M frames protocol: atari_pong", "pip install ale-py==0.12.1 pillow"),
    ("atari100k", "Atari games, the 100k steps protocol: atari100k_boxing", "pip install ale-py==0.12.1 pillow"),
    ("dmc", "DeepMind Control: dmc_walker_walk", "pip install dm-control"),
    ("crafter", "Crafter: crafter_reward, crafter_noreward", "pip install crafter==1.8.3"),
    ("procgen", "Procgen: procgen_coinrun", "pip install procgen2==0.10.7 pillow"),
    ("minigrid", "MiniGrid: minigrid_Empty-5x5-v0", "pip install minigrid pillow"),
    ("bsuite", "Behaviour Suite: bsuite_mnist/0", "pip install bsuite"),
    ("memmaze", "Memory Maze: memmaze_9x9", "pip install memory-maze"),
    ("loconav", "walkers in mazes: loconav_ant_maze_m", "pip install dm-control"),
    ("dmlab", "DeepMind Lab; its engine must be built by hand", "see docs/environments.md"),
    ("minecraft", "Minecraft; its engine must be installed by hand", "see docs/environments.md"),
];

/// The suite of a task: `py` and `exec` for what the user wrote, else the task's first word.
pub fn suite(task: &str) -> &str {
    let end = if task.starts_with("py:") || task.starts_with("exec:") { ':' } else { '_' };
    task.split(end).next().unwrap_or(task)
}

/// Whether a task runs in a worker process.
pub fn is_external(task: &str) -> bool {
    let suite = suite(task);
    ["py", "exec"].contains(&suite) && task.contains(':') || SUITES.iter().any(|(name, ..)| *name == suite)
}

/// The environments `indices` of an external task. `options` is the block `env` of the configuration with, as
/// `timeout`, the seconds that one answer may take. All workers start at once, and this waits for all of them.
pub fn make(task: &str, indices: Range<usize>, seed: u64, options: &Value) -> Result<Vec<Box<dyn Env>>> {
    let number = |key: &str, default| options.get(key).and_then(Value::as_f64).unwrap_or(default);
    let slots = number("slots", 1.0);
    ensure!((1.0..=250.0).contains(&slots), "env.slots is {slots}, but a worker holds 1 to 250 environments");
    let timeout = number("timeout", 180.0);
    ensure!(
        timeout > 0.0 && timeout < 1e9,
        "run.episode_timeout is {timeout}, but must be a positive number of seconds"
    );
    let (slots, timeout) = (slots as usize, Duration::from_secs_f64(timeout));
    let restarts = number("restarts", 5.0).max(0.0) as usize;
    let mut workers = vec![];
    for first in indices.clone().step_by(slots) {
        let count = slots.min(indices.end - first);
        let ask = Ask {
            version: hello::VERSION,
            task: task.strip_prefix("exec:").unwrap_or(task).to_string(),
            index: first,
            slots: count,
            seed: 0, // drawn for each start
            options: options.get(suite(task)).cloned().unwrap_or(json!({})),
            kwargs: options.get("kwargs").cloned().unwrap_or(json!({})),
        };
        let launch = Launch { command: command(task, options)?, ask, rng: Rng::new(seed, first as u64), timeout };
        workers.push((count, Worker::start(launch, restarts)?));
    }
    let mut envs: Vec<Box<dyn Env>> = vec![];
    for (count, starting) in workers {
        let worker = Arc::new(starting.ready().with_context(|| format!("task '{task}'"))?);
        envs.extend((0..count).map(|slot| Box::new(slot::Slot::new(worker.clone(), slot)) as Box<dyn Env>));
    }
    Ok(envs)
}

/// The program of a task's worker and its arguments.
fn command(task: &str, options: &Value) -> Result<Vec<String>> {
    if let Some(program) = task.strip_prefix("exec:") {
        let words: Vec<String> = program.split_whitespace().map(String::from).collect();
        ensure!(!words.is_empty(), "task 'exec:' names no program; write exec:./worker");
        return Ok(words);
    }
    let python = options.get("python").and_then(Value::as_str).unwrap_or("python3");
    Ok([python, "-m", "dreamer_envs"].map(String::from).into())
}
