//! Every loss, gradient and optimizer step against numbers of the official implementation.
//!
//! Files lie in `goldens/` beside this crate's manifest (see its README); the variable GOLDENS may name a folder with more of
//! them. Everything is read from NAME.json and NAME.safetensors: configuration, spaces, inputs, noise and results.

use crate::acting::Mode;
use crate::agent::Agent;
use crate::batch::Batch;
use crate::carry::Carry;
use crate::checked::{Checked, Trajectory};
use crate::config::AgentConfig;
use crate::data::vectors;
use crate::noise::{Injected, Noise};
use crate::rssm::Latent;
use crate::transfer::Transfer;
use engine::ops;
use engine::{Device, Tensor};
use serde_json::{Map, Value};
use spaces::{Array, DType, Record, Space, Spaces};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FORWARD: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;
const UPDATE: f64 = 1e-3;

#[test]
fn golden_numbers_of_the_official_implementation() {
    let own = own_folder();
    let mut files = list(&own);
    assert!(!files.is_empty(), "no golden files in {}", own.display());
    if let Some(folder) = std::env::var_os("GOLDENS") {
        let more = list(Path::new(&folder));
        assert!(!more.is_empty(), "GOLDENS names a folder without golden files: {folder:?}");
        files.extend(more);
    }
    check_files(&files, Device::Cpu);
}

/// The same on a GPU, emulated where there is none: half a minute for the file that has a bit of everything.
#[test]
fn golden_numbers_on_a_gpu() {
    check_on_a_gpu(|file| file.ends_with("mixed.json"));
}

#[test]
#[ignore = "takes half a minute and more where the GPU is emulated"]
fn all_golden_numbers_on_a_gpu() {
    check_on_a_gpu(|_| true);
}

/// In bfloat16 every number is rounded, and where that draws another class a trajectory goes elsewhere; losses and the
/// gradient as a whole stay near.
#[test]
fn bfloat16_stays_near_on_a_gpu() {
    near_on_a_gpu("vector.json");
}

#[test]
#[ignore = "takes a minute where the GPU is emulated"]
fn bfloat16_stays_near_with_images_on_a_gpu() {
    near_on_a_gpu("image.json");
}

const NEAR_LOSS: f64 = 2e-2;
const NEAR_GRADIENT: f64 = 5e-2;

fn near_on_a_gpu(file: &str) {
    let Some(gpu) = engine::cuda::test_gpu_in(engine::cuda::Precision::Bfloat16) else { return };
    let golden = Golden::read(&own_folder().join(file));
    let computed = compute(&golden, Device::Gpu(gpu));
    let (mut got, mut expected) = (Vec::new(), Vec::new());
    for (name, array) in &golden.arrays {
        if name.starts_with("step1/loss/") {
            let error = difference(&computed[name], &array.to_f32(), None);
            assert!(error <= NEAR_LOSS, "{}: {name} is off by {error:.2e}", golden.name);
        } else if name.starts_with("grad/") {
            got.extend_from_slice(&computed[name]);
            expected.extend(array.to_f32());
        }
    }
    let error = difference(&got, &expected, None);
    println!("{}: in bfloat16 the gradient is off by {error:.2e}", golden.name);
    assert!(!got.is_empty() && error <= NEAR_GRADIENT, "{}: the gradient is off by {error:.2e}", golden.name);
}

fn check_on_a_gpu(wanted: impl Fn(&Path) -> bool) {
    let Some(gpu) = engine::cuda::test_gpu() else { return };
    let mut files = list(&own_folder());
    files.retain(|file| wanted(file));
    check_files(&files, Device::Gpu(gpu));
}

fn check_files(files: &[PathBuf], device: Device) {
    let failures: Vec<String> = files.iter().flat_map(|file| check_file(file, device)).collect();
    assert!(failures.is_empty(), "{} tensors differ:\n{}", failures.len(), failures.join("\n"));
}

/// `goldens/` of this crate: where it was built, or below the root of a copy (benches/gpu.sh).
pub fn own_folder() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens");
    if built.is_dir() { built } else { PathBuf::from("crates/dreamer/goldens") }
}

