//! A convolution stage on a GPU: images are [n, height, width, channels], so that norms are over rows, and flattening
//! an image copies nothing.
//!
//! In bfloat16 a stage is one product over pixels (kernels/conv.cu). Where the input is upsampled first, the product works
//! at low resolution, with taps that are summed beforehand, for the four output pixels of each input pixel at once.

use super::conv::Resample;
use super::norm_act::{Act, Norm, norm_act};
use super::planes::Planes;
use super::reshape;
use crate::cuda::{
    Arg, CONV_1, CONV_4, CONV_8, CONV_POOLED, Divider, Gpu, Grid, Plan, Precision, Tile, column_sums, plan, plan_whole,
};
use crate::graph::{Leaf, record1, recording};
use crate::profile;
use crate::sink::Sink;
use crate::tensor::{PackKey, Tensor};

/// Sizes of a convolution.
#[derive(Clone, Copy)]
struct Geometry {
    n: usize,
    /// Channels and stored channels of the input (`ci`, `cs`) and of the output (`co`, `os`).
    ci: usize,
    cs: usize,
    co: usize,
    os: usize,
    h: usize,
    w: usize,
    /// Of the convolution's output, before a pool.
    oh: usize,
    ow: usize,
    k: usize,
    stride: usize,
    up: usize,
    sparse: bool,
    pooled: bool,
    /// Rows and columns of zeros before the (upsampled) image.
    top: usize,
    left: usize,
}

/// What becomes of a product's rows and columns (kernels/conv.cu).
const PLAIN: u32 = 0;
const POOLED: u32 = 1;
const PHASES: u32 = 2;

impl Geometry {
    /// `os` are the output channels that are stored.
    fn new(x: &Planes, weight: &Tensor, resample: Resample, os: usize) -> Geometry {
        let (k, ci, co) = (weight.dim(0), weight.dim(2), weight.dim(3));
        assert_eq!(ci, x.channels(), "channels of the input and of the weight");
        let stride = if resample == Resample::Stride { 2 } else { 1 };
        let up = if matches!(resample, Resample::Upsample | Resample::Spread) { 2 } else { 1 };
        let (h, w) = (x.height(), x.width());
        let (oh, ow) = ((h * up).div_ceil(stride), (w * up).div_ceil(stride));
        let even = oh.is_multiple_of(2) && ow.is_multiple_of(2);
        assert!(resample != Resample::Pool || even, "a pool takes images of even sizes, not {oh}x{ow}");
        assert!(x.n * oh * ow < 1 << 31, "{} images of {oh}x{ow} are more pixels than a kernel can count", x.n);
        // SAME padding before the image: half of all, rounded down.
        let before = |size: usize, out: usize| ((out - 1) * stride + k).saturating_sub(size) / 2;
        let (top, left) = (before(h * up, oh), before(w * up, ow));
        let (sparse, pooled) = (resample == Resample::Spread, resample == Resample::Pool);
        Geometry { n: x.n, ci, cs: x.x.dim(3), co, os, h, w, oh, ow, k, stride, up, sparse, pooled, top, left }
    }

    /// Height and width after a pool.
    fn out(&self) -> [usize; 2] {
        if self.pooled { [self.oh / 2, self.ow / 2] } else { [self.oh, self.ow] }
    }

    /// Width of the kernel that works at the input's resolution, for taps of all phases of an upsampled image.
    fn small(&self) -> usize {
        2 * (self.k / 2).div_ceil(2) + 1
    }

    /// Counts the operations of the product that is the convolution or one of its gradients (see `profile`).
    fn count(&self, gpu: &Gpu) {
        let channels = 2 * self.n * self.ci * self.co;
        let official = channels * self.oh * self.ow * self.k * self.k;
        let folded = self.up > 1 && gpu.precision() == Precision::Bfloat16;
        let pixels = self.h * self.w * self.up * self.up;
        profile::count(if folded { channels * pixels * self.small() * self.small() } else { official }, official);
    }

