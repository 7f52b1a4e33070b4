//! Norm and activation over the rows of a matrix.

use super::act::{apply, derive, load4, store4};
use super::{Norm, NormAct};
use crate::cpu::simd::{Simd, four, with_simd};

/// `out[m, n] = act(norm(x[m, n]))` over each row.
///
/// `stats[m, 2]` receives each row's mean (0 unless the norm is `Layer`) and inverse deviation (1 for `None`), which
/// the gradient needs.
pub fn norm_act_rows(op: &NormAct, m: usize, n: usize, x: &[f32], out: &mut [f32], stats: &mut [f32]) {
    op.check(n);
    assert!(x.len() == m * n && out.len() == m * n, "[{m}, {n}] from {} to {} floats", x.len(), out.len());
    assert_eq!(stats.len(), 2 * m, "statistics of {m} rows");
    let row = Row { op, n, scale: op.scale.as_ptr(), shift: op.shift.as_ptr() };
    let (x, out) = (x.as_ptr(), out.as_mut_ptr());
    with_simd!(S, {
        for (i, stats) in stats.chunks_exact_mut(2).enumerate() {
            // SAFETY: row i exists in both, by the lengths checked above.
            unsafe { row.forward::<S>(x.add(i * n), out.add(i * n), stats) };
        }
    })
}

/// `dx[m, n]` from the gradient `g[m, n]` of [`norm_act_rows`]' output; `dx` is overwritten.
///
/// The gradients of the parameters, `dscale[n]` and `dshift[n]`, are added to, and may be empty where the kind of
/// normalisation has none. `x` and `stats` are the input and the statistics of the forward pass.
#[allow(clippy::too_many_arguments)] // the operands of a gradient
pub fn norm_act_rows_grad(
    op: &NormAct,
    m: usize,
    n: usize,
    x: &[f32],
    stats: &[f32],
    g: &[f32],
    dx: &mut [f32],
    dscale: &mut [f32],
    dshift: &mut [f32],
) {
    op.check(n);
    op.check_grads(n, dscale, dshift);
    let lengths = [x.len(), g.len(), dx.len()];
    assert_eq!(lengths, [m * n; 3], "lengths of x, g and dx of [{m}, {n}]");
    assert_eq!(stats.len(), 2 * m, "statistics of {m} rows");
    let row = Row { op, n, scale: op.scale.as_ptr(), shift: op.shift.as_ptr() };
    let (x, g, dx) = (x.as_ptr(), g.as_ptr(), dx.as_mut_ptr());
    let (dscale, dshift) = (dscale.as_mut_ptr(), dshift.as_mut_ptr());
    with_simd!(S, {
        for (i, stats) in stats.chunks_exact(2).enumerate() {
            // SAFETY: row i exists in all three, by the lengths checked above.
            unsafe { row.backward::<S>([x.add(i * n), g.add(i * n)], dx.add(i * n), stats, dscale, dshift) };
        }
    })
}

struct Row<'a> {
    op: &'a NormAct<'a>,
    n: usize,
    scale: *const f32,
    shift: *const f32,
}

#[inline(always)]
fn total<S: Simd>([a, b, c, d]: [S; 4]) -> f32 {
    ((a + b) + (c + d)).sum()
}

