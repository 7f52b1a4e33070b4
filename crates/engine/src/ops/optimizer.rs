//! The optimizer step over all tensors at once: adaptive gradient clipping, RMS scaling, momentum, learning rate
//! (official opt.py: clip_by_agc, scale_by_rms, scale_by_momentum), and the exponential moving average of parameters.

use crate::cpu::vectorized;
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

/// Elements that add up in float32 lanes before they go into a float64 sum: fast, and exact enough for a norm.
const BLOCK: usize = 1024;
/// Sums side by side.
const LANES: usize = 16;

fn total(lanes: [f32; LANES]) -> f64 {
    lanes.iter().map(|&x| x as f64).sum()
}

fn sum_of_squares(xs: &[f32]) -> f64 {
    let block = |xs: &[f32]| {
        let mut sums = [0.0f32; LANES];
        vectorized(
            #[inline(always)]
            || {
                let (groups, rest) = xs.as_chunks::<LANES>();
                groups.iter().for_each(|x| (0..LANES).for_each(|j| sums[j] += x[j] * x[j]));
                rest.iter().zip(&mut sums).for_each(|(x, sum)| *sum += x * x);
            },
        );
        total(sums)
    };
    xs.chunks(BLOCK).map(block).sum()
}

/// The constants of one tensor's update.
#[derive(Clone, Copy)]
struct Rule {
    clip: f32,
    lr: f32,
    eps: f32,
    nesterov: bool,
    decay: f32,
    beta1: f32,
    beta2: f32,
    new1: f32,
    new2: f32,
    correct1: f32,
    correct2: f32,
}

impl Rule {
    fn new(s: OptimizerStep, clip: f32, decay: f32) -> Self {
        let (beta1, beta2) = (s.beta1 as f32, s.beta2 as f32);
        Rule {
            clip,
            lr: s.lr,
            eps: s.eps,
            nesterov: s.nesterov,
            decay,
            beta1,
            beta2,
            // Rounded once, from float64, where the official code has Python numbers; the powers are float32.
            new1: (1.0 - s.beta1) as f32,
            new2: (1.0 - s.beta2) as f32,
            correct1: 1.0 - beta1.powf(s.count as f32),
            correct2: 1.0 - beta2.powf(s.count as f32),
        }
    }

    /// Updates one parameter; returns the squares of its change and of its new value.
    #[inline(always)]
    fn apply(self, param: &mut f32, grad: &mut f32, rms: &mut f32, momentum: &mut f32) -> [f32; 2] {
        let g = *grad * self.clip;
        *grad = g;
        let v = self.beta2 * *rms + self.new2 * (g * g);
        *rms = v;
        let scaled = g / ((v / self.correct2).sqrt() + self.eps);
        let mut m = self.beta1 * *momentum + self.new1 * scaled;
        *momentum = m;
        if self.nesterov {
            m = self.beta1 * m + self.new1 * scaled;
        }
        let change = -self.lr * (m / self.correct1 + self.decay * *param);
        *param += change;
        [change * change, *param * *param]
    }
}

/// One pass over the tensor's arrays, after one over gradient and parameter for their norms.
fn update_cpu(slot: &mut Slot, s: OptimizerStep) -> UpdateStats {
    let grad = sum_of_squares(slot.grad);
    let clip = if s.agc > 0.0 {
        let upper = s.agc * (sum_of_squares(slot.param).sqrt() as f32).max(PARAM_NORM_MIN);
        1.0 / (grad.sqrt() as f32 / upper).max(1.0)
    } else {
        1.0
    };
    let rule = Rule::new(s, clip, slot.decay);
    let blocks = slot.param.chunks_mut(BLOCK).zip(slot.grad.chunks_mut(BLOCK));
    let moments = slot.rms.chunks_mut(BLOCK).zip(slot.momentum.chunks_mut(BLOCK));
    let mut stats = UpdateStats { grad, ..UpdateStats::default() };
    for ((param, grad), (rms, momentum)) in blocks.zip(moments) {
        let (mut updates, mut params) = ([0.0f32; LANES], [0.0f32; LANES]);
        vectorized(
            #[inline(always)]
            || {
                let n = param.len();
                let (grad, rms, momentum) = (&mut grad[..n], &mut rms[..n], &mut momentum[..n]);
                for first in (0..n / LANES * LANES).step_by(LANES) {
                    for j in 0..LANES {
                        let i = first + j;
                        let [update, square] = rule.apply(&mut param[i], &mut grad[i], &mut rms[i], &mut momentum[i]);
                        updates[j] += update;
                        params[j] += square;
                    }
                }
                for i in n / LANES * LANES..n {
                    let [update, square] = rule.apply(&mut param[i], &mut grad[i], &mut rms[i], &mut momentum[i]);
                    updates[i % LANES] += update;
                    params[i % LANES] += square;
                }
            },
        );
        stats.update += total(updates);
        stats.param += total(params);
    }
    stats
}

/// `target = mix * source + (1 - mix) * target`.
pub fn ema(source: &Tensor, target: &mut Tensor, mix: f32) {
    let xs = source.data();
    let to = target.make_mut();
    vectorized(
        #[inline(always)]
        || to.iter_mut().zip(xs).for_each(|(t, s)| *t = mix * s + (1.0 - mix) * *t),
    );
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
