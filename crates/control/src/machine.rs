//! The control machine of one node: a member of the consensus group where it votes, a follower of the map elsewhere.
//!
//! Events in (time, messages, what the heart noticed, what the shards propose), effects out. The caller makes
//! [`ControlEffects::frames`] durable before it acts on anything else among the effects (rule 16).

use crate::command::{Answered, Command, apply, has_left};
use crate::coordinator::{self, Coordinator};
use crate::format::{decode_entry, decode_map, encode_entry, encode_map};
use crate::frames::{Frame, Report, Restored, encode_frame};
use crate::heart::{HeartInput, HeartNotice};
use crate::message::{Change, Identity, MapChanges, Message, Order, Registration};
use crate::store::LogStore;
use placement::{ClusterMap, Member};
use protobuf::Message as _;
use raft::eraftpb::{Entry, Message as RaftMessage, MessageType};
use raft::{RawNode, StateRole, Storage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use types::{Incarnation, Instant, Level, NodeId, PartitionId, Position};

/// The consensus library's clock ticks this often.
const TICK: Duration = Duration::from_millis(10);
/// Ticks between the coordinator's heartbeats to the other voters.
const HEARTBEAT_TICKS: usize = 5;
/// Between two attempts of something that is repeated until it works.
const REPEAT: Duration = Duration::from_millis(100);
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
    /// Those of them that vote.
    pub voters: Vec<NodeId>,
    /// This node was listed before but its directory is new: it does not vote (rule 16).
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
    pub(crate) map: Arc<ClusterMap>,
    pub(crate) raft: Option<RawNode<LogStore>>,
    pub(crate) coordinator: Coordinator,
    /// The term of the newest entry applied.
    pub(crate) applied_term: u64,
    applied_index: u64,
    reports: BTreeMap<NodeId, Report>,
    heard: BTreeMap<NodeId, Incarnation>,
    /// By voter (none: all) and node: the newest entry that answers reports.
    answers: BTreeMap<(Option<NodeId>, NodeId), u64>,
    /// Answers before this entry are not remembered.
    answers_since: u64,
    /// The coordinator as the heart learned it, for nodes that do not vote.
    told_coordinator: Option<NodeId>,
    known_coordinator: Option<NodeId>,
    next_tick: Instant,
    next_repeat: Instant,
    pub(crate) effects: ControlEffects,
    frames_kept: usize,
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
    pub(crate) next_level: Instant,
    /// A newer build has written an entry or a snapshot that this one does not know.
    pub(crate) outgrown: bool,
}

