//! A convolution stage: convolution, resampling, normalisation and activation.

use super::conv_gpu;
use super::norm_act::{Act, Held, Norm, swiglu};
use super::planes::{Planes, images_in, planes_shape};
use crate::buffer::Buffer;
use crate::cpu::conv::{
    ConvShape, ConvWeights, UpsampleShape, conv, conv_bias_grad, conv_input_grad, conv_pool, conv_weight_grad,
    group_len, split_phases, unpool, upsample_conv,
};
use crate::cpu::lanes;
use crate::cpu::norm::{norm_act_lanes, norm_act_lanes_grad};
use crate::graph::{record1, recording};
use crate::profile;
use crate::sink::{LaneSums, Sink};
use crate::tensor::{Device, PackKey, Tensor};
use std::sync::Arc;

/// How a stage changes the resolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resample {
    /// Not at all.
    None,
    /// A stride of two.
    Stride,
    /// A 2x2 max pool after the convolution.
    Pool,
    /// Nearest upsampling by two before the convolution.
    Upsample,
    /// Zeros between pixels before the convolution: the official "transposed" convolution with a stride of two.
    Spread,
}

/// Convolution with weight [k, k, in, out] and bias [out], SAME padding, with resampling, then norm and activation where
/// given. All buffers keep the padding of `x`, which must be at least k / 2.
pub fn conv_stage(x: &Planes, w: &Tensor, bias: &Tensor, resample: Resample, norm: Option<(&Norm, Act)>) -> Planes {
    if let Device::Gpu(gpu) = x.x.device() {
        return conv_gpu::stage(gpu, x, w, bias, resample, norm);
    }
    let y = stage_cpu(x, w, bias, resample, norm.map(|(norm, act)| Held::new(norm, act)));
    if norm.is_some_and(|(_, act)| act == Act::Swiglu) { gate(&y) } else { y }
}

fn stage_cpu(x: &Planes, w: &Tensor, bias: &Tensor, resample: Resample, held: Option<Held>) -> Planes {
    let stage = Stage::new(x, w, resample);
    let (z, ties) = stage.convolve(x, w, bias);
    let [c, h, width] = stage.out;
    let y = held.as_ref().map(|held| {
        let mut y = Buffer::stale(z.len());
        let size = group_len(c, h, width, x.pad);
        for (z, y) in z.chunks_exact(size).zip(y.chunks_exact_mut(size)) {
            norm_act_lanes(&held.kernel(), c, h, width, z, x.pad, y, x.pad);
        }
        y
    });
    let z = x.like(stage.out, z);
    let mut y = y.map_or_else(|| z.clone(), |y| x.like(stage.out, y));
    let parameters: Vec<Tensor> = held.iter().flat_map(|held| held.scale.iter().chain(&held.shift)).cloned().collect();
    let inputs: Vec<&Tensor> = [&x.x, w, bias].into_iter().chain(&parameters).collect();
    if recording(&inputs) {
        let kept = Kept { stage, x: x.clone(), w: w.clone(), bias: bias.as_leaf(), z, ties, held };
        y.x = record1(&inputs, y.x, move |dy, sink| vec![kept.backward(dy, sink)]);
    }
    y
}

/// The geometry of a stage.
struct Stage {
    kind: Kind,
    /// Channels, height and width of the output.
    out: [usize; 3],
}

#[derive(Clone, Copy)]
enum Kind {
    Conv(ConvShape),
    Pool(ConvShape),
    Upsample(UpsampleShape),
}

impl Stage {
    fn new(x: &Planes, w: &Tensor, resample: Resample) -> Self {
        let (h, width, k, ci, co) = (x.height(), x.width(), w.dim(0), w.dim(2), w.dim(3));
        assert_eq!(ci, x.channels(), "channels of the input and of the weight");
        let stride = if resample == Resample::Stride { 2 } else { 1 };
        let shape = ConvShape { h, w: width, ci, co, k, stride };
        let (kind, out) = match resample {
            Resample::Pool => (Kind::Pool(shape), [co, h / 2, width / 2]),
            Resample::Upsample | Resample::Spread => {
                let sparse = resample == Resample::Spread;
                (Kind::Upsample(UpsampleShape { h, w: width, ci, co, k, sparse }), [co, 2 * h, 2 * width])
            }
            _ => (Kind::Conv(shape), [co, shape.out_h(), shape.out_w()]),
        };
        Stage { kind, out }
    }

    fn weights(&self, w: &Tensor) -> Arc<ConvWeights> {
        match self.kind {
            Kind::Upsample(s) => w.packed_conv(PackKey::Upsample { sparse: s.sparse }, |w| s.weights(w)),
            Kind::Conv(s) | Kind::Pool(s) => w.packed_conv(PackKey::Conv, |w| ConvWeights::new(w, s.k, s.ci, s.co)),
        }
    }

