//! Tests of whole runs with a tiny agent: stopping, resuming, refusing.

use super::*;
use anyhow::ensure;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A run that takes a second: the block `debug`, smaller still, in synchronous mode.
pub fn config(logdir: &Path, more: &[(&str, &str)]) -> Config {
    let base = [
        ("logdir", logdir.to_str().unwrap()),
        ("task", "dummy_disc"),
        ("run.sync", "true"),
        ("run.envs", "3"),
        ("run.steps", "240"),
        ("run.train_ratio", "8"),
        ("run.log_every", "20"),
        ("run.report_every", "50"),
        ("run.save_every", "70"),
        ("env.dummy.length", "13"),
        ("env.dummy.size", "48,48"),
        ("batch_size", "2"),
        ("batch_length", "8"),
        ("report_length", "6"),
        ("logger.outputs", "jsonl"),
    ];
    let flags: Vec<(String, Vec<String>)> = base
        .iter()
        .chain(more)
        .map(|(key, value)| (key.to_string(), value.split(',').map(str::to_string).collect()))
        .collect();
    Config::resolve(&["debug".to_string()], &flags).unwrap()
}

fn finish(config: &Config) {
    train(config.clone(), &Stop::default()).unwrap();
}

/// Runs `turns` turns and saves, as Ctrl-C makes it do; gives the step it reached.
pub fn interrupted(config: &Config, turns: usize) -> u64 {
    let mut trainer = open(config.clone()).unwrap();
    for _ in 0..turns {
        if !trainer.turn().unwrap() {
            break;
        }
    }
    trainer.save().unwrap();
    trainer.counters.step
}

fn files(root: &Path) -> [String; 2] {
    ["metrics.jsonl", "scores.jsonl"].map(|name| fs::read_to_string(root.join(name)).unwrap())
}

/// What the plain run writes when nothing interrupts it.
fn uninterrupted() -> &'static [String; 2] {
    static FILES: OnceLock<[String; 2]> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        finish(&config(dir.path(), &[]));
        files(dir.path())
    })
}

fn whole_and_parts(more: &[(&str, &str)], parts: &[usize]) -> [String; 2] {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    finish(&config(whole.path(), more));
    let config = config(stopped.path(), more);
    for &turns in parts {
        interrupted(&config, turns);
    }
    finish(&config);
    let expect = files(whole.path());
    assert_eq!(files(stopped.path()), expect);
    expect
}

#[test]
fn stopped_and_resumed_anywhere_equals_uninterrupted_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[]);
    for turns in [1, 2, 30, 31, 1, 0, 57] {
        interrupted(&config, turns);
    }
    finish(&config);
    assert_eq!(&files(dir.path()), uninterrupted());
    let [metrics, scores] = uninterrupted();
    for name in ["train/loss/", "train/opt/", "report/", "epstats/", "replay/", "\"episode/score\""] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    assert!(!metrics.contains("fps/") && !metrics.contains("usage/"));
    assert!(scores.lines().count() >= 12);
}

#[test]
fn so_does_a_run_with_evaluation_and_consecutive_batches() {
    let more = [
        ("script", "train_eval"),
        ("run.eval_every", "60"),
        ("run.eval_envs", "2"),
        ("consec_train", "3"),
        ("consec_report", "2"),
        ("run.steps", "160"),
    ];
    let [metrics, _] = whole_and_parts(&more, &[40, 1, 1, 1, 20]);
    assert!(metrics.contains("eval/episode/score") && metrics.contains("eval/epstats/"));
}

/// The lines of metrics, as (step, values), without what of evaluation is in them.
fn trained(metrics: &str) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let rows = metrics.lines().map(|line| serde_json::from_str(line).unwrap());
    let stripped = rows.map(|mut row: serde_json::Map<_, _>| {
        row.retain(|key, _| !key.starts_with("eval/"));
        row
    });
    stripped.filter(|row| row.len() > 1).collect()
}

#[test]
fn evaluation_plays_the_episodes_that_are_asked_for_and_changes_nothing_in_training() {
    let metrics = [("train", "1"), ("train_eval", "3")].map(|(script, envs)| {
        let dir = tempfile::tempdir().unwrap();
        let more = [("run.eval_every", "60"), ("run.eval_envs", envs), ("run.eval_eps", "4"), ("run.steps", "160")];
        finish(&config(dir.path(), &[&more[..], &[("script", script)]].concat()));
        files(dir.path())[0].clone()
    });
    let [alone, evaluated] = &metrics;
    assert!(!alone.contains("\"eval/") && alone.contains("train/loss/"));
    assert_eq!(trained(alone), trained(evaluated));

    let mut episodes = std::collections::BTreeMap::new();
    for line in evaluated.lines().filter(|line| line.contains("\"eval/episode/score\"")) {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        *episodes.entry(row["step"].as_u64().unwrap()).or_insert(0) += 1;
    }
    // All environments step before anyone counts, so that several episodes may end at once.
    assert!(episodes.len() == 3 && episodes.values().all(|count| (4..4 + 3).contains(count)), "{episodes:?}");
}

