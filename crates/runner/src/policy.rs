//! Who acts: the agent, or a random policy (`random_agent`).

use anyhow::Result;
use dreamer_agent::{Acted, Agent, Carry, Mode};
use envs::{Rng, random_action};
use spaces::{Array, Record, Spaces};

/// The random policy's first stream of random numbers; environments use streams from 0 up.
const STREAM: u64 = 1 << 40;

/// The acting side of an agent: its recurrent state for `n` environments.
pub enum Policy {
    Agent { carry: Box<Carry>, mode: Mode },
    Random { act_space: Spaces, seed: u64, steps: u64 },
}

impl Policy {
    /// A fresh policy for `count` environments: the agent's, or a random one where there is none.
    pub fn new(agent: Option<&Agent>, act_space: &Spaces, count: usize, seed: u64, mode: Mode) -> Self {
        match agent {
            // Each evaluation has random draws of its own; training counts its steps from zero.
            Some(agent) if mode == Mode::Eval => {
                Policy::Agent { carry: Box::new(agent.initial(count).at_step(seed.wrapping_shl(24))), mode }
            }
            Some(agent) => Policy::Agent { carry: Box::new(agent.initial(count)), mode },
            None => Policy::Random { act_space: spaces::chosen(act_space), seed, steps: 0 },
        }
    }

    /// Actions [N, ...] for the observations `obs` [N, ...].
    pub fn act(&mut self, agent: Option<&Agent>, obs: &Record) -> Result<Acted> {
        match (self, agent) {
            (Policy::Agent { carry, mode }, Some(agent)) => agent.act(carry, obs, *mode),
            (Policy::Agent { .. }, None) => anyhow::bail!("the policy of an agent was asked to act without it"),
            (Policy::Random { act_space, seed, steps }, _) => {
                let count = obs.get("is_first").map_or(0, Array::len);
                let mut rng = Rng::new(*seed, STREAM + *steps);
                *steps += 1;
                let rows: Vec<Record> = (0..count).map(|_| random_action(act_space, &mut rng)).collect();
                Ok(Acted { action: spaces::stack(&rows), replay: Record::new() })
            }
        }
    }

    /// Goes on with the draws of a run's `step`, with the state of a fresh policy.
    pub fn skip_to(&mut self, step: u64) {
        match self {
            Policy::Agent { carry, .. } => **carry = (**carry).clone().at_step(step),
            Policy::Random { steps, .. } => *steps = step,
        }
    }

    pub fn save(&self) -> Record {
        match self {
            Policy::Agent { carry, .. } => carry.to_record(),
            Policy::Random { steps, .. } => {
                Record::from([("steps".to_string(), Array::from_u8(&[8], steps.to_le_bytes().to_vec()))])
            }
        }
    }

    pub fn load(&mut self, state: &Record) -> Result<()> {
        match self {
            Policy::Agent { carry, .. } => **carry = Carry::from_record(state)?,
            Policy::Random { steps, .. } => {
                let bytes = state.get("steps").and_then(|a| a.to_bytes().try_into().ok());
                *steps = u64::from_le_bytes(bytes.unwrap_or_default());
            }
        }
        Ok(())
    }
}
