//! `dummy_disc`, `dummy_cont`, `dummy_all`: every kind of space, for tests of everything else.

use crate::draw::Canvas;
use crate::record::{Moment, act_space, flag, obs_space};
use crate::{Env, Rng, state};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record, Space, Spaces};

/// The block `env.dummy` of the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Height and width of the pictures in pixels.
    pub size: [usize; 2],
    /// Steps of an episode.
    pub length: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { size: [64, 64], length: 100 }
    }
}

/// Which spaces a dummy has.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Disc,
    Cont,
    All,
}

#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
    done: bool,
    rng: Rng,
}

/// Each step pays 1 whatever the action, and the episode is terminal at its `length`. What the
/// observations hold follows from the step and some noise; the actions are only checked.
pub struct Dummy {
    obs_space: Spaces,
    act_space: Spaces,
    kind: Kind,
    size: [usize; 2],
    length: usize,
    state: State,
}

impl Dummy {
    pub fn new(kind: Kind, options: Options, rng: Rng) -> Result<Self> {
        let Options { size: [height, width], length } = options;
        ensure!(height > 0 && width > 0, "env.dummy.size is [{height}, {width}]; neither may be 0");
        ensure!(length > 0, "env.dummy.length is 0; an episode needs at least one step");
        let common = [
            ("image", Space::image(height, width, 3)),
            ("vector", Space::float(&[7])),
            ("token", Space::discrete(&[], 256)),
            ("step", Space::bounded(&[], 0.0, length as f64)),
        ];
        let mut observed = obs_space(common);
        if kind == Kind::All {
            let more = [
                ("depth", Space::image(height, width, 1)),
                ("matrix", Space::bounded(&[3, 2], -1.0, 1.0)),
                ("tokens", Space::discrete(&[2, 3], 5)),
                ("flag", Space::boolean()),
                ("log/progress", Space::bounded(&[], 0.0, 1.0)),
                ("log/picture", Space::image(height, width, 3)),
            ];
            observed.extend(more.map(|(key, space)| (key.to_string(), space)));
        }
        let acted = match kind {
            Kind::Disc => act_space([("action", Space::discrete(&[], 5))]),
            Kind::Cont => act_space([("action", Space::bounded(&[6], -1.0, 1.0))]),
            Kind::All => act_space([
                ("action", Space::discrete(&[], 5)),
                ("buttons", Space::discrete(&[3], 2)),
                ("move", Space::bounded(&[2], -2.0, 4.0)),
                ("turn", Space::bounded(&[], -1.0, 1.0)),
            ]),
        };
        let state = State { step: 0, done: true, rng };
        Ok(Dummy { obs_space: observed, act_space: acted, kind, size: [height, width], length, state })
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Disc => "dummy_disc",
            Kind::Cont => "dummy_cont",
            Kind::All => "dummy_all",
        }
    }

    /// A bright square that moves to the right by one pixel a step.
    fn draw(&self) -> Array {
        let [height, width] = self.size;
        let mut canvas = Canvas::new(height, width, [20, 40, 60]);
        let side = height.min(width).div_ceil(4);
        let left = self.state.step % width;
        canvas.fill(left..left + side, height / 2..height / 2 + side, [250, 200, 50]);
        canvas.finish()
    }

    fn observe(&mut self, moment: Moment) -> Record {
        let step = self.state.step;
        let rng = &mut self.state.rng;
        let vector = (0..7).map(|_| rng.normal() as f32).collect();
        let matrix = (0..6).map(|_| (2.0 * rng.uniform() - 1.0) as f32).collect();
        let tokens = (0..6).map(|_| rng.below(5) as i32).collect();
        let image = self.draw();
        let mut record = moment.record([
            ("image", image.clone()),
            ("vector", Array::from_f32(&[7], vector)),
            ("token", Array::i32((step % 256) as i32)),
            ("step", Array::f32(step as f32)),
        ]);
        if self.kind == Kind::All {
            let [height, width] = self.size;
            let depth = vec![(step % 256) as u8; height * width];
            let more = [
                ("depth", Array::from_u8(&[height, width, 1], depth)),
                ("matrix", Array::from_f32(&[3, 2], matrix)),
                ("tokens", Array::from_i32(&[2, 3], tokens)),
                ("flag", Array::bool(step % 2 == 1)),
                ("log/progress", Array::f32(step as f32 / self.length as f32)),
                ("log/picture", image),
            ];
            record.extend(more.map(|(key, value)| (key.to_string(), value)));
        }
        record
    }
}

impl Env for Dummy {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        if flag(action, "reset")? || self.state.done {
            (self.state.step, self.state.done) = (0, false);
            return Ok(self.observe(Moment::FIRST));
        }
        self.state.step += 1;
        let done = self.state.step >= self.length;
        self.state.done = done;
        Ok(self.observe(Moment { reward: 1.0, is_first: false, is_last: done, is_terminal: done }))
    }

    fn render(&self) -> Option<Array> {
        Some(self.draw())
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save(self.name(), &self.state)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let state: State = state::load(self.name(), bytes)?;
        ensure!(state.step <= self.length, "the saved state of '{}' is damaged: step {}", self.name(), state.step);
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_has_its_length_and_pays_1_a_step() {
        let mut env = Dummy::new(Kind::All, Options { size: [8, 12], length: 5 }, Rng::new(0, 0)).unwrap();
        let action = Record::from([("reset".into(), Array::bool(false))]);
        for _ in 0..2 {
            for step in 0..=5 {
                let obs = env.step(&action).unwrap();
                assert_eq!(obs["step"].item(), step as f32);
                assert_eq!(obs["reward"].item(), (step > 0) as u8 as f32);
                assert_eq!(flag(&obs, "is_first").unwrap(), step == 0);
                assert_eq!(flag(&obs, "is_terminal").unwrap(), step == 5);
                assert_eq!(obs["depth"].shape, [8, 12, 1]);
            }
        }
    }
}
