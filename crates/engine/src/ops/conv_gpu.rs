//! A convolution stage on a GPU: images are [n, channels, height, width], without lanes and padding.

use super::conv::Resample;
use super::norm_act::Held;
use super::planes::Planes;
use crate::cuda::{Arg, Gpu, Grid, Precision};
use crate::graph::{Leaf, record1, recording};
use crate::sink::{Sink, column_sums_gpu};
use crate::tensor::Tensor;

/// Sizes of a convolution, in the order in which kernels take them (kernels/conv.cu).
#[derive(Clone, Copy)]
struct Geometry {
    n: usize,
    ci: usize,
    h: usize,
    w: usize,
    co: usize,
    oh: usize,
    ow: usize,
    k: usize,
    stride: usize,
    up: usize,
    sparse: usize,
    top: usize,
    left: usize,
}

/// Pixels (or rows of the weight) and output channels for each block of threads, as in kernels/conv.cu.
const PIXELS: usize = 64;
const CHANNELS: usize = 32;
/// Output pixels whose products one block adds up for a weight's gradient.
const SLICE: usize = 4096;
/// Images whose channels one warp adds up.
const IMAGES: usize = 16;

impl Geometry {
    fn new(x: &Planes, weight: &Tensor, resample: Resample) -> Geometry {
        let (k, ci, co) = (weight.dim(0), weight.dim(2), weight.dim(3));
        assert_eq!(ci, x.channels(), "channels of the input and of the weight");
        let stride = if resample == Resample::Stride { 2 } else { 1 };
        let up = if matches!(resample, Resample::Upsample | Resample::Spread) { 2 } else { 1 };
        let (h, w) = (x.height(), x.width());
        let (oh, ow) = ((h * up).div_ceil(stride), (w * up).div_ceil(stride));
        // Half of what SAME adds in all, rounded down.
        let before = |size: usize, out: usize| ((out - 1) * stride + k).saturating_sub(size) / 2;
        let (top, left) = (before(h * up, oh), before(w * up, ow));
        Geometry {
            n: x.n,
            ci,
            h,
            w,
            co,
            oh,
            ow,
            k,
            stride,
            up,
            sparse: (resample == Resample::Spread) as usize,
            top,
            left,
        }
    }

