//! `Pool`: the memory of a queue, in blocks from the driver. Free pieces are split for smaller requests, and joined
//! again when returned.

use std::collections::{BTreeMap, BTreeSet};

/// Sizes are rounded up to this; pieces are aligned to it as far as their block is.
const GRAIN: usize = 256;
/// Smaller requests have separate blocks, so that a few numbers that are kept do not hold on to a large block.
const SMALL: usize = 1 << 20;
/// Blocks that the driver is asked for are rounded up to this, the size of a GPU's pages.
const PAGE: usize = 2 << 20;

/// Free memory of a queue, and where its blocks are.
#[derive(Default)]
pub struct Pool {
    small: Area,
    large: Area,
}

/// Blocks for requests of one kind.
#[derive(Default)]
struct Area {
    /// Their bytes by start.
    blocks: BTreeMap<u64, usize>,
    /// Free pieces by start, and by size; neighbours within a block are always joined.
    free: BTreeMap<u64, usize>,
    by_size: BTreeSet<(usize, u64)>,
    /// Bytes in use, and the most since that was last asked.
    used: usize,
    most: usize,
}

impl Pool {
    /// The size of the piece that is taken for `bytes`.
    pub fn rounded(bytes: usize) -> usize {
        bytes.next_multiple_of(GRAIN).max(GRAIN)
    }

    /// The bytes of a block to ask the driver for when there is no room for `bytes`.
    pub fn block(bytes: usize) -> usize {
        bytes.next_multiple_of(PAGE)
    }

    /// Takes `bytes` from the smallest free piece that is large enough.
    pub fn take(&mut self, bytes: usize) -> Option<u64> {
        self.area(bytes).take(bytes)
    }

    /// Adds a block of the driver's, with the first `bytes` of it taken.
    pub fn add(&mut self, start: u64, block: usize, bytes: usize) {
        self.area(bytes).add(start, block, bytes);
    }

    /// Adds a block of the driver's for large pieces.
    pub fn prepare(&mut self, start: u64, block: usize) {
        self.large.add(start, block, 0);
    }

    /// Bytes that large pieces take, and the most that they took since this was last asked.
    pub fn used(&mut self) -> (usize, usize) {
        let used = self.large.used;
        (used, std::mem::replace(&mut self.large.most, used))
    }

    /// Takes back what [`take`](Pool::take) or [`add`](Pool::add) gave.
    pub fn put(&mut self, address: u64, bytes: usize) {
        self.area(bytes).put(address, bytes);
    }

    /// Removes entirely unused blocks from the pool, and returns their start and bytes.
    pub fn release(&mut self) -> Vec<(u64, usize)> {
        [&mut self.small, &mut self.large].into_iter().flat_map(Area::release).collect()
    }

    /// Moves entirely unused blocks to another pool.
    pub fn hand_over(&mut self, to: &mut Pool) {
        for (from, to) in [(&mut self.small, &mut to.small), (&mut self.large, &mut to.large)] {
            from.release().into_iter().for_each(|(start, bytes)| to.add(start, bytes, 0));
        }
    }

    fn area(&mut self, bytes: usize) -> &mut Area {
        if bytes < SMALL { &mut self.small } else { &mut self.large }
    }
}

impl Area {
    /// Adds a block with the first `taken` bytes in use.
    fn add(&mut self, start: u64, block: usize, taken: usize) {
        self.blocks.insert(start, block);
        self.insert(start + taken as u64, block - taken);
        self.use_more(taken);
    }

    fn take(&mut self, bytes: usize) -> Option<u64> {
        let &(size, start) = self.by_size.range((bytes, 0)..).next()?;
        self.remove(start);
        self.insert(start + bytes as u64, size - bytes);
        self.use_more(bytes);
        Some(start)
    }

    fn use_more(&mut self, bytes: usize) {
        self.used += bytes;
        self.most = self.most.max(self.used);
    }

    fn put(&mut self, mut start: u64, mut bytes: usize) {
        self.used -= bytes;
        let before = self.free.range(..start).next_back().map(|(&at, &size)| (at, size));
        if let Some((at, size)) = before.filter(|(at, size)| at + *size as u64 == start)
            && !self.blocks.contains_key(&start)
        {
            self.remove(at);
            (start, bytes) = (at, bytes + size);
        }
        let end = start + bytes as u64;
        if !self.blocks.contains_key(&end)
            && let Some(size) = self.remove(end)
        {
            bytes += size;
        }
        self.insert(start, bytes);
    }

