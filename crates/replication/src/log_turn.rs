//! What a shard's partitions add to its log on disk in one turn.
//!
//! Partitions write entries here; whoever drives the shard puts them on the disk in this order and says, later, up to which
//! turn that is done ([`crate::Partition::on_durable`]). Each record is named by its partition, its lsn, and the partition's
//! *life*, which ends whenever part of its log is discarded: word of an earlier life's records says nothing of later ones that
//! stand at the same lsn.
//!
//! A turn may hold several huge values. It is cut between two entries before it gets too large for one write
//! ([`storage::lent::is_batch_enough`]), and its pieces count as turns of their own: a crash may leave the first and not the second,
//! as of two turns.

use bytes::Bytes;
use std::collections::VecDeque;
use storage::lent::is_batch_enough;
use storage::{Parts, Record, Rope, Sink, SnapshotEnd, Tailed, log_entry};
use types::settings::{LogMode, Settings};
use types::{Epoch, Lsn, PartitionId, Position, RequestId};

/// When a record is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it stands in memory: nothing is written.
    #[default]
    Memory,
    /// When word comes that it stands in the log on disk: synced, or handed to the system, as `fsync` says.
    Disk,
}

impl Durability {
    /// What the settings ask for.
    pub fn of(settings: &Settings) -> Durability {
        match settings.log {
            LogMode::Off => Durability::Memory,
            LogMode::On => Durability::Disk,
        }
    }

    /// Whether there is a log on disk.
    pub fn logs(self) -> bool {
        self != Durability::Memory
    }
}

/// How far a partition's log reaches in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The partition.
    pub partition: PartitionId,
    /// Its life.
    pub life: u32,
    /// Its last record.
    pub lsn: Lsn,
}

/// The entries of one turn.
#[derive(Debug, Default)]
pub struct LogTurn {
    /// Entries, one after the other, as [`storage::log_entry`] writes them.
    pub bytes: Rope,
    /// How far the partitions' logs reach with them.
    pub tails: Vec<Tail>,
    /// Partitions with other entries among them.
    pub touched: Vec<PartitionId>,
    /// Earlier pieces of the turn, oldest first.
    pieces: VecDeque<Piece>,
    /// Bytes of the records that the shard's partitions have ordered and not committed: not of the turn alone.
    pub uncommitted_bytes: usize,
}

/// Entries of a turn that are enough for one write.
#[derive(Debug)]
struct Piece {
    bytes: Rope,
    tails: Vec<Tail>,
    touched: Vec<PartitionId>,
}

/// A record before anything of it is copied.
pub(crate) struct NewRecord<'a> {
    pub position: Position,
    pub prev_epoch: Epoch,
    pub time_ms: u64,
    pub request: Option<&'a (RequestId, Bytes)>,
    pub body: Parts<'a>,
}

impl<'a> NewRecord<'a> {
    pub fn of(record: &'a Record) -> NewRecord<'a> {
        NewRecord {
            position: record.position,
            prev_epoch: record.prev_epoch,
            time_ms: record.time_ms,
            request: record.request.as_ref(),
            body: record.body.parts(),
        }
    }
}

impl LogTurn {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.pieces.is_empty()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>()
    }

    /// Takes the oldest piece that is left of the turn, in exchange for an empty buffer: how far it reaches, and which other partitions
    /// have entries in it. Most turns have one piece.
    pub fn take(&mut self, bytes: &mut Rope) -> Option<(Vec<Tail>, Vec<PartitionId>)> {
        if let Some(piece) = self.pieces.pop_front() {
            *bytes = piece.bytes;
            return Some((piece.tails, piece.touched));
        }
        if self.bytes.is_empty() {
            return None;
        }
        bytes.clear();
        std::mem::swap(&mut self.bytes, bytes);
        Some((std::mem::take(&mut self.tails), std::mem::take(&mut self.touched)))
    }