/// The NAME.json files of a folder, sorted.
fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("a readable folder").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    files
}

/// The contents of one pair of files.
pub struct Golden {
    name: String,
    config: AgentConfig,
    obs_space: Spaces,
    act_space: Spaces,
    arrays: BTreeMap<String, Array>,
    steps: usize,
}

impl Golden {
    pub fn read(path: &Path) -> Golden {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("a readable file")).expect("JSON");
        let config = nested(json["config"].as_object().expect("a config"));
        let config = serde_json::from_value(config).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut obs_space = read_spaces(&json["spaces"]["obs"]);
        obs_space.insert("reward".into(), Space::float(&[]));
        for flag in ["is_first", "is_last", "is_terminal"] {
            obs_space.insert(flag.into(), Space::boolean());
        }
        let bytes = std::fs::read(path.with_extension("safetensors")).expect("a readable file");
        Golden {
            name: path.display().to_string(),
            config,
            obs_space,
            act_space: read_spaces(&json["spaces"]["act"]),
            arrays: read_tensors(&bytes),
            steps: json["H"].as_u64().expect("H") as usize,
        }
    }

    /// The arrays below a prefix, without it.
    pub fn below(&self, prefix: &str) -> Record {
        let strip = |(k, v): (&String, &Array)| k.strip_prefix(prefix).map(|k| (k.to_string(), v.clone()));
        self.arrays.iter().filter_map(strip).collect()
    }

    fn tensor(&self, name: &str) -> Tensor {
        let a = self.arrays.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.name));
        Tensor::from_slice(&a.shape, &a.to_f32())
    }

    /// The agent with the golden's initial state.
    pub fn agent(&self) -> Agent {
        let mut agent =
            Agent::new(&self.obs_space, &self.act_space, &self.config).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let mut state = agent.save();
        let given = self.below("state0/");
        let ours: Vec<&String> = state.keys().filter(|k| !k.starts_with("opt/")).collect();
        assert_eq!(ours, given.keys().collect::<Vec<_>>(), "{}: names of the state", self.name);
        state.extend(given);
        agent.load(&state, None).expect("the state fits");
        agent
    }

    pub fn carry(&self) -> Carry {
        let prevact = self.below("carry/prevact/");
        let rows = self.tensor("carry/dyn/deter").dim(0);
        let flat = |name: &str| ops::reshape(&self.tensor(name), &[rows, self.tensor(name).len() / rows]);
        Carry {
            latent: Latent { deter: flat("carry/dyn/deter"), stoch: flat("carry/dyn/stoch") },
            prevact: vectors(self.act_space.iter(), &prevact, rows, false).expect("at least one key"),
            step: 0,
        }
    }

    pub fn train_noise(&self) -> Noise {
        let flat = |name: &str| {
            let x = self.tensor(name);
            ops::reshape(&x, &[x.dim(0), x.dim(1), x.len() / (x.dim(0) * x.dim(1))])
        };
        let act = self.act_space.keys().map(|k| (k.clone(), self.tensor(&format!("noise/img_act/{k}")))).collect();
        Noise::Injected(Injected { obs: Some(flat("noise/obs_gumbel")), img: Some(flat("noise/img_gumbel")), act })
    }

    fn act_noise(&self) -> Noise {
        let step = |name: &str| {
            let x = self.tensor(name);
            ops::reshape(&x, &[x.dim(0), 1, x.len() / x.dim(0)])
        };
        let act = self.act_space.keys().map(|k| (k.clone(), step(&format!("noise/pol_act/{k}")))).collect();
        Noise::Injected(Injected { obs: Some(step("noise/pol_gumbel")), img: None, act })
    }
}

/// Turns dotted names into nested objects.
fn nested(dotted: &Map<String, Value>) -> Value {
    let mut root = Map::new();
    for (name, value) in dotted {
        let mut node = &mut root;
        let (path, last) = name.rsplit_once('.').map_or(("", name.as_str()), |(p, l)| (p, l));
        for part in path.split('.').filter(|p| !p.is_empty()) {
            let child = node.entry(part).or_insert_with(|| Value::Object(Map::new()));
            node = child.as_object_mut().expect("a name is either a value or a block");
        }
        node.insert(last.to_string(), value.clone());
    }
    Value::Object(root)
}

