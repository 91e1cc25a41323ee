//! The real disk, for who only looks: every call that would change something fails, and no file is made or opened to be written.
//! So a data directory can be looked at that this user may only read.

use crate::disk::RealDisk;
use std::fs::File;
use std::io;
use std::path::Path;
use storage::Disk;

/// The file system of this machine, as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it is only looked at"))
}

impl Disk for ReadOnlyDisk {
    type File = File;

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        RealDisk.len(file)
    }

    fn read(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        RealDisk.read(file, offset, buffer)
    }

    fn write_at(&self, _: &File, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        refused()
    }

    fn truncate(&self, _: &File, _: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _: &File, _: u64) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn it_reads_and_changes_nothing() {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        assert_eq!(ReadOnlyDisk.open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "text").unwrap();
        let file = ReadOnlyDisk.open(&path).unwrap();
        let mut read = [0; 4];
        ReadOnlyDisk.read(&file, 0, &mut read).unwrap();
        assert_eq!((&read, ReadOnlyDisk.len(&file).unwrap()), (b"text", 4));
        ReadOnlyDisk.write_at(&file, 0, b"x").unwrap_err();
        ReadOnlyDisk.truncate(&file, 0).unwrap_err();
        ReadOnlyDisk.allocate(&file, 9).unwrap_err();
        ReadOnlyDisk.sync(&file).unwrap_err();
        ReadOnlyDisk.rename(&path, &dir.path().join("other")).unwrap_err();
        ReadOnlyDisk.remove(&path).unwrap_err();
        ReadOnlyDisk.create_dir_all(&dir.path().join("directory")).unwrap_err();
        ReadOnlyDisk.sync_dir(dir.path()).unwrap_err();
        assert_eq!(RealDisk.list(dir.path()).unwrap(), ["file"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
    }
}