    /// Counts the operations of group `g` of `n` images in one direction, without those of empty lanes.
    fn count(&self, g: usize, n: usize) {
        let (flops, official) = match &self.kind {
            Kind::Conv(s) | Kind::Pool(s) => (s.flops(), s.dense_flops()),
            Kind::Upsample(s) => {
                let large = ConvShape { h: 2 * s.h, w: 2 * s.w, ci: s.ci, co: s.co, k: s.k, stride: 1 };
                (s.low().flops(), large.dense_flops())
            }
        };
        let images = images_in(g, n);
        profile::count(flops * images, official * images);
    }

    /// The convolution's output and, of a pool, where its maxima were.
    fn convolve(&self, x: &Planes, w: &Tensor, bias: &Tensor) -> (Buffer, Buffer) {
        let weights = self.weights(w);
        let [c, h, width] = self.out;
        let size = group_len(c, h, width, x.pad);
        let groups = x.x.dim(0);
        let mut out = Buffer::stale(planes_shape(x.n, self.out, x.pad).iter().product());
        let masks = if matches!(self.kind, Kind::Pool(_)) { 4 * c * h * width } else { 0 };
        let mut ties = Buffer::stale(groups * masks / 2); // two masks in the place of a float
        let all: &mut [u16] = bytemuck::cast_slice_mut(&mut ties);
        let bias = Some(bias.data());
        for (g, out) in out.chunks_exact_mut(size).enumerate() {
            let input = &x.x.data()[g * x.group()..(g + 1) * x.group()];
            self.count(g, x.n);
            match &self.kind {
                Kind::Conv(s) => conv(s, &weights, input, x.pad, bias, out, x.pad),
                Kind::Upsample(s) => upsample_conv(s, &weights, input, x.pad, bias, out, x.pad),
                Kind::Pool(s) => {
                    let ties = &mut all[g * masks..(g + 1) * masks];
                    conv_pool(s, &weights, input, x.pad, bias, out, x.pad, ties);
                }
            }
        }
        (out, ties)
    }
}

/// What the backward sweep needs.
struct Kept {
    stage: Stage,
    x: Planes,
    w: Tensor,
    bias: Option<crate::graph::Leaf>,
    /// The convolution's output, before norm and activation.
    z: Planes,
    /// Masks of u16, see [`conv_pool`].
    ties: Buffer,
    held: Option<Held>,
}

impl Kept {
    /// Leaves the parameters' gradients in the sink and returns that of the input, where it has one.
    fn backward(&self, dy: &Tensor, sink: &mut Sink) -> Option<Tensor> {
        let x = &self.x;
        let mut dx = x.x.requires_grad().then(|| Buffer::stale(x.x.len()));
        let weights = dx.is_some().then(|| self.stage.weights(&self.w));
        let mut dz = Buffer::stale(self.z.group());
        let mut full = Buffer::stale(self.full_len());
        for g in 0..x.x.dim(0) {
            let grad = &dy.data()[g * self.z.group()..(g + 1) * self.z.group()];
            self.norm_grad(g, grad, &mut dz, sink);
            self.bias_grad(&dz, sink);
            let input = &x.x.data()[g * x.group()..(g + 1) * x.group()];
            let dx = dx.as_mut().map(|dx| &mut dx[g * x.group()..(g + 1) * x.group()]);
            self.conv_grad(g, input, &dz, &mut full, weights.as_deref(), dx, sink);
        }
        dx.map(|dx| Tensor::new(x.x.shape(), dx))
    }

    /// Floats of the gradient at the resolution that the convolution worked at.
    fn full_len(&self) -> usize {
        match &self.stage.kind {
            Kind::Conv(_) => 0,
            Kind::Pool(s) => group_len(s.co, s.h, s.w, self.x.pad),
            Kind::Upsample(s) => group_len(4 * s.co, s.h, s.w, self.x.pad),
        }
    }

    /// The gradient of the convolution's output from that of the stage's.
    fn norm_grad(&self, g: usize, grad: &[f32], dz: &mut [f32], sink: &mut Sink) {
        let [c, h, w] = self.stage.out;
        let Some(held) = &self.held else {
            dz.copy_from_slice(grad);
            return;
        };
        let z = &self.z.x.data()[g * self.z.group()..(g + 1) * self.z.group()];
        let leaf = |p: &Option<Tensor>| p.as_ref().and_then(Tensor::as_leaf);
        let len = c * lanes();
        let (mut dscale, mut dshift) = (Buffer::zeros(len), Buffer::zeros(len));
        let pad = self.x.pad;
        norm_act_lanes_grad(&held.kernel(), c, h, w, z, pad, grad, pad, dz, pad, &mut dscale, &mut dshift);
        for (parameter, sums) in [(&held.scale, &dscale), (&held.shift, &dshift)] {
            if let Some(leaf) = leaf(parameter) {
                let lanes = sink.lanes(leaf, LaneSums::Channels, len);
                lanes.iter_mut().zip(sums.iter()).for_each(|(a, b)| *a += b);
            }
        }
    }

