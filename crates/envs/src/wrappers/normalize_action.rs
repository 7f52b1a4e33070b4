//! `NormalizeAction`: continuous actions in `[-1, 1]`.

use crate::Env;
use anyhow::{Context, Result, bail};
use spaces::{Array, DType, Data, Record, Spaces};

/// Maps `[-1, 1]` linearly to the bounds of every float32 action key that has finite ones. Other
/// keys stay as they are.
pub struct NormalizeAction {
    env: Box<dyn Env>,
    act_space: Spaces,
    keys: Vec<(String, f32, f32)>, // name, low, high
}

impl NormalizeAction {
    pub fn new(env: Box<dyn Env>) -> Self {
        let mut act_space = env.act_space().clone();
        let mut keys = vec![];
        for (key, space) in &mut act_space {
            if space.dtype == DType::F32 && space.low.is_finite() && space.high.is_finite() {
                keys.push((key.clone(), space.low as f32, space.high as f32));
                (space.low, space.high) = (-1.0, 1.0);
            }
        }
        NormalizeAction { env, act_space, keys }
    }
}

impl Env for NormalizeAction {
    forward!(obs_space);
    forward!(render);
    forward!(save, load);

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let mut action = action.clone();
        for (key, low, high) in &self.keys {
            let scale = |x: f32| (x + 1.0) / 2.0 * (high - low) + low;
            map_floats(&mut action, key, scale)?;
        }
        self.env.step(&action)
    }
}

/// Replaces the floats under `key`.
pub(super) fn map_floats(action: &mut Record, key: &str, f: impl Fn(f32) -> f32) -> Result<()> {
    let Array { shape, data } = action.get_mut(key).with_context(|| format!("the action '{key}' is missing"))?;
    match data {
        Data::F32(xs) => xs.iter_mut().for_each(|x| *x = f(*x)),
        _ => bail!("the action '{key}' of shape {shape:?} is not float32, as its space says"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrappers::probe::{Probe, act};
    use spaces::Space;

    #[test]
    fn finite_bounds_become_minus_one_to_one() {
        let mut env = NormalizeAction::new(Probe::bounded(-2.0, 4.0));
        assert_eq!(env.act_space()["action"], Space::bounded(&[], -1.0, 1.0));
        env.step(&act(0.0)).unwrap();
        for (given, meant) in [(-1.0, -2.0), (0.0, 1.0), (0.5, 2.5), (1.0, 4.0)] {
            assert_eq!(env.step(&act(given)).unwrap()["reward"].item(), meant);
        }
    }

    #[test]
    fn unbounded_keys_are_left_alone_and_wrong_dtypes_refused() {
        let mut env = NormalizeAction::new(Probe::endless());
        assert_eq!(env.act_space()["action"], Space::float(&[]));
        env.step(&act(0.0)).unwrap();
        assert_eq!(env.step(&act(7.0)).unwrap()["reward"].item(), 7.0);
        let mut env = NormalizeAction::new(Probe::bounded(0.0, 1.0));
        let mut action = act(0.0);
        action.insert("action".into(), Array::i32(0));
        assert!(env.step(&action).unwrap_err().to_string().contains("'action' of shape [] is not float32"));
    }
}
