//! A copy as its disk has kept it: a snapshot, if there is one, and what the log holds since.
//!
//! The caller gives a partition first the pieces of its snapshot, then the entries of the shard's log from the snapshot's place
//! on, in their order, and then says that this was all. What comes out is a copy without a role: the map gives it one. All of it
//! is durable. Records that are not known to be committed stay in the log alone, as on a backup.

use crate::backup::InTransfer;
use crate::log_turn::LogTurn;
use crate::partition::Partition;
use bytes::Bytes;
use storage::log_entry::LogEntry;
use storage::prefetch::fetch_all;
use storage::{Corrupt, Log, Record, SnapshotEnd, effect, snapshot};
use types::{Epoch, Lsn, Position};

/// How far a copy is read back.
#[derive(Debug, Default)]
pub struct Recovery {
    /// A snapshot sent by another node is being read back, and has not ended yet.
    filling: bool,
    /// Of which reign and transfer that is, and where the copy stands in it. None: an earlier version's log does not say.
    transfer: Option<(Epoch, InTransfer)>,
    /// What another node's snapshot shows counts only once this is committed.
    complete_at: Lsn,
    /// What its primary has told since to be committed: the copy's own commit begins at the snapshot's base, which may not be.
    told: Lsn,
    /// What this node's own snapshot shows, which was committed when it was written.
    shown: Lsn,
    /// The last record that its snapshot stands for.
    start: Lsn,
    /// At which lsn each epoch begins among the records since that the log in memory has forgotten.
    passed: Vec<(Epoch, Lsn)>,
    /// The hash of the first key of the last record seen, which is applied by one of the next entries.
    ahead: u64,
}

impl Recovery {
    /// Whether it is a record that the log in memory has forgotten, or that the snapshot stands for.
    fn has_passed(&self, position: Position) -> bool {
        let epochs = self.passed.partition_point(|&(_, first)| first <= position.lsn);
        position.lsn <= self.start
            || epochs.checked_sub(1).is_some_and(|last| self.passed[last].0 == position.epoch)
    }

    /// The log may forget its records up to `upto` from now on.
    fn pass(&mut self, log: &Log, upto: Lsn) {
        let newest = self.passed.last().map(|&(epoch, _)| epoch);
        let epochs = log.epochs().iter().take_while(|&&(_, first)| first <= upto);
        self.passed.extend(epochs.filter(|&&(epoch, _)| newest.is_none_or(|newest| epoch > newest)));
    }
}

impl<W> Partition<W> {
    /// A piece of its snapshot.
    pub fn recover_chunk(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.on_disk = true;
        snapshot::load_chunk(chunk, &mut self.table).map(|_| ())
    }

    /// The end of its snapshot, which stands in a file of its own: it was written once all that it shows was committed.
    pub fn recover_end(&mut self, recovery: &mut Recovery, end: SnapshotEnd) {
        (recovery.shown, recovery.start) = (end.complete_at, end.base.lsn);
        self.take_end(end);
    }

    fn take_end(&mut self, end: SnapshotEnd) {
        self.log.reset(end.base);
        self.commit = end.base.lsn;
        self.last_time_ms = end.time_ms;
        self.last_version = end.version;
        self.requests.import(end.requests, end.forgotten, end.time_ms);
    }

    /// Fetches into the cache what [`Partition::recover_prefetch`] reads of it.
    #[inline]
    pub fn recover_prefetch_self(&self) {
        fetch_all(self);
    }

    /// Fetches the part of the index that an entry to come will read, and returns the hash for
    /// [`Partition::recover_prefetch_piece`]. An entry tells that the record before it is committed, so that one's key counts.
    #[inline]
    pub fn recover_prefetch(&self, recovery: &mut Recovery, entry: &LogEntry) -> u64 {
        let LogEntry::Record { record, .. } = entry else { return 0 };
        let first = effect::effects(&record.body).next();
        let key = first.as_ref().and_then(|first| first.as_ref().ok()?.key()).unwrap_or_default();
        let hash = std::mem::replace(&mut recovery.ahead, self.table.hasher().hash(key));
        self.table.prefetch_index(hash);
        hash
    }

