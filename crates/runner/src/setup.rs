//! Builds the parts of a run from its configuration.

use crate::checkpoint::read_agent;
use crate::device;
use crate::driver::Driver;
use crate::log::{Logger, Settings, eprintln_above, println_above};
use anyhow::{Context, Result, anyhow, ensure};
use config::Config;
use dreamer_agent::Agent;
use envs::Env;
use envs::wrappers::{LogImage, RestartOnException};
use replay::{Options, Replay};
use spaces::Spaces;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

/// Evaluation environments are numbered from here on, to draw other random numbers.
const EVAL_INDEX: usize = 1 << 20;
/// Restarted environments likewise.
const RESTART_INDEX: usize = 1 << 24;
/// A run ends when an environment crashes more than `RESTARTS` times within `RESTART_WINDOW` steps.
const RESTARTS: usize = 3;
const RESTART_WINDOW: u64 = 10_000;
/// Environments in worker processes that one thread serves; measured on two cores (docs/bridge.md).
const ASKED: usize = 16;

/// The environments of a run, or those of its evaluation, ready to step. `start` is the policy step at which the run
/// resumes: environments whose state is not saved get other seeds than at its beginning.
pub fn driver(config: &Config, eval: bool, start: u64) -> Result<Driver> {
    let (key, count) = if eval { ("run.eval_envs", config.run.eval_envs) } else { ("run.envs", config.run.envs) };
    let first = if eval || config.script == "eval_only" { EVAL_INDEX } else { 0 };
    ensure!(count > 0, "{key} is 0; at least one environment is needed");
    let external = envs::is_external(&config.task, &config.env);
    let envs = if external {
        let mut options = config.env_options();
        options["start"] = start.into();
        envs::make_many(&config.task, first..first + count, config.seed, &options)?
    } else {
        (0..count).map(|i| environment(config, first + i, start)).collect::<Result<Vec<Box<dyn Env>>>>()?
    };
    let processors = available_parallelism().map_or(1, |n| n.get());
    // Workers compute in parallel whichever thread asks them, and waking threads takes longer than asking.
    let threads = if external { processors.min(count.div_ceil(ASKED)) } else { processors };
    Driver::new(envs, if config.run.sync { 1 } else { threads })
}

/// One native environment, which is rebuilt when it crashes, with other random numbers than before.
fn environment(config: &Config, index: usize, start: u64) -> Result<Box<dyn Env>> {
    let (task, options) = (config.task.clone(), config.env.clone());
    // A restored environment draws from its saved generator, and from this seed only after a crash.
    let seed = if start == 0 { config.seed } else { envs::Rng::new(config.seed, start).bits() };
    let drawn = config.script == "eval_only"; // drawing would slow training down
    let build = move |restarts| {
        let env = envs::make(&task, index + restarts * RESTART_INDEX, seed, &options)?;
        Ok(if drawn { LogImage::around(env) } else { env })
    };
    Ok(Box::new(RestartOnException::new(Box::new(build), RESTARTS, RESTART_WINDOW)?))
}

/// The agent, or none where actions are random.
pub fn agent(config: &Config, driver: &Driver) -> Result<Option<Agent>> {
    if config.random_agent {
        return Ok(None);
    }
    let agent = Agent::new(driver.obs_space(), driver.act_space(), &config.agent);
    let agent = agent.map_err(|error| with_cure(error, config))?;
    let mut agent = device::place(agent, config)?;
    keep_frames(&mut agent, config)?;
    Ok(Some(agent))
}

/// Keeps images of the replay on the GPU as `replay.gpu_gb` says.
fn keep_frames(agent: &mut Agent, config: &Config) -> Result<()> {
    let gigabytes = config.replay.gpu_gb;
    if gigabytes == 0.0 || config.script == "eval_only" {
        return Ok(());
    }
    for gpu in device::gpus(config)? {
        let memory = gpu.properties().memory as f64 / 1e9;
        ensure!(gigabytes < memory, "replay.gpu_gb is {gigabytes}, but {gpu:?} has {memory:.1} GB; choose less");
    }
    if agent.keep_frames((gigabytes * 1e9) as usize, config.replay.size) == 0 {
        eprintln_above(&format!(
            "note: replay.gpu_gb is {gigabytes}, but nothing is kept: it is for images on a GPU that has room for them, of a \
             multiple of four bytes, with a replay_context of at least 1"
        ));
    }
    Ok(())
}

/// An error about the size of images, with the option that changes it where the task's suite has one.
fn with_cure(error: anyhow::Error, config: &Config) -> anyhow::Error {
    let suite = envs::suite(&config.task);
    let about_size = error.to_string().starts_with("image key");
    let size = config.env.get(suite).and_then(|options| options.get("size")).filter(|_| about_size);
    match size {
        Some(size) if *size == serde_json::json!([64, 64]) => {
            anyhow!("{error:#}; give agent.enc.simple.mults and agent.dec.simple.mults another number of entries")
        }
        Some(_) => anyhow!("{error:#}; --env.{suite}.size 64 64 resizes them"),
        None => error,
    }
}