#[test]
fn training_evaluation_and_play_are_filmed() {
    let dir = tempfile::tempdir().unwrap();
    let (run, names) = (dir.path(), |folder: &Path| {
        let files = fs::read_dir(folder.join("videos")).unwrap().map(|x| x.unwrap().file_name().into_string().unwrap());
        let names = files.filter_map(|name| name.rsplit_once('-').map(|(name, _)| name.to_string()));
        names.collect::<std::collections::BTreeSet<String>>().into_iter().collect::<Vec<_>>()
    });
    finish(&config(run, &[("script", "train_eval"), ("run.eval_every", "60"), ("run.eval_envs", "2")]));
    let [of_training, of_evaluation] = ["epstats_policy_image", "eval_epstats_policy_image"].map(String::from);
    let found = names(run);
    assert!(found.contains(&of_training) && found.contains(&of_evaluation), "{found:?}");
    crate::eval_only::eval_only(config(run, &[("script", "eval_only"), ("run.steps", "60")]), &Stop::default())
        .unwrap();
    assert_eq!(names(&run.join("eval")), [of_training]);
}

#[test]
fn a_video_that_cannot_be_written_does_not_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("videos"), "in the way").unwrap();
    finish(&config(dir.path(), &[]));
    assert!(files(dir.path())[0].contains("epstats/"));
}

#[test]
fn a_run_folder_that_is_moved_away_does_not_appear_anew() {
    let dir = tempfile::tempdir().unwrap();
    let [run, moved] = ["run", "moved"].map(|name| dir.path().join(name));
    let mut trainer = open(config(&run, &[])).unwrap();
    for turn in 0..110 {
        if turn == 20 {
            fs::rename(&run, &moved).unwrap(); // before reports, ends of episodes with their videos, and a save
        }
        assert!(trainer.turn().unwrap());
    }
    let error = format!("{:#}", trainer.save().unwrap_err());
    assert!(error.contains("is gone; was it moved or removed") && !run.exists(), "{error}");
}

#[test]
fn metrics_that_cannot_be_written_wait_and_the_run_goes_on_and_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = open(config(dir.path(), &[])).unwrap();
    for turn in 0..110 {
        trainer.logger.obstruct(turn >= 20); // through logs, reports, ends of episodes and a save
        assert!(trainer.turn().unwrap());
    }
    assert!(trainer.saved.is_some_and(|(step, ..)| step >= 70));
    trainer.logger.obstruct(false);
    trainer.finish().unwrap();
    finish(&config(dir.path(), &[]));
    assert_eq!(&files(dir.path()), uninterrupted());
}

#[test]
fn a_run_whose_last_metrics_cannot_be_written_is_saved_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[("run.sync", "false")]);
    let mut trainer = open(config.clone()).unwrap();
    trainer.logger.obstruct(true);
    while trainer.turn().unwrap() {}
    let error = format!("{:#}", trainer.finish().unwrap_err());
    assert!(error.starts_with("the run is saved, but not all that it measured: the last metrics are lost"), "{error}");
    assert_eq!(open(config).unwrap().counters.step, 240);
}

#[test]
fn more_steps_later_equal_all_steps_at_once() {
    let parts = tempfile::tempdir().unwrap();
    finish(&config(parts.path(), &[("run.steps", "130")]));
    finish(&config(parts.path(), &[]));
    assert_eq!(&files(parts.path()), uninterrupted());
}

#[test]
fn what_came_after_the_last_save_is_dropped_and_done_again() {
    let killed = tempfile::tempdir().unwrap();
    let config = config(killed.path(), &[]);
    for turns in [60, 75] {
        let mut trainer = open(config.clone()).unwrap();
        for _ in 0..turns {
            trainer.turn().unwrap();
        }
        // Dropped without a save, as by kill -9.
    }
    finish(&config);
    assert_eq!(&files(killed.path()), uninterrupted());
}

