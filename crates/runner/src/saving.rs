//! What a checkpoint holds of a run, and how a run resumes from one.

use crate::batches::lock;
use crate::checkpoint::{self, Moment, nest, unnest};
use crate::clock::RatioState;
use crate::episodes::Episodes;
use crate::files::replace_file;
use crate::log::{Agg, LINES, eprintln_above, println_above};
use crate::trainer::{Counters, Trainer};
use anyhow::{Context, Result, anyhow, bail, ensure};
use config::Config;
use dreamer_agent::Agent;
use envs::record::difference;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spaces::{Space, Spaces};
use std::fs::OpenOptions;
use std::path::Path;

/// Format of `state.json`.
const VERSION: u32 = 1;

/// `state.json`: everything that is not an array.
#[derive(Serialize, Deserialize)]
pub struct State {
    version: u32,
    program: String,
    pub config: Value,
    #[serde(flatten)]
    pub counters: Counters,
    ratio: RatioState,
    clocks: [Option<u64>; 4],
    episodes: Episodes,
    losses: Agg,
    eval_episodes: Option<Episodes>,
    /// Bytes of the metrics files.
    pub lines: [u64; 2],
    /// Which state of the replay belongs to this.
    replay: Option<u32>,
    /// What the agent sees and does, to use it without its environment; not in checkpoints of earlier versions.
    #[serde(default)]
    spaces: Option<AgentSpaces>,
}

/// The agent's spaces; lists, as their order counts.
#[derive(Serialize, Deserialize)]
struct AgentSpaces {
    obs: Vec<(String, Space)>,
    act: Vec<(String, Space)>,
}

impl AgentSpaces {
    fn of(agent: &Agent) -> Self {
        let list = |spaces: &Spaces| spaces.iter().map(|(key, space)| (key.clone(), space.clone())).collect();
        AgentSpaces { obs: list(agent.obs_space()), act: list(agent.act_space()) }
    }
}

impl State {
    fn parse(moment: &Moment) -> Result<Self> {
        let state: State =
            serde_json::from_value(moment.state.clone()).context("state.json is of another version of this program")?;
        ensure!(
            state.version == VERSION,
            "the checkpoint has format {}, this program reads format {VERSION}; use the program that wrote it",
            state.version
        );
        Ok(state)
    }

    /// How the agent's spaces differ from those of the run, if they do.
    fn changed_space(&self, agent: &Agent) -> Option<String> {
        let AgentSpaces { obs, act } = self.spaces.as_ref()?;
        let [obs, act] = [obs, act].map(|list| list.iter().cloned().collect());
        difference(agent.obs_space(), &obs).or_else(|| difference(agent.act_space(), &act))
    }

    /// Reads `state.json`, and refuses a run of another task.
    pub fn read(moment: &Moment, config: &Config) -> Result<Self> {
        let state = State::parse(moment)?;
        let task = state.config.get("task").and_then(Value::as_str).unwrap_or_default();
        ensure!(
            task == config.task,
            "the run folder holds a run of task '{task}', not '{}'; choose another --logdir",
            config.task
        );
        Ok(state)
    }
}

/// The trained agent of a run folder, of its `ckpt` or of one checkpoint, on the processor: to act, or to be trained
/// further. Needs nothing else of the run, and no environment. Where newer checkpoints are damaged, a warning says so.
pub fn open_agent(path: &Path) -> Result<Agent> {
    let open = || {
        if path.is_file() {
            bail!(
                "a file holds tensors alone, without spaces and configuration; name a run folder or a checkpoint in it"
            );
        }
        let (moment, warnings) = checkpoint::find(path)?;
        warnings.iter().for_each(|text| eprintln_above(&format!("warning: {text}")));
        let state = State::parse(&moment)?;
        let Some(AgentSpaces { obs, act }) = state.spaces else {
            bail!(
                "the checkpoint does not hold an agent's spaces: it is of random actions or of an earlier version, for \
                   which resuming the run once is the cure"
            );
        };
        let config: Config = serde_json::from_value(state.config).context("its configuration is of another version")?;
        let mut agent = Agent::new(&obs.into_iter().collect(), &act.into_iter().collect(), &config.agent)?;
        agent.load(&moment.agent, None)?;
        Ok(agent)
    };
    open().with_context(|| format!("the agent in {} cannot be opened", path.display()))
}

