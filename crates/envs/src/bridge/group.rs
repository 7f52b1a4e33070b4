//! `Group`: a process with all that it starts.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a process may take to leave by itself once it was told to.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// A pipe whose read end a child process inherits, to notice when this program ends. That other children may inherit it
/// too does no harm: only the holder of the write end matters.
pub fn lifeline() -> io::Result<(PipeReader, PipeWriter)> {
    let (watched, held) = pipe()?;
    fcntl_setfd(&watched, FdFlags::empty())?;
    Ok((watched, held))
}

/// A process that leads a group of its own. Dropping it ends the process and all that it started.
pub struct Group {
    pub child: Child,
    /// Whether it was waited for; after that its process id may be another's.
    reaped: bool,
}

impl Group {
    /// Starts `command` in its own process group, so that Ctrl-C reaches this program alone.
    pub fn start(mut command: Command) -> io::Result<Self> {
        Ok(Group { child: command.process_group(0).spawn()?, reaped: false })
    }

    /// How the process ended by itself, if it did. Does not reap it, so that it keeps its process id.
    pub fn ended(&self) -> Option<String> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(Pid::from_child(&self.child)), options).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, Some(signal)) => format!("killed by signal {signal}"),
            _ => "for an unknown reason".into(),
        })
    }

    /// Waits until the process has ended by itself, at most until `deadline`.
    pub fn wait(&self, deadline: Instant) {
        while !self.reaped && self.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the process and its group at once. Its children may outlive it, so the group is killed even if it is dead:
    /// until it is reaped, no other group has its id.
    pub fn kill(&mut self) {
        if !self.reaped {
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
            self.reaped = self.child.wait().is_ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
