//! The native tasks, a file or a folder each.

pub mod cartpole;
pub mod catch;
pub mod crafter;
pub mod dmc;
pub mod dummy;
pub mod memory;
pub mod pinpad;
