//! Short human forms of numbers and durations: 1.2M, 3.4k, 0.0012, 1:02:33.

use std::time::Duration;

const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];

/// A number in at most nine characters: three significant digits, two below 1 and in places with a unit.
pub fn short(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_string();
    }
    let size = x.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..999.5e12).contains(&size) {
        return format!("{x:.1e}");
    }
    // 0.9995 of a unit already rounds up to it: 999.6 is "1k", never "1000".
    for (unit, name) in UNITS {
        if size >= 0.9995 * unit {
            let y = x / unit;
            let decimals = if y.abs() < 99.95 { 1 } else { 0 };
            return format!("{}{name}", trimmed(y, decimals));
        }
    }
    let digits = if size < 1.0 { 1 } else { 2 };
    trimmed(x, (digits - size.log10().floor() as i32).max(0) as usize)
}

/// `x` with up to `decimals` decimals and no trailing zeros.
pub fn trimmed(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.into() }
}

/// Hours, minutes and seconds as `1:02:33` or `2:33`; from two days on as `3d 4h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours >= 48 {
        format!("{}d {}h", hours / 24, hours % 24)
    } else if hours > 0 {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (512.0, "512"),
            (999.4, "999"),
            (999.6, "1k"),
            (3400.0, "3.4k"),
            (10_000.0, "10k"),
            (412_345.0, "412k"),
            (999_960.0, "1M"),
            (1_234_567.0, "1.2M"),
            (5e9, "5G"),
            (0.0012, "0.0012"),
            (0.123, "0.12"),
            (0.00012, "1.2e-4"),
            (-3400.0, "-3.4k"),
            (-0.0012, "-0.0012"),
            (1e20, "1.0e20"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(short(x), text, "{x}");
        }
    }

    #[test]
    fn durations() {
        for (s, text) in [(0, "0:00"), (42, "0:42"), (153, "2:33"), (3753, "1:02:33"), (273_600, "3d 4h")] {
            assert_eq!(duration(Duration::from_secs(s)), text);
        }
    }

    proptest! {
        #[test]
        fn short_numbers_are_short_and_true(x in prop::num::f64::NORMAL) {
            prop_assert!(short(x).chars().count() <= 9, "{}", short(x));
        }

        #[test]
        fn short_numbers_keep_two_digits(x in 1e-3..900.0f64) {
            let back: f64 = short(x).parse().unwrap();
            prop_assert!((back - x).abs() <= 0.051 * x, "{x} -> {back}");
        }
    }
}
