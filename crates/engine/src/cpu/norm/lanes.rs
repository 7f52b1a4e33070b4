//! Norm and activation over the channels of each pixel, for a group of images in the lanes layout.

use super::act::{apply, derive};
use super::{Norm, NormAct};
use crate::cpu::conv::{check_group, zero_padding};
use crate::cpu::simd::{Simd, four, with_simd};

/// `out = act(norm(x))` for one group, over its channels.
///
/// `x` is `[channels][h][w + 2 xpad][lanes]`, `out` the same with `opad`.
#[allow(clippy::too_many_arguments)] // two buffers with their padding
pub fn norm_act_lanes(
    op: &NormAct,
    channels: usize,
    h: usize,
    w: usize,
    x: &[f32],
    xpad: usize,
    out: &mut [f32],
    opad: usize,
) {
    op.check(channels);
    check_group("x", x.len(), [channels, h, w], xpad, 0);
    check_group("out", out.len(), [channels, h, w], opad, 0);
    zero_padding(out, channels * h, w, opad);
    let job = Job { op, channels, h, w };
    let (x, out) = (Plane { p: x.as_ptr().cast_mut(), pad: xpad }, Plane { p: out.as_mut_ptr(), pad: opad });
    with_simd!(S, {
        for (y, x0) in job.blocks() {
            // SAFETY: the lengths were checked above; only `out` is written.
            unsafe { job.forward::<S>(x.at::<S>(&job, y, x0), out.at::<S>(&job, y, x0)) };
        }
    })
}

/// `dx` from the gradient `g` of `norm_act_lanes`' output, and the parameters' gradients per lane.
///
/// `x`, `g` and `dx` are `[channels][h][w + 2 pad][lanes]` with their own padding; `dx` is overwritten.
/// `dscale` and `dshift`, `[channels][lanes]`, are added to (see [`reduce_bias_grad`](crate::cpu::conv::reduce_bias_grad))
/// and may be empty where the kind of normalisation has none.
#[allow(clippy::too_many_arguments)] // three buffers with their padding
pub fn norm_act_lanes_grad(
    op: &NormAct,
    channels: usize,
    h: usize,
    w: usize,
    x: &[f32],
    xpad: usize,
    g: &[f32],
    gpad: usize,
    dx: &mut [f32],
    dpad: usize,
    dscale: &mut [f32],
    dshift: &mut [f32],
) {
    op.check(channels);
    op.check_grads(channels * crate::cpu::lanes(), dscale, dshift);
    check_group("x", x.len(), [channels, h, w], xpad, 0);
    check_group("g", g.len(), [channels, h, w], gpad, 0);
    check_group("dx", dx.len(), [channels, h, w], dpad, 0);
    zero_padding(dx, channels * h, w, dpad);
    let job = Job { op, channels, h, w };
    let x = Plane { p: x.as_ptr().cast_mut(), pad: xpad };
    let g = Plane { p: g.as_ptr().cast_mut(), pad: gpad };
    let dx = Plane { p: dx.as_mut_ptr(), pad: dpad };
    let (dscale, dshift) = (dscale.as_mut_ptr(), dshift.as_mut_ptr());
    with_simd!(S, {
        for (y, x0) in job.blocks() {
            let at = |plane: Plane| plane.at::<S>(&job, y, x0);
            // SAFETY: the lengths were checked above; only `dx` and the parameters' gradients are written.
            unsafe { job.backward::<S>([at(x), at(g), at(dx)], dscale, dshift, job.w - x0) };
        }
    })
}

/// The work on one group.
struct Job<'a> {
    op: &'a NormAct<'a>,
    channels: usize,
    h: usize,
    w: usize,
}

/// One of the group's buffers.
#[derive(Clone, Copy)]
struct Plane {
    p: *mut f32,
    pad: usize,
}

/// Four neighbouring pixels of a buffer; beyond a row's end, its last pixel is repeated.
struct Pixels {
    p: *mut f32,
    channel: usize,
    offset: [usize; 4],
}

impl Plane {
    #[inline(always)]
    fn at<S: Simd>(self, job: &Job, y: usize, x0: usize) -> Pixels {
        let row = (job.w + 2 * self.pad) * S::LANES;
        Pixels {
            p: self.p.wrapping_add(y * row + (self.pad + x0) * S::LANES),
            channel: job.h * row,
            offset: std::array::from_fn(|i| i.min(job.w - 1 - x0) * S::LANES),
        }
    }
}

impl Pixels {
    /// # Safety
    /// Channel `c` exists.
    #[inline(always)]
    unsafe fn load<S: Simd>(&self, c: usize) -> [S; 4] {
        // SAFETY: the caller's promise.
        unsafe { four!(i => S::load(self.p.add(c * self.channel + self.offset[i]))) }
    }

    /// # Safety
    /// Channel `c` exists and is writable.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, c: usize, v: [S; 4]) {
        for i in 0..4 {
            // SAFETY: the caller's promise. A repeated pixel has the same value each time.
            unsafe { v[i].store(self.p.add(c * self.channel + self.offset[i])) };
        }
    }
}

