//! Reconstructed images: sigmoid, squared error against bytes, and the pictures themselves.

use super::images_gpu;
use super::planes::{Planes, images_in};
use crate::buffer::Buffer;
use crate::bytes::Pixels;
use crate::cpu::conv::{lanes_to_f32, u8_to_lanes};
use crate::cpu::pixel_loss::{pixel_loss, scale_lanes};
use crate::cpu::{MAX_LANES, lanes, math};
use crate::graph::{record, recording};
use crate::tensor::{Device, Tensor};

/// The squared error of `sigmoid(logits)` against `bytes / 255`, summed over the pixels and channels of each image. The
/// channels are split among keys in order: per key its bytes [n, h, w, c] and c -> a loss [n] per key.
pub fn image_loss(logits: &Planes, keys: &[(Pixels, usize)]) -> Vec<Tensor> {
    if let Device::Gpu(gpu) = logits.x.device() {
        return images_gpu::image_loss(gpu, logits, keys);
    }
    let keep = recording(&[&logits.x]);
    let (losses, grad) = loss_cpu(logits, keys, keep);
    if !keep {
        return losses;
    }
    let (n, group, shape) = (logits.n, logits.group(), logits.x.shape().to_vec());
    let lens: Vec<usize> = keys.iter().map(|(_, c)| logits.key_len(*c)).collect();
    record(&[&logits.x], losses, move |grads, _| {
        let mut dx = grad;
        for (g, group) in dx.chunks_exact_mut(group).enumerate() {
            let (count, first) = (images_in(g, n), g * lanes());
            let mut at = 0;
            for (len, grad) in lens.iter().zip(grads) {
                let mut factors = [0.0; MAX_LANES];
                if let Some(grad) = grad {
                    factors[..count].copy_from_slice(&grad.data()[first..first + count]);
                }
                scale_lanes(&mut group[at..at + len], &factors);
                at += len;
            }
        }
        vec![Some(Tensor::new(&shape, dx))]
    })
}

/// The losses and, if wanted, the gradient of each image's loss.
fn loss_cpu(logits: &Planes, keys: &[(Pixels, usize)], want: bool) -> (Vec<Tensor>, Buffer) {
    let (n, h, w, pad) = (logits.n, logits.height(), logits.width(), logits.pad);
    let mut grad = Buffer::stale(if want { logits.x.len() } else { 0 });
    let mut losses = vec![Buffer::stale(n); keys.len()];
    let mut first = 0;
    for ((bytes, c), losses) in keys.iter().zip(&mut losses) {
        let len = logits.key_len(*c);
        let mut target = Buffer::stale(len);
        for (g, loss) in losses.chunks_mut(lanes()).enumerate() {
            let images = &bytes.host()[g * lanes() * h * w * c..][..loss.len() * h * w * c];
            u8_to_lanes(images, loss.len(), h, w, *c, 255.0, 0.0, &mut target, pad);
            let span = g * logits.group() + first..g * logits.group() + first + len;
            let grad = if want { &mut grad[span.clone()] } else { &mut [] };
            let mut sums = [0.0; MAX_LANES];
            pixel_loss([*c, h, w], pad, &logits.x.data()[span], &target, &mut sums, grad);
            loss.iter_mut().zip(sums).for_each(|(loss, sum)| *loss = sum as f32);
        }
        first += len;
    }
    assert_eq!(first, logits.group(), "the keys have not as many channels as the logits");
    (losses.into_iter().map(|l| Tensor::new(&[n], l)).collect(), grad)
}

/// `sigmoid(logits)` as pictures [n, h, w, c] per key, whose channels are given in order. No gradient.
pub fn images(logits: &Planes, channels: &[usize]) -> Vec<Tensor> {
    if let Device::Gpu(gpu) = logits.x.device() {
        return images_gpu::pictures(gpu, logits, channels);
    }
    let (n, h, w) = (logits.n, logits.height(), logits.width());
    let mut pixels = Buffer::from_slice(logits.x.data());
    math::sigmoid_slice(&mut pixels);
    let mut at = 0;
    let mut key = |c: usize| {
        let len = logits.key_len(c);
        let mut out = Buffer::stale(n * h * w * c);
        for (g, group) in pixels.chunks_exact(logits.group()).enumerate() {
            let count = images_in(g, n);
            let out = &mut out[g * lanes() * h * w * c..][..count * h * w * c];
            lanes_to_f32(&group[at..at + len], count, h, w, c, logits.pad, out);
        }
        at += len;
        Tensor::new(&[n, h, w, c], out)
    };
    channels.iter().map(|&c| key(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::planes::planes;
    use super::*;
    use crate::bytes::Bytes;
    use crate::check::{check, sigmoid};
    use crate::ops::linear_combination;

    #[test]
    fn losses_of_two_keys_and_their_gradient() {
        for n in [1, 18] {
            let (h, w) = (2, 3);
            let bytes = |c: usize| -> Vec<u8> { (0..n * h * w * c).map(|i| (i * 97 % 256) as u8).collect() };
            let (a, b) = (bytes(1), bytes(3));
            let (ca, cb) = (Tensor::full(&[n], 1.0), Tensor::full(&[n], 0.25));
            let op = |x: &[Tensor]| {
                let device = x[0].device();
                let [a, b] = [&a, &b].map(|bytes| Bytes::new(bytes.clone()).to(device));
                let keys = [(a.part(0..a.len()), 1), (b.part(0..b.len()), 3)];
                let losses = image_loss(&planes(&x[0], h, w, 4, 1), &keys);
                linear_combination(&[(&losses[0], &ca.to(device)), (&losses[1], &cb.to(device))])
            };
            check(&[&[n, h * w * 4]], op, |x| {
                let error = |i: usize, pixel: usize, c: usize| {
                    let target = if c == 0 { a[i * h * w + pixel] } else { b[(i * h * w + pixel) * 3 + c - 1] };
                    let d = sigmoid(x[0][(i * h * w + pixel) * 4 + c]) - target as f64 / 255.0;
                    d * d * if c == 0 { 1.0 } else { 0.25 }
                };
                (0..n).map(|i| (0..h * w * 4).map(|j| error(i, j / 4, j % 4)).sum()).collect()
            });
        }
    }

    #[test]
    fn pictures_are_split_by_key() {
        let x = Tensor::from_slice(&[1, 4], &[0.0, 100.0, -100.0, 0.0]);
        let out = images(&planes(&x, 1, 2, 2, 1), &[1, 1]);
        assert_eq!(out[0].shape(), [1, 1, 2, 1]);
        let pixels: Vec<f32> = out.iter().flat_map(|x| x.data()).copied().collect();
        assert!(pixels.iter().zip([0.5, 0.0, 1.0, 0.5]).all(|(a, b)| (a - b).abs() < 1e-7), "{pixels:?}");
    }
}
