//! `Transfer`: tensors and bytes that go to a GPU together, by one copy, into one block of memory.

use engine::cuda::{ALIGNED, Upload};
use engine::{Bytes, Device, Tensor};

/// Tensors and bytes that go to a GPU together.
pub trait Transfer: Sized {
    /// Applies `f` to all tensors and bytes, always in the same order.
    fn map(&self, f: &mut impl Map) -> Self;

    /// The same on `device`.
    fn to(&self, device: Device) -> Self {
        self.map(&mut Moved(device))
    }

    /// The number of bytes that `write` writes.
    fn size(&self) -> usize {
        let mut size = Written { out: None, at: 0, bytes: None };
        self.map(&mut size);
        size.at
    }

    /// Writes all parts, which must be on the processor, one after the other.
    fn write(&self, out: &mut [u8]) {
        self.map(&mut Written { out: Some(out), at: 0, bytes: None });
    }

    /// Writes the tensors, and leaves the places of bytes as they are.
    fn write_tensors(&self, out: &mut [u8]) {
        self.map(&mut Written { out: Some(out), at: 0, bytes: Some(vec![]) });
    }

    /// The bytes, with the places where `write` puts them.
    fn bytes(&self) -> Vec<(usize, Bytes)> {
        let mut found = Written { out: None, at: 0, bytes: Some(vec![]) };
        self.map(&mut found);
        found.bytes.unwrap_or_default()
    }

    /// The same shapes as views of `block`, a float32 tensor on a GPU, in which values lie as `write` puts them.
    fn over(&self, block: &Tensor) -> Self {
        self.map(&mut Views { block, at: 0 })
    }

    /// Starts to copy everything to a GPU, beside its other work.
    fn send(&self, device: Device) -> Option<Upload> {
        match device {
            Device::Cpu => None,
            Device::Gpu(gpu) => Some(gpu.upload_ahead(self.size(), |bytes| self.write(bytes))),
        }
    }
}

/// What [`Transfer::map`] does with each part.
pub trait Map {
    fn tensor(&mut self, x: &Tensor) -> Tensor;
    fn bytes(&mut self, x: &Bytes) -> Bytes;
}

/// Moves parts to another device.
struct Moved(Device);

impl Map for Moved {
    fn tensor(&mut self, x: &Tensor) -> Tensor {
        x.to(self.0)
    }

    fn bytes(&mut self, x: &Bytes) -> Bytes {
        x.to(self.0)
    }
}

/// Where the part that begins at `at` ends, and the next one begins.
fn next(at: usize, bytes: usize) -> usize {
    at + bytes.next_multiple_of(ALIGNED)
}

/// Writes parts one after the other, or only counts their bytes.
struct Written<'a> {
    out: Option<&'a mut [u8]>,
    at: usize,
    /// If given, collects the bytes with their offsets, instead of writing them.
    bytes: Option<Vec<(usize, Bytes)>>,
}

impl Written<'_> {
    fn put(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        if let Some(out) = &mut self.out {
            write(&mut out[self.at..self.at + len]);
        }
        self.at = next(self.at, len);
    }
}

impl Map for Written<'_> {
    fn tensor(&mut self, x: &Tensor) -> Tensor {
        self.put(4 * x.len(), |out| {
            let numbers = out.as_chunks_mut().0;
            numbers.iter_mut().zip(x.data()).for_each(|(out, x)| *out = x.to_le_bytes());
        });
        x.clone()
    }

    fn bytes(&mut self, x: &Bytes) -> Bytes {
        match &mut self.bytes {
            None => self.put(x.len(), |out| out.copy_from_slice(&x.host())),
            Some(left) => {
                left.push((self.at, x.clone()));
                self.at = next(self.at, x.len());
            }
        }
        x.clone()
    }
}

struct Views<'a> {
    block: &'a Tensor,
    at: usize,
}

impl Map for Views<'_> {
    fn tensor(&mut self, x: &Tensor) -> Tensor {
        let view = self.block.view(self.at / 4, x.shape());
        self.at = next(self.at, 4 * x.len());
        view
    }

    fn bytes(&mut self, x: &Bytes) -> Bytes {
        let view = Bytes::over(self.block, self.at / 4, x.len());
        self.at = next(self.at, x.len());
        view
    }
}
