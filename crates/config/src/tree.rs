//! `Tree`: every key with its value, flat and in order, and the official rules for changing it.

use crate::{Value, nearest::nearest, yaml::Entry};
use anyhow::{Context, Result, anyhow, bail};
use indexmap::IndexMap;
use regex::Regex;

/// Dotted keys with their values, in the order of the defaults.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree(pub IndexMap<String, Value>);

/// Keys below this are the user's own: any names, nested or not, with the type that the value looks like.
pub(crate) const OPEN: &str = "env.kwargs.";

/// Whether `key` is one of the user's own.
fn is_open(key: &str) -> bool {
    key.strip_prefix(OPEN).is_some_and(|names| !is_pattern(names) && names.split('.').all(|name| !name.is_empty()))
}

/// Whether `key` is a regular expression: it holds something that no key holds.
pub(crate) fn is_pattern(key: &str) -> bool {
    key.chars().any(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(c)))
}

impl Tree {
    /// The tree of a YAML text's entries, all of which become keys.
    pub fn new(entries: Vec<Entry>) -> Self {
        Tree(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    /// Sets `key`, or every key that begins with a match of the pattern `key`, as a block of a YAML file does.
    pub fn update(&mut self, key: &str, value: &Value) -> Result<()> {
        // Official blocks match from the start of the key and leave its end open.
        for key in self.matches(key, |key| format!("^(?:{key})"))? {
            let new = match is_open(&key) {
                true => Ok(value.clone()),
                false => value.clone().cast(&self.0[&key]),
            };
            let new = new.with_context(|| format!("'{key}' is"));
            self.put(key, new.map_err(one_line)?);
        }
        Ok(())
    }

    /// Sets `key`, or every key that the pattern `key` matches as a whole, to the words after a flag.
    /// `key+` appends to a list.
    pub fn set(&mut self, key: &str, words: &[String]) -> Result<()> {
        if let Some(Value::List(old)) = key.strip_suffix('+').and_then(|key| self.0.get(key)).cloned() {
            let key = &key[..key.len() - 1];
            let more = Value::from_words(words, &self.0[key]).with_context(|| format!("'{key}' is"));
            let Value::List(more) = more.map_err(one_line)? else { bail!("'{key}' is not a list") };
            self.0.insert(key.into(), Value::List([old, more].concat()));
            return Ok(());
        }
        for key in self.matches(key, |key| format!("^(?:{key})$"))? {
            let new = match is_open(&key) {
                true => Value::guess(words),
                false => Value::from_words(words, &self.0[&key]),
            };
            let new = new.with_context(|| format!("'{key}' is"));
            self.put(key, new.map_err(one_line)?);
        }
        Ok(())
    }

    /// Sets a single key. Of the user's own, what was below it is gone, and so is a value that it was below.
    fn put(&mut self, key: String, value: Value) {
        if is_open(&key) {
            let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
            self.0.retain(|other, _| !(below(other, &key) || below(&key, other)));
        }
        self.0.insert(key, value);
    }

    /// The keys that `key` stands for, at least one. `anchor` turns a pattern into a regular expression.
    fn matches(&self, key: &str, anchor: impl Fn(&str) -> String) -> Result<Vec<String>> {
        if self.0.contains_key(key) || is_open(key) {
            return Ok(vec![key.into()]);
        }
        if !is_pattern(key) {
            return Err(self.unknown(key));
        }
        let regex = Regex::new(&anchor(key)).map_err(|_| anyhow!("'{key}' is not a valid regular expression"))?;
        let keys: Vec<String> = self.0.keys().filter(|key| regex.is_match(key)).cloned().collect();
        if keys.is_empty() {
            let literal: String = key.replace(".*", "").replace('\\', "");
            let near = self.nearest(literal.trim_matches('.'));
            bail!("the pattern '{key}' matches no key; the nearest key is {near}");
        }
        Ok(keys)
    }

    /// The error for a key that does not exist.
    fn unknown(&self, key: &str) -> anyhow::Error {
        let prefix = format!("{key}.");
        if let Some(inside) = self.0.keys().find(|other| other.starts_with(&prefix)) {
            return anyhow!("'{key}' is a section; set one of its keys, such as '{inside}'");
        }
        anyhow!("unknown key '{key}'; the nearest key is {}", self.nearest(key))
    }

    /// The key nearest to `name` with its type and value, for errors.
    fn nearest(&self, name: &str) -> String {
        match nearest(name, self.0.keys().map(String::as_str)) {
            Some(key) => format!("'{key}' ({}, now {})", self.0[key].type_name(), self.0[key].to_yaml()),
            None => "none".into(),
        }
    }

    /// As nested JSON objects.
    pub fn to_json(&self) -> serde_json::Value {
        let mut root = serde_json::Map::new();
        for (key, value) in &self.0 {
            insert(&mut root, key, value.to_json());
        }
        root.into()
    }
}

/// Sets the dotted `key` below `node`.
fn insert(node: &mut serde_json::Map<String, serde_json::Value>, key: &str, value: serde_json::Value) {
    let Some((head, rest)) = key.split_once('.') else {
        node.insert(key.into(), value);
        return;
    };
    let child = node.entry(head).or_insert_with(|| serde_json::Map::new().into());
    if let Some(child) = child.as_object_mut() {
        insert(child, rest, value);
    }
}

/// Joins an error's "'key' is" with its cause into one sentence.
fn one_line(error: anyhow::Error) -> anyhow::Error {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    anyhow!(causes.join(" "))
}
