//! Loading: reads the folder and rebuilds streams and items.

use crate::Replay;
use crate::blockfile::{self, Header};
use crate::chunk::{Chunk, Schema};
use crate::disk::{Found, Kind, file_name, scan};
use crate::manifest::{self, Files, Manifest};
use crate::selectors::Selector;
use crate::store::{Place, Store, Stream};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

impl Replay {
    /// Takes over what the folder holds. With a sound manifest that is exactly the state it
    /// describes; without one it is every readable chunk in its newest state, in streams that
    /// nobody continues.
    pub(crate) fn load(&mut self) -> Result<()> {
        let Some(dir) = self.options.dir.clone() else { return Ok(()) };
        fs::create_dir_all(&dir)
            .with_context(|| format!("cannot make the replay folder {}; choose another logdir", dir.display()))?;
        let found = scan(&dir, &mut self.warnings)?;
        let current = self.read_manifest(&dir.join(manifest::NAME));
        if current.is_none() && !found.is_empty() {
            let lost = format!("{} has no sound manifest; all its readable chunks are loaded", dir.display());
            self.warnings.push(lost);
        }
        // Without the manifest, its predecessor still knows how far the counters were.
        let previous = if current.is_none() { self.read_manifest(&dir.join(manifest::PREVIOUS)) } else { None };
        if let Some(manifest) = current.as_ref().or(previous.as_ref()) {
            self.counters = manifest.counters.clone();
            self.disk.generation = manifest.generation;
        }
        let newest = found.values().flatten().map(|&(_, generation)| generation).max();
        self.disk.generation = self.disk.generation.max(newest.unwrap_or(0));
        if current.is_none() {
            self.counters.chunk = self.counters.chunk.max(found.keys().last().copied().unwrap_or(0));
            self.counters.first_item = 0;
        }
        if let Some(manifest) = &current {
            self.selector.reserve(manifest.slots);
        }
        self.read_chunks(&dir, &found, current.as_ref());
        self.open_empty_tails(current.as_ref());
        self.store.cut_false_links();
        self.rebuild(current.as_ref());
        Ok(())
    }

    fn read_manifest(&mut self, path: &Path) -> Option<Manifest> {
        match Manifest::read(path) {
            Ok(manifest) => Some(manifest),
            Err(_) if !path.exists() => None,
            Err(error) => {
                self.warnings.push(format!("{} is skipped: {error:#}", path.display()));
                None
            }
        }
    }

    /// Reads the chunks that the manifest lists, or all without one, the newest first. Unless length and capacity are
    /// still the manifest's, skips the rest once the replay is full.
    fn read_chunks(&mut self, dir: &Path, found: &Found, manifest: Option<&Manifest>) {
        let options = &self.options;
        let same = manifest.is_some_and(|m| {
            (m.length, m.capacity, m.capacity_bytes) == (options.length, options.capacity, options.capacity_bytes)
        });
        let listed: BTreeMap<u64, Files> = manifest.iter().flat_map(|m| &m.chunks).map(|&f| (f.id, f)).collect();
        for (&id, files) in &listed {
            let here = |kind, generation| found.get(&id).is_some_and(|files| files.contains(&(kind, generation)));
            if !here(Kind::Chunk, files.chunk) || files.latent.is_some_and(|latent| !here(Kind::Latent, latent)) {
                self.warnings
                    .push(format!("a file of chunk {id} is missing in {}; what it held is lost", dir.display()));
            }
        }
        let header = |(&id, files)| Some((id, header(dir, id, files, listed.get(&id))?));
        let headers: BTreeMap<u64, Header> = found.iter().filter_map(header).collect();
        let mut order: Vec<_> = found.keys().map(|&id| (reach(&headers, id, self.options.length), id)).collect();
        order.sort_by(|a, b| b.cmp(a));
        let mut beyond = 0;
        for (reach, id) in order {
            let files = &found[&id];
            let names = files.iter().map(|&(kind, generation)| file_name(id, generation, kind));
            let wanted = manifest.is_none() || listed.contains_key(&id);
            if !wanted || (!same && self.has_enough(reach)) {
                // Left by an interrupted save, or beyond the capacity: gone with the next save.
                self.disk.files.extend(names);
                beyond += if wanted { headers.get(&id).map_or(0, |header| header.length) } else { 0 };
                continue;
            }
            let latents = manifest.map_or(u64::MAX, |_| listed.get(&id).and_then(|f| f.latent).unwrap_or(0));
            let chunk = self.read_chunk(dir, id, files, listed.get(&id).map(|f| f.chunk), latents);
            if let Some(chunk) = chunk {
                self.disk.files.extend(names);
                self.counters.order = self.counters.order.max(chunk.order.last().map_or(0, |x| x + 1));
                self.counters.chunk = self.counters.chunk.max(id);
                self.store.steps += chunk.len();
                self.store.chunks.insert(id, chunk);
            }
        }
        if beyond > 0 {
            let (steps, bytes) = (self.store.steps, self.options.capacity_bytes);
            let memory = bytes.map_or(String::new(), |most| format!(" and {:.1} GB of memory", most as f64 / 1e9));
            self.warnings.push(format!(
                "{} holds {beyond} steps more than these {steps}, with which the replay is full (replay.size {}{memory}); \
                 their files are removed by the next save: to keep them, copy the folder first",
                dir.display(),
                self.options.capacity
            ));
        }
    }

