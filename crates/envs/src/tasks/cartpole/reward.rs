//! The smooth reward of dm_control's cartpole tasks.

use super::physics::State;

/// The reward in `[0, 1]` of a state reached by `control`: the product of four terms, of which
/// only being upright can bring it to zero.
pub fn reward(state: &State, control: f64) -> f64 {
    let upright = (state.angle.cos() + 1.0) / 2.0;
    let centered = (1.0 + bell(state.position / 2.0)) / 2.0;
    let small_control = (4.0 + (1.0 - control * control).max(0.0)) / 5.0;
    let small_velocity = (1.0 + bell(state.spin / 5.0)) / 2.0;
    upright * small_control * small_velocity * centered
}

/// A Gaussian that is 1 at 0 and 0.1 at plus and minus 1.
fn bell(x: f64) -> f64 {
    (0.1f64.ln() * x * x).exp()
}
