//! The binary `dreamer`: argument parsing and nothing else.

mod bench;
mod commands;
mod devices;
mod envs_list;
mod help;
mod plot;

use anyhow::anyhow;
use config::Value;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Why a command failed; decides the exit code.
pub enum Failure {
    /// The command line or a file it names is wrong: exit code 2.
    Usage(anyhow::Error),
    /// The command itself failed: exit code 1.
    Run(anyhow::Error),
}

impl Failure {
    /// The error, of either kind.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Failure::Usage(error) | Failure::Run(error) => error,
        }
    }
}

fn main() -> ExitCode {
    let mut args = vec![];
    for arg in std::env::args_os().skip(1) {
        match arg.into_string() {
            Ok(arg) => args.push(arg),
            Err(arg) => {
                complain(&format!("error: the argument {} is not valid UTF-8", arg.display()));
                return ExitCode::from(2);
            }
        }
    }
    match commands::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; a reader that has closed it, such as `head`, is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Run(anyhow!("cannot write to standard output: {error}; is the disk full?")))
        }
        _ => Ok(()),
    }
}

/// The whole number of at least 1 after `--flag`, which may be written `1e2`.
pub fn count(flag: &str, word: &str) -> anyhow::Result<usize> {
    match Value::from_words(&[word.to_string()], &Value::Int(1)) {
        Ok(Value::Int(n)) if n > 0 => Ok(n as usize),
        _ => Err(anyhow!("'--{flag}' is '{word}', but expects a whole number of at least 1")),
    }
}

/// Writes a line to standard error; failures are ignored, as nobody may be reading it.
pub fn complain(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}
