//! Measures the CPU kernels on one thread beside the machine's multiply-add peak:
//! `cargo run --release -p engine --example kernels [-- words of the lines wanted]`.

use engine::cpu::conv::{
    ConvShape, ConvWeights, UpsampleShape, conv_input_grad, conv_pool, conv_weight_grad, group_len, split_phases,
    u8_to_lanes, unpool, upsample_conv,
};
use engine::cpu::gemm::{Packed, gemm_packed};
use engine::cpu::gemm_tn::{Segment, gemm_tn};
use engine::cpu::norm::{Act, Norm, NormAct, norm_act_lanes, norm_act_lanes_grad, norm_act_rows, norm_act_rows_grad};
use engine::cpu::{Isa, lanes, peak};
use std::time::Instant;

/// Shortest time of one call, in seconds, over about a tenth of a second.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

struct Report {
    peak: f64,
}

impl Report {
    fn line(&self, name: &str, flop: f64, f: impl FnMut()) {
        if !std::env::args().skip(1).all(|word| name.contains(&word)) {
            return;
        }
        let seconds = time(f);
        let rate = flop / seconds / 1e9;
        println!("{name:44} {:9.1} us {rate:8.1} GFLOP/s {:5.1} %", seconds * 1e6, 100.0 * rate / self.peak);
    }
}

/// Normalisation and activation of one group of images and of rows: time alone, being no multiply-adds.
fn norms() {
    let us = |f: &mut dyn FnMut()| time(f) * 1e6;
    for (size, c) in [(32, 8), (16, 12), (8, 16)] {
        let (scale, n) = (vec![1.0; c], group_len(c, size, size, 0));
        let op = NormAct { norm: Norm::Rms, act: Act::Silu, epsilon: 1e-4, scale: &scale, shift: &[] };
        let (x, mut y, mut ds) = (filled(n), filled(n), filled(c * lanes()));
        let forward = us(&mut || norm_act_lanes(&op, c, size, size, &x, 0, &mut y, 0));
        let g = filled(n);
        let grad = us(&mut || norm_act_lanes_grad(&op, c, size, size, &x, 0, &g, 0, &mut y, 0, &mut ds, &mut []));
        println!("rms + silu {size}x{size}x{c} in lanes: {forward:.1} us, gradient {grad:.1} us");
    }
    for (m, n) in [(8, 64), (8, 512), (1024, 64), (1024, 512)] {
        let scale = vec![1.0; n];
        let op = NormAct { norm: Norm::Rms, act: Act::Silu, epsilon: 1e-4, scale: &scale, shift: &[] };
        let (x, g, mut y, mut ds, mut stats) = (filled(m * n), filled(m * n), filled(m * n), filled(n), filled(2 * m));
        let forward = us(&mut || norm_act_rows(&op, m, n, &x, &mut y, &mut stats));
        let grad = us(&mut || norm_act_rows_grad(&op, m, n, &x, &stats, &g, &mut y, &mut ds, &mut []));
        println!("rms + silu rows {m} x {n}: {forward:.1} us, gradient {grad:.1} us");
    }
}

fn filled(n: usize) -> engine::Buffer {
    let mut buffer = engine::Buffer::zeros(n);
    buffer
        .iter_mut()
        .enumerate()
        .for_each(|(i, v)| *v = (i.wrapping_mul(2654435761) >> 16 & 0xffff) as f32 / 32768.0 - 1.0);
    buffer
}

fn products(report: &Report) {
    for (k, n) in [(512, 64), (640, 64), (64, 255), (2048, 256)] {
        for m in [1, 8, 16, 128, 1024] {
            let flop = (2 * m * k * n) as f64;
            let (a, w, mut c, dy) = (filled(m * k), filled(k * n), filled(m * n), filled(m * n));
            let packed = Packed::new(&w, k, n, n);
            let back = Packed::transposed(&w, n, k, n);
            let (mut dx, mut dw) = (filled(m * k), filled(k * n));
            let repeat = (200_000_000 / (2 * m * k * n)).clamp(1, 64);
            let flop = flop * repeat as f64;
            let name = format!("{m} x {k} x {n}");
            report.line(&format!("gemm {name} (x{repeat})"), flop, || {
                (0..repeat).for_each(|_| gemm_packed(m, k, &a, k, &packed, 0, None, &mut c, n, false));
            });
            report.line(&format!("  dx {name} (x{repeat})"), flop, || {
                (0..repeat).for_each(|_| gemm_packed(m, n, &dy, n, &back, 0, None, &mut dx, k, false));
            });
            report.line(&format!("  dw {name} (x{repeat})"), flop, || {
                let all = [Segment { x: &a, ldx: k, dy: &dy, ldy: n, rows: m }];
                (0..repeat).for_each(|_| gemm_tn(0..k, n, &all, &mut dw, n));
            });
        }
        let w = filled(k * n);
        let us = |f: &mut dyn FnMut()| time(f) * 1e6;
        let pack = us(&mut || drop(Packed::new(&w, k, n, n)));
        let transpose = us(&mut || drop(Packed::transposed(&w, n, k, n)));
        println!("pack {k} x {n}: {pack:.1} us, transposed {transpose:.1} us");
    }
}

