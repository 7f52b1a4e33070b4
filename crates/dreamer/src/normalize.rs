//! Running statistics of returns, values and advantages (official utils.py, `Normalize`).

use crate::config::Normalize as Config;
use engine::ops::percentile;

/// Exponential moving statistics; which of the fields are used depends on the kind.
#[derive(Clone, Debug)]
pub struct Normalizer {
    config: Config,
    /// Percentiles (`lo`, `hi`) or moments (`mean`, `sqrs`), in the names' order.
    pub values: [f32; 2],
    /// The EMA of 1, which corrects the start.
    pub corr: f32,
}

impl Normalizer {
    pub fn new(config: &Config) -> Self {
        Normalizer { config: config.clone(), values: [0.0; 2], corr: 0.0 }
    }

    /// Names of the state's parts, below the normaliser's own.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = match self.config.kind.as_str() {
            "perc" => vec!["lo", "hi"],
            "meanstd" => vec!["mean", "sqrs"],
            _ => return vec![],
        };
        if self.config.debias {
            names.push("corr");
        }
        names
    }

    /// The part of the state called `name`.
    pub fn part(&mut self, name: &str) -> &mut f32 {
        match name {
            "lo" | "mean" => &mut self.values[0],
            "hi" | "sqrs" => &mut self.values[1],
            _ => &mut self.corr,
        }
    }

    pub fn update(&mut self, xs: &[f32]) {
        let mean = |f: fn(f64) -> f64| (xs.iter().map(|&x| f(x as f64)).sum::<f64>() / xs.len() as f64) as f32;
        let fresh = match self.config.kind.as_str() {
            "perc" => [percentile(xs, self.config.perclo), percentile(xs, self.config.perchi)],
            "meanstd" => [mean(|x| x), mean(|x| x * x)],
            _ => return,
        };
        let rate = self.config.rate;
        let ema = |old: f32, new: f32| (1.0 - rate) * old + rate * new;
        self.values = [ema(self.values[0], fresh[0]), ema(self.values[1], fresh[1])];
        self.corr = ema(self.corr, 1.0);
    }

    /// Offset and scale.
    pub fn stats(&self) -> (f32, f32) {
        let corr = if self.config.debias { 1.0 / self.corr.max(self.config.rate) } else { 1.0 };
        let [a, b] = self.values.map(|x| x * corr);
        match self.config.kind.as_str() {
            "perc" => (a, (b - a).max(self.config.limit)),
            "meanstd" => (a, (b - a * a).max(0.0).sqrt().max(self.config.limit)),
            _ => (0.0, 1.0),
        }
    }

    /// Updates where `update` says so, then returns offset and scale.
    pub fn apply(&mut self, xs: &[f32], update: bool) -> (f32, f32) {
        if update {
            self.update(xs);
        }
        self.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debiased_statistics_are_right_from_the_first_update() {
        let config = Config { kind: "meanstd".into(), debias: true, ..Config::default() };
        let mut n = Normalizer::new(&config);
        let (mean, std) = n.apply(&[1.0, 3.0], true);
        assert!((mean - 2.0).abs() < 1e-5 && (std - 1.0).abs() < 1e-3, "{mean} {std}");
    }

    #[test]
    fn percentile_scale_is_at_least_the_limit() {
        let config = Config { kind: "perc".into(), limit: 1.0, debias: false, ..Config::default() };
        let mut n = Normalizer::new(&config);
        assert_eq!(n.apply(&[0.0, 100.0], true).1, 1.0); // 1 % of 90 is below the limit
        (0..1000).for_each(|_| n.update(&[0.0, 100.0]));
        assert!((n.stats().1 - 90.0).abs() < 0.1);
    }
}