/// What four pixels are normalised with: `n = (x - mean) * inverse`.
struct Stats<S> {
    mean: [S; 4],
    inverse: [S; 4],
    /// One, or zero where rounding left no positive variance, which then has no gradient.
    live: [S; 4],
}

impl Job<'_> {
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let w = self.w;
        (0..self.h).flat_map(move |y| (0..w).step_by(4).map(move |x0| (y, x0)))
    }

    #[inline(always)]
    unsafe fn stats<S: Simd>(&self, x: &Pixels) -> Stats<S> {
        let (zero, one) = (S::zero(), S::splat(1.0));
        let mut stats = Stats { mean: [zero; 4], inverse: [one; 4], live: [one; 4] };
        if self.op.norm == Norm::None {
            return stats;
        }
        let (mut sum, mut squares) = ([zero; 4], [zero; 4]);
        for c in 0..self.channels {
            // SAFETY: channel c exists.
            let v = unsafe { x.load::<S>(c) };
            for i in 0..4 {
                sum[i] = sum[i] + v[i];
                squares[i] = v[i].mul_add(v[i], squares[i]);
            }
        }
        let count = S::splat(self.channels as f32);
        for i in 0..4 {
            let mut spread = squares[i] / count;
            if self.op.norm == Norm::Layer {
                stats.mean[i] = sum[i] / count;
                spread = zero.max(spread - stats.mean[i] * stats.mean[i]);
                stats.live[i] = S::select(zero.lt(spread), one, zero);
            }
            stats.inverse[i] = one / (spread + S::splat(self.op.epsilon)).sqrt();
        }
        stats
    }

    /// Scale and shift of a channel.
    #[inline(always)]
    fn parameters<S: Simd>(&self, c: usize) -> (S, S) {
        match self.op.norm {
            Norm::None => (S::splat(1.0), S::zero()),
            Norm::Rms => (S::splat(self.op.scale[c]), S::zero()),
            Norm::Layer => (S::splat(self.op.scale[c]), S::splat(self.op.shift[c])),
        }
    }

    #[inline(always)]
    unsafe fn forward<S: Simd>(&self, x: Pixels, out: Pixels) {
        // SAFETY: the channels exist in both, for the rest of the function.
        unsafe {
            let stats = self.stats::<S>(&x);
            for c in 0..self.channels {
                let (scale, shift) = self.parameters::<S>(c);
                let v = x.load::<S>(c);
                let mut z = four!(i => stats.normal(v, i).mul_add(scale, shift));
                apply(self.op.act, &mut z);
                out.store(c, z);
            }
        }
    }

    /// Only the first `pixels` of the four are no repetitions, and count in the parameters' gradients.
    #[inline(always)]
    unsafe fn backward<S: Simd>(&self, [x, g, dx]: [Pixels; 3], dscale: *mut f32, dshift: *mut f32, pixels: usize) {
        let (zero, l) = (S::zero(), S::LANES);
        let keep: [S; 4] = four!(i => S::splat(if i < pixels { 1.0 } else { 0.0 }));
        // SAFETY: the channels exist in all buffers, and in the parameters' gradients where the kind has them.
        unsafe {
            let stats = self.stats::<S>(&x);
            let (mut mean, mut product) = ([zero; 4], [zero; 4]);
            for c in 0..self.channels {
                let (scale, shift) = self.parameters::<S>(c);
                let (v, g) = (x.load::<S>(c), g.load::<S>(c));
                let n: [S; 4] = four!(i => stats.normal(v, i));
                let mut dz = four!(i => n[i].mul_add(scale, shift));
                derive(self.op.act, &mut dz);
                let (mut ds, mut db) = (zero, zero);
                for i in 0..4 {
                    dz[i] = dz[i] * g[i];
                    ds = (dz[i] * keep[i]).mul_add(n[i], ds);
                    db = dz[i].mul_add(keep[i], db);
                    dz[i] = dz[i] * scale;
                    mean[i] = mean[i] + dz[i];
                    product[i] = dz[i].mul_add(n[i], product[i]);
                }
                if self.op.norm != Norm::None {
                    (S::load(dscale.add(c * l)) + ds).store(dscale.add(c * l));
                }
                if self.op.norm == Norm::Layer {
                    (S::load(dshift.add(c * l)) + db).store(dshift.add(c * l));
                }
                dx.store(c, dz);
            }
            if self.op.norm == Norm::None {
                return;
            }
            let share = S::splat(1.0 / self.channels as f32);
            for i in 0..4 {
                mean[i] = if self.op.norm == Norm::Layer { mean[i] * share } else { zero };
                product[i] = zero - product[i] * share * stats.live[i];
            }
            for c in 0..self.channels {
                let (v, dn) = (x.load::<S>(c), dx.load::<S>(c));
                let d = four!(i => stats.normal(v, i).mul_add(product[i], dn[i] - mean[i]) * stats.inverse[i]);
                dx.store(c, d);
            }
        }
    }
}

impl<S: Simd> Stats<S> {
    #[inline(always)]
    fn normal(&self, v: [S; 4], i: usize) -> S {
        (v[i] - self.mean[i]) * self.inverse[i]
    }
}
