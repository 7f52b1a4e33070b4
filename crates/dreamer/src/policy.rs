//! The actor: a distribution over each action key.

use crate::config::AgentConfig;
use crate::nets::{Linear, Mlp, Style};
use crate::noise::{At, Noise};
use crate::params::{Builder, Params};
use engine::Tensor;
use engine::ops::{self, NormalKind};
use spaces::{Array, Space, Spaces};

/// A multilayer perceptron with one output head per action key.
#[derive(Clone, Debug)]
pub struct Policy {
    mlp: Mlp,
    keys: Vec<Key>,
}

/// One action key and its distribution. Discrete actions travel as class indices in float tensors.
#[derive(Clone, Debug)]
struct Key {
    name: String,
    space: Space,
    dist: Dist,
}

#[derive(Clone, Debug)]
enum Dist {
    Categorical { logits: Linear, classes: usize, unimix: f32 },
    Normal { mean: Linear, std: Linear, kind: NormalKind },
}

/// What the network says about one action key, before it is made into a distribution.
enum Raw {
    Logits(Tensor),
    /// Mean and standard deviation.
    Normal(Tensor, Tensor),
}

/// Log-probability and entropy [..] of one action key.
pub struct Likelihood {
    pub logp: Tensor,
    pub entropy: Tensor,
}

impl Policy {
    pub fn new(b: &mut Builder, inputs: usize, act_space: &Spaces, config: &AgentConfig) -> Self {
        let c = &config.policy;
        let style = Style { act: &c.act, norm: &c.norm, winit: &c.winit };
        let mlp = Mlp::plain(&mut b.scope("mlp"), inputs, c.layers, c.units, &style);
        let mut head = b.scope("head");
        let mut keys: Vec<Key> = act_space
            .iter()
            .map(|(name, space)| {
                let mut b = head.scope(name);
                let width = space.width();
                let mut out = |n: &str| Linear::new(&mut b, n, mlp.width(), width, &c.winit, c.outscale);
                let dist = if space.is_discrete() {
                    let unimix = if config.policy_dist_disc == "categorical_unimix" { c.unimix } else { 0.0 };
                    Dist::Categorical { logits: out("logits"), classes: space.classes(), unimix }
                } else {
                    let kind = match config.policy_dist_cont.as_str() {
                        "normal_logstd" => NormalKind::LogStd,
                        _ => NormalKind::Bounded { min: c.minstd, max: c.maxstd },
                    };
                    Dist::Normal { mean: out("mean"), std: out("stddev"), kind }
                };
                Key { name: name.clone(), space: space.clone(), dist }
            })
            .collect();
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Policy { mlp, keys }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|k| k.name.as_str())
    }

    /// Actions for features [M, ..]: one tensor [M, width] per key in sorted order, and all of them as the recurrent model
    /// sees them, one-hot or float [M, sum of widths]. No gradient.
    pub fn sample(&self, p: &Params, feat: &[&Tensor], noise: &Noise, at: &At) -> (Vec<Tensor>, Tensor) {
        let x = self.mlp.apply_parts(p, feat);
        let sample = |(i, key): (usize, &Key)| key.sample(&key.raw(p, &x), i, noise, at);
        let (actions, parts): (Vec<Tensor>, Vec<Tensor>) = self.keys.iter().enumerate().map(sample).unzip();
        (actions, ops::concat_last(&parts.iter().collect::<Vec<_>>()))
    }

    /// Like `sample`, with the likelihood of each key's action, through which gradients flow.
    pub fn act(&self, p: &Params, feat: &[&Tensor], noise: &Noise, at: &At) -> (Tensor, Vec<Likelihood>) {
        let x = self.mlp.apply_parts(p, feat);
        let (mut parts, mut likelihoods) = (Vec::new(), Vec::new());
        for (i, key) in self.keys.iter().enumerate() {
            let raw = key.raw(p, &x);
            let (action, part) = key.sample(&raw, i, noise, at);
            likelihoods.push(key.evaluate(&raw, &action));
            parts.push(part);
        }
        (ops::concat_last(&parts.iter().collect::<Vec<_>>()), likelihoods)
    }

    /// Likelihood of given actions, per key in sorted order.
    pub fn evaluate(&self, p: &Params, feat: &[&Tensor], actions: &[&Tensor]) -> Vec<Likelihood> {
        let x = self.mlp.apply_parts(p, feat);
        self.keys.iter().zip(actions).map(|(key, action)| key.evaluate(&key.raw(p, &x), action)).collect()
    }

    /// The actions as arrays of their spaces' shapes and dtypes, [M, ...] each.
    pub fn arrays(&self, actions: &[Tensor]) -> Vec<(String, Array)> {
        let array = |(key, a): (&Key, &Tensor)| {
            let mut shape = vec![a.dim(0)];
            shape.extend(&key.space.shape);
            let a = a.host();
            let data = a.data();
            let array = match key.space.dtype {
                spaces::DType::I32 => Array::from_i32(&shape, data.iter().map(|&x| x as i32).collect()),
                spaces::DType::U8 => Array::from_u8(&shape, data.iter().map(|&x| x as u8).collect()),
                spaces::DType::Bool => Array::from_bool(&shape, data.iter().map(|&x| x != 0.0).collect()),
                _ => Array::from_f32(&shape, data.to_vec()),
            };
            (key.name.clone(), array)
        };
        self.keys.iter().zip(actions).map(array).collect()
    }

    /// The parameters of each key's distribution under the names of the golden files: `logits/KEY`, `mean/KEY`, `std/KEY`.
    #[cfg(test)]
    pub fn distributions(&self, p: &Params, feat: &[&Tensor]) -> Vec<(String, Tensor)> {
        let x = self.mlp.apply_parts(p, feat);
        let outputs = |key: &Key| match &key.dist {
            Dist::Categorical { logits, .. } => vec![(format!("logits/{}", key.name), logits.apply(p, &x))],
            Dist::Normal { mean, std, kind } => {
                let [m, s] = ops::normal_params(&mean.apply(p, &x), &std.apply(p, &x), *kind);
                vec![(format!("mean/{}", key.name), m), (format!("std/{}", key.name), s)]
            }
        };
        self.keys.iter().flat_map(outputs).collect()
    }

    /// The range of a key's entropy, by which `rand/KEY` measures how random the policy is. `None` where the
    /// official code reports no such metric: for keys of several numbers and for unbounded distributions.
    pub fn entropy_range(&self, index: usize) -> Option<(f32, f32)> {
        let entropy = |std: f32| std.ln() + 0.5 * std::f32::consts::TAU.ln() + 0.5;
        match &self.keys[index].dist {
            _ if !self.keys[index].space.shape.is_empty() => None,
            Dist::Categorical { classes, .. } => Some((0.0, (*classes as f32).ln())),
            Dist::Normal { kind: NormalKind::Bounded { min, max }, .. } => Some((entropy(*min), entropy(*max))),
            Dist::Normal { .. } => None,
        }
    }
}