impl Row<'_> {
    /// Mean and inverse deviation.
    #[inline(always)]
    unsafe fn stats<S: Simd>(&self, x: *const f32) -> (f32, f32) {
        if self.op.norm == Norm::None {
            return (0.0, 1.0);
        }
        let (mut sum, mut squares) = ([S::zero(); 4], [S::zero(); 4]);
        for j in (0..self.n).step_by(4 * S::LANES) {
            // SAFETY: `n - j` floats are left.
            let v = unsafe { load4::<S>(x.add(j), self.n - j) };
            for i in 0..4 {
                sum[i] = sum[i] + v[i];
                squares[i] = v[i].mul_add(v[i], squares[i]);
            }
        }
        let mut spread = total(squares) / self.n as f32;
        let mut mean = 0.0;
        if self.op.norm == Norm::Layer {
            mean = total(sum) / self.n as f32;
            spread -= mean * mean;
            spread = if spread < 0.0 { 0.0 } else { spread }; // NaN stays
        }
        (mean, 1.0 / (spread + self.op.epsilon).sqrt())
    }

    /// Scales and shifts of the features from `j`.
    #[inline(always)]
    unsafe fn parameters<S: Simd>(&self, j: usize) -> ([S; 4], [S; 4]) {
        let ones = [S::splat(1.0); 4];
        let zeros = [S::zero(); 4];
        // SAFETY: where the kind has them, there are `n` of each.
        unsafe {
            match self.op.norm {
                Norm::None => (ones, zeros),
                Norm::Rms => (load4(self.scale.add(j), self.n - j), zeros),
                Norm::Layer => (load4(self.scale.add(j), self.n - j), load4(self.shift.add(j), self.n - j)),
            }
        }
    }

    #[inline(always)]
    unsafe fn forward<S: Simd>(&self, x: *const f32, out: *mut f32, stats: &mut [f32]) {
        // SAFETY: `n` floats in `x` and `out`, of which `n - j` are left.
        unsafe {
            let (mean, inverse) = self.stats::<S>(x);
            (stats[0], stats[1]) = (mean, inverse);
            let (mean, inverse) = (S::splat(mean), S::splat(inverse));
            for j in (0..self.n).step_by(4 * S::LANES) {
                let (scale, shift) = self.parameters::<S>(j);
                let v = load4::<S>(x.add(j), self.n - j);
                let mut z = four!(i => ((v[i] - mean) * inverse).mul_add(scale[i], shift[i]));
                apply(self.op.act, &mut z);
                store4(z, out.add(j), self.n - j);
            }
        }
    }

    #[inline(always)]
    unsafe fn backward<S: Simd>(
        &self,
        [x, g]: [*const f32; 2],
        dx: *mut f32,
        stats: &[f32],
        dscale: *mut f32,
        dshift: *mut f32,
    ) {
        let (mean, inverse) = (S::splat(stats[0]), S::splat(stats[1]));
        let (mut sum, mut product) = ([S::zero(); 4], [S::zero(); 4]);
        // SAFETY: `n` floats in every row and, where the kind has them, in the parameters' gradients.
        unsafe {
            for j in (0..self.n).step_by(4 * S::LANES) {
                let left = self.n - j;
                let (scale, shift) = self.parameters::<S>(j);
                let (v, g) = (load4::<S>(x.add(j), left), load4::<S>(g.add(j), left));
                let n: [S; 4] = four!(i => (v[i] - mean) * inverse);
                let mut dz = four!(i => n[i].mul_add(scale[i], shift[i]));
                derive(self.op.act, &mut dz);
                for i in 0..4 {
                    dz[i] = dz[i] * g[i];
                }
                if self.op.norm != Norm::None {
                    let old = load4::<S>(dscale.add(j), left);
                    store4(four!(i => dz[i].mul_add(n[i], old[i])), dscale.add(j), left);
                }
                if self.op.norm == Norm::Layer {
                    let old = load4::<S>(dshift.add(j), left);
                    store4(four!(i => old[i] + dz[i]), dshift.add(j), left);
                }
                for i in 0..4 {
                    dz[i] = dz[i] * scale[i];
                    sum[i] = sum[i] + dz[i];
                    product[i] = dz[i].mul_add(n[i], product[i]);
                }
                store4(dz, dx.add(j), left);
            }
            if self.op.norm == Norm::None {
                return;
            }
            // Where rounding made the variance negative it was set to zero and has no gradient.
            let live = self.op.norm == Norm::Rms || stats[1] < 1.0 / self.op.epsilon.sqrt();
            let share = if live { -total(product) / self.n as f32 } else { 0.0 };
            let offset = if self.op.norm == Norm::Layer { total(sum) / self.n as f32 } else { 0.0 };
            let (share, offset) = (S::splat(share), S::splat(offset));
            for j in (0..self.n).step_by(4 * S::LANES) {
                let left = self.n - j;
                let (v, dn) = (load4::<S>(x.add(j), left), load4::<S>(dx.add(j), left));
                let d = four!(i => ((v[i] - mean) * inverse).mul_add(share, dn[i] - offset) * inverse);
                store4(d, dx.add(j), left);
            }
        }
    }
}
