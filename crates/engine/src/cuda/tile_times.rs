//! How fast products and convolutions are on a real GPU, tile by tile, beside what the model of `tiles.rs` expects:
//! `cargo test --release -p engine --lib time_of -- --ignored --nocapture`.

use super::tiles::{PRODUCTS, Plan, WEIGHT_GRADS, cycles, plan};
use super::{Gemm, Gpu, Matrix, Precision, Product, WeightGrad, test_gpu_in, weight_rows};
use crate::check::random;
use crate::tensor::{Device, Tensor};
use std::time::Instant;

/// A real GPU in bfloat16.
pub(crate) fn real_gpu() -> Option<&'static Gpu> {
    let gpu = test_gpu_in(Precision::Bfloat16).filter(|gpu| gpu.properties().arch > 0);
    if gpu.is_none() {
        eprintln!("SKIPPED: nothing was timed, as there is no real GPU");
    }
    gpu
}

/// Numbers that are not all alike, as activations on the GPU: some random ones again and again.
pub(crate) fn some(gpu: &'static Gpu, shape: &[usize]) -> Tensor {
    let (y, len) = (gpu.empty_act(shape), shape.iter().product::<usize>());
    let few = gpu.act(&random(&[len.min(1 << 20)], 1, 1.0).to(Device::Gpu(gpu)));
    for start in (0..len).step_by(1 << 20) {
        gpu.copy(&few.view(0, &[few.len().min(len - start)]), &y, start);
    }
    y
}

/// Microseconds of one run among many.
pub(crate) fn microseconds(gpu: &'static Gpu, run: impl Fn()) -> f64 {
    let done = gpu.zeros(&[1]);
    let time = |runs: usize| {
        done.item(); // everything before is over
        let start = Instant::now();
        (0..runs).for_each(|_| run());
        done.item();
        start.elapsed().as_secs_f64() * 1e6 / runs as f64
    };
    time(3);
    let runs = ((20_000.0 / time(3)) as usize).clamp(5, 200);
    (0..3).map(|_| time(runs)).fold(f64::INFINITY, f64::min)
}

/// Prints what was measured and what was expected; the tile that is chosen by itself is marked.
pub(crate) fn print(what: &str, name: &str, chosen: bool, flop: f64, micros: f64, expected: f64) {
    let (mark, rate) = (if chosen { '*' } else { ' ' }, flop / micros / 1e6);
    println!("{what:28} {mark} {name:26} {micros:9.1} us {rate:7.1} TFLOP/s, expected {expected:9.1} us");
}

/// Microseconds that the model expects at 1.755 GHz.
pub(crate) fn expected(plan: &Plan, size: [usize; 2], blocks: usize, depth: usize) -> f64 {
    cycles(&plan.tile, size, blocks, depth.div_ceil(plan.tile.depth), plan.parts) / 1755.0
}

/// Rows, columns, depth and blocks of products that updates are made of.
const SHAPES: [(&str, [usize; 4]); 9] = [
    ("head on all states, 200m", [16384, 1024, 1024, 1]),
    ("head of 255 bins, 200m", [16384, 255, 1024, 1]),
    ("first layer of a head, 200m", [1024, 1024, 10240, 1]),
    ("gates, 200m", [1024, 3072, 1024, 8]),
    ("a layer, 200m", [1024, 1024, 1024, 1]),
    ("gates, 12m", [1024, 768, 256, 8]),
    ("a layer, 12m", [1024, 256, 256, 1]),
    ("a layer, 1m", [1024, 64, 64, 1]),
    ("a step of 16 rows, 200m", [16, 1024, 8192, 1]),
];

#[test]
#[ignore = "times kernels on a real GPU"]
fn time_of_products() {
    let Some(gpu) = real_gpu() else { return };
    for (what, [m, n, k, blocks]) in SHAPES {
        let (x, w) = (some(gpu, &[m, blocks * k]), random(&[blocks, k, n], 2, 0.1).to(Device::Gpu(gpu)));
        let ((rows, stride), y) = (weight_rows(gpu, &w), gpu.empty_act(&[m, blocks * n]));
        let (flop, chosen) = (2.0 * (m * n * k * blocks) as f64, plan(&gpu.able(&PRODUCTS), [m, n], blocks, &[k]));
        for tile in gpu.able(&PRODUCTS) {
            let parts = if tile.forward == chosen.tile.forward { chosen.parts } else { 1 };
            let each = Plan { tile, parts };
            let micros = microseconds(gpu, || {
                let (a, b) = (Matrix::new(&x, 0, blocks * k, k), Matrix::new(&rows, 0, stride, k * stride));
                let (c, terms) = (Matrix::new(&y, 0, blocks * n, n), vec![Product { a, b, k }]);
                Gemm { terms, laps: [1, 0, 0], c, bias: None, add: None, size: [m, n], blocks }.run_as(gpu, each)
            });
            let (name, is_chosen) = (format!("{} in {parts}", tile.forward), tile == chosen.tile);
            print(what, &name, is_chosen, flop, micros, expected(&each, [m, n], blocks, k));
        }
    }
}

#[test]
#[ignore = "times kernels on a real GPU"]
fn time_of_weight_gradients() {
    let Some(gpu) = real_gpu() else { return };
    for (what, [m, n, k, blocks]) in SHAPES {
        if !n.is_multiple_of(8) {
            continue;
        }
        let uses = [(some(gpu, &[m, blocks * k]), some(gpu, &[m, blocks * n]))];
        let (grad, flop) = (gpu.zeros(&[blocks, k, n]), 2.0 * (m * n * k * blocks) as f64);
        let tiles = gpu.able(&WEIGHT_GRADS);
        let chosen = plan(&tiles, [k, n], blocks, &[m]);
        for tile in tiles {
            let parts = if tile.forward == chosen.tile.forward { chosen.parts } else { 1 };
            let (each, part) =
                (Plan { tile, parts }, WeightGrad { blocks, k, n, start: 0, block: k * n, shared: false });
            let micros = microseconds(gpu, || part.run_as(gpu, &uses, &grad, false, each));
            let (name, is_chosen) = (format!("{} in {parts}", tile.weight_grad), tile == chosen.tile);
            print(what, &name, is_chosen, flop, micros, expected(&each, [k, n], blocks, m));
        }
    }
}
