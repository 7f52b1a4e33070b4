//! `Gauges`: metrics on the way, whose numbers may still be on a GPU.

use crate::Metrics;
use engine::ops;
use engine::{Device, Tensor};

/// Named numbers that are read all at once, so that a GPU is waited for once.
#[derive(Default)]
pub struct Gauges(Vec<Gauge>);

struct Gauge {
    name: String,
    /// [1]
    value: Tensor,
    /// What is reported is `scale value + offset`.
    scale: f32,
    offset: f32,
}

impl Gauges {
    /// Puts down the only number of `value`.
    pub fn put(&mut self, name: impl Into<String>, value: &Tensor) {
        self.put_scaled(name, value, 1.0, 0.0);
    }

    /// Puts down `scale value + offset`.
    pub fn put_scaled(&mut self, name: impl Into<String>, value: &Tensor, scale: f32, offset: f32) {
        self.0.push(Gauge { name: name.into(), value: ops::reshape(&value.detach(), &[1]), scale, offset });
    }

    /// Puts down the mean of all elements.
    pub fn put_mean(&mut self, name: impl Into<String>, x: &Tensor) {
        self.put(name, &ops::weighted_mean(&[(&x.detach(), 1.0)]));
    }

    /// The numbers by name, in the order in which they came. Waits for a GPU.
    pub fn read(self) -> Metrics {
        let values: Vec<&Tensor> = self.0.iter().map(|gauge| &gauge.value).collect();
        let values = if values.is_empty() { Tensor::zeros(&[0]) } else { ops::concat(&values).to(Device::Cpu) };
        let number = |(gauge, value): (&Gauge, &f32)| (gauge.name.clone(), gauge.scale * value + gauge.offset);
        self.0.iter().zip(values.data()).map(number).collect()
    }
}
