//! Workers that fail again and again during a run: what the replay holds afterwards is whole episodes of good steps.

use replay::{Options, Replay};
use spaces::Record;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A worker of the bridge that counts its steps and fails as it is told.
fn worker() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_dreamer"));
    let profile = program.parent().unwrap(); // target/PROFILE
    let release = profile.ends_with("release").then_some("--release");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "-q", "-p", "envs", "--example", "worker"]).args(release);
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    profile.join("examples/worker")
}

/// Trains for 240 steps of two environments, each of whose processes fails in its `at`-th answer.
fn train(worker: &Path, logdir: &Path, fault: &str, at: usize) {
    let (task, at) = (format!("exec:{}", worker.display()), at.to_string());
    let flags = "train --configs debug --batch_size 2 --batch_length 8 --report_length 6 --replay.chunksize 32 \
                 --run.envs 2 --run.steps 240 --run.train_ratio 8 --env.slots 1 --env.restarts 1000";
    let mut run = Command::new(env!("CARGO_BIN_EXE_dreamer"));
    run.args(flags.split_whitespace()).args(["--task", &task]).arg("--logdir").arg(logdir);
    let out = run.args(["--env.kwargs.fault", fault, "--env.kwargs.at", &at]).output().unwrap();
    assert!(out.status.success(), "{fault}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Every two steps of the replay that follow each other.
fn pairs(logdir: &Path) -> Vec<Record> {
    let options = Options { length: 2, chunksize: 32, dir: Some(logdir.join("replay")), ..Options::default() };
    let mut replay = Replay::new(options).unwrap();
    assert!(replay.warnings().is_empty());
    (0..replay.len()).map(|i| replay.get(i).unwrap()).collect()
}

#[test]
fn nothing_malformed_reaches_the_replay() {
    let worker = worker();
    for fault in ["nan", "bounds", "first", "crash", "error"] {
        let dir = tempfile::tempdir().unwrap();
        let logdir = dir.path().join("run");
        // An episode has ten steps, so that this cuts the first one of each process off in its middle.
        train(&worker, &logdir, fault, 7);
        let (mut cut, pairs) = (0, pairs(&logdir));
        assert!(pairs.len() > 200, "{fault}: {} steps", pairs.len());
        for pair in &pairs {
            let [step, reward] = ["step", "reward"].map(|key| pair[key].to_f32());
            let [first, last, terminal] = ["is_first", "is_last", "is_terminal"].map(|key| pair[key].to_bool());
            assert!(step.iter().chain(&reward).all(|x| x.is_finite() && *x >= 0.0), "{fault}: {step:?} {reward:?}");
            assert_eq!(first, [step[0] == 0.0, step[1] == 0.0], "{fault}: {step:?}");
            assert_eq!(first[1], last[0], "{fault}: an episode begins where one has ended, {step:?}");
            // One that was cut off ends with its last good observation, and nothing earned.
            if !first[1] && step[1] == step[0] {
                assert!(last[1] && !terminal[1] && reward[1] == 0.0, "{fault}: {step:?} {reward:?} {last:?}");
                cut += 1;
            } else if !first[1] {
                assert_eq!(step[1], step[0] + 1.0, "{fault}");
            }
        }
        assert!(cut >= 20, "{fault}: {cut} episodes were cut off");
    }
}
