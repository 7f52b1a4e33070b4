//! What was added comes out, in order, whatever the sizes and wherever the process restarts.

mod common;

use common::{contents, open, options, step};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug)]
enum Op {
    /// Adds this many steps to this worker.
    Add(usize, usize),
    Save,
    /// Starts anew from the folder, after a save or, as by kill -9, without.
    Restart {
        save: bool,
        chunksize: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => (0..4usize, 1..12usize).prop_map(|(worker, count)| Op::Add(worker, count)),
        2 => Just(Op::Save),
        3 => (any::<bool>(), 1..10usize).prop_map(|(save, chunksize)| Op::Restart { save, chunksize }),
    ];
    prop::collection::vec(op, 1..40)
}

/// The replay in its simplest form: lists of numbers.
#[derive(Clone, Default)]
struct Model {
    streams: BTreeMap<usize, Vec<i32>>,
    items: VecDeque<Vec<i32>>,
}

impl Model {
    fn add(&mut self, n: i32, worker: usize, length: usize, capacity: usize) {
        let stream = self.streams.entry(worker).or_default();
        stream.push(n);
        if let Some(start) = stream.len().checked_sub(length) {
            self.items.push_back(stream[start..].to_vec());
        }
        while self.items.len() > capacity {
            self.items.pop_front();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_was_added_comes_out_in_order(
        ops in ops(), length in 1..9usize, capacity in 1..80usize, chunksize in 1..10usize, episode in 1..12i32,
    ) {
        let dir = common::folder();
        let mut options = options(length, capacity, chunksize, Some(dir.path()));
        let mut replay = open(&options);
        let (mut model, mut saved) = (Model::default(), Model::default());
        let mut n = 0;
        for op in ops {
            match op {
                Op::Add(worker, count) => for _ in 0..count {
                    replay.add(&step(n, worker, n % episode == 0, (n + 1) % episode == 0), worker).unwrap();
                    model.add(n, worker, length, capacity);
                    n += 1;
                },
                Op::Save => {
                    replay.save().unwrap();
                    saved = model.clone();
                }
                Op::Restart { save, chunksize } => {
                    if save {
                        replay.save().unwrap();
                        saved = model.clone();
                    }
                    options.chunksize = chunksize;
                    replay = open(&options);
                    prop_assert_eq!(replay.warnings(), Vec::<String>::new());
                    model = saved.clone();
                }
            }
            prop_assert_eq!(contents(&replay), Vec::from(model.items.clone()));
        }
    }

    #[test]
    fn other_lengths_and_capacities_find_what_is_there(
        adds in prop::collection::vec((0..3usize, 1..20usize), 1..20),
        (length, chunksize) in (1..9usize, 1..10usize),
        (length2, capacity2, chunksize2) in (1..9usize, 1..200usize, 1..10usize),
    ) {
        let dir = common::folder();
        let mut replay = open(&options(length, 1000, chunksize, Some(dir.path())));
        let (mut n, mut model) = (0, Model::default());
        let mut add = |replay: &mut replay::Replay, model: &mut Model, capacity| {
            for &(worker, count) in &adds {
                for _ in 0..count {
                    replay.add(&step(n, worker, false, false), worker).unwrap();
                    model.add(n, worker, length2, capacity);
                    n += 1;
                }
            }
        };
        add(&mut replay, &mut model, 1000);
        replay.save().unwrap();

        let mut replay = open(&options(length2, capacity2, chunksize2, Some(dir.path())));
        let kept = model.items.len().min(capacity2);
        model.items.drain(..model.items.len() - kept);
        prop_assert_eq!(contents(&replay), Vec::from(model.items.clone()));
        add(&mut replay, &mut model, capacity2);
        prop_assert_eq!(contents(&replay), Vec::from(model.items.clone()));
        replay.save().unwrap();
        let replay = open(&options(length2, capacity2, chunksize2, Some(dir.path())));
        prop_assert_eq!(contents(&replay), Vec::from(model.items));
    }

    #[test]
    fn memory_stays_within_the_bytes_allowed(chunksize in 1..6usize, steps in 100..300usize, length in 1..5usize) {
        let mut options = options(length, 100_000, chunksize, None);
        let mut replay = open(&options);
        replay.add(&step(0, 0, true, false), 0).unwrap();
        let step_bytes = replay.bytes() as u64;
        options.capacity_bytes = Some(50 * step_bytes);
        let mut replay = open(&options);
        for n in 0..steps {
            replay.add(&step(n as i32, n % 2, false, false), n % 2).unwrap();
            prop_assert!(replay.bytes() as u64 <= 50 * step_bytes);
        }
        prop_assert!(replay.len() >= 50 - 2 * (chunksize + length), "{} items", replay.len());
        let newest = contents(&replay).last().unwrap().clone();
        prop_assert_eq!(newest[length - 1], steps as i32 - 1);
    }
}

#[test]
fn evicted_chunks_leave_the_folder() {
    let dir = common::folder();
    let options = options(4, 20, 5, Some(dir.path()));
    let mut replay = open(&options);
    let mut most = 0;
    for n in 0..400 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
        if n % 7 == 0 {
            replay.save().unwrap();
            most = most.max(common::files(dir.path(), ".chunk").len());
        }
    }
    assert!(most <= 6, "{most} chunk files for 23 steps in chunks of 5");
    assert_eq!(contents(&open(&options)), contents(&replay));
}

#[test]
fn a_step_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut replay = open(&options(2, 100, 4, None));
    for n in 0..5 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
    }
    let mut wrong = step(5, 0, false, false);
    wrong.insert("reward".into(), spaces::Array::i32(1));
    let error = replay.add(&wrong, 0).unwrap_err().to_string();
    assert!(error.contains("'reward'") && error.contains("int32") && error.contains("float32"), "{error}");
    wrong.remove("reward");
    assert!(replay.add(&wrong, 0).unwrap_err().to_string().contains("lacks key 'reward'"));
    let mut wrong = step(5, 0, false, false);
    wrong.insert("extra".into(), spaces::Array::i32(1));
    assert!(replay.add(&wrong, 0).unwrap_err().to_string().contains("'extra'"));
    replay.add(&step(5, 0, false, false), 0).unwrap();
    assert_eq!(contents(&replay).last(), Some(&vec![4, 5]));

    let mut own = step(0, 0, false, false);
    own.insert("stepid".into(), spaces::Array::i32(1));
    assert!(open(&options(2, 100, 4, None)).add(&own, 0).unwrap_err().to_string().contains("'stepid'"));
}

#[test]
fn options_that_cannot_work_are_refused() {
    for (length, capacity, chunksize, word) in [(0, 1, 1, "length"), (1, 0, 1, "size"), (1, 1, 0, "chunksize")] {
        let error = replay::Replay::new(options(length, capacity, chunksize, None)).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    let mut wrong = options(1, 1, 1, None);
    wrong.fracs.uniform = 0.5;
    assert!(replay::Replay::new(wrong).err().unwrap().to_string().contains("sum to 1"));
    let mut wrong = options(1, 1, 1, None);
    wrong.prio.maxfrac = 1.5;
    assert!(replay::Replay::new(wrong).err().unwrap().to_string().contains("maxfrac"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = replay::Replay::new(options(1, 1, 1, Some(file.path()))).err().unwrap().to_string();
    assert!(error.contains("replay folder"), "{error}");
}
