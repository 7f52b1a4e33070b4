//! What a run prints before its first step and after its last.

use crate::driver::Driver;
use crate::log::format::{duration, short};
use crate::setup;
use anyhow::{Result, anyhow};
use config::Config;
use dreamer_agent::Agent;
use engine::Device;
use spaces::Spaces;
use std::path::Path;
use std::time::Duration;

/// Widest line.
const COLUMNS: usize = 100;
/// Width of the labels.
const LABEL: usize = 13;
/// Parameters from which on an update takes a CPU many seconds.
const LARGE: usize = 20_000_000;

/// What earlier processes of a run did, with the updates that they owe.
#[derive(Clone, Copy, Default)]
pub struct Done {
    pub steps: u64,
    pub updates: u64,
}

/// Version, device, spaces, parameters, replay and the arithmetic of steps.
pub fn text(config: &Config, root: &Path, driver: &Driver, agent: Option<&Agent>, done: Done) -> Result<String> {
    let isa = engine::cpu::Isa::detect().map_err(|sentence| anyhow!(sentence))?;
    let threads = rayon::current_num_threads();
    let (obs, act) = (spaces::observed(driver.obs_space()), spaces::chosen(driver.act_space()));
    let mut lines = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    let on = agent.map_or(Device::Cpu, Agent::device);
    let device = match on {
        Device::Cpu => "cpu".to_string(),
        Device::Gpu(gpu) => match agent.map_or(1, Agent::devices) {
            1 => gpu.properties().name.clone(),
            count => format!("{count} x {}", gpu.properties().name),
        },
    };
    put(&mut lines, "dreamer", &[format!("{version} · {device} · {threads} threads · {}", isa.name())]);
    let sync = if config.run.sync { " · synchronous" } else { "" };
    put(&mut lines, "run", &[format!("{} · {} · seed {}{sync}", config.task, config.script, config.seed)]);
    put(&mut lines, "folder", &[root.display().to_string()]);
    put(&mut lines, "observations", &spaces(&obs));
    put(&mut lines, "actions", &spaces(&act));
    put(&mut lines, "parameters", &[parameters(agent)]);
    if config.script != "eval_only" {
        if let Some(note) = note(on, agent.map_or(0, count)) {
            put(&mut lines, "note", &[note.to_string()]);
        }
        if config.task.starts_with("dummy_") {
            put(&mut lines, "note", &["this task is a stand-in without sense, for tests: choose one by --task".into()]);
        }
        put(&mut lines, "replay", &[replay_line(config, driver, agent)]);
    }
    put(&mut lines, "steps", &[step_line(config, done)]);
    Ok(lines.join("\n"))
}

/// The result of a run and its folder. `score` is a phrase about the scores of episodes, if one has ended.
pub fn end(root: &Path, step: u64, updates: u64, score: Option<String>, seconds: f64) -> String {
    let score = score.unwrap_or_else(|| "no episode ended".to_string());
    let time = duration(Duration::from_secs_f64(seconds.max(0.0)));
    let mut lines = Vec::new();
    put(&mut lines, "result", &[format!("{score} · {step} steps · {updates} updates · {time}")]);
    put(&mut lines, "folder", &[root.display().to_string()]);
    lines.join("\n")
}

/// A label and items beside it, wrapped between items at the width of the line.
fn put(lines: &mut Vec<String>, label: &str, items: &[String]) {
    let mut line = format!("{label:LABEL$}");
    let mut empty = true;
    for item in items {
        let width = line.chars().count() + item.chars().count() + 3;
        if !empty && width > COLUMNS {
            lines.push(std::mem::replace(&mut line, " ".repeat(LABEL)));
            empty = true;
        }
        line = if empty { line + item } else { line + " · " + item };
        empty = false;
    }
    // An item may be wider, such as a folder's name, which is not cut.
    lines.push(line);
}

fn spaces(spaces: &Spaces) -> Vec<String> {
    spaces.iter().map(|(key, space)| format!("{key} {space}")).collect()
}

fn parameters(agent: Option<&Agent>) -> String {
    let Some(agent) = agent else { return "none: actions are random".to_string() };
    let parts: Vec<String> =
        agent.param_counts().iter().map(|(name, n)| format!("{name} {}", short(*n as f64))).collect();
    format!("{} = {}", short(count(agent) as f64), parts.join(" + "))
}

