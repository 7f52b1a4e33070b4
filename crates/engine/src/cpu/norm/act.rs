//! The activations and their derivatives, on vectors and slices.

use super::Act;
use crate::cpu::math::{exp, expm1, sigmoid, softplus, tanh};
use crate::cpu::simd::{Simd, four, with_simd};

const GELU_CUBIC: f32 = 0.044715;
const GELU_SCALE: f32 = 0.797_884_6; // sqrt(2 / pi)

/// Applies an expression to each vector; a macro, since a closure that is not inlined would be compiled without the
/// instruction set.
macro_rules! each {
    ($z:ident, |$v:ident| $e:expr) => {
        for to in $z.iter_mut() {
            let $v = *to;
            *to = $e;
        }
    };
}

/// The activation of each vector, in place.
#[inline(always)]
pub(super) fn apply<S: Simd>(act: Act, z: &mut [S; 4]) {
    let half = S::splat(0.5);
    match act {
        Act::None => {}
        Act::Silu => each!(z, |v| v * sigmoid(v)),
        Act::Relu => each!(z, |v| S::zero().max(v)),
        Act::Relu2 => each!(z, |v| S::zero().max(v) * S::zero().max(v)),
        Act::Gelu => each!(z, |v| v * half.mul_add(tanh(gelu_inner(v)), half)),
        Act::Mish => each!(z, |v| v * tanh(softplus(v))),
        Act::Tanh => each!(z, |v| tanh(v)),
        Act::Elu => each!(z, |v| S::select(S::zero().lt(v), v, expm1(S::zero().min(v)))),
        Act::Sigmoid => each!(z, |v| sigmoid(v)),
        Act::Softplus => each!(z, |v| softplus(v)),
    }
}

/// The activation's derivative at each vector, in place.
#[inline(always)]
pub(super) fn derive<S: Simd>(act: Act, z: &mut [S; 4]) {
    let one = S::splat(1.0);
    let half = S::splat(0.5);
    match act {
        Act::None => *z = [one; 4],
        Act::Silu => each!(z, |v| {
            let s = sigmoid(v);
            s * v.mul_add(one - s, one)
        }),
        Act::Relu => each!(z, |v| S::select(S::zero().lt(v), one, S::zero())),
        Act::Relu2 => each!(z, |v| {
            let r = S::zero().max(v);
            r + r
        }),
        Act::Gelu => each!(z, |v| {
            let t = tanh(gelu_inner(v));
            let inner = S::splat(GELU_SCALE) * S::splat(3.0 * GELU_CUBIC).mul_add(v * v, one);
            half * (one + t + v * (one - t * t) * inner)
        }),
        Act::Mish => each!(z, |v| {
            let t = tanh(softplus(v));
            (v * (one - t * t)).mul_add(sigmoid(v), t)
        }),
        Act::Tanh => each!(z, |v| {
            let t = tanh(v);
            one - t * t
        }),
        Act::Elu => each!(z, |v| S::select(S::zero().lt(v), one, exp(S::zero().min(v)))),
        Act::Sigmoid => each!(z, |v| {
            let s = sigmoid(v);
            s * (one - s)
        }),
        Act::Softplus => each!(z, |v| sigmoid(v)),
    }
}

/// The argument of gelu's tanh.
#[inline(always)]
fn gelu_inner<S: Simd>(v: S) -> S {
    S::splat(GELU_SCALE) * (S::splat(GELU_CUBIC) * v * v).mul_add(v, v)
}

/// Four vectors from the first `n` floats at `p`, the rest zero.
///
/// # Safety
/// `p` is readable for `n` floats.
#[inline(always)]
pub(super) unsafe fn load4<S: Simd>(p: *const f32, n: usize) -> [S; 4] {
    let l = S::LANES;
    // SAFETY: the caller's promise; no pointer goes past `n`.
    unsafe {
        if n >= 4 * l {
            return four!(i => S::load(p.add(i * l)));
        }
        four!(i => S::load_first(p.add((i * l).min(n)), n.saturating_sub(i * l).min(l)))
    }
}

/// Stores the first `n` floats of four vectors.
///
/// # Safety
/// `p` is writable for `n` floats.
#[inline(always)]
pub(super) unsafe fn store4<S: Simd>(v: [S; 4], p: *mut f32, n: usize) {
    let l = S::LANES;
    // SAFETY: the caller's promise; no pointer goes past `n`.
    unsafe {
        if n >= 4 * l {
            for i in 0..4 {
                v[i].store(p.add(i * l));
            }
            return;
        }
        for i in 0..4 {
            v[i].store_first(p.add((i * l).min(n)), n.saturating_sub(i * l).min(l));
        }
    }
}

/// `act(x)` of every element, in place.
pub fn act_slice(act: Act, x: &mut [f32]) {
    let (p, n) = (x.as_mut_ptr(), x.len());
    with_simd!(S, {
        for i in (0..n).step_by(4 * S::LANES) {
            // SAFETY: `n - i` floats are left.
            unsafe {
                let mut z = load4::<S>(p.add(i), n - i);
                apply(act, &mut z);
                store4(z, p.add(i), n - i);
            }
        }
    })
}

/// `g *= act'(x)` for every element.
#[cfg(test)]
pub fn act_grad_slice(act: Act, x: &[f32], g: &mut [f32]) {
    assert_eq!(x.len(), g.len(), "an activation's input and its output's gradient");
    let (x, n, g) = (x.as_ptr(), x.len(), g.as_mut_ptr());
    with_simd!(S, {
        for i in (0..n).step_by(4 * S::LANES) {
            // SAFETY: `n - i` floats are left in both.
            unsafe {
                let mut z = load4::<S>(x.add(i), n - i);
                derive(act, &mut z);
                let v = load4::<S>(g.add(i), n - i);
                store4(four!(q => v[q] * z[q]), g.add(i), n - i);
            }
        }
    })
}
