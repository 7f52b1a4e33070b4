//! `crafter_reward` and `crafter_noreward`: survive in a small open world, and find out what it has to offer.
//!
//! With the same seeds and actions, observations, rewards and episode ends equal those of the Python package crafter
//! 1.8.3 behind the worker's adapter (`python/dreamer_envs/suites/crafter.py`), byte for byte, at a multiple of its
//! speed. Textures are read from the installed package.

mod creatures;
mod light;
mod noise;
mod player;
mod rules;
mod textures;
mod view;
mod world;
mod worldgen;

#[cfg(test)]
mod tests;

use crate::record::{Moment, act_space, choice, flag, obs_space};
use crate::{Env, state};
use anyhow::{Context, Result, ensure};
use player::Player;
use rules::{ACHIEVEMENTS, ACTIONS, Action, MOST, VIEW};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record, Space, Spaces};
use std::path::PathBuf;
use textures::Texture;
use view::View;
use world::{PLAYER, World};

/// The block `env.crafter` of the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Height and width of the picture in pixels.
    pub size: [usize; 2],
    /// Whether to log how often each achievement was reached.
    pub logs: bool,
    pub engine: Engine,
    /// The folder with the package's pictures; empty asks the Python interpreter.
    pub assets: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options { size: [64, 64], logs: false, engine: Engine::Auto, assets: PathBuf::new() }
    }
}

/// The part of the block `env.kwargs` (arguments of the package's environment) that the native engine supports.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kwargs {
    /// Steps after which an episode ends; 0 is never.
    length: u64,
}

impl Default for Kwargs {
    fn default() -> Self {
        Kwargs { length: 10_000 }
    }
}

/// Which engine runs the game.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The native one if possible, else the Python package.
    Auto,
    Native,
    Python,
}

impl Options {
    /// Whether the game runs here rather than in a Python worker; `known` says whether this engine supports all keys of
    /// the block `env.kwargs`.
    pub fn is_native(&self, python: &str, known: bool) -> bool {
        match self.engine {
            Engine::Native => true,
            Engine::Python => false,
            Engine::Auto => known && self.folder(python).is_some(),
        }
    }

    /// The folder with the package's pictures.
    fn folder(&self, python: &str) -> Option<PathBuf> {
        if self.assets.as_os_str().is_empty() { textures::find(python) } else { Some(self.assets.clone()) }
    }
}

/// One game, its episodes numbered from 1.
#[derive(Serialize, Deserialize)]
struct State {
    seed: u32,
    episode: u64,
    step: u64,
    done: bool,
    length: u64, // of an episode; 0 is no end
    /// The player's health after the last step.
    health: i32,
    /// Achievements that were rewarded, one bit each.
    unlocked: u32,
    player: Player,
    world: World,
}

impl State {
    /// A game that has not begun.
    fn new(seed: u32, length: u64) -> Self {
        let (player, world) = (Player::new(), World::new(0));
        State { seed, episode: 0, step: 0, done: true, length, health: MOST, unlocked: 0, player, world }
    }

    fn reset(&mut self) {
        let episode = self.episode + 1;
        let world = worldgen::generate(world_seed(self.seed, episode));
        *self = State { episode, done: false, world, ..State::new(self.seed, self.length) };
    }

    /// One step. Returns the reward and whether the player died.
    fn advance(&mut self, action: Action) -> (f64, bool) {
        self.step += 1;
        let (world, player) = (&mut self.world, &mut self.player);
        for i in 0..world.objects.len() {
            if world.distance(world.objects[i].pos) >= 2 * VIEW[0].max(VIEW[1]) as i32 {
                continue;
            }
            match i {
                PLAYER => player.update(world, action),
                _ => creatures::update(world, i, player.sleeping),
            }
        }
        world.sweep();
        if self.step.is_multiple_of(10) {
            creatures::balance(world, daylight(self.step));
            world.sweep();
        }
        let health = world.objects[PLAYER].health;
        let mut reward = f64::from(health - self.health) / 10.0;
        self.health = health;
        let achieved = player.achieved().iter().rev().fold(0, |bits, &count| bits << 1 | u32::from(count > 0));
        if achieved & !self.unlocked != 0 {
            self.unlocked |= achieved;
            reward += 1.0;
        }
        let dead = health <= 0;
        self.done = dead || self.length > 0 && self.step >= self.length;
        (reward, dead)
    }
}

/// How bright it is at a step, 0 to 1.
fn daylight(step: u64) -> f64 {
    let progress = (step as f64 / 300.0) % 1.0 + 0.3;
    1.0 - (std::f64::consts::PI * progress).cos().abs().powf(3.0)
}