/// A warning: the official default is size200m, which surprises whoever names only a task.
fn note(device: Device, parameters: usize) -> Option<&'static str> {
    (device == Device::Cpu && parameters >= LARGE)
        .then_some("a CPU may take many seconds per update of this size: try --configs size1m")
}

fn count(agent: &Agent) -> usize {
    agent.param_counts().iter().map(|(_, n)| n).sum()
}

fn replay_line(config: &Config, driver: &Driver, agent: Option<&Agent>) -> String {
    let step = replay::bytes_per_step(&setup::step_spaces(driver, agent)).max(1);
    let limit = replay::capacity_bytes(config.replay.memory_share);
    let steps = (config.replay.size as u64).min(limit / step as u64);
    let bytes = steps as f64 * step as f64;
    format!(
        "{} steps of {}B = {}B, {:.0} % of memory (at most {:.0} %)",
        short(steps as f64),
        short(step as f64),
        short(bytes),
        100.0 * bytes / replay::memory_bytes() as f64,
        100.0 * config.replay.memory_share
    )
}

fn step_line(config: &Config, done: Done) -> String {
    let run = &config.run;
    let repeat = setup::action_repeat(config);
    let batch = (config.batch_size * config.batch_length) as f64;
    let rate = if run.train_ratio < 0.0 { 1.0 } else { run.train_ratio / batch };
    let frames = match repeat {
        1 => "frames".to_string(),
        n => format!("x {n} = {} frames", short((run.steps * n) as f64)),
    };
    let total = run.limit().map_or("endless".to_string(), |steps| short(steps as f64));
    if config.script == "eval_only" {
        return format!("{total} policy steps ({frames})");
    }
    let updates = match (run.limit(), config.random_agent) {
        (_, true) => "no updates".to_string(),
        (Some(_), _) => format!("{} updates", short(updates(config, rate, done) as f64)),
        (None, _) => format!("{} updates a step", short(rate)),
    };
    let frames = if repeat == 1 { format!("= {total} frames") } else { frames };
    format!("{total} policy steps {frames} · {updates} · replay ratio {}", short(run.train_ratio))
}

/// Updates of the whole run: the first is done when the replay holds `batch_size * batch_length` sequences. Of a resumed
/// run that has made some, those, and the rest by the ratio.
fn updates(config: &Config, rate: f64, done: Done) -> u64 {
    if done.updates > 0 {
        return done.updates + (config.run.steps.saturating_sub(done.steps) as f64 * rate) as u64;
    }
    let length = config.consec_train * config.batch_length + config.replay_context;
    let prefill = config.batch_size * config.batch_length + config.run.envs * length.saturating_sub(1);
    match config.run.steps.checked_sub(prefill as u64) {
        Some(steps) if rate > 0.0 => 1 + (steps as f64 * rate) as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_wrap_within_the_width() {
        let mut lines = Vec::new();
        let items: Vec<String> = (0..20).map(|i| format!("key{i} float32 [{i}]")).collect();
        put(&mut lines, "observations", &items);
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS));
        assert!(lines[0].starts_with("observations key0") && lines[1].starts_with("             key"));
        assert_eq!(lines.join("").matches("key").count(), 20);
    }

    #[test]
    fn a_resumed_run_is_told_the_updates_done_and_those_to_come() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::train::tests::config(dir.path(), &[("run.steps", "1000")]);
        assert_eq!(updates(&config, 0.5, Done { steps: 900, updates: 7 }), 57);
        assert_eq!(updates(&config, 0.5, Done { steps: 2000, updates: 7 }), 7);
        assert!(updates(&config, 0.5, Done { steps: 900, updates: 0 }) > 300);
    }

    #[test]
    fn sizes_that_are_too_large_for_a_cpu_are_noted() {
        let [size12m, size25m] = [9_700_000, 21_800_000]; // from vectors, which takes the fewest parameters
        assert_eq!(note(Device::Cpu, size12m), None);
        assert!(note(Device::Cpu, size25m).is_some_and(|note| note.len() + LABEL <= COLUMNS));
    }

    #[test]
    fn the_end_tells_score_steps_updates_time_and_folder() {
        let text = end(Path::new("a/b"), 20000, 1250, Some("mean score 0.980".into()), 61.0);
        let want = "mean score 0.980 · 20000 steps · 1250 updates · 1:01";
        assert!(text.contains(want) && text.ends_with("a/b"), "{text}");
    }
}
