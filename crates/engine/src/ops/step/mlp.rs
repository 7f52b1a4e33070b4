//! A small multilayer perceptron in one kernel, or all of it but the first layer, without gradient.

use super::super::scan::pack::Packer;
use super::super::scan::{Layer, panels, spans};
use super::{LAYERS, ROOM, linear_parts, rows_grid, shelf_bytes, sums_bytes, table};
use crate::cuda::{Arg, Gpu, Precision};
use crate::graph::recording;
use crate::profile;
use crate::tensor::{Device, Tensor};

/// Weights up to which one kernel is faster than a few for each layer: each 16 rows read all of them.
const SMALL: usize = 300_000;
/// Rows up to which that holds for the layers after one that does not fit: no more blocks of threads than a large GPU runs at
/// once.
const FEW_ROWS: usize = 2048;

/// Layers, each with an rms norm and silu, on the concatenation of `xs` [.., K]: [.., N]. Where the first one does not fit
/// (it is too large, or in bfloat16 its inputs are no multiples of eight), it is a product of its own before the kernel.
/// `None` where that is not faster, or not possible: on the processor, for more than two inputs, where a gradient is
/// needed, for large layers.
pub fn mlp(xs: &[&Tensor], layers: &[Layer], eps: f32) -> Option<Tensor> {
    let (Device::Gpu(gpu), (first, rest)) = (xs.first()?.device(), layers.split_first()?) else { return None };
    let widths: Vec<usize> = xs.iter().map(|x| x.width()).collect();
    let parameters: Vec<&Tensor> = layers.iter().flat_map(Layer::parameters).collect();
    if xs.len() > 2 || recording(xs) || recording(&parameters) || layers.len() > LAYERS {
        return None;
    }
    let (rows, n) = (xs[0].rows(), first.weight.width());
    let alike = rest.iter().all(|layer| layer.weight.shape() == [n, n]);
    let begun = !fits(gpu, &widths, layers);
    if !alike || begun && (rows > FEW_ROWS || !fits(gpu, &[n], rest)) {
        return None;
    }
    let mut packer = Packer::new(gpu);
    let packed = layers.iter().enumerate().map(|(i, layer)| match begun && i == 0 {
        true => (first.bias.clone(), first), // a place holder: of this layer the kernel reads the scale alone
        false => (packer.dense(&layer.weight, layer.weight.dim(0)), layer),
    });
    let packed: Vec<(Tensor, &Layer)> = packed.collect();
    packer.run();
    let [x, y] = match begun {
        true => [Some(gpu.act(&linear_parts(xs, &first.weight, &first.bias))), None],
        false => [xs.first(), xs.get(1)].map(|x| x.map(|x| gpu.act(x))),
    };
    let mut shape = xs[0].shape().to_vec();
    *shape.last_mut()? = n;
    let out = gpu.empty_act(&shape);
    let width = |x: &Option<Tensor>| x.as_ref().map_or(0, Tensor::width);
    let (table, count, begun) = (table(&packed), layers.len(), begun as usize);
    let flops = 2 * rows * layers[begun..].iter().map(|layer| layer.weight.len()).sum::<usize>();
    profile::count(flops, flops);
    let args: [&dyn Arg; 11] = [&table, &x, &y, &rows, &width(&x), &width(&y), &n, &count, &begun, &eps, &out];
    gpu.launch("step", "mlp", rows_grid(rows), &args);
    Some(out)
}

fn fits(gpu: &'static Gpu, widths: &[usize], layers: &[Layer]) -> bool {
    let Some(first) = layers.first().map(|layer| &layer.weight) else { return false };
    let (k, n) = (first.dim(0), first.width());
    let eights = widths.iter().all(|n| n.is_multiple_of(8)) && n.is_multiple_of(8);
    let bytes = gpu.activations().bytes();
    let sums = sums_bytes([panels(n), spans(k)]).max(sums_bytes([panels(n), spans(n)]));
    let room = shelf_bytes(k, bytes) + 2 * shelf_bytes(n, bytes) + sums;
    let weights: usize = layers.iter().map(|layer| layer.weight.len()).sum();
    let whole = gpu.precision() == Precision::Float32 || eights;
    whole && room <= ROOM && weights <= SMALL
}
