//! The log on disk of one shard: all that its partitions' copies have to remember, in the order of its thread.
//!
//! A directory of segment files, each named by the logical offset of its first batch. Logical offsets count the
//! bytes of batches, headers included, from 0 on and over all segments, so that a missing segment is noticed. A
//! batch is what came together: a payload (a run of [entries](crate::log_entry)) behind a header. It is written
//! once, at the end, and never changed. [`format`](self::format) has the bytes, `recovery` reads them back, and
//! [`LogLook`] reads them where nothing may be changed.
//!
//! What [`ShardLog::sync`] returned is durable: it is there after every crash. What came after may be there, up
//! to some batch, or not; once [`ShardLog::open`] has told of it, it stays, and what it has cut off never comes
//! back. Each batch says how much of the log was durable when it was written, and a segment's name says that
//! all before it was. So bad bytes that nothing vouches for are a torn tail, which was never promised to
//! anybody; others are rot, and an error.
//!
//! A failed sync is final: nobody knows what is on the disk then. So is every other error of the writer but two:
//! [`ShardLogError::Full`] and [`ShardLogError::TooLarge`], which leave the log as it was. Room for a whole
//! segment is reserved when it is made, so that a full disk shows there, and [`ShardLog::reserve`] shows it
//! before anything is ordered.
//!
//! Who syncs seldom has the syncs, and the making of segments, done by another thread while he appends: [`errand`](self::errand).
//!
//! Left out: what the entries mean, threads, and locks. One log has one process. Rot in what was synced last,
//! with nothing written since, looks like a torn tail, but where the log's end was noted when its writer stopped
//! ([`ShardLog::open_ended`]).

mod errand;
mod format;
mod look;
mod recovery;

use crate::disk::{Disk, Unread, read_or_find_bad};
use crate::lent::is_huge;
use crate::rope::Rope;
use bytes::Bytes;
use errand::Beside;
pub use errand::{Done, Errand, Removal};
pub use format::BATCH_HEADER_BYTES;
use format::{BatchHeader, NEXT_NAME, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, segment_name};
pub use look::{LogLook, SegmentLook, identity_in};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use types::planted::{self, Bug};

/// The largest payload of a batch, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// A page of the system's.
const PAGE: u64 = 4096;
/// By such a part of its size a segment grows beyond it, where the next one is not yet there.
const GROWTHS: u64 = 16;
/// A buffer that one large batch made longer than this is given back.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Why a shard's log could not be read or written.
#[derive(Debug, Error)]
pub enum ShardLogError {
    /// The disk refused. Final: where the log was open, it is of no more use.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk has no room, or the user's quota is used up. Nothing has changed: what was to be appended is not
    /// in the log, nor will it be after a crash, and may be tried again.
    #[error(
        "{action} {path}: no room is left on the disk. Free some, or give the file system more: writing goes on by \
         itself",
        path = path.display()
    )]
    Full {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// Bytes that were durable have changed, or the disk cannot read them any more.
    #[error(
        "{path} is damaged at byte {offset}: it was written and synced, and no longer reads back. The disk may be \
         failing. Do not edit the file",
        path = path.display()
    )]
    Rot {
        /// The file.
        path: PathBuf,
        /// Where the damage begins, in bytes from the file's start.
        offset: u64,
    },
    /// A part of the log is not there.
    #[error(
        "{directory} lacks the log's bytes from {from} to {to}: a file that starts with log- is gone, or was cut. \
         Put it back if it was moved; otherwise move that directory aside, and the node fetches its copies anew from others, where they have some",
        directory = directory.display()
    )]
    Missing {
        /// The log's directory.
        directory: PathBuf,
        /// The logical offset of the first byte that is missing.
        from: u64,
        /// The logical offset after the last one.
        to: u64,
    },
    /// The file is of a format version that this program does not know.
    #[error(
        "{path} has format version {found}, and this program reads {VERSION}: start the program that wrote it",
        path = path.display()
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: u32,
    },
    /// The file is of another log.
    #[error(
        "{path} belongs to another cluster, another node or another shard: somebody has copied or moved it. \
         Start with the data directory of this node, or with an empty one",
        path = path.display()
    )]
    OtherIdentity {
        /// The file.
        path: PathBuf,
    },
    /// A payload larger than [`PAYLOAD_BYTES_MAX`]. Nothing has changed.
    #[error("a batch of {bytes} bytes is too large for {path}", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The payload's size, in bytes.
        bytes: usize,
    },
    /// An earlier failure was final.
    #[error("{path} failed before, and nobody knows what of it is on disk: the process has to stop", path = path.display())]
    Failed {
        /// The log's directory.
        path: PathBuf,
    },
}

