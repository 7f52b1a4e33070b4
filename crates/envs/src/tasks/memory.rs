//! `memory_N`: a cue is shown once and must be named N blank steps later.

use crate::record::{Moment, act_space, choice, flag, obs_space};
use crate::{Env, Rng, state};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record, Space, Spaces};

const CUES: usize = 4;
/// Delays beyond this are refused: no episode of the agent's would reach the answer.
pub const LONGEST: usize = 10_000;

/// The block `env.memory` of the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The reward of a wrong answer.
    pub wrong: f32,
    /// Whether the last record shows the cue again, so that a wrong answer can be learned from.
    pub feedback: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { wrong: 0.0, feedback: true }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    time: usize, // 0 shows the cue, 1..=delay nothing, delay + 1 the go flag, delay + 2 is the end
    cue: usize,
    done: bool,
    rng: Rng,
}

/// `vector` holds the one-hot cue in the first record, zeros for `delay` records, then the go flag in its fifth place.
/// The action taken at the go flag is the answer: it pays 1 where it names the cue and `wrong` otherwise, and ends the
/// episode. Earlier actions do nothing. The last record, which no action follows, shows the cue again unless `feedback`
/// is off. Before the answer, only the first record tells the cue, so success without memory is 0.25.
pub struct Memory {
    obs_space: Spaces,
    act_space: Spaces,
    name: String,
    delay: usize,
    options: Options,
    state: State,
}

impl Memory {
    pub fn new(delay: usize, options: Options, rng: Rng) -> Result<Self> {
        ensure!(delay <= LONGEST, "the task 'memory_{delay}' waits too long; the longest delay is {LONGEST}");
        ensure!(options.wrong.is_finite(), "env.memory.wrong is {}; it must be finite", options.wrong);
        let vector = Space::bounded(&[CUES + 1], 0.0, 1.0);
        Ok(Memory {
            obs_space: obs_space([("vector", vector), ("log/success", Space::bounded(&[], 0.0, 1.0))]),
            act_space: act_space([("action", Space::discrete(&[], CUES))]),
            name: format!("memory_{delay}"),
            delay,
            options,
            state: State { time: 0, cue: 0, done: true, rng },
        })
    }

    fn vector(&self) -> Array {
        let mut vector = vec![0.0; CUES + 1];
        match self.state.time {
            0 => vector[self.state.cue] = 1.0,
            time if time == self.delay + 1 => vector[CUES] = 1.0,
            time if time == self.delay + 2 && self.options.feedback => vector[self.state.cue] = 1.0,
            _ => {}
        }
        Array::from_f32(&[CUES + 1], vector)
    }
}

impl Env for Memory {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let state = &mut self.state;
        let mut success = false;
        let moment = if flag(action, "reset")? || state.done {
            state.time = 0;
            state.cue = state.rng.below(CUES);
            state.done = false;
            Moment::FIRST
        } else {
            let answer = choice(action, "action", CUES)?;
            state.time += 1;
            state.done = state.time == self.delay + 2;
            success = state.done && answer == state.cue;
            let reward = match (state.done, success) {
                (false, _) => 0.0,
                (true, true) => 1.0,
                (true, false) => self.options.wrong,
            };
            Moment { reward, is_first: false, is_last: state.done, is_terminal: state.done }
        };
        Ok(moment.record([("vector", self.vector()), ("log/success", Array::f32(success as u8 as f32))]))
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save(&self.name, &self.state)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let state: State = state::load(&self.name, bytes)?;
        let valid = state.cue < CUES && (state.done || state.time < self.delay + 2);
        ensure!(valid, "the saved state of '{}' is damaged: it lies outside the episode", self.name);
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(class: usize) -> Record {
        Record::from([("action".into(), Array::i32(class as i32)), ("reset".into(), Array::bool(false))])
    }

    /// Plays one episode; `answer` maps the cue to the action at the go flag.
    fn episode(env: &mut Memory, answer: impl Fn(usize) -> usize) -> (usize, Vec<Record>) {
        let mut records = vec![env.step(&act(0)).unwrap()];
        let cue = records[0]["vector"].to_f32().iter().position(|&x| x == 1.0).unwrap();
        while !flag(records.last().unwrap(), "is_last").unwrap() {
            let go = records.last().unwrap()["vector"].to_f32()[CUES] == 1.0;
            records.push(env.step(&act(if go { answer(cue) } else { 3 })).unwrap());
        }
        (cue, records)
    }

    #[test]
    fn the_cue_is_shown_once_and_the_answer_pays() {
        for (delay, feedback) in [(0, true), (1, false), (10, true)] {
            let mut env = Memory::new(delay, Options { wrong: -1.0, feedback }, Rng::new(0, 0)).unwrap();
            let mut cues = [0; CUES];
            for round in 0..100 {
                let right = round % 2 == 0;
                let (cue, records) = episode(&mut env, |cue| if right { cue } else { (cue + 1) % CUES });
                cues[cue] += 1;
                assert_eq!(records.len(), delay + 3);
                assert!(records[1..=delay].iter().all(|record| record["vector"].to_f32() == [0.0; CUES + 1]));
                assert_eq!(records[delay + 1]["vector"].to_f32(), [0.0, 0.0, 0.0, 0.0, 1.0]);
                let last = &records[delay + 2];
                let shown = last["vector"].to_f32();
                assert_eq!(shown.iter().sum::<f32>(), feedback as u8 as f32);
                assert_eq!(shown[cue], feedback as u8 as f32);
                assert_eq!(last["reward"].item(), if right { 1.0 } else { -1.0 });
                assert_eq!(last["log/success"].item(), right as u8 as f32);
                assert!(flag(last, "is_terminal").unwrap());
                assert!(records[..delay + 2].iter().all(|record| record["reward"].item() == 0.0));
            }
            assert!(cues.iter().all(|&n| n > 10), "{cues:?}");
        }
    }

    #[test]
    fn answering_without_memory_succeeds_a_quarter_of_the_time() {
        let mut env = Memory::new(2, Options::default(), Rng::new(5, 0)).unwrap();
        let wins: f32 = (0..4000).map(|_| episode(&mut env, |_| 2).1.last().unwrap()["log/success"].item()).sum();
        assert!((wins / 4000.0 - 0.25).abs() < 0.03, "{wins}");
    }
}
