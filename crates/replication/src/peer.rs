//! Another copy, as its primary sees it: first it is asked where its log ends, then records stream to it, or a
//! snapshot where the log no longer reaches back (rule 9).
//!
//! What it says it holds is the only thing believed; everything that was sent and not confirmed is sent again. A snapshot that broke
//! off goes on where the copy stands ([`crate::transfer`]).

use crate::Outbox;
use crate::message::{Append, AppendOutcome, Appended, Chunk, ChunkStored, Message};
use crate::requests::Requests;
use crate::transfer::{Broken, Stored, Transfer};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use storage::lent::is_huge;
use storage::{Log, Record, Table};
use types::{Epoch, Incarnation, Instant, Lsn, NodeId, PartitionId, Position, ShardId, Version};

/// After this long without an answer, what was sent is sent again.
const RESEND: Duration = Duration::from_millis(150);
/// The same, until the reign's first record is committed.
const RESEND_AT_FIRST: Duration = Duration::from_millis(20);
/// The most record bytes in one message.
const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// The most records that a copy may have been sent beyond what it said it holds.
const AHEAD_MAX: u64 = 16 * 1024;
/// What a partition may be ahead by where its shard as a whole is too far ahead of a node, in bytes: others' large values are not
/// in the way of small ones.
const AHEAD_BYTES_LITTLE: usize = 64 * 1024;
/// What a slow line, and the disk behind it, take of records in a millisecond, in bytes: 32 MiB a second.
const SLOW_BYTES_A_MS: usize = 32 * 1024;
/// Log bytes kept for a copy that is not in sync; beyond that it gets a snapshot instead.
const LAG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A transfer, or a lagging copy, that has not got any further for this long is given up for a while.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Another copy of a partition.
#[derive(Debug)]
pub(crate) struct Peer {
    pub node: NodeId,
    pub incarnation: Incarnation,
    shard: ShardId,
    /// It durably holds the log up to here.
    pub held: Lsn,
    /// Its log is known to be ours up to here, though it has not said so of itself in this reign.
    aligned: Lsn,
    /// The newest epoch under which it has answered.
    answered: Epoch,
    /// What it said before this epoch is not believed: it was away since.
    pub believed_from: Epoch,
    /// Whether the map shows it in sync.
    pub in_sync: bool,
    state: State,
    /// A snapshot that broke off on its way to it, in this reign.
    broken: Option<Broken>,
    /// A snapshot was sent to it that counts only once this is committed.
    counts_from: Lsn,
    told_commit: Lsn,
    /// Records that were sent to it and not confirmed: the last of each message, and bytes.
    ahead: VecDeque<(Lsn, usize, bool)>,
    ahead_bytes: usize,
    /// What of that counts in [`Outbox::ahead`].
    counted_bytes: usize,
    /// When it last got further, or had nothing to get.
    progress_at: Instant,
    sent_at: Instant,
    rewound_at: Instant,
    /// When a transfer that got nowhere may be tried again.
    retry_at: Instant,
    /// It knows a newer epoch than we do: what it refused is sent again under that one.
    fenced: bool,
    /// It said that it holds less than an in-sync copy must.
    lost: bool,
}

#[derive(Debug)]
enum State {
    /// Asked where its log ends.
    Probing,
    /// Records are sent from here on.
    Streaming { next: Lsn },
    /// Needs a snapshot, and waits for its turn.
    Wanting,
    /// A snapshot is under way.
    Snapshot(Transfer),
}

/// What a primary sends from.
pub(crate) struct Sending<'a> {
    pub now: Instant,
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub primary_since: Epoch,
    pub commit: Lsn,
    pub log: &'a Log,
    pub table: &'a Table,
    pub requests: &'a Requests,
    pub last_version: Version,
    pub last_time_ms: u64,
    pub serving: bool,
    pub snapshot_allowed: bool,
    pub ahead_bytes_max: usize,
    /// The size of a snapshot's chunk, in bytes.
    pub chunk_bytes: usize,
    /// Whether copies know joints.
    pub transfers_go_on: bool,
    /// Whether the peer at hand counts for commits: such a one never gets a snapshot.
    pub required: bool,
    pub last_session: &'a mut u64,
    /// Set where more is left to send than one turn takes.
    pub more: bool,
}

