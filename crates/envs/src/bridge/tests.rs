//! The bridge against a worker that counts its steps and fails as it is told (`examples/worker.rs`).

use super::group::{Group, lifeline};
use crate::record::{flag, number};
use crate::{Env, make_many};
use serde_json::{Value, json};
use spaces::{Array, Record};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The example worker. Cargo builds examples for all tests of a package, but not for those that a filter names.
fn worker() -> String {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        let deps = std::env::current_exe().unwrap();
        let profile = deps.ancestors().nth(2).unwrap(); // target/PROFILE/deps/this
        let release = profile.ends_with("release").then_some("--release");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-q", "-p", "envs", "--example", "worker"]).args(release);
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        profile.join("examples/worker")
    });
    format!("exec:{}", path.display())
}

fn envs(count: usize, options: Value) -> anyhow::Result<Vec<Box<dyn Env>>> {
    make_many(&worker(), 0..count, 7, &options)
}

fn one(options: Value) -> Box<dyn Env> {
    envs(1, options).unwrap().pop().unwrap()
}

fn act(action: i32, reset: bool) -> Record {
    [("action".into(), Array::i32(action)), ("reset".into(), Array::bool(reset))].into()
}

/// A path of which nothing exists yet, for a fault that shall strike once.
fn once(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("bridge-once-{}-{name}", std::process::id()));
    std::fs::remove_file(&path).ok();
    path
}

#[test]
fn steps_episodes_and_rewards_arrive() {
    let mut env = one(json!({"kwargs": {"length": 4}}));
    assert_eq!(env.obs_space()["step"].high, 1e6);
    for _ in 0..3 {
        for step in 0..=4 {
            let obs = env.step(&act(2, step == 0)).unwrap();
            assert_eq!(number(&obs, "step").unwrap(), step as f32);
            assert_eq!(number(&obs, "reward").unwrap(), if step == 0 { 0.0 } else { 2.0 });
            assert_eq!(flag(&obs, "is_first").unwrap(), step == 0);
            assert_eq!(flag(&obs, "is_last").unwrap(), step == 4);
            // A metric of the last step only; one that is too large for a float32 is none.
            assert_eq!(obs.get("log/episode/length"), (step == 4).then(|| Array::f32(4.0)).as_ref());
            assert!(!obs.contains_key("log/huge"));
        }
    }
    let error = env.step(&act(3, false)).unwrap_err().to_string();
    assert!(error.contains("in the action, key 'action' holds 3, outside its bounds 0 to 2"), "{error}");
}

#[test]
fn every_fault_closes_the_episode_and_starts_another() {
    for fault in ["crash", "exit", "error", "nan", "bounds", "logs", "echo", "hang", "first"] {
        // The start has to fit into it, too.
        let (once, closed) = (once(fault), once(&format!("{fault}-closed")));
        let timeout = if fault == "hang" { 3.0 } else { 20.0 };
        let kwargs = json!({"fault": fault, "at": 5, "once": once, "closed": closed});
        let mut env = one(json!({"timeout": timeout, "kwargs": kwargs}));
        let seed = number(&env.step(&act(1, true)).unwrap(), "log/seed").unwrap();
        for step in 1..=3 {
            assert_eq!(number(&env.step(&act(1, false)).unwrap(), "step").unwrap(), step as f32, "{fault}");
        }
        let closing = env.step(&act(1, false)).unwrap();
        assert_eq!(number(&closing, "step").unwrap(), 3.0, "{fault}: the last good observation");
        assert_eq!(number(&closing, "reward").unwrap(), 0.0);
        assert!(flag(&closing, "is_last").unwrap() && !flag(&closing, "is_terminal").unwrap());
        // What lives may close its environments before it is replaced.
        assert_eq!(std::fs::remove_file(closed).is_ok(), !["crash", "exit", "hang"].contains(&fault), "{fault}");
        let first = env.step(&act(0, true)).unwrap();
        assert!(flag(&first, "is_first").unwrap(), "{fault}");
        assert_ne!(number(&first, "log/seed").unwrap(), seed, "{fault}: another seed");
        assert_eq!(number(&env.step(&act(1, false)).unwrap(), "step").unwrap(), 1.0, "{fault}");
        std::fs::remove_file(once).unwrap();
    }
}

