//! Learning behaviour: returns and losses over imagined trajectories, and the value loss over replayed ones
//! (paper, sections "Critic learning" and "Actor learning"; official agent.py, `imag_loss` and `repl_loss`).

use crate::batch::Batch;
use crate::config::AgentConfig;
use crate::gauges::Gauges;
use crate::imagination::{Predictions, Rollout, Visits};
use crate::loss::{Learner, last_steps};
use crate::normalize::Normalizer;
use crate::policy::Likelihood;
use crate::rssm::Latent;
use engine::Tensor;
use engine::cuda::Member;
use engine::ops::{self, Staged, Summary};

/// Replayed steps that one thread evaluates at a time.
const ROWS: usize = 128;

/// The running statistics that targets and advantages are normalised by.
#[derive(Clone)]
pub struct Normalizers {
    pub ret: Normalizer,
    pub val: Normalizer,
    pub adv: Normalizer,
}

impl Normalizers {
    /// Those of an agent that has not been trained.
    pub fn new(config: &AgentConfig) -> Normalizers {
        let [ret, val, adv] = [&config.retnorm, &config.valnorm, &config.advnorm].map(Normalizer::new);
        Normalizers { ret, val, adv }
    }

    /// Copies the state of `others`, unless `verdict` says that the update was skipped.
    pub fn follow(&mut self, others: &Normalizers, verdict: &Tensor) {
        self.ret.follow(&others.ret, verdict);
        self.val.follow(&others.val, verdict);
        self.adv.follow(&others.adv, verdict);
    }

    /// From now on the statistics are those of the values of all members.
    pub fn join(&mut self, member: &Member) {
        for norm in [&mut self.ret, &mut self.val, &mut self.adv] {
            norm.member = Some(member.clone());
        }
    }

    pub fn states_mut(&mut self) -> [&mut Tensor; 3] {
        [&mut self.ret.state, &mut self.val.state, &mut self.adv.state]
    }
}

/// Targets over imagined trajectories; all without gradient.
pub struct Targets {
    /// Lambda returns [N, H].
    pub ret: Tensor,
    /// Normalised value targets [N, H].
    pub value: Tensor,
    /// Normalised advantages [N, H].
    pub adv: Tensor,
    /// Weight of each state's losses [N, H].
    pub weight: Tensor,
}

impl Learner<'_> {
    /// Actor and critic losses [N, H] of each imagined state but the last, and the entropies [N, H] per action key.
    pub fn imagination_losses(&self, rollouts: Staged<Rollout>, targets: &Targets) -> (Tensor, Tensor, Vec<Tensor>) {
        let aims = LossTargets { adv: &targets.adv, value: &targets.value, weight: &targets.weight };
        let mut outputs = rollouts.finish(|rows, rollout| match rollout.visits {
            Visits::Steps(visits) => {
                let slow = &rollout.predictions.slow;
                let steps = visits.iter().enumerate().map(|(step, (likelihoods, raw))| {
                    let aims = aims.map(|x| ops::column(x, rows.clone(), step));
                    self.state_losses(likelihoods, raw, &aims, &ops::column(slow, 0..rows.len(), step))
                });
                let steps: Vec<Vec<Tensor>> = steps.collect();
                let over_time = |i: usize| steps.iter().map(|losses| losses[i].clone()).collect::<Vec<Tensor>>();
                (0..steps[0].len()).map(|i| ops::stack_time(&over_time(i))).collect()
            }
            Visits::Whole(likelihoods, raw) => self.whole_losses(&likelihoods, &raw, &aims, &rollout.predictions),
        });
        let entropies = outputs.split_off(2);
        let [policy, value] = outputs.try_into().expect("two losses");
        (policy, value, entropies)
    }

    /// Actor and critic loss and the entropy per key of one state of each trajectory, [rows] each.
    fn state_losses(
        &self,
        likelihoods: &[Likelihood],
        raw: &Tensor,
        aims: &LossTargets<Tensor>,
        slow: &Tensor,
    ) -> Vec<Tensor> {
        let pairs: Vec<[&Tensor; 2]> = likelihoods.iter().map(|l| [&l.logp, &l.entropy]).collect();
        let taken = aims.adv.len(); // the last state may be without an action
        let weight = ops::rows(&aims.weight, 0..taken);
        let c = &self.config.imag_loss;
        let policy = ops::actor_loss(&pairs, &aims.adv, &weight, c.actent);
        let value = self.parts.val.loss(raw, &[(&aims.value, 1.0), (slow, c.slowreg)]);
        let value = ops::linear_combination(&[(&value, &aims.weight)]);
        [policy, value].into_iter().chain(likelihoods.iter().map(|l| l.entropy.detach())).collect()
    }

    /// The same for all states at once, [N, H] each. The critic's outputs are of the last state, too, which has no loss.
    fn whole_losses(
        &self,
        likelihoods: &[Likelihood],
        raw: &Tensor,
        aims: &LossTargets<&Tensor>,
        predictions: &Predictions,
    ) -> Vec<Tensor> {
        let (n, h) = (aims.weight.dim(0), aims.weight.dim(1));
        // Steps outermost, as the outputs are.
        let padded = [aims.value, aims.weight].map(|x| ops::fit_steps(x, h + 1));
        let all = ops::transpose01_all(&[aims.adv, &padded[0], &padded[1], &predictions.slow]);
        let [adv, value, weight, slow] = all.try_into().unwrap_or_else(|_| unreachable!("as many as went in"));
        let flat = |x: &Tensor| ops::reshape(x, &[x.len()]);
        let losses = self.state_losses(likelihoods, raw, &LossTargets { adv, value, weight }.map(flat), &flat(&slow));
        let by_step: Vec<Tensor> = losses.iter().map(|x| ops::reshape(&ops::rows(x, 0..h * n), &[h, n])).collect();
        ops::transpose01_all(&by_step.iter().collect::<Vec<_>>())
    }

    /// The value loss [B, K - 1] of replayed steps. Gradients flow to their features with `repval_grad`.
    pub fn replay_loss(&self, x: &ReplaySteps, norm: &mut Normalizer) -> Tensor {
        let (c, parts) = (self.config, self.parts);
        let (b, t) = (x.boot.dim(0), x.boot.dim(1));
        let feat = if c.repval_grad { &x.feat } else { &x.feat.detach() };
        let ret = x.returns(c);
        let after = norm.apply(&ret, self.training);
        let target = norm.normalize(&ret, &after);
        let target = ops::reshape(&ops::fit_steps(&target, t), &[b * t]);
        let live = ops::reshape(&ops::scale_shift(&x.last, -1.0, 1.0), &[b * t]);
        let work = 600 * b * t * (feat.deter.width() + feat.stoch.width());
        let outputs = ops::chunks(b * t, ROWS, work, &[&feat.deter, &feat.stoch], |rows, inputs| {
            let raw = parts.val.apply(self.params, &[&inputs[0], &inputs[1]]);
            let slow = parts.slow.apply(self.slow, &[&inputs[0].detach(), &inputs[1].detach()]);
            let targets = [(&ops::rows(&target, rows.clone()), 1.0), (&parts.slow.pred(&slow), c.repl_loss.slowreg)];
            vec![ops::linear_combination(&[(&parts.val.loss(&raw, &targets), &ops::rows(&live, rows))])]
        });
        ops::fit_steps(&ops::reshape(&outputs[0], &[b, t]), t - 1)
    }
}

