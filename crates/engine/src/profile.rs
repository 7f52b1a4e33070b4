//! What the parts of a computation cost: operations counted and the time of all threads, by name.
//!
//! A part is a scope. Nodes remember the part that they were recorded in, so the backward sweep charges it
//! too. Time is exclusive: an outer part does not include inner ones. While off, the overhead is negligible.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What one part cost in one direction.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// Time in seconds, summed over the threads that worked.
    pub seconds: f64,
    /// Operations of products and convolutions as executed; a multiply-add is two.
    pub flops: u64,
    /// The same without exact rewritings, as the official code formulates them.
    pub official: u64,
}

/// Costs of one part: forward, and in the backward sweep.
#[derive(Clone, Copy, Default, Debug)]
pub struct Costs {
    pub forward: Cost,
    pub backward: Cost,
}

/// Where work is charged to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    name: &'static str,
    backward: bool,
}

/// Time that the calling thread spends until other threads are done.
pub const WAITING: &str = "waiting";
/// What no part claims.
pub const OTHER: &str = "other";

const OUTSIDE: Part = Part { name: OTHER, backward: false };

static ON: AtomicBool = AtomicBool::new(false);
static TABLE: Mutex<BTreeMap<Part, Cost>> = Mutex::new(BTreeMap::new());

/// What a thread is working on, and what it has not yet put into the table.
#[derive(Clone, Copy)]
struct Here {
    part: Part,
    /// None where the thread is outside of any part: idle time is nobody's.
    since: Option<Instant>,
    flops: u64,
    official: u64,
}

thread_local!(static HERE: Cell<Here> =
    const { Cell::new(Here { part: OUTSIDE, since: None, flops: 0, official: 0 }) });

/// Runs `f` and returns what its parts cost, by name. A second measurement waits for the first; what other threads do
/// meanwhile is charged too.
pub fn measure<R>(f: impl FnOnce() -> R) -> (R, BTreeMap<&'static str, Costs>) {
    static MEASURING: Mutex<()> = Mutex::new(());
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let table = || TABLE.lock().expect("no panic while the table is locked");
    table().clear();
    ON.store(true, Ordering::SeqCst);
    let result = within(OUTSIDE, f);
    ON.store(false, Ordering::SeqCst);
    let mut costs: BTreeMap<&'static str, Costs> = BTreeMap::new();
    for (part, cost) in std::mem::take(&mut *table()) {
        let entry = costs.entry(part.name).or_default();
        *(if part.backward { &mut entry.backward } else { &mut entry.forward }) = cost;
    }
    (result, costs)
}

/// Charges what `f` does, and the backward sweep through what it records, to `name`.
pub fn part<R>(name: &'static str, f: impl FnOnce() -> R) -> R {
    within(Part { name, backward: false }, f)
}

/// The part that the calling thread is in.
pub(crate) fn here() -> Part {
    HERE.get().part
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    pub(crate) fn is_backward(self) -> bool {
        self.backward
    }

    /// The same part in the backward sweep.
    pub(crate) fn backward(self) -> Part {
        Part { backward: true, ..self }
    }
}

/// `part` with a part that is known already.
pub(crate) fn within<R>(part: Part, f: impl FnOnce() -> R) -> R {
    if !ON.load(Ordering::Relaxed) {
        return f();
    }
    let outer = HERE.get();
    switch(part, Some(Instant::now()));
    let result = f();
    switch(outer.part, outer.since.map(|_| Instant::now()));
    result
}

/// Time until `f` returns is waiting, except for parts inside.
pub(crate) fn waiting<R>(f: impl FnOnce() -> R) -> R {
    part(WAITING, f)
}

/// Charges the current part and moves on to the next.
fn switch(part: Part, since: Option<Instant>) {
    let before = HERE.replace(Here { part, since, flops: 0, official: 0 });
    if let Some(start) = before.since {
        let mut table = TABLE.lock().expect("no panic while the table is locked");
        let cost = table.entry(before.part).or_default();
        cost.seconds += start.elapsed().as_secs_f64();
        cost.flops += before.flops;
        cost.official += before.official;
    }
}

/// Counts operations of the current part, as executed and as in the official formulation.
pub(crate) fn count(flops: usize, official: usize) {
    if ON.load(Ordering::Relaxed) {
        let mut here = HERE.get();
        here.flops += flops as u64;
        here.official += official as u64;
        HERE.set(here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;
    use crate::graph::{Leaf, backward};
    use crate::ops::{chunks, linear};
    use crate::sink::Sink;

    #[test]
    fn products_are_counted_in_their_parts_on_all_threads() {
        let (m, k, n) = (64, 8, 12);
        let product = 2 * (m * k * n) as u64;
        let leaf = Leaf::new();
        let w = random(&[k, n], 1, 1.0).leaf(leaf);
        let x = random(&[m, k], 2, 1.0).leaf(Leaf::new());
        let (_, costs) = measure(|| {
            let y = part("layer", || {
                let outputs = chunks(m, 16, usize::MAX, &[&x], |_, x| vec![linear(&x[0], &w, &random(&[n], 3, 1.0))]);
                outputs.into_iter().next().unwrap()
            });
            let mut sink = Sink::new();
            backward(&[(&y, random(&[m, n], 4, 1.0))], &mut sink);
            sink.finish(&[(leaf, vec![k, n])])
        });
        let layer = costs["layer"];
        assert_eq!(layer.forward.flops, product);
        assert_eq!(layer.backward.flops, 2 * product, "gradients of the input and of the weight");
        assert_eq!(layer.backward.official, 2 * product);
        assert!(layer.forward.seconds > 0.0 && layer.backward.seconds > 0.0);
    }
}
