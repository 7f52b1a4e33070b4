//! The native tasks, a file each.

pub mod cartpole;
pub mod catch;
#[cfg(feature = "mujoco")]
pub mod dmc;
pub mod dummy;
pub mod memory;
pub mod pinpad;
