//! The manifest: one small file that says which chunk files make up the state, and the rest of it.

use crate::buffer::Counters;
use crate::files::replace;
use crate::store::Place;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::path::Path;

pub const NAME: &str = "manifest";
pub const PREVIOUS: &str = "manifest.prev";
const MARK: &str = "dreamer-replay-manifest 1 crc32 ";

/// The state of a replay besides the chunks' contents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The save that wrote it, counting from 1.
    pub generation: u64,
    /// The options that decide which items there are.
    pub length: usize,
    pub capacity: usize,
    pub capacity_bytes: Option<u64>,
    pub counters: Counters,
    /// Items whose last step was added earlier than this are gone.
    pub first_order: u64,
    /// Leaves of the sample tree.
    pub slots: usize,
    /// Online sequences that no batch has had yet.
    pub queue: VecDeque<Place>,
    pub streams: Vec<OpenStream>,
    pub chunks: Vec<Files>,
}

/// A stream to which its worker may go on adding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenStream {
    pub worker: usize,
    /// Its last chunk, that one's predecessor (0 is none) and its steps. An empty chunk has no file.
    pub tail: u64,
    pub pred: u64,
    pub length: usize,
    /// Items so far.
    pub inserted: u64,
}

/// The generations of a chunk's files.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Files {
    pub id: u64,
    pub chunk: u64,
    pub latent: Option<u64>,
}

impl Manifest {
    /// Puts it in place of the last one, which is kept as the previous one where it is sound.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        if let Some(old) = fs::read(&path).ok().filter(|bytes| Self::parse(bytes).is_ok()) {
            replace(&dir.join(PREVIOUS), |file| file.write_all(&old))?;
        }
        let json = serde_json::to_vec(self)?;
        let sum = crc32fast::hash(&json);
        replace(&path, |file| {
            writeln!(file, "{MARK}{sum:08x}")?;
            file.write_all(&json)
        })
    }

    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&fs::read(path)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let rest = bytes.strip_prefix(MARK.as_bytes()).context("it does not start with the mark of a manifest")?;
        let (sum, json) = rest.split_at_checked(9).context("it ends within its first line")?;
        let right = format!("{:08x}\n", crc32fast::hash(json));
        ensure!(sum == right.as_bytes(), "its checksum is wrong: it is damaged or incomplete");
        Ok(serde_json::from_slice(json)?)
    }
}
