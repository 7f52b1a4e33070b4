//! Operations that move values: reshape, rows, concat, stack and unstack along time, masks.

use super::draft::{Draft, Rows, unit};
use crate::buffer::Buffer;
use crate::cuda::Grid;
use crate::graph::{record, record1, recording};
use crate::tensor::{Device, Tensor};
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
    if range == (0..x.dim(0)) {
        return x.clone();
    }
    let width: usize = x.shape()[1..].iter().product();
    let mut shape = x.shape().to_vec();
    shape[0] = range.len();
    let y = x.view(range.start * width, &shape);
    if !x.requires_grad() {
        return y;
    }
    let before = x.shape().to_vec();
    record1(&[x], y, move |dy, _| {
        let len: usize = before.iter().product();
        let (start, end) = (range.start * width, range.end * width);
        let mut dx = Draft::like(dy, len);
        let flat = |start: usize| Rows::new(start, 0, 0);
        dx.copy(flat(0), None, [1, 1, start]);
        dx.copy(flat(start), Some((dy, flat(0))), [1, 1, end - start]);
        dx.copy(flat(end), None, [1, 1, len - end]);
        vec![Some(dx.finish(&before))]
    })
}

/// Joins along the first axis.
pub fn concat(xs: &[&Tensor]) -> Tensor {
    let tail = &xs[0].shape()[1..];
    assert!(xs.iter().all(|x| &x.shape()[1..] == tail), "joined tensors differ beyond the first axis");
    let mut shape = xs[0].shape().to_vec();
    shape[0] = xs.iter().map(|x| x.dim(0)).sum();
    let y = join_columns(xs, 1, &shape);
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
    let y = join_columns(xs, rows, &shape);
    record_columns(xs, y, rows)
}

/// Side by side, each input seen as [rows, len / rows].
fn join_columns(xs: &[&Tensor], rows: usize, shape: &[usize]) -> Tensor {
    let width = shape.iter().product::<usize>() / rows.max(1);
    let mut y = Draft::joining(rows * width, xs.iter().copied());
    let mut at = 0;
    for x in xs {
        let w = x.len() / rows.max(1);
        y.copy(Rows::new(at, width, 0), Some((x, Rows::new(0, w, 0))), [rows, 1, w]);
        at += w;
    }
    y.finish(shape)
}

/// Records a join of columns, each input seen as [rows, len / rows].
fn record_columns(xs: &[&Tensor], y: Tensor, rows: usize) -> Tensor {
    if !recording(xs) {
        return y;
    }
    let shapes: Vec<(bool, Vec<usize>)> = xs.iter().map(|x| (x.requires_grad(), x.shape().to_vec())).collect();
    record1(xs, y, move |dy, _| {
        let width = dy.len() / rows.max(1);
        let (mut at, mut parts) = (0, Vec::new());
        for (flows, shape) in &shapes {
            let w = shape.iter().product::<usize>() / rows.max(1);
            if *flows {
                let mut dx = Draft::like(dy, rows * w);
                dx.copy(Rows::new(0, w, 0), Some((dy, Rows::new(at, width, 0))), [rows, 1, w]);
                parts.push((dx, shape.as_slice()));
            }
            at += w;
        }
        let mut parts = Draft::finish_all(parts).into_iter();
        shapes.iter().map(|(flows, _)| flows.then(|| parts.next().expect("one for each that flows"))).collect()
    })
}

/// [N, T, ...] -> T tensors [N, ...].
pub fn unstack_time(x: &Tensor) -> Vec<Tensor> {
    let (n, t) = (x.dim(0), x.dim(1));
    let mut shape = x.shape().to_vec();
    shape.remove(1);
    let width: usize = shape[1..].iter().product();
    let ys: Vec<Tensor> = match x.device() {
        Device::Cpu => (0..t)
            .map(|i| {
                let mut y = Draft::like(x, n * width);
                y.copy(Rows::new(0, width, 0), Some((x, Rows::new(i * width, t * width, 0))), [n, 1, width]);
                y.finish(&shape)
            })
            .collect(),
        // Side by side: one copy instead of many.
        Device::Gpu(_) => {
            let all = swap01(&[&x.view(0, &[n, t, width])]).remove(0);
            (0..t).map(|i| all.view(i * n * width, &shape)).collect()
        }
    };
    if !x.requires_grad() {
        return ys;
    }
    let before = x.shape().to_vec();
    record(&[x], ys, move |grads, _| {
        let grads: Vec<Option<&Tensor>> = grads.iter().map(Option::as_ref).collect();
        vec![Some(interleave(&grads, &before))]
    })
}

