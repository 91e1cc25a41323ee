//! Files as the log and the journal see them.
//!
//! A trait, so that the simulator can lose, tear and refuse what the real disk would. The rules are POSIX's at
//! their strictest: what was written may be lost, in any part, until the file is synced; a new, renamed or
//! removed name may be lost until its directory is synced.
//!
//! Left out: locks, permissions, memory maps and direct I/O.

use std::io;
use std::path::Path;

/// Where files are kept.
pub trait Disk {
    /// An open file.
    type File;

    /// Makes a directory and those above it. Not an error where it exists.
    fn create_dir_all(&self, directory: &Path) -> io::Result<()>;

    /// The names in a directory, sorted, without `.` and `..`.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Opens a file to read and to write, and makes it, empty, where there is none.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// A file's length in bytes.
    fn len(&self, file: &Self::File) -> io::Result<u64>;

    /// Fills the whole buffer from `offset` on. `UnexpectedEof` where the file ends before.
    fn read(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all bytes from `offset` on, and lengthens the file where they reach past its end. After an error
    /// any part of them may have been written.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes all bytes at the end. Returns the offset at which they begin.
    fn append(&self, file: &Self::File, bytes: &[u8]) -> io::Result<u64> {
        let end = self.len(file)?;
        self.write_at(file, end, bytes)?;
        Ok(end)
    }

    /// Makes durable what was written to the file. An error is final: what had been written may be lost though
    /// a later call succeeds.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Begins to bring to the disk what was written to a stretch of the file, and waits for nothing: a sync some time later has less to
    /// wait for. It makes nothing durable, and only a sync tells of errors. Does nothing where the system has no such thing.
    fn write_back(&self, _file: &Self::File, _from: u64, _bytes: u64) {}

    /// Cuts or lengthens a file to `bytes`.
    fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Reserves room for the file's first `bytes` bytes, so that writing them cannot meet a full disk. The file's
    /// length stays as it is; cutting the file gives back what was reserved beyond. Does nothing where the file
    /// system cannot reserve.
    fn allocate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Renames a file, in one step, over what had the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// How many bytes more fit on the disk that a directory is on; `u64::MAX` where that is not known.
    fn free(&self, _directory: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Makes durable which names a directory has.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
}

/// What the system says where a disk cannot read what it holds (`EIO`).
const CANNOT_READ: i32 = 5;
/// In such steps of a file the place is looked for that cannot be read: no disk loses less at once.
const STEP: u64 = 4096;

/// Why bytes of a file were not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// What is at this offset, in bytes from the file's start, is on the disk and cannot be read any more.
    Bad(u64),
    /// Anything else. It says nothing of the bytes.
    Io(io::Error),
}

/// As [`Disk::read`], and finds the place where the disk cannot read what it holds. What it can read after all, piece by piece, is read.
pub(crate) fn read_or_find_bad<D: Disk>(
    disk: &D,
    file: &D::File,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), Unread> {
    let is_bad = |error: &io::Error| error.raw_os_error() == Some(CANNOT_READ);
    match disk.read(file, offset, buffer) {
        Err(error) if is_bad(&error) => {}
        result => return result.map_err(Unread::Io),
    }
    let (mut at, mut rest) = (offset, buffer);
    while !rest.is_empty() {
        let bytes = rest.len().min((STEP - at % STEP) as usize);
        let (piece, behind) = rest.split_at_mut(bytes);
        match disk.read(file, at, piece) {
            Err(error) if is_bad(&error) => return Err(Unread::Bad(at)),
            result => result.map_err(Unread::Io)?,
        }
        (at, rest) = (at + bytes as u64, behind);
    }
    Ok(())
}
