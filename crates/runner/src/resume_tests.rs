//! What a resumed run takes over where its configuration was changed, and where a new run begins with another's agent.

use super::tests::{config, interrupted};
use super::*;
use dreamer_agent::State;
use spaces::Record;

/// One step of every environment.
fn step(trainer: &mut Trainer) -> Vec<Record> {
    let Trainer { driver, policy, agent, .. } = trainer;
    driver.step(|obs| policy.act(agent.as_ref(), obs)).unwrap()
}

fn agent(trainer: &Trainer) -> State {
    trainer.agent.as_ref().unwrap().save()
}

#[test]
fn an_agent_is_opened_without_its_environment_and_acts_as_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let error = format!("{:#}", crate::open_agent(dir.path()).err().unwrap());
    assert!(error.starts_with("the agent in ") && error.contains("holds no checkpoint"), "{error}");

    let mut trainer = open(config(dir.path(), &[])).unwrap();
    while trainer.counters.updates < 2 {
        assert!(trainer.turn().unwrap());
    }
    trainer.save().unwrap();
    let agent = trainer.agent.as_ref().unwrap();
    let obs = trainer.driver.step(|obs| trainer.policy.act(Some(agent), obs)).unwrap();
    let obs = spaces::stack(&obs);
    let acted = |agent: &dreamer_agent::Agent| {
        agent.act(&mut agent.initial(3), &obs, dreamer_agent::Mode::Eval).unwrap().action
    };
    for path in [dir.path().to_path_buf(), dir.path().join("ckpt")] {
        let opened = crate::open_agent(&path).unwrap();
        assert!(opened.save() == agent.save() && acted(&opened) == acted(agent));
        assert_eq!((opened.obs_space(), opened.act_space()), (agent.obs_space(), agent.act_space()));
    }

    let file = dir.path().join("agent.safetensors");
    crate::checkpoint::write_agent(&file, &agent.save()).unwrap();
    assert!(crate::checkpoint::read_agent(&file).unwrap().0 == agent.save());
    let error = format!("{:#}", crate::open_agent(&file).err().unwrap());
    assert!(error.contains("a file holds tensors alone"), "{error}");
    let nowhere = crate::checkpoint::write_agent(&dir.path().join("no/file"), &agent.save());
    assert!(format!("{:#}", nowhere.unwrap_err()).starts_with("the agent cannot be written to "));
}

#[test]
fn a_checkpoint_without_spaces_has_them_once_its_run_was_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[("run.steps", "30")]);
    crate::train::train(config.clone(), &Stop::default()).unwrap();
    // As an earlier version has left it.
    let mut checkpoints = crate::checkpoint::Checkpoints::new(&dir.path().join("ckpt"));
    let mut moment = checkpoints.load().unwrap().0.unwrap();
    moment.state.as_object_mut().unwrap().remove("spaces");
    checkpoints.save(30, &moment).unwrap();
    let error = format!("{:#}", crate::open_agent(dir.path()).err().unwrap());
    assert!(error.contains("resuming the run once is the cure"), "{error}");
    crate::train::train(config, &Stop::default()).unwrap();
    assert!(crate::open_agent(dir.path()).is_ok());
}

#[test]
fn a_half_used_sequence_is_dropped_where_it_would_be_cut_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let with = |more: &[(&str, &str)]| {
        let base = [("consec_train", "3"), ("consec_report", "2"), ("run.save_every", "1000")];
        config(dir.path(), &[&base, more].concat())
    };
    let mut trainer = open(with(&[])).unwrap();
    while trainer.counters.updates % 3 != 1 || trainer.counters.step < 105 {
        assert!(trainer.turn().unwrap());
    }
    trainer.save().unwrap();
    drop(trainer);

    // What the next batches are: the part of a sequence, and steps. The run goes on with those that follow.
    let next = |more: &[(&str, &str)]| {
        let mut trainer = open(with(more)).unwrap();
        let batches = [&mut trainer.train, &mut trainer.report].map(|stream| {
            let batch = stream.batches.next().unwrap();
            (batch["consec"].to_i32()[0], batch["reward"].shape[1])
        });
        let updates = trainer.counters.updates;
        while trainer.counters.updates < updates + 4 {
            assert!(trainer.turn().unwrap(), "{more:?}");
        }
        trainer.report().unwrap();
        batches
    };
    assert_eq!(next(&[]), [(1, 9), (0, 7)]);
    assert_eq!(next(&[("consec_report", "3")]), [(1, 9), (0, 7)]);
    assert_eq!(next(&[("report_length", "5")]), [(1, 9), (0, 6)]);
    assert_eq!(next(&[("consec_train", "2")]), [(0, 9), (0, 7)]);
    assert_eq!(next(&[("batch_length", "7")]), [(0, 8), (0, 7)]);
    // As long a sequence as before, but of other parts.
    assert_eq!(next(&[("consec_train", "4"), ("batch_length", "6")]), [(0, 7), (0, 7)]);
    assert_eq!(next(&[("replay_context", "2")]), [(0, 10), (0, 8)]);
    assert_eq!(next(&[("batch_size", "1")]), [(0, 9), (0, 7)]);
}

