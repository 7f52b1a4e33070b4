//! The encoder: observations to tokens (official rssm.py, `Encoder`).

use crate::config::SimpleEncoder as Config;
use crate::data;
use crate::images::Cnn;
use crate::nets::{Mlp, Style};
use crate::params::{Builder, Params};
use anyhow::Result;
use engine::Tensor;
use engine::ops;
use spaces::{Record, Spaces};

#[derive(Clone, Debug)]
pub struct Encoder {
    space: Spaces,
    symlog: bool,
    mlp: Option<Mlp>,
    cnn: Option<Cnn>,
    width: usize,
}

impl Encoder {
    /// For the keys of `space`; images must share one height and width.
    pub fn new(b: &mut Builder, space: &Spaces, c: &Config) -> Self {
        let style = Style { act: &c.act, norm: &c.norm, winit: &c.winit };
        let inputs: usize = space.values().filter(|s| !s.is_image()).map(|s| s.width()).sum();
        let vectors = space.values().any(|s| !s.is_image());
        let mlp = vectors.then(|| Mlp::stem(b, "mlp", inputs, c.layers, c.units, &style));
        let cnn = Cnn::new(b, space, c);
        let width = mlp.as_ref().map_or(0, Mlp::width) + cnn.as_ref().map_or(0, Cnn::width);
        Encoder { space: space.clone(), symlog: c.symlog, mlp, cnn, width }
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens [rows, E] for observations with `rows` rows over all leading axes.
    pub fn apply(&self, p: &Params, obs: &Record, rows: usize) -> Result<Tensor> {
        let mut parts = Vec::new();
        if let Some(mlp) = &self.mlp {
            let keys = self.space.iter().filter(|(_, s)| !s.is_image()).map(|(k, s)| (k.as_str(), s));
            let x = data::vectors(keys, obs, rows, self.symlog)?.expect("there are vector keys");
            let work = 2 * x.len() * mlp.width();
            let x = x.to(p.device());
            let outputs = ops::chunks(rows, VECTOR_ROWS, work, &[&x], |_, inputs| vec![mlp.apply(p, &inputs[0])]);
            parts.extend(outputs);
        }
        if let Some(cnn) = &self.cnn {
            parts.push(cnn.apply(p, obs, rows)?);
        }
        Ok(ops::concat_last(&parts.iter().collect::<Vec<_>>()))
    }
}

/// Rows that one thread takes through the multilayer perceptron.
pub(crate) const VECTOR_ROWS: usize = 128;
