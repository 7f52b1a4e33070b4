//! What of the configuration reaches the replay.

use super::*;
use spaces::{Array, Record};
use std::collections::BTreeMap;

const DRAWS: usize = 10_000;

/// How often each sequence of two steps, named by its first, is drawn, beside how often it should be.
fn assert_drawn(replay: &mut Replay, expected: impl Fn(usize) -> f64) {
    let batch = replay.sample(DRAWS, replay::Mode::Train).unwrap();
    let mut counts = BTreeMap::new();
    batch["n"].to_i32().chunks(2).for_each(|row| *counts.entry(row[0] as usize).or_insert(0.0) += 1.0);
    for start in 0..39 {
        let (count, share) = (counts.get(&start).copied().unwrap_or(0.0), expected(start));
        let slack = 5.0 * (DRAWS as f64 * share * (1.0 - share)).sqrt();
        let expected = DRAWS as f64 * share;
        assert!((count - expected).abs() <= slack, "sequence {start}: {count} where {expected} are expected");
    }
}

#[test]
fn an_image_of_a_size_that_does_not_fit_comes_with_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let complaint = |size: &str| {
        let config = crate::train::tests::config(dir.path(), &[("env.dummy.size", size)]);
        with_cure(anyhow!("image key 'image' is too large"), &config).to_string()
    };
    assert!(complaint("80,80").ends_with("too large; --env.dummy.size 64 64 resizes them"));
    assert!(complaint("64,64").contains("agent.enc.simple.mults"));
}

#[test]
fn options_of_another_suite_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let more = [("task", "gym_X-v0"), ("env.py.repeat", "4"), ("env.gym.repeat", "2"), ("env.kwargs.length", "3")];
    let config = crate::train::tests::config(dir.path(), &more);
    assert_eq!(stray_options(&config).unwrap(), ["env.py.repeat", "env.dummy.size", "env.dummy.length"]);
}

#[test]
fn a_replay_that_never_holds_enough_to_learn_from_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::train::tests::config(dir.path(), &[]);
    (config.batch_size, config.batch_length) = (16, 64);
    // Of 16 environments with 64 steps each that begin no sequence.
    let needed = 16 * 64 + 16 * 64;
    assert!(enough_to_learn(&config, needed, 65, 16).is_ok());
    let error = enough_to_learn(&config, needed - 1, 65, 16).unwrap_err().to_string();
    let expected =
        "the memory that the replay may take holds 2047 steps, 1023 sequences of 65, while an update needs 1024";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn the_replay_draws_as_the_settings_say_and_that_of_evaluation_draws_all_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::train::tests::config(dir.path(), &[]);
    (config.batch_length, config.report_length, config.replay_context) = (2, 2, 0);
    let settings = &mut config.replay;
    (settings.fracs.uniform, settings.fracs.priority, settings.fracs.recency) = (0.2, 0.3, 0.5);
    (settings.prio.exponent, settings.prio.maxfrac) = (0.5, 1.0);
    (settings.prio.initial, settings.prio.zero_on_sample) = (0.0, false);
    // So steep that the newest sequence alone counts.
    (settings.recexp, settings.online, settings.size) = (30.0, false, 1000);

    for eval in [false, true] {
        let mut replay = replay(&config, dir.path().join(eval.to_string()), eval, 1, 4).unwrap();
        for n in 0..40 {
            replay.add(&Record::from([("n".into(), Array::i32(n))]), 0).unwrap();
        }
        // Step 7 has priority 16, steps 20 and 21 have 1.
        for (start, priorities) in [(6, [0.0, 16.0]), (20, [1.0, 1.0])] {
            let stepid = replay.get(start).unwrap()["stepid"].clone().reshape(&[1, 2, 20]);
            let priority = Array::from_f32(&[1, 2], priorities.to_vec());
            replay.update(&Record::from([("stepid".into(), stepid), ("priority".into(), priority)])).unwrap();
        }
        assert_drawn(&mut replay, |start| match (eval, start) {
            (true, _) => 1.0 / 39.0,
            (false, 6 | 7) => 0.2 / 39.0 + 0.3 * 4.0 / 11.0,
            (false, 19..=21) => 0.2 / 39.0 + 0.3 / 11.0,
            (false, 38) => 0.2 / 39.0 + 0.5,
            (false, _) => 0.2 / 39.0,
        });
    }
}
