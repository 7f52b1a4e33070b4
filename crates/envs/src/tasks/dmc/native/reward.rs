//! `tolerance`, from which dm_control's rewards are built.

/// How the reward falls outside of the bounds.
#[derive(Clone, Copy)]
pub enum Slope {
    /// At once: it is 0 there.
    Cliff,
    /// Along a Gaussian that is 0.1 at the margin.
    Gaussian,
    /// Along a line that has this value at the margin, down to 0.
    Linear(f64),
    /// Along a parabola that is 0 at the margin, and 0 beyond it.
    Quadratic,
}

/// 1 where `x` is within `[low, high]`; outside, a number from 0 to 1 that falls with the distance from the bounds in
/// units of `margin`.
pub fn tolerance(x: f64, [low, high]: [f64; 2], margin: f64, slope: Slope) -> f64 {
    if low <= x && x <= high {
        return 1.0;
    }
    let distance = if x < low { low - x } else { x - high } / margin;
    match slope {
        Slope::Cliff => 0.0,
        Slope::Gaussian => {
            let scale = (-2.0 * 0.1f64.ln()).sqrt();
            (-0.5 * (distance * scale).powi(2)).exp()
        }
        Slope::Linear(at_margin) => {
            let fallen = distance * (1.0 - at_margin);
            if fallen < 1.0 { 1.0 - fallen } else { 0.0 }
        }
        Slope::Quadratic if distance < 1.0 => 1.0 - distance * distance,
        Slope::Quadratic => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_fall_as_their_slope_says() {
        let near = |x: f64, slope, expected: f64| {
            let found = tolerance(x, [1.0, 2.0], 4.0, slope);
            assert!((found - expected).abs() < 1e-15, "{x}: {found}, not {expected}");
        };
        for slope in [Slope::Cliff, Slope::Gaussian, Slope::Linear(0.5), Slope::Quadratic] {
            [1.0, 1.5, 2.0].into_iter().for_each(|x| near(x, slope, 1.0));
        }
        near(2.1, Slope::Cliff, 0.0);
        near(6.0, Slope::Gaussian, 0.1);
        near(-3.0, Slope::Gaussian, 0.1);
        near(4.0, Slope::Gaussian, 0.1f64.powf(0.25));
        near(6.0, Slope::Linear(0.5), 0.5);
        near(-7.0, Slope::Linear(0.5), 0.0);
        near(3.0, Slope::Linear(0.0), 0.75);
        near(4.0, Slope::Quadratic, 0.75);
        near(7.0, Slope::Quadratic, 0.0);
        assert_eq!(tolerance(f64::INFINITY, [3.0, f64::INFINITY], 1.0, Slope::Gaussian), 1.0);
    }
}