    /// Whether the chunks in memory certainly fill the capacity, in items whose last step was added after `order`, or
    /// in bytes.
    fn has_enough(&self, order: u64) -> bool {
        // Each chain of chunks begins with length - 1 steps that end no item; count every chunk as a chain.
        let ends = |chunk: &Chunk| {
            let later = chunk.len() - chunk.order.partition_point(|&x| x <= order);
            later.saturating_sub(self.options.length - 1)
        };
        self.store.chunks.values().map(ends).sum::<usize>() >= self.options.capacity
            || self.options.capacity_bytes.is_some_and(|most| self.bytes() as u64 > most)
    }

    /// Reads the `listed` generation of a chunk, or else the newest readable one, and the newest
    /// latents after it up to generation `latents`.
    fn read_chunk(
        &mut self,
        dir: &Path,
        id: u64,
        files: &Generations,
        listed: Option<u64>,
        latents: u64,
    ) -> Option<Chunk> {
        for generation in candidates(files, listed) {
            let path = dir.join(file_name(id, generation, Kind::Chunk));
            let (mut chunk, schema) = match Chunk::read(&path, id).and_then(|read| self.fits(read)) {
                Ok(read) => read,
                Err(error) => {
                    self.warnings.push(format!("{} is skipped: {error:#}", path.display()));
                    continue;
                }
            };
            if self.schema.is_empty() {
                self.mutable = vec![false; schema.len()];
                self.schema = schema;
            }
            let newer = |&&(kind, g): &&(Kind, u64)| kind == Kind::Latent && g > generation && g <= latents;
            for &(_, latent) in files.iter().rev().filter(newer) {
                let path = dir.join(file_name(id, latent, Kind::Latent));
                match chunk.read_latent(&path, &self.schema, &mut self.mutable) {
                    Ok(()) => break,
                    Err(error) => self.warnings.push(format!("{} is skipped: {error:#}", path.display())),
                }
            }
            let initial = self.options.initial();
            chunk.priority.resize(if initial.is_some() { chunk.len() } else { 0 }, initial.unwrap_or(0.0));
            return Some(chunk);
        }
        None
    }

    /// Passes on a chunk whose schema is that of the newest one; others are an error.
    fn fits(&self, (chunk, schema): (Chunk, Schema)) -> Result<(Chunk, Schema)> {
        ensure!(
            self.schema.is_empty() || schema == self.schema,
            "its keys, dtypes or shapes are not those of the newest chunk"
        );
        Ok((chunk, schema))
    }

    /// Opens the manifest's streams again and inserts every item in the order in which they came.
    fn rebuild(&mut self, manifest: Option<&Manifest>) {
        let tails = manifest.map(|manifest| self.open_tails(manifest)).unwrap_or_default();
        let heads: Vec<u64> = self.store.chunks.values().filter(|c| c.pred == 0).map(|c| c.id).collect();
        let mut items = vec![];
        for head in heads {
            let (ids, steps) = chain(&self.store, head);
            let tail = ids.last().copied().unwrap_or(head);
            if let Some(&(worker, inserted)) = tails.get(&tail) {
                let end = Place { chunk: tail, index: self.store.chunks.get(&tail).map_or(0, Chunk::len) };
                let (start, _) = self.store.back(end, self.options.length - 1);
                let steps = steps.len().min(self.options.length);
                self.store.streams.insert(worker, Stream { tail, start, steps, inserted });
            } else if steps.len() < self.options.length {
                // Too short to be sampled and never to grow. The next manifest does not list it.
                for id in ids {
                    self.forget(id);
                }
                continue;
            }
            let last = steps.iter().skip(self.options.length - 1).map(|&(_, order)| order);
            items.extend(last.zip(&steps).map(|(last, &(place, _))| (last, place)));
        }
        items.sort();
        // With another sequence length these are other items; only the capacity decides then.
        let manifest = manifest.filter(|manifest| manifest.length == self.options.length);
        let first = manifest.map_or(0, |manifest| manifest.first_order);
        for &(_, place) in items.iter().filter(|(last, _)| *last >= first) {
            self.insert(place);
        }
        // Chunks that nothing needs any more must not count when memory is short.
        let heads: Vec<u64> = self.store.chunks.values().filter(|c| c.pred == 0).map(|c| c.id).collect();
        heads.into_iter().for_each(|head| self.store.release(head));
        if let Some(manifest) = manifest.filter(|_| self.options.online) {
            self.queue = manifest.queue.clone();
        }
        self.evict();
    }

