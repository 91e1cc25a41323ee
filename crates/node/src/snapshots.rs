//! Snapshots of a shard's partitions on disk, one after the other, while they are served.
//!
//! A snapshot is begun between two turns: what the log holds up to there is in the table, and what comes later stands behind
//! that place in the log. The table is cut into pieces a little at a time, so each piece may show changes made meanwhile; they
//! are in the log too, and putting them again changes nothing. It counts once all that it shows is committed. Then the log
//! before its place is not needed for this partition any more, and where no partition needs it, it goes.
//!
//! When: once the log that would have to be read at a start has outgrown the tables or `snapshot_log_bytes`, the partition that
//! needs the oldest part of it first; every `snapshot_interval`; when a client asks (`BGSAVE`).

use crate::needed_from::NeededFrom;
use crate::shard::Shard;
use replication::Partition;
use std::collections::BTreeSet;
use std::time::Duration;
use storage::{SnapshotEnd, Tailed, TailedBuffer, snapshot};
use types::{Epoch, Instant, PartitionId, Position};

/// The size of a piece, in bytes.
const PIECE_BYTES: usize = 32 * 1024;
/// Pieces that may be on their way to the disk.
const AHEAD: usize = 16;
/// After a failure nothing is begun for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// What has to be done about a snapshot, in order with the turns of the log.
#[derive(Debug)]
pub enum SnapshotJob {
    /// A file is begun; it stands for the log up to here.
    Begin(PartitionId),
    /// A piece of it. Answered by [`Shard::snapshot_piece_written`].
    Piece(Tailed),
    /// It ends. Answered by [`Shard::snapshot_done`].
    Finish(SnapshotEnd),
    /// It is not to be.
    Abandon,
    /// The partition holds nothing: its file goes. Answered by [`Shard::snapshot_done`].
    Remove(PartitionId),
    /// The log before this offset is not needed any more, since these partitions have a snapshot.
    Release(u64, BTreeSet<PartitionId>),
}

/// A shard's snapshots.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// From where on the log is needed, for each partition that has entries which its snapshot lacks.
    needed_from: NeededFrom,
    /// Where the log ends, as far as it is durable.
    log_end: u64,
    /// Partitions with a snapshot on disk.
    on_disk: BTreeSet<PartitionId>,
    /// What lies before is released.
    released: u64,
    /// Partitions that are to have a snapshot, whatever the log's size.
    wanted: BTreeSet<PartitionId>,
    /// How often a client's wish for all of them was heard of.
    asked: u64,
    /// When all were last wanted.
    wanted_at: Option<Instant>,
    current: Option<Current>,
    /// The next one that is due.
    next: Option<PartitionId>,
    /// A piece was cut in this turn: one is enough, since requests wait meanwhile.
    has_cut: bool,
    paused_until: Instant,
}

/// The snapshot that is being made.
#[derive(Debug)]
struct Current {
    partition: PartitionId,
    /// The last turn of the log before it.
    turn: u64,
    /// An entry since.
    next_needed: Option<u64>,
    /// What must not change meanwhile.
    reign: (Epoch, bool, u32),
    base: Position,
    base_time_ms: u64,
    step: Step,
    /// Pieces on their way.
    under_way: usize,
    /// The partition holds nothing: its file goes.
    removes: bool,
}

#[derive(Debug)]
enum Step {
    /// The next piece begins here.
    Cutting(u64),
    /// All is cut, and counts once what it shows is committed.
    Waiting(SnapshotEnd),
    /// It is being written, or removed.
    Writing,
}

impl Snapshots {
    pub fn new(needed_from: NeededFrom, on_disk: BTreeSet<PartitionId>, log_end: u64) -> Snapshots {
        Snapshots { needed_from, on_disk, log_end, ..Snapshots::default() }
    }

    /// Entries of these partitions are durable, in a turn that ends at `end`.
    pub fn logged(&mut self, turn: u64, end: u64, partitions: impl Iterator<Item = PartitionId>) {
        let start = self.log_end;
        for partition in partitions {
            self.needed_from.note(partition, start);
            if let Some(current) = &mut self.current
                && current.partition == partition
                && turn > current.turn
            {
                current.next_needed.get_or_insert(start);
            }
        }
        self.log_end = self.log_end.max(end);
    }

