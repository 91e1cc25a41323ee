//! A copy that follows: logs at once, applies what is committed.
//!
//! A backup takes records only under the newest epoch that it knows and only without a gap: each record names the one
//! before it by epoch and lsn (rule 4). Within a reign it remembers how far its log is known to be the primary's
//! (`verified`), and acknowledges that and nothing else. What its log holds beyond is an earlier primary's, kept until
//! this one's records replace it, because this copy could still become primary itself and must then keep it (rule 8).
//!
//! A snapshot shows changes that may not be committed yet. Until they are, the copy is incomplete: it counts for
//! nothing, and is thrown away if the reign ends first (rule 13). As long as the reign lasts it is kept, also over a restart where
//! there is a log: a half-filled copy says where it stands, and takes what fits just there ([`crate::transfer`]).

use crate::log_turn::{NewRecord, Tail};
use crate::message::{Append, AppendOutcome, Appended, Chunk, ChunkStored, Message, Sender, SnapshotEnd};
use crate::partition::{Partition, Role};
use crate::{Context, LogTurn, Outbox};
use placement::PartitionState;
use storage::{effect, snapshot};
use types::planted::{self, Bug};
use types::{Epoch, Level, Lsn};

#[derive(Debug, Default)]
pub(crate) struct Backup {
    /// Up to here the log is known to be the primary's of this reign.
    pub verified: Lsn,
    /// Whether the map shows this copy in sync.
    pub in_sync: bool,
    filling: Filling,
    /// The newest session heard of in this reign: an older one's chunks are late.
    newest_session: u64,
    /// What the primary is told once what it sent is durable here.
    owes: Option<Owed>,
}

/// An answer that waits for the disk.
#[derive(Clone, Copy, Debug)]
struct Owed {
    to: Sender,
    /// The session and the chunk, where it is the last of a snapshot.
    stored: Option<(u64, u32)>,
}

/// Where a half-filled copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InTransfer {
    pub session: u64,
    /// The chunk of it that is next.
    pub next: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Filling {
    /// Nothing is missing.
    #[default]
    Whole,
    /// A snapshot is being taken in.
    Snapshot(InTransfer),
    /// A snapshot is in, and counts once this is committed.
    Until(Lsn),
}

impl Backup {
    pub fn is_complete(&self) -> bool {
        self.filling == Filling::Whole
    }

    pub fn is_filling(&self) -> bool {
        self.stands_at().is_some()
    }

    fn stands_at(&self) -> Option<InTransfer> {
        match self.filling {
            Filling::Snapshot(at) => Some(at),
            _ => None,
        }
    }
}

impl<W> Partition<W> {
    /// The map says that this copy follows.
    pub(crate) fn follow_map(&mut self, state: &PartitionState, same_reign: bool, log: &mut LogTurn) {
        let in_sync = state.in_sync.contains(self.me);
        if !matches!(self.role, Role::Backup(_)) {
            let at = self.came_back_in.take();
            let filling = match (self.unsettled.take(), at) {
                (Some(complete_at), _) => Filling::Until(complete_at),
                (None, Some(at)) => Filling::Snapshot(at),
                (None, None) => Filling::Whole,
            };
            let newest_session = at.map_or(0, |at| at.session);
            self.role = Role::Backup(Backup { filling, newest_session, ..Backup::default() });
        }
        let Role::Backup(backup) = &mut self.role else { return };
        backup.in_sync = in_sync;
        if in_sync && let Filling::Until(complete_at) = backup.filling {
            // Nobody is taken in before what the snapshot shows is committed.
            backup.filling = Filling::Whole;
            let upto = complete_at.min(self.log.last().lsn);
            self.apply_up_to(upto);
        }
        if !same_reign {
            let is_filling = matches!(&self.role, Role::Backup(backup) if backup.is_filling());
            if state.primary.is_none() && !is_filling {
                // Nobody leads: this copy may be asked to go on with what it has (rule 20).
                return;
            }
            self.begin_reign(state.primary_since, log);
        }
    }

