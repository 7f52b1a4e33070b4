//! One vector trait, four instruction sets, and the choice between them at run time.
//!
//! A kernel is a function generic over [`Simd`], marked `#[inline(always)]`, and entered through
//! [`with_simd!`], which picks the vector type for the machine and compiles the kernel's body once
//! for each under the right `#[target_feature]`.
//!
//! Soundness: the arithmetic methods are safe to call because a vector type is only ever named by
//! code that `with_simd!` has entered, after [`Simd::vectorize`] has checked that the processor has
//! the instructions. The types are private to this crate, so the rule is kept in this folder.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

use std::ops::{Add, Div, Mul, Sub};
use std::sync::OnceLock;

/// A vector of `LANES` float32 numbers.
pub(crate) trait Simd:
    Copy + Send + Sync + 'static + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    const LANES: usize;
    /// Rows of the matrix-product tile (its width is two vectors) that the register file holds.
    const TILE_ROWS: usize;
    /// Output channels of the convolution tile (its length is four pixels).
    const TILE_CHANNELS: usize;
    /// One boolean per lane.
    type Mask: Copy;

    /// Calls `f` compiled for this instruction set; panics if the processor lacks it.
    fn vectorize<R>(f: impl FnOnce() -> R) -> R;
    fn splat(a: f32) -> Self;
    /// # Safety
    /// `p` is readable for `LANES` floats; no alignment is needed.
    unsafe fn load(p: *const f32) -> Self;
    /// # Safety
    /// `p` is writable for `LANES` floats; no alignment is needed.
    unsafe fn store(self, p: *mut f32);
    /// `self * b + c`, rounded once where the machine can.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn sqrt(self) -> Self;
    /// The smaller; if either is NaN, `b` (or NaN).
    fn min(self, b: Self) -> Self;
    /// The larger; if either is NaN, `b` (or NaN).
    fn max(self, b: Self) -> Self;
    fn abs(self) -> Self;
    /// Nearest integer, ties to even, for numbers below `2^22`.
    fn round(self) -> Self;
    fn lt(self, b: Self) -> Self::Mask;
    fn eq(self, b: Self) -> Self::Mask;
    /// `a` where the mask holds, else `b`.
    fn select(m: Self::Mask, a: Self, b: Self) -> Self;
    /// Bit `i` is lane `i`.
    fn mask_bits(m: Self::Mask) -> u16;
    fn mask_from_bits(bits: u16) -> Self::Mask;
    /// `self * 2^n` for a whole number `n` with `|n| <= 250`, rounded once, through denormals and infinity.
    fn ldexp(self, n: Self) -> Self;
    /// For a positive normal number: mantissa in `[1, 2)` and exponent.
    fn frexp(self) -> (Self, Self);
    /// Sum of the lanes, in an order that depends on nothing but `LANES`.
    fn sum(self) -> f32;

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// The first `n <= LANES` floats, then zeros.
    ///
    /// # Safety
    /// `p` is readable for `n` floats.
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        let mut t = [0.0f32; MAX_LANES];
        // SAFETY: the caller's promise, and `n <= LANES <= MAX_LANES`.
        unsafe {
            std::ptr::copy_nonoverlapping(p, t.as_mut_ptr(), n);
            Self::load(t.as_ptr())
        }
    }

    /// Stores the first `n <= LANES` lanes.
    ///
    /// # Safety
    /// `p` is writable for `n` floats.
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        let mut t = [0.0f32; MAX_LANES];
        // SAFETY: the caller's promise, and `n <= LANES <= MAX_LANES`.
        unsafe {
            self.store(t.as_mut_ptr());
            std::ptr::copy_nonoverlapping(t.as_ptr(), p, n);
        }
    }
}

/// The widest vector there is; a buffer of this many floats holds any.
pub const MAX_LANES: usize = 16;

/// An instruction set that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust on arrays of eight, for any machine.
    Portable,
    /// 256-bit vectors with fused multiply-add (x86-64).
    Avx2,
    /// 512-bit vectors (x86-64).
    Avx512,
    /// 128-bit vectors (64-bit ARM).
    Neon,
}

