//! Compiled kernels on disk, so that a second start does not compile: `~/.cache/dreamer/kernels`.

use super::nvrtc::{Nvrtc, OPTIONS};
use super::queue::lock;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The compilers by architecture, loaded when the first kernel is not in the cache.
static COMPILERS: Mutex<Vec<(u32, Result<&'static Nvrtc, String>)>> = Mutex::new(Vec::new());

/// Machine code that is needed: of one module of kernels, for one architecture.
pub struct Wanted {
    /// The module's name.
    pub name: String,
    pub source: String,
    /// The architecture, such as 90.
    pub arch: u32,
    /// The major version of CUDA that the driver supports.
    pub major: i32,
}

impl Wanted {
    /// The machine code, from the cache or else from the compiler.
    pub fn cubin(&self) -> Result<Vec<u8>, String> {
        self.cached().map_or_else(|| self.compile(), Ok)
    }

    /// The machine code, if it is in the cache.
    pub fn cached(&self) -> Option<Vec<u8>> {
        read(&self.path()?)
    }

    /// Compiles the machine code, whatever the cache holds, and caches it.
    pub fn compile(&self) -> Result<Vec<u8>, String> {
        let cubin = self.compiler()?.compile(&self.name, &self.source, self.arch)?;
        if let Some(path) = self.path() {
            let _ = write(&path, &cubin); // a cache that cannot be written costs a compilation, nothing else
        }
        Ok(cubin)
    }

    fn compiler(&self) -> Result<&'static Nvrtc, String> {
        let mut compilers = lock(&COMPILERS);
        if let Some((_, known)) = compilers.iter().find(|(arch, _)| *arch == self.arch) {
            return known.clone();
        }
        let loaded = Nvrtc::load(Some(self.major), Some(self.arch)).map(|nvrtc| &*Box::leak(Box::new(nvrtc)));
        compilers.push((self.arch, loaded.clone()));
        loaded
    }

    fn path(&self) -> Option<PathBuf> {
        Some(folder()?.join(self.file_name()))
    }

    /// The name differs for each source, set of options, architecture, major version of CUDA and version of dreamer.
    fn file_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.source, OPTIONS, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        format!("{}-sm{}-cuda{}-{:016x}", self.name, self.arch, self.major, hasher.finish())
    }
}

/// The folder of the cache: `$XDG_CACHE_HOME/dreamer/kernels`, or the same in `~/.cache`.
pub fn folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let root = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|x| x.is_absolute()).or_else(home)?;
    Some(root.join("dreamer/kernels"))
}

/// Reads a file that begins with a checksum of its content; none if it is missing, truncated or damaged.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let (sum, cubin) = bytes.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*sum) == checksum(cubin)).then(|| cubin.to_vec())
}

/// Writes such a file under a temporary name and renames it, as several processes may start at once.
pub fn write(path: &Path, cubin: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let bytes = [&checksum(cubin).to_le_bytes()[..], cubin].concat();
    std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::driver::HOPPER;
    use crate::cuda::{Precision, kernels};
    use std::collections::HashSet;

    #[test]
    fn what_was_written_comes_back_unless_it_is_damaged() {
        let path = std::env::temp_dir().join(format!("dreamer-cache-{}/kernels", std::process::id()));
        write(&path, b"machine code").unwrap();
        assert_eq!(read(&path).unwrap(), b"machine code");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(read(&path), None);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    /// For a machine whose time with a GPU is short: what is compiled here is found there.
    #[test]
    #[ignore = "fills the cache for Hopper, or for what DREAMER_ARCH says"]
    fn fill_the_cache_for_another_machine() {
        let arch = std::env::var("DREAMER_ARCH").map_or(HOPPER, |arch| arch.parse().expect("DREAMER_ARCH is a number"));
        let major = Nvrtc::load(None, Some(arch)).unwrap_or_else(|error| panic!("{error}")).version().0;
        let fill = |name: &str| {
            for precision in [Precision::Float32, Precision::Bfloat16] {
                let wanted = Wanted { name: name.into(), source: kernels::source(name, precision), arch, major };
                wanted.cubin().unwrap_or_else(|error| panic!("{error}"));
            }
        };
        std::thread::scope(|scope| kernels::names().for_each(|name| drop(scope.spawn(move || fill(name)))));
    }

    #[test]
    fn another_source_architecture_or_driver_is_another_file() {
        let names = [("x", 90, 13), ("y", 90, 13), ("x", 80, 13), ("x", 90, 12)];
        let names: HashSet<String> = (names.into_iter())
            .map(|(source, arch, major)| Wanted { name: "a".into(), source: source.into(), arch, major }.file_name())
            .collect();
        assert_eq!(names.len(), 4);
    }
}
