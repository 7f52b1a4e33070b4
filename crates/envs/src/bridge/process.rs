//! `Process`: one running worker, from its start to its certain end.

use super::group::{Group, Leaving, lifeline};
use super::hello::{Answer, Ask, memory, read, refusal};
use super::log::Log;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait for a worker that closed its answers to die, so that the error can say how.
const DEATH: Duration = Duration::from_millis(500);

/// A worker process with its pipes and its memory. Dropping it ends the process and all that it started.
pub struct Process {
    group: Group,
    /// To the worker, until it is told to leave, and from it. Not a socket: reading from one wakes the sender once
    /// more, which costs light environments a sixth of their steps.
    asks: Option<PipeWriter>,
    answers: PipeReader,
    memory: Option<File>,
    log: Log,
    timeout: Duration,
    /// Where it goes when it is told to leave.
    leaving: Arc<Leaving>,
}

impl Process {
    /// Starts `command` and asks it; [`Process::hello`] reads its answer.
    pub fn start(command: &[String], ask: &Ask, timeout: Duration, leaving: Arc<Leaving>) -> Result<Self> {
        let scarce = "no pipe for a worker: each takes five descriptors, and `ulimit -n` says how many there may be";
        let (hears, asks) = pipe().context(scarce)?;
        let (answers, speaks) = pipe().context(scarce)?;
        let (watched, held) = lifeline().context(scarce)?;
        // Our ends do not block, so that no wait exceeds its deadline: `ready` does the waiting.
        ioctl_fionbio(&asks, true)?;
        ioctl_fionbio(&answers, true)?;
        let program = &command[0];
        let mut start = Command::new(program);
        start.args(&command[1..]).stdin(hears).stdout(speaks).stderr(Stdio::piped());
        let mut group = Group::start(start, held)
            .with_context(|| format!("the program '{program}' of the worker could not be started"))?;
        let log = Log::of(group.child().and_then(|child| child.stderr.take()))?;
        let (asks, memory) = (Some(asks), None);
        let process = Process { group, asks, answers, memory, log, timeout, leaving };
        let ask = serde_json::to_string(&Ask { lifeline: watched.as_raw_fd(), ..ask.clone() })? + "\n";
        process.write_line(ask.as_bytes())?;
        Ok(process)
    }

    /// Waits for the worker's answer and opens its memory.
    pub fn hello(&mut self, slots: usize) -> Result<Answer> {
        let line = self.line().context("the worker did not start")?;
        if let Some((sentence, log)) = refusal(&line) {
            // What it chose to say needs no log beside it.
            let error = anyhow!(sentence);
            return Err(if log { error.context("the worker failed at its start") } else { error });
        }
        let path = memory(&line).unwrap_or_default();
        let memory = File::options().read(true).write(true).open(&path);
        std::fs::remove_file(&path).ok(); // both sides hold it open; nobody else needs its name
        let answer = read(&line, slots)?;
        let memory = memory.with_context(|| format!("the worker's memory '{}' cannot be opened", path.display()))?;
        let (len, need) = (memory.metadata()?.len(), answer.layout.stride * slots);
        ensure!(len >= need as u64, "the worker's memory has {len} bytes, but its keys need {need}");
        self.memory = Some(memory);
        Ok(answer)
    }

    /// A line of text from the worker.
    pub fn line(&self) -> Result<String> {
        let mut line = vec![];
        let mut byte = [0];
        let deadline = Instant::now() + self.timeout;
        while line.last() != Some(&b'\n') {
            ensure!(line.len() < 1 << 20, "the worker sent a line of more than a megabyte");
            self.read(&mut byte, deadline)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Bytes from the worker, at least one.
    pub fn read(&self, bytes: &mut [u8], deadline: Instant) -> Result<usize> {
        // If another process can write here too, the pipe stays open when this one dies.
        let mut ended = None;
        loop {
            match (&self.answers).read(bytes) {
                Ok(0) => bail!(self.ending()),
                Ok(count) => return Ok(count),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock if ended.is_some() => bail!(self.ending()),
                    ErrorKind::WouldBlock if self.ready(&self.answers, PollFlags::IN)? => continue,
                    ErrorKind::WouldBlock if Instant::now() < deadline => ended = self.group.ended(),
                    ErrorKind::WouldBlock => {
                        bail!("the worker did not answer within {} s (run.episode_timeout)", self.timeout.as_secs_f64())
                    }
                    _ => return Err(error).context("the worker's answers cannot be read"),
                },
            }
        }
    }

    /// Bytes that the worker has sent and nobody has read, without waiting for any; how many.
    pub fn unread(&self, bytes: &mut [u8]) -> usize {
        (&self.answers).read(bytes).unwrap_or(0)
    }

    /// Sends a byte for each of some slots, for which there is always room: no slot is asked twice. A closed pipe shows
    /// where the answer is read, which may still hold the reason.
    pub fn send(&self, slots: &[u8]) -> Result<()> {
        self.asks()?.write_all(slots).ok();
        Ok(())
    }

    /// Sends a line, which may be more than a pipe holds at once. A closed pipe shows where the answer is read.
    fn write_line(&self, mut line: &[u8]) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        while !line.is_empty() && self.group.ended().is_none() {
            match self.asks()?.write(line) {
                Ok(count) => line = &line[count..],
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::BrokenPipe => return Ok(()),
                    ErrorKind::WouldBlock => {
                        let late = !self.ready(self.asks()?, PollFlags::OUT)? && Instant::now() > deadline;
                        ensure!(!late, "the worker does not read what it is asked");
                    }
                    _ => return Err(error).context("the worker cannot be asked"),
                },
            }
        }
        Ok(())
    }

    /// Waits for a while until a pipe can be read or written.
    fn ready(&self, pipe: &impl AsFd, what: PollFlags) -> Result<bool> {
        let patience = (self.timeout / 20).clamp(Duration::from_millis(5), Duration::from_secs(1));
        let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut [PollFd::new(pipe, what)], Some(&patience)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(true), // whoever asks looks again
            Err(error) => Err(error).context("a worker's pipe cannot be waited for"),
        }
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub fn write_memory(&self, bytes: &[u8], offset: usize) -> Result<()> {
        let memory = self.memory.as_ref().context("the worker has no memory yet")?;
        memory.write_all_at(bytes, offset as u64).context("the worker's memory cannot be written")
    }

    pub fn read_memory(&self, len: usize, offset: usize) -> Result<Vec<u8>> {
        let memory = self.memory.as_ref().context("the worker has no memory yet")?;
        let mut bytes = vec![0; len];
        memory.read_exact_at(&mut bytes, offset as u64).context("the worker's memory cannot be read")?;
        Ok(bytes)
    }

    /// Ends the worker, which may close its environments before, and returns the last lines of its log.
    pub fn last_words(&mut self) -> String {
        self.asks = None;
        self.group.dismiss();
        self.log.tail()
    }

    fn asks(&self) -> Result<&PipeWriter> {
        self.asks.as_ref().context("the worker was told to leave")
    }

    /// How a process whose answers have ended came to its end.
    fn ending(&self) -> String {
        let start = Instant::now();
        while start.elapsed() < DEATH {
            if let Some(how) = self.group.ended() {
                return format!("the worker ended ({how})");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        "the worker closed its answers".into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.asks = None; // a sound worker leaves at this, unless it is still making its environments
        if self.memory.is_some() {
            self.leaving.add(std::mem::take(&mut self.group), self.answers.try_clone().ok());
        }
    }
}
