//! How a cluster's work grows with its nodes: whole clusters without clients, one node of which dies for good.
//!
//! The same machines as in [`crate::world`], on a good network (50 to 500 µs a message) and empty partitions, so that what is
//! counted is what the cluster says to itself. Four stretches of simulated time are told apart ([`Phase`]); in each, messages and
//! their bytes are counted by kind, as frames of one message. The coordinator's work is real processor time, by a clock that the
//! binary lends.
//!
//! Left out: faults and clients (`world`), and the time that data takes to copy.

use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::network::{Fate, MS, Network};
use crate::process::{ControlCost, Effect, Envelope, Process, Start};
use control::message::{Beat, Identity, Message as ControlMessage};
use history::Time;
use history::random::Random;
use placement::ClusterMap;
use replication::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::Rope;
use types::settings::{LogMode, Settings, Text};
use types::{Level, NodeId, ShardId};
use wire::peer::{FORMAT_NEWEST, encode_beats, encode_control, encode_shard};

/// Partitions of the cluster.
pub const PARTITIONS: u16 = 1024;
/// Data threads of each node.
const SHARDS: u16 = 2;
const TICK: Time = 5 * MS;
/// Between two looks at whether the cluster has settled.
const LOOK: Time = 5 * MS;
/// A stretch that takes longer than this has failed.
const PHASE_MAX: Time = 180_000 * MS;
/// How long the cluster is looked at while nothing happens.
const REST: Time = 1_000 * MS;
/// Seconds after which the dead node's copies are made anew.
const REPLACE_AFTER_S: u64 = 3;

/// A stretch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the start of all nodes until every partition is served with all its copies in sync, and primaries are even.
    Forming,
    /// A second in which nothing happens.
    Rest,
    /// From a node's death until every partition is served again.
    Failover,
    /// From there until every partition has all its copies again, in sync, and the primaries are even.
    Replacing,
}

/// Every stretch, in order.
pub const PHASES: [Phase; 4] = [Phase::Forming, Phase::Rest, Phase::Failover, Phase::Replacing];

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Heartbeats and their answers.
    Beats,
    /// The consensus group's own.
    Consensus,
    /// Maps, what changed in them, and who asks for one.
    Maps,
    /// Registrations, proposals, reports, questions for tails.
    Asking,
    /// Between shards: records, chunks of snapshots, and their answers.
    Copies,
}

/// Every kind.
pub const KINDS: [Kind; 5] = [Kind::Beats, Kind::Consensus, Kind::Maps, Kind::Asking, Kind::Copies];

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Messages.
    pub messages: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What one stretch was like.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Which.
    pub phase: Phase,
    /// How long it took, in simulated nanoseconds.
    pub took: Time,
    /// What was sent.
    pub counts: BTreeMap<Kind, Count>,
    /// The work of the control plane of the node that was the coordinator at its end.
    pub coordinator: ControlCost,
    /// Versions of the map that came into force.
    pub versions: u64,
}

/// What a run of one size was like.
#[derive(Clone, Debug)]
pub struct Report {
    /// Nodes at the start.
    pub nodes: usize,
    /// Bytes of the whole map, as it is sent.
    pub map_bytes: usize,
    /// The stretches.
    pub phases: Vec<Figures>,
    /// Copies that the dead node had.
    pub copies_lost: usize,
}

enum Event {
    Tick { node: usize },
    Message { from: Identity, to: usize, envelope: Envelope },
    Local { node: usize, from: ShardId, to: ShardId, message: Message },
    Map { node: usize, shard: ShardId, map: Arc<ClusterMap> },
}

struct Cluster {
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    scheduled: u64,
    nodes: Vec<Option<Process>>,
    clocks: Vec<Clock>,
    network: Network,
    random: Random,
    counts: BTreeMap<Kind, Count>,
}

