//! Files that appear as a whole or not at all, whatever crashes and wherever the power fails.

use anyhow::Result;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Writes a file beside `path`, brings it to the disk and renames it to `path`: whoever reads
/// `path` finds the old content or the new one, whole.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    replace_by(path, |beside| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(beside)?);
        write(&mut file)?;
        Ok(file.flush()?)
    })
}

/// The same where `write` makes the file at the path beside that it is given.
pub fn replace_by(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let beside = PathBuf::from(name);
    let attempt = || {
        write(&beside)?;
        File::open(&beside)?.sync_all()?;
        Ok(fs::rename(&beside, path)?)
    };
    attempt()
        .inspect_err(|_: &anyhow::Error| drop(fs::remove_file(&beside))) // else the next attempt overwrites it
        .map_err(|error| {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            let cure = match kind {
                Some(ErrorKind::NotFound) => "its folder does not exist",
                _ => "free some space or make it writable",
            };
            error.context(format!("cannot write {}; {cure}", path.display()))
        })
}

/// Brings renames within `dir` to the disk, where the system can.
pub fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        // Some file systems refuse this; the files themselves are on the disk already.
        let _ = dir.sync_all();
    }
}

/// Brings the name of a file or folder to the disk, where the system can.
pub fn sync_name(path: &Path) {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(folder) => sync_dir(folder),
        None => {}
    }
}
