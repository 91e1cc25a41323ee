//! One partition's snapshot as a file, written while the partition is served.
//!
//! A snapshot is `p` and the partition's number in five digits and `.snap`. It is written beside that, as `.snap.new`,
//! synced and renamed: after a crash there is the old one or the new one, whole. The log that goes with it is replayed
//! from the logical offset in its header on.
//!
//! docs/storage.md draws the bytes:
//!
//! | bytes | header of the file | | bytes | frame |
//! | --- | --- | --- | --- | --- |
//! | 8 | `ANNSNAP` and a zero | | 4 | length of the body |
//! | 4 | format version: 1 | | 4 | CRC-32C: see below |
//! | 32 | identity | | 1 | 1: a chunk, 2: the end |
//! | 2 | partition | | ... | body |
//! | 8 | logical offset of the log | | | |
//! | 4 | CRC-32C of the 54 before | | | |
//!
//! A chunk is as [`snapshot`](crate::snapshot) writes it. The end is the last frame: the numbers of chunks and of
//! entries, u64 each, and the [`SnapshotEnd`]. A frame's checksum goes on from the one before it, or the header's, over
//! its length, kind and body; so frames that are missing, or of another snapshot, are noticed too.
//!
//! A file that gets its name has been synced. So one without its end, or with a wrong checksum anywhere, is rot, and
//! never a torn tail.
//!
//! A failed sync, rename or sync of the directory is final: nobody knows what is on the disk then
//! ([`SnapshotError::is_final`]), and the process has to stop. After every other error the old snapshot still counts.
//!
//! Left out: when a snapshot is due, which position it stands for, and locks. A directory has one process.

use crate::codec::Corrupt;
use crate::disk::{Disk, Unread, read_or_find_bad};
use crate::rope::Parts;
use crate::snapshot::{SnapshotEnd, chunk_entries};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use types::PartitionId;

const MAGIC: [u8; 8] = *b"ANNSNAP\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 58;
const FRAME_HEADER_BYTES: usize = 9;
const CHUNK: u8 = 1;
const END: u8 = 2;
/// How much is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// A buffer that one large chunk made longer than this is given back.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The largest chunk, in bytes: twice the largest value.
pub const CHUNK_BYTES_MAX: usize = 1 << 30;

/// Why a snapshot could not be read or written.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The disk refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
        /// Whether nobody knows what is on the disk now.
        is_final: bool,
    },
    /// The disk has no room, or the user's quota is used up. The snapshot before still counts.
    #[error(
        "{action} {path}: no room is left on the disk. Free some, or give the file system more: the snapshot is \
         written anew then",
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
        /// Where the damage begins, in bytes from its start.
        offset: u64,
    },
    /// A chunk is what was written, and this program cannot read it.
    #[error(
        "the chunk at byte {offset} of {path} is as it was written, and this program cannot read it: {source}. Start \
         the program that wrote it",
        path = path.display()
    )]
    Chunk {
        /// The file.
        path: PathBuf,
        /// Where its frame begins, in bytes from the file's start.
        offset: u64,
        /// What is wrong with it.
        source: Corrupt,
    },
    /// The file is of a format version that this program does not know.
    #[error("{path} has format version {found}, and this program reads {VERSION}: start the program that wrote it", path = path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: u32,
    },
    /// The file is of another shard, or another partition.
    #[error(
        "{path} belongs to another cluster, node, shard or partition: somebody has copied or renamed it. Start with \
         the data directory of this node, or with an empty one",
        path = path.display()
    )]
    OtherIdentity {
        /// The file.
        path: PathBuf,
    },
    /// An earlier write of this snapshot failed.
    #[error("{path} could not be written before, and is no snapshot: abandon it and begin another", path = path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
}

impl SnapshotError {
    /// Whether the process has to stop: a sync, a rename or the sync of a directory has failed.
    pub fn is_final(&self) -> bool {
        matches!(self, SnapshotError::Io { is_final: true, .. })
    }

    /// What the disk's error means where it is not final.
    fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SnapshotError::Full { action, path },
            _ => SnapshotError::Io { action, path, source, is_final: false },
        }
    }

    /// The same where it is.
    fn last(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
        let path = path.to_owned();
        move |source| SnapshotError::Io { action, path, source, is_final: true }
    }
}

/// Where a partition's snapshot is.
pub fn snapshot_path(directory: &Path, partition: PartitionId) -> PathBuf {
    directory.join(format!("p{:05}.snap", partition.0))
}

/// The partition whose snapshot has this name.
fn partition_of(name: &str) -> Option<PartitionId> {
    let digits = name.strip_prefix('p')?.strip_suffix(".snap")?;
    let is_number = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok().map(PartitionId) } else { None }
}