    /// Before an entry of about so many bytes: where it would be too much, it begins another piece.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if is_batch_enough(self.bytes.len() + bytes) && !self.bytes.is_empty() {
            self.cut();
        }
    }

    #[cold]
    fn cut(&mut self) {
        self.pieces.push_back(Piece {
            bytes: std::mem::take(&mut self.bytes),
            tails: std::mem::take(&mut self.tails),
            touched: std::mem::take(&mut self.touched),
        });
    }

    pub(crate) fn record(&mut self, partition: PartitionId, commit: Lsn, record: &NewRecord<'_>) {
        let request = record.request.map(|(id, reply)| (id, &reply[..]));
        let NewRecord { position, prev_epoch, time_ms, body, .. } = *record;
        self.make_room(body.len());
        log_entry::put_record(
            &mut self.bytes,
            partition,
            commit,
            position,
            prev_epoch,
            time_ms,
            request,
            body,
        );
    }

    pub(crate) fn truncate(&mut self, partition: PartitionId, after: Lsn) {
        log_entry::put_truncate(self.bytes.bytes(), partition, after);
        // What replaces the records may stand in the next piece.
        self.touch(partition);
    }

    pub(crate) fn wipe(&mut self, partition: PartitionId) {
        log_entry::put_wipe(self.bytes.bytes(), partition);
        self.touch(partition);
    }

    pub(crate) fn chunk(&mut self, partition: PartitionId, payload: &Tailed) {
        self.make_room(payload.len());
        log_entry::put_chunk(&mut self.bytes, partition, payload);
        self.touch(partition);
    }

    pub(crate) fn session(&mut self, partition: PartitionId, reign: Epoch, session: u64, next: u32) {
        log_entry::put_session(self.bytes.bytes(), partition, reign, session, next);
        self.touch(partition);
    }

    fn touch(&mut self, partition: PartitionId) {
        if self.touched.last() != Some(&partition) {
            self.touched.push(partition);
        }
    }

    pub(crate) fn filled(&mut self, partition: PartitionId, end: &SnapshotEnd) {
        log_entry::put_filled(self.bytes.bytes(), partition, end);
    }

    /// The partition's log now reaches to here.
    pub(crate) fn tail(&mut self, tail: Tail) {
        match self.tails.last_mut() {
            Some(last) if (last.partition, last.life) == (tail.partition, tail.life) => *last = tail,
            _ => self.tails.push(tail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::lent::HUGE_BYTES;

    const PARTITION: PartitionId = PartitionId(3);

    fn put(turn: &mut LogTurn, lsn: u64, body: &Bytes) {
        let record = Record {
            position: Position { epoch: Epoch(1), lsn: Lsn(lsn) },
            prev_epoch: Epoch(1),
            time_ms: 1,
            request: None,
            body: body.clone().into(),
        };
        turn.record(PARTITION, Lsn(0), &NewRecord::of(&record));
        turn.tail(Tail { partition: PARTITION, life: 0, lsn: Lsn(lsn) });
    }

    #[test]
    fn a_turn_of_huge_records_is_cut_between_them() {
        // All share one buffer.
        let huge = Bytes::from(vec![7; 20 << 20]);
        let mut turn = LogTurn::default();
        assert!(turn.is_empty());
        for lsn in 1..=8 {
            put(&mut turn, lsn, &huge);
        }
        turn.truncate(PARTITION, Lsn(7));
        let mut pieces = Vec::new();
        let mut bytes = Rope::default();
        while let Some((tails, touched)) = turn.take(&mut bytes) {
            assert!(!is_batch_enough(bytes.len()), "{} bytes", bytes.len());
            let last: Vec<u64> = tails.iter().map(|tail| tail.lsn.0).collect();
            pieces.push((last, touched.len(), bytes.len() / huge.len()));
        }
        assert_eq!(pieces, [(vec![3], 0, 3), (vec![6], 0, 3), (vec![8], 1, 2)]);
        assert!(turn.is_empty());
    }

    #[test]
    fn an_entry_stays_whole_however_large_it_is() {
        let mut turn = LogTurn::default();
        put(&mut turn, 1, &Bytes::from_static(b"small"));
        turn.chunk(PARTITION, &Bytes::from(vec![7; 17 * HUGE_BYTES]).into());
        put(&mut turn, 2, &Bytes::from_static(b"small"));
        let mut bytes = Rope::default();
        let mut sizes = Vec::new();
        while turn.take(&mut bytes).is_some() {
            sizes.push(bytes.len() / HUGE_BYTES);
        }
        assert_eq!(sizes, [0, 17, 0]);
    }
}
