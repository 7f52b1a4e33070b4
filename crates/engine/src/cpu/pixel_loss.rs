//! The squared error of predicted pixels in the lanes layout, with its gradient, in one pass.

use super::conv::group_len;
use super::math::sigmoid;
use super::simd::{MAX_LANES, Simd, with_simd};

/// Adds to `losses` the squared error of `sigmoid(logits)` against `targets`, by image, for one group of
/// `[c][h][w + 2 pad][lanes]` each. `grad`, of the same layout or empty, receives the gradient of each image's loss.
pub fn pixel_loss(
    [c, h, w]: [usize; 3],
    pad: usize,
    logits: &[f32],
    targets: &[f32],
    losses: &mut [f64; MAX_LANES],
    grad: &mut [f32],
) {
    let len = group_len(c, h, w, pad);
    assert!(logits.len() == len && targets.len() == len, "{len} logits and targets of [{c}, {h}, {w} + 2 * {pad}]");
    assert!(grad.is_empty() || grad.len() == len, "a gradient of {len} logits");
    let want = !grad.is_empty();
    grad.fill(0.0); // the padding stays zero
    let (logits, targets, grad) = (logits.as_ptr(), targets.as_ptr(), grad.as_mut_ptr());
    with_simd!(S, {
        let (one, two) = (S::splat(1.0), S::splat(2.0));
        for row in 0..c * h {
            // A row of pixels adds up in float32, rows in float64: an image has tens of thousands of terms.
            let mut squares = S::zero();
            for x in pad..pad + w {
                let at = (row * (w + 2 * pad) + x) * S::LANES;
                // SAFETY: the pixel exists in every buffer, by the lengths checked above.
                unsafe {
                    let s = sigmoid(S::load(logits.add(at)));
                    let d = s - S::load(targets.add(at));
                    squares = d.mul_add(d, squares);
                    if want {
                        (two * d * s * (one - s)).store(grad.add(at));
                    }
                }
            }
            let mut lanes = [0.0f32; MAX_LANES];
            // SAFETY: `lanes` holds MAX_LANES floats.
            unsafe { squares.store(lanes.as_mut_ptr()) };
            losses.iter_mut().zip(lanes).for_each(|(sum, x)| *sum += x as f64);
        }
    })
}

/// Multiplies every lane of a group by its factor.
pub fn scale_lanes(group: &mut [f32], factors: &[f32; MAX_LANES]) {
    assert_eq!(group.len() % super::lanes(), 0, "{} floats are no whole vectors", group.len());
    with_simd!(S, {
        for pixel in group.chunks_exact_mut(S::LANES) {
            // SAFETY: the pixel and the factors are at least a vector long.
            unsafe { (S::load(pixel.as_ptr()) * S::load(factors.as_ptr())).store(pixel.as_mut_ptr()) };
        }
    })
}
