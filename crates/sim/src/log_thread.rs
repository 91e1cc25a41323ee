//! A shard's log thread and its share of the snapshot thread, as room `server` runs them, with a disk that takes as long as the
//! world wants.
//!
//! Turns gather while the disk is at work. A write is begun by appending to the log, and is over, with its sync where `fsync` is
//! `always`, when the world says so ([`LogThread::go_on`]): what crashes meanwhile has written and not synced. With `everysec` and
//! `never` syncs and the making of segments go on beside the writes ([`LogThread::begin_errand`]). A full disk is
//! tried again, and a failed one is the end of the process. Pieces of snapshots are written one at a time
//! ([`LogThread::write_snapshot`]), after the turns that they stand behind.

use crate::disk::{SimDisk, SimFile};
use node::recover::LogBegin;
use node::{Published, SnapshotJob};
use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::lent::is_batch_enough;
use storage::shard_log::Errand;
use storage::snapshot_file::{SnapshotError, SnapshotWriter, remove_snapshot};
use storage::{Rope, ShardLog, ShardLogError};
use types::settings::Fsync;
use types::{Instant, PartitionId, ShardId};

/// How large a file of the log grows, in bytes: small, so that there are many.
pub const SEGMENT_BYTES: u64 = 16 << 10;
/// Room that is kept for what is ordered already when the disk turns out to be full, in bytes.
const AHEAD_BYTES: usize = 4 << 10;
/// The part of it that is for what a copy has to note whatever comes.
const LAST_BYTES: usize = 1 << 10;
/// From one sync to the next, with `everysec`.
const SECOND: Duration = Duration::from_secs(1);

/// An error that is the end of the process.
pub type Failed = Box<dyn Error>;

/// What the disk is asked for, and is a while at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// To write.
    Write,
    /// To write, and then to sync.
    WriteAndSync,
    /// Nothing, but to be asked again: it is full.
    Retry,
}

/// What came of the disk's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing that anybody waits for.
    Nothing,
    /// The disk is at work again.
    Begun(Work),
    /// The log is durable up to here.
    Logged {
        /// The turn.
        turn: u64,
        /// The log's end.
        offset: u64,
    },
}

/// What the shard is told of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotNews {
    /// A piece is written.
    Piece,
    /// One is on disk, or could not be written.
    Done(PartitionId, bool),
}

#[derive(Debug)]
enum Item {
    /// Entries, up to those of a turn.
    Turn(u64, Rope),
    Job(SnapshotJob),
}

/// Where a shard's files are, and whose they are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The shard.
    pub shard: ShardId,
    /// The disk.
    pub disk: SimDisk,
    /// The shard's directory.
    pub directory: PathBuf,
    /// Whose files these are.
    pub identity: [u8; 32],
}

/// A shard's log and what is on its way to it.
pub struct LogThread {
    place: Place,
    log: ShardLog<SimDisk>,
    begin: LogBegin<SimDisk>,
    fsync: Fsync,
    published: Arc<Published>,
    /// What waits, in order.
    items: VecDeque<Item>,
    work: Option<Work>,
    /// The last turn that is being written.
    writing: Option<u64>,
    full: bool,
    /// What is done beside the writes.
    errand: Option<Errand<SimDisk>>,
    /// Oldest segments that are removed, of which the log does not know yet.
    gone: Option<usize>,
    synced_at: Instant,
    /// What the snapshot thread is to do, and at which place of the log.
    orders: VecDeque<(u64, SnapshotJob)>,
    snapshot: Option<(PartitionId, SnapshotWriter<SimDisk>)>,
    snapshot_at_work: bool,
}

impl LogThread {
    /// A thread that has just begun.
    pub fn new(
        place: Place,
        log: ShardLog<SimDisk>,
        begin: LogBegin<SimDisk>,
        fsync: Fsync,
        published: Arc<Published>,
        now: Instant,
    ) -> Result<LogThread, Failed> {
        let mut thread = LogThread {
            place,
            log,
            begin,
            fsync,
            published,
            items: VecDeque::new(),
            work: None,
            writing: None,
            full: false,
            errand: None,
            gone: None,
            synced_at: now,
            orders: VecDeque::new(),
            snapshot: None,
            snapshot_at_work: false,
        };
        thread.reserve()?;
        Ok(thread)
    }

    /// Takes the entries of a turn.
    pub fn push(&mut self, turn: u64, bytes: &mut Rope) {
        match self.items.back_mut() {
            Some(Item::Turn(last, waiting)) if !is_batch_enough(waiting.len() + bytes.len()) => {
                *last = turn;
                waiting.append(bytes);
            }
            _ => self.items.push_back(Item::Turn(turn, std::mem::take(bytes))),
        }
    }

