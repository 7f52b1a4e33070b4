//! `Gauges`: metrics being collected, whose numbers may still be on a GPU.

use crate::Metrics;
use engine::Tensor;
use engine::ops;
use std::sync::Arc;

/// Named numbers that are computed and read all at once: one kernel on a GPU, which is waited for once.
#[derive(Default)]
pub struct Gauges(Vec<Gauge>);

struct Gauge {
    name: String,
    /// What is reported is `scale mean + offset` of these.
    values: Tensor,
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
    /// Gives these numbers memory of their own on a GPU, by a copy if they share it.
    pub fn unshare(&mut self) {
        self.values.unshare();
    }

    /// The numbers by name, in the order in which they came. Waits for a GPU.
    pub fn read(&self) -> Metrics {
        let values = self.values.host();
        let number =
            |((name, scale, offset), value): (&(String, f32, f32), &f32)| (name.clone(), scale * value + offset);
        self.labels.iter().zip(values.data()).map(number).collect()
    }
}

impl Gauges {
    /// Records the mean of all elements.
    pub fn put(&mut self, name: impl Into<String>, x: &Tensor) {
        self.put_scaled(name, x, 1.0, 0.0);
    }

    /// Records `scale mean(x) + offset`.
    pub fn put_scaled(&mut self, name: impl Into<String>, x: &Tensor, scale: f32, offset: f32) {
        self.0.push(Gauge { name: name.into(), values: x.detach(), scale, offset });
    }

    /// All of them together, to be read later.
    pub fn readings(self) -> Readings {
        let values = ops::means(&self.0.iter().map(|gauge| &gauge.values).collect::<Vec<_>>());
        Readings { values, labels: self.0.into_iter().map(|gauge| (gauge.name, gauge.scale, gauge.offset)).collect() }
    }

    /// The numbers by name, in the order in which they came. Waits for a GPU.
    pub fn read(self) -> Metrics {
        self.readings().read()
    }
}