/// The seed of an episode's world: Python's hash of the tuple (seed, episode), modulo 2^31 - 1.
fn world_seed(seed: u32, episode: u64) -> u32 {
    const PRIMES: [u64; 3] = [11_400_714_785_074_694_791, 14_029_467_366_897_019_727, 2_870_177_450_012_600_261];
    let mix =
        |sum: u64, lane: u64| sum.wrapping_add(lane.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0]);
    let hash = mix(mix(PRIMES[2], u64::from(seed)), episode).wrapping_add(2 ^ PRIMES[2] ^ 3_527_539);
    (hash as i64).rem_euclid((1 << 31) - 1) as u32
}

/// The game as an environment. Actions are numbered as in [`ACTIONS`].
pub struct Crafter {
    obs_space: Spaces,
    act_space: Spaces,
    name: String,
    view: View,
    /// Whether the agent is given the reward; it is logged in any case.
    rewarding: bool,
    /// Keys of logged achievements; empty where they are not logged.
    logs: Vec<String>,
    state: State,
}

impl Crafter {
    /// The task `name`, `reward` or `noreward`. `python` is the interpreter that is asked for the package.
    pub fn new(name: &str, options: &Options, kwargs: &Kwargs, python: &str, seed: u32) -> Result<Self> {
        ensure!(
            ["reward", "noreward"].contains(&name),
            "unknown task 'crafter_{name}'; there are: crafter_reward, crafter_noreward"
        );
        let folder = options.folder(python).with_context(|| {
            format!(
                "'{python}' has no package crafter, whose images env.crafter.engine native draws: run `{python} -m \
                 pip install crafter==1.8.3`, or name their folder with --env.crafter.assets"
            )
        })?;
        let view = View::new(|name| Texture::read(&folder, name), options.size)?;
        Ok(Crafter::with_view(name, options, State::new(seed, kwargs.length), view))
    }

    fn with_view(name: &str, options: &Options, state: State, view: View) -> Self {
        let mut obs_space = obs_space([("image", Space::image(options.size[0], options.size[1], 3))]);
        obs_space.insert("log/reward".into(), Space::float(&[]));
        let logs = ACHIEVEMENTS.iter().filter(|_| options.logs).map(|name| format!("log/achievement_{name}"));
        let logs: Vec<String> = logs.collect();
        obs_space.extend(logs.iter().map(|key| (key.clone(), Space::float(&[]))));
        Crafter {
            obs_space,
            act_space: act_space([("action", Space::discrete(&[], ACTIONS.len()))]),
            name: format!("crafter_{name}"),
            view,
            rewarding: name == "reward",
            logs,
            state,
        }
    }

    fn draw(&self, noise: &[f64]) -> Array {
        self.view.draw(&self.state.world, &self.state.player, daylight(self.state.step), noise)
    }
}

impl Env for Crafter {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let (mut moment, mut paid) = (Moment::FIRST, 0.0);
        if flag(action, "reset")? || self.state.done {
            self.state.reset();
        } else {
            let (reward, dead) = self.state.advance(ACTIONS[choice(action, "action", ACTIONS.len())?]);
            paid = reward as f32;
            let reward = if self.rewarding { paid } else { 0.0 };
            moment = Moment { reward, is_last: self.state.done, is_terminal: dead, ..Moment::default() };
        }
        let noise = self.view.noise(daylight(self.state.step), &mut self.state.world.random);
        let image = self.draw(&noise);
        let mut record = moment.record([("image", image), ("log/reward", Array::f32(paid))]);
        let counts = self.logs.iter().zip(self.state.player.achieved());
        record.extend(counts.map(|(key, &count)| (key.clone(), Array::f32(count as f32))));
        Ok(record)
    }

    fn render(&self) -> Option<Array> {
        // With the noise of the next step, from a copy of the generator: the game stays as it is.
        Some(self.draw(&self.view.noise(daylight(self.state.step), &mut self.state.world.random.clone())))
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save(&self.name, &self.state)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let mut state: State = state::load(&self.name, bytes)?;
        let damaged = || format!("the saved state of '{}' is damaged", self.name);
        ensure!((0..=MOST).contains(&state.health), "{}: the health is {}", damaged(), state.health);
        state.world.restore().with_context(damaged)?;
        state.player.check().with_context(damaged)?;
        state.length = self.state.length; // as it is configured now
        self.state = state;
        Ok(())
    }
}
