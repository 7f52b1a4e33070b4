//! `Memory`: a piece of a GPU's memory that returns to the GPU's pool when dropped.

use super::gpu::Gpu;
use crate::tensor::Dtype;

pub struct Memory {
    gpu: &'static Gpu,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// `bytes` bytes at `address`, which must be of that GPU and nobody else's.
    pub(super) fn new(gpu: &'static Gpu, address: u64, bytes: usize) -> Memory {
        Memory { gpu, address, bytes }
    }

    /// Memory that holds `values`.
    pub(crate) fn from_slice(gpu: &'static Gpu, values: &[f32]) -> Memory {
        let memory = gpu.stale(values.len(), Dtype::F32);
        gpu.upload(bytemuck::cast_slice(values), &memory);
        memory
    }

    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Whoever gets it next uses it after what was started before, as everything happens on one stream.
        self.gpu.recycle(self.address, self.bytes);
    }
}
