//! Lambda returns and percentiles, which are targets and statistics: no gradient flows through them.

use crate::tensor::Tensor;

/// Lambda returns of `[N, T]` sequences -> [N, T - 1] (paper, equation 6; official agent.py, `lambda_return`):
/// `R_t = r_{t+1} + disc (1 - term_{t+1}) ((1 - lam_{t+1}) boot_{t+1} + lam_{t+1} R_{t+1})`, where `lam` is 0 after `last`,
/// and `R` after the end is the last bootstrap value.
pub fn lambda_return(last: &Tensor, term: &Tensor, rew: &Tensor, boot: &Tensor, disc: f32, lam: f32) -> Tensor {
    let (n, t) = (rew.dim(0), rew.dim(1));
    let mut returns = vec![0.0; n * (t - 1)];
    for i in 0..n {
        let row = |x: &Tensor, j: usize| x.data()[i * t + j];
        let mut next = row(boot, t - 1);
        for j in (1..t).rev() {
            let live = (1.0 - row(term, j)) * disc;
            let cont = (1.0 - row(last, j)) * lam;
            next = row(rew, j) + (1.0 - cont) * live * row(boot, j) + live * cont * next;
            returns[i * (t - 1) + j - 1] = next;
        }
    }
    Tensor::from_slice(&[n, t - 1], &returns)
}

/// The `q`-th percentile (0 to 100) of all values, linearly interpolated as numpy does.
pub fn percentile(xs: &[f32], q: f64) -> f32 {
    let mut sorted = xs.to_vec();
    let position = q / 100.0 * (sorted.len() - 1) as f64;
    let low = position.floor() as usize;
    let (_, &mut a, above) = sorted.select_nth_unstable_by(low, f32::total_cmp);
    let b = above.iter().copied().fold(f32::INFINITY, f32::min);
    let share = position - low as f64;
    if share == 0.0 || above.is_empty() { a } else { (a as f64 * (1.0 - share) + b as f64 * share) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_by_hand() {
        let t = |x: &[f32]| Tensor::from_slice(&[1, 3], x);
        // R_1 = r_2 + d b_2; R_0 = r_1 + d ((1 - l) b_1 + l R_1).
        let r = lambda_return(&t(&[0.0; 3]), &t(&[0.0; 3]), &t(&[9.0, 1.0, 2.0]), &t(&[9.0, 4.0, 8.0]), 0.5, 0.75);
        let r1 = 2.0 + 0.5 * 8.0;
        assert_eq!(r.data(), [1.0 + 0.5 * (0.25 * 4.0 + 0.75 * r1), r1]);
        // A terminal step takes its reward alone, a last one bootstraps fully.
        let r = lambda_return(
            &t(&[0.0, 1.0, 0.0]),
            &t(&[0.0, 0.0, 1.0]),
            &t(&[0.0, 1.0, 2.0]),
            &t(&[0.0, 4.0, 8.0]),
            0.5,
            0.75,
        );
        assert_eq!(r.data(), [1.0 + 0.5 * 4.0, 2.0]);
    }

    #[test]
    fn percentiles_interpolate() {
        let xs = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&xs, 0.0), 1.0);
        assert_eq!(percentile(&xs, 100.0), 4.0);
        assert_eq!(percentile(&xs, 50.0), 2.5);
        assert!((percentile(&xs, 5.0) - 1.15).abs() < 1e-6);
        assert_eq!(percentile(&[7.0], 95.0), 7.0);
    }
}