    /// Runs a kernel, in float32 or bfloat16, whose last arguments are these sizes.
    fn launch(
        &self,
        gpu: &'static Gpu,
        [float32, bfloat16]: [&'static str; 2],
        blocks: [usize; 3],
        first: &[&dyn Arg],
    ) {
        let Geometry { n, ci, h, w, co, oh, ow, k, stride, up, sparse, top, left } = self;
        let sizes: [&dyn Arg; 13] = [n, ci, h, w, co, oh, ow, k, stride, up, sparse, top, left];
        let args: Vec<&dyn Arg> = first.iter().copied().chain(sizes).collect();
        let kernel = if gpu.precision() == Precision::Bfloat16 { bfloat16 } else { float32 };
        gpu.launch("conv", kernel, Grid::of(blocks, 256), &args);
    }
}

/// `conv_stage` without the halving of swiglu.
pub(super) fn stage(
    gpu: &'static Gpu,
    x: &Planes,
    w: &Tensor,
    bias: &Tensor,
    resample: Resample,
    held: Option<Held>,
) -> Planes {
    let g = Geometry::new(x, w, resample);
    let x = &Planes { x: gpu.full(&x.x).with_origin(x.x.origin.clone()), ..*x };
    let full = gpu.empty(&[g.n, g.co, g.oh, g.ow, 1]);
    let blocks = [(g.n * g.oh * g.ow).div_ceil(PIXELS), g.co.div_ceil(CHANNELS), 1];
    g.launch(gpu, ["conv", "conv_bf16"], blocks, &[&x.x, w, bias, &full]);
    let z = if resample == Resample::Pool { pool(gpu, &full) } else { full.clone() };
    let mut y = held.as_ref().map_or_else(|| z.clone(), |held| norm(gpu, held, &z));
    let parameters = held.iter().flat_map(|held| held.scale.iter().chain(&held.shift));
    let inputs: Vec<&Tensor> = [&x.x, w, bias].into_iter().chain(parameters).collect();
    if recording(&inputs) {
        let (pooled, held) = (resample == Resample::Pool, held.clone());
        let kept = Kept { g, pooled, x: x.x.clone(), w: w.clone(), full, z, held };
        let bias = bias.as_leaf();
        y = record1(&inputs, y, move |dy, sink| vec![kept.backward(gpu, dy, bias, sink)]);
    }
    Planes { x: y, n: x.n, pad: 0 }
}

/// 2x2 maxima.
fn pool(gpu: &'static Gpu, x: &Tensor) -> Tensor {
    let (planes, h, w) = (x.dim(0) * x.dim(1), x.dim(2) / 2, x.dim(3) / 2);
    let y = gpu.empty(&[x.dim(0), x.dim(1), h, w, 1]);
    gpu.launch("conv", "pool", Grid::elements(y.len()), &[x, &planes, &h, &w, &y]);
    y
}

/// Norm and activation over the channels of each pixel.
fn norm(gpu: &'static Gpu, held: &Held, z: &Tensor) -> Tensor {
    let (n, c, pixels) = (z.dim(0), z.dim(1), z.dim(2) * z.dim(3));
    let y = gpu.empty(z.shape());
    let (scale, shift, kind, act) = held.gpu();
    let args: [&dyn Arg; 10] = [z, &scale, &shift, &n, &c, &pixels, &kind, &act, &held.eps, &y];
    gpu.launch("norm", "norm_act_planes", Grid::elements(n * pixels), &args);
    y
}

/// Adds the sums over images and pixels of x [n, c, h, w, 1] to the gradient of `leaf` [c].
fn add_channel_sums(gpu: &'static Gpu, x: &Tensor, leaf: Leaf, sink: &mut Sink) {
    let (n, c, pixels) = (x.dim(0), x.dim(1), x.dim(2) * x.dim(3));
    let parts = n.div_ceil(IMAGES);
    let sums = gpu.empty(&[parts, c]);
    gpu.launch("conv", "channel_sums", Grid::warps(parts * c), &[x, &n, &c, &pixels, &IMAGES, &sums]);
    sink.column_sums(leaf, c, &sums);
}

/// What the backward sweep needs.
struct Kept {
    g: Geometry,
    pooled: bool,
    x: Tensor,
    w: Tensor,
    /// The convolution's output, and the same after a pool.
    full: Tensor,
    z: Tensor,
    held: Option<Held>,
}

impl Kept {
    /// Leaves the parameters' gradients in the sink and returns that of the input, where it has one.
    fn backward(&self, gpu: &'static Gpu, dy: &Tensor, bias: Option<Leaf>, sink: &mut Sink) -> Option<Tensor> {
        let dy = &gpu.full(dy);
        let dz = self.held.as_ref().map_or_else(|| dy.detach(), |held| self.norm_grad(gpu, held, dy, sink));
        // The bias sits after a maximum as well as before it, so the pooled gradient serves.
        if let Some(leaf) = bias {
            add_channel_sums(gpu, &dz, leaf, sink);
        }
        let dfull = if self.pooled { self.unpool(gpu, &dz) } else { dz };
        if let Some(leaf) = self.w.as_leaf() {
            self.weight_grad(gpu, &dfull, leaf, sink);
        }
        self.x.requires_grad().then(|| self.input_grad(gpu, &dfull))
    }

    fn norm_grad(&self, gpu: &'static Gpu, held: &Held, dy: &Tensor, sink: &mut Sink) -> Tensor {
        let (n, c, pixels) = (self.z.dim(0), self.z.dim(1), self.z.dim(2) * self.z.dim(3));
        let (scale, shift, kind, act) = held.gpu();
        let leaf = |parameter: Option<&Tensor>| parameter.and_then(Tensor::as_leaf);
        let each = |parameter: Option<&Tensor>| leaf(parameter).map(|_| gpu.empty(self.z.shape()));
        let (dz, dscale, dshift) = (gpu.empty(self.z.shape()), each(scale), each(shift));
        #[rustfmt::skip]
        let args: [&dyn Arg; 13] =
            [&self.z, &scale, &shift, dy, &n, &c, &pixels, &kind, &act, &held.eps, &dz, &dscale, &dshift];
        gpu.launch("norm", "norm_act_planes_grad", Grid::elements(n * pixels), &args);
        for (parameter, grad) in [(scale, dscale), (shift, dshift)] {
            if let (Some(leaf), Some(grad)) = (leaf(parameter), grad) {
                add_channel_sums(gpu, &grad, leaf, sink);
            }
        }
        dz
    }

    fn unpool(&self, gpu: &'static Gpu, dz: &Tensor) -> Tensor {
        let (planes, h, w) = (dz.dim(0) * dz.dim(1), dz.dim(2), dz.dim(3));
        let dfull = gpu.empty(self.full.shape());
        gpu.launch("conv", "unpool", Grid::elements(dz.len()), &[&self.full, dz, &planes, &h, &w, &dfull]);
        dfull
    }

