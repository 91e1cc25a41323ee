//! From where on a shard's log is needed, and which snapshots stand for what was before: on disk, so that a file that is missing
//! at the log's front is noticed, and one among the snapshots.
//!
//! It is written anew before the log's front is removed, in one step with the list: while all of the log is there it tells
//! everything by itself, so a snapshot that is not listed yet is not missed. One that goes because its partition holds nothing
//! any more stays listed until the next time; then the log says so, since it is not removed beyond that entry before.
//!
//! docs/storage.md draws the bytes: the frame of a journal, with the offset (u64) and the partitions (u16 each). Before there was
//! a list the frame ended after the offset; then no snapshot is missed.

use std::collections::BTreeSet;
use std::path::Path;
use storage::{Disk, Journal, JournalError};
use types::PartitionId;

/// The file's name in the shard's directory.
pub(crate) const FILE: &str = "log.begin";
/// Room that is held so that it can be written on a full disk, in bytes: removing the log's front is what makes room there.
/// Enough for all partitions that a shard may have.
const ROOM_BYTES: u64 = 64 << 10;

/// The file, open.
pub struct LogBegin<D: Disk> {
    journal: Journal<D>,
    offset: u64,
    /// In order.
    snapshots: Vec<PartitionId>,
    /// Whether it says so. Nothing is written to it before there is a log.
    says: bool,
}

impl<D: Disk> LogBegin<D> {
    pub(crate) fn open(disk: D, directory: &Path) -> Result<LogBegin<D>, JournalError> {
        let (journal, frames) = Journal::open_with_room(disk, &directory.join(FILE), ROOM_BYTES)?;
        let says = !frames.is_empty();
        let (offset, snapshots) = parse(&frames);
        Ok(LogBegin { journal, offset, snapshots, says })
    }

    /// Whether there has to be a log.
    pub(crate) fn says(&self) -> bool {
        self.says
    }

    /// What lies before this logical offset is needed no longer.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Partitions of which there has to be a snapshot, but for those of which the log says that they hold nothing any more.
    pub(crate) fn snapshots(&self) -> &[PartitionId] {
        &self.snapshots
    }

    /// There is a log, and from now on there has to be one. Durable on return.
    pub(crate) fn log_is_there(&mut self) -> Result<(), JournalError> {
        if !self.says {
            self.write(self.offset, self.snapshots.clone())?;
        }
        Ok(())
    }

    /// What lies before this offset is needed no longer, since the snapshots of these partitions, which are durable, and what
    /// follows hold all that counts. Durable on return.
    pub fn advance(&mut self, offset: u64, snapshots: &BTreeSet<PartitionId>) -> Result<(), JournalError> {
        if offset > self.offset { self.write(offset, snapshots.iter().copied().collect()) } else { Ok(()) }
    }

    fn write(&mut self, offset: u64, snapshots: Vec<PartitionId>) -> Result<(), JournalError> {
        let mut frame = offset.to_le_bytes().to_vec();
        frame.extend(snapshots.iter().flat_map(|partition| partition.0.to_le_bytes()));
        self.journal.rewrite(&[frame])?;
        (self.offset, self.snapshots, self.says) = (offset, snapshots, true);
        Ok(())
    }
}

/// What the frames of that file say: the offset, and the partitions.
pub(crate) fn parse(frames: &[Vec<u8>]) -> (u64, Vec<PartitionId>) {
    let last = frames.last().and_then(|frame| frame.split_first_chunk::<8>());
    let Some((offset, rest)) = last else { return (0, Vec::new()) };
    let (partitions, _) = rest.as_chunks::<2>();
    let snapshots = partitions.iter().map(|bytes| PartitionId(u16::from_le_bytes(*bytes))).collect();
    (u64::from_le_bytes(*offset), snapshots)
}
