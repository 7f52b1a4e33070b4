//! The agent in a loop of your own: `cargo run --release -p runner --example embed`.

use anyhow::Result;
use config::Config;
use dreamer_agent::{Agent, Mode};
use replay::{Mode as Sampling, Options, Replay};
use spaces::{Array, Record};

fn main() -> Result<()> {
    // Any environment will do that gives named arrays with is_first, is_last, is_terminal and reward.
    let mut env = envs::make("memory_3", 0, 0, &serde_json::json!({}))?;
    let flags = [("batch_length".to_string(), vec!["16".to_string()]), ("agent.opt.lr".into(), vec!["1e-3".into()])];
    let config = Config::resolve(&["size1m".into(), "debug".into()], &flags)?.agent;
    let mut agent = Agent::new(env.obs_space(), env.act_space(), &config)?;

    let length = config.batch_length + config.replay_context;
    let mut replay = Replay::new(Options { length, capacity: 10_000, ..Options::default() })?;
    let (mut acting, mut learning) = (agent.initial(1), agent.initial(config.batch_size));
    let mut action: Record = env.act_space().iter().map(|(key, space)| (key.clone(), space.zeros())).collect();
    action.insert("reset".into(), Array::bool(true));

    for step in 0..2000 {
        let obs = env.step(&action)?;
        let batch = obs.iter().map(|(key, x)| (key.clone(), Array::stack([x]))).collect();
        let acted = agent.act(&mut acting, &batch, Mode::Train)?;
        let last = obs["is_last"].item() == 1.0; // no action follows an episode's end: it is stored as zeros
        let zeros = |x: &Array| Array::zeros(x.dtype(), &x.shape);
        let taken = |x: &Array| if last { zeros(&x.at(0)) } else { x.at(0) };
        action = acted.action.iter().map(|(key, x)| (key.clone(), taken(x))).collect();
        let mut transition = obs.clone();
        transition.extend(action.clone());
        transition.extend(acted.replay.iter().map(|(key, x)| (key.clone(), x.at(0))));
        replay.add(&transition, 0)?;
        action.insert("reset".into(), obs["is_last"].clone());

        if let Some(mut batch) = replay.sample(config.batch_size, Sampling::Train) {
            let consec = Array::from_i32(&[config.batch_size, length], vec![0; config.batch_size * length]);
            batch.insert("consec".into(), consec);
            let trained = agent.train(&mut learning, &batch)?;
            replay.update(&trained.replay)?;
            if step % 200 == 0 {
                println!("step {step}: loss {:.3}, reward {}", trained.metrics["opt/loss"], obs["reward"].item());
            }
        }
    }
    Ok(())
}
