//! The encoder: observations to tokens (official rssm.py, `Encoder`).

use crate::config::SimpleEncoder as Config;
use crate::images::Cnn;
use crate::nets::{Mlp, Style};
use crate::observations::Observations;
use crate::params::{Builder, Params};
use engine::Tensor;
use engine::ops;
use spaces::Spaces;

#[derive(Clone, Debug)]
pub struct Encoder {
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
        Encoder { mlp, cnn, width }
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens [rows, E].
    pub fn apply(&self, p: &Params, obs: &Observations) -> Tensor {
        let mut parts = Vec::new();
        if let (Some(mlp), Some(x)) = (&self.mlp, &obs.vectors) {
            let work = 2 * x.len() * mlp.width();
            let outputs = ops::chunks(obs.rows, VECTOR_ROWS, work, &[x], |_, inputs| vec![mlp.apply(p, &inputs[0])]);
            parts.extend(outputs);
        }
        if let Some(cnn) = &self.cnn {
            parts.push(cnn.apply(p, obs));
        }
        ops::concat_last(&parts.iter().collect::<Vec<_>>())
    }
}

/// Rows that one thread takes through the multilayer perceptron.
pub(crate) const VECTOR_ROWS: usize = 128;
