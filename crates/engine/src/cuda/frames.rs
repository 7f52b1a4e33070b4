//! `Frames`: a cache of images on a GPU, so that only those images of a batch are copied that are not there yet.

use super::gpu::Gpu;
use super::launch::Grid;
use super::memory::Memory;
use super::queue::Queue;
use super::side::Point;
use super::upload::{ALIGNED, Upload};
use crate::tensor::{Dtype, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// Identifies a step, and so its images.
pub type StepId = [u8; 20];

/// A cache of some steps' images on a GPU; the oldest are replaced first.
pub struct Frames {
    gpu: &'static Gpu,
    /// Bytes of a step's image, and the memory for all slots, for each key.
    stores: Vec<(usize, Tensor)>,
    slots: Slots,
    /// Reached when the last batch has been assembled.
    last: Option<Point>,
}

/// Which step is in which slot.
struct Slots {
    by_id: HashMap<StepId, usize>,
    ids: Vec<Option<StepId>>,
    /// For each slot, the last batch that used it and, if its images were sent with that batch, their index among those
    /// sent.
    used: Vec<(u64, Option<usize>)>,
    batch: u64,
    /// The slot to fill next, unless the current batch uses it.
    next: usize,
}

/// Where the images of a batch come from, and which slots they fill.
#[derive(Default)]
struct Plan {
    /// For each step, the slot with its images, or -1 - i if they are the i-th that are sent.
    source: Vec<i32>,
    /// For each step, the slot to fill with its images, or -1.
    slot: Vec<i32>,
    /// The steps whose images are sent.
    sent: Vec<usize>,
}

/// The part of a batch's block that holds one key's images [n, bytes].
pub struct Images<'a> {
    /// Its offset in the block.
    pub at: usize,
    pub pixels: &'a [u8],
}

/// How one key's images of a batch are sent.
struct Key<'a> {
    /// Of one step's image.
    bytes: usize,
    store: &'a Tensor,
    images: &'a Images<'a>,
    /// The offset of those that are sent.
    sent: usize,
}

impl Frames {
    /// Room for `count` steps with one image of `bytes` bytes per key. None if sizes are not multiples of four, or the
    /// GPU lacks the memory.
    pub fn new(gpu: &'static Gpu, count: usize, bytes: &[usize]) -> Option<Frames> {
        let odd = bytes.iter().any(|bytes| *bytes == 0 || !bytes.is_multiple_of(4));
        if count == 0 || bytes.is_empty() || odd || i32::try_from(count).is_err() {
            return None;
        }
        let store = |&bytes: &usize| {
            // Fresh memory, as the sending queue uses it, without waiting for work of other queues on recycled memory.
            let (queue, total) = (gpu.main(), count.checked_mul(bytes)?.next_multiple_of(ALIGNED));
            let memory = Memory::new(queue.clone(), queue.try_fresh(total, total).ok()?, total);
            Some((bytes, Tensor::on_gpu(&[total / 4], Dtype::F32, memory)))
        };
        let stores = bytes.iter().map(store).collect::<Option<_>>()?;
        Some(Frames { gpu, stores, slots: Slots::new(count), last: None })
    }