impl Isa {
    /// Every instruction set, narrowest first.
    const ALL: [Isa; 4] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// Those this machine has, the best last.
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.supported()).collect()
    }

    /// Its name, as the variable `ENGINE_SIMD` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    fn supported(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::supported(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::supported(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The instruction set in use: the best there is, or the one that the variable `ENGINE_SIMD` names.
    /// The choice is made once; an impossible one is an error, to be reported when the program starts.
    pub fn detect() -> Result<Isa, String> {
        static CHOICE: OnceLock<Result<Isa, String>> = OnceLock::new();
        CHOICE.get_or_init(|| Self::choose(std::env::var("ENGINE_SIMD").ok().as_deref())).clone()
    }

    fn choose(wanted: Option<&str>) -> Result<Isa, String> {
        let available = Self::available();
        let Some(wanted) = wanted.filter(|name| !name.is_empty()) else {
            return Ok(available[available.len() - 1]); // portable is always there
        };
        available.iter().copied().find(|isa| isa.name() == wanted).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            format!(
                "ENGINE_SIMD is '{wanted}', but this machine can run {}; set it to one of these or unset it",
                names.join(", ")
            )
        })
    }

    /// The instruction set in use.
    ///
    /// # Panics
    /// With the message of [`Isa::detect`], if that is an error.
    pub fn get() -> Isa {
        #[cfg(test)]
        if let Some(isa) = FORCED.get() {
            return isa;
        }
        Self::detect().unwrap_or_else(|sentence| panic!("{sentence}"))
    }

    /// Floats in a vector, and so images in a group of the lanes layout.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Portable | Isa::Avx2 => 8,
            Isa::Avx512 => 16,
            Isa::Neon => 4,
        }
    }
}

#[cfg(test)]
thread_local!(static FORCED: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) });

/// Runs a test once on every instruction set that the machine has.
#[cfg(test)]
pub(crate) fn on_every_isa(test: impl Fn()) {
    for isa in Isa::available() {
        let _isa = Forced::new(Some(isa));
        test();
    }
}

/// While it lives, a test's choice of instruction set for this thread; `None` is none.
#[cfg(test)]
pub(crate) struct Forced(Option<Isa>);

#[cfg(test)]
impl Forced {
    pub fn new(isa: Option<Isa>) -> Self {
        Forced(FORCED.replace(isa))
    }

    /// The choice for this thread.
    pub fn here() -> Option<Isa> {
        FORCED.get()
    }
}

#[cfg(test)]
impl Drop for Forced {
    fn drop(&mut self) {
        FORCED.set(self.0);
    }
}

