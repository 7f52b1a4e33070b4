//! The optimizer step over all tensors at once: adaptive gradient clipping, RMS scaling, momentum, learning rate
//! (official opt.py: clip_by_agc, scale_by_rms, scale_by_momentum), and the exponential moving average of parameters.

use crate::cpu::vectorized;
use crate::cuda::{Arg, Gpu, Grid};
use crate::parallel::par_items;
use crate::tensor::{Device, Tensor};

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
    pub param: &'a mut Tensor,
    pub grad: &'a mut Tensor,
    pub rms: &'a mut Tensor,
    pub momentum: &'a mut Tensor,
    pub decay: f32,
}

/// Updates all parameters in place. Gradients are left clipped. The statistics are of gradients before
/// clipping and of parameters after the update. Waits for a GPU.
pub fn optimizer_step(slots: &mut [Slot], step: OptimizerStep) -> UpdateStats {
    let stats = match slots.first().map(|slot| slot.param.device()) {
        None | Some(Device::Cpu) => {
            let work = 40 * slots.iter().map(|s| s.param.len()).sum::<usize>();
            let mut stats = vec![UpdateStats::default(); slots.len()];
            par_items(slots.iter_mut().zip(&mut stats), work, |_, (slot, stats)| *stats = update_cpu(slot, step));
            stats
        }
        Some(Device::Gpu(gpu)) => {
            let stats = gpu.empty(&[slots.len(), 6]); // three float64 each
            slots.iter_mut().enumerate().for_each(|(i, slot)| update_gpu(gpu, slot, step, &stats.view(6 * i, &[6])));
            let stats = stats.host();
            let numbers: &[f64] = bytemuck::cast_slice(stats.data());
            numbers.chunks_exact(3).map(|x| UpdateStats { grad: x[0], update: x[1], param: x[2] }).collect()
        }
    };
    stats.iter().fold(UpdateStats::default(), |a, b| UpdateStats {
        grad: a.grad + b.grad,
        update: a.update + b.update,
        param: a.param + b.param,
    })
}

/// Parameters that one block of threads updates.
const SLICE: usize = 8192;

