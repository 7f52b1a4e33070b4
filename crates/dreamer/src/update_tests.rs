//! Recorded updates against those that are computed as they come.

use crate::common::{batch, everything, obs_space, spaces, tiny};
use crate::{Agent, AgentConfig, Carry, Trained};
use engine::Device;
use engine::cuda::{Between, Precision, test_gpu_in};
use spaces::{Data, Record, Space};

/// An agent on the test's GPU with a batch for it; none where there is no GPU.
fn on_gpu(config: &AgentConfig) -> Option<(Agent, Carry, Record)> {
    on_gpu_in(Precision::Float32, config)
}

fn on_gpu_in(precision: Precision, config: &AgentConfig) -> Option<(Agent, Carry, Record)> {
    let gpu = test_gpu_in(precision)?;
    let (obs, act) = everything();
    let agent = Agent::new(&obs, &act, config).unwrap();
    let batch = batch(&agent, &obs, &act);
    let agent = agent.to(Device::Gpu(gpu));
    let carry = agent.initial(config.batch_size);
    Some((agent, carry, batch))
}

/// An update that is computed as it comes.
fn train_unrecorded(agent: &mut Agent, carry: &mut Carry, batch: &Record) -> Trained {
    agent.on_gpu.repeat = Default::default();
    agent.train(carry, batch).unwrap()
}

/// What an agent does at the first step of each sequence.
fn act_once(agent: &Agent, batch: &Record) -> Record {
    let step = spaces::row(batch, 0);
    let mut carry = agent.initial(step["is_first"].len());
    agent.act(&mut carry, &step, crate::Mode::Train).unwrap().action
}

#[test]
fn a_recorded_update_is_the_same_to_the_last_bit() {
    for (precision, every) in [(Precision::Float32, 1), (Precision::Bfloat16, 1), (Precision::Bfloat16, 2)] {
        let mut config = tiny();
        config.slowvalue.every = every;
        repeats(precision, &config);
    }
}

fn repeats(precision: Precision, config: &AgentConfig) {
    let Some((mut agent, mut carry, batch)) = on_gpu_in(precision, config) else { return };
    let (mut plain, mut plain_carry) = (agent.clone(), carry.clone());
    let mut places = Vec::new();
    for step in 0..6 {
        let _acting = agent.snapshot(); // which shares nothing that the update changes
        let got = agent.train(&mut carry, &batch).unwrap();
        let expected = train_unrecorded(&mut plain, &mut plain_carry, &batch);
        assert_eq!(got.metrics, expected.metrics, "step {step}");
        assert_eq!(got.replay, expected.replay, "step {step}");
        places.push(agent.settle());
    }
    assert_eq!(agent.save(), plain.save());
    assert!(places.iter().all(|place| *place == places[0]), "an update moved parameters elsewhere");
    assert!(agent.on_gpu.repeat.is_recorded() && agent.on_gpu.repeat.launches().is_none_or(|count| count > 100));
}

#[test]
fn clones_and_snapshots_keep_what_they_had() {
    let Some((mut agent, mut carry, batch)) = on_gpu(&tiny()) else { return };
    (0..3).for_each(|_| drop(agent.train(&mut carry, &batch).unwrap()));
    let (clone, snapshot, before) = (agent.clone(), agent.snapshot(), agent.save());
    let acted = act_once(&snapshot, &batch);
    (0..2).for_each(|_| drop(agent.train(&mut carry, &batch).unwrap()));
    assert_eq!(clone.save(), before);
    assert_eq!(act_once(&snapshot, &batch), acted);
    assert_ne!(agent.save(), before);
    // What is loaded counts in the next update, recorded or not.
    agent.load(&before, None).unwrap();
    let mut plain = clone.clone();
    let trained = agent.train(&mut carry.clone(), &batch).unwrap();
    assert_eq!(trained.metrics, train_unrecorded(&mut plain, &mut carry, &batch).metrics);
}

#[test]
fn nothing_changes_where_a_number_is_not_finite() {
    let Some((mut agent, mut carry, good)) = on_gpu(&tiny()) else { return };
    for recorded in [false, true] {
        (0..2).for_each(|_| drop(agent.train(&mut carry, &good).unwrap()));
        if !recorded {
            agent.on_gpu.repeat = Default::default();
        }
        let (before, mut bad) = (agent.save(), good.clone());
        let Some(Data::F32(rewards)) = bad.get_mut("reward").map(|array| &mut array.data) else {
            unreachable!("rewards are floats")
        };
        rewards[3] = f32::NAN;
        let error = agent.train(&mut carry, &bad).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("the loss '") && error.contains("not finite"), "{error}");
        assert_eq!(agent.save(), before);
    }
}

#[test]
fn the_kernels_of_an_update_have_parts_and_times() {
    let Some((mut agent, mut carry, batch)) = on_gpu(&tiny()) else { return };
    let mut plain = agent.clone();
    train_unrecorded(&mut agent, &mut carry, &batch);
    let (times, costs) = agent.kernel_times(&mut carry, &batch, Between::Kernels).unwrap();
    let (parts, _) = agent.kernel_times(&mut carry, &batch, Between::Parts).unwrap();
    (0..3).for_each(|_| drop(train_unrecorded(&mut plain, &mut carry, &batch)));
    assert_eq!(agent.save(), plain.save(), "to be timed is to be done");
    for part in ["encoder", "scan", "decoder", "imagination", "heads", "optimizer"] {
        assert!(times.iter().any(|time| time.part == part && !time.backward), "no kernel of the part '{part}'");
        assert!(parts.iter().any(|time| time.part == part && !time.backward), "the part '{part}' was not timed");
    }
    assert!(times.iter().any(|time| time.part == "scan" && time.backward));
    assert!(times.iter().all(|time| time.seconds > 0.0));
    assert!(costs["encoder"].forward.flops > 0 && costs["heads"].backward.flops > 0, "{costs:?}");
}

