//! `ActionRepeat`: one action lasts several steps.

use crate::Env;
use crate::record::{flag, number};
use anyhow::{Result, ensure};
use spaces::{Array, Record};

/// Repeats each action, sums the rewards and returns the last record. An episode's first or last
/// record stops the repetition, and so does a terminal one.
pub struct ActionRepeat {
    env: Box<dyn Env>,
    repeat: usize,
}

impl ActionRepeat {
    pub fn new(env: Box<dyn Env>, repeat: usize) -> Result<Self> {
        ensure!(repeat > 0, "an action repeat of 0 never steps; set at least 1");
        Ok(ActionRepeat { env, repeat })
    }
}

impl Env for ActionRepeat {
    forward!(obs_space);
    forward!(act_space);
    forward!(begin);
    forward!(render);
    forward!(save, load);

    fn step(&mut self, action: &Record) -> Result<Record> {
        let mut reward = 0.0;
        let mut obs = Record::new();
        for _ in 0..self.repeat {
            obs = self.env.step(action)?;
            // An environment that restarts within the repetition begins with no reward.
            let first = flag(&obs, "is_first")?;
            reward = if first { 0.0 } else { reward + number(&obs, "reward")? };
            if first || flag(&obs, "is_last")? || flag(&obs, "is_terminal")? {
                break;
            }
        }
        obs.insert("reward".into(), Array::f32(reward));
        Ok(obs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrappers::probe::{Probe, act, reset};

    #[test]
    fn rewards_are_summed_and_the_episodes_borders_kept() {
        let mut env = ActionRepeat::new(Probe::ending_after(5), 3).unwrap();
        for _ in 0..2 {
            let first = env.step(&act(9.0)).unwrap();
            assert!(flag(&first, "is_first").unwrap());
            assert_eq!((first["step"].item(), first["reward"].item()), (0.0, 0.0));
            let middle = env.step(&act(0.5)).unwrap();
            assert_eq!((middle["step"].item(), middle["reward"].item()), (3.0, 1.5));
            let last = env.step(&act(0.25)).unwrap();
            assert_eq!((last["step"].item(), last["reward"].item()), (5.0, 0.5));
            assert!(flag(&last, "is_last").unwrap());
        }
        env.step(&reset()).unwrap();
        env.step(&act(0.0)).unwrap();
        assert_eq!(env.step(&reset()).unwrap()["step"].item(), 0.0);
        assert!(ActionRepeat::new(Probe::endless(), 0).is_err());
    }
}
