//! A cluster and its clients in one thread: a queue of events in true time, drawn from a seed.
//!
//! For 30 simulated seconds, in a few runs for longer, clients ask and things go wrong ([`crate::faults`]); every event is followed
//! by the checks ([`crate::checks`]). Then everything is healed and started again, and progress is demanded: within
//! [`MENDING`] every partition that has a copy left serves, with all its copies in sync, and every key can be read.
//! At the end the clients' history has to be linearizable ([`history::linearizability`]).

use crate::breaks::{Breaks, is_chunk};
use crate::checks::{Checks, Seat, tables};
use crate::client::{Client, StaleRead, Unique};
use crate::clock::Clock;
use crate::faults::{Keeping, Plan};
use crate::follower;
use crate::hand_over;
use crate::keep::{Keep, Part};
use crate::log_thread::Work;
use crate::machine::{Node, seat};
use crate::network::{Fate, MS, Network};
use crate::occasions::Occasions;
use crate::process::{Effect, Envelope, Process, Start};
use crate::run::{Options, Summary};
use crate::set_up::{Ahead, draw_chunk_bytes, settings_of};
use crate::shape::Shapes;
use crate::trace::{Trace, brief, brief_map, digest};
use crate::upgrades::Upgrades;
use command::{Door, Reply};
use control::Identity;
use history::random::Random;
use history::{History, Time};
use node::Ticket;
use placement::ClusterMap;
use replication::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::settings::Settings;
use types::{NodeId, ShardId};

/// The most machines: those that a cluster is made of, and those that join later ([`crate::shape`]).
pub(crate) const MACHINES: usize = 7;
/// Partitions.
pub(crate) const PARTITIONS: u16 = 8;
/// Keys.
pub(crate) const KEYS: usize = 16;
/// How long the cluster has to be whole again, once everything is healed.
pub(crate) const MENDING: Time = 10_000 * MS;
/// How much longer than others a huge message is on its way, at most.
const HUGE_LATE_MAX: u64 = 20 * MS;
/// Between two ticks of a node.
const TICK: Time = 5 * MS;
/// How long a node lets a request wait.
pub(crate) const REQUEST_TIMEOUT: Time = 2_000 * MS;
/// Between two comparisons of the tables.
const TABLES: Time = 1_000 * MS;
/// The client of the final reads.
pub(crate) const LAST_CLIENT: u32 = 999;