#[test]
fn an_update_may_be_begun_before_the_results_of_the_last_one_are_fetched() {
    let Some((mut agent, mut carry, batch)) = on_gpu(&tiny()) else { return };
    let (mut plain, mut plain_carry) = (agent.clone(), carry.clone());
    let preparer = agent.preparer();
    let mut results = Vec::new();
    let mut before = None;
    for _ in 0..5 {
        let begun = agent.begin(&mut carry, &mut preparer.prepare(batch.clone()).unwrap()).unwrap();
        let acting = agent.snapshot(); // as good for that as the agent, which may be elsewhere
        results.extend(before.replace(begun).map(|begun| acting.finish(begun).unwrap()));
    }
    results.extend(before.map(|begun| agent.finish(begun).unwrap()));
    assert_eq!(results.len(), 5);
    for (step, got) in results.into_iter().enumerate() {
        let expected = plain.train(&mut plain_carry, &batch).unwrap();
        assert_eq!(got.metrics, expected.metrics, "step {step}");
        assert_eq!(got.replay, expected.replay, "step {step}");
    }
    assert_eq!(agent.save(), plain.save());
}

/// An agent on the test's GPU with two images, which are not declared in the order of their names, and a batch for it.
fn with_images(config: &AgentConfig) -> Option<(Agent, Record)> {
    let gpu = test_gpu_in(Precision::Float32)?;
    let obs = obs_space(&[("right", Space::image(12, 20, 3)), ("left", Space::image(12, 20, 1))]);
    let act = spaces(&[("turn", Space::discrete(&[], 3)), ("reset", Space::boolean())]);
    let agent = Agent::new(&obs, &act, config).unwrap();
    let batch = batch(&agent, &obs, &act);
    Some((agent.to(Device::Gpu(gpu)), batch))
}

/// The batch with the images and ids of other steps, out of twenty; in every third one, states are carried.
fn of_steps(batch: &Record, round: usize) -> Record {
    let mut batch = batch.clone();
    let step = |at: usize| (at * 3 + at * at + round * 7) % 20;
    for key in ["left", "right", "stepid"] {
        let array = batch.get_mut(key).unwrap();
        let width = array.shape[2..].iter().product();
        let Data::U8(bytes) = &mut array.data else { panic!("{key} holds bytes") };
        for (at, bytes) in bytes.chunks_exact_mut(width).enumerate() {
            bytes.iter_mut().enumerate().for_each(|(i, x)| *x = (step(at) * (i % 11 + 1)) as u8);
        }
    }
    let Data::I32(consec) = &mut batch.get_mut("consec").unwrap().data else { panic!("consec holds numbers") };
    consec.fill((round % 3 == 2) as i32);
    batch
}

#[test]
fn images_that_stay_on_a_gpu_change_nothing() {
    let Some((agent, batch)) = with_images(&tiny()) else { return };
    let bytes = |steps: usize| 960 * steps + 100;
    for room in [5, 17, 100] {
        let (mut plain, mut kept) = (agent.clone(), agent.clone());
        assert_eq!(kept.keep_frames(bytes(room), 50), room.min(50));
        let (mut plain_carry, mut carry) = (plain.initial(3), plain.initial(3));
        for round in 0..6 {
            let batch = of_steps(&batch, round);
            let expected = plain.train(&mut plain_carry, &batch).unwrap();
            assert_eq!(kept.train(&mut carry, &batch).unwrap().metrics, expected.metrics, "{room} steps, {round}");
        }
        assert_eq!(kept.save(), plain.save());
        assert!(
            kept.on_gpu.kept.0.is_some() && kept.clone().on_gpu.kept.0.is_none(),
            "a clone may have another replay"
        );
    }
    // There is nothing to keep without a GPU, or where the replay's steps are not known.
    assert_eq!(agent.to(Device::Cpu).keep_frames(1 << 30, 50), 0);
    let without = AgentConfig { replay_context: 0, ..tiny() };
    assert_eq!(with_images(&without).map(|(mut agent, _)| agent.keep_frames(1 << 30, 50)), Some(0));
}

#[test]
fn what_the_processor_computes_in_chunks_is_what_a_gpu_computes_at_once() {
    // 320 states: five chunks of imagination, three of the heads and of the recurrence.
    let config = AgentConfig { batch_size: 20, batch_length: 16, ..tiny() };
    let Some((mut there, mut carry_there, batch)) = on_gpu(&config) else { return };
    let mut here = there.to(Device::Cpu);
    let mut carry = carry_there.to(Device::Cpu);
    let metrics = there.train(&mut carry_there, &batch).unwrap().metrics;
    for (name, x) in here.train(&mut carry, &batch).unwrap().metrics {
        let y = metrics[&name];
        assert!((x - y).abs() <= 1e-4 * x.abs().max(1.0), "{name}: {x} and {y}");
    }
    // Squares of the gradients, from which the moments have started.
    for ((name, _), (x, y)) in here.params.iter().zip(here.opt.rms.iter().zip(&there.opt.rms)) {
        let y = y.host();
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| (x as f64).powi(2)).sum::<f64>().sqrt();
        let apart = norm(&mut x.data().iter().zip(y.data()).map(|(x, y)| x - y));
        assert!(apart <= 1e-3 * norm(&mut x.data().iter().copied()) + 1e-30, "the gradient of {name} differs");
    }
}
