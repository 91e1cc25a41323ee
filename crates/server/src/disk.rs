//! The real disk: `std::fs`, with the syncs that POSIX asks for.
//!
//! Nothing is cached and nothing is tried again: an error goes to the caller, who alone knows what it means.
//! `EINTR` is the exception, since nothing was done then.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use storage::Disk;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    /// Also syncs the directories above the new ones, so that the whole path is durable.
    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            result => result?,
        }
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        // The length belongs to the data: fdatasync writes it where it has changed.
        file.sync_data()
    }

    fn write_back(&self, file: &File, from: u64, bytes: u64) {
        let (Ok(from), Ok(bytes)) = (from.try_into(), bytes.try_into()) else { return };
        // SAFETY: no memory is passed. Where it is refused, the sync does it all.
        unsafe { libc::sync_file_range(file.as_raw_fd(), from, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn truncate(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        if bytes == 0 {
            return Ok(());
        }
        loop {
            match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
                Err(Errno::INTR) => {}
                // Not every file system can.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                result => return Ok(result?),
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free(&self, directory: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(directory)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::shard_log::Opened;
    use storage::{Journal, ShardLog, ShardLogError, ShardLogOptions};

    #[test]
    fn a_journal_on_the_real_disk_reads_back() {
        let directory =
            std::env::temp_dir().join(format!("annulet-disk-{}", std::process::id())).join("a").join("b");
        RealDisk.create_dir_all(&directory).unwrap();
        RealDisk.create_dir_all(&directory).unwrap();
        let path = directory.join("journal");
        let (mut journal, frames) = Journal::open(RealDisk, &path).unwrap();
        assert!(frames.is_empty());
        journal.append(b"one").unwrap();
        journal.append(b"two").unwrap();
        journal.sync().unwrap();
        assert_eq!(Journal::open(RealDisk, &path).unwrap().1, [b"one".to_vec(), b"two".to_vec()]);
        journal.rewrite(&[b"three"]).unwrap();
        journal.append(b"four").unwrap();
        journal.sync().unwrap();
        assert_eq!(RealDisk.list(&directory).unwrap(), ["journal"]);
        assert_eq!(Journal::open(RealDisk, &path).unwrap().1, [b"three".to_vec(), b"four".to_vec()]);
        let file = RealDisk.open(&path).unwrap();
        assert_eq!(RealDisk.append(&file, b"torn").unwrap(), journal.bytes());
        assert_eq!(Journal::open(RealDisk, &path).unwrap().1.len(), 2);
        assert_eq!(RealDisk.len(&file).unwrap(), journal.bytes());
        let beyond = RealDisk.read(&file, journal.bytes(), &mut [0]).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        RealDisk.remove(&path).unwrap();
        fs::remove_dir_all(directory.ancestors().nth(2).unwrap()).unwrap();
    }

    #[test]
    fn a_shards_log_on_the_real_disk_reads_back() {
        let directory = std::env::temp_dir().join(format!("annulet-shard-log-{}", std::process::id()));
        let options = ShardLogOptions { segment_bytes: 1 << 20 };
        let open = |identity: u8, from: u64| {
            let mut batches = Vec::new();
            let mut keep = |offset: u64, payload: bytes::Bytes| batches.push((offset, payload.len()));
            ShardLog::open(RealDisk, &directory, [identity; 32], options, from, &mut keep)
                .map(|opened| (opened, batches))
        };
        let (Opened { mut log, .. }, _) = open(1, 0).unwrap();
        for bytes in [600 << 10, 600 << 10, 3 << 20, 10] {
            log.append(&vec![7; bytes]).unwrap();
        }
        assert_eq!(log.sync().unwrap(), log.end());
        let segments = log.segments().to_vec();
        assert_eq!(segments.len(), 4);
        let lengths = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        assert_eq!(lengths.sum::<u64>(), log.bytes_on_disk());
        let end = log.end();
        drop(log);

        // A torn tail, over which the next batch goes.
        let last = directory.join(format!("log-{:016x}", segments[3].first));
        let file = RealDisk.open(&last).unwrap();
        assert_eq!(RealDisk.append(&file, &[1; 100]).unwrap(), segments[3].bytes);
        let (Opened { mut log, torn }, batches) = open(1, 0).unwrap();
        assert_eq!(
            batches.iter().map(|batch| batch.1).collect::<Vec<_>>(),
            [600 << 10, 600 << 10, 3 << 20, 10]
        );
        assert!(torn.is_some_and(|torn| torn.path == last && torn.bytes == 100));
        assert_eq!(RealDisk.len(&file).unwrap(), segments[3].bytes);
        log.append(b"more").unwrap();
        log.sync().unwrap();
        let removal = log.removal(segments[2].first).unwrap();
        log.forget(Ok(removal.count())).unwrap();
        assert_eq!(removal.run().unwrap().len(), 2);
        drop(log);
        let (Opened { log, torn }, batches) = open(1, end).unwrap();
        assert_eq!((batches, torn), (vec![(end, 4)], None));
        drop(log);
        assert!(matches!(open(2, end), Err(ShardLogError::OtherIdentity { path }) if path == last));
        assert!(matches!(open(1, 0), Err(ShardLogError::Missing { from: 0, .. })));
        fs::remove_dir_all(&directory).unwrap();
    }

    /// Room is reserved without a longer file, and given back by a cut.
    #[test]
    fn reserving_leaves_the_length() {
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("annulet-allocate-{}", std::process::id()));
        let file = RealDisk.open(&path).unwrap();
        RealDisk.allocate(&file, 0).unwrap();
        RealDisk.allocate(&file, 1 << 20).unwrap();
        let reserved = file.metadata().unwrap().blocks() * 512;
        assert!(reserved == 0 || reserved >= 1 << 20, "{reserved}: where the file system can");
        RealDisk.allocate(&file, 1 << 10).unwrap();
        assert_eq!(RealDisk.len(&file).unwrap(), 0);
        RealDisk.write_at(&file, 0, b"x").unwrap();
        assert_eq!(RealDisk.len(&file).unwrap(), 1);
        let error = RealDisk.allocate(&file, i64::MAX as u64).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge), "{error}");
        fs::remove_file(&path).unwrap();
    }
}
