//! What environments in Rust share: the four keys of each observation and the reading of actions.

use anyhow::{Context, Result, ensure};
use spaces::{Array, Record, Space, Spaces};

/// The observation space of a task: its own keys, then the four that every task has.
pub fn obs_space<'a>(keys: impl IntoIterator<Item = (&'a str, Space)>) -> Spaces {
    let flags = ["is_first", "is_last", "is_terminal"].map(|key| (key, Space::boolean()));
    let all = keys.into_iter().chain([("reward", Space::float(&[]))]).chain(flags);
    all.map(|(key, space)| (key.to_string(), space)).collect()
}

/// The action space of a task: its own keys, then `reset`.
pub fn act_space<'a>(keys: impl IntoIterator<Item = (&'a str, Space)>) -> Spaces {
    let all = keys.into_iter().chain([("reset", Space::boolean())]);
    all.map(|(key, space)| (key.to_string(), space)).collect()
}

/// Where in its episode a record stands, and the reward that came with it.
#[derive(Clone, Copy, Default)]
pub struct Moment {
    /// The reward of the action before.
    pub reward: f32,
    /// The episode begins here.
    pub is_first: bool,
    /// The episode ends here.
    pub is_last: bool,
    /// Nothing can follow, as opposed to an end by a time limit.
    pub is_terminal: bool,
}

impl Moment {
    /// The first record of an episode.
    pub const FIRST: Moment = Moment { reward: 0.0, is_first: true, is_last: false, is_terminal: false };

    /// The record with these four keys and the task's own.
    pub fn record<'a>(self, keys: impl IntoIterator<Item = (&'a str, Array)>) -> Record {
        let flags = [
            ("reward", Array::f32(self.reward)),
            ("is_first", Array::bool(self.is_first)),
            ("is_last", Array::bool(self.is_last)),
            ("is_terminal", Array::bool(self.is_terminal)),
        ];
        keys.into_iter().chain(flags).map(|(key, value)| (key.to_string(), value)).collect()
    }
}

/// A description of the first difference between two spaces; none where they are equal.
pub fn difference(ours: &Spaces, other: &Spaces) -> Option<String> {
    let key = ours.keys().chain(other.keys()).find(|key| ours.get(*key) != other.get(*key))?;
    Some(match (ours.get(key), other.get(key)) {
        (Some(ours), Some(other)) if ours.to_string() == other.to_string() => {
            format!("'{key}' is within {} to {}, not {} to {}", ours.low, ours.high, other.low, other.high)
        }
        (Some(ours), Some(other)) => format!("'{key}' is {ours}, not {other}"),
        (Some(_), None) => format!("it has the key '{key}'"),
        (None, _) => format!("it lacks the key '{key}'"),
    })
}

fn get<'a>(record: &'a Record, key: &str) -> Result<&'a Array> {
    record.get(key).with_context(|| {
        let keys: Vec<&str> = record.keys().map(String::as_str).collect();
        format!("the key '{key}' is missing; there are only: {}", keys.join(", "))
    })
}

/// A boolean scalar such as `reset` or `is_last`.
pub fn flag(record: &Record, key: &str) -> Result<bool> {
    Ok(number(record, key)? != 0.0)
}

/// A scalar such as `reward`.
pub fn number(record: &Record, key: &str) -> Result<f32> {
    let value = get(record, key)?;
    ensure!(value.len() == 1, "the key '{key}' holds {} values where one is needed", value.len());
    Ok(value.item())
}

/// A discrete scalar of the action, below `classes`.
pub fn choice(action: &Record, key: &str, classes: usize) -> Result<usize> {
    let x = number(action, key)?;
    ensure!(
        x >= 0.0 && x < classes as f32,
        "the action '{key}' is {x}; it must be an integer from 0 to {}",
        classes - 1
    );
    Ok(x as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_key() {
        let plain = obs_space([("x", Space::float(&[2]))]);
        let between = |other: &Spaces| difference(other, &plain);
        assert_eq!(between(&plain.clone()), None);
        let wide = obs_space([("x", Space::float(&[3]))]);
        assert_eq!(between(&wide).unwrap(), "'x' is float32 [3], not float32 [2]");
        let more = obs_space([("x", Space::float(&[2])), ("y", Space::boolean())]);
        assert_eq!(between(&more).unwrap(), "it has the key 'y'");
        assert_eq!(difference(&plain, &more).unwrap(), "it lacks the key 'y'");
    }

    #[test]
    fn bad_actions_are_sentences() {
        let action = Record::from([("action".to_string(), Array::i32(7))]);
        let error = choice(&action, "action", 3).unwrap_err().to_string();
        assert_eq!(error, "the action 'action' is 7; it must be an integer from 0 to 2");
        let error = flag(&action, "reset").unwrap_err().to_string();
        assert_eq!(error, "the key 'reset' is missing; there are only: action");
    }
}
