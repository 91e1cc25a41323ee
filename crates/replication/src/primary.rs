//! The primary: what it needs for a commit, what it sends, and the changes of the in-sync set that it proposes.
//!
//! The **required set** is the members that the map shows, and a joiner from before its joining is proposed (rule 2).
//! The commit lsn is what every member of it holds.
//!
//! Changes of the set are proposed again and again until the map shows a newer epoch, which settles every proposal
//! made under an older one, whatever became of the messages: no timeout is ever taken for an answer.

use crate::hand_over::HandOver;
use crate::message::{Appended, ChunkStored, Sender};
use crate::partition::{Partition, Role};
use crate::peer::{Peer, Sending};
use crate::{Context, InSyncChange, Outbox, Release};
use placement::{ChangeKind, PartitionState};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use storage::prefetch::{fetch_front, fetch_next};
use types::planted::{self, Bug};
use types::settings::WriteLevel;
use types::{Incarnation, Instant, Level, Lsn, NodeId, NodeSet, PartitionId};

/// Between two proposals of the same change.
const PROPOSE: Duration = Duration::from_millis(200);

/// What every request asks stands at the beginning, then what every write does: see [`Partition`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Primary<W> {
    /// Whether the reign's tail is committed, so that requests may run.
    pub serving: bool,
    /// Whether it is to be handed over, so that none may run any more (rule 10).
    pub retiring: bool,
    /// Whether records are kept at all: for other copies, or for whoever follows the changes.
    pub keeps_log: bool,
    /// Whether something happened that the copies have not been sent.
    pub has_news: bool,
    /// No copy joins any more.
    takes_in_none: bool,
    /// There are other copies, or are to be.
    keeps_for_copies: bool,
    /// Whose acknowledgement a commit needs: the in-sync set, and a joiner that is being proposed.
    pub required: NodeSet,
    /// The in-sync set that the map shows.
    pub in_sync: NodeSet,
    /// Under this epoch.
    pub hand_over: Option<HandOver>,
    min_in_sync: usize,
    /// By lsn.
    waiting: VecDeque<(Lsn, W)>,
    waiting_quorum: VecDeque<(Lsn, W)>,
    /// For this copy's own log.
    waiting_own: VecDeque<(Lsn, W)>,
    pub peers: BTreeMap<NodeId, Peer>,
    /// The record that opened the reign: once it is committed, the tail is.
    pub align_to: Lsn,
    pub proposal: Option<Proposal>,
    last_session: u64,
    /// Until when it counts as followed, where somebody follows its changes.
    followed_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Proposal {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub kind: ChangeKind,
    pub sent_at: Option<Instant>,
}

impl<W> Primary<W> {
    pub fn new(context: &Context, id: PartitionId, me: NodeId, state: &PartitionState) -> Primary<W> {
        let mut primary = Primary {
            serving: false,
            retiring: false,
            takes_in_none: false,
            align_to: Lsn(0),
            required: NodeSet::new(),
            in_sync: NodeSet::new(),
            keeps_log: false,
            has_news: true,
            peers: BTreeMap::new(),
            min_in_sync: 1,
            proposal: None,
            hand_over: None,
            last_session: 0,
            waiting: VecDeque::new(),
            waiting_quorum: VecDeque::new(),
            waiting_own: VecDeque::new(),
            keeps_for_copies: false,
            followed_until: None,
        };
        primary.on_map(context, id, me, state, false);
        primary
    }

    /// A map under which the reign goes on. A newer epoch settles what was proposed under the older one (rule 2). `has_skipped`:
    /// others came between, so that a copy that is not in sync may have been dropped and taken back, empty.
    pub fn on_map(
        &mut self,
        context: &Context,
        id: PartitionId,
        me: NodeId,
        state: &PartitionState,
        has_skipped: bool,
    ) {
        assert!(state.in_sync.contains(me), "only an in-sync copy is ever made primary");
        self.in_sync = state.in_sync;
        self.required = state.in_sync;
        self.proposal = None;
        self.hand_over = state.heir.map(|heir| HandOver::new(heir, context.now));
        self.has_news = true;
        self.min_in_sync = usize::from(context.map.min_in_sync);
        // A partition may be down to one copy for a while, until another is made.
        let is_to_have_others = context.map.copies > 1 && context.map.members.len() > 1;
        self.keeps_for_copies |= state.copies.len() > 1 || is_to_have_others;
        self.keeps_log |= self.keeps_for_copies;
        let mut others: NodeSet = state.copies.iter().chain(state.in_sync.iter()).collect();
        others.remove(me);
        self.peers.retain(|node, _| others.contains(*node));
        for node in others.iter() {
            let Some(member) = context.map.member(node) else { continue };
            let peer = self
                .peers
                .entry(node)
                .or_insert_with(|| Peer::new(context.now, member.incarnation, state.epoch));
            if planted::is(Bug::BelievesOldIncarnation) {
                peer.incarnation = member.incarnation;
            }
            if peer.incarnation != member.incarnation {
                let new = Peer::new(context.now, member.incarnation, state.epoch);
                let earlier = std::mem::replace(peer, new);
                *peer = earlier.restarted(context.now, member.incarnation, state.epoch);
            }
            let in_sync = state.in_sync.contains(node);
            let was_there = context.map.is_active(node) && (in_sync || !has_skipped);
            peer.on_map(context.now, state.epoch, member.shard_of(id), in_sync, was_there);
        }
    }

