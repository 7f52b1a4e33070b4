//! `Cuda`: one GPU used through the driver, with its streams, events, recordings and kernels.

use super::{Driver, Handle, LaunchAttribute, LaunchConfig, Status};
use crate::cuda::launch::{Grid, Meeting};
use std::ffi::{CString, c_int, c_uint, c_void};
use std::sync::Arc;

/// Attributes of functions, by their numbers in cuda.h.
const MAX_DYNAMIC_SHARED: c_int = 8;
const LARGE_CLUSTERS: c_int = 14; // CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
/// Up to this many bytes, a copy from pageable memory has read its source when the call returns (documented for host to
/// device).
const TAKEN_AT_ONCE: usize = 64 << 10;
/// A stream that does not synchronise with the default stream.
const NON_BLOCKING: c_uint = 1;
/// The priority of an urgent stream: lower numbers go first, and the driver clamps this to the lowest that the GPU has.
const URGENT: c_int = -100;
/// An event without a timestamp, which is cheaper.
const NO_TIMING: c_uint = 2;
/// An event in a graph that is recorded anew at each run, for use outside the graph.
const EXTERNAL: c_uint = 1;
/// A capture during which every thread, this one included, may call the driver, as for memory.
const CAPTURE_RELAXED: c_int = 2;

/// Attributes of launches: all blocks run at the same time (cooperative); the size of a cluster; and the kernel may
/// start before the previous one on the stream has ended (programmatic dependent launch), as it waits for that one's
/// results itself.
const COOPERATIVE: c_int = 2; // CU_LAUNCH_ATTRIBUTE_COOPERATIVE
const CLUSTER: c_int = 4; // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
const OVERLAPS: c_int = 6; // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
/// The first version of CUDA that captures the last of these in graphs, and the first architecture that supports it.
const OVERLAPPING: ((i32, i32), u32) = ((12, 3), 90);

/// One GPU with its context.
pub struct Cuda {
    driver: Arc<Driver>,
    context: Handle,
    /// Whether programmatic dependent launch is available.
    overlapping: bool,
}

/// A CUDA stream: work that a GPU does in order.
pub struct Stream(Handle);

// SAFETY: as below.
unsafe impl Send for Stream {}
unsafe impl Sync for Stream {}

impl Stream {
    /// The raw handle, for other libraries.
    pub fn handle(&self) -> *mut c_void {
        self.0
    }
}

/// A point in a stream's work.
pub struct Event(Handle);

// SAFETY: as below.
unsafe impl Send for Event {}
unsafe impl Sync for Event {}

/// Work that was captured from a stream, ready to be started.
pub struct Graph(Handle);

// SAFETY: as below.
unsafe impl Send for Graph {}
unsafe impl Sync for Graph {}

// SAFETY: the driver's handles may be used from any thread; each call sets the context for its own.
unsafe impl Send for Cuda {}
unsafe impl Sync for Cuda {}

impl Cuda {
    pub fn open(driver: Arc<Driver>, index: usize) -> Result<Cuda, String> {
        let device = driver.device(index)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle.
        driver.check(unsafe { (driver.context_retain)(&mut context, device) }, "opening a context")?;
        let overlapping = driver.version() >= OVERLAPPING.0 && driver.properties(index)?.arch >= OVERLAPPING.1;
        Ok(Cuda { driver, context, overlapping })
    }

    /// The version of CUDA that its driver supports.
    pub fn version(&self) -> (i32, i32) {
        self.driver.version()
    }

    /// Makes this GPU's context current, for libraries that this thread calls.
    pub fn enter(&self) -> Result<(), String> {
        self.call("choosing a context", |_| 0)
    }

    /// Creates a stream; waiting thread blocks of an urgent one start before those of other streams.
    pub fn stream(&self, urgent: bool) -> Result<Stream, String> {
        let (mut stream, priority) = (std::ptr::null_mut(), if urgent { URGENT } else { 0 });
        // SAFETY: the pointer is valid for one handle.
        self.call("making a stream", |d| unsafe { (d.stream_create)(&mut stream, NON_BLOCKING, priority) })?;
        Ok(Stream(stream))
    }

    /// Destroys a stream, which still finishes its work.
    pub fn close(&self, stream: Stream) {
        // SAFETY: nobody else has the handle. Errors are ignored, as nothing depends on the stream any more.
        let _ = self.call("closing a stream", |d| unsafe { (d.stream_destroy)(stream.0) });
    }

    /// From here on, work queued on `stream` is captured instead of executed.
    pub fn begin_recording(&self, stream: &Stream) -> Result<(), String> {
        // SAFETY: the stream is open.
        self.call("beginning a recording", |d| unsafe { (d.capture_begin)(stream.0, CAPTURE_RELAXED) })
    }

