//! `trial`: whether a GPU computes what the processor does, by a small agent that trains and acts on both.

use crate::{Acted, Agent, AgentConfig, Metrics, Mode};
use anyhow::{Result, ensure};
use engine::Device;
use engine::cuda::{Gpu, Precision};
use spaces::{Array, Data, Record, STEPID, Space, Spaces, f16};

/// Updates, and steps of acting. A GPU computes the first eagerly, records the second and replays it as the third.
const UPDATES: usize = 3;

/// Trains and acts on `gpu` and on the processor, for about a second. An Err says what differs by more than rounding can
/// explain.
pub fn trial(gpu: &'static Gpu) -> Result<()> {
    let config = small();
    compare(gpu, &config, &config)
}

/// Small, but with everything that larger agents have: images and vectors, discrete and continuous actions, every loss.
/// Widths are multiples of eight, as the kernels of large models need.
fn small() -> AgentConfig {
    let mut c = AgentConfig::default();
    let r = &mut c.dynamics.rssm;
    (r.deter, r.hidden, r.stoch, r.classes, r.blocks) = (64, 32, 8, 8, 4);
    (c.enc.simple.depth, c.enc.simple.units, c.enc.simple.mults) = (8, 32, vec![2, 3]);
    (c.dec.simple.depth, c.dec.simple.units, c.dec.simple.mults) = (8, 32, vec![2, 3]);
    (c.dec.simple.bspace, c.imag_length) = (4, 4);
    for head in [&mut c.rewhead, &mut c.conhead, &mut c.policy, &mut c.value] {
        head.units = 32;
    }
    (c.batch_size, c.batch_length) = (4, 8);
    (c.opt.warmup, c.opt.lr) = (0, 1e-3);
    c
}

fn compare(gpu: &'static Gpu, theirs: &AgentConfig, ours: &AgentConfig) -> Result<()> {
    let named = |keys: &[(&str, Space)]| -> Spaces { keys.iter().map(|(k, s)| (k.to_string(), s.clone())).collect() };
    let flags = ["is_first", "is_last", "is_terminal"].map(|flag| (flag, Space::boolean()));
    let seen = [("image", Space::image(16, 16, 3)), ("vector", Space::float(&[5])), ("reward", Space::float(&[]))];
    let obs = named(&[&seen[..], &flags].concat());
    let act = named(&[("choice", Space::discrete(&[], 4)), ("motion", Space::bounded(&[2], -1.0, 1.0))]);

    let mut processor = Agent::new(&obs, &act, ours)?;
    let mut other = Agent::new(&obs, &act, theirs)?.to(Device::Gpu(gpu));
    let (mut carry, mut carry_there) = (processor.initial(ours.batch_size), other.initial(ours.batch_size));
    let mut state = processor.initial(ours.batch_length);
    for update in 1..=UPDATES {
        let batch = batch(&processor, &[&obs, &act], update);
        let here = processor.train(&mut carry, &batch)?.metrics;
        let there = other.train(&mut carry_there, &batch)?.metrics;
        agree(update, &here, &there, gpu.precision())?;
        // By a snapshot, which records steps as updates are recorded. The environments are the steps of one sequence.
        let step = batch.iter().map(|(key, x)| (key.clone(), x.at(0).rows(0..ours.batch_length))).collect();
        let mut state_there = state.clone();
        let here = processor.act(&mut state, &step, Mode::Train)?;
        let there = other.snapshot().act(&mut state_there, &step, Mode::Train)?;
        agree_on_acting(update, &here, &there)?;
    }
    Ok(())
}

/// Compares the results of acting from one state. Latents and actions are sampled: most must be equal, not all.
fn agree_on_acting(update: usize, here: &Acted, there: &Acted) -> Result<()> {
    let (x, y) = (here.replay["dyn/deter"].to_f32(), there.replay["dyn/deter"].to_f32());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let difference = norm(&mut x.iter().zip(&y).map(|(x, y)| x - y)) / norm(&mut x.iter().copied());
    ensure!(difference <= 0.05, "acting after update {update} leaves a state that differs by {difference}");
    let same = |x: &Array, y: &Array| {
        let (x, y) = (x.to_f32(), y.to_f32());
        let close = x.iter().zip(&y).filter(|(x, y)| (*x - *y).abs() < 0.05).count();
        close as f32 / x.len().max(1) as f32
    };
    let drawn = [
        ("latents", same(&here.replay["dyn/stoch"], &there.replay["dyn/stoch"])),
        ("choices", same(&here.action["choice"], &there.action["choice"])),
        ("motions", same(&here.action["motion"], &there.action["motion"])),
    ];
    for (name, share) in drawn {
        ensure!(share >= 0.8, "of the {name} drawn after update {update} only {:.0} % are the same", 100.0 * share);
    }
    Ok(())
}

/// Compares losses and the norms of gradients and parameters. Latents are sampled, and between two about equally likely
/// ones rounding decides, which moves the means of a small batch more than rounding alone would.
fn agree(update: usize, here: &Metrics, there: &Metrics, precision: Precision) -> Result<()> {
    let most = match precision {
        Precision::Float32 => 0.02,
        Precision::Bfloat16 => 0.1,
    };
    let compared = |name: &str| name.starts_with("loss/") || ["opt/grad_norm", "opt/param_rms"].contains(&name);
    for (name, &x) in here.iter().filter(|(name, _)| compared(name)) {
        let y = there.get(name).copied().unwrap_or(f32::NAN);
        let difference = (x - y).abs() / x.abs().max(0.1);
        ensure!(
            difference <= most,
            "'{name}' of update {update} is {y} there and {x} on the processor, which rounding does not explain"
        );
    }
    Ok(())
}

/// A batch of arbitrary values, which depend on `salt`.
fn batch(agent: &Agent, spaces: &[&Spaces], salt: usize) -> Record {
    let c = agent.config();
    let lead = [c.batch_size, c.batch_length + c.replay_context];
    let (stored, ids) = (agent.replay_space(), vec![salt as u8; lead[0] * lead[1] * STEPID]);
    let keys = spaces.iter().copied().chain([&stored]).flatten();
    let mut batch: Record =
        keys.enumerate().map(|(i, (key, space))| (key.clone(), some(space, &lead, 100 * salt + i))).collect();
    batch.insert("stepid".into(), Array::from_u8(&[lead[0], lead[1], STEPID], ids));
    batch
}

/// Values of a space: waves of many lengths.
fn some(space: &Space, lead: &[usize], salt: usize) -> Array {
    let mut array = Array::zeros(space.dtype, &[lead, &space.shape].concat());
    let classes = if space.is_discrete() { space.classes() } else { 256 };
    let wave = |i: usize| ((i * (salt % 13 + 7)) as f32 * 0.37 + salt as f32).sin();
    let class = |i: usize| ((0.5 + 0.499 * wave(i)) * classes as f32) as usize;
    match &mut array.data {
        Data::Bool(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = wave(i) > 0.95),
        Data::U8(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = class(i) as u8),
        Data::I32(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = class(i) as i32),
        Data::F32(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = wave(i)),
        Data::F16(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = f16::from_f32(wave(i))),
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::cuda::test_gpu_in;

    #[test]
    fn a_gpu_passes_unless_it_computes_something_else() {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let Some(gpu) = test_gpu_in(precision) else { return };
            trial(gpu).unwrap();
            let mut other = small();
            other.opt.lr = 3e-3; // as if the optimizer were wrong
            let error = compare(gpu, &other, &small()).unwrap_err().to_string();
            assert!(error.contains("update 1") || error.contains("update 2"), "{error}");
        }
    }
}