impl ShardLogError {
    /// Whether the log is of no more use, and its process has to stop.
    pub fn is_final(&self) -> bool {
        !matches!(self, ShardLogError::Full { .. } | ShardLogError::TooLarge { .. })
    }

    /// What the disk's error means.
    fn of(source: io::Error, action: &'static str, path: &Path) -> ShardLogError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ShardLogError::Full { action, path },
            _ => ShardLogError::Io { action, path, source },
        }
    }
}

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct ShardLogOptions {
    /// How large a segment grows, in bytes. A batch larger than that gets one to itself.
    pub segment_bytes: u64,
}

impl Default for ShardLogOptions {
    fn default() -> ShardLogOptions {
        ShardLogOptions { segment_bytes: 64 << 20 }
    }
}

/// What a log has room for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// In the current segment.
    pub reserved: u64,
    /// On the disk, beyond that and one segment more; `u64::MAX` where that is not known.
    pub beyond: u64,
}

/// A file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The logical offset of its first batch.
    pub first: u64,
    /// How long the file is, in bytes.
    pub bytes: u64,
}

impl Segment {
    /// The logical offset after its last batch.
    pub fn end(&self) -> u64 {
        self.first + self.bytes.saturating_sub(SEGMENT_HEADER_BYTES as u64)
    }
}

/// What was cut off the end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// Where it was cut, in bytes from its start.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
}

/// An opened log.
pub struct Opened<D: Disk> {
    /// Its writer.
    pub log: ShardLog<D>,
    /// What a crash had left torn. It was never promised to anybody.
    pub torn: Option<Torn>,
}

/// The writer of a log.
pub struct ShardLog<D: Disk> {
    disk: D,
    directory: PathBuf,
    identity: [u8; 32],
    /// The checksum of the identity.
    seed: u32,
    options: ShardLogOptions,
    /// All files, oldest first. The last one is written to.
    segments: Vec<Segment>,
    file: Arc<D::File>,
    /// For how many bytes the last file has room, as far as is known.
    allocated: u64,
    durable: u64,
    /// How much of the last file is on its way to the disk, in bytes.
    written_back: u64,
    beside: Beside<D::File>,
    failed: bool,
    buffer: Vec<u8>,
}

impl<D: Disk + Clone> ShardLog<D> {
    /// Opens the log in `directory`, or makes it, and gives `on_batch` the logical offset and the payload of every
    /// batch that ends above `from`, in order. All of these are durable on return. The directories above have to
    /// exist, or are made.
    ///
    /// `identity` says whose log it is: of which cluster, node and shard. It should contain something that clients
    /// cannot know. `from` is an offset that an append or a sync returned, or 0; the caller vouches that all before
    /// it was durable. Segments that end at or before it are not read.
    ///
    /// The payloads of a segment share one buffer, which lives as long as any of them: copy what is kept.
    ///
    /// On an error the files are as they were, unless it was the disk that refused.
    pub fn open(
        disk: D,
        directory: &Path,
        identity: [u8; 32],
        options: ShardLogOptions,
        from: u64,
        on_batch: &mut dyn FnMut(u64, Bytes),
    ) -> Result<Opened<D>, ShardLogError> {
        ShardLog::open_ended(disk, directory, identity, options, from, 0, on_batch)
    }

