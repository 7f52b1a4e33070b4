//! Compiles kernels with NVRTC. Needs no GPU, so that every kernel is compiled in tests.

use super::driver::HOPPER;
use super::library::{Loaded, NVRTC};
use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;

type Program = *mut c_void;

/// How kernels are compiled, besides the architecture.
pub const OPTIONS: &str = "--std=c++17";

/// The functions of the compiler's library.
pub struct Nvrtc {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    count_of_archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    path: PathBuf,
    /// Keeps the functions above valid. Never unloaded, as it may have threads of its own.
    _library: ManuallyDrop<libloading::Library>,
}

impl Nvrtc {
    /// Finds and loads the compiler; the error names what is missing and how to get it. A driver loads the machine code of
    /// compilers up to the major version of CUDA that it supports: newer ones than `most`, where that is known, are passed
    /// over, as are those that do not know the architecture `arch`.
    pub fn load(most: Option<i32>, arch: Option<u32>) -> Result<Nvrtc, String> {
        NVRTC.load_as(|found| {
            let nvrtc = Nvrtc::bind(found)?;
            let (major, minor) = nvrtc.version();
            let refused = |why: String| Err(format!("{} is NVRTC {major}.{minor}, {why}", nvrtc.path.display()));
            if let Some(most) = most.filter(|&most| major > most) {
                return refused(format!("newer than CUDA {most}, which the driver supports"));
            }
            if let Some(arch) = arch.filter(|arch| !nvrtc.archs().contains(arch)) {
                return refused(format!("which compiles nothing for sm_{arch}"));
            }
            nvrtc.load_builtins();
            Ok(nvrtc)
        })
    }

    fn bind(found: Loaded) -> Result<Nvrtc, String> {
        // SAFETY: the types are those of nvrtc.h, unchanged since CUDA 11.2.
        found.bind("NVRTC", |library, path| unsafe {
            Ok(Nvrtc {
                version: *library.get(b"nvrtcVersion")?,
                count_of_archs: *library.get(b"nvrtcGetNumSupportedArchs")?,
                archs: *library.get(b"nvrtcGetSupportedArchs")?,
                create: *library.get(b"nvrtcCreateProgram")?,
                compile: *library.get(b"nvrtcCompileProgram")?,
                destroy: *library.get(b"nvrtcDestroyProgram")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize")?,
                log: *library.get(b"nvrtcGetProgramLog")?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize")?,
                cubin: *library.get(b"nvrtcGetCUBIN")?,
                path,
                _library: ManuallyDrop::new(library),
            })
        })
    }

    /// Loads the compiler's second library. The compiler of CUDA 13.0 looks for it by name only, and so would not find
    /// it beside itself in a Python environment. If it is missing, compiling reports that.
    fn load_builtins(&self) {
        let (major, minor) = self.version();
        let beside = self.path.with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}"));
        // SAFETY: the compiler would load it itself, with its initialisers; it stays loaded, as the compiler does.
        if let Ok(library) = unsafe { libloading::Library::new(beside) } {
            std::mem::forget(library);
        }
    }

    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Major and minor version of CUDA.
    pub fn version(&self) -> (i32, i32) {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are valid for one number.
        unsafe { (self.version)(&mut major, &mut minor) };
        (major, minor)
    }

    /// The architectures that it compiles for, such as 90.
    fn archs(&self) -> Vec<u32> {
        let mut count = 0;
        // SAFETY: the pointer is valid for one number, and the second one for as many as the first call says.
        unsafe {
            (self.count_of_archs)(&mut count);
            let mut archs = vec![0 as c_int; count.max(0) as usize];
            (self.archs)(archs.as_mut_ptr());
            archs.into_iter().map(|arch| arch as u32).collect()
        }
    }

    /// Machine code of `source` for an architecture such as 90; `name` appears in the compiler's messages.
    pub fn compile(&self, name: &str, source: &str, arch: u32) -> Result<Vec<u8>, String> {
        let text = |s: &str| CString::new(s).map_err(|_| format!("the kernel source {name} contains a zero byte"));
        let (source, file) = (text(source)?, text(name)?);
        let only = if arch == HOPPER { "a" } else { "" }; // with instructions that no later GPU has
        let options = [text(&format!("--gpu-architecture=sm_{arch}{only}"))?, text(OPTIONS)?];
        let options: Vec<*const c_char> = options.iter().map(|x| x.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: the strings outlive the calls; sizes are asked for before memory of that size is handed in; the
        // program is destroyed once, whatever happened.
        unsafe {
            let none = std::ptr::null();
            if (self.create)(&mut program, source.as_ptr(), file.as_ptr(), 0, none, none) != 0 {
                return Err(format!("NVRTC could not take the source of the kernels {name}"));
            }
            let status = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let result = if status == 0 {
                self.fetch(program, self.cubin_size, self.cubin)
            } else {
                let log = self.fetch(program, self.log_size, self.log).unwrap_or_default();
                Err(String::from_utf8_lossy(&log).trim_end_matches('\0').to_string())
            };
            (self.destroy)(&mut program);
            result.map_err(|log| {
                let (major, minor) = self.version();
                format!("NVRTC {major}.{minor} does not compile the kernels {name} for sm_{arch}: {log}")
            })
        }
    }

    /// A result, by one function for its size and another for its content.
    unsafe fn fetch(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        content: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, String> {
        let mut len = 0;
        // SAFETY: the caller has a compiled program; the second call writes `len` bytes, as the first one said.
        unsafe {
            if size(program, &mut len) != 0 {
                return Err("it gives no size of its result".into());
            }
            let mut bytes = vec![0u8; len];
            if content(program, bytes.as_mut_ptr().cast()) != 0 {
                return Err("it gives no result".into());
            }
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_newer_than_the_driver_or_does_not_know_the_gpu_is_passed_over() {
        let Ok(newest) = Nvrtc::load(None, None) else {
            eprintln!("SKIPPED: NVRTC is not here");
            return;
        };
        let major = newest.version().0;
        assert_eq!(Nvrtc::load(Some(major), Some(90)).unwrap().path(), newest.path());
        match Nvrtc::load(Some(major - 1), None) {
            Ok(older) => assert!(older.version().0 < major, "{}", older.path().display()),
            Err(error) => assert!(error.contains(&format!("newer than CUDA {}", major - 1)), "{error}"),
        }
        let error = Nvrtc::load(None, Some(1234)).err().unwrap_or_default();
        assert!(error.contains("which compiles nothing for sm_1234; pip install"), "{error}");
    }
}
