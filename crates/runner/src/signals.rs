//! Ctrl-C and SIGTERM: the first asks the run to save and end, one that comes a second or more later ends it at once.

use crate::log::println_above;
use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the watching thread looks for a signal, and how long it leaves the run to hear of it by itself. Signals
/// within that time count as one: `timeout`, for one, sends its signal to the program and then to the group it is in.
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

impl Stop {
    /// Watches for the two signals from now on.
    pub fn on_signals() -> Result<Self> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.armed.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.asked.clone()))
                .context("cannot watch for Ctrl-C")?;
        }
        let watched = stop.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || watched.watch())?;
        Ok(stop)
    }

    pub fn asked(&self) -> bool {
        let asked = self.asked.load(Ordering::SeqCst);
        if asked {
            self.heard.store(true, Ordering::SeqCst);
        }
        asked
    }

    /// Lets the next signal end the program, and says why nothing happens where the run is not there to say so.
    fn watch(&self) {
        while !self.asked.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(PATIENCE);
        self.armed.store(true, Ordering::SeqCst);
        if !self.heard.load(Ordering::SeqCst) {
            println_above("stopping as soon as what is under way is done (Ctrl-C again ends it at once)");
        }
    }
}
