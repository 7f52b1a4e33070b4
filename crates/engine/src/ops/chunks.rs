//! Runs a computation on chunks of rows, each chunk from its first operation to its last on one thread.
//!
//! Activations of a chunk stay in its core's cache, no thread waits for another between operations, and the
//! chunks depend on the shape alone. The backward sweep goes through the chunks in the same way. A GPU takes all rows at
//! once, as if there were no chunks.

use super::draft::{Draft, Rows};
use crate::graph::{Leaf, backward, record, recording};
use crate::parallel::par_map;
use crate::sink::Sink;
use crate::tensor::{Device, Tensor};
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
    stage(n, size, work, inputs, f).finish(|_, outputs| outputs)
}

/// Chunks between the two halves of [`chunks`]: each has a state, which may hold recorded tensors. In between,
/// something can be computed from all of them.
pub struct Staged<S> {
    chunks: Vec<Chunk<S>>,
    /// On a GPU: the only chunk is part of the graph around it.
    whole: bool,
    inputs: Vec<Tensor>,
    work: usize,
}

struct Chunk<S> {
    rows: Range<usize>,
    leaves: Vec<(Leaf, Vec<usize>)>,
    state: S,
}

/// The first half of [`chunks`]: calls `f(rows, inputs[rows])` and keeps what it returns as the chunk's state.
pub fn stage<S, F>(n: usize, size: usize, work: usize, inputs: &[&Tensor], f: F) -> Staged<S>
where
    S: Send,
    F: Fn(Range<usize>, &[Tensor]) -> S + Sync,
{
    let whole = inputs.iter().any(|x| x.device() != Device::Cpu);
    if whole {
        let all: Vec<Tensor> = inputs.iter().map(|&x| x.clone()).collect();
        let chunks = vec![Chunk { rows: 0..n, leaves: vec![], state: f(0..n, &all) }];
        return Staged { chunks, whole, inputs: vec![], work };
    }
    let mut ranges: Vec<Range<usize>> = (0..n).step_by(size).map(|i| i..(i + size).min(n)).collect();
    if n == 0 {
        ranges.push(0..0); // `f` says what shapes the outputs have
    }
    let chunks = par_map(ranges, work, |_, rows| {
        let mut leaves = Vec::new();
        let parts: Vec<Tensor> = inputs.iter().map(|x| inner_leaf(x, &rows, &mut leaves)).collect();
        let state = f(rows.clone(), &parts);
        Chunk { rows, leaves, state }
    });
    Staged { chunks, whole, inputs: inputs.iter().map(|&x| x.clone()).collect(), work }
}

impl<S: Send> Staged<S> {
    /// The states in the order of their rows.
    pub fn states(&self) -> impl Iterator<Item = &S> + Clone {
        self.chunks.iter().map(|chunk| &chunk.state)
    }

    /// The second half of [`chunks`]: turns each state into outputs, which are joined along the first axis.
    pub fn finish(self, f: impl Fn(Range<usize>, S) -> Vec<Tensor> + Sync) -> Vec<Tensor> {
        let Staged { mut chunks, whole, inputs, work } = self;
        if whole {
            let chunk = chunks.remove(0);
            return f(chunk.rows, chunk.state);
        }
        let ranges: Vec<Range<usize>> = chunks.iter().map(|chunk| chunk.rows.clone()).collect();
        let kept: Vec<Kept> = par_map(chunks, work, |_, Chunk { rows, leaves, state }| {
            let outputs = f(rows, state);
            Kept { leaves, outputs }
        });
        let count = kept[0].outputs.len();
        let outputs: Vec<Tensor> = (0..count).map(|j| join(kept.iter().map(|k| &k.outputs[j]))).collect();
        if !kept.iter().any(|k| recording(&k.outputs.iter().collect::<Vec<_>>())) {
            return outputs;
        }
        let flows: Vec<bool> = inputs.iter().map(|x| x.requires_grad()).collect();
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|x| x.shape().to_vec()).collect();
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        record(&inputs, outputs, move |grads, sink| {
            sweep(kept, ranges, grads, &flows, &shapes, work.saturating_mul(2), sink)
        })
    }
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
    let first = parts.clone().next().expect("at least one chunk");
    if parts.clone().count() == 1 {
        return first.detach();
    }
    let mut shape = first.shape().to_vec();
    shape[0] = parts.clone().map(|x| x.dim(0)).sum();
    let mut out = Draft::joining(shape.iter().product(), parts.clone());
    let mut at = 0;
    for part in parts {
        out.copy(Rows::new(at, 0, 0), Some((part, Rows::new(0, 0, 0))), [1, 1, part.len()]);
        at += part.len();
    }
    out.finish(&shape)
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

/// Puts the chunks' input gradients together, with zeros where a chunk had none; none where no chunk had one.
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
            let some = found.iter().filter_map(|grads| grads[next].as_ref());
            if some.clone().next().is_none() {
                next += 1;
                return None;
            }
            let mut out = Draft::joining(shape.iter().product(), some);
            for (grads, rows) in found.iter().zip(ranges) {
                let from = grads[next].as_ref().map(|grad| (grad, Rows::new(0, 0, 0)));
                out.copy(Rows::new(rows.start * width, 0, 0), from, [1, 1, rows.len() * width]);
            }
            next += 1;
            Some(out.finish(shape))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, random};
    use crate::ops::{Term, affine, full, linear, linear_combination};

    /// A two-layer computation with a parameter used in every chunk; sizes that do not divide evenly.
    fn op(x: &[Tensor], size: usize, work: usize) -> Tensor {
        chunks(x[0].dim(0), size, work, &[&x[0], &x[3]], |_, inputs| {
            let y = linear(&inputs[0], &x[1], &x[2]);
            let z = affine(&[Term::new(&y, 0)], &x[4], None, None);
            let c = full(z.shape(), 2.0, z.device());
            vec![linear_combination(&[(&z, &c), (&inputs[1], &c)])]
        })
        .remove(0)
    }

    const SHAPES: [&[usize]; 5] = [&[11, 3], &[3, 4], &[4], &[11, 2], &[4, 2]];

    #[test]
    fn chunked_gradients() {
        for (size, work) in [(1, 0), (4, usize::MAX), (11, 0), (64, usize::MAX)] {
            check(
                &SHAPES,
                |x| op(x, size, work),
                |x| {
                    let y =
                        |i: usize, j: usize| (0..3).map(|k| x[0][i * 3 + k] * x[1][k * 4 + j]).sum::<f64>() + x[2][j];
                    let z = |i: usize, j: usize| (0..4).map(|k| y(i, k) * x[4][k * 2 + j]).sum::<f64>();
                    (0..22).map(|i| 2.0 * z(i / 2, i % 2) + 2.0 * x[3][i]).collect()
                },
            );
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let grads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let leaves: Vec<(Leaf, Vec<usize>)> = SHAPES.iter().map(|s| (Leaf::new(), s.to_vec())).collect();
                let x: Vec<Tensor> =
                    leaves.iter().enumerate().map(|(i, (l, s))| random(s, i as u32, 1.0).leaf(*l)).collect();
                let y = op(&x, 2, usize::MAX);
                let mut sink = Sink::new();
                backward(&[(&y, random(y.shape(), 9, 1.0))], &mut sink);
                let grads = sink.finish(&leaves);
                grads.iter().flat_map(|g| g.data().to_vec()).collect::<Vec<f32>>()
            })
        };
        assert_eq!(grads(1), grads(3));
    }
}