    /// Takes what is to be done about snapshots after that.
    pub fn push_jobs(&mut self, jobs: Vec<SnapshotJob>) {
        self.items.extend(jobs.into_iter().map(Item::Job));
    }

    /// Whether everything handed over is durable.
    pub fn is_synced(&self) -> bool {
        self.items.is_empty() && self.writing.is_none() && self.log.durable() == self.log.end()
    }

    /// Begins what is to be done, if the disk is idle: the world tells when it is over.
    pub fn begin_work(&mut self, now: Instant) -> Result<Option<Work>, Failed> {
        if self.work.is_some() {
            return Ok(None);
        }
        let work = if !self.items.is_empty() {
            self.write()?
        } else if self.full {
            // While all is refused nothing comes that would find the room.
            Some(Work::Retry)
        } else {
            None
        };
        self.begun(work, now);
        Ok(work)
    }

    fn begun(&mut self, work: Option<Work>, now: Instant) {
        self.work = work;
        // A full disk does not stand still, it waits for room.
        let is_busy = work.is_some_and(|work| work != Work::Retry);
        self.published.set_log_busy(self.place.shard, is_busy.then_some(now));
    }

    /// Begins what is to be done beside the writes, if anything is: the world tells when it is over.
    pub fn begin_errand(&mut self, now: Instant) -> Result<bool, Failed> {
        if self.fsync == Fsync::Always {
            return Ok(false);
        }
        let is_due = self.fsync == Fsync::Everysec && now.since(self.synced_at) >= SECOND;
        let Some(errand) = self.log.errand(is_due || self.waits_for_sync())? else { return Ok(false) };
        if errand.is_sync() {
            self.synced_at = now;
        }
        self.errand = Some(errand);
        self.published.set_log_busy_beside(self.place.shard, Some(now));
        Ok(true)
    }

    /// What was begun beside the writes is done.
    pub fn end_errand(&mut self) -> Result<(), Failed> {
        self.published.set_log_busy_beside(self.place.shard, None);
        if let Some(errand) = self.errand.take() {
            self.log.come_back(errand.run())?;
        }
        Ok(())
    }

    /// Whether the next step of a snapshot stands for a place in the log that has to be there first: what the log holds of a snapshot
    /// that is finished, and that a partition holds nothing before its snapshot is gone.
    fn waits_for_sync(&self) -> bool {
        matches!(self.orders.front(), Some((at, SnapshotJob::Finish(_) | SnapshotJob::Remove(_))) if self.log.durable() < *at)
    }