/// Advantages, the critic's targets, and the weight of each state's losses.
struct LossTargets<T> {
    adv: T,
    value: T,
    weight: T,
}

impl<T> LossTargets<T> {
    fn map<U>(&self, f: impl Fn(&T) -> U) -> LossTargets<U> {
        LossTargets { adv: f(&self.adv), value: f(&self.value), weight: f(&self.weight) }
    }
}

/// Replayed steps: features [B*K, ..], and flags, rewards and the imagined return from each step, [B, K].
pub struct ReplaySteps {
    pub feat: Latent,
    pub last: Tensor,
    pub term: Tensor,
    pub rew: Tensor,
    pub boot: Tensor,
}

impl ReplaySteps {
    /// The steps of `batch` from which trajectories with the returns `imagined` [B*K, H] started.
    pub fn new(batch: &Batch, starts: &Latent, imagined: &Tensor) -> Self {
        let (b, t, n) = (batch.b, batch.t, starts.deter.dim(0));
        let k = n / b;
        let last = |x: &Tensor| ops::reshape(&last_steps(&ops::reshape(x, &[b, t, 1]), k), &[b, k]);
        ReplaySteps {
            feat: starts.clone(),
            last: last(&batch.is_last),
            term: last(&batch.is_terminal),
            rew: last(&batch.reward),
            boot: ops::reshape(&ops::column(imagined, 0..n, 0), &[b, k]),
        }
    }

    /// Lambda returns [B, K - 1].
    pub fn returns(&self, c: &AgentConfig) -> Tensor {
        let disc = (1.0 - 1.0 / c.horizon) as f32;
        ops::lambda_return(&self.last, &self.term, &self.rew, &self.boot, disc, c.repl_loss.lam)
    }
}

/// Returns, advantages and weights from predictions, with the official metrics. Updates the normalisers where `training`.
pub fn targets(
    c: &AgentConfig,
    x: &Predictions,
    norms: &mut Normalizers,
    training: bool,
    metrics: &mut Gauges,
) -> Targets {
    let t = x.rew.dim(1);
    let value_stats = norms.val.stats();
    let [val, slowval] = [&x.val, &x.slow].map(|v| norms.val.denormalize(v, &value_stats));
    let tarval = if c.imag_loss.slowtar { &slowval } else { &val };
    let disc = if c.contdisc { 1.0 } else { (1.0 - 1.0 / c.horizon) as f32 };
    let (ret, weight) = ops::imagined_returns(&x.rew, &x.con, tarval, disc, c.imag_loss.lam);

    let return_stats = norms.ret.apply(&ret, training);
    let adv = ops::advantage(&ret, tarval, &return_stats);
    let stats = norms.adv.apply(&adv, training);
    let adv_normed = norms.adv.normalize(&adv, &stats);
    let stats = norms.val.apply(&ret, training);
    let tar = norms.val.normalize(&ret, &stats);

    let [of_adv, of_ret] = ops::summaries(&[(&adv, None), (&ret, Some(&return_stats))])
        .try_into()
        .unwrap_or_else(|_| unreachable!("two summaries"));
    metrics.put("adv", &Summary::Mean.of(&of_adv));
    metrics.put("adv_std", &Summary::Std.of(&of_adv));
    metrics.put("adv_mag", &Summary::Magnitude.of(&of_adv));
    metrics.put("rew", &x.rew);
    metrics.put("con", &x.con);
    metrics.put("ret", &Summary::Mean.of(&of_ret));
    metrics.put("val", &val);
    metrics.put("tar", &tar);
    metrics.put("weight", &weight);
    metrics.put("slowval", &slowval);
    metrics.put("ret_min", &Summary::Min.of(&of_ret));
    metrics.put("ret_max", &Summary::Max.of(&of_ret));
    metrics.put("ret_rate", &Summary::Large.of(&of_ret));

    Targets { ret, value: tar, adv: adv_normed, weight: ops::fit_steps(&weight, t - 1) }
}