#[test]
fn a_worker_that_keeps_failing_ends_the_run_with_its_last_words() {
    // A restarted worker resets once unasked, and once more for the next episode: its third step is the first action.
    let mut env = one(json!({"restarts": 2, "kwargs": {"fault": "crash", "at": 3}}));
    env.step(&act(0, true)).unwrap();
    env.step(&act(0, false)).unwrap();
    for _ in 0..2 {
        assert!(flag(&env.step(&act(0, false)).unwrap(), "is_last").unwrap());
        env.step(&act(0, true)).unwrap();
    }
    let error = format!("{:#}", env.step(&act(0, false)).unwrap_err());
    assert!(error.contains("the worker failed 3 times in a row (env.restarts is 2)"), "{error}");
    assert!(error.contains("the counter broke its spring") && error.contains("killed by signal 6"), "{error}");
    assert_eq!(format!("{:#}", env.step(&act(0, false)).unwrap_err()), error, "it stays the same");
}

#[test]
fn the_first_observation_of_an_episode_has_no_reward() {
    let mut env = one(json!({"restarts": 0, "kwargs": {"fault": "prize", "at": 1}}));
    let error = env.step(&act(0, true)).unwrap_err().to_string();
    assert!(error.contains("reward is 1.5 where an episode begins"), "{error}");
}

#[test]
fn all_slots_tell_the_same_cause() {
    let options = json!({"slots": 3, "restarts": 0, "kwargs": {"fault": "error", "at": 4}});
    let mut envs = envs(3, options).unwrap();
    envs.iter_mut().for_each(|env| drop(env.step(&act(0, true)).unwrap()));
    envs.iter_mut().for_each(|env| env.begin(&act(0, false)));
    let errors = envs.iter_mut().map(|env| format!("{:#}", env.step(&act(0, false)).unwrap_err()));
    let errors: Vec<String> = errors.collect();
    assert!(
        errors[0].contains("failed 1 times in a row") && errors[0].contains("the counter lost count"),
        "{errors:?}"
    );
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
}

#[test]
fn an_episode_does_not_go_on_in_another_process() {
    // The second slot steps only after the first one has found the fault and started the worker anew.
    let once = once("news");
    let mut envs = envs(2, json!({"slots": 2, "kwargs": {"fault": "crash", "at": 5, "once": once}})).unwrap();
    for reset in [true, false] {
        envs.iter_mut().for_each(|env| drop(env.step(&act(1, reset)).unwrap()));
    }
    for env in &mut envs {
        let obs = env.step(&act(1, false)).unwrap();
        assert!(flag(&obs, "is_last").unwrap() && number(&obs, "step").unwrap() == 1.0);
    }
    for env in &mut envs {
        assert!(flag(&env.step(&act(1, true)).unwrap(), "is_first").unwrap());
        assert_eq!(number(&env.step(&act(1, false)).unwrap(), "step").unwrap(), 1.0);
    }
    std::fs::remove_file(once).unwrap();
}

#[test]
fn what_others_answered_before_a_fault_counts() {
    // Both slots end their episode at once, with a reward, while the worker fails: once the first slot has answered, or
    // with the values of the first while the second's are sound.
    // Whoever is heard first takes what lies there, or starts the worker anew.
    for (fault, at, sick, first) in
        [("error", 6, 1, 0), ("error", 6, 1, 1), ("crash", 6, 1, 0), ("crash", 6, 1, 1), ("nan", 5, 0, 0)]
    {
        let once = once(&format!("late-{fault}"));
        let kwargs = json!({"fault": fault, "at": at, "length": 2, "once": once});
        let mut envs = envs(2, json!({"slots": 2, "kwargs": kwargs})).unwrap();
        for reset in [true, false] {
            envs.iter_mut().for_each(|env| drop(env.step(&act(2, reset)).unwrap()));
        }
        envs.iter_mut().for_each(|env| env.begin(&act(2, false)));
        std::thread::sleep(Duration::from_millis(300)); // all that the worker has to say lies in the pipe
        for slot in [first, 1 - first] {
            let obs = envs[slot].step(&act(2, false)).unwrap();
            let due = if slot == sick { (1.0, 0.0) } else { (2.0, 2.0) };
            assert_eq!((number(&obs, "step").unwrap(), number(&obs, "reward").unwrap()), due, "{fault}, slot {slot}");
            assert!(flag(&obs, "is_last").unwrap());
        }
        for (step, reset) in [(0.0, true), (1.0, false), (2.0, false)] {
            for env in &mut envs {
                let obs = env.step(&act(2, reset)).unwrap();
                assert_eq!((number(&obs, "step").unwrap(), flag(&obs, "is_first").unwrap()), (step, reset), "{fault}");
            }
        }
        std::fs::remove_file(once).unwrap();
    }
}