    /// Runs a simple kernel, whose last arguments are these sizes.
    fn launch(&self, gpu: &'static Gpu, kernel: &'static str, blocks: [usize; 3], first: &[&dyn Arg]) {
        let Geometry { n, ci, cs, h, w, co, os, oh, ow, k, stride, up, top, left, .. } = self;
        let sparse = self.sparse as u32;
        let sizes: [&dyn Arg; 15] = [n, ci, cs, h, w, co, os, oh, ow, k, stride, up, &sparse, top, left];
        let args: Vec<&dyn Arg> = first.iter().copied().chain(sizes).collect();
        gpu.launch("conv", kernel, Grid::of(blocks, 256), &args);
    }
}

/// `conv_stage` on a GPU.
pub(super) fn stage(
    gpu: &'static Gpu,
    x: &Planes,
    w: &Tensor,
    bias: &Tensor,
    resample: Resample,
    norm: Option<(&Norm, Act)>,
) -> Planes {
    let co = w.dim(3);
    // Norms take rows without gaps.
    let os = if norm.is_some() { co } else { co.next_multiple_of(4) };
    let g = Geometry::new(x, w, resample, os);
    let [h, width] = g.out();
    let y = convolve(gpu, g, &x.x, w, bias);
    let Some((norm, act)) = norm else { return Planes { x: y, n: x.n, pad: 0, size: [co, h, width] } };
    let y = norm_act(&reshape(&y, &[g.n * h * width, co]), norm, act);
    let c = y.width();
    Planes { x: reshape(&y, &[g.n, h, width, c]), n: x.n, pad: 0, size: [c, h, width] }
}

/// Convolution with resampling: [n, h, w, os].
fn convolve(gpu: &'static Gpu, g: Geometry, x: &Tensor, w: &Tensor, bias: &Tensor) -> Tensor {
    let input = gpu.act(x);
    g.count(gpu);
    let (y, ties) = match gpu.precision() {
        Precision::Float32 => forward_simple(gpu, &g, &input, w, bias),
        Precision::Bfloat16 => Staged::new(g).forward(gpu, &input, w, bias),
    };
    if !recording(&[x, w, bias]) {
        return y;
    }
    let kept = Kept { g, flows: x.requires_grad(), x: input, w: w.clone(), ties };
    let leaf = bias.as_leaf();
    record1(&[x, w, bias], y, move |dy, sink| vec![kept.backward(gpu, dy, leaf, sink)])
}

/// A byte for each pooled number: which of its four pixels are the maximum.
fn ties_of(gpu: &'static Gpu, y: &Tensor) -> Tensor {
    gpu.empty(&[y.len().div_ceil(4)])
}

fn forward_simple(gpu: &'static Gpu, g: &Geometry, x: &Tensor, w: &Tensor, bias: &Tensor) -> (Tensor, Option<Tensor>) {
    let full = gpu.empty(&[g.n, g.oh, g.ow, g.os]);
    let blocks = [(g.n * g.oh * g.ow).div_ceil(PIXELS), g.os.div_ceil(CHANNELS), 1];
    g.launch(gpu, "conv", blocks, &[x, w, bias, &full]);
    if !g.pooled {
        return (full, None);
    }
    let [h, width] = g.out();
    let y = gpu.empty(&[g.n, h, width, g.os]);
    let ties = ties_of(gpu, &y);
    gpu.launch("conv_pack", "pool", Grid::elements(y.len()), &[&full, &g.n, &g.oh, &g.ow, &g.os, &y, &ties]);
    (y, Some(ties))
}

/// For simple kernels: pixels (or rows of the weight) and output channels per block of threads.
const PIXELS: usize = 64;
const CHANNELS: usize = 32;
/// Output pixels whose products one block adds up for a weight's gradient.
const SLICE: usize = 4096;

/// What the backward sweep needs.
struct Kept {
    g: Geometry,
    /// Whether the input has a gradient.
    flows: bool,
    x: Tensor,
    w: Tensor,
    ties: Option<Tensor>,
}

