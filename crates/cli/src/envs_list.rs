//! `dreamer envs`: the tasks with their spaces.

use crate::{Failure, print};
use anyhow::anyhow;
use config::{Args, Config};
use spaces::{DType, Space, Spaces};

/// Keys that every task has, and that are not listed again for each.
const COMMON: [&str; 5] = ["reward", "is_first", "is_last", "is_terminal", "reset"];

/// Lists all tasks, or those whose names begin with one of the words.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let Some((key, _)) = args.flags.iter().find(|(key, _)| !key.starts_with("env.")) {
        return Err(Failure::Usage(anyhow!("'envs' takes names of tasks and keys of the block env, but no '--{key}'")));
    }
    let options = Config::resolve(&args.configs, &args.flags).map_err(Failure::Usage)?.env_options();
    let tasks = envs::tasks();
    let mut text = String::new();
    if args.words.is_empty() {
        text += "Every task also observes reward (float32), is_first, is_last and is_terminal (bool).\n\n";
        tasks
            .iter()
            .for_each(|task| text += &describe(&task.name, &task.description, &task.obs_space, &task.act_space));
        text += &suites();
    }
    for word in &args.words {
        let mut found = tasks.iter().filter(|task| task.name.starts_with(word.as_str())).peekable();
        if found.peek().is_none() {
            // Names that hold a number, and those of other processes, cannot all be listed.
            let failure = if envs::is_external(word, &options) { Failure::Run } else { Failure::Usage };
            let env = envs::make(word, 0, 0, &options).map_err(failure)?;
            text += &describe(word, "", env.obs_space(), env.act_space());
        }
        for task in found {
            // A full name is made with the options that were given.
            let env =
                (task.name == *word).then(|| envs::make(word, 0, 0, &options).map_err(Failure::Usage)).transpose()?;
            let (obs, act) =
                env.as_ref().map_or((&task.obs_space, &task.act_space), |env| (env.obs_space(), env.act_space()));
            text += &describe(&task.name, &task.description, obs, act);
        }
    }
    print(&text)
}

/// The suites of the Python package, what the user's own tasks are called, and what to install.
fn suites() -> String {
    let mut text = "Tasks that run in Python, with what installs them (docs/environments.md). After that,\n\
                    `dreamer envs TASK` shows what such a task sees and does.\n\n"
        .to_string();
    for suite in &envs::SUITES {
        text += &format!("{}\n  {}\n  {}\n\n", suite.name, suite.about, suite.install());
    }
    text += "py:FILE.py:NAME, py:MODULE:NAME\n  An environment of your own, in Python.\n  pip install ./python\n\n";
    text + "exec:PROGRAM\n  One in any other language (docs/bridge.md).\n\n"
}

/// A task with its observations and actions, one key a line.
fn describe(name: &str, about: &str, obs: &Spaces, act: &Spaces) -> String {
    let mut text = format!("{name}\n");
    if !about.is_empty() {
        text += &format!("  {about}\n");
    }
    for (side, spaces) in [("sees", obs), ("does", act)] {
        for (key, space) in spaces.iter().filter(|(key, _)| !COMMON.contains(&key.as_str())) {
            let shape = format!("{:?}", space.shape);
            let line = format!("  {side}  {key:<16} {:<8} {shape:<13} {}", space.dtype.name(), bounds(space));
            text += &format!("{}\n", line.trim_end());
        }
    }
    text + "\n"
}

/// The values a key may take, in words.
fn bounds(space: &Space) -> String {
    match space.dtype {
        DType::Bool => "false or true".into(),
        DType::U8 | DType::I32 => format!("{} to {}", space.low, space.high - 1.0),
        DType::F16 | DType::F32 if space.low.is_infinite() && space.high.is_infinite() => "any number".into(),
        DType::F16 | DType::F32 => format!("{} to {}", space.low, space.high),
    }
}
