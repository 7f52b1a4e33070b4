//! Images in the lanes layout of the convolution kernels, and the ways in and out of it.

use super::images_gpu;
use crate::buffer::Buffer;
use crate::bytes::Pixels;
use crate::cpu::conv::{f32_to_lanes, group_len, lanes_to_f32, u8_to_lanes};
use crate::cpu::lanes;
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// A batch of images as groups of lanes: [groups, channels, height, width + 2 pad, lanes] with `pad` columns of zeros
/// at either side. The last group may have empty lanes. On a GPU they are [n, height, width, stored channels], without
/// lanes and padding; surplus stored channels hold zeros.
#[derive(Clone)]
pub struct Planes {
    pub x: Tensor,
    /// Number of images.
    pub n: usize,
    pub pad: usize,
    /// Channels, height and width.
    pub(super) size: [usize; 3],
}

impl Planes {
    pub fn channels(&self) -> usize {
        self.size[0]
    }

    pub fn height(&self) -> usize {
        self.size[1]
    }

    pub fn width(&self) -> usize {
        self.size[2]
    }

    /// Floats of one group.
    pub(super) fn group(&self) -> usize {
        self.x.len() / self.x.dim(0).max(1)
    }

    /// Floats of `c` channels of one group.
    pub(super) fn key_len(&self, c: usize) -> usize {
        group_len(c, self.height(), self.width(), self.pad)
    }

    /// The same images with other contents, of `channels`, `height` and `width`.
    pub(super) fn like(&self, size: [usize; 3], buffer: Buffer) -> Planes {
        let x = Tensor::new(&planes_shape(self.n, size, self.pad), buffer);
        Planes { x, size, ..*self }
    }
}

/// The tensor shape of `n` images of [channels, height, width].
pub(super) fn planes_shape(n: usize, [c, h, w]: [usize; 3], pad: usize) -> [usize; 5] {
    [n.div_ceil(lanes()), c, h, w + 2 * pad, lanes()]
}

/// Images in group `g` out of `n`.
pub(super) fn images_in(g: usize, n: usize) -> usize {
    lanes().min(n - g * lanes())
}

/// uint8 images [n, h, w, c] -> `value / 255 - 0.5`, as the encoder takes them. Several keys are joined along the channels.
pub fn byte_planes(keys: &[(Pixels, usize)], n: usize, h: usize, w: usize, pad: usize, device: Device) -> Planes {
    if let Device::Gpu(gpu) = device {
        return images_gpu::byte_planes(gpu, keys, n, h, w);
    }
    let channels: usize = keys.iter().map(|(_, c)| c).sum();
    let shape = planes_shape(n, [channels, h, w], pad);
    let mut out = Buffer::stale(shape.iter().product());
    for (g, group) in out.chunks_exact_mut(group_len(channels, h, w, pad)).enumerate() {
        let mut at = 0;
        for (bytes, c) in keys {
            let images = &bytes.host()[g * lanes() * h * w * c..][..images_in(g, n) * h * w * c];
            let len = group_len(*c, h, w, pad);
            u8_to_lanes(images, images_in(g, n), h, w, *c, 255.0, 0.5, &mut group[at..at + len], pad);
            at += len;
        }
    }
    Planes { x: Tensor::new(&shape, out), n, pad, size: [channels, h, w] }
}

/// Rows [n, h * w * c] -> images. `pad` is for the processor's kernels.
pub fn planes(x: &Tensor, h: usize, w: usize, c: usize, pad: usize) -> Planes {
    let n = x.dim(0);
    let pad = if x.device() == Device::Cpu { pad } else { 0 };
    let y = into_planes(x, [n, h, w, c], c, pad);
    let y =
        if recording(&[x]) { record1(&[x], y, move |dy, _| vec![Some(from_planes(dy, [n, h, w, c], pad))]) } else { y };
    Planes { x: y, n, pad, size: [c, h, w] }
}

/// Images -> rows [n, h * w * c].
pub fn rows_of_planes(x: &Planes) -> Tensor {
    let (size, pad) = ([x.n, x.height(), x.width(), x.channels()], x.pad);
    let y = from_planes(&x.x, size, pad);
    if !recording(&[&x.x]) {
        return y;
    }
    let stored = x.x.dim(3);
    record1(&[&x.x], y, move |dy, _| vec![Some(into_planes(dy, size, stored, pad))])
}

/// `stored` are the channels that a GPU keeps for each pixel.
fn into_planes(x: &Tensor, [n, h, w, c]: [usize; 4], stored: usize, pad: usize) -> Tensor {
    match x.device() {
        Device::Cpu => {
            let shape = planes_shape(n, [c, h, w], pad);
            let mut out = Buffer::stale(shape.iter().product());
            enter(x.data(), [n, h, w, c], pad, &mut out);
            Tensor::new(&shape, out)
        }
        Device::Gpu(gpu) => images_gpu::resize_pixels(gpu, x, [c, stored], &[n, h, w, stored]),
    }
}

fn from_planes(x: &Tensor, [n, h, w, c]: [usize; 4], pad: usize) -> Tensor {
    match x.device() {
        Device::Cpu => {
            let mut out = Buffer::stale(n * h * w * c);
            leave(x.data(), [n, h, w, c], pad, &mut out);
            Tensor::new(&[n, h * w * c], out)
        }
        Device::Gpu(gpu) => images_gpu::resize_pixels(gpu, x, [x.width(), c], &[n, h * w * c]),
    }
}

fn enter(rows: &[f32], [n, h, w, c]: [usize; 4], pad: usize, out: &mut [f32]) {
    for (g, group) in out.chunks_exact_mut(group_len(c, h, w, pad)).enumerate() {
        let count = images_in(g, n);
        let rows = &rows[g * lanes() * h * w * c..][..count * h * w * c];
        f32_to_lanes(rows, count, h, w, c, group, pad);
    }
}

fn leave(groups: &[f32], [n, h, w, c]: [usize; 4], pad: usize, rows: &mut [f32]) {
    for (g, group) in groups.chunks_exact(group_len(c, h, w, pad)).enumerate() {
        let count = images_in(g, n);
        let rows = &mut rows[g * lanes() * h * w * c..][..count * h * w * c];
        lanes_to_f32(group, count, h, w, c, pad, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;

    #[test]
    fn there_and_back_with_gradient() {
        for (n, h, w, c) in [(1, 2, 3, 1), (19, 3, 2, 5)] {
            check(&[&[n, h * w * c]], |x| rows_of_planes(&planes(&x[0], h, w, c, 2)), |x| x[0].clone());
        }
    }

    #[test]
    fn bytes_are_centred_and_keys_joined() {
        let (a, b) = ([0u8, 255, 51, 102], [255u8, 0, 0, 255, 0, 0, 0, 255]);
        let keys = [(Pixels::Host(&a), 1), (Pixels::Host(&b), 2)];
        let x = byte_planes(&keys, 2, 1, 2, 1, Device::Cpu);
        assert_eq!((x.channels(), x.height(), x.width()), (3, 1, 2));
        let rows = rows_of_planes(&x);
        let expected = [0.0, 255.0, 0.0, 255.0, 0.0, 255.0, 51.0, 0.0, 0.0, 102.0, 0.0, 255.0];
        assert_eq!(rows.data(), expected.map(|v: f32| v / 255.0 - 0.5));
    }
}
