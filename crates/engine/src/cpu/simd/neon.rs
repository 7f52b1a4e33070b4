//! NEON: four lanes, part of every 64-bit ARM processor.

use super::{Simd, operators};
use std::arch::aarch64::*;

/// Four floats in a 128-bit register.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);

// SAFETY, for every intrinsic below: NEON is part of the aarch64 target; loads and stores pass on
// their caller's promise about the pointer.
operators!(F32x4,
    Add add |a, b| F32x4(unsafe { vaddq_f32(a, b) });
    Sub sub |a, b| F32x4(unsafe { vsubq_f32(a, b) });
    Mul mul |a, b| F32x4(unsafe { vmulq_f32(a, b) });
    Div div |a, b| F32x4(unsafe { vdivq_f32(a, b) });
);

/// `2^n` for whole `n` in `-126..=127`.
#[inline(always)]
fn pow2(n: int32x4_t) -> F32x4 {
    // SAFETY: as above.
    F32x4(unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))) })
}

#[inline(always)]
fn lane_bits() -> uint32x4_t {
    // SAFETY: as above; the array holds four numbers.
    unsafe { vld1q_u32([1u32, 2, 4, 8].as_ptr()) }
}

impl Simd for F32x4 {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 8;
    const TILE_CHANNELS: usize = 4;
    type Mask = uint32x4_t;

    #[inline(always)]
    fn vectorize<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn splat(a: f32) -> Self {
        Self(unsafe { vdupq_n_f32(a) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(unsafe { vld1q_f32(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { vst1q_f32(p, self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { vfmaq_f32(c.0, self.0, b.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(unsafe { vsqrtq_f32(self.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(unsafe { vminq_f32(self.0, b.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(unsafe { vmaxq_f32(self.0, b.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(unsafe { vabsq_f32(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Self(unsafe { vrndnq_f32(self.0) })
    }
    #[inline(always)]
    fn lt(self, b: Self) -> uint32x4_t {
        unsafe { vcltq_f32(self.0, b.0) }
    }
    #[inline(always)]
    fn eq(self, b: Self) -> uint32x4_t {
        unsafe { vceqq_f32(self.0, b.0) }
    }
    #[inline(always)]
    fn select(m: uint32x4_t, a: Self, b: Self) -> Self {
        Self(unsafe { vbslq_f32(m, a.0, b.0) })
    }
    #[inline(always)]
    fn mask_bits(m: uint32x4_t) -> u16 {
        unsafe { vaddvq_u32(vandq_u32(m, lane_bits())) as u16 }
    }
    #[inline(always)]
    fn mask_from_bits(bits: u16) -> uint32x4_t {
        unsafe { vtstq_u32(vdupq_n_u32(bits as u32), lane_bits()) }
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        // Two factors, since one power of two cannot reach the denormals.
        unsafe {
            let n = vcvtnq_s32_f32(n.0);
            let half = vshrq_n_s32::<1>(n);
            self * pow2(half) * pow2(vsubq_s32(n, half))
        }
    }
    #[inline(always)]
    fn frexp(self) -> (Self, Self) {
        unsafe {
            let bits = vreinterpretq_u32_f32(self.0);
            let e = vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32::<23>(bits)), vdupq_n_s32(127));
            let m = vorrq_u32(vandq_u32(bits, vdupq_n_u32(0x007f_ffff)), vdupq_n_u32(0x3f80_0000));
            (Self(vreinterpretq_f32_u32(m)), Self(vcvtq_f32_s32(e)))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe { vaddvq_f32(self.0) }
    }
}
