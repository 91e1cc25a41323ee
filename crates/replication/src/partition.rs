//! One node's copy of one partition: what it holds in every role, how the map changes its role, and how requests
//! run on it.

use crate::backup::{Backup, InTransfer};
use crate::freshness::Freshness;
use crate::history::is_more_than_followers_need;
use crate::log_turn::{NewRecord, Tail};
use crate::message::{Message, Sender};
use crate::primary::Primary;
use crate::requests::{Requests, Seen};
use crate::{Context, Durability, LogTurn, Outbox, Release};
use bytes::Bytes;
use placement::PartitionState;
use storage::prefetch::{fetch, fetch_all, fetch_behind, fetch_near};
use storage::{
    Changes, Footprint, Hasher, Keyspace, Lent, Log, Record, SnapshotEnd, Table, Uncommitted, effect,
};
use types::planted::{self, Bug};
use types::settings::WriteLevel;
use types::{Epoch, Lsn, NodeId, PartitionId, Position, RequestId, Version};

/// The log kept behind the commit lsn for copies that were away shortly, in bytes a partition.
const RETAINED_BYTES: usize = 64 * 1024;
/// A record's body of this many bytes and more is moved into the log rather than copied.
const LARGE_BODY_BYTES: usize = 64 * 1024;
/// The longest reply that is logged with its request's number, in bytes. A longer one is not repeated.
const LOGGED_REPLY_BYTES_MAX: usize = 256;

/// What a copy can do with a request right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Primary, leased and serving.
    Serving,
    /// Primary, but not yet (its tail is being committed) or just now not (its lease has lapsed).
    Waiting,
    /// In-sync backup: stale reads only.
    Backup,
    /// Nothing: no copy is here, or one that is still being filled.
    Absent,
}

/// What running a request has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The record that it made, under the copy's epoch. 0: none.
    pub written: Lsn,
    /// What must be committed before its reply may be told: its own record, or what it saw. 0: nothing.
    pub wait: Lsn,
}

#[derive(Debug)]
pub(crate) enum Role<W> {
    Absent,
    Primary(Primary<W>),
    Backup(Backup),
}

/// One node's copy of one partition. `W` is whatever the node attaches to a waiting request.
///
/// Requests for all partitions take turns, so a copy is seldom in the nearest cache when one comes. What every request reads
/// stands together at the beginning, and at the beginning of the role, so that it is few lines ([`Partition::prefetch`]). What
/// every write reads too stands between these and right behind the role ([`Partition::prefetch_for_write`]).
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Partition<W> {
    pub(crate) table: Table,
    pub(crate) last_version: Version,
    pub(crate) last_time_ms: u64,
    pub(crate) durability: Durability,
    /// Whether the disk may have anything of it.
    pub(crate) on_disk: bool,
    pub(crate) id: PartitionId,
    pub(crate) me: NodeId,
    pub(crate) uncommitted: Uncommitted,
    pub(crate) role: Role<W>,
    pub(crate) log: Log,
    pub(crate) epoch: Epoch,
    pub(crate) commit: Lsn,
    /// Where records are synced: the last that is known to be.
    pub(crate) durable: Lsn,
    /// What it has added to [`LogTurn::uncommitted_bytes`].
    counted_bytes: usize,
    /// Ends whenever part of the log is discarded.
    pub(crate) life: u32,
    pub(crate) requests: Requests,
    /// The epoch of the last map that it acted on.
    map_epoch: Epoch,
    /// The last time that committed records may have been lost, as far as this copy knows.
    pub(crate) forced_since: Epoch,
    /// The reign that this copy follows, or is.
    pub(crate) primary_since: Epoch,
    expiry_cursor: u64,
    /// A copy that came back from its disk shows what counts only once this is committed.
    pub(crate) unsettled: Option<Lsn>,
    /// The transfer that such a copy, or one that came back half filled, is of; until the map gives it a role.
    pub(crate) came_back_in: Option<InTransfer>,
    /// How new what it shows is known to be, while it is a backup.
    pub(crate) freshness: Freshness,
}

impl<W> Partition<W> {
    /// An empty copy, of nothing yet.
    pub fn new(id: PartitionId, me: NodeId, hasher: Hasher, durability: Durability) -> Partition<W> {
        Partition {
            id,
            me,
            table: Table::new(hasher),
            uncommitted: Uncommitted::default(),
            log: Log::new(),
            epoch: Epoch(0),
            map_epoch: Epoch(0),
            forced_since: Epoch(0),
            primary_since: Epoch(0),
            commit: Lsn(0),
            requests: Requests::default(),
            role: Role::Absent,
            last_version: Version::default(),
            last_time_ms: 0,
            expiry_cursor: 0,
            durability,
            life: 0,
            durable: Lsn(0),
            on_disk: false,
            unsettled: None,
            counted_bytes: 0,
            came_back_in: None,
            freshness: Freshness::default(),
        }
    }

