//! The optimizer step over all tensors at once: adaptive gradient clipping, RMS scaling, momentum, learning rate
//! (official opt.py: clip_by_agc, scale_by_rms, scale_by_momentum), and the exponential moving average of parameters.

use super::{first_not_finite, optimizer_gpu as gpu};
use crate::cpu::vectorized;
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
struct UpdateStats {
    grad: f64,
    update: f64,
    param: f64,
}

impl OptimizerStep {
    /// What differs between updates: `[lr, correct1, correct2]`, the learning rate and `1 - beta^count`.
    pub fn varying(&self) -> [f32; 3] {
        let rule = Rule::new(*self, 1.0, 0.0);
        [rule.lr, rule.correct1, rule.correct2]
    }
}

/// The smallest parameter norm that adaptive clipping assumes.
pub(super) const PARAM_NORM_MIN: f32 = 1e-3;

/// One tensor's parameter, gradient (clipped in place), second and first moment, and weight decay.
pub struct Slot<'a> {
    pub param: &'a mut Tensor,
    pub grad: &'a mut Tensor,
    pub rms: &'a mut Tensor,
    pub momentum: &'a mut Tensor,
    pub decay: f32,
}

/// Updates all parameters in place and leaves the gradients clipped. Does not wait for a GPU, and may be part of an update
/// that is captured and replayed: `varying` [3] is [`OptimizerStep::varying`] in the GPU's memory, read when the update
/// runs (see [`Varying`](super::Varying)); that of `step` is not used.
///
/// Returns the verdict [4]: the norms of all gradients (before clipping), changes and parameters (afterwards), and the
/// number of the first tensor that holds a number that is not finite, or -1. Tensors are counted through `watched`, which
/// are only looked at, then the gradients of `slots`. Where there is such a tensor, nothing is changed.
pub fn optimizer_launch(slots: &mut [Slot], watched: &[&Tensor], step: OptimizerStep, varying: &Tensor) -> Tensor {
    assert!(!slots.is_empty(), "an optimizer without parameters");
    if let Device::Gpu(device) = slots[0].param.device() {
        return gpu::launch(device, slots, watched, step, varying);
    }
    let all: Vec<&Tensor> = watched.iter().copied().chain(slots.iter().map(|slot| &*slot.grad)).collect();
    let bad = first_not_finite(&all).map(|(i, _)| i);
    let stats = if bad.is_some() { UpdateStats::default() } else { step_cpu(slots, step) };
    let [grad, update, param] = [stats.grad, stats.update, stats.param].map(|x| x.sqrt() as f32);
    Tensor::from_slice(&[4], &[grad, update, param, bad.map_or(-1.0, |i| i as f32)])
}

