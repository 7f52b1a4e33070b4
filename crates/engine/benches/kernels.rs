//! The CPU kernels on one thread: `cargo bench -p engine [-- words of the names wanted]`.
//!
//! An "item" is a floating-point operation, a multiply-add being two, so Gitem/s are GFLOP/s; compare with `peak`.
//! Kernels that are not products count elements instead: their Gitem/s are 10^9 elements per second.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use engine::Buffer;
use engine::cpu::conv::{
    ConvShape, ConvWeights, Image, UpsampleShape, conv_image, conv_input_grad, conv_pool, conv_weight_grad, group_len,
    split_phases, u8_to_lanes, unpool, upsample_conv,
};
use engine::cpu::gemm::{Packed, gemm_packed};
use engine::cpu::gemm_tn::{Segment, gemm_tn};
use engine::cpu::norm::{Act, Norm, NormAct, norm_act_lanes, norm_act_lanes_grad, norm_act_rows, norm_act_rows_grad};
use engine::cpu::{gru, lanes, math, peak, sample, softmax, twohot};

fn main() {
    divan::main();
}

/// Deterministic numbers in [-1, 1) without an obvious pattern.
fn filled(n: usize) -> Buffer {
    let mut buffer = Buffer::zeros(n);
    let number = |i: usize| (i.wrapping_mul(2654435761) >> 16 & 0xffff) as f32 / 32768.0 - 1.0;
    buffer.iter_mut().enumerate().for_each(|(i, v)| *v = number(i));
    buffer
}

#[divan::bench]
fn peak_of_multiply_adds(bencher: Bencher) {
    let flops = peak::multiply_adds(1) as u64 * 10_000;
    bencher.counter(ItemsCount::new(flops)).bench(|| peak::multiply_adds(black_box(10_000)));
}

/// `m x k` times `k x n`.
const PRODUCTS: [[usize; 3]; 7] =
    [[1, 512, 64], [8, 512, 64], [64, 512, 64], [64, 64, 255], [1024, 640, 64], [64, 2048, 256], [1024, 2560, 256]];

mod products {
    use super::*;

    #[divan::bench(args = PRODUCTS)]
    fn forward(bencher: Bencher, [m, k, n]: [usize; 3]) {
        let (a, w, mut c) = (filled(m * k), Packed::new(&filled(k * n), k, n, n), filled(m * n));
        bencher
            .counter(ItemsCount::new(2 * m * k * n))
            .bench_local(|| gemm_packed(m, k, &a, k, &w, 0, None, &mut c, n, false));
    }

    #[divan::bench(args = PRODUCTS)]
    fn input_gradient(bencher: Bencher, [m, k, n]: [usize; 3]) {
        let (dy, w, mut dx) = (filled(m * n), Packed::transposed(&filled(k * n), n, k, n), filled(m * k));
        bencher
            .counter(ItemsCount::new(2 * m * k * n))
            .bench_local(|| gemm_packed(m, n, &dy, n, &w, 0, None, &mut dx, k, false));
    }

    #[divan::bench(args = PRODUCTS)]
    fn weight_gradient(bencher: Bencher, [m, k, n]: [usize; 3]) {
        let (x, dy, mut dw) = (filled(m * k), filled(m * n), filled(k * n));
        bencher.counter(ItemsCount::new(2 * m * k * n)).bench_local(|| {
            let all = [Segment { x: &x, ldx: k, dy: &dy, ldy: n, rows: m }];
            gemm_tn(0..k, n, &all, &mut dw, n);
        });
    }
}

/// The encoder's stages at size1m and one of size12m: size, input and output channels. One group of images.
const ENCODER: [[usize; 3]; 5] = [[64, 3, 8], [32, 8, 12], [16, 12, 16], [8, 16, 16], [8, 64, 64]];

fn conv5([size, ci, co]: [usize; 3]) -> (ConvShape, ConvWeights, Buffer) {
    let s = ConvShape { h: size, w: size, ci, co, k: 5, stride: 1 };
    (s, ConvWeights::new(&filled(25 * ci * co), 5, ci, co), filled(group_len(ci, size, size, s.pad())))
}

mod encoder {
    use super::*;

    #[divan::bench(args = ENCODER)]
    fn convolution_and_pool(bencher: Bencher, shape: [usize; 3]) {
        let (s, weights, x) = conv5(shape);
        let mut out = filled(group_len(s.co, s.h / 2, s.w / 2, 0));
        let mut ties = vec![0u16; s.co * s.h * s.w];
        bencher
            .counter(ItemsCount::new(lanes() * s.flops()))
            .bench_local(|| conv_pool(&s, &weights, &x, s.pad(), None, &mut out, 0, &mut ties));
    }

