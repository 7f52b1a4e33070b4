//! Every tile of convolutions against the processor, and its time on a real GPU.

use super::super::images_gpu::resize_pixels;
use super::super::planes::{planes, rows_of_planes};
use super::super::{Resample, conv_stage};
use super::*;
use crate::check::{assert_close, doubles, random, random_bf16};
use crate::cuda::{test_gpu_in, tile_times};
use crate::graph::{Leaf, backward};
use crate::tensor::Device;

/// Images of `h` times `w`, channels of input and output, width of the kernel.
struct Case {
    size: [usize; 2],
    channels: [usize; 2],
    k: usize,
}

/// Every tile against the processor, which is exact but for the rounding of weights and outputs.
#[test]
fn every_tile_convolves() {
    let Some(gpu) = test_gpu_in(Precision::Bfloat16) else { return };
    let all = [
        (&CONV_8[..], [8, 24], 5),
        (&CONV_4[..], [4, 12], 5),
        (&CONV_4[..], [3, 24], 5),
        (&CONV_4[..], [3, 3], 3),
        (&CONV_1[..], [5, 3], 3),
    ];
    for (tiles, channels, k) in all {
        for resample in [Resample::None, Resample::Pool, Resample::Stride, Resample::Upsample, Resample::Spread] {
            gpu.able(tiles)
                .into_iter()
                .for_each(|tile| convolve_as(gpu, tile, resample, Case { size: [8, 12], channels, k }));
        }
    }
    // More columns, and more steps of the depth, than stages of a tile by warpgroups.
    for tile in gpu.able(&CONV_8).into_iter().filter(|tile| tile.by_warpgroups) {
        convolve_as(gpu, tile, Resample::Pool, Case { size: [4, 6], channels: [72, 136], k: 3 });
    }
}

fn convolve_as(gpu: &'static Gpu, tile: Tile, resample: Resample, case: Case) {
    let Case { size: [h, w], channels: [ci, co], k } = case;
    let (n, what) = (3, |what: &str| format!("{what} of {resample:?}, {ci} to {co} channels, {}", tile.forward));
    let x = random_bf16(&[n, h * w * ci], 1, 1.0);
    let (weight, bias) = (random_bf16(&[k, k, ci, co], 2, 0.2), random(&[co], 3, 1.0));
    let leaves = [(&x, Leaf::new()), (&weight, Leaf::new())];
    let [x_leaf, w_leaf] = leaves.map(|(x, leaf)| x.leaf(leaf));
    let y = rows_of_planes(&conv_stage(&planes(&x_leaf, h, w, ci, k / 2), &w_leaf, &bias, resample, None));
    let dy = random_bf16(y.shape(), 4, 1.0);
    let mut sink = Sink::new();
    backward(&[(&y, dy.clone())], &mut sink);
    let grads = sink.finish(&leaves.map(|(x, leaf)| (leaf, x.shape().to_vec())));

    // Channels are stored in fours, where the tile takes fours and there are threes.
    let stored = |c: usize| if tile.forward == CONV_1[0].forward { c } else { c.next_multiple_of(4) };
    let (cs, os, there) = (stored(ci), stored(co), |x: &Tensor| x.to(Device::Gpu(gpu)));
    let pixels = |x: &Tensor, c: usize, to: usize| {
        let count = x.len() / c;
        gpu.act(&resize_pixels(gpu, &there(x), [c, to], &[count, to]))
    };
    let input = Planes { x: pixels(&x, ci, cs).view(0, &[n, h, w, cs]), n, pad: 0, size: [ci, h, w] };
    let g = Geometry::new(&input, &weight, resample, os);
    let staged = Staged::new(g);
    let (weight, bias) = (there(&weight), there(&bias));
    let (found, ties) = staged.forward_as(gpu, &input.x, &weight, &bias, tile);
    let limit = 4e-3; // sums of taps are rounded, and outputs
    let cut = |x: &Tensor, from: usize, c: usize| doubles(&resize_pixels(gpu, x, [from, c], &[x.len() / from, c]));
    assert_close(&what("output"), &cut(&found, os, co), &doubles(&y), limit);

    let dy = pixels(&dy, co, os);
    if let (Some(ties), true) = (&ties, staged.takes_pooled()) {
        for tile in CONV_POOLED {
            let grad = staged.weight_grad_as(gpu, &input.x, &dy, Some(ties), Plan { tile, parts: 2 });
            assert_close(&what(tile.weight_grad), &doubles(&grad), &doubles(&grads[1]), limit);
        }
    }
    let dy = match &ties {
        Some(ties) => Kept { g, flows: true, x: input.x.clone(), w: weight.clone(), ties: None }.unpool(gpu, &dy, ties),
        None => dy,
    };
    if g.stride == 1 {
        let dx = staged.input_grad_as(gpu, &dy, &weight, tile);
        assert_close(&what("input gradient"), &cut(&dx, cs, ci), &doubles(&grads[0]), limit);
    }
    for parts in [1, 2] {
        let grad = staged.weight_grad_as(gpu, &input.x, &dy, None, Plan { tile, parts });
        assert_close(&what("weight gradient"), &doubles(&grad), &doubles(&grads[1]), limit);
    }
}

