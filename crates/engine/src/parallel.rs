//! How work is shared among threads: by shape, never by thread count, so that results do not depend on it.

use crate::profile::{self, Part};
use rayon::prelude::*;
use std::cell::Cell;

/// Below this many operations a task is not worth handing to another thread (about 20 µs).
const WORTH: usize = 2_000_000;

thread_local!(static IN_TASK: Cell<bool> = const { Cell::new(false) });

/// What a task takes over from the thread that hands it out.
#[derive(Clone, Copy)]
struct Origin {
    part: Part,
    #[cfg(test)]
    isa: Option<crate::cpu::Isa>,
}

impl Origin {
    fn here() -> Origin {
        Origin {
            part: profile::here(),
            #[cfg(test)]
            isa: crate::cpu::simd::Forced::here(),
        }
    }
}

/// Runs `f` as a task, inside of which further work is not shared.
fn task<R>(origin: Origin, f: impl FnOnce() -> R) -> R {
    let _inside = Inside(IN_TASK.replace(true));
    #[cfg(test)]
    let _isa = crate::cpu::simd::Forced::new(origin.isa);
    profile::within(origin.part, f)
}

/// Restores what was before, after a panic too: the pool's thread outlives it.
struct Inside(bool);

impl Drop for Inside {
    fn drop(&mut self) {
        IN_TASK.set(self.0);
    }
}

/// Whether `count` tasks of `work` operations in total are worth sharing.
fn serial(count: usize, work: usize) -> bool {
    count < 2 || work < WORTH || IN_TASK.get()
}

/// Calls `f(i, item)` for each item, on several threads where `work` (operations in total) is worth it and
/// the caller is not itself a task of the pool: a chunk of rows is the unit of parallelism, and the operations inside
/// run on its own thread.
pub fn par_items<T: Send>(items: impl ExactSizeIterator<Item = T>, work: usize, f: impl Fn(usize, T) + Sync) {
    if serial(items.len(), work) {
        items.enumerate().for_each(|(i, item)| f(i, item));
    } else {
        let items: Vec<(usize, T)> = items.enumerate().collect();
        let origin = Origin::here();
        let run = |(i, item)| task(origin, || f(i, item));
        profile::waiting(|| items.into_par_iter().with_max_len(1).for_each(run));
    }
}

/// `par_items` that collects results in order.
pub fn par_map<T: Send, R: Send>(items: Vec<T>, work: usize, f: impl Fn(usize, T) -> R + Sync) -> Vec<R> {
    if serial(items.len(), work) {
        items.into_iter().enumerate().map(|(i, item)| f(i, item)).collect()
    } else {
        let origin = Origin::here();
        let run = |(i, item)| task(origin, || f(i, item));
        profile::waiting(|| items.into_par_iter().enumerate().with_max_len(1).map(run).collect())
    }
}
