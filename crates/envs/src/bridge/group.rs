//! `Group`: a process with all that it starts.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a process may take to leave by itself once it was told to.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// A pipe whose first end a process may inherit by its number, to see by it when this program ends. Should another
/// process that is just being started get it too, nothing is lost: what matters is who holds the other end.
pub fn lifeline() -> io::Result<(PipeReader, PipeWriter)> {
    let (watched, held) = pipe()?;
    fcntl_setfd(&watched, FdFlags::empty())?;
    Ok((watched, held))
}

/// A process that leads a group of its own. Dropping it ends the process and all that it started.
pub struct Group {
    pub child: Child,
    /// Whether it was waited for; only until then its number is surely its own.
    reaped: bool,
}

impl Group {
    /// Starts `command`. Ctrl-C is for this program alone.
    pub fn start(mut command: Command) -> io::Result<Self> {
        Ok(Group { child: command.process_group(0).spawn()?, reaped: false })
    }

    /// How the process ended by itself, if it did. This leaves its number to it.
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

    /// Ends the process and its group at once. What the process has started outlives it, so that the group is killed
    /// even where it is dead itself: as it was not waited for, no other group has its number.
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
