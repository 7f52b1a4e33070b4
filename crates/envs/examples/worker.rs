//! A worker of the bridge in Rust: counts its steps, and fails in the way that `kwargs` asks for. The tests use it.
//!
//! `dreamer train --configs debug --task exec:target/release/examples/worker` steps it; `docs/bridge.md` is the
//! protocol.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

// Where the keys lie in a slot.
const RESET: usize = 0;
const ACTION: usize = 4;
const PUSH: usize = 8; // a key that not all tests have
const STEP: usize = 64;
const REWARD: usize = 68;
const FLAGS: usize = 72; // is_first, is_last, is_terminal
const SEED: usize = 76;
const SEEDS: i64 = 1 << 20; // what is shown of a seed fits a float32
const LOGS: usize = 128;
const STRIDE: usize = 192;

/// One environment: its step within the episode, and whether the next step starts one.
#[derive(Clone)]
struct Counter {
    step: i32,
    over: bool,
}

fn main() -> std::io::Result<()> {
    // Copies without the buffers of `std::io`. Nothing here prints anything else, which had to go to the log.
    let mut asks = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let ask: Value = serde_json::from_str(&read_line(&mut asks)?)?;
    let kwargs = &ask["kwargs"];
    let number = |key: &str, default: i64| kwargs[key].as_i64().unwrap_or(default);
    if kwargs["fault"] == "missing" {
        let refusal = json!({"error": "the counter is not installed", "cure": "pip install counter"});
        return writeln!(answers, "{refusal}");
    }
    if kwargs["fault"] == "broken" {
        eprintln!("counter.rs, line 7, in main");
        return writeln!(answers, "{}", json!({"error": "the counter is broken", "log": true}));
    }
    if ask["index"].as_i64() >= Some(number("slow", i64::MAX)) {
        std::thread::sleep(Duration::from_secs(3600));
    }
    let (slots, length) = (ask["slots"].as_u64().unwrap_or(1) as usize, number("length", 10) as i32);
    let path = std::env::temp_dir().join(format!("counter-{}", std::process::id()));
    let path = kwargs["memory"].as_str().map_or(path, |path| path.into());
    // A file of this name is of a dead worker that had the same number and was killed before it was heard.
    std::fs::remove_file(&path).ok();
    let memory = File::options().read(true).write(true).create_new(true).open(&path)?;
    memory.set_len((STRIDE * slots) as u64)?;
    let mut hello = hello(slots, &path);
    hello["together"] = json!(kwargs["together"] == true);
    if kwargs["far"] == true {
        hello["act"]["push"] = json!({"dtype": "float32", "shape": [], "low": 5, "high": 10, "offset": PUSH});
    }
    if kwargs["fault"] == "version" {
        hello["version"] = json!(9);
    }
    writeln!(answers, "{hello}")?;

    // The fault strikes once in a run: at step `at` of the process whose seed file does not exist yet.
    let armed = kwargs["once"].as_str().is_none_or(|path| File::create_new(path).is_ok());
    let (fault, at) = (kwargs["fault"].as_str().unwrap_or("").to_string(), number("at", 5));
    let mut counters = vec![Counter { step: 0, over: true }; slots];
    // Those that step together wait until all were asked, as a vector environment does.
    let together = if kwargs["together"] == true { slots } else { 1 };
    let (mut steps, mut asked) = (0, vec![0; together]);
    while asks.read_exact(&mut asked).is_ok() {
        steps += 1;
        let struck = armed && steps == at;
        match fault.as_str() {
            "crash" if struck => {
                eprintln!("the counter broke its spring");
                std::process::abort();
            }
            "exit" if struck => std::process::exit(3),
            "orphan" if struck => {
                // In a session of its own, it is in no group that could be killed as a whole.
                let own: &[&str] = if kwargs["session"] == true { &["setsid", "sleep"] } else { &["sleep"] };
                let child = std::process::Command::new(own[0]).args(&own[1..]).arg("3600").spawn()?;
                std::fs::write(kwargs["once"].as_str().unwrap_or_default(), child.id().to_string())?;
                std::process::exit(3);
            }
            "slow" => std::thread::sleep(Duration::from_millis(700)),
            "hang" if struck => std::thread::sleep(Duration::from_secs(3600)),
            "error" if struck => {
                answers.write_all(&[255])?;
                writeln!(answers, "{}", json!({"error": "the counter lost count"}))?;
            }
            "echo" if struck => answers.write_all(&[77])?,
            _ => {}
        }
        let sick = number("slot", -1); // whose values are wrong: that of one slot, or of all
        for &slot in &asked {
            let struck = struck && [-1, slot as i64].contains(&sick);
            let base = slot as usize * STRIDE;
            let counter = &mut counters[slot as usize];
            step(counter, length, &memory, base)?;
            let value = if struck && fault == "nan" { f32::NAN } else { counter.step as f32 };
            let value = if struck && fault == "bounds" { -3.0 } else { value };
            memory.write_all_at(&value.to_le_bytes(), (base + STEP) as u64)?;
            if struck && fault == "prize" {
                memory.write_all_at(&1.5f32.to_le_bytes(), (base + REWARD) as u64)?;
            }
            if struck && fault == "first" {
                memory.write_all_at(&[1], (base + FLAGS) as u64)?;
            }
            let seed = (ask["seed"].as_i64().unwrap_or(0) + slot as i64) % SEEDS;
            memory.write_all_at(&(seed as i32).to_le_bytes(), (base + SEED) as u64)?;
            let logs = if struck && fault == "logs" { "three\0".into() } else { logs(counter) };
            memory.write_all_at(logs.as_bytes(), (base + LOGS) as u64)?;
        }
        answers.write_all(&asked)?;
    }
    if let Some(path) = kwargs["closed"].as_str() {
        std::thread::sleep(Duration::from_millis(50)); // more than it takes to kill this
        File::create(path)?;
    }
    if kwargs["lingers"] == true {
        std::thread::sleep(Duration::from_secs(3600));
    }
    Ok(())
}