    /// Somebody follows its changes.
    pub fn follow(&mut self, until: Instant) {
        self.followed_until = Some(until);
        self.keeps_log = true;
    }

    /// Whether somebody follows its changes.
    pub fn is_followed(&self) -> bool {
        self.followed_until.is_some()
    }

    /// Time passes: what is kept for nobody any more is not kept on.
    fn forget_followers(&mut self, now: Instant) {
        if self.followed_until.is_some_and(|until| now >= until) {
            self.followed_until = None;
            self.keeps_log = self.keeps_for_copies;
        }
    }

    /// Whether enough copies are in sync for a write (rule 12).
    pub fn enough_in_sync(&self) -> bool {
        self.in_sync.len() >= self.min_in_sync
    }

    #[inline(always)]
    pub fn wait(&mut self, lsn: Lsn, level: WriteLevel, waiter: W) {
        let queue = match level {
            WriteLevel::Quorum => &mut self.waiting_quorum,
            WriteLevel::One => &mut self.waiting_own,
            WriteLevel::All => &mut self.waiting,
        };
        match queue.back() {
            Some((last, _)) if *last > lsn => wait_before(queue, lsn, waiter),
            _ => queue.push_back((lsn, waiter)),
        }
    }

    /// Whether a reply waits for a commit.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty() || !self.waiting_quorum.is_empty() || !self.waiting_own.is_empty()
    }

    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        self.waiting.iter().chain(&self.waiting_quorum).chain(&self.waiting_own).map(|(_, waiter)| waiter)
    }

    pub fn take_waiters(&mut self) -> impl Iterator<Item = W> + use<W> {
        let all = std::mem::take(&mut self.waiting).into_iter();
        let others =
            std::mem::take(&mut self.waiting_quorum).into_iter().chain(std::mem::take(&mut self.waiting_own));
        all.chain(others).map(|(_, waiter)| waiter)
    }

    /// Lets go whoever has waited too long.
    pub fn give_up(&mut self, mut is_over: impl FnMut(&W) -> bool, out: &mut Outbox<W>) {
        for queue in [&mut self.waiting, &mut self.waiting_quorum, &mut self.waiting_own] {
            if queue.iter().any(|(_, waiter)| is_over(waiter)) {
                for (lsn, waiter) in std::mem::take(queue) {
                    if is_over(&waiter) {
                        out.released.push((waiter, Release::Overdue));
                    } else {
                        queue.push_back((lsn, waiter));
                    }
                }
            }
        }
    }

    /// What every member of the required set holds (rule 1). `own` is this copy's last lsn.
    fn held_by_all(&self, own: Lsn) -> Lsn {
        if planted::is(Bug::AcknowledgesEarly) {
            return own;
        }
        self.required.iter().map(|node| self.held_by(node, own)).min().unwrap_or(Lsn(0))
    }

    /// What a majority of the required set holds.
    fn held_by_majority(&self, own: Lsn) -> Lsn {
        let mut held: Vec<Lsn> = self.required.iter().map(|node| self.held_by(node, own)).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        held.get(held.len() / 2).copied().unwrap_or(Lsn(0))
    }

    /// A required node that is no peer is this one.
    fn held_by(&self, node: NodeId, own: Lsn) -> Lsn {
        self.peers.get(&node).map_or(own, |peer| peer.held)
    }

    /// Lets go whoever waits for no more than is committed. The caller has checked the lease.
    fn release(&mut self, commit: Lsn, own: Lsn, out: &mut Outbox<W>) {
        while let Some((_, waiter)) = self.waiting.pop_front_if(|(lsn, _)| *lsn <= commit) {
            out.released.push((waiter, Release::Committed));
        }
        while let Some((_, waiter)) = self.waiting_own.pop_front_if(|(lsn, _)| *lsn <= own) {
            out.released.push((waiter, Release::Committed));
        }
        if self.waiting.is_empty() {
            // It begins at its first place again, which is in the cache sooner than another.
            self.waiting.clear();
        }
        if !self.waiting_quorum.is_empty() {
            let held = self.held_by_majority(own);
            while let Some((_, waiter)) = self.waiting_quorum.pop_front_if(|(lsn, _)| *lsn <= held) {
                out.released.push((waiter, Release::Committed));
            }
        }
    }

    /// Asks for the place where the next request that waits will stand.
    #[inline]
    pub fn prefetch_next(&self) {
        fetch_next(&self.waiting);
    }

    /// Asks for the request that has waited longest.
    #[inline]
    pub fn prefetch_oldest(&self) {
        fetch_front(&self.waiting);
    }

    /// Decides whether a change of the in-sync set is due.
    fn consider_change(&mut self, context: &Context, commit: Lsn, last: Lsn) {
        let stuck = self.peers.iter().find(|(node, peer)| {
            self.required.contains(**node)
                && (peer.is_lost() || peer.holds_up(context.now, last, context.evict))
        });
        if let Some((&node, peer)) = stuck {
            // It stays required until the map shows that it is out; so does a joiner whose joining may yet happen.
            if !self
                .proposal
                .is_some_and(|proposal| proposal.node == node && proposal.kind == ChangeKind::Leave)
            {
                let incarnation = peer.incarnation;
                if planted::is(Bug::LeaverNotCounted) {
                    self.required.remove(node);
                }
                self.proposal = Some(Proposal { node, incarnation, kind: ChangeKind::Leave, sent_at: None });
            }
            return;
        }
        if planted::is(Bug::UnknownIsFailed)
            && let Some(joining) =
                self.proposal.take_if(|it| it.kind == ChangeKind::Join && it.sent_at.is_some())
        {
            self.required.remove(joining.node);
            return;
        }
        if self.proposal.is_some() || !self.serving || self.takes_in_none || self.hand_over.is_some() {
            return;
        }
        let joiner = self.peers.iter().find(|(node, peer)| {
            !self.required.contains(**node) && context.map.is_active(**node) && peer.may_join(commit)
        });
        if let Some((&node, peer)) = joiner {
            // Rule 2: it counts from before it is proposed, so that it has every write acknowledged from here on.
            let incarnation = peer.incarnation;
            if !planted::is(Bug::JoinerNotCounted) {
                self.required.insert(node);
            }
            self.proposal = Some(Proposal { node, incarnation, kind: ChangeKind::Join, sent_at: None });
        }
    }
}

