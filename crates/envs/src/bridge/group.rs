//! `Group`: a process with all that it starts.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
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
    /// Starts `command` in its own process group, so that Ctrl-C reaches this program alone. It takes the pipes of the
    /// command from [`Group::child`].
    pub fn start(mut command: Command, lifeline: PipeWriter) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mark = format!("{}-{}-{now}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let child = command.env(MARK, &mark).process_group(0).spawn()?;
        Ok(Group { child: Some(child), _lifeline: Some(lifeline), mark })
    }

    /// The process, until it was killed.
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

    /// Kills the process and all that it started at once. Its children may outlive it, so the group is killed even if
    /// it is dead: until it is reaped, no other group has its id.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
            child.wait().ok();
            kill_marked(&self.mark);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills the processes with `mark` in their environment. Those that start further ones meanwhile are met again.
fn kill_marked(mark: &str) {
    let entry = format!("{MARK}={mark}").into_bytes();
    let marked = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == entry)
    };
    for _ in 0..3 {
        let Ok(processes) = std::fs::read_dir("/proc") else { return }; // not Linux
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let pids: Vec<i32> = pids.filter(marked).collect();
        if pids.is_empty() {
            return;
        }
        pids.into_iter().filter_map(Pid::from_raw).for_each(|pid| _ = kill_process(pid, Signal::KILL));
    }
}

/// Processes that were told to leave. Dropping this waits for all of them together, and ends those that stay.
#[derive(Default)]
pub struct Leaving(Mutex<Vec<Group>>);

impl Leaving {
    pub fn add(&self, group: Group) {
        if group.child.is_some() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(group);
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).iter().for_each(|group| group.wait(deadline));
    }
}