    #[divan::bench(args = ENCODER)]
    fn weight_gradient(bencher: Bencher, shape: [usize; 3]) {
        let (s, _, x) = conv5(shape);
        let (dy, mut acc) = (filled(group_len(s.co, s.h, s.w, s.pad())), filled(s.weight_grad_len()));
        bencher
            .counter(ItemsCount::new(lanes() * s.flops()))
            .bench_local(|| conv_weight_grad(&s, &x, s.pad(), &dy, s.pad(), &mut acc));
    }

    #[divan::bench(args = ENCODER)]
    fn input_gradient(bencher: Bencher, shape: [usize; 3]) {
        let (s, weights, mut dx) = conv5(shape);
        let dy = filled(group_len(s.co, s.h, s.w, s.pad()));
        bencher
            .counter(ItemsCount::new(lanes() * s.flops()))
            .bench_local(|| conv_input_grad(&s, &weights, &dy, s.pad(), &mut dx, s.pad()));
    }

    #[divan::bench(args = ENCODER)]
    fn gradient_of_the_pool(bencher: Bencher, [size, _, co]: [usize; 3]) {
        let dy = filled(group_len(co, size / 2, size / 2, 0));
        let (ties, mut full) = (vec![0xffffu16; co * size * size], filled(group_len(co, size, size, 2)));
        bencher
            .counter(ItemsCount::new(full.len()))
            .bench_local(|| unpool(co, size, size, &dy, 0, &ties, &mut full, 2));
    }

    #[divan::bench]
    fn bytes_to_lanes(bencher: Bencher) {
        let bytes: Vec<u8> = (0..lanes() * 64 * 64 * 3).map(|i| (i * 7) as u8).collect();
        let mut x = filled(group_len(3, 64, 64, 2));
        bencher
            .counter(ItemsCount::new(bytes.len()))
            .bench_local(|| u8_to_lanes(&bytes, lanes(), 64, 64, 3, 255.0, 0.5, &mut x, 2));
    }

    /// One image, as acting sees it.
    #[divan::bench(args = ENCODER)]
    fn one_image(bencher: Bencher, shape: [usize; 3]) {
        let (s, weights, _) = conv5(shape);
        let (image, bias) = (Image::zeros(s.ci, s.h, s.w, s.pad()), filled(s.co));
        bencher.counter(ItemsCount::new(s.dense_flops())).bench_local(|| conv_image(&s, &weights, &bias, &image));
    }
}

/// The decoder's stages at size1m, at low resolution: size, input and output channels.
const DECODER: [[usize; 3]; 4] = [[4, 16, 16], [8, 16, 12], [16, 12, 8], [32, 8, 3]];

mod decoder {
    use super::*;

    fn upsample([size, ci, co]: [usize; 3]) -> (UpsampleShape, ConvWeights, Buffer) {
        let s = UpsampleShape { h: size, w: size, ci, co, k: 5, sparse: false };
        (s, s.weights(&filled(25 * ci * co)), filled(group_len(ci, size, size, 1)))
    }

    #[divan::bench(args = DECODER)]
    fn convolution(bencher: Bencher, shape: [usize; 3]) {
        let (s, weights, x) = upsample(shape);
        let mut out = filled(group_len(s.co, 2 * s.h, 2 * s.w, 0));
        bencher
            .counter(ItemsCount::new(lanes() * s.low().flops()))
            .bench_local(|| upsample_conv(&s, &weights, &x, 1, None, &mut out, 0));
    }

    #[divan::bench(args = DECODER)]
    fn weight_gradient(bencher: Bencher, shape: [usize; 3]) {
        let (s, _, x) = upsample(shape);
        let low = s.low();
        let (phases, mut acc) = (filled(group_len(4 * s.co, s.h, s.w, 1)), filled(low.weight_grad_len()));
        bencher
            .counter(ItemsCount::new(lanes() * low.flops()))
            .bench_local(|| conv_weight_grad(&low, &x, 1, &phases, 1, &mut acc));
    }

    #[divan::bench(args = DECODER)]
    fn input_gradient(bencher: Bencher, shape: [usize; 3]) {
        let (s, weights, mut dx) = upsample(shape);
        let (low, phases) = (s.low(), filled(group_len(4 * s.co, s.h, s.w, 1)));
        bencher
            .counter(ItemsCount::new(lanes() * low.flops()))
            .bench_local(|| conv_input_grad(&low, &weights, &phases, 1, &mut dx, 1));
    }

    #[divan::bench(args = DECODER)]
    fn gradient_to_phases(bencher: Bencher, shape: [usize; 3]) {
        let (s, _, _) = upsample(shape);
        let dy = filled(group_len(s.co, 2 * s.h, 2 * s.w, 0));
        let mut phases = filled(group_len(4 * s.co, s.h, s.w, 1));
        bencher.counter(ItemsCount::new(dy.len())).bench_local(|| split_phases(&s, &dy, 0, &mut phases, 1));
    }
}

