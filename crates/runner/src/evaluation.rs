//! Evaluation during training (`train_eval`): with environments and a replay of its own, on which nothing is trained.

use crate::batches::{Shared, lock};
use crate::driver::Driver;
use crate::episodes::Episodes;
use crate::film::Film;
use crate::log::Logger;
use crate::policy::Policy;
use crate::signals::Stop;
use crate::stream::Stream;
use anyhow::Result;
use config::Config;
use dreamer_agent::{Agent, Mode};

/// The evaluating side of a run. All its metrics are named `eval/…`.
pub struct Evaluation {
    pub driver: Driver,
    pub replay: Shared,
    pub stream: Stream,
    pub episodes: Episodes,
}

impl Evaluation {
    pub fn new(config: &Config, driver: Driver, replay: Shared, agent: Option<&Agent>) -> Self {
        let stream = Stream::new(config, &replay, replay::Mode::Eval, agent);
        Evaluation { episodes: Episodes::new(driver.count()), driver, replay, stream }
    }

    /// Plays `run.eval_eps` episodes with the present agent, then reports on what was played. Ends early, with false, if
    /// `stop` is asked, except in synchronous mode, where results must not depend on it.
    pub fn run(
        &mut self,
        config: &Config,
        agent: Option<&Agent>,
        step: u64,
        logger: &mut Logger,
        stop: &Stop,
    ) -> Result<bool> {
        let (space, count) = (self.driver.act_space().clone(), self.driver.count());
        let actor = agent.map(Agent::snapshot); // on a GPU a snapshot acts by one call
        let mut policy = Policy::new(actor.as_ref(), &space, count, config.seed.wrapping_add(step + 1), Mode::Eval);
        self.driver.reset();
        self.episodes.reset();
        let mut film = Film::default();
        let goal = self.episodes.ended + config.run.eval_eps as u64;
        while self.episodes.ended < goal {
            if stop.asked() && !config.run.sync {
                return Ok(false);
            }
            let steps = self.driver.step(|obs| policy.act(actor.as_ref(), obs))?;
            film.add(&steps)?;
            for (i, transition) in steps.iter().enumerate() {
                lock(&self.replay).add(transition, i)?;
                if let Some(episode) = self.episodes.add(i, transition)? {
                    logger.add(step, &episode, "eval/episode");
                }
            }
        }
        logger.add(step, &self.episodes.stats(), "eval/epstats");
        logger.add(step, &film.finish(), "eval/epstats");
        let batches = config.consec_report * config.run.report_batches;
        if let Some(agent) = agent.filter(|_| !lock(&self.replay).is_empty()) {
            logger.add(step, &self.stream.report(agent, batches)?, "eval");
        }
        Ok(true)
    }
}
