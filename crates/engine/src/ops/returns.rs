//! Lambda returns and percentiles, which are targets and statistics: no gradient flows through them.

use super::{fit_steps, normalize, scale_shift, subtract};
use crate::cuda::{Arg, Grid};
use crate::tensor::{Device, Tensor};

/// Lambda returns of `[N, T]` sequences -> [N, T - 1] (paper, equation 6; official agent.py, `lambda_return`):
/// `R_t = r_{t+1} + disc (1 - term_{t+1}) ((1 - lam_{t+1}) boot_{t+1} + lam_{t+1} R_{t+1})`, where `lam` is 0 after `last`,
/// and `R` after the end is the last bootstrap value.
pub fn lambda_return(last: &Tensor, term: &Tensor, rew: &Tensor, boot: &Tensor, disc: f32, lam: f32) -> Tensor {
    let (n, t) = (rew.dim(0), rew.dim(1));
    match rew.device() {
        Device::Cpu => lambda_return_cpu([last, term, rew, boot], disc, lam),
        Device::Gpu(gpu) => {
            let out = gpu.empty(&[n, t - 1]);
            let [last, term, rew, boot] = [last, term, rew, boot].map(|x| gpu.full(x));
            let args: [&dyn Arg; 9] = [&last, &term, &rew, &boot, &n, &t, &disc, &lam, &out];
            gpu.launch("targets", "lambda_return", Grid::elements(n), &args);
            out
        }
    }
}

