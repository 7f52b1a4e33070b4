//! Ctrl-C, SIGTERM and the end of the terminal: the first asks the run to save and end, one that comes a second or more
//! later ends it at once.

use crate::log::println_above;
use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the watching thread looks for a signal, and how long it leaves the run to notice one. Signals within that
/// time count as one: `timeout`, for example, signals the program and then its process group.
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the run was asked to stop.
#[derive(Clone, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    /// Whether the run has noticed, which takes it some time where an environment does not answer.
    heard: Arc<AtomicBool>,
    /// Whether the next signal ends the program.
    armed: Arc<AtomicBool>,
}

/// What the handlers of this process, once they are there, tell: all its runs share them.
static HANDLED: Mutex<Option<Stop>> = Mutex::new(None);

impl Stop {
    /// Watches for the signals from now on. What stopped an earlier run of this process is forgotten.
    pub fn on_signals() -> Result<Self> {
        let mut handled = HANDLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = &*handled {
            [&stop.asked, &stop.heard, &stop.armed].iter().for_each(|flag| flag.store(false, Ordering::SeqCst));
            return Ok(stop.clone());
        }
        let stop = Stop::default();
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.armed.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.asked.clone()))
                .context("cannot watch for Ctrl-C")?;
        }
        // Exceeding a file size limit is to be a write error, like a full disk, and not the end of the program.
        signal_hook::flag::register(SIGXFSZ, Arc::default()).context("cannot watch for signals")?;
        let watched = stop.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || watched.watch())?;
        Ok(handled.insert(stop).clone())
    }

    pub fn asked(&self) -> bool {
        let asked = self.asked.load(Ordering::SeqCst);
        if asked {
            self.heard.store(true, Ordering::SeqCst);
        }
        asked
    }

    /// Arms the next signal to end the program, and tells the user if the run has not noticed this one.
    fn watch(&self) {
        let wait_while = |asked: bool| {
            while self.asked.load(Ordering::SeqCst) == asked {
                std::thread::sleep(LOOK);
            }
        };
        loop {
            wait_while(false);
            std::thread::sleep(PATIENCE);
            let handled = HANDLED.lock().unwrap_or_else(PoisonError::into_inner); // no run begins meanwhile
            if self.asked.load(Ordering::SeqCst) {
                self.armed.store(true, Ordering::SeqCst);
                if !self.heard.load(Ordering::SeqCst) {
                    println_above("stopping as soon as what is under way is done (Ctrl-C again ends it at once)");
                }
                drop(handled);
                wait_while(true); // until another run begins
            }
        }
    }
}

/// Whether this process was started to ignore a signal, as by `nohup`.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_stops_the_run_and_not_the_next_one() {
        let first = Stop::on_signals().unwrap();
        assert!(!first.asked());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(first.asked());
        let second = Stop::on_signals().unwrap();
        assert!(!second.asked() && !second.armed.load(Ordering::SeqCst));
        // The watching thread is over its patience, and has not armed what was forgotten.
        std::thread::sleep(PATIENCE + 3 * LOOK);
        assert!(!second.armed.load(Ordering::SeqCst));
        signal_hook::low_level::raise(SIGTERM).unwrap();
        std::thread::sleep(PATIENCE + 3 * LOOK);
        assert!(second.asked() && second.armed.load(Ordering::SeqCst));
        Stop::on_signals().unwrap(); // nothing must remain armed in the tests' process
    }
}