/// What happens next, and to whom. `start`: to the how-manieth process of a node.
#[derive(Debug)]
pub(crate) enum Event {
    Tick { node: usize, start: u64 },
    Message { from: Identity, to: usize, start: u64, envelope: Envelope },
    Local { node: usize, start: u64, from: ShardId, to: ShardId, message: Message },
    Map { node: usize, start: u64, shard: ShardId, map: Arc<ClusterMap> },
    LinkLost { node: usize, start: u64, peer: NodeId },
    Request { node: usize, start: u64, client: usize, connection: u64, sequence: u64 },
    Reply { client: usize, ticket: Ticket, reply: Reply<'static> },
    Disk { node: usize, start: u64, shard: ShardId },
    Errand { node: usize, start: u64, shard: ShardId },
    Snapshot { node: usize, start: u64, shard: ShardId },
    Broken { client: usize, connection: u64 },
    Client { client: usize },
    Overdue { client: usize, connection: u64, sequence: u64 },
    // What comes by its number.
    Occasion(Part, u64),
    // A slow node gets round to something.
    Turn { node: usize, start: u64 },
    Mend(crate::injure::Mend),
    Tables,
    Heal,
    Watch,
}

/// The world of one run.
pub struct World {
    pub(crate) now: Time,
    events: BTreeMap<(Time, u64), Event>,
    scheduled: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    pub(crate) last_reader: Option<LastReader>,
    /// Who is shown the rest of what it follows at the end, and how often it has asked by then.
    pub(crate) last_follower: Option<usize>,
    pub(crate) last_asks: u32,
    pub(crate) unique: Unique,
    pub(crate) connections: u64,
    pub(crate) history: History,
    pub(crate) stale_reads: Vec<StaleRead>,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    pub(crate) plan: Plan,
    pub(crate) hand_overs: Occasions,
    pub(crate) shapes: Shapes,
    pub(crate) breaks: Breaks,
    pub(crate) upgrades: Upgrades,
    pub(crate) keeping: Keeping,
    pub(crate) blackout_at: Time,
    /// Partitions that were lost while some node's copies were rotten.
    pub(crate) lost_to_rot: BTreeSet<usize>,
    /// Snapshots written to disks.
    pub(crate) snapshots: u64,
    /// Transfers that processes which are gone had begun, and gone on with.
    pub(crate) transfers: [u64; 2],
    chunk_bytes: usize,
    /// When something last went wrong, or was mended.
    pub(crate) restless_at: Time,
    /// When a link between nodes was last mended.
    pub(crate) links_mended_at: Time,
    /// Since when a node is in sync for a partition.
    pub(crate) joined_at: BTreeMap<(usize, usize), Time>,
    pub(crate) random: Random,
    settings: Vec<Arc<Settings>>,
    pub(crate) shards: u16,
    pub(crate) faults: usize,
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) keep: Keep,
    /// What has happened of what can be left out.
    pub(crate) happened: Vec<(Part, u64)>,
    pub(crate) heals_at: Time,
    /// The most that a wall clock has been off, in milliseconds.
    pub(crate) wall_off_ms: u64,
    /// Whether a slow node gets round to something just now.
    at_work: bool,
    pub(crate) leads_given: u64,
    /// What cuts hold back, by sender and receiver.
    pub(crate) held: BTreeMap<(usize, usize), Vec<Event>>,
    pub(crate) healed: bool,
    pub(crate) mended: Option<Time>,
    map_delay: Time,
    pub(crate) done: bool,
}

/// Reads every key at the end.
pub(crate) struct LastReader {
    pub key: usize,
    pub client: usize,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> World {
        let mut random = Random::new(seed ^ 0x5eed_0000_0000_0000);
        let copies = random.between(2, 3);
        let shards = random.between(1, 2) as u16;
        let ordered = random.chance(500);
        let fat = random.chance(500);
        let drawn = Keeping::draw(&mut random);
        let keeping = if options.log_off { Keeping::OFF } else { drawn };
        let plan = Plan::draw(random.fork(), keeping);
        let shapes = Shapes::draw(seed);
        let ahead = Ahead::draw(seed);
        let settings = (1..=MACHINES)
            .map(|id| Arc::new(ahead.set(settings_of(id, copies, shards, keeping, &shapes))))
            .collect();
        let founders = shapes.founders;
        let nodes = (0..MACHINES).map(|_| Node::new(Clock::draw(&mut random))).collect();
        let mut clients = (0..random.between(5, 9) as usize)
            .map(|number| Client {
                number: number as u32,
                node: number % founders,
                connection: number as u64 + 1,
                sequence: 0,
                door: if number % 3 == 2 { Door::Cluster } else { Door::Plain },
                stale: number == 4,
                fat: number == 3 && fat,
                follows: None,
                together: number < 2,
                seen: None,
                waiting: None,
                random: random.fork(),
            })
            .collect::<Vec<_>>();
        clients.push(follower::draw(seed, clients.len(), founders));
        let heals_at = options.keep.end(plan.end);
        let map_delay = random.pick(&[0, 1, 1, 20]) * MS;
        World {
            now: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            nodes,
            network: Network::new(MACHINES, ordered),
            clients,
            last_reader: None,
            last_follower: None,
            last_asks: 0,
            unique: Unique::default(),
            connections: 100,
            history: History::default(),
            stale_reads: Vec::new(),
            checks: Checks::new(MACHINES, usize::from(PARTITIONS)),
            trace: Trace::new(options.keep_trace, options.print_trace),
            hand_overs: hand_over::draw(seed),
            shapes,
            breaks: Breaks::draw(seed),
            upgrades: Upgrades::draw(seed, keeping.logs()),
            plan,
            keeping,
            blackout_at: 0,
            lost_to_rot: BTreeSet::new(),
            snapshots: 0,
            transfers: [0; 2],
            chunk_bytes: draw_chunk_bytes(seed),
            restless_at: 0,
            links_mended_at: 0,
            joined_at: BTreeMap::new(),
            random,
            settings,
            shards,
            faults: 0,
            counts: BTreeMap::new(),
            happened: Vec::new(),
            heals_at,
            keep: options.keep,
            wall_off_ms: 0,
            at_work: false,
            leads_given: 0,
            held: BTreeMap::new(),
            healed: false,
            mended: None,
            map_delay,
            done: false,
        }
    }

