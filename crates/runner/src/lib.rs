//! Training and evaluation runs: the loop, the run folder, checkpoints, logs and plots.
//!
//! [`run`] does what the configuration says. Data flows one way: environment, driver, policy,
//! replay, batch, agent, metrics. `docs/run-folder.md` describes what a run leaves behind.

mod banner;
mod batches;
pub mod bench;
pub mod checkpoint;
mod clock;
mod device;
mod diagnostic;
mod driver;
mod episodes;
mod eval_only;
mod evaluation;
mod exact;
mod files;
mod film;
mod flight;
mod folder;
pub mod log;
pub mod plot;
mod policy;
mod saving;
mod setup;
mod signals;
mod stream;
mod tensors;
mod train;
mod trainer;
mod workers;

pub use saving::open_agent;

use anyhow::{Result, anyhow, bail, ensure};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the script that `config.script` names: `train`, `train_eval` or `eval_only`. The first
/// Ctrl-C, SIGTERM or SIGHUP saves and returns; the second ends the process at once. All runs of a process share the
/// handlers, which stay when they end: one signal stops them all, one that comes between two runs does nothing, and the
/// start of a run forgets what came before.
pub fn run(config: config::Config) -> Result<()> {
    check(&config)?;
    let stray = setup::stray_options(&config)?;
    if !stray.is_empty() {
        let (task, options) = (&config.task, stray.join(", "));
        log::println_above(&format!("note: what is set does not reach {task}, which is of another suite: {options}"));
    }
    use_threads(&config);
    envs::show_notices(log::eprintln_above);
    let stop = signals::Stop::on_signals()?;
    unless_it_panics(|| match config.script.as_str() {
        "train" | "train_eval" => train::train(config, &stop),
        "eval_only" => eval_only::eval_only(config, &stop),
        other => bail!("script '{other}' is unknown; there are train, train_eval and eval_only"),
    })
}

/// What `f` returns; where it panics, as it does when a GPU fails or has no memory left, an error.
pub fn unless_it_panics<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(anyhow!("something panicked; what it said is above")))
}

/// Starts `config.threads` threads, where that is a number.
fn use_threads(config: &config::Config) {
    if config.threads > 0 {
        // A second run in one process keeps the threads of the first; results do not depend on them.
        rayon::ThreadPoolBuilder::new().num_threads(config.threads).build_global().ok();
    }
}

/// Refuses what cannot work before anything is built.
fn check(config: &config::Config) -> Result<()> {
    config.check()?;
    // Where there is a home folder, the tilde is gone.
    let tilde = config.logdir == "~" || config.logdir.starts_with("~/");
    ensure!(!tilde, "logdir is '{}', but HOME is not set: name the folder by --logdir", config.logdir);
    engine::cpu::Isa::detect().map_err(|sentence| anyhow!(sentence))?;
    device::check(config)
}
