//! The loss of one batch: world model, imagination, actor and critic (official agent.py, `loss`).

use crate::Metrics;
use crate::actor_critic::{self, Heads, Normalizers, Predictions, ReplaySteps, Replayed, Targets, Trajectory};
use crate::agent::Parts;
use crate::config::AgentConfig;
use crate::data::Batch;
use crate::noise::Noise;
use crate::params::Params;
use crate::rssm::{Imagined, Latent, Observed};
use anyhow::{Result, bail};
use engine::Tensor;
use engine::ops;

/// The total loss with everything that was computed on the way.
#[cfg_attr(not(test), allow(dead_code))] // the golden test compares every part
pub struct Loss {
    pub total: Tensor,
    /// Every loss by name, before its mean and scale: [B, T], [B, T - 1], or [N, H + 1] with a zero last step.
    pub losses: Vec<(String, Tensor)>,
    pub metrics: Metrics,
    pub norms: Normalizers,
    pub tokens: Tensor,
    pub observed: Observed,
    /// Without the replay value loss, `None`.
    pub replayed: Option<Replayed>,
    pub imagined: Imagined,
    pub trajectory: Trajectory,
    pub predictions: Predictions,
    pub targets: Targets,
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
    let mut metrics = Metrics::new();
    let mut norms = i.norms.clone();

    // World model.
    let tokens = parts.enc.apply(p, &batch.record, b * t)?; // [B*T, E]
    let tokens = ops::reshape(&tokens, &[b, t, tokens.width()]);
    let observed = parts.dyn_.observe(p, &batch.start, &tokens, &batch.prevact, &batch.is_first, i.noise);
    let (deter, stoch) = (flat(&observed.deter), flat(&observed.stoch)); // [B*T, D], [B*T, S*C]
    world_model_losses(i, batch, &observed, &mut losses, &mut metrics)?;

    // Imagination from the last K steps of each sequence.
    let k = if c.imag_last == 0 { t } else { c.imag_last.min(t) };
    let frozen = p.frozen();
    let first = Latent { deter: last_steps(&deter, b, t, k), stoch: last_steps(&stoch, b, t, k) };
    let start = Latent { deter: first.deter.detach(), stoch: first.stoch.detach() };
    let imagined = parts.dyn_.imagine(&frozen, &parts.pol, &start, c.imag_length, i.noise);
    let trajectory = trajectory(if c.ac_grads { &first } else { &start }, &imagined);
    let heads = Heads { rew: &parts.rew, con: &parts.con, pol: &parts.pol, val: &parts.val, slow: &parts.slow };
    let predictions = heads.predict(&frozen, i.slow, &trajectory);
    let targets = actor_critic::targets(c, &predictions, &mut norms, i.training, &mut metrics);
    let (policy, value, entropies) = heads.imagination_losses(p, c, &trajectory, &predictions, &targets);
    losses.extend([("policy".to_string(), policy), ("value".to_string(), value)]);
    entropy_metrics(&parts.pol, &entropies, &mut metrics);

    // Value of the replayed steps, bootstrapped by imagination.
    let mut replayed = None;
    if c.repval_loss {
        let feat = if c.repval_grad { &first } else { &start };
        let boot: Vec<f32> = targets.ret.data().iter().step_by(c.imag_length).copied().collect();
        let last = |x: &Tensor| ops::reshape(&last_steps(&ops::reshape(x, &[b * t, 1]), b, t, k), &[b, k]);
        let steps = ReplaySteps {
            deter: feat.deter.clone(),
            stoch: feat.stoch.clone(),
            last: last(&batch.is_last),
            term: last(&batch.is_terminal),
            rew: last(&batch.reward),
            boot: Tensor::from_slice(&[b, k], &boot),
        };
        let out = heads.replay_loss(p, i.slow, c, &steps, &mut norms.val, i.training);
        losses.push(("repval".to_string(), out.loss.clone()));
        replayed = Some(out);
    }

    let steps = c.imag_length as f32;
    let weights: Vec<(f32, f32)> = losses.iter().map(|(name, _)| weight(c, name, steps)).collect();
    let terms: Vec<(&Tensor, f32)> = losses.iter().zip(&weights).map(|((_, x), (s, f))| (x, s * f)).collect();
    for ((name, x), (_, factor)) in losses.iter().zip(&weights) {
        metrics.insert(format!("loss/{name}"), actor_critic::mean(x) * factor);
    }
    let total = ops::weighted_mean(&terms);
    Ok(Loss { total, losses, metrics, norms, tokens, observed, replayed, imagined, trajectory, predictions, targets })
}

