//! `Store`: the chunks in memory, their links and streams, without any idea of items' order.

use crate::chunk::{Chunk, Schema};
use std::collections::BTreeMap;
use std::ops::Range;

/// A step's place: its chunk and its index therein.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Place {
    pub chunk: u64,
    pub index: usize,
}

/// An open stream, to which a worker may add.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The chunk that takes the next step. It may be empty.
    pub tail: u64,
    /// Where the next item will start.
    pub start: Place,
    /// Steps so far; counting stops at the sequence length.
    pub steps: usize,
    /// Items so far.
    pub inserted: u64,
}

/// The chunks and open streams in memory.
#[derive(Default)]
pub struct Store {
    pub chunks: BTreeMap<u64, Chunk>,
    /// By worker.
    pub streams: BTreeMap<usize, Stream>,
    /// Steps in all chunks.
    pub steps: usize,
}

impl Store {
    /// Up to `count` steps from `place` on, as parts of successive chunks.
    pub fn span(&self, place: Place, count: usize) -> Vec<(&Chunk, Range<usize>)> {
        let (mut next, mut from, mut left) = (place.chunk, place.index, count);
        let mut parts = vec![];
        while left > 0
            && let Some(chunk) = self.chunks.get(&next)
        {
            let until = chunk.len().min(from.saturating_add(left));
            if from < until {
                parts.push((chunk, from..until));
                left -= until - from;
            } else if from > chunk.len() {
                break;
            }
            (next, from) = (chunk.succ, 0);
        }
        parts
    }

    /// Exactly `count` steps from `place` on, or nothing.
    pub fn sequence(&self, place: Place, count: usize) -> Option<Vec<(&Chunk, Range<usize>)>> {
        let parts = self.span(place, count);
        (parts.iter().map(|(_, range)| range.len()).sum::<usize>() == count).then_some(parts)
    }

    /// The place up to `count` steps before `place` in the stream, and how many steps that is.
    pub fn back(&self, place: Place, count: usize) -> (Place, usize) {
        let (mut place, mut left) = (place, count);
        loop {
            let step = place.index.min(left);
            place.index -= step;
            left -= step;
            let pred = self.chunks.get(&place.chunk).map_or(0, |chunk| chunk.pred);
            match self.chunks.get(&pred) {
                Some(chunk) if left > 0 => place = Place { chunk: pred, index: chunk.len() },
                _ => return (place, count - left),
            }
        }
    }

    /// Adds an empty chunk.
    pub fn open(&mut self, id: u64, pred: u64, worker: usize, schema: &Schema, size: usize) {
        let mut chunk = Chunk::new(id, pred, worker, schema);
        chunk.reserve(size);
        self.chunks.insert(id, chunk);
    }

    /// Frees chunk `id` and its successors, as long as no item starts there, none will start there
    /// and no earlier chunk leads there.
    pub fn release(&mut self, id: u64) {
        let mut next = id;
        while let Some(chunk) = self.chunks.get(&next) {
            let open = |stream: &Stream| stream.start.chunk == next || stream.tail == next;
            if chunk.items > 0 || chunk.pred != 0 || self.streams.values().any(open) {
                return;
            }
            self.steps -= chunk.len();
            let succ = chunk.succ;
            self.chunks.remove(&next);
            if let Some(chunk) = self.chunks.get_mut(&succ) {
                chunk.pred = 0;
            }
            next = succ;
        }
    }

    /// Cuts links that are not mutual or run backwards in time, as damaged folders may have them.
    pub fn cut_false_links(&mut self) {
        let fits = |a: &Chunk, b: &Chunk| {
            let ordered = a.order.last().zip(b.order.first()).is_none_or(|(a, b)| a < b);
            a.succ == b.id && b.pred == a.id && ordered
        };
        let linked = |a: u64, b: u64| match (self.chunks.get(&a), self.chunks.get(&b)) {
            (Some(a), Some(b)) => fits(a, b),
            _ => false,
        };
        let cuts: Vec<_> = self.chunks.values().map(|c| (c.id, linked(c.pred, c.id), linked(c.id, c.succ))).collect();
        for (id, pred, succ) in cuts {
            let Some(chunk) = self.chunks.get_mut(&id) else { continue };
            chunk.pred *= pred as u64;
            chunk.succ *= succ as u64;
        }
    }
}
