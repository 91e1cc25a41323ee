//! The control machine of one node: a member of the consensus group where it votes, a follower of the map elsewhere.
//!
//! Events in (time, messages, what the heart noticed, what the shards propose), effects out. The caller makes
//! [`ControlEffects::frames`] durable before it acts on anything else among the effects (rule 16).

use crate::command::{Answered, Command, apply, has_left};
use crate::coordinator::{self, Coordinator};
use crate::format::{decode_entry, decode_map, encode_entry, encode_map};
use crate::frames::{Frame, Report, Restored, encode_frame, seat_frame};
use crate::heart::{HeartInput, HeartNotice};
use crate::message::{Change, Identity, Message, Order, Registration};
use crate::seats::{self, TICK};
use crate::store::LogStore;
use placement::{ClusterMap, Member, Seat};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message as RaftMessage, MessageType};
use raft::{RawNode, StateRole, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use types::planted::{self, Bug};
use types::{Incarnation, Instant, Level, NodeId, PartitionId, Position};

/// Between two attempts of something that is repeated until it works.
const REPEAT: Duration = Duration::from_millis(100);
/// A snapshot of the map that has not arrived by then is sent again.
const SNAPSHOT_REPEAT: Duration = Duration::from_millis(500);
/// The same, of a node's word that it is about to stop.
const LEAVE: Duration = Duration::from_millis(10);
/// Entries kept before the log is cut behind a snapshot of the map.
const ENTRIES_MAX: usize = 2048;
/// Bytes of frames before the control file is written anew: on a full disk it lives on the room that it holds in reserve.
const BYTES_MAX: usize = 512 << 10;
/// Entries kept behind a snapshot, so that a voter that lags a little needs none.
const ENTRIES_BEHIND: u64 = 256;

/// What a control machine is made with.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// What this node tells of itself.
    pub me: Registration,
    /// Every listed node.
    pub listed: Vec<NodeId>,
    /// Those of them that vote when the cluster is made.
    pub voters: Vec<NodeId>,
    /// The most voters that there may ever be.
    pub voters_max: usize,
    /// This node was listed before but its directory is new: the seat that was made for it is not its own (rule 16).
    pub rejoins: bool,
    /// The cluster's id.
    pub cluster_id: String,
    /// Copies of each partition.
    pub copies: u16,
    /// Fewest in-sync copies that take writes.
    pub min_in_sync: u16,
    /// Partitions, a power of two.
    pub partitions: u16,
    /// The copies of a node that has been dead for this long are made anew on others. Zero: never by itself.
    pub replace_after: Duration,
    /// Another node votes in place of a voter that has been dead for this long. Zero: never by itself.
    pub replace_voter_after: Duration,
    /// Least time without word of the coordinator before a voter stands for election.
    pub election: Duration,
    /// Draws election timeouts.
    pub seed: u64,
}

/// What a control machine wants done, in this order: frames durable, then the rest.
#[derive(Default)]
pub struct ControlEffects {
    /// To be appended to this node's control file, and synced.
    pub frames: Vec<Vec<u8>>,
    /// Whether the frames must be on disk before anything else is done. What only tells how far entries are committed
    /// need not be: it is learned again.
    pub sync: bool,
    /// To replace that file's content: sent instead of `frames` when much has gathered.
    pub rewrite: Option<Vec<Vec<u8>>>,
    /// To other nodes' control machines.
    pub messages: Vec<(NodeId, Message)>,
    /// The newest map, for the shards.
    pub map: Option<Arc<ClusterMap>>,
    /// For the heart, after `map`.
    pub to_heart: Vec<HeartInput>,
    /// The shards are to say how far their logs of these reach: answered by [`Control::tails`].
    pub ask_tails: Vec<(NodeId, u64, Vec<PartitionId>)>,
}

