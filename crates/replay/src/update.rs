//! What training writes back into the replay: fresh latents and priorities.

use crate::Replay;
use crate::chunk::NO_ITEM;
use crate::selectors::Selector;
use crate::store::Place;
use anyhow::{Context, Result, bail, ensure};
use spaces::{Array, Data, Record, STEPID};

impl Replay {
    /// Overwrites stored values: `stepid` uint8 [B, T, 20] as sampled, of which each row's first
    /// says where its T successive steps lie; `priority` float32 [B, T], if any; and any stored
    /// keys [B, T, …]. Rows whose steps are gone are passed over. Fails, and changes nothing, when
    /// a key, a dtype or a shape is wrong.
    pub fn update(&mut self, updates: &Record) -> Result<()> {
        let stepid = updates.get("stepid").context("an update of the replay lacks 'stepid'")?;
        let &[batch, length, STEPID] = &stepid.shape[..] else {
            bail!("'stepid' has shape {:?} where [B, T, {STEPID}] is needed", stepid.shape);
        };
        let Data::U8(ids) = &stepid.data else { bail!("'stepid' is {}, not uint8", stepid.dtype().name()) };
        let priority = self.checked_priority(updates, batch, length)?;
        let values = self.checked_values(updates, batch, length)?;
        self.counters.updates += (batch * length) as u64;
        for &(column, _) in &values {
            self.mutable[column] = true;
        }
        for row in 0..batch {
            let Some(place) = ids.get(row * length * STEPID..).and_then(place) else { continue };
            self.set_values(place, length, &values, row * length);
            if let Some(priority) = priority.filter(|_| self.options.prioritized()) {
                self.set_priorities(place, &priority[row * length..][..length]);
            }
        }
        Ok(())
    }

    fn checked_priority<'a>(&self, updates: &'a Record, batch: usize, length: usize) -> Result<Option<&'a [f32]>> {
        let Some(array) = updates.get("priority") else { return Ok(None) };
        let Data::F32(xs) = &array.data else { bail!("'priority' is {}, not float32", array.dtype().name()) };
        ensure!(array.shape == [batch, length], "'priority' has shape {:?}, not {:?}", array.shape, [batch, length]);
        if let Some(bad) = xs.iter().find(|x| x.is_nan() || **x < 0.0) {
            bail!("'priority' holds {bad}; priorities are numbers from 0 up");
        }
        Ok(Some(xs))
    }

    /// The column that each updated key belongs to, with its values [B, T, …].
    fn checked_values<'a>(&self, updates: &'a Record, batch: usize, length: usize) -> Result<Vec<(usize, &'a Array)>> {
        let mut values = vec![];
        for (name, array) in updates.iter().filter(|(name, _)| *name != "stepid" && *name != "priority") {
            let Some(at) = self.schema.iter().position(|c| c.name == *name) else {
                bail!("the update's key '{name}' is not among those the replay stores");
            };
            let column = &self.schema[at];
            let shape = [&[batch, length], &column.shape[..]].concat();
            ensure!(
                array.dtype() == column.dtype && array.shape == shape,
                "the update's key '{name}' is {} {:?} where {} {shape:?} is needed",
                array.dtype().name(),
                array.shape,
                column.dtype.name()
            );
            values.push((at, array));
        }
        Ok(values)
    }

    /// Writes `count` steps of every array, from its step `from` on, to the steps from `place` on.
    fn set_values(&mut self, place: Place, count: usize, values: &[(usize, &Array)], from: usize) {
        for (id, range, done) in self.located(place, count) {
            let Some(chunk) = self.store.chunks.get_mut(&id) else { continue };
            for &(column, array) in values {
                let width: usize = self.schema[column].shape.iter().product();
                chunk.overwrite(column, range.clone(), array, (from + done) * width);
            }
        }
    }

    /// Sets the steps' priorities from `place` on and those of all items they belong to.
    pub(crate) fn set_priorities(&mut self, place: Place, priorities: &[f32]) {
        let located = self.located(place, priorities.len());
        for (id, range, done) in located.iter().cloned() {
            let Some(chunk) = self.store.chunks.get_mut(&id) else { continue };
            let count = range.len();
            chunk.priority[range].copy_from_slice(&priorities[done..done + count]);
            chunk.dirty = true;
        }
        if located.is_empty() {
            return;
        }
        // Items that start up to length - 1 steps earlier hold some of these steps.
        let length = self.options.length;
        let (first, before) = self.store.back(place, length - 1);
        let starts = before + priorities.len();
        let (mut powers, mut items) = (vec![], vec![]);
        for (chunk, range) in self.store.span(first, starts + length - 1) {
            powers.extend(chunk.priority[range.clone()].iter().map(|&x| self.options.prio.power(x)));
            items.extend_from_slice(&chunk.item[range]);
        }
        for (powers, &item) in powers.windows(length).zip(&items).take(starts) {
            if item != NO_ITEM && item >= self.counters.first_item {
                self.selector.prioritize(item, self.options.prio.aggregate(powers));
            }
        }
    }

    /// The priority of the item that starts at `place`.
    pub(crate) fn priority(&self, place: Place) -> f64 {
        let prio = &self.options.prio;
        let parts = self.store.span(place, self.options.length);
        let steps = parts.iter().flat_map(|(chunk, range)| &chunk.priority[range.clone()]);
        prio.aggregate(&steps.map(|&x| prio.power(x)).collect::<Vec<_>>())
    }

    /// The `count` steps from `place` on as (chunk, range, steps before it); empty when some are gone.
    fn located(&self, place: Place, count: usize) -> Vec<(u64, std::ops::Range<usize>, usize)> {
        let mut done = 0;
        let parts = self.store.sequence(place, count).unwrap_or_default();
        let locate = |(chunk, range): (&crate::chunk::Chunk, std::ops::Range<usize>)| {
            done += range.len();
            (chunk.id, range.clone(), done - range.len())
        };
        parts.into_iter().map(locate).collect()
    }
}

/// Where a `stepid` points; `None` where no chunk can have that number.
fn place(stepid: &[u8]) -> Option<Place> {
    let (chunk, rest) = stepid.split_first_chunk::<16>()?;
    let index = rest.first_chunk::<4>()?;
    let chunk = u64::try_from(u128::from_be_bytes(*chunk)).ok()?;
    Some(Place { chunk, index: u32::from_be_bytes(*index) as usize })
}
