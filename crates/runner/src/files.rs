//! Files that appear as a whole or not at all, whatever crashes and wherever the power fails.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Replaces a file as a whole: written beside, brought to the disk, renamed.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    sync_name(path);
    Ok(())
}

/// Brings the name of a file or folder to the disk, where the system can.
pub fn sync_name(path: &Path) {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return,
    };
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().ok(); // some file systems refuse this; what is in the file is on the disk already
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("config.yaml"), dir.path().join("config.yaml.tmp"));
        replace_file(&path, b"old").unwrap();
        fs::create_dir(&beside).unwrap(); // in the way
        let error = replace_file(&path, b"new").unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("config.yaml"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::remove_dir(&beside).unwrap();
        replace_file(&path, b"new").unwrap();
        assert!(fs::read(&path).unwrap() == b"new" && !beside.exists());
    }
}
