//! The configuration: official names, blocks and command-line rules, resolved to typed settings.
//!
//! ```
//! let blocks = ["crafter".to_string(), "size12m".to_string()];
//! let flags = [(r"agent\..*\.act".to_string(), vec!["gelu".to_string()])];
//! let config = config::Config::resolve(&blocks, &flags).unwrap();
//! assert_eq!(config.task, "crafter_reward");
//! assert_eq!(config.agent.dynamics.rssm.deter, 2048);
//! assert_eq!(config.agent.policy.act, "gelu");
//! ```

mod blocks;
mod check;
mod compat;
mod config;
mod flags;
mod nearest;
mod paths;
mod render;
mod resolve;
mod tree;
mod value;
mod yaml;

pub use blocks::blocks;
pub use config::{Config, Fracs, LoggerConfig, Prio, ReplayConfig, Run};
pub use flags::Args;
pub use nearest::nearest;
pub use paths::expand_home;
pub use value::Value;
