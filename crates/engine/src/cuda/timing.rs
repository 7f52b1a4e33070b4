//! Times of kernels: a recording may hold marks between its kernels, which say when they were passed.

use super::driver::Event;
use super::gpu::{Backend, Gpu};
use super::queue::{Command, Queue, Recording, lock};
use crate::profile::{self, Part};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What was passed when: on a real GPU by its own clock.
#[derive(Default)]
pub(super) struct Marks {
    marks: Mutex<Vec<Mark>>,
    /// On an emulated GPU.
    passed: Arc<Mutex<Vec<Instant>>>,
}

/// The end of a kernel, and with it the beginning of the next.
struct Mark {
    part: Part,
    kernel: &'static str,
    event: Option<Event>,
}

/// How long one kernel of a recording took.
#[derive(Clone, Copy, Debug)]
pub struct KernelTime {
    /// The part of the computation that it belongs to, where parts were measured while it was recorded (see
    /// [`profile::measure`]), and whether in its backward sweep.
    pub part: &'static str,
    pub backward: bool,
    pub kernel: &'static str,
    pub seconds: f64,
}

impl Gpu {
    /// Puts a mark into what `queue` records, after the kernel that was recorded last.
    pub(super) fn mark(&self, queue: &Queue, kernel: &'static str) {
        let Some(marks) = &queue.marks else { return };
        let event = match (&self.backend, &queue.stream) {
            (Backend::Cuda(cuda), Some(stream)) => Some(self.done(cuda.timed_mark(stream))),
            _ => {
                self.emulate(queue, Command::Mark(marks.passed.clone()));
                None
            }
        };
        lock(&marks.marks).push(Mark { part: profile::here(), kernel, event });
    }
}

impl Recording {
    /// Runs once, waits, and says how long each kernel took, copies before it included; empty unless it was recorded with
    /// marks.
    pub fn times(&self) -> Vec<KernelTime> {
        let queue = self.queue();
        let Some(marks) = &queue.marks else { return vec![] };
        lock(&marks.passed).clear();
        self.run();
        let gpu = queue.gpu();
        gpu.wait();
        let (all, passed) = (lock(&marks.marks), lock(&marks.passed));
        let seconds = |i: usize| match (&gpu.backend, &all[i - 1].event, &all[i].event) {
            (Backend::Cuda(cuda), Some(before), Some(after)) => gpu.done(cuda.seconds(before, after)),
            _ => (passed[i] - passed[i - 1]).as_secs_f64(),
        };
        let time = |i: usize| {
            let Mark { part, kernel, .. } = all[i];
            KernelTime { part: part.name(), backward: part.is_backward(), kernel, seconds: seconds(i) }
        };
        (1..all.len()).map(time).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::check::random;
    use crate::cuda::test_gpu;
    use crate::ops::{linear, multiply};
    use crate::profile::{self, part};
    use crate::tensor::Device;

    #[test]
    fn every_kernel_of_a_recording_has_its_time_and_part() {
        let Some(gpu) = test_gpu() else { return };
        let device = Device::Gpu(gpu);
        let [x, w] = [1, 2].map(|stream| random(&[3, 3], stream, 1.0).to(device));
        let b = random(&[3], 3, 1.0).to(device);
        let f = || {
            let y = part("layer", || linear(&x, &w, &b));
            part("square", || multiply(&y, &y))
        };
        let expected = f().host();
        let ((recording, y), _) = profile::measure(|| gpu.record_marked(f));
        let times = recording.times();
        assert_eq!(y.host().data(), expected.data());
        assert!(times.iter().all(|time| time.seconds > 0.0 && !time.backward), "{times:?}");
        let parts: Vec<&str> = times.iter().map(|time| time.part).collect();
        assert_eq!((parts.first(), parts.last()), (Some(&"layer"), Some(&"square")), "{times:?}");
        assert!(gpu.record(f).0.times().is_empty());
    }
}
