//! Images in and out of the lanes layout.

use super::{check_group, zero_padding};
use crate::cpu::simd::{MAX_LANES, with_simd};

/// Bytes of one image that are transposed at a time.
const CHUNK: usize = 16;

/// `value / divisor - subtract` of bytes `images[n, h, w, c]` into `out[c][h][w + 2 pad][lanes]`; lanes `n..` get zero.
///
/// Both operations round as float32 does: `divisor` 255 and `subtract` 0.5 are the encoder's input exactly.
#[allow(clippy::too_many_arguments)] // the sizes of a batch of images
pub fn u8_to_lanes(
    images: &[u8],
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    divisor: f32,
    subtract: f32,
    out: &mut [f32],
    pad: usize,
) {
    let (lanes, size) = (crate::cpu::lanes(), h * w * c);
    assert!(n <= lanes, "{n} images for {lanes} lanes");
    assert_eq!(images.len(), n * size, "{n} images of {h} x {w} x {c} bytes");
    check_group("out", out.len(), [c, h, w], pad, 0);
    zero_padding(out, c * h, w, pad);
    let mut values = [[0.0f32; MAX_LANES]; CHUNK];
    with_simd!(S, {
        for first in (0..size).step_by(CHUNK) {
            let used = CHUNK.min(size - first);
            let mut bytes = [[0u8; CHUNK]; MAX_LANES];
            for (lane, image) in images.chunks_exact(size.max(1)).enumerate() {
                bytes[lane][..used].copy_from_slice(&image[first..first + used]);
            }
            let bytes = transpose(bytes);
            for (value, byte) in values.iter_mut().zip(&bytes) {
                for lane in 0..MAX_LANES {
                    value[lane] = if lane < n { byte[lane] as f32 / divisor - subtract } else { 0.0 };
                }
            }
            for (i, value) in values[..used].iter().enumerate() {
                let (pixel, channel) = ((first + i) / c, (first + i) % c);
                let at = (channel * h + pixel / w) * (w + 2 * pad) + pad + pixel % w;
                out[at * lanes..][..lanes].copy_from_slice(&value[..lanes]);
            }
        }
    })
}

/// A 16x16 transpose as four rounds of interleaving rows `i` and `i + 8`, which compile to byte shuffles.
#[inline(always)]
fn transpose(mut from: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    for _ in 0..4 {
        let mut to = [[0u8; 16]; 16];
        for i in 0..8 {
            for j in 0..8 {
                to[2 * i][2 * j] = from[i][j];
                to[2 * i][2 * j + 1] = from[i + 8][j];
                to[2 * i + 1][2 * j] = from[i][j + 8];
                to[2 * i + 1][2 * j + 1] = from[i + 8][j + 8];
            }
        }
        from = to;
    }
    from
}

/// Floats `images[n, h, w, c]` into `out[c][h][w + 2 pad][lanes]`; lanes `n..` get zero.
pub fn f32_to_lanes(images: &[f32], n: usize, h: usize, w: usize, c: usize, out: &mut [f32], pad: usize) {
    let (lanes, size) = (crate::cpu::lanes(), h * w * c);
    assert!(n <= lanes, "{n} images for {lanes} lanes");
    assert_eq!(images.len(), n * size, "{n} images of {h} x {w} x {c} floats");
    check_group("out", out.len(), [c, h, w], pad, 0);
    zero_padding(out, c * h, w, pad);
    for (row, to) in out.chunks_exact_mut(((w + 2 * pad) * lanes).max(1)).take(c * h).enumerate() {
        let (channel, y) = (row / h, row % h);
        for (x, to) in to[pad * lanes..].chunks_exact_mut(lanes).take(w).enumerate() {
            let at = (y * w + x) * c + channel;
            for (lane, v) in to.iter_mut().enumerate() {
                *v = if lane < n { images[lane * size + at] } else { 0.0 };
            }
        }
    }
}

/// The first `n` lanes of `group[c][h][w + 2 pad][lanes]` into `images[n, h, w, c]`.
pub fn lanes_to_f32(group: &[f32], n: usize, h: usize, w: usize, c: usize, pad: usize, images: &mut [f32]) {
    let (lanes, size) = (crate::cpu::lanes(), h * w * c);
    assert!(n <= lanes, "{n} images of {lanes} lanes");
    assert_eq!(images.len(), n * size, "{n} images of {h} x {w} x {c} floats");
    check_group("group", group.len(), [c, h, w], pad, 0);
    for (row, from) in group.chunks_exact(((w + 2 * pad) * lanes).max(1)).take(c * h).enumerate() {
        let (channel, y) = (row / h, row % h);
        for (x, from) in from[pad * lanes..].chunks_exact(lanes).take(w).enumerate() {
            let at = (y * w + x) * c + channel;
            for (lane, v) in from[..n].iter().enumerate() {
                images[lane * size + at] = *v;
            }
        }
    }
}
