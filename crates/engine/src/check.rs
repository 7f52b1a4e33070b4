//! For tests: compares an operation and its gradient with a float64 reference and its finite differences.

use crate::cpu::simd::on_every_isa;
use crate::cuda::{Precision, test_gpu, test_gpu_in};
use crate::graph::{Leaf, backward};
use crate::rng::Rng;
use crate::sink::Sink;
use crate::tensor::{Device, Tensor};

/// How exact values and gradients are on a GPU, relative to their L2 norm.
const PRECISIONS: [(Precision, [f64; 2]); 2] =
    [(Precision::Float32, [1e-5, 1e-4]), (Precision::Bfloat16, [1e-2, 1e-2])];

/// Random inputs of `shapes`, the operation, and the same in float64. Compares the outputs to 1e-5 and, for a
/// random weighting of the outputs, the gradients of all inputs to 1e-4 (relative L2 norm).
pub fn check(shapes: &[&[usize]], op: impl Fn(&[Tensor]) -> Tensor, reference: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
    check_scaled(shapes, 1.0, op, reference);
}

/// `check` with inputs of another standard deviation. On every instruction set that this machine has, and on a GPU
/// (real or emulated) in float32 and, to 1e-2, in bfloat16.
pub fn check_scaled(
    shapes: &[&[usize]],
    scale: f32,
    op: impl Fn(&[Tensor]) -> Tensor,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    check_all(PRECISIONS, shapes, scale, op, reference);
}

/// `check` with another limit for gradients in bfloat16, where there is a reason.
pub fn check_rounded(
    limit: f64,
    shapes: &[&[usize]],
    op: impl Fn(&[Tensor]) -> Tensor,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let [float32, (bfloat16, [value, _])] = PRECISIONS;
    check_all([float32, (bfloat16, [value, limit])], shapes, 1.0, op, reference);
}

fn check_all(
    precisions: [(Precision, [f64; 2]); 2],
    shapes: &[&[usize]],
    scale: f32,
    op: impl Fn(&[Tensor]) -> Tensor,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    on_every_isa(|| check_here(Device::Cpu, [1e-5, 1e-4], shapes, scale, &op, &reference));
    for (precision, limits) in precisions {
        if let Some(gpu) = test_gpu_in(precision) {
            check_here(Device::Gpu(gpu), limits, shapes, scale, &op, &reference);
        }
    }
}

/// The processor, and the GPU that tests run on where there is one.
pub fn devices() -> Vec<Device> {
    [Device::Cpu].into_iter().chain(test_gpu().map(Device::Gpu)).collect()
}

/// For sizes at which finite differences take too long: compares outputs and gradients on a GPU with the processor's, in
/// float32 and in bfloat16, with the limits of [`check`].
pub fn check_devices(shapes: &[&[usize]], op: impl Fn(&[Tensor]) -> Tensor) {
    let on = |device: Device| -> Vec<Vec<f64>> {
        let leaf = |(i, s): (usize, &&[usize])| (random(s, i as u32, 1.0).to(device), (Leaf::new(), s.to_vec()));
        let (values, leaves): (Vec<Tensor>, Vec<_>) = shapes.iter().enumerate().map(leaf).unzip();
        let inputs: Vec<Tensor> = values.into_iter().zip(&leaves).map(|(x, (leaf, _))| x.leaf(*leaf)).collect();
        let output = op(&inputs);
        let mut sink = Sink::new();
        backward(&[(&output, random(output.shape(), 99, 1.0).to(device))], &mut sink);
        [output].iter().chain(&sink.finish(&leaves)).map(doubles).collect()
    };
    let expected = on(Device::Cpu);
    for (precision, limits) in PRECISIONS {
        let Some(gpu) = test_gpu_in(precision) else { continue };
        for (i, (got, expected)) in on(Device::Gpu(gpu)).iter().zip(&expected).enumerate() {
            let what = format!("{} of {shapes:?} in {precision:?}", if i == 0 { "output" } else { "gradient" });
            assert_close(&what, got, expected, limits[i.min(1)]);
        }
    }
}

/// The same, with the GPU in both precisions.
pub fn devices_in_all_precisions() -> Vec<Device> {
    devices().into_iter().chain(test_gpu_in(Precision::Bfloat16).map(Device::Gpu)).collect()
}

fn check_here(
    device: Device,
    [value_limit, gradient_limit]: [f64; 2],
    shapes: &[&[usize]],
    scale: f32,
    op: &impl Fn(&[Tensor]) -> Tensor,
    reference: &impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let values: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| random(s, i as u32, scale)).collect();
    let leaves: Vec<(Leaf, Vec<usize>)> = shapes.iter().map(|s| (Leaf::new(), s.to_vec())).collect();
    let inputs: Vec<Tensor> = values.iter().zip(&leaves).map(|(x, (leaf, _))| x.to(device).leaf(*leaf)).collect();
    let exact: Vec<Vec<f64>> = values.iter().map(|x| x.data().iter().map(|&v| v as f64).collect()).collect();

    let output = op(&inputs);
    let expected = reference(&exact);
    assert_eq!(output.device(), device);
    assert_close(&format!("output on {device:?}"), &doubles(&output), &expected, value_limit);

    let weights = random(output.shape(), 99, 1.0);
    let mut sink = Sink::new();
    backward(&[(&output, weights.to(device))], &mut sink);
    let grads = sink.finish(&leaves);
    let total = |x: &[Vec<f64>]| -> f64 { reference(x).iter().zip(weights.data()).map(|(y, &w)| y * w as f64).sum() };
    for (i, grad) in grads.iter().enumerate() {
        let differences: Vec<f64> = (0..exact[i].len()).map(|j| central_difference(&exact, i, j, &total)).collect();
        assert_close(&format!("gradient of input {i} on {device:?}"), &doubles(grad), &differences, gradient_limit);
    }
}

pub fn doubles(x: &Tensor) -> Vec<f64> {
    x.to(Device::Cpu).data().iter().map(|&v| v as f64).collect()
}

fn central_difference(x: &[Vec<f64>], i: usize, j: usize, f: &impl Fn(&[Vec<f64>]) -> f64) -> f64 {
    let h = 1e-5;
    let at = |delta: f64| {
        let mut moved = x.to_vec();
        moved[i][j] += delta;
        f(&moved)
    };
    (at(h) - at(-h)) / (2.0 * h)
}

/// Standard normal numbers times `scale`.
pub fn random(shape: &[usize], stream: u32, scale: f32) -> Tensor {
    let mut x = vec![0.0; shape.iter().product()];
    Rng::new(42, stream, 0).normal(0, &mut x);
    x.iter_mut().for_each(|v| *v *= scale);
    Tensor::from_slice(shape, &x)
}

/// The same, rounded to bfloat16.
pub fn random_bf16(shape: &[usize], stream: u32, scale: f32) -> Tensor {
    let rounded = |x: &f32| f32::from_bits((x.to_bits() + 0x8000) & 0xffff0000);
    let x: Vec<f32> = random(shape, stream, scale).data().iter().map(rounded).collect();
    Tensor::from_slice(shape, &x)
}

pub fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied());
    assert!(error <= tolerance * size + 1e-7, "{what}: off by {error:.3e} of {size:.3e}");
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Softmax over groups of `classes`.
pub fn softmax(x: &[f64], classes: usize) -> Vec<f64> {
    x.chunks(classes)
        .flat_map(|row| {
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
            row.iter().map(move |v| (v - max).exp() / sum).collect::<Vec<_>>()
        })
        .collect()
}
