//! Speed and memory of an agent on random data: updates, acting, and what each part costs.

mod data;
mod environment;
mod gpu;
mod measure;

pub use environment::{Stepping, Unbridged, environments};
pub use gpu::OnGpu;
pub use measure::{PartCost, share};

use anyhow::{Result, ensure};
use config::Config;
use data::Data;
use dreamer_agent::{Agent, Mode};
use engine::Device;
use serde::Serialize;
use spaces::Spaces;
use std::collections::BTreeMap;
use std::time::Instant;

/// What an agent of one configuration sees and does while it is measured.
pub struct Case {
    /// What is seen, for the table: `image`, `vector` or the task.
    pub name: String,
    pub obs: Spaces,
    pub act: Spaces,
}

/// The figures of one case. Times in milliseconds, operations in 10^9; a multiply-add is two.
#[derive(Serialize)]
pub struct Measurement {
    pub size: String,
    pub obs: String,
    pub batch_size: usize,
    pub batch_length: usize,
    pub threads: usize,
    /// The instruction set in use.
    pub isa: String,
    /// Median and minimum over the updates.
    pub update_ms: f64,
    pub update_ms_min: f64,
    /// Best rate of multiply-adds in registers, on the same threads just before or after.
    pub peak_gflops: f64,
    /// Operations of products and convolutions in one update: as executed, and as the official code formulates them. They
    /// and the costs of parts are not counted where several GPUs work together.
    pub gflop: f64,
    pub gflop_official: f64,
    /// `gflop / update_ms_min` as a share of `peak_gflops`; of a GPU, whose updates overlap, by the median.
    pub share_of_peak: f64,
    /// Median over the calls of one acting step for 1 and for 16 environments.
    pub act1_ms: f64,
    pub act16_ms: f64,
    /// Largest resident memory, 10^6 bytes; 0 where the system does not tell.
    pub rss_mb: f64,
    pub parts: BTreeMap<String, PartCost>,
    /// On a GPU only. Then `peak_gflops` and the times of `parts` are the GPU's.
    pub gpu: Option<OnGpu>,
}

/// Acting is repeated for this long, in seconds.
const ACTING: f64 = 0.5;
/// Uncounted updates run on a GPU for this long first, in seconds, until its clock is at full speed.
const WARM: f64 = 0.5;

/// Observations and actions that need no environment: `image` is 64x64x3 with 6 discrete actions, `vector` 24 floats
/// with 6 continuous ones.
pub fn plain_case(name: &str) -> Option<Case> {
    let (obs, act) = data::plain_spaces(name)?;
    Some(Case { name: name.into(), obs, act })
}

/// The observations and actions of the configured task.
pub fn task_case(config: &Config) -> Result<Case> {
    let env = envs::make(&config.task, 0, config.seed, &config.env_options())?;
    Ok(Case { name: config.task.clone(), obs: env.obs_space().clone(), act: env.act_space().clone() })
}

/// Builds the agent of `config` for `case` and measures `updates` updates after two that are not counted.
pub fn bench(config: &Config, size: &str, case: &Case, updates: usize) -> Result<Measurement> {
    ensure!(updates > 0, "the number of updates is 0; it must be at least 1");
    let begin = Instant::now();
    crate::check(config)?;
    crate::use_threads(config);
    engine::release_pool();
    measure::forget_memory();
    gpu::forget_memory(config)?;
    let mut agent = crate::device::place(Agent::new(&case.obs, &case.act, &config.agent)?, config)?;
    let device = agent.device();
    let mut data = Data::new(&agent, case, config.seed);
    let batch = data.batch(config.batch_size, config.replay_context + config.batch_length);
    let mut carry = agent.initial(config.batch_size);

    let mut first_update_s = None;
    for _ in 0..2 {
        agent.train(&mut carry, &batch)?;
        first_update_s.get_or_insert(begin.elapsed().as_secs_f64());
    }
    let before = measure::peak();
    let mut times = match device {
        Device::Cpu => one_by_one(updates, || agent.train(&mut carry, &batch).map(drop))?,
        Device::Gpu(_) => {
            let begin = Instant::now();
            while begin.elapsed().as_secs_f64() < WARM {
                gpu::in_flow(1, &mut agent, &mut carry, &batch)?;
            }
            gpu::in_flow(updates, &mut agent, &mut carry, &batch)?
        }
    };
    let rss_mb = measure::largest_memory() / 1e6;
    let act1_ms = acting(&agent, &mut data, 1)?;
    let act16_ms = acting(&agent, &mut data, 16)?;
    let mut gpu = match device {
        Device::Cpu => None,
        Device::Gpu(gpu) => Some(OnGpu::new(gpu, first_update_s.unwrap_or_default())),
    };
    let mut parts = match &mut gpu {
        None => measure::parts(|| agent.train(&mut carry, &batch).map(drop))?,
        Some(gpu) => gpu.time(&mut agent, &mut carry, &batch)?,
    };
    let peak_gflops = gpu.as_ref().map_or_else(|| before.max(measure::peak()), |gpu| gpu.peak_tflops * 1e3);

    parts.values_mut().for_each(|part| part.rate(peak_gflops));
    if let Some(gpu) = &gpu {
        parts.values_mut().for_each(|part| part.rate_of_copy(gpu.copy_gbs));
    }
    let sum = |f: fn(&PartCost) -> f64| parts.values().map(f).sum::<f64>();
    let gflop = sum(|p| p.forward_gflop + p.backward_gflop);
    let (median, update_ms_min) = (measure::median(&mut times), times.iter().copied().fold(f64::INFINITY, f64::min));
    let rated_ms = if gpu.is_some() { median } else { update_ms_min };
    Ok(Measurement {
        size: size.into(),
        obs: case.name.clone(),
        batch_size: config.batch_size,
        batch_length: config.batch_length,
        threads: rayon::current_num_threads(),
        isa: engine::cpu::Isa::get().name().into(),
        update_ms: median,
        update_ms_min,
        peak_gflops,
        gflop,
        gflop_official: sum(|p| p.official_gflop),
        share_of_peak: share(gflop, rated_ms, peak_gflops),
        act1_ms,
        act16_ms,
        rss_mb,
        parts,
        gpu,
    })
}

/// Milliseconds of each of `count` updates.
fn one_by_one(count: usize, mut update: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let timed = |_| {
        let start = Instant::now();
        update()?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    (0..count).map(timed).collect()
}

/// Median time of a call of `act` for `count` environments, by a snapshot, as in training.
fn acting(agent: &Agent, data: &mut Data, count: usize) -> Result<f64> {
    let (agent, obs) = (agent.snapshot(), data.observation(count));
    let mut carry = agent.initial(count);
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed().as_secs_f64() < ACTING || times.len() < 3 {
        let start = Instant::now();
        agent.act(&mut carry, &obs, Mode::Train)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(measure::median(&mut times))
}
