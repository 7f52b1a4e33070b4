//! DreamerV3 as pure mathematics: no input or output, and no threads except one for each of several GPUs.
//!
//! [`Agent`] has the three verbs of the algorithm: [`Agent::act`], [`Agent::train`], [`Agent::report`].

mod acting;
mod actor_critic;
mod agent;
mod batch;
mod carry;
mod checks;
mod config;
mod data;
mod decoder;
mod encoder;
mod gauges;
mod heads;
mod images;
mod imagination;
mod loss;
mod nets;
mod noise;
mod normalize;
mod observations;
mod optimizer;
mod params;
mod policy;
mod report;
mod rssm;
mod state;
mod team;
mod train;
mod transfer;
mod trial;
mod update;

#[cfg(test)]
mod acting_tests;
#[cfg(test)]
extern crate self as dreamer_agent; // so that helpers of tests/ serve here, too
#[cfg(test)]
mod checked;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod option_tests;
#[cfg(test)]
mod team_tests;
#[cfg(test)]
mod update_tests;

pub use acting::{Acted, Mode};
pub use agent::Agent;
pub use batch::{Prepared, Preparer};
pub use carry::Carry;
pub use config::*;
pub use report::Reported;
pub use state::State;
pub use train::Trained;
pub use trial::trial;
pub use update::Begun;

/// Named scalars in a fixed order, with the official names.
pub type Metrics = indexmap::IndexMap<String, f32>;