impl Key {
    /// The raw outputs for the last layer's x [M, units]: logits, or mean and standard deviation.
    fn raw(&self, p: &Params, x: &Tensor) -> Raw {
        match &self.dist {
            Dist::Categorical { logits, .. } => Raw::Logits(logits.apply(p, x)),
            Dist::Normal { mean, std, .. } => Raw::Normal(mean.apply(p, x), std.apply(p, x)),
        }
    }

    /// A sampled action, and its embedding.
    fn sample(&self, raw: &Raw, index: usize, noise: &Noise, at: &At) -> (Tensor, Tensor) {
        match (&self.dist, raw) {
            (Dist::Categorical { classes, unimix, .. }, Raw::Logits(logits)) => {
                let drawn = noise.action(&self.name, index, at, self.space.size());
                ops::sample_categorical(logits, *classes, *unimix, drawn.draw()).into()
            }
            (Dist::Normal { kind, .. }, Raw::Normal(mean, std)) => {
                let drawn = noise.action(&self.name, index, at, mean.width());
                let action = ops::normal_sample(mean, std, *kind, drawn.normal());
                (action.clone(), action)
            }
            _ => unreachable!("`raw` makes what the distribution takes"),
        }
    }

    fn evaluate(&self, raw: &Raw, action: &Tensor) -> Likelihood {
        let [logp, entropy] = match (&self.dist, raw) {
            (Dist::Categorical { classes, unimix, .. }, Raw::Logits(logits)) => {
                ops::categorical(logits, *classes, *unimix, action)
            }
            (Dist::Normal { kind, .. }, Raw::Normal(mean, std)) => ops::normal(mean, std, *kind, action),
            _ => unreachable!("`raw` makes what the distribution takes"),
        };
        Likelihood { logp, entropy }
    }
}
