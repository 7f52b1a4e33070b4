//! Normalisation over the last axis fused with the activation that follows it.

use super::norm_gpu;
use crate::buffer::Buffer;
use crate::cpu::norm::{self as kernels, norm_act_rows, norm_act_rows_grad};
use crate::cuda::Gpu;
use crate::graph::{record1, recording};
use crate::sink::Sink;
use crate::tensor::{Device, Tensor};

pub use crate::cpu::norm::Norm as NormKind;

/// The activations, under their official names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    Plain(kernels::Act),
    /// Half of the features gate the other half: `silu(a) * b`.
    Swiglu,
}

const NAMED: [(&str, Act); 11] = [
    ("none", Act::Plain(kernels::Act::None)),
    ("silu", Act::Plain(kernels::Act::Silu)),
    ("relu", Act::Plain(kernels::Act::Relu)),
    ("relu2", Act::Plain(kernels::Act::Relu2)),
    ("gelu", Act::Plain(kernels::Act::Gelu)),
    ("mish", Act::Plain(kernels::Act::Mish)),
    ("tanh", Act::Plain(kernels::Act::Tanh)),
    ("elu", Act::Plain(kernels::Act::Elu)),
    ("sigmoid", Act::Plain(kernels::Act::Sigmoid)),
    ("softplus", Act::Plain(kernels::Act::Softplus)),
    ("swiglu", Act::Swiglu),
];

impl Act {
    pub fn parse(name: &str) -> Option<Act> {
        NAMED.iter().find(|(n, _)| *n == name).map(|(_, act)| *act)
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, _)| *name)
    }

    /// The part that the kernels apply element by element.
    fn plain(self) -> kernels::Act {
        match self {
            Act::Plain(act) => act,
            Act::Swiglu => kernels::Act::None,
        }
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

/// A norm and activation with parameters held for the backward sweep.
#[derive(Clone)]
pub(super) struct Held {
    kind: NormKind,
    act: kernels::Act,
    pub eps: f32,
    pub scale: Option<Tensor>,
    pub shift: Option<Tensor>,
}

impl Held {
    pub fn new(norm: &Norm, act: Act) -> Self {
        let (scale, shift) = (norm.scale.cloned(), norm.shift.cloned());
        Held { kind: norm.kind, act: act.plain(), eps: norm.eps, scale, shift }
    }

    /// The description that the kernels take.
    pub fn kernel(&self) -> kernels::NormAct<'_> {
        kernels::NormAct {
            norm: self.kind,
            act: self.act,
            epsilon: self.eps,
            scale: self.scale.as_ref().map_or(&[], |x| x.data()),
            shift: self.shift.as_ref().map_or(&[], |x| x.data()),
        }
    }
}

impl Held {
    /// What the kernels of a GPU take: scale and shift where the kind has them, and the numbers of norm and activation.
    pub fn gpu(&self) -> (Option<&Tensor>, Option<&Tensor>, u32, u32) {
        let scale = self.scale.as_ref().filter(|_| self.kind != NormKind::None);
        let shift = self.shift.as_ref().filter(|_| self.kind == NormKind::Layer);
        (scale, shift, self.kind as u32, self.act as u32)
    }
}

/// x [.., N] -> `act(norm(x))` [.., N] (or [.., N / 2] for swiglu).
pub fn norm_act(x: &Tensor, norm: &Norm, act: Act) -> Tensor {
    let held = Held::new(norm, act);
    let (m, n) = (x.rows(), x.width());
    let (mut stats, mut kept) = (Buffer::stale(0), x.detach());
    let mut y = match x.device() {
        Device::Cpu => {
            let mut y = Buffer::stale(x.len());
            stats = Buffer::stale(2 * m);
            norm_act_rows(&held.kernel(), m, n, x.data(), &mut y, &mut stats);
            Tensor::new(x.shape(), y)
        }
        Device::Gpu(gpu) => {
            kept = gpu.act(x);
            norm_gpu::forward(gpu, &held, &kept)
        }
    };
    let inputs: Vec<&Tensor> = [x].into_iter().chain(norm.scale).chain(norm.shift).collect();
    if recording(&inputs) {
        y = record1(&inputs, y, move |dy, sink| {
            let dx = match dy.device() {
                Device::Cpu => grad_cpu(&held, &kept, &stats, dy, sink),
                Device::Gpu(gpu) => norm_gpu::backward(gpu, &held, &kept, dy, sink),
            };
            vec![Some(dx)]
        });
    }
    if act == Act::Swiglu { swiglu(&y) } else { y }
}