    fn oldest(&self) -> Option<(PartitionId, u64)> {
        self.needed_from.oldest()
    }

    /// The log that a start would have to read, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.oldest().map_or(0, |(_, from)| self.log_end.saturating_sub(from))
    }

    /// Whether every partition that was wanted has its snapshot.
    pub fn are_done(&self) -> bool {
        self.wanted.is_empty()
    }
}

impl Shard {
    /// Whether a piece can be cut now.
    pub(crate) fn has_piece_to_cut(&self) -> bool {
        let is_cutting =
            |current: &Current| matches!(current.step, Step::Cutting(_)) && current.under_way < AHEAD;
        !self.snapshots.has_cut && self.snapshots.current.as_ref().is_some_and(is_cutting)
    }

    /// Cuts a piece.
    pub(crate) fn cut_piece(&mut self) {
        if !self.has_piece_to_cut() {
            return;
        }
        let Some(current) = &mut self.snapshots.current else { return };
        let Step::Cutting(cursor) = current.step else { return };
        let partition = self.partitions.get(current.partition).filter(|copy| copy.reign() == current.reign);
        let Some(partition) = partition else { return self.abandon_snapshot() };
        let mut piece = TailedBuffer::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        let next = snapshot::write_chunk(partition.table(), cursor, PIECE_BYTES, &mut piece);
        current.under_way += 1;
        self.snapshots.has_cut = true;
        current.step = match next {
            Some(cursor) => Step::Cutting(cursor),
            None => Step::Waiting(partition.snapshot_end(current.base, current.base_time_ms)),
        };
        self.effects.snapshots.push(SnapshotJob::Piece(piece.finished(0)));
        self.finish_snapshot();
    }

    /// Ends a snapshot that is cut, once all that it shows is committed.
    fn finish_snapshot(&mut self) {
        let Some(current) = &mut self.snapshots.current else { return };
        let Step::Waiting(end) = &current.step else { return };
        let partition = self.partitions.get(current.partition).filter(|copy| copy.reign() == current.reign);
        let Some(partition) = partition else { return self.abandon_snapshot() };
        if partition.commit() >= end.complete_at
            && let Step::Waiting(end) = std::mem::replace(&mut current.step, Step::Writing)
        {
            self.effects.snapshots.push(SnapshotJob::Finish(end));
        }
    }

    fn abandon_snapshot(&mut self) {
        if let Some(current) = self.snapshots.current.take()
            && !matches!(current.step, Step::Writing)
        {
            self.effects.snapshots.push(SnapshotJob::Abandon);
        }
    }

    /// Time passes: a snapshot that waits may end, and another may be due.
    pub(crate) fn tick_snapshots(&mut self, now: Instant) {
        if !self.durability.logs() {
            return;
        }
        self.finish_snapshot();
        self.want_snapshots(now);
        self.snapshots.next = self.next_snapshot();
    }

    /// Notes which snapshots are wanted, for whatever reason.
    fn want_snapshots(&mut self, now: Instant) {
        let settings = &self.config.settings;
        let asked = self.config.published.saves_asked();
        let snapshots = &mut self.snapshots;
        if snapshots.wanted_at.is_none() && self.context.clock_ms.is_some() {
            snapshots.wanted_at = Some(now);
            return self.note_saved();
        }
        let due = snapshots.wanted_at.unwrap_or(now);
        let interval = settings.snapshot_interval;
        let is_due = interval > 0 && now.since(due) >= Duration::from_secs(interval);
        if asked > snapshots.asked || is_due {
            snapshots.wanted_at = Some(now);
            snapshots.wanted.extend(snapshots.needed_from.partitions());
            if snapshots.asked < asked {
                snapshots.asked = asked;
                self.note_saved();
            }
        }
    }

