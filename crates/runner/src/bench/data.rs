//! Random observations, actions and batches of the right shapes.

use super::Case;
use dreamer_agent::Agent;
use envs::{Rng, random_action};
use spaces::{Array, Record, STEPID, Space, Spaces};

/// Flags of a step, which are false throughout: an episode neither begins nor ends.
const FLAGS: [&str; 3] = ["is_first", "is_last", "is_terminal"];

/// The spaces of a case without environment, if there is one of that name.
pub fn plain_spaces(name: &str) -> Option<(Spaces, Spaces)> {
    let (seen, action) = match name {
        "image" => (Space::image(64, 64, 3), Space::discrete(&[], 6)),
        "vector" => (Space::float(&[24]), Space::bounded(&[6], -1.0, 1.0)),
        _ => return None,
    };
    let mut obs = Spaces::from_iter([(name.to_string(), seen), ("reward".to_string(), Space::float(&[]))]);
    obs.extend(FLAGS.map(|flag| (flag.to_string(), Space::boolean())));
    Some((obs, Spaces::from_iter([("action".to_string(), action)])))
}

/// A source of random data for one agent.
pub struct Data {
    obs: Spaces,
    /// Every key of a replayed step.
    step: Spaces,
    rng: Rng,
}

impl Data {
    pub fn new(agent: &Agent, case: &Case, seed: u64) -> Self {
        let obs = spaces::observed(&case.obs);
        let mut step = obs.clone();
        step.extend(spaces::chosen(&case.act));
        step.extend(agent.replay_space());
        Data { obs, step, rng: Rng::new(seed, 0) }
    }

    /// Observations [n, ...] of `n` environments.
    pub fn observation(&mut self, n: usize) -> Record {
        let obs = self.obs.clone();
        self.fill(&obs, &[n])
    }

    /// A batch [b, t, ...] as the replay delivers it.
    pub fn batch(&mut self, b: usize, t: usize) -> Record {
        let step = self.step.clone();
        let mut batch = self.fill(&step, &[b, t]);
        batch.insert("stepid".into(), Array::from_u8(&[b, t, STEPID], vec![0; b * t * STEPID]));
        batch
    }

    fn fill(&mut self, spaces: &Spaces, lead: &[usize]) -> Record {
        let rows: Vec<Record> =
            (0..lead.iter().product::<usize>()).map(|_| random_action(spaces, &mut self.rng)).collect();
        let column = |(key, space): (&String, &Space)| {
            let shape = [lead, &space.shape].concat();
            let array = match FLAGS.contains(&key.as_str()) {
                true => Array::zeros(space.dtype, &shape),
                false => Array::stack(rows.iter().map(|row| &row[key])).reshape(&shape),
            };
            (key.clone(), array)
        };
        spaces.iter().map(column).collect()
    }
}
