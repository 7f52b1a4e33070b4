//! The CUDA driver: the few of its functions that are needed, loaded at run time.

mod context;

pub use context::{Cuda, Event, Graph, Module, Stream};

use super::launch::Meeting;
use super::library::{DRIVER, Loaded};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;

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
    stream_create b"cuStreamCreateWithPriority" (*mut Handle, c_uint, c_int);
    stream_destroy b"cuStreamDestroy_v2" (Handle);
    stream_wait b"cuStreamSynchronize" (Handle);
    capture_begin b"cuStreamBeginCapture_v2" (Handle, c_int);
    capture_end b"cuStreamEndCapture" (Handle, *mut Handle);
    graph_instantiate b"cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
    graph_upload b"cuGraphUpload" (Handle, Handle);
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

/// Attributes of devices, by their numbers in cuda.h.
const MULTIPROCESSORS: c_int = 16;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;

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
#[repr(C, align(8))] // as the union that `value` stands for, which may hold addresses
struct LaunchAttribute {
    number: c_int,
    padding: c_int,
    value: [c_uint; 16],
}

/// The architecture whose warpgroups multiply matrices in shared memory (kernels/wgmma.cuh).
pub const HOPPER: u32 = 90;

/// What the driver says about a GPU without opening it.
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

/// The first architecture that has what kernels use: bfloat16 on tensor cores, asynchronous copies.
const OLDEST: u32 = 80;

impl Properties {
    /// Whether it lacks features that kernels need.
    pub fn is_too_old(&self) -> bool {
        self.arch < OLDEST
    }

    /// Whether kernels can use warpgroups: on Hopper and, for tests, on an emulated GPU.
    pub(crate) fn multiplies_by_warpgroups(&self) -> bool {
        self.arch == HOPPER || self.arch == 0
    }

    /// The most thread blocks in a cluster: 0 except on Hopper and, for tests, on an emulated GPU.
    pub(crate) fn most_in_cluster(&self) -> usize {
        if self.multiplies_by_warpgroups() { Meeting::CLUSTER } else { 0 }
    }
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

    /// Turns a failure's status into an error message.
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
            "CUDA_ERROR_OUT_OF_MEMORY" => {
                "; a smaller --batch_size, --configs size or --replay.gpu_gb needs less memory, and --device cpu none of a GPU's"
            }
            "CUDA_ERROR_NO_DEVICE" => "; check that nvidia-smi lists it and that CUDA_VISIBLE_DEVICES does not hide it",
            _ => "",
        };
        Err(format!("CUDA failed {doing}: {what} ({name}){cure}"))
    }
}