/// Runs a cluster of so many nodes. `coordinator_dies`: the node that dies is the coordinator, otherwise the last one that is not.
/// `stopwatch` shows real nanoseconds. What went wrong, if anything did.
pub fn run(nodes: usize, coordinator_dies: bool, stopwatch: fn() -> u64) -> Result<Report, String> {
    let mut cluster = Cluster::new(nodes, stopwatch)?;
    let mut report = Report { nodes, map_bytes: 0, phases: Vec::new(), copies_lost: 0 };
    report.phases.push(cluster.phase(Phase::Forming, Cluster::is_whole)?);
    let until = cluster.now + REST;
    report.phases.push(cluster.phase(Phase::Rest, |cluster| cluster.now >= until)?);
    let map = cluster.map();
    report.map_bytes = bytes_of(&Envelope::Control(ControlMessage::Map(Box::new(ClusterMap::clone(&map)))));
    let dies =
        |at: &usize| cluster.nodes[*at].as_ref().is_some_and(Process::is_coordinator) == coordinator_dies;
    let victim = (0..nodes).rev().find(dies).ok_or("nobody is the coordinator")?;
    let id = NodeId(victim as u16 + 1);
    report.copies_lost = map.partitions.iter().filter(|state| state.copies.contains(id)).count();
    cluster.nodes[victim] = None;
    report.phases.push(cluster.phase(Phase::Failover, Cluster::is_served)?);
    report.phases.push(cluster.phase(Phase::Replacing, Cluster::is_whole)?);
    Ok(report)
}

impl Cluster {
    fn new(nodes: usize, stopwatch: fn() -> u64) -> Result<Cluster, String> {
        let mut random = Random::new(nodes as u64);
        let listed: Vec<String> = (1..=nodes).map(|id| format!("{id}=sim:{}", 7200 + id)).collect();
        let mut cluster = Cluster {
            now: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            nodes: Vec::new(),
            clocks: (0..nodes).map(|_| Clock::draw(&mut random)).collect(),
            network: Network::new(nodes, true),
            random,
            counts: BTreeMap::new(),
        };
        for at in 0..nodes {
            let id = at as u16 + 1;
            let settings = Settings {
                log: LogMode::Off,
                node_id: id,
                nodes: Text(listed.join(",")),
                announce: Text("sim".into()),
                peer_port: 7200 + id,
                shards: SHARDS,
                partitions: PARTITIONS,
                replace_after: REPLACE_AFTER_S,
                ..Settings::default()
            };
            let mut process = Process::start(Start {
                chunk_bytes: replication::CHUNK_BYTES,
                settings: Arc::new(settings),
                shards: SHARDS,
                disk: SimDisk::new(),
                seed: cluster.random.draw(),
                now: cluster.clocks[at].monotonic(0),
                wall_ms: cluster.clocks[at].wall_ms(0),
                again: false,
                kept: false,
                rotten: false,
                level: Level::HIGHEST,
            })?;
            process.measure_control(stopwatch);
            cluster.nodes.push(Some(process));
            let first = cluster.random.below(TICK);
            cluster.schedule(first, Event::Tick { node: at });
        }
        Ok(cluster)
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    /// Runs until something holds, and tells what happened until then.
    fn phase(&mut self, phase: Phase, is_over: impl Fn(&Cluster) -> bool) -> Result<Figures, String> {
        let (began, version) = (self.now, self.map().version);
        self.counts.clear();
        for process in self.nodes.iter_mut().flatten() {
            process.take_control_cost();
        }
        let mut look_at = began;
        while !(self.now >= look_at && is_over(self)) {
            if self.now >= look_at {
                look_at += LOOK;
            }
            if self.now > began + PHASE_MAX {
                return Err(format!(
                    "{phase:?} of {} nodes comes to no end: {}",
                    self.nodes.len(),
                    self.why_not_whole()
                ));
            }
            let Some(((now, _), event)) = self.events.pop_first() else {
                return Err("nothing happens".into());
            };
            self.now = now;
            self.handle(event)?;
        }
        let coordinator = self.nodes.iter_mut().flatten().find(|process| process.is_coordinator());
        Ok(Figures {
            phase,
            took: self.now - began,
            counts: self.counts.clone(),
            coordinator: coordinator.map(Process::take_control_cost).unwrap_or_default(),
            versions: self.map().version - version,
        })
    }

    /// The newest map that anybody knows.
    fn map(&self) -> Arc<ClusterMap> {
        let maps = self.nodes.iter().flatten().map(Process::map);
        maps.max_by_key(|map| map.version).cloned().unwrap_or_default()
    }

    /// Whether every partition has a primary that would run requests.
    fn is_served(&self) -> bool {
        let mut served = vec![false; usize::from(PARTITIONS)];
        for (process, clock) in self.nodes.iter().zip(&self.clocks) {
            let Some(process) = process else { continue };
            for copy in process.copies(clock.monotonic(self.now)).filter(|copy| copy.serves) {
                served[copy.partition] = true;
            }
        }
        served.iter().all(|served| *served)
    }

    /// Whether every copy is where it should be and in sync, and the primaries are even.
    fn is_whole(&self) -> bool {
        self.why_not_whole().is_empty()
    }

    /// Why it is not; empty where it is.
    fn why_not_whole(&self) -> String {
        let map = self.map();
        if map.partitions.len() != usize::from(PARTITIONS) {
            return "there is no map".into();
        }
        let wrong = map.partitions.iter().find(|state| {
            let alive = |node: NodeId| self.nodes[usize::from(node.0) - 1].is_some();
            state.copies.len() != usize::from(map.copies)
                || !state.copies.is_within(state.in_sync)
                || !state.leaving.is_empty()
                || state.heir.is_some()
                || !state.copies.iter().all(alive)
        });
        if let Some(state) = wrong {
            return format!("{state:?}");
        }
        let loads = self.nodes.iter().enumerate().filter(|(_, process)| process.is_some()).map(|(at, _)| {
            let node = Some(NodeId(at as u16 + 1));
            map.partitions.iter().filter(|state| state.primary == node).count()
        });
        let loads: Vec<usize> = loads.collect();
        if loads.iter().max() > loads.iter().min().map(|least| least + 1).as_ref() {
            return format!("the nodes are primaries of {loads:?}");
        }
        if self.is_served() { String::new() } else { "not all is served".into() }
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick { node } => {
                if self.nodes[node].is_some() {
                    self.schedule(self.now + TICK, Event::Tick { node });
                }
                self.at_node(node, |process, own, wall| process.tick(own, wall))
            }
            Event::Message { from, to, envelope } => {
                self.at_node(to, |process, own, wall| process.message(own, wall, from, envelope))
            }
            Event::Local { node, from, to, message } => {
                self.at_node(node, |process, own, _| process.local(own, from, to, message))
            }
            Event::Map { node, shard, map } => {
                self.at_node(node, |process, own, _| process.shard_map(own, shard, map))
            }
        }
    }