impl Kept {
    /// Leaves the parameters' gradients in the sink and returns that of the input, where it has one.
    fn backward(&self, gpu: &'static Gpu, dy: &Tensor, bias: Option<Leaf>, sink: &mut Sink) -> Option<Tensor> {
        let (g, dy) = (&self.g, gpu.act(dy));
        // The bias commutes with the max pool, so the pooled gradient suffices.
        if let Some(leaf) = bias {
            let sums = column_sums(gpu, &[dy.view(0, &[dy.len() / g.os, g.os])], g.os);
            sink.add(leaf, &sums.view(0, &[g.co]));
        }
        let (staged, simple) = (Staged::new(*g), gpu.precision() == Precision::Float32);
        // The first layer's output gradient, the largest of all before the pool, need not be written out.
        if let (Some(ties), Some(leaf), false) = (&self.ties, self.w.as_leaf(), simple || self.flows)
            && staged.takes_pooled()
        {
            g.count(gpu);
            sink.add(leaf, &staged.pooled_weight_grad(gpu, &self.x, &dy, ties));
            return None;
        }
        let dy = self.ties.as_ref().map_or(dy.clone(), |ties| self.unpool(gpu, &dy, ties));
        if let Some(leaf) = self.w.as_leaf() {
            g.count(gpu);
            let grad = if simple { self.weight_grad(gpu, &dy) } else { staged.weight_grad(gpu, &self.x, &dy) };
            sink.add(leaf, &grad.view(0, self.w.shape()));
        }
        self.flows.then(|| {
            g.count(gpu);
            // A strided input gradient scatters, which is rare enough for a simple kernel.
            let simple = simple || g.stride != 1;
            if simple { self.input_grad(gpu, &dy) } else { staged.input_grad(gpu, &dy, &self.w) }
        })
    }

    fn unpool(&self, gpu: &'static Gpu, dy: &Tensor, ties: &Tensor) -> Tensor {
        let g = &self.g;
        let dx = gpu.empty_act(&[g.n, g.oh, g.ow, g.os]);
        let threads = if g.os.is_multiple_of(4) { dy.len() / 4 } else { dy.len() };
        gpu.launch("conv_pack", "unpool", Grid::elements(threads), &[dy, ties, &g.n, &g.oh, &g.ow, &g.os, &dx]);
        dx
    }

    fn weight_grad(&self, gpu: &'static Gpu, dy: &Tensor) -> Tensor {
        let g = &self.g;
        let rows = g.k * g.k * g.ci;
        let parts = (g.n * g.oh * g.ow).div_ceil(SLICE).max(1);
        let sums = gpu.empty(&[parts, rows * g.co]);
        let blocks = [rows.div_ceil(PIXELS), g.co.div_ceil(CHANNELS), parts];
        g.launch(gpu, "conv_weight_grad", blocks, &[&self.x, dy, &SLICE, &sums]);
        column_sums(gpu, &[sums], rows * g.co)
    }

    fn input_grad(&self, gpu: &'static Gpu, dy: &Tensor) -> Tensor {
        let g = &self.g;
        let dx = gpu.empty_act(&[g.n, g.h, g.w, g.cs]);
        let blocks = [(g.n * g.h * g.w).div_ceil(PIXELS), g.cs.div_ceil(CHANNELS), 1];
        g.launch(gpu, "conv_input_grad", blocks, &[dy, &self.w, &dx]);
        dx
    }
}

/// The convolution as products on tensor cores compute it: at the input's resolution where that is upsampled.
struct Staged {
    g: Geometry,
    /// Width of the kernel, zeros before the image, height and width of the grid of pixels that rows are.
    k: usize,
    top: usize,
    left: usize,
    h: usize,
    w: usize,
    /// Stored output channels of all phases, and these padded to a multiple of eight, as in weights.
    columns: usize,
    padded: usize,
}

impl Staged {
    fn new(g: Geometry) -> Staged {
        let columns = g.up * g.up * g.os;
        let padded = columns.next_multiple_of(8);
        if g.up == 1 {
            return Staged { g, k: g.k, top: g.top, left: g.left, h: g.oh, w: g.ow, columns, padded };
        }
        // Taps of all phases reach that far; see `UpsampleShape` for the processor's way.
        let reach = g.small() / 2;
        Staged { g, k: g.small(), top: reach, left: reach, h: g.h, w: g.w, columns, padded }
    }