    pub(crate) fn schedule(&mut self, at: Time, event: Event) {
        self.scheduled += 1;
        self.events.insert((at.max(self.now), self.scheduled), event);
    }

    pub(crate) fn run(&mut self) -> Result<Summary, String> {
        let (keeping, kinds) = (self.keeping, self.plan.kinds.clone());
        self.trace.event(0, &[12], || format!("{keeping:?}, faults: {kinds:?}"));
        for node in 0..self.founders() {
            self.start(node)?;
        }
        for client in 0..self.clients.len() {
            let at = self.random.between(300 * MS, 1500 * MS);
            if self.comes_to_pass(Part::Clients, client as u64) {
                self.schedule(at, Event::Client { client });
            }
        }
        for part in [Part::Faults, Part::HandOvers, Part::Shapes, Part::Upgrades] {
            self.schedule_next(part);
        }
        self.schedule(TABLES, Event::Tables);
        self.schedule(self.heals_at, Event::Heal);
        while !self.done {
            let Some(((now, _), event)) = self.events.pop_first() else { break };
            self.now = now;
            self.handle(event)?;
        }
        self.finish()
    }

    /// The next of what comes by its number.
    fn schedule_next(&mut self, part: Part) {
        let occasions = match part {
            Part::Faults => &mut self.plan.occasions,
            Part::Shapes => &mut self.shapes.occasions,
            Part::HandOvers => &mut self.hand_overs,
            Part::Upgrades => &mut self.upgrades.occasions,
            // They come by other things.
            Part::Breaks | Part::Clients => return,
        };
        if let Some((number, at)) = occasions.next() {
            self.schedule(at, Event::Occasion(part, number));
        }
    }

    fn occasion(&mut self, part: Part, number: u64) -> Result<(), String> {
        if self.healed {
            return Ok(());
        }
        self.schedule_next(part);
        if !self.comes_to_pass(part, number) {
            return Ok(());
        }
        match part {
            Part::Faults => self.injure(number),
            Part::Shapes => self.change_shape(number),
            Part::HandOvers => self.order_hand_over(number),
            Part::Upgrades => self.upgrade(number),
            Part::Breaks | Part::Clients => Ok(()),
        }
    }

    // ------------------------------------------------------------------------------------------------ nodes

    /// Starts a node's process.
    pub(crate) fn start(&mut self, index: usize) -> Result<(), String> {
        let seed = self.random.draw();
        let now = self.now;
        let level = self.level_to_start(index);
        let node = &mut self.nodes[index];
        let (own, wall) = (node.clock.monotonic(now), node.clock.wall_ms(now));
        let start = Start {
            settings: self.settings[index].clone(),
            shards: self.shards,
            chunk_bytes: self.chunk_bytes,
            disk: node.disk.clone(),
            seed,
            now: own,
            wall_ms: wall,
            again: node.start > 0,
            kept: node.stopped || !node.power_lost,
            rotten: node.rotten,
            level,
        };
        let process =
            Process::start(start).map_err(|why| format!("node {} does not start: {why}", index + 1))?;
        node.whole = node.stopped || !node.power_lost;
        (node.stopped, node.power_lost) = (false, false);
        node.synced_at = vec![now; usize::from(self.shards)];
        let incarnation = process.identity().incarnation.0;
        let lost = process.lost();
        node.process = Some(process);
        node.build = Some(level);
        node.start += 1;
        node.awake_since = now;
        let start = node.start;
        self.trace.event(now, &[1, index as u64, incarnation], || {
            format!("node {} starts as {incarnation}, with level {level}", index + 1)
        });
        let first = now + self.random.between(0, TICK);
        self.schedule(first, Event::Tick { node: index, start });
        self.note_builds();
        if lost > 0 {
            self.count("Rot found".into());
        }
        Ok(())
    }

