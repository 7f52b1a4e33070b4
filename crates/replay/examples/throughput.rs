//! How long adding, sampling, updating, saving and loading take: `throughput [FOLDER] [STEPS]`.

use half::f16;
use replay::{Mode, Options, Replay};
use spaces::{Array, Data, Record};
use std::time::Instant;

/// One step of a 64x64 image agent of size1m.
fn step(n: usize) -> Record {
    Record::from([
        ("image".into(), Array::from_u8(&[64, 64, 3], vec![n as u8; 64 * 64 * 3])),
        ("reward".into(), Array::f32(n as f32)),
        ("is_first".into(), Array::bool(n.is_multiple_of(100))),
        ("is_last".into(), Array::bool(n % 100 == 99)),
        ("is_terminal".into(), Array::bool(false)),
        ("action".into(), Array::i32(0)),
        ("dyn/deter".into(), Array::new(&[512], Data::F16(vec![f16::ONE; 512]))),
        ("dyn/stoch".into(), Array::from_u8(&[32], vec![0; 32])),
    ])
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map(Into::into);
    let steps: usize = args.next().map_or(Ok(20_000), |arg| arg.parse())?;
    let options = Options { capacity: steps, dir, ..Options::default() };
    let mut replay = timed("load", 1, || Replay::new(options.clone()))?;
    replay.warnings().iter().for_each(|warning| println!("{warning}"));
    println!("{} sequences were there", replay.len());

    let template = step(0);
    timed("add a step", steps, || (0..steps).try_for_each(|n| replay.add(&template, n % 4)))?;
    let Some(mut batch) = replay.sample(16, Mode::Train) else { anyhow::bail!("{steps} steps are too few") };
    timed("sample [16, 65]", 100, || (0..100).for_each(|_| batch = replay.sample(16, Mode::Train).unwrap_or_default()));
    batch.retain(|key, _| key == "stepid" || key.starts_with("dyn/"));
    timed("update [16, 65]", 100, || (0..100).try_for_each(|_| replay.update(&batch)))?;
    for what in ["save everything", "save what an update changed"] {
        timed(what, 1, || replay.save())?;
        replay.update(&batch)?;
    }
    replay.stats().iter().for_each(|(name, value)| println!("{name} {value}"));
    Ok(())
}

/// Runs `work`, which does something `times` times, and prints how long each took.
fn timed<T>(what: &str, times: usize, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:.3} ms", start.elapsed().as_secs_f64() * 1e3 / times as f64);
    result
}
