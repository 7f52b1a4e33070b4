//! `dreamer envs`: the tasks with their spaces.

use crate::{Failure, print};
use anyhow::anyhow;
use config::{Args, Config};
use spaces::{DType, Space, Spaces};

/// Keys that every task has, and that are not listed again for each.
const COMMON: [&str; 5] = ["reward", "is_first", "is_last", "is_terminal", "reset"];

/// Lists all tasks, or those whose names begin with one of the words.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let Some((key, _)) = args.flags.first() {
        return Err(Failure::Usage(anyhow!("'envs' takes names of tasks, but no flag '--{key}'")));
    }
    let tasks = envs::tasks();
    let mut text = String::new();
    if args.words.is_empty() {
        text += "Every task also observes reward (float32), is_first, is_last and is_terminal (bool).\n\n";
        for task in &tasks {
            text += &describe(&task.name, &task.description, &task.obs_space, &task.act_space);
        }
    }
    for word in &args.words {
        let mut found = tasks.iter().filter(|task| task.name.starts_with(word.as_str())).peekable();
        if found.peek().is_none() {
            // Some names hold a number, so that not all of them can be listed.
            let options = Config::resolve(&[], &[]).map_err(Failure::Run)?.env;
            let env = envs::make(word, 0, 0, &options).map_err(Failure::Usage)?;
            text += &describe(word, "", env.obs_space(), env.act_space());
        }
        for task in found {
            text += &describe(&task.name, &task.description, &task.obs_space, &task.act_space);
        }
    }
    print(&text);
    Ok(())
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
