//! Every task beside numbers that dm_control computed. `tests/dmc.rs` compares with Python at hand.

use super::control::{Control, Seen};
use super::env::parts;
use crate::tasks::dmc::models_folder;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// By `tests/dmc/record.py`; the first line has the versions.
const RECORDED: &str = include_str!("../../../../tests/dmc/recorded.json");
const STEPS: usize = 200;
/// All is equal to the bit where it was recorded, but for the last one of some forces, of which the quadruped sees the
/// inverse hyperbolic sine. It must not enter the simulation: chaos makes 1e-3 of 1e-15 in 200 steps of a walker.
const TOLERANCE: f64 = 1e-12;

/// The folder of the models, which DREAMER_PYTHON has to have; none, and a line on stderr, where nothing is named and
/// python3 has no dm_control.
fn models(test: &str) -> Option<PathBuf> {
    let chosen = std::env::var("DREAMER_PYTHON");
    let python = chosen.clone().unwrap_or("python3".into());
    let found = models_folder(&python);
    if found.is_none() {
        assert!(chosen.is_err(), "DREAMER_PYTHON, '{python}', lacks the package dm_control");
        eprintln!("SKIPPED {test}: '{python}' has no dm_control; DREAMER_PYTHON names another");
    }
    found
}

/// The recorded runs, and the machine that they are of.
fn recorded() -> (Vec<Value>, String) {
    let mut lines: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    let versions = lines.remove(0);
    (lines, versions["machine"].as_str().unwrap().into())
}

/// The first underscore but for ball_in_cup parts domain and task.
fn split(name: &str) -> (&str, &str) {
    let domain = if name.starts_with("ball_in_cup") { "ball_in_cup" } else { name.split('_').next().unwrap() };
    (domain, &name[domain.len() + 1..])
}

fn control(name: &str, folder: &Path, seed: u32) -> Control {
    let (domain, task) = split(name);
    Control::new(parts(domain, task, folder).unwrap().unwrap(), seed)
}

/// The action of `record.py`.
fn action(control: &Control, step: usize) -> Vec<f64> {
    let bounds = control.physics.model().actuator_ctrlrange();
    let share = |i: usize| ((7 * step + 3 * i + step * step / 16) % 13) as f64 / 12.0;
    bounds.iter().enumerate().map(|(i, [low, high])| low + share(i) * (high - low)).collect()
}

fn flat(control: &Control) -> Vec<f64> {
    let values = |seen| match seen {
        Seen::Number(x) => vec![x],
        Seen::Vector(xs) => xs,
    };
    control.observe().into_iter().flat_map(|(_, seen)| values(seen)).collect()
}

/// The largest difference relative to the size of the values.
fn difference(ours: &[f64], theirs: &Value) -> f64 {
    let theirs: Vec<f64> = serde_json::from_value(theirs.clone()).unwrap();
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().chain(&theirs).all(|x| x.is_finite()), "{ours:?}");
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max)
}

#[test]
fn a_simulation_that_breaks_down_says_so_and_can_begin_again() {
    let Some(folder) = models("a_simulation_that_breaks_down") else { return };
    let mut control = control("cartpole_balance", &folder, 0);
    control.reset().unwrap();
    control.physics.qvel_mut()[0] = 1e12;
    let error = control.step(&[0.0]).unwrap_err().to_string();
    assert_eq!(error, "the simulation broke down at 0.00 s of an episode: MuJoCo found a bad velocity");
    std::fs::remove_file("MUJOCO_LOG.TXT").ok(); // where MuJoCo notes it
    control.reset().unwrap();
    control.step(&[0.0]).unwrap();
}

#[test]
fn episodes_are_those_of_dm_control() {
    let Some(folder) = models("episodes_are_those_of_dm_control") else { return };
    let (runs, machine) = recorded();
    if machine != std::env::consts::ARCH {
        eprintln!("SKIPPED episodes_are_those_of_dm_control: recorded on {machine}, where sines round otherwise");
        return;
    }
    assert_eq!(runs.len(), 2 * 20);
    let mut worst = 0f64;
    for run in runs {
        let (name, seed) = (run["task"].as_str().unwrap(), run["seed"].as_u64().unwrap());
        let mut control = control(name, &folder, seed as u32);
        let (mut rewards, mut values, mut shown) = (0.0, 0.0, vec![]);
        for episode in 0..2 {
            control.reset().unwrap();
            for step in 0..=STEPS {
                if step > 0 {
                    rewards += control.step(&action(&control, step)).unwrap();
                }
                let seen = flat(&control);
                values = seen.iter().fold(values, |sum, x| sum + x.abs());
                if step == STEPS || step == 0 && episode == 0 {
                    shown.push(seen);
                }
            }
        }
        let sums = difference(&[rewards, values], &json!([run["rewards"], run["values"]]));
        let shown = shown.iter().zip(run["shown"].as_array().unwrap()).map(|(ours, theirs)| difference(ours, theirs));
        let off = shown.fold(sums, f64::max);
        assert!(off < TOLERANCE, "{name}, seed {seed}: off by {off:e}");
        worst = worst.max(off);
    }
    println!("worst relative difference: {worst:e}");
}
