//! The CUDA driver: the few of its functions that are needed, loaded at run time, and a GPU used through them.

use super::library::{DRIVER, Loaded};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::Arc;

type Status = c_int;
type Pointer = u64;
type Handle = *mut c_void;

/// Declares the table of functions and how it is filled: field, symbol, types of the arguments.
macro_rules! driver_functions {
    ($($name:ident $symbol:literal ($($arg:ty),*);)*) => {
        /// The functions of the driver's library.
        pub struct Driver {
            $($name: unsafe extern "C" fn($($arg),*) -> Status,)*
            path: PathBuf,
            /// Keeps the functions above valid. Never unloaded: the driver has threads and exit handlers of its own.
            _library: ManuallyDrop<libloading::Library>,
        }

        impl Driver {
            fn bind(library: libloading::Library, path: PathBuf) -> Result<Driver, libloading::Error> {
                // SAFETY: the types are those of cuda.h for these symbols; versioned symbols never change theirs.
                unsafe { Ok(Driver { $($name: *library.get($symbol)?,)* path, _library: ManuallyDrop::new(library) }) }
            }
        }
    };
}

driver_functions! {
    init b"cuInit" (c_uint);
    version b"cuDriverGetVersion" (*mut c_int);
    error_name b"cuGetErrorName" (Status, *mut *const c_char);
    error_text b"cuGetErrorString" (Status, *mut *const c_char);
    device_count b"cuDeviceGetCount" (*mut c_int);
    device_get b"cuDeviceGet" (*mut c_int, c_int);
    device_name b"cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_attribute b"cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    device_memory b"cuDeviceTotalMem_v2" (*mut usize, c_int);
    context_retain b"cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    context_set b"cuCtxSetCurrent" (Handle);
    alloc b"cuMemAlloc_v2" (*mut Pointer, usize);
    free b"cuMemFree_v2" (Pointer);
    upload b"cuMemcpyHtoDAsync_v2" (Pointer, *const c_void, usize, Handle);
    download b"cuMemcpyDtoHAsync_v2" (*mut c_void, Pointer, usize, Handle);
    copy b"cuMemcpyDtoDAsync_v2" (Pointer, Pointer, usize, Handle);
    set b"cuMemsetD8Async" (Pointer, u8, usize, Handle);
    stream_create b"cuStreamCreate" (*mut Handle, c_uint);
    stream_destroy b"cuStreamDestroy_v2" (Handle);
    stream_wait b"cuStreamSynchronize" (Handle);
    capture_begin b"cuStreamBeginCapture_v2" (Handle, c_int);
    capture_end b"cuStreamEndCapture" (Handle, *mut Handle);
    graph_instantiate b"cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
    graph_launch b"cuGraphLaunch" (Handle, Handle);
    graph_destroy b"cuGraphDestroy" (Handle);
    graph_exec_destroy b"cuGraphExecDestroy" (Handle);
    event_create b"cuEventCreate" (*mut Handle, c_uint);
    event_record b"cuEventRecord" (Handle, Handle);
    event_record_with b"cuEventRecordWithFlags" (Handle, Handle, c_uint);
    event_elapsed b"cuEventElapsedTime" (*mut f32, Handle, Handle);
    event_wait b"cuEventSynchronize" (Handle);
    stream_wait_event b"cuStreamWaitEvent" (Handle, Handle, c_uint);
    host_alloc b"cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    host_free b"cuMemFreeHost" (*mut c_void);
    module_load b"cuModuleLoadData" (*mut Handle, *const c_void);
    module_function b"cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    function_attribute b"cuFuncSetAttribute" (Handle, c_int, c_int);
    launch b"cuLaunchKernel" (
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
    );
    launch_with b"cuLaunchKernelEx" (*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
}

/// Attributes of devices and functions, by their numbers in cuda.h.
const MULTIPROCESSORS: c_int = 16;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;
const MAX_DYNAMIC_SHARED: c_int = 8;
/// Bytes up to which the driver copies from ordinary memory before a call returns (documented for host to device).
const TAKEN_AT_ONCE: usize = 64 << 10;
/// A stream that does not wait for the one everybody shares.
const NON_BLOCKING: c_uint = 1;
/// An event that tells no time, which is cheaper.
const NO_TIMING: c_uint = 2;
/// A recorded event that happens at each run, for others than the graph.
const EXTERNAL: c_uint = 1;
/// A capture that lets every thread go on using the driver, this one included: for memory.
const CAPTURE_RELAXED: c_int = 2;

/// How a kernel is launched, laid out as `CUlaunchConfig` in cuda.h.
#[repr(C)]
struct LaunchConfig {
    blocks: [c_uint; 3],
    threads: [c_uint; 3],
    shared: c_uint,
    stream: Handle,
    attributes: *const LaunchAttribute,
    count: c_uint,
}

/// `CUlaunchAttribute`, of which the values used here are numbers.
#[repr(C, align(8))] // as the addresses in the union that `value` stands for
struct LaunchAttribute {
    number: c_int,
    padding: c_int,
    value: [c_int; 16],
}

/// The kernel may start while the one before it on the stream ends: it waits for that one's results by itself.
const OVERLAPS: c_int = 6; // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
/// The first version of CUDA that records this in graphs, and the first architecture that does it.
const OVERLAPPING: ((i32, i32), u32) = ((12, 3), 90);

/// What is known of a GPU without using it.
#[derive(Clone, Debug)]
pub struct Properties {
    pub index: usize,
    pub name: String,
    /// Compute capability as one number: 90 is 9.0.
    pub arch: u32,
    pub multiprocessors: u32,
    /// Memory in bytes.
    pub memory: usize,
}

impl Driver {
    /// Finds, loads and initialises the driver; the error names what is missing and how to get it.
    pub fn load() -> Result<Driver, String> {
        let Loaded { library, path } = DRIVER.load()?;
        let shown = path.display().to_string();
        let driver = Driver::bind(library, path)
            .map_err(|error| format!("the NVIDIA driver at {shown} is too old: {error}; install a newer one"))?;
        // SAFETY: the first call to the driver, with the only flag that there is.
        driver.check(unsafe { (driver.init)(0) }, "starting the NVIDIA driver")?;
        Ok(driver)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Major and minor version of CUDA that the driver supports.
    pub fn version(&self) -> (i32, i32) {
        let mut version = 0;
        // SAFETY: the pointer is valid for one number.
        unsafe { (self.version)(&mut version) };
        (version / 1000, version % 1000 / 10)
    }

    /// The GPUs that the driver lets this process see.
    pub fn devices(&self) -> Result<Vec<Properties>, String> {
        let mut count = 0;
        // SAFETY: the pointer is valid for one number.
        self.check(unsafe { (self.device_count)(&mut count) }, "counting GPUs")?;
        (0..count as usize).map(|index| self.properties(index)).collect()
    }

    fn properties(&self, index: usize) -> Result<Properties, String> {
        let device = self.device(index)?;
        let mut name = [0 as c_char; 256];
        let mut memory = 0;
        // SAFETY: the driver writes at most 256 characters, ending in a zero, and one number.
        let name = unsafe {
            self.check((self.device_name)(name.as_mut_ptr(), 256, device), "asking a GPU for its name")?;
            self.check((self.device_memory)(&mut memory, device), "asking a GPU for its memory")?;
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        };
        let attribute = |number: c_int| {
            let mut value = 0;
            // SAFETY: the pointer is valid for one number.
            let status = unsafe { (self.device_attribute)(&mut value, number, device) };
            self.check(status, "asking a GPU for an attribute").map(|()| value as u32)
        };
        let arch = 10 * attribute(MAJOR)? + attribute(MINOR)?;
        Ok(Properties { index, name, arch, multiprocessors: attribute(MULTIPROCESSORS)?, memory })
    }

    fn device(&self, index: usize) -> Result<c_int, String> {
        let mut device = 0;
        // SAFETY: the pointer is valid for one number.
        self.check(unsafe { (self.device_get)(&mut device, index as c_int) }, "opening a GPU")?;
        Ok(device)
    }

    /// Turns a status into a sentence.
    fn check(&self, status: Status, doing: &str) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        let text = |f: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut text = std::ptr::null();
            // SAFETY: on success the driver points at a constant string of its own.
            unsafe { (f(status, &mut text) == 0 && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy()) }
        };
        let name = text(self.error_name).unwrap_or("unknown error".into());
        let what = text(self.error_text).unwrap_or_default();
        let cure = match &*name {
            "CUDA_ERROR_OUT_OF_MEMORY" => "; a smaller --batch_size or --configs size needs less memory",
            "CUDA_ERROR_NO_DEVICE" => "; check that nvidia-smi lists it and that CUDA_VISIBLE_DEVICES does not hide it",
            _ => "",
        };
        Err(format!("CUDA failed {doing}: {what} ({name}){cure}"))
    }
}