    fn weight_grad(&self, gpu: &'static Gpu, dy: &Tensor, leaf: Leaf, sink: &mut Sink) {
        let g = &self.g;
        let rows = g.k * g.k * g.ci;
        let parts = (g.n * g.oh * g.ow).div_ceil(SLICE).max(1);
        let sums = gpu.empty(&[parts, rows * g.co]);
        let blocks = [rows.div_ceil(PIXELS), g.co.div_ceil(CHANNELS), parts];
        g.launch(gpu, ["conv_weight_grad", "conv_weight_grad_bf16"], blocks, &[&self.x, dy, &SLICE, &sums]);
        sink.add(leaf, &column_sums_gpu(gpu, &sums, rows * g.co).view(0, self.w.shape()));
    }

    fn input_grad(&self, gpu: &'static Gpu, dy: &Tensor) -> Tensor {
        let g = &self.g;
        let dx = gpu.empty(self.x.shape());
        let blocks = [(g.n * g.h * g.w).div_ceil(PIXELS), g.ci.div_ceil(CHANNELS), 1];
        g.launch(gpu, ["conv_input_grad", "conv_input_grad_bf16"], blocks, &[dy, &self.w, &dx]);
        dx
    }
}

/// Rows [n, h * w * c] as images [n, c, h, w, 1], or back.
pub(super) fn rearrange(
    gpu: &'static Gpu,
    x: &Tensor,
    [n, pixels, c]: [usize; 3],
    back: bool,
    shape: &[usize],
) -> Tensor {
    let (x, y) = (gpu.full(x), gpu.empty(shape));
    gpu.launch("conv", "rows_to_planes", Grid::elements(x.len()), &[&x, &n, &pixels, &c, &(back as u32), &y]);
    y
}

/// uint8 images [n, h, w, c] of several keys -> `value / 255 - 0.5`, joined along the channels.
pub(super) fn byte_planes(gpu: &'static Gpu, keys: &[(&[u8], usize)], n: usize, h: usize, w: usize) -> Planes {
    let (channels, pixels): (usize, usize) = (keys.iter().map(|(_, c)| c).sum(), h * w);
    let y = gpu.empty(&[n, channels, h, w, 1]);
    let mut first = 0;
    for (bytes, c) in keys {
        let args: [&dyn Arg; 7] = [&gpu.bytes(bytes), &n, &pixels, c, &channels, &first, &y];
        gpu.launch("conv", "byte_planes", Grid::elements(bytes.len()), &args);
        first += c;
    }
    Planes { x: y, n, pad: 0 }
}

/// `image_loss` of logits in planes.
pub(super) fn image_loss(gpu: &'static Gpu, logits: &Planes, keys: &[(&[u8], usize)]) -> Vec<Tensor> {
    let (n, channels, pixels) = (logits.n, logits.channels(), logits.height() * logits.width());
    let mut first = 0;
    let keys: Vec<(Tensor, usize, usize)> = keys
        .iter()
        .map(|(bytes, c)| {
            first += c;
            (gpu.bytes(bytes), *c, first - c)
        })
        .collect();
    let loss = |(bytes, c, first): &(Tensor, usize, usize)| {
        let loss = gpu.empty(&[n]);
        gpu.launch(
            "conv",
            "image_loss",
            Grid::blocks(n, 256),
            &[&logits.x, bytes, &pixels, c, &channels, first, &loss],
        );
        loss
    };
    let losses: Vec<Tensor> = keys.iter().map(loss).collect();
    if !recording(&[&logits.x]) {
        return losses;
    }
    let x = logits.x.detach();
    crate::graph::record(&[&logits.x], losses, move |grads, _| {
        let dx = gpu.empty(x.shape());
        for ((bytes, c, first), dy) in keys.iter().zip(grads) {
            let args: [&dyn Arg; 9] = [&x, bytes, dy, &n, &pixels, c, &channels, first, &dx];
            gpu.launch("conv", "image_loss_grad", Grid::elements(n * pixels * c), &args);
        }
        vec![Some(dx)]
    })
}

/// `images` of logits in planes.
pub(super) fn pictures(gpu: &'static Gpu, logits: &Planes, channels: &[usize]) -> Vec<Tensor> {
    let (n, h, w, all) = (logits.n, logits.height(), logits.width(), logits.channels());
    let (pixels, mut first) = (h * w, 0);
    let mut key = |c: &usize| {
        let y = gpu.empty(&[n, h, w, *c]);
        gpu.launch("conv", "pictures", Grid::elements(y.len()), &[&logits.x, &n, &pixels, c, &all, &first, &y]);
        first += c;
        y
    };
    channels.iter().map(&mut key).collect()
}
