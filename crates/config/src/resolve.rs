//! Resolving: defaults, then blocks, then flags, then types and checks.

use crate::{Config, Value, blocks, compat, paths, render, tree::OPEN, tree::Tree, yaml};
use anyhow::{Context, Result, bail};
use indexmap::IndexMap;
use std::path::{Path, PathBuf};

/// Top-level values that the agent's configuration repeats, as in the official code.
const SHARED: [&str; 5] = ["seed", "batch_size", "batch_length", "replay_context", "report_length"];

/// What a block (one value) or a flag (the words after it) sets a key to.
enum Change {
    Value(Value),
    Words(Vec<String>),
}

impl Config {
    /// The defaults, changed by `blocks` in order and then by `flags` in order, each a key or a pattern
    /// with the words after it. Every error is a sentence that names the key and the nearest valid one.
    pub fn resolve(blocks: &[String], flags: &[(String, Vec<String>)]) -> Result<Config> {
        Ok(Self::resolve_with_warnings(blocks, flags)?.0)
    }

    /// As [`Config::resolve`], with a sentence for every official key that has no effect here.
    pub fn resolve_with_warnings(blocks: &[String], flags: &[(String, Vec<String>)]) -> Result<(Config, Vec<String>)> {
        let mut resolver = Resolver::new();
        for name in blocks {
            for entry in blocks::entries(name)? {
                resolver.apply(&entry.key, Change::Value(entry.value)).with_context(|| format!("in '{name}'"))?;
            }
            if let Some(folder) = blocks::run_folder(name) {
                resolver.stay_in(&folder)?;
            }
        }
        for (key, words) in flags {
            resolver.apply(key, Change::Words(words.clone()))?;
        }
        Ok((resolver.finish()?, resolver.warnings))
    }

    /// Reads what [`Config::to_yaml`] wrote. Keys that are absent have their defaults.
    pub fn from_yaml(text: &str) -> Result<Config> {
        let mut resolver = Resolver::new();
        for entry in yaml::flatten(&yaml::parse(text)?)? {
            resolver.apply(&entry.key, Change::Value(entry.value))?;
        }
        resolver.finish()
    }

    /// Every key as YAML; [`Config::from_yaml`] reads it again.
    pub fn to_yaml(&self) -> String {
        render::render(&self.flat(), &IndexMap::new())
    }

    /// Every key as YAML with a comment for each.
    pub fn commented_yaml(&self) -> String {
        render::render(&self.flat(), &render::comments())
    }

    /// Every dotted key with its value, in the order of the defaults: to compare two configurations.
    pub fn flat(&self) -> IndexMap<String, Value> {
        // Through text, in which a 32-bit float keeps its short form: 0.1 and not 0.10000000149.
        let json: serde_json::Value = serde_json::to_string(self)
            .and_then(|text| serde_json::from_str(&text))
            .expect("a configuration holds only what JSON can express");
        let value = |(key, default): (&String, &Value)| {
            let node = key.split('.').try_fold(&json, |node, part| node.get(part));
            let value = node.and_then(|node| Value::from_json(node, default));
            (key.clone(), value.unwrap_or_else(|| default.clone()))
        };
        let mut flat: IndexMap<String, Value> = blocks::defaults().0.iter().map(value).collect();
        if let Some(kwargs) = json["env"]["kwargs"].as_object() {
            // After the other keys of their section, which YAML may name only once.
            let end = flat.keys().rposition(|key| key.starts_with("env.")).map_or(flat.len(), |last| last + 1);
            let mut own = vec![];
            flatten(OPEN, kwargs, &mut own);
            for (i, (key, value)) in own.into_iter().enumerate() {
                flat.shift_insert(end + i, key, value);
            }
        }
        flat
    }
}

/// The keys of nested objects, each with `prefix` before it.
fn flatten(prefix: &str, object: &serde_json::Map<String, serde_json::Value>, out: &mut Vec<(String, Value)>) {
    for (name, json) in object {
        match json.as_object() {
            Some(inner) => flatten(&format!("{prefix}{name}."), inner, out),
            None => out.extend(Value::free(json).map(|value| (format!("{prefix}{name}"), value))),
        }
    }
}

