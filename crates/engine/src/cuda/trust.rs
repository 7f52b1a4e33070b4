//! Remembers which GPUs were found to compute what the processor does.

use super::gpu::{Backend, Gpu};
use super::{cache, kernels};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

impl Gpu {
    /// Whether [`trust`](Gpu::trust) was called for a GPU like this one, with the same version of CUDA, precision, way
    /// for blocks to meet, and program.
    pub fn is_trusted(&self) -> bool {
        self.trusted_file().as_deref().and_then(cache::read).is_some()
    }

    /// Remembers, beside the compiled kernels, that this GPU computes what the processor does.
    pub fn trust(&self) {
        if let Some(path) = self.trusted_file() {
            let _ = cache::write(&path, self.properties().name.as_bytes()); // if this fails, the trial is repeated
        }
    }

    /// The file whose existence means trust; none for an emulated GPU, which is compiled anew each time.
    fn trusted_file(&self) -> Option<PathBuf> {
        let Backend::Cuda(cuda) = &self.backend else { return None };
        let mut hasher = DefaultHasher::new();
        let (properties, precision) = (self.properties(), self.precision());
        (&properties.name, properties.arch, cuda.version(), precision as u8, self.meeting() as u8).hash(&mut hasher);
        kernels::names().for_each(|name| kernels::source(name, precision).hash(&mut hasher));
        let program = std::fs::metadata(std::env::current_exe().ok()?).ok()?;
        (program.len(), program.modified().ok()?).hash(&mut hasher);
        Some(cache::folder()?.with_file_name("trials").join(format!("{:016x}", hasher.finish())))
    }
}