fn new_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// The checksum of a frame, which goes on from the one before.
fn checksum(before: u32, length: &[u8], kind_and_body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, length), kind_and_body)
}

/// A snapshot that is being written.
///
/// Dropped without [`SnapshotWriter::finish`] it leaves a `.new` file, as a crash does: [`list_snapshots`] removes it,
/// and so does [`SnapshotWriter::abandon`].
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    directory: PathBuf,
    path: PathBuf,
    new_path: PathBuf,
    file: D::File,
    /// Where the next frame goes.
    bytes: u64,
    /// Of the frame before.
    checksum: u32,
    chunks: u64,
    entries: u64,
    failed: bool,
    buffer: Vec<u8>,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins a partition's snapshot in a directory, which has to exist. `identity` says whose it is: of which cluster,
    /// node and shard. `log_offset` is from where on the shard's log has to be replayed over it, in its logical bytes.
    pub fn begin(
        disk: D,
        directory: &Path,
        identity: &[u8; 32],
        partition: PartitionId,
        log_offset: u64,
    ) -> Result<SnapshotWriter<D>, SnapshotError> {
        let path = snapshot_path(directory, partition);
        let new_path = new_path(&path);
        let file = disk.open(&new_path).map_err(SnapshotError::of("cannot open", &new_path))?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(identity);
        header.extend_from_slice(&partition.0.to_le_bytes());
        header.extend_from_slice(&log_offset.to_le_bytes());
        let checksum = crc32c::crc32c(&header);
        header.extend_from_slice(&checksum.to_le_bytes());
        let (directory, bytes) = (directory.to_owned(), header.len() as u64);
        let (chunks, entries, failed, buffer) = (0, 0, false, Vec::new());
        let mut writer = SnapshotWriter {
            disk,
            directory,
            path,
            new_path,
            file,
            bytes,
            checksum,
            chunks,
            entries,
            failed,
            buffer,
        };
        match writer.write_header(&header) {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.abandon();
                Err(error)
            }
        }
    }

    fn write_header(&mut self, header: &[u8]) -> Result<(), SnapshotError> {
        // A leftover of a snapshot that did not come to its rename.
        let emptied = self.disk.truncate(&self.file, 0);
        emptied.map_err(SnapshotError::of("cannot empty", &self.new_path))?;
        let written = self.disk.write_at(&self.file, 0, header);
        written.map_err(SnapshotError::of("cannot write", &self.new_path))
    }

    /// Writes a chunk, as [`write_chunk`](crate::snapshot::write_chunk) made it. Nothing is durable yet. After an error
    /// the snapshot is of no more use, and the one before still counts.
    pub fn chunk<'c>(&mut self, chunk: impl Into<Parts<'c>>) -> Result<(), SnapshotError> {
        let chunk = chunk.into();
        match chunk.tail.is_empty() {
            true => self.frame(CHUNK, chunk.head)?,
            false => self.frame(CHUNK, &[chunk.head, chunk.tail].concat())?,
        }
        self.chunks += 1;
        self.entries += u64::from(chunk_entries(chunk.head).unwrap_or(0));
        Ok(())
    }

    /// Makes it the partition's snapshot, durably, in the place of the one before. Returns its bytes.
    ///
    /// After an error that is not final the one before still counts, and the new one is gone. After one that
    /// [is](SnapshotError::is_final) either may be there after a crash, whole.
    pub fn finish(mut self, end: &SnapshotEnd) -> Result<u64, SnapshotError> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.chunks.to_le_bytes());
        body.extend_from_slice(&self.entries.to_le_bytes());
        end.encode(&mut body);
        if let Err(error) = self.frame(END, &body) {
            self.abandon();
            return Err(error);
        }
        self.disk.sync(&self.file).map_err(SnapshotError::last("cannot sync", &self.new_path))?;
        let renamed = self.disk.rename(&self.new_path, &self.path);
        renamed.map_err(SnapshotError::last("cannot rename", &self.new_path))?;
        let synced = self.disk.sync_dir(&self.directory);
        synced.map_err(SnapshotError::last("cannot sync the directory", &self.directory))?;
        Ok(self.bytes)
    }

    /// Gives it up and removes what was written. The snapshot before still counts. Where the disk refuses that too, a
    /// `.new` file is left, which harms nobody.
    pub fn abandon(self) {
        let _ = self.disk.remove(&self.new_path);
    }

    fn frame(&mut self, kind: u8, body: &[u8]) -> Result<(), SnapshotError> {
        if self.failed {
            return Err(SnapshotError::Failed { path: self.path.clone() });
        }
        let written = if body.len() > CHUNK_BYTES_MAX {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame of more than 1 GiB"))
        } else {
            self.buffer.clear();
            self.buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(&[0, 0, 0, 0, kind]);
            self.buffer.extend_from_slice(body);
            let checksum = checksum(self.checksum, &self.buffer[..4], &self.buffer[8..]);
            self.buffer[4..8].copy_from_slice(&checksum.to_le_bytes());
            self.checksum = checksum;
            self.disk.write_at(&self.file, self.bytes, &self.buffer)
        };
        self.failed = written.is_err();
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_MAX);
        written.map_err(SnapshotError::of("cannot write", &self.new_path))
    }
}

