//! `Queue`: work that a GPU does in order, with the memory for it; `Recording`: work that was captured once, to be
//! repeated with one call.
//!
//! A thread's work goes to its GPU's main queue unless it is recorded or done aside (`side.rs`). A recording has its
//! own memory, which nothing else gets while it lives, as it uses the same addresses each time.

use super::driver;
use super::gpu::{Backend, Gpu};
use super::launch::Arguments;
use super::memory::MEMORY_CALLS;
use super::pool::Pool;
use super::team::{Exchange, Team};
use super::timing::{Between, Marks};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

pub(super) struct Queue {
    gpu: &'static Gpu,
    /// The driver's; none on an emulated GPU, which works immediately.
    pub stream: Option<driver::Stream>,
    /// Recorded commands of an emulated GPU; `None` if it works immediately.
    pub tape: Option<Mutex<Vec<Command>>>,
    pub recording: bool,
    /// Marks between kernels or parts, where they are to be timed.
    pub marks: Option<Marks>,
    /// Where the packing of weights is recorded, if not here.
    packs: Option<Arc<Queue>>,
    /// Counters for this queue's kernels, all zero between kernels.
    pub counters: u64,
    /// A training step reuses the memory of the step before.
    pool: Mutex<Pool>,
    /// How many calls of `sparing` are under way: free blocks then go back to the driver before it is asked for more.
    thrifty: AtomicUsize,
}

/// A command for an emulated GPU.
pub(super) enum Command {
    Launch {
        function: u64,
        blocks: [u32; 3],
        threads: u32,
        args: Arguments,
    },
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Clear {
        at: u64,
        bytes: usize,
    },
    /// Exchanges numbers with other GPUs.
    Exchange {
        team: Arc<Team>,
        rank: usize,
        exchange: Exchange,
    },
    /// Notes the time.
    Mark(Arc<Mutex<Vec<Instant>>>),
}

thread_local! {
    /// The queues that this thread's work goes to, instead of the main ones of their GPUs; the last one entered counts.
    static ENTERED: RefCell<Vec<Arc<Queue>>> = const { RefCell::new(Vec::new()) };
}

impl Queue {
    pub fn new(gpu: &'static Gpu, stream: Option<driver::Stream>) -> Result<Queue, String> {
        let counters = gpu.new_counters(stream.as_ref())?;
        let (tape, marks, packs, pool, thrifty) = Default::default();
        Ok(Queue { gpu, stream, tape, recording: false, marks, packs, counters, pool, thrifty })
    }

    /// The queue of `gpu` that this thread has entered.
    pub fn entered(gpu: &Gpu) -> Option<Arc<Queue>> {
        ENTERED.with_borrow(|entered| entered.iter().rev().find(|queue| queue.gpu == gpu).cloned())
    }

    /// Runs `f` with this thread's work for the queue's GPU going to this queue.
    pub fn during<T>(self: &Arc<Self>, f: impl FnOnce() -> T) -> T {
        ENTERED.with_borrow_mut(|entered| entered.push(self.clone()));
        let _entered = Entered;
        f()
    }

    /// Panics if it records, as copies from the processor cannot be recorded.
    pub fn expect_live(&self) {
        assert!(!self.recording, "a recording repeats what a GPU does, not what is copied to it");
    }

    pub fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    /// Takes memory of [rounded](Pool::rounded) size; work of its former users was queued before.
    pub fn take(&self, bytes: usize) -> u64 {
        let found = lock(&self.pool).take(bytes); // the lock must not be held where the driver has no more
        found.unwrap_or_else(|| {
            if self.thrifty.load(Ordering::Relaxed) > 0 {
                self.release();
            }
            self.fresh(bytes, Pool::block(bytes))
        })
    }

    /// Runs `f`, during which free blocks go back to the driver before it is asked for more. Also returns the most
    /// bytes that were taken at once, beyond those taken before; other threads on this queue count, too.
    fn sparing<T>(&self, f: impl FnOnce() -> T) -> (T, usize) {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let (before, _) = lock(&self.pool).used();
        self.thrifty.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(&self.thrifty);
        let result = f();
        drop(counted);
        (result, lock(&self.pool).used().1.saturating_sub(before))
    }

    /// Memory that nobody has used before: the beginning of a new block.
    pub fn fresh(&self, bytes: usize, block: usize) -> u64 {
        self.gpu.done(self.try_fresh(bytes, block))
    }

    /// The same; an Err says why there is none.
    pub fn try_fresh(&self, bytes: usize, block: usize) -> Result<u64, String> {
        let start = self.gpu.try_take(block)?;
        lock(&self.pool).add(start, block, bytes);
        Ok(start)
    }