    fn insert(&mut self, start: u64, bytes: usize) {
        if bytes > 0 {
            self.free.insert(start, bytes);
            self.by_size.insert((bytes, start));
        }
    }

    fn remove(&mut self, start: u64) -> Option<usize> {
        let bytes = self.free.remove(&start)?;
        self.by_size.remove(&(bytes, start));
        Some(bytes)
    }

    fn release(&mut self) -> Vec<(u64, usize)> {
        let unused = |(start, bytes): &(&u64, &usize)| self.free.get(*start) == Some(*bytes);
        let blocks: Vec<(u64, usize)> = self.blocks.iter().filter(unused).map(|(&s, &b)| (s, b)).collect();
        for (start, _) in &blocks {
            self.blocks.remove(start);
            self.remove(*start);
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_are_divided_and_joined() {
        let mut pool = Pool::default();
        assert_eq!(pool.take(4 * PAGE), None);
        pool.add(0, 8 * PAGE, 4 * PAGE);
        assert_eq!(pool.take(2 * PAGE), Some(4 * PAGE as u64));
        assert_eq!(pool.take(3 * PAGE), None);
        // A block that lies beside it is another one.
        pool.add(8 * PAGE as u64, 2 * PAGE, 2 * PAGE);
        pool.put(8 * PAGE as u64, 2 * PAGE);
        assert_eq!(pool.take(3 * PAGE), None);
        pool.put(0, 4 * PAGE);
        assert_eq!(pool.release(), [(8 * PAGE as u64, 2 * PAGE)]);
        pool.put(4 * PAGE as u64, 2 * PAGE);
        assert_eq!(pool.take(8 * PAGE), Some(0));
        // The smallest piece that has room.
        pool.put(0, 8 * PAGE);
        assert_eq!(pool.take(5 * PAGE), Some(0));
        assert_eq!(pool.take(2 * PAGE), Some(5 * PAGE as u64));
        pool.put(0, 5 * PAGE);
        assert_eq!(pool.take(PAGE), Some(7 * PAGE as u64));
    }

    #[test]
    fn unused_blocks_go_to_another_pool() {
        let (mut pool, mut other) = (Pool::default(), Pool::default());
        pool.add(0, PAGE, GRAIN);
        pool.add(PAGE as u64, 4 * PAGE, 3 * PAGE);
        pool.add(9 * PAGE as u64, 2 * PAGE, 2 * PAGE);
        pool.put(PAGE as u64, 3 * PAGE);
        pool.hand_over(&mut other);
        assert_eq!((pool.take(4 * PAGE), other.take(4 * PAGE)), (None, Some(PAGE as u64)));
        assert_eq!((pool.take(GRAIN), other.take(GRAIN)), (Some(GRAIN as u64), None));
    }

    proptest! {
        /// Sizes from some bytes to some pages, taken and given back in any order.
        #[test]
        fn nothing_is_given_twice_and_everything_comes_back(
            first in 0usize..8,
            steps in prop::collection::vec((0usize..1 << 16, any::<bool>()), 1..200)
        ) {
            let (mut pool, mut next) = (Pool::default(), ((1 + first) * PAGE) as u64);
            if first > 0 {
                pool.prepare(PAGE as u64, first * PAGE);
            }
            let mut taken: Vec<(u64, usize)> = Vec::new();
            let mut released = 0;
            for (choice, take) in steps {
                if choice % 16 == 0 {
                    released += pool.release().iter().map(|(_, bytes)| bytes).sum::<usize>();
                }
                if take || taken.is_empty() {
                    let bytes = Pool::rounded(1 << (choice % 24));
                    let address = pool.take(bytes).unwrap_or_else(|| {
                        let (start, block) = (next, Pool::block(bytes));
                        next += block as u64; // blocks that touch, as the driver's may
                        pool.add(start, block, bytes);
                        start
                    });
                    let end = address + bytes as u64;
                    prop_assert!(address % GRAIN as u64 == 0);
                    prop_assert!(taken.iter().all(|&(start, size)| end <= start || start + size as u64 <= address));
                    taken.push((address, bytes));
                } else {
                    let (address, bytes) = taken.swap_remove(choice % taken.len());
                    pool.put(address, bytes);
                }
            }
            taken.into_iter().for_each(|(address, bytes)| pool.put(address, bytes));
            released += pool.release().iter().map(|(_, bytes)| bytes).sum::<usize>();
            prop_assert_eq!(pool.used().0, 0);
            prop_assert_eq!(released as u64, next - PAGE as u64);
        }
    }
}