    /// Follows another primary from here on.
    fn begin_reign(&mut self, primary_since: Epoch, log: &mut LogTurn) {
        self.primary_since = primary_since;
        let Role::Backup(backup) = &mut self.role else { return };
        let incomplete = !backup.is_complete();
        backup.verified = Lsn(0);
        backup.newest_session = 0;
        backup.owes = None;
        if incomplete {
            // What it shows may never have been committed, and the new primary may not have it.
            backup.filling = Filling::Whole;
            self.wipe(log);
        }
    }

    /// Rule 4, for a message of a primary: refuses an older epoch, takes on a newer one of the same reign. Another
    /// reign begins only by the map, which alone tells whether this copy must be kept. False: not to be acted on.
    fn accept_epoch(&mut self, epoch: Epoch, primary_since: Epoch, out: &mut Outbox<W>) -> bool {
        let follows = matches!(self.role, Role::Backup(_)) && primary_since == self.primary_since;
        if !follows || epoch < self.epoch {
            if !planted::is(Bug::TakesOldEpoch) || matches!(self.role, Role::Absent) {
                return false;
            }
            self.step_down(out);
            self.begin_reign(primary_since, &mut out.log);
        }
        self.epoch = epoch;
        true
    }

    pub(crate) fn on_append(&mut self, from: Sender, append: Append, out: &mut Outbox<W>) {
        let outcome = if self.accept_epoch(append.epoch, append.primary_since, out) {
            self.take_records(from, append, &mut out.log)
        } else if append.epoch < self.epoch {
            Some(AppendOutcome::Fenced)
        } else {
            None
        };
        if outcome == Some(AppendOutcome::Empty)
            && let Role::Backup(Backup { filling: Filling::Snapshot(at), .. }) = self.role
        {
            self.say_stored(from, at, out);
        }
        if let Some(outcome) = outcome {
            let answer = Appended { partition: self.id, epoch: self.epoch, outcome };
            out.messages.push((from.node, from.shard, Message::Appended(answer)));
        }
    }

    fn say_stored(&self, to: Sender, at: InTransfer, out: &mut Outbox<W>) {
        let InTransfer { session, next } = at;
        let stored = ChunkStored { partition: self.id, epoch: self.epoch, session, next };
        out.messages.push((to.node, to.shard, Message::ChunkStored(stored)));
    }

    /// Takes the records that follow on what the log holds. None: nothing to say.
    fn take_records(&mut self, from: Sender, append: Append, log: &mut LogTurn) -> Option<AppendOutcome> {
        let is_doubtful = self.is_doubtful();
        let Role::Backup(backup) = &mut self.role else { return None };
        if backup.is_filling() {
            return Some(AppendOutcome::Empty);
        }
        let base = self.log.base();
        if append.prev.lsn < base.lsn && is_doubtful {
            return self.give_up_log(log);
        }
        let mut records = append.records;
        let mut prev = append.prev;
        if prev.lsn < base.lsn {
            // An old message: what lies at or below the base is committed, and so the same everywhere.
            records.retain(|record| record.position.lsn > base.lsn);
            prev = records.first().map_or(base, |record| record.prev());
        }
        if !self.log.holds(prev) {
            let shared = self.log.common_with(prev).unwrap_or(base);
            return Some(AppendOutcome::Behind(shared));
        }
        // Its own commit begins at a snapshot's base, which may not be committed until all is that the snapshot shows.
        let known = if backup.is_complete() { self.commit } else { Lsn(0) };
        let mut end = prev;
        for record in &records {
            let follows = record.prev() == end && record.position.epoch >= record.prev_epoch;
            if !follows || effect::effects(&record.body).any(|effect| effect.is_err()) {
                return None;
            }
            let differs =
                self.log.position_at(record.position.lsn).is_some_and(|kept| kept != record.position);
            if differs && record.position.lsn <= self.commit {
                // Nothing committed is ever discarded, but where its loss was accepted, or could not be helped.
                return if is_doubtful { self.give_up_log(log) } else { None };
            }
            end = record.position;
        }
        for record in records {
            let lsn = record.position.lsn;
            let is_kept = lsn <= self.log.last().lsn && planted::is(Bug::KeepsOldTail);
            if is_kept || self.log.position_at(lsn) == Some(record.position) {
                continue;
            }
            if lsn <= self.log.last().lsn {
                // Another primary's record, which was never committed (rule 9).
                let after = Lsn(lsn.0 - 1);
                self.log.truncate_after(after);
                self.requests.undo_after(after);
                if self.durability.logs() {
                    log.truncate(self.id, after);
                }
                self.life += 1;
                self.durable = self.durable.min(after);
            }
            if self.durability.logs() {
                log.record(self.id, known, &NewRecord::of(&record));
                log.tail(Tail { partition: self.id, life: self.life, lsn });
                self.on_disk = true;
            }
            if let Some((id, reply)) = &record.request {
                self.requests.add(*id, lsn, record.time_ms, reply.clone());
            }
            self.log.append(record);
        }
        backup.verified = backup.verified.max(end.lsn);
        let verified = backup.verified;
        let commit = if planted::is(Bug::AppliesEarly) { verified } else { append.commit };
        self.learn_commit(commit.min(verified));
        let held = verified.min(self.own_held());
        if held < verified
            && let Role::Backup(backup) = &mut self.role
        {
            // Rule 1: not before it is durable.
            backup.owes = Some(Owed { to: from, stored: None });
            return None;
        }
        Some(AppendOutcome::Held(held))
    }

