//! Heartbeats and leases (rule 6).
//!
//! **The holder's side.** Every node sends a heartbeat to every voter each `heartbeat`. A voter's grant makes a lease
//! that runs from when the heartbeat was *sent*, on the holder's own clock; the node holds a lease while a majority
//! of voters have granted one that still runs. A grant counts once the holder acts on a map as new as the granter's:
//! so whoever was deposed learns of it before it can hold a lease again.
//!
//! **The voter's side.** A voter grants to a node that its map shows alive in the same incarnation, unless the
//! heartbeat says that the node stands still or hears no answers. A node without a grant for the grace, which is
//! longer than a lease by the drift of the clocks, is silent: the voter grants it nothing from that moment, and
//! [`crate::Control`] makes that durable and reports it. Only what the control plane then decides ends it
//! ([`HeartInput::Applied`]).
//!
//! The grace is counted from the voter's own start too, and from when it last woke: a voter that slept knows nothing.

use crate::message::{Beat, Identity};
use placement::ClusterMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use types::planted::{self, Bug};
use types::{Incarnation, Instant, NodeId};

/// How many grants of one voter are remembered, for when the newest was given by a map that is newer than ours.
const GRANTS_KEPT: usize = 8;
/// How far the cluster's clock is steered, in milliseconds a heartbeat.
const STEER_MS: i64 = 1;

/// What a heart is made with.
#[derive(Clone, Debug)]
pub struct HeartConfig {
    /// Who we are.
    pub me: Identity,
    /// The voters, until a map names them.
    pub voters: Vec<NodeId>,
    /// Whether this node grants: not where its directory lost what it had promised as a voter.
    pub votes: bool,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How long a lease runs from when its heartbeat was sent.
    pub lease: Duration,
    /// Without a grant for this long, a node is reported. Longer than `lease` by the drift of the clocks.
    pub grace: Duration,
    /// Reports that this voter had made before it restarted, and that nothing has answered.
    pub reported: Vec<(NodeId, Incarnation)>,
}

/// What the heart is told of its node at each tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// Unix milliseconds on this machine's wall clock.
    pub wall_ms: u64,
    /// The oldest map that any of the node's shards acts on.
    pub acted_version: u64,
    /// Whether a shard or the disk stands still.
    pub stalled: bool,
    /// Keys of the partitions of which this node is primary.
    pub keys: u64,
}

/// What the control machine tells the heart.
#[derive(Clone, Debug)]
pub enum HeartInput {
    /// A newer map, with the reports that it answers.
    Applied {
        /// The map.
        map: Arc<ClusterMap>,
        /// Reports that it answers, by node and mark: these nodes may be granted leases again.
        cleared: Vec<(NodeId, u64)>,
    },
    /// The coordinator, as the consensus group knows it.
    Coordinator(Option<NodeId>),
}

/// What the heart tells the control machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartNotice {
    /// No grant for the grace, and none from now on: report it.
    Silent {
        /// The node.
        node: NodeId,
        /// In this incarnation.
        incarnation: Incarnation,
        /// Names this report, so that the answer to an earlier one does not end it.
        mark: u64,
    },
    /// A reported node's heartbeat arrives again.
    Heard {
        /// The node.
        node: NodeId,
        /// In this incarnation.
        incarnation: Incarnation,
    },
    /// A voter acts on a newer map than ours.
    NewerMap {
        /// The voter.
        voter: NodeId,
        /// Its map's version.
        version: u64,
    },
    /// A voter says who the coordinator is.
    Coordinator(NodeId),
    /// A voter refuses to grant: its map does not show us alive.
    Refused,
}

/// What a heart wants done.
#[derive(Debug, Default)]
pub struct HeartEffects {
    /// To other nodes' hearts.
    pub beats: Vec<(NodeId, Beat)>,
    /// To this node's control machine.
    pub notices: Vec<HeartNotice>,
}

#[derive(Clone, Copy, Debug)]
struct GrantSeen {
    sent_at: Instant,
    map_version: u64,
}