    /// Its number.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The newest epoch that it knows.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The reign that it follows, or is.
    pub fn primary_since(&self) -> Epoch {
        self.primary_since
    }

    /// Where its log ends.
    pub fn tail(&self) -> Position {
        self.log.last()
    }

    /// What is committed, as far as it knows.
    pub fn commit(&self) -> Lsn {
        self.commit
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its table: on a primary with uncommitted changes, on a backup without.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Fetches what every request reads of this copy into the cache, and reads none of it itself.
    #[inline]
    pub fn prefetch(&self) {
        fetch_all(&self.table);
        fetch(&raw const self.durability);
        fetch(&raw const self.uncommitted);
        fetch(&raw const self.role);
    }

    /// The same of what every write and every commit reads too.
    #[inline]
    pub fn prefetch_for_write(&self) {
        fetch_behind(&self.uncommitted);
        fetch_behind(&self.role);
        fetch_near(&raw const self.log);
        fetch_near(&raw const self.life);
    }

    /// Fetches the places where a write will be noted. Reads what [`Partition::prefetch_for_write`] has fetched.
    #[inline]
    pub fn prefetch_next(&self) {
        self.uncommitted.prefetch_next();
        if let Role::Primary(primary) = &self.role {
            primary.prefetch_next();
            if primary.keeps_log {
                self.log.prefetch_next();
            }
        }
    }

    /// Fetches what a commit takes off. Reads what [`Partition::prefetch_for_write`] has fetched.
    #[inline]
    pub fn prefetch_oldest(&self) {
        self.uncommitted.prefetch_oldest();
        if let Role::Primary(primary) = &self.role {
            primary.prefetch_oldest();
        }
    }

    /// Whether the disk may have anything of it.
    pub fn is_on_disk(&self) -> bool {
        self.on_disk
    }

    /// Grows whenever part of its log is discarded.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// Its time, as last logged, in Unix milliseconds.
    pub fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }

    /// The position that a snapshot stands for which is begun now: all up to there is in the table.
    pub fn snapshot_base(&self) -> Position {
        let base = match &self.role {
            // Before it serves, what it has taken over is in its table as far as it is committed.
            Role::Primary(primary) if primary.serving => self.log.last(),
            _ => self.log.position_at(self.commit).unwrap_or(self.log.base()),
        };
        if planted::is(Bug::SnapshotAhead) { Position { lsn: base.lsn.next(), ..base } } else { base }
    }

    /// Logs the records behind a snapshot's base once more: the log before its place will be gone.
    pub fn log_again(&mut self, base: Position, log: &mut LogTurn) {
        let last = self.log.last().lsn;
        for record in self.log.range(base.lsn.next(), last) {
            log.record(self.id, self.commit, &NewRecord::of(record));
            // Each by itself: the turn may be cut between them.
            log.tail(Tail { partition: self.id, life: self.life, lsn: record.position.lsn });
        }
    }

    /// What the end of a snapshot says whose last piece was just cut. It counts once this copy has committed what the
    /// pieces may show.
    pub fn snapshot_end(&self, base: Position, base_time_ms: u64) -> SnapshotEnd {
        let (requests, forgotten) = self.requests.export(base.lsn);
        let complete_at = match &self.role {
            Role::Primary(_) => self.log.last().lsn,
            _ => self.commit,
        };
        SnapshotEnd {
            base,
            complete_at,
            time_ms: base_time_ms,
            version: self.last_version,
            requests,
            forgotten,
        }
    }

    /// Whether this copy is the primary.
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Whether a copy is here at all.
    pub fn is_here(&self) -> bool {
        !matches!(self.role, Role::Absent)
    }

    /// Whether a snapshot is being taken in, or what it shows is not committed yet.
    pub fn is_incomplete(&self) -> bool {
        let came_back_so = self.unsettled.is_some() || self.came_back_in.is_some();
        came_back_so || matches!(&self.role, Role::Backup(backup) if !backup.is_complete())
    }

