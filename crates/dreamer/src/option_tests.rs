//! What options do that no golden file sets, mostly on the inputs of one.

use crate::actor_critic::Normalizers;
use crate::agent::Agent;
use crate::batch::Batch;
use crate::checked::Checked;
use crate::common::{batch, everything, obs_space, tiny};
use crate::config::{AgentConfig, LossScales, Normalize};
use crate::golden::{Golden, own_folder};
use crate::loss::Loss;
use crate::noise::{Injected, Noise, Purpose};
use engine::{Rng, Tensor, ops};
use spaces::{Array, Record, Space};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The agent and the inputs of a golden file under another configuration.
struct Case {
    golden: Golden,
    agent: Agent,
    batch: Batch,
    noise: Noise,
}

impl Case {
    fn new(change: impl FnOnce(&mut AgentConfig)) -> Case {
        let golden = Golden::read(&own_folder().join("vector.json"));
        let mut agent = golden.agent();
        change(&mut Arc::make_mut(&mut agent.layout).config);
        agent.norms = Normalizers::new(agent.config());
        let batch = Batch::new(&golden.below("batch/"), &golden.carry(), &agent.layout).unwrap();
        let noise = golden.train_noise();
        Case { golden, agent, batch, noise }
    }

    fn loss(&self) -> Loss {
        self.agent.loss(&self.batch, &self.noise, true).unwrap()
    }

    fn checked(&self, loss: &Loss) -> Checked {
        Checked::new(&self.agent.learner(&self.noise, true), &self.batch, loss)
    }

    fn gradients(&self) -> BTreeMap<String, Tensor> {
        let names = self.agent.params.iter().map(|(name, _)| name.to_string());
        names.zip(self.agent.gradients(&self.loss())).collect()
    }
}

/// No loss but this one counts.
fn only(name: &str) -> LossScales {
    let on = |other| (name == other) as u8 as f32;
    LossScales {
        rec: on("rec"),
        rew: on("rew"),
        con: on("con"),
        dynamics: on("dyn"),
        rep: on("rep"),
        policy: on("policy"),
        value: on("value"),
        repval: on("repval"),
    }
}

fn find<'a>(losses: &'a [(String, Tensor)], name: &str) -> Option<&'a Tensor> {
    losses.iter().find(|(other, _)| other == name).map(|(_, x)| x)
}

fn mean(x: &Tensor) -> f64 {
    x.data().iter().map(|&x| x as f64).sum::<f64>() / x.len() as f64
}

/// Panics where a number differs from what was expected by more than a share of it, or of one.
fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let apart = (got as f64 - expected).abs();
        assert!(apart <= tolerance * expected.abs().max(1.0), "{what}, number {i}: {got} instead of {expected}");
    }
}

fn doubles(x: &Tensor) -> Vec<f64> {
    x.data().iter().map(|&x| x as f64).collect()
}

#[test]
fn a_loss_reaches_into_the_world_model_only_where_its_option_says_so() {
    type Switch = fn(&mut AgentConfig, bool);
    let cases: [(&str, &str, Switch); 4] = [
        ("policy", "pol", |c, on| c.ac_grads = on),
        ("value", "val", |c, on| c.ac_grads = on),
        ("rew", "rew", |c, on| c.reward_grad = on),
        ("repval", "val", |c, on| c.repval_grad = on),
    ];
    for (loss, head, switch) in cases {
        let gradients = |on: bool| {
            let change = |c: &mut AgentConfig| {
                c.loss_scales = only(loss);
                switch(c, on);
            };
            Case::new(change).gradients()
        };
        let (without, with) = (gradients(false), gradients(true));
        for (name, without) in &without {
            let with = &with[name];
            let [off, on] = [without, with].map(|x| x.data().iter().any(|&x| x != 0.0));
            let part = name.split('/').next().unwrap();
            // The prior only imagines and is compared with; all else of these makes the features.
            let features = ["enc", "dyn"].contains(&part) && !name.starts_with("dyn/prior");
            assert_eq!(off, part == head, "{loss} and {name}, switched off");
            assert_eq!(on, part == head || features, "{loss} and {name}, switched on");
            assert!(part != head || without.data() == with.data(), "{loss} and {name}: the head learns the same");
        }
    }
}

