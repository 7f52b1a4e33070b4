//! `CheckSpaces`: checks every action and observation against its space.

use crate::Env;
use anyhow::{Result, bail};
use spaces::{Array, Record, Space, Spaces};

/// Refuses records whose keys, dtypes, shapes or bounds differ from the declared ones, naming the
/// environment and the key.
pub struct CheckSpaces {
    env: Box<dyn Env>,
    name: String,
}

impl CheckSpaces {
    /// `name` is what errors call the environment. The spaces themselves are checked here.
    pub fn new(env: Box<dyn Env>, name: &str) -> Result<Self> {
        let needed = |spaces: &Spaces, key: &str, space: Space| match spaces.get(key) {
            Some(found) if found.dtype == space.dtype && found.shape == space.shape => Ok(()),
            Some(found) => bail!("environment '{name}': the key '{key}' must be {space}, not {found}"),
            None => bail!("environment '{name}': its spaces lack the key '{key}'"),
        };
        needed(env.obs_space(), "reward", Space::float(&[]))?;
        for key in ["is_first", "is_last", "is_terminal"] {
            needed(env.obs_space(), key, Space::boolean())?;
        }
        needed(env.act_space(), "reset", Space::boolean())?;
        if let Err(sentence) = spaces::check_keys(env.obs_space(), env.act_space()) {
            bail!("environment '{name}': {sentence}");
        }
        Ok(CheckSpaces { env, name: name.to_string() })
    }

    fn check(&self, what: &str, spaces: &Spaces, record: &Record) -> Result<()> {
        for (key, space) in spaces {
            let Some(value) = record.get(key) else {
                bail!("environment '{}': the {what} lacks the key '{key}'", self.name);
            };
            // In a picture of the right shape all values are valid, so its pixels are not checked.
            if space.is_image() && space.low <= 0.0 && space.high >= 256.0 && same_kind(space, value) {
                continue;
            }
            if let Err(error) = space.check(key, value) {
                bail!("environment '{}': in the {what}, {error}", self.name);
            }
        }
        // A number called log/NAME need not be declared, as some steps may lack it.
        let metric = |key: &str, value: &Array| spaces::is_log(key) && value.len() == 1;
        let known = |key: &str, value: &Array| spaces.contains_key(key) || metric(key, value);
        if let Some((key, _)) = record.iter().find(|(key, value)| !known(key, value)) {
            bail!("environment '{}': the {what} has the key '{key}', which its space does not declare", self.name);
        }
        Ok(())
    }
}

fn same_kind(space: &Space, value: &Array) -> bool {
    value.dtype() == space.dtype && value.shape == space.shape
}

impl Env for CheckSpaces {
    forward!(obs_space);
    forward!(act_space);
    forward!(begin);
    forward!(render);
    forward!(save, load);

