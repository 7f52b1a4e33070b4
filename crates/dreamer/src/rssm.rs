//! The world model's core: a recurrent state-space model with a block GRU and categorical latents (paper, section
//! "World model learning"; official rssm.py, `RSSM`).

use crate::config::Rssm as Config;
use crate::nets::{Layer, Linear, Mlp, NormAct, Style};
use crate::noise::{At, Noise};
use crate::params::{Builder, Params};
use engine::Tensor;
use engine::ops::{self, Core, Scan, ScanInputs, Step, Term};
use std::ops::Range;

/// Sequences that one thread takes through all steps. The split depends on the batch alone.
const SCAN_ROWS: usize = 8;

#[derive(Clone, Debug)]
pub struct Rssm {
    config: Config,
    /// Embeddings of deter, stoch and action, each to `hidden`.
    dynin: [Layer; 3],
    dynhid: Vec<(Linear, NormAct)>,
    dyngru: Linear,
    obs: Mlp,
    obslogit: Linear,
    prior: Mlp,
    priorlogit: Linear,
}

/// Deterministic and stochastic state: deter [.., D], stoch [.., S*C] one-hot.
#[derive(Clone)]
pub struct Latent {
    pub deter: Tensor,
    pub stoch: Tensor,
}

/// The posterior over a batch of sequences: deter [B, T, D], stoch [B, T, S*C], logit [B, T, S*C].
pub struct Observed {
    pub deter: Tensor,
    pub stoch: Tensor,
    pub logit: Tensor,
}

impl Latent {
    /// `f` of both parts.
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Latent {
        Latent { deter: f(&self.deter), stoch: f(&self.stoch) }
    }

    /// The same without gradient.
    pub fn detach(&self) -> Latent {
        self.map(Tensor::detach)
    }
}

impl Observed {
    /// The state after the last step, without gradient: [B, ..].
    pub fn last(&self) -> Latent {
        let last = |x: &Tensor| ops::unstack_time(&x.detach()).pop().expect("batches have at least one step");
        Latent { deter: last(&self.deter), stoch: last(&self.stoch) }
    }
}

