//! What keys an environment may have for an agent to learn from.

use crate::{Space, Spaces};

/// Names that the agent and the replay reserve for their own values.
const OWN: [&str; 3] = ["stepid", "consec", "priority"];
const OWN_GROUPS: [&str; 4] = ["dyn/", "enc/", "dec/", "replay/"];

/// Bytes of a step's id, the key `stepid` of what a replay returns: by it, an agent's latents find their way back. The
/// chunk's number in 16, the index in it in 4, both big-endian.
pub const STEPID: usize = 20;

/// The part of an observation space that an agent sees: all but the metrics.
pub fn observed(obs_space: &Spaces) -> Spaces {
    without(obs_space, is_log)
}

/// The part of an action space that an agent chooses: all but `reset`.
pub fn chosen(act_space: &Spaces) -> Spaces {
    without(act_space, |key| key == "reset")
}

fn without(spaces: &Spaces, left_out: impl Fn(&str) -> bool) -> Spaces {
    spaces.iter().filter(|(key, _)| !left_out(key)).map(|(key, space)| (key.clone(), space.clone())).collect()
}

/// Whether `key` is a metric of the environment, which an agent does not see and a replay does not keep.
pub fn is_log(key: &str) -> bool {
    key.starts_with("log/")
}

/// Refuses, with a sentence, keys that an agent could not tell apart from each other or from its own, and bounds that
/// it would misunderstand.
pub fn check_keys(obs_space: &Spaces, act_space: &Spaces) -> Result<(), String> {
    if let Some(key) = act_space.keys().find(|key| obs_space.contains_key(*key)) {
        return Err(format!("the key '{key}' is in both spaces; rename one of them"));
    }
    let own = |key: &&String| OWN.contains(&key.as_str()) || OWN_GROUPS.iter().any(|group| key.starts_with(group));
    if let Some(key) = obs_space.keys().chain(act_space.keys()).find(own) {
        return Err(format!("the key '{key}' is a name of the agent's own values; call it obs/{key}"));
    }
    if let Some(key) = act_space.keys().find(|key| is_log(key)) {
        return Err(format!("the action '{key}' has the name of a metric; call it action/{key}"));
    }
    let metric = |(key, space): &(&String, &Space)| is_log(key) && !space.is_image() && space.size() != 1;
    if let Some((key, space)) = obs_space.iter().find(metric) {
        return Err(format!("the metric '{key}' is {space}, but has to be one number, or an image; call it obs/{key}"));
    }
    for (key, space) in obs_space.iter().chain(act_space).filter(|(key, _)| !is_log(key)) {
        if space.is_discrete() && !space.is_image() && space.low != 0.0 {
            return Err(format!("the integers of the key '{key}' start at {}; shift them to start at 0", space.low));
        }
    }
    for (key, space) in act_space.iter().filter(|(_, space)| !space.is_discrete()) {
        if space.low.is_finite() != space.high.is_finite() {
            let (low, high) = (space.low, space.high);
            return Err(format!(
                "the action '{key}' has a bound on one side only, {low} to {high}; give it both, or none"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(obs: &[(&str, Space)], act: &[(&str, Space)]) -> String {
        let spaces = |all: &[(&str, Space)]| all.iter().map(|(key, space)| (key.to_string(), space.clone())).collect();
        check_keys(&spaces(obs), &spaces(act)).err().unwrap_or_default()
    }

    #[test]
    fn metrics_are_numbers_or_images_and_no_actions() {
        let flag = Space::boolean();
        let several = Space::float(&[3]);
        assert_eq!(sentence(&[("log/hit", flag.clone()), ("log/view", Space::image(48, 64, 3))], &[]), "");
        let vector = sentence(&[("log/path", several)], &[]);
        assert!(vector.starts_with("the metric 'log/path' is float32 [3]") && vector.ends_with("call it obs/log/path"));
        let action = sentence(&[], &[("log/hit", flag)]);
        assert_eq!(action, "the action 'log/hit' has the name of a metric; call it action/log/hit");
    }
}
