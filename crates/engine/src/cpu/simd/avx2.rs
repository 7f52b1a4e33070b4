//! AVX2 with fused multiply-add: eight lanes, masks as vectors of all-ones or zeros.

use super::{Simd, operators};
use std::arch::x86_64::*;

/// Eight floats in a 256-bit register.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

pub(super) fn supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

// SAFETY, for every intrinsic below: `vectorize` has checked the processor (see the parent module);
// loads and stores pass on their caller's promise about the pointer.
operators!(F32x8,
    Add add |a, b| F32x8(unsafe { _mm256_add_ps(a, b) });
    Sub sub |a, b| F32x8(unsafe { _mm256_sub_ps(a, b) });
    Mul mul |a, b| F32x8(unsafe { _mm256_mul_ps(a, b) });
    Div div |a, b| F32x8(unsafe { _mm256_div_ps(a, b) });
);

/// `2^n` for whole `n` in `-126..=127`.
#[inline(always)]
fn pow2(n: __m256i) -> F32x8 {
    // SAFETY: as above.
    F32x8(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) })
}

/// A mask of the first `n <= 8` lanes.
#[inline(always)]
fn first(n: usize) -> __m256 {
    F32x8::mask_from_bits(((1u32 << n) - 1) as u16)
}

impl Simd for F32x8 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const TILE_CHANNELS: usize = 2;
    type Mask = __m256;

    #[inline(always)]
    fn vectorize<R>(f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma")]
        fn inner<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        assert!(supported(), "this processor has no AVX2");
        // SAFETY: checked in the line above.
        unsafe { inner(f) }
    }
    #[inline(always)]
    fn splat(a: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(a) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm256_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(unsafe { _mm256_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(unsafe { _mm256_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn lt(self, b: Self) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn eq(self, b: Self) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn select(m: __m256, a: Self, b: Self) -> Self {
        Self(unsafe { _mm256_blendv_ps(b.0, a.0, m) })
    }
    #[inline(always)]
    fn mask_bits(m: __m256) -> u16 {
        unsafe { _mm256_movemask_ps(m) as u16 }
    }
    #[inline(always)]
    fn mask_from_bits(bits: u16) -> __m256 {
        unsafe {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let own = _mm256_and_si256(_mm256_set1_epi32(bits as i32), lane);
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(own, lane))
        }
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        // Two factors, since one power of two cannot reach the denormals.
        unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32::<1>(n);
            self * pow2(half) * pow2(_mm256_sub_epi32(n, half))
        }
    }
    #[inline(always)]
    fn frexp(self) -> (Self, Self) {
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let e = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
            let m =
                _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff)), _mm256_set1_epi32(0x3f80_0000));
            (Self(_mm256_castsi256_ps(m)), Self(_mm256_cvtepi32_ps(e)))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        unsafe { Self(_mm256_maskload_ps(p, _mm256_castps_si256(first(n)))) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        unsafe { _mm256_maskstore_ps(p, _mm256_castps_si256(first(n)), self.0) }
    }
}
