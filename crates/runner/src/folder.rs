//! The run folder: where things lie in it, and the lock that keeps a second process out.

use anyhow::{Context, Result, bail};
use config::Config;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A run folder that this process holds. The operating system lets go of the lock when the
/// process ends, however it ends, so a stale lock cannot keep anyone out.
pub struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// The run folder of a configuration, whose `logdir` becomes its path. Where that holds `{timestamp}`, the folder is
    /// a new one, however many runs begin within the same second.
    pub fn of(config: &mut Config) -> Result<Self> {
        let fresh = config.logdir.contains("{timestamp}");
        config.expand_timestamp();
        let first = config.logdir.clone();
        for again in 2.. {
            let path = Path::new(&config.logdir);
            let parent = path.parent().filter(|_| fresh).map_or(Ok(()), fs::create_dir_all);
            match parent.and_then(|()| fs::create_dir(path)) {
                Err(error) if fresh && error.kind() == ErrorKind::AlreadyExists => {
                    config.logdir = format!("{first}-{again}");
                }
                _ => break, // `open` makes a folder with a fixed name, too, and says what is wrong
            }
        }
        Self::open(Path::new(&config.logdir))
    }

    /// Creates the folder where it is missing, and locks it.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot create the run folder {}", root.display()))?;
        let path = root.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot write to the run folder {}", root.display()))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid).ok();
                bail!(
                    "the run folder {} is in use by process {}; stop it or choose another --logdir",
                    root.display(),
                    pid.trim()
                );
            }
            // Some network file systems know no locks: go on without.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut own =
            || lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        own().with_context(|| format!("cannot write to the run folder {}", root.display()))?;
        Ok(Folder { root: root.to_path_buf(), _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes the folder if nothing but the lock is in it: what could not begin leaves no trace.
    pub fn leave(&self) {
        let names = |dir| fs::read_dir(dir).map(|all| all.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>());
        for name in ["replay", "eval_replay"] {
            fs::remove_dir(self.path(name)).ok(); // which it does to an empty one only
        }
        if names(&self.root).is_ok_and(|names| names == ["lock"]) {
            fs::remove_dir_all(&self.root).ok();
        }
    }

    /// A file or folder inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_pid_and_a_stale_lock_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("new/run");
        let first = Folder::open(&root).unwrap();
        let error = Folder::open(&root).err().unwrap().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        fs::write(root.join("lock"), "999999999\n").unwrap();
        let second = Folder::open(&root).unwrap();
        let text = fs::read_to_string(second.path("lock")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
    }

    #[test]
    fn an_impossible_folder_is_a_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::open(&file.path().join("run")).err().unwrap().to_string();
        assert!(error.contains("cannot create the run folder"), "{error}");
    }
}
