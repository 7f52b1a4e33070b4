//! `env.dmc.engine`: whether this process simulates a task of DeepMind Control, or a Python worker.

use crate::{Env, bridge};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

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

/// What of the block `env.dmc` matters here; the rest is for Python.
#[derive(Deserialize)]
#[serde(default)]
struct Options {
    engine: String,
    repeat: f64,
    proprio: bool,
    image: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { engine: "auto".into(), repeat: 1.0, proprio: true, image: true }
    }
}

fn options(all: &Value) -> Result<Options> {
    match all.get("dmc") {
        None | Some(Value::Null) => Ok(Options::default()),
        Some(block) => Options::deserialize(block).with_context(|| format!("in the configuration, env.dmc is {block}")),
    }
}

/// Whether this process simulates the task. It is said to do so as well where that was asked for and cannot be: making
/// the environment tells why.
pub fn is_native(task: &str, all: &Value) -> bool {
    let Some(name) = task.strip_prefix("dmc_") else { return false };
    match options(all) {
        Ok(options) if options.engine == "auto" => models(name, &options, all).is_ok(),
        Ok(options) => options.engine != "python",
        Err(_) => true,
    }
}

/// The environment of `dmc_NAME`. `seed` is its own.
pub fn make(name: &str, seed: u32, all: &Value) -> Result<Box<dyn Env>> {
    let options = options(all)?;
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

/// The folder of the task's model. An error says what stands in the way of simulating it here.
fn models(name: &str, options: &Options, all: &Value) -> Result<PathBuf> {
    ensure!(
        cfg!(feature = "mujoco"),
        "this program was built without MuJoCo: build it with `cargo build --release --features mujoco`, after the \
         preparations in docs/environments.md, or set --env.dmc.engine python"
    );
    ensure!(!options.image, "images are drawn by Python: add --env.dmc.image false, or --env.dmc.engine python");
    ensure!(options.proprio, "without images, it needs --env.dmc.proprio true");
    if split(name).is_none() {
        let domains = TASKS.map(|(domain, tasks)| format!("{domain} ({})", tasks.join(", ")));
        bail!("the tasks that can are those of {}; for others, --env.dmc.engine python", domains.join(", "));
    }
    let kwargs = all.get("kwargs").and_then(Value::as_object);
    if let Some(key) = kwargs.and_then(|kwargs| kwargs.keys().next()) {
        bail!("env.kwargs.{key} is an argument for Python: leave it out, or add --env.dmc.engine python");
    }
    suite(bridge::python(all)).context(
        "the package dm_control, whose models are needed, was not found: run `pip install \"./python[dmc]\"` in the \
         repository, or name the Python that has it with --env.python",
    )
}

/// The folder of the models that the package dm_control of a Python brings; none where there is no such package. It is
/// not imported, which would take seconds, and is looked for once.
fn suite(python: &str) -> Option<PathBuf> {
    const WHERE: &str =
        "import importlib.util as u; print(u.find_spec('dm_control').submodule_search_locations[0], end='')";
    static FOUND: Mutex<BTreeMap<String, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let find = || {
        let output = Command::new(python).args(["-c", WHERE]).stdin(Stdio::null()).output().ok()?;
        let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?).join("suite");
        (output.status.success() && folder.is_dir()).then_some(folder)
    };
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.entry(python.to_string()).or_insert_with(find).clone()
}

#[cfg(feature = "mujoco")]
fn simulate(domain: &str, task: &str, models: PathBuf, repeat: usize, seed: u32) -> Result<Box<dyn Env>> {
    Ok(Box::new(crate::tasks::dmc::Dmc::new(domain, task, &models, repeat, seed)?))
}

#[cfg(not(feature = "mujoco"))]
fn simulate(domain: &str, task: &str, _: PathBuf, _: usize, _: u32) -> Result<Box<dyn Env>> {
    bail!("dmc_{domain}_{task} needs a program that was built with the feature mujoco")
}
