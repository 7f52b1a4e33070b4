//! DeepMind Control without Python beside the Python worker: the same values at every step of whole episodes.
#![cfg(feature = "mujoco")]

use envs::{Env, Rng, make, random_action};
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

/// A Python with dm_control, which also finds the package of this repository; none, and a line on stderr, where there
/// is no such Python. `DREAMER_PYTHON` names another than python3.
fn python(test: &str) -> Option<String> {
    let python = std::env::var("DREAMER_PYTHON").unwrap_or("python3".into());
    let found = Command::new(&python).args(["-c", "import dm_control, mujoco"]).env("MUJOCO_GL", "disabled").output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED {test}: '{python}' has no dm_control; DREAMER_PYTHON names another");
        return None;
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let script = std::env::temp_dir().join(format!("dreamer-python-{}-{test}", std::process::id()));
    let text = format!("#!/bin/sh\nPYTHONPATH='{}' exec '{python}' \"$@\"\n", package.display());
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