/// T tensors [N, ...] -> [N, T, ...].
pub fn stack_time(xs: &[Tensor]) -> Tensor {
    let mut shape = xs[0].shape().to_vec();
    shape.insert(1, xs.len());
    let y = interleave(&xs.iter().map(Some).collect::<Vec<_>>(), &shape);
    let inputs: Vec<&Tensor> = xs.iter().collect();
    if !recording(&inputs) {
        return y;
    }
    let flows: Vec<bool> = xs.iter().map(Tensor::requires_grad).collect();
    record1(&inputs, y, move |dy, _| {
        unstack_time(&dy.detach()).into_iter().zip(flows).map(|(g, flow)| flow.then_some(g)).collect()
    })
}

/// Steps [N, ...] -> `shape` [N, T, ...], zeros where a step is missing, which not all are.
fn interleave(steps: &[Option<&Tensor>], shape: &[usize]) -> Tensor {
    let (n, t, width) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
    let mut y = Draft::joining(n * t * width, steps.iter().copied().flatten());
    for (i, step) in steps.iter().enumerate() {
        let from = step.map(|x| (x, Rows::new(0, width, 0)));
        y.copy(Rows::new(i * width, t * width, 0), from, [n, 1, width]);
    }
    y.finish(shape)
}

/// [A, B, ...] -> [B, A, ...] for each, in one go on a GPU.
pub fn transpose01_all(xs: &[&Tensor]) -> Vec<Tensor> {
    let ys = swap01(xs);
    if !recording(xs) {
        return ys;
    }
    record(xs, ys, move |grads, _| {
        let some: Vec<&Tensor> = grads.iter().flatten().collect();
        let mut swapped = swap01(&some).into_iter();
        grads.iter().map(|dy| dy.as_ref().map(|_| swapped.next().expect("one for each"))).collect()
    })
}

fn swap01(xs: &[&Tensor]) -> Vec<Tensor> {
    let shape = |x: &Tensor| {
        let mut shape = x.shape().to_vec();
        shape.swap(0, 1);
        shape
    };
    let shapes: Vec<Vec<usize>> = xs.iter().map(|x| shape(x)).collect();
    let draft = |(x, shape): (&&Tensor, &[usize])| {
        let ([b, a], width) = ([shape[0], shape[1]], shape[2..].iter().product::<usize>());
        let mut y = Draft::like(x, x.len());
        let (to, from) = (Rows::new(0, a * width, width), Rows::new(0, width, b * width));
        y.copy(to, Some((x, from)), [b, a, width]);
        y
    };
    Draft::finish_all(xs.iter().zip(&shapes).map(|(x, shape)| (draft((x, shape)), shape.as_slice())).collect())
}

/// Zeroes the rows of x [N, ...] where `keep` [N] is zero, and stops their gradient.
pub fn mask_rows(x: &Tensor, keep: &Tensor) -> Tensor {
    assert_eq!(x.dim(0), keep.len());
    if keep.device() == Device::Cpu && keep.data().iter().all(|&k| k != 0.0) {
        return x.clone();
    }
    let y = masked(x, keep);
    if !x.requires_grad() {
        return y;
    }
    let keep = keep.detach();
    record1(&[x], y, move |dy, _| vec![Some(masked(dy, &keep))])
}

fn masked(x: &Tensor, keep: &Tensor) -> Tensor {
    let (n, width) = (keep.len(), x.len() / keep.len().max(1));
    match x.device() {
        Device::Cpu => {
            let mut y = Buffer::from_slice(x.data());
            let rows = y.chunks_exact_mut(width.max(1)).zip(keep.data());
            rows.filter(|(_, k)| **k == 0.0).for_each(|(row, _)| row.fill(0.0));
            Tensor::new(x.shape(), y)
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty_as(x.shape(), x.dtype());
            let (keep, bytes) = (gpu.full(keep), width * x.dtype().bytes());
            let unit = unit([x.address(), y.address(), bytes as u64].into_iter());
            let width = bytes / unit;
            gpu.launch("copies", "mask_rows", Grid::elements(n * width), &[x, &keep, &y, &n, &width, &unit]);
            y
        }
    }
}

