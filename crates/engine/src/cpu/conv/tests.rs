//! Every convolution kernel on every instruction set against the plain loops in float64.

use super::*;
use crate::cpu::lanes;
use crate::cpu::simd::on_every_isa;
use crate::cpu::testing::{assert_close, noise};
use proptest::prelude::*;

/// Images `[n, h, w, c]` in float64, as the references use them.
#[derive(Clone)]
struct Images {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    data: Vec<f64>,
}

impl Images {
    fn zeros(n: usize, h: usize, w: usize, c: usize) -> Self {
        Self { n, h, w, c, data: vec![0.0; n * h * w * c] }
    }

    fn noise(n: usize, h: usize, w: usize, c: usize, seed: u64) -> Self {
        let data = noise(n * h * w * c, seed).into_iter().map(f64::from).collect();
        Self { n, h, w, c, data }
    }

    fn index(&self, n: usize, y: isize, x: isize, c: usize) -> Option<usize> {
        let inside = y >= 0 && x >= 0 && y < self.h as isize && x < self.w as isize;
        inside.then(|| ((n * self.h + y as usize) * self.w + x as usize) * self.c + c)
    }

    fn upsampled(&self, sparse: bool) -> Self {
        let mut up = Self::zeros(self.n, 2 * self.h, 2 * self.w, self.c);
        for i in 0..up.data.len() {
            let (c, x, y, n) = (i % up.c, i / up.c % up.w, i / (up.c * up.w) % up.h, i / (up.c * up.w * up.h));
            if !sparse || y % 2 == 1 && x % 2 == 1 {
                up.data[i] = self.data[((n * self.h + y / 2) * self.w + x / 2) * self.c + c];
            }
        }
        up
    }

    fn downsummed(&self, sparse: bool) -> Self {
        let mut low = Self::zeros(self.n, self.h / 2, self.w / 2, self.c);
        for i in 0..self.data.len() {
            let (c, x, y, n) =
                (i % self.c, i / self.c % self.w, i / (self.c * self.w) % self.h, i / (self.c * self.w * self.h));
            if !sparse || y % 2 == 1 && x % 2 == 1 {
                low.data[((n * low.h + y / 2) * low.w + x / 2) * low.c + c] += self.data[i];
            }
        }
        low
    }

    /// Into lanes, in the middle of rubbish, so that padding and spare lanes must be written.
    fn to_lanes(&self, pad: usize) -> Vec<f32> {
        let floats: Vec<f32> = self.data.iter().map(|&v| v as f32).collect();
        let mut out = vec![9.0; group_len(self.c, self.h, self.w, pad)];
        f32_to_lanes(&floats, self.n, self.h, self.w, self.c, &mut out, pad);
        out
    }

    fn assert_lanes(&self, name: &str, group: &[f32], pad: usize, tolerance: f64) {
        let mut got = vec![0.0; self.data.len()];
        lanes_to_f32(group, self.n, self.h, self.w, self.c, pad, &mut got);
        assert_close(name, &got, &self.data, tolerance);
        assert_zero_padding(name, group, self.c * self.h, self.w, pad);
    }
}

fn assert_zero_padding(name: &str, group: &[f32], rows: usize, w: usize, pad: usize) {
    for row in group.chunks_exact((w + 2 * pad) * lanes()).take(rows) {
        let zero = row[..pad * lanes()].iter().chain(&row[(pad + w) * lanes()..]).all(|&v| v == 0.0);
        assert!(zero, "{name}: padding is not zero");
    }
}

/// Calls `f(input index, output index, weight index)` for every product in the convolution.
fn products(s: &ConvShape, x: &Images, y: &Images, mut f: impl FnMut(usize, usize, usize)) {
    let before = |size: usize| (((size.div_ceil(s.stride) - 1) * s.stride + s.k) as isize - size as isize).max(0) / 2;
    for n in 0..y.n {
        for oy in 0..y.h {
            for ox in 0..y.w {
                for (a, b) in (0..s.k * s.k).map(|t| (t / s.k, t % s.k)) {
                    let (iy, ix) =
                        ((oy * s.stride + a) as isize - before(s.h), (ox * s.stride + b) as isize - before(s.w));
                    if x.index(n, iy, ix, 0).is_none() {
                        continue;
                    }
                    for i in 0..s.ci {
                        let from = x.index(n, iy, ix, i).unwrap(); // the pixel is inside
                        for o in 0..s.co {
                            let to = y.index(n, oy as isize, ox as isize, o).unwrap(); // so is the output's
                            f(from, to, ((a * s.k + b) * s.ci + i) * s.co + o);
                        }
                    }
                }
            }
        }
    }
}

