//! `Bytes`: an array of bytes on a device, such as the pixels of images.

use crate::cuda::Gpu;
use crate::tensor::{Device, Tensor};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Cloning shares the bytes.
#[derive(Clone)]
pub struct Bytes {
    values: Values,
    len: usize,
}

#[derive(Clone)]
enum Values {
    Host(Arc<Vec<u8>>),
    /// Four to each number of a float32 tensor.
    Gpu(Tensor),
}

/// A range of them, as operations read it.
#[derive(Clone, Copy)]
pub enum Pixels<'a> {
    Host(&'a [u8]),
    /// From the first number on.
    Gpu(&'a Tensor),
}

impl Bytes {
    pub fn new(bytes: Vec<u8>) -> Bytes {
        Bytes { len: bytes.len(), values: Values::Host(Arc::new(bytes)) }
    }

    /// A GPU's memory with arbitrary contents, for outputs that are written whole.
    pub(crate) fn empty(gpu: &'static Gpu, len: usize) -> Bytes {
        Bytes { values: Values::Gpu(gpu.empty(&[len.div_ceil(4)])), len }
    }

    /// The tensor in whose memory the bytes of a GPU are.
    pub(crate) fn words(&self) -> &Tensor {
        match &self.values {
            Values::Gpu(x) => x,
            Values::Host(_) => panic!("these bytes are on the processor; copy them with `to`"),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same on `device`: copied where they are not there yet.
    pub fn to(&self, device: Device) -> Bytes {
        let values = match (&self.values, device) {
            (Values::Host(bytes), Device::Cpu) => Values::Host(bytes.clone()),
            (Values::Host(bytes), Device::Gpu(gpu)) => Values::Gpu(gpu.bytes(bytes)),
            (Values::Gpu(x), Device::Gpu(gpu)) if x.device() == Device::Gpu(gpu) => Values::Gpu(x.clone()),
            (Values::Gpu(_), Device::Gpu(gpu)) => Values::Gpu(gpu.bytes(&self.host())),
            (Values::Gpu(_), Device::Cpu) => Values::Host(Arc::new(self.host().into_owned())),
        };
        Bytes { values, len: self.len }
    }

    /// Gives these bytes memory of their own on a GPU, by a copy if they share it.
    pub fn unshare(&mut self) {
        if let Values::Gpu(x) = &mut self.values {
            x.unshare();
        }
    }

    /// The bytes on the processor. Waits for a GPU.
    pub fn host(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Host(bytes) => Cow::Borrowed(bytes),
            Values::Gpu(x) => {
                let Device::Gpu(gpu) = x.device() else { unreachable!("bytes of a GPU are on it") };
                let mut bytes = vec![0; self.len];
                gpu.download_bytes(x, &mut bytes);
                Cow::Owned(bytes)
            }
        }
    }

    /// The `len` bytes that begin at number `start` of a float32 tensor on a GPU, as a view.
    pub fn over(numbers: &Tensor, start: usize, len: usize) -> Bytes {
        Bytes { values: Values::Gpu(numbers.view(start, &[len.div_ceil(4)])), len }
    }

    /// A part of them; on a GPU, which takes all rows at once, the whole.
    pub fn part(&self, range: Range<usize>) -> Pixels<'_> {
        match &self.values {
            Values::Host(bytes) => Pixels::Host(&bytes[range]),
            Values::Gpu(x) => {
                assert_eq!(range, 0..self.len, "a GPU takes all bytes at once");
                Pixels::Gpu(x)
            }
        }
    }
}

impl<'a> Pixels<'a> {
    /// On the processor.
    pub(crate) fn host(self) -> &'a [u8] {
        match self {
            Pixels::Host(bytes) => bytes,
            Pixels::Gpu(_) => panic!("these bytes are on a GPU; copy them with `to`"),
        }
    }

    /// On a GPU.
    pub(crate) fn gpu(self) -> &'a Tensor {
        match self {
            Pixels::Gpu(x) => x,
            Pixels::Host(_) => panic!("these bytes are on the processor; copy them with `to`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::devices;

    #[test]
    fn there_and_back_and_in_the_places_of_numbers() {
        for device in devices() {
            let bytes = Bytes::new(vec![1, 2, 3, 4, 5]).to(device);
            assert_eq!((bytes.len(), &*bytes.host()), (5, &[1, 2, 3, 4, 5][..]));
            if device != Device::Cpu {
                let numbers = Tensor::from_slice(&[3], &[7.0, 1.0, -2.0]).to(device);
                assert_eq!(&*Bytes::over(&numbers, 1, 5).host(), &[0, 0, 128, 63, 0]);
            }
        }
    }
}
