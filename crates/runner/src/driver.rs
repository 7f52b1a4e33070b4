//! Steps environments with a policy and hands out the transitions, with the official semantics.

use crate::workers::Workers;
use anyhow::{Context, Result, bail, ensure};
use dreamer_agent::Acted;
use envs::Env;
use envs::record::{difference, flag};
use spaces::{Array, Data, Record, Spaces};

/// Environments that step together, and the actions they take next.
pub struct Driver {
    workers: Workers,
    obs_space: Spaces,
    act_space: Spaces,
    /// The action of each environment's next step, `reset` included.
    actions: Vec<Record>,
    broken: bool,
}

impl Driver {
    /// Drives `envs` from at most `threads` threads. They must have the same spaces; their first step is a reset.
    pub fn new(envs: Vec<Box<dyn Env>>, threads: usize) -> Result<Self> {
        let first = envs.first().context("run.envs is 0; at least one environment is needed")?;
        let (obs_space, act_space) = (first.obs_space().clone(), first.act_space().clone());
        for (i, env) in envs.iter().enumerate() {
            let how = difference(env.obs_space(), &obs_space).or_else(|| difference(env.act_space(), &act_space));
            if let Some(how) = how {
                bail!("environment {i} has other spaces than environment 0, and all must be alike: {how}");
            }
        }
        let count = envs.len();
        let workers = Workers::new(envs, threads)?;
        let mut driver = Driver { workers, obs_space, act_space, actions: Vec::new(), broken: false };
        driver.actions = vec![driver.reset_action(); count];
        Ok(driver)
    }

    /// Number of environments.
    pub fn count(&self) -> usize {
        self.actions.len()
    }

    /// The observation's keys, those that start with `log/` included.
    pub fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    /// The action's keys, `reset` included.
    pub fn act_space(&self) -> &Spaces {
        &self.act_space
    }

    /// Whether an environment has failed for good. Nothing that came before is lost by it.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Starts every environment anew at the next step.
    pub fn reset(&mut self) {
        let reset = self.reset_action();
        self.actions.fill(reset);
    }

    /// One step of every environment: `policy` maps the observations [N, ...] to actions [N, ...].
    ///
    /// Gives one transition per environment: the observation, the action taken after it (zeros at
    /// the end of an episode), what the policy adds for the replay, and the `log/` keys.
    pub fn step(&mut self, policy: impl FnOnce(&Record) -> Result<Acted>) -> Result<Vec<Record>> {
        let mut steps = self.workers.step(self.actions.clone()).inspect_err(|_| self.broken = true)?;
        let acted = policy(&self.batch(&steps)?)?;
        let mut actions = Vec::with_capacity(steps.len());
        for (i, step) in steps.iter_mut().enumerate() {
            let last = flag(step, "is_last")?;
            let mut action = rows(&acted.action, i)?;
            if last {
                action = action.into_iter().map(|(key, a)| (key, Array::zeros(a.dtype(), &a.shape))).collect();
            }
            step.extend(action.clone());
            step.extend(rows(&acted.replay, i)?);
            action.insert("reset".into(), Array::bool(last));
            actions.push(action);
        }
        self.actions = actions;
        Ok(steps)
    }

    /// The observations of all environments, stacked per key, without the `log/` keys.
    fn batch(&self, steps: &[Record]) -> Result<Record> {
        let stack = |key: &String| {
            let column: Option<Vec<&Array>> = steps.iter().map(|step| step.get(key)).collect();
            let column = column.with_context(|| format!("an environment returned no key '{key}'"))?;
            let (space, shape) = (&self.obs_space[key], &column[0].shape);
            ensure!(
                column.iter().all(|a| a.shape == space.shape && a.dtype() == space.dtype),
                "an environment returned key '{key}' as {} {shape:?} where its space says {space}",
                column[0].dtype().name()
            );
            Ok((key.clone(), Array::stack(column)))
        };
        self.obs_space.keys().filter(|key| !spaces::is_log(key)).map(stack).collect()
    }

    fn reset_action(&self) -> Record {
        let mut action = spaces::zeros(&self.act_space);
        action.insert("reset".into(), Array::bool(true));
        action
    }

    /// Everything that the next step depends on: the pending actions and the environments' states.
    pub fn save(&mut self) -> Result<Record> {
        let mut state = Record::new();
        for key in self.act_space.keys() {
            state.insert(format!("action/{key}"), Array::stack(self.actions.iter().map(|action| &action[key])));
        }
        // If one has failed for good, the others took a step that was not recorded: they start new episodes.
        let states = if self.broken { vec![] } else { self.workers.save()? };
        for (i, env) in states.into_iter().enumerate() {
            if let Some(bytes) = env {
                state.insert(format!("env/{i:06}"), Array::from_u8(&[bytes.len()], bytes));
            }
        }
        Ok(state)
    }

    /// Continues from what [`Driver::save`] returned; environments that cannot start a new episode.
    /// Returns how many did.
    pub fn load(&mut self, state: &Record) -> Result<usize> {
        let mut actions = vec![self.reset_action(); self.count()];
        for (key, space) in &self.act_space {
            let saved = state.get(&format!("action/{key}")).with_context(|| format!("no action '{key}' was saved"))?;
            let fits = saved.dtype() == space.dtype && saved.shape.first() == Some(&actions.len());
            ensure!(fits && saved.shape[1..] == space.shape, "the saved action '{key}' does not fit {space}");
            for (i, action) in actions.iter_mut().enumerate() {
                action.insert(key.clone(), saved.at(i));
            }
        }
        let states = (0..self.count()).map(|i| match state.get(&format!("env/{i:06}")).map(|a| &a.data) {
            Some(Data::U8(bytes)) => Some(bytes.clone()),
            _ => None,
        });
        let mut restarted = 0;
        for (i, loaded) in self.workers.load(states.collect())?.into_iter().enumerate() {
            if loaded.is_err() {
                actions[i] = self.reset_action();
                restarted += 1;
            }
        }
        self.actions = actions;
        Ok(restarted)
    }
}

fn rows(batch: &Record, i: usize) -> Result<Record> {
    let row = |(key, value): (&String, &Array)| {
        ensure!(value.shape.first().is_some_and(|&n| i < n), "the policy returned too few rows of '{key}'");
        Ok((key.clone(), value.at(i)))
    };
    batch.iter().map(row).collect()
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