/// One node's control machine.
pub struct Control {
    pub(crate) config: ControlConfig,
    /// The newest map that this node knows.
    pub(crate) map: Arc<ClusterMap>,
    /// The map that the entries applied here have made. Behind `map` on a member that has not caught up.
    state: Arc<ClusterMap>,
    /// This node's part in the consensus group, where it has a seat.
    pub(crate) raft: Option<RawNode<LogStore>>,
    pub(crate) coordinator: Coordinator,
    /// The term of the newest entry applied.
    pub(crate) applied_term: u64,
    pub(crate) applied_index: u64,
    reports: BTreeMap<NodeId, Report>,
    heard: BTreeMap<NodeId, Incarnation>,
    /// By voter (none: all) and node: the newest entry that answers reports.
    answers: BTreeMap<(Option<NodeId>, NodeId), u64>,
    /// Answers before this entry are not remembered.
    answers_since: u64,
    /// The coordinator as the heart last learned it: for nodes that do not vote, and voters that do not hear it.
    told_coordinator: Option<NodeId>,
    known_coordinator: Option<NodeId>,
    next_tick: Instant,
    next_repeat: Instant,
    next_snapshots: Instant,
    /// Members that had not taken in a snapshot at the last look.
    awaiting_snapshot: BTreeSet<u64>,
    pub(crate) effects: ControlEffects,
    frames_kept: usize,
    /// Since when this member's map has had this version, while others have had newer ones.
    pub(crate) moved_at: (Instant, u64),
    /// The voters of the map that a node without a seat keeps on disk, by since when they are.
    pub(crate) kept_voters_since: u64,
    bytes_kept: usize,
    /// The coordinator thinks that this voter holds entries which it does not.
    forgot: bool,
    /// This node is about to stop, and orders no more.
    leaving: bool,
    /// It does not lead any more, if it can be helped.
    pub(crate) stepping_down: bool,
    next_leave: Instant,
    /// The level of the cluster that the file tells of.
    pub(crate) level: Level,
    /// The file does not tell of this member's seat yet.
    seat_unsaid: bool,
    pub(crate) next_level: Instant,
    /// A newer build has written an entry or a snapshot that this one does not know.
    pub(crate) outgrown: bool,
}

impl Control {
    /// A machine that goes on from what its file said. The caller has issued a new incarnation already.
    pub fn new(config: ControlConfig, restored: Restored, now: Instant) -> Control {
        let mut map = restored.map.clone().unwrap_or_default();
        let mut effects = ControlEffects::default();
        let mut applied_index = 0;
        let mut applied_term = 0;
        let mut seat_unsaid = restored.seat.is_none();
        let seat = seats::at_start(&config, &restored);
        let raft = seat.map(|(id, group)| {
            // Below that level the file is an older build's as well, which knows no seats.
            if restored.seat.is_none() && restored.started.level >= Level::VOTERS_FOLLOW {
                effects.frames.push(seat_frame(restored.started.level, id, &group));
                effects.sync = true;
                seat_unsaid = false;
            }
            map = ClusterMap::default();
            let mut store = LogStore::new(group);
            if let Some(snapshot) = &restored.snapshot {
                store.install(snapshot);
                map = decode_map(&snapshot.data).unwrap_or_default();
                applied_index = snapshot.get_metadata().index;
                applied_term = snapshot.get_metadata().term;
            }
            store.append(&restored.entries);
            let mut hard_state = restored.hard_state.clone();
            hard_state.commit = hard_state.commit.max(applied_index);
            store.set_hard_state(hard_state);
            seats::member(&config, id, store, applied_index)
        });
        let map = Arc::new(map);
        if raft.is_none() && map.version > 0 {
            effects.map = Some(map.clone());
            effects.to_heart.push(HeartInput::Applied { map: map.clone(), cleared: Vec::new() });
        }
        Control {
            config,
            kept_voters_since: map.voters_since,
            state: map.clone(),
            map,
            raft,
            coordinator: Coordinator::default(),
            applied_term,
            applied_index,
            reports: restored.reports,
            heard: BTreeMap::new(),
            answers: BTreeMap::new(),
            answers_since: applied_index,
            told_coordinator: None,
            known_coordinator: None,
            next_tick: now,
            next_repeat: now,
            next_snapshots: now,
            awaiting_snapshot: BTreeSet::new(),
            effects,
            frames_kept: 0,
            moved_at: (now, 0),
            bytes_kept: 0,
            forgot: false,
            leaving: false,
            stepping_down: false,
            next_leave: now,
            level: restored.started.level,
            seat_unsaid,
            next_level: now,
            outgrown: false,
        }
    }