/// What the first bytes of a snapshot's file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The partition.
    pub partition: PartitionId,
    /// From where on the shard's log has to be replayed over the snapshot, in its logical bytes.
    pub log_offset: u64,
    /// How long the file is, in bytes.
    pub bytes: u64,
}

/// A snapshot that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The partition.
    pub partition: PartitionId,
    /// From where on the shard's log has to be replayed over it, in its logical bytes.
    pub log_offset: u64,
    /// For which position it stands, and what a copy has to know beside the table.
    pub end: SnapshotEnd,
    /// How many entries its chunks have.
    pub entries: u64,
    /// How long the file is, in bytes.
    pub bytes: u64,
}

/// Reads a snapshot that [`list_snapshots`] found: its header first, then each chunk, which is one of those that
/// [`load_chunk`](crate::snapshot::load_chunk) reads. What the chunks were put into counts only once this has returned
/// without an error; otherwise it has to be thrown away.
///
/// It holds a mebibyte of the file at once, or a chunk where that is larger.
pub fn read_snapshot<D: Disk>(
    disk: &D,
    path: &Path,
    identity: &[u8; 32],
    on_header: &mut dyn FnMut(SnapshotHeader),
    on_chunk: &mut dyn FnMut(Bytes) -> Result<(), Corrupt>,
) -> Result<Loaded, SnapshotError> {
    let file = disk.open(path).map_err(SnapshotError::of("cannot open", path))?;
    let bytes = disk.len(&file).map_err(SnapshotError::of("cannot read the length of", path))?;
    let mut reading = Reading { disk, file, path, offset: 0, bytes, ahead: BytesMut::new() };
    let (partition, log_offset, mut last) = header(&mut reading, identity)?;
    on_header(SnapshotHeader { partition, log_offset, bytes });
    let (mut chunks, mut entries) = (0, 0);
    loop {
        let offset = reading.offset;
        let rot = || SnapshotError::Rot { path: path.to_owned(), offset };
        let head = reading.take(FRAME_HEADER_BYTES)?.ok_or_else(rot)?;
        let &[l0, l1, l2, l3, c0, c1, c2, c3, kind] =
            head.first_chunk::<FRAME_HEADER_BYTES>().ok_or_else(rot)?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(rot());
        }
        let mut body = reading.take(length)?.ok_or_else(rot)?;
        last = crc32c::crc32c_append(checksum(last, &head[..4], &[kind]), &body);
        if last != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(rot());
        }
        match kind {
            CHUNK => {
                chunks += 1;
                entries += u64::from(chunk_entries(&body).unwrap_or(0));
                on_chunk(body).map_err(|source| SnapshotError::Chunk {
                    path: path.to_owned(),
                    offset,
                    source,
                })?;
            }
            END if reading.offset == bytes => {
                let counted = body.len() >= 16 && (body.get_u64_le(), body.get_u64_le()) == (chunks, entries);
                let end = if counted { SnapshotEnd::decode(&mut body).ok() } else { None };
                let end = end.filter(|_| body.is_empty()).ok_or_else(rot)?;
                return Ok(Loaded { partition, log_offset, end, entries, bytes });
            }
            // The end is the last, and there are no other kinds.
            _ => return Err(rot()),
        }
    }
}

/// The partition and the log's offset, and the checksum that the first frame goes on from.
fn header<D: Disk>(
    reading: &mut Reading<'_, D>,
    identity: &[u8; 32],
) -> Result<(PartitionId, u64, u32), SnapshotError> {
    let path = reading.path;
    let rot = || SnapshotError::Rot { path: path.to_owned(), offset: 0 };
    let mut header = reading.take(HEADER_BYTES)?.ok_or_else(rot)?;
    let checksum = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    if header[..8] != MAGIC || header[HEADER_BYTES - 4..] != checksum.to_le_bytes() {
        return Err(rot());
    }
    header.advance(8);
    let found = header.get_u32_le();
    if found != VERSION {
        return Err(SnapshotError::FormatVersion { path: path.to_owned(), found });
    }
    let is_ours = header.split_to(32) == identity[..];
    let partition = PartitionId(header.get_u16_le());
    let named = path.file_name().and_then(|name| partition_of(name.to_str()?));
    if !is_ours || named != Some(partition) {
        return Err(SnapshotError::OtherIdentity { path: path.to_owned() });
    }
    Ok((partition, header.get_u64_le(), checksum))
}