    /// Takes `bytes` from the driver in one piece, for later; if it has no such piece, smaller ones will have to do.
    fn prepare(&self, bytes: usize) {
        if bytes > 0
            && let Ok(start) = self.gpu.try_take(bytes)
        {
            lock(&self.pool).prepare(start, bytes);
        }
    }

    pub fn put(&self, address: u64, bytes: usize) {
        lock(&self.pool).put(address, bytes);
    }

    /// Returns entirely unused blocks to the driver.
    pub fn release(&self) {
        let unused = lock(&self.pool).release();
        unused.into_iter().for_each(|(start, bytes)| self.gpu.free(start, bytes));
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.release(); // each piece of memory in use holds the queue, so there is none
        self.gpu.free_counters(self.counters);
        if let (Backend::Cuda(cuda), Some(stream)) = (&self.gpu.backend, self.stream.take()) {
            let _call = lock(&MEMORY_CALLS);
            cuda.close(stream);
        }
    }
}

/// Leaves the queue that its thread has entered when dropped.
struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.with_borrow_mut(|entered| entered.pop());
    }
}

/// Recorded work. Tensors that were made meanwhile keep their memory: those that are still held have new values after
/// each run.
pub struct Recording {
    work: Work,
    queue: Arc<Queue>,
}

enum Work {
    Cuda(driver::Graph),
    Emulated(Vec<Command>),
}

impl Gpu {
    /// Runs `f` with everything that it starts on this GPU recorded instead of executed. Its kernels and constants must
    /// have been used before, and it can neither read values nor copy to the GPU.
    pub fn record<T>(&'static self, f: impl FnOnce() -> T) -> (Recording, T) {
        self.record_with(None, 0, f)
    }

    /// [`record`](Gpu::record) with one block of `bytes` bytes, from which memory is taken as long as it lasts. If
    /// [`most_during`](Gpu::most_during) measured that size for the same work, everything fits nearly without gaps.
    pub fn record_within<T>(&'static self, bytes: usize, f: impl FnOnce() -> T) -> (Recording, T) {
        self.record_with(None, bytes, f)
    }

    /// [`record`](Gpu::record) with marks that tell how long each kernel or part takes ([`Recording::times`]).
    pub fn record_marked<T>(&'static self, between: Between, f: impl FnOnce() -> T) -> (Recording, T) {
        self.record_with(Some(Marks::new(between)), 0, f)
    }

    fn record_with<T>(&'static self, marks: Option<Marks>, bytes: usize, f: impl FnOnce() -> T) -> (Recording, T) {
        let queue = self.open_recording(marks, None);
        queue.prepare(bytes);
        let result = queue.during(f);
        (self.close_recording(queue), result)
    }

    /// Runs `f` with as little memory as possible, which is slow; also returns the most bytes taken at once, without
    /// pieces below a megabyte.
    pub fn most_during<T>(&self, f: impl FnOnce() -> T) -> (T, usize) {
        self.queue().sparing(f)
    }

    /// The same, measured by recording `f` on an emulated GPU; the recording is dropped, as its memory was freed
    /// meanwhile.
    pub fn most_of_recording<T>(&'static self, f: impl FnOnce() -> T) -> (T, usize) {
        assert!(self.is_emulated(), "a real GPU can do the work itself");
        let queue = self.open_recording(None, None);
        let result = queue.sparing(|| queue.during(f));
        drop(self.close_recording(queue.clone()));
        queue.release();
        result
    }

    /// [`record`](Gpu::record) as two recordings: the packing of weights, to be repeated when they have changed, and
    /// the rest. Packing takes over the free blocks of this thread's queue, such as those of weights that an eager run
    /// has packed; the recordings are to be run on that queue.
    pub fn record_apart<T>(&'static self, f: impl FnOnce() -> T) -> ([Recording; 2], T) {
        let packs = self.open_recording(None, None);
        lock(&self.queue().pool).hand_over(&mut lock(&packs.pool));
        let queue = self.open_recording(None, Some(packs.clone()));
        let result = queue.during(f);
        ([packs, queue].map(|queue| self.close_recording(queue)), result)
    }

    /// Runs `f`, which packs a weight, on the queue that records packing, if there is one.
    pub(crate) fn packing<T>(&self, f: impl FnOnce() -> T) -> T {
        match Queue::entered(self).and_then(|queue| queue.packs.clone()) {
            Some(packs) => packs.during(f),
            None => f(),
        }
    }