#[test]
fn with_another_number_of_environments_all_start_new_episodes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(interrupted(&config(dir.path(), &[]), 3), 9);
    for (envs, first) in [("3", 0.0), ("2", 1.0), ("5", 1.0)] {
        let mut trainer = open(config(dir.path(), &[("run.envs", envs)])).unwrap();
        assert_eq!(trainer.counters.step, 9);
        let drawn = trainer.policy.save()["step"].item();
        assert_eq!(drawn, if envs == "3" { 3.0 } else { 9.0 }, "draws are not repeated");
        let steps = step(&mut trainer);
        assert_eq!(steps.len().to_string(), envs);
        assert!(steps.iter().all(|step| step["is_first"].item() == first), "{envs} environments");
    }
}

#[test]
fn a_new_run_begins_with_the_tensors_that_are_named_and_goes_on_with_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    interrupted(&config(&path("run"), &[]), 120);
    let trained = agent(&open(config(&path("run"), &[])).unwrap());
    let fresh = agent(&open(config(&path("fresh"), &[])).unwrap());
    let run = path("run");
    let from = [("run.from_checkpoint", run.to_str().unwrap()), ("run.from_checkpoint_regex", "(enc|dyn)/")];
    let new = config(&path("new"), &from);

    let mut trainer = open(new.clone()).unwrap();
    let begun = agent(&trainer);
    assert_eq!(trainer.counters.updates, 0);
    let (mut taken, mut own) = (0, 0);
    for (name, tensor) in &begun {
        let named = name.starts_with("enc/") || name.starts_with("dyn/");
        assert_eq!(tensor, if named { &trained[name] } else { &fresh[name] }, "{name}");
        *(if named { &mut taken } else { &mut own }) += usize::from(trained[name] != fresh[name]);
    }
    assert!(taken > 5 && own > 5, "training changed {taken} tensors of those named and {own} others");

    while trainer.counters.updates < 3 {
        assert!(trainer.turn().unwrap());
    }
    trainer.save().unwrap();
    let saved = agent(&trainer);
    drop(trainer);
    let resumed = agent(&open(new).unwrap());
    assert!(resumed == saved && resumed != begun);
}

#[test]
fn an_agent_is_saved_even_if_the_replay_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    interrupted(&config(dir.path(), &[]), 60);
    let mut trainer = open(config(dir.path(), &[])).unwrap();
    let before = trainer.counters.step;
    while trainer.counters.step < before + 30 {
        assert!(trainer.turn().unwrap());
    }
    let replay = dir.path().join("replay");
    let aside = dir.path().join("aside");
    std::fs::rename(&replay, &aside).unwrap(); // no file of the replay can be written
    let error = format!("{:#}", trainer.save().unwrap_err());
    assert!(error.starts_with("the agent is saved, but not the replay: ") && !trainer.is_saved(), "{error}");
    let trained = agent(&trainer);
    drop(trainer);
    std::fs::rename(&aside, &replay).unwrap();

    let mut trainer = open(config(dir.path(), &[])).unwrap();
    assert!(trainer.counters.step >= before + 30 && agent(&trainer) == trained);
    // The replay lacks what came before: nothing is to be joined to its last episodes.
    assert!(step(&mut trainer).iter().all(|step| step["is_first"].item() == 1.0));
}

#[test]
fn an_agent_without_any_replay_goes_on_as_at_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let with = || config(dir.path(), &[("run.train_ratio", "512")]);
    let mut trainer = open(with()).unwrap();
    let (replay, aside) = (dir.path().join("replay"), dir.path().join("aside"));
    std::fs::rename(&replay, &aside).unwrap();
    while trainer.counters.owed < 5 {
        assert!(trainer.turn().unwrap());
    }
    trainer.save().unwrap_err();
    drop(trainer);
    // With the empty replay of the first save, and without any.
    for back in [true, false] {
        if back {
            std::fs::rename(&aside, &replay).unwrap();
        } else {
            std::fs::remove_dir_all(&replay).unwrap();
        }
        let mut trainer = open(with()).unwrap();
        assert!(lock(&trainer.replay).is_empty() && trainer.counters.owed == 0);
        while trainer.counters.owed == 0 {
            assert!(trainer.turn().unwrap());
        }
        assert_eq!(trainer.counters.owed, 1, "what was missed is not made up for at once");
        assert!(trainer.turn().unwrap());
    }
}

