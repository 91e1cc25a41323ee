//! A change of names, of files and of directories with what is in them, which waits for its directory's sync as a write waits for its
//! file's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub(super) enum Change {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    pub(super) fn touches(&self, directory: &Path) -> bool {
        match self {
            Change::Create(path, _) | Change::Remove(path) => path.parent() == Some(directory),
            Change::Rename(from, to) => from.parent() == Some(directory) || to.parent() == Some(directory),
        }
    }

    pub(super) fn make(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Change::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            Change::Remove(path) => {
                names.remove(path);
            }
            Change::Rename(from, to) => {
                let moved: Vec<PathBuf> =
                    names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    if let (Some(file), Some(path)) = (names.remove(&path), below(&path, from, to)) {
                        names.insert(path, file);
                    }
                }
            }
        }
    }

    /// What it is once a directory has another name.
    pub(super) fn moved(self, from: &Path, to: &Path) -> Change {
        let moved = |path: PathBuf| below(&path, from, to).unwrap_or(path);
        match self {
            Change::Create(path, file) => Change::Create(moved(path), file),
            Change::Rename(old, new) => Change::Rename(moved(old), moved(new)),
            Change::Remove(path) => Change::Remove(moved(path)),
        }
    }
}

/// The path of something in or below `from`, which is called `to` now. `from` itself is, too.
fn below(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(from).ok()?;
    Some(if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) })
}