/// Output, input gradient and weight gradient in float64, given the gradient `g` of the output.
fn reference(s: &ConvShape, x: &Images, w: &[f32], bias: &[f32], g: &Images) -> (Images, Images, Vec<f64>) {
    let mut y = Images::zeros(x.n, s.out_h(), s.out_w(), s.co);
    (0..y.data.len()).for_each(|i| y.data[i] = bias[i % s.co] as f64);
    let mut dx = Images::zeros(x.n, x.h, x.w, x.c);
    let mut dw = vec![0.0; w.len()];
    let shape = y.clone();
    products(s, x, &shape, |from, to, tap| {
        y.data[to] += x.data[from] * w[tap] as f64;
        dx.data[from] += g.data[to] * w[tap] as f64;
        dw[tap] += g.data[to] * x.data[from];
    });
    (y, dx, dw)
}

fn bias_sums(g: &Images) -> Vec<f64> {
    (0..g.c).map(|c| g.data.iter().skip(c).step_by(g.c).sum()).collect()
}

fn check_conv(s: ConvShape, spare: usize, extra: usize) {
    let (w, bias) = (noise(s.k * s.k * s.ci * s.co, 1), noise(s.co, 2));
    on_every_isa(|| {
        let n = lanes() - spare.min(lanes() - 1);
        let x = Images::noise(n, s.h, s.w, s.ci, 3);
        let g = Images::noise(n, s.out_h(), s.out_w(), s.co, 4);
        let (y, dx, dw) = reference(&s, &x, &w, &bias, &g);
        let weights = ConvWeights::new(&w, s.k, s.ci, s.co);
        let pad = s.pad() + extra;
        let name = format!("{s:?}");
        let mut out = vec![7.0; group_len(s.co, s.out_h(), s.out_w(), extra)];
        conv(&s, &weights, &x.to_lanes(pad), pad, Some(&bias), &mut out, extra);
        y.assert_lanes(&name, &out, extra, 1e-5);
        let mut back = vec![7.0; group_len(s.ci, s.h, s.w, extra)];
        conv_input_grad(&s, &weights, &g.to_lanes(pad), pad, &mut back, extra);
        dx.assert_lanes(&format!("{name} dx"), &back, extra, 1e-5);
        let mut acc = vec![0.0; s.weight_grad_len()];
        conv_weight_grad(&s, &x.to_lanes(pad), pad, &g.to_lanes(extra), extra, &mut acc);
        conv_weight_grad(&s, &x.to_lanes(pad), pad, &g.to_lanes(extra), extra, &mut acc);
        let mut got = vec![1.0; w.len()];
        reduce_weight_grad(&s, &acc, &mut got);
        let twice: Vec<f64> = dw.iter().map(|v| 1.0 + 2.0 * v).collect();
        assert_close(&format!("{name} dw"), &got, &twice, 2e-5);
        let (mut acc, mut db) = (vec![0.0; s.co * lanes()], vec![0.0; s.co]);
        conv_bias_grad(s.co, s.out_h(), s.out_w(), &g.to_lanes(extra), extra, &mut acc);
        reduce_bias_grad(&acc, &mut db);
        assert_close(&format!("{name} db"), &db, &bias_sums(&g), 2e-5);
    });
}

#[test]
fn convolutions_of_awkward_shapes() {
    for k in [1, 3, 5, 7] {
        for stride in [1, 2] {
            for (h, w, ci, co) in [(1, 1, 1, 1), (2, 3, 3, 5), (5, 4, 2, 3), (6, 9, 1, 7), (8, 8, 4, 6)] {
                check_conv(ConvShape { h, w, ci, co, k, stride }, h % 3, w % 2);
            }
        }
    }
    check_conv(ConvShape { h: 3, w: 70, ci: 2, co: 2, k: 5, stride: 1 }, 0, 0);
    check_conv(ConvShape { h: 40, w: 3, ci: 33, co: 32, k: 3, stride: 1 }, 1, 0); // many channels, several bands
}