#[test]
fn without_sync_a_run_ends_resumes_and_names_its_speed() {
    let dir = tempfile::tempdir().unwrap();
    let more = [("run.sync", "false"), ("run.log_every", "0"), ("run.report_every", "0"), ("run.save_every", "0.2")];
    let first = config(dir.path(), &[&more[..], &[("run.steps", "120")]].concat());
    finish(&first);
    finish(&config(dir.path(), &[&more[..], &[("run.steps", "150")]].concat()));
    let [metrics, _] = files(dir.path());
    assert!(metrics.contains("fps/policy") && metrics.contains("fps/train"));
    let kept = fs::read_dir(dir.path().join("ckpt")).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(kept, 2);
}

#[test]
fn a_random_agent_runs_and_resumes() {
    let [metrics, scores] = whole_and_parts(&[("random_agent", "true"), ("task", "dummy_all")], &[7, 11]);
    assert!(!metrics.contains("train/") && scores.contains("episode/score"));
}

#[test]
fn another_task_or_another_agent_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    interrupted(&config(dir.path(), &[]), 3);
    let error = open(config(dir.path(), &[("task", "catch")])).err().unwrap().to_string();
    assert!(error.contains("task 'dummy_disc', not 'catch'"), "{error}");
    let error = open(config(dir.path(), &[("agent.policy.units", "9")])).err().unwrap();
    assert!(error.to_string().contains("does not fit the agent"), "{error:#}");
}

#[test]
fn an_image_of_a_size_that_does_not_work_names_the_option() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(config(dir.path(), &[("env.dummy.size", "50,50")])).err().unwrap();
    assert!(error.to_string().ends_with("; --env.dummy.size 64 64 resizes them"), "{error:#}");
}

#[test]
fn damage_to_the_last_checkpoint_costs_only_what_came_since_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[]);
    let step = interrupted(&config, 20);
    assert!(interrupted(&config, 20) > step);
    let latest = fs::read_to_string(dir.path().join("ckpt/latest")).unwrap();
    fs::write(dir.path().join("ckpt").join(latest.trim()).join("state.json"), b"{}").unwrap();
    let trainer = open(config.clone()).unwrap();
    assert_eq!(trainer.counters.step, step);
    drop(trainer);
    finish(&config);
    for checkpoint in fs::read_dir(dir.path().join("ckpt")).unwrap().map(|entry| entry.unwrap().path()) {
        fs::remove_file(checkpoint.join("state.json")).ok();
    }
    let error = format!("{:#}", open(config).err().unwrap());
    assert!(
        error.contains("choose another --logdir, or move the whole folder away, to start anew: no check"),
        "{error}"
    );
}

#[test]
fn a_crash_between_the_saves_of_replay_and_checkpoint_starts_new_episodes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[]);
    interrupted(&config, 20);
    let mut trainer = open(config.clone()).unwrap();
    assert!(
        trainer.driver.step(|obs| trainer.policy.act(trainer.agent.as_ref(), obs)).unwrap()[0]["is_first"].item()
            == 0.0
    );
    drop(trainer);
    let mut trainer = open(config.clone()).unwrap();
    trainer.turn().unwrap();
    lock(&trainer.replay).save().unwrap();
    drop(trainer);
    let mut trainer = open(config).unwrap();
    let steps = trainer.driver.step(|obs| trainer.policy.act(trainer.agent.as_ref(), obs)).unwrap();
    assert!(steps.iter().all(|step| step["is_first"].item() == 1.0));
}

#[test]
fn a_save_that_fails_does_not_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = open(config(dir.path(), &[])).unwrap();
    let ckpt: PathBuf = dir.path().join("ckpt");
    fs::rename(&ckpt, dir.path().join("away")).unwrap();
    fs::write(&ckpt, b"a file in the way").unwrap();
    for _ in 0..100 {
        trainer.turn().unwrap();
    }
    assert!(trainer.save().is_err());
    fs::remove_file(&ckpt).unwrap();
    trainer.save().unwrap();
    drop(trainer);
    assert!(open(config(dir.path(), &[])).unwrap().counters.step > 100);
}

#[test]
fn an_update_that_is_not_finite_ends_the_run_with_a_diagnostic_and_keeps_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    interrupted(&config(dir.path(), &[]), 60);
    let latest = fs::read_to_string(dir.path().join("ckpt/latest")).unwrap();
    let more = [("agent.opt.lr", "1e38"), ("agent.opt.warmup", "0")];
    let error = train(config(dir.path(), &more), &Stop::default()).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("failed; the batch and the agent are in"), "{text}");
    let diagnostic = fs::read_dir(dir.path().join("diagnostic")).unwrap().next().unwrap().unwrap().path();
    let batch = crate::tensors::read(&diagnostic.join("batch.safetensors")).unwrap();
    assert_eq!(batch["reward"].shape, [2, 9]);
    assert!(fs::read_to_string(diagnostic.join("metrics.json")).unwrap().contains("error"));
    crate::checkpoint::read(&dir.path().join("ckpt").join(latest.trim())).unwrap();
}

