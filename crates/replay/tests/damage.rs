//! Damaged, missing and foreign files lose their own steps and nothing else.

mod common;

use common::{chunk_ids, contents, deter, files, open, options, step};
use proptest::prelude::*;
use replay::{Mode, Options, Replay};
use spaces::Record;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug)]
enum Damage {
    Flip(usize),
    Truncate(usize),
    Delete,
    Garbage,
    /// The content of another file, whole and sound, under this name.
    Foreign,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<usize>().prop_map(Damage::Flip),
        any::<usize>().prop_map(Damage::Truncate),
        Just(Damage::Delete),
        Just(Damage::Garbage),
        Just(Damage::Foreign),
    ]
}

/// `foreign` is the content of another file.
fn inflict(dir: &Path, name: &str, damage: &Damage, foreign: &[u8]) {
    let path = dir.join(name);
    let mut bytes = fs::read(&path).unwrap();
    match damage {
        Damage::Flip(at) => {
            let at = at % bytes.len();
            bytes[at] ^= 0x10;
            fs::write(path, bytes).unwrap();
        }
        Damage::Truncate(at) => fs::write(path, &bytes[..at % bytes.len()]).unwrap(),
        Damage::Delete => fs::remove_file(path).unwrap(),
        Damage::Garbage => fs::write(path, b"not what it was").unwrap(),
        Damage::Foreign => fs::write(path, foreign).unwrap(),
    }
}

/// A folder with two workers' steps and latents written back after a save.
fn filled(options: &Options, steps: i32) -> Replay {
    let mut replay = open(options);
    for n in 0..steps {
        replay.add(&step(n, n as usize % 2, n % 11 < 2, false), n as usize % 2).unwrap();
        if n == steps / 2 {
            replay.save().unwrap();
        }
    }
    let batch = replay.sample(2, Mode::Train).unwrap();
    let shape = batch["dyn/deter"].shape.clone();
    let fresh = Record::from([("stepid".into(), batch["stepid"].clone()), ("dyn/deter".into(), deter(&shape, 0.25))]);
    replay.update(&fresh).unwrap();
    replay.save().unwrap();
    replay
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn damaged_files_lose_only_themselves(
        hits in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..5),
        steps in 20..120i32, length in 1..7usize, capacity in 10..150usize, chunksize in 2..12usize,
    ) {
        let dir = common::folder();
        let options = options(length, capacity, chunksize, Some(dir.path()));
        let before = filled(&options, steps);
        let names = files(dir.path(), "");
        let foreign = [&names[0], &names[1]].map(|name| fs::read(dir.path().join(name)).unwrap());
        let mut hit = BTreeSet::new();
        for (at, damage) in hits {
            let name = at.get(&names);
            if hit.insert(name.clone()) {
                inflict(dir.path(), name, &damage, &foreign[(*name == names[0]) as usize]);
            }
        }
        let lost: BTreeSet<u64> =
            hit.iter().filter_map(|name| name.strip_suffix(".chunk")?.split('-').next()?.parse().ok()).collect();
        let whole = |index: &usize| !chunk_ids(&before.get(*index).unwrap()).iter().any(|id| lost.contains(id));
        let expected: Vec<_> = (0..before.len()).filter(whole).map(|i| contents(&before)[i].clone()).collect();

        let mut after = open(&options);
        let found = contents(&after);
        if hit.contains("manifest") {
            // Sequences that had been evicted may be back, but only true ones.
            prop_assert!(expected.iter().all(|sequence| found.contains(sequence)));
            prop_assert!(found.iter().all(|sequence| sequence.windows(2).all(|pair| pair[1] == pair[0] + 2)));
        } else {
            prop_assert_eq!(found, expected);
        }
        if hit.iter().any(|name| name != "manifest.prev") {
            prop_assert!(!after.warnings().is_empty());
        }
        // It works on, saves and comes back; no new sequence bridges a hole.
        for n in steps..steps + 20 {
            after.add(&step(n, n as usize % 2, false, false), n as usize % 2).unwrap();
        }
        after.sample(3, Mode::Train);
        after.save().unwrap();
        let found = contents(&after);
        prop_assert!(found.iter().all(|sequence| sequence.windows(2).all(|pair| pair[1] == pair[0] + 2)));
        prop_assert_eq!(contents(&open(&options)), found);
    }
}