fn lambda_return_cpu([last, term, rew, boot]: [&Tensor; 4], disc: f32, lam: f32) -> Tensor {
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

/// `cumprod(disc * con) / disc` along each row of [N, T].
pub fn discount_weights(con: &Tensor, disc: f32) -> Tensor {
    let (n, t) = (con.dim(0), con.dim(1));
    match con.device() {
        Device::Cpu => {
            let mut out = con.data().to_vec();
            for row in out.chunks_exact_mut(t) {
                let mut product = 1.0;
                for x in row {
                    product *= disc * *x;
                    *x = product / disc;
                }
            }
            Tensor::from_slice(con.shape(), &out)
        }
        Device::Gpu(gpu) => {
            let out = gpu.empty(con.shape());
            gpu.launch("targets", "discount_weights", Grid::elements(n), &[&gpu.full(con), &n, &t, &disc, &out]);
            out
        }
    }
}

/// Lambda returns [N, T - 1] and discount weights [N, T] of imagined trajectories [N, T], where `con` is the probability to go
/// on: [`lambda_return`] without a last step, and [`discount_weights`].
pub fn imagined_returns(rew: &Tensor, con: &Tensor, boot: &Tensor, disc: f32, lam: f32) -> (Tensor, Tensor) {
    let (n, t) = (rew.dim(0), rew.dim(1));
    match rew.device() {
        Device::Cpu => {
            let (last, term) = (Tensor::zeros(&[n, t]), scale_shift(con, -1.0, 1.0));
            (lambda_return(&last, &term, rew, boot, disc, lam), discount_weights(con, disc))
        }
        Device::Gpu(gpu) => {
            let (ret, weight) = (gpu.empty(&[n, t - 1]), gpu.empty(&[n, t]));
            let [rew, con, boot] = [rew, con, boot].map(|x| gpu.full(x));
            let args: [&dyn Arg; 9] = [&rew, &con, &boot, &n, &t, &disc, &lam, &ret, &weight];
            gpu.launch("targets", "imagined_returns", Grid::elements(n), &args);
            (ret, weight)
        }
    }
}

/// `(ret - val) / scale` for returns [N, T], values [N, T + 1] and stats [offset, scale].
pub fn advantage(ret: &Tensor, val: &Tensor, stats: &Tensor) -> Tensor {
    let (n, t) = (ret.dim(0), ret.dim(1));
    match ret.device() {
        Device::Cpu => normalize(&subtract(ret, &fit_steps(val, t)), stats, false),
        Device::Gpu(gpu) => {
            let y = gpu.empty(&[n, t]);
            let args: [&dyn Arg; 6] = [&gpu.full(ret), &gpu.full(val), stats, &n, &t, &y];
            gpu.launch("targets", "advantage", Grid::elements(n * t), &args);
            y
        }
    }
}

/// Where the `q`-th percentile of `n` numbers lies: the rank below it, and its share of the way to the next.
pub(super) fn rank(n: usize, q: f64) -> (usize, f64) {
    let position = q / 100.0 * (n - 1) as f64;
    let low = position.floor();
    (low as usize, position - low)
}

/// The `q`-th percentile (0 to 100) of all values [1], linearly interpolated as numpy does.
pub fn percentile(x: &Tensor, q: f64) -> Tensor {
    let (low, share) = rank(x.len(), q);
    match x.device() {
        Device::Cpu => {
            let mut sorted = x.data().to_vec();
            let (_, &mut a, above) = sorted.select_nth_unstable_by(low, f32::total_cmp);
            let b = above.iter().copied().fold(f32::INFINITY, f32::min);
            let value =
                if share == 0.0 || above.is_empty() { a } else { (a as f64 * (1.0 - share) + b as f64 * share) as f32 };
            Tensor::from_slice(&[1], &[value])
        }
        Device::Gpu(gpu) => {
            let y = gpu.empty(&[1]);
            let args: [&dyn Arg; 5] = [&gpu.full(x), &x.len(), &low, &(share as f32), &y];
            gpu.launch("targets", "percentile", Grid::blocks(1, 1024), &args);
            y
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::devices;

    #[test]
    fn returns_by_hand() {
        for device in devices() {
            let t = |x: &[f32]| Tensor::from_slice(&[1, 3], x).to(device);
            let returns = |last: &[f32], term: &[f32], rew: &[f32], boot: &[f32]| {
                lambda_return(&t(last), &t(term), &t(rew), &t(boot), 0.5, 0.75).host().data().to_vec()
            };
            // R_1 = r_2 + d b_2; R_0 = r_1 + d ((1 - l) b_1 + l R_1).
            let r1 = 2.0 + 0.5 * 8.0;
            let (zeros, boot) = ([0.0; 3], [9.0, 4.0, 8.0]);
            assert_eq!(returns(&zeros, &zeros, &[9.0, 1.0, 2.0], &boot), [1.0 + 0.5 * (0.25 * 4.0 + 0.75 * r1), r1]);
            // A terminal step takes its reward alone, a last one bootstraps fully.
            let r = returns(&[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0], &[0.0, 1.0, 2.0], &[0.0, 4.0, 8.0]);
            assert_eq!(r, [1.0 + 0.5 * 4.0, 2.0]);
        }
    }

    #[test]
    fn imagined_returns_are_those_of_their_parts() {
        for device in devices() {
            let [rew, con, boot] = [0.3, 0.8, 2.0].map(|scale| {
                let x: Vec<f32> = (0..15).map(|i| (i as f32 * scale).sin().abs()).collect();
                Tensor::from_slice(&[3, 5], &x).to(device)
            });
            let (ret, weight) = imagined_returns(&rew, &con, &boot, 0.9, 0.95);
            let last = Tensor::zeros(&[3, 5]).to(device);
            let expected = lambda_return(&last, &scale_shift(&con, -1.0, 1.0), &rew, &boot, 0.9, 0.95);
            assert!(ret.host().data().iter().zip(expected.host().data()).all(|(a, b)| (a - b).abs() < 1e-5));
            assert_eq!(weight.host().data(), discount_weights(&con, 0.9).host().data());
            let stats = Tensor::from_slice(&[2], &[7.0, 4.0]).to(device);
            let expected = (ret.host().data()[6] - boot.host().data()[7]) / 4.0;
            assert_eq!(advantage(&ret, &boot, &stats).host().data()[6], expected);
        }
    }

    #[test]
    fn weights_by_hand() {
        for device in devices() {
            let con = Tensor::from_slice(&[2, 3], &[1.0, 0.5, 1.0, 0.0, 1.0, 1.0]).to(device);
            assert_eq!(discount_weights(&con, 0.5).host().data(), [1.0, 0.25, 0.125, 0.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn percentiles_interpolate() {
        for device in devices() {
            let at = |xs: &[f32], q: f64| percentile(&Tensor::from_slice(&[xs.len()], xs).to(device), q).item();
            let xs = [4.0, 1.0, 3.0, 2.0];
            assert_eq!([at(&xs, 0.0), at(&xs, 100.0), at(&xs, 50.0)], [1.0, 4.0, 2.5]);
            assert!((at(&xs, 5.0) - 1.15).abs() < 1e-6);
            assert_eq!(at(&[7.0], 95.0), 7.0);
            let bad = [f32::NAN, 1.0, 2.0];
            assert!(at(&bad, 50.0) == 2.0 && at(&bad, 100.0).is_nan());
            // Ties, and more numbers than a block of threads has.
            let many: Vec<f32> = (0..600).map(|i| (i * 7 % 300) as f32).collect();
            assert!((at(&many, 50.0) - 149.5).abs() < 1e-4 && at(&many, 0.0) == 0.0, "{}", at(&many, 50.0));
            let more: Vec<f32> = (0..20_000).map(|i| (i * 7 % 20_000) as f32 - 10_000.0).collect();
            assert!((at(&more, 95.0) - 8999.05).abs() < 1e-2 && at(&more, 100.0) == 9999.0, "{}", at(&more, 95.0));
        }
    }
}
