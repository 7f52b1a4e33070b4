//! A GPU emulated on the processor: compiles the same kernels with the machine's C++ compiler and runs them thread by
//! thread (kernels/emulator.h), so that they can be tested on machines without a GPU.

use super::queue::lock;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const HEADER: &str = include_str!("kernels/emulator.h");

/// What kernels are compiled to: for each, a function that runs all of its threads.
type Run = unsafe extern "C" fn(*const u32, u32, *mut *mut c_void);

pub struct Emulator {
    compiler: String,
    folder: PathBuf,
}

/// The emulator's state is global, so one kernel runs at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// Kernels compiled and loaded.
#[derive(Clone)]
pub struct Module(Arc<libloading::Library>);

/// Loaded modules by source, so that a second emulated GPU compiles nothing.
static LOADED: Mutex<Vec<(String, Module)>> = Mutex::new(Vec::new());

impl Emulator {
    /// Needs a C++ compiler: `$CXX`, else `c++`.
    pub fn open() -> Result<Emulator, String> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let answers = Command::new(&compiler).arg("--version").output().is_ok_and(|x| x.status.success());
        if !answers {
            return Err(format!(
                "there is no C++ compiler '{compiler}' to emulate a GPU with; install g++, or name one in CXX"
            ));
        }
        static OPENED: AtomicUsize = AtomicUsize::new(0); // each has a folder of its own
        let name = format!("dreamer-emulator-{}-{}", std::process::id(), OPENED.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        Ok(Emulator { compiler, folder })
    }

    pub fn load(&self, name: &str, source: &str) -> Result<Module, String> {
        if let Some((_, module)) = lock(&LOADED).iter().find(|(known, _)| known == source) {
            return Ok(module.clone());
        }
        let module = self.compile(name, source)?;
        lock(&LOADED).push((source.to_string(), module.clone()));
        Ok(module)
    }

    fn compile(&self, name: &str, source: &str) -> Result<Module, String> {
        let failed = |error: std::io::Error| format!("the kernels {name} cannot be compiled for the emulator: {error}");
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let file = |extension: &str| self.folder.join(format!("{name}.{extension}"));
        std::fs::write(file("h"), HEADER).map_err(failed)?;
        std::fs::write(file("cpp"), source).map_err(failed)?;
        let flags = [
            "-std=c++17",
            "-O2",
            "-U_FORTIFY_SOURCE",
            "-shared",
            "-fPIC",
            "-DEMULATED",
            "-Wall",
            "-Wno-unknown-pragmas",
            "-include",
        ];
        let output = Command::new(&self.compiler)
            .args(flags)
            .args([file("h").as_os_str(), file("cpp").as_os_str(), "-o".as_ref(), file("so").as_os_str()])
            .output()
            .map_err(failed)?;
        if !output.status.success() {
            return Err(format!("the kernels {name} do not compile:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let library =
            self.open_library(&file("so")).map_err(|error| format!("the kernels {name} do not load: {error}"));
        let _ = std::fs::remove_dir_all(&self.folder); // loaded, or of no use
        Ok(Module(Arc::new(library?)))
    }

    fn open_library(&self, path: &Path) -> Result<libloading::Library, libloading::Error> {
        // SAFETY: the library was just compiled from this crate's own kernels.
        unsafe { libloading::Library::new(path) }
    }

    pub fn function(&self, module: &Module, name: &str) -> Result<u64, String> {
        // SAFETY: EXPORT gives every kernel a function of this type under this name.
        let run: Result<libloading::Symbol<Run>, _> = unsafe { module.0.get(format!("emulate_{name}").as_bytes()) };
        run.map(|run| *run as usize as u64).map_err(|error| format!("there is no kernel {name}: {error}"))
    }

    /// # Safety
    /// `function` came from `function`, and `args` are what that kernel takes, with memory as large as it assumes.
    pub unsafe fn launch(&self, function: u64, blocks: [u32; 3], threads: u32, args: &mut [*mut c_void]) {
        let _one = lock(&RUNNING);
        // SAFETY: `function` was made from a `Run`; the rest as the caller promises.
        unsafe {
            let run: Run = std::mem::transmute(function as usize);
            run(blocks.as_ptr(), threads, args.as_mut_ptr());
        }
    }
}