impl Trainer {
    /// Saves replay and checkpoint. A part that fails keeps its last save; the agent is small and saved even if the
    /// replay is not.
    pub fn save(&mut self) -> Result<()> {
        self.land()?;
        self.logger.sync();
        let replays = self.save_replays();
        let moment = self.moment(replays.is_ok())?;
        let saved = self.checkpoints.save(self.counters.step, &moment);
        match (saved, replays) {
            (Ok(_), replays) => replays.context("the agent is saved, but not the replay")?,
            (Err(error), Ok(())) => return Err(error.context("the replay is saved, but not the agent")),
            (Err(error), Err(first)) => bail!("neither replay nor agent: {first:#}; and {error:#}"),
        }
        self.saved = Some(self.counters.place());
        Ok(())
    }

    fn save_replays(&self) -> Result<()> {
        let evaluated = self.evaluation.as_ref().map(|evaluation| &evaluation.replay);
        for replay in std::iter::once(&self.replay).chain(evaluated) {
            let mut replay = lock(replay);
            let saved = replay.save();
            replay.warnings().iter().for_each(|text| println_above(&format!("warning: {text}")));
            saved?;
        }
        Ok(())
    }

    /// Whether nothing has happened since the last save, or since the checkpoint that was resumed.
    pub fn is_saved(&self) -> bool {
        self.saved == Some(self.counters.place())
    }

    /// Saves; a failure is told loudly, and the run goes on until the next attempt.
    pub fn try_save(&mut self) {
        if let Err(error) = self.save() {
            println_above(&format!("WARNING: NOT SAVED: {error:#}. The run goes on and tries again at the next save."));
        }
    }

    /// The content of a checkpoint; `whole` says whether the replay beside it belongs to it.
    fn moment(&mut self, whole: bool) -> Result<Moment> {
        let mut arrays = self.driver.save()?;
        nest(&mut arrays, "policy", self.policy.save());
        self.train.save("train", &mut arrays)?;
        self.report.save("report", &mut arrays)?;
        if let Some(evaluation) = &mut self.evaluation {
            nest(&mut arrays, "eval", evaluation.driver.save()?);
            evaluation.stream.save("eval", &mut arrays)?;
        }
        let agent = self.agent.as_ref().map(Agent::save).unwrap_or_default();
        Ok(Moment { agent, arrays, state: self.state(whole)? })
    }

    fn state(&self, whole: bool) -> Result<Value> {
        let state = State {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            config: serde_json::to_value(&self.config)?,
            counters: Counters { seconds: self.seconds(), ..self.counters.clone() },
            ratio: self.ratio.save(),
            clocks: self.clocks.save(),
            episodes: self.episodes.clone(),
            losses: self.losses.clone(),
            eval_episodes: self.evaluation.as_ref().map(|evaluation| evaluation.episodes.clone()),
            lines: self.logger.lengths(),
            replay: whole.then(|| replay_mark(self.folder.root())).flatten(),
            spaces: self.agent.as_ref().map(AgentSpaces::of),
        };
        Ok(serde_json::to_value(state)?)
    }

