//! NCCL, which averages and gathers numbers over the GPUs of a machine: the functions that are needed, loaded at run
//! time.

use super::library::NCCL;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

type Handle = *mut c_void;
type Status = c_int;

/// Numbers of types and operations in nccl.h.
const FLOAT32: c_int = 7;
const AVERAGE: c_int = 4;

/// The functions of the library.
pub struct Nccl {
    init: unsafe extern "C" fn(*mut Handle, c_int, *const c_int) -> Status,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Handle) -> Status,
    all_gather: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Handle, Handle) -> Status,
    abort: unsafe extern "C" fn(Handle) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    error_text: unsafe extern "C" fn(Status) -> *const c_char,
    path: PathBuf,
    /// Keeps the functions above valid. Never unloaded, as it has threads of its own.
    _library: ManuallyDrop<libloading::Library>,
}

/// One GPU's communicator, and whether it was closed; otherwise it is open as long as the process lives.
pub struct Comm(Handle, AtomicBool);

// SAFETY: used by one thread at a time, its GPU's, and not once it is closed; aborted once by any other, which NCCL allows
// while a call is under way. Handles are not bound to threads.
unsafe impl Send for Comm {}
unsafe impl Sync for Comm {}

impl Comm {
    /// Closes it; returns whether it was open.
    pub fn close(&self) -> bool {
        !self.1.swap(true, Ordering::SeqCst)
    }

    fn open(&self) -> Result<Handle, String> {
        if self.1.load(Ordering::SeqCst) { Err("another GPU that it works with has failed".into()) } else { Ok(self.0) }
    }
}

impl Nccl {
    /// Finds and loads the library; the error names what is missing and how to get it.
    pub fn load() -> Result<Nccl, String> {
        // SAFETY: the types are those of nccl.h, unchanged since version 2.10.
        NCCL.load()?.bind("NCCL", |library, path| unsafe {
            Ok(Nccl {
                init: *library.get(b"ncclCommInitAll")?,
                all_reduce: *library.get(b"ncclAllReduce")?,
                all_gather: *library.get(b"ncclAllGather")?,
                abort: *library.get(b"ncclCommAbort")?,
                group_start: *library.get(b"ncclGroupStart")?,
                group_end: *library.get(b"ncclGroupEnd")?,
                error_text: *library.get(b"ncclGetErrorString")?,
                path,
                _library: ManuallyDrop::new(library),
            })
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connects GPUs, by their numbers: a communicator for each.
    pub fn connect(&self, gpus: &[usize]) -> Result<Vec<Comm>, String> {
        let numbers: Vec<c_int> = gpus.iter().map(|&gpu| gpu as c_int).collect();
        let mut ends: Vec<Handle> = vec![std::ptr::null_mut(); gpus.len()];
        // SAFETY: as many places as numbers.
        let status = unsafe { (self.init)(ends.as_mut_ptr(), numbers.len() as c_int, numbers.as_ptr()) };
        self.check(status, &format!("connecting the GPUs {gpus:?}"))?;
        Ok(ends.into_iter().map(|end| Comm(end, AtomicBool::new(false))).collect())
    }

    /// Replaces float32 numbers, given by address and count, by their means over all GPUs, which have to pass the same
    /// counts.
    ///
    /// # Safety
    /// They are on this communicator's GPU, whose context is current and whose `stream` is open.
    pub unsafe fn average(&self, comm: &Comm, pieces: &[(u64, usize)], stream: Handle) -> Result<(), String> {
        let end = comm.open()?;
        // SAFETY: as the caller promises.
        unsafe {
            self.check((self.group_start)(), "beginning to average")?;
            let each = |&(at, len): &(u64, usize)| {
                (self.all_reduce)(at as *const c_void, at as *mut c_void, len, FLOAT32, AVERAGE, end, stream)
            };
            let failed = pieces.iter().map(each).find(|&status| status != 0);
            let ended = (self.group_end)();
            self.check(failed.unwrap_or(ended), "averaging")
        }
    }

    /// Gathers `len` float32 numbers of each GPU at `to` on all of them, in the order of the GPUs.
    ///
    /// # Safety
    /// They are on this communicator's GPU, with room for all, its context is current, and its `stream` is open.
    pub unsafe fn gather(&self, comm: &Comm, from: u64, len: usize, to: u64, stream: Handle) -> Result<(), String> {
        let end = comm.open()?;
        // SAFETY: as the caller promises.
        let status = unsafe { (self.all_gather)(from as *const c_void, to as *mut c_void, len, FLOAT32, end, stream) };
        self.check(status, "gathering")
    }

    /// Aborts what a communicator's GPU may be waiting for; called once, after the communicator was closed.
    pub fn abort(&self, comm: &Comm) {
        // SAFETY: called by whoever closed it. Errors are ignored, as nothing depends on it any more.
        let _ = unsafe { (self.abort)(comm.0) };
    }

    /// Turns a failure's status into an error message.
    fn check(&self, status: Status, doing: &str) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the library points at a constant string of its own.
        let text = unsafe { CStr::from_ptr((self.error_text)(status)) };
        Err(format!("NCCL failed {doing}: {}; NCCL_DEBUG=WARN tells more", text.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it is installed its functions are found, and what it lacks (a GPU, or the second of one) is a sentence; where
    /// it is not, how to get it is said.
    #[test]
    fn it_is_used_or_missed_with_a_sentence() {
        match Nccl::load() {
            Ok(nccl) => {
                eprintln!("NCCL is {}", nccl.path().display());
                let error = nccl.connect(&[0, 0]).err().unwrap_or_default();
                assert!(error.starts_with("NCCL failed connecting the GPUs [0, 0]: "), "{error}");
            }
            Err(error) => assert!(error.contains("pip install nvidia-nccl"), "{error}"),
        }
    }
}