#[test]
fn without_manifests_everything_readable_is_loaded() {
    let dir = common::folder();
    let options = options(4, 1000, 6, Some(dir.path()));
    let before = contents(&filled(&options, 100));
    fs::remove_file(dir.path().join("manifest")).unwrap();
    assert_eq!(contents(&open(&options)), before, "the previous manifest does not hide newer chunks");
    fs::remove_file(dir.path().join("manifest.prev")).unwrap();
    let mut after = open(&options);
    assert_eq!(contents(&after), before);
    assert!(after.warnings().iter().any(|warning| warning.contains("manifest")));
    // New chunks take new numbers, and streams start anew.
    after.add(&step(100, 0, true, false), 0).unwrap();
    after.save().unwrap();
    assert_eq!(contents(&open(&options)), before);
}

#[test]
fn a_damaged_latent_file_costs_the_fresh_latents_only() {
    let dir = common::folder();
    let options = options(4, 1000, 6, Some(dir.path()));
    let mut before = filled(&options, 100);
    let batch = before.sample(8, Mode::Train).unwrap();
    let fresh = Record::from([
        ("stepid".into(), batch["stepid"].clone()),
        ("dyn/deter".into(), deter(&batch["dyn/deter"].shape, 0.75)),
    ]);
    before.update(&fresh).unwrap();
    before.save().unwrap();
    let latents = files(dir.path(), ".latent");
    assert!(!latents.is_empty());
    for name in &latents {
        inflict(dir.path(), name, &Damage::Flip(200), &[]);
    }
    let mut after = open(&options);
    assert_eq!(contents(&after), contents(&before));
    assert_eq!(after.warnings().len(), latents.len());
    let deters: Vec<f32> = (0..after.len()).flat_map(|i| after.get(i).unwrap()["dyn/deter"].to_f32()).collect();
    assert!(!deters.contains(&0.75));
}

#[test]
fn strange_files_and_other_schemas_are_skipped_with_a_sentence() {
    let dir = common::folder();
    let options = options(2, 100, 6, Some(dir.path()));
    fs::write(dir.path().join("notes.txt"), b"hello").unwrap();
    fs::write(dir.path().join("0000000001-000001.chunk"), b"hello").unwrap();
    let mut replay = open(&options);
    let warnings = replay.warnings();
    assert!(warnings.iter().any(|w| w.contains("notes.txt") && w.contains("not a file of the replay")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("0000000001-000001.chunk is skipped")), "{warnings:?}");
    for n in 0..6 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
    }
    replay.save().unwrap();
    assert!(dir.path().join("notes.txt").exists() && dir.path().join("0000000001-000001.chunk").exists());

    // A chunk of a run with another observation, newer than the manifest.
    let other = common::folder();
    let mut foreign = open(&Options { dir: Some(other.path().to_path_buf()), ..options.clone() });
    for n in 0..40 {
        let mut step = step(n, 0, false, false);
        step.remove("image");
        foreign.add(&step, 0).unwrap();
    }
    foreign.save().unwrap();
    fs::remove_file(dir.path().join("manifest")).unwrap();
    for name in files(other.path(), ".chunk").iter().filter(|name| name.as_str() < "0000000002") {
        fs::copy(other.path().join(name), dir.path().join("0000000001-000001.chunk")).unwrap();
        fs::copy(other.path().join(name), dir.path().join("0000000009-000001.chunk")).unwrap();
    }
    let mut replay = open(&options);
    assert_eq!(contents(&replay).len(), 5);
    let warnings = replay.warnings();
    assert!(warnings.iter().any(|w| w.contains("not chunk 9")), "{warnings:?}");
}

#[test]
fn a_damaged_manifest_does_not_replace_the_last_good_one() {
    let dir = common::folder();
    let options = options(4, 1000, 6, Some(dir.path()));
    filled(&options, 100);
    let previous = || fs::read(dir.path().join("manifest.prev")).unwrap();
    let good = previous();
    fs::write(dir.path().join("manifest"), b"damaged").unwrap();
    let mut after = open(&options);
    after.add(&step(100, 0, true, false), 0).unwrap();
    after.save().unwrap();
    assert!(previous() == good);
    after.save().unwrap();
    assert!(previous() != good, "the next one follows a good one");
}
