//! Every task under random play: within its spaces, reproducible, and saved without a trace.

use envs::{Env, Rng, is_external, make, random_action, tasks};
use proptest::prelude::*;
use serde_json::{Value, json};
use spaces::{Array, Record};

/// Short episodes, so that random play sees their ends.
fn options(task: &str) -> Value {
    let python = std::env::var("DREAMER_PYTHON").unwrap_or("python3".into());
    let kwargs = if task.starts_with("crafter") { json!({"length": 30}) } else { json!({}) };
    json!({"pinpad": {"length": 30}, "dummy": {"length": 12}, "cartpole": {"length": 25}, "kwargs": kwargs,
        "python": python})
}

/// The listed tasks, some that need not be listed, and Crafter where there are pictures for it.
fn names() -> Vec<String> {
    let mut names: Vec<String> = tasks().into_iter().map(|task| task.name).collect();
    names.extend(["memory_0".into(), "memory_3".into()]);
    if is_external("crafter_reward", &options("crafter_reward")) {
        let chosen = std::env::var("DREAMER_PYTHON");
        assert!(chosen.is_err(), "DREAMER_PYTHON, {chosen:?}, lacks the package crafter");
        eprintln!("SKIPPED: Crafter was not played: name a Python that has the package crafter in DREAMER_PYTHON");
    } else {
        names.extend(["crafter_reward".into(), "crafter_noreward".into()]);
    }
    names
}

/// Random steps, now and then a reset.
fn play(env: &mut dyn Env, rng: &mut Rng, steps: usize) -> Vec<Record> {
    let step = |_| {
        let mut action = random_action(env.act_space(), rng);
        action.insert("reset".into(), Array::bool(rng.below(40) == 0));
        env.step(&action).unwrap()
    };
    (0..steps).map(step).collect()
}

fn is(record: &Record, key: &str) -> bool {
    record[key].item() != 0.0
}

#[test]
fn random_play_obeys_the_spaces_and_the_rules_of_episodes() {
    for name in names() {
        let mut env = make(&name, 3, 1, &options(&name)).unwrap();
        // The wrappers check keys, dtypes, shapes and bounds of every record; this is the rest.
        let records = play(&mut *env, &mut Rng::new(1, 7), 500);
        assert!(is(&records[0], "is_first"), "{name}");
        assert!(records.iter().any(|record| is(record, "is_last")), "{name} never ends");
        for record in &records {
            assert!(!(is(record, "is_first") && is(record, "is_last")), "{name}");
            assert!(is(record, "is_last") || !is(record, "is_terminal"), "{name}: terminal but not last");
            assert!(!is(record, "is_first") || record["reward"].item() == 0.0, "{name}: reward at the start");
        }
        for pair in records.windows(2) {
            assert!(!is(&pair[0], "is_last") || is(&pair[1], "is_first"), "{name}: no start after the end");
        }
        for (key, space) in env.obs_space() {
            space.check(key, &records[1][key]).unwrap();
        }
    }
}

#[test]
fn seed_and_index_decide_everything() {
    for name in names() {
        let run = |index, seed| {
            let mut env = make(&name, index, seed, &options(&name)).unwrap();
            play(&mut *env, &mut Rng::new(0, 0), 60)
        };
        assert_eq!(run(0, 5), run(0, 5), "{name}");
        assert_ne!(run(0, 5), run(1, 5), "{name}: two environments of a run");
        assert_ne!(run(0, 5), run(0, 6), "{name}: two seeds");
    }
}

#[test]
fn pictures_for_videos_are_rgb() {
    for name in names() {
        let mut env = make(&name, 0, 0, &options(&name)).unwrap();
        play(&mut *env, &mut Rng::new(0, 0), 2);
        match env.render() {
            Some(image) => assert!(image.shape.len() == 3 && image.shape[2] == 3 && !image.is_empty(), "{name}"),
            None => assert!(name.starts_with("memory"), "{name}"),
        }
    }
}

#[test]
fn states_of_other_tasks_and_damaged_ones_are_refused() {
    for name in names() {
        let other = if name == "catch" { "memory_10" } else { "catch" };
        let foreign = make(other, 0, 0, &Value::Null).unwrap().save().unwrap();
        let mut env = make(&name, 0, 0, &options(&name)).unwrap();
        play(&mut *env, &mut Rng::new(0, 0), 3);
        let state = env.save().unwrap();
        assert!(env.load(&foreign).is_err(), "{name}");
        for cut in 0..state.len() {
            assert!(env.load(&state[..cut]).is_err(), "{name} cut to {cut} bytes");
        }
        env.load(&state).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_saved_environment_continues_bit_for_bit(before in 0usize..70, seed: u64) {
        for name in names() {
            let mut env = make(&name, 0, seed, &options(&name)).unwrap();
            let mut rng = Rng::new(seed, 1);
            play(&mut *env, &mut rng, before);
            let state = env.save().unwrap();
            let expected = play(&mut *env, &mut rng.clone(), 40);
            let mut other = make(&name, 9, seed ^ 1, &options(&name)).unwrap();
            other.load(&state).unwrap();
            prop_assert_eq!(other.save().unwrap(), state.clone());
            prop_assert_eq!(play(&mut *other, &mut rng, 40), expected, "{}", name);
        }
    }

    #[test]
    fn flipped_bits_never_panic(seed: u64) {
        for name in names() {
            let mut env = make(&name, 0, seed, &options(&name)).unwrap();
            let mut rng = Rng::new(seed, 1);
            play(&mut *env, &mut rng, 20);
            let mut state = env.save().unwrap();
            let at = rng.below(state.len());
            state[at] ^= 1 << rng.below(8);
            if env.load(&state).is_ok() {
                // Whatever it became, it plays on or says why not.
                for _ in 0..40 {
                    let action = random_action(env.act_space(), &mut rng);
                    let _ = env.step(&action);
                }
            }
        }
    }
}
