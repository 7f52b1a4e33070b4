//! How work is shared among threads: by shape, never by thread count, so that results do not depend on it.

use rayon::prelude::*;

/// Below this many operations a task is not worth handing to another thread (about 20 µs).
const WORTH: usize = 2_000_000;

/// Calls `f(i, item)` for each item, on several threads where `work` (operations in total) is worth it and
/// the caller is not itself a task of the pool: a chunk of rows is the unit of parallelism, and the operations inside
/// run on its own thread.
pub fn par_items<T: Send>(items: impl ExactSizeIterator<Item = T>, work: usize, f: impl Fn(usize, T) + Sync) {
    if items.len() < 2 || work < WORTH || rayon::current_thread_index().is_some() {
        items.enumerate().for_each(|(i, item)| f(i, item));
    } else {
        let items: Vec<(usize, T)> = items.enumerate().collect();
        items.into_par_iter().with_max_len(1).for_each(|(i, item)| f(i, item));
    }
}

/// `par_items` that collects results in order.
pub fn par_map<T: Send, R: Send>(items: Vec<T>, work: usize, f: impl Fn(usize, T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 || work < WORTH || rayon::current_thread_index().is_some() {
        items.into_iter().enumerate().map(|(i, item)| f(i, item)).collect()
    } else {
        items.into_par_iter().enumerate().with_max_len(1).map(|(i, item)| f(i, item)).collect()
    }
}
