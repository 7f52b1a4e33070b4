//! `Appender`: a file that grows by whole pieces. Pieces that cannot be written wait, and none stays half written.

use crate::files::sync_name;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Most bytes that wait while the file cannot be written; later pieces are dropped.
pub const WAITING: usize = 16 << 20;

/// A file open for appending, and what is to be appended.
pub struct Appender {
    pub path: PathBuf,
    file: File,
    waiting: Vec<u8>,
    /// After a failed write, the file's length before it.
    sound: Option<u64>,
}

impl Appender {
    /// Opens `path`, which is created where it is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let new = !path.exists();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {} for appending", path.display()))?;
        if new {
            sync_name(path);
        }
        Ok(Appender { path: path.to_path_buf(), file, waiting: vec![], sound: None })
    }

    /// Takes in a piece for the next [`Appender::flush`].
    pub fn add(&mut self, piece: &[u8]) {
        if self.sound.is_none() || self.waiting.len() + piece.len() <= WAITING {
            self.waiting.extend_from_slice(piece);
        }
    }

    /// Hands every piece to the system, all in one write. Where that fails, the file is as it was and the pieces wait.
    pub fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.append().with_context(|| format!("cannot write to {}; is the disk full?", self.path.display()))
    }

    fn append(&mut self) -> io::Result<()> {
        self.cut()?;
        let length = self.file.metadata()?.len();
        if let Err(error) = self.file.write_all(&self.waiting) {
            self.sound = Some(length);
            self.cut().ok(); // else it is cut before the next write
            return Err(error);
        }
        (self.waiting, self.sound) = (vec![], None);
        Ok(())
    }

    /// Cuts off what a failed write left.
    fn cut(&self) -> io::Result<()> {
        match self.sound {
            Some(length) if self.file.metadata()?.len() > length => self.file.set_len(length),
            _ => Ok(()),
        }
    }

    /// Brings what was written to the disk, where the system can.
    pub fn sync(&self) {
        self.file.sync_data().ok(); // some file systems refuse this, with nothing lost
    }

    /// Bytes of whole pieces in the file.
    pub fn length(&self) -> u64 {
        self.sound.unwrap_or_else(|| self.path.metadata().map_or(0, |file| file.len()))
    }

    /// Has every write fail, as on a full disk, or no longer.
    #[cfg(test)]
    pub fn obstruct(&mut self, on: bool) {
        let open = if on { File::open(&self.path) } else { OpenOptions::new().append(true).open(&self.path) };
        self.file = open.unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_cannot_be_written_waits_and_half_a_piece_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pieces");
        let mut pieces = Appender::open(&path).unwrap();
        pieces.add(b"one\n");
        pieces.flush().unwrap();
        pieces.obstruct(true);
        for piece in [b"two\n", b"six\n"] {
            pieces.add(piece);
            let error = pieces.flush().unwrap_err().to_string();
            assert!(error.contains("pieces; is the disk full?"), "{error}");
        }
        fs::write(&path, "one\ntw").unwrap(); // what a disk that is full in the middle of a write leaves
        assert_eq!(pieces.length(), 4);
        pieces.obstruct(false);
        pieces.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nsix\n");
        assert_eq!(pieces.length(), 12);
    }

    #[test]
    fn so_much_waits_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut pieces = Appender::open(&dir.path().join("pieces")).unwrap();
        pieces.obstruct(true);
        pieces.add(&vec![b'a'; WAITING - 1]);
        assert!(pieces.flush().is_err());
        pieces.add(b"bc");
        pieces.add(b"d");
        pieces.obstruct(false);
        pieces.flush().unwrap();
        assert!(fs::read(&pieces.path).unwrap().ends_with(b"aad"));
    }
}
