//! The loss of one batch: world model, imagination, actor and critic (official agent.py, `loss`).

use crate::actor_critic::{Normalizers, ReplaySteps, targets};
use crate::agent::Parts;
use crate::batch::Batch;
use crate::config::AgentConfig;
use crate::gauges::Gauges;
use crate::imagination::Predictions;
use crate::noise::Noise;
use crate::params::Params;
use crate::policy::Policy;
use crate::rssm::{Latent, Observed};
use anyhow::{Result, bail};
use engine::Tensor;
use engine::ops;
use engine::profile::part;
use std::ops::Range;

/// The total loss, and the intermediate results that its callers use.
pub struct Loss {
    pub total: Tensor,
    /// Every loss by name, before its mean and scale: [B, T], [B, K - 1] with the K last steps, or [N, H].
    pub losses: Vec<(String, Tensor)>,
    pub metrics: Gauges,
    pub norms: Normalizers,
    pub tokens: Tensor,
    pub observed: Observed,
}

/// What the loss of a batch depends on besides the batch.
pub struct Learner<'a> {
    pub config: &'a AgentConfig,
    pub parts: &'a Parts,
    pub params: &'a Params,
    /// The same without gradients.
    pub frozen: Params,
    /// Of the slow value.
    pub slow: &'a Params,
    pub norms: &'a Normalizers,
    pub noise: &'a Noise,
    /// Whether the normalisers are updated.
    pub training: bool,
}

impl Learner<'_> {
    /// All losses of `batch`; gradients flow to `params`.
    pub fn loss(&self, batch: &Batch) -> Result<Loss> {
        let Learner { config: c, parts, params: p, .. } = *self;
        let (b, t) = (batch.b, batch.t);
        if c.repval_loss && t < 2 {
            bail!(
                "sequences of {t} step are too short for agent.repval_loss, which needs two; raise batch_length or report_length"
            );
        }
        let mut losses: Vec<(String, Tensor)> = Vec::new();
        let mut metrics = Gauges::default();
        let mut norms = self.norms.clone();

        // World model.
        let tokens = part("encoder", || parts.enc.apply(p, &batch.obs)); // [B*T, E]
        let tokens = ops::reshape(&tokens, &[b, t, tokens.width()]);
        let observe = || parts.dyn_.observe(p, &batch.start, &tokens, &batch.prevact, &batch.keep, self.noise);
        let observed = part("scan", observe);
        self.world_model_losses(batch, &observed, &mut losses, &mut metrics);

        // Imagination.
        let starts = self.starts(&observed);
        let rollouts = part("imagination", || self.imagine(&starts));
        let targets = targets(c, &Predictions::join(rollouts.states()), &mut norms, self.training, &mut metrics);
        let (policy, value, entropies) = part("heads", || self.imagination_losses(rollouts, &targets));
        losses.extend([("policy".to_string(), policy), ("value".to_string(), value)]);
        entropy_metrics(&parts.pol, &entropies, &mut metrics);

        // Value of the replayed steps, bootstrapped by imagination.
        if c.repval_loss {
            let steps = ReplaySteps::new(batch, &starts, &targets.ret);
            let repval = part("heads", || self.replay_loss(&steps, &mut norms.val));
            losses.push(("repval".to_string(), repval));
        }

        let terms: Vec<(&Tensor, f32)> = losses.iter().map(|(name, x)| (x, scale(c, name))).collect();
        for (name, x) in &losses {
            metrics.put(format!("loss/{name}"), x);
        }
        let total = ops::weighted_mean(&terms);
        Ok(Loss { total, losses, metrics, norms, tokens, observed })
    }

    /// Where imagination starts, with gradient: the last K steps of each sequence, [B*K, ..].
    pub fn starts(&self, observed: &Observed) -> Latent {
        let (last, t) = (self.config.imag_last, observed.deter.dim(1));
        let k = if last == 0 { t } else { last.min(t) };
        Latent { deter: last_steps(&observed.deter, k), stoch: last_steps(&observed.stoch, k) }
    }

    /// Prior and posterior, reward, continue and reconstruction losses, [B, T] each.
    fn world_model_losses(
        &self,
        batch: &Batch,
        observed: &Observed,
        losses: &mut Vec<(String, Tensor)>,
        metrics: &mut Gauges,
    ) {
        let Learner { config: c, parts, params: p, .. } = *self;
        let (b, t) = (batch.b, batch.t);
        let r = parts.dyn_.config();
        let (deter, stoch, post) = (flat(&observed.deter), flat(&observed.stoch), flat(&observed.logit));
        let shape = |x: &Tensor| ops::reshape(x, &[b, t]);

        let work = 100 * b * t * (r.deter + stoch.width());
        let prior_and_kl = |_, inputs: &[Tensor]| {
            let (prior, post) = (parts.dyn_.prior(p, &inputs[0]), &inputs[1]);
            ops::kl_both(post, &prior, r.classes, r.unimix, r.free_nats).to_vec()
        };
        let outputs = part("prior and KL", || ops::chunks(b * t, ROWS, work, &[&deter, &post], prior_and_kl));
        losses.push(("dyn".into(), shape(&outputs[0])));
        losses.push(("rep".into(), shape(&outputs[1])));
        metrics.put("dyn_ent", &outputs[2]);
        metrics.put("rep_ent", &outputs[3]);

        let con_scale = if c.contdisc { (1.0 - 1.0 / c.horizon) as f32 } else { 1.0 };
        let con = ops::reshape(&ops::scale_shift(&batch.is_terminal, -con_scale, con_scale), &[b * t]);
        let rew = ops::reshape(&batch.reward, &[b * t]);
        let heads = |rows: Range<usize>, inputs: &[Tensor]| {
            let feat = [&inputs[0], &inputs[1]];
            let (d, s) = (inputs[0].detach(), inputs[1].detach());
            let rew_feat = if c.reward_grad { feat } else { [&d, &s] };
            vec![
                parts.rew.loss(&parts.rew.apply(p, &rew_feat), &[(&ops::rows(&rew, rows.clone()), 1.0)]),
                parts.con.loss(&parts.con.apply(p, &feat), &[(&ops::rows(&con, rows), 1.0)]),
            ]
        };
        let outputs = part("heads", || ops::chunks(b * t, ROWS, work, &[&deter, &stoch], heads));
        losses.push(("rew".into(), shape(&outputs[0])));
        losses.push(("con".into(), shape(&outputs[1])));
        for (key, x) in part("decoder", || parts.dec.losses(p, &deter, &stoch, &batch.obs)) {
            losses.push((key, shape(&x)));
        }
    }
}

