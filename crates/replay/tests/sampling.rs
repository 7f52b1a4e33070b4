//! Batches: their layout, flags, order of delivery, and what is written back.

mod common;

use common::{deter, numbers, open, options, step};
use replay::{Fracs, Mode, Options, Replay};
use spaces::{Array, DType, Record};

fn filled(options: Options, steps: i32) -> Replay {
    let mut replay = open(&options);
    for n in 0..steps {
        replay.add(&step(n, 0, n % 10 == 0, n % 10 == 9), 0).unwrap();
    }
    replay
}

#[test]
fn a_replay_can_move_to_another_thread() {
    let mut replay = filled(options(5, 100, 4, None), 30);
    let here = replay.sample(2, Mode::Eval);
    let mut other = filled(options(5, 100, 4, None), 30);
    let there = std::thread::spawn(move || other.sample(2, Mode::Eval)).join().unwrap();
    assert_eq!(here, there);
}

#[test]
fn batches_hold_whole_sequences_with_ids() {
    let mut replay = filled(options(5, 100, 4, None), 30);
    let batch = replay.sample(6, Mode::Train).unwrap();
    assert_eq!(batch["image"].shape, [6, 5, 2, 2, 2]);
    assert_eq!((batch["image"].dtype(), batch["dyn/deter"].dtype()), (DType::U8, DType::F16));
    assert_eq!(batch["reward"].shape, [6, 5]);
    assert_eq!((batch["stepid"].dtype(), &batch["stepid"].shape[..]), (DType::U8, &[6, 5, 20][..]));
    for row in numbers(&batch).chunks(5) {
        assert!(row.windows(2).all(|pair| pair[1] == pair[0] + 1), "{row:?}");
    }
    let ids = batch["stepid"].to_bytes();
    for (id, n) in ids.chunks(20).zip(batch["n"].to_i32()) {
        // Step n lies in chunk 1 + n / 4 at n % 4.
        assert_eq!(u128::from_be_bytes(id[..16].try_into().unwrap()), 1 + n as u128 / 4);
        assert_eq!(u32::from_be_bytes(id[16..].try_into().unwrap()), n as u32 % 4);
    }
    assert!(open(&options(5, 100, 4, None)).sample(1, Mode::Train).is_none());
    assert!(filled(options(5, 100, 4, None), 4).sample(1, Mode::Train).is_none(), "too little for a sequence");
    assert!(filled(options(5, 100, 4, None), 5).sample(1, Mode::Train).is_some());
}

#[test]
fn sequences_start_with_is_first_and_abandoned_episodes_end_with_is_last() {
    let mut replay = open(&options(4, 100, 3, None));
    for n in 0..9 {
        // The episode that began at 0 is abandoned: the one from 6 on follows without is_last.
        replay.add(&step(n, 0, n == 0 || n == 6, n == 8), 0).unwrap();
    }
    let batch = replay.sample(40, Mode::Report).unwrap();
    let (first, last) = (batch["is_first"].to_bool(), batch["is_last"].to_bool());
    for (row, ns) in numbers(&batch).chunks(4).enumerate() {
        for (t, &n) in ns.iter().enumerate() {
            assert_eq!(first[4 * row + t], t == 0 || n == 6, "step {n} at {t}");
            assert_eq!(last[4 * row + t], n == 8 || (n == 5 && t < 3), "step {n} at {t}");
        }
    }
    assert!(!replay.get(1).unwrap()["is_first"].to_bool()[0], "what is stored stays as it was");
}

#[test]
fn fresh_sequences_are_delivered_once_before_others() {
    let mut replay = open(&Options { online: true, ..options(4, 100, 3, None) });
    for n in 0..26 {
        replay.add(&step(n, n as usize % 2, false, false), n as usize % 2).unwrap();
    }
    // Thirteen steps a worker are three sequences each, in the order in which they were complete.
    let batch = replay.sample(4, Mode::Train).unwrap();
    let report = replay.sample(1, Mode::Report).unwrap();
    assert!(numbers(&report)[0] >= 0);
    let rest = replay.sample(2, Mode::Train).unwrap();
    let firsts: Vec<i32> = numbers(&batch).into_iter().chain(numbers(&rest)).step_by(4).collect();
    assert_eq!(firsts, [0, 1, 8, 9, 16, 17]);
    let mut others: Vec<i32> = numbers(&replay.sample(200, Mode::Train).unwrap()).into_iter().step_by(4).collect();
    others.sort();
    others.dedup();
    assert_eq!(others, (0..20).collect::<Vec<_>>(), "then every sequence may come");
}