/// What a voter remembers of a node.
#[derive(Clone, Copy, Debug)]
struct Listener {
    incarnation: Incarnation,
    granted_at: Instant,
    /// Its last heartbeat that said it is well, granted or not: right after a report is answered, only this is recent.
    heard_at: Instant,
    keys: u64,
}

/// A node's heart.
pub struct Heart {
    config: HeartConfig,
    map: Arc<ClusterMap>,
    effects: HeartEffects,
    last_tick: Instant,
    // The holder's side.
    next_beat: Instant,
    grants: BTreeMap<NodeId, VecDeque<GrantSeen>>,
    answered_at: BTreeMap<NodeId, Instant>,
    wall_offsets: BTreeMap<NodeId, i64>,
    clock_offset: Option<i64>,
    acted_version: u64,
    lease_until: Instant,
    coordinator: Option<NodeId>,
    // The voter's side.
    awake_since: Instant,
    listeners: BTreeMap<NodeId, Listener>,
    reported: BTreeMap<NodeId, (Incarnation, u64)>,
    last_mark: u64,
    keys_seen: BTreeMap<NodeId, u64>,
}

impl Heart {
    /// A heart that starts to beat at `now`.
    pub fn new(config: HeartConfig, now: Instant) -> Heart {
        let reported = config.reported.iter().map(|&(node, incarnation)| (node, (incarnation, 0))).collect();
        Heart {
            config,
            map: Arc::default(),
            effects: HeartEffects::default(),
            last_tick: now,
            next_beat: now,
            grants: BTreeMap::new(),
            answered_at: BTreeMap::new(),
            wall_offsets: BTreeMap::new(),
            clock_offset: None,
            acted_version: 0,
            lease_until: Instant(0),
            coordinator: None,
            awake_since: now,
            listeners: BTreeMap::new(),
            reported,
            last_mark: 0,
            keys_seen: BTreeMap::new(),
        }
    }

    /// What is to be done; the caller empties it.
    pub fn effects(&mut self) -> &mut HeartEffects {
        &mut self.effects
    }

    /// Until when this node holds a lease, on its own clock. It has lapsed where this is not ahead.
    pub fn lease_until(&self) -> Instant {
        self.lease_until
    }

