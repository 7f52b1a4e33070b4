//! Plain Rust on arrays of eight, which the compiler turns into whatever vectors the target has.

use super::Simd;
use std::array::from_fn;
use std::ops::{Add, Div, Mul, Sub};

/// Eight floats.
#[derive(Clone, Copy)]
pub(crate) struct Array8([f32; 8]);

impl Array8 {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(from_fn(|i| f(self.0[i], b.0[i])))
    }
}

/// `2^n` for `n` in `-126..=127`.
#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

macro_rules! by_lane {
    ($($trait:ident $method:ident $op:tt;)*) => {$(
        impl $trait for Array8 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, b: Self) -> Self {
                self.zip(b, |x, y| x $op y)
            }
        }
    )*};
}
by_lane!(Add add +; Sub sub -; Mul mul *; Div div /;);

impl Simd for Array8 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 2;
    const TILE_CHANNELS: usize = 2;
    type Mask = [bool; 8];

    #[inline(always)]
    fn vectorize<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn splat(a: f32) -> Self {
        Self([a; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise; the read needs no alignment.
        Self(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise; the write needs no alignment.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // Not `f32::mul_add`: without the instruction it is a slow library call.
        Self(from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn round(self) -> Self {
        // Near 1.5 * 2^23 floats are 1 apart, so the addition rounds to a whole number.
        const SHIFT: f32 = 12582912.0;
        self.map(|x| (x + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn lt(self, b: Self) -> [bool; 8] {
        from_fn(|i| self.0[i] < b.0[i])
    }
    #[inline(always)]
    fn eq(self, b: Self) -> [bool; 8] {
        from_fn(|i| self.0[i] == b.0[i])
    }
    #[inline(always)]
    fn select(m: [bool; 8], a: Self, b: Self) -> Self {
        Self(from_fn(|i| if m[i] { a.0[i] } else { b.0[i] }))
    }
    #[inline(always)]
    fn mask_bits(m: [bool; 8]) -> u16 {
        (0..8).map(|i| (m[i] as u16) << i).sum()
    }
    #[inline(always)]
    fn mask_from_bits(bits: u16) -> [bool; 8] {
        from_fn(|i| bits >> i & 1 == 1)
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        // Two factors, since one power of two cannot reach the denormals.
        self.zip(n, |x, n| {
            let n = n as i32;
            x * pow2(n >> 1) * pow2(n - (n >> 1))
        })
    }
    #[inline(always)]
    fn frexp(self) -> (Self, Self) {
        let mantissa = self.map(|x| f32::from_bits(x.to_bits() & 0x007f_ffff | 0x3f80_0000));
        (mantissa, self.map(|x| (x.to_bits() >> 23) as f32 - 127.0))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}
