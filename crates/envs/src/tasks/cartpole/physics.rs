//! A pole hinged on a cart that slides on a rail, as MuJoCo computes dm_control's `cartpole.xml`.
//!
//! Two degrees of freedom have closed-form equations of motion, and a single joint limit has a
//! closed-form soft constraint, so no solver is needed: this follows MuJoCo to rounding.

use serde::{Deserialize, Serialize};

/// Seconds of one integration step; an environment step is one of them.
pub const TIMESTEP: f64 = 0.01;
pub const CART_MASS: f64 = 1.0;
pub const POLE_MASS: f64 = 0.1;
/// Metres from the hinge to the pole's centre of mass.
pub const HALF_LENGTH: f64 = 0.5;
pub const GRAVITY: f64 = 9.81;
/// Newtons at an action of 1.
const GEAR: f64 = 10.0;
/// The rail ends softly at plus and minus this position, in metres.
const RAIL: f64 = 1.8;

/// Pole inertia about its centre, in kg m²: a capsule of radius 0.045 m around a 1 m axis whose
/// mass is spread evenly over cylinder and end caps.
pub const INERTIA: f64 = {
    let (r, h) = (0.045, 2.0 * HALF_LENGTH);
    let caps = POLE_MASS * 4.0 * r / (4.0 * r + 3.0 * h);
    let cylinder = POLE_MASS - caps;
    let about_middle = 2.0 / 5.0 * r * r + h * (3.0 * r + 2.0 * h) / 8.0;
    cylinder * (3.0 * r * r + h * h) / 12.0 + caps * about_middle
};

/// The mass matrix: its diagonal is `TOTAL` and `HINGE_INERTIA`, and off it is `COUPLING * cos(angle)`.
const TOTAL: f64 = CART_MASS + POLE_MASS;
const COUPLING: f64 = POLE_MASS * HALF_LENGTH;
const HINGE_INERTIA: f64 = INERTIA + POLE_MASS * HALF_LENGTH * HALF_LENGTH;

/// Position and velocity of the cart in metres and of the pole in radians, 0 upright and
/// growing towards positive positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub position: f64,
    pub angle: f64,
    pub velocity: f64,
    pub spin: f64,
}

/// The friction of both joints; without it, and away from the rail's ends, energy is conserved.
#[derive(Clone, Copy, Debug)]
pub struct Friction {
    /// N per m/s.
    pub slider: f64,
    /// N m per rad/s.
    pub hinge: f64,
}

impl Default for Friction {
    fn default() -> Self {
        Friction { slider: 5e-4, hinge: 2e-6 }
    }
}

impl State {
    /// The state one timestep later under a constant `control` in `[-1, 1]`: classical
    /// Runge-Kutta of fourth order.
    pub fn step(self, control: f64, friction: Friction) -> State {
        let force = GEAR * control.clamp(-1.0, 1.0);
        let rate = |s: State| {
            let [acceleration, angular] = s.accelerations(force, friction);
            State { position: s.velocity, angle: s.spin, velocity: acceleration, spin: angular }
        };
        let h = TIMESTEP;
        let k1 = rate(self);
        let k2 = rate(self.moved(&k1, h / 2.0));
        let k3 = rate(self.moved(&k2, h / 2.0));
        let k4 = rate(self.moved(&k3, h));
        self.moved(&k1, h / 6.0).moved(&k2, h / 3.0).moved(&k3, h / 3.0).moved(&k4, h / 6.0)
    }

    fn moved(self, rate: &State, time: f64) -> State {
        State {
            position: self.position + time * rate.position,
            angle: self.angle + time * rate.angle,
            velocity: self.velocity + time * rate.velocity,
            spin: self.spin + time * rate.spin,
        }
    }

    /// Accelerations of cart (m/s²) and pole (rad/s²) under a `force` on the cart in newtons.
    fn accelerations(&self, force: f64, friction: Friction) -> [f64; 2] {
        let (sin, cos) = self.angle.sin_cos();
        let coupling = COUPLING * cos;
        let determinant = TOTAL * HINGE_INERTIA - coupling * coupling;
        let push = force - friction.slider * self.velocity + COUPLING * sin * self.spin * self.spin;
        let torque = COUPLING * GRAVITY * sin - friction.hinge * self.spin;
        // The inverse of [[TOTAL, coupling], [coupling, HINGE_INERTIA]] applied to (push, torque).
        let solve = |push: f64| {
            let acceleration = (HINGE_INERTIA * push - coupling * torque) / determinant;
            [acceleration, (TOTAL * torque - coupling * push) / determinant]
        };
        let free = solve(push);
        if self.position.abs() <= RAIL {
            return free;
        }
        let mobility = HINGE_INERTIA / determinant; // acceleration of the cart per newton on it
        solve(push + self.rail_force(free[0], mobility))
    }

    /// The force of the rail's end on the cart beyond it: MuJoCo's soft limit with
    /// `solreflimit="0.08 1"` and the default `solimp="0.9 0.95 0.001 0.5 2"`. `acceleration` is
    /// the cart's without it.
    fn rail_force(&self, acceleration: f64, mobility: f64) -> f64 {
        const TIME: f64 = 0.08;
        const LEAST: f64 = 0.9;
        const MOST: f64 = 0.95;
        const WIDTH: f64 = 0.001;
        let inward = -self.position.signum();
        let gap = RAIL - self.position.abs(); // negative here
        let depth = (-gap / WIDTH).min(1.0);
        let blend = if depth <= 0.5 { 2.0 * depth * depth } else { 1.0 - 2.0 * (1.0 - depth).powi(2) };
        let impedance = LEAST + blend * (MOST - LEAST);
        // The acceleration aimed at is that of a critically damped spring; the impedance says how strongly the
        // constraint enforces it.
        let stiffness = 1.0 / (MOST * TIME).powi(2);
        let damping = 2.0 / (MOST * TIME);
        let aim = -damping * inward * self.velocity - stiffness * impedance * gap;
        // MuJoCo scales the softness by the mobility of the model's initial pose: upright.
        let upright = HINGE_INERTIA / (TOTAL * HINGE_INERTIA - COUPLING * COUPLING);
        let softness = (1.0 - impedance) / impedance * upright;
        inward * ((aim - inward * acceleration) / (mobility + softness)).max(0.0)
    }
}