/// A file that is read from its start to its end.
struct Reading<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    path: &'a Path,
    /// Of what is taken next.
    offset: u64,
    /// The file's.
    bytes: u64,
    /// What was read and not yet taken.
    ahead: BytesMut,
}

impl<D: Disk> Reading<'_, D> {
    /// The next `bytes` bytes; `None`: there are not so many.
    fn take(&mut self, bytes: usize) -> Result<Option<Bytes>, SnapshotError> {
        if bytes as u64 > self.bytes - self.offset {
            return Ok(None);
        }
        while self.ahead.len() < bytes {
            let (had, from) = (self.ahead.len(), self.offset + self.ahead.len() as u64);
            let piece = (self.bytes - from).min(PIECE_BYTES as u64) as usize;
            self.ahead.resize(had + piece, 0);
            let read = read_or_find_bad(self.disk, &self.file, from, &mut self.ahead[had..]);
            read.map_err(|unread| match unread {
                Unread::Bad(offset) => SnapshotError::Rot { path: self.path.to_owned(), offset },
                Unread::Io(error) => SnapshotError::of("cannot read", self.path)(error),
            })?;
        }
        self.offset += bytes as u64;
        Ok(Some(self.ahead.split_to(bytes).freeze()))
    }
}

/// What is in a directory of snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The snapshots, by partition.
    pub snapshots: Vec<(PartitionId, PathBuf)>,
    /// What crashes have left of others.
    pub leftovers: Vec<PathBuf>,
}

/// How many bytes there are to read of the snapshots in a directory.
pub fn snapshot_bytes<D: Disk>(disk: &D, directory: &Path) -> Result<u64, SnapshotError> {
    find_snapshots(disk, directory)?.snapshots.iter().try_fold(0, |bytes, (_, path)| {
        let file = disk.open(path).map_err(SnapshotError::of("cannot open", path))?;
        let length = disk.len(&file).map_err(SnapshotError::of("cannot read the length of", path))?;
        Ok(bytes + length)
    })
}

/// Looks for snapshots in a directory, and changes nothing.
pub fn find_snapshots<D: Disk>(disk: &D, directory: &Path) -> Result<Found, SnapshotError> {
    let names = disk.list(directory).map_err(SnapshotError::of("cannot list the directory", directory))?;
    let mut found = Found::default();
    for name in names {
        let path = directory.join(&name);
        if name.strip_suffix(".new").and_then(partition_of).is_some() {
            found.leftovers.push(path);
        } else if let Some(partition) = partition_of(&name) {
            found.snapshots.push((partition, path));
        }
    }
    found.snapshots.sort();
    Ok(found)
}

/// The snapshots in a directory, by partition. Removes what crashes have left of others, so nobody may be writing one.
pub fn list_snapshots<D: Disk>(
    disk: &D,
    directory: &Path,
) -> Result<Vec<(PartitionId, PathBuf)>, SnapshotError> {
    let found = find_snapshots(disk, directory)?;
    for path in &found.leftovers {
        disk.remove(path).map_err(SnapshotError::of("cannot remove the leftover", path))?;
    }
    Ok(found.snapshots)
}

/// Whose a snapshot is, as its header says. `None`: its header is not whole.
pub fn identity_in<D: Disk>(disk: &D, path: &Path) -> Result<Option<[u8; 32]>, SnapshotError> {
    let file = disk.open(path).map_err(SnapshotError::of("cannot open", path))?;
    let mut header = [0; HEADER_BYTES];
    match disk.read(&file, 0, &mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result.map_err(SnapshotError::of("cannot read", path))?,
    }
    let checksum = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    let is_whole = header[..8] == MAGIC && header[HEADER_BYTES - 4..] == checksum.to_le_bytes();
    Ok(header[12..].first_chunk::<32>().copied().filter(|_| is_whole))
}

/// Removes a partition's snapshot, durably. Not an error where there is none.
pub fn remove_snapshot<D: Disk>(
    disk: &D,
    directory: &Path,
    partition: PartitionId,
) -> Result<(), SnapshotError> {
    let path = snapshot_path(directory, partition);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SnapshotError::of("cannot remove", &path)(error));
        }
        _ => {}
    }
    // Where it was not there, its going may still not be durable.
    disk.sync_dir(directory).map_err(SnapshotError::last("cannot sync the directory", directory))
}
