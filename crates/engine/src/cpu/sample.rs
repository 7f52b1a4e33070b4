//! Samples from narrow categorical distributions: as many groups at a time as a vector has lanes.

use super::math::exp;
use super::simd::{MAX_LANES, Simd, with_simd};

/// The widest group for which one group per lane fits the registers and the nearest cache.
pub const NARROW: usize = 64;

/// Several groups, one per lane: row `j` holds element `j` of each.
#[repr(align(64))]
pub(super) struct Lanes(pub [[f32; MAX_LANES]; NARROW]);

impl Lanes {
    pub fn new() -> Self {
        Lanes([[0.0; MAX_LANES]; NARROW])
    }

    /// Loads groups of `n` numbers; lanes without a group keep their old contents.
    #[inline(always)]
    pub fn fill(&mut self, groups: &[f32], n: usize) {
        for (g, group) in groups.chunks_exact(n).enumerate() {
            for (to, v) in self.0.iter_mut().zip(group) {
                to[g] = *v;
            }
        }
    }

    /// Writes the groups back.
    #[inline(always)]
    pub fn empty(&self, groups: &mut [f32], n: usize) {
        for (g, group) in groups.chunks_exact_mut(n).enumerate() {
            for (from, v) in self.0.iter().zip(group) {
                *v = from[g];
            }
        }
    }

    #[inline(always)]
    fn get<S: Simd>(&self, j: usize) -> S {
        // SAFETY: a row holds MAX_LANES floats.
        unsafe { S::load(self.0[j].as_ptr()) }
    }

    #[inline(always)]
    fn set<S: Simd>(&mut self, j: usize, v: S) {
        // SAFETY: a row holds MAX_LANES floats.
        unsafe { v.store(self.0[j].as_mut_ptr()) }
    }

    /// Replaces the first `n` elements, which are logits, by `scale p + offset` with their probabilities `p`.
    #[inline(always)]
    pub fn softmax<S: Simd>(&mut self, n: usize, scale: f32, offset: f32) {
        let mut max = self.get::<S>(0);
        for j in 1..n {
            max = max.max(self.get(j));
        }
        let mut sum = S::zero();
        for j in 0..n {
            let e = exp(self.get::<S>(j) - max);
            sum = sum + e;
            self.set(j, e);
        }
        let factor = S::splat(scale) / sum;
        for j in 0..n {
            self.set(j, self.get::<S>(j).mul_add(factor, S::splat(offset)));
        }
    }

    /// The index of the first element at which the running sum exceeds the fraction `u` of the total.
    #[inline(always)]
    fn quantile<S: Simd>(&self, n: usize, u: S) -> S {
        let mut total = S::zero();
        for j in 0..n {
            total = total + self.get(j);
        }
        let (target, one) = (u * total, S::splat(1.0));
        let (mut sum, mut count) = (S::zero(), S::zero());
        for j in 0..n {
            sum = sum + self.get(j);
            count = count + S::select(target.lt(sum), S::zero(), one);
        }
        count.min(S::splat(n as f32 - 1.0)) // rounding may leave the last sum short of the target
    }
}

/// Draws a class for each group of `n` logits from its probabilities mixed with a share `unimix` of a uniform
/// distribution, and calls `f(group, class)`. `uniform` has a number in (0, 1) for each group; `n` is at most [`NARROW`].
pub fn sample_classes(logits: &[f32], n: usize, unimix: f32, uniform: &[f32], mut f: impl FnMut(usize, usize)) {
    assert!((1..=NARROW).contains(&n), "groups of {n}, not 1 to {NARROW}");
    assert_eq!(logits.len(), n * uniform.len(), "logits of {} groups of {n}", uniform.len());
    let (scale, offset) = (1.0 - unimix, unimix / n as f32);
    let mut group = 0;
    with_simd!(S, {
        let mut lanes = Lanes::new();
        for (x, u) in logits.chunks(n * S::LANES).zip(uniform.chunks(S::LANES)) {
            lanes.fill(x, n);
            lanes.softmax::<S>(n, scale, offset);
            let mut row = [0.0; MAX_LANES];
            row[..u.len()].copy_from_slice(u);
            // SAFETY: `row` holds MAX_LANES floats.
            unsafe { lanes.quantile::<S>(n, S::load(row.as_ptr())).store(row.as_mut_ptr()) };
            for class in &row[..u.len()] {
                f(group, *class as usize);
                group += 1;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::simd::on_every_isa;
    use super::*;

    /// Away from the edges between classes, which rounding may move, every class is the exact one.
    #[test]
    fn classes_are_quantiles_of_the_mixed_distribution() {
        on_every_isa(|| {
            for (n, groups, unimix) in [(1, 3, 0.0), (4, 37, 0.01), (6, 16, 0.3), (64, 5, 0.0)] {
                let x: Vec<f32> = (0..n * groups).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.1).collect();
                let u: Vec<f32> = (0..groups).map(|i| (i as f32 + 0.5) / groups as f32).collect();
                let mut classes = vec![0; groups];
                sample_classes(&x, n, unimix, &u, |g, class| classes[g] = class);
                for (g, row) in x.chunks(n).enumerate() {
                    let total: f64 = row.iter().map(|&v| (v as f64).exp()).sum();
                    let p = |v: f32| (1.0 - unimix as f64) * (v as f64).exp() / total + unimix as f64 / n as f64;
                    let below: f64 = row[..classes[g]].iter().map(|&v| p(v)).sum();
                    let u = u[g] as f64;
                    assert!(below - 1e-6 <= u && u <= below + p(row[classes[g]]) + 1e-6, "{n}: group {g}");
                }
            }
        });
    }

    #[test]
    fn the_ends_of_the_interval_and_bad_numbers_stay_inside() {
        on_every_isa(|| {
            let mut classes = [9; 3];
            let x = [0.0, 1.0, f32::NAN, 0.0, -200.0, 0.0];
            sample_classes(&x, 2, 0.0, &[1.0, 0.5, 1e-7], |g, class| classes[g] = class);
            assert_eq!(classes, [1, 1, 1]);
        });
    }
}