    /// The same, of a log that is known to have reached as far as the logical offset `end`, durably, when its writer stopped: where it
    /// ends before, that is damage. 0: nobody knows.
    pub fn open_ended(
        disk: D,
        directory: &Path,
        identity: [u8; 32],
        options: ShardLogOptions,
        from: u64,
        end: u64,
        on_batch: &mut dyn FnMut(u64, Bytes),
    ) -> Result<Opened<D>, ShardLogError> {
        recovery::open(disk, directory, identity, options, from, end, on_batch)
    }

    /// Writes one batch at the end. Returns the logical offset after it. It counts only once a [`ShardLog::sync`]
    /// has returned as much.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, ShardLogError> {
        self.append_parts(std::iter::once(payload), payload.len())
    }

    /// The same, of a payload of which huge stretches are shared: these are written from where they lie, each by itself.
    pub fn append_rope(&mut self, payload: &Rope) -> Result<u64, ShardLogError> {
        self.append_parts(payload.parts(), payload.len())
    }

    fn append_parts<'p>(
        &mut self,
        parts: impl Iterator<Item = &'p [u8]> + Clone,
        bytes: usize,
    ) -> Result<u64, ShardLogError> {
        self.reserve(bytes)?;
        let header = BatchHeader {
            payload_checksum: parts.clone().fold(0, crc32c::crc32c_append),
            payload_bytes: bytes as u32,
            offset: self.end(),
            durable: self.durable,
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&header.encode(self.seed));
        let at = self.current().bytes;
        let end = self.write_parts(at, parts, &mut buffer);
        if buffer.capacity() <= BUFFER_BYTES_MAX {
            self.buffer = buffer;
        }
        match end {
            Ok(end) => {
                self.current_mut().bytes = end;
                Ok(self.end())
            }
            Err(error) => {
                let error = ShardLogError::of(error, "cannot write", &self.current_path());
                Err(self.take_back(at, error))
            }
        }
    }

    /// Writes what stands in `buffer` and then the parts, the small ones together. Returns where they end.
    fn write_parts<'p>(
        &mut self,
        mut at: u64,
        parts: impl Iterator<Item = &'p [u8]>,
        buffer: &mut Vec<u8>,
    ) -> io::Result<u64> {
        let mut write = |bytes: &[u8]| -> io::Result<()> {
            self.disk.write_at(&self.file, at, bytes)?;
            at += bytes.len() as u64;
            Ok(())
        };
        for part in parts {
            if is_huge(part.len()) {
                write(buffer)?;
                buffer.clear();
                write(part)?;
            } else {
                buffer.extend_from_slice(part);
            }
        }
        if !buffer.is_empty() {
            write(buffer)?;
        }
        Ok(at)
    }

    /// Makes room for a batch with a payload of so many bytes, in a new segment where the current one is full, so
    /// that appending it cannot meet a full disk where the file system can reserve room. An error is that of
    /// [`ShardLog::append`].
    pub fn reserve(&mut self, payload_bytes: usize) -> Result<(), ShardLogError> {
        self.check()?;
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(ShardLogError::TooLarge { path: self.current_path(), bytes: payload_bytes });
        }
        let batch_bytes = (BATCH_HEADER_BYTES + payload_bytes) as u64;
        let is_over = |log: &Self| {
            let current = log.current();
            current.end() > current.first && current.bytes + batch_bytes > log.options.segment_bytes
        };
        if is_over(self) {
            if self.has_spare() {
                self.go_over()?;
            } else if !self.beside.is_out {
                return self.rotate(SEGMENT_HEADER_BYTES as u64 + batch_bytes);
            }
        }
        let needed = self.current().bytes + batch_bytes;
        if needed > self.allocated {
            // Also where the file was opened or cut, which gives back what was reserved.
            let room = match is_over(self) {
                true => needed.next_multiple_of(self.options.segment_bytes.div_ceil(GROWTHS)),
                false => needed.max(self.options.segment_bytes),
            };
            if let Err(error) = self.disk.allocate(&self.file, room) {
                let error = ShardLogError::of(error, "cannot reserve room for", &self.current_path());
                return Err(self.fail_if_final(error));
            }
            self.allocated = room;
        }
        Ok(())
    }

    /// Makes all batches durable, and returns the logical offset up to which all is. A failure is final.
    ///
    /// # Panics
    ///
    /// Where an errand is out: whoever hands them out waits for it first.
    pub fn sync(&mut self) -> Result<u64, ShardLogError> {
        self.check()?;
        assert!(!self.beside.is_out, "an errand is out");
        self.settle()?;
        if self.durable < self.end() {
            self.sync_current()?;
        }
        Ok(self.durable)
    }

    /// What removes the segments that end at or before a logical offset, oldest first and never the last one. `None`: there are none.
    /// Opening needs a `from` at or after their end as soon as it runs; [`ShardLog::forget`] has to be told when it has.
    pub fn removal(&self, offset: u64) -> Option<Removal<D>> {
        // The last that has its name stays, since what follows is read behind it.
        let named = self.segments.len() - usize::from(self.beside.before.is_some());
        let count = self.segments[1..named].partition_point(|segment| segment.first <= offset);
        let paths: Vec<PathBuf> =
            self.segments[..count].iter().map(|segment| self.named_path(segment.first)).collect();
        (count > 0).then(|| Removal { disk: self.disk.clone(), directory: self.directory.clone(), paths })
    }

    /// So many of the oldest segments are gone, or a removal failed, which is final.
    pub fn forget(&mut self, count: Result<usize, ShardLogError>) -> Result<(), ShardLogError> {
        let count = count.inspect_err(|_| self.failed = true)?;
        self.segments.drain(..count);
        Ok(())
    }

    /// The logical offset after the last batch.
    pub fn end(&self) -> u64 {
        self.current().end()
    }

    /// The logical offset up to which all batches are durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// For how much there is room: for certain, as long as nobody else takes what the disk has.
    pub fn room(&self) -> Room {
        let current = self.current();
        let reserved = self.allocated.min(self.options.segment_bytes).saturating_sub(current.bytes);
        let beyond = match self.disk.free(&self.directory) {
            Ok(free) if free < u64::MAX => free.saturating_sub(self.options.segment_bytes),
            _ => u64::MAX,
        };
        Room { reserved, beyond }
    }

    /// How long all files are, in bytes. What is reserved for the last one is not counted.
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The files, oldest first. The last one is written to.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn begin_segment(&mut self, first: u64, room: u64) {
        self.allocated = room;
        self.written_back = 0;
        self.beside.no_room = false;
        self.segments.push(Segment { first, bytes: SEGMENT_HEADER_BYTES as u64 });
    }

    /// Ends the current segment and makes the next, with room for so many bytes at least. Where there is no room,
    /// all is as it was.
    fn rotate(&mut self, bytes: u64) -> Result<(), ShardLogError> {
        // A segment's name says that all before it is durable.
        self.settle()?;
        self.sync_current()?;
        let first = self.end();
        let path = self.named_path(first);
        let room = bytes.max(self.options.segment_bytes);
        let mut file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(error) => return Err(self.fail_if_final(ShardLogError::of(error, "cannot make", &path))),
        };
        if let Err(error) = fill_new(&self.disk, &mut file, &path, &self.identity, first, room) {
            drop(file);
            if !error.is_final() {
                // Otherwise batches could still go to the segment before, beyond the offset in this name.
                if let Err(error) = self.disk.remove(&path) {
                    self.failed = true;
                    return Err(io_error(error, "cannot remove", &path));
                }
                self.sync_directory()?;
            }
            return Err(self.fail_if_final(error));
        }
        if let Err(error) = self.disk.sync(&file) {
            self.failed = true;
            return Err(io_error(error, "cannot sync", &path));
        }
        if !planted::is(Bug::SkipsDirSync) {
            self.sync_directory()?;
        }
        self.file = Arc::new(file);
        self.begin_segment(first, room);
        Ok(())
    }

    /// After a failed write: nothing of it may be taken for a batch, now or after a crash.
    fn take_back(&mut self, at: u64, error: ShardLogError) -> ShardLogError {
        // Cutting gives back what was reserved.
        self.allocated = 0;
        self.written_back = self.written_back.min(at / PAGE * PAGE);
        if !error.is_final() {
            if let Err(error) = self.disk.truncate(&self.file, at) {
                self.failed = true;
                return io_error(error, "cannot cut", &self.current_path());
            }
            if let Err(error) = self.sync_current() {
                return error;
            }
        }
        self.fail_if_final(error)
    }

    fn sync_current(&mut self) -> Result<(), ShardLogError> {
        if let Err(error) = self.disk.sync(&self.file) {
            self.failed = !planted::is(Bug::RetriesAfterFailedSync);
            return Err(io_error(error, "cannot sync", &self.current_path()));
        }
        if self.beside.before.is_none() {
            self.durable = self.end();
        }
        Ok(())
    }

    fn sync_directory(&mut self) -> Result<(), ShardLogError> {
        self.disk.sync_dir(&self.directory).map_err(|error| {
            self.failed = true;
            io_error(error, "cannot sync", &self.directory)
        })
    }

    fn current(&self) -> &Segment {
        self.segments.last().expect("a log has a segment to write to")
    }

    fn current_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has a segment to write to")
    }

    fn current_path(&self) -> PathBuf {
        match self.beside.before {
            Some(_) => self.directory.join(NEXT_NAME),
            None => self.named_path(self.current().first),
        }
    }

    fn named_path(&self, first: u64) -> PathBuf {
        self.directory.join(segment_name(first))
    }

    fn check(&self) -> Result<(), ShardLogError> {
        if self.failed { Err(ShardLogError::Failed { path: self.directory.clone() }) } else { Ok(()) }
    }

    fn fail_if_final(&mut self, error: ShardLogError) -> ShardLogError {
        self.failed |= error.is_final();
        error
    }
}

