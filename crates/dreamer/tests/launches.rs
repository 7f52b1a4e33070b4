//! How many kernels a GPU is asked to run for one update: below large sizes that is what an update costs.

mod common;

use common::{batch, obs_space, spaces};
use dreamer_agent::{Agent, AgentConfig};
use engine::Device;
use spaces::Space;

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

/// Launches of the second update, by kernel.
fn launches(camera: bool) -> Option<Vec<(String, u64)>> {
    let gpu = engine::cuda::test_gpu()?;
    let image = Space::image(64, 64, 3);
    let vector = Space::float(&[24]);
    let obs = obs_space(&[if camera { ("image", image) } else { ("vector", vector) }]);
    let act = spaces(&[("action", Space::bounded(&[6], -1.0, 1.0)), ("reset", Space::boolean())]);
    let mut c = narrow();
    if camera {
        c.batch_length = 8; // images are slow where the GPU is emulated
    }
    let mut agent = Agent::new(&obs, &act, &c).unwrap().to(Device::Gpu(gpu));
    let data = batch(&agent, &obs, &act);
    let mut carry = agent.initial(c.batch_size);
    agent.train(&mut carry, &data).unwrap();
    gpu.launches();
    agent.train(&mut carry, &data).unwrap();
    Some(gpu.launches())
}

/// Prints the launches (`--nocapture` shows them), and holds them to what they were when this was written.
#[test]
fn launches_of_an_update() {
    for (name, camera, limit) in [("vector, 64 steps", false, 5400), ("image, 8 steps", true, 1400)] {
        let Some(launches) = launches(camera) else { return };
        let total: u64 = launches.iter().map(|(_, n)| n).sum();
        println!("{name}: {total} launches");
        launches.iter().for_each(|(kernel, n)| println!("  {n:5} {kernel}"));
        assert!(total <= limit, "{name}: {total} launches, more than {limit}");
    }
}
