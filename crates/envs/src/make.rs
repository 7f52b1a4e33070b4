//! `make` and `tasks`: environments by name, with the wrappers that they need.

use crate::tasks::cartpole::{self, Cartpole, View};
use crate::tasks::catch::Catch;
use crate::tasks::crafter::{self, Crafter};
use crate::tasks::dmc;
use crate::tasks::dummy::{Dummy, Kind};
use crate::tasks::memory::Memory;
use crate::tasks::pinpad::{self, PinPad};
use crate::wrappers::{ActionRepeat, CheckSpaces, ClipAction, NormalizeAction, ResizeImage, TimeLimit};
use crate::{Env, Rng, bridge};
use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use spaces::Spaces;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use strsim::osa_distance;

/// A native task as a list of them shows it, its spaces under the default options.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    pub name: String,
    pub description: String,
    pub obs_space: Spaces,
    pub act_space: Spaces,
}

/// The environment of a task, the `index`-th of a run: each index has random numbers of its own.
///
/// `options` is the block `env` of the configuration: one object for each suite, named by the
/// task's first word, of which every key has a default. Null means all defaults. A task that is not native
/// runs in a worker process of its own. The result checks its spaces, and takes continuous actions of any size: they
/// are cut to `[-1, 1]`, which spans the task's own bounds.
pub fn make(task: &str, index: usize, seed: u64, options: &Value) -> Result<Box<dyn Env>> {
    if is_external(task, options) {
        return make_many(task, index..index + 1, seed, options)?.pop().context("no environment was made");
    }
    let env = native(task, index, seed, options)?.ok_or_else(|| unknown(task))?;
    wrap(env, task)
}

/// The environments `indices` of a task. Those that run in worker processes start at the same time, and
/// several of them may share a process.
pub fn make_many(task: &str, indices: Range<usize>, seed: u64, options: &Value) -> Result<Vec<Box<dyn Env>>> {
    if !is_external(task, options) {
        return indices.map(|index| make(task, index, seed, options)).collect();
    }
    bridge::make(task, indices, seed, options)?.into_iter().map(|env| wrap(env, task)).collect()
}

/// How a registered environment is made: from its random numbers and the block `env.kwargs`.
type Make = Arc<dyn Fn(Rng, &Value) -> Result<Box<dyn Env>> + Send + Sync>;

/// Environments of the program that uses this library.
static REGISTERED: Mutex<BTreeMap<String, Make>> = Mutex::new(BTreeMap::new());

/// Adds a task of one's own, so that a configuration can name it. It may be made many times over, for several
/// environments and after crashes, each time with other random numbers; `options` is the block `env.kwargs`.
/// The same name again replaces it, and a native task of that name yields to it.
pub fn register<M>(task: &str, make: M)
where
    M: Fn(Rng, &Value) -> Result<Box<dyn Env>> + Send + Sync + 'static,
{
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).insert(task.to_string(), Arc::new(make));
}

/// Whether a task was added by [`register`].
pub fn is_registered(task: &str) -> bool {
    registered(task).is_some()
}

/// The maker of a registered task.
fn registered(task: &str) -> Option<Make> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).get(task).cloned()
}

/// Whether a task runs in a worker process. `options` are those of [`make`].
pub fn is_external(task: &str, options: &Value) -> bool {
    let native = match bridge::suite(task) {
        "crafter" => crafter_is_native(options),
        _ => dmc::is_native(task, options),
    };
    registered(task).is_none() && bridge::has_worker(task) && !native
}

/// Whether the native engine plays Crafter. Options that cannot be parsed count as native; making it reports them.
fn crafter_is_native(all: &Value) -> bool {
    let known = options::<crafter::Kwargs>(all, "kwargs").is_ok();
    options::<crafter::Options>(all, "crafter").map_or(true, |own| own.is_native(bridge::python(all), known))
}

/// What every environment is wrapped in.
fn wrap(env: Box<dyn Env>, task: &str) -> Result<Box<dyn Env>> {
    let env = Box::new(CheckSpaces::new(env, task)?);
    let env = Box::new(NormalizeAction::new(env));
    Ok(Box::new(ClipAction::new(env, -1.0, 1.0)?))
}