/// A read waits for what it saw, which may lie before what others wait for.
#[cold]
fn wait_before<W>(queue: &mut VecDeque<(Lsn, W)>, lsn: Lsn, waiter: W) {
    let at = queue.partition_point(|(other, _)| *other <= lsn);
    queue.insert(at, (lsn, waiter));
}

impl<W> Partition<W> {
    /// Commits what every member of the required set holds, and lets go whoever waited for it.
    pub(crate) fn commit_what_is_held(&mut self) {
        let own = self.own_held();
        let Role::Primary(primary) = &self.role else { return };
        let held = primary.held_by_all(own);
        if held > self.commit {
            if primary.serving {
                self.commit = held;
            } else {
                self.apply_up_to(held);
            }
            self.uncommitted.commit(held);
        }
        let commit = self.commit;
        let Role::Primary(primary) = &mut self.role else { return };
        if !primary.serving && commit >= primary.align_to {
            primary.serving = true;
        }
    }

    /// The end of a turn: commits, answers, and sends what is new.
    pub fn flush(&mut self, context: &Context, out: &mut Outbox<W>) {
        self.commit_what_is_held();
        self.count_uncommitted(&mut out.log);
        let (commit, own) = (self.commit, self.own_held());
        let Role::Primary(primary) = &mut self.role else { return };
        if context.leased() && primary.enough_in_sync() {
            primary.release(commit, own, out);
        }
        self.go_on_handing_over(context, out);
        let Role::Primary(primary) = &mut self.role else { return };
        if !primary.has_news {
            return;
        }
        primary.has_news = false;
        self.send_to_peers(context, out, |peer, sending, out| peer.send_records(sending, out));
    }

    /// Time passes: what got lost is sent again, transfers and changes of the in-sync set go on.
    pub fn tick(&mut self, context: &Context, out: &mut Outbox<W>) {
        let (commit, last) = (self.commit, self.log.last().lsn);
        let Role::Primary(primary) = &mut self.role else { return };
        primary.forget_followers(context.now);
        primary.consider_change(context, commit, last);
        self.tick_hand_over(context, out);
        self.propose(context, out);
        self.send_to_peers(context, out, |peer, sending, out| peer.tick(sending, out));
        let Role::Primary(primary) = &mut self.role else { return };
        for peer in primary.peers.values_mut() {
            peer.let_go_of_broken(context.now, &self.log, &self.table);
        }
        let free = primary.peers.values().filter_map(Peer::needs_log_from).min();
        let upto = free.map_or(Lsn(u64::MAX), |from| Lsn(from.0.saturating_sub(1)));
        self.trim_log(upto);
        self.flush(context, out);
    }

