//! Scalar heads: reward, continue and value, each a multilayer perceptron with an output distribution.

use crate::config::Head as Config;
use crate::nets::{Linear, Mlp, Style};
use crate::params::{Builder, Params};
use engine::Tensor;
use engine::ops::{self, Squash};

/// A head that predicts one number a row.
#[derive(Clone, Debug)]
pub struct ScalarHead {
    mlp: Mlp,
    out: Linear,
    output: Output,
}

#[derive(Clone, Debug)]
enum Output {
    TwoHot(Vec<f32>),
    Regression(Squash),
    Binary,
}

/// The outputs that a head for rewards or values may have.
pub const SCALAR_OUTPUTS: [&str; 4] = ["symexp_twohot", "mse", "huber", "symlog_mse"];

impl ScalarHead {
    pub fn new(b: &mut Builder, inputs: usize, config: &Config) -> Self {
        let style = Style { act: &config.act, norm: &config.norm, winit: &config.winit };
        let mlp = Mlp::plain(&mut b.scope("mlp"), inputs, config.layers, config.units, &style);
        let (output, name, width) = match config.output.as_str() {
            "symexp_twohot" => (Output::TwoHot(ops::symexp_bins(config.bins)), "logits", config.bins),
            "binary" => (Output::Binary, "logit", 1),
            "huber" => (Output::Regression(Squash::Huber), "pred", 1),
            "symlog_mse" => (Output::Regression(Squash::Symlog), "pred", 1),
            _ => (Output::Regression(Squash::Identity), "pred", 1),
        };
        let out = Linear::new(&mut b.scope("head"), name, mlp.width(), width, &config.winit, config.outscale);
        ScalarHead { mlp, out, output }
    }

    /// Raw outputs [.., bins or 1] for the concatenation of `feat`, each [.., width].
    pub fn apply(&self, p: &Params, feat: &[&Tensor]) -> Tensor {
        self.out.apply(p, &self.mlp.apply_parts(p, feat))
    }

    /// Loss of raw outputs [.., bins or 1] for targets [..], summed over targets with a coefficient each -> [..].
    pub fn loss(&self, raw: &Tensor, targets: &[(&Tensor, f32)]) -> Tensor {
        if let Output::TwoHot(bins) = &self.output {
            return ops::twohot_loss(raw, bins, targets);
        }
        let one = |target: &Tensor| match self.output {
            Output::Regression(squash) => ops::squared_error(raw, target, squash),
            _ => ops::binary_loss(raw, target),
        };
        if let [(target, 1.0)] = targets {
            return one(target);
        }
        let losses: Vec<(Tensor, Tensor)> = targets
            .iter()
            .map(|(target, c)| {
                let loss = one(target);
                let c = ops::full(loss.shape(), *c, loss.device());
                (loss, c)
            })
            .collect();
        ops::linear_combination(&losses.iter().map(|(l, c)| (l, c)).collect::<Vec<_>>())
    }

    /// Predictions [..] from raw outputs. A binary head gives the probability; `symlog_mse`, as in the official code,
    /// the symlog of the prediction. No gradient.
    pub fn pred(&self, raw: &Tensor) -> Tensor {
        let shape = &raw.shape()[..raw.shape().len() - 1];
        match &self.output {
            Output::TwoHot(bins) => ops::twohot_pred(raw, bins),
            Output::Regression(_) => ops::reshape(&raw.detach(), shape),
            Output::Binary => ops::reshape(&ops::binary_prob(raw), shape),
        }
    }
}
