//! A small multilayer perceptron in one kernel, without gradient.

use super::super::scan::pack::Packer;
use super::super::scan::{Layer, panels, spans};
use super::{LAYERS, ROOM, rows_grid, shelf_bytes, sums_bytes, table};
use crate::cuda::{Arg, Gpu, Precision};
use crate::graph::recording;
use crate::profile;
use crate::tensor::{Device, Tensor};

/// Weights up to which one kernel is faster than a few for each layer: each 16 rows read all of them.
const SMALL: usize = 300_000;

/// Layers, each with an rms norm and silu, on the concatenation of `xs` [.., K]: [.., N]. `None` where that is not
/// faster in one kernel, or not possible: on the processor, for more than two inputs, where a gradient is needed, for
/// large layers.
pub fn mlp(xs: &[&Tensor], layers: &[Layer], eps: f32) -> Option<Tensor> {
    let (Device::Gpu(gpu), [x, rest @ ..]) = (xs.first()?.device(), xs) else { return None };
    let widths: Vec<usize> = xs.iter().map(|x| x.width()).collect();
    let parameters: Vec<&Tensor> = layers.iter().flat_map(Layer::parameters).collect();
    if xs.len() > 2 || recording(xs) || recording(&parameters) || !fits(gpu, &widths, layers) {
        return None;
    }
    let n = layers[0].weight.width();
    let [x, y] = [Some(*x), rest.first().copied()].map(|x| x.map(|x| gpu.act(x)));
    let mut packer = Packer::new(gpu);
    let packed: Vec<(Tensor, &Layer)> =
        layers.iter().map(|layer| (packer.dense(&layer.weight, layer.weight.dim(0)), layer)).collect();
    packer.run();
    let mut shape = xs[0].shape().to_vec();
    *shape.last_mut()? = n;
    let (out, rows) = (gpu.empty_act(&shape), xs[0].rows());
    let (of_x, of_y) = (widths[0], widths.get(1).copied().unwrap_or(0));
    let (table, count) = (table(&packed), layers.len());
    let flops = 2 * rows * layers.iter().map(|layer| layer.weight.len()).sum::<usize>();
    profile::count(flops, flops);
    let args: [&dyn Arg; 10] = [&table, &x, &y, &rows, &of_x, &of_y, &n, &count, &eps, &out];
    gpu.launch("step", "mlp", rows_grid(rows), &args);
    Some(out)
}

fn fits(gpu: &'static Gpu, widths: &[usize], layers: &[Layer]) -> bool {
    let Some(first) = layers.first().map(|layer| &layer.weight) else { return false };
    let (k, n) = (first.dim(0), first.width());
    let alike = layers[1..].iter().all(|layer| layer.weight.shape() == [n, n]);
    let eights = widths.iter().all(|n| n.is_multiple_of(8)) && n.is_multiple_of(8);
    let bytes = gpu.activations().bytes();
    let sums = sums_bytes([panels(n), spans(k)]).max(sums_bytes([panels(n), spans(n)]));
    let room = shelf_bytes(k, bytes) + 2 * shelf_bytes(n, bytes) + sums;
    let weights: usize = layers.iter().map(|layer| layer.weight.len()).sum();
    let whole = gpu.precision() == Precision::Float32 || eights;
    alike && whole && layers.len() <= LAYERS && room <= ROOM && weights <= SMALL
}
