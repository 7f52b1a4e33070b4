//! How many kernels a GPU is asked to run for one update and to act once: below large sizes that is what it costs.

mod common;

use common::{batch, obs_space, spaces};
use dreamer_agent::{Agent, AgentConfig, Mode};
use engine::Device;
use engine::cuda::Gpu;
use spaces::{Record, Space};

/// The layers of every size, but narrow, as their number is what counts here.
fn narrow() -> AgentConfig {
    let mut c = AgentConfig::default();
    let r = &mut c.dynamics.rssm;
    (r.deter, r.hidden, r.stoch, r.classes) = (16, 8, 4, 4);
    (c.enc.simple.depth, c.enc.simple.units) = (2, 8);
    (c.dec.simple.depth, c.dec.simple.units) = (2, 8);
    for head in [&mut c.rewhead, &mut c.conhead, &mut c.policy, &mut c.value] {
        head.units = 8;
    }
    (c.batch_size, c.batch_length) = (1, 64);
    c
}

/// An agent that sees an image or a vector, and a batch for it.
fn agent(camera: bool) -> Option<(&'static Gpu, Agent, Record)> {
    let gpu = engine::cuda::test_gpu()?;
    let image = Space::image(64, 64, 3);
    let vector = Space::float(&[24]);
    let obs = obs_space(&[if camera { ("image", image) } else { ("vector", vector) }]);
    let act = spaces(&[("action", Space::bounded(&[6], -1.0, 1.0)), ("reset", Space::boolean())]);
    let mut c = narrow();
    if camera {
        c.batch_length = 8; // images are slow where the GPU is emulated
    }
    let agent = Agent::new(&obs, &act, &c).unwrap().to(Device::Gpu(gpu));
    let data = batch(&agent, &obs, &act);
    Some((gpu, agent, data))
}

/// Launches of the second update, by kernel.
fn of_an_update(camera: bool) -> Option<Vec<(String, u64)>> {
    let (gpu, mut agent, data) = agent(camera)?;
    let mut carry = agent.initial(1);
    agent.train(&mut carry, &data).unwrap();
    gpu.launches();
    agent.train(&mut carry, &data).unwrap();
    Some(gpu.launches())
}

/// Launches of acting with fresh parameters, as after an update, by kernel.
fn of_acting(camera: bool) -> Option<Vec<(String, u64)>> {
    let (gpu, agent, data) = agent(camera)?;
    let step: Record = data.iter().map(|(key, array)| (key.clone(), array.at(0).rows(0..1))).collect();
    let agent = agent.snapshot();
    gpu.launches();
    agent.act(&mut agent.initial(1), &step, Mode::Train).unwrap();
    Some(gpu.launches())
}

/// Prints the launches (`--nocapture` shows them), and holds them to a tenth more than when this was written.
#[test]
fn launches_of_an_update_and_of_acting() {
    let cases = [
        ("update, vector, 64 steps", of_an_update(false), 1195),
        ("update, image, 8 steps", of_an_update(true), 558),
        ("acting, vector", of_acting(false), 28),
        ("acting, image", of_acting(true), 40),
    ];
    for (name, launches, limit) in cases {
        let Some(launches) = launches else { return };
        let total: u64 = launches.iter().map(|(_, n)| n).sum();
        println!("{name}: {total} launches");
        launches.iter().for_each(|(kernel, n)| println!("  {n:5} {kernel}"));
        assert!(total <= limit, "{name}: {total} launches, more than {limit}");
    }
}
