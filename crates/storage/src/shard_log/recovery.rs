//! Reads a shard's log back, and makes it fit to be written to.
//!
//! First all that is needed is read and checked, and nothing is changed; an error leaves the files as they are.
//! Then what a crash has left is mended, and synced before anything is appended: a torn tail is cut off, and a
//! last segment without a whole header, in which no batch can have been, is removed.
//!
//! What is read may be in the kernel's memory only. Where a sync had failed the kernel takes it for written, so
//! that another sync says nothing. Hence what no batch vouches for is written again, byte for byte, before it is
//! synced and counted as durable.

use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, offset_of_name,
    segment_name,
};
use super::{Opened, PAGE, Segment, ShardLog, ShardLogError, ShardLogOptions, Torn, fill_new};
use crate::disk::Disk;
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use types::planted::{self, Bug};

/// What stands in a log's directory.
pub(super) struct Listed {
    /// Oldest first.
    pub segments: Vec<Segment>,
    /// A last file that a crash left without a whole header.
    pub leftover: Option<Segment>,
}

impl Listed {
    /// The logical offset at which the log begins.
    pub fn start(&self) -> u64 {
        self.segments.first().or(self.leftover.as_ref()).map_or(0, |segment| segment.first)
    }

    /// The segments that hold what follows `from`, by their names.
    fn needed(&self, from: u64) -> &[Segment] {
        let after = self.segments.partition_point(|segment| segment.first <= from);
        &self.segments[after.saturating_sub(1)..]
    }
}

/// A segment's batches, as far as they are whole.
pub(super) struct Batches {
    /// How many.
    pub count: u64,
    /// Where they end, in bytes from the start of the file.
    pub end: usize,
    /// The logical offset up to which they say that the log was durable.
    pub durable: u64,
}

pub(super) struct Reader<'a, D: Disk> {
    pub disk: &'a D,
    pub directory: &'a Path,
    pub identity: &'a [u8; 32],
    pub seed: u32,
    /// All before this logical offset was durable, and need not be there.
    pub from: u64,
}

/// See [`ShardLog::open`].
pub(super) fn open<D: Disk>(
    disk: D,
    directory: &Path,
    identity: [u8; 32],
    options: ShardLogOptions,
    from: u64,
    on_batch: &mut dyn FnMut(u64, Bytes),
) -> Result<Opened<D>, ShardLogError> {
    disk.create_dir_all(directory).map_err(failed("cannot make", directory))?;
    let seed = crc32c::crc32c(&identity);
    let reader = Reader { disk: &disk, directory, identity: &identity, seed, from };
    let listed = reader.list()?;
    let start = listed.start();
    if from < start {
        return Err(reader.missing(from, start));
    }
    let mut mended = if listed.segments.is_empty() {
        if from > start {
            return Err(reader.missing(start, from));
        }
        reader.begin(start, listed.leftover)?
    } else {
        let mut on_needed = |offset: u64, payload: Bytes| {
            if offset + (BATCH_HEADER_BYTES + payload.len()) as u64 > from {
                on_batch(offset, payload);
            }
        };
        reader.read(listed, &mut on_needed)?
    };
    disk.sync_dir(directory).map_err(failed("cannot sync", directory))?;
    let current = mended.segments.last_mut().expect("one was read or made");
    let (durable, written_back) = (current.end(), current.bytes / PAGE * PAGE);
    let log = ShardLog {
        directory: directory.to_owned(),
        identity,
        seed,
        options,
        segments: mended.segments,
        file: mended.file,
        allocated: 0,
        durable,
        written_back,
        failed: false,
        buffer: Vec::new(),
        disk,
    };
    Ok(Opened { log, torn: mended.torn })
}

