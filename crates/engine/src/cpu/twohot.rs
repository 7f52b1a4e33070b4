//! Two-hot heads in one pass a row: softmax, prediction, and loss with its gradient.

use super::math::exp;
use super::simd::{MAX_LANES, Simd, with_simd};

/// The expected value of `bins`, symmetric around zero, under the probabilities of each row of `logits[m, bins]`.
///
/// Each bin is paired with its mirror image, so that a symmetric distribution gives exactly zero.
pub fn predict_rows(logits: &[f32], bins: &[f32], out: &mut [f32]) {
    let n = bins.len();
    assert!(n > 0 && logits.len() == n * out.len(), "{} logits in {} rows of {n}", logits.len(), out.len());
    let half = n / 2;
    let upper = &bins[n - half..];
    let mut weights = vec![0.0; n];
    with_simd!(S, {
        for (row, out) in logits.chunks_exact(n).zip(out) {
            let (_, sum) = exponentials::<S>(row, &mut weights);
            let (low, high) = (&weights[..half], &weights[n - half..]);
            // Independent partial sums: no addition waits for the previous one.
            let mut sums = [0.0f32; MAX_LANES];
            let whole = half / MAX_LANES * MAX_LANES;
            for i in (0..whole).step_by(MAX_LANES) {
                let (bins, high) = (&upper[i..i + MAX_LANES], &high[i..i + MAX_LANES]);
                let low = &low[half - i - MAX_LANES..half - i];
                for j in 0..MAX_LANES {
                    sums[j] += (high[j] - low[MAX_LANES - 1 - j]) * bins[j];
                }
            }
            for i in whole..half {
                sums[i - whole] += (high[i] - low[half - 1 - i]) * upper[i];
            }
            let centre = if n % 2 == 1 { weights[half] * bins[half] } else { 0.0 };
            *out = (centre + sums.iter().sum::<f32>()) / sum;
        }
    })
}

/// A two-hot target: two bins with their weights.
pub type TwoHot = [(usize, f32); 2];

/// The cross-entropy of each row of `logits[m, n]` with its targets, each with a coefficient.
///
/// `targets(i, f)` calls `f(two_hot, coefficient)` for every target of row `i`; the coefficients add up to `total` in
/// every row. `grad[m, n]`, if not empty, receives the gradient of each row's loss.
pub fn loss_rows(
    logits: &[f32],
    n: usize,
    total: f32,
    targets: impl Fn(usize, &mut dyn FnMut(TwoHot, f32)),
    loss: &mut [f32],
    grad: &mut [f32],
) {
    assert!(n > 0 && logits.len() == n * loss.len(), "{} logits in {} rows of {n}", logits.len(), loss.len());
    assert!(grad.is_empty() || grad.len() == logits.len(), "a gradient of {} logits", logits.len());
    let mut spare = vec![0.0; n];
    for (i, (row, loss)) in logits.chunks_exact(n).zip(loss).enumerate() {
        let p = if grad.is_empty() { &mut spare[..] } else { &mut grad[i * n..(i + 1) * n] };
        let log_sum = with_simd!(S, {
            let (max, sum) = exponentials::<S>(row, p);
            let factor = total / sum;
            p.iter_mut().for_each(|x| *x *= factor);
            max + sum.ln()
        });
        *loss = 0.0;
        targets(i, &mut |two_hot, coefficient| {
            for (bin, weight) in two_hot {
                *loss -= coefficient * weight * (row[bin] - log_sum);
                p[bin] -= coefficient * weight;
            }
        });
    }
}

/// `out = e^(x - max x)`; returns the maximum and the sum.
#[inline(always)]
fn exponentials<S: Simd>(x: &[f32], out: &mut [f32]) -> (f32, f32) {
    assert_eq!(x.len(), out.len());
    let whole = x.len() / S::LANES * S::LANES;
    let rest = x.len() - whole;
    let (from, to) = (x.as_ptr(), out.as_mut_ptr());
    let mut tail = [f32::NEG_INFINITY; MAX_LANES];
    tail[..rest].copy_from_slice(&x[whole..]);
    // SAFETY: `i + LANES <= whole`, and `x` and `out` are as long; `tail` holds MAX_LANES floats.
    unsafe {
        let mut max = S::load(tail.as_ptr());
        for i in (0..whole).step_by(S::LANES) {
            max = max.max(S::load(from.add(i)));
        }
        let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
        max.store(lanes.as_mut_ptr());
        let max = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let m = S::splat(max);
        let mut sum = S::zero();
        for i in (0..whole).step_by(S::LANES) {
            let e = exp(S::load(from.add(i)) - m);
            sum = sum + e;
            e.store(to.add(i));
        }
        let e = exp(S::load(tail.as_ptr()) - m);
        e.store_first(to.add(whole), rest);
        (max, (sum + e).sum())
    }
}
