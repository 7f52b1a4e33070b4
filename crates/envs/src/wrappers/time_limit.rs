//! `TimeLimit`: ends episodes after a number of steps.

use crate::record::flag;
use crate::{Env, state};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, Record};
use std::borrow::Cow;

/// Marks the record of step `duration` as last, not as terminal. The step after any last record
/// starts an episode, even where the environment itself would go on.
pub struct TimeLimit {
    env: Box<dyn Env>,
    duration: u64,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    step: u64,
    done: bool,
}

impl TimeLimit {
    /// `duration` in steps, the first record not counted.
    pub fn new(env: Box<dyn Env>, duration: u64) -> Result<Self> {
        ensure!(duration > 0, "a time limit of 0 steps leaves no episode; set at least 1");
        Ok(TimeLimit { env, duration, state: State::default() })
    }

    /// The action, with `reset` where the last episode has ended.
    fn due<'a>(&self, action: &'a Record) -> Cow<'a, Record> {
        let mut action = Cow::Borrowed(action);
        if self.state.done {
            action.to_mut().insert("reset".into(), Array::bool(true));
        }
        action
    }
}

impl Env for TimeLimit {
    forward!(obs_space);
    forward!(act_space);
    forward!(render);

    fn begin(&mut self, action: &Record) {
        self.env.begin(&self.due(action));
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let mut obs = self.env.step(&self.due(action))?;
        self.state.step = if flag(&obs, "is_first")? { 0 } else { self.state.step + 1 };
        if self.state.step >= self.duration {
            obs.insert("is_last".into(), Array::bool(true));
        }
        self.state.done = flag(&obs, "is_last")?;
        Ok(obs)
    }

    fn save(&self) -> Option<Vec<u8>> {
        state::save("TimeLimit", &(&self.state, self.env.save()?))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let (state, inner): (State, Vec<u8>) = state::load("TimeLimit", bytes)?;
        self.env.load(&inner)?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrappers::probe::{Probe, act, reset};

    #[test]
    fn episodes_end_at_the_limit_without_being_terminal() {
        let mut env = TimeLimit::new(Probe::endless(), 3).unwrap();
        for _ in 0..2 {
            for step in 0..=3 {
                let obs = env.step(&act(0.0)).unwrap();
                assert_eq!(flag(&obs, "is_first").unwrap(), step == 0);
                assert_eq!(flag(&obs, "is_last").unwrap(), step == 3);
                assert!(!flag(&obs, "is_terminal").unwrap());
            }
        }
    }

    #[test]
    fn a_reset_or_an_earlier_end_restarts_the_count() {
        let mut env = TimeLimit::new(Probe::ending_after(2), 3).unwrap();
        env.step(&reset()).unwrap();
        env.step(&act(0.0)).unwrap();
        assert!(flag(&env.step(&reset()).unwrap(), "is_first").unwrap());
        env.step(&act(0.0)).unwrap();
        let last = env.step(&act(0.0)).unwrap();
        assert!(flag(&last, "is_last").unwrap() && flag(&last, "is_terminal").unwrap());
        assert!(flag(&env.step(&act(0.0)).unwrap(), "is_first").unwrap());
        assert!(TimeLimit::new(Probe::endless(), 0).is_err());
    }
}