    /// Sends a block of `len` bytes, a multiple of [`ALIGNED`], while the GPU goes on with its work. `fill` writes all
    /// of it except the `images`, one part for each key in order, of the steps `ids`. Only images that are not on the
    /// GPU yet are copied.
    ///
    /// Panics if the number, the sizes or the order of the images in the block are wrong; and within another queue, as
    /// all batches are assembled on the sending one.
    pub fn send(&mut self, len: usize, images: &[Images], ids: &[StepId], fill: impl FnOnce(&mut [u8])) -> Upload {
        let n = ids.len();
        assert!(Queue::entered(self.gpu).is_none(), "batches with images that are kept are sent from the main queue");
        assert_eq!(images.len(), self.stores.len(), "as many images as keys");
        let mut free = 0;
        for (Images { at, pixels }, (bytes, _)) in images.iter().zip(&self.stores) {
            assert_eq!(pixels.len(), n * bytes, "the images of {n} steps");
            assert!(at.is_multiple_of(ALIGNED) && *at >= free && at + pixels.len() <= len, "images at {at} of {len}");
            free = at + pixels.len();
        }
        let plan = self.slots.plan(ids);
        let column = (4 * n).next_multiple_of(ALIGNED);
        let (source, slot) = (len, len + column);
        let mut end = len + 2 * column;
        let mut keys = Vec::new();
        for ((bytes, store), images) in self.stores.iter().zip(images) {
            keys.push(Key { bytes: *bytes, store, images, sent: end });
            end += (n * bytes).next_multiple_of(ALIGNED);
        }

        // What is copied: the block without its images, the plan, and the new images.
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut from = 0;
        for key in &keys {
            parts.push(from..key.images.at);
            from = key.images.at + (n * key.bytes).next_multiple_of(ALIGNED);
        }
        parts.push(from..len + 2 * column);
        parts.extend(keys.iter().map(|key| key.sent..key.sent + plan.sent.len() * key.bytes));

        let write = |out: &mut [u8]| {
            fill(&mut out[..len]);
            for (at, numbers) in [(source, &plan.source), (slot, &plan.slot)] {
                out[at..at + 4 * n].copy_from_slice(bytemuck::cast_slice(numbers));
            }
            for &Key { bytes, images, sent, .. } in &keys {
                for (to, &step) in out[sent..].chunks_exact_mut(bytes).zip(&plan.sent) {
                    to.copy_from_slice(&images.pixels[step * bytes..(step + 1) * bytes]);
                }
            }
        };
        let mut last = None;
        let upload = self.gpu.upload_parts(len, end, &parts, write, |room| {
            let view = |at: usize, bytes: usize| room.view(at / 4, &[bytes / 4]);
            let (source, slot) = (view(source, 4 * n), view(slot, 4 * n));
            for &Key { bytes, store, images, sent } in &keys {
                let (sent, out, words) = (view(sent, n * bytes), view(images.at, n * bytes), bytes / 4);
                let grid = Grid::elements(n * words);
                self.gpu.launch("copies", "frames", grid, &[&sent, store, &source, &slot, &n, &words, &out]);
            }
            last = Some(self.gpu.point());
        });
        self.last = last;
        upload
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // Waits, as the memory returns to the main queue, which does not wait for the sending one. A failure was
        // reported before.
        self.last.take().map_or(Ok(()), |last| last.reached()).ok();
    }
}

impl Slots {
    fn new(count: usize) -> Slots {
        let (by_id, ids, used) = (HashMap::new(), vec![None; count], vec![(0, None); count]);
        Slots { by_id, ids, used, batch: 0, next: 0 }
    }

    fn plan(&mut self, ids: &[StepId]) -> Plan {
        self.batch += 1;
        let mut plan = Plan::default();
        // Steps that are sent but found no slot, with their index among those sent.
        let mut passing: HashMap<StepId, usize> = HashMap::new();
        for (step, id) in ids.iter().enumerate() {
            let (mut source, mut filled) = (-1, -1);
            if let Some(&slot) = self.by_id.get(id) {
                // Images sent with this batch are not in their slot yet.
                let fresh = self.used[slot].1.filter(|_| self.used[slot].0 == self.batch);
                source = fresh.map_or(slot as i32, |i| -1 - i as i32);
                self.used[slot] = (self.batch, fresh);
            } else if let Some(&i) = passing.get(id) {
                source -= i as i32;
            } else {
                let i = plan.sent.len();
                source -= i as i32;
                plan.sent.push(step);
                match self.free() {
                    Some(slot) => {
                        self.ids[slot].replace(*id).and_then(|old| self.by_id.remove(&old));
                        self.by_id.insert(*id, slot);
                        self.used[slot] = (self.batch, Some(i));
                        filled = slot as i32;
                    }
                    None => drop(passing.insert(*id, i)),
                }
            }
            plan.source.push(source);
            plan.slot.push(filled);
        }
        plan
    }

