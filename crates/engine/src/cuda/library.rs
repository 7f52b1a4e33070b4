//! Finds the shared libraries that a GPU needs, at run time: the binary itself is built without CUDA.

use libloading::Library;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A library to look for.
pub struct Wanted {
    /// File names, the best first.
    pub names: &'static [&'static str],
    /// Whether the system's search path comes before the user's environments.
    pub of_the_system: bool,
    /// What it is, for messages.
    pub what: &'static str,
    /// How to get it.
    pub cure: &'static str,
}

/// The driver's own library, which comes with the driver and never with a toolkit.
pub const DRIVER: Wanted = Wanted {
    names: &["libcuda.so.1", "libcuda.so"],
    of_the_system: true,
    what: "the NVIDIA driver",
    cure: "install the driver of your GPU (on Debian the package nvidia-driver); in a container, pass the GPU in (docker run --gpus all)",
};

/// The run-time compiler.
pub const NVRTC: Wanted = Wanted {
    names: &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
    of_the_system: false,
    what: "NVRTC, CUDA's run-time compiler",
    cure: "pip install nvidia-cuda-nvrtc (nvidia-cuda-nvrtc-cu12 where the driver supports CUDA 12) in an active Python environment, or install the CUDA toolkit, or add its folder to LD_LIBRARY_PATH",
};

/// The library that connects several GPUs.
pub const NCCL: Wanted = Wanted {
    names: &["libnccl.so.2", "libnccl.so"],
    of_the_system: false,
    what: "NCCL, which several GPUs need",
    cure: "pip install nvidia-nccl-cu13 (nvidia-nccl-cu12 where the driver supports CUDA 12) in an active Python environment, or add its folder to LD_LIBRARY_PATH",
};

/// A library that was found and loaded.
pub struct Loaded {
    pub library: Library,
    pub path: PathBuf,
}

impl Loaded {
    /// Binds the library's functions by `bind`; the error, if one is missing, says that it is no usable `name`.
    pub fn bind<T>(
        self,
        name: &str,
        bind: impl FnOnce(Library, PathBuf) -> Result<T, libloading::Error>,
    ) -> Result<T, String> {
        let shown = self.path.display().to_string();
        bind(self.library, self.path)
            .map_err(|error| format!("{shown} is no {name} that dreamer can use: {error}; install a newer one"))
    }
}

impl Wanted {
    /// Loads the first of the names found in [`folders`] or on the system's search path; for the system's libraries,
    /// the latter comes first.
    pub fn load(&self) -> Result<Loaded, String> {
        self.load_as(Ok)
    }

    /// The same, converted by `accept`. Libraries that it refuses are skipped; the first refusal becomes part of the
    /// error.
    pub fn load_as<T>(&self, accept: impl Fn(Loaded) -> Result<T, String>) -> Result<T, String> {
        let mut broken = String::new();
        let found = folders().into_iter().flat_map(|folder| self.names.iter().map(move |name| folder.join(name)));
        let mut candidates: Vec<PathBuf> = found.filter(|path| path.exists()).collect();
        let plain = self.names.iter().map(PathBuf::from);
        let at = if self.of_the_system { 0 } else { candidates.len() };
        candidates.splice(at..at, plain);
        for path in candidates {
            // SAFETY: initialisers of the vendor's libraries run here, as in every program that uses CUDA.
            #[allow(unsafe_code)]
            match unsafe { Library::new(&path) } {
                Ok(library) => match accept(Loaded { library, path }) {
                    Ok(accepted) => return Ok(accepted),
                    Err(refusal) if broken.is_empty() => broken = format!("; {refusal}"),
                    Err(_) => {}
                },
                // A file that exists but does not load is worth reporting, unlike a missing one.
                Err(error) if path.is_absolute() && broken.is_empty() => {
                    broken = format!("; {} is there but cannot be loaded: {error}", path.display());
                }
                Err(_) => {}
            }
        }
        Err(format!("{} ({}) was not found{broken}; {}", self.what, self.names[0], self.cure))
    }
}

