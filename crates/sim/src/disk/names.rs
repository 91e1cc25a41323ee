//! A change of names, which waits for its directory's sync as a write waits for its file's.

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
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}