/// Steps each environment in a thread of its own, all of them together, for some rounds.
fn step_in_threads(envs: Vec<Box<dyn Env>>, rounds: usize) {
    let barrier = std::sync::Barrier::new(envs.len());
    std::thread::scope(|scope| {
        for mut env in envs {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut reset = true;
                for _ in 0..rounds {
                    barrier.wait();
                    env.begin(&act(1, reset));
                    let obs = env.step(&act(1, reset)).unwrap();
                    assert_eq!(flag(&obs, "is_first").unwrap(), reset);
                    reset = flag(&obs, "is_last").unwrap();
                }
            });
        }
    });
}

/// Steps the `slots` environments of one worker, which step together, for some rounds, while `fault` strikes once; how
/// many seconds that takes. `name` is the test's own.
fn strike_together(name: &str, slots: usize, rounds: usize, timeout: f64, mut fault: Value) -> f64 {
    let once = once(name);
    (fault["once"], fault["together"]) = (json!(once), json!(true));
    let envs = envs(slots, json!({"slots": slots, "timeout": timeout, "kwargs": fault})).unwrap();
    let start = Instant::now();
    step_in_threads(envs, rounds);
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(once).unwrap();
    seconds
}

#[test]
fn threads_whose_slots_step_together_survive_a_crash() {
    for at in 1..=8 {
        let fault = json!({"fault": "crash", "at": at, "length": 5});
        let seconds = strike_together(&format!("together-{at}"), 3, 12, 60.0, fault);
        assert!(seconds < 30.0, "nobody waited for what was never asked");
    }
}

#[test]
fn a_bad_value_of_one_slot_fails_those_that_step_with_it_at_once() {
    // From the second step on, of one slot: the others are sound, and had their answers been handed out, would have
    // waited for a step that the failed slot could not ask for.
    for (fault, slot, at) in [("nan", 1, 3), ("nan", 0, 3), ("bounds", 2, 1), ("first", 1, 4)] {
        let value = json!({"fault": fault, "slot": slot, "at": at, "length": 6});
        let seconds = strike_together(&format!("value-{fault}-{slot}"), 3, 14, 30.0, value);
        assert!(seconds < 20.0, "{fault}: nobody waited for what was never asked");
    }
}

#[test]
fn a_restart_resets_whatever_the_bounds_of_actions_are() {
    let once = once("far");
    let mut env = one(json!({"restarts": 1, "kwargs": {"fault": "crash", "at": 3, "once": once, "far": true}}));
    let act = |reset| {
        Record::from([
            ("push".into(), Array::f32(6.0)),
            ("action".into(), Array::i32(1)),
            ("reset".into(), Array::bool(reset)),
        ])
    };
    env.step(&act(true)).unwrap();
    env.step(&act(false)).unwrap();
    assert!(flag(&env.step(&act(false)).unwrap(), "is_last").unwrap());
    assert!(flag(&env.step(&act(true)).unwrap(), "is_first").unwrap());
    std::fs::remove_file(once).unwrap();
}

#[test]
fn a_failure_is_not_forgiven_for_the_answers_of_many_slots() {
    // Each process is reset twice, by the worker and by its 120 slots, and crashes at the first action.
    let mut envs = envs(120, json!({"slots": 120, "restarts": 3, "kwargs": {"fault": "crash", "at": 241}})).unwrap();
    let failed = (0..12).find_map(|round| {
        envs.iter_mut().for_each(|env| env.begin(&act(1, round == 0)));
        envs.iter_mut().find_map(|env| env.step(&act(1, round == 0)).err())
    });
    let error = failed.unwrap().to_string();
    assert!(error.contains("failed 4 times in a row (env.restarts is 3)"), "{error}");
}