#[test]
fn equal_seeds_sample_alike_and_reports_do_not_disturb_training() {
    let batches = |seed, reports: bool| -> Vec<Vec<i32>> {
        let mut replay = filled(Options { seed, ..options(3, 100, 4, None) }, 50);
        let mut sample = |_| {
            if reports {
                replay.sample(2, Mode::Report).unwrap();
            }
            numbers(&replay.sample(4, Mode::Train).unwrap())
        };
        (0..5).map(&mut sample).collect()
    };
    assert_eq!(batches(1, false), batches(1, false));
    assert_eq!(batches(1, false), batches(1, true));
    assert_ne!(batches(1, false), batches(2, false));
}

#[test]
fn updates_are_written_back_across_chunk_borders() {
    let mut replay = filled(options(7, 100, 3, None), 20);
    let batch = replay.sample(1, Mode::Train).unwrap();
    let start = numbers(&batch)[0];
    let steps = batch["stepid"].at(0).rows(1..7).reshape(&[1, 6, 20]);
    let fresh = Record::from([
        ("stepid".into(), steps),
        ("dyn/deter".into(), deter(&[1, 6, 3], 0.5)),
        ("dyn/stoch".into(), Array::from_u8(&[1, 6, 2], (100..112).collect())),
    ]);
    replay.update(&fresh).unwrap();
    for index in 0..replay.len() {
        let sequence = replay.get(index).unwrap();
        let (deters, stochs) = (sequence["dyn/deter"].to_f32(), sequence["dyn/stoch"].to_i32());
        for (t, n) in numbers(&sequence).into_iter().enumerate() {
            let fresh = n > start && n <= start + 6;
            assert_eq!(deters[3 * t], if fresh { 0.5 } else { n as f32 }, "step {n}");
            assert_eq!(stochs[2 * t], if fresh { 100 + 2 * (n - start - 1) } else { n }, "step {n}");
        }
    }
    let stats = replay.stats();
    assert!(stats.contains(&("updates".to_string(), 6.0)) && stats.contains(&("samples".to_string(), 1.0)));
    assert!(stats.contains(&("inserts".to_string(), 14.0)) && stats.contains(&("replay_ratio".to_string(), 0.5)));
    assert!(replay.stats().contains(&("updates".to_string(), 0.0)), "they count from the last call");
}

