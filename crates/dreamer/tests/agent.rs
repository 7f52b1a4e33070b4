//! The agent through its public verbs: any mix of keys, refusals, saving, options of the update.

mod common;

use common::{batch, everything, fill, obs_space, tiny};
use dreamer_agent::{Agent, AgentConfig, Carry, Mode};
use engine::Device;
use spaces::{Array, Data, Record, Space, Spaces};

/// Trains a few updates and returns the metrics of the last and the state after it.
fn train(c: &AgentConfig, updates: usize) -> (dreamer_agent::Metrics, Record) {
    let (obs, act) = everything();
    let mut agent = Agent::new(&obs, &act, c).unwrap();
    let batch = batch(&agent, &obs, &act);
    let mut carry = agent.initial(c.batch_size);
    let mut metrics = Default::default();
    for _ in 0..updates {
        metrics = agent.train(&mut carry, &batch).unwrap().metrics;
    }
    (metrics, agent.save())
}

#[test]
fn any_mix_of_keys_trains_acts_and_reports() {
    let (obs, act) = everything();
    let mut agent = Agent::new(&obs, &act, &tiny()).unwrap();
    let batch = batch(&agent, &obs, &act);
    let mut carry = agent.initial(3);
    let trained = agent.train(&mut carry, &batch).unwrap();
    for key in ["camera", "depth", "joints", "level", "tools", "door", "policy", "value", "repval", "dyn", "rep"] {
        assert!(trained.metrics[&format!("loss/{key}")].is_finite());
    }
    assert_eq!(trained.replay["stepid"].shape, [3, 4, 20]);
    assert_eq!(trained.replay["dyn/deter"].shape, [3, 4, 16]);
    assert_eq!(trained.replay["dyn/stoch"].shape, [3, 4, 4]);

    let reported = agent.report(&mut agent.initial(3), &batch).unwrap();
    // Truth, prediction and error of 12 x 20 with a border of 2, three sequences side by side, a pause at the end.
    assert_eq!(reported.videos["openloop/camera"].shape, [4 + 10, 36 + 4, 3 * 24, 3]);
    assert_eq!(reported.videos["openloop/depth"].shape[3], 3);

    let step = spaces::row(&batch, 0);
    let mut carry = agent.initial(5);
    let acted = agent.act(&mut carry, &step, Mode::Train).unwrap();
    for (key, space) in act.iter().filter(|(k, _)| *k != "reset") {
        let space = if key == "arm" { Space::float(&[2]) } else { space.clone() }; // normal samples may leave the bounds
        for i in 0..5 {
            space.check(key, &acted.action[key].at(i)).unwrap();
        }
    }
    for (key, space) in agent.replay_space() {
        space.check(&key, &acted.replay[&key].at(0)).unwrap();
    }
}