#[test]
fn without_the_replay_value_loss_the_total_is_that_of_the_others() {
    let scales =
        LossScales { rec: 0.7, rew: 1.1, con: 1.3, dynamics: 0.9, rep: 0.2, policy: 0.6, value: 1.7, repval: 0.4 };
    let of_scale = [
        ("vector", 0.7),
        ("rew", 1.1),
        ("con", 1.3),
        ("dyn", 0.9),
        ("rep", 0.2),
        ("policy", 0.6),
        ("value", 1.7),
        ("repval", 0.4),
    ];
    let computed = |on: bool| Case::new(|c| (c.loss_scales, c.repval_loss) = (scales.clone(), on)).loss();
    let full = computed(true);
    for (on, mut out) in [(true, computed(true)), (false, computed(false))] {
        let expected: Vec<_> = of_scale.iter().filter(|(name, _)| on || *name != "repval").collect();
        assert_eq!(out.losses.len(), expected.len());
        let total = expected.iter().map(|(name, scale)| scale * mean(find(&out.losses, name).unwrap())).sum();
        assert_close("the total", &[out.total.item()], &[total], 1e-5);
        for (name, x) in &out.losses {
            assert_eq!(x.data(), find(&full.losses, name).unwrap().data(), "{name}");
        }
        let metrics = std::mem::take(&mut out.metrics).read();
        assert_eq!(metrics.contains_key("loss/repval"), on);
    }
}

/// Some of the steps of [B, T, ..].
fn steps(x: &Tensor, wanted: Range<usize>) -> Tensor {
    ops::stack_time(&ops::unstack_time(x)[wanted])
}

/// The same of [B * T, N, W], a row for each step.
fn rows_of_steps(x: &Tensor, b: usize, wanted: Range<usize>) -> Tensor {
    let (t, n, w) = (x.dim(0) / b, x.dim(1), x.dim(2));
    let count = wanted.len();
    ops::reshape(&steps(&ops::reshape(x, &[b, t, n * w]), wanted), &[b * count, n, w])
}

#[test]
fn imagining_from_the_last_steps_is_part_of_imagining_from_all() {
    let no_scale = |c: &mut AgentConfig| c.retnorm.kind = "none".into(); // it would depend on all returns
    let full = Case::new(no_scale);
    let (b, t) = (full.batch.b, full.batch.t);
    let mut last = Case::new(|c| {
        no_scale(c);
        c.imag_last = 2;
    });
    let Noise::Injected(noise) = &mut last.noise else { unreachable!("golden files have noise") };
    let cut = |x: &Tensor| rows_of_steps(x, b, t - 2..t);
    noise.img = noise.img.as_ref().map(cut);
    noise.act.values_mut().for_each(|x| *x = cut(x));
    let (full, last) = (full.loss().losses, last.loss().losses);
    for (name, expected) in &full {
        let got = find(&last, name).unwrap();
        let expected = match name.as_str() {
            "policy" | "value" => {
                let h = expected.dim(1);
                let expected = steps(&ops::reshape(expected, &[b, t, h]), t - 2..t);
                assert_eq!(got.shape(), [2 * b, h]);
                expected
            }
            "repval" => ops::column(expected, 0..b, t - 2),
            _ => expected.clone(),
        };
        assert_close(name, got.data(), &doubles(&expected), 1e-5);
    }
}

/// Lambda returns [N, H] in float64, where `con` and `boot` are of the H + 1 states.
fn returns(rew: &[f64], con: &[f64], boot: &[f64], states: usize, disc: f64) -> Vec<f64> {
    let mut out = Vec::new();
    for ((rew, con), boot) in rew.chunks(states).zip(con.chunks(states)).zip(boot.chunks(states)) {
        let mut next = boot[states - 1];
        let mut row: Vec<f64> = (1..states)
            .rev()
            .map(|t| {
                next = rew[t] + disc * con[t] * (0.05 * boot[t] + 0.95 * next);
                next
            })
            .collect();
        row.reverse();
        out.extend(row);
    }
    out
}