    /// Resumes from a checkpoint whose agent was loaded already. Parts whose configuration has changed start anew.
    pub fn load(&mut self, moment: &Moment, state: State) -> Result<()> {
        let changed = |key: &str| {
            state.config.pointer(key) != serde_json::to_value(&self.config).ok().as_ref().and_then(|c| c.pointer(key))
        };
        // The replay was saved at another moment: a full disk, a crash between the two saves, or a checkpoint that was
        // skipped.
        let other = state.replay.is_none() || state.replay != replay_mark(self.folder.root());
        let (envs, batch) = (changed("/run/envs"), changed("/batch_size"));
        // A half-used sequence goes on only where it would be cut as before; else the next batch begins another.
        let cut = |keys: [&str; 2]| other || batch || changed("/replay_context") || keys.into_iter().any(changed);
        let (trained, reported) = (cut(["/batch_length", "/consec_train"]), cut(["/report_length", "/consec_report"]));
        if envs {
            self.policy.skip_to(state.counters.step); // not once more the draws of the run's beginning
        } else {
            let restarted = self.driver.load(&moment.arrays)?;
            if restarted > 0 {
                println_above(&format!("note: {restarted} environments cannot be resumed and start a new episode"));
            }
            self.policy.load(&unnest(&moment.arrays, "policy"))?;
            self.episodes = state.episodes;
            if other {
                println_above(
                    "note: the replay was saved at another moment than the checkpoint: what it has beyond that stays, and \
                     environments start new episodes",
                );
                self.driver.reset(); // new episodes, so that no sequence joins what never followed
            }
        }
        self.train.load("train", moment, !batch, !trained)?;
        self.report.load("report", moment, !batch, !reported)?;
        if let Some(evaluation) = &mut self.evaluation {
            if let Some(episodes) = state.eval_episodes.filter(|old| old.envs() == evaluation.episodes.envs()) {
                evaluation.driver.load(&unnest(&moment.arrays, "eval"))?;
                evaluation.episodes = episodes;
            }
            evaluation.stream.load("eval", moment, !batch, !reported)?;
        }
        self.losses = state.losses;
        self.ratio.load(&state.ratio, state.counters.step);
        self.clocks.load(state.clocks);
        let complete = state.spaces.is_some() || self.agent.is_none(); // earlier versions left the spaces out
        self.counters = state.counters;
        if !self.has_enough() {
            // As at the beginning, updates come once there is something to learn from, and then in their ratio: the
            // replay may be lost, or hold too few sequences of a new length.
            self.counters.owed = 0;
            self.ratio.restart();
        }
        self.saved = complete.then(|| self.counters.place());
        Ok(())
    }
}

/// Loads the agent of a checkpoint.
pub fn take_agent(agent: Option<&mut Agent>, moment: &Moment, state: &State) -> Result<()> {
    let text = "the checkpoint does not fit the agent of this configuration; take the run's own, or another --logdir";
    match agent {
        Some(agent) => agent.load(&moment.agent, None).map_err(|error| match state.changed_space(agent) {
            Some(how) => anyhow!("the environment is not the one of the run: {how}; choose another --logdir"),
            None => error.context(text),
        }),
        None if moment.agent.is_empty() => Ok(()),
        None => bail!("the run has an agent, but random_agent is true; choose another --logdir"),
    }
}

/// Tells one saved state of the replay from another: the checksum of its manifest.
fn replay_mark(root: &Path) -> Option<u32> {
    std::fs::read(root.join("replay").join("manifest")).ok().map(|bytes| crc32fast::hash(&bytes))
}

/// Truncates the metrics files to `lengths`, which they had when a checkpoint was written.
pub fn rewind_lines(root: &Path, lengths: [u64; 2]) -> Result<()> {
    for (name, length) in LINES.into_iter().zip(lengths) {
        let path = root.join(name);
        if path.metadata().is_ok_and(|file| file.len() > length) {
            let file = OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.set_len(length)).with_context(|| format!("cannot rewind {}", path.display()))?;
        }
    }
    Ok(())
}

/// Writes the resolved configuration into the run folder, replacing the file as a whole. Its `logdir` is absolute, and
/// so means the same folder from anywhere.
pub fn write_config(root: &Path, config: &Config) -> Result<()> {
    let logdir = std::path::absolute(&config.logdir).unwrap_or_else(|_| config.logdir.clone().into());
    let config = Config { logdir: logdir.display().to_string(), ..config.clone() };
    replace_file(&root.join("config.yaml"), config.to_yaml().as_bytes())
}

/// The settings that differ, as `key: old -> new`. The run folder's own place does not count.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![(String::new(), old, new)]);
    while let Some((path, old, new)) = open.pop() {
        match (old, new) {
            (Value::Object(a), Value::Object(b)) => {
                let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
                keys.reverse(); // `open` is a stack
                for key in keys {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    open.push((path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null)));
                }
            }
            _ if old != new && path != "logdir" => found.push(format!("{path}: {old} -> {new}")),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_listed_by_key_in_order() {
        let old = json!({"logdir": "a", "run": {"steps": 5, "envs": 1}, "task": "x"});
        let new = json!({"logdir": "b", "run": {"steps": 6, "envs": 1}, "task": "x", "more": [1]});
        assert_eq!(differences(&old, &new), ["run.steps: 5 -> 6", "more: null -> [1]"]);
        assert!(differences(&old, &old).is_empty());
    }
}