    /// Begins the next snapshot, right after a turn of the log was taken: what the log holds up to there is in the tables.
    pub(crate) fn begin_snapshot(&mut self) {
        self.snapshots.has_cut = false;
        let now = self.context.now;
        if self.snapshots.next.is_none()
            || self.snapshots.current.is_some()
            || now < self.snapshots.paused_until
        {
            return;
        }
        let Some(id) = self.snapshots.next.take() else { return };
        let turn = self.last_turn();
        let Some(partition) = self.partitions.get(id) else { return };
        let is_empty = !partition.is_on_disk();
        if !is_empty && partition.is_incomplete() {
            // Half filled: its pieces are in the log, and will be for a while.
            self.snapshots.paused_until = now + PAUSE;
            return;
        }
        let base = partition.snapshot_base();
        self.snapshots.current = Some(Current {
            partition: id,
            turn,
            next_needed: None,
            reign: partition.reign(),
            base,
            base_time_ms: partition.last_time_ms(),
            step: if is_empty { Step::Writing } else { Step::Cutting(0) },
            under_way: 0,
            removes: is_empty,
        });
        if !is_empty && let Some(partition) = self.partitions.get_mut(id) {
            partition.log_again(base, &mut self.outbox.log);
        }
        let job = if is_empty { SnapshotJob::Remove(id) } else { SnapshotJob::Begin(id) };
        self.effects.snapshots.push(job);
    }

    fn next_snapshot(&mut self) -> Option<PartitionId> {
        let snapshots = &mut self.snapshots;
        while let Some(&wanted) = snapshots.wanted.first() {
            // One that is half filled counts for nothing yet, and its pieces are in the log: nobody waits for it.
            let is_half_filled =
                self.partitions.get(wanted).is_some_and(|copy| copy.is_on_disk() && copy.is_incomplete());
            if snapshots.needed_from.contains(wanted) && !is_half_filled {
                return Some(wanted);
            }
            snapshots.wanted.pop_first();
            if snapshots.wanted.is_empty() {
                self.note_saved();
                return None;
            }
        }
        let tables: usize = self.table_bytes;
        let bound = self.config.settings.snapshot_log_bytes.0 / u64::from(self.config.shards.max(1));
        let (oldest, _) = snapshots.oldest()?;
        (snapshots.log_bytes() > bound.max(tables as u64)).then_some(oldest)
    }

    /// A piece is written.
    pub fn snapshot_piece_written(&mut self) {
        if let Some(current) = &mut self.snapshots.current {
            current.under_way = current.under_way.saturating_sub(1);
        }
    }

    /// A snapshot is on disk, or could not be written.
    pub fn snapshot_done(&mut self, id: PartitionId, written: bool) {
        let Some(current) = self.snapshots.current.take_if(|current| current.partition == id) else { return };
        if !written {
            self.snapshots.paused_until = self.context.now + PAUSE;
            return;
        }
        match current.removes {
            true => self.snapshots.on_disk.remove(&id),
            false => self.snapshots.on_disk.insert(id),
        };
        self.snapshots.needed_from.set(id, current.next_needed);
        // One that the log's size asked for is not all.
        if self.snapshots.wanted.remove(&id) {
            self.note_saved();
        }
        self.snapshots.next = self.next_snapshot();
        let needed = self.snapshots.oldest().map_or(self.snapshots.log_end, |(_, from)| from);
        if needed > self.snapshots.released {
            self.snapshots.released = needed;
            let snapshots = self.snapshots.on_disk.clone();
            self.effects.snapshots.push(SnapshotJob::Release(needed, snapshots));
        }
    }

    fn note_saved(&self) {
        if self.snapshots.are_done() {
            let now_s = self.context.clock_ms.unwrap_or(0) / 1000;
            self.config.published.saved(self.config.shard, self.snapshots.asked, now_s);
        }
    }
}

/// A partition's word on what a snapshot of it depends on.
trait Reign {
    fn reign(&self) -> (Epoch, bool, u32);
}

impl<W> Reign for Partition<W> {
    fn reign(&self) -> (Epoch, bool, u32) {
        (self.primary_since(), self.is_primary(), self.life())
    }
}
