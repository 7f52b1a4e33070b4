//! Normalisation over the last axis fused with the activation that follows it.

use crate::buffer::Buffer;
use crate::graph::{record1, recording};
use crate::sink::Sink;
use crate::tensor::{Device, Tensor};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NormKind {
    None,
    Rms,
    Layer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    None,
    Silu,
    Relu,
    Relu2,
    Gelu,
    Mish,
    Tanh,
    Elu,
    Sigmoid,
    Softplus,
    /// Half of the columns gate the other half: `silu(a) * b`.
    Swiglu,
}

impl Act {
    pub const NAMES: [&str; 11] =
        ["none", "silu", "relu", "relu2", "gelu", "mish", "tanh", "elu", "sigmoid", "softplus", "swiglu"];

    pub fn parse(name: &str) -> Option<Act> {
        Some(match name {
            "none" => Act::None,
            "silu" | "swish" => Act::Silu,
            "relu" => Act::Relu,
            "relu2" => Act::Relu2,
            "gelu" => Act::Gelu,
            "mish" => Act::Mish,
            "tanh" => Act::Tanh,
            "elu" => Act::Elu,
            "sigmoid" => Act::Sigmoid,
            "softplus" => Act::Softplus,
            "swiglu" => Act::Swiglu,
            _ => return None,
        })
    }
}

/// A norm with its parameters (official nets.py, `Norm`).
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub kind: NormKind,
    pub eps: f32,
    /// [N], for `rms` and `layer`.
    pub scale: Option<&'a Tensor>,
    /// [N], for `layer`.
    pub shift: Option<&'a Tensor>,
}

fn sig(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn value_slope(act: Act, x: f32) -> (f32, f32) {
    match act {
        Act::None | Act::Swiglu => (x, 1.0),
        Act::Silu => {
            let s = sig(x);
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
        Act::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        Act::Relu2 => (x.max(0.0).powi(2), 2.0 * x.max(0.0)),
        Act::Gelu => {
            let c = (2.0 / std::f32::consts::PI).sqrt();
            let t = (c * (x + 0.044715 * x * x * x)).tanh();
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * x * x))
        }
        Act::Mish => {
            let sp = if x > 20.0 { x } else { x.exp().ln_1p() };
            let t = sp.tanh();
            (x * t, t + x * (1.0 - t * t) * sig(x))
        }
        Act::Tanh => (x.tanh(), 1.0 - x.tanh().powi(2)),
        Act::Elu => if x > 0.0 { (x, 1.0) } else { (x.exp_m1(), x.exp()) },
        Act::Sigmoid => {
            let s = sig(x);
            (s, s * (1.0 - s))
        }
        Act::Softplus => (if x > 20.0 { x } else { x.exp().ln_1p() }, sig(x)),
    }
}

fn stats(norm: NormKind, eps: f32, row: &[f32]) -> (f32, f32) {
    let n = row.len() as f32;
    let mean2 = row.iter().map(|x| x * x).sum::<f32>() / n;
    match norm {
        NormKind::None => (0.0, 1.0),
        NormKind::Rms => (0.0, 1.0 / (mean2 + eps).sqrt()),
        NormKind::Layer => {
            let mean = row.iter().sum::<f32>() / n;
            (mean, 1.0 / ((mean2 - mean * mean).max(0.0) + eps).sqrt())
        }
    }
}

/// x [.., N] -> `act(norm(x))` [.., N] (or [.., N / 2] for swiglu).
pub fn norm_act(x: &Tensor, norm: &Norm, act: Act) -> Tensor {
    let n = x.width();
    let mut y = Buffer::stale(x.len());
    let at = |p: Option<&Tensor>, j: usize, d: f32| p.map_or(d, |p| p.data()[j]);
    for (to, row) in y.chunks_exact_mut(n.max(1)).zip(x.data().chunks_exact(n.max(1))) {
        let (mean, r) = stats(norm.kind, norm.eps, row);
        for j in 0..n {
            let z = (row[j] - mean) * (r * at(norm.scale, j, 1.0)) + at(norm.shift, j, 0.0);
            to[j] = value_slope(act, z).0;
        }
    }
    let _ = Device::Cpu;
    let y = Tensor::new(x.shape(), y);
    let mut inputs = vec![x];
    inputs.extend(norm.scale.into_iter().chain(norm.shift));
    let y = if !recording(&inputs) {
        y
    } else {
        let (kind, eps) = (norm.kind, norm.eps);
        let (x, scale, shift) = (x.clone(), norm.scale.cloned(), norm.shift.cloned());
        record1(&inputs, y, move |dy, sink: &mut Sink| {
            let mut dx = Buffer::stale(x.len());
            let (mut dscale, mut dshift) = (Buffer::zeros(n), Buffer::zeros(n));
            let at = |p: &Option<Tensor>, j: usize, d: f32| p.as_ref().map_or(d, |p| p.data()[j]);
            for (i, to) in dx.chunks_exact_mut(n.max(1)).enumerate() {
                let row = &x.data()[i * n..(i + 1) * n];
                let dy = &dy.data()[i * n..(i + 1) * n];
                let (mean, r) = stats(kind, eps, row);
                let (mut a, mut b) = (0.0, 0.0);
                for j in 0..n {
                    let xh = (row[j] - mean) * r;
                    let s = at(&scale, j, 1.0);
                    let dz = dy[j] * value_slope(act, xh * s + at(&shift, j, 0.0)).1;
                    dscale[j] += dz * xh;
                    dshift[j] += dz;
                    to[j] = dz * s;
                    a += to[j];
                    b += to[j] * xh;
                }
                if kind == NormKind::None {
                    continue;
                }
                if kind == NormKind::Rms {
                    a = 0.0;
                }
                for j in 0..n {
                    let xh = (row[j] - mean) * r;
                    to[j] = r * (to[j] - a / n as f32 - xh * b / n as f32);
                }
            }
            if let Some(leaf) = scale.as_ref().and_then(Tensor::as_leaf) {
                sink.add(leaf, &Tensor::new(&[n], dscale));
            }
            if let Some(leaf) = shift.as_ref().and_then(Tensor::as_leaf) {
                sink.add(leaf, &Tensor::new(&[n], dshift));
            }
            vec![Some(Tensor::new(x.shape(), dx))]
        })
    };
    if act == Act::Swiglu { swiglu(&y) } else { y }
}

/// [.., 2 N] -> `silu(a) * b` [.., N] of its halves.
fn swiglu(x: &Tensor) -> Tensor {
    let n = x.width() / 2;
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("an axis") = n;
    let mut y = Buffer::stale(x.rows() * n);
    for (to, row) in y.chunks_exact_mut(n.max(1)).zip(x.data().chunks_exact((2 * n).max(1))) {
        for j in 0..n {
            to[j] = value_slope(Act::Silu, row[j]).0 * row[n + j];
        }
    }
    let y = Tensor::new(&shape, y);
    if !recording(&[x]) {
        return y;
    }
    let kept = x.detach();
    record1(&[x], y, move |dy, _| {
        let mut dx = Buffer::stale(kept.len());
        for (i, to) in dx.chunks_exact_mut((2 * n).max(1)).enumerate() {
            let (row, dy) = (&kept.data()[i * 2 * n..(i + 1) * 2 * n], &dy.data()[i * n..(i + 1) * n]);
            for j in 0..n {
                let (value, slope) = value_slope(Act::Silu, row[j]);
                to[j] = dy[j] * slope * row[n + j];
                to[n + j] = dy[j] * value;
            }
        }
        vec![Some(Tensor::new(kept.shape(), dx))]
    })
}