#[test]
fn every_parameter_learns_in_every_variant() {
    type Change = fn(&mut AgentConfig);
    let variants: [(&str, Change); 12] = [
        ("defaults", |_| ()),
        ("layer norm", |c| {
            c.dynamics.rssm.norm = "layer".into();
            c.enc.simple.norm = "layer".into();
            c.dec.simple.norm = "layer".into();
            c.value.norm = "layer".into();
        }),
        ("swiglu", |c| {
            c.dynamics.rssm.act = "swiglu".into();
            c.enc.simple.act = "swiglu".into();
            c.dec.simple.act = "swiglu".into();
            c.policy.act = "swiglu".into();
        }),
        ("deep recurrence", |c| {
            let r = &mut c.dynamics.rssm;
            (r.dynlayers, r.obslayers, r.imglayers) = (2, 2, 1);
        }),
        ("no hidden layers", |c| {
            let r = &mut c.dynamics.rssm;
            (r.dynlayers, r.obslayers, r.imglayers) = (0, 0, 0);
            (c.enc.simple.layers, c.value.layers) = (0, 0);
        }),
        ("absolute", |c| (c.dynamics.rssm.absolute, c.dynamics.rssm.free_nats) = (true, 0.0)),
        ("strided", |c| (c.enc.simple.strided, c.dec.simple.strided) = (true, true)),
        ("outer", |c| {
            (c.enc.simple.outer, c.dec.simple.outer) = (true, true);
            (c.enc.simple.mults, c.dec.simple.mults) = (vec![2, 3, 4], vec![2, 3, 4]);
        }),
        ("plain space", |c| (c.dec.simple.bspace, c.dec.simple.kernel, c.enc.simple.kernel) = (0, 3, 3)),
        ("regression heads", |c| {
            c.rewhead.output = "mse".into();
            c.value.output = "symlog_mse".into();
            c.policy_dist_cont = "normal_logstd".into();
            c.policy_dist_disc = "categorical_unimix".into();
        }),
        ("actor gradients", |c| (c.ac_grads, c.imag_last, c.replay_context) = (true, 2, 0)),
        ("normalised", |c| {
            (c.valnorm.kind, c.advnorm.kind, c.retnorm.kind) = ("meanstd".into(), "perc".into(), "meanstd".into());
            (c.contdisc, c.imag_loss.slowtar, c.opt.wd) = (false, true, 0.1);
        }),
    ];
    for (name, change) in variants {
        let mut c = tiny();
        change(&mut c);
        c.dynamics.rssm.free_nats = 0.0;
        for head in [&mut c.rewhead, &mut c.policy, &mut c.value] {
            head.outscale = 1.0;
        }
        let (metrics, state) = train(&c, 2);
        assert!(metrics.values().all(|v| v.is_finite()), "{name}: {metrics:?}");
        for (key, moment) in state.iter().filter(|(k, _)| k.starts_with("opt/state/1/1/")) {
            assert!(moment.to_f32().iter().any(|&v| v > 0.0), "{name}: no gradient ever reached {key}");
        }
    }
}

/// An update with everything that is kept in bfloat16, from the same seed: an emulated GPU where there is no other.
#[test]
fn an_update_in_bfloat16_has_the_losses_and_the_gradient_norm_of_float32() {
    let Some(gpu) = engine::cuda::test_gpu_in(engine::cuda::Precision::Bfloat16) else { return };
    let (obs, act) = everything();
    let mut c = tiny();
    (c.batch_size, c.batch_length) = (4, 8);
    let update = |device: Device| {
        let mut agent = Agent::new(&obs, &act, &c).unwrap().to(device);
        let data = batch(&agent, &obs, &act);
        let mut carry = agent.initial(c.batch_size);
        agent.train(&mut carry, &data).unwrap().metrics
    };
    let (expected, got) = (update(Device::Cpu), update(Device::Gpu(gpu)));
    let compared = expected.iter().filter(|(name, _)| name.contains("loss") || *name == "opt/grad_norm");
    let mut count = 0;
    for (name, expected) in compared {
        let (got, expected) = (got[name], *expected);
        assert!((got - expected).abs() <= 0.02 * expected.abs(), "{name}: {got} instead of {expected}");
        count += 1;
    }
    assert!(count >= 13, "{count} numbers");
}

#[test]
fn a_snapshot_acts_as_the_agent_did_and_cannot_be_trained() {
    let (obs, act) = everything();
    let mut agent = Agent::new(&obs, &act, &tiny()).unwrap();
    let batch = batch(&agent, &obs, &act);
    let seen: Record = batch.iter().map(|(key, a)| (key.clone(), spaces::Array::stack([&a.at(0).at(0)]))).collect();
    let acted = |agent: &Agent| {
        let mut carry = agent.initial(1);
        agent.act(&mut carry, &seen, Mode::Train).unwrap();
        carry.to_record()
    };
    let before = acted(&agent);
    let mut snapshot = agent.snapshot();
    for _ in 0..2 {
        agent.train(&mut agent.initial(3), &batch).unwrap();
    }
    assert!(acted(&snapshot) == before && acted(&agent) != before);
    let error = snapshot.train(&mut agent.initial(3), &batch).err().unwrap().to_string();
    assert!(error.contains("snapshot"), "{error}");
}