    /// The weight [k, k, cs, padded] in bfloat16.
    fn weight(&self, gpu: &'static Gpu, w: &Tensor) -> Tensor {
        let Geometry { k, ci, cs, co, os, up, sparse, .. } = self.g;
        let shape = [self.k * self.k, cs, self.padded];
        let new = || gpu.empty_as(&shape, gpu.activations());
        if up == 1 {
            return w.packed_gpu(PackKey::Taps { ci: cs, co: os }, || {
                let y = new();
                let args: [&dyn Arg; 7] = [w, &(k * k), &ci, &co, &cs, &self.padded, &y];
                gpu.launch("conv_pack", "pad_taps", Grid::elements(y.len()), &args);
                y
            });
        }
        w.packed_gpu(PackKey::Phases { ci: cs, co: os, sparse }, || {
            let (y, sparse) = (new(), sparse as u32);
            let args: [&dyn Arg; 10] = [w, &k, &ci, &co, &self.k, &sparse, &cs, &os, &self.padded, &y];
            gpu.launch("conv_pack", "fold_phases", Grid::elements(y.len()), &args);
            y
        })
    }

    /// Rows and columns of the product.
    fn size(&self) -> [usize; 2] {
        [self.g.n * self.h * self.w, self.columns]
    }

    fn forward(&self, gpu: &'static Gpu, x: &Tensor, w: &Tensor, bias: &Tensor) -> (Tensor, Option<Tensor>) {
        let tile = plan_whole(&gpu.able(tiles(self.g.cs)), self.size(), self.k * self.k * self.g.cs);
        self.forward_as(gpu, x, w, bias, tile)
    }

    /// Output [n, h, w, os] and, of a pool, which pixels were the maxima.
    fn forward_as(
        &self,
        gpu: &'static Gpu,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        tile: Tile,
    ) -> (Tensor, Option<Tensor>) {
        let g = &self.g;
        let ([h, width], weight) = (g.out(), self.weight(gpu, w));
        let y = gpu.empty_act(&[g.n, h, width, g.os]);
        let ties = g.pooled.then(|| ties_of(gpu, &y));
        let mode = match (g.pooled, g.up) {
            (true, _) => POOLED,
            (false, 2) => PHASES,
            _ => PLAIN,
        };
        let [c, k] = [g.cs, self.k].map(Divider::new);
        #[rustfmt::skip] // an operand a line, as the kernel has them
        let args: [&dyn Arg; 28] = [
            x, &weight, bias, &y, &ties, &g.n, &g.h, &g.w,
            &c.by, &c.factor, &c.shift, &c.by, &c.factor, &c.shift, &k.by, &k.factor, &k.shift,
            &1usize, &g.stride, &self.top, &self.left, &self.h, &self.w,
            &self.columns, &self.padded, &g.co, &g.os, &mode,
        ];
        gpu.launch("conv", tile.forward, tile.in_line(self.size()), &args);
        (y, ties)
    }

    fn input_grad(&self, gpu: &'static Gpu, dy: &Tensor, w: &Tensor) -> Tensor {
        let g = &self.g;
        let tile = plan_whole(&gpu.able(tiles(g.os)), [g.n * g.h * g.w, g.cs], self.k * self.k * self.columns);
        self.input_grad_as(gpu, dy, w, tile)
    }

