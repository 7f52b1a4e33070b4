//! Operations that move values: reshape, rows, concat, stack and unstack along time, masks.

use crate::buffer::Buffer;
use crate::graph::{record, record1, recording};
use crate::tensor::Tensor;
use std::ops::Range;

/// The same values under another shape.
pub fn reshape(x: &Tensor, shape: &[usize]) -> Tensor {
    assert_eq!(x.len(), shape.iter().product::<usize>(), "{:?} as {shape:?}", x.shape());
    let y = x.view(0, shape);
    if !x.requires_grad() {
        return y;
    }
    let before = x.shape().to_vec();
    record1(&[x], y, move |dy, _| vec![Some(dy.view(0, &before))])
}

/// Rows `range` of the first axis, without a copy.
pub fn rows(x: &Tensor, range: Range<usize>) -> Tensor {
    let width: usize = x.shape()[1..].iter().product();
    let mut shape = x.shape().to_vec();
    shape[0] = range.len();
    let y = x.view(range.start * width, &shape);
    if !x.requires_grad() {
        return y;
    }
    let before = x.shape().to_vec();
    record1(&[x], y, move |dy, _| {
        let mut dx = Buffer::zeros(before.iter().product());
        dx[range.start * width..range.end * width].copy_from_slice(dy.data());
        vec![Some(Tensor::new(&before, dx))]
    })
}

/// Joins along the first axis.
pub fn concat(xs: &[&Tensor]) -> Tensor {
    let tail = &xs[0].shape()[1..];
    assert!(xs.iter().all(|x| &x.shape()[1..] == tail), "joined tensors differ beyond the first axis");
    let mut shape = xs[0].shape().to_vec();
    shape[0] = xs.iter().map(|x| x.dim(0)).sum();
    let flat = |x: &Tensor| x.view(0, &[1, x.len()]);
    let y = join_columns(&xs.iter().map(|x| flat(x)).collect::<Vec<_>>()).view(0, &shape);
    record_columns(xs, y, 1)
}

/// Joins along the last axis.
pub fn concat_last(xs: &[&Tensor]) -> Tensor {
    if xs.len() == 1 {
        return xs[0].clone();
    }
    let rows = xs[0].rows();
    let mut shape = xs[0].shape().to_vec();
    *shape.last_mut().expect("at least one axis") = xs.iter().map(|x| x.width()).sum();
    let y = join_columns(&xs.iter().map(|x| x.view(0, &[rows, x.width()])).collect::<Vec<_>>()).view(0, &shape);
    record_columns(xs, y, rows)
}

/// [rows, a], [rows, b], ... -> [rows, a + b + ...].
fn join_columns(xs: &[Tensor]) -> Tensor {
    let rows = xs[0].dim(0);
    let width: usize = xs.iter().map(|x| x.dim(1)).sum();
    let mut y = Buffer::stale(rows * width);
    let mut at = 0;
    for x in xs {
        let w = x.dim(1);
        for (row, from) in y.chunks_exact_mut(width.max(1)).zip(x.data().chunks_exact(w.max(1))) {
            row[at..at + w].copy_from_slice(from);
        }
        at += w;
    }
    Tensor::new(&[rows, width], y)
}

/// Records a join of columns, each input seen as [rows, len / rows].
fn record_columns(xs: &[&Tensor], y: Tensor, rows: usize) -> Tensor {
    if !recording(xs) {
        return y;
    }
    let shapes: Vec<(bool, Vec<usize>)> = xs.iter().map(|x| (x.requires_grad(), x.shape().to_vec())).collect();
    record1(xs, y, move |dy, _| {
        let width = dy.len() / rows.max(1);
        let mut at = 0;
        let split = |(flows, shape): &(bool, Vec<usize>)| {
            let w = shape.iter().product::<usize>() / rows.max(1);
            let from = at;
            at += w;
            flows.then(|| {
                let mut dx = Buffer::stale(rows * w);
                for (to, row) in dx.chunks_exact_mut(w.max(1)).zip(dy.data().chunks_exact(width.max(1))) {
                    to.copy_from_slice(&row[from..from + w]);
                }
                Tensor::new(shape, dx)
            })
        };
        shapes.iter().map(split).collect()
    })
}

/// [N, T, ...] -> T tensors [N, ...].
pub fn unstack_time(x: &Tensor) -> Vec<Tensor> {
    let (n, t) = (x.dim(0), x.dim(1));
    let mut shape = x.shape().to_vec();
    shape.remove(1);
    let width: usize = shape[1..].iter().product();
    let step = |i: usize| {
        let mut y = Buffer::stale(n * width);
        for (row, to) in y.chunks_exact_mut(width.max(1)).enumerate() {
            to.copy_from_slice(&x.data()[(row * t + i) * width..][..width]);
        }
        Tensor::new(&shape, y)
    };
    let ys: Vec<Tensor> = (0..t).map(step).collect();
    if !x.requires_grad() {
        return ys;
    }
    let before = x.shape().to_vec();
    record(&[x], ys, move |grads, _| vec![Some(interleave(grads, &before))])
}

/// T tensors [N, ...] -> [N, T, ...].
pub fn stack_time(xs: &[Tensor]) -> Tensor {
    let mut shape = xs[0].shape().to_vec();
    shape.insert(1, xs.len());
    let some: Vec<Option<Tensor>> = xs.iter().cloned().map(Some).collect();
    let y = interleave(&some, &shape);
    let inputs: Vec<&Tensor> = xs.iter().collect();
    if !recording(&inputs) {
        return y;
    }
    let flows: Vec<bool> = xs.iter().map(Tensor::requires_grad).collect();
    record1(&inputs, y, move |dy, _| {
        unstack_time(&dy.detach()).into_iter().zip(flows).map(|(g, flow)| flow.then_some(g)).collect()
    })
}

