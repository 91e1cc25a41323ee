//! Heartbeats and leases (rule 6).
//!
//! **The holder's side.** Every node sends a heartbeat to every voter each `heartbeat`. A voter's grant makes a lease
//! that runs from when the heartbeat was *sent*, on the holder's own clock; the node holds a lease while a majority
//! of voters have granted one that still runs. A grant counts once the holder acts on a map as new as the granter's:
//! so whoever was deposed learns of it before it can hold a lease again. While the voters change, a majority of the old ones
//! and one of the new ones are needed. Nodes with a seat that do not vote yet are sent heartbeats as well, and grant: so their grants are at
//! hand at the moment from which they count.
//!
//! **The voter's side.** A voter grants to a node that its map shows alive in the same incarnation, unless the
//! heartbeat says that the node stands still or hears no answers. A node without a grant for the grace, which is
//! longer than a lease by the drift of the clocks, is silent: the voter grants it nothing from that moment, and
//! [`crate::Control`] makes that durable and reports it. Only what the control plane then decides ends it
//! ([`HeartInput::Applied`]).
//!
//! The grace is counted from the voter's own start too, and from when it last woke: a voter that slept knows nothing. It is
//! counted anew when the voters have changed, by all of them ([`crate::seats`] says why).
//!
//! A node without a seat grants nothing and answers so: who asks it has an old map, and learns that there is a newer one.

use crate::message::{Beat, Identity};
use placement::{ClusterMap, Seat};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use types::planted::{self, Bug};
use types::{Incarnation, Instant, NodeId};

/// How many grants of one voter are remembered, for when the newest was given by a map that is newer than ours.
const GRANTS_KEPT: usize = 8;
/// How far the cluster's clock is steered, in milliseconds a heartbeat.
const STEER_MS: i64 = 1;

/// What a heart is made with.
#[derive(Clone, Debug, Hash)]
pub struct HeartConfig {
    /// Who we are.
    pub me: Identity,
    /// The voters, until a map names them.
    pub voters: Vec<NodeId>,
    /// Nodes that may know who votes now, if those do not answer that were voters.
    pub listed: Vec<NodeId>,
    /// Whether this node grants before a map says whose the seats are: not where its directory lost what it had promised as a voter.
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
    /// The newest change of the voters that this node's control plane has applied, looked up after the tick's time.
    pub voters_since: u64,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeartNotice {
    /// No grant for the grace, and none from now on: report it.
    Silent {
        /// The node.
        node: NodeId,
        /// In this incarnation.
        incarnation: Incarnation,
        /// Names this report, so that the answer to an earlier one does not end it.
        mark: u64,
        /// Since which map there have been these voters: of other ones the report says nothing.
        voters_since: u64,
    },
    /// A reported node's heartbeat arrives again.
    Heard {
        /// The node.
        node: NodeId,
        /// In this incarnation.
        incarnation: Incarnation,
    },
    /// Another node acts on a newer map than ours.
    NewerMap {
        /// The node.
        node: NodeId,
        /// Its map's version.
        version: u64,
    },
    /// A voter says who the coordinator is.
    Coordinator(NodeId),
    /// A node refuses to grant: its map does not show us alive, or it has no seat.
    Refused,
}

/// What a heart wants done.
#[derive(Clone, Debug, Default, Hash)]
pub struct HeartEffects {
    /// To other nodes' hearts.
    pub beats: Vec<(NodeId, Beat)>,
    /// To this node's control machine.
    pub notices: Vec<HeartNotice>,
}

#[derive(Clone, Copy, Debug, Hash)]
struct GrantSeen {
    sent_at: Instant,
    map_version: u64,
}

/// What a voter remembers of a node.
#[derive(Clone, Copy, Debug, Hash)]
struct Listener {
    incarnation: Incarnation,
    granted_at: Instant,
    /// Its last heartbeat that said it is well, granted or not: right after a report is answered, only this is recent.
    heard_at: Instant,
    keys: u64,
}

/// A node's heart.
#[derive(Clone, Debug, Hash)]
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
    /// The voters of the map that this node acts on, and then those of newer ones; each since which version.
    voters: VecDeque<(u64, Vec<Vec<NodeId>>)>,
    lease_until: Instant,
    coordinator: Option<NodeId>,
    /// The coordinator as the control machine was last told that a voter names it: a voter goes by that where the consensus group tells it
    /// nothing. None where the machine has said something itself since.
    named_coordinator: Option<NodeId>,
    // The voter's side.
    awake_since: Instant,
    /// When this node learned who the voters are now.
    voters_at: Instant,
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
            voters: VecDeque::from([(0, vec![config.voters.clone()])]),
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
            named_coordinator: None,
            awake_since: now,
            voters_at: now,
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

