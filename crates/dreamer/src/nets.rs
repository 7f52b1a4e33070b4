//! Layers as descriptions: which parameters they use and how. The values come with each call.

use crate::params::{Builder, Id, Params};
use engine::ops::{self, Act, NormKind, Term};
use engine::{Device, Tensor};

/// A linear layer [in, out], or a block-linear one [blocks, in / blocks, out / blocks].
#[derive(Clone, Debug)]
pub struct Linear {
    pub kernel: Id,
    pub bias: Id,
}

impl Linear {
    pub fn new(b: &mut Builder, name: &str, inputs: usize, outputs: usize, winit: &str, outscale: f32) -> Self {
        Self::with_shape(b, name, &[inputs, outputs], outputs, winit, outscale)
    }

    pub fn blocks(b: &mut Builder, name: &str, inputs: usize, outputs: usize, blocks: usize, winit: &str) -> Self {
        Self::with_shape(b, name, &[blocks, inputs / blocks, outputs / blocks], outputs, winit, 1.0)
    }

    fn with_shape(b: &mut Builder, name: &str, shape: &[usize], outputs: usize, winit: &str, outscale: f32) -> Self {
        let mut b = b.scope(name);
        let kernel = b.kernel("kernel", shape, winit, outscale);
        Linear { kernel, bias: b.constant("bias", &[outputs], 0.0) }
    }

    /// x [.., in] -> [.., out].
    pub fn apply(&self, p: &Params, x: &Tensor) -> Tensor {
        ops::linear(x, p.get(self.kernel), p.get(self.bias))
    }

    /// The layer on the concatenation of `xs` along the last axis.
    pub fn apply_parts(&self, p: &Params, xs: &[&Tensor]) -> Tensor {
        ops::linear_parts(xs, p.get(self.kernel), p.get(self.bias))
    }

    /// The layer's output plus `add` [.., out].
    pub fn apply_plus(&self, p: &Params, x: &Tensor, add: &Tensor) -> Tensor {
        ops::affine(&[Term::new(x, 0)], p.get(self.kernel), Some(p.get(self.bias)), Some(add))
    }

    /// The terms' products plus the bias: a part of the layer that can be computed ahead.
    pub fn ahead(&self, p: &Params, terms: &[Term]) -> Tensor {
        ops::affine(terms, p.get(self.kernel), Some(p.get(self.bias)), None)
    }

    /// The terms' products plus what was computed ahead.
    pub fn finish(&self, p: &Params, terms: &[Term], ahead: &Tensor) -> Tensor {
        if terms.is_empty() {
            return ahead.clone();
        }
        ops::affine(terms, p.get(self.kernel), None, Some(ahead))
    }
}

impl Linear {
    /// The layer as the engine's fused operations take it, with the scale of the norm after it.
    pub fn fused(&self, p: &Params, norm: Option<&NormAct>) -> ops::Layer {
        let scale = norm.and_then(|norm| norm.norm(p).scale.cloned());
        ops::Layer { weight: p.get(self.kernel).clone(), bias: p.get(self.bias).clone(), scale }
    }
}

/// Normalisation over the last axis followed by an activation.
#[derive(Clone, Debug)]
pub struct NormAct {
    kind: NormKind,
    eps: f32,
    scale: Option<Id>,
    shift: Option<Id>,
    act: Act,
}

impl NormAct {
    /// `norm` is `none`, `rms` or `layer`, with `1em5` or the like appended for another epsilon.
    pub fn new(b: &mut Builder, name: &str, width: usize, norm: &str, act: &str) -> Self {
        let (norm, eps) = parse_norm(norm).expect("checked when the agent is built");
        let act = Act::parse(act).expect("checked when the agent is built");
        let mut b = b.scope(name);
        let scale = (norm != NormKind::None).then(|| b.constant("scale", &[width], 1.0));
        let shift = (norm == NormKind::Layer).then(|| b.constant("shift", &[width], 0.0));
        NormAct { kind: norm, eps, scale, shift, act }
    }

    pub fn act(&self) -> Act {
        self.act
    }

    /// The engine's description with this layer's parameters.
    pub fn norm<'a>(&self, p: &'a Params) -> ops::Norm<'a> {
        let get = |id: Option<Id>| id.map(|id| p.get(id));
        ops::Norm { kind: self.kind, eps: self.eps, scale: get(self.scale), shift: get(self.shift) }
    }

    pub fn apply(&self, p: &Params, x: &Tensor) -> Tensor {
        ops::norm_act(x, &self.norm(p), self.act)
    }

    /// The epsilon, if this is what the engine's fused operations are made for: an rms norm and silu.
    pub fn fused_eps(&self, p: &Params) -> Option<f32> {
        let rms = self.norm(p).kind == NormKind::Rms && Act::parse("silu") == Some(self.act);
        rms.then_some(self.eps)
    }
}

