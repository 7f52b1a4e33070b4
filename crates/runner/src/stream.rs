//! `Stream`: batches and the state that the agent carries from one to the next, in training and in reports.

use crate::batches::{Batches, Shared};
use crate::checkpoint::{Moment, nest, unnest};
use crate::log::{Agg, How, Metrics, Value};
use anyhow::{Context, Result};
use config::Config;
use dreamer_agent::{Agent, Carry};
use replay::Mode;
use spaces::Record;

/// Batches, and the state that the agent carries from one to the next; without an agent there is none.
pub struct Stream {
    pub batches: Batches,
    pub carry: Option<Carry>,
}

impl Stream {
    pub fn new(config: &Config, replay: &Shared, mode: Mode, agent: Option<&Agent>) -> Self {
        Stream {
            batches: Batches::new(config, replay.clone(), mode),
            carry: agent.map(|agent| agent.initial(config.batch_size)),
        }
    }

    /// The mean metrics of `count` reports and the last one's videos.
    pub fn report(&mut self, agent: &Agent, count: usize) -> Result<Metrics> {
        let (mut agg, mut videos) = (Agg::new(), Metrics::new());
        let Some(carry) = &mut self.carry else { return Ok(videos) };
        for _ in 0..count {
            let reported = agent.report(carry, &self.batches.next()?)?;
            for (name, &x) in &reported.metrics {
                agg.add(name, x as f64, How::Avg);
            }
            videos = reported.videos.into_iter().map(|(name, video)| (name, Value::Video(video))).collect();
        }
        let mut all = agg.result();
        all.extend(videos);
        Ok(all)
    }

    /// Puts the carried state and the half-used sequence into `arrays`, as `name`.
    pub fn save(&self, name: &str, arrays: &mut Record) -> Result<()> {
        if let Some(carry) = &self.carry {
            nest(arrays, &format!("carry/{name}"), carry.to_record());
        }
        nest(arrays, &format!("batches/{name}"), self.batches.save()?);
        Ok(())
    }

    /// Loads what was saved as `name`: the carried state and the half-used sequence, each if it is wanted.
    pub fn load(&mut self, name: &str, moment: &Moment, state: bool, sequence: bool) -> Result<()> {
        let saved = unnest(&moment.arrays, &format!("carry/{name}"));
        if let Some(carry) = self.carry.as_mut().filter(|_| state && !saved.is_empty()) {
            *carry = Carry::from_record(&saved).with_context(|| format!("the carried state '{name}' is damaged"))?;
        }
        if sequence {
            self.batches.load(&unnest(&moment.arrays, &format!("batches/{name}")))?;
        }
        Ok(())
    }
}
