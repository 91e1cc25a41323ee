//! A shard's log thread, as `server::log_thread` runs it, with a disk that takes as long as the world wants.
//!
//! Turns gather while the disk is at work. A write is begun by appending to the log, and is over, with its sync where `fsync` is
//! `always`, when the world says so ([`LogThread::go_on`]): what crashes meanwhile has written and not synced. A full disk is
//! tried again, and a failed one is the end of the process.
//!
//! Left out: snapshots of partitions, and so the removal of what the log holds no longer for.

use crate::disk::SimDisk;
use node::Published;
use node::recover::LogBegin;
use std::sync::Arc;
use std::time::Duration;
use storage::{ShardLog, ShardLogError};
use types::settings::Fsync;
use types::{Instant, ShardId};

/// How large a file of the log grows, in bytes: small, so that there are many.
pub const SEGMENT_BYTES: u64 = 16 << 10;
/// Room that is kept for what is ordered already when the disk turns out to be full, in bytes.
const AHEAD_BYTES: usize = 4 << 10;
/// From one sync to the next, with `everysec`.
const SECOND: Duration = Duration::from_secs(1);

/// What the disk is asked for, and is a while at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// To write.
    Write,
    /// To write, and then to sync.
    WriteAndSync,
    /// To sync.
    Sync,
    /// Nothing, but to be asked again: it is full.
    Retry,
}

/// A shard's log and what is on its way to it.
pub struct LogThread {
    shard: ShardId,
    log: ShardLog<SimDisk>,
    /// Snapshots will tell it what of the log is needed no longer.
    _begin: LogBegin<SimDisk>,
    fsync: Fsync,
    published: Arc<Published>,
    /// Entries that wait, and the last turn that they are of.
    gathered: Vec<u8>,
    turn: u64,
    work: Option<Work>,
    /// What is being written: kept until it is, because the disk may be full.
    writing: Vec<u8>,
    writing_turn: u64,
    synced_at: Instant,
}

impl LogThread {
    /// A thread that has just begun.
    pub fn new(
        shard: ShardId,
        log: ShardLog<SimDisk>,
        begin: LogBegin<SimDisk>,
        fsync: Fsync,
        published: Arc<Published>,
        now: Instant,
    ) -> LogThread {
        LogThread {
            shard,
            log,
            _begin: begin,
            fsync,
            published,
            gathered: Vec::new(),
            turn: 0,
            work: None,
            writing: Vec::new(),
            writing_turn: 0,
            synced_at: now,
        }
    }

    /// Makes room for what comes first.
    pub fn begin(&mut self) -> Result<(), ShardLogError> {
        self.reserve()
    }

    /// Takes the entries of a turn.
    pub fn push(&mut self, turn: u64, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        self.turn = turn;
    }

    /// Whether everything handed over is durable.
    pub fn is_synced(&self) -> bool {
        self.gathered.is_empty() && self.writing.is_empty() && self.log.durable() == self.log.end()
    }

    /// Begins what is to be done, if the disk is idle: the world tells when it is over.
    pub fn begin_work(&mut self, now: Instant) -> Result<Option<Work>, ShardLogError> {
        if self.work.is_some() {
            return Ok(None);
        }
        let work = if !self.gathered.is_empty() {
            std::mem::swap(&mut self.gathered, &mut self.writing);
            self.writing_turn = self.turn;
            self.append()?
        } else if self.fsync == Fsync::Everysec
            && now.since(self.synced_at) >= SECOND
            && self.log.durable() < self.log.end()
        {
            Work::Sync
        } else {
            return Ok(None);
        };
        self.work = Some(work);
        self.published.set_log_busy(self.shard, Some(now));
        Ok(Some(work))
    }

    fn append(&mut self) -> Result<Work, ShardLogError> {
        match self.log.append(&self.writing) {
            Ok(_) if self.fsync == Fsync::Always => Ok(Work::WriteAndSync),
            Ok(_) => Ok(Work::Write),
            Err(ShardLogError::Full { .. }) => {
                self.published.set_disk_full(self.shard, true);
                Ok(Work::Retry)
            }
            Err(error) => Err(error),
        }
    }

    /// The disk has done what it was at. Returns the turn up to which the log counts as durable now, and the offset; or what
    /// the disk is at next.
    pub fn go_on(&mut self, now: Instant) -> Result<Done, ShardLogError> {
        match self.work.take() {
            None => Ok(Done::Nothing),
            Some(Work::Retry) => {
                let work = self.append()?;
                self.work = Some(work);
                Ok(Done::Begun(work))
            }
            Some(Work::Sync) => {
                self.log.sync()?;
                self.synced_at = now;
                self.published.set_log_busy(self.shard, None);
                Ok(Done::Nothing)
            }
            Some(work @ (Work::Write | Work::WriteAndSync)) => {
                if work == Work::WriteAndSync {
                    self.log.sync()?;
                }
                self.writing.clear();
                self.published.set_log_busy(self.shard, None);
                self.reserve()?;
                Ok(Done::Logged { turn: self.writing_turn, offset: self.log.end() })
            }
        }
    }

    fn reserve(&mut self) -> Result<(), ShardLogError> {
        match self.log.reserve(AHEAD_BYTES) {
            Ok(()) => self.published.set_disk_full(self.shard, false),
            Err(ShardLogError::Full { .. }) => self.published.set_disk_full(self.shard, true),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// No more comes: everything is written and synced.
    pub fn stop(&mut self) -> Result<(), ShardLogError> {
        if self.work == Some(Work::Retry) {
            self.log.append(&self.writing)?;
        }
        if !self.gathered.is_empty() {
            self.log.append(&self.gathered)?;
        }
        self.log.sync().map(|_| ())
    }
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
