//! The blocks of `configs/*.yaml`, which are part of the binary, and YAML files in their place.

use crate::{
    nearest::nearest,
    tree::Tree,
    yaml::{self, Entry},
};
use anyhow::{Context, Result, anyhow, bail};
use std::path::PathBuf;
use std::sync::LazyLock;
use yaml_rust2::{Yaml, yaml::Hash};

/// The text of `configs/defaults.yaml`.
pub(crate) const DEFAULTS: &str = include_str!("../../../configs/defaults.yaml");

/// The files that hold blocks, in the order in which they are listed.
const FILES: [&str; 4] = [
    include_str!("../../../configs/quickstart.yaml"),
    include_str!("../../../configs/sizes.yaml"),
    include_str!("../../../configs/suites.yaml"),
    include_str!("../../../configs/walkthrough.yaml"),
];

/// A block: its name, its comment, its mapping.
struct Block {
    name: String,
    about: String,
    body: Hash,
}

static BLOCKS: LazyLock<Vec<Block>> = LazyLock::new(|| FILES.iter().flat_map(|text| read(text)).collect());

static DEFAULT_TREE: LazyLock<Tree> = LazyLock::new(|| {
    // The text is a constant, which the tests read in full.
    let hash = yaml::parse(DEFAULTS).expect("configs/defaults.yaml is valid");
    Tree::new(yaml::flatten(&hash).expect("configs/defaults.yaml is valid"))
});

/// The default value of every key.
pub(crate) fn defaults() -> &'static Tree {
    &DEFAULT_TREE
}

/// The names of all blocks with a one-line description of each.
pub fn blocks() -> Vec<(&'static str, &'static str)> {
    BLOCKS.iter().map(|block| (block.name.as_str(), block.about.as_str())).collect()
}

/// The blocks of one file. A block's description is the comment after its name.
fn read(text: &str) -> Vec<Block> {
    let hash = yaml::parse(text).expect("configs/*.yaml are valid"); // constants, which the tests read in full
    let block = |(name, body): (Yaml, Yaml)| {
        let name = name.as_str()?.to_string();
        let start = format!("{name}:");
        let about = text.lines().find_map(|line| line.strip_prefix(&start)?.split_once("# ")).map_or("", |x| x.1);
        Some(Block { about: about.into(), name, body: body.into_hash()? })
    };
    hash.into_iter().filter_map(block).collect()
}

/// The entries of the block `name`, those of the blocks it includes first. `defaults` is empty;
/// a name that ends in `.yaml` is a file of keys, such as a run folder's config.yaml.
pub(crate) fn entries(name: &str) -> Result<Vec<Entry>> {
    if name == "defaults" {
        return Ok(vec![]);
    }
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        let path = crate::paths::expand_home(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the configuration '{name}'"))?;
        let keys = yaml::parse(&text).and_then(|yaml| yaml::flatten(&yaml));
        return keys.with_context(|| format!("cannot read the configuration '{name}'"));
    }
    let Some(block) = BLOCKS.iter().find(|block| block.name == name) else { return Err(unknown(name)) };
    let mut body = block.body.clone();
    let mut entries = vec![];
    if let Some(included) = body.remove(&Yaml::String("include".into())) {
        for name in included.into_iter() {
            let Some(name) = name.as_str() else { bail!("'include' of the block '{}' must list blocks", block.name) };
            entries.extend(self::entries(name)?);
        }
    }
    entries.extend(yaml::flatten(&body)?);
    Ok(entries)
}

/// The run folder whose configuration a file is: that of a `config.yaml` with a checkpoint beside it.
pub(crate) fn run_folder(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(crate::paths::expand_home(name)).canonicalize().ok()?;
    let folder = path.parent()?;
    let is_one = path.file_name()? == "config.yaml" && folder.join("ckpt/latest").is_file();
    is_one.then(|| folder.to_path_buf())
}

/// The error for a block that does not exist.
fn unknown(name: &str) -> anyhow::Error {
    let names: Vec<&str> = blocks().into_iter().map(|block| block.0).collect();
    let near = nearest(name, names.iter().copied()).unwrap_or("defaults");
    anyhow!("unknown block '{name}' in --configs; the nearest is '{near}', and all of them are: {}", names.join(", "))
}