    /// Makes the chunks anew that were empty when the manifest was written and so have no file.
    fn open_empty_tails(&mut self, manifest: Option<&Manifest>) {
        if self.schema.is_empty() {
            return;
        }
        for stream in manifest.iter().flat_map(|manifest| &manifest.streams) {
            if stream.length == 0 && !self.store.chunks.contains_key(&stream.tail) {
                self.store.open(stream.tail, stream.pred, stream.worker, &self.schema, self.options.chunksize);
            }
        }
    }

    /// The tails of the streams that their workers may continue, as they match the manifest and the workers are still
    /// there; with each tail's worker and items so far.
    fn open_tails(&mut self, manifest: &Manifest) -> BTreeMap<u64, (usize, u64)> {
        let mut tails = BTreeMap::new();
        for stream in manifest.streams.iter().filter(|stream| stream.worker < self.options.workers) {
            let Some(chunk) = self.store.chunks.get_mut(&stream.tail) else { continue };
            if chunk.len() == stream.length && chunk.succ == 0 {
                chunk.reserve(self.options.chunksize);
                // Another sequence length starts another count of sequences.
                let inserted = if manifest.length == self.options.length { stream.inserted } else { 0 };
                tails.insert(stream.tail, (stream.worker, inserted));
            }
        }
        tails
    }

    /// Drops a chunk from memory but not from the folder.
    fn forget(&mut self, id: u64) {
        if let Some(chunk) = self.store.chunks.remove(&id) {
            self.store.steps -= chunk.len();
            self.disk.files.retain(|name| crate::disk::parse_name(name).is_none_or(|(of, _, _)| of != id));
        }
    }
}

type Generations = std::collections::BTreeSet<(Kind, u64)>;

/// The generations of a chunk to try: the listed one, then from the newest on.
fn candidates(files: &Generations, listed: Option<u64>) -> Vec<u64> {
    let chunks = || files.iter().rev().filter(|(kind, _)| *kind == Kind::Chunk).map(|&(_, generation)| generation);
    let first = chunks().filter(|&generation| Some(generation) == listed);
    first.chain(chunks().filter(|&generation| Some(generation) != listed)).collect()
}

/// The header of the chunk's file, as far as it can be read.
fn header(dir: &Path, id: u64, files: &Generations, listed: Option<&Files>) -> Option<Header> {
    let read = |generation| blockfile::read_header(&dir.join(file_name(id, generation, Kind::Chunk))).ok();
    candidates(files, listed.map(|files| files.chunk)).into_iter().find_map(read)
}

/// An upper bound on when the last step of any item that touches the chunk was added.
fn reach(headers: &BTreeMap<u64, Header>, id: u64, length: usize) -> u64 {
    let Some(mut header) = headers.get(&id) else { return 0 };
    let (mut reach, mut left) = (header.last_order, length - 1);
    while left > 0
        && let Some(next) = headers.get(&header.succ).filter(|next| next.length > 0)
    {
        reach = reach.max(next.last_order);
        left = left.saturating_sub(next.length);
        header = next;
    }
    reach
}

/// The chunks from `head` on and the place and order of each of their steps.
fn chain(store: &Store, head: u64) -> (Vec<u64>, Vec<(Place, u64)>) {
    let (mut ids, mut steps) = (vec![], vec![]);
    let mut next = head;
    while let Some(chunk) = store.chunks.get(&next) {
        ids.push(next);
        steps.extend(chunk.order.iter().enumerate().map(|(index, &order)| (Place { chunk: next, index }, order)));
        next = chunk.succ;
    }
    (ids, steps)
}
