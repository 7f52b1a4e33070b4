//! `dmc_DOMAIN_TASK`, DeepMind Control: whether this process simulates a task, or a Python worker.

#[cfg(feature = "mujoco")]
mod native;

use crate::make::options;
use crate::{Env, bridge, packages};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// The tasks that this process can simulate, by domain.
const TASKS: [(&str, &[&str]); 10] = [
    ("acrobot", &["swingup"]),
    ("ball_in_cup", &["catch"]),
    ("cartpole", &["balance", "balance_sparse", "swingup", "swingup_sparse"]),
    ("cheetah", &["run"]),
    ("finger", &["spin", "turn_easy", "turn_hard"]),
    ("hopper", &["stand", "hop"]),
    ("pendulum", &["swingup"]),
    ("quadruped", &["walk", "run"]),
    ("reacher", &["easy", "hard"]),
    ("walker", &["stand", "walk", "run"]),
];

/// The keys of the block `env.dmc` that matter here; the rest is for Python.
#[derive(Deserialize)]
#[serde(default)]
struct Options {
    engine: String,
    repeat: f64,
    proprio: bool,
    image: bool,
    film: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { engine: "auto".into(), repeat: 1.0, proprio: true, image: true, film: false }
    }
}

/// Whether this process simulates the task. Also true if that was requested but is impossible: [`make`] then says why.
pub fn is_native(task: &str, all: &Value) -> bool {
    let Some(name) = task.strip_prefix("dmc_") else { return false };
    match options::<Options>(all, "dmc") {
        Ok(options) if options.engine == "auto" => models(name, &options, all).is_ok(),
        Ok(options) => options.engine != "python",
        Err(_) => true,
    }
}

/// The environment of `dmc_NAME`. `seed` is its own.
pub fn make(name: &str, seed: u32, all: &Value) -> Result<Box<dyn Env>> {
    let options = options::<Options>(all, "dmc")?;
    let engine = &options.engine;
    ensure!(
        ["auto", "native", "python"].contains(&engine.as_str()),
        "env.dmc.engine is '{engine}', but must be auto, native or python"
    );
    let needs = || format!("dmc_{name} cannot be simulated without Python (env.dmc.engine is {engine})");
    let models = models(name, &options, all).with_context(needs)?;
    let (domain, task) = split(name).with_context(needs)?;
    let repeat = options.repeat;
    ensure!(
        repeat >= 1.0 && repeat.fract() == 0.0,
        "env.dmc.repeat is {repeat}, but has to be a whole number of 1 or more"
    );
    simulate(domain, task, models, repeat as usize, seed)
}

/// Domain and task of a name; `cup` is short for `ball_in_cup`.
fn split(name: &str) -> Option<(&'static str, &'static str)> {
    let name = if name.starts_with("cup_") { format!("ball_in_{name}") } else { name.to_string() };
    let all = TASKS.iter().flat_map(|(domain, tasks)| tasks.iter().map(move |task| (*domain, *task)));
    all.into_iter().find(|(domain, task)| format!("{domain}_{task}") == name)
}

/// The folder of the task's model. The error says why it cannot be simulated here.
fn models(name: &str, options: &Options, all: &Value) -> Result<PathBuf> {
    ensure!(
        cfg!(feature = "mujoco"),
        "this program was built without MuJoCo: build it with `cargo build --release --features mujoco`, after the \
         preparations in docs/environments.md, or set --env.dmc.engine python"
    );
    ensure!(!options.image, "images are drawn by Python: add --env.dmc.image false, or --env.dmc.engine python");
    ensure!(!options.film, "videos are drawn by Python: add --env.dmc.film false, or --env.dmc.engine python");
    ensure!(options.proprio, "without images, it needs --env.dmc.proprio true");
    if split(name).is_none() {
        let domains = TASKS.map(|(domain, tasks)| format!("{domain} ({})", tasks.join(", ")));
        bail!("the tasks that can are those of {}; for others, --env.dmc.engine python", domains.join(", "));
    }
    let kwargs = all.get("kwargs").and_then(Value::as_object);
    if let Some(key) = kwargs.and_then(|kwargs| kwargs.keys().next()) {
        bail!("env.kwargs.{key} is an argument for Python: leave it out, or add --env.dmc.engine python");
    }
    let python = bridge::python(all);
    models_folder(python).with_context(|| {
        format!(
            "'{python}' has no package dm_control, whose models are needed: run `{python} -m pip install \
             \"./python[dmc]\"` in the repository, or name another Python with --env.python"
        )
    })
}

