//! Running statistics of returns, values and advantages (official utils.py, `Normalize`).

use crate::config::Normalize as Config;
use engine::cuda::Member;
use engine::ops::{self, Running};
use engine::{Device, Tensor};

/// Exponential moving statistics, on the agent's device; which of the numbers are used depends on the kind.
#[derive(Clone, Debug)]
pub struct Normalizer {
    config: Config,
    /// [3]: percentiles (`lo`, `hi`) or moments (`mean`, `sqrs`), and the EMA of 1 (`corr`), to debias the zero start.
    pub state: Tensor,
    /// Offset 0 and scale 1 [2].
    identity: Tensor,
    /// This GPU among several that train together; the statistics are those of the whole batch.
    pub member: Option<Member>,
}

impl Normalizer {
    pub fn new(config: &Config) -> Self {
        let identity = Tensor::from_slice(&[2], &[0.0, 1.0]);
        Normalizer { config: config.clone(), state: Tensor::zeros(&[3]), identity, member: None }
    }

    /// The same statistics on another device, alone.
    pub fn to(&self, device: Device) -> Self {
        let (state, identity) = (self.state.to(device), self.identity.to(device));
        Normalizer { config: self.config.clone(), state, identity, member: None }
    }

    /// Names of the state's parts, below the normaliser's own, each with its place in the state.
    pub fn names(&self) -> Vec<(&'static str, usize)> {
        let mut names = match self.config.kind.as_str() {
            "perc" => vec![("lo", 0), ("hi", 1)],
            "meanstd" => vec![("mean", 0), ("sqrs", 1)],
            _ => return vec![],
        };
        if self.config.debias {
            names.push(("corr", 2));
        }
        names
    }

    /// The rule of the running statistics; none where nothing is normalised.
    fn running(&self) -> Option<Running> {
        let Config { kind, debias, rate, limit, .. } = &self.config;
        let moments = kind == "meanstd";
        (moments || kind == "perc").then_some(Running { moments, debias: *debias, rate: *rate, limit: *limit })
    }

    /// Copies the state of `other`, unless `verdict` says that the update was skipped.
    pub fn follow(&mut self, other: &Normalizer, verdict: &Tensor) {
        if self.running().is_some() {
            ops::ema_all(&mut [(&other.state, &mut self.state)], 1.0, Some(verdict));
        }
    }

    /// Moves towards the statistics of `x` and returns offset and scale [2].
    fn update(&mut self, x: &Tensor) -> Tensor {
        let Some(running) = self.running() else { return self.identity.clone() };
        let percentiles = [self.config.perclo, self.config.perchi];
        match &self.member {
            Some(member) => running.update(&mut self.state, &member.gather(x), percentiles),
            None => running.update(&mut self.state, x, percentiles),
        }
    }

    /// Offset and scale [2].
    pub fn stats(&self) -> Tensor {
        self.running().map_or_else(|| self.identity.clone(), |running| running.stats(&self.state))
    }

    /// `(x - offset) / scale` for stats [2] of this one.
    pub fn normalize(&self, x: &Tensor, stats: &Tensor) -> Tensor {
        if self.running().is_none() { x.detach() } else { ops::normalize(x, stats, true) }
    }

    /// `x scale + offset`.
    pub fn denormalize(&self, x: &Tensor, stats: &Tensor) -> Tensor {
        if self.running().is_none() { x.detach() } else { ops::denormalize(x, stats) }
    }

    /// Updates where `update` says so, then returns offset and scale.
    pub fn apply(&mut self, x: &Tensor, update: bool) -> Tensor {
        if update { self.update(x) } else { self.stats() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_moments_approach_those_of_the_data() {
        let x = Tensor::from_slice(&[2], &[0.0, 100.0]);
        let mut percentiles =
            Normalizer::new(&Config { kind: "perc".into(), limit: 1.0, debias: false, ..Config::default() });
        let stats = percentiles.apply(&x, true);
        assert_eq!(stats.data()[1], 1.0); // 1 % of 90 is below the limit
        (0..1000).for_each(|_| drop(percentiles.update(&x)));
        assert!((percentiles.stats().data()[1] - 90.0).abs() < 0.1);

        let mut moments = Normalizer::new(&Config { kind: "meanstd".into(), debias: true, ..Config::default() });
        let stats = moments.apply(&Tensor::from_slice(&[2], &[1.0, 3.0]), true);
        assert!(stats.data().iter().zip([2.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-3), "{stats:?}");
    }

    #[test]
    fn without_a_kind_nothing_changes() {
        let mut none = Normalizer::new(&Config { kind: "none".into(), ..Config::default() });
        assert_eq!(none.apply(&Tensor::full(&[3], 7.0), true).data(), [0.0, 1.0]);
        assert!(none.names().is_empty());
    }
}