/// Operations executed for one group by a convolution of `k` by `k`: the rows outside the image are skipped.
fn operations(size: usize, ci: usize, co: usize, k: usize) -> f64 {
    let skipped: usize = (1..=k / 2).map(|i| 2 * i.min(size)).sum();
    (2 * lanes() * (k * size - skipped) * size * k * ci * co) as f64
}

/// The encoder's convolutions of size1m, one group of images: forward with pool, then both gradients.
fn encoder(report: &Report) {
    for (size, ci, co) in [(64, 3, 8), (32, 8, 12), (16, 12, 16), (8, 16, 16)] {
        let s = ConvShape { h: size, w: size, ci, co, k: 5, stride: 1 };
        let flop = operations(size, ci, co, 5);
        let (half, pad) = (size / 2, s.pad());
        let weights = ConvWeights::new(&filled(25 * ci * co), 5, ci, co);
        let mut x = filled(group_len(ci, size, size, pad));
        let mut out = filled(group_len(co, half, half, 0));
        let mut ties = vec![0u16; co * size * size];
        let name = format!("conv5 {size}x{size} {ci} -> {co}");
        report.line(&format!("{name} + pool"), flop, || {
            conv_pool(&s, &weights, &x, pad, None, &mut out, 0, &mut ties);
        });
        let mut dy = filled(group_len(co, size, size, pad));
        let mut acc = filled(s.weight_grad_len());
        report.line("  unpool (its convolution's operations)", flop, || {
            unpool(co, size, size, &out, 0, &ties, &mut dy, pad);
        });
        report.line("  weight gradient", flop, || conv_weight_grad(&s, &x, pad, &dy, pad, &mut acc));
        report.line("  input gradient", flop, || conv_input_grad(&s, &weights, &dy, pad, &mut x, pad));
    }
    let bytes: Vec<u8> = (0..lanes() * 64 * 64 * 3).map(|i| (i * 7) as u8).collect();
    let mut x = filled(group_len(3, 64, 64, 2));
    let seconds = time(|| u8_to_lanes(&bytes, lanes(), 64, 64, 3, 255.0, 0.5, &mut x, 2));
    println!("bytes to lanes 64x64x3: {:.1} us", seconds * 1e6);
}

/// The decoder's convolutions of size1m at low resolution, one group of images.
fn decoder(report: &Report) {
    for (size, ci, co) in [(4, 16, 16), (8, 16, 12), (16, 12, 8), (32, 8, 3)] {
        let shape = UpsampleShape { h: size, w: size, ci, co, k: 5, sparse: false };
        let low = shape.low();
        let flop = operations(size, ci, 4 * co, 3);
        let weights = shape.weights(&filled(25 * ci * co));
        let mut x = filled(group_len(ci, size, size, 1));
        let mut out = filled(group_len(co, 2 * size, 2 * size, 0));
        let mut phases = filled(group_len(4 * co, size, size, 1));
        let name = format!("upsample conv5 {size}x{size} {ci} -> {co}");
        report.line(&name, flop, || upsample_conv(&shape, &weights, &x, 1, None, &mut out, 0));
        report.line("  split phases (its convolution's operations)", flop, || {
            split_phases(&shape, &out, 0, &mut phases, 1);
        });
        let mut acc = filled(low.weight_grad_len());
        report.line("  weight gradient", flop, || conv_weight_grad(&low, &x, 1, &phases, 1, &mut acc));
        report.line("  input gradient", flop, || conv_input_grad(&low, &weights, &phases, 1, &mut x, 1));
    }
}

fn main() {
    let mut flop = 0.0;
    let seconds = (0..5).map(|_| time(|| flop = peak::multiply_adds(100_000))).fold(f64::INFINITY, f64::min);
    let report = Report { peak: flop / seconds / 1e9 };
    println!("{}: peak {:.1} GFLOP/s on one thread", Isa::get().name(), report.peak);
    encoder(&report);
    decoder(&report);
    norms();
    products(&report);
}