/// Options of suites that are set, and do not reach the task, as it is of another suite.
pub fn stray_options(config: &Config) -> Result<Vec<String>> {
    let default = Config::resolve(&[], &[])?.env;
    let own = envs::suite(&config.task);
    let mut stray = vec![];
    for (suite, options) in config.env.as_object().into_iter().flatten().filter(|(suite, _)| *suite != own) {
        for (key, value) in options.as_object().into_iter().flatten().filter(|_| suite != "kwargs") {
            if default[suite].get(key) != Some(value) {
                stray.push(format!("env.{suite}.{key}"));
            }
        }
    }
    Ok(stray)
}

/// Every key of a replayed step.
pub fn step_spaces(driver: &Driver, agent: Option<&Agent>) -> Spaces {
    let mut all = spaces::observed(driver.obs_space());
    all.extend(spaces::chosen(driver.act_space()));
    all.extend(agent.map(Agent::replay_space).unwrap_or_default());
    all
}

/// The replay of training, or that of evaluation, a tenth as large, in `dir`, for steps of `step` bytes from `envs`
/// environments.
pub fn replay(config: &Config, dir: PathBuf, eval: bool, envs: usize, step: usize) -> Result<Replay> {
    let (length, consec) = match eval {
        false => (config.batch_length, config.consec_train),
        true => (config.report_length, config.consec_report),
    };
    let length = consec * length + config.replay_context;
    let share = if eval { 0.1 } else { 1.0 };
    let capacity = (config.replay.size as f64 * share) as usize;
    let most = (replay::capacity_bytes(config.replay.memory_share) as f64 * share) as u64;
    let wanted = config.replay.chunksize;
    let chunksize = replay::fitting_chunksize(wanted, length, envs, step, most).with_context(|| {
        format!(
            "sequences of {length} steps of {step} bytes from {envs} environments need more memory than the {most} \
             bytes that the replay may take; raise replay.memory_share, or lower {}",
            if eval { "run.eval_envs or report_length" } else { "run.envs or batch_length" }
        )
    })?;
    if !eval && !config.random_agent && config.run.train_ratio != 0.0 {
        enough_to_learn(config, (most / step.max(1) as u64) as usize, length, envs)?;
    }
    if chunksize < wanted {
        println_above(&format!(
            "note: files of the replay are of {chunksize} steps instead of {wanted} (replay.chunksize), as memory for \
             the replay is small"
        ));
    }
    let (fracs, prio) = (&config.replay.fracs, &config.replay.prio);
    let train_only = if eval { [1.0, 0.0, 0.0] } else { [fracs.uniform, fracs.priority, fracs.recency] };
    Replay::new(Options {
        length,
        capacity,
        capacity_bytes: Some(most),
        chunksize,
        online: config.replay.online && !eval, // where nothing is trained
        fracs: replay::Fracs { uniform: train_only[0], priority: train_only[1], recency: train_only[2] },
        prio: replay::Prio {
            exponent: prio.exponent,
            maxfrac: prio.maxfrac,
            initial: prio.initial,
            zero_on_sample: prio.zero_on_sample,
        },
        recexp: config.replay.recexp,
        seed: config.seed.wrapping_add(eval as u64),
        workers: envs,
        dir: Some(dir),
    })
}

/// Refuses a replay of at most `steps` steps that never holds the sequences which an update waits for.
fn enough_to_learn(config: &Config, steps: usize, length: usize, envs: usize) -> Result<()> {
    let needed = config.batch_size * config.batch_length;
    let sequences = steps.saturating_sub(envs * (length - 1)); // when it is full, before the oldest chunks go
    ensure!(
        sequences >= needed,
        "the memory that the replay may take holds {steps} steps, {sequences} sequences of {length}, while an update \
         needs {needed} (batch_size * batch_length); raise replay.memory_share, or lower batch_size, batch_length or \
         run.envs"
    );
    Ok(())
}

/// Environment frames a policy step: the action repeat of the task's suite; of a registered task, which has no suite, 1.
pub fn action_repeat(config: &Config) -> u64 {
    if envs::is_registered(&config.task) {
        return 1;
    }
    config
        .env
        .get(envs::suite(&config.task))
        .and_then(|options| options.get("repeat"))
        .and_then(|n| n.as_u64())
        .unwrap_or(1)
        .max(1)
}

/// The outputs of metrics in `root`; `resume` is the policy step at which a resumed run goes on, see [`Settings`].
pub fn logger(config: &Config, root: &Path, resume: Option<u64>) -> Result<Logger> {
    Logger::open(Settings {
        logdir: root.to_path_buf(),
        outputs: config.logger.outputs.clone(),
        terminal: true,
        filter: config.logger.filter.clone(),
        fps: config.logger.fps as f64,
        multiplier: action_repeat(config),
        total: config.run.limit(),
        resume,
        title: config.task.clone(),
    })
}

/// Loads the tensors whose names match `regex` from the checkpoint `from`, which the setting `key` names.
pub fn load_checkpoint(agent: &mut Agent, key: &str, from: &str, regex: &str) -> Result<()> {
    let (state, warnings) = read_agent(Path::new(from)).with_context(|| format!("{key} '{from}'"))?;
    warnings.iter().for_each(|text| println_above(&format!("warning: {text}")));
    let regex = (!regex.is_empty() && regex != ".*").then_some(regex);
    agent.load(&state, regex).with_context(|| format!("{key} '{from}' cannot be loaded into this agent"))
}

#[cfg(test)]
#[path = "setup_tests.rs"]
mod tests;