#[test]
fn saving_and_loading_continues_bit_for_bit() {
    let mut normalised = tiny();
    normalised.value.outscale = 1.0;
    (normalised.valnorm.kind, normalised.advnorm.kind) = ("meanstd".into(), "perc".into());
    for config in [tiny(), normalised] {
        continues(&config);
    }
}

fn continues(config: &AgentConfig) {
    let (obs, act) = everything();
    let mut agent = Agent::new(&obs, &act, config).unwrap();
    let batch = batch(&agent, &obs, &act);
    let mut carry = agent.initial(3);
    agent.train(&mut carry, &batch).unwrap();

    let mut copy = Agent::new(&obs, &act, &AgentConfig { seed: 9, ..config.clone() }).unwrap();
    copy.load(&agent.save(), None).unwrap();
    let mut copy_carry = Carry::from_record(&carry.to_record()).unwrap();
    assert_eq!(copy.updates(), 1);
    let snapshot = agent.clone();
    let before = snapshot.save();
    let statistics = [("valnorm", ["mean", "sqrs", "corr"]), ("advnorm", ["lo", "hi", "corr"])];
    for (norm, name) in statistics.into_iter().flat_map(|(norm, names)| names.map(|name| (norm, name))) {
        let saved = before.get(&format!("{norm}/{name}/value")).map(|x| x.item() != 0.0);
        assert_eq!(saved, (config.valnorm.kind != "none").then_some(true), "{norm}/{name}");
    }
    // The seed is the configuration's, not the state's: give the copy the same to compare draws.
    let mut same = Agent::new(&obs, &act, config).unwrap();
    same.load(&copy.save(), None).unwrap();
    let a = agent.train(&mut carry, &batch).unwrap();
    let b = same.train(&mut copy_carry, &batch).unwrap();
    assert_eq!(a.metrics, b.metrics);
    assert!(agent.save() == same.save());
    assert!(snapshot.save() == before, "a clone is a snapshot that training leaves alone");
}

#[test]
fn a_saved_carry_of_other_shapes_is_refused() {
    let record = Agent::new(&everything().0, &everything().1, &tiny()).unwrap().initial(2).to_record();
    let mut flat = record.clone();
    flat.insert("deter".into(), Array::f32(0.0));
    let error = Carry::from_record(&flat).err().unwrap().to_string();
    assert_eq!(error, "the saved carry's 'deter' is [], not a row for each environment");
    assert!(Carry::from_record(&record).is_ok());
}

#[test]
fn weight_decay_takes_its_share_of_the_parameters_that_it_is_for() {
    let after_one = |wd: f32, wdregex: &str| {
        let mut c = tiny();
        (c.opt.lr, c.opt.wd, c.opt.wdregex) = (0.1, wd, wdregex.into());
        train(&c, 1).1
    };
    let (obs, act) = everything();
    let start = Agent::new(&obs, &act, &tiny()).unwrap().save();
    let is_kernel = |name: &str| name.ends_with("/kernel");
    type Decays<'a> = &'a dyn Fn(&str) -> bool;
    let cases: [(&str, Decays); 2] =
        [("/kernel$", &is_kernel), ("^dyn/.*/kernel$", &|name| name.starts_with("dyn/") && is_kernel(name))];
    for (wdregex, decays) in cases {
        let (plain, decayed) = (after_one(0.0, wdregex), after_one(0.5, wdregex));
        let mut count = 0;
        for (name, plain) in plain.iter().filter(|(name, _)| !name.starts_with("slowval")) {
            if !decays(name) || name.starts_with("opt/") {
                assert!(decayed[name] == *plain, "{name} with {wdregex}");
                continue;
            }
            count += 1;
            let (plain, decayed, start) = (plain.to_f32(), decayed[name].to_f32(), start[name].to_f32());
            for ((plain, decayed), start) in plain.iter().zip(&decayed).zip(&start) {
                let expected = plain - 0.1 * 0.5 * start;
                assert!((decayed - expected).abs() <= 1e-6, "{name}: {decayed} instead of {expected}");
            }
        }
        assert!(count > 5, "{count} tensors with {wdregex}");
    }
}