    /// Proposes what is to be proposed, again and again.
    pub(crate) fn propose(&mut self, context: &Context, out: &mut Outbox<W>) {
        let Role::Primary(primary) = &mut self.role else { return };
        if let Some(proposal) = &mut primary.proposal
            && proposal.sent_at.is_none_or(|at| context.now.since(at) >= PROPOSE)
        {
            proposal.sent_at = Some(context.now);
            out.changes.push(InSyncChange {
                partition: self.id,
                epoch: self.epoch,
                node: proposal.node,
                incarnation: proposal.incarnation,
                kind: proposal.kind,
            });
        }
    }

    /// The node is about to stop: where another copy can take over, this one orders no more, and lets it (rule 10). Where none
    /// can, none is taken in any more: the node's release would be taken to be meant for that partition, too. One whose joining
    /// is proposed may yet join. Called again after each map.
    pub fn retire(&mut self) {
        let Role::Primary(primary) = &mut self.role else { return };
        primary.takes_in_none = true;
        primary.retiring |= primary
            .peers
            .keys()
            .any(|&node| primary.required.contains(node) || primary.in_sync.contains(node));
    }

    /// Whether it has ordered its last and not all of that is committed and told.
    pub fn is_retiring(&self) -> bool {
        match &self.role {
            Role::Primary(primary) if primary.retiring => {
                primary.waits() || self.commit < self.log.last().lsn
            }
            _ => false,
        }
    }

    /// Counts anew what was sent to other copies and not confirmed: peers go with the maps that no longer name them.
    pub fn count_ahead_anew(&mut self, ahead: &mut BTreeMap<NodeId, usize>) {
        let Role::Primary(primary) = &mut self.role else { return };
        for peer in primary.peers.values_mut() {
            peer.count_ahead_anew(ahead);
        }
    }

    /// How many snapshots this copy is sending.
    pub fn snapshots_under_way(&self) -> usize {
        match &self.role {
            Role::Primary(primary) => primary.peers.values().filter(|peer| peer.is_being_filled()).count(),
            _ => 0,
        }
    }

    fn send_to_peers(
        &mut self,
        context: &Context,
        out: &mut Outbox<W>,
        mut send: impl FnMut(&mut Peer, &mut Sending<'_>, &mut Outbox<W>),
    ) {
        let Role::Primary(primary) = &mut self.role else { return };
        let mut sending = Sending {
            now: context.now,
            partition: self.id,
            epoch: self.epoch,
            primary_since: self.primary_since,
            commit: self.commit,
            log: &self.log,
            table: &self.table,
            requests: &self.requests,
            last_version: self.last_version,
            last_time_ms: self.last_time_ms,
            serving: primary.serving,
            snapshot_allowed: context.snapshots_free > 0,
            ahead_bytes_max: context.ahead_bytes_max,
            chunk_bytes: context.chunk_bytes,
            transfers_go_on: context.map.has(Level::TRANSFERS_GO_ON),
            required: false,
            last_session: &mut primary.last_session,
            more: false,
        };
        for (&node, peer) in &mut primary.peers {
            if !context.map.is_active(node) {
                continue;
            }
            sending.required = primary.required.contains(node) || primary.in_sync.contains(node);
            peer.node = node;
            peer.count_ahead(&mut out.ahead);
            send(peer, &mut sending, out);
            peer.count_ahead(&mut out.ahead);
        }
        primary.has_news |= sending.more;
    }

    /// A copy says what it holds. Only this very start of it counts, and only what it said in this reign.
    pub(crate) fn on_appended(&mut self, context: &Context, from: Sender, appended: Appended) {
        let (epoch, since) = (self.epoch, self.primary_since);
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&from.node) else { return };
        let late = peer.incarnation != from.incarnation || appended.epoch < peer.believed_from;
        if late && !planted::is(Bug::BelievesOldIncarnation) || appended.epoch < since {
            return;
        }
        if peer.on_appended(context.now, epoch, appended, &self.log) {
            primary.has_news = true;
        }
    }

    pub(crate) fn on_chunk_stored(
        &mut self,
        context: &Context,
        from: Sender,
        stored: ChunkStored,
        out: &mut Outbox<W>,
    ) {
        let since = self.primary_since;
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(peer) = primary.peers.get_mut(&from.node) else { return };
        if peer.incarnation == from.incarnation && stored.epoch >= since {
            out.transfers.done += u64::from(peer.on_chunk_stored(context.now, stored));
            primary.has_news = true;
        }
    }
}
