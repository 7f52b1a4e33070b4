//! The decoder: features back to observations, as reconstruction losses and predictions (official rssm.py, `Decoder`).

use crate::config::SimpleDecoder as Config;
use crate::encoder::VECTOR_ROWS;
use crate::images::Deconv;
use crate::nets::{Linear, Mlp, Style};
use crate::observations::Observations;
use crate::params::{Builder, Params};
use engine::Tensor;
use engine::ops::{self, Squash};
use spaces::{Space, Spaces};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Decoder {
    mlp: Option<Mlp>,
    vectors: Vec<VectorKey>,
    images: Option<Deconv>,
}

/// The output of one vector key: class logits or (symlog) values.
#[derive(Clone, Debug)]
struct VectorKey {
    name: String,
    space: Space,
    out: Linear,
    squash: Squash,
}

impl Decoder {
    /// `deter` and `latent` are the widths of the two parts of a feature.
    pub fn new(b: &mut Builder, space: &Spaces, deter: usize, latent: usize, c: &Config) -> Self {
        let style = Style { act: &c.act, norm: &c.norm, winit: &c.winit };
        let keys: Vec<_> = space.iter().filter(|(_, s)| !s.is_image()).collect();
        let mlp =
            (!keys.is_empty()).then(|| Mlp::plain(&mut b.scope("mlp"), latent + deter, c.layers, c.units, &style));
        let width = mlp.as_ref().map_or(0, Mlp::width);
        let squash = if c.symlog { Squash::Symlog } else { Squash::Identity };
        let vectors = keys
            .into_iter()
            .map(|(name, space)| {
                let kind = if space.is_discrete() { "logits" } else { "pred" };
                let mut b = b.scope("vec");
                let mut b = b.scope(name);
                let out = Linear::new(&mut b, kind, width, space.width(), &c.winit, c.outscale);
                VectorKey { name: name.clone(), space: space.clone(), out, squash }
            })
            .collect();
        Decoder { mlp, vectors, images: Deconv::new(b, space, deter, latent, c) }
    }

    /// Reconstruction losses [rows] by key, for features deter [rows, D] and stoch [rows, S*C] and the observations.
    pub fn losses(&self, p: &Params, deter: &Tensor, stoch: &Tensor, obs: &Observations) -> Vec<(String, Tensor)> {
        let mut losses = Vec::new();
        if let Some(mlp) = &self.mlp {
            let rows = deter.rows();
            let work = 2 * rows * (deter.width() + stoch.width()) * mlp.width();
            let found = ops::chunks(rows, VECTOR_ROWS, work, &[stoch, deter], |rows, inputs| {
                let x = mlp.apply_parts(p, &[&inputs[0], &inputs[1]]);
                let loss = |key: &VectorKey| {
                    let target = ops::rows(obs.target(&key.name), rows.clone());
                    key.loss(&key.out.apply(p, &x), &target)
                };
                self.vectors.iter().map(loss).collect()
            });
            losses.extend(self.vectors.iter().map(|k| k.name.clone()).zip(found));
        }
        if let Some(images) = &self.images {
            losses.extend(images.losses(p, deter, stoch, obs));
        }
        losses
    }

    /// Predicted images in [0, 1] by key, for features with any number of rows.
    pub fn images(&self, p: &Params, deter: &Tensor, stoch: &Tensor) -> BTreeMap<String, Tensor> {
        self.images.as_ref().map_or_else(BTreeMap::new, |images| images.predict(p, deter, stoch))
    }
}

impl VectorKey {
    /// Loss [rows] of the raw outputs against what was observed [rows, K]: values, or indices of classes.
    fn loss(&self, raw: &Tensor, target: &Tensor) -> Tensor {
        if self.space.is_discrete() {
            ops::categorical_loss(raw, self.space.classes(), target)
        } else {
            ops::squared_error(raw, target, self.squash)
        }
    }
}