/// Kind and epsilon of a norm's name, if it is one.
pub fn parse_norm(name: &str) -> Option<(NormKind, f32)> {
    let (name, eps) = match name.split_once("1em") {
        Some((name, exponent)) => (name, 10f32.powi(-exponent.parse::<i32>().ok()?)),
        None => (name, 1e-4),
    };
    let kind = match name {
        "none" => NormKind::None,
        "rms" => NormKind::Rms,
        "layer" => NormKind::Layer,
        _ => return None,
    };
    Some((kind, eps))
}

/// Width of what an activation returns for `width` inputs: swiglu halves it.
pub fn act_width(act: &str, width: usize) -> usize {
    if act == "swiglu" { width / 2 } else { width }
}

/// The unit of all networks here: linear, norm, activation.
#[derive(Clone, Debug)]
pub struct Layer {
    pub linear: Linear,
    pub norm: NormAct,
}

/// Names and kinds that the layers of one network share.
pub struct Style<'a> {
    pub act: &'a str,
    pub norm: &'a str,
    pub winit: &'a str,
}

impl Layer {
    pub fn new(b: &mut Builder, names: [&str; 2], inputs: usize, units: usize, style: &Style) -> Self {
        let linear = Linear::new(b, names[0], inputs, units, style.winit, 1.0);
        Layer { linear, norm: NormAct::new(b, names[1], units, style.norm, style.act) }
    }

    pub fn apply(&self, p: &Params, x: &Tensor) -> Tensor {
        self.norm.apply(p, &self.linear.apply(p, x))
    }

    /// The layer as the engine's fused operations take it.
    pub fn fused(&self, p: &Params) -> ops::Layer {
        self.linear.fused(p, Some(&self.norm))
    }
}

/// A stack of layers.
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
    width: usize,
}

impl Mlp {
    /// `names` gives the names of linear and norm of layer `i`.
    pub fn new(
        b: &mut Builder,
        names: impl Fn(usize) -> [String; 2],
        inputs: usize,
        layers: usize,
        units: usize,
        style: &Style,
    ) -> Self {
        let mut width = inputs;
        let layer = |i: usize| {
            let [linear, norm] = names(i);
            let layer = Layer::new(b, [&linear, &norm], width, units, style);
            width = act_width(style.act, units);
            layer
        };
        let layers = (0..layers).map(layer).collect();
        Mlp { layers, width }
    }

    /// The official `nn.MLP` names: `linear0`, `norm0`, ...
    pub fn plain(b: &mut Builder, inputs: usize, layers: usize, units: usize, style: &Style) -> Self {
        Self::new(b, |i| [format!("linear{i}"), format!("norm{i}")], inputs, layers, units, style)
    }

    /// Names with a common stem: `prior0`, `prior0norm`, ...
    pub fn stem(b: &mut Builder, stem: &str, inputs: usize, layers: usize, units: usize, style: &Style) -> Self {
        Self::new(b, |i| [format!("{stem}{i}"), format!("{stem}{i}norm")], inputs, layers, units, style)
    }

    /// Width of the output.
    pub fn width(&self) -> usize {
        self.width
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub fn apply(&self, p: &Params, x: &Tensor) -> Tensor {
        self.apply_parts(p, &[x])
    }

    /// The stack on the concatenation of `xs`, which is only built if there are no layers.
    pub fn apply_parts(&self, p: &Params, xs: &[&Tensor]) -> Tensor {
        let Some((first, rest)) = self.layers.split_first() else { return ops::concat_last(xs) };
        if let Some(x) = self.at_once(p, xs) {
            return x;
        }
        let x = first.norm.apply(p, &first.linear.apply_parts(p, xs));
        rest.iter().fold(x, |x, layer| layer.apply(p, &x))
    }

    /// The same on a GPU by one kernel, or by one after the first layer, where [`ops::mlp`] supports that.
    fn at_once(&self, p: &Params, xs: &[&Tensor]) -> Option<Tensor> {
        if p.device() == Device::Cpu {
            return None;
        }
        let eps = self.layers.first()?.norm.fused_eps(p)?;
        let fused = self.layers.iter().map(|layer| (layer.norm.fused_eps(p) == Some(eps)).then(|| layer.fused(p)));
        ops::mlp(xs, &fused.collect::<Option<Vec<_>>>()?, eps)
    }
}
