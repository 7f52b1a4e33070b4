//! Environments: the `Env` trait, the native tasks, the wrappers around them and `make`.
//!
//! An environment is a state machine over named values. It knows nothing of tensors, agents or
//! replay. All randomness comes from [`Rng`] or, where numpy's numbers are due, from its generator.
//! Both are part of the state that [`Env::save`] returns, so a resumed run continues bit for bit.
//!
//! ```
//! let mut env = envs::make("catch", 0, 42, &serde_json::Value::Null)?;
//! let mut rng = envs::Rng::new(42, 1_000);
//! let mut action = envs::random_action(env.act_space(), &mut rng);
//! action.insert("reset".into(), spaces::Array::bool(true));
//! let obs = env.step(&action)?;
//! assert_eq!(obs["image"].shape, [64, 64, 3]);
//! assert_eq!(obs["is_first"], spaces::Array::bool(true));
//! # anyhow::Ok(())
//! ```

mod bridge;
mod draw;
mod make;
mod notice;
pub mod numpy;
mod packages;
mod random_action;
pub mod record;
mod rng;
mod state;
mod tasks;
pub mod wrappers;

pub use bridge::{Alone, SUITES, Suite, suite};
pub use make::{TaskInfo, is_external, is_registered, make, make_many, register, tasks};
pub use notice::show_notices;
pub use random_action::random_action;
pub use rng::Rng;

use spaces::{Array, Record, Spaces};

/// What a panic that was caught says.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

/// A task that an agent acts in, one step at a time.
///
/// A step takes one value for each key of the action space and returns one for each key of the
/// observation space. With `reset` true, at the first step, and at the step after one that was
/// `is_last`, the rest of the action is ignored and a new episode starts: the record is
/// `is_first` with reward 0. `is_last` ends an episode; `is_terminal` says that nothing can
/// follow, as opposed to an end by a time limit.
pub trait Env: Send {
    /// The observation's keys: always `reward` (float32 []), `is_first`, `is_last` and
    /// `is_terminal` (bool []). Keys that start with `log/` are logged, never seen by the agent; numbers among them
    /// need not be declared here, nor come with every step.
    fn obs_space(&self) -> &Spaces;

    /// The action's keys: always `reset` (bool []).
    fn act_space(&self) -> &Spaces;

    /// Announces the action of the coming step, so that environments in other processes step while others are waited
    /// for. Others ignore it.
    fn begin(&mut self, _action: &Record) {}

    /// Advances by one step. An error names the key or value at fault.
    fn step(&mut self, action: &Record) -> anyhow::Result<Record>;

    /// A uint8 picture `[height, width, 3]` of the present state, for videos. It may be asked for before the first
    /// step, to learn its size; where there is none then, there are no videos.
    fn render(&self) -> Option<Array> {
        None
    }

    /// The whole state, with its random generator; `None` where the task cannot be saved.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    /// Continues from what [`Env::save`] of the same task returned.
    fn load(&mut self, _state: &[u8]) -> anyhow::Result<()> {
        anyhow::bail!("this environment cannot restore a saved state; start it with reset instead")
    }
}