fn check_upsample(s: UpsampleShape, extra: usize) {
    let (w, bias) = (noise(s.k * s.k * s.ci * s.co, 1), noise(s.co, 2));
    let high = ConvShape { h: 2 * s.h, w: 2 * s.w, ci: s.ci, co: s.co, k: s.k, stride: 1 };
    on_every_isa(|| {
        let x = Images::noise(lanes() - 1, s.h, s.w, s.ci, 3);
        let g = Images::noise(lanes() - 1, 2 * s.h, 2 * s.w, s.co, 4);
        let (y, dx, dw) = reference(&high, &x.upsampled(s.sparse), &w, &bias, &g);
        let (low, weights) = (s.low(), s.weights(&w));
        let (pad, name) = (low.pad() + extra, format!("{s:?}"));
        let mut out = vec![7.0; group_len(s.co, high.h, high.w, extra)];
        upsample_conv(&s, &weights, &x.to_lanes(pad), pad, Some(&bias), &mut out, extra);
        y.assert_lanes(&name, &out, extra, 1e-5);
        let mut phases = vec![7.0; group_len(4 * s.co, s.h, s.w, pad)];
        split_phases(&s, &g.to_lanes(extra), extra, &mut phases, pad);
        assert_zero_padding(&name, &phases, 4 * s.co * s.h, s.w, pad);
        let mut back = vec![7.0; group_len(s.ci, s.h, s.w, extra)];
        conv_input_grad(&low, &weights, &phases, pad, &mut back, extra);
        dx.downsummed(s.sparse).assert_lanes(&format!("{name} dx"), &back, extra, 2e-5);
        let mut acc = vec![0.0; low.weight_grad_len()];
        conv_weight_grad(&low, &x.to_lanes(pad), pad, &phases, pad, &mut acc);
        let mut got = vec![0.0; w.len()];
        reduce_upsample_grad(&s, &acc, &mut got);
        assert_close(&format!("{name} dw"), &got, &dw, 2e-5);
    });
}

#[test]
fn upsampling_equals_its_two_steps() {
    for k in [1, 3, 5, 7] {
        for (h, w, ci, co) in [(1, 1, 1, 1), (2, 3, 3, 2), (4, 4, 5, 3), (3, 9, 2, 1)] {
            for sparse in [false, true] {
                check_upsample(UpsampleShape { h, w, ci, co, k, sparse }, h % 2);
            }
        }
    }
}

/// Pools what `conv` gives, so that ties are equal to the bit, and compares exactly.
fn check_pool(s: ConvShape, levels: f32, extra: usize) {
    let round = |v: f32| if levels > 0.0 { (v * levels).round() / levels } else { v };
    let w: Vec<f32> = noise(s.k * s.k * s.ci * s.co, 1).into_iter().map(round).collect();
    on_every_isa(|| {
        let l = lanes();
        let mut x = Images::noise(l, s.h, s.w, s.ci, 3);
        x.data.iter_mut().for_each(|v| *v = round(*v as f32) as f64);
        let (x, pad) = (x.to_lanes(s.pad()), s.pad());
        let (weights, bias) = (ConvWeights::new(&w, s.k, s.ci, s.co), noise(s.co, 2));
        let mut full = vec![0.0; group_len(s.co, s.h, s.w, 0)];
        conv(&s, &weights, &x, pad, Some(&bias), &mut full, 0);
        let (h, wide) = (s.h / 2, s.w / 2);
        let mut out = vec![7.0; group_len(s.co, h, wide, extra)];
        let mut ties = vec![0u16; s.co * h * wide * 4];
        conv_pool(&s, &weights, &x, pad, Some(&bias), &mut out, extra, &mut ties);
        assert_zero_padding("pool", &out, s.co * h, wide, extra);
        let g = noise(group_len(s.co, h, wide, extra), 5);
        let mut back = vec![7.0; group_len(s.co, s.h, s.w, extra)];
        unpool(s.co, s.h, s.w, &g, extra, &ties, &mut back, extra);
        assert_zero_padding("unpool", &back, s.co * s.h, s.w, extra);
        for i in 0..s.co * h * wide * l {
            let (lane, x, row) = (i % l, i / l % wide, i / l / wide);
            let four = [0, 1, 2, 3].map(|p| (2 * row + p / 2, 2 * x + p % 2));
            let values = four.map(|(y, x)| full[(y * s.w + x) * l + lane]);
            let max = values.into_iter().fold(f32::NEG_INFINITY, f32::max);
            let at = (row * (wide + 2 * extra) + extra + x) * l + lane;
            assert_eq!(out[at], max);
            let tied = values.iter().filter(|&&v| v == max).count() as f32;
            for (value, (y, x)) in values.into_iter().zip(four) {
                let want = if value == max { g[at] / tied } else { 0.0 };
                assert_eq!(back[(y * (s.w + 2 * extra) + extra + x) * l + lane], want);
            }
        }
    });
}

