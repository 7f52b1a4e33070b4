//! Which stored sequence is sampled next: uniform, prioritized, recency, and mixtures of them.

use crate::rng::Draws;
use crate::{Fracs, Prio};
use anyhow::{Result, ensure};
use std::ops::Range;

/// What a selector drew.
pub struct Pick {
    pub item: u64,
    /// Drawn by priority, so that `zero_on_sample` applies.
    pub prioritized: bool,
}

/// Draws items. Items are numbered in the order in which they arrive and leave in that order, so
/// the live ones are always a range; this is what makes every selector small.
pub trait Selector: Send {
    /// Adds `item`, one more than the last; `priority` matters to prioritized selection only.
    fn insert(&mut self, item: u64, priority: f64);
    /// Removes `item`, the oldest.
    fn delete(&mut self, item: u64);
    /// Draws one item; there must be one.
    fn sample(&self, draws: &mut Draws) -> Pick;
    /// Changes the priority of a live item.
    fn prioritize(&mut self, _item: u64, _priority: f64) {}
    /// Leaves of the sample tree.
    fn slots(&self) -> usize {
        0
    }
    /// Makes the sample tree, before its first item, as large as an earlier one of `slots` leaves: a resumed run must use
    /// as many, so that sums round alike.
    fn reserve(&mut self, _slots: usize) {}
}

/// All items are equally likely.
#[derive(Default)]
pub struct Uniform {
    live: Range<u64>,
}

impl Selector for Uniform {
    fn insert(&mut self, item: u64, _priority: f64) {
        grow(&mut self.live, item);
    }

    fn delete(&mut self, item: u64) {
        self.live.start = item + 1;
    }

    fn sample(&self, draws: &mut Draws) -> Pick {
        let item = self.live.start + draws.below(self.live.end - self.live.start);
        Pick { item, prioritized: false }
    }
}

/// Newer items more often: an item of age a (0 the newest) in proportion to (a + 1)^-recexp. While
/// fewer items than the capacity are there, the curve is squeezed to their number.
pub struct Recency {
    live: Range<u64>,
    /// Cumulative weights over the ages, one for each unit of capacity.
    cumulative: Vec<f64>,
}

impl Recency {
    pub fn new(recexp: f64, capacity: usize) -> Result<Self> {
        ensure!(recexp >= 0.0 && recexp.is_finite(), "replay.recexp is {recexp}; give a number from 0 up");
        let mut sum = 0.0;
        let weights = (0..capacity).map(|age| (age as f64 + 1.0).powf(-recexp));
        let cumulative = weights.map(|w| (sum += w, sum).1).collect();
        Ok(Recency { live: 0..0, cumulative })
    }
}

impl Selector for Recency {
    fn insert(&mut self, item: u64, _priority: f64) {
        grow(&mut self.live, item);
    }

    fn delete(&mut self, item: u64) {
        self.live.start = item + 1;
    }

    fn sample(&self, draws: &mut Draws) -> Pick {
        let ages = self.cumulative.len();
        let target = draws.unit() * self.cumulative.last().copied().unwrap_or(0.0);
        let mut age = self.cumulative.partition_point(|&c| c <= target).min(ages - 1) as u64;
        let count = self.live.end - self.live.start;
        if count < ages as u64 {
            age = (age as u128 * count as u128 / ages as u128) as u64;
        }
        Pick { item: self.live.end - 1 - age.min(count - 1), prioritized: false }
    }
}

/// In proportion to the priority; infinite ones come first, and if all are zero every item is equally likely.
///
/// A binary tree of sums over a ring of leaves. Every inner node is the sum of its two children,
/// computed anew on each change, so that nothing drifts and equal leaves give equal trees.
pub struct Prioritized {
    live: Range<u64>,
    /// Node 1 is the root, node n has the children 2n and 2n + 1, leaves start at `finite.len() / 2`.
    finite: Vec<f64>,
    /// How many infinite leaves lie below each node.
    infinite: Vec<u32>,
}

impl Default for Prioritized {
    fn default() -> Self {
        Prioritized::with_slots(2)
    }
}

impl Prioritized {
    /// An empty one; `slots` is a power of two.
    fn with_slots(slots: usize) -> Self {
        Prioritized { live: 0..0, finite: vec![0.0; 2 * slots], infinite: vec![0; 2 * slots] }
    }

    fn leaf(&self, item: u64) -> usize {
        self.slots() + (item as usize & (self.slots() - 1))
    }

    fn set(&mut self, item: u64, priority: f64) {
        let mut node = self.leaf(item);
        let infinite = priority == f64::INFINITY;
        self.infinite[node] = infinite as u32;
        self.finite[node] = if infinite { 0.0 } else { priority };
        while node > 1 {
            node /= 2;
            self.finite[node] = self.finite[2 * node] + self.finite[2 * node + 1];
            self.infinite[node] = self.infinite[2 * node] + self.infinite[2 * node + 1];
        }
    }

    fn double(&mut self) {
        let mut larger = Prioritized::with_slots(2 * self.slots());
        for item in self.live.clone() {
            let leaf = self.leaf(item);
            larger.insert(item, if self.infinite[leaf] > 0 { f64::INFINITY } else { self.finite[leaf] });
        }
        *self = larger;
    }

