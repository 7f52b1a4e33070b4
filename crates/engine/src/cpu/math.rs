//! Vectorised elementary functions, within two units in the last place of the exact value.
//!
//! The methods reduce the argument exactly (Cody and Waite), use a short polynomial, and scale the result, denormals
//! included; infinities give the limits and NaN gives NaN.

use super::simd::{Simd, with_simd};

const LN2_HI: f32 = 0.693_145_75; // its last twelve bits are zero, so n * LN2_HI is exact
const LN2_LO: f32 = 1.428_606_8e-6;

/// `a[0] + x a[1] + x^2 a[2] + ...`
#[inline(always)]
fn poly<S: Simd, const N: usize>(x: S, a: [f32; N]) -> S {
    let mut p = S::splat(a[N - 1]);
    for i in (0..N - 1).rev() {
        p = p.mul_add(x, S::splat(a[i]));
    }
    p
}

/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; gives `(n, r)`. NaN stays in `r`.
#[inline(always)]
fn reduce<S: Simd>(x: S) -> (S, S) {
    let n = (x * S::splat(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(S::splat(-LN2_LO), n.mul_add(S::splat(-LN2_HI), x));
    (n, r)
}

/// `x` kept in `lo..=hi`; NaN stays.
#[inline(always)]
fn clamp<S: Simd>(x: S, lo: f32, hi: f32) -> S {
    S::splat(hi).min(S::splat(lo).max(x))
}

/// `e^x`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: S) -> S {
    let (n, r) = reduce(clamp(x, -110.0, 100.0));
    let q = poly(r, [1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0]);
    // Adds back what rounding 1 + r lost: half a unit in the last place less error for three operations.
    let one = S::splat(1.0);
    let s = one + r;
    let lost = r - (s - one);
    (s + q.mul_add(r * r, lost)).ldexp(n)
}

/// `e^x - 1`, with a small relative error near zero as well.
#[inline(always)]
pub(crate) fn expm1<S: Simd>(x: S) -> S {
    let (n, r) = reduce(clamp(x, -110.0, 100.0));
    let q = poly(r, [1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0]);
    let p = q.mul_add(r * r, r);
    // 2^n p + (2^n - 1), at half scale so that n = 128 stays finite on the way.
    let scale = S::splat(0.5).ldexp(n.min(S::splat(130.0)));
    let y = scale.mul_add(p, scale - S::splat(0.5)) * S::splat(2.0);
    let y = S::select(x.lt(S::splat(88.8)), y, exp(x));
    S::select(n.eq(S::zero()), p, y)
}

/// `ln(1 + f) + e ln 2` for `1 + f` in `[sqrt(1/2), sqrt 2)`, plus a correction `c` much smaller than one.
#[inline(always)]
fn log_parts<S: Simd>(f: S, e: S, c: S) -> S {
    // ln(1+f) = f - f^2/2 + s (f^2/2 + R(s^2)), s = f/(2+f).
    let s = f / (S::splat(2.0) + f);
    let z = s * s;
    let r = z * poly(z, [0.666_666_6, 0.400_009_72, 0.284_987_87, 0.242_790_79]);
    let half = S::splat(0.5) * f * f;
    let low = s.mul_add(half + r, e.mul_add(S::splat(9.058e-6), c));
    e.mul_add(S::splat(0.693_138_1), f - (half - low))
}

/// The mantissa, in `[sqrt(1/2), sqrt 2)`, minus one, and the exponent of a positive number of any size.
#[inline(always)]
fn split<S: Simd>(x: S) -> (S, S) {
    let tiny = x.lt(S::splat(f32::MIN_POSITIVE));
    let (m, e) = S::select(tiny, x * S::splat(33554432.0), x).frexp();
    let e = S::select(tiny, e - S::splat(25.0), e);
    let upper = S::splat(std::f32::consts::SQRT_2).lt(m);
    let m = S::select(upper, m * S::splat(0.5), m);
    (m - S::splat(1.0), S::select(upper, e + S::splat(1.0), e))
}

/// `y`, replaced by the logarithm's limits or NaN where the argument is zero, negative, infinite or NaN.
#[inline(always)]
fn log_edges<S: Simd>(argument: S, y: S) -> S {
    let y = S::select(argument.eq(S::zero()), S::splat(f32::NEG_INFINITY), y);
    let inside = S::select(argument.lt(S::splat(f32::INFINITY)), y, argument);
    S::select(argument.lt(S::zero()), S::splat(f32::NAN), inside)
}

/// Natural logarithm.
#[inline(always)]
pub(crate) fn log<S: Simd>(x: S) -> S {
    let (f, e) = split(x);
    log_edges(x, log_parts(f, e, S::zero()))
}

/// `ln(1 + x)`, with a small relative error near zero as well.
#[inline(always)]
pub(crate) fn log1p<S: Simd>(x: S) -> S {
    let u = S::splat(1.0) + x;
    let (f, e) = split(u);
    // What rounding 1 + x lost; `lost / u` corrects the logarithm to first order.
    let lost = S::select(x.lt(S::splat(1.0)), x - (u - S::splat(1.0)), S::splat(1.0) - (u - x));
    let near = S::mask_bits(S::splat(-0.29).lt(x)) & S::mask_bits(x.lt(S::splat(0.41)));
    let near = S::mask_from_bits(near);
    let f = S::select(near, x, f);
    let e = S::select(near, S::zero(), e);
    let c = S::select(near, S::zero(), lost / u);
    log_edges(u, log_parts(f, e, c))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: S) -> S {
    let z = x * x;
    let odd = poly(z, [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_638_87, -0.005_704_988_7]);
    let small = (odd * z).mul_add(x, x);
    let magnitude = x.abs();
    let large = S::splat(1.0) - S::splat(2.0) / (exp(magnitude + magnitude) + S::splat(1.0));
    let large = S::select(x.lt(S::zero()), S::zero() - large, large);
    S::select(magnitude.lt(S::splat(0.625)), small, large)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(x: S) -> S {
    // With e = e^-|x|: the smaller half is e/(1+e) = e - e (e/(1+e)), in which the quotient's error counts little.
    let e = exp(S::zero() - x.abs());
    let lower = (S::zero() - e).mul_add(e / (S::splat(1.0) + e), e);
    S::select(x.lt(S::zero()), lower, S::splat(1.0) - lower)
}

/// `ln(1 + e^x)`.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(x: S) -> S {
    S::zero().max(x) + log1p(exp(S::zero() - x.abs()))
}

/// Applies `f` to every element, in place.
#[inline(always)]
fn map<S: Simd>(x: &mut [f32], f: impl Fn(S) -> S) {
    let whole = x.len() / S::LANES * S::LANES;
    let p = x.as_mut_ptr();
    // SAFETY: both stay inside the slice: full vectors up to `whole`, then the rest.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            f(S::load(p.add(i))).store(p.add(i));
        }
        let rest = x.len() - whole;
        if rest > 0 {
            f(S::load_first(p.add(whole), rest)).store_first(p.add(whole), rest);
        }
    }
}