    /// What it can do with a request now.
    pub fn standing(&self, context: &Context) -> Standing {
        match &self.role {
            Role::Primary(primary)
                if primary.serving
                    && !primary.retiring
                    && !primary.has_stopped()
                    && (context.leased() || planted::is(Bug::ReadsWithoutLease))
                    && context.clock_ms.is_some() =>
            {
                Standing::Serving
            }
            Role::Primary(_) => Standing::Waiting,
            Role::Backup(backup) if backup.in_sync && backup.is_complete() => Standing::Backup,
            _ => Standing::Absent,
        }
    }

    /// Whether enough copies are in sync for a write (rule 12), as this primary knows.
    pub fn enough_in_sync(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.enough_in_sync())
    }

    /// Whether and how this partition has done a forwarded request (rule 17).
    pub fn seen(&self, id: RequestId) -> Seen {
        if planted::is(Bug::RunsAgain) {
            return Seen::Never;
        }
        self.requests.seen(id)
    }

    /// How many backups durably hold this position (for WAIT). None where it is not in this primary's log: lost.
    pub fn backups_holding(&self, position: Position) -> Option<usize> {
        let Role::Primary(primary) = &self.role else { return None };
        let kept = self.log.position_at(position.lsn);
        if position.lsn > self.log.last().lsn || kept.is_some_and(|kept| kept != position) {
            return None;
        }
        Some(primary.peers.values().filter(|peer| peer.in_sync && peer.held >= position.lsn).count())
    }

    /// How far each other copy is behind this primary's log, in records; nothing where this copy is not the primary.
    pub fn lags(&self) -> impl Iterator<Item = u64> + '_ {
        let peers = match &self.role {
            Role::Primary(primary) => Some(&primary.peers),
            _ => None,
        };
        let tail = self.log.last().lsn.0;
        peers.into_iter().flatten().map(move |(_, peer)| tail.saturating_sub(peer.held.0))
    }

    // --------------------------------------------------------------------------------------------- requests

    /// Committed state, for a stale read (rule 13).
    pub fn committed<'p>(
        &'p mut self,
        context: &Context,
        changes: &'p mut Changes,
        footprint: &'p Footprint,
    ) -> Keyspace<'p> {
        let (now_ms, age_ms) = (self.time_ms(context), self.age_ms(context));
        Keyspace::committed(
            &mut self.table,
            changes,
            &self.uncommitted,
            &mut self.last_version,
            now_ms,
            footprint,
        )
        .with_age(age_ms)
    }

    /// The primary's newest state, for a request. The caller has seen [`Standing::Serving`]. Where the request leaves a
    /// clean footprint and needs no number remembered, its reply may be told at once; otherwise
    /// [`Partition::finish`] follows, with the same changes, before anything else is run.
    #[inline]
    pub fn begin<'p>(
        &'p mut self,
        context: &Context,
        changes: &'p mut Changes,
        footprint: &'p Footprint,
    ) -> Keyspace<'p> {
        let now_ms = self.time_ms(context);
        let (keeps_log, alone) = match &self.role {
            Role::Primary(primary) => (primary.keeps_log, primary.required.len() == 1),
            _ => unreachable!("only a primary runs requests"),
        };
        changes.clear();
        let logs = self.durability.logs();
        changes.set_keep(keeps_log || logs, !alone || logs);
        Keyspace::fresh(
            &mut self.table,
            changes,
            &self.uncommitted,
            &mut self.last_version,
            now_ms,
            footprint,
        )
    }

    /// Orders what a request changed as one record (rule 18). `request` is a forwarded one's number, with its reply.
    pub fn finish(
        &mut self,
        context: &Context,
        changes: &mut Changes,
        footprint: &Footprint,
        request: Option<(RequestId, Bytes)>,
        log: &mut LogTurn,
    ) -> Ran {
        let wait = footprint.wait();
        if request.is_none() && changes.is_empty() {
            return Ran { written: Lsn(0), wait };
        }
        let now_ms = self.time_ms(context);
        let request = request
            .map(|(id, reply)| (id, if reply.len() > LOGGED_REPLY_BYTES_MAX { Bytes::new() } else { reply }));
        if changes.is_empty() {
            if let Some((id, reply)) = request {
                self.requests.add_unchanged(id, wait, now_ms, reply);
            }
            return Ran { written: Lsn(0), wait };
        }
        let position = self.order(now_ms, changes, request, log);
        let wait = if position.lsn > self.commit { position.lsn } else { Lsn(0) };
        Ran { written: position.lsn, wait }
    }

    /// Takes back what a request has just changed, which is not to be ordered. False: what it replaced was not kept, since nobody but
    /// this table is to have it.
    pub fn take_back(&mut self, changes: &mut Changes) -> bool {
        let alone = matches!(&self.role, Role::Primary(primary) if primary.required.len() == 1);
        if alone && !self.durability.logs() {
            return false;
        }
        let last = self.log.last().lsn;
        self.uncommitted.push(last.next(), changes.body.len(), &mut changes.undo, changes.removed_any);
        self.uncommitted.roll_back(last, &mut self.table);
        changes.clear();
        true
    }

    /// Whether time alone changes nothing here: a primary without other copies, for which nobody waits, and which nobody follows.
    pub fn is_quiet(&self) -> bool {
        match &self.role {
            Role::Primary(primary) => {
                primary.serving && primary.peers.is_empty() && !primary.waits() && !primary.is_followed()
            }
            _ => true,
        }
    }

    /// Whether something is to be done at the turn's end after a change: somebody waits for it, or is to be sent it.
    pub fn wants_flush(&self) -> bool {
        match &self.role {
            Role::Primary(primary) => !primary.peers.is_empty() || primary.waits() || primary.is_followed(),
            _ => true,
        }
    }

    /// The partition's time (rule 14): the cluster's, but never before what is logged.
    pub fn time_ms(&self, context: &Context) -> u64 {
        context.clock_ms.unwrap_or(0).max(self.last_time_ms)
    }

    /// Orders what was just changed as the next record.
    fn order(
        &mut self,
        time_ms: u64,
        changes: &mut Changes,
        request: Option<(RequestId, Bytes)>,
        log: &mut LogTurn,
    ) -> Position {
        let prev = self.log.last();
        let position = Position { epoch: self.epoch, lsn: prev.lsn.next() };
        self.last_time_ms = time_ms;
        let Role::Primary(primary) = &mut self.role else { unreachable!("only a primary orders") };
        primary.has_news = true;
        if let Some((id, reply)) = &request {
            self.requests.add(*id, position.lsn, time_ms, reply.clone());
        }
        if self.durability.logs() {
            let new = NewRecord {
                position,
                prev_epoch: prev.epoch,
                time_ms,
                request: request.as_ref(),
                body: changes.body.parts(),
            };
            log.record(self.id, self.commit, &new);
            log.tail(Tail { partition: self.id, life: self.life, lsn: position.lsn });
            self.on_disk = true;
        }
        let bytes = changes.body.len();
        if primary.keeps_log {
            let body = changes.body.finished(LARGE_BODY_BYTES);
            self.log.append(Record { position, prev_epoch: prev.epoch, time_ms, request, body });
        } else {
            self.log.pass(position);
        }
        if primary.required.len() == 1 && !self.durability.logs() {
            self.commit = position.lsn;
            self.uncommitted.commit(position.lsn);
        } else {
            self.uncommitted.push(position.lsn, bytes, &mut changes.undo, changes.removed_any);
            self.count_uncommitted(log);
        }
        position
    }

    /// Tells the shard how much of this partition is not committed.
    pub(crate) fn count_uncommitted(&mut self, log: &mut LogTurn) {
        let bytes = self.uncommitted.bytes();
        let counted = std::mem::replace(&mut self.counted_bytes, bytes);
        log.uncommitted_bytes = (log.uncommitted_bytes + bytes).saturating_sub(counted);
    }

    /// Whether so much of it is ordered and not committed that further writes have to wait. All partitions of a shard
    /// together may have about `most` bytes: one of them a quarter of that, and once all have it, each its small share, so that
    /// those whose copies keep up are never in the way of others.
    pub fn is_crowded(&self, log: &LogTurn, most: usize) -> bool {
        let bytes = self.uncommitted.bytes();
        bytes > 0 && (bytes >= most / 4 || log.uncommitted_bytes >= most && bytes >= most / 1024)
    }

    /// The record that opens a reign: it makes the new epoch part of every copy's log.
    pub(crate) fn open_reign(&mut self, context: &Context, log: &mut LogTurn) {
        let tail = self.log.last().lsn;
        if matches!(&self.role, Role::Primary(primary) if primary.required.len() == 1)
            && self.own_held() == tail
        {
            self.apply_up_to(tail);
        }
        let tail_time_ms = self.log.get(tail).map_or(0, |record| record.time_ms);
        let time_ms = match planted::is(Bug::ReignRunsTimeBack) {
            true => context.clock_ms.unwrap_or(0),
            false => self.time_ms(context).max(tail_time_ms),
        };
        self.order(time_ms, &mut Changes::default(), None, log);
    }

    /// How far this copy's own log is durable.
    pub(crate) fn own_held(&self) -> Lsn {
        let last = self.log.last().lsn;
        if self.durability.logs() && !planted::is(Bug::AcknowledgesUnsynced) {
            self.durable.min(last)
        } else {
            last
        }
    }

    /// This copy's log is durable up to a record of this life. A primary commits at its next [`Partition::flush`].
    pub fn on_durable(&mut self, life: u32, lsn: Lsn, out: &mut Outbox<W>) {
        if life != self.life || lsn <= self.durable {
            return;
        }
        self.durable = lsn;
        self.answer_when_durable(out);
    }

    /// Lets go whoever has waited too long, by the caller's judgement.
    pub fn give_up(&mut self, is_over: impl FnMut(&W) -> bool, out: &mut Outbox<W>) {
        if let Role::Primary(primary) = &mut self.role {
            primary.give_up(is_over, out);
        }
    }

    /// Whoever waits for a commit.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        let primary = match &self.role {
            Role::Primary(primary) => Some(primary),
            _ => None,
        };
        primary.into_iter().flat_map(Primary::waiters)
    }

    /// A request waits until `lsn` is as safe as `level` asks.
    #[inline(always)]
    pub fn wait(&mut self, lsn: Lsn, level: WriteLevel, waiter: W) {
        if let Role::Primary(primary) = &mut self.role {
            primary.wait(lsn, level, waiter);
        }
    }

    /// Looks at the next few keys and logs the removal of those whose time has come (rule 14). Returns how many.
    pub fn expire(&mut self, context: &Context, changes: &mut Changes, log: &mut LogTurn) -> usize {
        const ENTRIES_A_SLICE: usize = 64;
        if self.table.volatile_len() == 0 || self.standing(context) != Standing::Serving {
            return 0;
        }
        let now_ms = self.time_ms(context);
        let mut expired: Vec<Vec<u8>> = Vec::new();
        let next = self.table.scan(self.expiry_cursor, ENTRIES_A_SLICE, &mut |entry| {
            if entry.expire_at_ms.is_some_and(|at| at <= now_ms) {
                expired.push(entry.key.to_vec());
            }
        });
        self.expiry_cursor = next.unwrap_or(0);
        if expired.is_empty() {
            return 0;
        }
        let footprint = Footprint::default();
        let mut keyspace = self.begin(context, changes, &footprint);
        for key in &expired {
            // A fresh look at an expired key logs its removal.
            let _ = keyspace.get(key);
        }
        self.finish(context, changes, &footprint, None, log);
        expired.len()
    }

    // -------------------------------------------------------------------------------------------- the map

    /// Whether a map's word on this partition is to be acted on. Its epoch alone does not tell: a message of the primary may
    /// have brought that first, but who is in sync is the map's alone to say.
    pub fn is_news(&self, state: &PartitionState) -> bool {
        state.epoch > self.map_epoch
    }

    /// Whether what this copy knows to be committed may have been lost: it has nothing yet of the history that goes on.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.log.last().epoch < self.forced_since
    }

    /// A newer map says what this copy is.
    pub fn on_map(&mut self, context: &Context, state: &PartitionState, out: &mut Outbox<W>) {
        if state.epoch < self.epoch || state.epoch == Epoch(0) {
            return;
        }
        let is_primary = state.primary == Some(self.me);
        let same_reign = state.primary_since == self.primary_since;
        let has_skipped = state.epoch.0 > self.map_epoch.0 + 1;
        self.epoch = state.epoch;
        self.map_epoch = state.epoch;
        self.forced_since = self.forced_since.max(state.forced_since);
        match (&mut self.role, is_primary) {
            (Role::Primary(primary), true) if same_reign => {
                primary.on_map(context, self.id, self.me, state, has_skipped);
                out.hand_overs.begun += u64::from(primary.is_handing_over());
            }
            (_, true) => {
                self.step_down(out);
                self.become_primary(context, state, &mut out.log);
            }
            (_, false) if !state.copies.contains(self.me) && !state.in_sync.contains(self.me) => {
                self.step_down(out);
                self.wipe(&mut out.log);
                self.role = Role::Absent;
                self.primary_since = state.primary_since;
            }
            (_, false) => {
                out.hand_overs.done += u64::from(self.has_released_to(state.primary));
                self.step_down(out);
                self.follow_map(state, same_reign, &mut out.log);
            }
        }
    }

    fn become_primary(&mut self, context: &Context, state: &PartitionState, log: &mut LogTurn) {
        let is_filling = match &self.role {
            Role::Backup(backup) => backup.is_filling(),
            _ => self.came_back_in.take().is_some() && self.unsettled.is_none(),
        };
        if is_filling {
            // Only an operator's acceptance of loss promotes a copy that is half filled: nothing whole is left.
            self.wipe(log);
        }
        if planted::is(Bug::DropsTail) {
            self.log.truncate_after(self.commit);
        }
        // What it shows is in its log, and so it commits it.
        self.unsettled = None;
        self.primary_since = state.primary_since;
        self.requests.begin_reign();
        self.role = Role::Primary(Primary::new(context, self.id, self.me, state));
        // Rule 8: the whole tail is kept and committed, under the new epoch, before anything is served. It is
        // applied as it commits, so nothing of it needs undo.
        self.open_reign(context, log);
        let align_to = self.log.last();
        if let Role::Primary(primary) = &mut self.role {
            primary.align_to = align_to.lsn;
        }
        self.commit_what_is_held();
    }

    /// Ends a reign (rule 9): uncommitted changes are undone in the table; the log keeps its tail, which the next
    /// primary may share.
    pub(crate) fn step_down(&mut self, out: &mut Outbox<W>) {
        let Role::Primary(primary) = &mut self.role else { return };
        out.released.extend(primary.take_waiters().map(|waiter| (waiter, Release::Deposed)));
        self.uncommitted.roll_back(self.commit, &mut self.table);
        self.count_uncommitted(&mut out.log);
        self.role = Role::Backup(Backup::default());
    }

    /// Forgets all that this copy holds.
    pub(crate) fn wipe(&mut self, log: &mut LogTurn) {
        if std::mem::take(&mut self.on_disk) {
            log.wipe(self.id);
        }
        self.forget();
        self.count_uncommitted(log);
    }

    /// The same, where the disk has nothing of it, or is told otherwise.
    pub(crate) fn forget(&mut self) {
        self.life += 1;
        self.durable = Lsn(0);
        self.unsettled = None;
        self.came_back_in = None;
        let hasher = self.table.hasher();
        self.table = Table::new(hasher);
        self.uncommitted = Uncommitted::default();
        self.log = Log::new();
        self.commit = Lsn(0);
        self.requests.clear();
        self.last_version = Version::default();
        self.last_time_ms = 0;
        self.expiry_cursor = 0;
        self.forget_freshness();
    }

    // ------------------------------------------------------------------------------------------- messages

    /// A message about this partition from another node's shard.
    pub fn on_message(&mut self, context: &Context, from: Sender, message: Message, out: &mut Outbox<W>) {
        match message {
            Message::Append(append) => self.on_append(from, append, out),
            Message::Chunk(chunk) => self.on_chunk(context, from, chunk, out),
            Message::Appended(appended) => self.on_appended(context, from, appended),
            Message::ChunkStored(stored) => self.on_chunk_stored(context, from, stored, out),
            // These are the node's.
            Message::Forward(_) | Message::Forwarded(_) | Message::Committed(_) => {}
        }
    }

    // --------------------------------------------------------------------------------------------- commit

    /// Applies the records after the commit lsn up to `upto`, which are committed now.
    pub(crate) fn apply_up_to(&mut self, upto: Lsn) {
        for record in self.log.range(self.commit.next(), upto) {
            for effect in effect::effects(&record.body).flatten() {
                self.last_version = self.last_version.max(effect.version());
                effect.apply(&mut self.table, Some(&Lent::Parts(record.body.parts())));
            }
            self.last_time_ms = self.last_time_ms.max(record.time_ms);
        }
        self.commit = self.commit.max(upto);
    }

    /// Forgets committed records up to `upto`, but for what is kept for copies that were away shortly, and for who follows the changes.
    pub(crate) fn trim_log(&mut self, upto: Lsn) {
        let is_followed = matches!(&self.role, Role::Primary(primary) if primary.is_followed());
        let is_more = |log: &Log| match is_followed {
            true => is_more_than_followers_need(log.bytes(), log.len()),
            false => log.bytes() > RETAINED_BYTES,
        };
        while is_more(&self.log) {
            let oldest = self.log.base().lsn.next();
            if oldest > self.commit || oldest > upto {
                return;
            }
            self.log.trim(oldest);
        }
    }
}
