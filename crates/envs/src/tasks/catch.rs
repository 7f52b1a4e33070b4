//! `catch`: a ball falls down a grid of 10 x 5 cells and a paddle must be under it, as in bsuite.

use crate::draw::Canvas;
use crate::record::{Moment, act_space, choice, flag, obs_space};
use crate::{Env, Rng, state};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record, Space, Spaces};

const ROWS: usize = 10;
const COLUMNS: usize = 5;

/// The block `env.catch` of the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Height and width of the picture in pixels.
    pub size: [usize; 2],
}

impl Default for Options {
    fn default() -> Self {
        Options { size: [64, 64] }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    ball: [usize; 2], // row, column
    paddle: usize,    // column in the bottom row
    done: bool,
    rng: Rng,
}

/// Actions 0, 1, 2 move the paddle left, not at all, right. The episode is 9 steps long; its last
/// one pays 1 when the paddle is under the ball and -1 otherwise. The best policy scores 1, a
/// random one -0.6.
pub struct Catch {
    obs_space: Spaces,
    act_space: Spaces,
    size: [usize; 2],
    state: State,
}

impl Catch {
    pub fn new(options: Options, rng: Rng) -> Result<Self> {
        let [height, width] = options.size;
        ensure!(
            height >= ROWS && width >= COLUMNS,
            "env.catch.size is [{height}, {width}]; the grid needs at least [{ROWS}, {COLUMNS}] pixels"
        );
        Ok(Catch {
            obs_space: obs_space([("image", Space::image(height, width, 3))]),
            act_space: act_space([("action", Space::discrete(&[], 3))]),
            size: options.size,
            state: State { ball: [0, 0], paddle: COLUMNS / 2, done: true, rng },
        })
    }

    fn draw(&self) -> Array {
        let [height, width] = self.size;
        let mut canvas = Canvas::new(height, width, [24, 24, 40]);
        let mut cell = |row: usize, column: usize, color| {
            let x = column * width / COLUMNS..(column + 1) * width / COLUMNS;
            let y = row * height / ROWS..(row + 1) * height / ROWS;
            canvas.fill(x, y, color);
        };
        let [row, column] = self.state.ball;
        let caught = row == ROWS - 1 && column == self.state.paddle;
        cell(ROWS - 1, self.state.paddle, [80, 160, 255]);
        cell(row, column, if caught { [160, 255, 120] } else { [255, 120, 60] });
        canvas.finish()
    }
}

impl Env for Catch {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let state = &mut self.state;
        let moment = if flag(action, "reset")? || state.done {
            state.ball = [0, state.rng.below(COLUMNS)];
            state.paddle = COLUMNS / 2;
            state.done = false;
            Moment::FIRST
        } else {
            let target = state.paddle + choice(action, "action", 3)?; // one more than the target column
            state.paddle = target.saturating_sub(1).min(COLUMNS - 1);
            state.ball[0] += 1;
            state.done = state.ball[0] == ROWS - 1;
            let reward = match (state.done, state.ball[1] == state.paddle) {
                (false, _) => 0.0,
                (true, true) => 1.0,
                (true, false) => -1.0,
            };
            Moment { reward, is_first: false, is_last: state.done, is_terminal: state.done }
        };
        Ok(moment.record([("image", self.draw())]))
    }

    fn render(&self) -> Option<Array> {
        Some(self.draw())
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save("catch", &self.state)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let state: State = state::load("catch", bytes)?;
        let [row, column] = state.ball;
        let valid = row < ROWS && column < COLUMNS && state.paddle < COLUMNS && (state.done || row < ROWS - 1);
        ensure!(valid, "the saved state of 'catch' is damaged: it lies outside the grid");
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random_action;
    use crate::record::number;

    fn env(seed: u64) -> Catch {
        Catch::new(Options::default(), Rng::new(seed, 0)).unwrap()
    }

    fn act(class: i32) -> Record {
        Record::from([("action".into(), Array::i32(class)), ("reset".into(), Array::bool(false))])
    }

    #[test]
    fn a_random_policy_scores_minus_0_6_in_episodes_of_9_steps() {
        let (mut env, mut rng) = (env(0), Rng::new(1, 1));
        let (mut score, mut episodes, mut length) = (0.0, 0, 0);
        while episodes < 4000 {
            let action = random_action(env.act_space(), &mut rng);
            let obs = env.step(&action).unwrap();
            length = if flag(&obs, "is_first").unwrap() { 0 } else { length + 1 };
            score += number(&obs, "reward").unwrap();
            if flag(&obs, "is_last").unwrap() {
                assert_eq!(length, 9);
                assert!(flag(&obs, "is_terminal").unwrap());
                episodes += 1;
            }
        }
        let mean = score / episodes as f32;
        assert!((mean + 0.6).abs() < 0.04, "{mean}");
    }

    #[test]
    fn following_the_ball_scores_1() {
        let mut env = env(7);
        for _ in 0..50 {
            env.step(&act(1)).unwrap();
            let mut last = Record::new();
            for _ in 0..9 {
                let (ball, paddle) = (env.state.ball[1], env.state.paddle);
                last = env.step(&act(1 + (ball > paddle) as i32 - (ball < paddle) as i32)).unwrap();
            }
            assert_eq!(last["reward"], Array::f32(1.0));
        }
    }

    #[test]
    fn the_picture_shows_ball_and_paddle() {
        let mut env = env(2);
        let obs = env.step(&act(0)).unwrap();
        let pixels = obs["image"].to_i32();
        let at = |x: usize, y: usize| &pixels[3 * (64 * y + x)..][..3];
        let ball = env.state.ball[1];
        assert_eq!(at(ball * 64 / 5 + 6, 3), [255, 120, 60]);
        assert_eq!(at(32, 60), [80, 160, 255]);
        let lit = pixels.as_chunks::<3>().0.iter().filter(|&&p| p != [24, 24, 40]).count();
        assert!((120..=200).contains(&lit), "two cells of about 13 x 6 pixels, not {lit} pixels");
    }
}