/// Spaces given as [dtype, shape, classes].
fn read_spaces(json: &Value) -> Spaces {
    let space = |v: &Value| {
        let shape: Vec<usize> =
            v[1].as_array().expect("a shape").iter().map(|d| d.as_u64().expect("a size") as usize).collect();
        let dtype = match v[0].as_str().expect("a dtype") {
            "uint8" => DType::U8,
            "bool" => DType::Bool,
            name if name.contains("int") => DType::I32,
            _ => DType::F32,
        };
        match v[2].as_f64() {
            Some(classes) => Space { dtype, shape, low: 0.0, high: classes },
            None => Space::float(&shape),
        }
    };
    json.as_object().expect("spaces").iter().map(|(k, v)| (k.clone(), space(v))).collect()
}

fn read_tensors(bytes: &[u8]) -> BTreeMap<String, Array> {
    let file = safetensors::SafeTensors::deserialize(bytes).expect("a safetensors file");
    let array = |(name, view): (&str, safetensors::tensor::TensorView)| {
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::I32 => DType::I32,
            safetensors::Dtype::BOOL => DType::Bool,
            safetensors::Dtype::U8 => DType::U8,
            other => panic!("{name}: dtype {other:?}"),
        };
        (name.to_string(), Array::from_bytes(dtype, view.shape(), view.data()).expect("bytes that fit"))
    };
    file.iter().map(array).collect()
}

/// How a group is compared.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// Relative L2 norm of the difference.
    Relative(f64),
    /// The difference relative to the change since the initial state.
    Change(f64),
}

/// Compares one file and returns a line per tensor that differs.
fn check_file(path: &Path, device: Device) -> Vec<String> {
    let golden = Golden::read(path);
    let computed = compute(&golden, device);
    let mut worst: BTreeMap<&str, (f64, String)> = BTreeMap::new();
    let mut failures = Vec::new();
    for (name, expected) in &golden.arrays {
        let Some((group, rule)) = rule(name) else { continue };
        let Some(got) = computed.get(name) else {
            failures.push(format!("{}: {name} is not computed", golden.name));
            continue;
        };
        let base = name.strip_prefix("state3/").and_then(|rest| golden.arrays.get(&format!("state0/{rest}")));
        let (error, limit) = match rule {
            Rule::Change(limit) => (difference(got, &expected.to_f32(), base.map(Array::to_f32)), limit),
            Rule::Relative(limit) => (difference(got, &expected.to_f32(), None), limit),
        };
        let exact = name.ends_with("/stoch") || name.contains("/act/") && expected.dtype() == DType::I32;
        let bad = if exact { error != 0.0 } else { error.is_nan() || error > limit };
        if bad {
            failures.push(format!("{}: {name} is off by {error:.2e} (limit {limit:.0e})", golden.name));
        }
        let entry = worst.entry(group).or_insert((-1.0, String::new()));
        if error > entry.0 || error.is_nan() {
            *entry = (error, name.clone());
        }
    }
    println!("{}", golden.name);
    for (group, (error, name)) in worst {
        println!("  {group:<10} worst {error:.2e}  {name}");
    }
    failures
}

fn rule(name: &str) -> Option<(&str, Rule)> {
    let group = name.split('/').next()?;
    match group {
        "eff" | "wm" | "img" | "repl" | "newcarry" | "loss" | "metric" | "policy" => {
            Some((group, Rule::Relative(FORWARD)))
        }
        "grad" | "agc" => Some((group, Rule::Relative(GRADIENT))),
        "step1" | "step2" | "step3" => Some((group, Rule::Relative(FORWARD))),
        "state3" => Some((group, Rule::Change(UPDATE))),
        _ => None,
    }
}

/// |got - expected| / |expected - base|, in the L2 norm. Of numbers that are all zero, the norm of the difference.
fn difference(got: &[f32], expected: &[f32], base: Option<Vec<f32>>) -> f64 {
    assert_eq!(got.len(), expected.len());
    let base = base.unwrap_or_else(|| vec![0.0; expected.len()]);
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(expected).map(|(a, b)| *a as f64 - *b as f64));
    let size = norm(&mut expected.iter().zip(&base).map(|(a, b)| *a as f64 - *b as f64));
    if size == 0.0 { error } else { error / size }
}

