//! A shard's log as it stands on the disk, read without changing anything: for tools that look into a data directory.
//!
//! The bytes are judged as `recovery` judges them, segment by segment, so that reading can go on behind a bad one.
//! What recovery would cut off, or remove though something was in it, is told of.

use super::format::{NEXT_NAME, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::recovery::{Listed, Next, Reader, segments_in};
use super::{Segment, ShardLogError, Torn, read_file};
use crate::disk::Disk;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// A log that is looked at. Nobody may be writing to it.
pub struct LogLook<'a, D: Disk> {
    reader: Reader<'a, D>,
    listed: Listed,
}

/// A segment that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentLook {
    /// How many batches it has.
    pub batches: u64,
    /// What a crash has left torn behind them. It was never promised to anybody.
    pub torn: Option<Torn>,
}

impl<'a, D: Disk> LogLook<'a, D> {
    /// Lists the segments of the log in `directory`, which has to exist. `from` is an offset before which all was
    /// durable and need not be there any more; `None`: nobody knows one, and what is there is taken for all.
    pub fn open(
        disk: &'a D,
        directory: &'a Path,
        identity: &'a [u8; 32],
        from: Option<u64>,
    ) -> Result<LogLook<'a, D>, ShardLogError> {
        let mut reader = Reader::new(disk, directory, identity, 0);
        let listed = reader.list()?;
        reader.from = from.unwrap_or(listed.start());
        Ok(LogLook { reader, listed })
    }

    /// The same, of a log that is known to have reached as far as the logical offset `end`, durably, when its writer stopped.
    #[must_use]
    pub fn ended(mut self, end: u64) -> LogLook<'a, D> {
        self.reader.vouch_for(end);
        self
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.listed.segments
    }

    /// Where a segment is.
    pub fn path_of(&self, segment: &Segment) -> PathBuf {
        self.reader.path_of(segment.first)
    }

    /// A last file without a whole header, which a crash has left: no batch was ever in it.
    pub fn leftover(&self) -> Option<Torn> {
        let segment = self.listed.leftover.filter(|segment| self.reader.known() <= segment.first)?;
        Some(Torn { path: self.path_of(&segment), offset: 0, bytes: segment.bytes })
    }

    /// A file that was begun to follow the last segment, which a crash has cut off before: it is torn, too.
    pub fn torn_next(&self) -> Option<Torn> {
        let Next::Torn { bytes } = self.listed.next else { return None };
        Some(Torn { path: self.reader.directory.join(NEXT_NAME), offset: 0, bytes })
    }

    /// What is needed of the front of the log and is not there.
    pub fn missing(&self) -> Option<ShardLogError> {
        let (from, start) = (self.reader.from, self.listed.start());
        if let Next::Alone { first } = self.listed.next {
            Some(self.reader.missing(start, first))
        } else if from < start {
            Some(self.reader.missing(from, start))
        } else if self.listed.segments.is_empty() && self.reader.known() > start {
            Some(self.reader.missing(start, self.reader.known()))
        } else {
            None
        }
    }

    /// Reads a segment of [`LogLook::segments`], and gives `on_batch` the logical offset and the payload of every
    /// batch of it up to the first that is not whole. An error says what is wrong there.
    ///
    /// The payloads share one buffer, which lives as long as any of them.
    ///
    /// # Panics
    ///
    /// Where there is no segment `at`.
    pub fn read(
        &self,
        at: usize,
        on_batch: &mut dyn FnMut(u64, Bytes),
    ) -> Result<SegmentLook, ShardLogError> {
        let segment = &self.listed.segments[at];
        let (_, bytes) = self.reader.read_whole(segment)?;
        let next = self.listed.segments.get(at + 1).or(self.listed.leftover.as_ref());
        let batches = match next {
            Some(next) => self.reader.read_ended(segment, &bytes, next.first, on_batch)?,
            None => self.reader.read_last(segment, &bytes, on_batch)?,
        };
        let end = Segment { first: segment.first, bytes: batches.end as u64 };
        let (is_last, known) = (at + 1 == self.listed.segments.len(), self.reader.known());
        if is_last && end.end() < known {
            return Err(self.reader.missing(end.end(), known));
        }
        let torn_bytes = (bytes.len() - batches.end) as u64;
        let torn = Torn { path: self.path_of(segment), offset: end.bytes, bytes: torn_bytes };
        Ok(SegmentLook { batches: batches.count, torn: (torn_bytes > 0).then_some(torn) })
    }
}

/// Whose the log in a directory is, as the first segment says that has a whole header. `None`: none has.
pub fn identity_in<D: Disk>(disk: &D, directory: &Path) -> Result<Option<[u8; 32]>, ShardLogError> {
    for segment in segments_in(disk, directory)? {
        let path = directory.join(super::segment_name(segment.first));
        let mut header = [0; SEGMENT_HEADER_BYTES];
        if segment.bytes < header.len() as u64 {
            continue;
        }
        let file = disk.open(&path).map_err(|error| ShardLogError::of(error, "cannot open", &path))?;
        match read_file(disk, &file, &path, 0, &mut header) {
            Err(ShardLogError::Rot { .. }) => continue,
            result => result?,
        }
        if let Some(header) = SegmentHeader::decode(&header) {
            return Ok(Some(header.identity));
        }
    }
    Ok(None)
}
