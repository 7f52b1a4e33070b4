//! Finds the folders of a Python's packages, whose files are of use without Python.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Prints a package's folders without importing it, which may take seconds.
const WHERE: &str = "import importlib.util, sys
spec = importlib.util.find_spec(sys.argv[1])
print(*(spec and spec.submodule_search_locations or []), sep='\\n')";

/// The folder `within` a package of the interpreter `python`, which is asked once; none where there is none.
pub fn folder(python: &str, package: &str, within: &str) -> Option<PathBuf> {
    static FOUND: Mutex<BTreeMap<[String; 2], Vec<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let folders = found.entry([python.into(), package.into()]).or_insert_with(|| ask(python, package));
    folders.iter().map(|folder| folder.join(within)).find(|folder| folder.is_dir())
}

fn ask(python: &str, package: &str) -> Vec<PathBuf> {
    let mut command = Command::new(python);
    command.args(["-c", WHERE, package]).stdin(Stdio::null()).stderr(Stdio::null());
    let text = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_none() {
        assert_eq!(folder("no-such-python", "json", ""), None);
        if let Some(python) = ["python3", "python"].into_iter().find(|name| Command::new(name).output().is_ok()) {
            assert!(folder(python, "json", "").unwrap().join("decoder.py").is_file());
            assert_eq!(folder(python, "json", "no_such_folder"), None);
            assert_eq!(folder(python, "no_such_package", ""), None);
        }
    }
}