    /// The partition goes on without something that was committed, and is in this table: this copy is filled anew.
    fn give_up_log(&mut self, log: &mut LogTurn) -> Option<AppendOutcome> {
        if let Role::Backup(backup) = &mut self.role {
            backup.verified = Lsn(0);
            backup.owes = None;
        }
        self.wipe(log);
        Some(AppendOutcome::Empty)
    }

    /// Gives the answers that waited for the disk, as far as it has come.
    pub(crate) fn answer_when_durable(&mut self, out: &mut Outbox<W>) {
        let own = self.own_held();
        let (partition, epoch) = (self.id, self.epoch);
        let Role::Backup(backup) = &mut self.role else { return };
        let Some(Owed { to, stored }) = backup.owes else { return };
        let held = backup.verified.min(own);
        if held == backup.verified {
            backup.owes = None;
        }
        let message = match stored {
            Some(_) if backup.owes.is_some() => return,
            Some((session, next)) => Message::ChunkStored(ChunkStored { partition, epoch, session, next }),
            None => Message::Appended(Appended { partition, epoch, outcome: AppendOutcome::Held(held) }),
        };
        out.messages.push((to.node, to.shard, message));
    }

    /// The primary says what is committed. What a snapshot showed counts only once it says so of that too.
    fn learn_commit(&mut self, commit: Lsn) {
        if commit > self.commit {
            self.apply_up_to(commit);
            self.trim_log(Lsn(u64::MAX));
        }
        // What the primary tells counts here, not this copy's own lsn: that begins at the snapshot's base, which may
        // not have been committed when the snapshot was cut.
        if let Role::Backup(backup) = &mut self.role
            && let Filling::Until(complete_at) = backup.filling
            && commit >= complete_at
        {
            backup.filling = Filling::Whole;
        }
    }