/// See [`log_bytes`](super::log_bytes).
pub(super) fn log_bytes<D: Disk>(disk: &D, directory: &Path, from: u64) -> Result<u64, ShardLogError> {
    match segments_in(disk, directory) {
        Err(ShardLogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
        Ok(segments) => {
            let listed = Listed { segments, leftover: None };
            Ok(listed.needed(from).iter().map(|segment| segment.bytes).sum())
        }
    }
}

/// A log that is fit to be written to once its directory is synced.
struct Mended<D: Disk> {
    segments: Vec<Segment>,
    file: D::File,
    torn: Option<Torn>,
}

impl<D: Disk> Reader<'_, D> {
    pub fn list(&self) -> Result<Listed, ShardLogError> {
        let mut segments = segments_in(self.disk, self.directory)?;
        let mut leftover = None;
        if let Some(last) = segments.last()
            && last.bytes <= SEGMENT_HEADER_BYTES as u64
            && SegmentHeader::decode(&self.read_whole(last)?.1).is_none()
        {
            // A header is synced before a batch follows it: none was lost here.
            leftover = segments.pop();
        }
        Ok(Listed { segments, leftover })
    }

    /// Makes the first segment.
    fn begin(&self, first: u64, leftover: Option<Segment>) -> Result<Mended<D>, ShardLogError> {
        self.remove(leftover)?;
        let path = self.path_of(first);
        let mut file = self.disk.open(&path).map_err(failed("cannot make", &path))?;
        fill_new(self.disk, &mut file, &path, self.identity, first, 0)?;
        self.disk.sync(&mut file).map_err(failed("cannot sync", &path))?;
        let segments = vec![Segment { first, bytes: SEGMENT_HEADER_BYTES as u64 }];
        Ok(Mended { segments, file, torn: None })
    }

    /// Reads what is needed, then mends what a crash has left.
    fn read(&self, listed: Listed, on_batch: &mut dyn FnMut(u64, Bytes)) -> Result<Mended<D>, ShardLogError> {
        let needed = listed.needed(self.from);
        let (last, before) = needed.split_last().expect("the log begins at or before what is needed");
        for (segment, next) in before.iter().zip(&needed[1..]) {
            let (_, bytes) = self.read_whole(segment)?;
            self.read_ended(segment, &bytes, next.first, on_batch)?;
        }
        let (mut file, bytes) = self.read_whole(last)?;
        let path = self.path_of(last.first);
        let batches = match &listed.leftover {
            Some(leftover) => self.read_ended(last, &bytes, leftover.first, on_batch)?,
            None => self.read_last(last, &bytes, on_batch)?,
        };
        let end = Segment { first: last.first, bytes: batches.end as u64 };
        if end.end() < self.from {
            return Err(self.missing(end.end(), self.from));
        }

        let mut torn = None;
        if batches.end < bytes.len() {
            if !planted::is(Bug::ResurrectsTail) {
                self.disk.truncate(&mut file, end.bytes).map_err(failed("cannot cut", &path))?;
            }
            let cut = (bytes.len() - batches.end) as u64;
            torn = Some(Torn { path: path.clone(), offset: end.bytes, bytes: cut });
        }
        // With the header, where nothing says that it is durable.
        let durable = (SEGMENT_HEADER_BYTES as u64 + (batches.durable.saturating_sub(last.first))) as usize;
        let again = if durable == SEGMENT_HEADER_BYTES { 0 } else { durable };
        if again < batches.end {
            let bytes = &bytes[again..batches.end];
            self.disk
                .write_at(&mut file, again as u64, bytes)
                .map_err(failed("cannot write again what is in", &path))?;
        }
        self.disk.sync(&mut file).map_err(failed("cannot sync", &path))?;
        self.remove(listed.leftover)?;
        let mut segments = listed.segments;
        if let Some(last) = segments.last_mut() {
            *last = end;
        }
        Ok(Mended { segments, file, torn })
    }

    /// Reads a segment after which another was begun at the logical offset `next`: so all of it was durable.
    pub fn read_ended(
        &self,
        segment: &Segment,
        bytes: &Bytes,
        next: u64,
        on_batch: &mut dyn FnMut(u64, Bytes),
    ) -> Result<Batches, ShardLogError> {
        self.check_header(segment, bytes)?;
        let whole = SEGMENT_HEADER_BYTES as u64 + (next - segment.first);
        let kept = usize::try_from(whole).unwrap_or(usize::MAX).min(bytes.len());
        let batches = self.read_batches(segment, &bytes.slice(..kept), on_batch);
        let rot =
            |offset: usize| ShardLogError::Rot { path: self.path_of(segment.first), offset: offset as u64 };
        if batches.end < kept {
            return Err(rot(batches.end));
        }
        if (kept as u64) < whole {
            return Err(self.missing(segment.end(), next));
        }
        if kept < bytes.len() {
            return Err(rot(kept));
        }
        Ok(batches)
    }

    /// Reads the segment that was written to last: bad bytes that nothing vouches for are a torn tail.
    pub fn read_last(
        &self,
        segment: &Segment,
        bytes: &Bytes,
        on_batch: &mut dyn FnMut(u64, Bytes),
    ) -> Result<Batches, ShardLogError> {
        self.check_header(segment, bytes)?;
        let batches = self.read_batches(segment, bytes, on_batch);
        let bad = offset_at(segment, batches.end);
        // The place of the next header is not known, since lengths are among what may be bad. Its payload may be
        // torn: it was written after what it vouches for was synced.
        let vouched = (batches.end..bytes.len())
            .filter_map(|at| BatchHeader::decode(&bytes[at..], self.seed, offset_at(segment, at)))
            .any(|header| header.durable > bad);
        if vouched || (batches.end < bytes.len() && self.from > bad) {
            return Err(ShardLogError::Rot { path: self.path_of(segment.first), offset: batches.end as u64 });
        }
        Ok(batches)
    }

    /// Hands out the batches of a segment up to the first that is not whole.
    fn read_batches(
        &self,
        segment: &Segment,
        bytes: &Bytes,
        on_batch: &mut dyn FnMut(u64, Bytes),
    ) -> Batches {
        let mut batches = Batches { count: 0, end: SEGMENT_HEADER_BYTES, durable: segment.first };
        let header_at = |at| BatchHeader::decode(bytes.get(at..)?, self.seed, offset_at(segment, at));
        while let Some(header) = header_at(batches.end) {
            let start = batches.end + BATCH_HEADER_BYTES;
            let Some(end) = start.checked_add(header.payload_bytes as usize) else { break };
            let Some(payload) = bytes.get(start..end) else { break };
            if crc32c::crc32c(payload) != header.payload_checksum {
                break;
            }
            on_batch(header.offset, bytes.slice(start..end));
            let durable = batches.durable.max(header.durable);
            batches = Batches { count: batches.count + 1, end, durable };
        }
        batches
    }

    fn check_header(&self, segment: &Segment, bytes: &[u8]) -> Result<(), ShardLogError> {
        let path = self.path_of(segment.first);
        match SegmentHeader::decode(bytes) {
            None => Err(ShardLogError::Rot { path, offset: 0 }),
            Some(header) if header.version != VERSION => {
                Err(ShardLogError::FormatVersion { path, found: header.version })
            }
            Some(header) if header.identity != *self.identity => Err(ShardLogError::OtherIdentity { path }),
            Some(header) if header.first != segment.first => Err(ShardLogError::Rot { path, offset: 0 }),
            Some(_) => Ok(()),
        }
    }

    /// A whole file. Memory is asked for after the length that it really has, and may be refused.
    pub fn read_whole(&self, segment: &Segment) -> Result<(D::File, Bytes), ShardLogError> {
        let path = self.path_of(segment.first);
        let file = self.disk.open(&path).map_err(failed("cannot open", &path))?;
        let mut bytes = Vec::new();
        let length = usize::try_from(segment.bytes)
            .ok()
            .filter(|&length| bytes.try_reserve_exact(length).is_ok())
            .ok_or_else(|| failed("cannot read", &path)(io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(length, 0);
        self.disk.read(&file, 0, &mut bytes).map_err(failed("cannot read", &path))?;
        Ok((file, Bytes::from(bytes)))
    }

    fn remove(&self, leftover: Option<Segment>) -> Result<(), ShardLogError> {
        let Some(leftover) = leftover else { return Ok(()) };
        let path = self.path_of(leftover.first);
        self.disk.remove(&path).map_err(failed("cannot remove", &path))
    }

    pub fn missing(&self, from: u64, to: u64) -> ShardLogError {
        ShardLogError::Missing { directory: self.directory.to_owned(), from, to }
    }

    pub fn path_of(&self, first: u64) -> PathBuf {
        self.directory.join(segment_name(first))
    }
}

/// The segments by their names, oldest first, with their lengths.
pub(super) fn segments_in<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<Segment>, ShardLogError> {
    let mut segments = Vec::new();
    for name in disk.list(directory).map_err(failed("cannot list", directory))? {
        let Some(first) = offset_of_name(&name) else { continue };
        let path = directory.join(name);
        let file = disk.open(&path).map_err(failed("cannot open", &path))?;
        let bytes = disk.len(&file).map_err(failed("cannot read the length of", &path))?;
        segments.push(Segment { first, bytes });
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// The logical offset of a byte of a segment.
fn offset_at(segment: &Segment, at: usize) -> u64 {
    segment.first + (at - SEGMENT_HEADER_BYTES) as u64
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShardLogError {
    let path = path.to_owned();
    move |error| ShardLogError::of(error, action, &path)
}
