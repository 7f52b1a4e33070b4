//! The optimizer of all trainable parameters: adaptive clipping, RMS scaling, momentum, learning-rate schedule.

use crate::config::Opt as Config;
use crate::params::Params;
use anyhow::{Context, Result, bail};
use engine::Tensor;
use engine::ops::{self, OptimizerStep, Slot, optimizer_launch};
use regex::Regex;

#[derive(Clone)]
pub struct Optimizer {
    config: Config,
    decays: Vec<f32>,
    /// Second and first moments, in the order of the parameters.
    pub rms: Vec<Tensor>,
    pub momentum: Vec<Tensor>,
    /// Updates done.
    pub step: u64,
}

/// The schedules of the learning rate after its warm-up.
pub const SCHEDULES: [&str; 3] = ["const", "linear", "cosine"];

impl Optimizer {
    pub fn new(params: &Params, config: &Config) -> Result<Self> {
        if config.schedule != "const" && config.anneal <= config.warmup {
            bail!(
                "agent.opt.schedule '{}' needs agent.opt.anneal (now {}) beyond agent.opt.warmup ({})",
                config.schedule,
                config.anneal,
                config.warmup
            );
        }
        let pattern = Regex::new(&config.wdregex)
            .with_context(|| format!("agent.opt.wdregex '{}' is not a regular expression", config.wdregex))?;
        let decay = |name: &str| if pattern.is_match(name) { config.wd } else { 0.0 };
        let zeros = || params.iter().map(|(_, x)| ops::zeros(x.shape(), x.device())).collect();
        Ok(Optimizer {
            config: config.clone(),
            decays: params.iter().map(|(name, _)| decay(name)).collect(),
            rms: zeros(),
            momentum: zeros(),
            step: 0,
        })
    }

    /// A copy that counts as many updates and cannot do any.
    pub fn without_moments(&self) -> Self {
        let (rms, momentum) = Default::default();
        Optimizer { config: self.config.clone(), decays: self.decays.clone(), rms, momentum, step: self.step }
    }

    /// The learning rate of the update after `count` others: zero for the first if there is a warm-up.
    fn learning_rate(&self, count: u64) -> f64 {
        let Config { lr, warmup, anneal, .. } = self.config;
        if count < warmup {
            return lr * count as f64 / warmup as f64;
        }
        let share = || ((count - warmup) as f64 / (anneal - warmup) as f64).min(1.0);
        match self.config.schedule.as_str() {
            "linear" => lr + (0.1 * lr - lr) * share(),
            "cosine" => {
                // The official code passes 0.1 lr where a share of lr is meant, so the floor is 0.1 lr².
                let floor = 0.1 * lr;
                lr * ((1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * share()).cos()) + floor)
            }
            _ => lr,
        }
    }

    /// The constants of the next update.
    pub fn constants(&self) -> OptimizerStep {
        OptimizerStep {
            lr: self.learning_rate(self.step) as f32,
            agc: self.config.agc,
            eps: self.config.eps,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            nesterov: self.config.nesterov,
            count: self.step + 1,
        }
    }

    /// What differs between updates [3], on the processor.
    pub fn rates(&self) -> Tensor {
        Tensor::from_slice(&[3], &self.constants().varying())
    }

    /// One update of all parameters from their gradients, which are clipped in place, at `rates` [3]. Nothing changes
    /// if a number of the gradients or of `watched` is not finite; see [`optimizer_launch`] for the verdict [4]. The
    /// caller raises the count of updates.
    pub fn update(&mut self, params: &mut Params, grads: &mut [Tensor], watched: &[&Tensor], rates: &Tensor) -> Tensor {
        let step = self.constants();
        let mut slots: Vec<Slot> = params
            .values_mut()
            .iter_mut()
            .zip(grads)
            .zip(self.rms.iter_mut().zip(&mut self.momentum))
            .zip(&self.decays)
            .map(|(((param, grad), (rms, momentum)), &decay)| Slot { param, grad, rms, momentum, decay })
            .collect();
        optimizer_launch(&mut slots, watched, step, rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(config: Config, counts: &[u64]) -> Vec<f64> {
        let opt = Optimizer::new(&Params::default(), &config).unwrap();
        counts.iter().map(|&c| opt.learning_rate(c)).collect()
    }

    #[test]
    fn schedules() {
        let base = Config { lr: 1.0, warmup: 10, anneal: 30, ..Config::default() };
        assert_eq!(rates(base.clone(), &[0, 5, 10, 99]), [0.0, 0.5, 1.0, 1.0]);
        let linear = Config { schedule: "linear".into(), ..base.clone() };
        assert!(rates(linear, &[10, 20, 30, 99]).iter().zip([1.0, 0.55, 0.1, 0.1]).all(|(a, b)| (a - b).abs() < 1e-12));
        let cosine = Config { schedule: "cosine".into(), ..base.clone() };
        // With lr 1 the official floor, a tenth of the square, is a tenth.
        assert!(rates(cosine.clone(), &[10, 20, 30]).iter().zip([1.0, 0.55, 0.1]).all(|(a, b)| (a - b).abs() < 1e-12));
        let small = Config { lr: 1e-2, ..cosine };
        assert!(rates(small, &[10, 20, 30]).iter().zip([1e-2, 5.005e-3, 1e-5]).all(|(a, b)| (a - b).abs() < 1e-12));
        let bad = Config { schedule: "linear".into(), anneal: 0, ..base };
        assert!(Optimizer::new(&Params::default(), &bad).is_err_and(|e| e.to_string().contains("agent.opt.anneal")));
    }
}
