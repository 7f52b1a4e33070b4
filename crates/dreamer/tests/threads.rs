//! The same numbers on any number of threads, in a process of its own: what other tests do would be measured, too.

mod common;

use common::{batch, everything, tiny};
use dreamer_agent::{Agent, AgentConfig, Metrics};
use engine::profile;
use spaces::Record;

/// Wide and long enough that recurrence, imagination, heads and decoder are several chunks, each worth a thread.
fn wide() -> AgentConfig {
    let mut c = tiny();
    (c.batch_size, c.batch_length) = (20, 16);
    let r = &mut c.dynamics.rssm;
    (r.deter, r.hidden) = (64, 32);
    (c.enc.simple.units, c.dec.simple.units) = (64, 64);
    for head in [&mut c.rewhead, &mut c.conhead, &mut c.policy, &mut c.value] {
        head.units = 64;
    }
    c
}

/// Metrics of the last of a few updates on so many threads, the state after it, and whether any work was shared.
fn train(c: &AgentConfig, threads: usize) -> (Metrics, Record, bool) {
    let (obs, act) = everything();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let updates = || {
        let mut agent = Agent::new(&obs, &act, c).unwrap();
        let batch = batch(&agent, &obs, &act);
        let mut carry = agent.initial(c.batch_size);
        (0..2).for_each(|_| drop(agent.train(&mut carry, &batch).unwrap()));
        (agent.train(&mut carry, &batch).unwrap().metrics, agent.save())
    };
    let ((metrics, state), costs) = profile::measure(|| pool.install(updates));
    // Nobody waits but for work that was handed to the pool.
    (metrics, state, costs.contains_key(profile::WAITING))
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
    let (metrics, state, shared) = train(&wide(), 1);
    assert!(shared && !train(&tiny(), 3).2, "only what is large is shared");
    for threads in [3, 4] {
        let (others, other, shared) = train(&wide(), threads);
        assert!(shared && others == metrics, "{threads} threads");
        for (name, x) in &state {
            assert!(other[name] == *x, "{name} on {threads} threads");
        }
    }
    assert!(state != train(&AgentConfig { seed: 1, ..wide() }, 3).1, "another seed gives other numbers");
}
