//! Environments that step by themselves in processes of their own: what the bridge is compared with.

use super::group::{Group, Leaving, lifeline};
use super::log::Log;
use super::{arguments, explain, slots, suite};
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Processes of the Python package that each step one environment of a task, or one vector of them, when they are
/// told to. Dropping them ends them and all that they started.
pub struct Alone {
    processes: Vec<Process>,
}

struct Process {
    group: Group,
    log: Log,
    ask: Option<ChildStdin>, // until it is told to leave
    answers: BufReader<ChildStdout>,
}

impl Alone {
    /// Starts `count` processes to compare with a run of `envs` environments; none where the task is not one of the
    /// Python package.
    pub fn start(task: &str, count: usize, envs: usize, seed: u64, options: &Value) -> Result<Option<Alone>> {
        if !crate::is_external(task, options) || suite(task) == "exec" {
            return Ok(None);
        }
        // Those that step together are as many as in a worker.
        let (mut processes, slots) = (vec![], slots(task, envs, options)?);
        for i in 0..count {
            let (watched, held) = lifeline().context("no pipe for a process that steps alone")?;
            let ask = json!({"task": task, "index": i, "slots": slots, "seed": seed % (1 << 31) + i as u64,
                "options": options.get(suite(task)), "kwargs": options.get("kwargs"), "lifeline": watched.as_raw_fd()});
            let words = arguments(task, options)?;
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).args(["--alone", &ask.to_string()]).stdin(Stdio::piped());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut group = Group::start(command, held).with_context(|| format!("cannot start '{}'", words[0]))?;
            let pipes = group.child().and_then(|child| child.stdin.take().zip(child.stdout.take()));
            let (ask, answers) = pipes.context("a process was started without its pipes")?;
            let log = Log::of(group.child().and_then(|child| child.stderr.take()))?;
            let answers = BufReader::new(answers);
            processes.push(Process { group, log, ask: Some(ask), answers });
        }
        let mut alone = Alone { processes };
        for process in &mut alone.processes {
            process.line().map_err(|error| explain(error, task, options))?;
        }
        Ok(Some(alone))
    }

    /// Lets each process step for `time`; returns the steps per second of all together.
    pub fn rate(&mut self, time: Duration) -> Result<f64> {
        for process in &self.processes {
            let mut ask = process.ask.as_ref().context("a process that steps alone was told to leave")?;
            writeln!(ask, "{}", time.as_secs_f64()).ok(); // where it has ended, the answer says so
        }
        self.processes.iter_mut().map(|process| Ok(process.line()?.parse::<f64>()?)).sum()
    }
}

impl Process {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim() {
            "" => {
                self.ask = None;
                self.group.dismiss();
                Err(anyhow!("a process that steps alone, to compare with, has ended{}", self.log.tail()))
            }
            line => Ok(line.into()),
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let leaving = Leaving::default();
        for process in &mut self.processes {
            process.ask = None; // at this it closes its environments
            leaving.add(std::mem::take(&mut process.group), None);
        }
    }
}