#[test]
fn the_slow_value_moves_in_the_first_of_every_so_many_updates() {
    let (obs, act) = everything();
    let mut c = tiny();
    (c.slowvalue.every, c.value.outscale) = (3, 1.0);
    let mut agent = Agent::new(&obs, &act, &c).unwrap();
    let batch = batch(&agent, &obs, &act);
    let mut carry = agent.initial(3);
    let mut before = agent.save();
    for update in 0..4 {
        agent.train(&mut carry, &batch).unwrap();
        let now = agent.save();
        let mut moved = false;
        for (name, slow) in now.iter().filter(|(name, _)| name.starts_with("slowval/")) {
            let [slow, old, value] = [slow, &before[name], &now[&name.replace("slowval/", "val/")]].map(|x| x.to_f32());
            if update % 3 != 0 {
                assert_eq!(slow, old, "{name} in update {update}");
                continue;
            }
            moved |= slow != old;
            for ((slow, old), value) in slow.iter().zip(&old).zip(&value) {
                assert!((slow - (0.98 * old + 0.02 * value)).abs() <= 1e-6, "{name} in update {update}");
            }
        }
        assert_eq!(moved, update % 3 == 0, "update {update}");
        before = now;
    }
}

/// The same with the values of another batch in all steps but the last.
fn with_another_past(batch: &Record, other: &Record) -> Record {
    let (b, steps) = (batch["is_first"].shape[0], batch["is_first"].shape[1]);
    let mix = |key: &str, row: usize| {
        let from = |step: usize| if step + 1 < steps { &other[key] } else { &batch[key] };
        Array::stack(&(0..steps).map(|step| from(step).at(row).at(step)).collect::<Vec<_>>())
    };
    let all = |key: &String| Array::stack(&(0..b).map(|row| mix(key, row)).collect::<Vec<_>>());
    batch.keys().map(|key| (key.clone(), all(key))).collect()
}

#[test]
fn an_agent_that_forgets_at_every_step_does_not_know_what_came_before() {
    let (obs, act) = everything();
    for forgets in [true, false] {
        let mut c = tiny();
        c.dynamics.rssm.reset_every_step = forgets;
        let agent = Agent::new(&obs, &act, &c).unwrap();
        let mut data = batch(&agent, &obs, &act);
        let steps = [c.batch_size, c.batch_length + 1];
        data.insert("is_first".into(), Array::zeros(data["is_first"].dtype(), &steps)); // or any agent forgets
        let keys = obs.iter().chain(&act).filter(|(key, _)| data.contains_key(*key) && !key.starts_with("is_"));
        let mut other: Record = keys.map(|(key, space)| (key.clone(), fill(space, &steps, key.len() + 50))).collect();
        let others = data.iter().filter(|(key, _)| !other.contains_key(*key)).map(|(key, x)| (key.clone(), x.clone()));
        let others: Record = others.collect();
        other.extend(others);
        let ends = [data.clone(), with_another_past(&data, &other)].map(|data| {
            let mut carry = agent.initial(c.batch_size);
            agent.clone().train(&mut carry, &data).unwrap();
            carry
        });
        let state = |carry: &Carry| carry.to_record();
        assert_eq!(state(&ends[0]) == state(&ends[1]), forgets, "after training");

        // Acting, with the same draws from states that differ.
        let step = |data: &Record| spaces::row(data, 0);
        let mut first = agent.initial(steps[1]);
        agent.act(&mut first, &step(&other), Mode::Train).unwrap();
        let (mut first, mut second) = (first.at_step(7), agent.initial(steps[1]).at_step(7));
        assert!(state(&first) != state(&second));
        for carry in [&mut first, &mut second] {
            agent.act(carry, &step(&data), Mode::Train).unwrap();
        }
        assert_eq!(state(&first) == state(&second), forgets, "after acting");
    }
}

