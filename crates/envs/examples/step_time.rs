//! Processor time of a step, that of workers included: `step_time TASK [OPTIONS] [STEPS]`, with the block `env` as JSON.
//! Other work on the machine disturbs it less than it does the steps a second of `dreamer bench`.

use anyhow::{Context, Result};
use serde_json::Value;
use spaces::Array;

/// Actions are drawn before time is taken, and repeat after this many.
const ACTIONS: usize = 64;
/// Steps before that.
const WARM_UP: usize = 200;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let task = args.next().context("name a task, such as dmc_walker_walk")?;
    let options: Value = serde_json::from_str(&args.next().unwrap_or("{}".into())).context("OPTIONS must be JSON")?;
    let steps: usize = args.next().map_or(Ok(10_000), |steps| steps.parse()).context("STEPS must be a number")?;
    let mut env = envs::make(&task, 0, 0, &options)?;
    let mut rng = envs::Rng::new(0, 0);
    let mut draw = || {
        let mut action = envs::random_action(env.act_space(), &mut rng);
        action.insert("reset".into(), Array::bool(false));
        action
    };
    let actions: Vec<_> = (0..ACTIONS).map(|_| draw()).collect();
    let mut play = |steps: usize| actions.iter().cycle().take(steps).try_for_each(|action| env.step(action).map(drop));
    play(WARM_UP)?;
    let before = time()?;
    play(steps)?;
    let micros = (time()? - before) / steps as f64 * 1e6;
    println!("{task}: {micros:.1} microseconds of a processor a step, {:.0} steps in a second of it", 1e6 / micros);
    Ok(())
}

/// Seconds of processor time that this process and those that it started have used, as Linux tells them.
fn time() -> Result<f64> {
    let own = std::process::id().to_string();
    let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
    [own.as_str()].into_iter().chain(children.split_whitespace()).map(spent).sum()
}

/// The same of one process, in steps of 10 ms.
fn spent(process: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|x| x.parse::<f64>().ok()).context("/proc has another format");
    Ok((ticks(11)? + ticks(12)?) / 100.0) // user and system, the 14th and 15th of all fields
}
