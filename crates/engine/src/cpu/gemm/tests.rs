//! Matrix products on every instruction set against the triple loop in float64.

use super::*;
use crate::cpu::gemm_tn::{Segment, column_sums, gemm_tn};
use crate::cpu::simd::on_every_isa;
use crate::cpu::testing::{assert_close, noise};
use proptest::prelude::*;

/// The plain triple loop in float64, over rows `ld` apart.
fn reference(
    m: usize,
    k: usize,
    n: usize,
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k).map(|q| a(i, q) as f64 * b(q, j) as f64).sum();
        }
    }
    c
}

fn check_packed(m: usize, k: usize, n: usize, row0: usize, extra: usize) {
    let (lda, ldc, ldw) = (k + extra, n + extra, n + 2 * extra);
    let a = noise(m * lda, 1);
    let w = noise((row0 + k + 1) * ldw, 2);
    let bias = noise(n, 3);
    let old = noise(m * ldc, 4);
    let product = reference(m, k, n, |i, q| a[i * lda + q], |q, j| w[(row0 + q) * ldw + j]);
    let transposed: Vec<f32> =
        (0..n * (row0 + k + 1)).map(|i| w[i % (row0 + k + 1) * ldw + i / (row0 + k + 1)]).collect();
    on_every_isa(|| {
        for packed in
            [Packed::new(&w, row0 + k + 1, n, ldw), Packed::transposed(&transposed, row0 + k + 1, n, row0 + k + 1)]
        {
            for (bias, accumulate) in [(None, false), (Some(&bias[..]), false), (None, true), (Some(&bias[..]), true)] {
                let mut c = old.clone();
                gemm_packed(m, k, &a, lda, &packed, row0, bias, &mut c, ldc, accumulate);
                for i in 0..m {
                    let want: Vec<f64> = (0..n)
                        .map(|j| {
                            let add = if accumulate { old[i * ldc + j] as f64 } else { 0.0 };
                            product[i * n + j] + add + bias.map_or(0.0, |b| b[j] as f64)
                        })
                        .collect();
                    assert_close(
                        &format!("{m}x{k}x{n} row {i}"),
                        &c[i * ldc..][..n],
                        &want,
                        1e-5 * (k as f64).sqrt().max(1.0),
                    );
                    assert_eq!(c[i * ldc + n..(i + 1) * ldc], old[i * ldc + n..(i + 1) * ldc], "wrote past the row");
                }
            }
        }
    });
}

#[test]
fn packed_product_of_awkward_sizes() {
    for (m, k, n) in
        [(1, 1, 1), (0, 3, 4), (3, 0, 5), (8, 512, 64), (9, 70, 33), (17, 5, 255), (130, 515, 31), (2, 1100, 3)]
    {
        check_packed(m, k, n, 0, 0);
        check_packed(m, k, n, 2, 3);
    }
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    on_every_isa(|| {
        let (m, k, n) = (37, 700, 45);
        let (a, w) = (noise(m * k, 5), Packed::new(&noise(k * n, 6), k, n, n));
        let mut whole = vec![0.0; m * n];
        gemm_packed(m, k, &a, k, &w, 0, None, &mut whole, n, false);
        for (i, row) in whole.chunks_exact(n).enumerate() {
            let mut one = vec![0.0; n];
            gemm_packed(1, k, &a[i * k..], k, &w, 0, None, &mut one, n, false);
            assert_eq!(one, row);
        }
    });
}

fn check_tn(rows: &[usize], k: usize, n: usize, cut: usize) {
    let (ldx, ldy, ldw) = (k + 3, n + 1, n + 2);
    let data: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(s, &r)| (noise(r * ldx, 7 + s as u64), noise(r * ldy, 70 + s as u64), r))
        .collect();
    let old = noise(k * ldw, 9);
    let mut want: Vec<f64> = old.iter().map(|&v| v as f64).collect();
    let mut sums = vec![1.0f64; n];
    for (x, dy, r) in &data {
        let part = reference(k, *r, n, |i, q| x[q * ldx + i], |q, j| dy[q * ldy + j]);
        for i in 0..k * n {
            want[i / n * ldw + i % n] += part[i];
        }
        for q in 0..*r {
            (0..n).for_each(|j| sums[j] += dy[q * ldy + j] as f64);
        }
    }
    let total: usize = rows.iter().sum();
    on_every_isa(|| {
        let segments: Vec<_> = data.iter().map(|(x, dy, rows)| Segment { x, ldx, dy, ldy, rows: *rows }).collect();
        let mut dw = old.clone();
        let (low, high) = dw.split_at_mut(cut * ldw);
        gemm_tn(0..cut, n, &segments, low, ldw);
        gemm_tn(cut..k, n, &segments, high, ldw);
        assert_close(&format!("dw {rows:?} {k}x{n}"), &dw, &want, 1e-5 * (total as f64).sqrt().max(1.0));
        let mut whole = old.clone();
        gemm_tn(0..k, n, &segments, &mut whole, ldw);
        assert_eq!(whole, dw, "the cut over k changed the bits");
        let mut db = vec![1.0; n];
        data.iter().for_each(|(_, dy, r)| column_sums(*r, n, dy, ldy, &mut db));
        assert_close("column sums", &db, &sums, 1e-5 * (total as f64).sqrt().max(1.0));
    });
}

#[test]
fn weight_gradient_of_awkward_sizes() {
    check_tn(&[1], 1, 1, 0);
    check_tn(&[], 3, 4, 1);
    check_tn(&[16; 30], 20, 64, 8);
    check_tn(&[300, 0, 7, 513], 13, 255, 5);
    check_tn(&[5], 65, 31, 65);
    check_tn(&[3], 1100, 5, 600);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn products_of_any_size(m in 0usize..40, k in 0usize..60, n in 0usize..70, row0 in 0usize..3, extra in 0usize..5) {
        check_packed(m, k, n, row0, extra);
        check_tn(&[m, extra], k, n, k / 2);
    }
}
