//! `pinpad_three` to `pinpad_eight`: step on coloured pads in the one order that pays.

use crate::draw::{Canvas, Color};
use crate::record::{Moment, act_space, choice, flag, obs_space};
use crate::{Env, Rng, state};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record, Space, Spaces};

/// The number of pads by the task's name.
pub const NAMES: [(&str, usize); 6] = [("three", 3), ("four", 4), ("five", 5), ("six", 6), ("seven", 7), ("eight", 8)];

const WIDTH: u8 = 16;
const HEIGHT: u8 = 14;
const TILE: usize = 4; // pixels
const PICTURE: usize = 16 * TILE; // the rows below the room show the sequence so far
const PAUSE: u8 = 10; // steps from the reward to the next start
const GREY: Color = [192, 192, 192];
const COLORS: [Color; 8] =
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255], [128, 0, 128], [0, 128, 128]];

/// A pad number from 0, then its first and last column and its first and last row.
type Pad = (u8, [u8; 2], [u8; 2]);

const THREE: &[Pad] = &[(0, [1, 4], [1, 4]), (2, [11, 14], [1, 4]), (1, [6, 9], [9, 12])];
const FOUR: &[Pad] = &[(0, [1, 4], [1, 4]), (3, [11, 14], [1, 4]), (2, [1, 4], [9, 12]), (1, [11, 14], [9, 12])];
const FIVE: &[Pad] =
    &[(3, [11, 14], [1, 3]), (0, [1, 3], [2, 5]), (4, [12, 14], [5, 8]), (2, [1, 3], [8, 11]), (1, [11, 14], [10, 12])];
const SIX: &[Pad] = &[
    (0, [1, 3], [1, 3]),
    (4, [12, 14], [1, 3]),
    (2, [1, 2], [5, 8]),
    (5, [13, 14], [5, 8]),
    (3, [1, 3], [10, 12]),
    (1, [12, 14], [10, 12]),
];
const EIGHT: &[Pad] = &[
    (7, [6, 9], [1, 2]),
    (0, [1, 3], [1, 2]),
    (0, [1, 2], [3, 3]),
    (3, [12, 14], [1, 2]),
    (3, [13, 14], [3, 3]),
    (2, [1, 2], [5, 8]),
    (4, [13, 14], [5, 8]),
    (5, [1, 2], [10, 10]),
    (5, [1, 3], [11, 12]),
    (6, [6, 9], [11, 12]),
    (1, [13, 14], [10, 10]),
    (1, [12, 14], [11, 12]),
];

/// The pads of the room with `count` of them; seven is eight without its last.
fn layout(count: usize) -> &'static [Pad] {
    match count {
        3 => THREE,
        4 => FOUR,
        5 => FIVE,
        6 => SIX,
        7 => &EIGHT[1..],
        _ => EIGHT,
    }
}

/// The block `env.pinpad` of the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Height and width of the picture in pixels; drawn at 64 x 64 and resized.
    pub size: [usize; 2],
    /// Steps of an episode.
    pub length: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { size: [64, 64], length: 10_000 }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    player: [u8; 2],   // column, row
    sequence: Vec<u8>, // the last pads stepped on, at most as many as there are
    countdown: u8,     // steps until the next start after a success
    steps: u64,
    done: bool,
    rng: Rng,
}

/// Actions 0 to 4: stay, down, up, right, left. Stepping on all pads in the order of their
/// numbers pays 10; ten steps later the player is put on a random tile and the sequence is
/// empty again. Episodes end by a time limit and are never terminal.
pub struct PinPad {
    obs_space: Spaces,
    act_space: Spaces,
    name: String,
    pads: usize,
    length: u64,
    tiles: Vec<Option<u8>>, // pad at 16 * row + column
    state: State,
}

impl PinPad {
    /// `pads` of 3 to 8, episodes of `length` steps.
    pub fn new(pads: usize, length: u64, rng: Rng) -> Result<Self> {
        ensure!((3..=8).contains(&pads), "pinpad has 3 to 8 pads, not {pads}");
        ensure!(length > 0, "env.pinpad.length is 0; an episode needs at least one step");
        let mut tiles = vec![None; WIDTH as usize * HEIGHT as usize];
        for &(pad, columns, rows) in layout(pads) {
            for row in rows[0]..=rows[1] {
                for column in columns[0]..=columns[1] {
                    tiles[index([column, row])] = Some(pad);
                }
            }
        }
        Ok(PinPad {
            obs_space: obs_space([("image", Space::image(PICTURE, PICTURE, 3))]),
            act_space: act_space([("action", Space::discrete(&[], 5))]),
            name: format!("pinpad_{pads}"),
            pads,
            length,
            tiles,
            state: State { player: [1, 1], sequence: vec![], countdown: 0, steps: 0, done: true, rng },
        })
    }

