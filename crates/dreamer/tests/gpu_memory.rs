//! How much of a GPU's memory an agent takes. On an emulated GPU updates are recorded and not done, which takes the same.

mod common;

use common::{batch, obs_space, spaces};
use dreamer_agent::{Agent, AgentConfig, Mode};
use engine::Device;
use engine::cuda::{Precision, test_gpu_in};
use spaces::{Record, Space};
use std::sync::Mutex;

/// The official batch for a model of these widths.
fn sized(deter: usize, classes: usize, depth: usize, units: usize) -> AgentConfig {
    let mut c = AgentConfig::default();
    let r = &mut c.dynamics.rssm;
    (r.deter, r.hidden, r.classes) = (deter, units, classes);
    (c.enc.simple.depth, c.enc.simple.units) = (depth, units);
    (c.dec.simple.depth, c.dec.simple.units) = (depth, units);
    for head in [&mut c.rewhead, &mut c.conhead, &mut c.policy, &mut c.value] {
        head.units = units;
    }
    (c.batch_size, c.batch_length) = (16, 64);
    c
}

/// Bytes that an agent with `image` takes at most that acts, learns and acts again; and those of its parameters, their
/// moments and its slow value.
fn taken(config: &AgentConfig, image: Space) -> Option<(usize, usize)> {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock(); // memory is counted for all of the GPU
    let gpu = test_gpu_in(Precision::Bfloat16)?;
    let obs = obs_space(&[("image", image)]);
    let act = spaces(&[("action", Space::discrete(&[], 6)), ("reset", Space::boolean())]);
    {
        // What is recorded has to have been used before.
        let mut small = sized(16, 4, 2, 8);
        (small.batch_size, small.batch_length) = (1, 2);
        let mut agent = Agent::new(&obs, &act, &small).unwrap().to(Device::Gpu(gpu));
        let (mut carry, data) = (agent.initial(1), batch(&agent, &obs, &act));
        (0..2).for_each(|_| drop(agent.train(&mut carry, &data).unwrap()));
    }
    gpu.release_pool();
    gpu.most_memory();
    let agent = Agent::new(&obs, &act, config).unwrap();
    let data = batch(&agent, &obs, &act);
    let step: Record = data.iter().map(|(key, array)| (key.clone(), array.at(0).rows(0..1))).collect();
    let mut agent = agent.to(Device::Gpu(gpu));
    let kept = gpu.most_memory();
    for learns in [false, true] {
        if learns {
            let mut carry = agent.initial(config.batch_size);
            match gpu.is_emulated() {
                true => agent.rehearse(&mut carry, &data).unwrap(),
                false => (0..4).for_each(|_| drop(agent.train(&mut carry, &data).unwrap())),
            }
        }
        let snapshot = agent.snapshot();
        let mut carry = agent.initial(1);
        (0..2).for_each(|_| drop(snapshot.act(&mut carry, &step, Mode::Train).unwrap()));
    }
    Some((gpu.most_memory(), kept))
}

#[test]
fn memory_of_size12m() {
    let Some((most, kept)) = taken(&sized(2048, 16, 16, 256), Space::image(64, 64, 3)) else { return };
    println!("size12m: {:.2} GB, of which parameters and moments {:.2}", most as f64 / 1e9, kept as f64 / 1e9);
    assert!(most < 1_350_000_000, "{most} bytes");
}

/// Batches of such images have more tiles of pixels than the second axis of a grid takes.
#[test]
fn larger_images_are_learned_from() {
    for image in [Space::image(96, 96, 1), Space::image(128, 128, 3)] {
        let Some((most, kept)) = taken(&sized(16, 4, 2, 8), image) else { return };
        assert!(most > kept);
    }
}

/// Takes twelve gigabytes of the processor's memory, and a minute or two.
#[test]
#[ignore = "slow and large: cargo test --release -p dreamer-agent --test gpu_memory -- --ignored --nocapture"]
fn memory_of_size200m() {
    let Some((most, kept)) = taken(&sized(8192, 64, 64, 1024), Space::image(64, 64, 3)) else { return };
    println!("size200m: {:.2} GB, of which parameters and moments {:.2}", most as f64 / 1e9, kept as f64 / 1e9);
    assert!(most < 7_000_000_000, "{most} bytes");
}
