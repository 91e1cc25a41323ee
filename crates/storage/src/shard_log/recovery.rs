//! Reads a shard's log back, and makes it fit to be written to.
//!
//! First all that is needed is read and checked, and nothing is changed; an error leaves the files as they are.
//! Then what a crash has left is mended, and synced before anything is appended: a torn tail is cut off, and a
//! last segment without a whole header, in which no batch can have been, is removed.
//!
//! Batches may stand in `log.next`, whose writer had gone over to it while not all of the segment before was durable
//! ([`errand`](super::errand)). Where the log reaches as far as that file's header says, it is the last segment, and
//! gets its name. Where a crash has cut the log off before, it is part of the torn tail, and removed.
//!
//! What is read may be in the kernel's memory only. Where a sync had failed the kernel takes it for written, so
//! that another sync says nothing. Hence what no batch vouches for is written again, byte for byte, before it is
//! synced and counted as durable.

use super::errand::Beside;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, NEXT_NAME, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, offset_of_name,
    segment_name,
};
use super::{Opened, PAGE, Segment, ShardLog, ShardLogError, ShardLogOptions, Torn, fill_new, read_file};
use crate::disk::Disk;
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::planted::{self, Bug};

/// What stands in a log's directory.
pub(super) struct Listed {
    /// Oldest first.
    pub segments: Vec<Segment>,
    /// A last file that a crash left without a whole header.
    pub leftover: Option<Segment>,
    /// What `log.next` is.
    pub next: Next,
}

/// What the file is that was to be the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is none, or nothing has been begun in it.
    Unused { is_there: bool },
    /// The last one of the segments.
    Last,
    /// What the log does not reach as far as, any more: so many bytes.
    Torn { bytes: u64 },
    /// All that there is, though it says that something stood before this logical offset.
    Alone { first: u64 },
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
    /// All before this one was durable.
    pub vouched: u64,
    /// The segment that is still called `log.next`, by its logical offset.
    pub unnamed: Option<u64>,
}

/// See [`ShardLog::open_ended`].
pub(super) fn open<D: Disk>(
    disk: D,
    directory: &Path,
    identity: [u8; 32],
    options: ShardLogOptions,
    from: u64,
    end: u64,
    on_batch: &mut dyn FnMut(u64, Bytes),
) -> Result<Opened<D>, ShardLogError> {
    disk.create_dir_all(directory).map_err(failed("cannot make", directory))?;
    let mut reader = Reader::new(&disk, directory, &identity, from);
    let listed = reader.list()?;
    reader.vouch_for(end);
    let start = listed.start();
    if from < start {
        return Err(reader.missing(from, start));
    }
    if let Next::Alone { first } = listed.next {
        return Err(reader.missing(start, first));
    }
    let mut mended = if listed.segments.is_empty() {
        if reader.known() > start {
            return Err(reader.missing(start, reader.known()));
        }
        reader.begin(start, &listed)?
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
        seed: crc32c::crc32c(&identity),
        options,
        segments: mended.segments,
        file: Arc::new(mended.file),
        beside: Beside::default(),
        allocated: 0,
        durable,
        written_back,
        failed: false,
        buffer: Vec::new(),
        disk,
    };
    Ok(Opened { log, torn: mended.torn })
}

/// See [`log_end_about`](super::log_end_about).
pub(super) fn log_end_about<D: Disk>(disk: &D, directory: &Path) -> Result<u64, ShardLogError> {
    let mut segments = segments_in(disk, directory)?;
    segments.extend(next_in(disk, directory)?.flatten());
    Ok(segments.iter().map(Segment::end).max().unwrap_or(0))
}

/// A log that is fit to be written to once its directory is synced.
struct Mended<D: Disk> {
    segments: Vec<Segment>,
    file: D::File,
    torn: Option<Torn>,
}