#[test]
fn evaluation_of_a_run_and_a_start_from_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    interrupted(&config(&run, &[]), 120);
    let eval = [("script", "eval_only"), ("run.steps", "60")];
    crate::eval_only::eval_only(config(&run, &eval), &Stop::default()).unwrap();
    assert!(fs::read_to_string(run.join("eval/scores.jsonl")).unwrap().contains("episode/score"));
    let from = [("run.from_checkpoint", run.to_str().unwrap())];
    let started = open(config(&dir.path().join("new"), &from)).unwrap();
    let trained = open(config(&run, &[])).unwrap();
    assert_eq!(started.counters.step, 0);
    assert_eq!(started.agent.as_ref().unwrap().save(), trained.agent.as_ref().unwrap().save());
}

#[test]
fn acting_overlaps_with_one_update_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = open(config(dir.path(), &[("run.sync", "false")])).unwrap();
    let mut launched = 0;
    while trainer.turn().unwrap() {
        let under_way = trainer.flight.is_some() as u64;
        launched = launched.max(trainer.counters.updates + under_way);
        // The acting agent lags behind by at most the update under way.
        let acting = trainer.agent.as_ref().unwrap().updates();
        assert_eq!(acting, trainer.counters.updates);
        assert!(under_way == 0 || launched == acting + 1);
    }
    assert!(launched > 50, "{launched}");
    trainer.land().unwrap();
    assert_eq!(trainer.agent.as_ref().unwrap().updates(), launched);
    // What was under way is part of what is saved.
    trainer.save().unwrap();
    assert!(trainer.is_saved());
}

/// The dummy task until three of them have taken 60 steps: then it fails for good, unless it was mended.
struct Brittle(Box<dyn envs::Env>, Arc<Spring>);

#[derive(Default)]
pub struct Spring {
    steps: AtomicUsize,
    mended: AtomicBool,
}

impl Spring {
    fn check(&self) -> Result<()> {
        let sound = self.steps.load(Ordering::Relaxed) < 180 || self.mended.load(Ordering::Relaxed);
        ensure!(sound, "the spring of the environment broke");
        Ok(())
    }
}

/// Makes it a task.
pub fn register_brittle(task: &str) -> Arc<Spring> {
    let spring = Arc::new(Spring::default());
    let given = spring.clone();
    envs::register(task, move |_, _| {
        given.check()?;
        let options = serde_json::json!({"dummy": {"length": 13, "size": [48, 48]}});
        Ok(Box::new(Brittle(envs::make("dummy_disc", 0, 0, &options)?, given.clone())) as Box<dyn envs::Env>)
    });
    spring
}

impl envs::Env for Brittle {
    fn obs_space(&self) -> &spaces::Spaces {
        self.0.obs_space()
    }

    fn act_space(&self) -> &spaces::Spaces {
        self.0.act_space()
    }

    fn save(&self) -> Option<Vec<u8>> {
        self.0.save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.0.load(state)
    }

    fn step(&mut self, action: &spaces::Record) -> Result<spaces::Record> {
        self.1.steps.fetch_add(1, Ordering::Relaxed);
        self.1.check()?;
        self.0.step(action)
    }
}

#[test]
fn an_environment_that_fails_for_good_costs_nothing_that_came_before() {
    let spring = register_brittle("brittle");
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[("task", "brittle"), ("run.save_every", "1000")]);
    let error = format!("{:#}", train(config.clone(), &Stop::default()).unwrap_err());
    let saved = format!("it is saved, and the same command with --logdir {} resumes it", dir.path().display());
    assert!(error.starts_with("the run ended early: ") && error.contains(&saved), "{error}");
    assert!(error.contains("the spring of the environment broke"), "{error}");
    spring.mended.store(true, Ordering::Relaxed);
    let trainer = open(config.clone()).unwrap();
    assert_eq!(trainer.counters.step, 59 * 3, "every step that all three have taken");
    assert!(trainer.counters.updates > 0);
    drop(trainer);
    let mut trainer = open(config.clone()).unwrap();
    let steps = trainer.driver.step(|obs| trainer.policy.act(trainer.agent.as_ref(), obs)).unwrap();
    assert!(steps.iter().all(|step| envs::record::flag(step, "is_first").unwrap()), "nothing goes on from a lost step");
    drop(trainer);
    finish(&config);
}
