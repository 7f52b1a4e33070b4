//! The decoder: features back to observations, as reconstruction losses and predictions (official rssm.py, `Decoder`).

use crate::config::SimpleDecoder as Config;
use crate::encoder::VECTOR_ROWS;
use crate::images::Deconv;
use crate::nets::{Linear, Mlp, Style};
use crate::params::{Builder, Params};
use anyhow::Result;
use engine::ops::{self, Squash};
use engine::{Device, Tensor};
use spaces::{Array, Record, Space, Spaces};
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
    pub fn losses(&self, p: &Params, deter: &Tensor, stoch: &Tensor, obs: &Record) -> Result<Vec<(String, Tensor)>> {
        let mut losses = Vec::new();
        if let Some(mlp) = &self.mlp {
            let rows = deter.rows();
            let targets: Vec<Target> =
                self.vectors.iter().map(|key| Target::new(&obs[&key.name], key, deter.device())).collect();
            let work = 2 * rows * (deter.width() + stoch.width()) * mlp.width();
            let found = ops::chunks(rows, VECTOR_ROWS, work, &[stoch, deter], |rows, inputs| {
                let x = mlp.apply_parts(p, &[&inputs[0], &inputs[1]]);
                let loss = |(key, target): (&VectorKey, &Target)| target.loss(key, &key.out.apply(p, &x), rows.clone());
                self.vectors.iter().zip(&targets).map(loss).collect()
            });
            losses.extend(self.vectors.iter().map(|k| k.name.clone()).zip(found));
        }
        if let Some(images) = &self.images {
            losses.extend(images.losses(p, deter, stoch, obs)?);
        }
        Ok(losses)
    }

    /// Predicted images in [0, 1] by key, for features with any number of rows.
    pub fn images(&self, p: &Params, deter: &Tensor, stoch: &Tensor) -> BTreeMap<String, Tensor> {
        self.images.as_ref().map_or_else(BTreeMap::new, |images| images.predict(p, deter, stoch))
    }
}

/// The observed values of one key over all rows.
enum Target {
    /// Indices, [rows, K].
    Classes(Tensor),
    Values(Tensor),
}

impl Target {
    fn new(array: &Array, key: &VectorKey, device: Device) -> Self {
        let width = key.space.size();
        let values = Tensor::from_slice(&[array.len() / width.max(1), width], &array.to_f32()).to(device);
        if key.space.is_discrete() { Target::Classes(values) } else { Target::Values(values) }
    }

    /// Loss [rows] of the raw outputs for these rows.
    fn loss(&self, key: &VectorKey, raw: &Tensor, rows: std::ops::Range<usize>) -> Tensor {
        match self {
            Target::Classes(xs) => ops::categorical_loss(raw, key.space.classes(), &ops::rows(xs, rows)),
            Target::Values(xs) => ops::squared_error(raw, &ops::rows(xs, rows), key.squash),
        }
    }
}
