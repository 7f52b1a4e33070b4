//! `Replay`: steps go in, sequences come out.

use crate::chunk::{self, Chunk, Schema, extend, reserve, step_bytes};
use crate::disk::Disk;
use crate::rng::Draws;
use crate::selectors::{Mixture, Selector};
use crate::store::{Place, Store, Stream};
use crate::{Mode, Options};
use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, DType, Data, Record, STEPID, Space, Spaces};
use std::collections::VecDeque;
use std::ops::Range;

/// A sequence in memory: ranges of successive chunks.
type Parts<'a> = Vec<(&'a Chunk, Range<usize>)>;

/// Streams of steps, and which of their sequences are sampled next.
pub struct Replay {
    pub(crate) options: Options,
    /// What a step holds; empty before the first.
    pub(crate) schema: Schema,
    /// For each column whether updates have written to it.
    pub(crate) mutable: Vec<bool>,
    pub(crate) store: Store,
    /// Where each live item starts, oldest first. The front is item `counters.first_item`.
    pub(crate) items: VecDeque<Place>,
    pub(crate) selector: Mixture,
    /// Fresh sequences that no batch has had yet.
    pub(crate) queue: VecDeque<Place>,
    pub(crate) counters: Counters,
    pub(crate) disk: Disk,
    pub(crate) warnings: Vec<String>,
}

/// All numbers that a resumed run must continue from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Number of the chunk created last.
    pub chunk: u64,
    /// Steps ever added.
    pub order: u64,
    /// Number of the oldest live item.
    pub first_item: u64,
    /// Sequences sampled in each [`Mode`], without those delivered fresh.
    pub draws: [u64; 3],
    /// Items added, sequences sampled for training and steps updated since the last statistics.
    pub inserts: u64,
    pub samples: u64,
    pub updates: u64,
}

impl Replay {
    /// An empty replay, or the one that `options.dir` holds. Damaged files are skipped; see
    /// [`Replay::warnings`]. Fails on options that cannot work and on a folder that cannot be read.
    pub fn new(options: Options) -> Result<Self> {
        options.check()?;
        let mut replay = Replay {
            selector: Mixture::new(&options.fracs, options.recexp, options.capacity)?,
            options,
            schema: vec![],
            mutable: vec![],
            store: Store::default(),
            items: VecDeque::new(),
            queue: VecDeque::new(),
            counters: Counters::default(),
            disk: Disk::default(),
            warnings: vec![],
        };
        replay.load()?;
        Ok(replay)
    }

    /// Adds one step of the stream `worker`, without its `log/…` keys. Fails, and adds nothing,
    /// when its keys, dtypes or shapes are not those of the steps before.
    pub fn add(&mut self, step: &Record, worker: usize) -> Result<()> {
        self.check(step)?;
        let size = self.options.chunksize;
        if !self.store.streams.contains_key(&worker) {
            let tail = self.open_chunk(0, worker);
            let start = Place { chunk: tail, index: 0 };
            self.store.streams.insert(worker, Stream { tail, start, steps: 0, inserted: 0 });
        }
        let tail = self.store.streams[&worker].tail;
        let Some(chunk) = self.store.chunks.get_mut(&tail) else { bail!("stream {worker} has lost chunk {tail}") };
        chunk.push(step, &self.schema, self.counters.order, self.options.initial());
        let full = chunk.len() >= size;
        self.store.steps += 1;
        self.counters.order += 1;
        if full {
            let succ = self.open_chunk(tail, worker);
            if let Some(chunk) = self.store.chunks.get_mut(&tail) {
                chunk.succ = succ;
            }
        }
        self.grow(worker, tail);
        self.evict();
        Ok(())
    }

    /// Adds an empty chunk behind `pred` and returns its number.
    fn open_chunk(&mut self, pred: u64, worker: usize) -> u64 {
        self.counters.chunk += 1;
        self.store.open(self.counters.chunk, pred, worker, &self.schema, self.options.chunksize);
        self.counters.chunk
    }

    /// Notes that stream `worker` has one step more, in chunk `last`: an item ends with it once
    /// there are `length` steps.
    fn grow(&mut self, worker: usize, last: u64) {
        let length = self.options.length;
        let succ = self.store.chunks.get(&last).map_or(0, |chunk| chunk.succ);
        let Some(stream) = self.store.streams.get_mut(&worker) else { return };
        if succ != 0 {
            stream.tail = succ;
        }
        stream.steps = (stream.steps + 1).min(length);
        if stream.steps < length {
            return;
        }
        let start = stream.start;
        let fresh = stream.inserted.is_multiple_of(length as u64);
        stream.inserted += 1;
        stream.start.index += 1;
        if let Some(chunk) = self.store.chunks.get(&start.chunk)
            && chunk.succ != 0
            && stream.start.index == chunk.len()
        {
            stream.start = Place { chunk: chunk.succ, index: 0 };
        }
        self.insert(start);
        self.counters.inserts += 1;
        if self.options.online && fresh {
            self.queue.push_back(start);
        }
    }

