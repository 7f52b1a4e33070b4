//! `Gpu`: memory and kernel launches, on a GPU or on its emulation; the one thing that operations use.

use super::driver::{Cuda, Driver, Event, Properties, Stream};
use super::emulator::Emulator;
use super::launch::{Arg, Arguments, Grid, Meeting, at_once};
use super::loading::LoadedKernels;
use super::memory::{MEMORY_CALLS, Memory, Pinned};
use super::pool::Pool;
use super::queue::{Command, Queue, lock};
use super::side::Side;
use super::timing::Between;
use super::upload::Buffers;
use crate::tensor::{Dtype, Tensor};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// An open GPU. Lives as long as the process, so that tensors can refer to it.
pub struct Gpu {
    properties: Properties,
    precision: Precision,
    /// How the recurrence's thread blocks wait for each other.
    meeting: Meeting,
    pub(super) backend: Backend,
    /// The queue for work of threads that have not entered another one.
    main: OnceLock<Arc<Queue>>,
    pub(super) loaded: LoadedKernels,
    constants: Mutex<Vec<(Vec<f32>, Tensor)>>,
    /// Buffers of earlier uploads, to be reused.
    pub(super) uploads: Mutex<Vec<Buffers>>,
    /// Bytes that are held, free ones included, and the most since that was last asked.
    held: AtomicUsize,
    most: AtomicUsize,
    /// How often the driver was asked for memory.
    allocations: AtomicUsize,
    /// Queues beside the main one, and events to order them by.
    pub(super) sides: [OnceLock<Arc<Queue>>; Side::COUNT],
    pub(super) events: Mutex<Vec<Event>>,
}

/// How matrix products and convolutions are computed. Losses, statistics and weights are float32 always.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// On CUDA cores.
    #[default]
    Float32,
    /// On tensor cores: factors are rounded to bfloat16, sums are float32. Activations are kept in bfloat16.
    Bfloat16,
}

/// Counters of each queue.
const COUNTERS: usize = 1 << 16;

pub(super) enum Backend {
    Cuda(Cuda),
    Emulator(Emulator),
}

