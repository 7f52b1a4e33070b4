//! The physics against closed forms and against dm_control, the reward at known states.

use super::physics::{CART_MASS, Friction, GRAVITY, HALF_LENGTH, INERTIA, POLE_MASS, State as Pose, TIMESTEP};
use super::reward::reward;
use super::*;
use crate::record::number;

const NO_FRICTION: Friction = Friction { slider: 0.0, hinge: 0.0 };

fn pose(position: f64, angle: f64, velocity: f64, spin: f64) -> Pose {
    Pose { position, angle, velocity, spin }
}

/// Kinetic and potential energy in joules, 0 at rest with the pole level.
fn energy(s: &Pose) -> f64 {
    let height = HALF_LENGTH * s.angle.cos();
    let across = s.velocity + height * s.spin; // velocity of the pole's centre
    let down = HALF_LENGTH * s.angle.sin() * s.spin;
    let kinetic =
        CART_MASS * s.velocity.powi(2) + POLE_MASS * (across.powi(2) + down.powi(2)) + INERTIA * s.spin.powi(2);
    kinetic / 2.0 + POLE_MASS * GRAVITY * height
}

#[test]
fn energy_is_conserved_without_friction() {
    for start in [pose(0.0, 2.0, 0.3, 1.0), pose(-0.2, 0.1, 0.1, 0.0), pose(0.0, PI, 0.0, 9.0)] {
        let mut state = start;
        for _ in 0..300 {
            state = state.step(0.0, NO_FRICTION);
            assert!(state.position.abs() < 1.8);
            assert!((energy(&state) - energy(&start)).abs() < 2e-5, "{} {}", energy(&state), energy(&start));
        }
    }
}

#[test]
fn work_and_friction_change_the_energy() {
    let mut state = pose(0.0, PI, 0.0, 0.0);
    let (start, friction) = (energy(&state), Friction { slider: 0.5, hinge: 0.01 });
    let push = (0..20).fold(state, |state, _| state.step(1.0, NO_FRICTION));
    // 10 N over the way travelled, all of it kept.
    assert!((energy(&push) - start - 10.0 * push.position).abs() < 1e-6);
    state.spin = 5.0;
    let loss = energy(&state) - energy(&(0..100).fold(state, |state, _| state.step(0.0, friction)));
    assert!(loss > 0.05, "{loss}");
}

#[test]
fn small_swings_have_the_period_of_a_pendulum_on_a_cart() {
    // Hanging, linearised: the cart gives way, so its inertia counts against the pole's.
    let total = CART_MASS + POLE_MASS;
    let moment = INERTIA + POLE_MASS * HALF_LENGTH.powi(2) - (POLE_MASS * HALF_LENGTH).powi(2) / total;
    let period = std::f64::consts::TAU * (moment / (POLE_MASS * GRAVITY * HALF_LENGTH)).sqrt();
    let mut state = pose(0.0, PI + 1e-4, 0.0, 0.0);
    // Measure ten periods between upward crossings of the hanging position, interpolated.
    let mut crossings = vec![];
    let mut step = 0;
    while crossings.len() < 11 {
        let next = state.step(0.0, NO_FRICTION);
        let (before, after) = (state.angle - PI, next.angle - PI);
        if before < 0.0 && after >= 0.0 {
            crossings.push((step as f64 + before / (before - after)) * TIMESTEP);
        }
        state = next;
        step += 1;
    }
    let measured = (crossings[10] - crossings[0]) / 10.0;
    assert!((measured / period - 1.0).abs() < 1e-5, "{measured} {period}");
}

#[test]
fn inertia_is_that_of_the_capsule() {
    assert!((INERTIA - 0.00942459).abs() < 5e-9, "as MuJoCo compiles the model: {INERTIA}");
}

/// Rows of step, position, angle, velocity, spin and reward, computed by dm_control 1.0.30 with
/// MuJoCo 3.3.2 from `start` under `control`.
fn matches(name: &str, start: Pose, control: impl Fn(usize) -> f64, rows: &[[f64; 6]]) {
    let (mut state, mut at) = (start, 0);
    for &[step, position, angle, velocity, spin, expected] in rows {
        let mut last = 0.0;
        while at < step as usize {
            last = control(at);
            state = state.step(last, Friction::default());
            at += 1;
        }
        let pairs = [
            (state.position, position),
            (state.angle, angle),
            (state.velocity, velocity),
            (state.spin, spin),
            (reward(&state, last), expected),
        ];
        for (ours, theirs) in pairs {
            assert!((ours - theirs).abs() < 1e-7 * (1.0 + theirs.abs()), "{name} step {step}: {ours} not {theirs}");
        }
    }
}

#[test]
fn trajectories_are_those_of_dm_control() {
    let rows = [
        [1.0, 0.01005069419, 3.121507931, 0.005138934921, -0.006942325072, 0.0001008424724],
        [2.0, 0.01011737393, 3.121475032, 0.008197049557, 0.0003633343176, 0.0001011550839],
        [10.0, 0.01468141026, 3.128056897, 0.1352403046, 0.2056032716, 4.508896124e-05],
        [100.0, 1.321904437, 3.360535786, 0.6404309295, -3.873754847, 0.004751740142],
        [300.0, 0.08947797022, 3.197236496, -0.5896238495, 1.936188671, 0.0006369299361],
        [600.0, -0.5396262693, 2.680649429, 1.038091147, 0.8785749835, 0.04319258893],
        [1000.0, -0.1577652497, 2.335617548, -2.28330601, -2.869576928, 0.1113370903],
    ];
    matches("sine", pose(0.01, PI - 0.02, 0.005, -0.01), |t| (0.05 * t as f64).sin() * 0.6, &rows);
    let rows = [
        [100.0, -0.0001084230101, 0.002485552331, -0.0004408690056, 0.009700232317, 0.9999941189],
        [300.0, 0.03067186438, 3.881825848, 0.2405473081, 7.168178775, 0.06598029768],
        [1000.0, 0.004544520424, 6.183149411, -0.01681630097, 0.371771763, 0.9911855491],
    ];
    matches("fall", pose(0.0, 1e-4, 0.0, 0.0), |_| 0.0, &rows);
}

