//! kill -9 at any moment loses at most what came after the last save: nothing on the disk is ever unreadable.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a run may take to come to what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

const FLAGS: &[&str] = &[
    "train",
    "--configs",
    "debug",
    "--task",
    "dummy_disc",
    "--env.dummy.size",
    "48,48",
    "--env.dummy.length",
    "20",
    "--batch_size",
    "2",
    "--batch_length",
    "8",
    "--report_length",
    "6",
    "--replay.chunksize",
    "32",
    "--run.steps",
    "1e9",
    "--run.log_every",
    "0.01",
    "--run.save_every",
    "0.02",
    "--run.report_every",
    "0.05",
];

fn start(logdir: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dreamer"));
    command.args(FLAGS).args(more).arg("--logdir").arg(logdir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What the process printed; it must not have met damage.
fn printed(child: Child) -> String {
    let out = child.wait_with_output().unwrap();
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    for bad in ["warning: checkpoint", "warning: replay", "NOT SAVED", "damaged", "cannot", "error", "panicked"] {
        assert!(!text.contains(bad), "a resumed run met '{bad}': {text}");
    }
    text
}

fn resumed_at(text: &str) -> Option<u64> {
    let rest = text.split_once("resumed at step ")?.1;
    rest.split_whitespace().next()?.parse().ok()
}

/// The step of the checkpoint that counts.
fn saved(logdir: &Path) -> Option<u64> {
    let latest = fs::read_to_string(logdir.join("ckpt/latest")).ok()?;
    latest.trim().split('.').next()?.parse().ok()
}

/// Looks every few milliseconds until `found` finds something. The run must not end by itself meanwhile.
fn wait<T>(child: &mut Child, mut found: impl FnMut(&Child) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found(child) {
            return found;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it did not get that far in {PATIENCE:?}");
        }
        sleep(Duration::from_millis(5));
    }
}

fn kill_and_resume(times: u64) {
    let dir = tempfile::tempdir().unwrap();
    let logdir = dir.path().join("run");
    let (mut last, mut random) = (0, 12345u64);
    for round in 0..times {
        let mut child = start(&logdir, &[]);
        // At least one save of its own, and then any moment.
        wait(&mut child, |_| saved(&logdir).filter(|&step| step > last));
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        sleep(Duration::from_millis((random >> 33) % 300));
        child.kill().unwrap(); // SIGKILL
        let text = printed(child);
        assert_eq!(resumed_at(&text), (round > 0).then_some(last), "{text}");
        last = saved(&logdir).unwrap();
        for line in fs::read_to_string(logdir.join("metrics.jsonl")).unwrap_or_default().lines().rev().skip(1) {
            assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        }
    }
    // In the end the run goes on to its end as if nothing had been.
    let steps = (last + 200).to_string();
    let text = printed(start(&logdir, &["--run.steps", &steps]));
    assert!(resumed_at(&text) == Some(last) && text.contains("mean score of the last"), "{text}");
}

#[test]
fn a_killed_run_resumes() {
    kill_and_resume(3);
}

/// `cargo test --release -p dreamer --test kill -- --ignored`
#[test]
#[ignore = "takes half a minute"]
fn a_run_killed_twenty_times_resumes() {
    kill_and_resume(20);
}

#[test]
fn a_second_process_is_kept_out_and_ctrl_c_saves() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path(), &[]);
    wait(&mut child, |_| saved(dir.path()));
    let second = start(dir.path(), &[]).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains(&format!("in use by process {}", child.id())), "{text}");

    // Twice, as `timeout` does it.
    let twice = "kill -INT $0; kill -INT $0";
    let interrupt = Command::new("sh").args(["-c", twice, &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && text.contains("stopped and saved"), "{text}");
}

/// Who has started the process `pid`; none where that has ended.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit(") ").next()?.split(' ');
    (rest.next()? != "Z").then_some(rest.next()?.parse().ok()?)
}

/// The processes that `pid` has started and that have not ended.
fn children(pid: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&child| parent(child) == Some(pid)).collect()
}

/// Those that wait for an action leave when their pipe closes; one that hangs is a test of the Python worker.
#[test]
fn no_worker_outlives_a_killed_trainer() {
    let built = Path::new(env!("CARGO_BIN_EXE_dreamer")).parent().unwrap().join("examples/worker");
    let release = built.ancestors().any(|part| part.ends_with("release")).then_some("--release");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "-q", "-p", "envs", "--example", "worker"]).args(release);
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    let dir = tempfile::tempdir().unwrap();
    let task = format!("exec:{}", built.display());
    let mut child = start(dir.path(), &["--task", &task, "--run.envs", "3"]);
    let workers = wait(&mut child, |child| {
        let going = dir.path().join("metrics.jsonl").metadata().is_ok_and(|file| file.len() > 0);
        Some(children(child.id())).filter(|workers| workers.len() == 3 && going)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..500 {
        if !workers.iter().any(|&pid| parent(pid).is_some()) {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("of the workers {workers:?} some still run five seconds later");
}
