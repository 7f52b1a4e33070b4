//! Messages to the user: none is lost below a progress display, and none ends a run because nobody can read it.

use std::io::{self, Write};
use std::sync::OnceLock;

static SAY: OnceLock<fn(&str)> = OnceLock::new();

/// Has messages, such as that a worker is restarted and why, shown by `say` instead of written to standard error. What
/// was set first stays.
pub fn show_notices(say: fn(&str)) {
    SAY.set(say).ok();
}

/// Tells the user something.
pub(crate) fn notice(text: &str) {
    match SAY.get() {
        Some(say) => say(text),
        None => drop(writeln!(io::stderr(), "{text}")), // closed, or a full disk
    }
}