#[test]
fn the_discount_is_either_in_what_the_continue_head_learns_or_in_returns_and_weights() {
    for contdisc in [true, false] {
        let mut case = Case::new(|c| c.contdisc = contdisc);
        let kept: f64 = 1.0 - 1.0 / 333.0;
        let (disc, target) = if contdisc { (1.0, kept) } else { (kept, 1.0) };
        let ends = Tensor::from_slice(&[3, 6], &(0..18).map(|i| (i % 4 == 3) as u8 as f32).collect::<Vec<_>>());
        case.batch.is_terminal = ends.clone();
        let out = case.loss();
        let checked = case.checked(&out);
        let x = &checked.predictions;
        let (con, states) = (doubles(&x.con), x.con.dim(1));
        let weights: Vec<f64> = con
            .chunks(states)
            .flat_map(|con| {
                (0..states - 1).map(|t| disc.powi(t as i32) * con[..=t].iter().product::<f64>()).collect::<Vec<_>>()
            })
            .collect();
        assert_close("weights", checked.targets.weight.data(), &weights, 1e-6);
        let expected = returns(&doubles(&x.rew), &con, &doubles(&x.val), states, disc);
        assert_close("returns", checked.targets.ret.data(), &expected, 1e-5);

        let head = &case.agent.parts.con;
        let feat = [&out.observed.deter, &out.observed.stoch];
        let goes_on = head.pred(&head.apply(&case.agent.params.frozen(), &feat));
        let loss = |(p, end): (&f64, &f64)| {
            let y = (1.0 - end) * target;
            -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
        };
        let expected: Vec<f64> = doubles(&goes_on).iter().zip(&doubles(&ends)).map(loss).collect();
        assert_close("the continue loss", find(&out.losses, "con").unwrap().data(), &expected, 1e-5);
    }
}

#[test]
fn returns_are_bootstrapped_from_the_slow_value_where_wanted() {
    for slowtar in [false, true] {
        let case = Case::new(|c| (c.imag_loss.slowtar, c.retnorm.kind) = (slowtar, "none".into()));
        let checked = case.checked(&case.loss());
        let (x, targets) = (&checked.predictions, &checked.targets);
        let [rew, con, val, slow] = [&x.rew, &x.con, &x.val, &x.slow].map(doubles);
        assert!(val.iter().zip(&slow).all(|(a, b)| (a - b).abs() > 1e-6), "they are told apart");
        let (boot, states) = (if slowtar { slow } else { val }, x.rew.dim(1));
        let expected = returns(&rew, &con, &boot, states, 1.0);
        assert_close("returns", targets.ret.data(), &expected, 1e-5);
        let here = boot.chunks(states).flat_map(|row| &row[..states - 1]);
        let advantages: Vec<f64> = expected.iter().zip(here).map(|(ret, value)| ret - value).collect();
        assert_close("advantages", targets.adv.data(), &advantages, 1e-5);
    }
}

/// One step of a running average.
fn moved(old: f64, new: f64) -> f64 {
    0.99 * old + 0.01 * new
}

/// As numpy interpolates.
fn percentile(x: &[f64], q: f64) -> f64 {
    let mut x = x.to_vec();
    x.sort_by(f64::total_cmp);
    let at = q / 100.0 * (x.len() - 1) as f64;
    let low = at as usize;
    x[low] + (at - low as f64) * (x[(low + 1).min(x.len() - 1)] - x[low])
}