    /// Adds the item that starts at `place`, whose steps are all there.
    pub(crate) fn insert(&mut self, place: Place) {
        let item = self.counters.first_item + self.items.len() as u64;
        let priority = if self.options.prioritized() { self.priority(place) } else { 0.0 };
        let Some(chunk) = self.store.chunks.get_mut(&place.chunk) else { return };
        chunk.item[place.index] = item;
        chunk.items += 1;
        self.items.push_back(place);
        self.selector.insert(item, priority);
    }

    /// Removes the oldest items until the rest fits, and chunks that hold no item any more.
    pub(crate) fn evict(&mut self) {
        let most = self.options.capacity_bytes.unwrap_or(u64::MAX);
        while self.items.len() > self.options.capacity || (self.items.len() > 1 && self.bytes() as u64 > most) {
            let Some(place) = self.items.pop_front() else { return };
            self.selector.delete(self.counters.first_item);
            if self.queue.front() == Some(&place) {
                self.queue.pop_front();
            }
            self.counters.first_item += 1;
            if let Some(chunk) = self.store.chunks.get_mut(&place.chunk) {
                chunk.items -= 1;
            }
            self.store.release(place.chunk);
        }
    }

    /// Fails unless steps of these spaces, without `log/…` keys, are like those that the replay holds.
    pub fn check_spaces(&mut self, spaces: &Spaces) -> Result<()> {
        if self.schema.is_empty() {
            return Ok(());
        }
        let zeros = |(key, space): (&String, &Space)| (key.clone(), Array::zeros(space.dtype, &space.shape));
        self.check(&spaces.iter().map(zeros).collect())
    }

    /// Sets the schema by the first step and holds later ones to it.
    fn check(&mut self, step: &Record) -> Result<()> {
        let kept = step.iter().filter(|(name, _)| !spaces::is_log(name));
        let same = kept.clone().count() == self.schema.len()
            && kept
                .zip(&self.schema)
                .all(|((name, x), c)| *name == c.name && x.dtype() == c.dtype && x.shape == c.shape);
        if same && !self.schema.is_empty() {
            return Ok(());
        }
        let schema = chunk::schema(step);
        ensure!(!schema.is_empty(), "a step without any key was added to the replay");
        if self.schema.is_empty() {
            let taken =
                schema.iter().find(|c| c.name == "stepid" || c.name == "priority" || c.name.starts_with("replay/"));
            if let Some(column) = taken {
                bail!("key '{}' is the replay's own; give the environment's key another name", column.name);
            }
            self.mutable = vec![false; schema.len()];
            self.schema = schema;
            return Ok(());
        }
        let cure = "use a new log directory, or the settings that filled this one";
        let find = |schema: &Schema, name: &str| schema.iter().find(|c| c.name == name).cloned();
        for ours in &self.schema {
            let Some(theirs) = find(&schema, &ours.name) else {
                bail!("the step lacks key '{}', which the replay stores; {cure}", ours.name);
            };
            ensure!(
                *ours == theirs,
                "key '{}' holds {} {:?} where the replay stores {} {:?}; {cure}",
                ours.name,
                theirs.dtype.name(),
                theirs.shape,
                ours.dtype.name(),
                ours.shape
            );
        }
        let extra = schema.iter().find(|c| find(&self.schema, &c.name).is_none());
        bail!("key '{}' is not among those the replay stores; {cure}", extra.map_or("", |c| &c.name))
    }

    /// Sequences that can be sampled.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of memory that the steps take.
    pub fn bytes(&self) -> usize {
        self.store.steps * self.step_bytes()
    }

    /// Bytes of memory that one step takes; 0 before the first.
    fn step_bytes(&self) -> usize {
        if self.schema.is_empty() { 0 } else { step_bytes(&self.schema) }
    }