#[test]
fn rows_of_a_batch_without_consec_begin_anew() {
    let (obs, act) = everything();
    let trained = |change: fn(&mut Record)| {
        let mut agent = Agent::new(&obs, &act, &tiny()).unwrap();
        let mut data = batch(&agent, &obs, &act);
        let mut carry = agent.initial(3);
        agent.train(&mut carry, &data).unwrap();
        change(&mut data);
        agent.train(&mut carry, &data).unwrap();
        agent.save()
    };
    let zeros = trained(|_| ());
    assert!(trained(|data| drop(data.remove("consec"))) == zeros);
    assert!(trained(|data| data.get_mut("consec").unwrap().data = Data::I32(vec![1; 15])) != zeros);
}

#[test]
fn loading_part_of_a_state_by_regular_expression() {
    let (obs, act) = everything();
    let trained = train(&tiny(), 2).1;
    let mut agent = Agent::new(&obs, &act, &AgentConfig { seed: 5, ..tiny() }).unwrap();
    let fresh = agent.save();
    agent.load(&trained, Some("(enc|dyn)/")).unwrap();
    let now = agent.save();
    for key in now.keys() {
        let source = if key.starts_with("enc/") || key.starts_with("dyn/") { &trained } else { &fresh };
        assert!(now[key] == source[key], "{key}");
    }
    let error = agent.load(&trained, Some("nothing")).unwrap_err().to_string();
    assert!(error.contains("'nothing'"), "{error}");
    let mut short = trained.clone();
    short.remove("pol/mlp/linear0/kernel");
    let error = agent.load(&short, None).unwrap_err().to_string();
    assert!(error.contains("pol/mlp/linear0/kernel"), "{error}");
    let mut broken = trained.clone();
    broken.get_mut("pol/mlp/linear0/kernel").unwrap().data =
        Data::F32(vec![f32::NAN; broken["pol/mlp/linear0/kernel"].len()]);
    let error = agent.load(&broken, None).unwrap_err().to_string();
    assert!(error.contains("'pol/mlp/linear0/kernel' holds NaN"), "{error}");
    assert!(agent.save() == now, "a failed load changes nothing");
}