/// The folder of the models that the package dm_control of a Python brings; none where there is no such package.
pub fn models_folder(python: &str) -> Option<PathBuf> {
    packages::folder(python, "dm_control", "suite")
}

#[cfg(feature = "mujoco")]
fn simulate(domain: &str, task: &str, models: PathBuf, repeat: usize, seed: u32) -> Result<Box<dyn Env>> {
    Ok(Box::new(native::Dmc::new(domain, task, &models, repeat, seed)?))
}

#[cfg(not(feature = "mujoco"))]
fn simulate(domain: &str, task: &str, _: PathBuf, _: usize, _: u32) -> Result<Box<dyn Env>> {
    bail!("dmc_{domain}_{task} needs a program that was built with the feature mujoco")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make::is_external;
    use serde_json::json;

    fn complaint(task: &str, options: Value) -> String {
        format!("{:#}", crate::make(task, 0, 0, &options).err().unwrap())
    }

    #[test]
    fn names_have_a_domain_and_a_task() {
        assert_eq!(split("cartpole_swingup_sparse"), Some(("cartpole", "swingup_sparse")));
        assert_eq!(split("cup_catch"), Some(("ball_in_cup", "catch")));
        assert_eq!(split("ball_in_cup_catch"), split("cup_catch"));
        assert!(split("walker").is_none() && split("humanoid_run").is_none());
    }

    #[test]
    fn python_is_used_where_it_must_or_shall_be() {
        for options in [
            Value::Null,
            json!({"dmc": {"image": true, "proprio": false}}),
            json!({"dmc": {"engine": "python", "image": false}}),
            json!({"dmc": {"image": false}, "kwargs": {"fast_render": true}}),
            json!({"dmc": {"image": false}, "python": "no-such-python"}),
        ] {
            assert!(is_external("dmc_walker_walk", &options), "{options}");
        }
        assert!(is_external("dmc_humanoid_run", &json!({"dmc": {"image": false}})));
    }

    #[test]
    fn what_cannot_be_simulated_here_is_told_with_the_cure() {
        let native = |more: Value| {
            let block = json!({"engine": "native", "image": more["image"] == true});
            json!({"dmc": block, "python": "no-such-python", "kwargs": more["kwargs"]})
        };
        let error = complaint("dmc_walker_walk", native(json!({})));
        let start = "dmc_walker_walk cannot be simulated without Python (env.dmc.engine is native): ";
        assert!(error.starts_with(start), "{error}");
        let error = complaint("dmc_walker_walk", json!({"dmc": {"engine": "rust"}}));
        assert_eq!(error, "env.dmc.engine is 'rust', but must be auto, native or python");
        assert!(complaint("dmc_walker_walk", json!({"dmc": {"engine": 1}})).contains("env.dmc is {\"engine\":1}"));
        if cfg!(not(feature = "mujoco")) {
            let error = complaint("dmc_walker_walk", native(json!({})));
            assert!(error.contains("cargo build --release --features mujoco"), "{error}");
            return;
        }
        for (task, more, cure) in [
            ("dmc_walker_walk", json!({}), "no-such-python -m pip install"),
            ("dmc_walker_walk", json!({"image": true}), "--env.dmc.image false"),
            ("dmc_walker_walk", json!({"kwargs": {"fast_render": true}}), "env.kwargs.fast_render"),
            ("dmc_humanoid_run", json!({}), "walker (stand, walk, run); for others, --env.dmc.engine python"),
        ] {
            let error = complaint(task, native(more));
            assert!(error.contains(cure), "{error}");
        }
    }
}