#[test]
fn updates_of_steps_that_are_gone_are_passed_over_and_wrong_ones_refused() {
    let mut replay = filled(options(4, 10, 3, None), 13);
    let batch = replay.sample(2, Mode::Train).unwrap();
    for n in 13..200 {
        replay.add(&step(n, 0, false, false), 0).unwrap();
    }
    let before: Vec<_> = (0..10).map(|i| replay.get(i)).collect();
    let mut fresh =
        Record::from([("stepid".into(), batch["stepid"].clone()), ("dyn/deter".into(), deter(&[2, 4, 3], 0.5))]);
    replay.update(&fresh).unwrap();
    fresh.insert("stepid".into(), Array::from_u8(&[2, 4, 20], vec![255; 160]));
    replay.update(&fresh).unwrap();
    let mut refuse = |key: &str, array: Array, words: &str| {
        let mut wrong = fresh.clone();
        wrong.insert(key.into(), array);
        let error = replay.update(&wrong).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refuse("other", Array::i32(0), "'other'");
    refuse("dyn/deter", deter(&[2, 4, 2], 0.5), "[2, 4, 3] is needed");
    refuse("dyn/deter", Array::from_f32(&[2, 4, 3], vec![0.0; 24]), "float16");
    refuse("stepid", Array::from_u8(&[2, 4], vec![0; 8]), "[B, T, 20]");
    refuse("priority", Array::from_f32(&[2, 4], vec![f32::NAN; 8]), "NaN");
    assert_eq!((0..10).map(|i| replay.get(i)).collect::<Vec<_>>(), before);
}

/// A replay of 40 single-step sequences selected by priority alone.
fn prioritized(zero_on_sample: bool, initial: f64) -> Replay {
    let mut options = options(1, 100, 8, None);
    options.fracs = Fracs { uniform: 0.0, priority: 1.0, recency: 0.0 };
    options.prio = replay::Prio { exponent: 1.0, maxfrac: 0.0, initial, zero_on_sample };
    filled(options, 40)
}

#[test]
fn fresh_steps_come_first_and_each_once_under_zero_on_sample() {
    let mut replay = prioritized(true, f64::INFINITY);
    let mut seen = numbers(&replay.sample(40, Mode::Train).unwrap());
    seen.sort();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    replay.add(&step(40, 0, false, false), 0).unwrap();
    assert_eq!(numbers(&replay.sample(1, Mode::Train).unwrap()), [40]);
}

#[test]
fn priorities_set_by_an_update_steer_the_samples() {
    let mut replay = prioritized(false, 1.0);
    let batch = replay.sample(400, Mode::Report).unwrap();
    // Steps below 10 get three times the priority of steps below 20; the rest gets none.
    let priority = numbers(&batch).iter().map(|&n| if n < 10 { 3.0 } else { (n < 20) as i32 as f32 }).collect();
    let update = Record::from([
        ("stepid".into(), batch["stepid"].clone()),
        ("priority".into(), Array::from_f32(&[400, 1], priority)),
    ]);
    replay.update(&update).unwrap();
    let samples = numbers(&replay.sample(4000, Mode::Train).unwrap());
    let low = samples.iter().filter(|&&n| n < 10).count();
    assert!(samples.iter().all(|&n| n < 20));
    assert!((2800..3200).contains(&low), "{low} of 4000 where 3000 are expected");
}

const DRAWS: usize = 20_000;

/// A replay of 40 steps, selected by priority alone as sequences of three, half by their largest priority and half by
/// the mean; step n has priority n % 5.
fn sequences(zero_on_sample: bool) -> Replay {
    let mut options = options(3, 100, 4, None);
    options.fracs = Fracs { uniform: 0.0, priority: 1.0, recency: 0.0 };
    options.prio = replay::Prio { exponent: 1.0, maxfrac: 0.5, initial: 1.0, zero_on_sample };
    let mut replay = filled(options, 40);
    // Every third sequence, out of order, so that those between and before them have to be brought up to date, too.
    for start in (0..13).map(|k| 3 * (k * 5 % 13)).chain([37]) {
        let sequence = replay.get(start).unwrap();
        let priority = numbers(&sequence).iter().map(|n| (n % 5) as f32).collect();
        let stepid = sequence["stepid"].clone().reshape(&[1, 3, 20]);
        let priority = Array::from_f32(&[1, 3], priority);
        replay.update(&Record::from([("stepid".into(), stepid), ("priority".into(), priority)])).unwrap();
    }
    replay
}

/// Checks how often each sequence is drawn against the priorities of the steps.
fn assert_drawn(replay: &mut Replay, mode: Mode, priority: impl Fn(usize) -> f64) {
    let weight = |start: usize| {
        let steps = [0, 1, 2].map(|t| priority(start + t));
        0.5 * steps.into_iter().fold(0.0, f64::max) + 0.5 * steps.iter().sum::<f64>() / 3.0
    };
    let total: f64 = (0..38).map(weight).sum();
    let mut counts = [0.0; 38];
    numbers(&replay.sample(DRAWS, mode).unwrap()).chunks(3).for_each(|row| counts[row[0] as usize] += 1.0);
    for (start, count) in counts.into_iter().enumerate() {
        let share = weight(start) / total;
        let (expected, slack) = (DRAWS as f64 * share, 5.0 * (DRAWS as f64 * share * (1.0 - share)).sqrt());
        assert!((count - expected).abs() <= slack, "sequence {start}: {count} where {expected} are expected");
    }
}

#[test]
fn a_sequence_is_drawn_by_the_largest_and_the_mean_priority_of_its_steps() {
    let priority = |n: usize| (n % 5) as f64;
    assert_drawn(&mut sequences(false), Mode::Train, priority);
    // Drawing changes nothing here.
    let mut drawn = sequences(false);
    drawn.sample(100, Mode::Train).unwrap();
    assert_drawn(&mut drawn, Mode::Report, priority);
}

#[test]
fn zero_on_sample_changes_those_sequences_alone_that_overlap_with_the_drawn_one() {
    let mut replay = sequences(true);
    // For training alone: reports leave priorities as they are.
    assert_drawn(&mut replay, Mode::Report, |n| (n % 5) as f64);
    let drawn = numbers(&replay.sample(1, Mode::Train).unwrap());
    let zero = |n: usize| drawn.contains(&(n as i32));
    assert_drawn(&mut replay, Mode::Report, |n| if zero(n) { 0.0 } else { (n % 5) as f64 });
}