    /// Takes what the control machine says, at `now` or a moment before.
    pub fn input(&mut self, now: Instant, input: HeartInput) {
        match input {
            HeartInput::Applied { map, cleared } => {
                if map.version >= self.map.version {
                    self.take_map(now, map);
                }
                for (node, mark) in cleared {
                    if self.reported.get(&node).is_some_and(|report| report.1 == mark) {
                        self.reported.remove(&node);
                    }
                }
            }
            HeartInput::Coordinator(node) => {
                self.coordinator = node.or(self.coordinator);
                // What was told before may arrive after this: whoever is named next is told again.
                self.named_coordinator = None;
            }
        }
    }

    fn take_map(&mut self, now: Instant, map: Arc<ClusterMap>) {
        let before = std::mem::replace(&mut self.map, map);
        if before.seats != self.map.seats {
            // What was granted from another seat does not count for this one.
            self.grants.retain(|&node, _| self.map.seat(node).is_some_and(|seat| is_same(&before, seat)));
        }
        if before.voters_since != self.map.voters_since || before.is_made() != self.map.is_made() {
            self.voters_at = now;
            let sets = self.sets().iter().map(|set| set.to_vec()).collect();
            self.voters.push_back((self.map.voters_since, sets));
            let map = &self.map;
            self.wall_offsets.retain(|&node, _| map.is_voter(node));
            if planted::is(Bug::NewVotersReportAtOnce) {
                self.voters_at = Instant(0);
                self.listeners
                    .values_mut()
                    .for_each(|l| (l.granted_at, l.heard_at) = (Instant(0), Instant(0)));
            }
        }
        if self.map.is_made() && !self.has_seat() {
            // Whatever it had promised, nobody counts on it any more.
            self.reported.clear();
            self.listeners.clear();
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
        while self.voters.get(1).is_some_and(|(since, _)| *since <= self.acted_version) {
            self.voters.pop_front();
        }
        self.count_lease();
        if now >= self.next_beat {
            self.next_beat = now + self.config.heartbeat;
            self.steer_clock();
            self.beat_all(now, pulse);
        }
        if self.has_seat() && self.sets().iter().any(|set| set.contains(&self.config.me.node)) {
            self.look_for_silence(now);
        }
    }

    /// A beat from another node. `voters_since`: the newest change of the voters that this node's control plane has applied, looked up
    /// after the beat has come.
    pub fn beat(&mut self, now: Instant, wall_ms: u64, from: Identity, beat: Beat, voters_since: u64) {
        match beat {
            // The map with these voters is on its way here. A grant that names an older one would be counted by those before them,
            // after the control plane has let the change go on (rule 6).
            Beat::Heartbeat { .. } if self.map.voters_since < voters_since => {}
            Beat::Heartbeat { sent_at, stalled, keys } => {
                let answer = self.answer(now, wall_ms, from, sent_at, stalled, keys);
                self.effects.beats.push((from.node, answer));
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
                    let votes = self.sets().iter().any(|set| set.contains(&from.node));
                    if votes && trip <= self.config.lease {
                        // An answer that came later may have lain here while we slept: it tells little of the time.
                        let half_trip = trip.as_millis() as i64 / 2;
                        let offset = theirs as i64 + half_trip - now.as_millis() as i64;
                        self.wall_offsets.insert(from.node, offset);
                    }
                }
                self.keys_seen = keys.into_iter().collect();
                self.hear_of_map(from.node, map_version);
                self.heard_voter(now, from.node, coordinator);
                self.count_lease();
            }
            Beat::Refusal { sent_at, map_version, coordinator } => {
                if Instant(sent_at) > now {
                    return;
                }
                // Also of one that is no voter: that is why it refuses.
                self.hear_of_map(from.node, map_version);
                if self.is_seated(from) {
                    self.heard_voter(now, from.node, coordinator);
                    self.effects.notices.push(HeartNotice::Refused);
                }
            }
        }
    }

