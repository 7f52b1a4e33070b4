//! The binary `dreamer`: argument parsing and nothing else.

mod bench;
mod commands;
mod devices;
mod envs_list;
mod help;
mod plot;

use std::process::ExitCode;

/// Why a command failed; decides the exit code.
pub enum Failure {
    /// The command line or a file it names is wrong: exit code 2.
    Usage(anyhow::Error),
    /// The command itself failed: exit code 1.
    Run(anyhow::Error),
}

fn main() -> ExitCode {
    let mut args = vec![];
    for arg in std::env::args_os().skip(1) {
        match arg.into_string() {
            Ok(arg) => args.push(arg),
            Err(arg) => {
                eprintln!("error: the argument {} is not valid UTF-8", arg.display());
                return ExitCode::from(2);
            }
        }
    }
    match commands::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; a reader that has closed it, such as `head`, is no error.
pub fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
