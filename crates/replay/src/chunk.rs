//! `Chunk`: a block of consecutive steps of one stream, one array a key.

use crate::blockfile::{self, Header};
use anyhow::{Context, Result, ensure};
use spaces::{Array, DType, Data, Record};
use std::ops::Range;
use std::path::Path;

/// In a chunk file: when each step was added, little-endian u64 as uint8 [length, 8].
const ORDER: &str = "replay/order";
/// In chunk and latent files of prioritized replays: float32 [length].
const PRIORITY: &str = "replay/priority";
/// No item starts at this step.
pub const NO_ITEM: u64 = u64::MAX;

/// One key of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

/// What a step holds, sorted by name. All chunks of a replay share it.
pub type Schema = Vec<Column>;

/// The schema that `step` has; `log/…` keys are not part of it.
pub fn schema(step: &Record) -> Schema {
    let kept = step.iter().filter(|(name, _)| !spaces::is_log(name));
    kept.map(|(name, x)| Column { name: name.clone(), dtype: x.dtype(), shape: x.shape.clone() }).collect()
}

/// Bytes of one step in memory: its values, its place in the order, and its item.
pub fn step_bytes(schema: &Schema) -> usize {
    let values = schema.iter().map(|c| c.shape.iter().product::<usize>() * c.dtype.size());
    values.sum::<usize>() + STEP_OVERHEAD
}

/// Order, item number, priority, and the item's entry in the queue and the sample tree.
pub const STEP_OVERHEAD: usize = 48;

/// Steps reserved at most, however large the chunks are to become.
const MOST_RESERVED: usize = 4096;

/// A block of consecutive steps of one stream. Chunk numbers count from 1; 0 is none.
pub struct Chunk {
    pub id: u64,
    pub pred: u64,
    pub succ: u64,
    pub worker: usize,
    /// One array [length, …] for each column of the schema.
    pub columns: Vec<Array>,
    /// When each step was added, in steps of the whole replay. Items are ordered by it.
    pub order: Vec<u64>,
    /// Each step's priority; empty when nothing is prioritized.
    pub priority: Vec<f32>,
    /// The item that starts at each step, or [`NO_ITEM`].
    pub item: Vec<u64>,
    /// How many live items start here.
    pub items: usize,
    /// The save that wrote the chunk file with all steps, if one has.
    pub saved: Option<u64>,
    /// The save that wrote the latest latents beside it, if one has.
    pub latent: Option<u64>,
    /// Whether values have changed since the files were written.
    pub dirty: bool,
}

