//! Recorded acting against acting that is computed as it comes.

use crate::common::{batch, everything, tiny};
use crate::{Acted, Agent, AgentConfig, Carry, Mode};
use engine::Device;
use engine::cuda::{Precision, test_gpu_in};
use spaces::{Array, Data, Record};

/// An agent on the test's GPU with a batch for it, and steps of two environments; none where there is no GPU.
fn on_gpu(precision: Precision, config: &AgentConfig) -> Option<(Agent, Record, Vec<Record>)> {
    let gpu = test_gpu_in(precision)?;
    let (obs, act) = everything();
    let agent = Agent::new(&obs, &act, config).unwrap();
    let batch = batch(&agent, &obs, &act);
    let step = |i: usize| batch.iter().map(|(key, array)| (key.clone(), array.at(i).rows(0..2))).collect();
    let steps = (0..config.batch_size).map(step).collect(); // two steps of a sequence as those of two environments
    Some((agent.to(Device::Gpu(gpu)), batch, steps))
}

/// Acting that is computed as it comes, with the agent's own parameters.
fn act_unrecorded(agent: &Agent, carry: &mut Carry, step: &Record) -> Acted {
    assert!(agent.on_gpu.acting.is_none());
    agent.act(carry, step, Mode::Train).unwrap()
}

#[test]
fn recorded_acting_is_the_same_to_the_last_bit() {
    for precision in [Precision::Float32, Precision::Bfloat16] {
        let Some((mut agent, batch, steps)) = on_gpu(precision, &tiny()) else { return };
        let mut trained = agent.initial(agent.config().batch_size);
        let (mut carry, mut plain) = (agent.initial(2), agent.initial(2));
        let (mut most, before) = (0, agent.save());
        for (i, step) in steps.iter().cycle().take(12).enumerate() {
            if i % 3 == 0 {
                agent.train(&mut trained, &batch).unwrap(); // new weights, for this step and the next two
            }
            if i == 7 {
                agent.load(&before, None).unwrap();
            }
            let snapshot = agent.snapshot();
            let got = snapshot.act(&mut carry, step, Mode::Train).unwrap();
            let expected = act_unrecorded(&agent, &mut plain, step);
            assert_eq!(got.action, expected.action, "step {i}");
            assert_eq!(got.replay, expected.replay, "step {i}");
            assert_eq!(carry.to_record(), plain.to_record(), "step {i}");
            let lent = snapshot.on_gpu.acting.as_ref().unwrap();
            most = most.max(lent.launches().iter().map(|(packs, others)| packs + others).sum());
        }
        let Device::Gpu(gpu) = agent.device() else { unreachable!("it is on a GPU") };
        assert!((10..100).contains(&most) || most == 0 && !gpu.is_emulated(), "{most} launches");
    }
}

#[test]
fn snapshots_at_the_same_time_keep_their_own_weights() {
    let Some((mut agent, batch, steps)) = on_gpu(Precision::Bfloat16, &tiny()) else { return };
    let mut trained = agent.initial(agent.config().batch_size);
    drop(agent.snapshot()); // what it would act with goes on to the first of these
    let mut snapshots = Vec::new();
    for _ in 0..2 {
        agent.train(&mut trained, &batch).unwrap();
        snapshots.push((agent.snapshot(), agent.clone()));
    }
    let mut seen = Vec::new();
    for n in [2, 1, 2, 1, 2] {
        for (snapshot, agent) in &snapshots {
            let step: Record = steps[0].iter().map(|(key, array)| (key.clone(), array.rows(0..n))).collect();
            let (mut carry, mut plain) = (agent.initial(n).at_step(7 << 32 | n as u64), agent.initial(n));
            plain = plain.at_step(7 << 32 | n as u64);
            snapshot.act(&mut carry, &step, Mode::Train).unwrap();
            act_unrecorded(agent, &mut plain, &step);
            assert_eq!(carry.to_record(), plain.to_record(), "{n} environments");
            seen.push(carry.to_record());
        }
    }
    assert_ne!(seen[0], seen[1], "the weights of the two differ");
}

#[test]
fn draws_follow_the_count_of_steps_and_the_mode() {
    let Some((agent, _, steps)) = on_gpu(Precision::Float32, &tiny()) else { return };
    let snapshot = agent.snapshot();
    for step in [0, 1, u32::MAX as u64, 1 << 32, (1 << 32) + 1, 3 << 40] {
        for mode in [Mode::Train, Mode::Eval] {
            let (mut carry, mut plain) = (snapshot.initial(2).at_step(step), agent.initial(2).at_step(step));
            let got = snapshot.act(&mut carry, &steps[1], mode).unwrap();
            let expected = agent.act(&mut plain, &steps[1], mode).unwrap();
            assert_eq!(got.action, expected.action, "step {step}, {mode:?}");
            assert_eq!(carry.to_record(), plain.to_record(), "step {step}, {mode:?}");
        }
    }
}

#[test]
fn a_state_that_is_not_finite_is_named_and_changes_nothing() {
    let Some((agent, _, steps)) = on_gpu(Precision::Float32, &tiny()) else { return };
    let (snapshot, mut step) = (agent.snapshot(), steps[0].clone());
    step.insert("is_first".into(), Array::from_bool(&[2], vec![false; 2]));
    let mut good = snapshot.initial(2);
    for count in 0..3 {
        let mut record = good.to_record();
        let Some(Data::F32(deter)) = record.get_mut("deter").map(|array| &mut array.data) else {
            unreachable!("deter is of floats")
        };
        deter[5] = f32::NAN;
        let mut bad = Carry::from_record(&record).unwrap();
        let error = snapshot.act(&mut bad, &step, Mode::Train).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.starts_with("the latent state while acting holds NaN")));
        assert_eq!((bad.step, &bad.to_record()["prevact"]), (count, &record["prevact"]));
        snapshot.act(&mut good, &step, Mode::Train).unwrap();
    }
}
