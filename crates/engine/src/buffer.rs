//! `Buffer`: aligned float storage that returns to a pool when dropped, so that a training step reuses the
//! memory of the step before.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// One cache line: kernels load whole vectors from the start of every buffer.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Free buffers by their number of lines.
static POOL: Mutex<BTreeMap<usize, Vec<Vec<Line>>>> = Mutex::new(BTreeMap::new());

/// `len` floats, aligned to 64 bytes.
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// A buffer with arbitrary contents, for outputs that are written whole.
    pub fn stale(len: usize) -> Self {
        let count = len.div_ceil(16);
        let pooled = POOL.lock().expect("no panic while the pool is locked").get_mut(&count).and_then(Vec::pop);
        let lines = pooled.unwrap_or_else(|| vec![Line([0.0; 16]); count]);
        Buffer { lines, len }
    }

    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::stale(len);
        buffer.fill(0.0);
        buffer
    }

    pub fn from_slice(xs: &[f32]) -> Self {
        let mut buffer = Self::stale(xs.len());
        buffer.copy_from_slice(xs);
        buffer
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if !lines.is_empty()
            && let Ok(mut pool) = POOL.lock()
        {
            pool.entry(lines.len()).or_default().push(lines);
        }
    }
}

/// Gives pooled memory back to the system, for instance between agents of different sizes.
pub fn release_pool() {
    POOL.lock().expect("no panic while the pool is locked").clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_memory_is_reused_and_aligned() {
        let a = Buffer::zeros(100_003);
        let address = a.as_ptr();
        assert_eq!(address as usize % 64, 0);
        drop(a);
        let b = Buffer::stale(100_001); // same number of cache lines
        assert_eq!(b.as_ptr(), address);
        assert_eq!(b.len(), 100_001);
    }
}