#[test]
fn pooling_shares_the_gradient_among_ties() {
    for k in [1, 3, 5] {
        for (h, w, ci, co) in [(2, 2, 1, 1), (4, 6, 3, 5), (8, 8, 2, 4), (2, 10, 1, 3)] {
            check_pool(ConvShape { h, w, ci, co, k, stride: 1 }, 0.0, 0);
            check_pool(ConvShape { h, w, ci, co, k, stride: 1 }, 1.0, 2); // coarse values tie often
        }
    }
}

#[test]
fn pooling_keeps_nan() {
    on_every_isa(|| {
        let s = ConvShape { h: 2, w: 2, ci: 1, co: 1, k: 1, stride: 1 };
        for at in 0..4 {
            let mut x = vec![1.0; 4 * lanes()];
            x[at * lanes() + 1] = f32::NAN;
            let (mut out, mut ties) = (vec![0.0; lanes()], vec![0; 4]);
            conv_pool(&s, &ConvWeights::new(&[1.0], 1, 1, 1), &x, 0, None, &mut out, 0, &mut ties);
            assert!(out[1].is_nan() && out[0] == 1.0, "{out:?}");
        }
    });
}

#[test]
fn bytes_become_the_encoder_input() {
    for (n, h, w, c, pad) in [(1, 1, 1, 1, 0), (3, 5, 7, 3, 2), (16, 4, 3, 1, 1), (0, 2, 2, 3, 1)] {
        let bytes: Vec<u8> = (0..16 * h * w * c).map(|i| (i * 37 + i / 11) as u8).collect();
        on_every_isa(|| {
            let n = n.min(lanes());
            let mut out = vec![9.0; group_len(c, h, w, pad)];
            u8_to_lanes(&bytes[..n * h * w * c], n, h, w, c, 255.0, 0.5, &mut out, pad);
            assert_zero_padding("bytes", &out, c * h, w, pad);
            for i in 0..h * w * c * lanes() {
                let (lane, at) = (i % lanes(), i / lanes());
                let (channel, x, y) = (at % c, at / c % w, at / (c * w));
                let want = if lane < n { bytes[lane * h * w * c + at] as f32 / 255.0 - 0.5 } else { 0.0 };
                assert_eq!(out[((channel * h + y) * (w + 2 * pad) + pad + x) * lanes() + lane], want);
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn convolutions_of_any_shape(
        h in 1usize..12, w in 1usize..14, ci in 1usize..6, co in 1usize..8, k in 0usize..4, stride in 1usize..3,
    ) {
        check_conv(ConvShape { h, w, ci, co, k: 2 * k + 1, stride }, ci % 3, co % 2);
        check_upsample(UpsampleShape { h: h.div_ceil(2), w: w.div_ceil(2), ci, co: co.div_ceil(2), k: 2 * k + 1, sparse: co == 3 }, 0);
        check_pool(ConvShape { h: h + h % 2, w: w + w % 2, ci, co, k: 2 * k + 1, stride: 1 }, 2.0, k);
    }
}

#[test]
fn one_image_equals_the_same_image_in_lanes() {
    on_every_isa(|| {
        for (h, w, ci, co, k) in [(6, 8, 3, 5, 3), (12, 20, 2, 9, 5), (4, 70, 1, 4, 3), (2, 2, 3, 1, 7)] {
            let s = ConvShape { h, w, ci, co, k, stride: 1 };
            let x = Images::noise(1, h, w, ci, 1);
            let weights = ConvWeights::new(&noise(k * k * ci * co, 2), k, ci, co);
            let bias = noise(co, 3);
            let (mut out, mut ties) = (vec![0.0; group_len(co, h / 2, w / 2, 0)], vec![0; co * h * w]);
            conv_pool(&s, &weights, &x.to_lanes(s.pad()), s.pad(), Some(&bias), &mut out, 0, &mut ties);
            let mut expected = vec![0.0; co * h * w / 4];
            lanes_to_f32(&out, 1, h / 2, w / 2, co, 0, &mut expected);

            let mut image = Image::zeros(ci, h, w, s.pad());
            for (i, v) in x.data.iter().enumerate() {
                image.pixels_mut(i % ci, i / ci / w)[i / ci % w] = *v as f32;
            }
            let got = conv_image(&s, &weights, &bias, &image).pooled().padded(2);
            for (i, v) in expected.iter().enumerate() {
                let (c, x, y) = (i % co, i / co % (w / 2), i / co / (w / 2));
                let error = (got.pixels(c, y)[x] - v).abs();
                assert!(error < 1e-4, "{h} x {w}, {ci} to {co}, kernel {k}: off by {error}");
            }
        }
    });
}