/// One GPU with its context.
pub struct Cuda {
    driver: Arc<Driver>,
    context: Handle,
    /// Whether kernels can overlap.
    overlapping: bool,
}

/// An order in which a GPU does things.
pub struct Stream(Handle);

// SAFETY: as below.
unsafe impl Send for Stream {}
unsafe impl Sync for Stream {}

impl Stream {
    /// For other libraries.
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

    /// The major version of CUDA that its driver supports.
    pub fn major(&self) -> i32 {
        self.driver.version().0
    }

    /// Makes this GPU the one that libraries called by this thread use.
    pub fn enter(&self) -> Result<(), String> {
        self.call("choosing a context", |_| 0)
    }

    pub fn stream(&self) -> Result<Stream, String> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle.
        self.call("making a stream", |d| unsafe { (d.stream_create)(&mut stream, NON_BLOCKING) })?;
        Ok(Stream(stream))
    }

    /// Gives a stream back once it has done what it was asked for.
    pub fn close(&self, stream: Stream) {
        // SAFETY: nobody else has the handle. What goes wrong concerns nobody any more.
        let _ = self.call("closing a stream", |d| unsafe { (d.stream_destroy)(stream.0) });
    }

    /// From here on, what goes to `stream` is kept and not done.
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
        }
        Ok(Graph(ready))
    }

    pub fn run(&self, graph: &Graph, stream: &Stream) -> Result<(), String> {
        // SAFETY: both are open, and whoever recorded keeps the memory that is used.
        self.call("starting a recording", |d| unsafe { (d.graph_launch)(graph.0, stream.0) })
    }

    /// Gives a recording back.
    pub fn forget(&self, graph: &Graph) {
        // SAFETY: called once, by its owner's end; the driver waits for runs under way.
        let _ = self.call("closing a recording", |d| unsafe { (d.graph_exec_destroy)(graph.0) });
    }

    /// An event, kept for as long as the process lives.
    pub fn event(&self) -> Result<Event, String> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle.
        self.call("making an event", |d| unsafe { (d.event_create)(&mut event, NO_TIMING) })?;
        Ok(Event(event))
    }

    /// Puts an event that tells the time into what `stream` captures; kept for as long as the process lives.
    pub fn timed_mark(&self, stream: &Stream) -> Result<Event, String> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle, and the stream is open.
        unsafe {
            self.call("making an event", |d| (d.event_create)(&mut event, 0))?;
            self.call("marking a time", |d| (d.event_record_with)(event, stream.0, EXTERNAL))?;
        }
        Ok(Event(event))
    }

    /// Between two marks that have been passed.
    pub fn seconds(&self, before: &Event, after: &Event) -> Result<f64, String> {
        let mut milliseconds = 0.0;
        // SAFETY: the pointer is valid for one number, and both events are open.
        self.call("reading a time", |d| unsafe { (d.event_elapsed)(&mut milliseconds, before.0, after.0) })?;
        Ok(milliseconds as f64 / 1e3)
    }

    /// `event` is where `stream` has been asked for everything that it has been asked for by now.
    pub fn record(&self, event: &Event, stream: &Stream) -> Result<(), String> {
        // SAFETY: both are open.
        self.call("recording an event", |d| unsafe { (d.event_record)(event.0, stream.0) })
    }

    /// What `stream` is asked for from now on happens after `event`.
    pub fn after(&self, event: &Event, stream: &Stream) -> Result<(), String> {
        // SAFETY: both are open.
        self.call("waiting for an event", |d| unsafe { (d.stream_wait_event)(stream.0, event.0, 0) })
    }

    pub fn wait_for(&self, event: &Event) -> Result<(), String> {
        // SAFETY: the event is open.
        self.call("waiting for an event", |d| unsafe { (d.event_wait)(event.0) })
    }

    /// Memory of the processor that copies can use without waiting.
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

    /// Copies from pinned memory, some time after this returns.
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
        // SAFETY: a cubin says itself how long it is.
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
        if shared > super::gpu::ALWAYS {
            // SAFETY: the function was just found.
            self.call(&format!("giving the kernel {name} shared memory"), |d| unsafe {
                (d.function_attribute)(function, MAX_DYNAMIC_SHARED, shared as c_int)
            })?;
        }
        Ok(function as u64)
    }

    /// Where the kernel `overlaps`, it may start while the one before it ends, if this GPU and its driver can do that.
    ///
    /// # Safety
    /// `function` is a kernel of this GPU, and `args` are what it takes, with memory as large as it assumes. Where it overlaps
    /// it waits by itself (`griddepcontrol.wait`) before it touches what others write.
    #[allow(clippy::too_many_arguments)] // those of the driver's function
    pub unsafe fn launch(
        &self,
        function: u64,
        [x, y, z]: [u32; 3],
        threads: u32,
        shared: u32,
        overlaps: bool,
        stream: &Stream,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let (kernel, none) = (function as Handle, std::ptr::null_mut());
        // SAFETY: as the caller promises.
        self.call(&format!("starting {x} x {y} x {z} blocks of {threads} threads"), |d| unsafe {
            if !(overlaps && self.overlapping) {
                return (d.launch)(kernel, x, y, z, threads, 1, 1, shared, stream.0, args.as_mut_ptr(), none);
            }
            let mut value = [0; 16];
            value[0] = 1;
            let attributes = LaunchAttribute { number: OVERLAPS, padding: 0, value };
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
