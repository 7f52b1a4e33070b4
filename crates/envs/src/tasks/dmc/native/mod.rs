//! Tasks of DeepMind Control from vectors, a file for each domain, on MuJoCo and the models that come with dm_control.
//!
//! They are Python's to the bit: the same library computes the same models in the same order.

mod acrobot;
mod ball_in_cup;
mod cartpole;
mod cheetah;
mod control;
mod env;
mod finger;
mod hopper;
mod joints;
mod model;
mod pendulum;
mod physics;
mod quadruped;
mod reacher;
mod reward;
#[cfg(test)]
mod tests;
mod walker;

pub use env::Dmc;
