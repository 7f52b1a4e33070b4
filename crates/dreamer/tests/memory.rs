//! Resident memory over many updates, in a process of its own.
#![cfg(target_os = "linux")]

mod common;

use common::{batch, everything, tiny};
use dreamer_agent::Agent;

/// Resident memory in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn memory_is_flat_after_the_first_updates() {
    let (obs, act) = everything();
    let mut agent = Agent::new(&obs, &act, &tiny()).unwrap();
    let batch = batch(&agent, &obs, &act);
    let mut carry = agent.initial(3);
    let mut run = |updates: usize| {
        (0..updates).for_each(|_| drop(agent.train(&mut carry, &batch).unwrap()));
        resident()
    };
    let before = run(100);
    let after = run(300);
    // One image activation kept by each update would be several times the margin.
    assert!(after < before + (4 << 20), "{before} bytes after 100 updates, {after} after 400");
}