/// Metrics that only the last step of an episode has.
fn logs(counter: &Counter) -> String {
    match counter.over {
        true => format!("{{\"episode/length\": {}, \"huge\": 1e300}}\0", counter.step),
        false => "\0".into(),
    }
}

/// The spaces and where their values lie.
fn hello(slots: usize, path: &std::path::Path) -> Value {
    let flag = |offset| json!({"dtype": "bool", "shape": [], "offset": offset});
    json!({
        "version": 2, "slots": slots, "memory": path, "stride": STRIDE,
        "logs": {"offset": LOGS, "size": STRIDE - LOGS},
        "act": {
            "reset": flag(RESET),
            "action": {"dtype": "int32", "shape": [], "low": 0, "high": 3, "offset": ACTION},
        },
        "obs": {
            "step": {"dtype": "float32", "shape": [], "low": 0, "high": 1e6, "offset": STEP},
            "log/seed": {"dtype": "int32", "shape": [], "low": 0, "high": SEEDS, "offset": SEED},
            "reward": {"dtype": "float32", "shape": [], "offset": REWARD},
            "is_first": flag(FLAGS), "is_last": flag(FLAGS + 1), "is_terminal": flag(FLAGS + 2),
        },
    })
}

/// One step: the reward is the action.
fn step(counter: &mut Counter, length: i32, memory: &File, base: usize) -> std::io::Result<()> {
    let mut action = [0; 8];
    memory.read_exact_at(&mut action, base as u64)?;
    let first = action[RESET] != 0 || counter.over;
    counter.step = if first { 0 } else { counter.step + 1 };
    counter.over = counter.step == length;
    let reward = if first { 0.0 } else { f32::from(action[ACTION]) };
    memory.write_all_at(&reward.to_le_bytes(), (base + REWARD) as u64)?;
    memory.write_all_at(&[first as u8, counter.over as u8, 0], (base + FLAGS) as u64)
}

fn read_line(asks: &mut File) -> std::io::Result<String> {
    let (mut line, mut byte) = (vec![], [0]);
    while asks.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