    fn at_node(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut Process, types::Instant, u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let clock = &self.clocks[node];
        let (own, wall) = (clock.monotonic(self.now), clock.wall_ms(self.now));
        let Some(process) = &mut self.nodes[node] else { return Ok(()) };
        act(process, own, wall)?;
        let identity = process.identity();
        for effect in process.take_effects() {
            match effect {
                Effect::Send(to, envelope) => self.send(identity, node, to, envelope),
                Effect::Local(from, to, message) => {
                    self.schedule(self.now + MS / 50, Event::Local { node, from, to, message });
                }
                Effect::Map(shard, map) => self.schedule(self.now, Event::Map { node, shard, map }),
                Effect::Stop(why) => return Err(format!("node {} stops: {why}", node + 1)),
                // Nobody asks, and nothing is on disk.
                Effect::Reply(..) | Effect::Disk(..) | Effect::Errand(_) | Effect::Snapshot(_) => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, from: Identity, node: usize, to: NodeId, envelope: Envelope) {
        let count = self.counts.entry(kind_of(&envelope)).or_default();
        count.messages += 1;
        count.bytes += bytes_of(&envelope) as u64;
        let to = usize::from(to.0) - 1;
        if let Fate::Arrives(at, _) = self.network.link(node, to).send(self.now, &mut self.random) {
            self.schedule(at, Event::Message { from, to, envelope });
        }
    }
}

fn kind_of(envelope: &Envelope) -> Kind {
    match envelope {
        Envelope::Beat(Beat::Heartbeat { .. } | Beat::Grant { .. } | Beat::Refusal { .. }) => Kind::Beats,
        Envelope::Control(ControlMessage::Raft(_)) => Kind::Consensus,
        Envelope::Control(
            ControlMessage::Map(_) | ControlMessage::MapChanges(_) | ControlMessage::AskMap { .. },
        ) => Kind::Maps,
        Envelope::Control(_) => Kind::Asking,
        Envelope::Shard(..) => Kind::Copies,
    }
}

/// Bytes of a message in a frame of its own.
fn bytes_of(envelope: &Envelope) -> usize {
    let mut frame = Vec::new();
    match envelope {
        Envelope::Beat(beat) => encode_beats(FORMAT_NEWEST, std::slice::from_ref(beat), &mut frame),
        Envelope::Control(message) => {
            encode_control(FORMAT_NEWEST, std::slice::from_ref(message), &mut frame)
        }
        Envelope::Shard(_, _, message) => {
            let mut frames = Rope::default();
            encode_shard(FORMAT_NEWEST, std::slice::from_ref(message), &mut frames);
            return frames.len();
        }
    }
    frame.len()
}
