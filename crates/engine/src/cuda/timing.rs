//! Times of kernels, and of parts of a computation: a recording may hold marks between them, which say when they were passed.

use super::driver::Event;
use super::gpu::{Backend, Gpu};
use super::queue::{Command, Queue, Recording, lock};
use crate::profile::{self, Part};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Where marks are put.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Between {
    /// After every kernel. Then each starts when the one before has ended, and the whole takes up to twice the time.
    Kernels,
    /// Where another part of the computation begins (see [`profile::part`]).
    Parts,
}

/// The marks of a recording and when they were passed, on a real GPU by its own clock.
pub(super) struct Marks {
    pub between: Between,
    marks: Mutex<Vec<Mark>>,
    /// The part of the kernel that was recorded last, and the bytes that were moved since the last mark.
    part: Mutex<Option<Part>>,
    bytes: Mutex<usize>,
    /// The times of marks, on an emulated GPU.
    passed: Arc<Mutex<Vec<Instant>>>,
}

/// The end of a kernel, or of a part, and with it the beginning of the next.
struct Mark {
    part: Part,
    kernel: &'static str,
    bytes: usize,
    event: Option<Event>,
}

/// The time of one kernel of a recording, or of an uninterrupted stretch of one part.
#[derive(Clone, Copy, Debug)]
pub struct KernelTime {
    /// The part of the computation that it belongs to, where parts were measured while it was recorded (see
    /// [`profile::measure`]), and whether in its backward sweep.
    pub part: &'static str,
    pub backward: bool,
    /// Empty where parts are timed.
    pub kernel: &'static str,
    /// Of memory that kernels and copies read or wrote, each kernel's operands counted once.
    pub bytes: usize,
    pub seconds: f64,
}

impl Marks {
    pub fn new(between: Between) -> Marks {
        let (marks, part, bytes, passed) = Default::default();
        Marks { between, marks, part, bytes, passed }
    }
}

impl Gpu {
    /// Counts bytes that the work recorded next reads and writes.
    pub(super) fn count_bytes(&self, queue: &Queue, bytes: impl FnOnce() -> usize) {
        if let Some(marks) = &queue.marks {
            *lock(&marks.bytes) += bytes();
        }
    }

    /// Called before a kernel is recorded: ends the previous part if the kernel belongs to another.
    pub(super) fn mark_part(&self, queue: &Queue) {
        let Some(marks) = queue.marks.as_ref().filter(|marks| marks.between == Between::Parts) else { return };
        let before = lock(&marks.part).replace(profile::here()).filter(|&part| part != profile::here());
        before.into_iter().for_each(|part| self.mark(queue, marks, part, ""));
    }

    /// Called after a kernel was recorded.
    pub(super) fn mark_kernel(&self, queue: &Queue, kernel: &'static str) {
        if let Some(marks) = queue.marks.as_ref().filter(|marks| marks.between == Between::Kernels) {
            self.mark(queue, marks, profile::here(), kernel);
        }
    }

    /// Called at the beginning of a recording, and at its end.
    pub(super) fn mark_end(&self, queue: &Queue) {
        if let Some(marks) = &queue.marks {
            let part = lock(&marks.part).unwrap_or(profile::here());
            self.mark(queue, marks, part, "");
        }
    }

    fn mark(&self, queue: &Queue, marks: &Marks, part: Part, kernel: &'static str) {
        let event = match (&self.backend, &queue.stream) {
            (Backend::Cuda(cuda), Some(stream)) => Some(self.done(cuda.timed_mark(stream))),
            _ => {
                self.emulate(queue, Command::Mark(marks.passed.clone()));
                None
            }
        };
        let bytes = std::mem::take(&mut *lock(&marks.bytes));
        lock(&marks.marks).push(Mark { part, kernel, bytes, event });
    }
}

impl Recording {
    /// Runs once, waits, and says how long each kernel or part took; empty unless it was recorded with marks. A copy counts
    /// for the kernel after it, and for the part before it.
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
            let Mark { part, kernel, bytes, .. } = all[i];
            KernelTime { part: part.name(), backward: part.is_backward(), kernel, bytes, seconds: seconds(i) }
        };
        let last = if marks.between == Between::Kernels { all.len() - 1 } else { all.len() };
        (1..last).map(time).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::KernelTime;
    use crate::check::random;
    use crate::cuda::{Between, test_gpu};
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
        let ((recording, y), _) = profile::measure(|| gpu.record_marked(Between::Kernels, f));
        let times = recording.times();
        assert_eq!(y.host().data(), expected.data());
        assert!(times.iter().all(|time| time.seconds > 0.0 && !time.backward), "{times:?}");
        let parts: Vec<&str> = times.iter().map(|time| time.part).collect();
        assert_eq!((parts.first(), parts.last()), (Some(&"layer"), Some(&"square")), "{times:?}");
        // A square reads its factor twice and writes as much, 36 bytes each.
        assert_eq!(times.last().map(|time| time.bytes), Some(3 * 36), "{times:?}");
        let parts = profile::measure(|| gpu.record_marked(Between::Parts, f)).0.0.times();
        assert_eq!(parts.iter().map(|time| time.part).collect::<Vec<_>>(), ["layer", "square"]);
        let bytes = |times: &[KernelTime]| times.iter().map(|time| time.bytes).sum::<usize>();
        assert_eq!(bytes(&parts), bytes(&times));
        assert!(gpu.record(f).0.times().is_empty());
    }
}
