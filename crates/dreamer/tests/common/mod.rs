//! A tiny agent with every kind of key, and batches for it.

use dreamer_agent::{Agent, AgentConfig};
use spaces::{Array, Data, Record, Space, Spaces};

/// A tiny agent's configuration.
#[allow(dead_code)] // not every test binary needs all of these
pub fn tiny() -> AgentConfig {
    let mut c = AgentConfig::default();
    let r = &mut c.dynamics.rssm;
    (r.deter, r.hidden, r.stoch, r.classes, r.blocks) = (16, 8, 4, 3, 4);
    (c.enc.simple.depth, c.enc.simple.units, c.enc.simple.layers) = (2, 8, 1);
    (c.dec.simple.depth, c.dec.simple.units, c.dec.simple.layers, c.dec.simple.bspace) = (2, 8, 1, 4);
    for head in [&mut c.rewhead, &mut c.conhead, &mut c.policy, &mut c.value] {
        (head.units, head.layers, head.bins) = (8, 1, 15);
    }
    c.policy.layers = 2; // of which a GPU can do the second one apart from the first
    (c.batch_size, c.batch_length, c.imag_length) = (3, 4, 3);
    c.enc.simple.mults = vec![2, 4];
    c.dec.simple.mults = vec![2, 4];
    (c.opt.warmup, c.opt.lr) = (0, 1e-3);
    c
}

pub fn spaces(keys: &[(&str, Space)]) -> Spaces {
    keys.iter().map(|(k, s)| (k.to_string(), s.clone())).collect()
}

#[allow(dead_code)] // not every test binary needs all of these
pub fn obs_space(keys: &[(&str, Space)]) -> Spaces {
    let mut all = spaces(keys);
    all.insert("reward".into(), Space::float(&[]));
    for flag in ["is_first", "is_last", "is_terminal"] {
        all.insert(flag.into(), Space::boolean());
    }
    all.insert("log/score".into(), Space::float(&[]));
    all
}

#[allow(dead_code)] // not every test binary needs all of these
pub fn everything() -> (Spaces, Spaces) {
    let obs = obs_space(&[
        ("camera", Space::image(12, 20, 3)),
        ("depth", Space::image(12, 20, 1)),
        ("joints", Space::float(&[2, 3])),
        ("level", Space::float(&[])),
        ("tools", Space::discrete(&[3], 5)),
        ("door", Space::boolean()),
    ]);
    let act = spaces(&[
        ("arm", Space::bounded(&[2], -1.0, 1.0)),
        ("buttons", Space::discrete(&[2], 3)),
        ("jump", Space::boolean()),
        ("reset", Space::boolean()),
    ]);
    (obs, act)
}

/// Some values of a space, by counting.
#[allow(dead_code)] // not every test binary needs all of these
pub fn fill(space: &Space, lead: &[usize], salt: usize) -> Array {
    let mut array = Array::zeros(space.dtype, &[lead, &space.shape].concat());
    let classes = if space.is_discrete() { space.classes() } else { 1 };
    let at = |i: usize| (i * 7919 + salt * 104_729) >> 3;
    match &mut array.data {
        Data::Bool(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = at(i) % 5 == 0),
        Data::U8(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = (at(i) % classes) as u8),
        Data::I32(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = (at(i) % classes) as i32),
        Data::F32(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = (at(i) as f32).sin()),
        Data::F16(xs) => xs.iter_mut().enumerate().for_each(|(i, x)| *x = spaces::f16::from_f32((at(i) as f32).sin())),
    }
    array
}

pub fn batch(agent: &Agent, obs: &Spaces, act: &Spaces) -> Record {
    let c = agent.config();
    let lead = [c.batch_size, c.batch_length + c.replay_context];
    let keys = obs.iter().chain(act).filter(|(k, _)| !k.starts_with("log/") && *k != "reset");
    let mut batch: Record = keys.enumerate().map(|(i, (k, s))| (k.clone(), fill(s, &lead, i))).collect();
    batch.extend(agent.replay_space().iter().map(|(k, s)| (k.clone(), fill(s, &lead, 77))));
    batch.insert("consec".into(), Array::from_i32(&lead, vec![0; lead[0] * lead[1]]));
    batch.insert("stepid".into(), Array::from_u8(&[lead[0], lead[1], 20], vec![7; lead[0] * lead[1] * 20]));
    batch
}
