//! Reconstructed images: sigmoid, squared error against bytes, and the pictures themselves.

use super::planes::{Planes, images_in};
use crate::buffer::Buffer;
use crate::cpu::conv::{group_len, lanes_to_f32, u8_to_lanes};
use crate::cpu::{lanes, math};
use crate::graph::{record, recording};
use crate::tensor::{Device, Tensor};

/// The squared error of `sigmoid(logits)` against `bytes / 255`, summed over the pixels and channels of each image. The
/// channels are split among keys in order: per key its bytes [n, h, w, c] and c -> a loss [n] per key.
pub fn image_loss(logits: &Planes, keys: &[(&[u8], usize)]) -> Vec<Tensor> {
    let n = logits.n;
    let mut error = Buffer::from_slice(logits.x.data());
    match logits.x.device() {
        Device::Cpu => math::sigmoid_slice(&mut error),
    }
    let sigmoid = error.clone();
    let mut losses = vec![vec![0.0f32; n]; keys.len()];
    subtract_targets(logits, keys, &mut error, &mut losses);
    let losses: Vec<Tensor> = losses.iter().map(|l| Tensor::from_slice(&[n], l)).collect();
    if !recording(&[&logits.x]) {
        return losses;
    }
    let kept = logits.clone();
    let channels: Vec<usize> = keys.iter().map(|(_, c)| *c).collect();
    record(&[&logits.x], losses, move |grads, _| {
        let mut dx = error;
        let (h, w, l) = (kept.height(), kept.width(), lanes());
        for (g, group) in dx.chunks_exact_mut(kept.group()).enumerate() {
            let mut at = 0;
            for (c, grad) in channels.iter().zip(grads) {
                let mut factors = vec![0.0; l];
                if let Some(grad) = grad {
                    let count = images_in(g, kept.n);
                    factors[..count].copy_from_slice(&grad.data()[g * l..g * l + count]);
                }
                let len = group_len(*c, h, w, kept.pad);
                let sigmoid = &sigmoid[g * kept.group() + at..][..len];
                for (error, s) in group[at..at + len].chunks_exact_mut(l).zip(sigmoid.chunks_exact(l)) {
                    for lane in 0..l {
                        error[lane] *= 2.0 * factors[lane] * s[lane] * (1.0 - s[lane]);
                    }
                }
                at += len;
            }
        }
        vec![Some(Tensor::new(kept.x.shape(), dx))]
    })
}

/// Turns predictions into differences to the targets, zero in the padding, and adds up their squares by image.
fn subtract_targets(x: &Planes, keys: &[(&[u8], usize)], error: &mut [f32], losses: &mut [Vec<f32>]) {
    let (h, w, l) = (x.height(), x.width(), lanes());
    for (g, group) in error.chunks_exact_mut(x.group()).enumerate() {
        let count = images_in(g, x.n);
        let mut at = 0;
        for ((bytes, c), loss) in keys.iter().zip(losses.iter_mut()) {
            let len = group_len(*c, h, w, x.pad);
            let mut target = Buffer::stale(len);
            let images = &bytes[g * l * h * w * c..][..count * h * w * c];
            u8_to_lanes(images, count, h, w, *c, 255.0, 0.0, &mut target, x.pad);
            // A row of pixels adds up in float32, rows in float64: an image has tens of thousands of terms.
            let mut sums = vec![0.0f64; l];
            let row = (w + 2 * x.pad) * l;
            for (error, target) in group[at..at + len].chunks_exact_mut(row).zip(target.chunks_exact(row)) {
                let mut squares = [0.0f32; 16];
                for (i, (pixel, target)) in error.chunks_exact_mut(l).zip(target.chunks_exact(l)).enumerate() {
                    let inside = (x.pad..x.pad + w).contains(&i);
                    for lane in 0..l {
                        let d = if inside { pixel[lane] - target[lane] } else { 0.0 };
                        pixel[lane] = d;
                        squares[lane] += d * d;
                    }
                }
                sums.iter_mut().zip(squares).for_each(|(a, b)| *a += b as f64);
            }
            for (loss, sum) in loss[g * l..].iter_mut().zip(&sums).take(count) {
                *loss = *sum as f32;
            }
            at += len;
        }
    }
}

/// `sigmoid(logits)` as pictures [n, h, w, c] per key, whose channels are given in order. No gradient.
pub fn images(logits: &Planes, channels: &[usize]) -> Vec<Tensor> {
    let (n, h, w) = (logits.n, logits.height(), logits.width());
    let mut pixels = Buffer::from_slice(logits.x.data());
    math::sigmoid_slice(&mut pixels);
    let mut at = 0;
    let mut key = |c: usize| {
        let len = group_len(c, h, w, logits.pad);
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
                let losses = image_loss(&planes(&x[0], h, w, 4, 1), &[(&a, 1), (&b, 3)]);
                linear_combination(&[(&losses[0], &ca), (&losses[1], &cb)])
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
