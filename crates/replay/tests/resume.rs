//! A replay that is saved and loaded again goes on exactly as one that never stopped.

mod common;

use common::{contents, deter, open, options, step};
use proptest::prelude::*;
use replay::{Fracs, Mode, Options, Replay};
use spaces::{Array, Record};

#[derive(Clone, Debug)]
enum Op {
    Add(usize, usize),
    /// Samples a batch and, if so, writes latents and priorities back for its last steps.
    Sample(Mode, Option<i32>),
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let mode = prop_oneof![4 => Just(Mode::Train), 1 => Just(Mode::Report), 1 => Just(Mode::Eval)];
    let op = prop_oneof![
        6 => (0..3usize, 1..15usize).prop_map(|(worker, count)| Op::Add(worker, count)),
        6 => (mode, prop::option::of(0..1000)).prop_map(|(mode, update)| Op::Sample(mode, update)),
        2 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 1..50)
}

fn fracs() -> impl Strategy<Value = Fracs> {
    prop_oneof![
        Just(Fracs { uniform: 1.0, priority: 0.0, recency: 0.0 }),
        Just(Fracs { uniform: 0.0, priority: 1.0, recency: 0.0 }),
        Just(Fracs { uniform: 0.0, priority: 0.0, recency: 1.0 }),
        Just(Fracs { uniform: 0.25, priority: 0.5, recency: 0.25 }),
    ]
}

/// Latents and priorities for all but the first step of each sampled sequence, from `value`.
fn updates(batch: &Record, value: i32) -> Record {
    let (rows, length) = (batch["stepid"].shape[0], batch["stepid"].shape[1]);
    let context = (length > 1) as usize;
    let kept = length - context;
    let sequences: Vec<Array> = (0..rows).map(|row| batch["stepid"].at(row).rows(context..length)).collect();
    let count = rows * kept;
    let priority = (0..count).map(|i| ((value as usize * 7 + i * 3) % 11) as f32 / 3.0).collect();
    let stoch = (0..count * 2).map(|i| (value as usize + i) as u8).collect();
    Record::from([
        ("stepid".into(), Array::stack(&sequences)),
        ("dyn/deter".into(), deter(&[rows, kept, 3], value as f32 + 0.5)),
        ("dyn/stoch".into(), Array::from_u8(&[rows, kept, 2], stoch)),
        ("priority".into(), Array::from_f32(&[rows, kept], priority)),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn resumed_equals_uninterrupted_bit_for_bit(
        ops in ops(), fracs in fracs(), online: bool, length in 1..7usize, capacity in 1..70usize,
        chunksize in 1..9usize, bytes in prop::option::of(30..70u64), zero_on_sample: bool,
    ) {
        let dir = common::folder();
        let mut plain = Options { fracs, online, seed: 3, ..options(length, capacity, chunksize, None) };
        plain.prio.zero_on_sample = zero_on_sample;
        plain.capacity_bytes = bytes.map(|steps| steps * 150);
        let stored = Options { dir: Some(dir.path().to_path_buf()), ..plain.clone() };
        let (mut steady, mut resumed) = (open(&plain), open(&stored));
        let mut n = 0;
        for op in ops {
            match op {
                Op::Add(worker, count) => for _ in 0..count {
                    let step = step(n, worker, n % 9 == 0, n % 9 == 8);
                    steady.add(&step, worker).unwrap();
                    resumed.add(&step, worker).unwrap();
                    n += 1;
                },
                Op::Sample(mode, update) => {
                    let batch = steady.sample(3, mode);
                    prop_assert_eq!(&batch, &resumed.sample(3, mode));
                    if let (Some(batch), Some(value)) = (batch, update) {
                        steady.update(&updates(&batch, value)).unwrap();
                        resumed.update(&updates(&batch, value)).unwrap();
                    }
                }
                Op::Restart => {
                    resumed.save().unwrap();
                    resumed = open(&stored);
                    prop_assert_eq!(resumed.warnings(), Vec::<String>::new());
                }
            }
            prop_assert_eq!(steady.len(), resumed.len());
        }
        prop_assert_eq!(steady.stats(), resumed.stats());
        prop_assert_eq!(contents(&steady), contents(&resumed));
        for index in 0..steady.len() {
            prop_assert_eq!(steady.get(index), resumed.get(index));
        }
    }
}

/// A replay with latents written back after its chunks were saved.
fn trained(options: &Options) -> Replay {
    let mut replay = open(options);
    for n in 0..60 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
    }
    replay.save().unwrap();
    for value in 0..20 {
        let batch = replay.sample(4, Mode::Train).unwrap();
        replay.update(&updates(&batch, value)).unwrap();
    }
    replay
}

#[test]
fn latents_written_back_after_a_save_persist_in_side_files() {
    let dir = common::folder();
    let options = options(5, 100, 8, Some(dir.path()));
    let mut replay = trained(&options);
    let chunks = common::files(dir.path(), ".chunk");
    assert!(common::files(dir.path(), ".latent").is_empty());
    replay.save().unwrap();
    assert_eq!(common::files(dir.path(), ".chunk"), chunks, "chunks are not written again");
    assert!(!common::files(dir.path(), ".latent").is_empty());
    let again = open(&options);
    for index in 0..replay.len() {
        assert_eq!(again.get(index), replay.get(index));
    }
    let touched = (0..again.len()).any(|i| again.get(i).unwrap()["dyn/deter"].to_f32().contains(&19.5));
    assert!(touched, "the last update's latents are there");
}

#[test]
fn streams_of_workers_that_are_gone_are_sampled_until_they_are_old() {
    let dir = common::folder();
    let mut options = options(3, 40, 4, Some(dir.path()));
    let mut replay = open(&options);
    for n in 0..40 {
        replay.add(&step(n, n as usize % 4, n < 4, false), n as usize % 4).unwrap();
    }
    replay.save().unwrap();
    let before = contents(&replay);
    options.workers = 1;
    let mut replay = open(&options);
    assert_eq!(contents(&replay), before);
    for n in 40..200 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
    }
    replay.save().unwrap();
    assert_eq!(contents(&replay), (158..198).map(|n| vec![n, n + 1, n + 2]).collect::<Vec<_>>());
    let chunks = common::files(dir.path(), "chunk");
    assert!(chunks.len() <= 12, "42 steps in chunks of 4, and not what the other workers left: {chunks:?}");
}