impl Control {
    /// A machine that goes on from what its file said. The caller has issued a new incarnation already.
    pub fn new(config: ControlConfig, restored: Restored, now: Instant) -> Control {
        let votes = config.voters.contains(&config.me.node) && !config.rejoins;
        let mut map = ClusterMap::default();
        let mut applied_index = 0;
        let mut applied_term = 0;
        let raft = votes.then(|| {
            let mut store = LogStore::new(config.voters.iter().map(|voter| u64::from(voter.0)).collect());
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
            let raft_config = raft_config(&config, applied_index);
            let logger = slog::Logger::root(slog::Discard, slog::o!());
            RawNode::new(&raft_config, store, &logger).expect("the configuration is valid by construction")
        });
        Control {
            config,
            map: Arc::new(map),
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
            effects: ControlEffects::default(),
            frames_kept: 0,
            bytes_kept: 0,
            forgot: false,
            leaving: false,
            stepping_down: false,
            next_leave: now,
            level: restored.started.level,
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
        match &self.raft {
            Some(raft) => Some(NodeId(raft.raft.leader_id as u16)).filter(|node| node.0 != 0),
            None => self.told_coordinator,
        }
    }

    /// Whether this node thinks that it votes, while the cluster knows another data directory of it as the voter: then
    /// it has forgotten what that one promised, and must not go on.
    pub fn lost_its_vote(&self) -> bool {
        let me = &self.config.me;
        self.forgot || self.raft.is_some() && !self.map.holds_vote(me.node, me.directory)
    }

    /// Whether this node is the coordinator, and up to date with what earlier ones decided.
    pub fn is_coordinator(&self) -> bool {
        self.raft
            .as_ref()
            .is_some_and(|raft| raft.raft.state == StateRole::Leader && self.applied_term == raft.raft.term)
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
        self.send_leave(now);
        self.advance(now);
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
            HeartNotice::Silent { node, incarnation, mark } => {
                let alive = |member: &&Member| member.incarnation == incarnation && member.is_alive();
                if self.map.member(node).filter(alive).is_none() {
                    // Decided already: nothing will answer this one.
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
            HeartNotice::NewerMap { voter, version } => {
                if self.raft.is_none() && version > self.map.version && voter != self.config.me.node {
                    let have = self.map.version;
                    self.send(voter, Message::AskMap { have });
                }
            }
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
        match self.coordinator() {
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
        let voters =
            if self.map.voters.is_empty() { self.config.voters.clone() } else { self.map.voters.clone() };
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

    /// The newest entry that answers this voter's reports of this node: what the voter said before it is void.
    pub(crate) fn answered_at(&self, voter: NodeId, node: NodeId) -> u64 {
        let at = |voter| self.answers.get(&(voter, node)).copied().unwrap_or(0);
        at(None).max(at(Some(voter))).max(self.answers_since)
    }

    /// Whether the newest entry of this leader's log is applied: then the next batch may go.
    pub(crate) fn is_settled(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.store().last_index().unwrap_or(0) == self.applied_index)
    }

    fn raft_message(&mut self, from: Identity, bytes: &[u8]) {
        let Ok(message) = RaftMessage::parse_from_bytes(bytes) else { return };
        // Who sent it is what the transport proved, not what it says; and a voter is its directory: one that lost it
        // has forgotten its votes and is none (rule 16).
        if message.from != u64::from(from.node.0) || !self.map.holds_vote(from.node, from.directory) {
            return;
        }
        if let Some(raft) = &mut self.raft {
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
        let before = self.map.clone();
        let mut answered: Vec<Answered> = Vec::new();
        let mut cleared_by_term = false;
        if let Some(mut raft) = self.raft.take() {
            while raft.has_ready() {
                let mut ready = raft.ready();
                self.queue_raft(ready.take_messages());
                if !ready.snapshot().is_empty() {
                    let snapshot = ready.snapshot().clone();
                    raft.mut_store().install(&snapshot);
                    match decode_map(&snapshot.data) {
                        Some(map) => self.map = Arc::new(map),
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
                self.apply_entries(&committed, &mut answered);
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
                    let bytes = hard_state.write_to_bytes().unwrap_or_default();
                    self.effects.frames.push(encode_frame(self.level(), &Frame::HardState(bytes)));
                }
                self.queue_raft(ready.take_persisted_messages());
                let mut light = raft.advance(ready);
                if let Some(commit) = light.commit_index() {
                    raft.mut_store().set_commit(commit);
                }
                self.queue_raft(light.take_messages());
                let committed = light.take_committed_entries();
                self.apply_entries(&committed, &mut answered);
                raft.advance_apply();
            }
            self.raft = Some(raft);
            self.compact();
        }
        self.note_level();
        self.settle_reports(&answered, cleared_by_term, &before);
        self.tell_coordinator();
        if !Arc::ptr_eq(&before, &self.map) {
            self.effects.map = Some(self.map.clone());
            self.push_changes(&before);
        }
    }

    fn queue_raft(&mut self, messages: Vec<RaftMessage>) {
        for message in messages {
            let to = NodeId(message.to as u16);
            let Ok(bytes) = message.write_to_bytes() else { continue };
            self.send(to, Message::Raft(bytes));
        }
    }

    fn apply_entries(&mut self, entries: &[Entry], answered: &mut Vec<Answered>) {
        if entries.is_empty() {
            return;
        }
        let mut map = ClusterMap::clone(&self.map);
        for entry in entries {
            if entry.index <= self.applied_index {
                continue;
            }
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
            map.version = entry.index;
            (self.applied_index, self.applied_term) = (entry.index, entry.term);
        }
        self.map = Arc::new(map);
    }

    /// Ends the reports that what was applied has answered (rule 6), durably, and lets the heart grant again.
    fn settle_reports(&mut self, answered: &[Answered], all_earlier: bool, before: &Arc<ClusterMap>) {
        if Arc::ptr_eq(before, &self.map) {
            return;
        }
        let (me, applied_term) = (self.config.me.node, self.applied_term);
        let is_answered = |node: NodeId, report: &Report| {
            report.term < applied_term
                || all_earlier
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
            self.effects.to_heart.push(HeartInput::Coordinator(coordinator));
        }
    }

    /// The coordinator sends what changed to the nodes that do not vote.
    fn push_changes(&mut self, before: &ClusterMap) {
        if !self.is_coordinator() {
            return;
        }
        // Who was removed is told so, too.
        let gone = before.members.iter().filter(|member| self.map.member(member.id).is_none());
        let followers: Vec<NodeId> = self
            .map
            .members
            .iter()
            .chain(gone)
            .filter(|member| member.is_alive() && member.id != self.config.me.node)
            .filter(|member| {
                !self.map.voters.contains(&member.id) || !self.map.holds_vote(member.id, member.directory)
            })
            .map(|member| member.id)
            .collect();
        if followers.is_empty() {
            return;
        }
        let changes = difference(before, &self.map);
        for node in followers {
            self.send(node, Message::MapChanges(changes.clone()));
        }
    }

    fn follow(&mut self, map: ClusterMap) {
        if self.raft.is_none() && map.version > self.map.version {
            self.map_moved(map);
        }
    }

    fn follow_changes(&mut self, from: NodeId, changes: MapChanges) {
        if self.raft.is_some() || changes.to <= self.map.version {
            return;
        }
        // Changes say nothing of what never changes: a node without a map needs it whole.
        if changes.from != self.map.version || self.map.version == 0 {
            let have = self.map.version;
            self.send(from, Message::AskMap { have });
            return;
        }
        let mut map = ClusterMap::clone(&self.map);
        map.level = changes.level;
        (map.copies, map.min_in_sync) = (changes.copies, changes.min_in_sync);
        map.members.retain(|member| !changes.gone.contains(&member.id));
        for member in changes.members {
            match map.members.binary_search_by_key(&member.id, |kept| kept.id) {
                Ok(at) => map.members[at] = member,
                Err(at) => map.members.insert(at, member),
            }
        }
        map.removed = changes.removed;
        for (partition, state) in changes.partitions {
            if let Some(kept) = map.partitions.get_mut(usize::from(partition.0)) {
                *kept = state;
            }
        }
        map.version = changes.to;
        map.voter_directories = changes.voter_directories;
        self.map_moved(map);
    }

    fn map_moved(&mut self, map: ClusterMap) {
        self.map = Arc::new(map);
        self.note_level();
        self.effects.map = Some(self.map.clone());
        self.effects.to_heart.push(HeartInput::Applied { map: self.map.clone(), cleared: Vec::new() });
    }

    /// Cuts the log behind a snapshot of the map, and rewrites the control file with what still counts.
    fn compact(&mut self) {
        self.frames_kept += self.effects.frames.len();
        self.bytes_kept += self.effects.frames.iter().map(Vec::len).sum::<usize>();
        let Some(raft) = &mut self.raft else { return };
        let is_short = raft.store().kept() <= ENTRIES_MAX && self.frames_kept <= ENTRIES_MAX * 4;
        if is_short && self.bytes_kept <= BYTES_MAX {
            return;
        }
        let state = encode_map(&self.map);
        raft.mut_store().compact(
            self.applied_index,
            state,
            self.applied_index.saturating_sub(ENTRIES_BEHIND),
        );
        let store = raft.store();
        let snapshot = store.latest_snapshot();
        let entries = store.entries_after(snapshot.get_metadata().index);
        let me = &self.config.me;
        let mut frames = vec![
            Frame::Start {
                incarnation: me.incarnation,
                directory: me.directory,
                rejoins: self.config.rejoins,
                kept_since: me.kept.since,
                lost: me.kept.lost.clone(),
            },
            Frame::Snapshot(snapshot.write_to_bytes().unwrap_or_default()),
            Frame::Entries(entries.iter().map(|entry| entry.write_to_bytes().unwrap_or_default()).collect()),
            Frame::HardState(store.hard_state().write_to_bytes().unwrap_or_default()),
            Frame::Reports(self.reports.iter().map(|(&node, &report)| (node, report)).collect()),
        ];
        if self.level > Level::FIRST {
            frames.push(Frame::Level(self.level));
        }
        self.effects.frames.clear();
        self.effects.rewrite = Some(frames.iter().map(|frame| encode_frame(self.level, frame)).collect());
        (self.frames_kept, self.bytes_kept) = (0, 0);
    }
}

fn difference(before: &ClusterMap, after: &ClusterMap) -> MapChanges {
    let members =
        after.members.iter().filter(|member| before.member(member.id) != Some(member)).cloned().collect();
    let partitions = after
        .each_partition()
        .filter(|(id, state)| before.partition(*id) != Some(state))
        .map(|(id, state)| (id, *state))
        .collect();
    let gone =
        before.members.iter().map(|member| member.id).filter(|id| after.member(*id).is_none()).collect();
    MapChanges {
        from: before.version,
        to: after.version,
        level: after.level,
        copies: after.copies,
        min_in_sync: after.min_in_sync,
        members,
        gone,
        removed: after.removed.clone(),
        voter_directories: after.voter_directories.clone(),
        partitions,
    }
}

/// The library draws election timeouts from a generator of its own thread: a range of one value leaves it no choice,
/// and the value is ours, different for each voter so that they do not stand at once.
fn raft_config(config: &ControlConfig, applied: u64) -> raft::Config {
    let base = (config.election.as_millis() / TICK.as_millis()).max(2 * HEARTBEAT_TICKS as u128) as usize;
    let rank = config.voters.iter().position(|&voter| voter == config.me.node).unwrap_or(0);
    let drawn = (config.seed % 3) as usize;
    let timeout = base + rank * 4 + drawn;
    raft::Config {
        id: u64::from(config.me.node.0),
        election_tick: base,
        min_election_tick: timeout,
        max_election_tick: timeout + 1,
        heartbeat_tick: HEARTBEAT_TICKS,
        applied,
        max_size_per_msg: 1024 * 1024,
        max_inflight_msgs: 64,
        check_quorum: true,
        pre_vote: true,
        ..raft::Config::default()
    }
}