    /// The sets of voters of which a majority is needed: two, while they are being changed.
    fn sets(&self) -> Vec<&[NodeId]> {
        let map = &self.map;
        match (map.voters.is_empty(), map.old_voters.is_empty()) {
            (true, _) => vec![&self.config.voters],
            (false, true) => vec![&map.voters],
            (false, false) => vec![&map.voters, &map.old_voters],
        }
    }

    /// Whether this node grants: it has a seat, which is of this data directory.
    fn has_seat(&self) -> bool {
        let me = self.config.me;
        if !self.map.is_made() {
            return self.config.votes && self.config.voters.contains(&me.node);
        }
        self.map.seat(me.node).is_some_and(|seat| match seat.directory {
            0 => self.config.votes,
            directory => directory == me.directory,
        })
    }

    /// Whether the sender's word counts as that of a seat's holder.
    fn is_seated(&self, from: Identity) -> bool {
        match self.map.is_made() {
            false => self.config.voters.contains(&from.node),
            true => self.map.seat(from.node).is_some() && self.map.holds_vote(from.node, from.directory),
        }
    }

    fn hear_of_map(&mut self, node: NodeId, version: u64) {
        if version > self.map.version {
            self.effects.notices.push(HeartNotice::NewerMap { node, version });
        }
    }

    fn heard_voter(&mut self, now: Instant, voter: NodeId, coordinator: Option<NodeId>) {
        self.answered_at.insert(voter, now);
        let Some(coordinator) = coordinator else { return };
        // A voter knows it from the consensus group, and names no other: did it, an old word could go round among voters for ever.
        if !self.has_seat() {
            self.coordinator = Some(coordinator);
        }
        if self.named_coordinator.replace(coordinator) != Some(coordinator) {
            self.effects.notices.push(HeartNotice::Coordinator(coordinator));
        }
    }

    /// Whether a majority of voters has not answered for as long as a lease: our voice may carry one way only.
    fn is_deaf(&self, now: Instant) -> bool {
        if now.since(self.awake_since) <= self.config.lease {
            return false;
        }
        let hears = |voter: &&NodeId| {
            **voter == self.config.me.node
                || self.answered_at.get(voter).is_some_and(|&at| now.since(at) <= self.config.lease)
        };
        self.sets().iter().any(|set| set.iter().filter(hears).count() <= set.len() / 2)
    }

    /// Who is sent heartbeats: whoever has a seat. Where too few of them answer, all that are known: they may have a newer map.
    fn heard_by(&self, is_deaf: bool) -> BTreeSet<NodeId> {
        let mut nodes: BTreeSet<NodeId> = self.map.seats.iter().map(|seat| seat.node).collect();
        if !self.map.is_made() || is_deaf {
            nodes.extend(&self.config.listed);
            nodes.extend(&self.config.voters);
            nodes.extend(self.map.members.iter().map(|member| member.id));
        }
        nodes
    }

