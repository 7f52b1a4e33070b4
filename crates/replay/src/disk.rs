//! Saving: every save writes new files beside the old ones, then the manifest that names them.

use crate::files::sync_dir;
use crate::manifest::{Files, Manifest, OpenStream};
use crate::selectors::Selector;
use crate::{Replay, manifest};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What is known of the folder.
#[derive(Default)]
pub struct Disk {
    /// The last save, or attempt to save. Files of one generation are written once.
    pub generation: u64,
    /// Files that this replay has read or written and may remove once they are not needed.
    pub files: BTreeSet<String>,
}

/// What a chunk's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Chunk,
    Latent,
}

/// `0000000012-000003.chunk`: chunk 12 as the third save wrote it.
pub fn file_name(id: u64, generation: u64, kind: Kind) -> String {
    let extension = if kind == Kind::Chunk { "chunk" } else { "latent" };
    format!("{id:010}-{generation:06}.{extension}")
}

/// The inverse of [`file_name`].
pub fn parse_name(name: &str) -> Option<(u64, u64, Kind)> {
    let (numbers, extension) = name.split_once('.')?;
    let (id, generation) = numbers.split_once('-')?;
    let kind = match extension {
        "chunk" => Kind::Chunk,
        "latent" => Kind::Latent,
        _ => return None,
    };
    let parsed = (id.parse().ok()?, generation.parse().ok()?, kind);
    (parsed.0 > 0 && file_name(parsed.0, parsed.1, kind) == name).then_some(parsed)
}

/// A chunk's files in the folder, by kind and generation.
pub type Found = BTreeMap<u64, BTreeSet<(Kind, u64)>>;

/// Lists `dir`, removes what an interrupted save left half-written, and warns of foreign files.
pub fn scan(dir: &Path, warnings: &mut Vec<String>) -> Result<Found> {
    let mut found = Found::new();
    let failed = || format!("cannot read the replay folder {}; check that it is a folder you may read", dir.display());
    let mut names = vec![];
    for entry in fs::read_dir(dir).with_context(failed)? {
        names.push(entry.with_context(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        let ours = |name: &str| parse_name(name).is_some() || [manifest::NAME, manifest::PREVIOUS].contains(&name);
        if let Some((id, generation, kind)) = parse_name(&name) {
            found.entry(id).or_default().insert((kind, generation));
        } else if name.strip_suffix(".tmp").is_some_and(ours) {
            // It never became part of the state; failing to remove it does no harm.
            let _ = fs::remove_file(dir.join(name));
        } else if !ours(&name) {
            warnings.push(format!("{} is not a file of the replay; it is ignored", dir.join(name).display()));
        }
    }
    Ok(found)
}

/// A file that a save has written, and its chunk's `saved`, `latent` and `dirty` before.
struct Written {
    id: u64,
    name: String,
    before: (Option<u64>, Option<u64>, bool),
}

impl Replay {
    /// Writes what has changed since the last save. After an error, and if the process ends at any moment, the folder
    /// still holds the last save that succeeded; after an error nothing else, so that the disk is no fuller than
    /// before. Does nothing without a folder.
    pub fn save(&mut self) -> Result<()> {
        let Some(dir) = self.options.dir.clone() else { return Ok(()) };
        self.disk.generation += 1;
        let mut written = vec![];
        let saved = self.write_files(&dir, &mut written).and_then(|()| {
            let manifest = self.manifest();
            manifest.write(&dir)?;
            Ok(manifest)
        });
        match saved {
            Ok(manifest) => {
                sync_dir(&dir);
                self.remove_files(&dir, &manifest);
                Ok(())
            }
            Err(error) => {
                self.take_back(&dir, written);
                Err(error)
            }
        }
    }

    /// Writes the files of chunks that have changed, and notes each with what its chunk was before.
    fn write_files(&mut self, dir: &Path, written: &mut Vec<Written>) -> Result<()> {
        let generation = self.disk.generation;
        for chunk in self.store.chunks.values_mut().filter(|chunk| chunk.len() > 0) {
            let kind = if chunk.saved.is_none() {
                Kind::Chunk
            } else if chunk.dirty {
                Kind::Latent
            } else {
                continue;
            };
            let name = file_name(chunk.id, generation, kind);
            let before = (chunk.saved, chunk.latent, chunk.dirty);
            if kind == Kind::Chunk {
                chunk.write(&dir.join(&name), &self.schema, generation)?;
                (chunk.saved, chunk.latent) = (Some(generation), None);
            } else {
                chunk.write_latent(&dir.join(&name), &self.schema, &self.mutable, generation)?;
                chunk.latent = Some(generation);
            }
            chunk.dirty = false;
            self.disk.files.insert(name.clone());
            written.push(Written { id: chunk.id, name, before });
        }
        sync_dir(dir);
        Ok(())
    }

    /// Removes the files of a save that failed; their chunks are to be written again.
    fn take_back(&mut self, dir: &Path, written: Vec<Written>) {
        for Written { id, name, before } in written {
            if let Some(chunk) = self.store.chunks.get_mut(&id) {
                (chunk.saved, chunk.latent, chunk.dirty) = before;
            }
            // One that stays does no harm: the next save that succeeds removes it.
            if fs::remove_file(dir.join(&name)).is_ok() {
                self.disk.files.remove(&name);
            }
        }
    }

    fn manifest(&self) -> Manifest {
        let length = self.options.length;
        let last_order = |place| {
            let parts = self.store.sequence(place, length)?;
            parts.last().map(|(chunk, range)| chunk.order[range.end - 1])
        };
        let streams = self.store.streams.iter().filter_map(|(&worker, stream)| {
            let chunk = self.store.chunks.get(&stream.tail)?;
            let (tail, pred) = (stream.tail, chunk.pred);
            Some(OpenStream { worker, tail, pred, length: chunk.len(), inserted: stream.inserted })
        });
        let files = self.store.chunks.values().filter_map(|chunk| {
            let files = Files { id: chunk.id, chunk: chunk.saved?, latent: chunk.latent };
            Some(files)
        });
        Manifest {
            generation: self.disk.generation,
            length,
            capacity: self.options.capacity,
            capacity_bytes: self.options.capacity_bytes,
            counters: self.counters.clone(),
            first_order: self.items.front().and_then(|&place| last_order(place)).unwrap_or(0),
            slots: self.selector.slots(),
            queue: self.queue.clone(),
            streams: streams.collect(),
            chunks: files.collect(),
        }
    }

    /// Removes the files that the manifest has no use for.
    fn remove_files(&mut self, dir: &Path, manifest: &Manifest) {
        let mut needed = BTreeSet::new();
        for files in &manifest.chunks {
            needed.insert(file_name(files.id, files.chunk, Kind::Chunk));
            needed.extend(files.latent.map(|latent| file_name(files.id, latent, Kind::Latent)));
        }
        let unneeded: Vec<_> = self.disk.files.difference(&needed).cloned().collect();
        for name in unneeded {
            if let Err(error) = fs::remove_file(dir.join(&name)) {
                self.warnings.push(format!("cannot remove the old file {}: {error}", dir.join(&name).display()));
            }
            self.disk.files.remove(&name);
        }
    }
}