/// One step of rows `rows` of x [N, T] -> [rows]. No gradient.
pub fn column(x: &Tensor, rows: Range<usize>, step: usize) -> Tensor {
    let t = x.dim(1);
    let mut y = Draft::like(x, rows.len());
    y.copy(Rows::new(0, 1, 0), Some((x, Rows::new(rows.start * t + step, t, 0))), [rows.len(), 1, 1]);
    y.finish(&[rows.len()])
}

/// The first `steps` of each row of x [N, T], zeros after its end -> [N, steps].
pub fn fit_steps(x: &Tensor, steps: usize) -> Tensor {
    let (y, t) = (fitted(x, steps), x.dim(1));
    if !x.requires_grad() {
        return y;
    }
    record1(&[x], y, move |dy, _| vec![Some(fitted(dy, t))])
}

fn fitted(x: &Tensor, steps: usize) -> Tensor {
    let (n, t) = (x.dim(0), x.dim(1));
    let kept = steps.min(t);
    let mut y = Draft::like(x, n * steps);
    y.copy(Rows::new(0, steps, 0), Some((x, Rows::new(0, t, 0))), [n, 1, kept]);
    y.copy(Rows::new(kept, steps, 0), None, [n, 1, steps - kept]);
    y.finish(&[n, steps])
}

/// `x / max(1, |x|)`, which bounds it to [-1, 1]. No gradient.
pub fn bound(x: &Tensor) -> Tensor {
    match x.device() {
        Device::Cpu => {
            let bounded: Vec<f32> = x.data().iter().map(|&a| a / a.abs().max(1.0)).collect();
            Tensor::from_slice(x.shape(), &bounded)
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty_act(x.shape());
            gpu.launch("elementwise", "bound", Grid::elements(x.len()), &[x, &x.is_wide(), &x.len(), &y]);
            y
        }
    }
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
    let (n, width) = (x.rows(), a * b * c);
    let mut y = Draft::like(x, x.len());
    for i in 0..b {
        let (to, from) = (Rows::new(i * a * c, width, c), Rows::new(i * c, width, b * c));
        y.copy(to, Some((x, from)), [n, a, c]);
    }
    y.finish(x.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, devices};

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
            |x| mask_rows(&x[0], &Tensor::from_slice(&[3], &[1.0, 0.0, 1.0]).to(x[0].device())),
            |x| vec![x[0][0], x[0][1], 0.0, 0.0, x[0][4], x[0][5]],
        );
    }

    #[test]
    fn columns_and_bounds() {
        for device in devices() {
            let x = Tensor::from_slice(&[3, 2], &[0.5, -3.0, 1.0, 2.0, -0.25, 7.0]).to(device);
            assert_eq!(fit_steps(&x, 1).host().data(), [0.5, 1.0, -0.25]);
            assert_eq!(fit_steps(&x, 3).host().data(), [0.5, -3.0, 0.0, 1.0, 2.0, 0.0, -0.25, 7.0, 0.0]);
            assert_eq!(column(&x, 1..3, 1).host().data(), [2.0, 7.0]);
            assert_eq!(bound(&x).host().data(), [0.5, -1.0, 1.0, 1.0, -0.25, 1.0]);
        }
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
            |x| transpose01_all(&[&x[0]]).remove(0),
            |x| (0..12).map(|i| x[0][(i / 2 % 2 * 3 + i / 4) * 2 + i % 2]).collect(),
        );
        let op = |x: &[Tensor]| concat(&transpose01_all(&[&x[0], &x[1]]).iter().collect::<Vec<_>>());
        check(&[&[2, 3], &[2, 2]], op, |x| {
            vec![x[0][0], x[0][3], x[0][1], x[0][4], x[0][2], x[0][5], x[1][0], x[1][2], x[1][1], x[1][3]]
        });
        for steps in [2, 5] {
            let fit = |x: &[f64]| -> Vec<f64> {
                x.chunks(3).flat_map(|row| (0..steps).map(|i| row.get(i).copied().unwrap_or(0.0))).collect()
            };
            check(&[&[2, 3]], |x| fit_steps(&x[0], steps), |x| fit(&x[0]));
        }
        // [1, (g h c)] with g 2, h 3, c 2 -> [1, (h g c)].
        check(
            &[&[1, 12]],
            |x| regroup(&x[0], 2, 2),
            |x| (0..12).map(|i| x[0][(i / 2 % 2 * 3 + i / 4) * 2 + i % 2]).collect(),
        );
    }
}
