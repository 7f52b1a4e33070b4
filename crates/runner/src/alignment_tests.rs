//! Whether what acting leaves in the replay, and what an update makes of it, follow from one step to the next: a state from
//! the state and the action of the step before, and nothing across the start of an episode.

use super::tests::config;
use super::*;
use dreamer_agent::{Agent, Carry, Mode};
use spaces::{Array, DType, Record};

/// What half precision rounds off, and what that moves in the next state.
const ROUNDED: f32 = 0.01;

/// Everything of step `t` of a batch [B, L, ...]: [B, ...].
fn at(batch: &Record, t: usize) -> Record {
    let step = |x: &Array| Array::stack(&(0..x.shape[0]).map(|b| x.at(b).at(t)).collect::<Vec<_>>());
    batch.iter().map(|(key, x)| (key.clone(), step(x))).collect()
}

/// Class indices as rows of ones and zeros, [B, ...] to [B, width].
fn one_hot(indices: &Array, classes: usize) -> Array {
    let b = indices.shape[0];
    let hot: Vec<f32> =
        indices.to_i32().iter().flat_map(|&i| (0..classes).map(move |c| (c == i as usize) as u8 as f32)).collect();
    Array::from_f32(&[b, hot.len() / b], hot)
}

/// The state that a step of the batch was left with, and its action, before the next step.
fn carry(agent: &Agent, step: &Record, action: &Array) -> Carry {
    let deter = Array::from_f32(&step["dyn/deter"].shape, step["dyn/deter"].to_f32());
    let prevact = match action.dtype() {
        DType::I32 => one_hot(action, 5),
        _ => Array::from_f32(&[action.shape[0], action.len() / action.shape[0]], action.to_f32()),
    };
    let stoch = one_hot(&step["dyn/stoch"], agent.config().dynamics.rssm.classes);
    let step = Array::from_i32(&[2], vec![0; 2]);
    let named = [("deter", deter), ("stoch", stoch), ("prevact", prevact), ("step", step)];
    Carry::from_record(&named.into_iter().map(|(key, x)| (key.to_string(), x)).collect()).unwrap()
}

/// The largest difference between the states of each row.
fn apart(x: &Array, y: &Array) -> Vec<f32> {
    let (x, y, width) = (x.to_f32(), y.to_f32(), x.len() / x.shape[0]);
    assert!(x.iter().chain(&y).all(|x| x.is_finite()));
    let most = |(x, y): (&[f32], &[f32])| x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    x.chunks(width).zip(y.chunks(width)).map(most).collect()
}

/// A run that has acted for a while and never trained, and some of its batches.
fn acted(task: &str) -> (Trainer, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let more = [("task", task), ("run.train_ratio", "0"), ("run.steps", "300"), ("agent.opt.warmup", "1000")];
    let mut trainer = open(config(dir.path(), &more)).unwrap();
    while trainer.turn().unwrap() {}
    assert_eq!(trainer.counters.updates, 0);
    let batches = (0..12).map(|_| trainer.train.batches.next().unwrap()).collect();
    (trainer, batches)
}

#[test]
fn each_state_follows_from_the_state_and_action_of_the_step_before() {
    for task in ["dummy_disc", "dummy_cont"] {
        let (trainer, batches) = acted(task);
        let agent = trainer.agent.as_ref().unwrap();
        let (mut starts, mut noticed, mut rows) = (0, 0, 0);
        for batch in &batches {
            for t in 1..batch["is_first"].shape[1] {
                let (before, now) = (at(batch, t - 1), at(batch, t));
                let follow = |action: &Array| {
                    let mut carry = carry(agent, &before, action);
                    let acted = agent.act(&mut carry, &now, Mode::Train).unwrap();
                    apart(&acted.replay["dyn/deter"], &now["dyn/deter"])
                };
                let right = follow(&before["action"]);
                assert!(right.iter().all(|&x| x < ROUNDED), "{task}, step {t}: {right:?}");
                // The action of the step itself would not do, but where an episode starts.
                let wrong = follow(&now["action"]);
                noticed += wrong.iter().filter(|&&x| x >= ROUNDED).count();
                starts += now["is_first"].to_bool().iter().filter(|&&first| first).count();
                rows += wrong.len();
            }
        }
        assert!(starts > 5, "{task}: {starts} episodes start within sequences");
        assert!(noticed > rows / 4, "{task}: another action is noticed in {noticed} of {rows} steps");
    }
}

#[test]
fn an_update_starts_where_acting_was_and_returns_what_it_found_to_the_same_steps() {
    for task in ["dummy_disc", "dummy_cont"] {
        let (mut trainer, batches) = acted(task);
        let (agent, carry) = (trainer.agent.as_mut().unwrap(), trainer.train.carry.as_mut().unwrap());
        let context = agent.config().replay_context;
        assert_eq!(context, 1);
        for batch in &batches {
            // The first update of a warmup moves nothing, so that acting's states still hold.
            let mut agent = agent.clone();
            let trained = agent.train(&mut carry.clone(), batch).unwrap();
            let (found, stored) = (at(&trained.replay, 0), at(batch, context));
            let difference = apart(&found["dyn/deter"], &stored["dyn/deter"]);
            assert!(difference.iter().all(|&x| x < ROUNDED), "{task}: {difference:?}");
            for t in 0..trained.replay["stepid"].shape[1] {
                assert_eq!(at(&trained.replay, t)["stepid"], at(batch, t + context)["stepid"], "{task}, step {t}");
            }
        }
    }
}
