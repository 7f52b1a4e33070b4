//! The native tasks, a file each.

pub mod cartpole;
pub mod catch;
pub mod dmc;
pub mod dummy;
pub mod memory;
pub mod pinpad;