    /// Sentences about damaged or strange files met since the last call.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// `batch` sequences as [batch, length, …], every key with the dtype that was added, and
    /// `stepid` uint8 [batch, length, 20]. Each starts with `is_first`, and `is_last` is set where
    /// the next step `is_first`, so that abandoned episodes end. `None` while there is no sequence.
    pub fn sample(&mut self, batch: usize, mode: Mode) -> Option<Record> {
        if self.items.is_empty() || batch == 0 {
            return None;
        }
        let places: Vec<Place> = (0..batch).map(|_| self.draw(mode)).collect();
        let sequences: Option<Vec<Parts>> =
            places.iter().map(|&place| self.store.sequence(place, self.options.length)).collect();
        let mut record = self.assemble(&sequences?);
        annotate(&mut record, batch, self.options.length);
        Some(record)
    }

    /// The `index`-th oldest sequence as stored, [length, …] with its `stepid`.
    pub fn get(&self, index: usize) -> Option<Record> {
        let parts = self.store.sequence(*self.items.get(index)?, self.options.length)?;
        let record = self.assemble(&[parts]);
        Some(spaces::row(&record, 0))
    }

    /// Chooses the next sequence: a fresh one if there is one, else what the selector draws.
    fn draw(&mut self, mode: Mode) -> Place {
        if mode == Mode::Train {
            self.counters.samples += 1;
            while let Some(place) = self.queue.pop_front() {
                // The oldest fresh ones may have been evicted meanwhile.
                if self.store.sequence(place, self.options.length).is_some() {
                    return place;
                }
            }
        }
        let counter = &mut self.counters.draws[mode as usize];
        let mut draws = Draws::new(self.options.seed, mode as u64, *counter);
        *counter += 1;
        let pick = self.selector.sample(&mut draws);
        let place = self.items[(pick.item - self.counters.first_item) as usize];
        if pick.prioritized && self.options.prio.zero_on_sample && mode == Mode::Train {
            self.set_priorities(place, &vec![0.0; self.options.length]);
        }
        place
    }

    /// Copies sequences of `length` steps into one batch.
    fn assemble(&self, sequences: &[Parts]) -> Record {
        let (batch, length) = (sequences.len(), self.options.length);
        let mut record = Record::new();
        for (at, column) in self.schema.iter().enumerate() {
            let width: usize = column.shape.iter().product();
            let mut array = Array::zeros(column.dtype, &[0]);
            reserve(&mut array.data, batch * length * width);
            for (chunk, range) in sequences.iter().flatten() {
                extend(&mut array.data, &chunk.columns[at].data, range.start * width..range.end * width);
            }
            array.shape = [&[batch, length], &column.shape[..]].concat();
            record.insert(column.name.clone(), array);
        }
        let mut ids = Vec::with_capacity(batch * length * STEPID);
        for (chunk, range) in sequences.iter().flatten() {
            for index in range.clone() {
                ids.extend_from_slice(&(chunk.id as u128).to_be_bytes());
                ids.extend_from_slice(&(index as u32).to_be_bytes());
            }
        }
        record.insert("stepid".into(), Array::from_u8(&[batch, length, STEPID], ids));
        record
    }

    /// The official statistics, and bytes; inserts, samples and updates count from the last call.
    pub fn stats(&mut self) -> Vec<(String, f64)> {
        let Counters { inserts, samples, updates, .. } = self.counters;
        let mut stats = vec![
            ("items", self.items.len() as f64),
            ("chunks", self.store.chunks.len() as f64),
            ("streams", self.store.streams.len() as f64),
            ("ram_gb", self.bytes() as f64 / (1u64 << 30) as f64),
            ("bytes", self.bytes() as f64),
            ("bytes_per_step", self.step_bytes() as f64),
            ("steps", self.store.steps as f64),
            ("inserts", inserts as f64),
            ("samples", samples as f64),
            ("updates", updates as f64),
        ];
        if inserts > 0 {
            stats.push(("replay_ratio", (self.options.length as u64 * samples) as f64 / inserts as f64));
        }
        self.counters = Counters { inserts: 0, samples: 0, updates: 0, ..self.counters.clone() };
        stats.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

/// Sets `is_first` where each sequence starts and `is_last` where an episode gave way to the next.
fn annotate(record: &mut Record, batch: usize, length: usize) {
    let flags = |x: &Array| x.dtype() == DType::Bool && x.len() == batch * length;
    let Some(Array { data: Data::Bool(first), .. }) = record.get_mut("is_first").filter(|x| flags(x)) else { return };
    for row in first.chunks_exact_mut(length) {
        row[0] = true;
    }
    let first = first.clone();
    let Some(Array { data: Data::Bool(last), .. }) = record.get_mut("is_last").filter(|x| flags(x)) else { return };
    for at in (0..batch * length).filter(|at| (at + 1) % length != 0) {
        last[at] |= first[at + 1];
    }
}
