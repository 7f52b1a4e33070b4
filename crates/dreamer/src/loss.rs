//! The loss of one batch: world model, imagination, actor and critic (official agent.py, `loss`).

use crate::actor_critic::{self, Heads, Normalizers, ReplaySteps};
use crate::agent::Parts;
use crate::batch::Batch;
use crate::config::AgentConfig;
use crate::gauges::Gauges;
#[cfg(test)]
use crate::imagination::{Dream, Visit};
use crate::imagination::{Imagination, Predictions};
use crate::noise::Noise;
use crate::params::Params;
use crate::rssm::{Latent, Observed};
use anyhow::{Result, bail};
use engine::Tensor;
use engine::ops;
use engine::profile::part;
use std::ops::Range;

/// The total loss with what its callers use of the way there.
pub struct Loss {
    pub total: Tensor,
    /// Every loss by name, before its mean and scale: [B, T], [B, K - 1] with the K last steps, or [N, H].
    pub losses: Vec<(String, Tensor)>,
    pub metrics: Gauges,
    pub norms: Normalizers,
    pub tokens: Tensor,
    pub observed: Observed,
    #[cfg(test)]
    pub checked: Checked,
}

/// What only the golden test looks at.
#[cfg(test)]
pub struct Checked {
    /// Returns of the replayed steps [B, K - 1]; without the replay value loss, `None`.
    pub replayed: Option<Tensor>,
    pub trajectory: Trajectory,
    pub predictions: Predictions,
    pub targets: actor_critic::Targets,
}

/// Imagined states [N, H + 1, ..] and the actions taken in all but the last, [N, H, width] per key.
#[cfg(test)]
pub struct Trajectory {
    pub deter: Tensor,
    pub stoch: Tensor,
    pub actions: Vec<Tensor>,
}

/// What the loss of a batch depends on besides the batch.
pub struct Inputs<'a> {
    pub config: &'a AgentConfig,
    pub parts: &'a Parts,
    pub params: &'a Params,
    pub slow: &'a Params,
    pub norms: &'a Normalizers,
    pub noise: &'a Noise,
    /// Whether the normalisers move.
    pub training: bool,
}

