//! Runs a computation on chunks of rows, each chunk from its first operation to its last on one thread.
//!
//! Activations of a chunk stay in its core's cache, no thread waits for another between operations, and the
//! chunks depend on the shape alone. The backward sweep goes through the chunks in the same way.

use crate::buffer::Buffer;
use crate::graph::{Leaf, backward, record, recording};
use crate::parallel::par_map;
use crate::sink::Sink;
use crate::tensor::Tensor;
use std::ops::Range;

/// At most this many parts of the backward sweep collect weight gradients of their own. More parts would
/// let more threads work, and cost memory and time to add up.
const LOTS: usize = 16;

/// What one chunk leaves for the backward sweep.
struct Kept {
    leaves: Vec<(Leaf, Vec<usize>)>,
    outputs: Vec<Tensor>,
}

/// Calls `f(rows, inputs[rows])` for chunks of `size` rows out of `n` and joins what it returns along the first
/// axis. `inputs` [n, ...] are what a gradient may flow to; parameters and constants are captured by `f`.
/// Outputs may have any number of rows per chunk. `work` is an estimate of all operations.
pub fn chunks<F>(n: usize, size: usize, work: usize, inputs: &[&Tensor], f: F) -> Vec<Tensor>
where
    F: Fn(Range<usize>, &[Tensor]) -> Vec<Tensor> + Sync,
{
    let ranges: Vec<Range<usize>> = (0..n).step_by(size).map(|i| i..(i + size).min(n)).collect();
    let kept: Vec<Kept> = par_map(ranges.clone(), work, |_, rows| {
        let mut leaves = Vec::new();
        let parts: Vec<Tensor> = inputs.iter().map(|x| inner_leaf(x, &rows, &mut leaves)).collect();
        let outputs = f(rows, &parts);
        Kept { leaves, outputs }
    });
    let count = kept[0].outputs.len();
    let outputs: Vec<Tensor> = (0..count).map(|j| join(kept.iter().map(|k| &k.outputs[j]))).collect();
    if !kept.iter().any(|k| recording(&k.outputs.iter().collect::<Vec<_>>())) {
        return outputs;
    }
    let flows: Vec<bool> = inputs.iter().map(|x| x.requires_grad()).collect();
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|x| x.shape().to_vec()).collect();
    record(inputs, outputs, move |grads, sink| sweep(kept, ranges, grads, &flows, &shapes, 2 * work, sink))
}

/// Rows of `x` as a leaf of the chunk's own graph, if a gradient flows to `x`.
fn inner_leaf(x: &Tensor, rows: &Range<usize>, leaves: &mut Vec<(Leaf, Vec<usize>)>) -> Tensor {
    let width: usize = x.shape()[1..].iter().product();
    let mut shape = x.shape().to_vec();
    shape[0] = rows.len();
    let part = x.view(rows.start * width, &shape);
    if !x.requires_grad() {
        return part;
    }
    let leaf = Leaf::new();
    leaves.push((leaf, shape));
    part.leaf(leaf)
}

/// Joins tensors along the first axis.
fn join<'a>(parts: impl Iterator<Item = &'a Tensor> + Clone) -> Tensor {
    let mut shape = parts.clone().next().expect("at least one chunk").shape().to_vec();
    shape[0] = parts.clone().map(|x| x.dim(0)).sum();
    let mut out = Buffer::stale(shape.iter().product());
    let mut at = 0;
    for part in parts {
        out[at..at + part.len()].copy_from_slice(part.data());
        at += part.len();
    }
    Tensor::new(&shape, out)
}

/// The backward sweep through all chunks, in lots whose weight gradients are then added up in order.
fn sweep(
    kept: Vec<Kept>,
    ranges: Vec<Range<usize>>,
    grads: &[Option<Tensor>],
    flows: &[bool],
    shapes: &[Vec<usize>],
    work: usize,
    sink: &mut Sink,
) -> Vec<Option<Tensor>> {
    let mut starts = vec![0; grads.len()];
    let chunks: Vec<(Kept, Vec<usize>)> = kept
        .into_iter()
        .map(|kept| {
            let at = starts.clone();
            starts.iter_mut().zip(&kept.outputs).for_each(|(s, x)| *s += x.len());
            (kept, at)
        })
        .collect();
    let lot = chunks.len().div_ceil(LOTS);
    let mut lots: Vec<Vec<_>> = Vec::new();
    for (i, chunk) in chunks.into_iter().enumerate() {
        if i % lot == 0 {
            lots.push(Vec::new());
        }
        lots.last_mut().expect("pushed above").push(chunk);
    }
    let results = par_map(lots, work, |_, lot| {
        let mut sink = Sink::new();
        let found: Vec<Vec<Option<Tensor>>> =
            lot.into_iter().map(|(kept, at)| sweep_chunk(kept, &at, grads, &mut sink)).collect();
        (sink, found)
    });
    let mut found = Vec::new();
    for (part, grads) in results {
        sink.merge(part);
        found.extend(grads);
    }
    gather(&found, &ranges, flows, shapes)
}

/// The backward sweep through one chunk: the gradients of its inner leaves.
fn sweep_chunk(kept: Kept, at: &[usize], grads: &[Option<Tensor>], sink: &mut Sink) -> Vec<Option<Tensor>> {
    let outputs: Vec<(&Tensor, Tensor)> = kept
        .outputs
        .iter()
        .zip(grads)
        .zip(at)
        .filter_map(|((x, grad), &at)| grad.as_ref().map(|g| (x, g.view(at, x.shape()))))
        .collect();
    backward(&outputs, sink);
    kept.leaves.iter().map(|(leaf, _)| sink.take(*leaf)).collect()
}

/// Puts the chunks' input gradients together, with zeros where a chunk had none.
fn gather(
    found: &[Vec<Option<Tensor>>],
    ranges: &[Range<usize>],
    flows: &[bool],
    shapes: &[Vec<usize>],
) -> Vec<Option<Tensor>> {
    let mut next = 0; // index among the inner leaves
    flows
        .iter()
        .zip(shapes)
        .map(|(&flow, shape)| {
            if !flow {
                return None;
            }
            let width: usize = shape[1..].iter().product();
            let mut out = Buffer::stale(shape.iter().product());
            for (grads, rows) in found.iter().zip(ranges) {
                let part = &mut out[rows.start * width..rows.end * width];
                match &grads[next] {
                    Some(grad) => part.copy_from_slice(grad.data()),
                    None => part.fill(0.0),
                }
            }
            next += 1;
            Some(Tensor::new(shape, out))
        })
        .collect()
}