/// The gradient of `x`; those of scale and shift go to the sink.
fn grad_cpu(held: &Held, x: &Tensor, stats: &[f32], dy: &Tensor, sink: &mut Sink) -> Tensor {
    let (m, n) = (x.rows(), x.width());
    let mut dx = Buffer::stale(x.len());
    let (mut dscale, mut dshift) = (Buffer::zeros(n), Buffer::zeros(n));
    norm_act_rows_grad(&held.kernel(), m, n, x.data(), stats, dy.data(), &mut dx, &mut dscale, &mut dshift);
    for (parameter, grad) in [(&held.scale, dscale), (&held.shift, dshift)] {
        if let Some(leaf) = parameter.as_ref().and_then(Tensor::as_leaf) {
            sink.add(leaf, &Tensor::new(&[n], grad));
        }
    }
    Tensor::new(x.shape(), dx)
}

/// The gradient of x on a GPU where `act(norm(x))` has the gradient `dy`; those of scale and shift go to the sink.
pub(super) fn norm_act_grad(
    gpu: &'static Gpu,
    x: &Tensor,
    norm: &Norm,
    act: Act,
    dy: &Tensor,
    sink: &mut Sink,
) -> Tensor {
    norm_gpu::backward(gpu, &Held::new(norm, act), x, dy, sink)
}

/// [.., 2 N] -> `silu(a) * b` [.., N] of its halves.
pub(super) fn swiglu(x: &Tensor) -> Tensor {
    assert!(x.width().is_multiple_of(2), "swiglu halves a width of {}", x.width());
    let (m, n) = (x.rows(), x.width() / 2);
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("at least one axis") = n;
    let y = match x.device() {
        Device::Cpu => {
            let mut y = Buffer::stale(m * n);
            for (to, row) in y.chunks_exact_mut(n.max(1)).zip(x.data().chunks_exact((2 * n).max(1))) {
                to.copy_from_slice(&row[..n]);
                kernels::act_slice(kernels::Act::Silu, to);
                to.iter_mut().zip(&row[n..]).for_each(|(y, b)| *y *= b);
            }
            Tensor::new(&shape, y)
        }
        Device::Gpu(gpu) => norm_gpu::swiglu(gpu, x, &shape),
    };
    if !recording(&[x]) {
        return y;
    }
    let kept = x.detach();
    record1(&[x], y, move |dy, _| {
        let dx = match dy.device() {
            Device::Cpu => swiglu_grad_cpu(&kept, dy),
            Device::Gpu(gpu) => norm_gpu::swiglu_grad(gpu, &kept, dy),
        };
        vec![Some(dx)]
    })
}