macro_rules! slices {
    ($($(#[$attribute:meta])* $name:ident = $f:ident;)*) => {$(
        $(#[$attribute])*
        pub fn $name(x: &mut [f32]) {
            with_simd!(S, map::<S>(x, #[inline(always)] |v| $f(v)))
        }
    )*};
}
slices! {
    /// `e^x` of every element, in place.
    exp_slice = exp;
    /// `e^x - 1` of every element, in place.
    #[cfg(test)]
    expm1_slice = expm1;
    /// Natural logarithm of every element, in place.
    log_slice = log;
    /// `ln(1 + x)` of every element, in place.
    #[cfg(test)]
    log1p_slice = log1p;
    /// Hyperbolic tangent of every element, in place.
    tanh_slice = tanh;
    /// `1 / (1 + e^-x)` of every element, in place.
    sigmoid_slice = sigmoid;
    /// `ln(1 + e^x)` of every element, in place.
    softplus_slice = softplus;
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, on_every_isa};
    use super::*;

    /// Distance of `got` from `want` in units of the last place of a float of `want`'s size.
    fn ulps(got: f32, want: f64) -> f64 {
        if want.is_nan() || got.is_nan() {
            return if want.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
        }
        let size = (want as f32).abs();
        if got == want as f32 {
            return 0.0; // infinities too
        }
        if size.is_infinite() || got.is_infinite() {
            // Just over the border the largest float is as near as infinity.
            return if got.abs().min(size) >= 3.4028e38 { 1.0 } else { f64::INFINITY };
        }
        let ulp = f32::from_bits(size.to_bits() + 1) as f64 - size as f64;
        (got as f64 - want).abs() / ulp
    }

    /// Every 4099th bit pattern and the neighbourhood of every named point.
    fn arguments() -> Vec<f32> {
        let mut xs: Vec<f32> = (0..=u32::MAX / 4099).map(|i| f32::from_bits(i * 4099)).collect();
        xs.extend((-220_000..220_000).map(|i| i as f32 * 5e-4));
        for p in [0.0, -0.0, 1e-45, f32::MIN_POSITIVE, 0.29, 0.41, 0.625, 1.0, 88.72284, 103.97, 110.0, 3.4028235e38] {
            for b in 0..50u32 {
                let near = f32::from_bits(f32::to_bits(p).wrapping_add(b));
                xs.extend([near, -near, f32::from_bits(f32::to_bits(p).saturating_sub(b))]);
            }
        }
        xs.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
        xs
    }

    fn check(name: &str, slice: fn(&mut [f32]), exact: fn(f64) -> f64, limit: f64) {
        let xs = arguments();
        let want: Vec<f64> = xs.iter().map(|&x| exact(x as f64)).collect();
        on_every_isa(|| {
            let mut ys = xs.clone();
            slice(&mut ys);
            let errors = ys.iter().zip(&want).map(|(&y, &w)| ulps(y, w));
            let (at, worst) = errors.enumerate().fold((0, 0.0), |a, b| if b.1 > a.1 { b } else { a });
            let (x, y, w) = (xs[at], ys[at], want[at]);
            println!("{name} {:?}: {worst:.3} ulp at {x:e}: {y:e}, exactly {w:e}", Isa::get());
            assert!(worst <= limit, "{name} {:?}: {worst:.3} ulp at {x:e}: {y:e}, exactly {w:e}", Isa::get());
        });
    }

    #[test]
    fn exponentials_are_accurate() {
        check("exp", exp_slice, f64::exp, 2.0);
        check("expm1", expm1_slice, f64::exp_m1, 2.0);
    }

    #[test]
    fn logarithms_are_accurate() {
        check("log", log_slice, f64::ln, 2.0);
        check("log1p", log1p_slice, f64::ln_1p, 2.0);
    }

    #[test]
    fn squashings_are_accurate() {
        check("tanh", tanh_slice, f64::tanh, 2.0);
        let sigmoid = |x: f64| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) };
        check("sigmoid", sigmoid_slice, sigmoid, 2.0);
        check("softplus", softplus_slice, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 2.0);
    }

    #[test]
    fn slices_of_any_length_are_whole() {
        on_every_isa(|| {
            for n in 0..40 {
                let mut x = vec![0.0f32; n];
                exp_slice(&mut x);
                assert_eq!(x, vec![1.0; n]);
            }
        });
    }
}