#[test]
fn every_slot_of_a_worker_has_the_time_of_an_answer() {
    let mut envs = envs(4, json!({"slots": 4, "timeout": 2.0, "kwargs": {"fault": "slow"}})).unwrap();
    for round in 0..2 {
        envs.iter_mut().for_each(|env| env.begin(&act(1, false)));
        for env in &mut envs {
            let obs = env.step(&act(1, false)).unwrap();
            assert_eq!([flag(&obs, "is_first").unwrap(), flag(&obs, "is_last").unwrap()], [round == 0, false]);
        }
    }
}

#[test]
fn threads_wait_once_for_an_answer_that_does_not_come() {
    let timeout = 3.0;
    let seconds = strike_together("deadline", 4, 6, timeout, json!({"fault": "hang", "at": 3}));
    // Besides, the worker has two seconds to leave.
    assert!((timeout..2.0 * timeout + 1.5).contains(&seconds), "{seconds}");
}

#[test]
fn what_a_worker_started_ends_with_it() {
    for session in [false, true] {
        let once = once(&format!("orphan-{session}"));
        let kwargs = json!({"fault": "orphan", "at": 2, "once": once, "session": session});
        let mut env = one(json!({"kwargs": kwargs}));
        env.step(&act(0, true)).unwrap();
        assert!(flag(&env.step(&act(0, false)).unwrap(), "is_last").unwrap());
        await_death(&std::fs::read_to_string(&once).unwrap());
        std::fs::remove_file(once).unwrap();
    }
}

