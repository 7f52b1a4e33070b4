//! `Gauges`: metrics on the way, whose numbers may still be on a GPU.

use crate::Metrics;
use engine::Tensor;
use engine::ops;
use std::sync::Arc;

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

/// The numbers of gauges in one tensor.
#[derive(Clone)]
pub struct Readings {
    values: Tensor,
    /// Name, scale and offset of each.
    labels: Arc<[(String, f32, f32)]>,
}

impl Readings {
    /// The numbers by name, in the order in which they came. Waits for a GPU.
    pub fn read(&self) -> Metrics {
        let values = self.values.host();
        let number =
            |((name, scale, offset), value): (&(String, f32, f32), &f32)| (name.clone(), scale * value + offset);
        self.labels.iter().zip(values.data()).map(number).collect()
    }
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

    /// All of them together, to be read later.
    pub fn readings(self) -> Readings {
        let values: Vec<&Tensor> = self.0.iter().map(|gauge| &gauge.value).collect();
        let values = if values.is_empty() { Tensor::zeros(&[0]) } else { ops::concat(&values) };
        Readings { values, labels: self.0.into_iter().map(|gauge| (gauge.name, gauge.scale, gauge.offset)).collect() }
    }

    /// The numbers by name, in the order in which they came. Waits for a GPU.
    pub fn read(self) -> Metrics {
        self.readings().read()
    }
}
