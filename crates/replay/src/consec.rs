//! `Consec`: a long sampled sequence delivered as several batches in a row.

use crate::blockfile::{self, Header};
use anyhow::{Context, Result, ensure};
use spaces::{Array, Record};

/// Cuts batches [B, consec * length + prefix, …] into `consec` batches [B, prefix + length, …],
/// each of which starts `length` steps after the one before, so that its first `prefix` steps are
/// the last of that one. The key `consec` int32 [B, prefix + length] counts them from 0.
pub struct Consec {
    length: usize,
    consec: usize,
    prefix: usize,
    strict: bool,
    /// The next part of `current`; `consec` when a new sequence is due.
    index: usize,
    current: Record,
}

impl Consec {
    /// `strict` demands sequences of exactly the needed length; otherwise longer ones are cut.
    pub fn new(length: usize, consec: usize, prefix: usize, strict: bool) -> Self {
        let consec = consec.max(1);
        Consec { length, consec, prefix, strict, index: consec, current: Record::new() }
    }

    /// Steps that a sampled sequence must have.
    pub fn needed(&self) -> usize {
        self.length * self.consec + self.prefix
    }

    /// The next batch. `source` is called when a new sequence is due; `None` from it is passed on.
    pub fn next(&mut self, source: impl FnOnce() -> Option<Record>) -> Result<Option<Record>> {
        if self.index >= self.consec {
            let Some(current) = source() else { return Ok(None) };
            self.check(&current)?;
            (self.current, self.index) = (current, 0);
        }
        let start = self.index * self.length;
        let stop = start + self.prefix + self.length;
        let shape = self.current.values().next().map_or([0, 0], |x| [x.shape[0], stop - start]);
        let whole = self.consec == 1 && self.current.values().all(|x| x.shape[1] == stop);
        let mut batch = if whole {
            std::mem::take(&mut self.current)
        } else {
            self.current.iter().map(|(name, x)| (name.clone(), columns(x, start..stop))).collect()
        };
        let count = vec![self.index as i32; shape[0] * shape[1]];
        batch.insert("consec".into(), Array::from_i32(&shape, count));
        self.index += 1;
        if self.index >= self.consec {
            self.current = Record::new();
        }
        Ok(Some(batch))
    }

    fn check(&self, batch: &Record) -> Result<()> {
        ensure!(!batch.is_empty(), "a sampled batch has no keys");
        for (name, array) in batch {
            let steps = array.shape.get(1).copied().unwrap_or(0);
            let fits = if self.strict { steps == self.needed() } else { steps >= self.needed() };
            ensure!(
                fits,
                "key '{name}' has {steps} steps a sequence where {} * {} + {} are needed; \
                 make the replay's length consec * batch_length + replay_context",
                self.consec,
                self.length,
                self.prefix
            );
        }
        Ok(())
    }

    /// What is left of the current sequence, so that a resumed run goes on in its middle.
    pub fn save(&self) -> Result<Vec<u8>> {
        let header = Header { kind: "batch".into(), id: self.index as u64, length: self.needed(), ..Header::default() };
        let arrays: Vec<_> = self.current.iter().map(|(name, x)| (name.as_str(), x)).collect();
        let mut bytes = Vec::new();
        blockfile::encode(header, &arrays, &mut bytes)?;
        Ok(bytes)
    }

    /// Continues from what [`Consec::save`] returned.
    pub fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let (header, record) = blockfile::decode(bytes).context("the saved sequence is damaged")?;
        ensure!(header.kind == "batch", "the saved sequence is a {}, not a batch", header.kind);
        let index = header.id as usize;
        if index < self.consec {
            self.check(&record).context("the saved sequence does not fit the configuration")?;
        }
        (self.index, self.current) = (index, record);
        Ok(())
    }
}

/// Steps `range` of an array [B, steps, …], copied.
fn columns(array: &Array, range: std::ops::Range<usize>) -> Array {
    let (batch, steps) = (array.shape[0], array.shape[1]);
    let width: usize = array.shape[2..].iter().product();
    let mut out = Array::zeros(array.dtype(), &[0]);
    crate::chunk::reserve(&mut out.data, batch * range.len() * width);
    for row in 0..batch {
        let from = (row * steps + range.start) * width;
        crate::chunk::extend(&mut out.data, &array.data, from..from + range.len() * width);
    }
    out.shape = array.shape.clone();
    out.shape[1] = range.len();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sequences of 10 steps, whose values are 0.. and 100...
    fn source(steps: usize) -> Record {
        let values = [0, 100].iter().flat_map(|start| (0..steps as i32).map(move |t| start + t)).collect();
        Record::from([("t".into(), Array::from_i32(&[2, steps], values))])
    }

    #[test]
    fn parts_overlap_by_the_prefix_and_count_up() {
        let mut stream = Consec::new(3, 3, 1, true);
        for round in 0..2 {
            for part in 0..3 {
                let batch = stream.next(|| (part == 0).then(|| source(10))).unwrap().unwrap();
                let t = 3 * part;
                let want: Vec<i32> = [0, 100].iter().flat_map(|s| (t..t + 4).map(move |t| s + t)).collect();
                assert_eq!(batch["t"], Array::from_i32(&[2, 4], want), "round {round}");
                assert_eq!(batch["consec"], Array::from_i32(&[2, 4], vec![part; 8]));
                // A new process goes on where this one was.
                let saved = stream.save().unwrap();
                stream = Consec::new(3, 3, 1, true);
                stream.load(&saved).unwrap();
                assert!(stream.load(&saved[1..]).is_err());
            }
        }
        assert!(stream.next(|| None).unwrap().is_none());
    }

    #[test]
    fn wrong_lengths_are_refused_or_cut() {
        let error = Consec::new(3, 3, 1, true).next(|| Some(source(11))).unwrap_err().to_string();
        assert!(error.contains("11 steps") && error.contains("3 * 3 + 1"), "{error}");
        assert!(Consec::new(3, 3, 1, false).next(|| Some(source(9))).is_err());
        let batch = Consec::new(3, 1, 1, false).next(|| Some(source(10))).unwrap().unwrap();
        assert_eq!(batch["t"].shape, [2, 4]);
        let batch = Consec::new(9, 1, 1, true).next(|| Some(source(10))).unwrap().unwrap();
        assert_eq!(batch["t"], source(10)["t"]);
    }
}
