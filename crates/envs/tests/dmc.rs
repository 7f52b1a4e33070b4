//! DeepMind Control without Python beside the Python worker: the same values at every step of whole episodes.
#![cfg(feature = "mujoco")]

use envs::{Env, Rng, is_external, make, random_action};
use serde_json::{Value, json};
use spaces::{Array, Record};
use std::path::Path;
use std::process::Command;

const TASKS: [&str; 20] = [
    "acrobot_swingup",
    "ball_in_cup_catch",
    "cartpole_balance",
    "cartpole_balance_sparse",
    "cartpole_swingup",
    "cartpole_swingup_sparse",
    "cheetah_run",
    "finger_spin",
    "finger_turn_easy",
    "finger_turn_hard",
    "hopper_stand",
    "hopper_hop",
    "pendulum_swingup",
    "quadruped_walk",
    "quadruped_run",
    "reacher_easy",
    "reacher_hard",
    "walker_stand",
    "walker_walk",
    "walker_run",
];

/// A Python with dm_control, which also finds the package of this repository: DREAMER_PYTHON, which has to have it, or
/// python3 if it does. None, and a line on stderr, where there is no such Python.
fn python(test: &str) -> Option<String> {
    let chosen = std::env::var("DREAMER_PYTHON");
    let python = chosen.clone().unwrap_or("python3".into());
    let found = Command::new(&python).args(["-c", "import dm_control, mujoco"]).env("MUJOCO_GL", "disabled").output();
    if !found.is_ok_and(|output| output.status.success()) {
        assert!(chosen.is_err(), "DREAMER_PYTHON, '{python}', lacks the package dm_control");
        eprintln!("SKIPPED {test}: '{python}' has no dm_control; DREAMER_PYTHON names another");
        return None;
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let script = std::env::temp_dir().join(format!("dreamer-python-{}-{test}", std::process::id()));
    // One way of summing a norm on all processors: OpenBLAS has others for some, which differ in the last digit.
    let text = format!(
        "#!/bin/sh\nexport OPENBLAS_CORETYPE=Haswell\nPYTHONPATH='{}' exec '{python}' \"$@\"\n",
        package.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Some(script.to_str().unwrap().into())
}

fn options(python: &str, engine: &str, repeat: usize) -> Value {
    json!({"python": python, "dmc": {"engine": engine, "image": false, "repeat": repeat}})
}

fn play(env: &mut dyn Env, rng: &mut Rng, steps: usize) -> Vec<Record> {
    let step = |_| {
        let mut action = random_action(env.act_space(), rng);
        action.insert("reset".into(), Array::bool(rng.below(2000) == 0));
        env.step(&action).unwrap()
    };
    (0..steps).map(step).collect()
}

/// A task without Python.
fn native(task: &str, index: usize, python: &str) -> Box<dyn Env> {
    make(&format!("dmc_{task}"), index, 7, &options(python, "native", 3)).unwrap()
}

#[test]
fn every_step_is_that_of_the_python_worker() {
    let Some(python) = python("every_step") else { return };
    let mut ended = 0;
    for task in TASKS {
        let task = format!("dmc_{task}");
        let [mut native, mut worker] =
            ["native", "python"].map(|engine| make(&task, 3, 7, &options(&python, engine, 2)).unwrap());
        assert_eq!(native.obs_space(), worker.obs_space(), "{task}");
        assert_eq!(native.act_space(), worker.act_space(), "{task}");
        let (mut here, mut there) = (Rng::new(1, 0), Rng::new(1, 0));
        for step in 0..1200 {
            let (ours, theirs) = (play(&mut *native, &mut here, 1), play(&mut *worker, &mut there, 1));
            assert_eq!(ours, theirs, "{task}, step {step}");
            ended += usize::from(ours[0]["is_last"].item() != 0.0);
        }
    }
    assert!(ended > 5, "only {ended} episodes came to their end");
    std::fs::remove_file(python).ok();
}

#[test]
fn a_saved_task_continues_bit_for_bit() {
    let Some(python) = python("a_saved_task") else { return };
    for task in TASKS {
        for before in [0, 1, 40] {
            let (mut env, mut rng) = (native(task, 0, &python), Rng::new(0, before as u64));
            play(&mut *env, &mut rng, before);
            let state = env.save().unwrap();
            let expected = play(&mut *env, &mut rng.clone(), 400); // into the second episode
            let mut other = native(task, 9, &python);
            play(&mut *other, &mut Rng::new(5, 5), 20);
            other.load(&state).unwrap();
            assert_eq!(other.save().unwrap(), state, "{task}");
            assert_eq!(play(&mut *other, &mut rng, 400), expected, "{task} after {before} steps");
        }
    }
    std::fs::remove_file(python).ok();
}

#[test]
fn states_of_other_tasks_and_damaged_ones_are_refused() {
    let Some(python) = python("states_of_others") else { return };
    for task in TASKS {
        let mut env = native(task, 0, &python);
        play(&mut *env, &mut Rng::new(0, 0), 3);
        let state = env.save().unwrap();
        for cut in (0..state.len()).step_by(7) {
            assert!(env.load(&state[..cut]).is_err(), "{task} cut to {cut} bytes");
        }
        let other = if task.starts_with("walker") { "reacher_easy" } else { "walker_run" };
        let error = env.load(&native(other, 0, &python).save().unwrap()).unwrap_err();
        assert!(format!("{error:#}").contains("belongs to 'dmc_"), "{error:#}");
        env.load(&state).unwrap();
    }
    std::fs::remove_file(python).ok();
}

#[test]
fn the_engine_is_chosen_by_what_is_asked_for() {
    let Some(python) = python("the_engine") else { return };
    let with = |engine: &str| options(&python, engine, 1);
    assert!(!is_external("dmc_walker_walk", &with("auto")) && !is_external("dmc_walker_walk", &with("native")));
    assert!(is_external("dmc_walker_walk", &with("python")) && is_external("dmc_swimmer_swimmer6", &with("auto")));
    let mut env = make("dmc_cup_catch", 0, 0, &with("auto")).unwrap();
    let mut action = random_action(env.act_space(), &mut Rng::new(0, 0));
    env.step(&action).unwrap();
    action.insert("action".into(), Array::from_f32(&[2], vec![0.5, f32::NAN]));
    let error = env.step(&action).unwrap_err().to_string();
    assert!(error.contains("'action'") && error.contains("NaN"), "{error}");
    std::fs::remove_file(python).ok();
}