#[test]
fn values_and_advantages_are_normalised_by_the_running_statistics_of_returns_and_advantages() {
    let norm = |kind: &str| Normalize { kind: kind.into(), ..Normalize::default() };
    let mut case = Case::new(|c| (c.valnorm, c.advnorm) = (norm("meanstd"), norm("perc")));
    let states = |norms: &Normalizers| [&norms.ret, &norms.val, &norms.adv].map(|norm| doubles(&norm.state));
    // In the second round there is something to go on from.
    for _round in 0..2 {
        let [_, mut val, mut adv] = states(&case.agent.norms);
        let out = case.loss();
        let checked = case.checked(&out);
        let (x, targets) = (&checked.predictions, &checked.targets);
        let moments = |state: &[f64]| {
            let corr = 1.0 / state[2].max(0.01);
            let (mean, squares) = (state[0] * corr, state[1] * corr);
            (mean, (squares - mean * mean).max(0.0).sqrt().max(1e-8))
        };
        let follow = |state: &mut [f64], x: &[f64]| {
            let count = x.len() as f64;
            state[0] = moved(state[0], x.iter().sum::<f64>() / count);
            state[1] = moved(state[1], x.iter().map(|x| x * x).sum::<f64>() / count);
            state[2] = moved(state[2], 1.0);
        };
        let normed =
            |x: &[f64], (offset, scale): (f64, f64)| x.iter().map(|x| (x - offset) / scale).collect::<Vec<_>>();

        // Predictions are in units of what the critic learned before.
        let (offset, scale) = moments(&val);
        let values: Vec<f64> = doubles(&x.val).iter().map(|x| x * scale + offset).collect();
        assert_close("values", checked.val.data(), &values, 1e-4);
        let ret = returns(&doubles(&x.rew), &doubles(&x.con), &doubles(&checked.val), x.rew.dim(1), 1.0);
        assert_close("returns", targets.ret.data(), &ret, 1e-5);

        // The critic's targets are normalised with these returns counted in; the replayed returns count for the next ones.
        follow(&mut val, &doubles(&targets.ret));
        assert_close("targets", targets.value.data(), &normed(&doubles(&targets.ret), moments(&val)), 1e-4);
        follow(&mut val, &doubles(&checked.replayed));
        let [ret_state, val_state, adv_state] = states(&out.norms);
        let close = |what: &str, got: &[f64], expected: &[f64]| {
            assert_close(what, &got.iter().map(|&x| x as f32).collect::<Vec<_>>(), expected, 1e-6);
        };
        close("valnorm", &val_state, &val);

        let ret_scale = (ret_state[1] - ret_state[0]).max(1.0);
        let values = doubles(&checked.val);
        let here = values.chunks(x.rew.dim(1)).flat_map(|row| &row[..row.len() - 1]);
        let advantages: Vec<f64> =
            doubles(&targets.ret).iter().zip(here).map(|(ret, value)| (ret - value) / ret_scale).collect();
        adv = vec![
            moved(adv[0], percentile(&advantages, 5.0)),
            moved(adv[1], percentile(&advantages, 95.0)),
            moved(adv[2], 1.0),
        ];
        close("advnorm", &adv_state, &adv);
        let [low, high] = [0, 1].map(|i| adv[i] / adv[2].max(0.01));
        assert_close("advantages", targets.adv.data(), &normed(&advantages, (low, (high - low).max(1e-8))), 1e-4);

        let mut prepared = case.agent.preparer().prepare(case.golden.below("batch/")).unwrap();
        case.agent.train_with(&mut case.golden.carry(), &mut prepared, &case.noise).unwrap();
        assert_eq!(states(&case.agent.norms), [ret_state, val_state, adv_state], "an update keeps them");
    }
}

