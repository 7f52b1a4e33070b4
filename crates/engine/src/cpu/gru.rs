//! The gate of the block GRU in one pass over its operands.

use super::math::{sigmoid, tanh};
use super::simd::{Simd, with_simd};

/// What the forward pass leaves for the gradient, [M, D] each: reset, candidate and update, activated.
pub struct Activated<'a> {
    pub reset: &'a mut [f32],
    pub candidate: &'a mut [f32],
    pub update: &'a mut [f32],
}

/// `out = u c + (1 - u) h` with `c = tanh(sigmoid(reset) candidate)` and `u = sigmoid(update - 1)`.
///
/// `gates` holds for each block of `width` numbers of `h` its reset, candidate and update pre-activations.
pub fn gru(gates: &[f32], h: &[f32], width: usize, out: &mut [f32], mut kept: Option<Activated>) {
    assert!(gates.len() == 3 * h.len() && out.len() == h.len(), "{} gates for {} numbers", gates.len(), h.len());
    if let Some(k) = &kept {
        assert_eq!([k.reset.len(), k.candidate.len(), k.update.len()], [h.len(); 3], "room for what is kept");
    }
    if h.is_empty() {
        return;
    }
    assert_eq!(h.len() % width, 0, "{} numbers in blocks of {width}", h.len());
    with_simd!(S, {
        for start in (0..h.len()).step_by(width) {
            let gates = &gates[3 * start..3 * (start + width)];
            for j in (0..width).step_by(S::LANES) {
                let (i, n) = (start + j, S::LANES.min(width - j));
                // SAFETY: `n` numbers from `j` exist in the block, and from `i` in the rest, by the checks above.
                unsafe {
                    let gate = |g: usize| load::<S>(gates.as_ptr().add(g * width + j), n);
                    let reset = sigmoid(gate(0));
                    let candidate = tanh(reset * gate(1));
                    let update = sigmoid(gate(2) - S::splat(1.0));
                    let old = load::<S>(h.as_ptr().add(i), n);
                    store(update.mul_add(candidate - old, old), out.as_mut_ptr().add(i), n);
                    if let Some(k) = &mut kept {
                        store(reset, k.reset.as_mut_ptr().add(i), n);
                        store(candidate, k.candidate.as_mut_ptr().add(i), n);
                        store(update, k.update.as_mut_ptr().add(i), n);
                    }
                }
            }
        }
    })
}

#[inline(always)]
unsafe fn load<S: Simd>(p: *const f32, n: usize) -> S {
    // SAFETY: the caller has `n` floats at `p`.
    unsafe { if n == S::LANES { S::load(p) } else { S::load_first(p, n) } }
}

#[inline(always)]
unsafe fn store<S: Simd>(v: S, p: *mut f32, n: usize) {
    // SAFETY: the caller has `n` floats at `p`.
    unsafe { if n == S::LANES { v.store(p) } else { v.store_first(p, n) } }
}