/// Evaluates an expression with `$S` naming the vector type in use, compiled for its instruction set.
macro_rules! with_simd {
    ($S:ident, $body:expr) => {
        match $crate::cpu::simd::Isa::get() {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::simd::Isa::Avx512 => {
                type $S = $crate::cpu::simd::avx512::F32x16;
                <$S as $crate::cpu::simd::Simd>::vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::simd::Isa::Avx2 => {
                type $S = $crate::cpu::simd::avx2::F32x8;
                <$S as $crate::cpu::simd::Simd>::vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::simd::Isa::Neon => {
                type $S = $crate::cpu::simd::neon::F32x4;
                <$S as $crate::cpu::simd::Simd>::vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
            _ => {
                type $S = $crate::cpu::simd::portable::Array8;
                <$S as $crate::cpu::simd::Simd>::vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
        }
    };
}
pub(crate) use with_simd;

/// `[e(0), e(1), e(2), e(3)]` without a closure: one that is not inlined would be compiled without the instruction set.
macro_rules! four {
    ($i:ident => $e:expr) => {
        [
            {
                let $i = 0usize;
                $e
            },
            {
                let $i = 1usize;
                $e
            },
            {
                let $i = 2usize;
                $e
            },
            {
                let $i = 3usize;
                $e
            },
        ]
    };
}
pub(crate) use four;

/// Implements `+ - * /` from four functions on the wrapped register.
macro_rules! operators {
    ($T:ident, $($trait:ident $method:ident |$a:ident, $b:ident| $e:expr;)*) => {$(
        impl std::ops::$trait for $T {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let ($a, $b) = (self.0, other.0);
                $e
            }
        }
    )*};
}
pub(crate) use operators;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_choice_is_a_sentence() {
        let error = Isa::choose(Some("sse9")).unwrap_err();
        assert!(error.contains("sse9") && error.contains("portable"), "{error}");
        assert_eq!(Isa::choose(Some("portable")), Ok(Isa::Portable));
        assert!(Isa::choose(None).is_ok() && Isa::choose(Some("")).is_ok());
    }

    /// Every method of the trait against scalar arithmetic, lane by lane.
    #[inline(always)]
    fn methods<S: Simd>() {
        let lanes = |v: S| {
            let mut t = [0.0f32; MAX_LANES];
            // SAFETY: the array holds the widest vector.
            unsafe { v.store(t.as_mut_ptr()) };
            t
        };
        let make = |f: &dyn Fn(usize) -> f32| {
            let t: [f32; MAX_LANES] = std::array::from_fn(f);
            // SAFETY: the array holds the widest vector.
            unsafe { S::load(t.as_ptr()) }
        };
        let af = |i: usize| i as f32 * 1.25 - 4.0;
        let bf = |i: usize| 3.0 - i as f32 * 0.75;
        let (a, b) = (make(&af), make(&bf));
        let check = |name: &str, v: S, f: &dyn Fn(usize) -> f32| {
            for i in 0..S::LANES {
                assert_eq!(lanes(v)[i], f(i), "{name} lane {i}");
            }
        };
        check("add", a + b, &|i| af(i) + bf(i));
        check("sub", a - b, &|i| af(i) - bf(i));
        check("mul", a * b, &|i| af(i) * bf(i));
        check("div", a / S::splat(3.0), &|i| af(i) / 3.0);
        check("mul_add", a.mul_add(b, a), &|i| af(i) * bf(i) + af(i));
        check("sqrt", a.abs().sqrt(), &|i| af(i).abs().sqrt());
        check("min", a.min(b), &|i| af(i).min(bf(i)));
        check("max", a.max(b), &|i| af(i).max(bf(i)));
        check("round", (a * S::splat(0.4)).round(), &|i| (af(i) * 0.4).round_ties_even());
        check("lt", S::select(a.lt(b), a, S::zero()), &|i| if af(i) < bf(i) { af(i) } else { 0.0 });
        check("eq", S::select(a.eq(S::splat(-4.0)), b, a), &|i| if i == 0 { bf(0) } else { af(i) });
        for bits in [0u16, 1, 0x5, 0xa, 0xbeef, u16::MAX] {
            let m = S::mask_from_bits(bits);
            assert_eq!(S::mask_bits(m), bits & ((1u32 << S::LANES) - 1) as u16);
            check("bits", S::select(m, a, b), &|i| if bits >> i & 1 == 1 { af(i) } else { bf(i) });
        }
        for (n, want) in [(0.0, 1.5), (-3.0, 0.1875), (127.0, 1.5 * 2f32.powi(127)), (128.0, f32::INFINITY)] {
            check("ldexp", S::splat(1.5).ldexp(S::splat(n)), &|_| want);
        }
        check("ldexp", S::splat(1.5).ldexp(S::splat(-140.0)), &|_| (1.5 * 2f64.powi(-140)) as f32);
        let (m, e) = S::splat(-0.0).max(S::splat(40.0)).frexp();
        check("mantissa", m, &|_| 1.25);
        check("exponent", e, &|_| 5.0);
        assert_eq!(a.sum(), (0..S::LANES).map(af).sum::<f32>());
        let mut t = [7.0f32; MAX_LANES];
        for n in 0..=S::LANES {
            // SAFETY: the arrays hold the widest vector and `n` is at most that.
            let v = unsafe { S::load_first([1.0f32; MAX_LANES].as_ptr(), n) };
            check("load_first", v, &|i| if i < n { 1.0 } else { 0.0 });
            unsafe { a.store_first(t.as_mut_ptr(), n) };
            assert!((0..MAX_LANES).all(|i| t[i] == if i < n { af(i) } else { 7.0 }));
            t = [7.0; MAX_LANES];
        }
    }

    #[test]
    fn vectors_do_what_scalars_do() {
        on_every_isa(|| {
            assert_eq!(with_simd!(S, S::LANES), Isa::get().lanes());
            with_simd!(S, methods::<S>());
        });
    }
}