fn swiglu_grad_cpu(x: &Tensor, dy: &Tensor) -> Tensor {
    let n = x.width() / 2;
    let mut dx = Buffer::stale(x.len());
    for (i, to) in dx.chunks_exact_mut((2 * n).max(1)).enumerate() {
        let (row, dy) = (&x.data()[i * 2 * n..(i + 1) * 2 * n], &dy.data()[i * n..(i + 1) * n]);
        let (da, db) = to.split_at_mut(n);
        for j in 0..n {
            let (a, b) = (row[j], row[n + j]);
            let s = 1.0 / (1.0 + (-a).exp());
            da[j] = dy[j] * b * s * (1.0 + a * (1.0 - s));
            db[j] = dy[j] * a * s;
        }
    }
    Tensor::new(x.shape(), dx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check_devices, check_scaled};
    use crate::graph::Leaf;

    fn norm64(kind: NormKind, x: &[f64], scale: &[f64], shift: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let square = x.iter().map(|v| v * v).sum::<f64>() / n;
        let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
        let r = match kind {
            NormKind::None => return x.to_vec(),
            _ => 1.0 / (square - mean * mean + 1e-4f32 as f64).sqrt(),
        };
        let shift = |j: usize| if kind == NormKind::Layer { shift[j] } else { 0.0 };
        x.iter().enumerate().map(|(j, v)| (v - mean) * r * scale[j] + shift(j)).collect()
    }

    fn act64(name: &str, x: f64) -> f64 {
        let sigmoid = 1.0 / (1.0 + (-x).exp());
        match name {
            "silu" => x * sigmoid,
            "relu" => x.max(0.0),
            "relu2" => x.max(0.0).powi(2),
            "gelu" => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
            "mish" => x * x.exp().ln_1p().tanh(),
            "tanh" => x.tanh(),
            "elu" => {
                if x > 0.0 {
                    x
                } else {
                    x.exp_m1()
                }
            }
            "sigmoid" => sigmoid,
            "softplus" => x.exp().ln_1p(),
            _ => x,
        }
    }

    #[test]
    fn every_norm_and_activation_with_its_gradients() {
        for kind in [NormKind::None, NormKind::Rms, NormKind::Layer] {
            for name in Act::names() {
                for shape in [[3, 10], [5, 34], [40, 16], [0, 4]] {
                    let n = shape[1];
                    let act = Act::parse(name).unwrap();
                    let op = |x: &[Tensor]| {
                        let scale = (kind != NormKind::None).then_some(&x[1]);
                        let shift = (kind == NormKind::Layer).then_some(&x[2]);
                        norm_act(&x[0], &Norm { kind, eps: 1e-4, scale, shift }, act)
                    };
                    check_scaled(&[&shape, &[n], &[n]], 1.2, op, |x| {
                        let row = |row: &[f64]| {
                            let z = norm64(kind, row, &x[1], &x[2]);
                            match name {
                                "swiglu" => (0..n / 2).map(|j| act64("silu", z[j]) * z[n / 2 + j]).collect(),
                                _ => z.iter().map(|&z| act64(name, z)).collect::<Vec<f64>>(),
                            }
                        };
                        x[0].chunks(n).flat_map(row).collect()
                    });
                }
            }
        }
    }

    /// Few and many, narrow and wide rows: each way in which threads share them on a GPU.
    #[test]
    fn rows_of_any_number_and_width() {
        for shape in [[3000, 16], [300, 8], [70, 12], [19, 7], [9, 64], [3, 768], [2, 1030], [20, 4104], [1, 8200]] {
            for kind in [NormKind::Rms, NormKind::Layer] {
                check_devices(&[&shape, &shape[1..], &shape[1..]], |x| {
                    let shift = (kind == NormKind::Layer).then_some(&x[2]);
                    let norm = Norm { kind, eps: 1e-4, scale: Some(&x[1]), shift };
                    norm_act(&x[0], &norm, Act::parse("silu").unwrap())
                });
            }
        }
    }

    #[test]
    fn a_frozen_norm_is_not_recorded() {
        let x = Tensor::full(&[1, 2], 3.0);
        let norm = Norm { kind: NormKind::Rms, eps: 1e-4, scale: Some(&Tensor::full(&[2], 1.0)), shift: None };
        assert!(!norm_act(&x, &norm, Act::Swiglu).requires_grad());
        assert!(norm_act(&x.leaf(Leaf::new()), &norm, Act::Swiglu).requires_grad());
    }
}
