//! Messages to the user: the progress display does not hide them, and a closed output does not end a run.

use std::io::{self, Write};
use std::sync::OnceLock;

static SAY: OnceLock<fn(&str)> = OnceLock::new();

/// Shows messages, such as why a worker is restarted, by `say` instead of writing them to standard error. Only the
/// first call counts.
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
