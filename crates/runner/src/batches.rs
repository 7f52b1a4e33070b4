//! Batches for training and reports: drawn when asked for, or one ahead by a prefetch thread.

use anyhow::{Context, Result, anyhow};
use config::Config;
use dreamer_agent::{Prepared, Preparer};
use replay::{Consec, Mode, Replay};
use spaces::{Array, Data, Record};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most batches that the prefetch thread holds ready, besides the one it is preparing.
const AHEAD: usize = 1;

/// A replay shared between adding steps and drawing batches.
pub type Shared = Arc<Mutex<Replay>>;

/// The replay behind the lock. A thread that panicked while it held it has ended the run anyway.
pub fn lock(replay: &Shared) -> MutexGuard<'_, Replay> {
    replay.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An endless sequence of batches [B, K+T, ...].
pub enum Batches {
    Direct(Source),
    /// Becomes `Prefetch` at the first batch, when the replay has enough.
    Waiting(Source),
    Prefetch(Receiver<Result<Prepared>>),
    Ended,
}

/// Draws sequences and cuts them into consecutive batches.
pub struct Source {
    replay: Shared,
    mode: Mode,
    batch_size: usize,
    consec: Consec,
    /// Whether a sequence gives more than one batch, so that one may be half used.
    several: bool,
}

impl Batches {
    /// Batches of training are prepared ahead, unless the run is synchronous.
    pub fn new(config: &Config, replay: Shared, mode: Mode) -> Self {
        let (length, consec) = match mode {
            Mode::Train => (config.batch_length, config.consec_train),
            _ => (config.report_length, config.consec_report),
        };
        let source = Source {
            replay,
            mode,
            batch_size: config.batch_size,
            consec: Consec::new(length, consec, config.replay_context, mode == Mode::Train),
            several: consec > 1,
        };
        if mode == Mode::Train && !config.run.sync { Batches::Waiting(source) } else { Batches::Direct(source) }
    }

    /// The next batch, prepared by `preparer`.
    pub fn prepared(&mut self, preparer: &Preparer) -> Result<Prepared> {
        if matches!(self, Batches::Waiting(_))
            && let Batches::Waiting(source) = std::mem::replace(self, Batches::Ended)
        {
            *self = Batches::Prefetch(source.prefetch(preparer.clone())?);
        }
        match self {
            Batches::Direct(source) => preparer.prepare(source.next()?),
            Batches::Prefetch(ready) => ready.recv().map_err(|_| anyhow!("the prefetch thread ended"))?,
            Batches::Waiting(_) | Batches::Ended => Err(anyhow!("the prefetch thread could not be started")),
        }
    }

    /// The next batch of those that are not prepared ahead.
    pub fn next(&mut self) -> Result<Record> {
        match self {
            Batches::Direct(source) => source.next(),
            _ => Err(anyhow!("these batches are prepared ahead")),
        }
    }

    /// What is left of a sequence that gives several batches; empty where nothing is.
    /// Batches that were prepared ahead are not saved: the resumed run draws others.
    pub fn save(&self) -> Result<Record> {
        match self {
            Batches::Direct(source) | Batches::Waiting(source) if source.several => {
                let bytes = source.consec.save()?;
                Ok(Record::from([("consec".to_string(), Array::from_u8(&[bytes.len()], bytes))]))
            }
            _ => Ok(Record::new()),
        }
    }

    pub fn load(&mut self, state: &Record) -> Result<()> {
        let saved = state.get("consec").map(|array| &array.data);
        if let (Batches::Direct(source) | Batches::Waiting(source), Some(Data::U8(bytes))) = (self, saved) {
            source.consec.load(bytes)?;
        }
        Ok(())
    }
}

impl Source {
    fn next(&mut self) -> Result<Record> {
        let Source { replay, mode, batch_size, consec, .. } = self;
        consec.next(|| lock(replay).sample(*batch_size, *mode))?.context("the replay holds no sequence yet")
    }

    /// Starts the thread; it ends when nobody receives any more.
    fn prefetch(mut self, preparer: Preparer) -> Result<Receiver<Result<Prepared>>> {
        let (send, ready) = sync_channel(AHEAD);
        let work = move || while send.send(self.next().and_then(|record| preparer.prepare(record))).is_ok() {};
        std::thread::Builder::new().name("prefetch".into()).spawn(work).context("cannot start the prefetch thread")?;
        Ok(ready)
    }
}