    pub fn end_recording(&self, stream: &Stream) -> Result<Graph, String> {
        let (mut graph, mut ready) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: pointers are valid for one handle each; a graph is destroyed once, after what is made of it.
        unsafe {
            self.call("ending a recording", |d| (d.capture_end)(stream.0, &mut graph))?;
            let made = self.call("preparing a recording", |d| (d.graph_instantiate)(&mut ready, graph, 0));
            self.call("closing a recording", |d| (d.graph_destroy)(graph))?;
            made?;
            // Otherwise the first run would do this upload. The stream has no other work by now.
            self.call("preparing a recording", |d| (d.graph_upload)(ready, stream.0))?;
        }
        self.wait(stream)?;
        Ok(Graph(ready))
    }

    pub fn run(&self, graph: &Graph, stream: &Stream) -> Result<(), String> {
        // SAFETY: both are open, and the recording's owner keeps the memory that it uses.
        self.call("starting a recording", |d| unsafe { (d.graph_launch)(graph.0, stream.0) })
    }

    /// Destroys a recording.
    pub fn forget(&self, graph: &Graph) {
        // SAFETY: called once, when its owner is dropped. The driver keeps what a run in progress needs, and
        // `Gpu::free` waits for the queues before that run's memory can go to others.
        let _ = self.call("closing a recording", |d| unsafe { (d.graph_exec_destroy)(graph.0) });
    }

