//! Learning behaviour: returns and losses over imagined trajectories, and the value loss over replayed ones
//! (paper, sections "Critic learning" and "Actor learning"; official agent.py, `imag_loss` and `repl_loss`).

use crate::Metrics;
use crate::config::AgentConfig;
use crate::heads::ScalarHead;
use crate::imagination::{Dream, Predictions};
use crate::normalize::Normalizer;
use crate::params::Params;
use crate::policy::{Likelihood, Policy};
use engine::ops::{self, Staged};
use engine::{Device, Tensor};

/// Replayed steps that one thread evaluates at a time.
const ROWS: usize = 128;

/// The heads that behaviour learning uses. `slow` has its own parameters.
pub struct Heads<'a> {
    pub rew: &'a ScalarHead,
    pub con: &'a ScalarHead,
    pub pol: &'a Policy,
    pub val: &'a ScalarHead,
    pub slow: &'a ScalarHead,
}

/// The running statistics that targets and advantages are normalised by.
#[derive(Clone)]
pub struct Normalizers {
    pub ret: Normalizer,
    pub val: Normalizer,
    pub adv: Normalizer,
}

/// Targets over imagined trajectories; all without gradient.
#[cfg_attr(not(test), allow(dead_code))] // the golden test compares every part
pub struct Targets {
    /// Lambda returns [N, H].
    pub ret: Tensor,
    /// Normalised value targets [N, H].
    pub value: Tensor,
    /// Normalised advantages [N, H].
    pub adv: Tensor,
    /// Weight of each state's losses [N, H].
    pub weight: Tensor,
    /// Values and slow values in units of return [N, H + 1].
    pub val: Tensor,
    pub slowval: Tensor,
}

impl Heads<'_> {
    /// Actor and critic losses [N, H] of each imagined state but the last, and the entropies [N, H] per action key.
    pub fn imagination_losses(
        &self,
        c: &AgentConfig,
        dreams: Staged<Dream>,
        targets: &Targets,
    ) -> (Tensor, Tensor, Vec<Tensor>) {
        let device = dreams.states().next().map_or(Device::Cpu, |dream| dream.predictions.rew.device());
        // What each log-probability and each entropy counts for, [N, H].
        let reinforce = zip(&targets.weight, &targets.adv, |w, a| -w * a);
        let entropy = map(&targets.weight, |w| -w * c.imag_loss.actent);
        let [reinforce, entropy, target, weight] =
            [&reinforce, &entropy, &targets.value, &targets.weight].map(|x| x.to(device));
        let mut outputs = dreams.finish(|rows, dream| {
            let (mut policy, mut value) = (Vec::new(), Vec::new());
            let mut entropies = vec![Vec::new(); self.pol.names().count()];
            for (step, (likelihoods, raw)) in dream.likelihoods.iter().zip(&dream.values).enumerate() {
                let at = |x: &Tensor| ops::column(x, rows.clone(), step);
                let slow = ops::column(&dream.predictions.slow, 0..rows.len(), step);
                policy.push(policy_loss(likelihoods, &at(&reinforce), &at(&entropy)));
                let loss = self.val.loss(raw, &[(&at(&target), 1.0), (&slow, c.imag_loss.slowreg)]);
                value.push(ops::linear_combination(&[(&loss, &at(&weight))]));
                entropies.iter_mut().zip(likelihoods).for_each(|(list, l)| list.push(l.entropy.detach()));
            }
            let mut outputs = vec![ops::stack_time(&policy), ops::stack_time(&value)];
            outputs.extend(entropies.iter().map(|list| ops::stack_time(list)));
            outputs
        });
        let entropies = outputs.split_off(2);
        let [policy, value] = outputs.try_into().expect("two losses");
        (policy, value, entropies)
    }

    /// The value loss [B, T - 1] over replayed features [B*T, ..], to which gradients flow.
    pub fn replay_loss(
        &self,
        p: &Params,
        slow: &Params,
        c: &AgentConfig,
        x: &ReplaySteps,
        norm: &mut Normalizer,
        training: bool,
    ) -> Replayed {
        let (b, t) = (x.boot.dim(0), x.boot.dim(1));
        let (offset, scale) = norm.stats();
        let disc = (1.0 - 1.0 / c.horizon) as f32;
        let ret = ops::lambda_return(&x.last, &x.term, &x.rew, &x.boot, disc, c.repl_loss.lam);
        let (new_offset, new_scale) = norm.apply(ret.data(), training);
        let device = x.deter.device();
        let target = ops::reshape(&pad(&map(&ret, |r| (r - new_offset) / new_scale), 0.0), &[b * t]).to(device);
        let live = ops::reshape(&map(&x.last, |l| 1.0 - l), &[b * t]).to(device);
        let work = 600 * b * t * (x.deter.width() + x.stoch.width());
        let outputs = ops::chunks(b * t, ROWS, work, &[&x.deter, &x.stoch], |rows, inputs| {
            let raw = self.val.apply(p, &[&inputs[0], &inputs[1]]);
            let slow = self.slow.pred(&self.slow.apply(slow, &[&inputs[0].detach(), &inputs[1].detach()]));
            let loss = self.val.loss(&raw, &[(&ops::rows(&target, rows.clone()), 1.0), (&slow, c.repl_loss.slowreg)]);
            let loss = ops::linear_combination(&[(&loss, &ops::rows(&live, rows))]);
            vec![loss, self.val.pred(&raw), slow]
        });
        let shape = |x: &Tensor| ops::reshape(x, &[b, t]);
        let steps = ops::unstack_time(&shape(&outputs[0]));
        Replayed {
            loss: ops::stack_time(&steps[..t - 1]),
            ret,
            val: map(&shape(&outputs[1]).host(), |v| v * scale + offset),
            slowval: map(&shape(&outputs[2]).host(), |v| v * scale + offset),
        }
    }
}