    /// The gradient of the input [n, h, w, cs].
    fn input_grad_as(&self, gpu: &'static Gpu, dy: &Tensor, w: &Tensor, tile: Tile) -> Tensor {
        let (g, weight) = (&self.g, self.weight(gpu, w));
        let dx = gpu.empty_act(&[g.n, g.h, g.w, g.cs]);
        let size = [g.n * g.h * g.w, g.cs];
        // In reverse, what came after the image comes before it.
        let (top, left) = (self.k - 1 - self.top, self.k - 1 - self.left);
        let none = None::<&Tensor>;
        let [c, tap, k] = [g.os, self.columns, self.k].map(Divider::new);
        #[rustfmt::skip]
        let args: [&dyn Arg; 28] = [
            dy, &weight, &none, &dx, &none, &g.n, &self.h, &self.w,
            &c.by, &c.factor, &c.shift, &tap.by, &tap.factor, &tap.shift, &k.by, &k.factor, &k.shift,
            &g.up, &1usize, &top, &left, &g.h, &g.w,
            &g.cs, &self.padded, &g.cs, &g.cs, &PLAIN,
        ];
        gpu.launch("conv_input_grad", tile.input_grad, tile.in_line(size), &args);
        dx
    }

    fn weight_grad(&self, gpu: &'static Gpu, x: &Tensor, dy: &Tensor) -> Tensor {
        let g = &self.g;
        let all = if grain(g.cs) < grain(g.os) { tiles(g.cs) } else { tiles(g.os) };
        let pixels = g.n * self.h * self.w;
        self.weight_grad_as(
            gpu,
            x,
            dy,
            None,
            plan(&gpu.able(all), [self.k * self.k * g.cs, self.columns], 1, &[pixels]),
        )
    }

    /// Whether there is a kernel for the weight's gradient from the gradient after a pool.
    fn takes_pooled(&self) -> bool {
        self.g.pooled && self.g.cs.is_multiple_of(4) && self.g.os.is_multiple_of(8)
    }

    /// The weight's gradient from that after a pool, [n, h / 2, w / 2, os].
    fn pooled_weight_grad(&self, gpu: &'static Gpu, x: &Tensor, dy: &Tensor, ties: &Tensor) -> Tensor {
        let g = &self.g;
        let size = [self.k * self.k * g.cs, self.columns];
        self.weight_grad_as(gpu, x, dy, Some(ties), plan(&CONV_POOLED, size, 1, &[g.n * self.h * self.w]))
    }

    /// The weight's gradient [k, k, ci, co].
    fn weight_grad_as(
        &self,
        gpu: &'static Gpu,
        x: &Tensor,
        dy: &Tensor,
        ties: Option<&Tensor>,
        Plan { tile, parts }: Plan,
    ) -> Tensor {
        let g = &self.g;
        let (rows, pixels) = (self.k * self.k * g.cs, g.n * self.h * self.w);
        let size = [rows, self.columns];
        let slice = pixels.div_ceil(tile.depth).div_ceil(parts).max(1) * tile.depth;
        let [height, width] = if ties.is_some() { g.out() } else { [self.h, self.w] }.map(Divider::new);
        let sums = gpu.empty(&[parts, rows, self.columns]);
        #[rustfmt::skip]
        let args: [&dyn Arg; 21] = [
            x, dy, &ties, &sums,
            &g.n, &g.h, &g.w, &g.cs, &g.up,
            &self.k, &g.stride, &self.top, &self.left,
            &height.by, &height.factor, &height.shift, &width.by, &width.factor, &width.shift,
            &g.os, &slice,
        ];
        let grid = tile.grid(size, parts);
        gpu.launch("conv_weight_grad", tile.weight_grad, grid, &args);
        let (grad, sparse) = (gpu.empty(&[g.k, g.k, g.ci, g.co]), g.sparse as u32);
        let small = if g.up == 1 { 0 } else { self.k };
        let args: [&dyn Arg; 10] = [&sums, &parts, &g.k, &g.ci, &g.co, &small, &sparse, &g.cs, &self.columns, &grad];
        gpu.launch("conv_pack", "unfold_parts", Grid::elements(grad.len()), &args);
        grad
    }
}

/// Channels that can be read at a time from pixels with `stored` channels.
fn grain(stored: usize) -> usize {
    [8, 4].into_iter().find(|&grain| stored.is_multiple_of(grain)).unwrap_or(1)
}

fn tiles(stored: usize) -> &'static [Tile] {
    match grain(stored) {
        8 => &CONV_8,
        4 => &CONV_4,
        _ => &CONV_1,
    }
}

#[cfg(test)]
mod tests;
