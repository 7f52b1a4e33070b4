//! Training and evaluation runs: the loop, the run folder, checkpoints, logs and plots.
//!
//! [`run`] does what the configuration says. Data flows one way: environment, driver, policy,
//! replay, batch, agent, metrics. `docs/run-folder.md` describes what a run leaves behind.

mod banner;
mod batches;
pub mod bench;
pub mod checkpoint;
mod clock;
mod diagnostic;
mod driver;
mod episodes;
mod eval_only;
mod evaluation;
mod exact;
mod flight;
mod folder;
pub mod log;
pub mod plot;
mod policy;
mod saving;
mod setup;
mod signals;
mod tensors;
mod train;
mod trainer;
mod workers;

use anyhow::{Context, Result, bail, ensure};

/// Runs the script that `config.script` names: `train`, `train_eval` or `eval_only`. The first
/// Ctrl-C or SIGTERM saves and returns; the second ends the process at once.
pub fn run(config: config::Config) -> Result<()> {
    check(&config)?;
    use_threads(&config);
    let stop = signals::Stop::on_signals()?;
    match config.script.as_str() {
        "train" | "train_eval" => train::train(config, &stop).context("the run ended early"),
        "eval_only" => eval_only::eval_only(config, &stop),
        other => bail!("script '{other}' is unknown; there are train, train_eval and eval_only"),
    }
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
    let positive = [
        ("batch_size", config.batch_size),
        ("batch_length", config.batch_length),
        ("report_length", config.report_length),
        ("consec_train", config.consec_train),
        ("consec_report", config.consec_report),
        ("run.report_batches", config.run.report_batches),
        ("run.envs", config.run.envs),
    ];
    for (key, value) in positive {
        ensure!(value > 0, "{key} is 0; it must be at least 1");
    }
    let device = config.device.as_str();
    ensure!(device == "auto" || device == "cpu", "device '{device}' is not in this build; use cpu or auto");
    let fits = config.consec_report * config.report_length <= config.consec_train * config.batch_length;
    ensure!(
        fits,
        "consec_report * report_length is {}, more than consec_train * batch_length, {}: reports are cut from \
         sequences of training; lower report_length",
        config.consec_report * config.report_length,
        config.consec_train * config.batch_length
    );
    Ok(())
}
