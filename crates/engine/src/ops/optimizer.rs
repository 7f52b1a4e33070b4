//! The optimizer step over all tensors at once: adaptive gradient clipping, RMS scaling, momentum, learning rate
//! (official opt.py: clip_by_agc, scale_by_rms, scale_by_momentum), and the exponential moving average of parameters.

use crate::parallel::par_items;
use crate::tensor::Tensor;

/// Constants of one update.
#[derive(Clone, Copy, Debug)]
pub struct OptimizerStep {
    pub lr: f32,
    /// Largest gradient norm as a share of the parameter norm; 0 is off.
    pub agc: f32,
    pub eps: f32,
    pub beta1: f64,
    pub beta2: f64,
    pub nesterov: bool,
    /// Number of this update, from 1.
    pub count: u64,
}

/// Sums of squares over all tensors, for the metrics.
#[derive(Clone, Copy, Default, Debug)]
pub struct UpdateStats {
    pub grad: f64,
    pub update: f64,
    pub param: f64,
}

/// The smallest parameter norm that adaptive clipping assumes.
const PARAM_NORM_MIN: f32 = 1e-3;

/// One tensor's parameter, gradient (clipped in place), second and first moment, and weight decay.
pub struct Slot<'a> {
    pub param: &'a mut [f32],
    pub grad: &'a mut [f32],
    pub rms: &'a mut [f32],
    pub momentum: &'a mut [f32],
    pub decay: f32,
}

/// Updates all parameters in place. Gradients are left clipped. The statistics are of gradients before
/// clipping and of parameters after the update.
pub fn optimizer_step(slots: &mut [Slot], step: OptimizerStep) -> UpdateStats {
    let work = 40 * slots.iter().map(|s| s.param.len()).sum::<usize>();
    let mut stats = vec![UpdateStats::default(); slots.len()];
    par_items(slots.iter_mut().zip(&mut stats), work, |_, (slot, stats)| *stats = update_cpu(slot, step));
    stats.iter().fold(UpdateStats::default(), |a, b| UpdateStats {
        grad: a.grad + b.grad,
        update: a.update + b.update,
        param: a.param + b.param,
    })
}

fn sum_of_squares(xs: &[f32]) -> f64 {
    // Lanes of float32 within a block, float64 across blocks: fast, and exact enough for a norm.
    let block = |b: &[f32]| {
        let mut lanes = [0.0f32; 16];
        b.iter().enumerate().for_each(|(i, x)| lanes[i % 16] += x * x);
        lanes.iter().map(|&x| x as f64).sum::<f64>()
    };
    xs.chunks(1024).map(block).sum()
}

fn update_cpu(slot: &mut Slot, s: OptimizerStep) -> UpdateStats {
    let grad = sum_of_squares(slot.grad);
    let clip = if s.agc > 0.0 {
        let upper = s.agc * (sum_of_squares(slot.param).sqrt() as f32).max(PARAM_NORM_MIN);
        1.0 / (grad.sqrt() as f32 / upper).max(1.0)
    } else {
        1.0
    };
    let (beta1, beta2) = (s.beta1 as f32, s.beta2 as f32);
    // 1 - beta is rounded once, from float64, where the official code has Python numbers; the powers are float32.
    let (new1, new2) = ((1.0 - s.beta1) as f32, (1.0 - s.beta2) as f32);
    let correct1 = 1.0 - beta1.powf(s.count as f32);
    let correct2 = 1.0 - beta2.powf(s.count as f32);
    let mut update = 0.0;
    for i in 0..slot.param.len() {
        let g = slot.grad[i] * clip;
        slot.grad[i] = g;
        let v = beta2 * slot.rms[i] + new2 * (g * g);
        slot.rms[i] = v;
        let scaled = g / ((v / correct2).sqrt() + s.eps);
        let mut m = beta1 * slot.momentum[i] + new1 * scaled;
        slot.momentum[i] = m;
        if s.nesterov {
            m = beta1 * m + new1 * scaled;
        }
        let change = -s.lr * (m / correct1 + slot.decay * slot.param[i]);
        slot.param[i] += change;
        update += (change * change) as f64;
    }
    UpdateStats { grad, update, param: sum_of_squares(slot.param) }
}

/// `target = mix * source + (1 - mix) * target`.
pub fn ema(source: &Tensor, target: &mut Tensor, mix: f32) {
    let xs = source.data();
    target.make_mut().iter_mut().zip(xs).for_each(|(t, s)| *t = mix * s + (1.0 - mix) * *t);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    /// Three updates against the same equations in float64.
    #[test]
    fn follows_the_equations() {
        for (agc, nesterov, decay) in [(0.3f32, false, 0.0f32), (0.0, true, 0.1)] {
            let mut param = random(&[7], 1, 1.0).data().to_vec();
            let (mut rms, mut momentum) = (vec![0.0f32; 7], vec![0.0f32; 7]);
            let mut exact: Vec<f64> = param.iter().map(|&x| x as f64).collect();
            let (mut v, mut m) = (vec![0.0f64; 7], vec![0.0f64; 7]);
            let (lr, b1, b2) = (0.01f32, 0.9f64, 0.999f64);
            for count in 1..=3u64 {
                let mut grad = random(&[7], 10 + count as u32, 2.0).data().to_vec();
                let gs: Vec<f64> = grad.iter().map(|&x| x as f64).collect();
                let slot = Slot { param: &mut param, grad: &mut grad, rms: &mut rms, momentum: &mut momentum, decay };
                let step = OptimizerStep { lr, agc, eps: 1e-20, beta1: b1, beta2: b2, nesterov, count };
                let stats = optimizer_step(&mut [slot], step);

                let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
                let upper = agc as f64 * norm(&exact).max(1e-3);
                let clip = if agc > 0.0 { 1.0 / (norm(&gs) / upper).max(1.0) } else { 1.0 };
                for i in 0..7 {
                    let g = gs[i] * clip;
                    v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                    let scaled = g / (v[i] / (1.0 - b2.powi(count as i32))).sqrt();
                    m[i] = b1 * m[i] + (1.0 - b1) * scaled;
                    let used = if nesterov { b1 * m[i] + (1.0 - b1) * scaled } else { m[i] };
                    exact[i] -= lr as f64 * (used / (1.0 - b1.powi(count as i32)) + decay as f64 * exact[i]);
                }
                for (a, b) in param.iter().zip(&exact) {
                    assert!((*a as f64 - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} {b}");
                }
                assert!((stats.grad.sqrt() - norm(&gs)).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn average_moves_by_the_mix() {
        let source = Tensor::from_slice(&[2], &[1.0, 2.0]);
        let mut target = Tensor::from_slice(&[2], &[0.0, 4.0]);
        ema(&source, &mut target, 0.25);
        assert_eq!(target.data(), [0.25, 3.5]);
    }
}