#[test]
fn what_cannot_work_is_refused_with_the_key() {
    type Change = fn(&mut AgentConfig);
    let cases: [(Change, &str); 20] = [
        (|c| c.dynamics.rssm.blocks = 5, "agent.dyn.rssm.blocks"),
        (|c| c.dynamics.rssm.act = "sile".into(), "agent.dyn.rssm.act"),
        (|c| c.enc.simple.norm = "batch".into(), "agent.enc.simple.norm"),
        (|c| c.enc.simple.kernel = 4, "agent.enc.simple.kernel"),
        (|c| c.dec.simple.bspace = 3, "agent.dec.simple.bspace"),
        (|c| c.enc.simple.mults = vec![2, 3, 4, 4], "'camera'"),
        (|c| c.opt.schedule = "cosine".into(), "agent.opt.anneal"),
        (|c| c.retnorm.kind = "max".into(), "agent.retnorm.impl"),
        (|c| c.policy_dist_cont = "beta".into(), "agent.policy_dist_cont"),
        (|c| c.imag_length = 0, "agent.imag_length"),
        (|c| c.opt.wdregex = "(".into(), "agent.opt.wdregex"),
        (|c| c.opt.eps = 0.0, "agent.opt.eps is 0; it must be above 0"),
        (|c| c.opt.beta2 = 0.99999999, "agent.opt.beta2 is 1; it must be at least 0 and below 1"),
        (|c| c.opt.wd = -1.0, "agent.opt.wd is -1; it must be at least 0"),
        (|c| c.slowvalue.rate = -0.5, "agent.slowvalue.rate is -0.5; it must be at least 0 and at most 1"),
        (
            |c| (c.retnorm.rate, c.retnorm.debias) = (0.0, true),
            "agent.retnorm.rate is 0, with which there is nothing to",
        ),
        (|c| c.advnorm.limit = 0.0, "agent.advnorm.limit is 0; it must be above 0"),
        (|c| c.horizon = 1.0, "agent.horizon is 1; it must be above 1"),
        (|c| c.imag_loss.lam = 1.5, "agent.imag_loss.lam is 1.5; it must be at least 0 and at most 1"),
        (|c| c.opt.lr = f64::INFINITY, "agent.opt.lr is inf"),
    ];
    let (obs, act) = everything();
    for (change, key) in cases {
        let mut c = tiny();
        change(&mut c);
        let error = Agent::new(&obs, &act, &c).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains(key), "expected {key} in: {error}");
    }
    let mixed = obs_space(&[("a", Space::image(12, 20, 3)), ("b", Space::image(16, 20, 3))]);
    let error = Agent::new(&mixed, &act, &tiny()).err().unwrap().to_string();
    assert!(error.contains("'b'") && error.contains("'a'"), "{error}");
    let named = obs_space(&[("rep", Space::float(&[2]))]);
    let error = Agent::new(&named, &act, &tiny()).err().unwrap().to_string();
    assert!(error.contains("'rep' is the name of a loss") && error.contains("obs/rep"), "{error}");
    let refused = |obs: &Spaces, act: &Spaces| Agent::new(obs, act, &tiny()).err().unwrap().to_string();
    let shifted = obs_space(&[("step", Space { low: -3.0, ..Space::discrete(&[], 7) })]);
    assert!(refused(&shifted, &act).contains("'step' start at -3; shift them"));
    let empty = obs_space(&[("step", Space::discrete(&[], 0))]);
    assert!(refused(&empty, &act).contains("'step' is int32 [] of 0 classes, which can have no value"));
    let both = obs_space(&[("arm", Space::float(&[2]))]);
    assert!(refused(&both, &act).contains("the key 'arm' is in both spaces"));
    let act_of = |space: Space| Spaces::from([("arm".to_string(), space)]);
    let half = Space { dtype: spaces::DType::F16, ..Space::float(&[2]) };
    assert!(refused(&obs, &act_of(half)).contains("'arm' is float16 [2]; continuous actions are float32"));
    let one_side = Space { low: 0.0, ..Space::float(&[2]) };
    assert!(refused(&obs, &act_of(one_side)).contains("'arm' has a bound on one side only"));
    assert!(Agent::new(&obs_space(&[]), &act, &tiny()).is_err());
    assert!(Agent::new(&obs, &Spaces::new(), &tiny()).is_err());
}

#[test]
fn bad_data_is_an_error_that_names_it_and_changes_nothing() {
    let (obs, act) = everything();
    let mut agent = Agent::new(&obs, &act, &tiny()).unwrap();
    let good = batch(&agent, &obs, &act);
    let before = agent.save();
    let mut fails = |change: &dyn Fn(&mut Record), word: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let mut carry = agent.initial(3);
        let error = agent.train(&mut carry, &bad).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(word), "expected {word} in: {error}");
        assert!(agent.save() == before);
    };
    fails(&|b| drop(b.remove("joints")), "'joints'");
    fails(&|b| drop(b.remove("arm")), "'arm'");
    fails(&|b| drop(b.insert("level".into(), Array::from_f32(&[3], vec![0.0; 3]))), "'level'");
    fails(&|b| drop(b.insert("reward".into(), Array::from_f32(&[3, 5], vec![f32::NAN; 15]))), "rew");

    let none = |(key, x): (&String, &Array)| (key.clone(), Array::zeros(x.dtype(), &[&[0], &x.shape[1..]].concat()));
    let empty: Record = good.iter().map(none).collect();
    let error = agent.train(&mut agent.initial(0), &empty).err().unwrap().to_string();
    assert_eq!(error, "the batch holds no sequences");

    let mut large = tiny();
    large.dynamics.rssm.deter *= 2;
    let mut carry = Agent::new(&obs, &act, &large).unwrap().initial(3);
    for error in [
        agent.train(&mut carry, &good).err(),
        agent.report(&mut carry, &good).err(),
        agent.act(&mut carry, &Record::new(), dreamer_agent::Mode::Eval).err(),
    ] {
        assert!(error.unwrap().to_string().starts_with("the carry is of another agent: its deter, stoch and"));
    }
}