    /// The node that an event is for, if its process still runs; one that stands still keeps it for later, and a slow one until it
    /// gets round to it.
    fn arrive(&mut self, index: usize, start: u64, event: Event) -> Option<Event> {
        let node = &mut self.nodes[index];
        if node.process.is_none() || node.start != start {
            return None;
        }
        if node.pauses > 0 {
            node.inbox.push(event);
            return None;
        }
        if node.is_slow() && !self.at_work {
            node.queue.push_back(event);
            if node.queue.len() == 1 {
                let at = self.now + node.takes;
                self.schedule(at, Event::Turn { node: index, start });
            }
            return None;
        }
        Some(event)
    }

    /// A slow node gets round to the next thing.
    fn turn(&mut self, index: usize, start: u64) -> Result<(), String> {
        let node = &mut self.nodes[index];
        if node.process.is_none() || node.start != start {
            return Ok(());
        }
        if node.pauses > 0 {
            node.inbox.splice(0..0, node.queue.drain(..));
            return Ok(());
        }
        let Some(event) = node.queue.pop_front() else { return Ok(()) };
        self.at_work = true;
        self.handle(event)?;
        self.at_work = false;
        let node = &self.nodes[index];
        if node.start == start && !node.queue.is_empty() {
            let at = self.now + node.takes;
            self.schedule(at, Event::Turn { node: index, start });
        }
        Ok(())
    }

