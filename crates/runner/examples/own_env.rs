//! An environment of your own with the whole training command: `cargo run --release -p runner --example own_env`.

use anyhow::Result;
use config::{Args, Config};
use envs::record::{Moment, act_space, choice, flag, obs_space};
use envs::{Env, Rng};
use spaces::{Array, Record, Space, Spaces};

/// A corridor of ten fields: the left or the right end pays, as a light at the start says.
struct Corridor {
    obs_space: Spaces,
    act_space: Spaces,
    rng: Rng,
    place: usize,
    light: usize,
    over: bool,
}

impl Corridor {
    fn new(rng: Rng) -> Self {
        let seen = [("place", Space::discrete(&[], 10)), ("light", Space::discrete(&[], 3))];
        let act_space = act_space([("step", Space::discrete(&[], 2))]);
        Corridor { obs_space: obs_space(seen), act_space, rng, place: 5, light: 0, over: true }
    }
}

impl Env for Corridor {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let mut shown = 0; // the light is off, but at the start
        let moment = if self.over || flag(action, "reset")? {
            (self.place, self.light, self.over) = (5, self.rng.below(2), false);
            shown = 1 + self.light;
            Moment::FIRST
        } else {
            self.place = if choice(action, "step", 2)? == 0 { self.place - 1 } else { self.place + 1 };
            self.over = self.place == 0 || self.place == 9;
            let right = (self.place == 9) == (self.light == 1);
            let reward = if self.over && right { 1.0 } else { 0.0 };
            Moment { reward, is_first: false, is_last: self.over, is_terminal: self.over }
        };
        Ok(moment.record([("place", Array::i32(self.place as i32)), ("light", Array::i32(shown as i32))]))
    }
}

fn main() -> Result<()> {
    // The second argument holds what `--env.kwargs.NAME VALUE` gives.
    envs::register("corridor", |rng, _| Ok(Box::new(Corridor::new(rng))));
    let defaults = "--configs size1m --task corridor --run.train_ratio 64 --run.steps 4000 --batch_length 32";
    let words = defaults.split_whitespace().map(String::from).chain(std::env::args().skip(1));
    let args = Args::parse(&words.collect::<Vec<_>>())?;
    runner::run(Config::resolve(&args.configs, &args.flags)?)
}