    /// The next slot that this batch does not use.
    fn free(&mut self) -> Option<usize> {
        let count = self.ids.len();
        let slot = (0..count).map(|i| (self.next + i) % count).find(|&slot| self.used[slot].0 != self.batch)?;
        self.next = (slot + 1) % count;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::test_gpu;
    use crate::tensor::Device;

    fn id(step: usize) -> StepId {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&step.to_le_bytes());
        id
    }

    /// The images of a step: bytes that tell step and key.
    fn image(step: usize, key: usize, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (step * 31 + key * 7 + i) as u8).collect()
    }

    /// Batches of eight steps out of twenty, some of them twice, with room for `count`.
    fn batches(count: usize) {
        let Some(gpu) = test_gpu() else { return };
        let (bytes, n) = ([12, 260], 8);
        let mut frames = Frames::new(gpu, count, &bytes).unwrap();
        let at = [ALIGNED, 2 * ALIGNED];
        let len = 2 * ALIGNED + (n * bytes[1]).next_multiple_of(ALIGNED) + ALIGNED;
        let block = Tensor::zeros(&[len / 4]).to(Device::Gpu(gpu));
        for batch in 0..30 {
            let steps: Vec<usize> = (0..n).map(|i| (batch * 5 + i * i * (batch % 3 + 1)) % 20).collect();
            let pixels = [0, 1].map(|key| steps.iter().flat_map(|&s| image(s, key, bytes[key])).collect::<Vec<u8>>());
            let images = [0, 1].map(|key| Images { at: at[key], pixels: &pixels[key] });
            let ids: Vec<StepId> = steps.iter().map(|&step| id(step)).collect();
            let mut upload = frames.send(len, &images, &ids, |out| {
                out[..ALIGNED].fill(batch as u8);
                out[len - ALIGNED..].fill(batch as u8 + 100);
            });
            upload.receive(&block);
            let host = block.host();
            let got: &[u8] = bytemuck::cast_slice(host.data());
            assert!(got[..ALIGNED].iter().all(|&x| x == batch as u8));
            assert!(got[len - ALIGNED..].iter().all(|&x| x == batch as u8 + 100));
            for key in [0, 1] {
                assert_eq!(
                    &got[at[key]..at[key] + n * bytes[key]],
                    &pixels[key][..],
                    "batch {batch}, room for {count}"
                );
            }
        }
    }

    #[test]
    fn batches_are_whole_whatever_is_there_already() {
        [1, 3, 8, 11, 40].into_iter().for_each(batches);
    }

    #[test]
    fn only_what_is_new_is_sent() {
        let mut slots = Slots::new(6);
        let mut sent = |steps: &[usize]| slots.plan(&steps.iter().map(|&step| id(step)).collect::<Vec<_>>()).sent;
        assert_eq!(sent(&[1, 2, 1, 3]), [0, 1, 3]);
        assert_eq!(sent(&[3, 2, 4, 4]), [2]);
        assert_eq!(sent(&[5, 6, 7, 2]), [0, 1, 2]); // 7 takes the place of 1, which came first
        assert_eq!(sent(&[2, 3, 4, 1]), [3]); // and this one that of 5, as 2 to 4 are in use
        assert_eq!(sent(&[6, 7, 5, 1]), [2]);
    }

    #[test]
    fn odd_sizes_and_no_room_are_refused() {
        let Some(gpu) = test_gpu() else { return };
        assert!(Frames::new(gpu, 10, &[12, 27]).is_none());
        assert!(Frames::new(gpu, 0, &[12]).is_none() && Frames::new(gpu, 3, &[]).is_none());
    }
}
