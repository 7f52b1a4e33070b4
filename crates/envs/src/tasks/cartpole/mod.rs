//! `cartpole_swingup` and `cartpole_swingup_pixels`: swing a hanging pole up and keep it there.

mod physics;
mod reward;
#[cfg(test)]
mod tests;

use crate::draw::Canvas;
use crate::record::{Moment, act_space, flag, obs_space};
use crate::{Env, Rng, state};
use anyhow::{Context, Result, ensure};
use physics::{Friction, HALF_LENGTH, State as Pose};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record, Space, Spaces};
use std::f64::consts::PI;

/// The block `env.cartpole` of the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Height and width of the picture in pixels.
    pub size: [usize; 2],
    /// Physics steps of 0.01 s that one action lasts; their rewards are summed.
    pub repeat: usize,
    /// Physics steps of an episode.
    pub length: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { size: [64, 64], repeat: 2, length: 1000 }
    }
}

/// What the agent sees.
#[derive(Clone, Copy, PartialEq)]
pub enum View {
    /// `position`: cart in metres, cosine and sine of the pole's angle; `velocity`: m/s and rad/s.
    Vector,
    /// `image`.
    Pixels,
}

#[derive(Serialize, Deserialize)]
struct State {
    pose: Pose,
    started: bool,
    rng: Rng,
}

/// One step is 0.01 s. `action` is the force on the cart in tens of newtons. The episode has no
/// end of its own; wrap it in a time limit.
pub struct Cartpole {
    obs_space: Spaces,
    act_space: Spaces,
    view: View,
    size: [usize; 2],
    state: State,
}

impl Cartpole {
    /// `size` is the height and width of the picture in pixels.
    pub fn new(view: View, size: [usize; 2], rng: Rng) -> Result<Self> {
        let [height, width] = size;
        ensure!(height.min(width) >= 8, "env.cartpole.size is [{height}, {width}]; it needs at least [8, 8] pixels");
        let observed = match view {
            View::Vector => obs_space([("position", Space::float(&[3])), ("velocity", Space::float(&[2]))]),
            View::Pixels => obs_space([("image", Space::image(height, width, 3))]),
        };
        let pose = Pose { position: 0.0, angle: PI, velocity: 0.0, spin: 0.0 };
        Ok(Cartpole {
            obs_space: observed,
            act_space: act_space([("action", Space::bounded(&[1], -1.0, 1.0))]),
            view,
            size,
            state: State { pose, started: false, rng },
        })
    }

    /// A cart at rest with a hanging pole, plus a little noise.
    fn start(&mut self) {
        let mut noise = || 0.01 * self.state.rng.normal();
        let (position, angle, velocity, spin) = (noise(), PI + noise(), noise(), noise());
        self.state.pose = Pose { position, angle, velocity, spin };
        self.state.started = true;
    }

    fn observe(&self, moment: Moment) -> Record {
        let Pose { position, angle, velocity, spin } = self.state.pose;
        match self.view {
            View::Vector => moment.record([
                ("position", Array::from_f32(&[3], [position, angle.cos(), angle.sin()].map(|x| x as f32).to_vec())),
                ("velocity", Array::from_f32(&[2], vec![velocity as f32, spin as f32])),
            ]),
            View::Pixels => moment.record([("image", self.draw())]),
        }
    }

    /// Four metres across, around the rail's middle: the whole range of the cart.
    fn draw(&self) -> Array {
        let [height, width] = self.size;
        let (middle_x, middle_y) = (width as f32 / 2.0, height as f32 / 2.0);
        let scale = height.min(width) as f32 / 4.0; // pixels per metre
        let Pose { position, angle, .. } = self.state.pose;
        let x = middle_x + position as f32 * scale;
        let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
        let length = 2.0 * HALF_LENGTH as f32 * scale;
        let mut canvas = Canvas::new(height, width, [38, 66, 94]);
        canvas.fill(0..width, height * 3 / 4..height, [30, 44, 62]); // floor
        canvas.rect([middle_x, middle_y], [2.0 * scale, 0.03 * scale], [110, 120, 130]); // rail
        canvas.rect([x, middle_y], [0.2 * scale, 0.12 * scale], [190, 150, 90]); // cart
        canvas.capsule([x, middle_y], [x + sin * length, middle_y - cos * length], 0.07 * scale, [250, 190, 80]);
        canvas.finish()
    }
}

impl Env for Cartpole {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        if flag(action, "reset")? || !self.state.started {
            self.start();
            return Ok(self.observe(Moment::FIRST));
        }
        let control = action.get("action").context("the key 'action' is missing")?;
        ensure!(control.len() == 1, "the key 'action' holds {} values where one is needed", control.len());
        let control = control.item() as f64;
        ensure!(control.is_finite(), "the action 'action' is {control}; it must be a number from -1 to 1");
        self.state.pose = self.state.pose.step(control, Friction::default());
        let reward = reward::reward(&self.state.pose, control) as f32;
        Ok(self.observe(Moment { reward, ..Moment::default() }))
    }

    fn render(&self) -> Option<Array> {
        Some(self.draw())
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save("cartpole", &self.state)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let state: State = state::load("cartpole", bytes)?;
        let Pose { position, angle, velocity, spin } = state.pose;
        let finite = [position, angle, velocity, spin].iter().all(|x| x.is_finite());
        ensure!(finite, "the saved state of 'cartpole' is damaged: its pose is not finite");
        self.state = state;
        Ok(())
    }
}
