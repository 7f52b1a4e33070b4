//! Images on a GPU: bytes in, pictures out, the loss between them, and pixels with more or fewer stored channels.

use super::planes::Planes;
use crate::bytes::Pixels;
use crate::cuda::{Arg, Gpu, Grid};
use crate::graph::{record, recording};
use crate::tensor::Tensor;

/// Pixels of `from` numbers each as pixels of `to` numbers, under another shape; the same memory where they are alike.
pub(super) fn resize_pixels(gpu: &'static Gpu, x: &Tensor, [from, to]: [usize; 2], shape: &[usize]) -> Tensor {
    if from == to {
        return x.view(0, shape);
    }
    let x = gpu.act(x);
    let (y, pixels) = (gpu.empty_act(shape), x.len() / from);
    gpu.launch("images", "resize_pixels", Grid::elements(y.len()), &[&x, &pixels, &from, &to, &y]);
    y
}

/// uint8 images [n, h, w, c] of several keys -> `value / 255 - 0.5`, joined along the channels.
pub(super) fn byte_planes(gpu: &'static Gpu, keys: &[(Pixels, usize)], n: usize, h: usize, w: usize) -> Planes {
    let (channels, pixels): (usize, usize) = (keys.iter().map(|(_, c)| c).sum(), n * h * w);
    let stored = channels.next_multiple_of(4);
    let y = gpu.empty_act(&[n, h, w, stored]);
    for (bytes, c, [first, end]) in places(keys, stored) {
        let args: [&dyn Arg; 7] = [bytes.gpu(), &pixels, &c, &stored, &first, &end, &y];
        gpu.launch("images", "byte_planes", Grid::elements(pixels * (end - first)), &args);
    }
    Planes { x: y, n, pad: 0, size: [channels, h, w] }
}

/// Keys with their first channel and the one after their last; the last key's range includes padding.
fn places<'a>(keys: &[(Pixels<'a>, usize)], stored: usize) -> Vec<(Pixels<'a>, usize, [usize; 2])> {
    let mut first = 0;
    let place = |(i, &(bytes, c)): (usize, &(Pixels<'a>, usize))| {
        let start = first;
        first += c;
        (bytes, c, [start, if i + 1 == keys.len() { stored } else { first }])
    };
    keys.iter().enumerate().map(place).collect()
}

/// `image_loss` of logits in planes.
pub(super) fn image_loss(gpu: &'static Gpu, logits: &Planes, keys: &[(Pixels, usize)]) -> Vec<Tensor> {
    let (n, pixels, stored, x) = (logits.n, logits.height() * logits.width(), logits.x.dim(3), gpu.act(&logits.x));
    let keys: Vec<(Tensor, usize, [usize; 2])> =
        places(keys, stored).into_iter().map(|(bytes, c, place)| (bytes.gpu().clone(), c, place)).collect();
    let loss = |(bytes, c, [first, _]): &(Tensor, usize, [usize; 2])| {
        let loss = gpu.empty(&[n]);
        let args: [&dyn Arg; 7] = [&x, bytes, &pixels, c, &stored, first, &loss];
        gpu.launch("images", "image_loss", Grid::blocks(n, 256), &args);
        loss
    };
    let losses: Vec<Tensor> = keys.iter().map(loss).collect();
    if !recording(&[&logits.x]) {
        return losses;
    }
    record(&[&logits.x], losses, move |grads, _| {
        let dx = gpu.empty_act(x.shape());
        for ((bytes, c, [first, end]), dy) in keys.iter().zip(grads) {
            let args: [&dyn Arg; 10] = [&x, bytes, dy, &n, &pixels, c, &stored, first, end, &dx];
            gpu.launch("images", "image_loss_grad", Grid::elements(n * pixels * (end - first)), &args);
        }
        vec![Some(dx)]
    })
}

/// `images` of logits in planes.
pub(super) fn pictures(gpu: &'static Gpu, logits: &Planes, channels: &[usize]) -> Vec<Tensor> {
    let (n, h, w, stored, x) = (logits.n, logits.height(), logits.width(), logits.x.dim(3), gpu.act(&logits.x));
    let (pixels, mut first) = (n * h * w, 0);
    let mut key = |c: &usize| {
        let y = gpu.empty(&[n, h, w, *c]);
        gpu.launch("images", "pictures", Grid::elements(y.len()), &[&x, &pixels, c, &stored, &first, &y]);
        first += c;
        y
    };
    channels.iter().map(&mut key).collect()
}
