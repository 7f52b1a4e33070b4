//! The machine's multiply-add rate: what the other kernels are measured against.

use super::simd::{Simd, with_simd};

/// Runs `iterations` rounds of multiply-adds in registers on this thread; returns the floating-point operations done.
pub fn multiply_adds(iterations: usize) -> f64 {
    with_simd!(S, {
        std::hint::black_box(run::<S>(iterations));
        (2 * 2 * S::TILE_ROWS * S::LANES * iterations) as f64
    })
}

#[inline(always)]
fn run<S: Simd>(iterations: usize) -> f32 {
    let factor = S::splat(std::hint::black_box(0.999));
    // As many independent sums as a matrix tile has: enough to hide the latency, few enough for the registers.
    let mut acc = [S::splat(0.5); 16];
    for _ in 0..iterations {
        for a in &mut acc[..2 * S::TILE_ROWS] {
            *a = a.mul_add(factor, factor);
        }
    }
    let mut sum = S::zero();
    for a in acc {
        sum = sum + a;
    }
    sum.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_its_operations() {
        super::super::simd::on_every_isa(|| {
            let tile_rows = with_simd!(S, S::TILE_ROWS) as f64;
            assert_eq!(super::multiply_adds(10), 40.0 * tile_rows * super::super::lanes() as f64);
        });
    }
}