    /// Puts the player on a random tile that is not wall.
    fn spawn(&mut self) {
        let (columns, rows) = (WIDTH as usize - 2, HEIGHT as usize - 2);
        let tile = self.state.rng.below(columns * rows);
        self.state.player = [1 + (tile % columns) as u8, 1 + (tile / columns) as u8];
        self.state.sequence.clear();
    }

    /// Moves by `action` and returns the reward.
    fn advance(&mut self, action: usize) -> f32 {
        if self.state.countdown > 0 {
            self.state.countdown -= 1;
            if self.state.countdown == 0 {
                self.spawn();
            }
        }
        let [x, y] = self.state.player;
        let target = [[x, y], [x, y + 1], [x, y - 1], [x + 1, y], [x - 1, y]][action];
        if !wall(target) {
            self.state.player = target;
        }
        let sequence = &mut self.state.sequence;
        // As in the official code, the tile that was walked to counts: if that is wall, no pad does, even if the player
        // stands on one.
        if let Some(pad) = self.tiles[index(target)]
            && sequence.last() != Some(&pad)
        {
            sequence.push(pad);
            let surplus = sequence.len().saturating_sub(self.pads);
            sequence.drain(..surplus);
        }
        let complete = sequence.len() == self.pads && sequence.is_sorted();
        if complete && self.state.countdown == 0 {
            self.state.countdown = PAUSE;
            return 10.0;
        }
        0.0
    }

    fn draw(&self) -> Array {
        let white = if self.state.countdown > 0 { [223, 255, 223] } else { [255; 3] };
        let mut canvas = Canvas::new(PICTURE, PICTURE, GREY);
        let mut tile = |x: usize, y: usize, color| {
            canvas.fill(x * TILE..(x + 1) * TILE, y * TILE..(y + 1) * TILE, color);
        };
        let current = self.tiles[index(self.state.player)];
        for y in 1..HEIGHT - 1 {
            for x in 1..WIDTH - 1 {
                let color = match self.tiles[index([x, y])] {
                    Some(pad) if current == Some(pad) => COLORS[pad as usize],
                    Some(pad) => COLORS[pad as usize].map(|c| ((10 * c as u32 + 90 * 255) / 100) as u8),
                    None => white,
                };
                tile(x as usize, y as usize, color);
            }
        }
        let [x, y] = self.state.player;
        tile(x as usize, y as usize, [0; 3]);
        for (i, &pad) in self.state.sequence.iter().enumerate() {
            tile(2 * i + 1, HEIGHT as usize, COLORS[pad as usize]);
        }
        canvas.finish()
    }
}

fn index([x, y]: [u8; 2]) -> usize {
    y as usize * WIDTH as usize + x as usize
}

fn wall([x, y]: [u8; 2]) -> bool {
    x == 0 || x >= WIDTH - 1 || y == 0 || y >= HEIGHT - 1
}

