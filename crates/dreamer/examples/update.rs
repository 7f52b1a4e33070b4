//! Times gradient updates on random data: `cargo run --release -p dreamer-agent --example update -- image|vector [updates]`.

use dreamer_agent::{Agent, AgentConfig};
use spaces::{Array, Record, Space, Spaces};
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let image = args.next().is_none_or(|a| a == "image");
    let updates: usize = args.next().and_then(|a| a.parse().ok()).unwrap_or(5);
    let mut c = AgentConfig::default();
    (c.dynamics.rssm.deter, c.dynamics.rssm.hidden, c.dynamics.rssm.classes) = (512, 64, 4);
    (c.enc.simple.depth, c.dec.simple.depth) = (4, 4);
    (c.enc.simple.units, c.dec.simple.units) = (64, 64);
    for head in [&mut c.rewhead, &mut c.conhead, &mut c.policy, &mut c.value] {
        head.units = 64;
    }
    let mut obs = Spaces::new();
    let mut act = Spaces::new();
    if image {
        obs.insert("image".into(), Space::image(64, 64, 3));
        act.insert("action".into(), Space::discrete(&[], 6));
    } else {
        obs.insert("vector".into(), Space::float(&[24]));
        act.insert("action".into(), Space::bounded(&[6], -1.0, 1.0));
    }
    obs.insert("reward".into(), Space::float(&[]));
    for flag in ["is_first", "is_last", "is_terminal"] {
        obs.insert(flag.into(), Space::boolean());
    }
    let mut agent = Agent::new(&obs, &act, &c)?;
    let lead = [c.batch_size, c.batch_length + 1];
    let n = lead[0] * lead[1];
    let mut batch = Record::new();
    for (key, space) in obs.iter().chain(&act).chain(&agent.replay_space()) {
        let shape = [&lead[..], &space.shape].concat();
        let mut array = Array::zeros(space.dtype, &shape);
        match &mut array.data {
            spaces::Data::U8(xs) if space.is_image() => {
                xs.iter_mut().enumerate().for_each(|(i, x)| *x = (i as u32).wrapping_mul(2654435761).to_le_bytes()[3])
            }
            spaces::Data::F32(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 * 0.37).sin()),
            _ => {}
        }
        batch.insert(key.clone(), array);
    }
    batch.insert("consec".into(), Array::from_i32(&lead, vec![0; n]));
    batch.insert("stepid".into(), Array::from_u8(&[lead[0], lead[1], 20], vec![0; n * 20]));
    let mut carry = agent.initial(c.batch_size);
    for i in 0..updates {
        let start = Instant::now();
        let out = agent.train(&mut carry, &batch)?;
        println!("update {i}: {:.1} ms, loss {}", start.elapsed().as_secs_f64() * 1e3, out.metrics["opt/loss"]);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or(""));
    Ok(())
}