    /// The bias commutes with the max pool, so the pooled gradient suffices.
    fn bias_grad(&self, dz: &[f32], sink: &mut Sink) {
        let [c, h, w] = self.stage.out;
        if let Some(leaf) = self.bias {
            conv_bias_grad(c, h, w, dz, self.x.pad, sink.lanes(leaf, LaneSums::Channels, c * lanes()));
        }
    }

    #[allow(clippy::too_many_arguments)] // the operands of a gradient
    fn conv_grad(
        &self,
        g: usize,
        x: &[f32],
        dz: &[f32],
        full: &mut [f32],
        weights: Option<&ConvWeights>,
        dx: Option<&mut [f32]>,
        sink: &mut Sink,
    ) {
        let pad = self.x.pad;
        let (shape, dy, sums) = match &self.stage.kind {
            Kind::Conv(s) => (*s, dz, LaneSums::Conv(*s)),
            Kind::Pool(s) => {
                let ties: &[u16] = bytemuck::cast_slice(&self.ties);
                let masks = ties.len() / self.x.x.dim(0);
                unpool(s.co, s.h, s.w, dz, pad, &ties[g * masks..(g + 1) * masks], full, pad);
                (*s, &*full, LaneSums::Conv(*s))
            }
            Kind::Upsample(s) => {
                split_phases(s, dz, pad, full, pad);
                (s.low(), &*full, LaneSums::Upsample(*s))
            }
        };
        if let Some(leaf) = self.w.as_leaf() {
            self.stage.count(g, self.x.n);
            conv_weight_grad(&shape, x, pad, dy, pad, sink.lanes(leaf, sums, shape.weight_grad_len()));
        }
        if let (Some(weights), Some(dx)) = (weights, dx) {
            self.stage.count(g, self.x.n);
            conv_input_grad(&shape, weights, dy, pad, dx, pad);
        }
    }
}

/// Half of the channels gate the other half: within a group they are the halves of one row.
fn gate(x: &Planes) -> Planes {
    let flat = super::reshape(&x.x, &[x.x.dim(0), x.group()]);
    let mut shape = x.x.shape().to_vec();
    shape[1] /= 2;
    let [c, h, w] = x.size;
    Planes { x: super::reshape(&swiglu(&flat), &shape), size: [c / 2, h, w], ..*x }
}

#[cfg(test)]
mod tests {
    use super::super::planes::{planes, rows_of_planes};
    use super::*;
    use crate::check::{check_rounded, random};
    use crate::cpu::norm::Norm as NormKind;
    use crate::cpu::simd::on_every_isa;

    /// SAME convolution of one image [h, w, ci] with [k, k, ci, co], in float64.
    fn conv64(x: &[f64], [h, w, ci]: [usize; 3], wt: &[f64], k: usize, co: usize, stride: usize) -> Vec<f64> {
        let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
        let before = |size: usize, out: usize| ((out - 1) * stride + k).saturating_sub(size) / 2;
        let (py, px) = (before(h, oh), before(w, ow));
        let mut y = vec![0.0; oh * ow * co];
        for (i, y) in y.iter_mut().enumerate() {
            let (row, column, o) = (i / co / ow, i / co % ow, i % co);
            for a in 0..k {
                for b in 0..k {
                    let (yy, xx) = ((row * stride + a).wrapping_sub(py), (column * stride + b).wrapping_sub(px));
                    if yy < h && xx < w {
                        *y += (0..ci)
                            .map(|c| x[(yy * w + xx) * ci + c] * wt[((a * k + b) * ci + c) * co + o])
                            .sum::<f64>();
                    }
                }
            }
        }
        y
    }