    fn beat_all(&mut self, now: Instant, pulse: Pulse) {
        let is_deaf = self.is_deaf(now);
        let stalled = pulse.stalled || is_deaf;
        let me = self.config.me;
        for voter in self.heard_by(is_deaf) {
            if voter == me.node && self.has_seat() {
                if self.map.voters_since >= pulse.voters_since {
                    let answer = self.answer(now, pulse.wall_ms, me, now.0, stalled, pulse.keys);
                    self.beat(now, pulse.wall_ms, me, answer, pulse.voters_since);
                }
            } else if voter != me.node {
                let beat = Beat::Heartbeat { sent_at: now.0, stalled, keys: pulse.keys };
                self.effects.beats.push((voter, beat));
            }
        }
    }

    /// The lease that the grants in hand make: it runs while a majority's do, of each set of voters that the map has which this node
    /// acts on. Were they those of a newer map, a node could be dead by that and not know it yet.
    fn count_lease(&mut self) {
        let acted = self.acted_version;
        let sets = self.voters.front().map_or(&[][..], |(_, sets)| sets);
        let mut lease_until = if sets.is_empty() { Instant(0) } else { Instant(u64::MAX) };
        for set in sets {
            let mut sent: Vec<Instant> = set
                .iter()
                .filter_map(|voter| self.grants.get(voter))
                .filter_map(|grants| grants.iter().rev().find(|grant| grant.map_version <= acted))
                .map(|grant| grant.sent_at)
                .collect();
            sent.sort_unstable_by(|a, b| b.cmp(a));
            let until = sent.get(set.len() / 2).map_or(Instant(0), |&sent_at| sent_at + self.config.lease);
            lease_until = lease_until.min(until);
        }
        self.lease_until = lease_until;
    }

    /// The median of the voters' wall clocks, steered towards by at most [`STEER_MS`] a heartbeat, so that time never
    /// jumps and never runs back.
    fn steer_clock(&mut self) {
        if self.sets().first().is_none_or(|voters| self.wall_offsets.len() <= voters.len() / 2) {
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
        if !known || stalled || reported || !self.has_seat() {
            return Beat::Refusal { sent_at, map_version, coordinator };
        }
        let listener = Listener { incarnation: from.incarnation, granted_at: now, heard_at: now, keys };
        self.listeners.insert(from.node, listener);
        let all_keys: Vec<(NodeId, u64)> = self.listeners.iter().map(|(&node, l)| (node, l.keys)).collect();
        Beat::Grant { sent_at, map_version, wall_ms, coordinator, keys: all_keys }
    }

    fn look_for_silence(&mut self, now: Instant) {
        let unheard_at = if planted::is(Bug::ForgetsGrants) { Instant(0) } else { now };
        for member in self.map.members.iter().filter(|member| member.is_alive()) {
            if self.reported.contains_key(&member.id) {
                continue;
            }
            let listener = self.listeners.entry(member.id).or_insert(Listener {
                incarnation: member.incarnation,
                granted_at: unheard_at,
                heard_at: unheard_at,
                keys: 0,
            });
            if listener.incarnation != member.incarnation {
                *listener =
                    Listener { incarnation: member.incarnation, granted_at: now, heard_at: now, keys: 0 };
            }
            let heard_at = listener.granted_at.max(listener.heard_at);
            let begun_at =
                if planted::is(Bug::ForgetsGrants) { heard_at } else { self.awake_since.max(self.voters_at) };
            let quiet_since = heard_at.max(begun_at);
            let grace =
                if planted::is(Bug::ReportsEarly) { self.config.grace / 4 } else { self.config.grace };
            if now.since(quiet_since) > grace {
                self.last_mark += 1;
                let (incarnation, mark) = (member.incarnation, self.last_mark);
                self.reported.insert(member.id, (incarnation, mark));
                let voters_since = self.map.voters_since;
                let notice = HeartNotice::Silent { node: member.id, incarnation, mark, voters_since };
                self.effects.notices.push(notice);
            }
        }
        let map = &self.map;
        self.listeners.retain(|node, _| map.is_alive(*node));
    }
}

/// Whether a map has the same seat.
fn is_same(map: &ClusterMap, seat: &Seat) -> bool {
    !map.is_made() || map.seats.iter().any(|other| other.id() == seat.id())
}