impl Chunk {
    pub fn new(id: u64, pred: u64, worker: usize, schema: &Schema) -> Self {
        let column = |c: &Column| Array::zeros(c.dtype, &[&[0], &c.shape[..]].concat());
        Chunk {
            id,
            pred,
            succ: 0,
            worker,
            columns: schema.iter().map(column).collect(),
            order: vec![],
            priority: vec![],
            item: vec![],
            items: 0,
            saved: None,
            latent: None,
            dirty: false,
        }
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Appends a step that fits the schema.
    pub fn push(&mut self, step: &Record, schema: &Schema, order: u64, priority: Option<f32>) {
        for (array, column) in self.columns.iter_mut().zip(schema) {
            let value = &step[&column.name];
            extend(&mut array.data, &value.data, 0..value.len());
            array.shape[0] += 1;
        }
        self.order.push(order);
        self.item.push(NO_ITEM);
        self.priority.extend(priority);
        self.saved = None;
        self.latent = None;
        self.dirty = false;
    }

    /// Overwrites the steps `at` of a column with the elements of `values` from index `from` on.
    pub fn overwrite(&mut self, column: usize, at: Range<usize>, values: &Array, from: usize) {
        let array = &mut self.columns[column];
        let width = array.shape[1..].iter().product::<usize>();
        copy(&mut array.data, at.start * width, &values.data, from..from + at.len() * width);
        self.dirty = true;
    }

    /// Writes the chunk with everything in it.
    pub fn write(&self, path: &Path, schema: &Schema, generation: u64) -> Result<()> {
        let order = self.order.iter().flat_map(|x| x.to_le_bytes()).collect();
        let order = Array::from_u8(&[self.len(), 8], order);
        let priority = Array::from_f32(&[self.priority.len()], self.priority.clone());
        let names = schema.iter().map(|c| c.name.as_str());
        let mut arrays: Vec<_> = names.zip(&self.columns).collect();
        arrays.push((ORDER, &order));
        if !self.priority.is_empty() {
            arrays.push((PRIORITY, &priority));
        }
        blockfile::write(path, self.header("chunk", generation), &arrays)
    }

    /// Writes the `mutable` columns (and priorities) only.
    pub fn write_latent(&self, path: &Path, schema: &Schema, mutable: &[bool], generation: u64) -> Result<()> {
        let priority = Array::from_f32(&[self.priority.len()], self.priority.clone());
        let columns = schema.iter().zip(&self.columns).zip(mutable);
        let mut arrays: Vec<_> = columns.filter(|(_, m)| **m).map(|((c, x), _)| (c.name.as_str(), x)).collect();
        if !self.priority.is_empty() {
            arrays.push((PRIORITY, &priority));
        }
        blockfile::write(path, self.header("latent", generation), &arrays)
    }

    fn header(&self, kind: &str, generation: u64) -> Header {
        Header {
            kind: kind.to_string(),
            id: self.id,
            pred: self.pred,
            succ: self.succ,
            generation,
            worker: self.worker,
            length: self.len(),
            last_order: self.order.last().copied().unwrap_or(0),
            keys: vec![],
        }
    }

    /// Reads what [`Chunk::write`] wrote for chunk `id`, and its schema.
    pub fn read(path: &Path, id: u64) -> Result<(Self, Schema)> {
        let (header, mut record) = blockfile::read(path)?;
        ensure!(header.kind == "chunk" && header.id == id, "it holds {} {}, not chunk {id}", header.kind, header.id);
        ensure!(header.length > 0, "it holds no step");
        for (name, array) in &record {
            ensure!(array.shape.first() == Some(&header.length), "key '{name}' does not have {} steps", header.length);
        }
        let order = record.remove(ORDER).context("it lacks the order of its steps")?;
        let Data::U8(order) = order.data else { anyhow::bail!("the order of its steps is not uint8") };
        let order: Vec<u64> = order.as_chunks().0.iter().map(|&b| u64::from_le_bytes(b)).collect();
        ensure!(order.len() == header.length && order.is_sorted(), "the order of its steps is wrong");
        let priority = priorities(&mut record)?;
        let inner = |(name, x): (&String, &Array)| Column {
            name: name.clone(),
            dtype: x.dtype(),
            shape: x.shape[1..].to_vec(),
        };
        let schema = record.iter().map(inner).collect();
        let mut chunk = Chunk::new(id, header.pred, header.worker, &vec![]);
        chunk.columns = record.into_values().collect();
        chunk.succ = header.succ;
        chunk.item = vec![NO_ITEM; header.length];
        chunk.saved = Some(header.generation);
        Ok((Chunk { order, priority, ..chunk }, schema))
    }

    /// Reads what [`Chunk::write_latent`] wrote, and marks those columns in `mutable`.
    pub fn read_latent(&mut self, path: &Path, schema: &Schema, mutable: &mut [bool]) -> Result<()> {
        let (header, mut record) = blockfile::read(path)?;
        ensure!(
            header.kind == "latent" && header.id == self.id && header.length == self.len(),
            "it holds {} {} of {} steps, not the latents of chunk {} of {}",
            header.kind,
            header.id,
            header.length,
            self.id,
            self.len()
        );
        let priority = priorities(&mut record)?;
        ensure!(priority.is_empty() || priority.len() == self.len(), "it does not have a priority for each step");
        let mut fresh = vec![];
        for (name, array) in record {
            let Some(at) = schema.iter().position(|c| c.name == name) else { anyhow::bail!("key '{name}' is unknown") };
            let same = array.dtype() == schema[at].dtype && array.shape == self.columns[at].shape;
            ensure!(same, "key '{name}' differs in dtype or shape");
            fresh.push((at, array));
        }
        for (at, array) in fresh {
            self.columns[at] = array;
            mutable[at] = true;
        }
        if !priority.is_empty() {
            self.priority = priority;
        }
        self.latent = Some(header.generation);
        Ok(())
    }

    /// Makes room for `size` steps, so that an open chunk does not move as it fills. The memory is
    /// not touched before it is used.
    pub fn reserve(&mut self, size: usize) {
        let more = size.min(MOST_RESERVED).saturating_sub(self.len());
        for array in &mut self.columns {
            let width = array.shape[1..].iter().product::<usize>();
            reserve(&mut array.data, more * width);
        }
    }
}

fn priorities(record: &mut Record) -> Result<Vec<f32>> {
    match record.remove(PRIORITY).map(|x| x.data) {
        None => Ok(vec![]),
        Some(Data::F32(xs)) => Ok(xs),
        Some(_) => anyhow::bail!("its priorities are not float32"),
    }
}

/// Runs `$body` with the two vectors inside, which must hold one element type.
macro_rules! pair {
    ($a:expr, $b:expr, $x:ident, $y:ident => $body:expr) => {
        match ($a, $b) {
            (Data::Bool($x), Data::Bool($y)) => $body,
            (Data::U8($x), Data::U8($y)) => $body,
            (Data::I32($x), Data::I32($y)) => $body,
            (Data::F16($x), Data::F16($y)) => $body,
            (Data::F32($x), Data::F32($y)) => $body,
            _ => unreachable!("values are checked against the schema before they get here"),
        }
    };
}

/// Appends the elements `span` of `src`.
pub fn extend(dst: &mut Data, src: &Data, span: Range<usize>) {
    pair!(dst, src, x, y => x.extend_from_slice(&y[span]));
}

fn copy(dst: &mut Data, at: usize, src: &Data, span: Range<usize>) {
    pair!(dst, src, x, y => x[at..at + span.len()].copy_from_slice(&y[span]));
}

/// Reserves room for `more` elements.
pub fn reserve(data: &mut Data, more: usize) {
    match data {
        Data::Bool(xs) => xs.reserve_exact(more),
        Data::U8(xs) => xs.reserve_exact(more),
        Data::I32(xs) => xs.reserve_exact(more),
        Data::F16(xs) => xs.reserve_exact(more),
        Data::F32(xs) => xs.reserve_exact(more),
    }
}