fn step_cpu(slots: &mut [Slot], step: OptimizerStep) -> UpdateStats {
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
pub(super) struct Rule {
    clip: f32,
    lr: f32,
    pub eps: f32,
    pub nesterov: bool,
    decay: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub new1: f32,
    pub new2: f32,
    correct1: f32,
    correct2: f32,
}

impl Rule {
    pub fn new(s: OptimizerStep, clip: f32, decay: f32) -> Self {
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

/// `target = mix * source + (1 - mix) * target` for each pair of source and target. Where the verdict of
/// [`optimizer_launch`] names a bad tensor, nothing moves.
pub fn ema_all(pairs: &mut [(&Tensor, &mut Tensor)], mix: f32, verdict: Option<&Tensor>) {
    match pairs.first().map(|(source, _)| source.device()) {
        None => {}
        Some(Device::Gpu(device)) => gpu::ema_all(device, pairs, mix, verdict),
        Some(Device::Cpu) if verdict.is_some_and(|verdict| verdict.data()[3] >= 0.0) => {}
        Some(Device::Cpu) => pairs.iter_mut().for_each(|(source, target)| ema_cpu(source, target, mix)),
    }
}

/// Copies sources over targets of the same shapes on the same GPU, all float32, by one kernel; tensors that share the
/// targets' memory change too. Packed copies of the targets are not updated.
pub fn copy_all(pairs: &[(&Tensor, &Tensor)]) {
    match pairs.first().map(|(source, _)| source.device()) {
        None => {}
        Some(Device::Gpu(device)) => gpu::mix_all(device, pairs, 1.0, None),
        Some(Device::Cpu) => panic!("values on the processor are changed by `make_mut`"),
    }
}

fn ema_cpu(source: &Tensor, target: &mut Tensor, mix: f32) {
    let (xs, to) = (source.data(), target.make_mut());
    vectorized(
        #[inline(always)]
        || to.iter_mut().zip(xs).for_each(|(t, s)| *t = mix * s + (1.0 - mix) * *t),
    );
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

    /// The verdict of a step, on the processor.
    fn launch(slots: &mut [Slot], watched: &[&Tensor], step: OptimizerStep, device: Device) -> Tensor {
        let varying = Tensor::from_slice(&[3], &step.varying()).to(device);
        optimizer_launch(slots, watched, step, &varying).host()
    }

    fn follow(device: Device, agc: f32, nesterov: bool, decay: f32) {
        let n = gpu::SLICE + 7;
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
            let verdict = launch(&mut [slot], &[], step, device);

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
            for (&got, expected) in verdict.data().iter().zip([norm(&gs), norm(&changes), norm(&exact)]) {
                assert!((got as f64 / expected - 1.0).abs() < 1e-5, "{got} {expected}");
            }
        }
    }

    /// Many tensors of odd sizes and places at once, as each of them alone; a bad one stops them all.
    #[test]
    fn tensors_together_move_as_each_alone() {
        let step = OptimizerStep { lr: 0.1, agc: 0.3, eps: 1e-20, beta1: 0.9, beta2: 0.99, nesterov: false, count: 1 };
        for device in devices() {
            let sizes: Vec<usize> = (0..100).map(|i| [3, 40, 0, gpu::SLICE + 5][i % 4]).collect();
            let make = |seed: u32| -> Vec<Tensor> {
                // Every fifth begins in the middle of another.
                let one = |(i, &n): (usize, &usize)| match i % 5 {
                    0 => random(&[n + 1], seed + i as u32, 1.0).to(device).view(1, &[n]),
                    _ => random(&[n], seed + i as u32, 1.0).to(device),
                };
                sizes.iter().enumerate().map(one).collect()
            };
            let zero = || sizes.iter().map(|n| zeros(&[*n], device)).collect::<Vec<_>>();
            let run = |grads: &[Tensor], watched: &[&Tensor]| {
                let (mut params, mut grads, mut rms, mut momentum) = (make(0), grads.to_vec(), zero(), zero());
                let mut slots: Vec<Slot> = (params.iter_mut().zip(&mut grads))
                    .zip(rms.iter_mut().zip(&mut momentum))
                    .map(|((param, grad), (rms, momentum))| Slot { param, grad, rms, momentum, decay: 0.0 })
                    .collect();
                let varying = Tensor::from_slice(&[3], &step.varying()).to(device);
                let verdict = optimizer_launch(&mut slots, watched, step, &varying);
                (verdict, params)
            };
            let good = make(1000);
            let loss = Tensor::full(&[7], 1.0).to(device);
            let (verdict, params) = run(&good, &[&loss]);
            assert_eq!(verdict.host().data()[3], -1.0);
            for (i, got) in params.iter().enumerate() {
                let (mut param, mut grad) = (make(0)[i].clone(), good[i].clone());
                let [mut rms, mut momentum] = [(); 2].map(|()| zeros(&[sizes[i]], device));
                let (rms, momentum) = (&mut rms, &mut momentum);
                let slot = Slot { param: &mut param, grad: &mut grad, rms, momentum, decay: 0.0 };
                launch(&mut [slot], &[], step, device);
                assert_eq!(got.host().data(), param.host().data(), "tensor {i} on {device:?}");
            }
            let mut bad = good.clone();
            bad[97] = Tensor::from_slice(&[40], &[&[0.0; 39][..], &[f32::NAN]].concat()).to(device);
            let mut average = make(0)[1].clone();
            let (verdict, params) = run(&bad, &[&loss]);
            ema_all(&mut [(&good[1], &mut average)], 0.5, Some(&verdict));
            assert_eq!(verdict.host().data()[3], 98.0);
            assert!(params.iter().zip(make(0)).all(|(a, b)| a.host().data() == b.host().data()));
            assert_eq!(average.host().data(), params[1].host().data());
            let infinite = Tensor::full(&[1], f32::INFINITY).to(device);
            assert_eq!(run(&good, &[&loss, &infinite]).0.host().data()[3], 1.0);
        }
    }

    #[test]
    fn what_is_only_watched_has_no_part_in_the_norm_and_can_stop_the_update() {
        for device in devices() {
            let ones = || Tensor::full(&[4], 1.0).to(device);
            let [mut param, mut grad, mut rms, mut momentum] = [(); 4].map(|()| ones());
            let step =
                OptimizerStep { lr: 0.1, agc: 0.0, eps: 1e-8, beta1: 0.9, beta2: 0.99, nesterov: false, count: 1 };
            let varying = Tensor::from_slice(&[3], &step.varying()).to(device);
            for (loss, bad) in [(f32::NAN, 0.0), (7.0, -1.0)] {
                let loss = Tensor::full(&[3], loss).to(device);
                let slot =
                    Slot { param: &mut param, grad: &mut grad, rms: &mut rms, momentum: &mut momentum, decay: 0.0 };
                let verdict = optimizer_launch(&mut [slot], &[&loss], step, &varying).host();
                assert_eq!(verdict.data()[3], bad, "{verdict:?}");
                let same = param.host().data() == [1.0; 4];
                assert_eq!(same, bad >= 0.0);
                assert!(bad >= 0.0 || verdict.data()[0] == 2.0, "{verdict:?}");
            }
        }
    }

    #[test]
    fn average_moves_by_the_mix() {
        for device in devices() {
            let source = Tensor::from_slice(&[2], &[1.0, 2.0]).to(device);
            let before = Tensor::from_slice(&[2], &[0.0, 4.0]).to(device);
            let mut target = before.clone();
            ema_all(&mut [(&source, &mut target)], 0.25, None);
            assert_eq!(target.host().data(), [0.25, 3.5]);
            assert_eq!(before.host().data(), [0.0, 4.0]); // whoever holds the old average keeps it
        }
    }
}