/// Steps [N, ...] -> `shape` [N, T, ...], zeros where a step is missing.
fn interleave(steps: &[Option<Tensor>], shape: &[usize]) -> Tensor {
    let (t, width) = (shape[1], shape[2..].iter().product::<usize>());
    let mut out = Buffer::stale(shape.iter().product());
    for (i, to) in out.chunks_exact_mut(width.max(1)).enumerate() {
        match &steps[i % t] {
            Some(step) => to.copy_from_slice(&step.data()[i / t * width..][..width]),
            None => to.fill(0.0),
        }
    }
    Tensor::new(shape, out)
}

/// [A, B, ...] -> [B, A, ...].
pub fn transpose01(x: &Tensor) -> Tensor {
    let swap = |x: &Tensor| {
        let (a, b) = (x.dim(0), x.dim(1));
        let mut shape = x.shape().to_vec();
        shape.swap(0, 1);
        let width: usize = shape[2..].iter().product();
        let mut y = Buffer::stale(x.len());
        for (i, to) in y.chunks_exact_mut(width.max(1)).enumerate() {
            to.copy_from_slice(&x.data()[(i % a * b + i / a) * width..][..width]);
        }
        Tensor::new(&shape, y)
    };
    let y = swap(x);
    if !x.requires_grad() {
        return y;
    }
    record1(&[x], y, move |dy, _| vec![Some(swap(dy))])
}

/// Zeroes the rows of x [N, ...] whose `keep` is false, and stops their gradient.
pub fn mask_rows(x: &Tensor, keep: &[bool]) -> Tensor {
    assert_eq!(x.dim(0), keep.len());
    if keep.iter().all(|&k| k) {
        return x.clone();
    }
    let mask = |x: &Tensor, keep: &[bool]| {
        let mut y = Buffer::from_slice(x.data());
        let width = y.len() / keep.len();
        for (row, _) in y.chunks_exact_mut(width.max(1)).zip(keep).filter(|(_, k)| !**k) {
            row.fill(0.0);
        }
        Tensor::new(x.shape(), y)
    };
    let y = mask(x, keep);
    if !x.requires_grad() {
        return y;
    }
    let keep = keep.to_vec();
    record1(&[x], y, move |dy, _| vec![Some(mask(dy, &keep))])
}

/// Reorders the columns of x [N, g * s * c] from blocks outermost to blocks beside the channels: [N, s * g * c].
pub fn regroup(x: &Tensor, blocks: usize, c: usize) -> Tensor {
    let spots = x.width() / (blocks * c);
    let y = swap_columns(x, blocks, spots, c);
    if !x.requires_grad() {
        return y;
    }
    record1(&[x], y, move |dy, _| vec![Some(swap_columns(dy, spots, blocks, c))])
}

/// [N, a, b, c] -> [N, b, a, c] within rows.
fn swap_columns(x: &Tensor, a: usize, b: usize, c: usize) -> Tensor {
    let mut y = Buffer::stale(x.len());
    let rows = x.data().chunks_exact((a * b * c).max(1));
    for (to, from) in y.chunks_exact_mut((a * b * c).max(1)).zip(rows) {
        for i in 0..b {
            for j in 0..a {
                to[(i * a + j) * c..][..c].copy_from_slice(&from[(j * b + i) * c..][..c]);
            }
        }
    }
    Tensor::new(x.shape(), y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;

    #[test]
    fn joins_and_their_gradients() {
        check(&[&[2, 3], &[1, 3]], |x| concat(&[&x[0], &x[1]]), |x| [x[0].clone(), x[1].clone()].concat());
        check(
            &[&[2, 1], &[2, 3], &[2, 0]],
            |x| concat_last(&[&x[0], &x[1], &x[2]]),
            |x| vec![x[0][0], x[1][0], x[1][1], x[1][2], x[0][1], x[1][3], x[1][4], x[1][5]],
        );
    }

    #[test]
    fn rows_and_masks() {
        check(&[&[4, 2]], |x| rows(&x[0], 1..3), |x| x[0][2..6].to_vec());
        check(
            &[&[3, 2]],
            |x| mask_rows(&x[0], &[true, false, true]),
            |x| vec![x[0][0], x[0][1], 0.0, 0.0, x[0][4], x[0][5]],
        );
    }

    #[test]
    fn time_is_stacked_and_unstacked() {
        // Steps in reverse order, one of them twice and one not at all.
        let op = |x: &[Tensor]| {
            let steps = unstack_time(&x[0]);
            stack_time(&[steps[2].clone(), steps[0].clone(), steps[0].clone()])
        };
        check(&[&[2, 3, 2]], op, |x| {
            let step = |b: usize, t: usize| [x[0][b * 6 + t * 2], x[0][b * 6 + t * 2 + 1]];
            [step(0, 2), step(0, 0), step(0, 0), step(1, 2), step(1, 0), step(1, 0)].concat()
        });
    }

    #[test]
    fn transpose_and_regroup() {
        check(
            &[&[2, 3, 2]],
            |x| transpose01(&x[0]),
            |x| (0..12).map(|i| x[0][(i / 2 % 2 * 3 + i / 4) * 2 + i % 2]).collect(),
        );
        // [1, (g h c)] with g 2, h 3, c 2 -> [1, (h g c)].
        check(
            &[&[1, 12]],
            |x| regroup(&x[0], 2, 2),
            |x| (0..12).map(|i| x[0][(i / 2 % 2 * 3 + i / 4) * 2 + i % 2]).collect(),
        );
    }
}