impl Gpu {
    /// Opens GPU number `index` of the driver.
    pub fn open(driver: Arc<Driver>, index: usize, precision: Precision) -> Result<&'static Gpu, String> {
        let all = driver.devices()?;
        let Some(properties) = all.get(index) else {
            return Err(format!("there is no GPU number {index}: the driver shows {}, counted from 0", all.len()));
        };
        if properties.is_too_old() {
            let (name, major, minor) = (&properties.name, properties.arch / 10, properties.arch % 10);
            return Err(format!(
                "GPU {index} ({name}) has compute capability {major}.{minor}, and kernels need 8.0 (Ampere) at least; compute with --device cpu"
            ));
        }
        let meeting = Meeting::wanted()?;
        let cuda = Cuda::open(driver, index)?;
        let stream = cuda.stream(false)?;
        Gpu::leak(properties.clone(), precision, meeting, Backend::Cuda(cuda), Some(stream))
    }

    /// A GPU emulated by the processor, for tests.
    pub fn emulated(precision: Precision) -> Result<&'static Gpu, String> {
        let properties =
            Properties { index: 0, name: "emulated GPU".into(), arch: 0, multiprocessors: 32, memory: 1 << 30 };
        Gpu::leak(properties, precision, Meeting::wanted()?, Backend::Emulator(Emulator::open()?), None)
    }

    fn leak(
        properties: Properties,
        precision: Precision,
        meeting: Meeting,
        backend: Backend,
        stream: Option<Stream>,
    ) -> Result<&'static Gpu, String> {
        let (main, loaded, constants, uploads) = Default::default();
        let (sides, events, held, most, allocations) = Default::default();
        let gpu = Gpu {
            properties,
            precision,
            meeting,
            backend,
            main,
            loaded,
            constants,
            uploads,
            sides,
            events,
            held,
            most,
            allocations,
        };
        let gpu: &Gpu = Box::leak(Box::new(gpu));
        let main = Queue::new(gpu, stream)?;
        gpu.main.get_or_init(|| Arc::new(main));
        Ok(gpu)
    }

    /// A stream of its own for a queue, urgent or not; none on an emulated GPU.
    pub(super) fn new_stream(&self, urgent: bool) -> Option<Stream> {
        let Backend::Cuda(cuda) = &self.backend else { return None };
        let _call = lock(&MEMORY_CALLS);
        Some(self.done(cuda.stream(urgent)))
    }

    /// The queue that this thread's work goes to.
    pub(super) fn queue(&self) -> Arc<Queue> {
        Queue::entered(self).unwrap_or_else(|| self.main())
    }

    pub(super) fn main(&self) -> Arc<Queue> {
        self.main.get().expect("made when the GPU was opened").clone()
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether the processor stands in for it.
    pub fn is_emulated(&self) -> bool {
        matches!(self.backend, Backend::Emulator(_))
    }

    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// How the recurrence's thread blocks wait for each other.
    pub(crate) fn meeting(&self) -> Meeting {
        self.meeting
    }

    /// Memory for `len` numbers, holding whatever a former owner left there.
    pub(crate) fn stale(&'static self, len: usize, dtype: Dtype) -> Memory {
        let (bytes, queue) = (Pool::rounded(len * dtype.bytes()), self.queue());
        let address = queue.take(bytes);
        Memory::new(queue, address, bytes)
    }

    /// Memory from the driver; an Err says why there is none.
    pub(super) fn try_take(&self, bytes: usize) -> Result<u64, String> {
        let address = match &self.backend {
            Backend::Cuda(cuda) => {
                let alloc = || {
                    let _call = lock(&MEMORY_CALLS);
                    cuda.alloc(bytes)
                };
                // Other queues may have free memory.
                alloc().or_else(|_| {
                    self.release_pool();
                    alloc()
                })?
            }
            Backend::Emulator(_) => Box::leak(vec![u64::MAX; bytes / 8].into_boxed_slice()).as_ptr() as u64,
        };
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(held, Ordering::Relaxed);
        self.allocations.fetch_add(1, Ordering::Relaxed);
        Ok(address)
    }

    /// How often the driver was asked for memory so far.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
    }

    /// The most bytes of its memory that were held at the same time, since this was last asked.
    pub fn most_memory(&self) -> usize {
        self.most.swap(self.held.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    /// Returns unused memory to the driver.
    pub(super) fn free(&self, address: u64, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        // SAFETY: it came from `try_take` with this size, belongs to nobody, and what was started with it has been waited for.
        unsafe {
            match &self.backend {
                // Errors are ignored: after a failure, which was reported, this fails too, possibly while that unwinds.
                Backend::Cuda(cuda) => {
                    // Drivers are known to wait here themselves, but do not guarantee it.
                    self.queues().for_each(|queue| drop(cuda.wait(queue.stream())));
                    let _call = lock(&MEMORY_CALLS);
                    drop(cuda.free(address));
                }
                Backend::Emulator(_) => {
                    drop(Vec::from_raw_parts(address as *mut u64, bytes / 8, bytes / 8));
                }
            }
        }
    }

    /// Returns entirely unused blocks of memory to the driver, for instance between agents of different sizes.
    pub fn release_pool(&self) {
        self.queues().for_each(|queue| queue.release());
    }

    /// All queues that work runs on; recordings run on one of them.
    fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.main.get().into_iter().chain(self.sides.iter().flat_map(OnceLock::get))
    }

    /// Pinned host memory of zeros, for asynchronous copies to and from this GPU.
    pub fn pinned(&'static self, len: usize) -> Pinned {
        let _call = lock(&MEMORY_CALLS);
        let start = match &self.backend {
            Backend::Cuda(cuda) => self.done(cuda.pin(len.max(1))),
            Backend::Emulator(_) => Box::leak(vec![0u8; len].into_boxed_slice()).as_mut_ptr(),
        };
        // SAFETY: `len` bytes from `start` on are nobody else's.
        unsafe { std::ptr::write_bytes(start, 0, len) };
        Pinned::new(self, start, len)
    }

    pub(super) fn unpin(&self, start: *mut u8, len: usize) {
        let _call = lock(&MEMORY_CALLS);
        // SAFETY: it came from `pinned` with this length, and its owner ends.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => cuda.unpin(start),
                Backend::Emulator(_) => drop(Vec::from_raw_parts(start, len, len)),
            }
        }
    }

    /// The type of activations: outputs of layers, and their gradients (`act` in the kernels).
    pub(crate) fn activations(&self) -> Dtype {
        match self.precision {
            Precision::Float32 => Dtype::F32,
            Precision::Bfloat16 => Dtype::Bf16,
        }
    }

    /// An uninitialised float32 tensor, for outputs that are written completely.
    pub(crate) fn empty(&'static self, shape: &[usize]) -> Tensor {
        self.empty_as(shape, Dtype::F32)
    }

    /// The same for activations.
    pub(crate) fn empty_act(&'static self, shape: &[usize]) -> Tensor {
        self.empty_as(shape, self.activations())
    }

    pub(crate) fn empty_as(&'static self, shape: &[usize], dtype: Dtype) -> Tensor {
        Tensor::on_gpu(shape, dtype, self.stale(shape.iter().product(), dtype))
    }

    pub(crate) fn zeros(&'static self, shape: &[usize]) -> Tensor {
        self.cleared(self.empty(shape))
    }

    pub(crate) fn zeros_act(&'static self, shape: &[usize]) -> Tensor {
        self.cleared(self.empty_act(shape))
    }

    fn cleared(&self, x: Tensor) -> Tensor {
        let (at, bytes, queue) = (x.address(), x.len() * x.dtype().bytes(), self.queue());
        match &self.backend {
            // SAFETY: the tensor's memory holds as many bytes.
            Backend::Cuda(cuda) => self.done(unsafe { cuda.zero(at, bytes, queue.stream()) }),
            Backend::Emulator(_) => self.emulate(&queue, Command::Clear { at, bytes }),
        }
        x
    }

    /// `x` in the type of activations; converted only if it has another.
    pub(crate) fn act(&'static self, x: &Tensor) -> Tensor {
        self.cast(x, self.activations())
    }

    /// `x` as float32.
    pub(crate) fn full(&'static self, x: &Tensor) -> Tensor {
        self.cast(x, Dtype::F32)
    }

    /// The same values in another type, detached from the graph.
    pub(crate) fn cast(&'static self, x: &Tensor, dtype: Dtype) -> Tensor {
        let kernel = match (x.dtype(), dtype) {
            (Dtype::F32, Dtype::Bf16) => "to_bf16",
            (Dtype::Bf16, Dtype::F32) => "to_f32",
            _ => return x.detach(),
        };
        let y = self.empty_as(x.shape(), dtype);
        let each = if at_once(x.len(), &[x, &y]) == 8 { 8 } else { 1 };
        self.launch("copies", kernel, Grid::elements(x.len() / each), &[x, &x.len(), &each, &y]);
        y
    }

    /// Bytes as a tensor that kernels read bytes from.
    pub(crate) fn bytes(&'static self, bytes: &[u8]) -> Tensor {
        let memory = self.stale(bytes.len().div_ceil(4), Dtype::F32);
        self.upload(bytes, memory.address(), memory.bytes());
        Tensor::on_gpu(&[bytes.len().div_ceil(4)], Dtype::F32, memory)
    }

    /// Constants of operations, such as bins: copied at first use, which waits, so that every queue can read them.
    pub(crate) fn constant(&'static self, values: &[f32]) -> Tensor {
        let mut constants = lock(&self.constants);
        if let Some((_, tensor)) = constants.iter().find(|(known, _)| known == values) {
            return tensor.clone();
        }
        let tensor = Tensor::on_gpu(&[values.len()], Dtype::F32, Memory::from_slice(self, values));
        self.wait();
        constants.push((values.to_vec(), tensor.clone()));
        tensor
    }

    /// `len` 32-bit counters, all zero: kernels count the thread blocks that are done with them (`last_to_arrive`), and
    /// reset them for the next kernel of the same queue.
    pub(crate) fn counters(&self, len: usize) -> u64 {
        assert!(len <= COUNTERS, "{len} counters");
        self.queue().counters
    }

    /// Memory for counters, which is zero when this returns.
    pub(super) fn new_counters(&self, stream: Option<&Stream>) -> Result<u64, String> {
        let (at, bytes) = (self.try_take(4 * COUNTERS)?, 4 * COUNTERS);
        match (&self.backend, stream) {
            (Backend::Cuda(cuda), Some(stream)) => {
                // SAFETY: it was just taken, with as many bytes.
                unsafe { cuda.zero(at, bytes, stream) }?;
                cuda.wait(stream)?;
            }
            // SAFETY: as above.
            _ => unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) },
        }
        Ok(at)
    }

    pub(super) fn free_counters(&self, at: u64) {
        self.free(at, 4 * COUNTERS);
    }

    /// Copies `bytes` to `to`, where there is room for `room` bytes.
    pub(crate) fn upload(&self, bytes: &[u8], to: u64, room: usize) {
        assert!(bytes.len() <= room, "{} bytes into {room}", bytes.len());
        let queue = self.queue();
        queue.expect_live();
        // SAFETY: there is room, as was just checked.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => self.done(cuda.upload(bytes, to, queue.stream())),
                Backend::Emulator(_) => std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()),
            }
        }
    }

    /// Waits for what was started and copies a tensor's values to the processor.
    pub(crate) fn download(&self, x: &Tensor, to: &mut [f32]) {
        assert_eq!(x.len(), to.len());
        match x.dtype() {
            Dtype::F32 => self.download_bytes(x, bytemuck::cast_slice_mut(to)),
            Dtype::Bf16 => {
                let mut halves = vec![0u16; to.len()];
                self.download_bytes(x, bytemuck::cast_slice_mut(&mut halves));
                to.iter_mut().zip(&halves).for_each(|(x, &half)| *x = f32::from_bits((half as u32) << 16));
            }
        }
    }

    /// The bytes of a tensor's numbers, from its first one on. Waits for what was started.
    pub(crate) fn download_bytes(&self, x: &Tensor, bytes: &mut [u8]) {
        assert!(bytes.len() <= x.len() * x.dtype().bytes());
        let queue = self.queue();
        assert!(!queue.recording, "what is recorded has no values yet");
        // SAFETY: the tensor's memory holds as many bytes, as was just checked.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => self.done(cuda.download(x.address(), bytes, queue.stream())),
                Backend::Emulator(_) => {
                    std::ptr::copy_nonoverlapping(x.address() as *const u8, bytes.as_mut_ptr(), bytes.len());
                }
            }
        }
    }

    /// Copies `from` over the values of `to`, which are of the same type, from element `at` on.
    pub(crate) fn copy(&self, from: &Tensor, to: &Tensor, at: usize) {
        assert!(at + from.len() <= to.len() && from.dtype() == to.dtype());
        let each = to.dtype().bytes();
        let (source, target, bytes) = (from.address(), to.address() + (each * at) as u64, each * from.len());
        let queue = self.queue();
        self.count_bytes(&queue, || 2 * bytes);
        match &self.backend {
            // SAFETY: both tensors' memory holds as many bytes, by the check above.
            Backend::Cuda(cuda) => self.done(unsafe { cuda.copy(source, target, bytes, queue.stream()) }),
            Backend::Emulator(_) => self.emulate(&queue, Command::Copy { from: source, to: target, bytes }),
        }
    }

    /// Executes a command of an emulated GPU, or stores it if `queue` records.
    pub(super) fn emulate(&self, queue: &Queue, command: Command) {
        match &queue.tape {
            Some(tape) => lock(tape).push(command),
            None => self.obey(&command),
        }
    }

    /// Launches the kernel `name` of the file `module` with `args`; launches run in the order of calls.
    ///
    /// Arguments must match the kernel's parameters: the compiler cannot check that here.
    pub(crate) fn launch(&self, module: &'static str, name: &'static str, grid: Grid, args: &[&dyn Arg]) {
        if grid.blocks.contains(&0) {
            return; // nothing to do, which the driver would refuse
        }
        let function = self.function(module, name, grid.shared);
        let queue = self.queue();
        self.mark_part(&queue);
        self.count_bytes(&queue, || args.iter().map(|arg| arg.bytes()).sum());
        let mut args = Arguments::new(args);
        match &self.backend {
            Backend::Cuda(cuda) => {
                let (stream, mut args) = (queue.stream(), args.pointers());
                // SAFETY: operations hand in what their kernels take, which their tests check on every device. Every
                // kernel itself waits for the one before it; with marks in between there is nothing to overlap with.
                let overlaps = queue.marks.as_ref().is_none_or(|marks| marks.between == Between::Parts);
                let started = unsafe { cuda.launch(function, grid, overlaps, stream, &mut args) };
                self.done(started.map_err(|error| format!("{error} (kernel {name} of {module}.cu)")));
            }
            Backend::Emulator(_) => {
                let Grid { blocks, threads, .. } = grid;
                self.emulate(&queue, Command::Launch { function, blocks, threads, args });
            }
        }
        self.mark_kernel(&queue, name);
    }

    /// Waits for all work of this thread's queue.
    pub fn wait(&self) {
        if let Backend::Cuda(cuda) = &self.backend {
            self.done(cuda.wait(self.queue().stream()));
        }
    }

    /// The result of a call; panics on a failure, after which a GPU cannot go on.
    pub(super) fn done<T>(&self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|error| panic!("GPU {} ({}): {error}", self.properties.index, self.properties.name))
    }
}

/// GPUs are compared by identity.
impl PartialEq for Gpu {
    fn eq(&self, other: &Gpu) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GPU {} ({})", self.properties.index, self.properties.name)
    }
}
