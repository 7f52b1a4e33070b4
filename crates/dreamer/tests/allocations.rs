//! A GPU's memory is asked for by the first updates, and by none after them. In a process of its own, as memory is shared.

mod common;

use common::{batch, everything, tiny};
use dreamer_agent::{Agent, Mode};
use engine::Device;
use engine::cuda::{Precision, test_gpu_in};

#[test]
fn nothing_is_asked_of_the_driver_after_the_first_updates() {
    let Some(gpu) = test_gpu_in(Precision::Bfloat16) else { return };
    let (obs, act) = everything();
    let mut agent = Agent::new(&obs, &act, &tiny()).unwrap().to(Device::Gpu(gpu));
    let batch = batch(&agent, &obs, &act);
    let step = spaces::row(&batch, 0);
    let (mut carry, mut acting) = (agent.initial(tiny().batch_size), agent.initial(step["is_first"].len()));
    let mut asked = Vec::new();
    for _ in 0..10 {
        agent.snapshot().act(&mut acting, &step, Mode::Train).unwrap();
        agent.train(&mut carry, &batch).unwrap();
        asked.push(gpu.allocations());
    }
    assert!(asked[0] > 0 && asked[4..].iter().all(|&n| n == asked[4]), "{asked:?}");
}