    /// Appends all that waits, up to where the disk is full.
    fn write(&mut self) -> Result<Option<Work>, Failed> {
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Turn(turn, bytes) => match self.log.append_rope(&bytes) {
                    Ok(_) => self.writing = Some(turn),
                    Err(ShardLogError::Full { .. }) => {
                        self.items.push_front(Item::Turn(turn, bytes));
                        self.set_full(true);
                        self.published.set_disk_used_up(self.place.shard, true);
                        return Ok(Some(Work::Retry));
                    }
                    Err(error) => return Err(error.into()),
                },
                Item::Job(SnapshotJob::Release(offset, snapshots)) => self.release(offset, &snapshots)?,
                Item::Job(job) => self.orders.push_back((self.log.end(), job)),
            }
        }
        Ok(self.writing.map(|_| match self.fsync {
            Fsync::Always => Work::WriteAndSync,
            _ => Work::Write,
        }))
    }

    /// Removes what no partition needs any more. The log hears of it with the next write: another thread does it.
    fn release(&mut self, offset: u64, snapshots: &BTreeSet<PartitionId>) -> Result<(), Failed> {
        match self.begin.advance(offset, snapshots) {
            Ok(()) => {
                self.forget_what_is_gone()?;
                if let Some(removal) = self.log.removal(offset) {
                    let count = removal.count();
                    removal.run()?;
                    self.gone = Some(count);
                }
                Ok(())
            }
            Err(error) if error.is_full() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn forget_what_is_gone(&mut self) -> Result<(), Failed> {
        if let Some(count) = self.gone.take() {
            self.log.forget(Ok(count))?;
        }
        Ok(())
    }

    /// The disk has done what it was at.
    pub fn go_on(&mut self, now: Instant) -> Result<Done, Failed> {
        match self.work.take() {
            None => {}
            Some(Work::Retry) => {
                if self.items.is_empty() {
                    self.reserve()?;
                }
                let work = self.write()?;
                self.begun(work, now);
                return Ok(work.map_or(Done::Nothing, Done::Begun));
            }
            Some(work @ (Work::Write | Work::WriteAndSync)) => {
                if work == Work::WriteAndSync {
                    self.log.sync()?;
                }
                self.begun(None, now);
                self.reserve()?;
                self.forget_what_is_gone()?;
                if let Some(turn) = self.writing.take() {
                    return Ok(Done::Logged { turn, offset: self.log.end() });
                }
            }
        }
        self.begun(None, now);
        Ok(Done::Nothing)
    }

    fn reserve(&mut self) -> Result<(), Failed> {
        match self.log.reserve(AHEAD_BYTES) {
            Ok(()) => self.set_full(false),
            Err(ShardLogError::Full { .. }) => {
                self.set_full(true);
                match self.log.reserve(LAST_BYTES) {
                    Ok(()) => self.published.set_disk_used_up(self.place.shard, false),
                    Err(ShardLogError::Full { .. }) => {
                        self.published.set_disk_used_up(self.place.shard, true)
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn set_full(&mut self, full: bool) {
        self.full = full;
        self.published.set_disk_full(self.place.shard, full);
    }

    /// Whether a step of a snapshot can be taken, and is not under way. Orders wait until what was written before them counts.
    pub fn begin_snapshot_work(&mut self) -> bool {
        let begins = self.writing.is_none()
            && !self.orders.is_empty()
            && !self.waits_for_sync()
            && !self.snapshot_at_work;
        self.snapshot_at_work |= begins;
        begins
    }

    /// Takes the next step of a snapshot.
    pub fn write_snapshot(&mut self) -> Result<Option<SnapshotNews>, Failed> {
        self.snapshot_at_work = false;
        let Some((log_offset, job)) = self.orders.pop_front() else { return Ok(None) };
        let Place { disk, directory, identity, .. } = &self.place;
        let news = match job {
            SnapshotJob::Begin(partition) => {
                if let Some((_, left)) = self.snapshot.take() {
                    left.abandon();
                }
                match SnapshotWriter::begin(disk.clone(), directory, identity, partition, log_offset) {
                    Ok(writer) => {
                        self.snapshot = Some((partition, writer));
                        None
                    }
                    Err(error) => Some(refused(partition, error)?),
                }
            }
            SnapshotJob::Piece(piece) => {
                if let Some((partition, mut writer)) = self.snapshot.take() {
                    match writer.chunk(&piece) {
                        Ok(()) => self.snapshot = Some((partition, writer)),
                        Err(error) => {
                            writer.abandon();
                            // The piece is not told of, which changes nothing: there is no snapshot any more.
                            return refused(partition, error).map(Some);
                        }
                    }
                }
                Some(SnapshotNews::Piece)
            }
            SnapshotJob::Finish(end) => match self.snapshot.take() {
                None => None,
                Some((partition, writer)) => match writer.finish(&end) {
                    Ok(_) => Some(SnapshotNews::Done(partition, true)),
                    Err(error) => Some(refused(partition, error)?),
                },
            },
            SnapshotJob::Abandon => {
                if let Some((_, left)) = self.snapshot.take() {
                    left.abandon();
                }
                None
            }
            SnapshotJob::Remove(partition) => match remove_snapshot(disk, directory, partition) {
                Ok(()) => Some(SnapshotNews::Done(partition, true)),
                Err(error) => Some(refused(partition, error)?),
            },
            // The log thread's own.
            SnapshotJob::Release(..) => None,
        };
        Ok(news)
    }

    /// No more comes: everything is written and synced.
    pub fn stop(&mut self) -> Result<(), Failed> {
        while let Some(item) = self.items.pop_front() {
            if let Item::Turn(_, bytes) = item {
                self.log.append_rope(&bytes)?;
            }
        }
        self.end_errand()?;
        self.log.sync()?;
        Ok(())
    }
}

/// Removes the segments that end at or before a logical offset at once, for who has no other thread.
pub fn remove_before(log: &mut ShardLog<SimDisk>, offset: u64) -> Result<Vec<SimFile>, ShardLogError> {
    let Some(removal) = log.removal(offset) else { return Ok(Vec::new()) };
    let count = removal.count();
    let removed = removal.run();
    let (files, count) = match removed {
        Ok(files) => (files, Ok(count)),
        Err(error) => (Vec::new(), Err(error)),
    };
    log.forget(count)?;
    Ok(files)
}

/// There is no snapshot; or nobody knows what is on the disk.
fn refused(partition: PartitionId, error: SnapshotError) -> Result<SnapshotNews, Failed> {
    if error.is_final() { Err(error.into()) } else { Ok(SnapshotNews::Done(partition, false)) }
}