#[test]
fn the_soft_end_of_the_rail_is_that_of_dm_control() {
    let rows = [
        [1.0, 0.0004866711434, 3.142299435, 0.09733333039, 0.1413381736, 9.981615869e-08],
        [50.0, 1.178276247, 4.320178188, 4.590428028, 2.619348373, 0.1371633849],
        [75.0, 1.948797299, 4.510891884, -0.6810071426, -1.69347159, 0.1572912137],
        [85.0, 1.877466465, 4.272649532, -0.6044846225, -2.990626039, 0.09349057504],
        [100.0, 1.821822352, 3.721587248, -0.1871470309, -4.234705214, 0.02237310629],
        [200.0, 1.803312082, 2.893368053, -2.920909745e-05, 4.418265639, 0.004122212699],
        [400.0, 1.803191636, 3.544192191, -0.001476917113, 4.250179359, 0.01097318893],
    ];
    matches("push", pose(0.0, PI, 0.0, 0.0), |_| 1.0, &rows);
    let rows = [
        [1.0, -1.899281456, 0.2992133588, 0.1377650657, -0.1491039965, 0.5496202914],
        [5.0, -1.88699029, 0.287155753, 0.4178585252, -0.3732163938, 0.5493069589],
        [20.0, -1.819683779, 0.2680369548, 0.4387565828, 0.168542619, 0.5633380796],
        [100.0, -1.466724017, 2.783421241, 0.7688545306, 7.584474604, 0.01028303084],
        [300.0, -0.6024850776, 1.885369496, 0.3605673048, -6.045418145, 0.1617680435],
    ];
    matches("outside", pose(-1.9, 0.3, 0.0, 0.0), |_| 0.0, &rows);
}

#[test]
fn rewards_at_known_states() {
    let near = |state: Pose, control: f64, expected: f64| {
        let found = reward(&state, control);
        assert!((found - expected).abs() < 1e-12, "{state:?} {control}: {found}");
    };
    near(pose(0.0, 0.0, 0.0, 0.0), 0.0, 1.0);
    near(pose(0.0, PI, 0.0, 0.0), 0.0, 0.0);
    near(pose(0.0, PI / 2.0, 3.0, 0.0), 0.0, 0.5);
    near(pose(2.0, 0.0, 0.0, 0.0), 0.0, (1.0 + 0.1) / 2.0);
    near(pose(0.0, 0.0, 0.0, -5.0), 0.0, (1.0 + 0.1) / 2.0);
    near(pose(0.0, 0.0, 0.0, 0.0), 0.5, (4.0 + 0.75) / 5.0);
    near(pose(0.0, 0.0, 0.0, 0.0), -1.0, 0.8);
}

#[test]
fn episodes_start_hanging_and_the_views_agree() {
    let act = |x: f32| {
        Record::from([("action".into(), Array::from_f32(&[1], vec![x])), ("reset".into(), Array::bool(false))])
    };
    let mut vector = Cartpole::new(View::Vector, [64, 64], Rng::new(4, 0)).unwrap();
    let mut pixels = Cartpole::new(View::Pixels, [64, 64], Rng::new(4, 0)).unwrap();
    let first = vector.step(&act(0.0)).unwrap();
    pixels.step(&act(0.0)).unwrap();
    let position = first["position"].to_f32();
    assert!(position[0].abs() < 0.06 && position[1] < -0.99 && position[2].abs() < 0.06, "{position:?}");
    assert!(first["velocity"].to_f32().iter().all(|v| v.abs() < 0.06));
    assert!(flag(&first, "is_first").unwrap());
    for _ in 0..50 {
        let (a, b) = (vector.step(&act(0.7)).unwrap(), pixels.step(&act(0.7)).unwrap());
        assert_eq!(number(&a, "reward").unwrap(), number(&b, "reward").unwrap());
        assert_eq!(vector.render().unwrap(), b["image"]);
    }
    assert!(vector.step(&act(f32::NAN)).unwrap_err().to_string().contains("'action' is NaN"));
}

#[test]
fn the_picture_shows_cart_and_pole_where_they_are() {
    let mut env = Cartpole::new(View::Pixels, [64, 64], Rng::new(0, 0)).unwrap();
    env.state.pose = pose(1.0, PI / 2.0, 0.0, 0.0);
    let pixels = env.draw().to_i32();
    let at = |x: usize, y: usize| &pixels[3 * (64 * y + x)..][..3];
    assert_eq!(at(48 - 3, 31), [190, 150, 90], "the cart a metre to the right of the middle");
    assert_eq!(at(60, 32), [250, 190, 80], "the pole level, to the right");
    assert_eq!(at(48, 20), [38, 66, 94], "nothing above");
}