#[test]
fn what_came_after_the_last_save_is_gone_and_nothing_else() {
    let dir = common::folder();
    let options = options(5, 40, 8, Some(dir.path()));
    let mut replay = trained(&options);
    replay.save().unwrap();
    let before: Vec<_> = (0..replay.len()).map(|i| replay.get(i)).collect();
    // More steps, samples and latents, which a kill -9 takes away.
    for n in 60..90 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
        let batch = replay.sample(4, Mode::Train).unwrap();
        replay.update(&updates(&batch, n)).unwrap();
    }
    drop(replay);
    let again = open(&options);
    assert_eq!((0..again.len()).map(|i| again.get(i)).collect::<Vec<_>>(), before);
}

#[test]
fn what_a_smaller_capacity_leaves_out_is_told_before_it_is_removed() {
    let dir = common::folder();
    let options = options(5, 40, 8, Some(dir.path()));
    trained(&options).save().unwrap();
    let names = common::files(dir.path(), "");
    let mut less = open(&Options { capacity: 10, ..options.clone() });
    let warning = less.warnings().concat();
    assert!(warning.contains("steps more than these") && warning.contains("replay.size 10"), "{warning}");
    assert_eq!(common::files(dir.path(), ""), names, "until the next save everything is there");
    less.save().unwrap();
    assert!(common::files(dir.path(), "").len() < names.len());
    assert_eq!(open(&Options { capacity: 10, ..options }).warnings(), Vec::<String>::new());
}

#[test]
fn a_save_interrupted_at_any_file_leaves_the_state_before() {
    let dir = common::folder();
    let options = options(5, 40, 8, Some(dir.path()));
    let mut replay = trained(&options);
    replay.save().unwrap();
    let before: Vec<_> = (0..replay.len()).map(|i| replay.get(i)).collect();
    let manifest = std::fs::read(dir.path().join("manifest")).unwrap();
    let old: Vec<_> =
        common::files(dir.path(), "").into_iter().map(|f| (std::fs::read(dir.path().join(&f)), f)).collect();
    for n in 60..75 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
        let batch = replay.sample(4, Mode::Train).unwrap();
        replay.update(&updates(&batch, n)).unwrap();
    }
    replay.save().unwrap();
    // The folder as it is just before the manifest is renamed: new files beside the old ones.
    for (content, name) in old {
        std::fs::write(dir.path().join(name), content.unwrap()).unwrap();
    }
    std::fs::write(dir.path().join("manifest"), manifest).unwrap();
    std::fs::write(dir.path().join("0000000003-000009.chunk.tmp"), b"half").unwrap();
    let mut again = open(&options);
    assert_eq!(again.warnings(), Vec::<String>::new());
    assert_eq!((0..again.len()).map(|i| again.get(i)).collect::<Vec<_>>(), before);
    // The next save clears the leftovers away and is sound itself.
    again.add(&step(60, 0, true, false), 0).unwrap();
    again.save().unwrap();
    assert!(common::files(dir.path(), ".tmp").is_empty());
    assert_eq!(contents(&open(&options)), contents(&again));
}

#[test]
fn a_full_disk_is_an_error_that_leaves_the_earlier_state() {
    for blocked in ["0000000008-000004.chunk.tmp", "0000000003-000004.latent.tmp", "manifest.tmp", "manifest.prev.tmp"]
    {
        let dir = common::folder();
        let options = options(5, 100, 8, Some(dir.path()));
        let mut replay = trained(&options);
        replay.save().unwrap();
        replay.save().unwrap();
        let before: Vec<_> = (0..replay.len()).map(|i| replay.get(i)).collect();
        let files = || {
            let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.filter(|name| *name != blocked && name != "manifest.prev").collect();
            names.sort();
            names
        };
        let listed = files();
        for n in 60..70 {
            replay.add(&step(n, 0, false, false), 0).unwrap();
        }
        for value in 0..40 {
            let batch = replay.sample(4, Mode::Train).unwrap();
            replay.update(&updates(&batch, value)).unwrap();
        }
        // A folder in the place of the temporary file makes writing it fail, whoever runs the test.
        std::fs::create_dir(dir.path().join(blocked)).unwrap();
        let error = replay.save().unwrap_err().to_string();
        assert!(error.contains(blocked.strip_suffix(".tmp").unwrap()), "{blocked}: {error}");
        assert_eq!(files(), listed, "{blocked}: a save that fails leaves the disk no fuller");
        let earlier = open(&options);
        assert_eq!((0..earlier.len()).map(|i| earlier.get(i)).collect::<Vec<_>>(), before, "{blocked}");
        // With room again, the same replay saves what it could not.
        std::fs::remove_dir(dir.path().join(blocked)).unwrap();
        replay.save().unwrap();
        let later = open(&options);
        for index in 0..replay.len() {
            assert_eq!(later.get(index), replay.get(index), "{blocked}");
        }
    }
}