    /// Lets a node's process do something, and sees to what follows from it.
    pub(crate) fn at_node(
        &mut self,
        index: usize,
        data: bool,
        act: impl FnOnce(&mut Process, types::Instant, u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let now = self.now;
        let node = &mut self.nodes[index];
        let (own, wall) = (node.clock.monotonic(now), node.clock.wall_ms(now));
        let Some(process) = &mut node.process else { return Ok(()) };
        act(process, own, wall)?;
        let effects = process.take_effects();
        for (shard, at) in node.synced_at.iter_mut().enumerate() {
            if process.is_synced(shard) {
                *at = now;
            }
        }
        let data = data || effects.iter().any(|effect| matches!(effect, Effect::Local(..)));
        self.check(index, data)?;
        let mut stops = None;
        for effect in effects {
            match effect {
                Effect::Stop(why) => stops = Some(why),
                effect => self.effect(index, effect),
            }
        }
        stops.map_or(Ok(()), |why| self.stops(index, &why))
    }

    pub(crate) fn check(&mut self, index: usize, data: bool) -> Result<(), String> {
        let now = self.now;
        self.checks.committed.now = now;
        let seats: [Option<Seat<'_>>; MACHINES] = std::array::from_fn(|at| seat(&self.nodes[at], at, now));
        let before = self.checks.maps.newest().clone();
        self.checks.after(index, data, &seats)?;
        if self.checks.maps.newest().version == before.version {
            return Ok(());
        }
        if self.keeping.lossy {
            self.note_members();
        }
        self.note_filled();
        self.check_lost(&before)
    }

    fn effect(&mut self, index: usize, effect: Effect) {
        let start = self.nodes[index].start;
        match effect {
            Effect::Send(to, envelope) => self.send(index, usize::from(to.0) - 1, envelope),
            Effect::Local(from, to, message) => {
                self.schedule(self.now + MS / 50, Event::Local { node: index, start, from, to, message });
            }
            Effect::Map(shard, map) => {
                let at = self.now + self.random.between(0, self.map_delay);
                let node = &mut self.nodes[index];
                node.map_at = node.map_at.max(at);
                let at = node.map_at;
                self.schedule(at, Event::Map { node: index, start, shard, map });
            }
            Effect::Disk(shard, work) => {
                let takes = match work {
                    Work::Write => self.random.between(MS / 50, MS / 5),
                    Work::WriteAndSync => self.random.between(MS / 10, 2 * MS),
                    Work::Retry => 50 * MS,
                };
                let slow = self.nodes[index].disk_takes;
                let at = self.now + takes + self.random.below(slow + 1);
                self.schedule(at, Event::Disk { node: index, start, shard });
            }
            Effect::Errand(shard) => {
                let slow = self.nodes[index].disk_takes;
                let at = self.now + self.random.between(MS / 10, 5 * MS) + self.random.below(slow + 1);
                self.schedule(at, Event::Errand { node: index, start, shard });
            }
            Effect::Snapshot(shard) => {
                let slow = self.nodes[index].disk_takes;
                let at = self.now + self.random.between(MS / 10, 5 * MS) + self.random.below(slow + 1);
                self.schedule(at, Event::Snapshot { node: index, start, shard });
            }
            // The caller's.
            Effect::Stop(_) => {}
            Effect::Reply(ticket, reply) => {
                let Some(client) = self.client_of(ticket.connection) else { return };
                let at = self.now + self.random.between(MS / 20, MS);
                self.schedule(at, Event::Reply { client, ticket, reply });
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, envelope: Envelope) {
        let Some(process) = &self.nodes[from].process else { return };
        let identity = process.identity();
        let Some(envelope) = self.as_spoken(from, to, envelope) else { return };
        // A client's request is passed on once; everything else stands coming twice.
        let once = matches!(&envelope, Envelope::Shard(_, _, Message::Forward(_)));
        let start = self.nodes[to].start;
        match self.network.link(from, to).send(self.now, &mut self.random) {
            Fate::Lost => {
                let numbers = digest(&envelope);
                self.trace.event(self.now, &numbers, || {
                    format!("node {} -> node {}: lost {envelope:?}", from + 1, to + 1)
                });
            }
            Fate::Held => {
                let event = Event::Message { from: identity, to, start, envelope };
                self.hold(from, to, event);
            }
            Fate::Arrives(at, again) => {
                // It goes in parts, and others between them.
                let is_huge = matches!(&envelope, Envelope::Shard(_, _, message) if message.is_huge());
                let at = if is_huge { at + self.random.between(0, HUGE_LATE_MAX) } else { at };
                if let Some(again) = again.filter(|_| !once) {
                    let envelope = envelope.clone();
                    self.schedule(again, Event::Message { from: identity, to, start, envelope });
                }
                self.schedule(at, Event::Message { from: identity, to, start, envelope });
            }
        }
    }

    /// The nodes that run.
    pub(crate) fn seats(&self) -> Vec<Option<Seat<'_>>> {
        (0..MACHINES).map(|at| seat(&self.nodes[at], at, self.now)).collect()
    }

    // ----------------------------------------------------------------------------------------------- events

    pub(crate) fn handle(&mut self, event: Event) -> Result<(), String> {
        let now = self.now;
        match event {
            Event::Tick { node, start } => {
                let Some(_) = self.arrive(node, start, Event::Tick { node, start }) else { return Ok(()) };
                self.schedule(now + TICK, Event::Tick { node, start });
                self.at_node(node, true, |process, own, wall| process.tick(own, wall))
            }
            Event::Message { to, start, .. } => {
                let Some(Event::Message { from, to, envelope, .. }) = self.arrive(to, start, event) else {
                    return Ok(());
                };
                let [a, b, c, d] = digest(&envelope);
                self.trace.event(now, &[2, u64::from(from.node.0), to as u64, a, b, c, d], || {
                    format!("node {} -> node {}: {}", from.node, to + 1, brief(&envelope))
                });
                let data = matches!(envelope, Envelope::Shard(..));
                self.check_spoken(to, &envelope)?;
                let is_chunk = is_chunk(&envelope);
                self.at_node(to, data, |process, own, wall| process.message(own, wall, from, envelope))?;
                if is_chunk { self.break_transfer(usize::from(from.node.0) - 1, to) } else { Ok(()) }
            }
            Event::Local { node, start, .. } => {
                let Some(Event::Local { from, to, message, .. }) = self.arrive(node, start, event) else {
                    return Ok(());
                };
                self.at_node(node, true, |process, own, _| process.local(own, from, to, message))
            }
            Event::Disk { node, start, shard } => {
                let Some(_) = self.arrive(node, start, Event::Disk { node, start, shard }) else {
                    return Ok(());
                };
                self.trace.event(now, &[10, node as u64, u64::from(shard.0)], || {
                    format!("node {} shard {shard}: the disk is done", node + 1)
                });
                self.at_node(node, true, |process, own, _| process.disk(own, shard))
            }
            Event::Errand { node, start, shard } => {
                let Some(_) = self.arrive(node, start, Event::Errand { node, start, shard }) else {
                    return Ok(());
                };
                self.trace.event(now, &[12, node as u64, u64::from(shard.0)], || {
                    format!("node {} shard {shard}: the disk is done beside the log", node + 1)
                });
                self.at_node(node, true, |process, own, _| process.errand(own, shard))
            }
            Event::Snapshot { node, start, shard } => {
                let Some(_) = self.arrive(node, start, Event::Snapshot { node, start, shard }) else {
                    return Ok(());
                };
                self.trace.event(now, &[11, node as u64, u64::from(shard.0)], || {
                    format!("node {} shard {shard}: a step of a snapshot", node + 1)
                });
                let before = self.snapshots_of(node);
                self.at_node(node, true, |process, own, _| process.snapshot(own, shard))?;
                // A process that ended with the step takes its count along.
                self.snapshots += self.snapshots_of(node).saturating_sub(before);
                Ok(())
            }
            Event::Map { node, start, .. } => {
                let Some(Event::Map { shard, map, .. }) = self.arrive(node, start, event) else {
                    return Ok(());
                };
                self.trace.event(now, &[3, node as u64, u64::from(shard.0), map.version], || {
                    format!("node {} shard {shard}: map {}", node + 1, brief_map(&map))
                });
                self.at_node(node, true, |process, own, _| process.shard_map(own, shard, map))
            }
            Event::LinkLost { node, start, .. } => {
                let Some(Event::LinkLost { peer, .. }) = self.arrive(node, start, event) else {
                    return Ok(());
                };
                self.trace.event(now, &[4, node as u64, u64::from(peer.0)], || {
                    format!("node {}: the link to node {peer} is lost", node + 1)
                });
                self.at_node(node, true, |process, own, _| process.link_lost(own, peer))
            }
            Event::Request { node, start, .. } => {
                let Some(Event::Request { client, connection, sequence, .. }) =
                    self.arrive(node, start, event)
                else {
                    return Ok(());
                };
                self.request_arrives(node, client, connection, sequence)
            }
            Event::Reply { client, ticket, reply } => self.reply_arrives(client, ticket, &reply),
            Event::Broken { client, connection } => {
                if self.clients[client].connection == connection {
                    self.give_up(client);
                }
                Ok(())
            }
            Event::Client { client } => {
                self.client_asks(client);
                Ok(())
            }
            Event::Overdue { client, connection, sequence } => self.overdue(client, connection, sequence),
            Event::Occasion(part, number) => self.occasion(part, number),
            Event::Turn { node, start } => self.turn(node, start),
            Event::Mend(mend) => self.mend(mend),
            Event::Tables => {
                self.schedule(now + TABLES, Event::Tables);
                self.check_tables()
            }
            Event::Heal => {
                self.trace.event(now, &[5], || "everything is healed".into());
                self.healed = true;
                self.heal()?;
                self.schedule(now + 50 * MS, Event::Watch);
                Ok(())
            }
            Event::Watch => self.watch(),
        }
    }

    fn snapshots_of(&self, node: usize) -> u64 {
        self.nodes[node].process.as_ref().map_or(0, Process::snapshots_written)
    }

    pub(crate) fn check_tables(&mut self) -> Result<(), String> {
        let seats = self.seats();
        seats.iter().flatten().try_for_each(|seat| tables::check(&self.checks.committed, seat))
    }
}