    /// What is to be done; the caller empties it.
    pub fn effects(&mut self) -> &mut ControlEffects {
        &mut self.effects
    }

    /// The map that this node knows.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// The coordinator, as far as this node knows.
    pub fn coordinator(&self) -> Option<NodeId> {
        let known = self.raft.as_ref().map(|raft| Seat::node_of(raft.raft.leader_id));
        let known = known.filter(|node| node.0 != 0);
        // Who only learns the log may not have heard of the leader yet.
        let learns = || self.raft.is_none() || !self.map.is_voter(self.config.me.node) && self.map.is_made();
        known.or_else(|| self.told_coordinator.filter(|_| learns()))
    }

    /// Whether this node thinks that it votes, while the cluster knows another data directory of it as the voter: then
    /// it has forgotten what that one promised, and must not go on.
    pub fn lost_its_vote(&self) -> bool {
        let me = &self.config.me;
        let is_mine = |seat: &Seat| seat.directory == 0 || seat.directory == me.directory;
        self.forgot
            || self.raft.as_ref().is_some_and(|raft| {
                self.map.seats.iter().any(|seat| seat.id() == raft.raft.id && !is_mine(seat))
            })
    }

    /// Whether this node is the coordinator, and up to date with what earlier ones decided.
    pub fn is_coordinator(&self) -> bool {
        self.raft
            .as_ref()
            .is_some_and(|raft| raft.raft.state == StateRole::Leader && self.applied_term == raft.raft.term)
            && self.state.version == self.map.version
    }

    /// The consensus' term; 0 on a node that does not vote.
    pub fn term(&self) -> u64 {
        self.raft.as_ref().map_or(0, |raft| raft.raft.term)
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.effects.messages.push((to, message));
    }

