//! For tests: what a loss is made of on the way, computed again from what it observed. Predictions, targets and returns are
//! those of the loss itself; states and actions come from a loop of their own over the same draws.

use crate::actor_critic::{ReplaySteps, Targets, targets};
use crate::batch::Batch;
use crate::gauges::Gauges;
use crate::imagination::Predictions;
use crate::loss::{Learner, Loss};
use engine::Tensor;
use engine::ops;

/// Imagination and the targets that follow from it.
pub struct Checked {
    pub trajectory: Trajectory,
    pub predictions: Predictions,
    /// Values and slow values in units of return [N, H + 1].
    pub val: Tensor,
    pub slowval: Tensor,
    pub targets: Targets,
    /// Returns of the replayed steps [B, K - 1].
    pub replayed: Tensor,
}

/// Imagined states [N, H + 1, ..] and the actions in them [N, H + 1, width] per key, of which the last one leads nowhere.
pub struct Trajectory {
    pub deter: Tensor,
    pub stoch: Tensor,
    pub actions: Vec<Tensor>,
}

impl Checked {
    pub fn new(learner: &Learner, batch: &Batch, loss: &Loss) -> Self {
        let starts = learner.starts(&loss.observed);
        let predictions = Predictions::join(learner.imagine(&starts).states());
        let mut norms = learner.norms.clone();
        let stats = norms.val.stats();
        let [val, slowval] = [&predictions.val, &predictions.slow].map(|v| norms.val.denormalize(v, &stats));
        let targets = targets(learner.config, &predictions, &mut norms, learner.training, &mut Gauges::default());
        let replayed = ReplaySteps::new(batch, &starts, &targets.ret).returns(learner.config);
        Checked { trajectory: Trajectory::new(learner, &loss.observed), predictions, val, slowval, targets, replayed }
    }
}

impl Trajectory {
    /// The trajectories that `learner` imagines, with an action in the last state too, as officially.
    fn new(learner: &Learner, observed: &crate::rssm::Observed) -> Self {
        let start = learner.starts(observed).detach();
        let (rows, steps) = (0..start.deter.dim(0), learner.config.imag_length);
        let (mut deter, mut stoch, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        learner.parts.dyn_.imagine(&learner.frozen, start, rows, steps, learner.noise, |state, at| {
            let feat = [&state.deter, &state.stoch];
            let (actions, embedded) = learner.parts.pol.sample(&learner.frozen, &feat, learner.noise, at);
            deter.push(state.deter.clone());
            stoch.push(state.stoch.clone());
            taken.push(actions);
            (at.step < steps).then_some(embedded)
        });
        let of_key = |key: usize| taken.iter().map(|actions: &Vec<Tensor>| actions[key].clone()).collect::<Vec<_>>();
        Trajectory {
            deter: ops::stack_time(&deter),
            stoch: ops::stack_time(&stoch),
            actions: (0..taken[0].len()).map(|key| ops::stack_time(&of_key(key))).collect(),
        }
    }
}
