//! The machine's multiply-add rate: what the other kernels are measured against.

use super::simd::{Simd, with_simd};

/// Independent sums: more than latency times units of any machine, fewer than its registers.
const CHAINS: usize = 12;

/// Runs `iterations` rounds of multiply-adds in registers on this thread; returns the floating-point operations done.
pub fn multiply_adds(iterations: usize) -> f64 {
    std::hint::black_box(with_simd!(S, run::<S>(iterations)));
    (2 * CHAINS * super::lanes() * iterations) as f64
}

#[inline(always)]
fn run<S: Simd>(iterations: usize) -> f32 {
    let factor = S::splat(std::hint::black_box(0.999));
    let mut acc = [S::splat(0.5); CHAINS];
    for _ in 0..iterations {
        for a in &mut acc {
            *a = a.mul_add(factor, factor);
        }
    }
    acc.into_iter().map(S::sum).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_its_operations() {
        super::super::simd::on_every_isa(|| {
            assert_eq!(super::multiply_adds(10), 2.0 * 12.0 * 10.0 * super::super::lanes() as f64);
        });
    }
}