    /// The item whose leaf this is.
    fn item(&self, leaf: usize) -> u64 {
        let mask = self.slots() as u64 - 1;
        self.live.start + ((leaf as u64).wrapping_sub(self.live.start) & mask)
    }
}

impl Selector for Prioritized {
    fn insert(&mut self, item: u64, priority: f64) {
        if self.live.end - self.live.start == self.slots() as u64 {
            self.double();
        }
        grow(&mut self.live, item);
        self.set(item, priority);
    }

    fn delete(&mut self, item: u64) {
        self.set(item, 0.0);
        self.live.start = item + 1;
    }

    fn sample(&self, draws: &mut Draws) -> Pick {
        let slots = self.slots();
        let mut node = 1;
        if self.infinite[1] > 0 {
            let mut rank = draws.below(self.infinite[1] as u64) as u32;
            while node < slots {
                node *= 2;
                if rank >= self.infinite[node] {
                    rank -= self.infinite[node];
                    node += 1;
                }
            }
        } else if self.finite[1] > 0.0 {
            let mut target = draws.unit() * self.finite[1];
            while node < slots {
                node *= 2;
                // Rounding may carry the target past the last positive leaf: never follow it to a zero.
                if target >= self.finite[node] && self.finite[node + 1] > 0.0 {
                    target -= self.finite[node];
                    node += 1;
                }
            }
        } else {
            let item = self.live.start + draws.below(self.live.end - self.live.start);
            return Pick { item, prioritized: true };
        }
        Pick { item: self.item(node), prioritized: true }
    }

    fn prioritize(&mut self, item: u64, priority: f64) {
        self.set(item, priority);
    }

    fn slots(&self) -> usize {
        self.finite.len() / 2
    }

    fn reserve(&mut self, slots: usize) {
        *self = Prioritized::with_slots(slots.next_power_of_two().max(2));
    }
}

/// One of several selectors, drawn anew for each item by fixed fractions.
pub struct Mixture {
    parts: Vec<(f64, Box<dyn Selector>)>,
}

impl Mixture {
    pub fn new(fracs: &Fracs, recexp: f64, capacity: usize) -> Result<Self> {
        let Fracs { uniform, priority, recency } = *fracs;
        let sum = uniform + priority + recency;
        ensure!(
            [uniform, priority, recency].iter().all(|f| (0.0..=1.0).contains(f)) && (sum - 1.0).abs() < 1e-6,
            "replay.fracs are uniform {uniform}, priority {priority}, recency {recency}; give fractions that sum to 1"
        );
        let mut parts: Vec<(f64, Box<dyn Selector>)> = vec![];
        if priority > 0.0 {
            parts.push((priority, Box::new(Prioritized::default())));
        }
        if recency > 0.0 {
            parts.push((recency, Box::new(Recency::new(recexp, capacity)?)));
        }
        if uniform > 0.0 {
            parts.push((uniform, Box::new(Uniform::default())));
        }
        Ok(Mixture { parts })
    }
}

impl Selector for Mixture {
    fn insert(&mut self, item: u64, priority: f64) {
        self.parts.iter_mut().for_each(|(_, part)| part.insert(item, priority));
    }

    fn delete(&mut self, item: u64) {
        self.parts.iter_mut().for_each(|(_, part)| part.delete(item));
    }

    fn sample(&self, draws: &mut Draws) -> Pick {
        let mut target = draws.unit();
        let last = self.parts.len() - 1;
        for (frac, part) in &self.parts[..last] {
            if target < *frac {
                return part.sample(draws);
            }
            target -= frac;
        }
        self.parts[last].1.sample(draws)
    }

    fn prioritize(&mut self, item: u64, priority: f64) {
        self.parts.iter_mut().for_each(|(_, part)| part.prioritize(item, priority));
    }

    fn slots(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.slots()).max().unwrap_or(0)
    }

    fn reserve(&mut self, slots: usize) {
        self.parts.iter_mut().for_each(|(_, part)| part.reserve(slots));
    }
}

/// Extends the live range by `item`; the first item sets where it starts.
fn grow(live: &mut Range<u64>, item: u64) {
    if live.is_empty() {
        live.start = item;
    }
    live.end = item + 1;
}

impl Prio {
    /// The priority of a sequence from those of its steps, already raised to the exponent:
    /// `maxfrac` of the largest and the rest of the mean.
    pub fn aggregate(&self, powers: &[f64]) -> f64 {
        let mean = powers.iter().sum::<f64>() / powers.len() as f64;
        let max = powers.iter().copied().fold(0.0, f64::max);
        // Infinity times zero is not a number: leave out what has no weight.
        match self.maxfrac {
            0.0 => mean,
            1.0 => max,
            frac => frac * max + (1.0 - frac) * mean,
        }
    }

    /// One step's priority under the exponent.
    pub fn power(&self, priority: f32) -> f64 {
        if self.exponent == 1.0 { priority as f64 } else { (priority as f64).powf(self.exponent) }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let Prio { exponent, maxfrac, initial, .. } = *self;
        ensure!(exponent >= 0.0 && exponent.is_finite(), "replay.prio.exponent is {exponent}; give a number from 0 up");
        ensure!((0.0..=1.0).contains(&maxfrac), "replay.prio.maxfrac is {maxfrac}; give a number from 0 to 1");
        ensure!(initial >= 0.0, "replay.prio.initial is {initial}; give a number from 0 up, or inf");
        Ok(())
    }
}