impl Rssm {
    /// `tokens` and `actions` are the widths of the encoder's output and of the embedded action.
    pub fn new(b: &mut Builder, tokens: usize, actions: usize, c: &Config) -> Self {
        let style = Style { act: &c.act, norm: &c.norm, winit: &c.winit };
        let latent = c.stoch * c.classes;
        let mut input = |i: usize, width: usize| {
            Layer::new(b, [&format!("dynin{i}"), &format!("dynin{i}norm")], width, c.hidden, &style)
        };
        let dynin = [input(0, c.deter), input(1, latent), input(2, actions)];
        let hidden = crate::nets::act_width(&c.act, c.hidden);
        let mut width = c.deter + c.blocks * 3 * hidden;
        let mut dynhid = Vec::new();
        for i in 0..c.dynlayers {
            let linear = Linear::blocks(b, &format!("dynhid{i}"), width, c.deter, c.blocks, &c.winit);
            dynhid.push((linear, NormAct::new(b, &format!("dynhid{i}norm"), c.deter, &c.norm, &c.act)));
            width = crate::nets::act_width(&c.act, c.deter);
        }
        let dyngru = Linear::blocks(b, "dyngru", width, 3 * c.deter, c.blocks, &c.winit);
        let seen = if c.absolute { tokens } else { c.deter + tokens };
        let obs = Mlp::stem(b, "obs", seen, c.obslayers, c.hidden, &style);
        let obslogit = Linear::new(b, "obslogit", obs.width(), latent, &c.winit, c.outscale);
        let prior = Mlp::stem(b, "prior", c.deter, c.imglayers, c.hidden, &style);
        let priorlogit = Linear::new(b, "priorlogit", prior.width(), latent, &c.winit, c.outscale);
        Rssm { config: c.clone(), dynin, dynhid, dyngru, obs, obslogit, prior, priorlogit }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The posterior over sequences: tokens [B, T, E], previous actions [B, T, A], from `start`. Where `keep` [B, T] is
    /// zero an episode starts, and what came before is forgotten.
    pub fn observe(
        &self,
        p: &Params,
        start: &Latent,
        tokens: &Tensor,
        actions: &Tensor,
        keep: &Tensor,
        noise: &Noise,
    ) -> Observed {
        let (b, t) = (tokens.dim(0), tokens.dim(1));
        let keep = self.forget(keep.clone());
        let flat = ops::reshape(actions, &[b * t, actions.dim(2)]);
        let actions = ops::reshape(&ops::mask_rows(&flat, &ops::reshape(&keep, &[b * t])), actions.shape());
        // What does not depend on the recurrence is multiplied for all steps at once.
        let tokens = self.project_tokens(p, tokens);
        let actions = self.project_actions(p, &actions);
        if let Some(scan) = self.fused(p).filter(|scan| scan.fits(tokens.device())) {
            let drawn = noise.posterior_steps(b, t, self.config.stoch, tokens.device());
            let (draw, keep) = (drawn.draw(), &keep);
            let inputs =
                ScanInputs { deter: &start.deter, stoch: &start.stoch, tokens: &tokens, actions: &actions, keep, draw };
            let [deter, stoch, logit] = scan.run(&inputs);
            return Observed { deter, stoch, logit };
        }
        let inputs = [&start.deter, &start.stoch, &tokens, &actions, &keep];
        let work = 2 * b * t * self.config.deter * self.config.deter;
        let outputs = ops::chunks(b, SCAN_ROWS, work, &inputs, |rows, inputs| {
            let mut state = Latent { deter: inputs[0].clone(), stoch: inputs[1].clone() };
            let [tokens, actions, keep] = [2, 3, 4].map(|i| ops::unstack_time(&inputs[i]));
            let (mut deters, mut stochs, mut logits) = (Vec::new(), Vec::new(), Vec::new());
            for step in 0..t {
                let at = At { rows: rows.clone(), step, steps: t, device: tokens[step].device() };
                let (next, logit) =
                    self.observe_step(p, &state, &tokens[step], &actions[step], &keep[step], noise, &at);
                deters.push(next.deter.clone());
                stochs.push(next.stoch.clone());
                logits.push(logit);
                state = next;
            }
            vec![ops::stack_time(&deters), ops::stack_time(&stochs), ops::stack_time(&logits)]
        });
        let [deter, stoch, logit] = outputs.try_into().expect("three outputs");
        Observed { deter, stoch, logit }
    }

    /// The core as the engine's fused operations take it, if they support its settings.
    fn fused_core(&self, p: &Params) -> Option<Core> {
        let [(hidden, hidden_norm)] = &self.dynhid[..] else { return None };
        let [deter, stoch, _] = &self.dynin;
        let norms = [&deter.norm, &stoch.norm, hidden_norm];
        let eps = norms[0].fused_eps(p)?;
        norms.iter().all(|norm| norm.fused_eps(p) == Some(eps)).then(|| Core {
            embeddings: [deter, stoch].map(|x| x.fused(p)),
            hidden: hidden.fused(p, Some(hidden_norm)),
            gates: self.dyngru.fused(p, None),
            eps,
        })
    }

    /// The same with the posterior.
    fn fused(&self, p: &Params) -> Option<Scan> {
        let (core, [posterior]) = (self.fused_core(p)?, self.obs.layers()) else { return None };
        (posterior.norm.fused_eps(p) == Some(core.eps)).then(|| Scan {
            core,
            posterior: posterior.fused(p),
            logits: self.obslogit.fused(p, None),
            classes: self.config.classes,
            unimix: self.config.unimix,
            absolute: self.config.absolute,
        })
    }

    /// The core with the prior.
    fn fused_prior(&self, p: &Params) -> Option<Step> {
        let (core, actions) = (self.fused_core(p)?, &self.dynin[2]);
        let mut norms = self.prior.layers().iter().chain([actions]).map(|layer| &layer.norm);
        norms.all(|norm| norm.fused_eps(p) == Some(core.eps)).then(|| Step {
            core,
            actions: actions.fused(p),
            prior: self.prior.layers().iter().map(|layer| layer.fused(p)).collect(),
            logits: self.priorlogit.fused(p, None),
            classes: self.config.classes,
            unimix: self.config.unimix,
        })
    }

    /// One posterior step with projected tokens and actions; `keep` [N] is zero where an episode starts.
    #[allow(clippy::too_many_arguments)] // the inputs of the equation
    fn observe_step(
        &self,
        p: &Params,
        state: &Latent,
        tokens: &Tensor,
        actions: &Tensor,
        keep: &Tensor,
        noise: &Noise,
        at: &At,
    ) -> (Latent, Tensor) {
        let state = state.map(|x| ops::mask_rows(x, keep));
        let deter = self.core(p, &state, actions);
        let logit = self.posterior(p, &deter, tokens);
        let drawn = noise.posterior(at, self.config.stoch);
        let stoch = ops::latent(&logit, self.config.classes, self.config.unimix, drawn.draw());
        (Latent { deter, stoch }, logit)
    }

    /// `steps` steps from `start` [rows, ..]. `act` sees each state, the first and the last included, and returns the
    /// embedded action taken in it; none ends the trajectory.
    pub fn imagine(
        &self,
        p: &Params,
        start: Latent,
        rows: Range<usize>,
        steps: usize,
        noise: &Noise,
        mut act: impl FnMut(&Latent, &At) -> Option<Tensor>,
    ) {
        let fused = self.fused_prior(p).filter(|step| step.fits(start.deter.device()));
        let mut state = start;
        for step in 0..=steps {
            let at = At { rows: rows.clone(), step, steps: steps + 1, device: state.deter.device() };
            let Some(action) = act(&state, &at) else { break };
            let (action, at) = (self.forget(action), At { steps, ..at });
            let now = state.detach();
            state = match &fused {
                Some(step) => self.fused_step(step, &now, &action, noise, &at),
                None => self.imagine_step(p, &now, &self.project_actions(p, &action), noise, &at),
            };
        }
    }

    /// Steps from `start` [N, ..] under given actions [N, T, A]: the states [N, T, ..].
    pub fn predict(&self, p: &Params, start: &Latent, actions: &Tensor, noise: &Noise) -> (Tensor, Tensor) {
        let steps = actions.dim(1);
        let mut state = start.clone();
        let (mut deters, mut stochs) = (Vec::new(), Vec::new());
        let actions = self.project_actions(p, &self.forget(actions.clone()));
        for (step, action) in ops::unstack_time(&actions).iter().enumerate() {
            let at = At { rows: 0..action.dim(0), step, steps, device: action.device() };
            state = self.imagine_step(p, &state, action, noise, &at);
            deters.push(state.deter.clone());
            stochs.push(state.stoch.clone());
        }
        (ops::stack_time(&deters), ops::stack_time(&stochs))
    }

    /// One prior step with a projected action.
    fn imagine_step(&self, p: &Params, state: &Latent, action: &Tensor, noise: &Noise, at: &At) -> Latent {
        let state = state.map(|x| self.forget(x.clone()));
        let deter = self.core(p, &state, action);
        let logit = self.prior(p, &deter);
        let drawn = noise.prior(at, self.config.stoch);
        let stoch = ops::latent(&logit, self.config.classes, self.config.unimix, drawn.draw());
        Latent { deter, stoch }
    }

    /// The same with an embedded action, by the engine's fused operation.
    fn fused_step(&self, step: &Step, state: &Latent, action: &Tensor, noise: &Noise, at: &At) -> Latent {
        let state = state.map(|x| self.forget(x.clone()));
        let drawn = noise.prior(at, self.config.stoch);
        let [deter, stoch] = step.run(&state.deter, &state.stoch, action, drawn.draw());
        Latent { deter, stoch }
    }

    /// What is kept of the past: nothing in the ablation without memory.
    fn forget(&self, x: Tensor) -> Tensor {
        if self.config.reset_every_step { ops::zeros(x.shape(), x.device()) } else { x }
    }

    /// Prior logits [.., S*C] for deter [.., D].
    pub fn prior(&self, p: &Params, deter: &Tensor) -> Tensor {
        self.priorlogit.apply(p, &self.prior.apply(p, deter))
    }

    /// The block GRU: the next deter [N, D] from the state and the projected action.
    fn core(&self, p: &Params, state: &Latent, action: &Tensor) -> Tensor {
        let c = &self.config;
        let x0 = self.dynin[0].apply(p, &state.deter); // [N, hidden]
        let x1 = self.dynin[1].apply(p, &state.stoch); // [N, hidden]
        // Each block sees its own slice of deter, and all of the three embeddings.
        let own = c.deter / c.blocks;
        let terms = [Term::new(&state.deter, 0), Term::shared(&x0, own), Term::shared(&x1, own + x0.width())];
        let first = self.first().finish(p, &terms, action);
        let gates = match self.dynhid.split_first() {
            None => first,
            Some(((_, norm), rest)) => {
                let x = norm.apply(p, &first);
                let x = rest.iter().fold(x, |x, (linear, norm)| norm.apply(p, &linear.apply(p, &x)));
                self.dyngru.apply(p, &x) // [N, 3 D]
            }
        };
        ops::gru(&gates, &state.deter, c.blocks)
    }

    /// The first block-linear layer of the core, which takes the embeddings.
    fn first(&self) -> &Linear {
        self.dynhid.first().map_or(&self.dyngru, |(linear, _)| linear)
    }

    /// What embedded actions [.., A], bounded to [-1, 1], contribute to the core's first layer.
    fn project_actions(&self, p: &Params, actions: &Tensor) -> Tensor {
        let x2 = self.dynin[2].apply(p, &ops::bound(actions));
        let row = self.config.deter / self.config.blocks + 2 * x2.width();
        self.first().ahead(p, &[Term::shared(&x2, row)])
    }

    /// What tokens [.., E] contribute to the posterior's first layer.
    fn project_tokens(&self, p: &Params, tokens: &Tensor) -> Tensor {
        let row = if self.config.absolute { 0 } else { self.config.deter };
        let first = self.obs.layers().first().map_or(&self.obslogit, |layer| &layer.linear);
        first.ahead(p, &[Term::new(tokens, row)])
    }

    /// Posterior logits [N, S*C] from deter [N, D] and projected tokens.
    fn posterior(&self, p: &Params, deter: &Tensor, tokens: &Tensor) -> Tensor {
        let term = [Term::new(deter, 0)];
        let terms = if self.config.absolute { &[][..] } else { &term[..] };
        match self.obs.layers().split_first() {
            None => self.obslogit.finish(p, terms, tokens),
            Some((layer, rest)) => {
                let x = layer.norm.apply(p, &layer.linear.finish(p, terms, tokens));
                let x = rest.iter().fold(x, |x, layer| layer.apply(p, &x));
                self.obslogit.apply(p, &x)
            }
        }
    }
}
