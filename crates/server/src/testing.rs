//! What tests share.

use std::path::{Path, PathBuf};

/// A directory that goes when it is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        let name: [u8; 8] = crate::proof::random().unwrap();
        let path = std::env::temp_dir().join(format!("annulet-{:x}", u64::from_le_bytes(name)));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