impl<'a, D: Disk> Reader<'a, D> {
    pub fn new(disk: &'a D, directory: &'a Path, identity: &'a [u8; 32], from: u64) -> Reader<'a, D> {
        let seed = crc32c::crc32c(identity);
        Reader { disk, directory, identity, seed, from, vouched: 0, unnamed: None }
    }

    /// Somebody else knows that all before this logical offset was durable, and has to be there.
    pub fn vouch_for(&mut self, end: u64) {
        self.vouched = self.vouched.max(end);
    }

    /// The logical offset that the log has to reach.
    pub fn known(&self) -> u64 {
        self.from.max(self.vouched)
    }

    /// Lists what is there, and remembers what it means for what is read.
    pub fn list(&mut self) -> Result<Listed, ShardLogError> {
        let mut segments = segments_in(self.disk, self.directory)?;
        let mut leftover = None;
        if let Some(last) = segments.last()
            && last.bytes <= SEGMENT_HEADER_BYTES as u64
            && SegmentHeader::decode(&self.read_whole(last)?.1).is_none()
        {
            // A header is synced before a batch follows it: none was lost here.
            leftover = segments.pop();
        }
        let next = match (next_in(self.disk, self.directory)?, segments.last(), &leftover) {
            (Some(Some(next)), Some(last), None) if next.first > last.first => {
                self.judge_next(last, &next)?
            }
            (Some(Some(next)), None, _) => (Next::Alone { first: next.first }, None),
            (found, ..) => (Next::Unused { is_there: found.is_some() }, None),
        };
        segments.extend(next.1);
        Ok(Listed { segments, leftover, next: next.0 })
    }

    /// Whether the segment that was begun in `log.next` goes on where the last one that has its name ends.
    fn judge_next(
        &mut self,
        last: &Segment,
        next: &Segment,
    ) -> Result<(Next, Option<Segment>), ShardLogError> {
        let (_, bytes) = self.read_whole(last)?;
        let end = offset_at(last, self.read_batches(last, &bytes, &mut |_, _| ()).end);
        self.unnamed = Some(next.first);
        let (_, bytes) = self.read_whole(next)?;
        self.check_header(next, &bytes)?;
        // Without a batch, or before the end, the header was put there by a writer who could not go over.
        let (next, segment) = if end > next.first {
            (Next::Unused { is_there: true }, None)
        } else if end == next.first {
            match self.headers_in(next, &bytes, SEGMENT_HEADER_BYTES).next() {
                None => (Next::Unused { is_there: true }, None),
                Some(_) => (Next::Last, Some(*next)),
            }
        } else {
            let durable =
                self.headers_in(next, &bytes, SEGMENT_HEADER_BYTES).map(|header| header.durable).max();
            self.vouched = durable.unwrap_or(0);
            (Next::Torn { bytes: next.bytes }, None)
        };
        if segment.is_none() {
            self.unnamed = None;
        }
        Ok((next, segment))
    }

    /// The headers of batches that stand anywhere in these bytes, from `start` on.
    fn headers_in<'b>(
        &'b self,
        segment: &'b Segment,
        bytes: &'b [u8],
        start: usize,
    ) -> impl Iterator<Item = BatchHeader> + 'b {
        (start..bytes.len())
            .filter_map(|at| BatchHeader::decode(&bytes[at..], self.seed, offset_at(segment, at)))
    }

    /// Makes the first segment.
    fn begin(&self, first: u64, listed: &Listed) -> Result<Mended<D>, ShardLogError> {
        self.remove(listed)?;
        let path = self.path_of(first);
        let mut file = self.disk.open(&path).map_err(failed("cannot make", &path))?;
        fill_new(self.disk, &mut file, &path, self.identity, first, 0)?;
        self.disk.sync(&file).map_err(failed("cannot sync", &path))?;
        let segments = vec![Segment { first, bytes: SEGMENT_HEADER_BYTES as u64 }];
        Ok(Mended { segments, file, torn: None })
    }

    /// Reads what is needed, then mends what a crash has left.
    fn read(&self, listed: Listed, on_batch: &mut dyn FnMut(u64, Bytes)) -> Result<Mended<D>, ShardLogError> {
        let needed = listed.needed(self.from);
        let (last, before) = needed.split_last().expect("the log begins at or before what is needed");
        let mut ended_last = None;
        for (segment, next) in before.iter().zip(&needed[1..]) {
            let (_, bytes) = self.read_whole(segment)?;
            let batches = self.read_ended(segment, &bytes, next.first, on_batch)?;
            ended_last = Some((segment, bytes, batches));
        }
        let (file, bytes) = self.read_whole(last)?;
        let path = self.path_of(last.first);
        let batches = match &listed.leftover {
            Some(leftover) => self.read_ended(last, &bytes, leftover.first, on_batch)?,
            None => self.read_last(last, &bytes, on_batch)?,
        };
        let end = Segment { first: last.first, bytes: batches.end as u64 };
        if end.end() < self.known() {
            return Err(self.missing(end.end(), self.known()));
        }

        if listed.next == Next::Last
            && let Some((before, bytes, batches)) = ended_last
        {
            // It may be that not all of it is on disk.
            let file = self.disk.open(&self.path_of(before.first)).map_err(failed("cannot open", &path))?;
            self.make_durable(&file, before, &bytes, &batches)?;
        }
        let mut torn = None;
        if batches.end < bytes.len() {
            if !planted::is(Bug::ResurrectsTail) {
                self.disk.truncate(&file, end.bytes).map_err(failed("cannot cut", &path))?;
            }
            let cut = (bytes.len() - batches.end) as u64;
            torn = Some(Torn { path: path.clone(), offset: end.bytes, bytes: cut });
        }
        self.make_durable(&file, last, &bytes, &batches)?;
        match listed.next {
            Next::Last => {
                let name = self.directory.join(segment_name(last.first));
                self.disk.rename(&path, &name).map_err(failed("cannot rename", &path))?;
                torn = torn.map(|torn| Torn { path: name, ..torn });
            }
            Next::Torn { bytes } => {
                let next = Torn { path: self.directory.join(NEXT_NAME), offset: 0, bytes };
                torn = Some(torn.map_or(next, |torn| Torn { bytes: torn.bytes + bytes, ..torn }));
            }
            Next::Unused { .. } | Next::Alone { .. } => {}
        }
        self.remove(&listed)?;
        let mut segments = listed.segments;
        if let Some(last) = segments.last_mut() {
            *last = end;
        }
        Ok(Mended { segments, file, torn })
    }

    /// Writes what no batch vouches for once more, with the header where nothing says that it is durable, and syncs.
    fn make_durable(
        &self,
        file: &D::File,
        segment: &Segment,
        bytes: &[u8],
        batches: &Batches,
    ) -> Result<(), ShardLogError> {
        let path = self.path_of(segment.first);
        let durable = SEGMENT_HEADER_BYTES + batches.durable.saturating_sub(segment.first) as usize;
        let again = if durable == SEGMENT_HEADER_BYTES { 0 } else { durable };
        if again < batches.end {
            let bytes = &bytes[again..batches.end];
            self.disk
                .write_at(file, again as u64, bytes)
                .map_err(failed("cannot write again what is in", &path))?;
        }
        self.disk.sync(file).map_err(failed("cannot sync", &path))
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
        let vouched = self.headers_in(segment, bytes, batches.end).any(|header| header.durable > bad);
        if vouched || (batches.end < bytes.len() && self.known() > bad) {
            return Err(ShardLogError::Rot { path: self.path_of(segment.first), offset: batches.end as u64 });
        }
        if self.vouched > bad {
            return Err(self.missing(bad, self.vouched));
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
        read_file(self.disk, &file, &path, 0, &mut bytes)?;
        Ok((file, Bytes::from(bytes)))
    }

    /// Removes what no batch was ever in, and what is torn off.
    fn remove(&self, listed: &Listed) -> Result<(), ShardLogError> {
        let leftover = listed.leftover.map(|leftover| self.path_of(leftover.first));
        let next = match listed.next {
            Next::Unused { is_there: false } | Next::Last | Next::Alone { .. } => None,
            Next::Unused { is_there: true } | Next::Torn { .. } => Some(self.directory.join(NEXT_NAME)),
        };
        for path in leftover.into_iter().chain(next) {
            self.disk.remove(&path).map_err(failed("cannot remove", &path))?;
        }
        Ok(())
    }

    pub fn missing(&self, from: u64, to: u64) -> ShardLogError {
        ShardLogError::Missing { directory: self.directory.to_owned(), from, to }
    }

    pub fn path_of(&self, first: u64) -> PathBuf {
        match self.unnamed {
            Some(unnamed) if unnamed == first => self.directory.join(NEXT_NAME),
            _ => self.directory.join(segment_name(first)),
        }
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

/// The file that was to be the next segment, if there is one: with its length, where it has a header.
#[expect(clippy::option_option, reason = "there is none, there is one, and it has a header")]
fn next_in<D: Disk>(disk: &D, directory: &Path) -> Result<Option<Option<Segment>>, ShardLogError> {
    if !disk.list(directory).map_err(failed("cannot list", directory))?.iter().any(|name| name == NEXT_NAME) {
        return Ok(None);
    }
    let path = directory.join(NEXT_NAME);
    let file = disk.open(&path).map_err(failed("cannot open", &path))?;
    let bytes = disk.len(&file).map_err(failed("cannot read the length of", &path))?;
    if bytes < SEGMENT_HEADER_BYTES as u64 {
        return Ok(Some(None));
    }
    let mut header = [0; SEGMENT_HEADER_BYTES];
    read_file(disk, &file, &path, 0, &mut header)?;
    Ok(Some(SegmentHeader::decode(&header).map(|header| Segment { first: header.first, bytes })))
}

/// The logical offset of a byte of a segment.
fn offset_at(segment: &Segment, at: usize) -> u64 {
    segment.first + (at - SEGMENT_HEADER_BYTES) as u64
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShardLogError {
    let path = path.to_owned();
    move |error| ShardLogError::of(error, action, &path)
}
