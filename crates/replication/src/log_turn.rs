//! What a shard's partitions add to its log on disk in one turn.
//!
//! Partitions write entries here; whoever drives the shard puts them on the disk in this order and says, later, up to which
//! turn that is done ([`crate::Partition::on_durable`]). Each record is named by its partition, its lsn, and the partition's
//! *life*, which ends whenever part of its log is discarded: word of an earlier life's records says nothing of later ones that
//! stand at the same lsn.

use bytes::Bytes;
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
    /// Bytes of the records that the shard's partitions have ordered and not committed: not of the turn alone.
    pub uncommitted_bytes: usize,
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
        self.bytes.is_empty()
    }

    pub(crate) fn record(&mut self, partition: PartitionId, commit: Lsn, record: &NewRecord<'_>) {
        let request = record.request.map(|(id, reply)| (id, &reply[..]));
        let NewRecord { position, prev_epoch, time_ms, body, .. } = *record;
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
    }

    pub(crate) fn wipe(&mut self, partition: PartitionId) {
        log_entry::put_wipe(self.bytes.bytes(), partition);
        self.touch(partition);
    }

    pub(crate) fn chunk(&mut self, partition: PartitionId, payload: &Tailed) {
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
