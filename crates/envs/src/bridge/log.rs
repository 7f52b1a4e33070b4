//! `Log`: the last lines of what a process prints.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that are kept to explain a failure.
const LINES: usize = 12;
/// Bytes of a line that are kept.
const BYTES: u64 = 2000;
/// How long the thread that reads may lag behind a process that has ended.
const LAG: Duration = Duration::from_millis(500);

/// Reads what a process prints, so that it never waits for a reader, and keeps its end.
pub struct Log {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// The thread that reads, until all that could print have ended.
    reader: Option<JoinHandle<()>>,
}

impl Log {
    pub fn of(stderr: Option<ChildStderr>) -> io::Result<Self> {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let read = |stderr| {
            let lines = lines.clone();
            std::thread::Builder::new().name("worker log".into()).spawn(move || keep_tail(stderr, &lines))
        };
        let reader = stderr.map(read).transpose()?;
        Ok(Log { lines, reader })
    }

    /// The last lines of a process that was ended, each below the sentence that they explain.
    pub fn tail(&self) -> String {
        // The thread does not end while some process that was not found still has the pipe.
        let start = Instant::now();
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) && start.elapsed() < LAG {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.lines.lock().map(|lines| lines.iter().map(|line| format!("\n    {line}")).collect()).unwrap_or_default()
    }
}

fn keep_tail(stderr: ChildStderr, lines: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    loop {
        let mut line = vec![];
        match reader.by_ref().take(BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(mut lines) = lines.lock() else { return };
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(&line).trim_end().to_string());
    }
}
