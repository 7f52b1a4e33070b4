//! Environments that step by themselves in processes of their own: what the bridge is compared with.

use super::{arguments, explain, slots, suite};
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Processes of the Python package that each step one environment of a task, or one vector of them, when they are
/// told to.
pub struct Alone {
    processes: Vec<Process>,
}

struct Process {
    child: Child,
    ask: ChildStdin,
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
            let ask = json!({"task": task, "index": i, "slots": slots, "seed": seed % (1 << 31) + i as u64,
                "options": options.get(suite(task)), "kwargs": options.get("kwargs")});
            let words = arguments(task, options)?;
            let mut child = Command::new(&words[0])
                .args(&words[1..])
                .args(["--alone", &ask.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start '{}'", words[0]))?;
            let pipes = child.stdin.take().zip(child.stdout.take());
            let (ask, answers) = pipes.context("a process was started without its pipes")?;
            processes.push(Process { child, ask, answers: BufReader::new(answers) });
        }
        let mut alone = Alone { processes };
        for process in &mut alone.processes {
            process.line().map_err(|error| explain(error, task, options))?;
        }
        Ok(Some(alone))
    }

    /// Steps a second of all processes together, which each step for `time`.
    pub fn rate(&mut self, time: Duration) -> Result<f64> {
        for process in &mut self.processes {
            writeln!(process.ask, "{}", time.as_secs_f64()).context("a process that steps alone has ended")?;
        }
        self.processes.iter_mut().map(|process| Ok(process.line()?.parse::<f64>()?)).sum()
    }
}

impl Process {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let line = line.trim();
        if line.is_empty() { Err(anyhow!("a process that steps alone has ended")) } else { Ok(line.into()) }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.child.kill().ok();
            process.child.wait().ok();
        }
    }
}
