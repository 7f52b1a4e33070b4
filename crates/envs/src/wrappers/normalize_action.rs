//! `NormalizeAction`: continuous actions in `[-1, 1]`.

use crate::Env;
use anyhow::{Context, Result, bail};
use spaces::{Array, DType, Data, Record, Space, Spaces};

/// Maps `[-1, 1]` linearly to the bounds of every float32 action key that has finite ones. Other
/// keys stay as they are.
pub struct NormalizeAction {
    env: Box<dyn Env>,
    act_space: Spaces,
    /// The keys that are mapped, with the spaces that they are mapped to.
    keys: Vec<(String, Space)>,
}

impl NormalizeAction {
    pub fn new(env: Box<dyn Env>) -> Self {
        let mut act_space = env.act_space().clone();
        let mut keys = vec![];
        for (key, space) in &mut act_space {
            if space.dtype == DType::F32 && space.low.is_finite() && space.high.is_finite() {
                keys.push((key.clone(), space.clone()));
                (space.low, space.high) = (-1.0, 1.0);
            }
        }
        NormalizeAction { env, act_space, keys }
    }

    fn scale(&self, action: &Record) -> Result<Record> {
        let mut action = action.clone();
        for (key, space) in &self.keys {
            let value = float(&mut action, key)?;
            *value = space.from_policy(value);
        }
        Ok(action)
    }
}

impl Env for NormalizeAction {
    forward!(obs_space);
    forward!(render);
    forward!(save, load);

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn begin(&mut self, action: &Record) {
        if let Ok(action) = self.scale(action) {
            self.env.begin(&action);
        }
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let action = self.scale(action)?;
        self.env.step(&action)
    }
}

/// The float32 action under `key`.
fn float<'a>(action: &'a mut Record, key: &str) -> Result<&'a mut Array> {
    let value = action.get_mut(key).with_context(|| format!("the action '{key}' is missing"))?;
    if value.dtype() != DType::F32 {
        bail!("the action '{key}' of shape {:?} is not float32, as its space says", value.shape);
    }
    Ok(value)
}

/// Replaces the floats under `key`.
pub(super) fn map_floats(action: &mut Record, key: &str, f: impl Fn(f32) -> f32) -> Result<()> {
    if let Data::F32(xs) = &mut float(action, key)?.data {
        xs.iter_mut().for_each(|x| *x = f(*x));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrappers::CheckSpaces;
    use crate::wrappers::probe::{Probe, act};
    use proptest::prelude::*;
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

    proptest! {
        #[test]
        fn no_action_lands_beyond_its_bounds(low in -3.0f64..0.0, high in 0.1f64..3.0, x in -1.0f32..=1.0) {
            let probe = CheckSpaces::new(Probe::bounded(low, high), "probe").unwrap();
            let mut env = NormalizeAction::new(Box::new(probe));
            for x in [-1.0, x, 1.0f32.next_down(), 1.0] {
                env.step(&act(x)).unwrap();
            }
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
