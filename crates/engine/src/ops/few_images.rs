//! Convolution stages over a few images, without gradient: what an agent sees while it acts.

use super::norm_act::{Act, Held, Norm};
use crate::buffer::Buffer;
use crate::bytes::Pixels;
use crate::cpu::conv::{ConvShape, ConvWeights, Image, conv_image};
use crate::cpu::norm::norm_act_lanes;
use crate::parallel::par_map;
use crate::profile;
use crate::tensor::{PackKey, Tensor};

/// Up to this many images, one by one on several threads, cost less than one group of the lanes layout.
pub const FEW_IMAGES: usize = 16;

/// Images, one after the other.
pub struct FewImages {
    images: Vec<Image>,
}

/// One stage: a SAME convolution with stride 1, [k, k, in, out] and [out], a 2x2 max pool if `pool`, norm and activation
/// (not swiglu).
pub struct FewStage<'a> {
    pub w: &'a Tensor,
    pub bias: &'a Tensor,
    pub pool: bool,
    pub norm: Norm<'a>,
    pub act: Act,
}

impl FewImages {
    /// uint8 images [n, h, w, c] -> `value / 255 - 0.5`. Several keys are joined along the channels.
    pub fn new(keys: &[(Pixels, usize)], n: usize, h: usize, w: usize) -> Self {
        let channels = keys.iter().map(|(_, c)| c).sum();
        let image = |i: usize| {
            let mut image = Image::zeros(channels, h, w, 0);
            let mut first = 0;
            for (bytes, c) in keys {
                let rows = bytes.host()[i * h * w * c..(i + 1) * h * w * c].chunks_exact(w * c);
                for (y, row) in rows.enumerate() {
                    for k in 0..*c {
                        let pixels = image.pixels_mut(first + k, y).iter_mut();
                        pixels.zip(row[k..].iter().step_by(*c)).for_each(|(to, &v)| *to = v as f32 / 255.0 - 0.5);
                    }
                }
                first += c;
            }
            image
        };
        FewImages { images: (0..n).map(image).collect() }
    }

    /// All stages, each image from the first to the last on one thread: rows [n, h * w * c].
    pub fn apply(self, stages: &[FewStage]) -> Tensor {
        let n = self.images.len();
        let flops = |x: &Image| 2 * 50 * x.h * x.w * x.c * stages.len() * 8;
        let work = self.images.iter().map(flops).sum();
        let rows = par_map(self.images, work, |_, x| rows(&stages.iter().fold(x, |x, stage| stage.apply(&x))));
        let width = rows.first().map_or(0, |row| row.len());
        let mut out = Buffer::stale(n * width);
        out.chunks_exact_mut(width.max(1)).zip(&rows).for_each(|(to, row)| to.copy_from_slice(row));
        Tensor::new(&[n, width], out)
    }
}

impl FewStage<'_> {
    fn apply(&self, x: &Image) -> Image {
        let (k, ci, co) = (self.w.dim(0), self.w.dim(2), self.w.dim(3));
        let shape = ConvShape { h: x.h, w: x.w, ci, co, k, stride: 1 };
        let weights = self.w.packed_conv(PackKey::Conv, |w| ConvWeights::new(w, k, ci, co));
        let flops = 2 * x.h * x.w * k * k * ci * co;
        profile::count(flops, flops);
        let z = conv_image(&shape, &weights, self.bias.data(), &x.padded(k / 2));
        let z = if self.pool { z.pooled() } else { z };
        let held = Held::new(&self.norm, self.act);
        let mut y = Image::zeros(co, z.h, z.w, 0);
        // A row of pixels without padding is laid out like vectors that hold a pixel of each of several images.
        norm_act_lanes(&held.kernel(), co, z.h, z.vectors(), &z.data, 0, &mut y.data, 0);
        y
    }
}

/// [h, w, c] of an image.
fn rows(x: &Image) -> Vec<f32> {
    let mut out = vec![0.0; x.h * x.w * x.c];
    for (c, y) in (0..x.c).flat_map(|c| (0..x.h).map(move |y| (c, y))) {
        let to = out[y * x.w * x.c..(y + 1) * x.w * x.c].iter_mut().skip(c).step_by(x.c);
        to.zip(x.pixels(c, y)).for_each(|(to, v)| *to = *v);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{NormKind, Resample, byte_planes, conv_stage, rows_of_planes};
    use super::*;
    use crate::check::random;

    #[test]
    fn few_images_equal_many() {
        let (n, h, w, k) = (2, 8, 12, 5);
        let bytes: Vec<u8> = (0..n * h * w * 4).map(|i| (i * 37 % 256) as u8).collect();
        let (a, b) = bytes.split_at(n * h * w);
        let keys = [(Pixels::Host(a), 1), (Pixels::Host(b), 3)];
        let parameters = [(4, 6, true), (6, 5, false)].map(|(ci, co, pool)| {
            let scale = random(&[co], 7, 0.3);
            (random(&[k, k, ci, co], co as u32, 0.2), random(&[co], 3, 1.0), scale, pool)
        });
        let norm = |scale| Norm { kind: NormKind::Rms, eps: 1e-4, scale: Some(scale), shift: None };
        let stage =
            |(w, bias, scale, pool)| FewStage { w, bias, pool, norm: norm(scale), act: Act::parse("silu").unwrap() };
        let stages = parameters.each_ref().map(|(w, bias, scale, pool)| stage((w, bias, scale, *pool)));
        let got = FewImages::new(&keys, n, h, w).apply(&stages);

        let planes = stages.iter().fold(byte_planes(&keys, n, h, w, k / 2, crate::Device::Cpu), |x, s| {
            let resample = if s.pool { Resample::Pool } else { Resample::None };
            conv_stage(&x, s.w, s.bias, resample, Some((&s.norm, s.act)))
        });
        let expected = rows_of_planes(&planes);
        assert_eq!(got.shape(), expected.shape());
        assert!(got.data().iter().all(|x| x.is_finite()));
        let error = got.data().iter().zip(expected.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "{error}");
    }
}