mod elements {
    use super::*;

    fn rms(scale: &[f32]) -> NormAct<'_> {
        NormAct { norm: Norm::Rms, act: Act::Silu, epsilon: 1e-4, scale, shift: &[] }
    }

    #[divan::bench(args = [[8, 64], [64, 64], [64, 512], [64, 2048]])]
    fn norm_silu_rows(bencher: Bencher, [m, n]: [usize; 2]) {
        let (scale, x, mut y, mut stats) = (filled(n), filled(m * n), filled(m * n), filled(2 * m));
        bencher
            .counter(ItemsCount::new(m * n))
            .bench_local(|| norm_act_rows(&rms(&scale), m, n, &x, &mut y, &mut stats));
    }

    #[divan::bench(args = [[8, 64], [64, 64], [64, 512], [64, 2048]])]
    fn norm_silu_rows_gradient(bencher: Bencher, [m, n]: [usize; 2]) {
        let (scale, x, g, mut dx) = (filled(n), filled(m * n), filled(m * n), filled(m * n));
        let (stats, mut ds) = (filled(2 * m), filled(n));
        bencher
            .counter(ItemsCount::new(m * n))
            .bench_local(|| norm_act_rows_grad(&rms(&scale), m, n, &x, &stats, &g, &mut dx, &mut ds, &mut []));
    }

    #[divan::bench(args = [[32, 8], [8, 16]])]
    fn norm_silu_lanes(bencher: Bencher, [size, c]: [usize; 2]) {
        let (scale, n) = (filled(c), group_len(c, size, size, 0));
        let (x, mut y) = (filled(n), filled(n));
        bencher
            .counter(ItemsCount::new(n))
            .bench_local(|| norm_act_lanes(&rms(&scale), c, size, size, &x, 0, &mut y, 0));
    }

    #[divan::bench(args = [[32, 8], [8, 16]])]
    fn norm_silu_lanes_gradient(bencher: Bencher, [size, c]: [usize; 2]) {
        let (scale, n) = (filled(c), group_len(c, size, size, 0));
        let (x, g, mut dx, mut ds) = (filled(n), filled(n), filled(n), filled(c * lanes()));
        bencher.counter(ItemsCount::new(n)).bench_local(|| {
            norm_act_lanes_grad(&rms(&scale), c, size, size, &x, 0, &g, 0, &mut dx, 0, &mut ds, &mut []);
        });
    }

    #[divan::bench(args = [4, 16, 64, 255])]
    fn softmax_rows(bencher: Bencher, n: usize) {
        let mut x = filled(32 * n);
        bencher.counter(ItemsCount::new(x.len())).bench_local(|| softmax::softmax_rows(&mut x, n, &mut []));
    }

    #[divan::bench(args = [4, 16, 64])]
    fn latent_samples(bencher: Bencher, n: usize) {
        let (x, u) = (filled(2048 * n), filled(2048));
        let mut sum = 0;
        bencher
            .counter(ItemsCount::new(x.len()))
            .bench_local(|| sample::sample_classes(&x, n, 0.01, &u, |_, class| sum += class));
    }

    #[divan::bench]
    fn twohot_predictions(bencher: Bencher) {
        let (x, bins, mut y) = (filled(64 * 255), filled(255), filled(64));
        bencher.counter(ItemsCount::new(x.len())).bench_local(|| twohot::predict_rows(&x, &bins, &mut y));
    }

    #[divan::bench]
    fn twohot_losses(bencher: Bencher) {
        let (x, mut loss, mut grad) = (filled(64 * 255), filled(64), filled(64 * 255));
        let target = |_: usize, f: &mut dyn FnMut(twohot::TwoHot, f32)| f([(3, 0.25), (4, 0.75)], 1.0);
        bencher
            .counter(ItemsCount::new(x.len()))
            .bench_local(|| twohot::loss_rows(&x, 255, 1.0, target, &mut loss, &mut grad));
    }

    #[divan::bench]
    fn gru_gate(bencher: Bencher) {
        let (gates, h, mut out) = (filled(64 * 1536), filled(64 * 512), filled(64 * 512));
        bencher.counter(ItemsCount::new(h.len())).bench_local(|| gru::gru(&gates, &h, 64, &mut out, None));
    }

    #[divan::bench(args = ["exp", "log", "tanh", "sigmoid"])]
    fn function(bencher: Bencher, name: &str) {
        let mut x = filled(4096);
        let f = match name {
            "exp" => math::exp_slice,
            "log" => math::log_slice,
            "tanh" => math::tanh_slice,
            _ => math::sigmoid_slice,
        };
        bencher.counter(ItemsCount::new(4096usize)).bench_local(|| f(&mut x));
    }
}
