//! `RestartOnException`: a crash costs an episode, not the run.

use crate::notice::notice;
use crate::{Env, panic_text};
use anyhow::{Context, Result, anyhow};
use spaces::{Array, Record, Spaces};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Builds the environment; the argument counts the restarts so far, so that a new instance can
/// draw other random numbers than the one that crashed.
type Build = Box<dyn Fn(usize) -> Result<Box<dyn Env>> + Send>;

/// When a step fails or panics, builds the environment anew and returns its first record. More
/// than `limit` restarts within `window` steps are an error: the environment is broken.
pub struct RestartOnException {
    build: Build,
    env: Option<Box<dyn Env>>, // none after a crash that it may not survive
    obs_space: Spaces,
    act_space: Spaces,
    limit: usize,
    window: u64,
    step: u64,
    restarts: usize,
    recent: VecDeque<u64>, // the steps of the last restarts, at most `limit` of them
}

impl RestartOnException {
    pub fn new(build: Build, limit: usize, window: u64) -> Result<Self> {
        let env = build(0)?;
        let (obs_space, act_space) = (env.obs_space().clone(), env.act_space().clone());
        let recent = VecDeque::new();
        Ok(RestartOnException {
            build,
            env: Some(env),
            obs_space,
            act_space,
            limit,
            window,
            step: 0,
            restarts: 0,
            recent,
        })
    }

    /// Steps the environment; a panic becomes an error.
    fn attempt(&mut self, action: &Record) -> Result<Record> {
        let env = self.env.as_mut().context("the environment is not running")?;
        // After a panic `step` drops the environment, so it is never used half changed.
        catch_unwind(AssertUnwindSafe(|| env.step(action)))
            .unwrap_or_else(|panic| Err(anyhow!("it panicked: {}", panic_text(&*panic))))
    }

    /// Counts a restart; an error if there were too many recently.
    fn allow_restart(&mut self, cause: anyhow::Error) -> Result<()> {
        let (step, window) = (self.step, self.window);
        self.recent.retain(|&at| at + window > step);
        if self.recent.len() >= self.limit {
            let (limit, window) = (self.limit, self.window);
            return Err(cause.context(format!("the environment crashed more than {limit} times in {window} steps")));
        }
        self.recent.push_back(self.step);
        self.restarts += 1;
        notice(&format!("warning: an environment crashed and is restarted ({} so far): {cause:#}", self.restarts));
        Ok(())
    }

    fn rebuild(&mut self) -> Result<()> {
        let build = &self.build;
        self.env = Some(build(self.restarts).context("the environment could not be rebuilt")?);
        Ok(())
    }
}

impl Env for RestartOnException {
    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    fn render(&self) -> Option<Array> {
        self.env.as_ref()?.render()
    }

    fn save(&self) -> Option<Vec<u8>> {
        self.env.as_ref()?.save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.env.as_mut().context("the environment is not running")?.load(state)
    }

    fn begin(&mut self, action: &Record) {
        let Some(env) = &mut self.env else { return };
        // One that panics is gone, as in `attempt`; `step` builds another.
        if catch_unwind(AssertUnwindSafe(|| env.begin(action))).is_err() {
            self.env = None;
        }
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        self.step += 1;
        let mut result = self.attempt(action);
        let mut fresh = action.clone();
        fresh.insert("reset".into(), Array::bool(true));
        while let Err(cause) = result {
            self.env = None; // it also frees what the new one may want, such as a port
            self.allow_restart(cause)?;
            result = self.rebuild().and_then(|()| self.attempt(&fresh));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::flag;
    use crate::wrappers::probe::{CRASH, PANIC, Probe, act};

    #[test]
    fn errors_and_panics_start_a_new_episode() {
        let mut env = RestartOnException::new(Box::new(|_| Ok(Probe::endless())), 2, 10).unwrap();
        env.step(&act(0.0)).unwrap();
        for (restarts, crash) in [(1, CRASH), (2, PANIC)] {
            env.step(&act(0.0)).unwrap();
            let obs = env.step(&act(crash)).unwrap();
            assert!(flag(&obs, "is_first").unwrap());
            assert_eq!(obs["step"].item(), 0.0);
            assert_eq!(env.restarts, restarts);
        }
        let error = format!("{:#}", env.step(&act(CRASH)).unwrap_err());
        assert_eq!(error, "the environment crashed more than 2 times in 10 steps: the probe was told to fail");
    }

    #[test]
    fn crashes_far_apart_are_forgiven() {
        let mut env = RestartOnException::new(Box::new(|_| Ok(Probe::endless())), 1, 5).unwrap();
        for _ in 0..20 {
            assert!(flag(&env.step(&act(CRASH)).unwrap(), "is_first").unwrap());
            (0..5).for_each(|_| drop(env.step(&act(0.0)).unwrap()));
        }
        assert_eq!(env.restarts, 19, "the very first step starts an episode before it can crash");
    }

    #[test]
    fn an_environment_that_cannot_be_built_again_is_an_error() {
        let build = |restarts| -> Result<Box<dyn Env>> {
            if restarts == 0 { Ok(Probe::endless()) } else { Err(anyhow!("no licence")) }
        };
        let mut env = RestartOnException::new(Box::new(build), 3, 100).unwrap();
        env.step(&act(0.0)).unwrap();
        let error = format!("{:#}", env.step(&act(CRASH)).unwrap_err());
        assert!(error.contains("more than 3 times in 100 steps") && error.contains("no licence"), "{error}");
        assert!(env.step(&act(0.0)).is_err() && env.save().is_none());
    }
}