/// Replayed features [B*T, ..] with their flags, rewards and the imagined return from each step, [B, T].
pub struct ReplaySteps {
    pub deter: Tensor,
    pub stoch: Tensor,
    pub last: Tensor,
    pub term: Tensor,
    pub rew: Tensor,
    pub boot: Tensor,
}

/// Outcome of the replay value loss.
#[cfg_attr(not(test), allow(dead_code))] // the golden test compares every part
pub struct Replayed {
    /// [B, T - 1]
    pub loss: Tensor,
    pub ret: Tensor,
    /// [B, T]
    pub val: Tensor,
    pub slowval: Tensor,
}

/// `-weight (logp adv + actent entropy)`, summed over action keys, with `reinforce = -weight adv` and
/// `entropy = -weight actent`.
fn policy_loss(likelihoods: &[Likelihood], reinforce: &Tensor, entropy: &Tensor) -> Tensor {
    let terms: Vec<(&Tensor, &Tensor)> =
        likelihoods.iter().flat_map(|l| [(&l.logp, reinforce), (&l.entropy, entropy)]).collect();
    ops::linear_combination(&terms)
}

/// Returns, advantages and weights from predictions, all on the processor, with the official metrics. Updates the normalisers where `training`.
pub fn targets(
    c: &AgentConfig,
    x: &Predictions,
    norms: &mut Normalizers,
    training: bool,
    metrics: &mut Metrics,
) -> Targets {
    let (n, t) = (x.rew.dim(0), x.rew.dim(1));
    let (offset, scale) = norms.val.stats();
    let val = map(&x.val, |v| v * scale + offset);
    let slowval = map(&x.slow, |v| v * scale + offset);
    let tarval = if c.imag_loss.slowtar { &slowval } else { &val };
    let disc = if c.contdisc { 1.0 } else { (1.0 - 1.0 / c.horizon) as f32 };
    let term = map(&x.con, |con| 1.0 - con);
    let ret = ops::lambda_return(&Tensor::zeros(&[n, t]), &term, &x.rew, tarval, disc, c.imag_loss.lam);
    let weight = weights(&x.con, disc);

    let (ret_offset, ret_scale) = norms.ret.apply(ret.data(), training);
    let adv = zip(&ret, &head_steps(tarval), |r, v| (r - v) / ret_scale);
    let (adv_offset, adv_scale) = norms.adv.apply(adv.data(), training);
    let adv_normed = map(&adv, |a| (a - adv_offset) / adv_scale);
    let (val_offset, val_scale) = norms.val.apply(ret.data(), training);
    let tar = map(&ret, |r| (r - val_offset) / val_scale);
    let ret_normed = map(&ret, |r| (r - ret_offset) / ret_scale);

    let mut put = |name: &str, value: f32| metrics.insert(name.into(), value);
    put("adv", mean(&adv));
    put("adv_std", std(&adv));
    put("adv_mag", mean(&map(&adv, f32::abs)));
    put("rew", mean(&x.rew));
    put("con", mean(&x.con));
    put("ret", mean(&ret_normed));
    put("val", mean(&val));
    put("tar", mean(&tar));
    put("weight", mean(&weight));
    put("slowval", mean(&slowval));
    put("ret_min", ret_normed.data().iter().copied().fold(f32::INFINITY, f32::min));
    put("ret_max", ret_normed.data().iter().copied().fold(f32::NEG_INFINITY, f32::max));
    put("ret_rate", mean(&map(&ret_normed, |r| (r.abs() >= 1.0) as u8 as f32)));

    Targets { ret, value: tar, adv: adv_normed, weight: head_steps(&weight), val, slowval }
}

/// `cumprod(disc * con) / disc` along each row.
fn weights(con: &Tensor, disc: f32) -> Tensor {
    let mut out = con.data().to_vec();
    for row in out.chunks_exact_mut(con.dim(1)) {
        let mut product = 1.0;
        for x in row {
            product *= disc * *x;
            *x = product / disc;
        }
    }
    Tensor::from_slice(con.shape(), &out)
}

/// [N, T] without the last step.
fn head_steps(x: &Tensor) -> Tensor {
    let t = x.dim(1);
    let out: Vec<f32> = x.data().chunks_exact(t).flat_map(|row| &row[..t - 1]).copied().collect();
    Tensor::from_slice(&[x.dim(0), t - 1], &out)
}

/// [N, T] with one more step of `value`.
fn pad(x: &Tensor, value: f32) -> Tensor {
    let (n, t) = (x.dim(0), x.dim(1));
    let out: Vec<f32> = (0..n).flat_map(|i| x.data()[i * t..(i + 1) * t].iter().copied().chain([value])).collect();
    Tensor::from_slice(&[n, t + 1], &out)
}

fn map(x: &Tensor, f: impl Fn(f32) -> f32) -> Tensor {
    let out: Vec<f32> = x.data().iter().map(|&v| f(v)).collect();
    Tensor::from_slice(x.shape(), &out)
}

fn zip(x: &Tensor, y: &Tensor, f: impl Fn(f32, f32) -> f32) -> Tensor {
    let out: Vec<f32> = x.data().iter().zip(y.data()).map(|(&a, &b)| f(a, b)).collect();
    Tensor::from_slice(x.shape(), &out)
}

/// Mean over all elements. Waits for a GPU.
pub fn mean(x: &Tensor) -> f32 {
    let x = x.host();
    (x.data().iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64) as f32
}

fn std(x: &Tensor) -> f32 {
    let mean = x.data().iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64;
    (x.data().iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt() as f32
}
