//! A copy as its disk has kept it: a snapshot, if there is one, and what the log holds since.
//!
//! The caller gives a partition first the pieces of its snapshot, then the entries of the shard's log from the snapshot's place
//! on, in their order, and then says that this was all. What comes out is a copy without a role: the map gives it one. All of it
//! is durable. Records that are not known to be committed stay in the log alone, as on a backup.

use crate::log_turn::LogTurn;
use crate::partition::Partition;
use bytes::Bytes;
use storage::log_entry::LogEntry;
use storage::{Corrupt, Record, SnapshotEnd, snapshot};
use types::Lsn;

/// How far a copy is read back.
#[derive(Debug, Default)]
pub struct Recovery {
    /// A snapshot sent by another node is being read back, and has not ended yet.
    filling: bool,
    /// What another node's snapshot shows counts only once this is committed.
    complete_at: Lsn,
    /// What its primary has told since to be committed: the copy's own commit begins at the snapshot's base, which may not be.
    told: Lsn,
    /// What this node's own snapshot shows, which was committed when it was written.
    shown: Lsn,
}

impl<W> Partition<W> {
    /// A piece of its snapshot.
    pub fn recover_chunk(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.on_disk = true;
        snapshot::load_chunk(chunk, &mut self.table).map(|_| ())
    }

    /// The end of its snapshot, which stands in a file of its own: it was written once all that it shows was committed.
    pub fn recover_end(&mut self, recovery: &mut Recovery, end: SnapshotEnd) {
        recovery.shown = end.complete_at;
        self.take_end(end);
    }

    fn take_end(&mut self, end: SnapshotEnd) {
        self.log.reset(end.base);
        self.commit = end.base.lsn;
        self.last_time_ms = end.time_ms;
        self.last_version = end.version;
        self.requests.import(end.requests, end.forgotten, end.time_ms);
    }

    /// An entry of the shard's log that is this partition's.
    pub fn recover_entry(&mut self, recovery: &mut Recovery, entry: LogEntry) -> Result<(), Corrupt> {
        self.on_disk = true;
        match entry {
            LogEntry::Record { commit, record, .. } => {
                recovery.told = recovery.told.max(commit);
                let last = self.log.last();
                let lsn = record.position.lsn;
                if lsn <= self.log.base().lsn || self.log.position_at(lsn) == Some(record.position) {
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
                let body = Bytes::copy_from_slice(&record.body);
                let request = record.request.map(|(id, reply)| (id, Bytes::copy_from_slice(&reply)));
                self.log.append(Record { body, request, ..record });
                let upto = commit.max(recovery.shown).min(self.log.last().lsn);
                if upto > self.commit {
                    self.apply_up_to(upto);
                    self.trim_log(Lsn(u64::MAX));
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
            }
            LogEntry::Filled { end, .. } => {
                *recovery = Recovery { complete_at: end.complete_at, ..Recovery::default() };
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

    /// That was all. What another node's snapshot left unfinished is given up: such a copy counted for nothing. Where only word
    /// of the commit is missing, it may count by now, and the map says whether it does.
    pub fn recovered(&mut self, recovery: &Recovery, log: &mut LogTurn) -> Result<(), Corrupt> {
        let last = self.log.last().lsn;
        if last < recovery.shown {
            return Err(Corrupt { what: "a snapshot that shows more than the log holds" });
        }
        if recovery.filling || last < recovery.complete_at {
            self.wipe(log);
        } else if recovery.told < recovery.complete_at {
            self.unsettled = Some(recovery.complete_at);
        }
        self.durable = self.log.last().lsn;
        Ok(())
    }
}
