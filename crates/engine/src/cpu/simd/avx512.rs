//! AVX-512: sixteen lanes, mask registers.

use super::{Simd, operators};
use std::arch::x86_64::*;

/// Sixteen floats in a 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

pub(super) fn supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("fma")
}

// SAFETY, for every intrinsic below: `vectorize` has checked the processor (see the parent module);
// loads and stores pass on their caller's promise about the pointer.
operators!(F32x16,
    Add add |a, b| F32x16(unsafe { _mm512_add_ps(a, b) });
    Sub sub |a, b| F32x16(unsafe { _mm512_sub_ps(a, b) });
    Mul mul |a, b| F32x16(unsafe { _mm512_mul_ps(a, b) });
    Div div |a, b| F32x16(unsafe { _mm512_div_ps(a, b) });
);

impl Simd for F32x16 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 8;
    const TILE_CHANNELS: usize = 4;
    type Mask = __mmask16;

    #[inline(always)]
    fn vectorize<R>(f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,avx2")]
        fn inner<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        assert!(supported(), "this processor has no AVX-512");
        // SAFETY: checked in the line above.
        unsafe { inner(f) }
    }
    #[inline(always)]
    fn splat(a: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(a) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn lt(self, b: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn eq(self, b: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn select(m: __mmask16, a: Self, b: Self) -> Self {
        Self(unsafe { _mm512_mask_blend_ps(m, b.0, a.0) })
    }
    #[inline(always)]
    fn mask_bits(m: __mmask16) -> u16 {
        m
    }
    #[inline(always)]
    fn mask_from_bits(bits: u16) -> __mmask16 {
        bits
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    fn frexp(self) -> (Self, Self) {
        unsafe {
            let m = _mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(self.0);
            (Self(m), Self(_mm512_getexp_ps(self.0)))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        unsafe { Self(_mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p)) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as u16, self.0) }
    }
}
