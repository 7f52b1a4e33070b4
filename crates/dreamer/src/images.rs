//! The convolutional networks: images to tokens, and features back to images (official rssm.py).

use crate::config::{SimpleDecoder, SimpleEncoder};
use crate::nets::{Linear, NormAct, act_width};
use crate::observations::Observations;
use crate::params::{Builder, Id, Params};
use engine::ops::{self, Act, FewImages, FewStage, Planes, Resample};
use engine::{Device, Pixels, Tensor};
use spaces::Spaces;
use std::collections::BTreeMap;
use std::ops::Range;

/// Images that one thread takes through all layers.
const IMAGES: usize = 16;

/// An image key with its channels.
#[derive(Clone, Debug)]
struct Key {
    name: String,
    channels: usize,
}

/// The image keys of a space with their common height and width; none if there are none.
fn image_keys(space: &Spaces) -> Option<(Vec<Key>, [usize; 2])> {
    let images: Vec<_> = space.iter().filter(|(_, s)| s.is_image()).collect();
    let (_, first) = images.first()?;
    let keys = images.iter().map(|(name, s)| Key { name: name.to_string(), channels: s.shape[2] });
    Some((keys.collect(), [first.shape[0], first.shape[1]]))
}

/// A convolution [k, k, in, out] with bias.
#[derive(Clone, Debug)]
struct Conv {
    kernel: Id,
    bias: Id,
    resample: Resample,
}

impl Conv {
    #[allow(clippy::too_many_arguments)] // what a convolution is
    fn new(
        b: &mut Builder,
        name: &str,
        k: usize,
        ci: usize,
        co: usize,
        resample: Resample,
        winit: &str,
        outscale: f32,
    ) -> Self {
        let mut b = b.scope(name);
        let kernel = b.kernel("kernel", &[k, k, ci, co], winit, outscale);
        Conv { kernel, bias: b.constant("bias", &[co], 0.0), resample }
    }

    fn apply(&self, p: &Params, x: &Planes, norm: Option<&NormAct>) -> Planes {
        let norm = norm.map(|n| (n.norm(p), n.act()));
        let norm = norm.as_ref().map(|(norm, act)| (norm, *act));
        ops::conv_stage(x, p.get(self.kernel), p.get(self.bias), self.resample, norm)
    }
}

/// The image encoder: convolution stages that halve the resolution, flattened to [h, w, c].
#[derive(Clone, Debug)]
pub struct Cnn {
    /// Sorted, as they are joined along the channels.
    keys: Vec<Key>,
    size: [usize; 2],
    stages: Vec<(Conv, NormAct)>,
    pad: usize,
    width: usize,
}