/// The numbers of a tensor, wherever it is.
fn values(x: &Tensor) -> Vec<f32> {
    x.host().data().to_vec()
}

/// Everything that the golden file holds, computed by this crate, under the same names.
fn compute(golden: &Golden, device: Device) -> BTreeMap<String, Vec<f32>> {
    let mut out = BTreeMap::new();
    let mut agent = golden.agent().to(device);
    let record = golden.below("batch/");
    let noise = golden.train_noise();
    forward(golden, &agent, &record, &noise, &mut out);
    policy(golden, &agent, &record, &mut out);
    let mut batches = [(); 3].map(|()| agent.preparer().prepare(record.clone()).expect("a batch that fits"));
    for (step, batch) in (1..).zip(&mut batches) {
        let mut carry = golden.carry().to(agent.device());
        let trained = agent.train_with(&mut carry, batch, &noise).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
        for (name, value) in trained.metrics {
            out.insert(format!("step{step}/{name}"), vec![value]);
        }
        if step == 1 {
            out.insert("newcarry/deter".into(), values(&carry.latent.deter));
            out.insert("newcarry/stoch".into(), values(&carry.latent.stoch));
        }
    }
    for (name, array) in agent.save() {
        out.insert(format!("state3/{name}"), array.to_f32());
    }
    let count = vec![agent.updates() as f32];
    let decayed = (golden.config.opt.wd != 0.0) as usize;
    for name in ["1/0", "2/0", &format!("{}/count", 3 + decayed)] {
        out.insert(format!("state3/opt/state/{name}"), count.clone());
    }
    out
}

fn forward(golden: &Golden, agent: &Agent, record: &Record, noise: &Noise, out: &mut BTreeMap<String, Vec<f32>>) {
    let carry = golden.carry().to(agent.device());
    let batch = Batch::new(record, &carry, &agent.layout).expect("a batch that fits");
    let batch = batch.to(agent.device());
    let mut loss = agent.loss(&batch, noise, true).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
    let mut grads = agent.gradients(&loss);
    let mut put = |name: String, x: &[f32]| out.insert(name, x.to_vec());
    put("eff/carry_deter".into(), &values(&batch.start.deter));
    put("eff/carry_stoch".into(), &values(&batch.start.stoch));
    for (key, x) in unembed(&golden.act_space, &batch.prevact) {
        put(format!("eff/prevact/{key}"), &x);
    }
    put("wm/tokens".into(), &values(&loss.tokens));
    put("wm/deter".into(), &values(&loss.observed.deter));
    put("wm/stoch".into(), &values(&loss.observed.stoch));
    put("wm/logit".into(), &values(&loss.observed.logit));
    let h = golden.steps;
    let checked = Checked::new(&agent.learner(noise, true), &batch, &loss);
    let trajectory = &checked.trajectory;
    // The start of each trajectory is not imagined.
    let imagined = |x: &Tensor| ops::stack_time(&ops::unstack_time(x)[1..]);
    let deter = imagined(&trajectory.deter);
    for (name, x) in [
        ("deter", &deter),
        ("stoch", &imagined(&trajectory.stoch)),
        ("logit", &agent.parts.dyn_.prior(&agent.params.frozen(), &deter)),
        ("rew", &checked.predictions.rew),
        ("con", &checked.predictions.con),
        ("val", &checked.val),
        ("slowval", &checked.slowval),
        ("ret", &checked.targets.ret),
    ] {
        put(format!("img/{name}"), &values(x));
    }
    for (name, x) in policy_outputs(agent, trajectory) {
        put(format!("img/{name}"), &x);
    }
    if agent.config().repval_loss {
        let boot: Vec<f32> = values(&checked.targets.ret).into_iter().step_by(h).collect();
        put("repl/boot".into(), &boot);
        put("repl/ret".into(), &values(&checked.replayed));
        let feat = [&loss.observed.deter, &loss.observed.stoch];
        for (name, head, params) in
            [("val", &agent.parts.val, agent.params.frozen()), ("slowval", &agent.parts.slow, agent.slow.frozen())]
        {
            put(format!("repl/{name}"), &values(&head.pred(&head.apply(&params, &feat))));
        }
    }
    for (name, x) in &loss.losses {
        if name == "policy" || name == "value" {
            put(format!("img/{name}_loss"), &values(x));
            let means: Vec<f32> = values(x).chunks_exact(h).map(|r| r.iter().sum::<f32>() / h as f32).collect();
            put(format!("loss/{name}"), &means);
        } else {
            put(format!("loss/{name}"), &values(x));
        }
    }
    put("loss/total".into(), &[loss.total.item()]);
    for (name, value) in std::mem::take(&mut loss.metrics).read() {
        put(format!("metric/{name}"), &[value]);
    }
    for ((name, _), grad) in agent.params.iter().zip(&grads) {
        put(format!("grad/{name}"), &values(grad));
    }
    let mut copy = agent.clone();
    let rates = copy.opt.rates().to(agent.device());
    copy.opt.update(&mut copy.params, &mut grads, &[], &rates);
    for ((name, _), grad) in agent.params.iter().zip(&grads) {
        put(format!("agc/{name}"), &values(grad));
    }
}

