//! A trained agent in a loop of your own: `cargo run --release -p runner --example play RUN`.

use anyhow::{Context, Result};
use config::Config;
use dreamer_agent::Mode;
use spaces::Array;
use std::path::Path;

fn main() -> Result<()> {
    let run = std::env::args().nth(1).context("name a run folder: cargo run --release -p runner --example play RUN")?;
    // All that acting takes. A robot would fill in what `agent.obs_space()` lists, of the flags only `is_first`, by itself.
    let agent = runner::open_agent(Path::new(&run))?;
    let mut carry = agent.initial(1);

    let config = Config::from_yaml(&std::fs::read_to_string(Path::new(&run).join("config.yaml"))?)?;
    let mut env = envs::make(&config.task, 0, config.seed + 1, &config.env_options())?; // not the worlds of training
    let mut action = spaces::zeros(env.act_space());
    action.insert("reset".into(), Array::bool(true));
    let (mut score, mut episodes) = (0.0, 0);
    while episodes < 10 {
        let obs = env.step(&action)?;
        score += obs["reward"].item();
        // Continuous actions are for -1 to 1, to which `make` has brought this environment. Where that is not so,
        // `Space::from_policy` brings them to its bounds.
        let acted = agent.act(&mut carry, &spaces::stack([&obs]), Mode::Eval)?;
        action = spaces::row(&acted.action, 0);
        action.insert("reset".into(), obs["is_last"].clone());
        if obs["is_last"].item() == 1.0 {
            println!("score {score}");
            (score, episodes) = (0.0, episodes + 1);
        }
    }
    Ok(())
}