impl Sending<'_> {
    fn append(&self, prev: Position, records: Vec<Record>) -> Message {
        Message::Append(Append {
            partition: self.partition,
            epoch: self.epoch,
            primary_since: self.primary_since,
            prev,
            commit: self.commit,
            records,
        })
    }
}

impl Peer {
    pub fn new(now: Instant, incarnation: Incarnation, epoch: Epoch) -> Peer {
        Peer {
            node: NodeId(0),
            incarnation,
            shard: ShardId(0),
            held: Lsn(0),
            aligned: Lsn(0),
            answered: Epoch(0),
            believed_from: epoch,
            in_sync: false,
            state: State::Probing,
            broken: None,
            counts_from: Lsn(0),
            told_commit: Lsn(0),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            counted_bytes: 0,
            progress_at: now,
            sent_at: Instant(0),
            rewound_at: Instant(0),
            retry_at: Instant(0),
            fenced: false,
            lost: false,
        }
    }

    /// Another start of the node: nothing that the earlier one said holds. But what it was sent may be on its disk.
    pub fn restarted(self, now: Instant, incarnation: Incarnation, epoch: Epoch) -> Peer {
        let counts_from = self.counts_from;
        let mut broken = match self.state {
            State::Snapshot(transfer) => Some(transfer.break_off(now)),
            _ => self.broken,
        };
        broken.iter_mut().for_each(Broken::on_restart);
        Peer { broken, counts_from, ..Peer::new(now, incarnation, epoch) }
    }

    pub fn on_map(&mut self, now: Instant, epoch: Epoch, shard: ShardId, in_sync: bool, was_there: bool) {
        self.shard = shard;
        self.in_sync = in_sync;
        self.lost &= in_sync;
        if in_sync {
            self.broken = None;
        }
        if !was_there {
            self.break_off(now);
            self.confirmed(Lsn(u64::MAX));
            self.believed_from = epoch;
            (self.held, self.aligned) = (Lsn(0), Lsn(0));
        }
        if std::mem::take(&mut self.fenced) {
            self.send_again();
        }
    }

    /// Whether it holds everything that is committed, and nothing that may not be.
    pub fn may_join(&self, commit: Lsn) -> bool {
        matches!(self.state, State::Streaming { .. })
            && self.held > Lsn(0)
            && self.held >= commit
            && self.held.min(commit) >= self.counts_from
    }

    /// Whether it has stood still for too long with records to take. It confirms records whole, so large ones take their time.
    pub fn holds_up(&self, now: Instant, last: Lsn, evict: Duration) -> bool {
        self.held < last && now.since(self.progress_at) > evict + self.takes()
    }

    /// How long what it was sent and has not confirmed may take on a slow line.
    fn takes(&self) -> Duration {
        let pieces = match &self.state {
            State::Snapshot(transfer) => transfer.under_way_bytes(),
            _ => 0,
        };
        Duration::from_millis(((self.ahead_bytes + pieces) / SLOW_BYTES_A_MS) as u64)
    }

    /// Adds what it was sent and has not confirmed to the shard's sum for its node.
    pub fn count_ahead(&mut self, ahead: &mut BTreeMap<NodeId, usize>) {
        let counted = std::mem::replace(&mut self.counted_bytes, self.ahead_bytes);
        if counted != self.ahead_bytes {
            let sum = ahead.entry(self.node).or_default();
            *sum = (*sum + self.ahead_bytes).saturating_sub(counted);
        }
    }

    /// The same, to a sum that is made anew.
    pub fn count_ahead_anew(&mut self, ahead: &mut BTreeMap<NodeId, usize>) {
        self.counted_bytes = 0;
        self.count_ahead(ahead);
    }

    /// It has confirmed this, or what it was sent counts for nothing any more.
    fn confirmed(&mut self, upto: Lsn) {
        while let Some((_, bytes, _)) = self.ahead.pop_front_if(|(last, ..)| *last <= upto) {
            self.ahead_bytes -= bytes;
        }
    }

