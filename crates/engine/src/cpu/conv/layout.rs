//! Converts images to and from the lanes layout.

use super::{check_group, zero_padding};
use crate::cpu::simd::{MAX_LANES, Simd, with_simd};

/// Bytes of one image that are transposed at a time.
const CHUNK: usize = 16;

/// Writes `byte / divisor - subtract` of `images[n, h, w, c]` to `out[c][h][w + 2 pad][lanes]`; lanes from `n` on are
/// zero.
///
/// Both operations are in float32: `divisor` 255 and `subtract` 0.5 give exactly the encoder's input.
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
    let row = (w + 2 * pad) * lanes;
    let (mut channel, mut x, mut at) = (0, 0, pad * lanes); // of the byte to be written next
    with_simd!(S, {
        for first in (0..size).step_by(CHUNK) {
            let used = CHUNK.min(size - first);
            let mut bytes = [[0u8; CHUNK]; MAX_LANES];
            for (lane, image) in images.chunks_exact(size).enumerate() {
                if used == CHUNK {
                    bytes[lane].copy_from_slice(&image[first..first + CHUNK]);
                } else {
                    bytes[lane][..used].copy_from_slice(&image[first..]);
                }
            }
            for column in &transpose(bytes)[..used] {
                let values = column.map(
                    #[inline(always)]
                    |byte| byte as f32 / divisor - subtract,
                );
                let to = &mut out[channel * h * row + at..][..S::LANES];
                to.copy_from_slice(&values[..S::LANES]);
                to[n..].fill(0.0);
                channel += 1;
                if channel == c {
                    (channel, x, at) = (0, x + 1, at + lanes);
                    if x == w {
                        (x, at) = (0, at + 2 * pad * lanes);
                    }
                }
            }
        }
    })
}

/// A 16x16 transpose: four rounds of interleaving rows `i` and `i + 8`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose(rows: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of the x86-64 target; the arrays are sixteen bytes, loaded without alignment.
    unsafe {
        let mut from: [__m128i; 16] = std::array::from_fn(|i| _mm_loadu_si128(rows[i].as_ptr().cast()));
        for _ in 0..4 {
            from = std::array::from_fn(|i| {
                let (a, b) = (from[i / 2], from[i / 2 + 8]);
                if i % 2 == 0 { _mm_unpacklo_epi8(a, b) } else { _mm_unpackhi_epi8(a, b) }
            });
        }
        let mut columns = [[0; 16]; 16];
        for i in 0..16 {
            _mm_storeu_si128(columns[i].as_mut_ptr().cast(), from[i]);
        }
        columns
    }
}

/// A 16x16 transpose.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transpose(rows: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
}

/// Copies floats `images[n, h, w, c]` to `out[c][h][w + 2 pad][lanes]`; lanes from `n` on are zero.
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

/// Copies the first `n` lanes of `group[c][h][w + 2 pad][lanes]` to `images[n, h, w, c]`.
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