/// Computes all losses of `batch`; gradients flow to `params`.
pub fn loss(i: &Inputs, batch: &Batch) -> Result<Loss> {
    let Inputs { config: c, parts, params: p, .. } = *i;
    let (b, t) = (batch.b, batch.t);
    if c.repval_loss && t < 2 {
        bail!(
            "sequences of {t} step are too short for agent.repval_loss, which needs two; raise batch_length or report_length"
        );
    }
    let mut losses: Vec<(String, Tensor)> = Vec::new();
    let mut metrics = Gauges::default();
    let mut norms = i.norms.clone();

    // World model.
    let tokens = part("encoder", || parts.enc.apply(p, &batch.obs)); // [B*T, E]
    let tokens = ops::reshape(&tokens, &[b, t, tokens.width()]);
    let observed = part("scan", || parts.dyn_.observe(p, &batch.start, &tokens, &batch.prevact, &batch.keep, i.noise));
    let (deter, stoch) = (flat(&observed.deter), flat(&observed.stoch)); // [B*T, D], [B*T, S*C]
    world_model_losses(i, batch, &observed, &mut losses, &mut metrics);

    // Imagination from the last K steps of each sequence.
    let k = if c.imag_last == 0 { t } else { c.imag_last.min(t) };
    let first = Latent { deter: last_steps(&deter, b, t, k), stoch: last_steps(&stoch, b, t, k) };
    let plain = Latent { deter: first.deter.detach(), stoch: first.stoch.detach() };
    let heads = Heads { rew: &parts.rew, con: &parts.con, pol: &parts.pol, val: &parts.val, slow: &parts.slow };
    let frozen = p.frozen();
    let imagination = Imagination {
        config: c,
        dyn_: &parts.dyn_,
        heads: &heads,
        params: p,
        frozen: &frozen,
        slow: i.slow,
        noise: i.noise,
    };
    let dreams = part("imagination", || imagination.dream(if c.ac_grads { &first } else { &plain }));
    let predictions = Predictions::join(dreams.states());
    #[cfg(test)]
    let trajectory = Trajectory::join(dreams.states());
    let targets = actor_critic::targets(c, &predictions, &mut norms, i.training, &mut metrics);
    let (policy, value, entropies) = part("heads", || heads.imagination_losses(c, dreams, &targets));
    losses.extend([("policy".to_string(), policy), ("value".to_string(), value)]);
    entropy_metrics(&parts.pol, &entropies, &mut metrics);

    // Value of the replayed steps, bootstrapped by imagination.
    #[cfg(test)]
    let mut replayed = None;
    if c.repval_loss {
        let feat = if c.repval_grad { &first } else { &plain };
        let last = |x: &Tensor| ops::reshape(&last_steps(&ops::reshape(x, &[b * t, 1]), b, t, k), &[b, k]);
        let steps = ReplaySteps {
            deter: feat.deter.clone(),
            stoch: feat.stoch.clone(),
            last: last(&batch.is_last),
            term: last(&batch.is_terminal),
            rew: last(&batch.reward),
            boot: ops::reshape(&ops::column(&targets.ret, 0..b * k, 0), &[b, k]),
        };
        let (loss, _returns) = part("heads", || heads.replay_loss(p, i.slow, c, &steps, &mut norms.val, i.training));
        losses.push(("repval".to_string(), loss));
        #[cfg(test)]
        replayed.replace(_returns);
    }

    let terms: Vec<(&Tensor, f32)> = losses.iter().map(|(name, x)| (x, scale(c, name))).collect();
    for (name, x) in &losses {
        metrics.put(format!("loss/{name}"), x);
    }
    let total = ops::weighted_mean(&terms);
    Ok(Loss {
        total,
        losses,
        metrics,
        norms,
        tokens,
        observed,
        #[cfg(test)]
        checked: Checked { replayed, trajectory, predictions, targets },
    })
}

/// Losses that are of no observation's reconstruction, whose names no observation may have.
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

/// Prior and posterior, reward, continue and reconstruction losses, [B, T] each.
fn world_model_losses(
    i: &Inputs,
    batch: &Batch,
    observed: &Observed,
    losses: &mut Vec<(String, Tensor)>,
    metrics: &mut Gauges,
) {
    let Inputs { config: c, parts, params: p, .. } = *i;
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

/// Rows of features that one thread takes through a head.
const ROWS: usize = 128;

#[cfg(test)]
impl Trajectory {
    /// Those of all dreams together.
    fn join<'a>(dreams: impl Iterator<Item = &'a Dream>) -> Self {
        let traces: Vec<_> = dreams.map(|dream| &dream.trace).collect();
        let steps = traces[0].len();
        let over_time = |f: &dyn Fn(&Visit) -> Tensor, steps: usize| {
            let rows: Vec<Tensor> =
                traces.iter().map(|t| ops::stack_time(&t[..steps].iter().map(f).collect::<Vec<_>>())).collect();
            ops::concat(&rows.iter().collect::<Vec<_>>())
        };
        let keys = traces[0][0].1.len();
        Trajectory {
            deter: over_time(&|s| s.0.deter.detach(), steps),
            stoch: over_time(&|s| s.0.stoch.detach(), steps),
            actions: (0..keys).map(|k| over_time(&|s| s.1[k].clone(), steps - 1)).collect(),
        }
    }
}

fn entropy_metrics(policy: &crate::policy::Policy, entropies: &[Tensor], metrics: &mut Gauges) {
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

/// The last `k` of the `t` steps of each sequence: [B*T, W] -> [B*K, W].
fn last_steps(x: &Tensor, b: usize, t: usize, k: usize) -> Tensor {
    if k == t {
        return x.clone();
    }
    let steps = ops::unstack_time(&ops::reshape(x, &[b, t, x.width()]));
    ops::reshape(&ops::stack_time(&steps[t - k..]), &[b * k, x.width()])
}