impl Cnn {
    pub fn new(b: &mut Builder, space: &Spaces, c: &SimpleEncoder) -> Option<Cnn> {
        let (mut keys, size) = image_keys(space)?;
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        let mut channels: usize = keys.iter().map(|k| k.channels).sum();
        let mut stages = Vec::new();
        let [mut h, mut w] = size;
        for (i, mult) in c.mults.iter().enumerate() {
            let resample = match (c.outer && i == 0, c.strided) {
                (true, _) => Resample::None,
                (_, true) => Resample::Stride,
                _ => Resample::Pool,
            };
            let depth = c.depth * mult;
            let conv = Conv::new(b, &format!("cnn{i}"), c.kernel, channels, depth, resample, &c.winit, 1.0);
            stages.push((conv, NormAct::new(b, &format!("cnn{i}norm"), depth, &c.norm, &c.act)));
            channels = act_width(&c.act, depth);
            if resample != Resample::None {
                (h, w) = (h.div_ceil(2), w.div_ceil(2));
            }
        }
        Some(Cnn { keys, size, stages, pad: c.kernel / 2, width: h * w * channels })
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens [rows, h * w * c] of the observed images.
    pub fn apply(&self, p: &Params, obs: &Observations) -> Tensor {
        let ([h, w], rows) = (self.size, obs.rows);
        let device = p.device();
        if rows <= ops::FEW_IMAGES
            && device == Device::Cpu
            && let Some(stages) = self.few_stages(p)
        {
            return FewImages::new(&pixels_of(obs, &self.keys, h * w, &(0..rows)), rows, h, w).apply(&stages);
        }
        let work = 200 * rows * h * w * self.stages.len();
        // A GPU takes all images at once.
        let images = if device == Device::Cpu { IMAGES } else { rows.max(1) };
        let outputs = ops::chunks(rows, images, work, &[], |rows, _| {
            let pixels = pixels_of(obs, &self.keys, h * w, &rows);
            let x = ops::byte_planes(&pixels, rows.len(), h, w, self.pad, device);
            let x = self.stages.iter().fold(x, |x, (conv, norm)| conv.apply(p, &x, Some(norm)));
            vec![ops::rows_of_planes(&x)]
        });
        outputs.into_iter().next().expect("one output")
    }

    /// The stages for [`FewImages`]; none where it cannot take them: it has no gradient, stride or swiglu.
    fn few_stages<'a>(&self, p: &'a Params) -> Option<Vec<FewStage<'a>>> {
        let stage = |(conv, norm): &(Conv, NormAct)| {
            let (w, bias, act) = (p.get(conv.kernel), p.get(conv.bias), norm.act());
            let fits = !w.requires_grad() && conv.resample != Resample::Stride && act != Act::Swiglu;
            fits.then(|| FewStage { w, bias, pool: conv.resample == Resample::Pool, norm: norm.norm(p), act })
        };
        self.stages.iter().map(stage).collect()
    }
}

/// The pixels of some rows of each image key, with its channels.
fn pixels_of<'a>(obs: &'a Observations, keys: &[Key], pixels: usize, rows: &Range<usize>) -> Vec<(Pixels<'a>, usize)> {
    let part = |key: &Key| {
        let row = pixels * key.channels;
        (obs.pixels(&key.name).part(rows.start * row..rows.end * row), key.channels)
    };
    keys.iter().map(part).collect()
}

/// The image decoder: features to a small image, then stages that double the resolution.
#[derive(Clone, Debug)]
pub struct Deconv {
    /// In the spaces' order, by which the output channels are split.
    keys: Vec<Key>,
    space: SpatialInput,
    spacenorm: NormAct,
    /// Height, width and channels of the small image.
    small: [usize; 3],
    stages: Vec<(Conv, NormAct)>,
    out: Conv,
    size: [usize; 2],
    pad: usize,
}

/// How features become a small image.
#[derive(Clone, Debug)]
enum SpatialInput {
    /// `bspace` > 0: deter through a block-linear layer plus stoch through two layers.
    Blocks { blocks: usize, sp0: Linear, sp1: Linear, sp1norm: NormAct, sp2: Linear },
    /// `bspace` 0: one layer from the whole feature.
    Plain(Linear),
}