/// Losses other than reconstructions; no observation key may have one of these names.
pub const LOSSES: [&str; 7] = ["dyn", "rep", "rew", "con", "policy", "value", "repval"];

/// The scale of a loss.
fn scale(c: &AgentConfig, name: &str) -> f32 {
    let s = &c.loss_scales;
    match name {
        "dyn" => s.dynamics,
        "rep" => s.rep,
        "rew" => s.rew,
        "con" => s.con,
        "policy" => s.policy,
        "value" => s.value,
        "repval" => s.repval,
        _ => s.rec,
    }
}

/// Rows of features that one thread takes through a head.
const ROWS: usize = 128;

fn entropy_metrics(policy: &Policy, entropies: &[Tensor], metrics: &mut Gauges) {
    for (index, (name, entropy)) in policy.names().zip(entropies).enumerate() {
        metrics.put(format!("ent/{name}"), entropy);
        if let Some((low, high)) = policy.entropy_range(index) {
            metrics.put_scaled(format!("rand/{name}"), entropy, 1.0 / (high - low), -low / (high - low));
        }
    }
}

/// [B, T, W] -> [B*T, W].
fn flat(x: &Tensor) -> Tensor {
    ops::reshape(x, &[x.dim(0) * x.dim(1), x.dim(2)])
}

/// The last `k` steps of each sequence, a row for each: [B, T, W] -> [B*K, W].
pub fn last_steps(x: &Tensor, k: usize) -> Tensor {
    let t = x.dim(1);
    if k == t { flat(x) } else { flat(&ops::stack_time(&ops::unstack_time(x)[t - k..])) }
}
