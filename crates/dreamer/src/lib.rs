//! DreamerV3 as pure mathematics: no input or output, no threads of its own.
//!
//! [`Agent`] has the three verbs of the algorithm: [`Agent::act`], [`Agent::train`], [`Agent::report`].

mod agent;
mod config;

pub use agent::{Acted, Agent, Carry, Mode, Reported, State, Trained};
pub use config::*;

/// Named scalars in a fixed order, with the official names.
pub type Metrics = indexmap::IndexMap<String, f32>;
