//! Imagination: trajectories under the policy from replayed states, with the heads' predictions for every state
//! (official agent.py, the part of `loss` named "Imagination").
//!
//! On the processor each state is evaluated as soon as it is imagined: actor and critic record what their losses will
//! need, so nothing is computed twice and no trajectory is assembled. A GPU imagines first and then evaluates all
//! states of all trajectories at once, in as many kernels as one state would take.

use crate::loss::Learner;
use crate::policy::Likelihood;
use crate::rssm::Latent;
use engine::ops::{self, Staged};
use engine::profile::part;
use engine::{Device, Tensor};
use std::ops::Range;

/// Imagined trajectories that one thread takes through all steps. The split depends on the batch alone.
const ROWS: usize = 64;

/// Some trajectories of H steps, between imagining them and learning from them.
pub struct Rollout {
    /// What the heads predict in each of the H + 1 states, without gradient.
    pub predictions: Predictions,
    pub visits: Visits,
}

/// What the losses of the first H states take: the likelihood of the action taken, per action key, and the raw output of
/// the value head.
pub enum Visits {
    /// One entry per state, of [rows] each.
    Steps(Vec<(Vec<Likelihood>, Tensor)>),
    /// For all states, steps outermost: likelihoods [H rows] and raw outputs [(H + 1) rows, bins].
    Whole(Vec<Likelihood>, Tensor),
}

/// What the heads predict in each imagined state: [N, H + 1] each, values before denormalisation.
pub struct Predictions {
    pub rew: Tensor,
    pub con: Tensor,
    pub val: Tensor,
    pub slow: Tensor,
}

impl Predictions {
    /// Those of all rollouts together.
    pub fn join<'a>(rollouts: impl Iterator<Item = &'a Rollout> + Clone) -> Self {
        let all = |f: fn(&Predictions) -> &Tensor| {
            let parts: Vec<&Tensor> = rollouts.clone().map(|rollout| f(&rollout.predictions)).collect();
            ops::concat(&parts)
        };
        Predictions { rew: all(|p| &p.rew), con: all(|p| &p.con), val: all(|p| &p.val), slow: all(|p| &p.slow) }
    }
}

impl Learner<'_> {
    /// H steps from each of N starts. With `ac_grads` the losses of the first state pass a gradient on to `starts`; the
    /// imagined steps themselves have none.
    pub fn imagine(&self, starts: &Latent) -> Staged<Rollout> {
        let starts = if self.config.ac_grads { starts } else { &starts.detach() };
        let (n, steps) = (starts.deter.dim(0), self.config.imag_length);
        let work = 2 * n * steps * starts.deter.width() * starts.deter.width();
        ops::stage(n, ROWS, work, &[&starts.deter, &starts.stoch], |rows, inputs| {
            let start = Latent { deter: inputs[0].clone(), stoch: inputs[1].clone() };
            match start.deter.device() {
                Device::Cpu => self.imagine_by_steps(rows, start),
                Device::Gpu(_) => self.imagine_whole(rows, start),
            }
        })
    }

    fn imagine_by_steps(&self, rows: Range<usize>, start: Latent) -> Rollout {
        let steps = self.config.imag_length;
        let mut states: [Vec<Tensor>; 4] = Default::default();
        let mut visits = Vec::new();
        self.parts.dyn_.imagine(&self.frozen, start, rows, steps, self.noise, |state, at| {
            let (predicted, value) = part("heads", || self.predict(state, at.step < steps));
            states.iter_mut().zip(predicted).for_each(|(list, x)| list.push(x));
            if at.step == steps {
                return None;
            }
            let feat = [&state.deter, &state.stoch];
            let (embedded, likelihoods) = part("heads", || self.parts.pol.act(self.params, &feat, self.noise, at));
            visits.push((likelihoods, value));
            Some(embedded)
        });
        let [rew, con, val, slow] = states.map(|list| ops::stack_time(&list));
        Rollout { predictions: Predictions { rew, con, val, slow }, visits: Visits::Steps(visits) }
    }

    fn imagine_whole(&self, rows: Range<usize>, start: Latent) -> Rollout {
        let (n, steps, policy) = (rows.len(), self.config.imag_length, &self.parts.pol);
        let (mut deter, mut stoch, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        self.parts.dyn_.imagine(&self.frozen, start, rows, steps, self.noise, |state, at| {
            deter.push(state.deter.clone());
            stoch.push(state.stoch.clone());
            if at.step == steps {
                return None;
            }
            let plain = [&state.deter.detach(), &state.stoch.detach()];
            let (actions, embedded) = part("heads", || policy.sample(&self.frozen, &plain, self.noise, at));
            taken.push(actions);
            Some(embedded)
        });
        let join = |list: Vec<Tensor>| ops::concat(&list.iter().collect::<Vec<_>>()); // [steps N, ..]
        let [deter, stoch] = [join(deter), join(stoch)];
        part("heads", || {
            let actions: Vec<Tensor> = (0..policy.names().count())
                .map(|key| join(taken.iter().map(|actions| actions[key].clone()).collect()))
                .collect();
            let learned = [&deter, &stoch].map(|x| ops::rows(x, 0..steps * n));
            let likelihoods =
                policy.evaluate(self.params, &[&learned[0], &learned[1]], &actions.iter().collect::<Vec<_>>());
            let (predicted, value) = self.predict(&Latent { deter, stoch }, true);
            let by_step = predicted.map(|x| ops::reshape(&x, &[steps + 1, n]));
            let by_row = ops::transpose01_all(&by_step.iter().collect::<Vec<_>>());
            let [rew, con, val, slow] = by_row.try_into().unwrap_or_else(|_| unreachable!("four predictions"));
            Rollout { predictions: Predictions { rew, con, val, slow }, visits: Visits::Whole(likelihoods, value) }
        })
    }

    /// Predictions [rows] of reward, continue, value and slow value in a state, and the value head's raw output,
    /// recorded for the backward sweep if `learned`.
    fn predict(&self, state: &Latent, learned: bool) -> ([Tensor; 4], Tensor) {
        let h = self.parts;
        let feat = [&state.deter, &state.stoch];
        let plain = [&state.deter.detach(), &state.stoch.detach()];
        let value = if learned { h.val.apply(self.params, &feat) } else { h.val.apply(&self.frozen, &plain) };
        let predicted = [
            h.rew.pred(&h.rew.apply(&self.frozen, &plain)),
            h.con.pred(&h.con.apply(&self.frozen, &plain)),
            h.val.pred(&value),
            h.slow.pred(&h.slow.apply(self.slow, &plain)),
        ];
        (predicted, value)
    }
}