#[test]
fn a_sequence_in_two_halves_ends_as_it_does_whole_where_no_latents_are_stored() {
    let mut c = tiny();
    (c.replay_context, c.opt.lr, c.batch_length) = (0, 0.0, 8);
    let (b, t, latent) = (c.batch_size, c.batch_length, c.dynamics.rssm.stoch * c.dynamics.rssm.classes);
    let (obs, act) = everything();
    let agent = Agent::new(&obs, &act, &c).unwrap();
    let mut record = batch(&agent, &obs, &act);
    record.insert("is_first".into(), Array::zeros(record["is_first"].dtype(), &[b, t])); // nothing is forgotten
    let numbers = |shape: &[usize], stream: u32| {
        let mut x = vec![0.0; shape.iter().product()];
        Rng::new(0, stream, 0).normal(0, &mut x);
        Tensor::from_slice(shape, &x)
    };
    let widths = [("arm", 2), ("buttons", 6), ("jump", 2)];
    let obs_noise = numbers(&[b, t, latent], 1);
    let img_noise = numbers(&[b * t, c.imag_length, latent], 2);
    let act_noise = widths.map(|(key, width)| (key, numbers(&[b * t, c.imag_length + 1, width], 3)));
    let train = |agent: &mut Agent, carry: &mut crate::Carry, part: Range<usize>| {
        let cut = |a: &Array| Array::stack(&(0..b).map(|row| a.at(row).rows(part.clone())).collect::<Vec<_>>());
        let mut record: Record = record.iter().map(|(key, a)| (key.clone(), cut(a))).collect();
        record.insert("consec".into(), Array::from_i32(&[b, part.len()], vec![part.start as i32; b * part.len()]));
        let noise = Noise::Injected(Injected {
            obs: Some(steps(&obs_noise, part.clone())),
            img: Some(rows_of_steps(&img_noise, b, part.clone())),
            act: act_noise.iter().map(|(key, x)| (key.to_string(), rows_of_steps(x, b, part.clone()))).collect(),
        });
        let mut prepared = agent.preparer().prepare(record).unwrap();
        agent.train_with(carry, &mut prepared, &noise).unwrap();
    };
    let mut whole = agent.initial(b);
    train(&mut agent.clone(), &mut whole, 0..t);

    let mut halves = agent.initial(b);
    let mut trained = agent.clone();
    train(&mut trained, &mut halves, 0..t / 2);
    let mut forgetful = crate::Carry { prevact: Tensor::zeros(halves.prevact.shape()), ..halves.clone() };
    train(&mut trained.clone(), &mut forgetful, t / 2..t);
    train(&mut trained, &mut halves, t / 2..t);
    assert_close("deter", halves.latent.deter.data(), &doubles(&whole.latent.deter), 1e-6);
    assert_close("stoch", halves.latent.stoch.data(), &doubles(&whole.latent.stoch), 1e-6);
    assert_eq!(halves.prevact.data(), whole.prevact.data());
    let apart = forgetful.latent.deter.data().iter().zip(whole.latent.deter.data()).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) > 1e-4, "the action before the second half counts");
}

#[test]
fn reported_gradient_norms_are_those_of_each_loss_alone() {
    let mut c = tiny();
    c.report_gradnorms = true;
    c.dynamics.rssm.free_nats = 0.0;
    for head in [&mut c.rewhead, &mut c.value] {
        head.outscale = 1.0;
    }
    let (_, act) = everything();
    let obs = obs_space(&[("joints", Space::float(&[2, 3]))]);
    let mut agent = Agent::new(&obs, &act, &c).unwrap();
    let record = batch(&agent, &obs, &act);
    let reported = agent.report(&mut agent.initial(3), &record).unwrap().metrics;
    let input = Batch::new(&record, &agent.initial(3), &agent.layout).unwrap();
    let noise = Noise::Counter { seed: c.seed, purpose: Purpose::Report, step: 0, step_at: None, part: 0 };
    let names = ["joints", "rew", "con", "dyn", "rep", "policy", "value", "repval"];
    for name in names {
        Arc::make_mut(&mut agent.layout).config.loss_scales = only(if name == "joints" { "rec" } else { name });
        let grads = agent.gradients(&agent.loss(&input, &noise, false).unwrap());
        let squares: f64 = grads.iter().flat_map(doubles).map(|x| x * x).sum();
        assert!(squares > 0.0, "{name}");
        let got = reported[&format!("gradnorm/{name}")] as f64;
        assert!((got / squares.sqrt() - 1.0).abs() < 1e-5, "{name}: {got} instead of {}", squares.sqrt());
    }
    let count = |metrics: &crate::Metrics| metrics.keys().filter(|key| key.starts_with("gradnorm/")).count();
    assert_eq!(count(&reported), names.len());
    Arc::make_mut(&mut agent.layout).config.report_gradnorms = false;
    assert_eq!(count(&agent.report(&mut agent.initial(3), &record).unwrap().metrics), 0);
}
