//! `ClipAction`: clips continuous actions to a range.

use super::normalize_action::map_floats;
use crate::Env;
use anyhow::{Result, ensure};
use spaces::{DType, Record};

/// Clips every float32 action key to `[low, high]`, so that a policy may sample beyond it. The action space is
/// unchanged. NaN stays NaN, for inner checks to find.
pub struct ClipAction {
    env: Box<dyn Env>,
    low: f32,
    high: f32,
    keys: Vec<String>,
}

impl ClipAction {
    pub fn new(env: Box<dyn Env>, low: f32, high: f32) -> Result<Self> {
        ensure!(low <= high, "actions cannot be clipped to [{low}, {high}]: the range is empty");
        let floats = env.act_space().iter().filter(|(_, space)| space.dtype == DType::F32);
        let keys = floats.map(|(key, _)| key.clone()).collect();
        Ok(ClipAction { env, low, high, keys })
    }

    fn clip(&self, action: &Record) -> Result<Record> {
        let mut action = action.clone();
        for key in &self.keys {
            map_floats(&mut action, key, |x| x.clamp(self.low, self.high))?;
        }
        Ok(action)
    }
}

impl Env for ClipAction {
    forward!(obs_space);
    forward!(act_space);
    forward!(render);
    forward!(save, load);

    fn begin(&mut self, action: &Record) {
        if let Ok(action) = self.clip(action) {
            self.env.begin(&action);
        }
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let action = self.clip(action)?;
        self.env.step(&action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrappers::probe::{Probe, act};

    #[test]
    fn actions_are_cut_to_the_range() {
        let mut env = ClipAction::new(Probe::endless(), -1.0, 0.5).unwrap();
        env.step(&act(0.0)).unwrap();
        for (given, meant) in [(-3.0, -1.0), (0.25, 0.25), (f32::INFINITY, 0.5)] {
            assert_eq!(env.step(&act(given)).unwrap()["reward"].item(), meant);
        }
        assert!(ClipAction::new(Probe::endless(), 1.0, -1.0).is_err());
    }
}