    /// Time passes. Called every few milliseconds.
    pub fn tick(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            let stands_for_none = self.stands_for_none();
            match &mut self.raft {
                // Time passes all the same: once the leader has been silent for long it votes for another.
                Some(raft) if stands_for_none => raft.raft.election_elapsed += 1,
                Some(raft) => _ = raft.tick(),
                None => {}
            }
        }
        if now >= self.next_repeat {
            self.next_repeat = now + REPEAT;
            self.register(now);
            self.tell_level(now);
            self.send_reports(now);
            self.give_lead();
        }
        if now >= self.next_snapshots {
            self.next_snapshots = now + SNAPSHOT_REPEAT;
            self.send_snapshots_again();
        }
        self.send_leave(now);
        self.advance(now);
    }

    fn send_snapshots_again(&mut self) {
        let Some(raft) = &mut self.raft else { return };
        let awaiting = seats::awaiting_snapshot(raft);
        for &id in awaiting.intersection(&self.awaiting_snapshot) {
            seats::send_snapshot_again(raft, id);
        }
        self.awaiting_snapshot = awaiting;
    }

    /// This node is about to stop: its shards have committed what they ordered and order no more.
    pub fn leave(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.next_leave = now;
        }
        self.send_leave(now);
        self.advance(now);
    }

    /// Whether the map shows that nobody waits for this node, but for what nobody else has.
    pub fn has_left(&self) -> bool {
        self.leaving && has_left(&self.map, self.config.me.node)
    }

    fn send_leave(&mut self, now: Instant) {
        // Requests wait for it, so it is said again soon: the coordinator may be too new to have heard it. Where the map does not
        // show it, the coordinator is all who knows.
        let is_known = self.map.has(Level::STOPPING) && self.has_left();
        if self.leaving && !is_known && now >= self.next_leave {
            self.next_leave = now + LEAVE;
            self.tell_the_coordinator(now, Message::Leave(self.config.me.incarnation));
        }
    }

    /// A message from another node.
    pub fn message(&mut self, now: Instant, from: Identity, message: Message) {
        match message {
            Message::Raft(bytes) => self.raft_message(from, &bytes),
            Message::AskMap { have } => {
                if self.map.version > have {
                    let map = Box::new(ClusterMap::clone(&self.map));
                    self.send(from.node, Message::Map(map));
                }
            }
            Message::Map(map) => self.follow(*map),
            Message::MapChanges(changes) => self.follow_changes(from.node, changes),
            Message::AskTails { question, partitions } => {
                self.effects.ask_tails.push((from.node, question, partitions));
            }
            // What a voter says, only the holder of its seat can.
            Message::Report { .. } if !self.map.holds_vote(from.node, from.directory) => {}
            // Another start than the map shows does not hold what the map says, and another's word for it does not count.
            Message::Tails { .. }
                if self.map.member(from.node).is_none_or(|m| m.incarnation != from.incarnation) => {}
            other => coordinator::message(self, now, from.node, other),
        }
        self.advance(now);
    }

    /// What the heart noticed.
    pub fn heart(&mut self, now: Instant, notice: HeartNotice) {
        match notice {
            HeartNotice::Silent { node, incarnation, mark, voters_since } => {
                let alive = |member: &&Member| member.incarnation == incarnation && member.is_alive();
                if self.map.member(node).filter(alive).is_none() || voters_since < self.map.voters_since {
                    // Decided already, or of a time with other voters: nothing will answer this one.
                    let cleared = vec![(node, mark)];
                    self.effects.to_heart.push(HeartInput::Applied { map: self.map.clone(), cleared });
                    return;
                }
                let term = self.term();
                self.reports.insert(node, Report { incarnation, term, applied: self.applied_index, mark });
                self.heard.remove(&node);
                self.save_reports();
                self.send_reports(now);
            }
            HeartNotice::Heard { node, incarnation } => {
                if self.heard.insert(node, incarnation).is_none() {
                    self.send_reports(now);
                }
            }
            HeartNotice::NewerMap { node, version } => self.newer_map(now, node, version),
            HeartNotice::Coordinator(node) => self.told_coordinator = Some(node),
            HeartNotice::Refused => self.register(now),
        }
        self.advance(now);
    }

    /// What this node's shards propose.
    pub fn changes(&mut self, now: Instant, changes: Vec<Change>) {
        self.tell_the_coordinator(now, Message::Propose(changes));
        self.advance(now);
    }

    /// An operator accepts the loss of what no living copy holds.
    pub fn accept_loss(&mut self, now: Instant) {
        self.tell_the_coordinator(now, Message::AcceptLoss);
        self.advance(now);
    }

    /// An operator asks for a change of the cluster.
    pub fn order(&mut self, now: Instant, order: Order) {
        self.tell_the_coordinator(now, Message::Order(order));
        self.advance(now);
    }

    /// A partition is to be handed over to another of its in-sync copies.
    pub fn hand_over(&mut self, now: Instant, partition: PartitionId, heir: NodeId) {
        self.tell_the_coordinator(now, Message::HandOver { partition, heir });
        self.advance(now);
    }

    /// This node's shards answer [`ControlEffects::ask_tails`].
    pub fn tails(&mut self, now: Instant, to: NodeId, question: u64, tails: Vec<(PartitionId, Position)>) {
        let answer = Message::Tails { question, tails };
        if to == self.config.me.node {
            coordinator::message(self, now, to, answer);
        } else {
            self.send(to, answer);
        }
        self.advance(now);
    }

    pub(crate) fn tell_the_coordinator(&mut self, now: Instant, message: Message) {
        // A voter that does not hear the coordinator may be heard by it.
        match self.coordinator().or(self.told_coordinator) {
            Some(node) if node == self.config.me.node => coordinator::message(self, now, node, message),
            Some(node) => self.send(node, message),
            None => {}
        }
    }

    /// Tells the voters that this node has started, until the map says so.
    fn register(&mut self, now: Instant) {
        let me = &self.config.me;
        let known = self
            .map
            .member(me.node)
            .is_some_and(|member| member.incarnation == me.incarnation && member.is_alive());
        // Who is about to stop and is thought dead does not come back to life for that.
        if known || self.is_removed() || self.leaving {
            return;
        }
        let registration = me.clone();
        let voters: Vec<NodeId> = match self.map.voters.is_empty() {
            true => self.config.listed.clone(),
            false => self.map.seats.iter().map(|seat| seat.node).collect(),
        };
        for voter in voters {
            if voter == self.config.me.node {
                self.coordinator.register(now, registration.clone());
            } else {
                self.send(voter, Message::Register(registration.clone()));
            }
        }
    }

    /// Whether the cluster has removed this start of the node: it holds nothing any more, and may stop.
    pub fn is_removed(&self) -> bool {
        let me = &self.config.me;
        let is_it =
            |&(node, incarnation): &(NodeId, Incarnation)| node == me.node && me.incarnation <= incarnation;
        self.map.removed.iter().any(is_it)
    }

    fn send_reports(&mut self, now: Instant) {
        if self.reports.is_empty() {
            return;
        }
        let term = self.term();
        // A report of an earlier term is void: what ends that term's silence is this term's first entry.
        let of_term = |node: &&NodeId| self.reports.get(node).is_some_and(|report| report.term == term);
        let silent: Vec<_> = self
            .reports
            .keys()
            .filter(of_term)
            .filter(|node| !self.heard.contains_key(node))
            .map(|node| (*node, self.reports[node].incarnation))
            .collect();
        let heard: Vec<_> = self.heard.iter().map(|(&node, &incarnation)| (node, incarnation)).collect();
        self.tell_the_coordinator(now, Message::Report { term, applied: self.applied_index, silent, heard });
    }

    fn save_reports(&mut self) {
        let reports = self.reports.iter().map(|(&node, &report)| (node, report)).collect();
        self.effects.frames.push(encode_frame(self.level(), &Frame::Reports(reports)));
        self.effects.sync = true;
    }

    /// Puts commands into the group's log. False where this node is not the leader any more, or the cluster's level has no form for
    /// one of them.
    pub(crate) fn propose(&mut self, commands: &[Command]) -> bool {
        let Some(raft) = &mut self.raft else { return false };
        let Some(data) = encode_entry(self.map.level, commands) else { return false };
        raft.propose(Vec::new(), data).is_ok()
    }

    /// The newest entry that answers this voter's reports of this node: what the voter said before it is void. So is what was
    /// said before the voters changed last (rule 6).
    pub(crate) fn answered_at(&self, voter: NodeId, node: NodeId) -> u64 {
        let at = |voter| self.answers.get(&(voter, node)).copied().unwrap_or(0);
        let since = if planted::is(Bug::NewVotersReportAtOnce) { 0 } else { self.map.voters_since };
        at(None).max(at(Some(voter))).max(self.answers_since).max(since)
    }

    /// Whether the newest entry of this leader's log is applied: then the next batch may go.
    pub(crate) fn is_settled(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.store().last_index().unwrap_or(0) == self.applied_index)
    }

    fn raft_message(&mut self, from: Identity, bytes: &[u8]) {
        let Ok(message) = RaftMessage::parse_from_bytes(bytes) else { return };
        // Who sent it is what the transport proved, not what it says; and a seat is its directory's: on another one its node
        // has forgotten its votes (rule 16).
        let is_not_its = |seat: &Seat| {
            seat.id() == message.from && seat.directory != 0 && seat.directory != from.directory
        };
        if Seat::node_of(message.from) != from.node || self.map.seats.iter().any(is_not_its) {
            return;
        }
        // What was meant for an earlier seat of this node is for nobody.
        if let Some(raft) = self.raft.as_mut().filter(|raft| raft.raft.id == message.to) {
            let last = raft.store().last_index().unwrap_or(0);
            if message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > last {
                // A heartbeat never tells of more than we said we hold: our directory was emptied since.
                self.forgot = true;
                return;
            }
            // An error here is a message out of place (a proposal without a leader, say): nothing was lost.
            let _ = raft.step(message);
        }
    }

    /// Takes in what has come, decides what follows from it, and takes that in.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.run_consensus();
        coordinator::tick(self, now);
        self.run_consensus();
    }

    /// Runs the consensus library until it wants nothing more.
    fn run_consensus(&mut self) {
        let (before, state_before) = (self.map.clone(), self.state.clone());
        let mut answered: Vec<Answered> = Vec::new();
        let mut cleared_by_term = false;
        let mut regrouped = false;
        if let Some(mut raft) = self.raft.take() {
            while raft.has_ready() {
                let mut ready = raft.ready();
                self.queue_raft(ready.take_messages());
                if !ready.snapshot().is_empty() {
                    let snapshot = ready.snapshot().clone();
                    raft.mut_store().install(&snapshot);
                    match decode_map(&snapshot.data) {
                        Some(map) => self.state = Arc::new(map),
                        None => self.outgrown = true,
                    }
                    self.applied_index = snapshot.get_metadata().index;
                    self.applied_term = snapshot.get_metadata().term;
                    self.answers_since = self.applied_index;
                    // What the snapshot skips may have answered any report.
                    cleared_by_term = true;
                    let bytes = snapshot.write_to_bytes().unwrap_or_default();
                    self.effects.frames.push(encode_frame(self.level(), &Frame::Snapshot(bytes)));
                }
                let committed = ready.take_committed_entries();
                regrouped |= self.apply_entries(&mut raft, &committed, &mut answered);
                if !ready.entries().is_empty() {
                    raft.mut_store().append(ready.entries());
                    let entries = ready
                        .entries()
                        .iter()
                        .map(|entry| entry.write_to_bytes().unwrap_or_default())
                        .collect();
                    self.effects.frames.push(encode_frame(self.level(), &Frame::Entries(entries)));
                }
                self.effects.sync |= ready.must_sync();
                if let Some(hard_state) = ready.hs() {
                    raft.mut_store().set_hard_state(hard_state.clone());
                    self.effects.frames.push(raft.store().hard_state_frame(self.level()));
                }
                self.queue_raft(ready.take_persisted_messages());
                let mut light = raft.advance(ready);
                if let Some(commit) = light.commit_index() {
                    raft.mut_store().set_commit(commit);
                    // Nobody tells a voter that is alone of this again. It has to be in the file before the answers to reports that
                    // follow from it (rule 6).
                    self.effects.frames.push(raft.store().hard_state_frame(self.level()));
                }
                self.queue_raft(light.take_messages());
                let committed = light.take_committed_entries();
                regrouped |= self.apply_entries(&mut raft, &committed, &mut answered);
                raft.advance_apply();
            }
            if regrouped {
                // That this node has applied it must outlive its process: its grants name maps as new as this from now on (rule 6).
                self.effects.frames.push(raft.store().hard_state_frame(self.level()));
                self.effects.sync = true;
            }
            self.raft = Some(raft);
            self.compact();
        }
        if self.state.version > self.map.version {
            self.map = self.state.clone();
        }
        self.note_level();
        if !Arc::ptr_eq(&before, &self.map) || !Arc::ptr_eq(&state_before, &self.state) {
            self.settle_reports(&answered, cleared_by_term);
        }
        self.reseat();
        self.tell_coordinator();
        if !Arc::ptr_eq(&before, &self.map) {
            self.effects.map = Some(self.map.clone());
            self.push_changes(&before);
        }
    }

    /// Takes the seat that the map has for this node, or gives up the one that is gone from it.
    fn reseat(&mut self) {
        let me = &self.config.me;
        if let Some(id) = self.raft.as_ref().map(|raft| raft.raft.id) {
            let is_gone = self.map.is_made() && self.map.seats.iter().all(|seat| seat.id() != id);
            // A map from before the seat was made says nothing of it.
            if is_gone && self.map.version >= id >> 16 {
                self.raft = None;
                self.state = self.map.clone();
                self.known_coordinator = None;
                self.reports.clear();
                self.heard.clear();
                self.keep_map();
            }
            return;
        }
        let seat = self.map.seat(me.node).filter(|seat| seat.directory == me.directory && seat.number > 0);
        if let Some(id) = seat.map(Seat::id) {
            let group = ConfState::default();
            self.effects.frames.push(seat_frame(self.level(), id, &group));
            self.effects.sync = true;
            self.raft = Some(seats::member(&self.config, id, LogStore::new(group), 0));
            self.state = Arc::default();
            (self.applied_index, self.applied_term, self.answers_since) = (0, 0, 0);
            self.answers.clear();
        }
    }

    fn queue_raft(&mut self, messages: Vec<RaftMessage>) {
        for message in messages {
            let to = NodeId(message.to as u16);
            let Ok(bytes) = message.write_to_bytes() else { continue };
            self.send(to, Message::Raft(bytes));
        }
    }

    /// Applies entries. True where one of them changed who is in the group.
    fn apply_entries(
        &mut self,
        raft: &mut RawNode<LogStore>,
        entries: &[Entry],
        answered: &mut Vec<Answered>,
    ) -> bool {
        if entries.is_empty() {
            return false;
        }
        let mut map = ClusterMap::clone(&self.state);
        let mut regrouped = false;
        for entry in entries {
            if entry.index <= self.applied_index {
                continue;
            }
            if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
                // One that cannot be was refused by whoever led when it was proposed, and is an empty entry.
                if let Ok(change) = ConfChangeV2::parse_from_bytes(&entry.data)
                    && let Ok(group) = raft.apply_conf_change(&change)
                {
                    seats::take_up(&mut map, &group, &change, entry.index);
                    raft.mut_store().set_group(group);
                    regrouped = true;
                }
            } else {
                let Some(commands) = decode_entry(&entry.data) else {
                    // Who leaves out what others apply has another map than they.
                    self.outgrown = true;
                    break;
                };
                let first = answered.len();
                for command in &commands {
                    apply(&mut map, command, answered);
                }
                for answer in &mut answered[first..] {
                    answer.at = entry.index;
                    self.answers.insert((answer.voter, answer.node), entry.index);
                }
            }
            map.version = entry.index;
            (self.applied_index, self.applied_term) = (entry.index, entry.term);
        }
        self.state = Arc::new(map);
        if regrouped {
            // Whoever is new in the group begins with a snapshot in which it is; none of the first entries says who was in it.
            let state = encode_map(&self.state);
            let forget = self.applied_index.saturating_sub(ENTRIES_BEHIND).max(1);
            raft.mut_store().compact(self.applied_index, state, forget);
        }
        regrouped
    }

    /// Ends the reports that what was applied has answered (rule 6), durably, and lets the heart grant again.
    fn settle_reports(&mut self, answered: &[Answered], all_earlier: bool) {
        let (me, applied_term) = (self.config.me.node, self.applied_term);
        let voters_since = self.state.voters_since;
        let is_answered = |node: NodeId, report: &Report| {
            report.term < applied_term
                || all_earlier
                || report.applied < voters_since
                || answered.iter().any(|answer| {
                    answer.node == node
                        && answer.incarnation >= report.incarnation
                        && answer.at > report.applied
                        && answer.voter.is_none_or(|voter| voter == me)
                })
        };
        let done: Vec<(NodeId, Report)> = self
            .reports
            .iter()
            .filter(|(node, report)| is_answered(**node, report))
            .map(|(&node, &report)| (node, report))
            .collect();
        for (node, _) in &done {
            self.reports.remove(node);
            self.heard.remove(node);
        }
        if !done.is_empty() {
            self.save_reports();
        }
        let cleared = done.into_iter().map(|(node, report)| (node, report.mark)).collect();
        self.effects.to_heart.push(HeartInput::Applied { map: self.map.clone(), cleared });
    }

    fn tell_coordinator(&mut self) {
        if self.raft.is_none() {
            return;
        }
        let coordinator = self.coordinator();
        if coordinator != self.known_coordinator {
            self.known_coordinator = coordinator;
            self.told_coordinator = coordinator.or(self.told_coordinator);
            self.effects.to_heart.push(HeartInput::Coordinator(coordinator));
        }
    }

    /// Cuts the log behind a snapshot of the map, and rewrites the control file with what still counts.
    fn compact(&mut self) {
        self.frames_kept += self.effects.frames.len();
        self.bytes_kept += self.effects.frames.iter().map(Vec::len).sum::<usize>();
        let Some(raft) = &mut self.raft else { return };
        let is_short = raft.store().kept() <= ENTRIES_MAX && self.frames_kept <= ENTRIES_MAX * 4;
        // Once the level has risen to that, the file begins to tell of the seat.
        let tells_enough = !self.seat_unsaid || self.level < Level::VOTERS_FOLLOW || self.applied_index == 0;
        if is_short && self.bytes_kept <= BYTES_MAX && tells_enough {
            return;
        }
        let state = encode_map(&self.state);
        raft.mut_store().compact(
            self.applied_index,
            state,
            self.applied_index.saturating_sub(ENTRIES_BEHIND),
        );
        let start = self.start_frame();
        let Some(raft) = &self.raft else { return };
        let store = raft.store();
        let snapshot = store.latest_snapshot();
        let entries = store.entries_after(snapshot.get_metadata().index);
        let group = snapshot.get_metadata().get_conf_state();
        let group = group.write_to_bytes().unwrap_or_default();
        let mut frames = vec![start];
        if self.level >= Level::VOTERS_FOLLOW {
            frames.push(Frame::Seat { id: raft.raft.id, group });
        }
        frames.extend([
            Frame::Snapshot(snapshot.write_to_bytes().unwrap_or_default()),
            Frame::Entries(entries.iter().map(|entry| entry.write_to_bytes().unwrap_or_default()).collect()),
            Frame::HardState(store.hard_state().write_to_bytes().unwrap_or_default()),
            Frame::Reports(self.reports.iter().map(|(&node, &report)| (node, report)).collect()),
        ]);
        if self.level > Level::FIRST {
            frames.push(Frame::Level(self.level));
        }
        self.effects.frames.clear();
        self.seat_unsaid &= self.level < Level::VOTERS_FOLLOW;
        self.effects.rewrite = Some(frames.iter().map(|frame| encode_frame(self.level, frame)).collect());
        self.begin_to_count_frames();
    }

    /// The control file has just been written anew.
    pub(crate) fn begin_to_count_frames(&mut self) {
        (self.frames_kept, self.bytes_kept) = (0, 0);
    }

    pub(crate) fn start_frame(&self) -> Frame {
        let me = &self.config.me;
        Frame::Start {
            incarnation: me.incarnation,
            directory: me.directory,
            rejoins: self.config.rejoins,
            kept_since: me.kept.since,
            lost: me.kept.lost.clone(),
        }
    }
}