    /// How many bytes of records it may be sent now; 0: none before it confirms some.
    fn room(&self, most: usize, ahead: &BTreeMap<NodeId, usize>) -> usize {
        if self.has_huge_ahead() {
            return 0;
        }
        let all = ahead.get(&self.node).copied().unwrap_or(0);
        match self.ahead_bytes {
            own if own < most / 4 && all < most => APPEND_BYTES_MAX,
            0 => AHEAD_BYTES_LITTLE,
            _ => 0,
        }
    }

    /// Whether a huge record is on its way to it: what is sent now would overtake that, and be taken for word of a gap.
    fn has_huge_ahead(&self) -> bool {
        self.ahead.back().is_some_and(|&(_, _, is_huge)| is_huge)
    }

    /// Whether it has answered what was sent under this epoch, and streams.
    pub fn has_answered(&self, epoch: Epoch) -> bool {
        self.answered >= epoch && matches!(self.state, State::Streaming { .. })
    }

    /// Has it answer, though there may be nothing to send.
    pub fn ask(&mut self) {
        self.told_commit = Lsn(0);
    }

    pub fn is_lost(&self) -> bool {
        self.lost
    }

    pub fn is_being_filled(&self) -> bool {
        matches!(self.state, State::Snapshot(_))
    }

    /// The first record that it still needs from the log.
    pub fn needs_log_from(&self) -> Option<Lsn> {
        match &self.state {
            State::Streaming { .. } => Some(self.held.next()),
            State::Snapshot(transfer) => Some(transfer.base().lsn.next()),
            State::Probing | State::Wanting => self.broken.as_ref().map(|broken| broken.base().lsn.next()),
        }
    }

    /// It is asked again where it stands. A snapshot under way is kept as far as it has come.
    fn break_off(&mut self, now: Instant) {
        if let State::Snapshot(transfer) = std::mem::replace(&mut self.state, State::Probing) {
            self.broken = Some(transfer.break_off(now));
        }
        self.sent_at = Instant(0);
    }

    /// A snapshot that broke off is kept for a while, also while the node is away: the log with it.
    pub fn let_go_of_broken(&mut self, now: Instant, log: &Log, table: &Table) {
        let bytes_max = LAG_BYTES_MAX.max(table.bytes());
        self.broken.take_if(|broken| broken.is_over(now, log, bytes_max));
    }

    /// What may have been lost is sent again, from what it is known to hold.
    fn send_again(&mut self) {
        self.confirmed(Lsn(u64::MAX));
        match &mut self.state {
            State::Streaming { next } if self.held > Lsn(0) => *next = self.held.next(),
            State::Streaming { .. } => self.state = State::Probing,
            _ => {}
        }
        self.sent_at = Instant(0);
    }

    fn post<W>(&mut self, now: Instant, message: Message, out: &mut Outbox<W>) {
        self.sent_at = now;
        out.messages.push((self.node, self.shard, message));
    }

    /// Sends what it has not been sent.
    pub fn send_records<W>(&mut self, sending: &mut Sending<'_>, out: &mut Outbox<W>) {
        match &self.state {
            State::Streaming { next } => {
                let next = *next;
                let last = sending.log.last().lsn;
                if next > last {
                    return;
                }
                let Some(prev) = sending.log.position_at(Lsn(next.0 - 1)) else {
                    self.state = State::Probing;
                    self.sent_at = Instant(0);
                    return;
                };
                let upto = Lsn(last.0.min(self.held.max(self.aligned).0 + AHEAD_MAX));
                // Backpressure: what is not sent stands in the log, and goes once some of what was sent is confirmed.
                let room = self.room(sending.ahead_bytes_max, &out.ahead);
                let mut bytes = 0;
                let fits = |record: &&Record| {
                    // A huge one may need a frame to itself.
                    let fits = bytes < room && (bytes == 0 || !is_huge(record.body.len()));
                    bytes += if fits { record.bytes() } else { 0 };
                    fits
                };
                let records: Vec<Record> = sending.log.range(next, upto).take_while(fits).cloned().collect();
                let Some(end) = records.last().map(|record| record.position.lsn) else { return };
                sending.more |= end < upto;
                let is_huge = records.iter().any(|record| is_huge(record.body.len()));
                self.ahead.push_back((end, bytes, is_huge));
                self.ahead_bytes += bytes;
                self.state = State::Streaming { next: end.next() };
                self.told_commit = sending.commit;
                let message = sending.append(prev, records);
                self.post(sending.now, message, out);
            }
            State::Probing if self.sent_at == Instant(0) => self.probe(sending, out),
            State::Snapshot(_) => self.send_chunks(sending, out),
            _ => {}
        }
    }

