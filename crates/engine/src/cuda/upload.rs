//! `Upload`: bytes on their way to a GPU, which goes on with its work meanwhile.

use super::gpu::{Backend, Gpu};
use super::memory::{Memory, Pinned};
use super::queue::{Queue, lock};
use super::side::{Point, Side};
use crate::tensor::{Device, Dtype, Tensor};
use std::ops::Range;

/// Bytes in pinned memory, which are copied to a buffer on a GPU while it goes on with its work.
pub struct Upload {
    /// None once it has been given back.
    buffers: Option<Buffers>,
    /// Bytes that are received.
    block: usize,
}

/// What an upload needs, kept for the next one: pinned memory is slow to allocate.
pub(super) struct Buffers {
    pinned: Pinned,
    /// The buffer on the GPU: float32 numbers that stand for the bytes.
    room: Tensor,
    /// Reached when the bytes are in the buffer, and when they have been copied from there.
    arrived: Option<Point>,
    received: Option<Point>,
}

/// Inputs begin at multiples of this many bytes.
pub const ALIGNED: usize = 256;

impl Gpu {
    /// Starts to copy `len` bytes, a multiple of [`ALIGNED`], that `fill` writes, and does not wait. The copy goes to
    /// the queue that this thread has entered, so that acting does not wait for a batch, or else to the one for
    /// batches.
    pub fn upload_ahead(&'static self, len: usize, fill: impl FnOnce(&mut [u8])) -> Upload {
        self.upload_parts(len, len, std::slice::from_ref(&(0..len)), fill, |_| ())
    }

    /// The same, but only `parts` of the `len` bytes are copied. `then` queues work on the buffer after the copies. The
    /// first `block` bytes of it are received.
    pub(super) fn upload_parts(
        &'static self,
        block: usize,
        len: usize,
        parts: &[Range<usize>],
        fill: impl FnOnce(&mut [u8]),
        mut then: impl FnMut(&Tensor),
    ) -> Upload {
        assert!(len.is_multiple_of(ALIGNED), "{len} bytes");
        let free = {
            let mut free = lock(&self.uploads);
            let at = free.iter().position(|buffers| buffers.pinned.len() == len);
            at.map(|at| free.swap_remove(at))
        };
        let mut buffers = free.unwrap_or_else(|| self.upload_buffers(len));
        fill(&mut buffers.pinned);
        let to = buffers.room.address();
        let mut send = || {
            buffers.received.take().inspect(Point::precede);
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let (bytes, to) = (&buffers.pinned[part.clone()], to + part.start as u64);
                // SAFETY: the buffer is large enough, and its last reader comes first; nobody writes to pinned memory
                // before the buffers are given back, which is after the copy has arrived.
                unsafe {
                    match &self.backend {
                        Backend::Cuda(cuda) => self.done(cuda.upload_later(bytes, to, self.queue().stream())),
                        Backend::Emulator(_) => {
                            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len());
                        }
                    }
                }
            }
            then(&buffers.room);
            buffers.arrived = Some(self.point());
        };
        match Queue::entered(self) {
            Some(queue) => {
                queue.expect_live();
                send();
            }
            None => self.aside(Side::Send, send),
        }
        Upload { buffers: Some(buffers), block }
    }

    fn upload_buffers(&'static self, len: usize) -> Buffers {
        // Fresh memory: queued work may still use recycled memory, and copies do not wait for that.
        let main = self.main();
        let memory = Memory::new(main.clone(), main.fresh(len, len), len);
        let room = Tensor::on_gpu(&[len / Dtype::F32.bytes()], Dtype::F32, memory);
        Buffers { pinned: self.pinned(len), room, arrived: None, received: None }
    }
}

impl Upload {
    /// Overwrites `to` with the bytes once they have arrived, before any work that this thread starts next.
    pub fn receive(&mut self, to: &Tensor) {
        assert_eq!(to.len() * to.dtype().bytes(), self.block, "bytes that are received where so many were sent");
        let buffers = self.buffers.as_mut().expect("there until it is dropped");
        let Device::Gpu(gpu) = to.device() else { panic!("uploads are for tensors on a GPU") };
        buffers.arrived.iter().for_each(Point::precede);
        gpu.copy(&buffers.room.view(0, to.shape()), to, 0);
        buffers.received = Some(gpu.point());
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(mut buffers) = self.buffers.take()
            && let Device::Gpu(gpu) = buffers.room.device()
        {
            // Waits, as it may never have been received. After a failure, which may be unwinding, the buffers are
            // leaked.
            match buffers.arrived.take().map_or(Ok(()), |arrived| arrived.reached()) {
                Ok(()) => lock(&gpu.uploads).push(buffers),
                Err(_) => std::mem::forget(buffers),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::test_gpu;

    #[test]
    fn uploads_arrive_in_the_place_that_receives_them() {
        let Some(gpu) = test_gpu() else { return };
        let to = Tensor::zeros(&[2 * ALIGNED / 4]).to(Device::Gpu(gpu));
        for value in [3.0f32, 5.0] {
            let fill = |bytes: &mut [u8]| bytemuck::cast_slice_mut::<u8, f32>(bytes).fill(value);
            let mut upload = gpu.upload_ahead(2 * ALIGNED, fill);
            upload.receive(&to);
            drop(upload); // its buffers may be used again at once
            assert!(to.host().data().iter().all(|&x| x == value));
        }
    }
}