    /// Creates an event, which lives as long as the process.
    pub fn event(&self) -> Result<Event, String> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle.
        self.call("making an event", |d| unsafe { (d.event_create)(&mut event, NO_TIMING) })?;
        Ok(Event(event))
    }

    /// Adds an event with a timestamp to what `stream` captures; it lives as long as the process.
    pub fn timed_mark(&self, stream: &Stream) -> Result<Event, String> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle, and the stream is open.
        unsafe {
            self.call("making an event", |d| (d.event_create)(&mut event, 0))?;
            self.call("marking a time", |d| (d.event_record_with)(event, stream.0, EXTERNAL))?;
        }
        Ok(Event(event))
    }

    /// Seconds between two marks that have been passed.
    pub fn seconds(&self, before: &Event, after: &Event) -> Result<f64, String> {
        let mut milliseconds = 0.0;
        // SAFETY: the pointer is valid for one number, and both events are open.
        self.call("reading a time", |d| unsafe { (d.event_elapsed)(&mut milliseconds, before.0, after.0) })?;
        Ok(milliseconds as f64 / 1e3)
    }

    /// Records `event` after all work queued on `stream` so far.
    pub fn record(&self, event: &Event, stream: &Stream) -> Result<(), String> {
        // SAFETY: both are open.
        self.call("recording an event", |d| unsafe { (d.event_record)(event.0, stream.0) })
    }

    /// Makes work queued on `stream` from now on wait for `event`.
    pub fn after(&self, event: &Event, stream: &Stream) -> Result<(), String> {
        // SAFETY: both are open.
        self.call("waiting for an event", |d| unsafe { (d.stream_wait_event)(stream.0, event.0, 0) })
    }

    pub fn wait_for(&self, event: &Event) -> Result<(), String> {
        // SAFETY: the event is open.
        self.call("waiting for an event", |d| unsafe { (d.event_wait)(event.0) })
    }

    /// Pinned host memory, which copies can use asynchronously.
    pub fn pin(&self, bytes: usize) -> Result<*mut u8, String> {
        let mut start = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one address.
        self.call(&format!("asking for {bytes} bytes of pinned memory"), |d| unsafe {
            (d.host_alloc)(&mut start, bytes, 0)
        })?;
        Ok(start.cast())
    }

    /// # Safety
    /// `start` came from `pin`, and nothing uses it any more.
    pub unsafe fn unpin(&self, start: *mut u8) {
        // SAFETY: as the caller promises.
        let _ = self.call("giving pinned memory back", |d| unsafe { (d.host_free)(start.cast()) });
    }

    /// Calls the driver with this GPU's context.
    fn call(&self, doing: &str, f: impl FnOnce(&Driver) -> Status) -> Result<(), String> {
        // SAFETY: the context lives as long as the process.
        self.driver.check(unsafe { (self.driver.context_set)(self.context) }, "choosing a context")?;
        self.driver.check(f(&self.driver), doing)
    }

    pub fn alloc(&self, bytes: usize) -> Result<u64, String> {
        let mut pointer = 0;
        // SAFETY: the pointer is valid for one address.
        self.call(&format!("asking for {bytes} bytes of its memory"), |d| unsafe { (d.alloc)(&mut pointer, bytes) })?;
        Ok(pointer)
    }

    /// # Safety
    /// `pointer` came from `alloc`, and nothing uses it any more.
    pub unsafe fn free(&self, pointer: u64) -> Result<(), String> {
        // SAFETY: as the caller promises.
        self.call("giving memory back", |d| unsafe { (d.free)(pointer) })
    }

    /// # Safety
    /// `bytes.len()` bytes at `to` are this GPU's.
    pub unsafe fn upload(&self, bytes: &[u8], to: u64, stream: &Stream) -> Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: as the caller promises; small copies are taken at once, and others are waited for.
        self.call("copying to it", |d| unsafe { (d.upload)(to, bytes.as_ptr().cast(), bytes.len(), stream.0) })?;
        if bytes.len() > TAKEN_AT_ONCE { self.wait(stream) } else { Ok(()) }
    }

    /// Copies from pinned memory asynchronously: possibly after this returns.
    ///
    /// # Safety
    /// `bytes.len()` bytes at `to` are this GPU's, and `bytes` are pinned and stay as they are until the stream is done.
    pub unsafe fn upload_later(&self, bytes: &[u8], to: u64, stream: &Stream) -> Result<(), String> {
        // SAFETY: as the caller promises.
        self.call("copying to it", |d| unsafe { (d.upload)(to, bytes.as_ptr().cast(), bytes.len(), stream.0) })
    }

    /// # Safety
    /// `to.len()` bytes at `from` are this GPU's.
    pub unsafe fn download(&self, from: u64, to: &mut [u8], stream: &Stream) -> Result<(), String> {
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: as the caller promises; the bytes are there once the stream is done.
        self.call("copying from it", |d| unsafe { (d.download)(to.as_mut_ptr().cast(), from, to.len(), stream.0) })?;
        self.wait(stream)
    }

    /// # Safety
    /// `bytes` bytes at both addresses are this GPU's.
    pub unsafe fn copy(&self, from: u64, to: u64, bytes: usize, stream: &Stream) -> Result<(), String> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: as the caller promises.
        self.call("copying its memory", |d| unsafe { (d.copy)(to, from, bytes, stream.0) })
    }

    /// # Safety
    /// `bytes` bytes at `to` are this GPU's.
    pub unsafe fn zero(&self, to: u64, bytes: usize, stream: &Stream) -> Result<(), String> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: as the caller promises.
        self.call("clearing memory", |d| unsafe { (d.set)(to, 0, bytes, stream.0) })
    }

    pub fn wait(&self, stream: &Stream) -> Result<(), String> {
        // SAFETY: the stream is open.
        self.call("waiting for a computation", |d| unsafe { (d.stream_wait)(stream.0) })
    }

    /// Loads machine code made for this GPU.
    pub fn load(&self, cubin: &[u8]) -> Result<Module, String> {
        let mut module = std::ptr::null_mut();
        // SAFETY: a cubin contains its own length.
        self.call("loading kernels", |d| unsafe { (d.module_load)(&mut module, cubin.as_ptr().cast()) })?;
        Ok(Module(module))
    }

    /// A kernel of a module, allowed to use `shared` bytes of dynamic shared memory.
    pub fn function(&self, module: &Module, name: &str, shared: u32) -> Result<u64, String> {
        let symbol = CString::new(name).map_err(|_| format!("the kernel name {name} contains a zero byte"))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded and stays so.
        self.call(&format!("looking for the kernel {name}"), |d| unsafe {
            (d.module_function)(&mut function, module.0, symbol.as_ptr())
        })?;
        if shared > crate::cuda::loading::ALWAYS {
            // SAFETY: the function was just found.
            self.call(&format!("giving the kernel {name} shared memory"), |d| unsafe {
                (d.function_attribute)(function, MAX_DYNAMIC_SHARED, shared as c_int)
            })?;
        }
        Ok(function as u64)
    }

    /// A kernel that `overlaps` may start before the previous one has ended, if the GPU and its driver support that and
    /// its blocks do not meet.
    ///
    /// # Safety
    /// `function` is a kernel of this GPU, and `args` are what it takes, with memory as large as it assumes. If it
    /// overlaps, it waits itself (`griddepcontrol.wait`) before it touches memory that others write.
    pub unsafe fn launch(
        &self,
        function: u64,
        grid: Grid,
        overlaps: bool,
        stream: &Stream,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let (kernel, none) = (function as Handle, std::ptr::null_mut());
        let Grid { blocks: [x, y, z], threads, shared, meeting } = grid;
        let attribute = match meeting {
            Meeting::Never if overlaps && self.overlapping => Some((OVERLAPS, [1, 0, 0])),
            Meeting::Never => None,
            Meeting::Grid => Some((COOPERATIVE, [1, 0, 0])),
            Meeting::Cluster => Some((CLUSTER, [x, y, z])),
        };
        if meeting == Meeting::Cluster {
            // SAFETY: the caller promises that it is a kernel.
            self.call("allowing large clusters", |d| unsafe { (d.function_attribute)(kernel, LARGE_CLUSTERS, 1) })?;
        }
        // SAFETY: as the caller promises.
        self.call(&format!("starting {x} x {y} x {z} blocks of {threads} threads"), |d| unsafe {
            let Some((number, first)) = attribute else {
                return (d.launch)(kernel, x, y, z, threads, 1, 1, shared, stream.0, args.as_mut_ptr(), none);
            };
            let mut value = [0; 16];
            value[..3].copy_from_slice(&first);
            let attributes = LaunchAttribute { number, padding: 0, value };
            let (blocks, threads, stream) = ([x, y, z], [threads, 1, 1], stream.0);
            let config = LaunchConfig { blocks, threads, shared, stream, attributes: &attributes, count: 1 };
            (d.launch_with)(&config, kernel, args.as_mut_ptr(), none)
        })
    }
}

/// Kernels loaded on a GPU.
pub struct Module(Handle);

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Module {}
unsafe impl Sync for Module {}
