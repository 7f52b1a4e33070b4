//! Steps, models and folders that the tests of the replay share.
#![allow(dead_code)]

use half::f16;
use replay::{Options, Replay};
use spaces::{Array, Data, Record};
use std::path::Path;

/// Step number `n` of all steps: every key holds something that follows from it.
pub fn step(n: i32, worker: usize, first: bool, last: bool) -> Record {
    let image = (0..8).map(|i| (n * 31 + i) as u8).collect();
    Record::from([
        ("n".into(), Array::i32(n)),
        ("worker".into(), Array::i32(worker as i32)),
        ("image".into(), Array::from_u8(&[2, 2, 2], image)),
        ("reward".into(), Array::f32(n as f32 / 7.0)),
        ("is_first".into(), Array::bool(first)),
        ("is_last".into(), Array::bool(last)),
        ("dyn/deter".into(), deter(&[3], n as f32)),
        ("dyn/stoch".into(), Array::from_u8(&[2], vec![n as u8, 1])),
        ("log/hidden".into(), Array::f32(1.0)),
    ])
}

/// A float16 array whose elements all hold `x`.
pub fn deter(shape: &[usize], x: f32) -> Array {
    Array::new(shape, Data::F16(vec![f16::from_f32(x); shape.iter().product()]))
}

/// Small numbers, so that borders are met often.
pub fn options(length: usize, capacity: usize, chunksize: usize, dir: Option<&Path>) -> Options {
    Options { length, capacity, chunksize, online: false, dir: dir.map(Path::to_path_buf), ..Options::default() }
}

pub fn open(options: &Options) -> Replay {
    Replay::new(options.clone()).unwrap()
}

/// Every stored sequence as its steps' numbers, oldest first; checks that the other keys fit.
pub fn contents(replay: &Replay) -> Vec<Vec<i32>> {
    let sequences = (0..replay.len()).map(|i| replay.get(i).unwrap());
    sequences.map(|sequence| numbers(&sequence)).collect()
}

/// The steps' numbers of a sequence or batch; checks image and reward against them.
pub fn numbers(record: &Record) -> Vec<i32> {
    let ns = record["n"].to_i32();
    let images: Vec<u8> = ns.iter().flat_map(|n| (0..8).map(move |i| (n * 31 + i) as u8)).collect();
    let rewards: Vec<f32> = ns.iter().map(|&n| n as f32 / 7.0).collect();
    assert_eq!(record["image"].data, Data::U8(images));
    assert_eq!(record["reward"].data, Data::F32(rewards));
    assert!(!record.contains_key("log/hidden"));
    ns
}

/// The numbers of the chunks in which a sequence lies.
pub fn chunk_ids(sequence: &Record) -> Vec<u64> {
    let Data::U8(ids) = &sequence["stepid"].data else { panic!("stepid is uint8") };
    ids.chunks(20).map(|id| u64::from_be_bytes(id[8..16].try_into().unwrap())).collect()
}

/// The names of the folder's files with this ending, sorted.
pub fn files(dir: &Path, ending: &str) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

/// A temporary folder, in memory where the system offers that: the tests write thousands of small
/// files, each of which is brought to the disk.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
