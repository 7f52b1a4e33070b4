//! Tests of evaluations: where they write, in which worlds they play, and what remains of one that fails.

use super::*;
use crate::log::jsonl;
use crate::train::tests::{config, register_brittle};
use crate::train::train;
use std::fs;
use std::sync::Mutex;

/// A trained run, for a few steps.
fn trained(run: &Path) {
    train(config(run, &[("run.steps", "60")]), &Stop::default()).unwrap();
}

#[test]
fn a_training_run_is_left_as_it_was_and_the_last_evaluation_lies_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (run, checkpoint) = (dir.path(), dir.path().join("ckpt").display().to_string());
    trained(run);
    let files = || ["config.yaml", "metrics.jsonl", "scores.jsonl"].map(|name| fs::read(run.join(name)).unwrap());
    let (before, entries) = (files(), fs::read_dir(run).unwrap().count());
    for (key, value) in [("run.from_checkpoint", ""), ("run.from_checkpoint", &checkpoint), ("random_agent", "true")] {
        let flags = [("script", "eval_only"), ("run.steps", "60"), (key, value)];
        eval_only(config(run, &flags), &Stop::default()).unwrap();
        assert!(files() == before && fs::read_dir(run).unwrap().count() == entries + 1, "{key} {value}");
        // Three environments, each of which ends an episode in its 14th step.
        assert_eq!(jsonl::read(&run.join("eval/scores.jsonl")).unwrap().len(), 3, "{key} {value}");
    }
}

#[test]
fn what_was_measured_before_an_environment_failed_is_kept() {
    register_brittle("brittle_in_evaluation");
    let dir = tempfile::tempdir().unwrap();
    let flags = [("script", "eval_only"), ("random_agent", "true"), ("task", "brittle_in_evaluation")];
    let config = config(dir.path(), &[&flags[..], &[("run.log_every", "1e6")]].concat());
    let error = format!("{:#}", eval_only(config, &Stop::default()).unwrap_err());
    let kept = format!("the evaluation ended early; what it measured is in {}: ", dir.path().display());
    assert!(error.starts_with(&kept) && error.contains("the spring of the environment broke"), "{error}");
    assert_eq!(jsonl::read(&dir.path().join("scores.jsonl")).unwrap().len(), 12);
    assert!(fs::read_dir(dir.path().join("videos")).unwrap().count() > 0);
    let lines = jsonl::read(&dir.path().join("metrics.jsonl")).unwrap();
    assert!(lines.iter().any(|line| line.values.iter().any(|(key, _)| key == "epstats/reward_rate")), "{lines:?}");
}

#[test]
fn it_plays_in_other_worlds_than_training_does_and_a_resumed_run_in_others_again() {
    static DRAWN: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    envs::register("worlds", |mut rng, options| {
        DRAWN.lock().unwrap().push(rng.bits());
        envs::make("catch", 0, 0, options)
    });
    let dir = tempfile::tempdir().unwrap();
    let worlds_from = |script: &str, eval: bool, start: u64| {
        let config = config(dir.path(), &[("task", "worlds"), ("script", script)]);
        DRAWN.lock().unwrap().clear();
        setup::driver(&config, eval, start).unwrap();
        DRAWN.lock().unwrap().clone()
    };
    let worlds = |script, eval| worlds_from(script, eval, 0);
    let (training, evaluation, play) = (worlds("train", false), worlds("train_eval", true), worlds("eval_only", false));
    assert_eq!((training.len(), play.len()), (3, 3), "run.envs");
    assert!(training.iter().all(|world| !play.contains(world)));
    assert_eq!(play, evaluation[..3]);
    let later = worlds_from("train", false, 5000);
    assert_eq!(later.len(), 3);
    assert!(training.iter().all(|world| !later.contains(world)));
    assert!(training == worlds("train", false) && later == worlds_from("train", false, 5000));
}

#[test]
fn without_an_agent_it_says_where_it_looked_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let logdir = dir.path().join("none");
    let error = format!("{:#}", eval_only(config(&logdir, &[("script", "eval_only")]), &Stop::default()).unwrap_err());
    assert!(error.contains(&format!("{} holds no checkpoint; name a run folder", logdir.display())), "{error}");
    assert!(!logdir.exists());
}

#[test]
fn it_plays_until_every_environment_has_ended_an_episode_and_counts_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let (run, logdir) = (dir.path().join("run"), dir.path().join("scores"));
    trained(&run);
    let play = |steps: &str, episodes: &str| {
        let checkpoint = run.display().to_string();
        let flags = [("script", "eval_only"), ("run.from_checkpoint", &checkpoint), ("run.steps", steps)];
        eval_only(config(&logdir, &[&flags[..], &[("run.eval_eps", episodes)]].concat()), &Stop::default())
    };
    // Three environments, each of which ends an episode in its 14th step.
    play("6", "2").unwrap();
    assert_eq!(jsonl::read(&logdir.join("scores.jsonl")).unwrap().len(), 6);
    let error = format!("{:#}", play("6", "0").unwrap_err());
    assert!(error.contains("holds parts of another run (metrics.jsonl)"), "{error}");
}

#[test]
fn a_summary_is_of_all_scores() {
    assert_eq!(summary(&[vec![], vec![]]), None);
    assert_eq!(summary(&[vec![], vec![3.0]]).unwrap(), "mean score of one episode 3.000 (standard deviation 0.000)");
    let both = summary(&[vec![1.0, 5.0], vec![3.0, 7.0]]).unwrap();
    assert_eq!(both, "mean score of 4 episodes 4.000 (standard deviation 2.236)");
}