#[test]
fn sequences_of_a_new_length_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = open(config(dir.path(), &[("run.train_ratio", "512")])).unwrap();
    while trainer.counters.owed < 5 {
        assert!(trainer.turn().unwrap());
    }
    trainer.save().unwrap();
    drop(trainer);
    let longer = [("run.train_ratio", "256"), ("batch_length", "40"), ("report_length", "40")];
    let mut trainer = open(config(dir.path(), &longer)).unwrap();
    assert!(!trainer.has_enough());
    while trainer.counters.owed == 0 {
        assert!(trainer.turn().unwrap());
    }
    assert!(trainer.has_enough());
    assert_eq!(trainer.counters.owed, 1, "what was missed is not made up for at once");
    assert!(trainer.turn().unwrap());
}

#[test]
fn steps_of_other_keys_are_refused_before_the_folder_changes() {
    let dir = tempfile::tempdir().unwrap();
    interrupted(&config(dir.path(), &[]), 60);
    let told = std::fs::read(dir.path().join("config.yaml")).unwrap();
    let error = format!("{:#}", open(config(dir.path(), &[("replay_context", "0")])).err().unwrap());
    assert!(error.contains("'dyn/deter'"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("config.yaml")).unwrap(), told);
}

#[test]
fn what_was_interrupted_before_its_first_checkpoint_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ckpt"), "").unwrap(); // no folder, so that no checkpoint can be written
    let error = format!("{:#}", Trainer::save(&mut unsaved(&config(dir.path(), &[]))).unwrap_err());
    assert!(error.starts_with("the replay is saved, but not the agent: "), "{error}");
    assert!(dir.path().join("replay/manifest").is_file());
    std::fs::remove_file(dir.path().join("ckpt")).unwrap();
    assert!(interrupted(&config(dir.path(), &[]), 9) > 0);
}

/// A new run before its first save.
fn unsaved(config: &Config) -> Trainer {
    let folder = Folder::of(&mut config.clone()).unwrap();
    let checkpoints = Checkpoints::new(&folder.path("ckpt"));
    let parts = build(config, &folder, 0).unwrap();
    saving::write_config(folder.root(), config).unwrap();
    Trainer::new(config.clone(), folder, checkpoints, parts, None).unwrap()
}

#[test]
fn what_is_refused_leaves_the_run_folder_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    interrupted(&config(run, &[]), 60);
    let later = "{\"step\":99999,\"episode/score\":1}\n";
    let mut scores = std::fs::read_to_string(run.join("scores.jsonl")).unwrap();
    scores += later; // of steps after the checkpoint
    std::fs::write(run.join("scores.jsonl"), &scores).unwrap();
    let listing = || {
        let mut names: Vec<_> = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        (
            names,
            std::fs::read(run.join("config.yaml")).unwrap(),
            std::fs::read_to_string(run.join("scores.jsonl")).unwrap(),
        )
    };
    let before = listing();
    // The folders of `train_eval` are not to be made before it is refused.
    for (key, value, said) in
        [("agent.dyn.rssm.deter", "16", "does not fit the agent"), ("random_agent", "true", "random_agent is true")]
    {
        let error = format!("{:#}", open(config(run, &[(key, value), ("script", "train_eval")])).err().unwrap());
        assert!(error.contains(said), "{error}");
        assert_eq!(listing(), before, "{key}");
    }
    // A run without its checkpoints is not begun anew on top of what is left of it.
    std::fs::rename(run.join("ckpt"), run.join("elsewhere")).unwrap();
    let before = listing();
    let error = format!("{:#}", open(config(run, &[])).err().unwrap());
    assert!(error.contains("holds parts of another run (metrics.jsonl) and no checkpoint"), "{error}");
    assert_eq!(listing(), before);
}

#[test]
fn a_start_that_fails_leaves_nothing_and_a_configuration_of_ones_own_stays() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    assert!(open(config(&run, &[("run.from_checkpoint", "/no/such/run")])).is_err());
    assert!(!run.exists());
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("config.yaml"), "# my notes\nrun.steps: 8\nlogdir: run\n").unwrap();
    let error = format!("{:#}", open(config(&run, &[])).err().unwrap());
    assert!(error.contains("config.yaml") && error.contains("is of no run"), "{error}");
    assert!(std::fs::read_to_string(run.join("config.yaml")).unwrap().starts_with("# my notes"));
}

#[test]
fn runs_that_begin_in_the_same_second_have_folders_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut roots: Vec<_> = (0..3)
        .map(|_| {
            let mut config = config(&dir.path().join("{timestamp}/"), &[]);
            let folder = Folder::of(&mut config).unwrap();
            assert_eq!(folder.root(), std::path::Path::new(&config.logdir));
            folder.root().to_path_buf()
        })
        .collect();
    roots.dedup();
    assert_eq!(roots.len(), 3);
    assert!(roots.iter().all(|root| root.parent() == Some(dir.path())));
}
