//! Each selector draws items as often as it says, and only live ones.

use proptest::prelude::*;
use replay::selectors::{Mixture, Prioritized, Recency, Selector, Uniform};
use replay::{Draws, Fracs, Prio};
use std::collections::BTreeMap;

/// How often each item comes in `n` draws.
fn counts(selector: &dyn Selector, n: u64) -> BTreeMap<u64, f64> {
    let mut counts = BTreeMap::new();
    for counter in 0..n {
        *counts.entry(selector.sample(&mut Draws::new(0, 0, counter)).item).or_default() += 1.0;
    }
    counts
}

fn assert_near(counts: &BTreeMap<u64, f64>, item: u64, expected: f64) {
    let count = counts.get(&item).copied().unwrap_or(0.0);
    let slack = 5.0 * expected.sqrt() + 1.0;
    assert!((count - expected).abs() < slack, "item {item}: {count} where {expected} are expected");
}

#[test]
fn uniform_draws_all_live_items_alike() {
    let mut selector = Uniform::default();
    (0..20).for_each(|item| selector.insert(item, 0.0));
    (0..10).for_each(|item| selector.delete(item));
    let counts = counts(&selector, 10_000);
    assert_eq!(counts.len(), 10);
    (10..20).for_each(|item| assert_near(&counts, item, 1000.0));
}

#[test]
fn recency_follows_its_power_and_is_squeezed_while_few_items_are_there() {
    let mut selector = Recency::new(1.0, 8).unwrap();
    (0..12).for_each(|item| selector.insert(item, 0.0));
    (0..4).for_each(|item| selector.delete(item));
    let harmonic: f64 = (1..=8).map(|k| 1.0 / k as f64).sum();
    let full = counts(&selector, 20_000);
    (0..8).for_each(|age| assert_near(&full, 11 - age, 20_000.0 / harmonic / (age + 1) as f64));

    (4..8).for_each(|item| selector.delete(item));
    let half = counts(&selector, 20_000);
    let weight = |age: u64| 1.0 / (2 * age + 1) as f64 + 1.0 / (2 * age + 2) as f64;
    (0..4).for_each(|age| assert_near(&half, 11 - age, 20_000.0 / harmonic * weight(age)));
    assert!(Recency::new(-1.0, 8).is_err());
}

#[test]
fn prioritized_draws_infinite_items_first_and_zeros_alike() {
    let mut selector = Prioritized::default();
    (0..10).for_each(|item| selector.insert(item, if item == 3 || item == 7 { f64::INFINITY } else { 1.0 }));
    let first = counts(&selector, 10_000);
    assert_near(&first, 3, 5000.0);
    assert_near(&first, 7, 5000.0);
    (0..10).for_each(|item| selector.prioritize(item, 0.0));
    let zeros = counts(&selector, 10_000);
    (0..10).for_each(|item| assert_near(&zeros, item, 1000.0));
    selector.prioritize(4, 1e-300);
    assert_eq!(counts(&selector, 100).into_keys().collect::<Vec<_>>(), [4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Against a plain list of weights, through growth, wrapping and changes.
    #[test]
    fn prioritized_draws_in_proportion(
        inserts in prop::collection::vec(0..4u8, 1..40), deletes in 0..30u64, changes in prop::collection::vec((0..40u64, 0..4u8), 0..20),
    ) {
        let mut selector = Prioritized::default();
        let mut weights = BTreeMap::new();
        let last = inserts.len() as u64 + 100;
        for (item, &weight) in (100..).zip(&inserts) {
            selector.insert(item, weight as f64);
            weights.insert(item, weight as f64);
            if item >= 103 && item - 103 < deletes.min(last - 101) && weights.len() > 1 {
                let oldest = *weights.keys().next().unwrap();
                selector.delete(oldest);
                weights.remove(&oldest);
            }
        }
        for (item, weight) in changes {
            if let Some(old) = weights.get_mut(&(100 + item)) {
                *old = weight as f64;
                selector.prioritize(100 + item, weight as f64);
            }
        }
        let total: f64 = weights.values().sum();
        let counts = counts(&selector, 2000);
        prop_assert!(counts.keys().all(|item| weights.contains_key(item)));
        for (item, weight) in &weights {
            let share = if total > 0.0 { weight / total } else { 1.0 / weights.len() as f64 };
            assert_near(&counts, *item, 2000.0 * share);
            prop_assert!(share > 0.0 || !counts.contains_key(item));
        }
    }
}

#[test]
fn a_mixture_draws_from_each_by_its_fraction() {
    let fracs = Fracs { uniform: 0.5, priority: 0.25, recency: 0.25 };
    let mut selector = Mixture::new(&fracs, 50.0, 10).unwrap();
    (0..10).for_each(|item| selector.insert(item, (item == 2) as u8 as f64));
    let counts = counts(&selector, 20_000);
    // Recency with this exponent is the newest item, priority is item 2.
    assert_near(&counts, 2, 6000.0);
    assert_near(&counts, 9, 6000.0);
    assert_near(&counts, 5, 1000.0);
    let bad = Fracs { uniform: 1.5, priority: -0.5, recency: 0.0 };
    assert!(Mixture::new(&bad, 1.0, 10).is_err());
}

#[test]
fn sequences_are_valued_by_mean_and_maximum() {
    let prio = |maxfrac, exponent| Prio { exponent, maxfrac, initial: 0.0, zero_on_sample: false };
    let powers = [1.0, 4.0, 1.0];
    assert_eq!(prio(0.0, 1.0).aggregate(&powers), 2.0);
    assert_eq!(prio(1.0, 1.0).aggregate(&powers), 4.0);
    assert_eq!(prio(0.5, 1.0).aggregate(&powers), 3.0);
    assert_eq!(prio(1.0, 1.0).aggregate(&[0.0, f64::INFINITY]), f64::INFINITY);
    assert_eq!(prio(0.0, 1.0).aggregate(&[0.0, f64::INFINITY]), f64::INFINITY);
    assert_eq!(prio(0.0, 0.5).power(9.0), 3.0);
    assert_eq!(prio(0.0, 0.8).power(f32::INFINITY), f64::INFINITY);
}