    /// One stage on one image in float64, with rms norm and silu where `normed`.
    fn stage64(
        x: &[f64],
        p: &[Vec<f64>],
        shape: [usize; 3],
        k: usize,
        co: usize,
        resample: Resample,
        normed: bool,
    ) -> Vec<f64> {
        let [h, w, c] = shape;
        let double = |keep: &dyn Fn(usize, usize) -> bool| -> Vec<f64> {
            let at = |i: usize| (i / c / (2 * w), i / c % (2 * w), i % c);
            let pixel = |i: usize| {
                let (y, xx, ch) = at(i);
                if keep(y, xx) { x[(y / 2 * w + xx / 2) * c + ch] } else { 0.0 }
            };
            (0..4 * h * w * c).map(pixel).collect()
        };
        let mut y = match resample {
            Resample::None | Resample::Pool => conv64(x, shape, &p[0], k, co, 1),
            Resample::Stride => conv64(x, shape, &p[0], k, co, 2),
            Resample::Upsample => conv64(&double(&|_, _| true), [2 * h, 2 * w, c], &p[0], k, co, 1),
            Resample::Spread => conv64(&double(&|y, x| y % 2 == 1 && x % 2 == 1), [2 * h, 2 * w, c], &p[0], k, co, 1),
        };
        y.iter_mut().enumerate().for_each(|(i, y)| *y += p[1][i % co]);
        if resample == Resample::Pool {
            let at = |i: usize| {
                let (row, column, o) = (i / co / (w / 2), i / co % (w / 2), i % co);
                let pixel = |a: usize, b: usize| y[((2 * row + a) * w + 2 * column + b) * co + o];
                pixel(0, 0).max(pixel(0, 1)).max(pixel(1, 0)).max(pixel(1, 1))
            };
            y = (0..h / 2 * (w / 2) * co).map(at).collect();
        }
        if !normed {
            return y;
        }
        y.chunks(co)
            .flat_map(|pixel| {
                let r = 1.0 / (pixel.iter().map(|v| v * v).sum::<f64>() / co as f64 + 1e-4f32 as f64).sqrt();
                pixel.iter().zip(&p[2]).map(|(v, s)| v * r * s).map(|z| z / (1.0 + (-z).exp())).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn every_resampling_with_its_gradients() {
        let (n, c, co) = (2, 3, 5);
        for resample in [Resample::None, Resample::Stride, Resample::Pool, Resample::Upsample, Resample::Spread] {
            for (k, h, w, normed) in [(5, 4, 6, true), (3, 2, 4, false), (1, 2, 2, true)] {
                let shapes: [&[usize]; 4] = [&[n, h * w * c], &[k, k, c, co], &[co], &[co]];
                let op = |x: &[Tensor]| {
                    let norm = Norm { kind: NormKind::Rms, eps: 1e-4, scale: Some(&x[3]), shift: None };
                    let silu = Act::parse("silu").unwrap();
                    let input = planes(&x[0], h, w, c, (k / 2).max(1));
                    let y = conv_stage(&input, &x[1], &x[2], resample, normed.then_some((&norm, silu)));
                    // An unused scale would have no gradient and no difference either.
                    rows_of_planes(&y)
                };
                // A bias's gradient adds up all pixels, and much of it cancels: what bfloat16 rounds off counts for more.
                check_rounded(2e-2, &shapes, op, |x| {
                    let images = x[0].chunks(h * w * c);
                    images.flat_map(|image| stage64(image, &x[1..], [h, w, c], k, co, resample, normed)).collect()
                });
            }
        }
    }

    #[test]
    fn operations_are_those_of_the_images_whatever_the_lanes() {
        // One stage of 3 images of 8x6, 2 channels to 4, 5x5: the two rows at either edge lack 2 + 1 rows of the kernel.
        on_every_isa(|| {
            let x = planes(&random(&[3, 8, 6, 2], 1, 1.0), 8, 6, 2, 2);
            let (w, bias) = (random(&[5, 5, 2, 4], 2, 1.0), random(&[4], 3, 1.0));
            let run = || profile::part("stage", || conv_stage(&x, &w, &bias, Resample::None, None));
            let costs = profile::measure(run).1["stage"];
            assert_eq!(costs.forward.official, 3 * 2 * 8 * 6 * 25 * 2 * 4);
            assert_eq!(costs.forward.flops, 3 * 2 * (8 * 5 - 6) * 6 * 5 * 2 * 4);
        });
    }

    #[test]
    fn swiglu_halves_the_channels() {
        let (x, w) = (Tensor::full(&[1, 4], 0.5), Tensor::full(&[1, 1, 1, 6], 1.0));
        let norm = Norm { kind: NormKind::None, eps: 1e-4, scale: None, shift: None };
        let y =
            conv_stage(&planes(&x, 2, 2, 1, 1), &w, &Tensor::zeros(&[6]), Resample::None, Some((&norm, Act::Swiglu)));
        assert_eq!((y.channels(), y.height(), y.width()), (3, 2, 2));
        let expected = 0.5 * 0.5 / (1.0 + (-0.5f32).exp());
        assert!(rows_of_planes(&y).data().iter().all(|v| (v - expected).abs() < 1e-6));
    }
}