    fn step(&mut self, action: &Record) -> Result<Record> {
        self.check("action", self.env.act_space(), action)?;
        let obs = self.env.step(action)?;
        self.check("observation", self.env.obs_space(), &obs)?;
        Ok(obs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Moment;
    use crate::wrappers::probe::{Probe, act};

    fn complaint(change: impl Fn(&mut Record)) -> String {
        let mut env = CheckSpaces::new(Probe::bounded(-1.0, 1.0), "probe").unwrap();
        env.step(&act(0.0)).unwrap();
        let mut action = act(0.5);
        change(&mut action);
        env.step(&action).unwrap_err().to_string()
    }

    #[test]
    fn bad_actions_are_named() {
        let bad = |key: &'static str, value: Array| complaint(|action| drop(action.insert(key.into(), value.clone())));
        let start = "environment 'probe': in the action, key 'action' holds ";
        assert_eq!(bad("action", Array::f32(2.0)), format!("{start}2, outside its bounds -1 to 1"));
        assert_eq!(bad("action", Array::f32(f32::NAN)), format!("{start}NaN, which is no finite number"));
        assert_eq!(bad("action", Array::f32(f32::INFINITY)), format!("{start}inf, which is no finite number"));
        assert_eq!(bad("action", Array::i32(1)), format!("{start}int32 [] where its space says float32 []"));
        let start = "environment 'probe': the action ";
        assert_eq!(bad("jump", Array::i32(1)), format!("{start}has the key 'jump', which its space does not declare"));
        assert_eq!(complaint(|action| drop(action.remove("reset"))), format!("{start}lacks the key 'reset'"));
    }

    #[test]
    fn numbers_of_the_log_come_and_go() {
        let env = CheckSpaces::new(Probe::endless(), "probe").unwrap();
        let check = |key: &str, value: Array| {
            let mut obs = spaces::zeros(env.env.obs_space());
            obs.insert(key.into(), value);
            env.check("observation", env.obs_space(), &obs).map_err(|error| error.to_string())
        };
        assert_eq!(check("log/hit", Array::f32(1.0)), Ok(()));
        assert!(check("log/hits", Array::from_f32(&[2], vec![0.0; 2])).unwrap_err().contains("does not declare"));
        assert!(check("hit", Array::f32(1.0)).unwrap_err().contains("does not declare"));
    }

    #[test]
    fn pictures_are_checked_for_kind_and_narrower_bounds() {
        let complaint = |space: Space, value: Array| {
            let mut probe = Probe::endless();
            probe.obs_space["step"] = space;
            let env = CheckSpaces::new(probe, "probe").unwrap();
            let mut obs = Moment::FIRST.record([]);
            obs.insert("step".into(), value);
            env.check("observation", env.obs_space(), &obs).map_err(|error| error.to_string())
        };
        let picture = Array::from_u8(&[1, 2, 1], vec![0, 255]);
        assert_eq!(complaint(Space::image(1, 2, 1), picture.clone()), Ok(()));
        assert!(complaint(Space::image(2, 1, 1), picture.clone()).unwrap_err().contains("uint8 [1, 2, 1]"));
        let dark = Space { high: 100.0, ..Space::image(1, 2, 1) };
        assert!(complaint(dark, picture).unwrap_err().contains("holds 255, outside its bounds 0 to 99"));
    }

    #[test]
    fn bad_observations_and_spaces_are_named() {
        let mut probe = Probe::endless();
        probe.obs_space["step"] = Space::bounded(&[], 0.0, 1.0);
        let mut env = CheckSpaces::new(probe, "probe").unwrap();
        env.step(&act(0.0)).unwrap();
        env.step(&act(0.0)).unwrap();
        let error = env.step(&act(0.0)).unwrap_err().to_string();
        assert_eq!(error, "environment 'probe': in the observation, key 'step' holds 2, outside its bounds 0 to 1");

        let complaint = |change: fn(&mut Probe)| {
            let mut probe = Probe::endless();
            change(&mut probe);
            CheckSpaces::new(probe, "probe").err().unwrap().to_string()
        };
        let lacks = complaint(|probe| drop(probe.obs_space.shift_remove("is_last")));
        assert_eq!(lacks, "environment 'probe': its spaces lack the key 'is_last'");
        let wrong = complaint(|probe| probe.obs_space["reward"] = Space::discrete(&[], 2));
        assert_eq!(wrong, "environment 'probe': the key 'reward' must be float32 [], not int32 [] of 2 classes");
        let own = complaint(|probe| drop(probe.obs_space.insert("dyn/deter".into(), Space::float(&[]))));
        assert_eq!(
            own,
            "environment 'probe': the key 'dyn/deter' is a name of the agent's own values; call it obs/dyn/deter"
        );
        let shifted = complaint(|probe| probe.obs_space["step"] = Space { low: 1.0, ..Space::discrete(&[], 7) });
        assert_eq!(shifted, "environment 'probe': the integers of the key 'step' start at 1; shift them to start at 0");
        let half = complaint(|probe| probe.act_space["action"] = Space::bounded(&[], 0.0, f64::INFINITY));
        assert!(half.contains("the action 'action' has a bound on one side only, 0 to inf"), "{half}");
        let both = complaint(|probe| drop(probe.obs_space.insert("action".into(), Space::boolean())));
        assert_eq!(both, "environment 'probe': the key 'action' is in both spaces; rename one of them");
    }
}
