//! Binning: the points of several runs become one curve, mean and standard deviation a bin.

use super::Run;
use indexmap::IndexMap;

/// One bin of a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Right edge of the bin in environment frames.
    pub frames: f64,
    pub mean: f64,
    /// Standard deviation over seeds; of a single run, over the episodes of the bin.
    pub sd: f64,
    pub seeds: usize,
}

/// A line of the plot.
#[derive(Clone, Debug)]
pub struct Curve {
    pub name: String,
    /// What the shade shows, and of how many runs.
    pub note: String,
    pub points: Vec<Point>,
    pub official: bool,
}

impl Curve {
    /// The smallest distance of neighbouring points, in frames.
    pub fn spacing(&self) -> Option<f64> {
        let gaps = self.points.windows(2).map(|pair| pair[1].frames - pair[0].frames);
        gaps.filter(|&gap| gap > 0.0).reduce(f64::min)
    }
}

/// One curve for each name, in the order of first appearance. Frames past `xmax` are left out.
pub fn by_name(runs: &[Run], width: f64, xmax: f64) -> Vec<Curve> {
    let mut groups: IndexMap<&str, Vec<&Run>> = IndexMap::new();
    for run in runs {
        groups.entry(&run.name).or_default().push(run);
    }
    let curve = |(name, runs): (&str, Vec<&Run>)| Curve {
        name: name.to_string(),
        note: match runs.len() {
            1 => "1 run, shade: its episodes' sd".into(),
            n => format!("{n} seeds, shade: sd"),
        },
        points: bin(&runs, width, xmax),
        official: false,
    };
    groups.into_iter().map(curve).collect()
}

/// Bins `(k*width, (k+1)*width]`. A run counts in a bin by the mean of its episodes there, so that a
/// seed with many short episodes weighs no more than another; bins without episodes are left out.
fn bin(runs: &[&Run], width: f64, xmax: f64) -> Vec<Point> {
    // A step on an edge belongs to the left bin, also when the division is a hair off.
    let index = |step: f64| ((step / width - 1e-9).ceil() as usize).saturating_sub(1);
    let bins = index(xmax) + 1;
    let mut seen = vec![vec![vec![]; runs.len()]; bins];
    for (i, run) in runs.iter().enumerate() {
        for &(step, x) in run.points.iter().filter(|(step, x)| *step <= xmax && x.is_finite()) {
            seen[index(step)][i].push(x);
        }
    }
    let point = |(k, seen): (usize, Vec<Vec<f64>>)| -> Option<Point> {
        let means: Vec<f64> = seen.iter().filter(|xs| !xs.is_empty()).map(|xs| moments(xs).0).collect();
        let (mean, spread) = moments(&means);
        let sd = if runs.len() == 1 { moments(&seen[0]).1 } else { spread };
        let frames = ((k + 1) as f64 * width).min(xmax.max(width));
        (!means.is_empty()).then_some(Point { frames, mean, sd, seeds: means.len() })
    };
    seen.into_iter().enumerate().filter_map(point).collect()
}

/// Mean and standard deviation (of the sample as a population).
fn moments(xs: &[f64]) -> (f64, f64) {
    let n = xs.len().max(1) as f64;
    let mean = xs.iter().sum::<f64>() / n;
    (mean, (xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every episode within the frame counts once, whatever the bins.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec(0u32..100_000, 1..60), bins in 1usize..50) {
            let points = steps.iter().map(|&s| (f64::from(s), 1.0)).collect();
            let run = Run { name: "a".into(), points };
            let xmax = f64::from(*steps.iter().max().unwrap()).max(1.0);
            let curve = &by_name(&[run], xmax / bins as f64, xmax)[0];
            let occupied = curve.points.len();
            prop_assert!(occupied >= 1 && occupied <= bins);
            prop_assert!(curve.points.iter().all(|p| p.mean == 1.0 && p.frames <= xmax * (1.0 + 1e-9)));
            for &s in &steps {
                let w = xmax / bins as f64 * (1.0 + 1e-6);
                prop_assert!(curve.points.iter().any(|p| f64::from(s) <= p.frames * (1.0 + 1e-6) && f64::from(s) >= p.frames - w));
            }
        }
    }
}
