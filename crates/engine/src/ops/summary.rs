//! Summaries of many numbers, for metrics and running statistics.

use super::normalize;
use crate::cuda::{Arg, Grid, Table};
use crate::tensor::{Device, Tensor};

/// The positions of the numbers of a [`summary`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Summary {
    Mean,
    /// Standard deviation.
    Std,
    /// Mean magnitude.
    Magnitude,
    Min,
    Max,
    /// Share of magnitudes of at least one.
    Large,
    MeanSquare,
}

/// How many there are.
const COUNT: usize = 7;

impl Summary {
    /// This number [1] of a summary.
    pub fn of(self, summary: &Tensor) -> Tensor {
        summary.view(self as usize, &[1])
    }
}

/// Every number of [`Summary`] in order. Sums are float64. No gradient.
pub fn summary(x: &Tensor) -> Tensor {
    summaries(&[(x, None)]).remove(0)
}

/// [`summary`] of several tensors, each of which may be normalised first by stats [2]: `(x - offset) / scale`.
pub fn summaries(xs: &[(&Tensor, Option<&Tensor>)]) -> Vec<Tensor> {
    let Some(Device::Gpu(gpu)) = xs.first().map(|(x, _)| x.device()) else {
        let summary = |(x, stats): &(&Tensor, Option<&Tensor>)| {
            let x = stats.map_or_else(|| x.detach(), |stats| normalize(x, stats, true));
            Tensor::from_slice(&[COUNT], &summary_cpu(x.data()))
        };
        return xs.iter().map(summary).collect();
    };
    let y = gpu.empty(&[xs.len(), COUNT]);
    let full: Vec<Tensor> = xs.iter().map(|(x, _)| gpu.full(x)).collect();
    for (i, (xs, full)) in xs.chunks(SUMMARIES).zip(full.chunks(SUMMARIES)).enumerate() {
        let mut table = Table::default();
        table.addresses(SUMMARIES, full.iter().map(Tensor::address));
        table.addresses(SUMMARIES, xs.iter().map(|(_, stats)| stats.map_or(0, Tensor::address)));
        table.numbers(SUMMARIES, full.iter().map(Tensor::len));
        table.moves(full.iter().map(Arg::bytes).sum());
        let y = y.view(i * SUMMARIES * COUNT, &[xs.len(), COUNT]);
        gpu.launch("targets", "summaries", Grid::blocks(xs.len(), 1024), &[&table, &y]);
    }
    (0..xs.len()).map(|i| y.view(i * COUNT, &[COUNT])).collect()
}

/// Tensors of one launch, as in kernels/targets.cu.
const SUMMARIES: usize = 64;

fn summary_cpu(xs: &[f32]) -> [f32; COUNT] {
    let mean = |f: &dyn Fn(f64) -> f64| xs.iter().map(|&v| f(v as f64)).sum::<f64>() / xs.len() as f64;
    let middle = mean(&|v| v);
    [
        middle as f32,
        mean(&|v| (v - middle).powi(2)).sqrt() as f32,
        mean(&f64::abs) as f32,
        xs.iter().copied().fold(f32::INFINITY, f32::min),
        xs.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        mean(&|v| (v.abs() >= 1.0) as u8 as f64) as f32,
        mean(&|v| v * v) as f32,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{devices, random};

    #[test]
    fn numbers_of_a_few_by_hand() {
        for device in devices() {
            let x = Tensor::from_slice(&[2, 2], &[1.0, -3.0, 0.5, 0.5]).to(device);
            let s = summary(&x).host();
            let expected = [-0.25, (2.625f32 - 0.0625).sqrt(), 1.25, -3.0, 1.0, 0.5, 2.625];
            assert!(s.data().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{s:?}");
            assert_eq!(Summary::Max.of(&s).item(), 1.0);
            let stats = Tensor::from_slice(&[2], &[1.0, 2.0]).to(device);
            let both = summaries(&[(&x, None), (&x, Some(&stats))]);
            assert_eq!(both[0].host().data(), s.data());
            assert!((both[1].host().data()[0] + 0.625).abs() < 1e-6 && both[1].host().data()[4] == 0.0);
        }
    }

    #[test]
    fn devices_agree_on_many() {
        let x = random(&[3000], 3, 2.0);
        let [first, rest @ ..] = &devices()[..] else { unreachable!("the processor is there") };
        let expected = summary(&x.to(*first)).host();
        for device in rest {
            let got = summary(&x.to(*device)).host();
            assert!(got.data().iter().zip(expected.data()).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{got:?}");
        }
    }
}
