//! The run folder: where things lie in it, and the lock that keeps a second process out.

use crate::log::LINES;
use anyhow::{Context, Result, bail};
use config::Config;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A run folder locked by this process. The operating system releases the lock when the process ends, however it ends,
/// so a stale lock cannot keep anyone out.
pub struct Folder {
    root: PathBuf,
    /// Whether opening it created the folder.
    made: bool,
    /// Whether it created the lock file.
    is_new: bool,
    _lock: File,
}

impl Folder {
    /// The run folder of a configuration, whose `logdir` becomes its path. Where that holds `{timestamp}`, the folder is
    /// a new one, however many runs begin within the same second.
    pub fn of(config: &mut Config) -> Result<Self> {
        let fresh = config.logdir.contains("{timestamp}");
        config.expand_timestamp();
        if fresh {
            config.logdir = claim(config.logdir.trim_end_matches('/'));
        }
        let mut folder = Self::open(Path::new(&config.logdir))?;
        folder.made |= fresh; // by `claim`
        Ok(folder)
    }

    /// Creates the folder where it is missing, and locks it.
    pub fn open(root: &Path) -> Result<Self> {
        let made = !root.exists();
        fs::create_dir_all(root).with_context(|| format!("cannot create the run folder {}", root.display()))?;
        let path = root.join("lock");
        let is_new = !path.exists();
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
        Ok(Folder { root: root.to_path_buf(), made, is_new, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Refuses to begin over the remains of another run, or over a `config.yaml` that no run wrote.
    pub fn refuse_remains(&self) -> Result<()> {
        let root = self.root.display();
        let lines = LINES.into_iter().find(|name| self.path(name).metadata().is_ok_and(|file| file.len() > 0));
        let is_chunk = |entry: fs::DirEntry| entry.path().extension().is_some_and(|end| end == "chunk");
        let replay = fs::read_dir(self.path("replay")).is_ok_and(|all| all.flatten().any(is_chunk));
        if let Some(name) = lines.or(replay.then_some("replay")) {
            bail!(
                "the folder {root} holds parts of another run ({name}) and no checkpoint to go on from; choose another \
                 --logdir, or move it away"
            );
        }
        // A start that failed may have left the `config.yaml` of a run, which has all these keys.
        let ours = |text: &str| ["\nlogdir:", "\nreplay:", "\nagent:"].iter().all(|key| text.contains(key));
        match fs::read(self.path("config.yaml")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Ok(text) if ours(&String::from_utf8_lossy(&text)) => Ok(()),
            Ok(_) => bail!(
                "the file config.yaml in {root} is of no run, and one would write its own there: rename it, or choose \
                 another --logdir"
            ),
            Err(error) => Err(error).with_context(|| format!("config.yaml in {root} cannot be read")),
        }
    }

    /// Removes what opening the folder made, and empty folders: what could not begin leaves no trace.
    pub fn leave(&self) {
        if self.is_new {
            fs::remove_file(self.path("lock")).ok();
        }
        for name in ["replay", "eval_replay"] {
            fs::remove_dir(self.path(name)).ok(); // which it does to an empty one only
        }
        if self.made {
            fs::remove_dir(&self.root).ok();
        }
    }

    /// A file or folder inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Makes a new folder, with a number behind its name where that is taken. Where none can be made, `Folder::open` says why.
fn claim(name: &str) -> String {
    Path::new(name).parent().map_or(Ok(()), fs::create_dir_all).ok();
    let names = (2..).map(|again| format!("{name}-{again}"));
    let taken = |name: &String| fs::create_dir(name).is_err_and(|error| error.kind() == ErrorKind::AlreadyExists);
    std::iter::once(name.to_string()).chain(names).find(|name| !taken(name)).expect("numbers do not end")
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
    fn what_was_there_before_is_left_there() {
        let dir = tempfile::tempdir().unwrap();
        Folder::open(dir.path()).unwrap().leave();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let root = dir.path().join("run");
        Folder::open(&root).unwrap().leave();
        assert!(!root.exists());
    }

    #[test]
    fn an_impossible_folder_is_a_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::open(&file.path().join("run")).err().unwrap().to_string();
        assert!(error.contains("cannot create the run folder"), "{error}");
    }
}