    fn probe<W>(&mut self, sending: &Sending<'_>, out: &mut Outbox<W>) {
        let message = sending.append(sending.log.last(), Vec::new());
        self.post(sending.now, message, out);
    }

    /// Time passes.
    pub fn tick<W>(&mut self, sending: &mut Sending<'_>, out: &mut Outbox<W>) {
        let last = sending.log.last().lsn;
        // What it said of a log is no word on how a transfer goes on.
        if self.held >= last && !matches!(self.state, State::Snapshot(_)) {
            self.progress_at = sending.now;
        }
        // While a reign begins, everything waits for the copies, which may just not have the map yet.
        let resend = if sending.serving { RESEND } else { RESEND_AT_FIRST };
        let takes = self.takes();
        let overdue = sending.now.since(self.sent_at) >= resend + takes;
        self.broken.take_if(|_| !sending.transfers_go_on);
        match &mut self.state {
            State::Probing if overdue => self.probe(sending, out),
            State::Streaming { next } => {
                let next = *next;
                if !sending.required && self.lags(sending) {
                    self.want_snapshot();
                } else if self.held.max(self.aligned) < Lsn(next.0 - 1) && overdue {
                    self.send_again();
                    sending.more = true;
                } else if next <= last {
                    // Kept back while the node was not active: no turn of the partition's own sends it any more.
                    sending.more = true;
                } else if self.told_commit < sending.commit && !self.has_huge_ahead() {
                    self.told_commit = sending.commit;
                    let message = sending.append(sending.log.last(), Vec::new());
                    self.post(sending.now, message, out);
                }
            }
            State::Wanting
                if sending.snapshot_allowed
                    && sending.serving
                    && !sending.required
                    && sending.now >= self.retry_at =>
            {
                sending.snapshot_allowed = false;
                self.progress_at = sending.now;
                let transfer = match self.broken.take().and_then(|broken| broken.go_on(sending)) {
                    Some(transfer) => {
                        out.transfers.gone_on += 1;
                        transfer
                    }
                    None => {
                        out.transfers.begun += 1;
                        Transfer::begin(sending)
                    }
                };
                let joint = transfer.unconfirmed();
                self.state = State::Snapshot(transfer);
                self.post_chunks(sending, joint, out);
                self.send_chunks(sending, out);
            }
            // Meanwhile it is asked where it stands. What it may say of a log is late: the transfer has emptied it.
            State::Wanting if overdue && self.broken.as_ref().is_some_and(Broken::is_in_doubt) => {
                self.probe(sending, out);
            }
            State::Snapshot(_) if sending.now.since(self.progress_at) > GIVE_UP + takes => {
                // It holds a place among the transfers: let others go first.
                self.retry_at = sending.now + GIVE_UP;
                self.break_off(sending.now);
                self.want_snapshot();
            }
            State::Snapshot(transfer) if overdue => {
                let again = transfer.unconfirmed();
                self.post_chunks(sending, again, out);
            }
            _ => {}
        }
    }

    /// Cuts and sends chunks of the snapshot, a few at a time.
    fn send_chunks<W>(&mut self, sending: &mut Sending<'_>, out: &mut Outbox<W>) {
        let State::Snapshot(transfer) = &mut self.state else { return };
        let (cut, complete_at) = transfer.cut(sending);
        // From when it is sent: word that it has come may be lost.
        self.counts_from = self.counts_from.max(complete_at.unwrap_or(Lsn(0)));
        self.post_chunks(sending, cut, out);
    }

    fn post_chunks<W>(&mut self, sending: &Sending<'_>, chunks: Vec<Chunk>, out: &mut Outbox<W>) {
        for chunk in chunks {
            self.post(sending.now, Message::Chunk(Chunk { epoch: sending.epoch, ..chunk }), out);
        }
    }

