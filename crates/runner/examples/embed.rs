//! The agent in a loop of your own: `cargo run --release -p runner --example embed [FILE]`.
//!
//! Learns catch in some minutes, as `dreamer train` does, and writes the agent to FILE, which `run.from_checkpoint` and
//! `runner::checkpoint::read_agent` take.

use anyhow::Result;
use config::Config;
use dreamer_agent::{Agent, Mode};
use replay::{Mode as Sampling, Options, Replay};
use spaces::Array;

fn main() -> Result<()> {
    // Any environment will do that gives named arrays with is_first, is_last, is_terminal and reward. Continuous actions,
    // which catch has not, are for -1 to 1; `Space::from_policy` brings them to other bounds.
    let mut env = envs::make("catch", 0, 0, &serde_json::json!({}))?;
    let config = Config::resolve(&["quickstart".into()], &[])?.agent;
    let mut agent = Agent::new(env.obs_space(), env.act_space(), &config)?;

    let length = config.batch_length + config.replay_context;
    let mut replay = Replay::new(Options { length, capacity: 100_000, ..Options::default() })?;
    let (mut acting, mut learning) = (agent.initial(1), agent.initial(config.batch_size));
    let mut action = spaces::zeros(env.act_space());
    action.insert("reset".into(), Array::bool(true));
    let (mut score, mut scores) = (0.0, vec![]);

    for step in 1..=10_000 {
        let obs = env.step(&action)?;
        let acted = agent.act(&mut acting, &spaces::stack([&obs]), Mode::Train)?;
        let last = obs["is_last"].item() == 1.0; // no action follows an episode's end: it is stored as zeros
        action = if last { spaces::zeros(agent.act_space()) } else { spaces::row(&acted.action, 0) };
        let mut transition = obs.clone();
        transition.extend(action.clone());
        transition.extend(spaces::row(&acted.replay, 0));
        replay.add(&transition, 0)?;
        action.insert("reset".into(), obs["is_last"].clone());
        score += obs["reward"].item();
        if last {
            scores.push(std::mem::take(&mut score));
        }

        // An update for every four steps, once there is something to learn from.
        let due = step % 4 == 0 && replay.len() >= config.batch_size * config.batch_length;
        if let Some(batch) = due.then(|| replay.sample(config.batch_size, Sampling::Train)).flatten() {
            let trained = agent.train(&mut learning, &batch)?;
            replay.update(&trained.replay)?;
            if step % 1000 == 0 {
                let recent = &scores[scores.len().saturating_sub(50)..];
                let mean = recent.iter().sum::<f32>() / recent.len() as f32;
                println!("step {step}: loss {:.3}, mean score {mean:.2}", trained.metrics["opt/loss"]);
            }
        }
    }
    match std::env::args().nth(1) {
        Some(path) => runner::checkpoint::write_agent(path.as_ref(), &agent.save()),
        None => Ok(()),
    }
}