#[test]
fn workers_that_do_not_leave_are_waited_for_together() {
    let envs = envs(4, json!({"kwargs": {"lingers": true}})).unwrap();
    let start = Instant::now();
    drop(envs);
    // Two seconds for all of them, and not for each.
    assert!((1.9..6.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
}

fn await_death(pid: &str) {
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let gone = || stat().is_empty() || stat().contains(") Z ");
    let start = Instant::now();
    while !gone() {
        assert!(start.elapsed().as_secs() < 5, "process {pid} still runs: {}", stat());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_steps_alone_is_told_to_leave_and_takes_all_that_it_started_along() {
    // In the place of Python, a script that starts a program and tells when it may close its environment.
    let (python, orphan, closed) = (once("python"), once("alone"), once("closed"));
    let script = "#!/bin/sh\nsetsid sleep 600 > /dev/null &\nprintf $! > ORPHAN\necho ready\n\
                  while read line; do echo 5; done\ntouch CLOSED\n";
    let script = script.replace("ORPHAN", orphan.to_str().unwrap()).replace("CLOSED", closed.to_str().unwrap());
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut alone = super::Alone::start("gym_X", 1, 1, 0, &json!({"python": python})).unwrap().unwrap();
    assert_eq!(alone.rate(Duration::ZERO).unwrap(), 5.0);
    drop(alone);
    await_death(&std::fs::read_to_string(&orphan).unwrap());
    [python, orphan, closed].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[test]
fn the_last_words_of_what_steps_alone_are_told_and_no_others() {
    let python = once("talkative");
    let script =
        "#!/bin/sh\necho ready\nread line\ni=0\nwhile [ $i -lt 3000 ]; do echo word $i >&2; i=$((i + 1)); done\n";
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut alone = super::Alone::start("gym_X", 1, 1, 0, &json!({"python": python})).unwrap().unwrap();
    let error = alone.rate(Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("has ended\n    word 2988\n") && error.ends_with("word 2999"), "{error}");
    std::fs::remove_file(&python).unwrap();
}

#[test]
fn a_worker_that_failed_may_still_close_its_environments() {
    let closed = once("dismissed");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("read line; sleep 0.1; touch {}", closed.display())]).stdin(Stdio::piped());
    let mut group = Group::start(command, lifeline().unwrap().1).unwrap();
    drop(group.child().unwrap().stdin.take());
    group.dismiss();
    std::fs::remove_file(&closed).unwrap();
}

#[test]
fn an_error_at_the_start_does_not_wait_for_other_workers() {
    worker(); // building it takes longer
    let start = Instant::now();
    let error = envs(4, json!({"kwargs": {"fault": "missing", "slow": 1}})).err().unwrap();
    // Neither for their answers nor, which would take two seconds each, for their leaving.
    assert!(error.to_string().contains("not installed") && start.elapsed().as_secs_f64() < 5.0, "{error:#}");
}

#[test]
fn the_memory_of_a_worker_that_is_refused_has_no_name_left() {
    let path = once("memory");
    std::fs::write(&path, "what a dead worker left").unwrap();
    let error = envs(1, json!({"kwargs": {"fault": "version", "memory": path}})).err().unwrap();
    assert!(error.to_string().contains("the worker speaks version 9"), "{error:#}");
    assert!(!path.exists());
}

#[test]
fn workers_that_cannot_start_say_why() {
    let error = |task: &str, options: Value| format!("{:#}", make_many(task, 0..1, 0, &options).err().unwrap());
    let missing = error(&worker(), json!({"kwargs": {"fault": "missing"}}));
    assert!(missing.ends_with("the counter is not installed; this helps: pip install counter"), "{missing}");
    assert!(missing.starts_with("task 'exec:"), "{missing}");
    let other = error(&worker(), json!({"python": "/opt/py", "kwargs": {"fault": "missing"}}));
    assert!(other.ends_with("this helps: /opt/py -m pip install counter"), "{other}");
    let broken = error(&worker(), json!({"kwargs": {"fault": "broken"}}));
    assert!(broken.ends_with("the counter is broken\n    counter.rs, line 7, in main"), "{broken}");
    let absent = error("exec:/no/such/worker", json!({}));
    assert!(absent.contains("'/no/such/worker' of the worker could not be started"), "{absent}");
    let silent = error("exec:true", json!({}));
    assert!(silent.contains("the worker ended (exit code 0)"), "{silent}");
    assert!(error("exec:", json!({})).contains("names no program"));
    let own = once("numpy");
    std::fs::write(&own, "echo \"ModuleNotFoundError: No module named 'numpy'\" >&2").unwrap();
    let foreign = error(&format!("exec:sh {}", own.display()), json!({}));
    assert!(foreign.contains("No module named 'numpy'") && !foreign.contains("--env.python"), "{foreign}");
    assert!(error(&worker(), json!({"slots": -1})).contains("env.slots is -1"));
    assert!(error(&worker(), json!({"restarts": -1})).contains("env.restarts is -1"));
    let python = error("gym_CartPole-v1", json!({"python": "no-such-python"}));
    assert!(python.contains("'no-such-python' of the worker could not be started"), "{python}");
    assert!(python.contains("--env.python") && !absent.contains("--env.python"), "{python}");
}

#[test]
fn slots_share_a_worker_and_fail_together() {
    let once = once("slots");
    let mut envs = envs(3, json!({"slots": 2, "kwargs": {"fault": "crash", "at": 7, "once": once}})).unwrap();
    // Steps 1 and 2 of the first worker are resets, so the fault strikes slot 0 in round 3; which of the two
    // workers has it is decided by who came first.
    let mut last = [0; 3];
    for round in 0..8 {
        let actions: Vec<Record> = last.iter().map(|&is_last| act(1, round == 0 || is_last == 1)).collect();
        envs.iter_mut().zip(&actions).for_each(|(env, action)| env.begin(action));
        for (i, env) in envs.iter_mut().enumerate() {
            let obs = env.step(&actions[i]).unwrap();
            assert_eq!(flag(&obs, "is_first").unwrap(), round == 0 || last[i] == 1, "environment {i}, round {round}");
            last[i] = flag(&obs, "is_last").unwrap() as i32;
        }
    }
    std::fs::remove_file(once).unwrap();
}

#[test]
fn seeds_do_not_depend_on_how_environments_share_workers() {
    let seeds_from = |slots: usize, start: u64| -> Vec<f32> {
        let mut envs = envs(3, json!({"slots": slots, "start": start})).unwrap();
        let first = |env: &mut Box<dyn Env>| number(&env.step(&act(0, true)).unwrap(), "log/seed").unwrap();
        envs.iter_mut().map(first).collect()
    };
    let seeds = |slots| seeds_from(slots, 0);
    let alone = seeds(1);
    assert!(alone[0] != alone[1] && alone[1] != alone[2]);
    assert_eq!(seeds(2), alone);
    assert_eq!(seeds(3), alone);
    assert_eq!(seeds(0), alone, "those of other languages have a process each");
    let resumed = seeds_from(2, 5000);
    assert!(resumed.iter().all(|seed| !alone.contains(seed)) && resumed == seeds_from(1, 5000));
    assert!(super::shared_out("gym_CartPole-v1", 500) > 1 && super::shared_out("py:a:b", 500) == 1);
}

/// Kills workers at random, in the middle of steps and between them, while the environments of three step, for
/// `DREAMER_KILL_SECONDS` (two by default).
#[test]
fn killing_workers_at_random_loses_no_step() {
    let seconds = std::env::var("DREAMER_KILL_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let mark = format!("kill-{}", std::process::id());
    let options = json!({"slots": 2, "restarts": 100_000, "kwargs": {"length": 50}});
    let mut envs = make_many(&format!("{} {mark}", worker()), 0..5, 7, &options).unwrap();
    let (mut expected, mut reset, mut total, mut closed) = ([0.0; 5], [true; 5], 0, 0);
    let (start, done) = (Instant::now(), AtomicBool::new(false));
    let elapsed = || start.elapsed().as_secs_f64();
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut rng, mut kills) = (crate::Rng::new(1, 2), 0);
            // After a failed assertion nobody says that it is done.
            while !done.load(Ordering::Relaxed) && elapsed() < seconds + 60.0 {
                kills += kill_a_child(&mark, &mut rng);
                std::thread::sleep(Duration::from_millis(rng.below(200) as u64));
            }
            kills
        });
        while elapsed() < seconds || closed < 4 && elapsed() < seconds + 60.0 {
            let actions = reset.map(|reset| act(1, reset));
            envs.iter_mut().zip(&actions).for_each(|(env, action)| env.begin(action));
            for (i, env) in envs.iter_mut().enumerate() {
                let obs = env.step(&actions[i]).unwrap();
                let (step, last) = (number(&obs, "step").unwrap(), flag(&obs, "is_last").unwrap());
                let closing = last && step < 50.0;
                let due = if reset[i] { 0.0 } else { expected[i] + if closing { 0.0 } else { 1.0 } };
                assert_eq!(step, due, "after {total} steps");
                assert_eq!(flag(&obs, "is_first").unwrap(), reset[i]);
                (expected[i], reset[i], total, closed) = (step, last, total + 1, closed + closing as usize);
            }
        }
        done.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    println!("{total} steps, {kills} workers killed, {closed} episodes cut off");
    assert!(kills > 3 && closed > 3);
}

/// Kills one of this process's workers that have `mark` as an argument; 1 if there was one.
fn kill_a_child(mark: &str, rng: &mut crate::Rng) -> usize {
    let me = std::process::id().to_string();
    let mine = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).unwrap_or("").to_string();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        parent == me && String::from_utf8_lossy(&command).contains(mark)
    };
    let all =
        std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let children: Vec<String> = all.filter(|name| name.parse::<u32>().is_ok() && mine(name)).collect();
    let Some(pid) = children.get(rng.below(children.len())) else { return 0 };
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok() as usize
}