    fn open_recording(&'static self, marks: Option<Marks>, packs: Option<Arc<Queue>>) -> Arc<Queue> {
        let stream = self.new_stream(false); // a recording is as urgent as the queue that it is run on
        let tape = stream.is_none().then(Mutex::default);
        let mut queue = self.done(Queue::new(self, stream));
        (queue.tape, queue.recording, queue.marks, queue.packs) = (tape, true, marks, packs);
        let queue = Arc::new(queue);
        if let (Backend::Cuda(cuda), Some(stream)) = (&self.backend, &queue.stream) {
            self.done(cuda.begin_recording(stream));
        }
        self.mark_end(&queue);
        queue
    }

    fn close_recording(&'static self, queue: Arc<Queue>) -> Recording {
        self.mark_end(&queue);
        let work = match (&self.backend, &queue.stream, &queue.tape) {
            (Backend::Cuda(cuda), Some(stream), _) => {
                let _call = lock(&MEMORY_CALLS);
                Work::Cuda(self.done(cuda.end_recording(stream)))
            }
            (_, _, Some(tape)) => Work::Emulated(std::mem::take(&mut *lock(tape))),
            _ => unreachable!("a recording has a stream or a tape"),
        };
        Recording { work, queue }
    }
}

impl Recording {
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Queues the recorded work again.
    pub fn run(&self) {
        let gpu = self.queue.gpu;
        match (&self.work, &gpu.backend) {
            (Work::Cuda(graph), Backend::Cuda(cuda)) => gpu.done(cuda.run(graph, gpu.queue().stream())),
            (Work::Emulated(commands), _) => commands.iter().for_each(|command| gpu.obey(command)),
            _ => unreachable!("a recording is of its GPU's kind"),
        }
    }

    /// The kernels that a run launches; known on an emulated GPU only.
    pub fn launches(&self) -> Option<usize> {
        match &self.work {
            Work::Cuda(_) => None,
            Work::Emulated(commands) => {
                Some(commands.iter().filter(|command| matches!(command, Command::Launch { .. })).count())
            }
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let (Work::Cuda(graph), Backend::Cuda(cuda)) = (&self.work, &self.queue.gpu.backend) {
            let _call = lock(&MEMORY_CALLS);
            cuda.forget(graph);
        }
    }
}

impl Queue {
    /// The driver's stream of a queue that has one.
    pub fn stream(&self) -> &driver::Stream {
        self.stream.as_ref().expect("queues of a real GPU have a stream")
    }
}

impl Gpu {
    /// Executes a command of an emulated GPU, now or from a recording.
    pub(super) fn obey(&self, command: &Command) {
        let Backend::Emulator(emulator) = &self.backend else { unreachable!("commands are for emulated GPUs") };
        // SAFETY: addresses and sizes were checked when the command was made, and their memory is held by tensors or by
        // the recording.
        unsafe {
            match command {
                Command::Launch { function, blocks, threads, args } => {
                    emulator.launch(*function, *blocks, *threads, &mut args.clone().pointers());
                }
                Command::Copy { from, to, bytes } => std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes),
                Command::Exchange { team, rank, exchange } => self.done(team.exchange(*rank, exchange)),
                Command::Mark(passed) => lock(passed).push(Instant::now()),
                Command::Clear { at, bytes } => std::ptr::write_bytes(*at as *mut u8, 0, *bytes),
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use crate::check::random;
    use crate::cuda::test_gpu;
    use crate::ops::{linear, multiply};
    use crate::tensor::{Device, Tensor};

    #[test]
    fn a_recording_repeats_with_new_inputs_in_the_same_places() {
        let Some(gpu) = test_gpu() else { return };
        let device = Device::Gpu(gpu);
        let x = random(&[4, 3], 1, 1.0).to(device);
        let (w, b) = (random(&[3, 5], 2, 1.0).to(device), random(&[5], 3, 1.0).to(device));
        let f = |x: &Tensor| {
            let y = linear(x, &w, &b);
            multiply(&y, &y)
        };
        let before = f(&x).host(); // loads the kernels
        let (recording, y) = gpu.record(|| f(&x));
        let other = random(&[4, 3], 7, 1.0);
        gpu.upload(bytemuck::cast_slice(other.data()), x.address(), 4 * x.len());
        let expected = f(&x).host();
        assert_ne!(before.data(), expected.data());
        recording.run();
        assert_eq!(y.host().data(), expected.data());
        // What was freed on the way is nobody else's.
        let others: Vec<Tensor> = (0..8).map(|_| Tensor::full(&[4, 5], 9.0).to(device)).collect();
        recording.run();
        assert_eq!(y.host().data(), expected.data());
        assert!(others.iter().all(|x| x.host().data().iter().all(|&v| v == 9.0)));
    }
}
