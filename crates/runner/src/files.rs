//! Files that appear as a whole or not at all, whatever crashes and wherever the power fails.

use anyhow::{Result, bail};
pub use replay::files::{sync_dir, sync_name};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Replaces a file as a whole: written beside, brought to the disk, renamed.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replay::files::replace(path, |file| file.write_all(bytes))?;
    sync_name(path);
    Ok(())
}

/// Makes a folder, unless it is there, but not the one that holds it: where a run folder was moved away, a part of it would
/// appear anew.
pub fn make_dir(path: &Path) -> Result<()> {
    let made = std::fs::create_dir(path);
    match made.map_err(|error| error.kind()) {
        Ok(()) | Err(ErrorKind::AlreadyExists) => Ok(()),
        Err(ErrorKind::NotFound) => {
            let holder = path.parent().unwrap_or(path).display();
            bail!("the folder {holder} is gone; was it moved or removed during the run?")
        }
        Err(kind) => bail!("cannot make the folder {}: {kind}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
