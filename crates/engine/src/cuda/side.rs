//! Work beside a GPU's main queue, which goes on meanwhile: acting, sending batches, and fetching an update's results.
//!
//! Queues are not ordered among themselves. Before one reads what another wrote, put a [`Point`] between them; before a
//! tensor is dropped that another queue has read, wait for that queue.

use super::driver::Event;
use super::gpu::{Backend, Gpu};
use super::queue::{Queue, lock};
use std::sync::Arc;

/// The queues beside the main one; each GPU has one of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Acting, with its own copy of the parameters. Environments wait for it, so it takes priority over other work.
    Act,
    /// Copies of results to the processor.
    Fetch,
    /// Copies of batches from the processor.
    Send,
}

impl Side {
    pub(super) const COUNT: usize = 3;
}

/// A point in a queue's work.
pub struct Point {
    gpu: &'static Gpu,
    /// None on an emulated GPU, which works immediately.
    event: Option<Event>,
}

impl Gpu {
    /// Runs `f` with this thread's work going to the queue `side`.
    pub fn aside<T>(&'static self, side: Side, f: impl FnOnce() -> T) -> T {
        let new = || Arc::new(self.done(Queue::new(self, self.new_stream(side == Side::Act))));
        let queue = self.sides[side as usize].get_or_init(new);
        queue.during(f)
    }

    /// The point after all work queued by this thread's queue so far.
    pub fn point(&'static self) -> Point {
        let event = match &self.backend {
            Backend::Cuda(cuda) => {
                let free = lock(&self.events).pop();
                let event = free.unwrap_or_else(|| self.done(cuda.event()));
                self.done(cuda.record(&event, self.queue().stream()));
                Some(event)
            }
            Backend::Emulator(_) => None,
        };
        Point { gpu: self, event }
    }
}

impl Point {
    /// Makes later work of this thread's queue wait for this point.
    pub fn precede(&self) {
        if let (Backend::Cuda(cuda), Some(event)) = (&self.gpu.backend, &self.event) {
            self.gpu.done(cuda.after(event, self.gpu.queue().stream()));
        }
    }

    /// Waits until it is reached.
    pub fn wait(&self) {
        self.gpu.done(self.reached());
    }

    /// The same without a panic, for callers that go on after a failure, which is reported elsewhere.
    pub(super) fn reached(&self) -> Result<(), String> {
        match (&self.gpu.backend, &self.event) {
            (Backend::Cuda(cuda), Some(event)) => cuda.wait_for(event),
            _ => Ok(()),
        }
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        // The event can be reused: queues that were told to wait still wait for this point.
        self.event.take().into_iter().for_each(|event| lock(&self.gpu.events).push(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;
    use crate::cuda::test_gpu;
    use crate::ops::multiply;
    use crate::tensor::Device;

    #[test]
    fn queues_hand_tensors_to_each_other_in_order() {
        let Some(gpu) = test_gpu() else { return };
        let x = random(&[64, 33], 1, 1.0);
        let expected = multiply(&multiply(&x, &x), &x);
        let x = x.to(Device::Gpu(gpu));
        let square = multiply(&x, &x);
        let squared = gpu.point();
        let (cube, cubed) = gpu.aside(Side::Act, || {
            squared.precede();
            (multiply(&square, &x), gpu.point())
        });
        let fetched = gpu.aside(Side::Fetch, || {
            cubed.precede();
            cube.host()
        });
        assert_eq!(fetched.data(), expected.data());
        // Each queue has memory and counters of its own.
        let counters = |side| gpu.aside(side, || gpu.counters(1));
        assert!(counters(Side::Act) != counters(Side::Fetch) && counters(Side::Act) != gpu.counters(1));
    }
}
