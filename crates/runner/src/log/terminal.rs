//! The process's screen: a block redrawn in place on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Stdout, Write};
use std::sync::{LazyLock, Mutex, MutexGuard};

/// Where lines go: either below a block that stays at the bottom, or plainly one after another.
pub struct Screen<W: Write> {
    out: W,
    live: bool,
    block: Vec<String>,
}

impl<W: Write> Screen<W> {
    /// `live` says that `out` is a terminal which understands cursor movements.
    pub fn new(out: W, live: bool) -> Self {
        Screen { out, live, block: vec![] }
    }

    pub fn live(&self) -> bool {
        self.live
    }

    /// Replaces the block. On a plain output it does nothing.
    pub fn draw(&mut self, block: Vec<String>) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let text = self.erasing() + &drawn(&block);
        self.block = block;
        self.send(&text)
    }

    /// Prints whole lines; the block, if there is one, moves down below them.
    pub fn println_above(&mut self, text: &str) -> io::Result<()> {
        let text = format!("{}{text}\n{}", self.erasing(), drawn(&self.block));
        self.send(&text)
    }

    /// Leaves the block on the screen for good: what is printed later comes below it.
    pub fn release(&mut self) {
        self.block.clear();
    }

    /// Moves up over the block and clears from there on.
    fn erasing(&self) -> String {
        match self.block.len() {
            0 => String::new(),
            n => format!("\x1b[{n}A\r\x1b[J"),
        }
    }

    /// One write, so that no other process's output can come between.
    fn send(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// The block's lines with wrapping off, so that a narrow window cuts them instead of moving all below.
fn drawn(block: &[String]) -> String {
    if block.is_empty() {
        return String::new();
    }
    block.iter().fold("\x1b[?7l".to_string(), |text, line| text + line + "\n") + "\x1b[?7h"
}

/// The process has one standard output, hence one screen.
static SCREEN: LazyLock<Mutex<Screen<Stdout>>> = LazyLock::new(|| {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Mutex::new(Screen::new(io::stdout(), io::stdout().is_terminal() && !set("NO_COLOR") && !dumb))
});

/// The process's screen. A closed output (`dreamer train | head`) must not end a run: callers pass over its errors.
pub fn screen() -> MutexGuard<'static, Screen<Stdout>> {
    SCREEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Prints a message, from any thread, without garbling the progress display.
pub fn println_above(text: &str) {
    let _ = screen().println_above(text);
}

/// The same on standard error, where no display is in the way.
pub fn eprintln_above(text: &str) {
    let mut screen = screen();
    let _ = if screen.block.is_empty() { writeln!(io::stderr(), "{text}") } else { screen.println_above(text) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal of unlimited size shows after these bytes: enough of ANSI for the display.
    fn show(bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap().replace("\x1b[?7l", "").replace("\x1b[?7h", "");
        let mut rows: Vec<String> = vec![String::new()];
        for part in text.split_inclusive('\n') {
            let mut part = part;
            while let Some(rest) = part.strip_prefix("\x1b[") {
                let (n, rest) = rest.split_once("A\r\x1b[J").unwrap();
                rows.truncate(rows.len() - n.parse::<usize>().unwrap());
                part = rest;
                rows.pop();
                rows.push(String::new());
            }
            rows.last_mut().unwrap().push_str(part.trim_end_matches('\n'));
            if part.ends_with('\n') {
                rows.push(String::new());
            }
        }
        rows.pop();
        rows
    }

    #[test]
    fn warnings_stay_above_the_block() {
        let mut screen = Screen::new(vec![], true);
        let block = |i: i32| vec![format!("step {i}"), "loss".to_string()];
        screen.println_above("hello").unwrap();
        screen.draw(block(1)).unwrap();
        screen.println_above("first warning\nof two lines").unwrap();
        screen.draw(block(2)).unwrap();
        screen.println_above("second").unwrap();
        screen.draw(vec!["done".into()]).unwrap();
        screen.release();
        screen.println_above("after").unwrap();
        assert_eq!(show(&screen.out), ["hello", "first warning", "of two lines", "second", "done", "after"]);
    }

    #[test]
    fn a_plain_output_gets_no_control_characters() {
        let mut screen = Screen::new(vec![], false);
        screen.draw(vec!["block".into()]).unwrap();
        screen.println_above("line").unwrap();
        assert_eq!(screen.out, b"line\n");
    }
}