#[test]
fn a_question_may_be_longer_than_a_pipe_holds() {
    let long = "x".repeat(300_000);
    let mut env = one(json!({"kwargs": {"length": 4, "long": long}}));
    assert!(flag(&env.step(&act(1, true)).unwrap(), "is_first").unwrap());
    // Nobody reads it here; the first has ended, the second never does.
    let cases = [("false", 20.0, "the worker ended"), ("sleep 3600", 0.5, "does not read what it is asked")];
    for (program, timeout, said) in cases {
        let options = json!({"timeout": timeout, "kwargs": {"long": long}});
        let error = make_many(&format!("exec:{program}"), 0..1, 7, &options).err().unwrap();
        assert!(format!("{error:#}").contains(said), "{error:#}");
    }
}

#[test]
fn another_version_of_the_package_is_told() {
    let said = |text: &'static str| super::explain(anyhow::anyhow!(text), "gym_X", &json!({})).to_string();
    let first =
        said("the worker ended\n    this program is started by the trainer: dreamer train --task gym_CartPole-v1");
    assert!(first.contains("of another version: run `pip install ./python`"), "{first}");
    let now = said("the worker ended\n    this program waits for a trainer at its pipes");
    assert!(now.contains("at its pipes") && !now.contains("pip install"), "{now}");
}
