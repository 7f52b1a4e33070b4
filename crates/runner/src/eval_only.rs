//! `eval_only`: plays with the agent of a checkpoint and learns nothing.

use crate::checkpoint::{Checkpoints, read_agent};
use crate::clock::Clock;
use crate::episodes::Episodes;
use crate::film::Film;
use crate::folder::Folder;
use crate::log::{Fps, Metrics, Usage, insert_scalar, println_above};
use crate::policy::Policy;
use crate::signals::Stop;
use crate::{banner, saving, setup};
use anyhow::{Context, Result, ensure};
use config::Config;
use dreamer_agent::{Agent, Mode};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Plays `run.steps` policy steps with the agent that `run.from_checkpoint` names. Where that is
/// empty, it is the agent of the run in `logdir`, and the metrics go to the folder `eval` in it.
pub fn eval_only(config: Config, stop: &Stop) -> Result<()> {
    let mut driver = setup::driver(&config, false, 0)?;
    let mut agent = setup::agent(&config, &driver)?;
    let root = root(&config);
    if let Some(agent) = &mut agent {
        load(agent, &config)?;
    }
    let folder = Folder::open(&root)?;
    saving::write_config(folder.root(), &config)?;
    println_above(&banner::text(&config, folder.root(), &driver, agent.as_ref())?);
    let agent = agent.map(|agent| agent.snapshot()); // without what only training needs

    // A folder of its own holds the last evaluation only.
    let mut logger = setup::logger(&config, folder.root(), own_folder(&config).then_some(0))?;
    let mut policy = Policy::new(agent.as_ref(), &driver.act_space().clone(), driver.count(), config.seed, Mode::Eval);
    let (mut episodes, mut film) = (Episodes::new(driver.count()), Film::default());
    let mut clock = Clock::new(config.run.log_every, true, config.run.sync);
    let (started, mut usage, mut fps, mut step) = (Instant::now(), Usage::new(), Fps::new(), 0);
    while step < config.run.steps && !stop.asked() && !late(&config, started) {
        let transitions = driver.step(|obs| policy.act(agent.as_ref(), obs))?;
        film.add(&transitions)?;
        for (i, transition) in transitions.iter().enumerate() {
            step += 1;
            fps.step(1);
            if let Some(episode) = episodes.add(i, transition)? {
                logger.add(step, &episode, "episode");
            }
        }
        if clock.due(step) {
            logger.add(step, &episodes.stats(), "epstats");
            if !config.run.sync {
                logger.add(step, &usage.stats(), "usage");
                let mut speed = Metrics::new();
                insert_scalar(&mut speed, "policy", fps.result());
                logger.add(step, &speed, "fps");
            }
            logger.write(step)?;
        }
        logger.progress(step);
    }
    logger.add(step, &film.finish(), "epstats");
    let seconds = started.elapsed().as_secs_f64();
    let text = banner::end(folder.root(), step, 0, logger.mean_score(), episodes.ended, seconds);
    logger.close()?;
    println_above(&text);
    Ok(())
}

fn late(config: &Config, started: Instant) -> bool {
    config.run.duration > 0.0 && started.elapsed().as_secs_f64() >= config.run.duration
}

/// Where the metrics go.
fn root(config: &Config) -> PathBuf {
    let root = Path::new(&config.logdir);
    if own_folder(config) { root.join("eval") } else { root.to_path_buf() }
}

fn own_folder(config: &Config) -> bool {
    config.run.from_checkpoint.is_empty() && !config.random_agent
}

fn load(agent: &mut Agent, config: &Config) -> Result<()> {
    let run = &config.run;
    if !run.from_checkpoint.is_empty() {
        return setup::load_checkpoint(agent, &run.from_checkpoint, &run.from_checkpoint_regex);
    }
    let root = Path::new(&config.logdir);
    let there = Checkpoints::new(&root.join("ckpt")).load()?.0.is_some();
    ensure!(
        there,
        "{} holds no checkpoint to evaluate; name one with --run.from_checkpoint, or its run folder with --logdir",
        root.display()
    );
    agent.load(&read_agent(root)?, None).context("the checkpoint does not fit the agent of this configuration")
}
