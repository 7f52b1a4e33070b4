//! Episode statistics: score and length of each episode, and averages over episodes.

use crate::exact::Exact;
use crate::log::{Agg, How, Metrics, insert_scalar};
use anyhow::{Result, ensure};
use envs::record::flag;
use serde::{Deserialize, Serialize};
use spaces::{Array, DType, Record};

/// A reward that differs by less from the one before counts as the same.
const REWARD_CHANGE: f64 = 0.01;

/// The running episode of every environment, and what ended episodes showed since the last log.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Episodes {
    running: Vec<Episode>,
    stats: Agg,
    /// Episodes that ended since the run began.
    pub ended: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Episode {
    agg: Agg,
    score: Exact,
    length: u64,
    reward: Exact,
    changes: u64,
}

impl Episodes {
    pub fn new(envs: usize) -> Self {
        Episodes { running: (0..envs).map(|_| Episode::default()).collect(), ..Default::default() }
    }

    /// Number of environments.
    pub fn envs(&self) -> usize {
        self.running.len()
    }

    /// Forgets the running episodes and what has not been reported of ended ones, as when an evaluation starts anew.
    pub fn reset(&mut self) {
        self.running.fill_with(Episode::default);
        self.stats = Agg::default();
    }

    /// Takes in one step of environment `i`; at the episode's end gives its `score` and `length`.
    pub fn add(&mut self, i: usize, step: &Record) -> Result<Option<Metrics>> {
        let episode = &mut self.running[i];
        if flag(step, "is_first")? {
            *episode = Episode::default();
        }
        episode.add(step)?;
        if !flag(step, "is_last")? {
            return Ok(None);
        }
        let mut result = Metrics::new();
        insert_scalar(&mut result, "score", episode.score.0);
        insert_scalar(&mut result, "length", episode.length as f64);
        let mut stats = episode.agg.result();
        if episode.length > 1 {
            insert_scalar(&mut stats, "reward_rate", episode.changes as f64 / (episode.length - 1) as f64);
        }
        self.stats.add_metrics(&stats, "");
        self.ended += 1;
        Ok(Some(result))
    }

    /// Averages over the episodes since the last call.
    pub fn stats(&mut self) -> Metrics {
        self.stats.result()
    }
}

impl Episode {
    fn add(&mut self, step: &Record) -> Result<()> {
        let reward = step.get("reward").map_or(0.0, |reward| reward.item() as f64);
        if self.length > 0 && (reward - self.reward.0).abs() >= REWARD_CHANGE {
            self.changes += 1;
        }
        self.score.0 += reward;
        self.reward.0 = reward;
        self.length += 1;
        let picture = |value: &Array| value.dtype() == DType::U8 && value.shape.len() == 3;
        for (key, value) in step.iter().filter(|(key, value)| spaces::is_log(key) && !picture(value)) {
            ensure!(
                value.len() == 1,
                "the environment's key '{key}' must be one number, but has shape {:?}",
                value.shape
            );
            self.agg.add_each(key, value.item() as f64, &[How::Avg, How::Max, How::Sum]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Value;

    fn scalar(metrics: &Metrics, key: &str) -> Option<f64> {
        match metrics.get(key) {
            Some(Value::Scalar(x)) => Some(*x),
            _ => None,
        }
    }

    fn step(first: bool, last: bool, reward: f32, success: f32) -> Record {
        Record::from([
            ("is_first".to_string(), Array::bool(first)),
            ("is_last".to_string(), Array::bool(last)),
            ("reward".to_string(), Array::f32(reward)),
            ("log/success".to_string(), Array::f32(success)),
        ])
    }

    #[test]
    fn official_names_and_numbers_and_a_resume_in_the_middle() {
        let mut episodes = Episodes::new(2);
        episodes.add(1, &step(true, false, 9.0, 9.0)).unwrap();
        episodes.add(0, &step(true, false, 0.0, 0.0)).unwrap();
        episodes.add(0, &step(false, false, 1.5, 0.0)).unwrap();
        let saved = serde_json::to_string(&episodes).unwrap();
        let mut episodes: Episodes = serde_json::from_str(&saved).unwrap();
        let end = episodes.add(0, &step(false, true, 1.5, 1.0)).unwrap().unwrap();
        assert_eq!((scalar(&end, "score"), scalar(&end, "length")), (Some(3.0), Some(3.0)));
        let stats = episodes.stats();
        let names: Vec<&str> = stats.keys().map(String::as_str).collect();
        assert_eq!(names, ["log/success/avg", "log/success/max", "log/success/sum", "reward_rate"]);
        assert_eq!(scalar(&stats, "log/success/avg"), Some(1.0 / 3.0));
        assert_eq!(scalar(&stats, "reward_rate"), Some(0.5));
        assert_eq!(episodes.ended, 1);
    }
}