impl Env for PinPad {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let moment = if flag(action, "reset")? || self.state.done {
            self.spawn();
            (self.state.steps, self.state.countdown, self.state.done) = (0, 0, false);
            Moment::FIRST
        } else {
            let reward = self.advance(choice(action, "action", 5)?);
            self.state.steps += 1;
            self.state.done = self.state.steps >= self.length;
            Moment { reward, is_last: self.state.done, ..Moment::default() }
        };
        Ok(moment.record([("image", self.draw())]))
    }

    fn render(&self) -> Option<Array> {
        Some(self.draw())
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save(&self.name, &self.state)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let state: State = state::load(&self.name, bytes)?;
        let pads = state.sequence.len() <= self.pads && state.sequence.iter().all(|&pad| (pad as usize) < self.pads);
        ensure!(!wall(state.player) && pads, "the saved state of '{}' is damaged: it does not fit the room", self.name);
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::number;

    fn act(class: i32) -> Record {
        Record::from([("action".into(), Array::i32(class)), ("reset".into(), Array::bool(false))])
    }

    /// Walks to a tile around no obstacles and returns the rewards on the way.
    fn walk(env: &mut PinPad, [x, y]: [u8; 2]) -> f32 {
        let mut total = 0.0;
        while env.state.player != [x, y] {
            let [px, py] = env.state.player;
            let action = if py < y {
                1
            } else if py > y {
                2
            } else if px < x {
                3
            } else {
                4
            };
            total += number(&env.step(&act(action)).unwrap(), "reward").unwrap();
        }
        total
    }

    #[test]
    fn rooms_hold_every_pad_once_and_as_many_tiles_as_the_original() {
        for ((_, pads), tiles) in NAMES.iter().zip([48, 64, 60, 52, 56, 64]) {
            let env = PinPad::new(*pads, 10, Rng::new(0, 0)).unwrap();
            assert_eq!(env.tiles.iter().flatten().count(), tiles, "{pads} pads");
            assert!((0..*pads as u8).all(|pad| env.tiles.contains(&Some(pad))));
            assert!((0..=255).all(|i| i >= 224 || env.tiles[i].is_none() || !wall([(i % 16) as u8, (i / 16) as u8])));
        }
    }

    #[test]
    fn the_right_order_pays_once_and_starts_anew_after_ten_steps() {
        let mut env = PinPad::new(3, 1000, Rng::new(0, 0)).unwrap();
        env.step(&act(0)).unwrap();
        env.state.player = [7, 7];
        // Through the middle rows, where there is no pad on the way.
        assert_eq!(walk(&mut env, [2, 6]) + walk(&mut env, [2, 4]), 0.0);
        assert_eq!(env.state.sequence, [0]);
        assert_eq!(walk(&mut env, [2, 6]) + walk(&mut env, [7, 6]) + walk(&mut env, [7, 9]), 0.0);
        assert_eq!(env.state.sequence, [0, 1]);
        assert_eq!(walk(&mut env, [7, 6]) + walk(&mut env, [12, 6]), 0.0);
        assert_eq!(walk(&mut env, [12, 4]), 10.0);
        assert_eq!((env.state.countdown, &env.state.sequence[..]), (10, &[0, 1, 2][..]));
        for left in (0..10).rev() {
            assert_eq!(env.step(&act(0)).unwrap()["reward"].item(), 0.0);
            assert_eq!(env.state.countdown, left);
        }
        assert!(env.state.sequence.len() <= 1, "a new start has at most the pad it stands on");
        (env.state.player, env.state.sequence) = ([1, 1], vec![]);
        for (action, sequence) in [(2, vec![]), (0, vec![0])] {
            env.step(&act(action)).unwrap();
            assert_eq!(env.state.sequence, sequence, "who walks into a wall steps on nothing");
        }
    }

    #[test]
    fn the_wrong_order_pays_nothing_and_forgets_the_oldest_pad() {
        let mut env = PinPad::new(4, 1000, Rng::new(0, 0)).unwrap();
        env.step(&act(0)).unwrap();
        for pad in [3, 0, 2, 1, 2] {
            env.state.player = [7, 7];
            let &(_, columns, rows) = FOUR.iter().find(|p| p.0 == pad).unwrap();
            assert_eq!(walk(&mut env, [columns[0], 7]) + walk(&mut env, [columns[0], rows[0]]), 0.0);
        }
        assert_eq!(env.state.sequence, [0, 2, 1, 2]);
    }

    #[test]
    fn the_picture_shows_player_pads_and_sequence() {
        let mut env = PinPad::new(6, 3, Rng::new(0, 0)).unwrap();
        env.step(&act(0)).unwrap();
        env.state.player = [1, 6];
        env.state.sequence = vec![4];
        let obs = env.step(&act(0)).unwrap();
        let pixels = obs["image"].to_i32();
        let at = |x: usize, y: usize| &pixels[3 * (64 * (4 * y + 2) + 4 * x + 1)..][..3];
        assert_eq!(at(1, 6), [0, 0, 0]);
        assert_eq!(at(2, 6), [0, 0, 255], "the pad under the player is lit");
        assert_eq!(at(1, 1), [255, 229, 229], "others are pale");
        assert_eq!((at(0, 5), at(15, 15)), (&[192, 192, 192][..], &[192, 192, 192][..]));
        assert_eq!((at(1, 14), at(3, 14), at(5, 14)), (&[255, 0, 255][..], &[0, 0, 255][..], &[192, 192, 192][..]));
        env.step(&act(0)).unwrap();
        let last = env.step(&act(0)).unwrap();
        assert!(flag(&last, "is_last").unwrap() && !flag(&last, "is_terminal").unwrap());
    }
}