/// The scale of a loss, and the factor that corrects the mean of losses which carry a zero for the last imagined state.
fn weight(c: &AgentConfig, name: &str, steps: f32) -> (f32, f32) {
    let s = &c.loss_scales;
    let imagined = (steps + 1.0) / steps;
    match name {
        "dyn" => (s.dynamics, 1.0),
        "rep" => (s.rep, 1.0),
        "rew" => (s.rew, 1.0),
        "con" => (s.con, 1.0),
        "policy" => (s.policy, imagined),
        "value" => (s.value, imagined),
        "repval" => (s.repval, 1.0),
        _ => (s.rec, 1.0),
    }
}

/// Prior and posterior, reward, continue and reconstruction losses, [B, T] each.
fn world_model_losses(
    i: &Inputs,
    batch: &Batch,
    observed: &Observed,
    losses: &mut Vec<(String, Tensor)>,
    metrics: &mut Metrics,
) -> Result<()> {
    let Inputs { config: c, parts, params: p, .. } = *i;
    let (b, t) = (batch.b, batch.t);
    let r = parts.dyn_.config();
    let (deter, stoch, post) = (flat(&observed.deter), flat(&observed.stoch), flat(&observed.logit));
    let shape = |x: &Tensor| ops::reshape(x, &[b, t]);

    let work = 100 * b * t * (r.deter + stoch.width());
    let outputs = ops::chunks(b * t, ROWS, work, &[&deter, &post], |_, inputs| {
        let (prior, post) = (parts.dyn_.prior(p, &inputs[0]), &inputs[1]);
        vec![
            ops::kl(&post.detach(), &prior, r.classes, r.unimix, r.free_nats),
            ops::kl(post, &prior.detach(), r.classes, r.unimix, r.free_nats),
            ops::entropy(&prior, r.classes, r.unimix),
            ops::entropy(post, r.classes, r.unimix),
        ]
    });
    losses.push(("dyn".into(), shape(&outputs[0])));
    losses.push(("rep".into(), shape(&outputs[1])));
    metrics.insert("dyn_ent".into(), actor_critic::mean(&outputs[2]));
    metrics.insert("rep_ent".into(), actor_critic::mean(&outputs[3]));

    let con_scale = if c.contdisc { (1.0 - 1.0 / c.horizon) as f32 } else { 1.0 };
    let con: Vec<f32> = batch.is_terminal.data().iter().map(|&term| (1.0 - term) * con_scale).collect();
    let con = Tensor::from_slice(&[b * t], &con);
    let rew = ops::reshape(&batch.reward, &[b * t]);
    let outputs = ops::chunks(b * t, ROWS, work, &[&deter, &stoch], |rows, inputs| {
        let feat = [&inputs[0], &inputs[1]];
        let (d, s) = (inputs[0].detach(), inputs[1].detach());
        let rew_feat = if c.reward_grad { feat } else { [&d, &s] };
        vec![
            parts.rew.loss(&parts.rew.apply(p, &rew_feat), &[(&ops::rows(&rew, rows.clone()), 1.0)]),
            parts.con.loss(&parts.con.apply(p, &feat), &[(&ops::rows(&con, rows), 1.0)]),
        ]
    });
    losses.push(("rew".into(), shape(&outputs[0])));
    losses.push(("con".into(), shape(&outputs[1])));
    for (key, x) in parts.dec.losses(p, &deter, &stoch, &batch.record)? {
        losses.push((key, shape(&x)));
    }
    Ok(())
}

/// Rows of features that one thread takes through a head.
const ROWS: usize = 128;

/// The start and the imagined states as one sequence [N, H + 1, ..].
fn trajectory(first: &Latent, x: &Imagined) -> Trajectory {
    let join = |first: &Tensor, rest: &Tensor| {
        let (n, h, w) = (rest.dim(0), rest.dim(1), rest.dim(2));
        let joined = ops::concat_last(&[first, &ops::reshape(rest, &[n, h * w])]);
        ops::reshape(&joined, &[n, h + 1, w])
    };
    Trajectory { deter: join(&first.deter, &x.deter), stoch: join(&first.stoch, &x.stoch), actions: x.actions.clone() }
}

fn entropy_metrics(policy: &crate::policy::Policy, entropies: &[Tensor], metrics: &mut Metrics) {
    for (index, (name, entropy)) in policy.names().zip(entropies).enumerate() {
        let steps = entropy.dim(1);
        let taken = entropy.data().chunks_exact(steps).flat_map(|row| &row[..steps - 1]);
        let count = entropy.len() / steps * (steps - 1);
        let mean = (taken.map(|&x| x as f64).sum::<f64>() / count as f64) as f32;
        metrics.insert(format!("ent/{name}"), mean);
        if let Some((low, high)) = policy.entropy_range(index) {
            metrics.insert(format!("rand/{name}"), (mean - low) / (high - low));
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
