//! Finds what this machine has of CUDA, opens GPUs, and says what is missing if that fails.

use super::driver::{Driver, Properties};
use super::gpu::{Gpu, Precision};
use super::library::DRIVER;
use super::nccl::Nccl;
use super::nvrtc::Nvrtc;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

/// Whether every GPU number stands for an emulated GPU (which needs a C++ compiler), for tests of whole programs on
/// machines without one: if DREAMER_EMULATE_GPU is set, and neither 0 nor empty.
fn emulates() -> bool {
    std::env::var_os("DREAMER_EMULATE_GPU").is_some_and(|value| !value.is_empty() && value != "0")
}

/// What was found, or the sentence that says what is missing and how to get it.
pub struct Survey {
    pub driver: Result<Found, String>,
    /// The run-time compiler.
    pub nvrtc: Result<Found, String>,
    /// NCCL, with which several GPUs work together; looked for if there are several.
    pub nccl: Option<Result<PathBuf, String>>,
    /// Empty if there is no driver.
    pub gpus: Result<Vec<Properties>, String>,
    /// Where compiled kernels are kept.
    pub cache: Option<PathBuf>,
}

/// A library with the version of CUDA that it is made for.
pub struct Found {
    pub path: PathBuf,
    pub version: (i32, i32),
}

/// Looks for everything that a GPU needs.
pub fn survey() -> Survey {
    let driver = Driver::load();
    let most = driver.as_ref().ok().map(|driver| driver.version().0);
    let gpus = driver.as_ref().map_or(Ok(vec![]), |driver| driver.devices());
    let arch = gpus.iter().flatten().find(|gpu| !gpu.is_too_old()).map(|gpu| gpu.arch);
    let nvrtc = Nvrtc::load(most, arch).map(|x| Found { path: x.path().into(), version: x.version() });
    let driver = driver.map(|x| Found { path: x.path().into(), version: x.version() });
    let several = gpus.as_ref().is_ok_and(|gpus: &Vec<Properties>| gpus.len() > 1);
    let nccl = several.then(|| Nccl::load().map(|x| x.path().into()));
    Survey { driver, nvrtc, nccl, gpus, cache: super::cache::folder() }
}

/// Whether there is a GPU, an emulated one, or a driver that does not work, whose error shows when a GPU is opened.
pub fn is_there() -> bool {
    emulates()
        || match Driver::load().and_then(|driver| driver.devices()) {
            Ok(gpus) => !gpus.is_empty(),
            Err(sentence) => DRIVER.load().is_ok() && !sentence.contains("NO_DEVICE"),
        }
}

/// Opens GPU number `index` with all kernels loaded, once per process and precision; `compiling` is called if some have
/// to be compiled first. The error names what is missing and how to get it.
pub fn open(index: usize, precision: Precision, compiling: impl Fn(&'static Gpu)) -> Result<&'static Gpu, String> {
    static OPEN: Mutex<Vec<(usize, &'static Gpu)>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((_, gpu)) = open.iter().find(|(i, gpu)| *i == index && gpu.precision() == precision) {
        return Ok(gpu);
    }
    let gpu = if emulates() {
        Gpu::emulated(precision)?
    } else {
        let driver = Driver::load().map_err(|error| format!("{error}; or compute with --device cpu"))?;
        Gpu::open(Arc::new(driver), index, precision)?
    };
    gpu.load_all(compiling)?;
    open.push((index, gpu));
    Ok(gpu)
}

/// The GPU that tests run on in float32, see [`test_gpu_in`].
pub fn test_gpu() -> Option<&'static Gpu> {
    test_gpu_in(Precision::Float32)
}

/// The GPU that tests run on: number 0 of this machine, else an emulated one. If there is neither, it says so, and
/// nothing is tested on a GPU; with DREAMER_REQUIRE_GPU set, as in CI, that is a failure.
pub fn test_gpu_in(precision: Precision) -> Option<&'static Gpu> {
    static GPUS: [OnceLock<Option<&'static Gpu>>; 2] = [OnceLock::new(), OnceLock::new()];
    *GPUS[precision as usize].get_or_init(|| {
        // A GPU that is there and cannot be opened is a failure, not a reason to emulate one.
        let driver = Driver::load().ok().filter(|driver| driver.devices().is_ok_and(|gpus| !gpus.is_empty()));
        let found = match driver {
            Some(driver) => Ok(Gpu::open(Arc::new(driver), 0, precision)
                .and_then(|gpu| gpu.load_all(|_| ()).map(|()| gpu))
                .unwrap_or_else(|error| panic!("{error}"))),
            None => Gpu::emulated(precision),
        };
        found.inspect(|gpu| eprintln!("tests in {precision:?} run on {gpu:?}")).map_err(skipped).ok()
    })
}

/// An emulated GPU of its own for a test that needs several; else as [`test_gpu_in`].
pub fn emulated_test_gpu() -> Option<&'static Gpu> {
    Gpu::emulated(Precision::Float32).map_err(skipped).ok()
}

fn skipped(error: String) {
    assert!(std::env::var_os("DREAMER_REQUIRE_GPU").is_none(), "{error}");
    eprintln!("SKIPPED: nothing was tested on a GPU: {error}");
}