    /// Fetches what stands in the table under this hash.
    #[inline]
    pub fn recover_prefetch_piece(&self, hash: u64) {
        self.table.prefetch(hash);
    }

    /// An entry of the shard's log that is this partition's. `keeps`: committed records stay in memory for copies that were away
    /// shortly, as far as they do in a running node; otherwise none does.
    pub fn recover_entry(
        &mut self,
        recovery: &mut Recovery,
        entry: LogEntry,
        keeps: bool,
    ) -> Result<(), Corrupt> {
        self.on_disk = true;
        match entry {
            LogEntry::Record { commit, record, .. } => {
                recovery.told = recovery.told.max(commit);
                let last = self.log.last();
                let lsn = record.position.lsn;
                let is_passed = lsn <= self.log.base().lsn && recovery.has_passed(record.position);
                if is_passed || self.log.position_at(lsn) == Some(record.position) {
                    // In the snapshot already, or logged once more for the sake of one.
                    return Ok(());
                }
                if recovery.filling || record.prev() != last || record.position.epoch < record.prev_epoch {
                    return Err(Corrupt { what: "a record that does not follow the one before it" });
                }
                if let Some((id, reply)) = &record.request {
                    let reply = Bytes::copy_from_slice(reply);
                    self.requests.add(*id, record.position.lsn, record.time_ms, reply);
                }
                // The body is part of a large buffer, which must not live as long as it.
                let body = Bytes::from(record.body.to_bytes().to_vec()).into();
                let request = record.request.map(|(id, reply)| (id, Bytes::copy_from_slice(&reply)));
                self.log.append(Record { body, request, ..record });
                let upto = commit.max(recovery.shown).min(self.log.last().lsn);
                if upto > self.commit {
                    self.table.begin_filling();
                    self.apply_up_to(upto);
                    recovery.pass(&self.log, upto);
                    if keeps {
                        self.trim_log(Lsn(u64::MAX));
                    } else {
                        self.log.trim(upto);
                    }
                }
            }
            LogEntry::Truncate { after, .. } => {
                if after < self.commit {
                    return Err(Corrupt { what: "a committed record that was discarded" });
                }
                self.log.truncate_after(after);
                self.requests.undo_after(after);
            }
            LogEntry::Wipe { .. } => {
                self.forget();
                *recovery = Recovery::default();
            }
            LogEntry::Chunk { payload, .. } => {
                recovery.filling = true;
                self.recover_chunk(&payload)?;
                recovery.transfer.iter_mut().for_each(|(_, at)| at.next += 1);
            }
            LogEntry::Session { reign, session, next, .. } => {
                recovery.filling = true;
                recovery.transfer = Some((reign, InTransfer { session, next }));
            }
            LogEntry::Filled { end, .. } => {
                let (complete_at, start, transfer) = (end.complete_at, end.base.lsn, recovery.transfer);
                *recovery = Recovery { complete_at, start, transfer, ..Recovery::default() };
                self.take_end(end);
            }
        }
        Ok(())
    }

    /// It cannot be used: it holds nothing.
    pub fn abandon(&mut self, log: &mut LogTurn) {
        self.on_disk = true;
        self.wipe(log);
    }

    /// That was all. What another node's snapshot left unfinished is kept for as long as the reign lasts in which it was sent: the
    /// map tells. Where only word of the commit is missing, such a copy may count by now, and the map says whether it does.
    pub fn recovered(&mut self, recovery: &Recovery, log: &mut LogTurn) -> Result<(), Corrupt> {
        let last = self.log.last().lsn;
        if last < recovery.shown {
            return Err(Corrupt { what: "a snapshot that shows more than the log holds" });
        }
        let misses_records = !recovery.filling && last < recovery.complete_at;
        let is_unsettled = !recovery.filling && recovery.told < recovery.complete_at;
        if misses_records || recovery.filling && recovery.transfer.is_none() {
            self.wipe(log);
        } else if recovery.filling || is_unsettled {
            self.unsettled = is_unsettled.then_some(recovery.complete_at);
            if let Some((reign, at)) = recovery.transfer {
                self.primary_since = reign;
                self.came_back_in = Some(at);
            }
        }
        self.durable = self.log.last().lsn;
        self.table.end_filling();
        Ok(())
    }
}