/// The parts of an embedded action, discrete ones as class indices.
fn unembed(act_space: &Spaces, x: &Tensor) -> Vec<(String, Vec<f32>)> {
    let mut keys: Vec<_> = act_space.iter().collect();
    keys.sort_by_key(|(k, _)| *k);
    let (x, width) = (values(x), x.width());
    let mut at = 0;
    let part = |(key, space): (&String, &Space)| {
        let rows = x.chunks_exact(width).map(|row| row[at..at + space.width()].to_vec());
        let index = |hot: &[f32]| hot.iter().position(|&v| v == 1.0).map_or(f32::NAN, |i| i as f32);
        let values = match space.is_discrete() {
            true => rows.flat_map(|r| r.chunks_exact(space.classes()).map(index).collect::<Vec<_>>()).collect(),
            false => rows.flatten().collect(),
        };
        at += space.width();
        (key.clone(), values)
    };
    keys.into_iter().map(part).collect()
}

/// Distributions of the policy and of the value over the whole trajectory.
fn policy_outputs(agent: &Agent, x: &Trajectory) -> Vec<(String, Vec<f32>)> {
    let p = agent.params.frozen();
    let feat = [&x.deter, &x.stoch];
    let mut out = Vec::new();
    let likelihoods = agent.parts.pol.evaluate(&p, &feat, &x.actions.iter().collect::<Vec<_>>());
    for ((name, action), l) in agent.parts.pol.names().zip(&x.actions).zip(&likelihoods) {
        out.push((format!("act/{name}"), values(action)));
        out.push((format!("logp/{name}"), values(&l.logp)));
        out.push((format!("ent/{name}"), values(&l.entropy)));
    }
    for (name, x) in agent.parts.pol.distributions(&p, &feat) {
        out.push((format!("pol_{name}"), values(&x)));
    }
    out.push(("val_logits".into(), values(&agent.parts.val.apply(&p, &feat))));
    out
}

/// One acting step on step 2 of the batch.
fn policy(golden: &Golden, agent: &Agent, record: &Record, out: &mut BTreeMap<String, Vec<f32>>) {
    let step = |a: &Array| Array::stack(&(0..a.shape[0]).map(|b| a.at(b).at(2)).collect::<Vec<_>>());
    let obs: Record = record.iter().map(|(k, a)| (k.clone(), step(a))).collect();
    let mut carry = golden.carry().to(agent.device());
    let acted =
        agent.act_with(&mut carry, &obs, &golden.act_noise()).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
    for (key, action) in acted.action {
        out.insert(format!("policy/act/{key}"), action.to_f32());
    }
    out.insert("policy/deter".into(), values(&carry.latent.deter));
    out.insert("policy/stoch".into(), values(&carry.latent.stoch));
    // The public verb runs too, on draws of its own.
    assert!(agent.act(&mut golden.carry().to(agent.device()), &obs, Mode::Eval).is_ok());
}
