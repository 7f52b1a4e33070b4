//! Speed of the environments of a task, as a run steps them and without the bridge.

use super::measure::median;
use crate::setup;
use anyhow::Result;
use config::Config;
use dreamer_agent::Acted;
use envs::{Rng, random_action};
use serde::Serialize;
use spaces::Record;
use std::time::{Duration, Instant};

/// The figures of one task under random actions: medians of some rounds.
#[derive(Serialize)]
pub struct Stepping {
    pub task: String,
    /// Environments that step together, and processors that they share.
    pub envs: usize,
    pub processors: usize,
    /// Steps a second of all environments.
    pub steps_per_second: f64,
    /// The same without the bridge, one process per processor; none for environments in this process and `exec:`
    /// workers.
    pub alone: Option<Unbridged>,
    /// The same, one process per environment; these share caches as the environments of a run do.
    pub each_alone: Option<Unbridged>,
    /// What a step costs beyond the environment's own time, in microseconds of a processor.
    pub overhead_us: Option<f64>,
}

/// Processes without the bridge, each of which steps one environment by itself, or one vector of them.
#[derive(Serialize)]
pub struct Unbridged {
    pub steps_per_second: f64,
    /// The bridged rate as a share of this, compared within each round, as the machine's speed may vary between rounds.
    pub share: f64,
}

/// Rounds, in which environments with and without the bridge take turns, and how long each lasts.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(700);

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
    let act_space = spaces::chosen(driver.act_space());
    let batches: Vec<Record> = (0..ACTIONS)
        .map(|_| {
            let rows: Vec<Record> = (0..envs).map(|_| random_action(&act_space, &mut rng)).collect();
            spaces::stack(&rows)
        })
        .collect();
    let mut step =
        |i: usize| driver.step(|_| Ok(Acted { action: batches[i % ACTIONS].clone(), replay: Record::new() })).map(drop);
    step(0)?;
    // A vector fills a process already.
    let vector = options[envs::suite(&config.task)]["vector"] == true;
    let mut crowd = if alone.is_some() && envs > processors && !vector { start_alone(envs)? } else { None };
    let (mut together, mut apart, mut each) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let (start, mut steps) = (Instant::now(), 0);
        while start.elapsed() < ROUND {
            step(steps)?;
            steps += 1;
        }
        together.push((steps * envs) as f64 / start.elapsed().as_secs_f64());
        for (processes, rates) in [(&mut alone, &mut apart), (&mut crowd, &mut each)] {
            if let Some(processes) = processes {
                rates.push(processes.rate(ROUND)?);
            }
        }
    }
    let unbridged = |mut rates: Vec<f64>| {
        let mut shares: Vec<f64> = together.iter().zip(&rates).map(|(together, rate)| together / rate).collect();
        (!rates.is_empty()).then(|| Unbridged { share: median(&mut shares), steps_per_second: median(&mut rates) })
    };
    let overhead = |(with, without): (&f64, &f64)| 1e6 * processors as f64 * (1.0 / with - 1.0 / without);
    let mut overheads: Vec<f64> = together.iter().zip(&apart).map(overhead).collect();
    Ok(Stepping {
        task: config.task.clone(),
        envs,
        processors,
        overhead_us: (!apart.is_empty()).then(|| median(&mut overheads)),
        alone: unbridged(apart),
        each_alone: unbridged(each),
        steps_per_second: median(&mut together),
    })
}
