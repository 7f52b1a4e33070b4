//! `Group`: a process with all that it starts.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::process::{kill_process_group, pidfd_open, pidfd_send_signal, waitid};
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long processes may take to leave by themselves once they were told to.
const FAREWELL: Duration = Duration::from_secs(2);
/// The environment variable that tells which worker started a process, and so with which it ends.
const MARK: &str = "DREAMER_WORKER";

/// A pipe whose read end a child process inherits, to notice when this program ends. That other children may inherit it
/// too does no harm: only the holder of the write end matters.
pub fn lifeline() -> io::Result<(PipeReader, PipeWriter)> {
    let (watched, held) = pipe()?;
    fcntl_setfd(&watched, FdFlags::empty())?;
    Ok((watched, held))
}

/// A process that leads a group of its own. Dropping it ends the process and all that it started: what is in its group
/// and, on Linux, what has left that for a session of its own, as simulators do.
#[derive(Default)]
pub struct Group {
    /// None once it was waited for, when its process id may be another's.
    child: Option<Child>,
    /// The write end of the pipe by which the process notices that this program ends, however it does.
    _lifeline: Option<PipeWriter>,
    /// The value of [`MARK`] in the environment of all that it starts.
    mark: String,
}

impl Group {
    /// Starts `command` in its own process group, so that Ctrl-C reaches this program alone.
    pub fn start(mut command: Command, lifeline: PipeWriter) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mark = format!("{}-{}-{now}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let child = command.env(MARK, &mark).process_group(0).spawn()?;
        Ok(Group { child: Some(child), _lifeline: Some(lifeline), mark })
    }

    /// The process with its pipes, until it was killed.
    pub fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// How the process ended by itself, if it did. Does not reap it, so that it keeps its process id.
    pub fn ended(&self) -> Option<String> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(Pid::from_child(self.child.as_ref()?)), options).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, Some(signal)) => format!("killed by signal {signal}"),
            _ => "for an unknown reason".into(),
        })
    }

    /// Waits until the process has ended by itself, at most until `deadline`.
    fn wait(&self, deadline: Instant) {
        while self.child.is_some() && self.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a process that was told to leave, but not long, and kills what is still there.
    pub fn dismiss(&mut self) {
        self.wait(Instant::now() + FAREWELL);
        self.kill();
    }

    /// Kills the process and all that it started at once.
    pub fn kill(&mut self) {
        kill_all([self]);
    }

    /// Kills the process group, and returns the mark of what may have left it. Children may outlive the process, so the
    /// group is killed even if it is dead: until it is reaped, no other group has its id.
    fn kill_group(&mut self) -> Option<String> {
        let mut child = self.child.take()?;
        kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
        child.wait().ok();
        Some(format!("{MARK}={}", self.mark))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills processes and all that they started, with one look at those of the system.
fn kill_all<'a>(groups: impl IntoIterator<Item = &'a mut Group>) {
    let marks: Vec<String> = groups.into_iter().filter_map(Group::kill_group).collect();
    if marks.is_empty() {
        return;
    }
    let is_marked = |pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| marks.iter().any(|mark| mark.as_bytes() == entry))
    };
    // A process that was starting another one is gone by the second look, which finds that.
    for _ in 0..3 {
        let Ok(processes) = std::fs::read_dir("/proc") else { return }; // not Linux
        let mut found = false;
        for pid in processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            // Opened before it is looked at, the process that is killed is the one that was seen.
            let Some(Ok(process)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
                continue;
            };
            if is_marked(pid) {
                found = true;
                pidfd_send_signal(process, Signal::KILL).ok();
            }
        }
        if !found {
            return;
        }
    }
}

/// Processes that were told to leave, each with the pipe into which it may still write. Dropping this waits for all of
/// them together, and ends those that stay.
#[derive(Default)]
pub struct Leaving(Mutex<Vec<(Group, Option<PipeReader>)>>);

impl Leaving {
    pub fn add(&self, group: Group, answers: Option<PipeReader>) {
        if group.child.is_some() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((group, answers));
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let all = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + FAREWELL;
        all.iter().for_each(|(group, _)| group.wait(deadline));
        kill_all(all.iter_mut().map(|(group, _)| group));
    }
}
