//! Several GPUs against one that has the whole batch; all emulated, as a real one can take part only once.

use crate::common::{batch, everything, tiny};
use crate::{Agent, AgentConfig, Carry, Mode, Trained};
use engine::Device;
use engine::cuda::emulated_test_gpu;
use spaces::{Data, Record};

fn config() -> AgentConfig {
    AgentConfig { batch_size: 4, ..tiny() }
}

/// An agent on one GPU, the same on two, and a batch; none where GPUs cannot be emulated.
fn agents() -> Option<(Agent, Agent, Record)> {
    let gpu = emulated_test_gpu;
    let (obs, act) = everything();
    let agent = Agent::new(&obs, &act, &config()).unwrap();
    let batch = batch(&agent, &obs, &act);
    let two = agent.spread(&[gpu()?, gpu()?]).unwrap();
    Some((agent.to(Device::Gpu(gpu()?)), two, batch))
}

fn train(agent: &mut Agent, carry: &mut Carry, batch: &Record) -> Trained {
    agent.train(carry, batch).unwrap()
}

/// Whether numbers agree but for rounding.
fn assert_near(a: f32, b: f32, what: &str) {
    assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{what}: {a} and {b}");
}

#[test]
fn two_gpus_do_the_update_of_one_with_the_whole_batch() {
    let Some((mut one, mut two, batch)) = agents() else { return };
    let (mut carry, mut carries) = (one.initial(4), two.initial(4));
    for step in 0..4 {
        let expected = train(&mut one, &mut carry, &batch);
        let got = train(&mut two, &mut carries, &batch);
        assert_eq!(got.replay["stepid"], expected.replay["stepid"]);
        if step == 0 {
            assert_eq!(got.replay, expected.replay, "nothing has been rounded otherwise yet");
            same_gradients(&two, &one);
        }
        for (name, &x) in &expected.metrics {
            // Means are those of the whole batch; extremes and the like are not.
            if name.starts_with("loss/") || name.starts_with("opt/") || name == "ret" {
                assert_near(got.metrics[name], x, &format!("step {step}, {name}"));
            }
        }
        // Every GPU has the same parameters, moments and statistics, to the last bit.
        assert_eq!(two.save(), two.on_gpu.followers[0].save(), "step {step}");
    }
}

/// After one update: by the squares of gradients, and by the statistics of returns, which the optimizer keeps. Parameters
/// would not do, as their first change is of one size whatever the gradient's.
fn same_gradients(two: &Agent, one: &Agent) {
    let (got, expected) = (two.save(), one.save());
    for (name, y) in &expected {
        let (x, y) = (got[name].to_f32(), y.to_f32());
        if name.starts_with("opt/state/1/1/") || name.starts_with("retnorm/") {
            let norm = |xs: &mut dyn Iterator<Item = f32>| xs.map(|x| (x as f64).powi(2)).sum::<f64>().sqrt();
            let (error, size) = (norm(&mut x.iter().zip(&y).map(|(x, y)| x - y)), norm(&mut y.iter().copied()));
            assert!(error <= 2e-5 * size, "{name}: {error} of {size}");
        }
    }
}

#[test]
fn what_is_not_finite_on_one_gpu_stops_the_update_on_all() {
    let Some((_, mut two, batch)) = agents() else { return };
    let mut carry = two.initial(4);
    train(&mut two, &mut carry, &batch);
    let (before, mut bad) = (two.save(), batch.clone());
    let Some(Data::F32(rewards)) = bad.get_mut("reward").map(|array| &mut array.data) else {
        unreachable!("rewards are floats")
    };
    *rewards.last_mut().unwrap() = f32::NAN; // of the second GPU's part
    let error = two.train(&mut carry, &bad).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("the loss 'total'") && error.contains("not finite"), "{error}");
    assert_eq!(two.save(), before);
    assert_eq!(two.on_gpu.followers[0].save(), before);
}

#[test]
fn nobody_waits_for_a_gpu_that_failed() {
    let Some((_, mut two, batch)) = agents() else { return };
    let mut carry = two.initial(4);
    train(&mut two, &mut carry, &batch);
    two.on_gpu.followers[0].params = Default::default();
    for _ in 0..2 {
        let error = two.train(&mut carry, &batch).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("on one of the GPUs panicked"), "{error}");
    }
}

#[test]
fn what_is_loaded_reaches_all_gpus_and_the_first_one_acts() {
    let Some((one, mut two, batch)) = agents() else { return };
    let (before, mut carry) = (two.save(), two.initial(4));
    train(&mut two, &mut carry, &batch);
    assert_ne!(two.save(), before);
    two.load(&before, None).unwrap();
    assert_eq!(two.on_gpu.followers[0].save(), before);
    train(&mut two, &mut carry, &batch);
    assert_eq!(two.save(), two.on_gpu.followers[0].save());
    two.load(&before, None).unwrap();
    let step = spaces::row(&batch, 0);
    let act = |agent: &Agent| {
        let mut carry = agent.initial(step["is_first"].len());
        agent.act(&mut carry, &step, Mode::Train).unwrap().action
    };
    assert_eq!(act(&two.snapshot()), act(&one));
}

#[test]
fn what_cannot_be_divided_is_a_sentence() {
    let Some((one, _, batch)) = agents() else { return };
    let gpu = || emulated_test_gpu().unwrap();
    let three = one.spread(&[gpu(), gpu(), gpu()]).err().unwrap().to_string();
    assert!(three.contains("batch_size is 4, which cannot be divided among 3 GPUs"), "{three}");
    let mut two = one.spread(&[gpu(), gpu()]).unwrap();
    let odd: Record = batch.iter().map(|(key, x)| (key.clone(), x.rows(0..3))).collect();
    let error = two.train(&mut one.initial(3), &odd).err().unwrap().to_string();
    assert!(error.contains("3 sequences cannot be divided among 2 GPUs"), "{error}");
}

#[test]
fn images_stay_on_all_gpus_and_outlive_a_load() {
    let (Some((_, mut plain, batch)), Some((_, mut kept, _))) = (agents(), agents()) else { return };
    let mut batch = batch;
    let Data::U8(ids) = &mut batch.get_mut("stepid").unwrap().data else { unreachable!("ids are bytes") };
    ids.chunks_exact_mut(20).enumerate().for_each(|(step, id)| id[19] = step as u8);
    assert_eq!(kept.keep_frames(1 << 20, 30), 30);
    let (mut plain_carry, mut carry) = (plain.initial(4), kept.initial(4));
    let before = plain.save();
    for step in 0..4 {
        if step == 3 {
            [&mut plain, &mut kept].into_iter().for_each(|agent| agent.load(&before, None).unwrap());
        }
        let expected = train(&mut plain, &mut plain_carry, &batch);
        assert_eq!(train(&mut kept, &mut carry, &batch).metrics, expected.metrics, "step {step}");
    }
    assert!(kept.on_gpu.kept.0.is_some() && kept.on_gpu.followers[0].on_gpu.kept.0.is_some());
}
