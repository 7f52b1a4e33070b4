//! Speed of the environments of a task, as a run steps them and without the bridge.

use crate::setup;
use anyhow::{Result, ensure};
use config::Config;
use dreamer_agent::Acted;
use envs::{Rng, random_action};
use serde::Serialize;
use spaces::{Array, Record};
use std::time::{Duration, Instant};

/// The figures of one task under random actions. Rates are the best of some rounds.
#[derive(Serialize)]
pub struct Stepping {
    pub task: String,
    /// Environments that step together, and processors that they share.
    pub envs: usize,
    pub processors: usize,
    /// Steps a second of all environments.
    pub steps_per_second: f64,
    /// The same of as many processes as processors, each of which steps one environment by itself, or one vector of
    /// them; none where environments run in this process, or in a worker that cannot be asked.
    pub alone_per_second: Option<f64>,
    /// The same of as many processes as environments, which share caches as the environments of a run do.
    pub each_alone_per_second: Option<f64>,
    /// What a step costs beyond the environment's own time, in microseconds of a processor.
    pub overhead_us: Option<f64>,
}

/// Rounds, in which environments with and without the bridge take turns, and how long each lasts.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(2);

/// Actions are drawn before time is taken, and repeat after this many.
const ACTIONS: usize = 64;

/// Steps the environments of `config` for some seconds.
pub fn environments(config: &Config) -> Result<Stepping> {
    let mut driver = setup::driver(config, false, 0)?;
    let envs = driver.count();
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get()).min(envs);
    let options = config.env_options();
    let start_alone = |count: usize| envs::Alone::start(&config.task, count, envs, config.seed, &options);
    let mut alone = start_alone(processors)?;
    let mut rng = Rng::new(config.seed, 0);
    let batches: Vec<Record> = (0..ACTIONS)
        .map(|_| {
            let rows: Vec<Record> = (0..envs).map(|_| random_action(driver.act_space(), &mut rng)).collect();
            let keys = driver.act_space().keys().filter(|key| *key != "reset");
            keys.map(|key| (key.clone(), Array::stack(rows.iter().map(|row| &row[key])))).collect()
        })
        .collect();
    let mut step =
        |i: usize| driver.step(|_| Ok(Acted { action: batches[i % ACTIONS].clone(), replay: Record::new() })).map(drop);
    step(0)?;
    let (mut together, mut apart) = (0f64, None);
    for _ in 0..ROUNDS {
        let (start, mut steps) = (Instant::now(), 0);
        while start.elapsed() < ROUND {
            step(steps)?;
            steps += 1;
        }
        together = together.max((steps * envs) as f64 / start.elapsed().as_secs_f64());
        if let Some(alone) = &mut alone {
            apart = Some(alone.rate(ROUND)?.max(apart.unwrap_or(0.0)));
        }
    }
    // Vectors are whole processes already.
    let vector = options[envs::suite(&config.task)]["vector"] == true;
    let mut crowd = if alone.is_some() && envs > processors && !vector { start_alone(envs)? } else { None };
    let mut each = None;
    for _ in 0..ROUNDS / 2 {
        if let Some(crowd) = &mut crowd {
            each = Some(crowd.rate(ROUND)?.max(each.unwrap_or(0.0)));
        }
    }
    ensure!(together > 0.0, "no step was done in {} seconds", ROUND.as_secs());
    Ok(Stepping {
        task: config.task.clone(),
        envs,
        processors,
        steps_per_second: together,
        alone_per_second: apart,
        each_alone_per_second: each,
        overhead_us: apart.map(|apart| 1e6 * processors as f64 * (1.0 / together - 1.0 / apart)),
    })
}