impl Deconv {
    pub fn new(b: &mut Builder, space: &Spaces, deter: usize, latent: usize, c: &SimpleDecoder) -> Option<Deconv> {
        let (keys, size) = image_keys(space)?;
        let factor = 1 << (c.mults.len() - c.outer as usize);
        let deepest = c.depth * c.mults[c.mults.len() - 1];
        let small = [size[0] / factor, size[1] / factor, deepest];
        let units = small.iter().product();
        let (space, name) = if c.bspace > 0 {
            let sp0 = Linear::blocks(b, "sp0", deter, units, c.bspace, &c.winit);
            let sp1 = Linear::new(b, "sp1", latent, 2 * c.units, &c.winit, 1.0);
            let sp1norm = NormAct::new(b, "sp1norm", 2 * c.units, &c.norm, &c.act);
            let sp2 = Linear::new(b, "sp2", act_width(&c.act, 2 * c.units), units, &c.winit, 1.0);
            (SpatialInput::Blocks { blocks: c.bspace, sp0, sp1, sp1norm, sp2 }, "spnorm")
        } else {
            (SpatialInput::Plain(Linear::new(b, "space", latent + deter, units, &c.winit, 1.0)), "spacenorm")
        };
        let spacenorm = NormAct::new(b, name, deepest, &c.norm, &c.act);
        let resample = if c.strided { Resample::Spread } else { Resample::Upsample };
        let mut channels = act_width(&c.act, deepest);
        let mut stages = Vec::new();
        for (i, mult) in c.mults[..c.mults.len() - 1].iter().enumerate().rev() {
            let depth = c.depth * mult;
            let conv = Conv::new(b, &format!("conv{i}"), c.kernel, channels, depth, resample, &c.winit, 1.0);
            stages.push((conv, NormAct::new(b, &format!("conv{i}norm"), depth, &c.norm, &c.act)));
            channels = act_width(&c.act, depth);
        }
        let resample = if c.outer { Resample::None } else { resample };
        let outputs = keys.iter().map(|k| k.channels).sum();
        let out = Conv::new(b, "imgout", c.kernel, channels, outputs, resample, &c.winit, c.outscale);
        Some(Deconv { keys, space, spacenorm, small, stages, out, size, pad: c.kernel / 2 })
    }

    /// Logits of the images for features deter [n, D] and stoch [n, S*C].
    fn logits(&self, p: &Params, deter: &Tensor, stoch: &Tensor) -> Planes {
        let [h, w, c] = self.small;
        let n = deter.dim(0);
        let x = match &self.space {
            SpatialInput::Blocks { blocks, sp0, sp1, sp1norm, sp2 } => {
                // Each block gives all pixels of some channels: [n, (g h w c)] -> [n, (h w g c)].
                let x0 = ops::regroup(&sp0.apply(p, deter), *blocks, c / blocks);
                sp2.apply_plus(p, &sp1norm.apply(p, &sp1.apply(p, stoch)), &x0)
            }
            SpatialInput::Plain(linear) => linear.apply_parts(p, &[stoch, deter]),
        };
        let x = self.spacenorm.apply(p, &ops::reshape(&x, &[n * h * w, c]));
        let x = ops::reshape(&x, &[n, h * w * x.width()]);
        let x = ops::planes(&x, h, w, x.width() / (h * w), self.pad);
        let x = self.stages.iter().fold(x, |x, (conv, norm)| conv.apply(p, &x, Some(norm)));
        self.out.apply(p, &x, None)
    }

    fn work(&self, rows: usize) -> usize {
        200 * rows * self.size[0] * self.size[1] * self.stages.len().max(1)
    }

    /// Reconstruction losses [rows] by key.
    pub fn losses(&self, p: &Params, deter: &Tensor, stoch: &Tensor, obs: &Observations) -> Vec<(String, Tensor)> {
        let rows = deter.dim(0);
        let pixels = self.size[0] * self.size[1];
        let losses = ops::chunks(rows, IMAGES, self.work(rows), &[deter, stoch], |rows, inputs| {
            ops::image_loss(&self.logits(p, &inputs[0], &inputs[1]), &pixels_of(obs, &self.keys, pixels, &rows))
        });
        self.keys.iter().map(|k| k.name.clone()).zip(losses).collect()
    }

    /// Predicted images [rows, H, W, C] in [0, 1] by key. No gradient.
    pub fn predict(&self, p: &Params, deter: &Tensor, stoch: &Tensor) -> BTreeMap<String, Tensor> {
        let channels: Vec<usize> = self.keys.iter().map(|k| k.channels).collect();
        let rows = deter.dim(0);
        let images = ops::chunks(rows, IMAGES, self.work(rows), &[deter, stoch], |_, inputs| {
            ops::images(&self.logits(p, &inputs[0], &inputs[1]), &channels)
        });
        self.keys.iter().map(|k| k.name.clone()).zip(images).collect()
    }
}