fn update_gpu(gpu: &'static Gpu, slot: &mut Slot, s: OptimizerStep, stats: &Tensor) {
    let n = slot.param.len();
    let parts = n.div_ceil(SLICE).max(1);
    let (norms, sums) = (gpu.empty(&[4 * parts]), gpu.empty(&[4 * parts])); // two float64 a part
    for x in [&mut *slot.param, &mut *slot.grad, &mut *slot.rms, &mut *slot.momentum] {
        x.unshare();
    }
    let [param, grad, rms, momentum] = [&*slot.param, &*slot.grad, &*slot.rms, &*slot.momentum];
    let grid = Grid::blocks(parts, 256);
    gpu.launch("optimizer", "norms", grid, &[grad, param, &n, &SLICE, &norms]);
    let rule = Rule::new(s, 1.0, slot.decay);
    let nesterov = rule.nesterov as u32;
    #[rustfmt::skip] // tensors, then sizes and sums, then constants
    let args: [&dyn Arg; 20] = [
        param, grad, rms, momentum,
        &n, &SLICE, &norms, &sums,
        &rule.lr, &s.agc, &PARAM_NORM_MIN, &rule.eps, &rule.beta1, &rule.beta2, &rule.new1, &rule.new2,
        &rule.correct1, &rule.correct2, &nesterov, &rule.decay,
    ];
    gpu.launch("optimizer", "update", grid, &args);
    gpu.launch("optimizer", "statistics", Grid::blocks(1, 256), &[&norms, &sums, &parts, stats]);
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
    let (params, grads) = (slot.param.make_mut(), slot.grad.make_mut());
    let grad = sum_of_squares(grads);
    let clip = if s.agc > 0.0 {
        let upper = s.agc * (sum_of_squares(params).sqrt() as f32).max(PARAM_NORM_MIN);
        1.0 / (grad.sqrt() as f32 / upper).max(1.0)
    } else {
        1.0
    };
    let rule = Rule::new(s, clip, slot.decay);
    let blocks = params.chunks_mut(BLOCK).zip(grads.chunks_mut(BLOCK));
    let moments = slot.rms.make_mut().chunks_mut(BLOCK).zip(slot.momentum.make_mut().chunks_mut(BLOCK));
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
    match source.device() {
        Device::Cpu => {
            let xs = source.data();
            let to = target.make_mut();
            vectorized(
                #[inline(always)]
                || to.iter_mut().zip(xs).for_each(|(t, s)| *t = mix * s + (1.0 - mix) * *t),
            );
        }
        Device::Gpu(gpu) => {
            target.unshare();
            gpu.launch("optimizer", "ema", Grid::elements(source.len()), &[source, &*target, &mix, &source.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, devices, random};
    use crate::ops::zeros;

    /// Three updates against the same equations in float64.
    #[test]
    fn follows_the_equations() {
        for device in devices() {
            for (agc, nesterov, decay) in [(0.3f32, false, 0.0f32), (0.0, true, 0.1)] {
                follow(device, agc, nesterov, decay);
            }
        }
    }

    fn follow(device: Device, agc: f32, nesterov: bool, decay: f32) {
        let n = SLICE + 7;
        let mut param = random(&[n], 1, 1.0).to(device);
        let [mut rms, mut momentum] = [(); 2].map(|()| zeros(&[n], device));
        let doubles = |x: &Tensor| -> Vec<f64> { x.host().data().iter().map(|&x| x as f64).collect() };
        let mut exact = doubles(&param);
        let (mut v, mut m) = (vec![0.0f64; n], vec![0.0f64; n]);
        let (lr, b1, b2) = (0.01f32, 0.9f64, 0.999f64);
        for count in 1..=3u64 {
            let mut grad = random(&[n], 10 + count as u32, 2.0).to(device);
            let gs = doubles(&grad);
            let (rms, momentum) = (&mut rms, &mut momentum);
            let slot = Slot { param: &mut param, grad: &mut grad, rms, momentum, decay };
            let step = OptimizerStep { lr, agc, eps: 1e-20, beta1: b1, beta2: b2, nesterov, count };
            let stats = optimizer_step(&mut [slot], step);

            let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
            let upper = agc as f64 * norm(&exact).max(1e-3);
            let clip = if agc > 0.0 { 1.0 / (norm(&gs) / upper).max(1.0) } else { 1.0 };
            let before = exact.clone();
            for i in 0..n {
                let g = gs[i] * clip;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let scaled = g / (v[i] / (1.0 - b2.powi(count as i32))).sqrt();
                m[i] = b1 * m[i] + (1.0 - b1) * scaled;
                let used = if nesterov { b1 * m[i] + (1.0 - b1) * scaled } else { m[i] };
                exact[i] -= lr as f64 * (used / (1.0 - b1.powi(count as i32)) + decay as f64 * exact[i]);
            }
            assert_close("parameters", &doubles(&param), &exact, 1e-6);
            let changes: Vec<f64> = exact.iter().zip(&before).map(|(a, b)| a - b).collect();
            for (got, expected) in
                [(stats.grad, norm(&gs)), (stats.update, norm(&changes)), (stats.param, norm(&exact))]
            {
                assert!((got.sqrt() / expected - 1.0).abs() < 1e-5, "{got} {expected}");
            }
        }
    }

    #[test]
    fn average_moves_by_the_mix() {
        for device in devices() {
            let source = Tensor::from_slice(&[2], &[1.0, 2.0]).to(device);
            let before = Tensor::from_slice(&[2], &[0.0, 4.0]).to(device);
            let mut target = before.clone();
            ema(&source, &mut target, 0.25);
            assert_eq!(target.host().data(), [0.25, 3.5]);
            assert_eq!(before.host().data(), [0.0, 4.0]); // whoever holds the old average keeps it
        }
    }
}