/// Whether anything of a log is in `directory`: an empty one has a segment.
pub fn has_segments<D: Disk>(disk: &D, directory: &Path) -> Result<bool, ShardLogError> {
    Ok(recovery::segments_in(disk, directory)?.iter().any(|segment| segment.bytes > 0))
}

/// The logical offset at which the log in `directory` ends, by the lengths of its files: a crash may have left more there than
/// the log has.
pub fn log_end_about<D: Disk>(disk: &D, directory: &Path) -> Result<u64, ShardLogError> {
    recovery::log_end_about(disk, directory)
}

/// Reads bytes of a file. What the disk cannot read any more counts as rot.
fn read_file<D: Disk>(
    disk: &D,
    file: &D::File,
    path: &Path,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), ShardLogError> {
    read_or_find_bad(disk, file, offset, buffer).map_err(|unread| match unread {
        Unread::Bad(offset) => ShardLogError::Rot { path: path.to_owned(), offset },
        Unread::Io(error) => ShardLogError::of(error, "cannot read", path),
    })
}

/// An error that is final also where it says that the disk is full.
fn io_error(source: io::Error, action: &'static str, path: &Path) -> ShardLogError {
    ShardLogError::Io { action, path: path.to_owned(), source }
}

/// Reserves the room of a new segment and writes its header.
fn fill_new<D: Disk>(
    disk: &D,
    file: &mut D::File,
    path: &Path,
    identity: &[u8; 32],
    first: u64,
    room: u64,
) -> Result<(), ShardLogError> {
    disk.allocate(file, room).map_err(|error| ShardLogError::of(error, "cannot reserve room for", path))?;
    let header = SegmentHeader { version: VERSION, identity: *identity, first }.encode();
    disk.write_at(file, 0, &header).map_err(|error| ShardLogError::of(error, "cannot write", path))
}