    /// What to add to this machine's monotonic milliseconds to get the cluster's time in Unix milliseconds (rule 14).
    /// None until a majority of voters have told theirs.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.clock_offset
    }

    /// The coordinator, as last heard.
    pub fn coordinator(&self) -> Option<NodeId> {
        self.coordinator
    }

    /// Keys of each node's primaries, as last heard.
    pub fn keys(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.keys_seen.iter().map(|(&node, &keys)| (node, keys))
    }

    /// Takes what the control machine says.
    pub fn input(&mut self, input: HeartInput) {
        match input {
            HeartInput::Applied { map, cleared } => {
                if map.version >= self.map.version {
                    self.map = map;
                }
                for (node, mark) in cleared {
                    if self.reported.get(&node).is_some_and(|report| report.1 == mark) {
                        self.reported.remove(&node);
                    }
                }
            }
            HeartInput::Coordinator(node) => self.coordinator = node.or(self.coordinator),
        }
    }

    /// Time passes. Called every few milliseconds, far more often than `heartbeat`.
    pub fn tick(&mut self, now: Instant, pulse: Pulse) {
        if now.since(self.last_tick) > (self.config.grace - self.config.lease).max(self.config.heartbeat * 2)
        {
            // We slept. What others did meanwhile lies unread: nobody is silent because of it.
            self.awake_since = now;
        }
        self.last_tick = now;
        self.acted_version = pulse.acted_version.min(self.map.version);
        self.count_lease();
        if now >= self.next_beat {
            self.next_beat = now + self.config.heartbeat;
            self.steer_clock();
            self.beat_all(now, pulse);
        }
        if self.is_voter() {
            self.look_for_silence(now);
        }
    }

    /// A beat from another node.
    pub fn beat(&mut self, now: Instant, wall_ms: u64, from: Identity, beat: Beat) {
        match beat {
            Beat::Heartbeat { sent_at, stalled, keys } => {
                if self.is_voter() {
                    let answer = self.answer(now, wall_ms, from, sent_at, stalled, keys);
                    self.effects.beats.push((from.node, answer));
                }
            }
            Beat::Grant { sent_at, map_version, wall_ms: theirs, coordinator, keys } => {
                if Instant(sent_at) > now || !self.is_seated(from) {
                    return;
                }
                let grants = self.grants.entry(from.node).or_default();
                if grants.back().is_none_or(|newest| newest.sent_at < Instant(sent_at)) {
                    grants.push_back(GrantSeen { sent_at: Instant(sent_at), map_version });
                    if grants.len() > GRANTS_KEPT {
                        grants.pop_front();
                    }
                    let trip = now.since(Instant(sent_at));
                    if trip <= self.config.lease {
                        // An answer that came later may have lain here while we slept: it tells little of the time.
                        let half_trip = trip.as_millis() as i64 / 2;
                        let offset = theirs as i64 + half_trip - now.as_millis() as i64;
                        self.wall_offsets.insert(from.node, offset);
                    }
                }
                self.keys_seen = keys.into_iter().collect();
                self.heard_voter(now, from.node, map_version, coordinator);
                self.count_lease();
            }
            Beat::Refusal { sent_at, map_version, coordinator } => {
                if Instant(sent_at) <= now && self.is_seated(from) {
                    self.heard_voter(now, from.node, map_version, coordinator);
                    self.effects.notices.push(HeartNotice::Refused);
                }
            }
        }
    }

    fn voters(&self) -> &[NodeId] {
        if self.map.voters.is_empty() { &self.config.voters } else { &self.map.voters }
    }

    fn is_voter(&self) -> bool {
        self.config.votes && self.voters().contains(&self.config.me.node)
    }

    /// Whether the sender's word counts as a voter's.
    fn is_seated(&self, from: Identity) -> bool {
        self.voters().contains(&from.node) && self.map.holds_vote(from.node, from.directory)
    }

    fn majority(&self) -> usize {
        self.voters().len() / 2 + 1
    }

    fn heard_voter(&mut self, now: Instant, voter: NodeId, map_version: u64, coordinator: Option<NodeId>) {
        self.answered_at.insert(voter, now);
        if map_version > self.map.version {
            self.effects.notices.push(HeartNotice::NewerMap { voter, version: map_version });
        }
        // A voter knows it from the consensus group. Did it believe other voters, an old word could go round among them for ever.
        if let Some(coordinator) = coordinator
            && !self.is_voter()
            && self.coordinator != Some(coordinator)
        {
            self.coordinator = Some(coordinator);
            self.effects.notices.push(HeartNotice::Coordinator(coordinator));
        }
    }

    /// Whether a majority of voters has not answered for as long as a lease: our voice may carry one way only.
    fn is_deaf(&self, now: Instant) -> bool {
        if now.since(self.awake_since) <= self.config.lease {
            return false;
        }
        let hears = self.voters().iter().filter(|voter| {
            **voter == self.config.me.node
                || self.answered_at.get(voter).is_some_and(|&at| now.since(at) <= self.config.lease)
        });
        hears.count() < self.majority()
    }

    fn beat_all(&mut self, now: Instant, pulse: Pulse) {
        let stalled = pulse.stalled || self.is_deaf(now);
        let me = self.config.me;
        for voter in self.voters().to_vec() {
            if voter == me.node && self.is_voter() {
                let answer = self.answer(now, pulse.wall_ms, me, now.0, stalled, pulse.keys);
                self.beat(now, pulse.wall_ms, me, answer);
            } else if voter != me.node {
                let beat = Beat::Heartbeat { sent_at: now.0, stalled, keys: pulse.keys };
                self.effects.beats.push((voter, beat));
            }
        }
    }

    /// The lease that the grants in hand make: it runs while a majority's do.
    fn count_lease(&mut self) {
        let acted = self.acted_version;
        let mut sent: Vec<Instant> = self
            .voters()
            .iter()
            .filter_map(|voter| self.grants.get(voter))
            .filter_map(|grants| grants.iter().rev().find(|grant| grant.map_version <= acted))
            .map(|grant| grant.sent_at)
            .collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        self.lease_until = match sent.get(self.majority() - 1) {
            Some(&sent_at) => sent_at + self.config.lease,
            None => Instant(0),
        };
    }

    /// The median of the voters' wall clocks, steered towards by at most [`STEER_MS`] a heartbeat, so that time never
    /// jumps and never runs back.
    fn steer_clock(&mut self) {
        if self.wall_offsets.len() < self.majority() {
            return;
        }
        let mut offsets: Vec<i64> = self.wall_offsets.values().copied().collect();
        offsets.sort_unstable();
        let median = offsets[(offsets.len() - 1) / 2];
        self.clock_offset = Some(match self.clock_offset {
            None => median,
            Some(offset) => offset + (median - offset).clamp(-STEER_MS, STEER_MS),
        });
    }

    /// A voter's answer to a heartbeat.
    fn answer(
        &mut self,
        now: Instant,
        wall_ms: u64,
        from: Identity,
        sent_at: u64,
        stalled: bool,
        keys: u64,
    ) -> Beat {
        let (map_version, coordinator) = (self.map.version, self.coordinator);
        let known = self.map.member(from.node).is_some_and(|member| {
            member.incarnation == from.incarnation && member.directory == from.directory && member.is_alive()
        });
        if let Some(&(incarnation, _)) = self.reported.get(&from.node)
            && incarnation == from.incarnation
            && !stalled
        {
            // It said that it stands still, or was not heard; now it is well. The control plane decides what follows.
            self.effects.notices.push(HeartNotice::Heard { node: from.node, incarnation });
            if let Some(listener) = self.listeners.get_mut(&from.node) {
                listener.heard_at = now;
            }
        }
        let reported = self.reported.contains_key(&from.node) && !planted::is(Bug::GrantsAfterReport);
        if !known || stalled || reported {
            return Beat::Refusal { sent_at, map_version, coordinator };
        }
        let listener = Listener { incarnation: from.incarnation, granted_at: now, heard_at: now, keys };
        self.listeners.insert(from.node, listener);
        let all_keys: Vec<(NodeId, u64)> = self.listeners.iter().map(|(&node, l)| (node, l.keys)).collect();
        Beat::Grant { sent_at, map_version, wall_ms, coordinator, keys: all_keys }
    }

    fn look_for_silence(&mut self, now: Instant) {
        for member in self.map.members.iter().filter(|member| member.is_alive()) {
            if self.reported.contains_key(&member.id) {
                continue;
            }
            let listener = self.listeners.entry(member.id).or_insert(Listener {
                incarnation: member.incarnation,
                granted_at: now,
                heard_at: now,
                keys: 0,
            });
            if listener.incarnation != member.incarnation {
                *listener =
                    Listener { incarnation: member.incarnation, granted_at: now, heard_at: now, keys: 0 };
            }
            let quiet_since = listener.granted_at.max(listener.heard_at).max(self.awake_since);
            let grace =
                if planted::is(Bug::ReportsEarly) { self.config.grace / 4 } else { self.config.grace };
            if now.since(quiet_since) > grace {
                self.last_mark += 1;
                let (incarnation, mark) = (member.incarnation, self.last_mark);
                self.reported.insert(member.id, (incarnation, mark));
                let notice = HeartNotice::Silent { node: member.id, incarnation, mark };
                self.effects.notices.push(notice);
            }
        }
        let map = &self.map;
        self.listeners.retain(|node, _| map.is_alive(*node));
    }
}