/// The registered or native task without the wrappers that all have; none where there is no such task.
fn native(task: &str, index: usize, seed: u64, all: &Value) -> Result<Option<Box<dyn Env>>> {
    let rng = Rng::new(seed, index as u64);
    if let Some(make) = registered(task) {
        return make(rng, all.get("kwargs").unwrap_or(&Value::Null)).map(Some);
    }
    let (suite, name) = task.split_once('_').unwrap_or((task, ""));
    let env: Box<dyn Env> = match (suite, name) {
        ("catch", "") => Box::new(Catch::new(options(all, suite)?, rng)?),
        ("cartpole", "swingup") => swingup(View::Vector, options(all, suite)?, rng)?,
        ("cartpole", "swingup_pixels") => swingup(View::Pixels, options(all, suite)?, rng)?,
        ("memory", delay) => match delay.parse() {
            Ok(delay) => Box::new(Memory::new(delay, options(all, suite)?, rng)?),
            Err(_) => return Ok(None),
        },
        ("pinpad", name) => match pinpad::NAMES.iter().find(|(known, _)| *known == name) {
            Some(&(_, pads)) => {
                let pinpad::Options { size, length } = options(all, suite)?;
                Box::new(ResizeImage::new(Box::new(PinPad::new(pads, length, rng)?), size)?)
            }
            None => return Ok(None),
        },
        ("crafter", name) => {
            let seed = bridge::env_seed(&mut Rng::new(seed, 0), index); // as the Python worker has it
            let kwargs = options(all, "kwargs")?;
            Box::new(Crafter::new(name, &options(all, suite)?, &kwargs, bridge::python(all), seed)?)
        }
        ("dmc", name) => {
            let seed = bridge::env_seed(&mut Rng::new(seed, 0), index); // as the Python worker has it
            dmc::make(name, seed, all)?
        }
        ("dummy", "disc") => Box::new(Dummy::new(Kind::Disc, options(all, suite)?, rng)?),
        ("dummy", "cont") => Box::new(Dummy::new(Kind::Cont, options(all, suite)?, rng)?),
        ("dummy", "all") => Box::new(Dummy::new(Kind::All, options(all, suite)?, rng)?),
        _ => return Ok(None),
    };
    let kwargs = all.get("kwargs").and_then(Value::as_object).filter(|_| !["crafter", "dmc"].contains(&suite));
    if let Some((name, _)) = kwargs.and_then(|kwargs| kwargs.iter().next()) {
        bail!("env.kwargs.{name} is given, but the task {task} takes no arguments; its options are in env.{suite}");
    }
    Ok(Some(env))
}

fn swingup(view: View, options: cartpole::Options, rng: Rng) -> Result<Box<dyn Env>> {
    let env = Box::new(Cartpole::new(view, options.size, rng)?);
    let env = Box::new(TimeLimit::new(env, options.length).context("env.cartpole.length")?);
    Ok(Box::new(ActionRepeat::new(env, options.repeat).context("env.cartpole.repeat")?))
}

/// The options of one suite out of the block `env`.
pub(crate) fn options<T: DeserializeOwned + Default>(all: &Value, suite: &str) -> Result<T> {
    match all.get(suite) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => {
            T::deserialize(whole(value)).with_context(|| format!("in the configuration, env.{suite} is {value}"))
        }
    }
}

/// The same with integers for floats without a fraction, so that `1e4` is a count.
fn whole(value: &Value) -> Value {
    match value {
        Value::Number(x) => match x.as_f64() {
            Some(x) if x.fract() == 0.0 && x.abs() < 1e15 => Value::from(x as i64),
            _ => value.clone(),
        },
        Value::Array(xs) => xs.iter().map(whole).collect(),
        Value::Object(xs) => xs.iter().map(|(key, x)| (key.clone(), whole(x))).collect(),
        _ => value.clone(),
    }
}

/// Every native task. `memory_N` exists for any delay N; two of them are listed.
pub fn tasks() -> Vec<TaskInfo> {
    let describe = |(name, description): (String, String)| {
        let env = make(&name, 0, 0, &Value::Null).ok()?; // a test shows that each of them is made
        let (obs_space, act_space) = (env.obs_space().clone(), env.act_space().clone());
        Some(TaskInfo { name, description, obs_space, act_space })
    };
    names().into_iter().filter_map(describe).collect()
}

/// Names and descriptions of the native tasks.
fn names() -> Vec<(String, String)> {
    let fixed = [
        ("catch", "Catch a falling ball with a paddle; from pixels, reward 1 or -1 after 9 steps."),
        ("cartpole_swingup", "Swing a pole up by pushing its cart and balance it; dm_control's physics and reward."),
        ("cartpole_swingup_pixels", "The same from pixels."),
        ("memory_10", "Name a cue 10 steps after it was shown; any other delay N is memory_N."),
        ("memory_20", "Name a cue 20 steps after it was shown."),
        ("dummy_disc", "Meaningless observations of several kinds, a discrete action; for tests."),
        ("dummy_cont", "The same with a continuous action."),
        ("dummy_all", "Every kind of observation and action space at once."),
    ];
    let mut all: Vec<(String, String)> = fixed.map(|(name, text)| (name.into(), text.into())).into();
    let pinpads = pinpad::NAMES.map(|(name, pads)| {
        (format!("pinpad_{name}"), format!("Step on {pads} coloured pads in the right order; from pixels, reward 10."))
    });
    all.splice(5..5, pinpads);
    all
}