    pub(crate) fn on_chunk(&mut self, context: &Context, from: Sender, chunk: Chunk, out: &mut Outbox<W>) {
        if !self.accept_epoch(chunk.epoch, chunk.primary_since, out) {
            return;
        }
        let Role::Backup(backup) = &self.role else { return };
        if backup.in_sync || chunk.session < backup.newest_session {
            return;
        }
        if chunk.session > backup.newest_session {
            return self.begin_session(context, from, &chunk, out);
        }
        let next = match backup.stands_at() {
            Some(at) if at.next == chunk.index => {
                if snapshot::load_chunk(&chunk.payload, &mut self.table).is_err() {
                    // Damaged on the way: it is asked for again.
                    return;
                }
                if self.durability.logs() {
                    out.log.chunk(self.id, &chunk.payload);
                    self.on_disk = true;
                }
                self.stand_at(InTransfer { next: at.next + 1, ..at })
            }
            Some(at) => at.next,
            // All is in already: the answer was lost.
            None => chunk.index + 1,
        };
        let is_filling = matches!(&self.role, Role::Backup(backup) if backup.is_filling());
        if let Some(end) = chunk.end
            && next == chunk.index + 1
            && is_filling
        {
            self.end_transfer(from, InTransfer { session: chunk.session, next }, end, &mut out.log);
        }
        if matches!(&self.role, Role::Backup(Backup { owes: Some(Owed { stored: Some(_), .. }), .. })) {
            // The last chunk counts once all is durable.
            return;
        }
        self.say_stored(from, InTransfer { session: chunk.session, next }, out);
    }

    fn stand_at(&mut self, at: InTransfer) -> u32 {
        if let Role::Backup(backup) = &mut self.role {
            backup.filling = Filling::Snapshot(at);
            backup.newest_session = at.session;
        }
        at.next
    }

    /// The first word of a session: its chunk 0, which empties the copy, or a joint, which fits where the copy stands or nowhere.
    /// Others of its chunks have overtaken that, and come again.
    fn begin_session(&mut self, context: &Context, from: Sender, chunk: &Chunk, out: &mut Outbox<W>) {
        let Role::Backup(backup) = &mut self.role else { return };
        let session = chunk.session;
        match (chunk.joint_after(), backup.stands_at()) {
            (Some(after), Some(at)) => {
                if at.session == after && at.next == chunk.index {
                    let at = InTransfer { session, next: chunk.index + 1 };
                    // Whatever map this shard has yet: who sends a joint knows that the cluster has it. And chunks of this session must
                    // not be counted as the one's before.
                    self.note_session(at, &mut out.log);
                    self.stand_at(at);
                    self.say_stored(from, at, out);
                } else {
                    self.say_stored(from, at, out);
                }
            }
            // It has all that this session goes on with; the answer was lost. It says so of each of its chunks.
            (Some(after), None) if after <= backup.newest_session => {
                backup.newest_session = session;
                self.say_stored(from, InTransfer { session, next: chunk.index + 1 }, out);
            }
            (Some(_), None) => self.say_stored(from, InTransfer { session, next: 0 }, out),
            (None, _) if chunk.index == 0 => {
                backup.verified = Lsn(0);
                backup.owes = None;
                self.wipe(&mut out.log);
                let at = InTransfer { session, next: 0 };
                // An older build would not start on such an entry. Without it a restart begins the transfer anew.
                if context.map.has(Level::TRANSFERS_GO_ON) {
                    self.note_session(at, &mut out.log);
                }
                self.stand_at(at);
                self.on_chunk(context, from, chunk.clone(), out);
            }
            (None, _) => {}
        }
    }

    fn note_session(&mut self, at: InTransfer, log: &mut LogTurn) {
        if self.durability.logs() {
            log.session(self.id, self.primary_since, at.session, at.next);
            self.on_disk = true;
        }
    }

    /// All chunks are in.
    fn end_transfer(&mut self, from: Sender, at: InTransfer, end: SnapshotEnd, log: &mut LogTurn) {
        let Role::Backup(backup) = &mut self.role else { return };
        backup.filling = Filling::Until(end.complete_at);
        backup.verified = end.base.lsn;
        if self.durability.logs() {
            log.filled(self.id, &end);
            log.tail(Tail { partition: self.id, life: self.life, lsn: end.base.lsn });
            backup.owes = Some(Owed { to: from, stored: Some((at.session, at.next)) });
        }
        self.log.reset(end.base);
        self.commit = end.base.lsn;
        self.last_time_ms = end.time_ms;
        self.last_version = end.version;
        self.requests.import(end.requests, end.forgotten, end.time_ms);
    }
}