    /// It answered. True where there is something to send now.
    pub fn on_appended(&mut self, now: Instant, epoch: Epoch, appended: Appended, log: &Log) -> bool {
        self.answered = self.answered.max(appended.epoch);
        match appended.outcome {
            AppendOutcome::Held(lsn) => {
                if lsn > self.held && lsn <= log.last().lsn {
                    self.held = lsn;
                    self.progress_at = now;
                    self.confirmed(lsn);
                }
                if matches!(self.state, State::Probing | State::Streaming { .. }) {
                    // It is whole.
                    self.broken = None;
                }
                match &mut self.state {
                    State::Streaming { next } => *next = (*next).max(self.held.next()),
                    State::Probing => {
                        self.state = State::Streaming { next: self.held.next() };
                        // It has answered whatever was sent before it was asked.
                        self.confirmed(Lsn(u64::MAX));
                    }
                    State::Wanting | State::Snapshot(_) => {}
                }
            }
            // Said before what it has confirmed since.
            AppendOutcome::Behind(theirs) if theirs.lsn < self.held => return false,
            AppendOutcome::Behind(theirs) => match &self.state {
                // Everything sent after a lost message is answered so: one rewinding does for all of them. But an answer that
                // goes back behind it is another: the logs part before that.
                State::Streaming { .. }
                    if now.since(self.rewound_at) < RESEND / 8 && theirs.lsn >= self.aligned =>
                {
                    return false;
                }
                State::Streaming { .. } | State::Probing => {
                    self.rewound_at = now;
                    self.confirmed(Lsn(u64::MAX));
                    match log.common_with(theirs) {
                        Some(shared) => {
                            self.aligned = shared.lsn;
                            self.state = State::Streaming { next: shared.lsn.next() };
                        }
                        None => self.needs_snapshot(),
                    }
                }
                State::Wanting | State::Snapshot(_) => {}
            },
            AppendOutcome::Empty => {
                if !matches!(self.state, State::Snapshot(_)) {
                    self.needs_snapshot();
                }
            }
            AppendOutcome::Fenced => {
                if appended.epoch > epoch {
                    self.fenced = true;
                    return false;
                }
                self.send_again();
            }
        }
        true
    }

    fn needs_snapshot(&mut self) {
        // Whoever counts for commits holds what is committed. One that says otherwise must go first.
        self.lost = self.in_sync;
        self.want_snapshot();
    }

    fn want_snapshot(&mut self) {
        self.state = State::Wanting;
        self.confirmed(Lsn(u64::MAX));
        if !self.in_sync {
            (self.held, self.aligned) = (Lsn(0), Lsn(0));
        }
    }

    /// Whether the log that is kept for it has outgrown what a snapshot would cost.
    fn lags(&self, sending: &Sending<'_>) -> bool {
        let missing = sending.log.last().lsn.0.saturating_sub(self.held.max(self.aligned).0) as usize;
        let bytes = sending.log.bytes() / sending.log.len().max(1) * missing;
        let most = LAG_BYTES_MAX.max(sending.table.bytes());
        bytes > 4 * most || bytes > most && sending.now.since(self.progress_at) > GIVE_UP
    }

    /// It says which chunk it wants next. True where all are in.
    pub fn on_chunk_stored(&mut self, now: Instant, stored: ChunkStored) -> bool {
        let State::Snapshot(transfer) = &mut self.state else {
            if let Some(broken) = &mut self.broken {
                broken.on_stored(&stored);
            }
            return false;
        };
        match transfer.on_stored(&stored) {
            Stored::Nothing => {}
            Stored::Further => self.progress_at = now,
            Stored::Elsewhere(place) => {
                self.break_off(now);
                self.state = State::Wanting;
                self.broken.iter_mut().for_each(|broken| broken.stands_at(place));
            }
            Stored::Lost => self.want_snapshot(),
            Stored::Done => {
                let base = transfer.base().lsn;
                self.progress_at = now;
                (self.held, self.aligned) = (base, base);
                self.lost = false;
                // The copy is whole once it is told that what it was shown is committed.
                self.told_commit = Lsn(0);
                self.state = State::Streaming { next: base.next() };
                return true;
            }
        }
        false
    }
}
