//! Softmax over groups of values: narrow ones such as latents, wide ones such as the bins of a two-hot head.

use super::math::exp;
use super::sample::Lanes;
use super::simd::{MAX_LANES, Simd, with_simd};

/// Replaces each group of `n` logits by its probabilities. `log_sums`, if not empty, receives the logarithm of
/// the sum of exponentials of each group.
pub fn softmax_rows(x: &mut [f32], n: usize, log_sums: &mut [f32]) {
    if n == 0 {
        return;
    }
    assert_eq!(x.len() % n, 0, "{} floats in groups of {n}", x.len());
    assert!(log_sums.is_empty() || log_sums.len() == x.len() / n, "{} sums for {} groups", log_sums.len(), x.len() / n);
    if !log_sums.is_empty() || n >= 2 * MAX_LANES {
        return with_simd!(S, {
            for (i, row) in x.chunks_exact_mut(n).enumerate() {
                let log_sum = wide::<S>(row);
                if let Some(to) = log_sums.get_mut(i) {
                    *to = log_sum;
                }
            }
        });
    }
    match n {
        4 => narrow(x, 4), // widths known at compile time
        8 => narrow(x, 8),
        16 => narrow(x, 16),
        _ => narrow(x, n),
    }
}

/// As many groups at a time as there are lanes.
#[inline(always)]
fn narrow(x: &mut [f32], n: usize) {
    with_simd!(S, {
        let mut lanes = Lanes::new();
        for groups in x.chunks_mut(n * S::LANES) {
            lanes.fill(groups, n);
            lanes.softmax::<S>(n, 1.0, 0.0);
            lanes.empty(groups, n);
        }
    })
}

/// One row in a few passes of whole vectors; returns the logarithm of the sum of exponentials.
#[inline(always)]
fn wide<S: Simd>(row: &mut [f32]) -> f32 {
    let whole = row.len() / S::LANES * S::LANES;
    let (p, rest) = (row.as_mut_ptr(), row.len() - whole);
    let mut tail = [f32::NEG_INFINITY; MAX_LANES];
    tail[..rest].copy_from_slice(&row[whole..]);
    let mut max = tail.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // SAFETY: `i + LANES <= whole <= row.len()`, and `tail` holds MAX_LANES floats.
    unsafe {
        let mut m = S::splat(f32::NEG_INFINITY);
        for i in (0..whole).step_by(S::LANES) {
            m = m.max(S::load(p.add(i)));
        }
        let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
        m.store(lanes.as_mut_ptr());
        max = lanes.iter().copied().fold(max, f32::max);

        let m = S::splat(max);
        let mut sum = S::zero();
        for i in (0..whole).step_by(S::LANES) {
            let e = exp(S::load(p.add(i)) - m);
            sum = sum + e;
            e.store(p.add(i));
        }
        for i in (0..MAX_LANES).step_by(S::LANES) {
            let e = exp(S::load(tail.as_ptr().add(i)) - m);
            sum = sum + e;
            e.store(tail.as_mut_ptr().add(i));
        }
        let sum = sum.sum();
        let inverse = 1.0 / sum;
        for i in (0..whole).step_by(S::LANES) {
            (S::load(p.add(i)) * S::splat(inverse)).store(p.add(i));
        }
        row[whole..].iter_mut().zip(tail).for_each(|(x, e)| *x = e * inverse);
        max + sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::on_every_isa;
    use super::*;

    #[test]
    fn probabilities_and_sums_of_any_width() {
        on_every_isa(|| {
            for n in [1, 3, 4, 8, 16, 24, 31, 32, 64, 255, 256] {
                let x: Vec<f32> = (0..3 * n).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.7).collect();
                let (mut p, mut with_sums, mut sums) = (x.clone(), x.clone(), vec![0.0; 3]);
                softmax_rows(&mut p, n, &mut []);
                softmax_rows(&mut with_sums, n, &mut sums);
                for (g, row) in x.chunks(n).enumerate() {
                    let total: f64 = row.iter().map(|&v| (v as f64).exp()).sum();
                    assert!((sums[g] as f64 - total.ln()).abs() < 1e-5 * total.ln().abs().max(1.0), "{n}");
                    for (j, &v) in row.iter().enumerate() {
                        let exact = (v as f64).exp() / total;
                        for got in [p[g * n + j], with_sums[g * n + j]] {
                            // The difference to the largest logit is rounded before its exponential is taken.
                            assert!((got as f64 - exact).abs() < 1e-5 * exact + 1e-30, "{n}: {got} {exact}");
                        }
                    }
                }
            }
        });
    }
}
