//! Measures the CPU kernels on one thread beside the machine's multiply-add peak: `cargo run --release --example kernels`.

use engine::cpu::gemm::{Packed, gemm_packed};
use engine::cpu::gemm_tn::{Segment, gemm_tn};
use engine::cpu::{Isa, peak};
use std::time::Instant;

/// Shortest time of one call, in seconds, over about a tenth of a second.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.15 {
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
        let seconds = time(f);
        let rate = flop / seconds / 1e9;
        println!("{name:44} {:9.1} us {rate:8.1} GFLOP/s {:5.1} %", seconds * 1e6, 100.0 * rate / self.peak);
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

fn main() {
    let mut flop = 0.0;
    let seconds = time(|| flop = peak::multiply_adds(1_000_000));
    let report = Report { peak: flop / seconds / 1e9 };
    println!("{}: peak {:.1} GFLOP/s on one thread", Isa::get().name(), report.peak);
    products(&report);
}