/// Every tile on a real GPU, for the stages of an image agent.
#[test]
#[ignore = "times kernels on a real GPU"]
fn time_of_convolutions() {
    let Some(gpu) = tile_times::real_gpu() else { return };
    let (n, k) = (1024, 5);
    for depth in [4, 16, 64] {
        // Height, channels of input and output in the encoder, then in the decoder.
        let stages = [
            (64, 4, 2 * depth, Resample::Pool),
            (32, 2 * depth, 3 * depth, Resample::Pool),
            (16, 3 * depth, 4 * depth, Resample::Pool),
            (4, 4 * depth, 4 * depth, Resample::Upsample),
            (16, 3 * depth, 2 * depth, Resample::Upsample),
            (32, 2 * depth, 4, Resample::Upsample),
        ];
        for (h, ci, co, resample) in stages {
            let x = Planes { x: tile_times::some(gpu, &[n, h, h, ci]), n, pad: 0, size: [ci, h, h] };
            let weight = random(&[k, k, ci, co], 2, 0.1).to(Device::Gpu(gpu));
            let bias = random(&[co], 3, 1.0).to(Device::Gpu(gpu));
            let g = Geometry::new(&x, &weight, resample, co);
            let (staged, dy) = (Staged::new(g), tile_times::some(gpu, &[n, g.oh, g.ow, co]));
            time_stage(gpu, &staged, &x.x, &dy, &weight, &bias, &format!("{resample:?} {h}: {ci} to {co}"));
        }
    }
}

fn time_stage(gpu: &'static Gpu, s: &Staged, x: &Tensor, dy: &Tensor, w: &Tensor, bias: &Tensor, what: &str) {
    let (g, taps) = (&s.g, s.k * s.k);
    let (pixels, flop) = (g.n * s.h * s.w, 2.0 * (g.n * s.h * s.w * taps * g.cs * s.columns) as f64);
    let show = |tile: Tile, name: &str, parts: usize, size: [usize; 2], depth: usize, chosen: Tile, run: &dyn Fn()| {
        let micros = tile_times::microseconds(gpu, run);
        let (model, chosen) = (tile_times::expected(&Plan { tile, parts }, size, 1, depth), tile == chosen);
        tile_times::print(what, name, chosen, flop, micros, model);
    };
    let (size, depth) = (s.size(), taps * g.cs);
    let able = &gpu.able(tiles(g.cs));
    for &tile in able {
        let run = || drop(s.forward_as(gpu, x, w, bias, tile));
        show(tile, tile.forward, 1, size, depth, plan_whole(able, size, depth), &run);
    }
    let (size, depth) = ([pixels, g.cs], taps * s.columns);
    let able = &gpu.able(tiles(g.os));
    for &tile in able {
        let run = || drop(s.input_grad_as(gpu, dy, w, tile));
        show(tile, tile.input_grad, 1, size, depth, plan_whole(able, size, depth), &run);
    }
    let size = [taps * g.cs, s.columns];
    if s.takes_pooled() && grain(g.cs) == 4 {
        let (dy, ties) = (dy.view(0, &[dy.len() / 4]), gpu.zeros(&[dy.len() / 16]));
        for tile in CONV_POOLED {
            let plan = plan(&[tile], size, 1, &[pixels]);
            let run = || drop(s.weight_grad_as(gpu, x, &dy, Some(&ties), plan));
            show(tile, tile.weight_grad, plan.parts, size, pixels, tile, &run);
        }
    }
    let able = &gpu.able(if grain(g.cs) < grain(g.os) { tiles(g.cs) } else { tiles(g.os) });
    let chosen = plan(able, size, 1, &[pixels]);
    for &tile in able {
        let plan = plan(&[tile], size, 1, &[pixels]);
        let run = || drop(s.weight_grad_as(gpu, x, dy, None, plan));
        show(tile, tile.weight_grad, plan.parts, size, pixels, chosen.tile, &run);
    }
}