/// A sentence for a task that does not exist. Its suite may be misspelt, or missing; native tasks with its first word
/// come first.
fn unknown(task: &str) -> anyhow::Error {
    let mut names: Vec<String> = names().into_iter().map(|(name, _)| name).collect();
    let rest = task.split_once('_').map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
    let suites = || bridge::SUITES.iter().map(|suite| suite.name);
    let meant = suites().find(|suite| osa_distance(suite, bridge::suite(task)) <= 1);
    if let (Some(suite), Some(rest)) = (meant, rest) {
        names.push(format!("{suite}_{rest}"));
    }
    let first = task.split('_').next().unwrap_or(task);
    let begins = |name: &str| name.split('_').next() == Some(first);
    names.sort_by_key(|name| (!begins(name), osa_distance(task, name), name.clone()));
    let near = names[..3].join(", ");
    anyhow!(
        "unknown task '{task}'; the nearest are: {near} (`dreamer envs` lists all; a task of a suite begins with the \
         suite, as in gym_{task}, atari_{task} or dmc_{task})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random_action;
    use crate::record::flag;
    use serde_json::json;

    fn complaint(task: &str, options: Value) -> String {
        format!("{:#}", make(task, 0, 0, &options).err().unwrap())
    }

    #[test]
    fn every_listed_task_is_made() {
        let listed: Vec<String> = tasks().into_iter().map(|task| task.name).collect();
        assert_eq!(listed, names().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        assert_eq!(listed.len(), 14);
        assert!(make("memory_3", 0, 0, &Value::Null).is_ok());
    }

    #[test]
    fn a_registered_task_is_made_with_its_options_and_wrappers() {
        assert!(make("corridor", 0, 0, &Value::Null).is_err());
        register("corridor", |rng, options| {
            let delay = options["delay"].as_f64().context("env.kwargs.delay is missing")?;
            Ok(Box::new(Memory::new(delay as usize, Default::default(), rng)?))
        });
        assert!(complaint("corridor", json!({"kwargs": {}})).contains("env.kwargs.delay"));
        let mut env = make("corridor", 0, 0, &json!({"kwargs": {"delay": 3}})).unwrap();
        let mut action = random_action(env.act_space(), &mut Rng::new(0, 0));
        action.insert("reset".into(), spaces::Array::bool(false));
        let ends = (0..6).map(|_| flag(&env.step(&action).unwrap(), "is_last").unwrap());
        assert_eq!(ends.collect::<Vec<_>>(), [false, false, false, false, false, true]);
        assert!(!is_external("corridor", &Value::Null));
    }

    #[test]
    fn unknown_tasks_name_the_nearest() {
        let error = complaint("cartpole_swing", Value::Null);
        assert!(error.starts_with("unknown task 'cartpole_swing'; the nearest are: cartpole_swingup, "), "{error}");
        assert!(complaint("memory_x", Value::Null).contains("memory_10"));
        assert!(complaint("gim_CartPole-v1", Value::Null).contains("nearest are: gym_CartPole-v1, "));
        assert!(complaint("walker_walk", Value::Null).contains("atari_walker_walk or dmc_walker_walk"));
        assert!(complaint("memory_99999", Value::Null).contains("longest delay is 10000"));
        assert!(complaint("", Value::Null).contains("unknown task ''"));
    }

    #[test]
    fn options_are_honoured_and_mistakes_in_them_named() {
        let options = json!({
            "catch": {"size": [20, 30]}, "pinpad": {"size": [96, 80]}, "atari": {"repeat": 4}, "dummy": {"length": 1e2}
        });
        for (task, size) in [("catch", [20, 30, 3]), ("pinpad_six", [96, 80, 3]), ("dummy_disc", [64, 64, 3])] {
            assert_eq!(make(task, 0, 0, &options).unwrap().obs_space()["image"].shape, size);
        }
        let error = complaint("catch", json!({"catch": {"sise": [8, 8]}}));
        assert_eq!(error, "in the configuration, env.catch is {\"sise\":[8,8]}: unknown field `sise`, expected `size`");
        assert!(complaint("catch", json!({"catch": {"size": [2, 2]}})).contains("at least [10, 5] pixels"));
        assert!(complaint("cartpole_swingup", json!({"cartpole": {"repeat": 0}})).contains("env.cartpole.repeat"));
        assert!(complaint("cartpole_swingup", json!({"cartpole": {"length": -1}})).contains("env.cartpole is"));
    }

    #[test]
    fn a_cartpole_episode_has_1000_physics_steps() {
        for (options, steps) in [(Value::Null, 500), (json!({"cartpole": {"repeat": 3}}), 334)] {
            let mut env = make("cartpole_swingup", 0, 0, &options).unwrap();
            let mut rng = Rng::new(0, 0);
            for _ in 0..2 {
                for step in 0..=steps {
                    let action = random_action(env.act_space(), &mut rng);
                    let obs = env.step(&action).unwrap();
                    assert_eq!(flag(&obs, "is_first").unwrap(), step == 0);
                    assert_eq!(flag(&obs, "is_last").unwrap(), step == steps);
                    assert!(!flag(&obs, "is_terminal").unwrap());
                }
            }
        }
    }
}
