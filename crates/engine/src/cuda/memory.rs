//! `Memory`: a piece of a GPU's memory that returns to where it came from when dropped; `Pinned`: host memory for
//! asynchronous copies to and from a GPU.

use super::gpu::Gpu;
use super::queue::Queue;
use crate::tensor::Dtype;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// Held during driver calls that allocate or free memory (of streams and recordings, too), and while GPUs start what
/// they do together: such calls may wait for all work of all GPUs.
pub(super) static MEMORY_CALLS: Mutex<()> = Mutex::new(());

pub struct Memory {
    queue: Arc<Queue>,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// `bytes` bytes at `address`, which must be of that queue's GPU and nobody else's.
    pub(super) fn new(queue: Arc<Queue>, address: u64, bytes: usize) -> Memory {
        Memory { queue, address, bytes }
    }

    /// Memory that holds `values`.
    pub(crate) fn from_slice(gpu: &'static Gpu, values: &[f32]) -> Memory {
        let memory = gpu.stale(values.len(), Dtype::F32);
        gpu.upload(bytemuck::cast_slice(values), memory.address, memory.bytes);
        memory
    }

    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.queue.gpu()
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
        // Its next user comes after work that was queued before, as a queue works in order.
        self.queue.put(self.address, self.bytes);
    }
}

/// Page-locked host memory.
pub struct Pinned {
    gpu: &'static Gpu,
    start: *mut u8,
    len: usize,
}

// SAFETY: the bytes belong to this value alone.
unsafe impl Send for Pinned {}
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(super) fn new(gpu: &'static Gpu, start: *mut u8, len: usize) -> Pinned {
        Pinned { gpu, start, len }
    }
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` on are this value's, and were written when it was made.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.gpu.unpin(self.start, self.len);
    }
}
