//! What metrics and running statistics say of many numbers.

use crate::cuda::Grid;
use crate::tensor::{Device, Tensor};

/// Places of the numbers of a [`summary`].
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
    match x.device() {
        Device::Cpu => Tensor::from_slice(&[COUNT], &summary_cpu(x.data())),
        Device::Gpu(gpu) => {
            let y = gpu.empty(&[COUNT]);
            gpu.launch("targets", "summary", Grid::blocks(1, 1024), &[&gpu.full(x), &x.len(), &y]);
            y
        }
    }
}

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