/// A configuration while it is put together.
struct Resolver {
    tree: Tree,
    warnings: Vec<String>,
    /// The folder that the `config.yaml` of a run names, and another one in which it lies.
    moved: Option<(PathBuf, PathBuf)>,
}

impl Resolver {
    fn new() -> Self {
        Resolver { tree: blocks::defaults().clone(), warnings: vec![], moved: None }
    }

    fn apply(&mut self, key: &str, change: Change) -> Result<()> {
        if self.tree.0.contains_key(key) || compat::ignored(key).is_none() {
            return match &change {
                Change::Value(value) => self.tree.update(key, value),
                Change::Words(words) => self.tree.set(key, words),
            };
        }
        let text = match &change {
            Change::Value(value) => value.to_yaml(),
            Change::Words(words) => words.join(" "),
        };
        match (key, compat::device(&text)) {
            ("jax.platform", Some(device)) => return self.tree.set("device", &[device.into()]),
            ("jax.train_devices", _) => return self.apply("devices", change),
            ("jax.compute_dtype", _) => return self.tree.set("compute_dtype", &[text]),
            _ => {}
        }
        if let Some(reason) = compat::ignored(key) {
            self.warnings.push(format!("the official key '{key}' has no effect: {reason}"));
        }
        Ok(())
    }

    /// A run folder that was copied or moved goes on where it is, whatever its `config.yaml` says.
    fn stay_in(&mut self, folder: &Path) -> Result<()> {
        let Some(Value::Str(told)) = self.tree.0.get("logdir") else { return Ok(()) };
        let there = PathBuf::from(paths::expand_home(told));
        if there.canonicalize().ok().as_deref() != Some(folder) {
            self.moved = Some((there, folder.to_path_buf()));
            self.tree.set("logdir", &[folder.display().to_string()])?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Config> {
        self.drop_official_outputs();
        self.check_numbers()?;
        let mut json = self.tree.to_json();
        for key in SHARED {
            json["agent"][key] = json[key].clone();
        }
        let mut config: Config = serde_json::from_value(json).context("the configuration does not fit its types")?;
        config.logdir = paths::expand_home(&config.logdir);
        if let Some(python) = config.env["python"].as_str().map(paths::expand_home) {
            config.env["python"] = python.into();
        }
        config.run.from_checkpoint = paths::expand_home(&config.run.from_checkpoint);
        config.check()?;
        if let Some((there, here)) = self.moved.take().filter(|(_, here)| *here == Path::new(&config.logdir)) {
            let (there, here) = (there.display(), here.display());
            self.warnings.push(format!("config.yaml was written in {there}, but lies in {here}, which is now logdir"));
        }
        Ok(config)
    }

    /// Removes the official outputs that do not exist here from `logger.outputs`, with a warning; those of the defaults
    /// take their place if no other is left.
    fn drop_official_outputs(&mut self) {
        let Some(Value::List(outputs)) = self.tree.0.get_mut("logger.outputs") else { return };
        let Some(Value::List(usual)) = blocks::defaults().0.get("logger.outputs") else { return };
        let official = |x: &Value| matches!(x, Value::Str(x) if compat::IGNORED_OUTPUTS.contains(&x.as_str()));
        for output in outputs.extract_if(.., |x| official(x)) {
            let name = output.to_yaml();
            self.warnings
                .push(format!("the official value '{name}' of 'logger.outputs' has no effect: use tensorboard"));
        }
        if outputs.is_empty() {
            outputs.clone_from(usual);
        }
    }

    /// Refuses negative whole numbers, which are counts and sizes, and infinite numbers with one exception. Options of
    /// environments may be either.
    fn check_numbers(&self) -> Result<()> {
        for (key, value) in self.tree.0.iter().filter(|(key, _)| !key.starts_with("env.")) {
            let items = if let Value::List(items) = value { items.as_slice() } else { std::slice::from_ref(value) };
            if items.iter().any(|x| matches!(x, Value::Float(x) if x.is_infinite())) && key != "replay.prio.initial" {
                bail!("'{key}' is {}, but must be finite", value.to_yaml());
            }
            if items.iter().any(|x| matches!(x, Value::Int(x) if *x < 0)) {
                bail!("'{key}' is {}, but must not be negative", value.to_yaml());
            }
        }
        Ok(())
    }
}