/// Where libraries may be, in order: named by the user, an active Python environment, toolkits, the system.
fn folders() -> Vec<PathBuf> {
    let list = |name: &str| std::env::var_os(name).map(|x| std::env::split_paths(&x).collect::<Vec<_>>());
    let mut found = list("LD_LIBRARY_PATH").unwrap_or_default();
    for root in ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"].iter().filter_map(|name| list(name)).flatten() {
        found.extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|lib| root.join(lib)));
    }
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| list(name)).flatten();
    let of_the_path = list("PATH").unwrap_or_default().into_iter().flat_map(|bin| python_roots(&bin));
    let of_the_user = list("HOME").into_iter().flatten().map(|home| home.join(".local"));
    let of_root = [PathBuf::from("/usr/local")];
    for root in environments.chain(of_the_path).chain(of_the_user).chain(of_root) {
        found.extend(python_folders(&root));
        found.push(root.join("lib"));
    }
    // The newest toolkit first, by its name: cuda-13.1 before cuda-12.
    let mut toolkits = matching(Path::new("/usr/local"), "cuda");
    toolkits.sort();
    found.extend(toolkits.iter().rev().map(|root| root.join("lib64")));
    let system = [
        "/opt/cuda/lib64",
        "/usr/local/nvidia/lib64",
        "/usr/local/nvidia/lib",
        "/usr/lib/wsl/lib",
        "/usr/lib/x86_64-linux-gnu",
    ];
    found.extend(system.iter().chain(&["/usr/lib/aarch64-linux-gnu", "/usr/lib64"]).map(PathBuf::from));
    found
}

/// The environments that `python3` in a folder of the `PATH` may belong to: beside it, and beside what it links to.
fn python_roots(bin: &Path) -> Vec<PathBuf> {
    let (mut roots, mut python) = (vec![], bin.join("python3"));
    for _ in 0..8 {
        if !python.exists() {
            break;
        }
        let Some(folder) = python.parent().map(Path::to_path_buf) else { break };
        roots.extend(folder.parent().map(Path::to_path_buf));
        let Ok(target) = python.read_link() else { break };
        python = folder.join(target); // one link at a time: the last one leads out of an environment
    }
    roots
}

/// Folders of NVIDIA's wheels in a Python environment: `lib/python3.*/site-packages/nvidia/*/lib`; Fedora has `lib64`, and
/// Debian `dist-packages`.
fn python_folders(root: &Path) -> Vec<PathBuf> {
    let pythons = ["lib", "lib64"].into_iter().flat_map(|lib| matching(&root.join(lib), "python3"));
    let packages = pythons.flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)));
    let wheels = packages.flat_map(|packages| matching(&packages.join("nvidia"), ""));
    let mut found: Vec<PathBuf> = wheels.map(|wheel| wheel.join("lib")).collect();
    found.sort();
    found.reverse(); // nvidia/cu13 before nvidia/cu12
    found
}

/// What is in `folder` under names that start with `prefix`.
fn matching(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let starts = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|x| x.starts_with(prefix));
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).filter(starts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_of_a_python_environment_are_found() {
        let root = std::env::temp_dir().join(format!("dreamer-wheels-{}", std::process::id()));
        let places = ["lib64/python3.12/site-packages", "lib/python3.11/site-packages", "lib/python3.11/dist-packages"];
        let libs = places.map(|place| root.join(place).join("nvidia/cu13/lib"));
        libs.iter().for_each(|lib| std::fs::create_dir_all(lib).unwrap());
        let found = python_folders(&root);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, libs);
    }

    #[test]
    fn a_missing_library_is_named_with_its_cure() {
        let names = &["libnothing-of-this-name.so.7"];
        let wanted = Wanted { names, of_the_system: true, what: "Nothing", cure: "there is no cure" };
        let error = wanted.load().err().unwrap();
        assert_eq!(error, "Nothing (libnothing-of-this-name.so.7) was not found; there is no cure");
    }

    #[test]
    fn a_library_that_is_refused_is_passed_over() {
        let names = &["libm.so.6", "libc.so.6"];
        let wanted = Wanted { names, of_the_system: true, what: "The best one", cure: "there is no cure" };
        let accept = |last: &'static str| {
            wanted.load_as(move |found| {
                let name = found.path.display().to_string();
                if name.ends_with(last) { Ok(name) } else { Err(format!("{name} is too new")) }
            })
        };
        assert_eq!(accept("libc.so.6").unwrap(), "libc.so.6");
        let error = accept("libd.so.6").err().unwrap();
        assert_eq!(error, "The best one (libm.so.6) was not found; libm.so.6 is too new; there is no cure");
    }
}
