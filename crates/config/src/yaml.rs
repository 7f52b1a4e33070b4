//! Reading YAML: documents become flat lists of dotted keys with values.

use crate::{Value, tree::is_pattern};
use anyhow::{Result, anyhow, bail};
use yaml_rust2::{Yaml, YamlLoader, yaml::Hash};

/// A dotted key, or pattern of keys, with the value that a YAML text gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub value: Value,
}

/// The mapping at the root of the YAML document `text`; an empty document is an empty mapping.
pub(crate) fn parse(text: &str) -> Result<Hash> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| anyhow!("invalid YAML: {error}"))?;
    match documents.into_iter().next() {
        None => Ok(Hash::new()),
        Some(Yaml::Hash(hash)) => Ok(hash),
        Some(_) => bail!("invalid YAML: the document must be a mapping of keys to values"),
    }
}

/// The mapping as flat entries. Below or above a pattern, keys are joined by an escaped dot.
pub(crate) fn flatten(hash: &Hash) -> Result<Vec<Entry>> {
    let mut entries = vec![];
    for (key, node) in hash {
        let Some(Value::Str(key)) = Value::from_yaml(key) else {
            bail!("invalid YAML: the key {key:?} must be a string")
        };
        if let Yaml::Hash(inner) = node {
            for entry in flatten(inner)? {
                let dot = if is_pattern(&key) || is_pattern(&entry.key) { "\\." } else { "." };
                entries.push(Entry { key: format!("{key}{dot}{}", entry.key), value: entry.value });
            }
            continue;
        }
        let Some(value) = Value::from_yaml(node) else {
            bail!("invalid YAML: '{key}' must be a string, a number, true, false, null or a list of these");
        };
        entries.push(Entry { key, value });
    }
    Ok(entries)
}
