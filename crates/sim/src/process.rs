//! One process of a node: the shipped machines of its threads, joined as the server joins them.
//!
//! What the server's threads hand each other by queue leaves here as [`Effect`]s, so that the world can take its time
//! with them: messages between the shards of one node, and maps on their way to the shards.

use crate::checks::levels;
use crate::disk::SimDisk;
use crate::log_thread::{Done, LogThread, Place, SEGMENT_BYTES, SnapshotNews, Work};
use bytes::Bytes;
use command::{Door, Reply, Session};
use control::{Beat, Identity, Message as ControlMessage, Order};
use node::recover::{self, RecoverConfig};
use node::{
    Answer, ControlDriver, ControlDriverConfig, HeartDriver, KeptLogs, Published, Request, Shard,
    ShardConfig, Ticket,
};
use placement::ClusterMap;
use replication::{Context, Durability, Message, Sender, Standing};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::{Lent, Log, Rope, ShardLogOptions, Table};
use types::settings::{Fsync, LogMode, ReadLevel, Settings};
use types::shared_settings::SharedSettings;
use types::{Instant, Level, NodeId, PartitionId, ShardId};

/// Where a node keeps its control file.
pub(crate) const DIRECTORY: &str = "data";

/// A message between nodes.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// Heart to heart.
    Beat(Beat),
    /// Control plane to control plane.
    Control(ControlMessage),
    /// Shard to shard.
    Shard(ShardId, ShardId, Message),
}

/// What a process wants done.
#[derive(Debug)]
pub enum Effect {
    /// A message to another node.
    Send(NodeId, Envelope),
    /// A message between two of its shards: never lost, in order.
    Local(ShardId, ShardId, Message),
    /// A map for a shard.
    Map(ShardId, Arc<ClusterMap>),
    /// A reply to a client.
    Reply(Ticket, Reply<'static>),
    /// The disk is at work for a shard's log: [`Process::disk`] when it is done.
    Disk(ShardId, Work),
    /// It is at work for a shard's snapshots: [`Process::snapshot`] when it is done.
    Snapshot(ShardId),
    /// It is at work beside the writes of a shard's log: [`Process::errand`] when it is done.
    Errand(ShardId),
    /// The process has to stop: its disk has failed, or it is not who it was.
    Stop(String),
}

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its settings.
    pub settings: Arc<Settings>,
    /// How many shards it has.
    pub shards: u16,
    /// How large the chunks of snapshots are that it sends, in bytes.
    pub chunk_bytes: usize,
    /// Its disk.
    pub disk: SimDisk,
    /// Any random number.
    pub seed: u64,
    /// Its own clock.
    pub now: Instant,
    /// Its wall clock, in Unix milliseconds.
    pub wall_ms: u64,
    /// Whether there was a start before on this disk.
    pub again: bool,
    /// Whether nothing of what the one before had handed to the system can be lost: the machine has not stopped since, or the
    /// process had ended in order.
    pub kept: bool,
    /// Whether something on the disk may have rotted.
    pub rotten: bool,
    /// The highest feature level that its build has.
    pub level: Level,
}

/// What a process' control plane has cost, where it was asked to be measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct ControlCost {
    /// Calls of it.
    pub calls: u64,
    /// All of them, in nanoseconds.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub longest_ns: u64,
}

/// One copy of a partition, as the checks see it.
#[derive(Clone, Copy)]
pub struct Copy<'a> {
    /// Which partition.
    pub partition: usize,
    /// The newest epoch that it knows.
    pub epoch: u64,
    /// The reign that it follows, or is.
    pub primary_since: u64,
    /// What it holds for committed.
    pub commit: u64,
    /// Whether it is primary, by its own light.
    pub is_primary: bool,
    /// Whether it would run requests now.
    pub serves: bool,
    /// Whether it has a role at all.
    pub is_here: bool,
    /// Whether a snapshot is being taken in.
    pub is_incomplete: bool,
    /// Its log.
    pub log: &'a Log,
    /// Its table.
    pub table: &'a Table,
}

/// A running process.
pub struct Process {
    identity: Identity,
    settings: Arc<Settings>,
    level: Level,
    control: ControlDriver<SimDisk>,
    heart: HeartDriver,
    shards: Vec<Shard>,
    /// One a shard, or none where there is no log on disk.
    logs: Vec<LogThread>,
    published: Arc<Published>,
    snapshots_written: u64,
    /// Copies that its disk had lost.
    lost: usize,
    sessions: BTreeMap<u64, Session>,
    effects: Vec<Effect>,
    has_failed: bool,
    /// Real nanoseconds, for reports alone: nothing that a run does may follow from it.
    stopwatch: Option<fn() -> u64>,
    control_cost: ControlCost,
}

impl Process {
    /// Starts a process on what its disk has kept.
    pub fn start(start: Start) -> Result<Process, String> {
        let Start { settings, shards, chunk_bytes, disk, seed, now, wall_ms, again, kept, rotten, level } =
            start;
        let directory = Path::new(DIRECTORY);
        storage::Disk::create_dir_all(&disk, directory).map_err(|error| error.to_string())?;
        let published = Arc::new(Published::new(shards));
        let mut kept = KeptLogs { any: again, whole: again && kept, lost: Vec::new() };
        let mut read = Vec::new();
        if settings.log == LogMode::On {
            for shard in (0..shards).map(ShardId) {
                let config = recover_config(&settings, shard, seed);
                let open = read_shard(&disk, directory, &config, rotten)?;
                match &open {
                    Some(open) => kept.lost.extend(open.lost.iter().map(|(partition, _)| *partition)),
                    None => kept
                        .lost
                        .extend((shard.0..settings.partitions).step_by(usize::from(shards)).map(PartitionId)),
                }
                if kept.lost.is_empty() {
                    levels::check_log(level, &disk, directory, &config)?;
                }
                read.push((config, open));
            }
            kept.lost.sort_unstable();
            kept.whole |= again && settings.fsync == Fsync::Always;
        } else {
            kept = KeptLogs::default();
        }
        let lost = kept.lost.len();
        let config = ControlDriverConfig {
            settings: settings.clone(),
            cluster_id: "simulated".into(),
            shards,
            wall_ms,
            seed,
            kept,
            level,
        };
        let mut control =
            ControlDriver::open(disk.clone(), directory, config, now).map_err(|error| error.to_string())?;
        let heart_config = control.heart_config(&settings).map_err(|error| error.to_string())?;
        control.publish_to(published.clone());
        let heart = HeartDriver::new(heart_config, published.clone(), now);
        let identity = control.identity();
        let shared = SharedSettings::new(settings.clone());
        let mut machines: Vec<Shard> = (0..shards)
            .map(|shard| {
                Shard::new(ShardConfig {
                    settings: shared.reader(),
                    identity,
                    shard: ShardId(shard),
                    shards,
                    hash_seed: seed,
                    chunk_bytes,
                    published: published.clone(),
                })
            })
            .collect();
        let mut logs = Vec::new();
        for (at, (config, open)) in read.into_iter().enumerate() {
            let open = make_fit(&disk, directory, &config, open)?;
            machines[at].adopt(open.copies);
            let shard = ShardId(at as u16);
            let place = Place {
                shard,
                disk: disk.clone(),
                directory: recover::shard_directory(directory, shard),
                identity: file_identity(&settings, shard),
            };
            let thread = LogThread::new(place, open.log, open.begin, settings.fsync, published.clone(), now);
            let thread = thread.map_err(|error| error.to_string())?;
            logs.push(thread);
        }
        Ok(Process {
            identity,
            settings,
            level,
            control,
            heart,
            shards: machines,
            logs,
            published,
            snapshots_written: 0,
            lost,
            sessions: BTreeMap::new(),
            effects: Vec::new(),
            has_failed: false,
            stopwatch: None,
            control_cost: ControlCost::default(),
        })
    }

    /// Has the control plane's work measured by a clock that shows nanoseconds.
    pub fn measure_control(&mut self, stopwatch: fn() -> u64) {
        self.stopwatch = Some(stopwatch);
    }

    /// What the control plane has cost since the last call.
    pub fn take_control_cost(&mut self) -> ControlCost {
        std::mem::take(&mut self.control_cost)
    }

    fn control(&mut self, act: impl FnOnce(&mut ControlDriver<SimDisk>)) {
        let Some(stopwatch) = self.stopwatch else { return act(&mut self.control) };
        let began = stopwatch();
        act(&mut self.control);
        let took = stopwatch().saturating_sub(began);
        let cost = &mut self.control_cost;
        cost.calls += 1;
        cost.total_ns += took;
        cost.longest_ns = cost.longest_ns.max(took);
    }

    /// Whether this node is the coordinator.
    pub fn is_coordinator(&self) -> bool {
        self.control.is_coordinator()
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The highest feature level that its build has.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The cluster's feature level, as far as it knows.
    pub fn cluster_level(&self) -> Level {
        self.published.level()
    }

    /// The map that its control plane knows.
    pub fn map(&self) -> &Arc<ClusterMap> {
        self.control.map()
    }

    /// Whether its control plane has failed: nothing leaves it any more, and what it decided last may not be durable.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Until when it holds a lease, on its own clock.
    pub fn lease_until(&self) -> Instant {
        self.published.lease_until()
    }

    /// What is to be done since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Time passes.
    pub fn tick(&mut self, now: Instant, wall_ms: u64) -> Result<(), String> {
        for (at, shard) in self.shards.iter_mut().enumerate() {
            shard.tick(now);
            end_turn(shard, now);
            self.published.stamp(ShardId(at as u16), now);
        }
        self.control(|control| control.tick(now));
        self.heart.tick(now, wall_ms);
        self.settle(now)
    }

    /// A message from another node.
    pub fn message(
        &mut self,
        now: Instant,
        wall_ms: u64,
        from: Identity,
        envelope: Envelope,
    ) -> Result<(), String> {
        match envelope {
            Envelope::Beat(beat) => self.heart.beat(now, wall_ms, from, beat),
            Envelope::Control(message) => self.control(|control| control.message(now, from, message)),
            Envelope::Shard(shard, to, message) => self.shard_message(now, from, shard, to, message),
        }
        self.settle(now)
    }

    /// A message from one of its own shards to another.
    pub fn local(
        &mut self,
        now: Instant,
        from: ShardId,
        to: ShardId,
        message: Message,
    ) -> Result<(), String> {
        self.shard_message(now, self.identity, from, to, message);
        self.settle(now)
    }

    fn shard_message(&mut self, now: Instant, from: Identity, shard: ShardId, to: ShardId, message: Message) {
        let sender = Sender { node: from.node, incarnation: from.incarnation, shard };
        if let Some(shard) = self.shards.get_mut(usize::from(to.0)) {
            shard.message(now, sender, message);
            end_turn(shard, now);
            self.published.stamp(to, now);
        }
    }

    /// A map reaches a shard.
    pub fn shard_map(&mut self, now: Instant, shard: ShardId, map: Arc<ClusterMap>) -> Result<(), String> {
        let shard = &mut self.shards[usize::from(shard.0)];
        shard.map(now, map);
        end_turn(shard, now);
        self.settle(now)
    }

    /// The connection to another node broke.
    pub fn link_lost(&mut self, now: Instant, node: NodeId) -> Result<(), String> {
        for shard in &mut self.shards {
            shard.link_lost(now, node);
            end_turn(shard, now);
        }
        self.settle(now)
    }

    /// A client's request. The connection is made by its first one.
    pub fn request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        door: Door,
        read_level: ReadLevel,
        args: &[Bytes],
    ) -> Result<(), String> {
        let settings = &self.settings;
        let session = self.sessions.entry(ticket.connection).or_insert_with(|| {
            let mut session = Session::new(ticket.connection, door, settings);
            session.read_level = read_level;
            session
        });
        let lent = Some(&Lent::Args(args));
        let args: Vec<&[u8]> = args.iter().map(|arg| &arg[..]).collect();
        let at = ticket.connection as usize % self.shards.len();
        let shard = &mut self.shards[at];
        let mut told = Vec::new();
        let request = Request { args: &args, preview: shard.preview(&args), lent };
        let answer = shard.request(now, ticket, session, &request, &mut |reply| {
            told.push(reply.clone().into_owned());
        });
        if (answer == Answer::Now) != (told.len() == 1) {
            return Err(format!("{ticket:?} was answered {answer:?} with {} replies", told.len()));
        }
        end_turn(shard, now);
        self.effects.extend(told.into_iter().map(|reply| Effect::Reply(ticket, reply)));
        self.settle(now)
    }

    /// The disk has done what it was at for a shard's log.
    pub fn disk(&mut self, now: Instant, shard: ShardId) -> Result<(), String> {
        let at = usize::from(shard.0);
        let Some(thread) = self.logs.get_mut(at) else { return Ok(()) };
        match thread.go_on(now) {
            Err(error) => {
                self.effects.push(Effect::Stop(error.to_string()));
                return Ok(());
            }
            Ok(Done::Nothing) => {}
            Ok(Done::Begun(work)) => self.effects.push(Effect::Disk(shard, work)),
            Ok(Done::Logged { turn, offset }) => {
                let shard = &mut self.shards[at];
                shard.logged(now, turn, offset);
                end_turn(shard, now);
            }
        }
        self.settle(now)
    }

    /// The disk has done what it was at beside the writes of a shard's log.
    pub fn errand(&mut self, now: Instant, shard: ShardId) -> Result<(), String> {
        let Some(thread) = self.logs.get_mut(usize::from(shard.0)) else { return Ok(()) };
        if let Err(error) = thread.end_errand() {
            self.effects.push(Effect::Stop(error.to_string()));
            return Ok(());
        }
        self.settle(now)
    }

    /// The disk has taken a step of a shard's snapshots.
    pub fn snapshot(&mut self, now: Instant, shard: ShardId) -> Result<(), String> {
        let at = usize::from(shard.0);
        let Some(thread) = self.logs.get_mut(at) else { return Ok(()) };
        let shard = &mut self.shards[at];
        match thread.write_snapshot() {
            Err(error) => {
                self.effects.push(Effect::Stop(error.to_string()));
                return Ok(());
            }
            Ok(None) => {}
            Ok(Some(SnapshotNews::Piece)) => shard.snapshot_piece_written(),
            Ok(Some(SnapshotNews::Done(partition, written))) => {
                if written {
                    self.snapshots_written += 1;
                }
                shard.snapshot_done(partition, written);
            }
        }
        end_turn(shard, now);
        self.settle(now)
    }

    /// How many snapshots this process has written.
    pub fn snapshots_written(&self) -> u64 {
        self.snapshots_written
    }

    /// How many copies its disk had lost when it started.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// How many transfers of snapshots its primaries have begun, and how many went on after a break.
    pub fn transfers(&self) -> [u64; 2] {
        let shards = self.published.shards();
        let sum = |counter: fn(&node::ShardCounters) -> u64| shards.iter().map(counter).sum();
        [
            sum(|shard| shard.snapshots_begun.load(Ordering::Relaxed)),
            sum(|shard| shard.snapshots_gone_on.load(Ordering::Relaxed)),
        ]
    }

    /// It is to stop soon: first another node is to be the coordinator.
    pub fn step_down(&mut self, now: Instant) -> Result<(), String> {
        self.control.step_down(now);
        self.settle(now)
    }

    /// Whether another is, or nobody else can be.
    pub fn has_stepped_down(&self) -> bool {
        self.control.has_stepped_down()
    }

    /// It hands over what others can take over: first what is under way is committed.
    pub fn retire(&mut self, now: Instant) -> Result<(), String> {
        for shard in &mut self.shards {
            shard.retire(now);
            end_turn(shard, now);
        }
        self.settle(now)
    }

    /// A partition is to be handed over to another of its copies.
    pub fn hand_over(&mut self, now: Instant, partition: PartitionId, heir: NodeId) -> Result<(), String> {
        self.control.hand_over(now, partition, heir);
        self.settle(now)
    }

    /// An operator asks for a change of the cluster's shape.
    pub fn order(&mut self, now: Instant, order: Order) -> Result<(), String> {
        self.control.order(now, order);
        self.settle(now)
    }

    /// The coordinator is told.
    pub fn leave(&mut self, now: Instant) -> Result<(), String> {
        self.control.leave(now);
        self.settle(now)
    }

    /// Whether all that was ordered is committed, and nothing is ordered any more.
    pub fn is_retired(&self) -> bool {
        self.published.shards().iter().all(|shard| shard.retired.load(Ordering::Relaxed) > 0)
    }

    /// Hands what the shards have for their logs to the logs, and sees to it that the disk does not idle. False: it has failed.
    fn feed_logs(&mut self, now: Instant) -> bool {
        let mut bytes = Rope::default();
        for (at, (shard, thread)) in self.shards.iter_mut().zip(&mut self.logs).enumerate() {
            shard.take_log(&mut bytes, |turn, bytes| thread.push(turn, bytes));
            thread.push_jobs(std::mem::take(&mut shard.effects().snapshots));
            if thread.begin_snapshot_work() {
                self.effects.push(Effect::Snapshot(ShardId(at as u16)));
            }
            let begun = thread.begin_errand(now).and_then(|errand| Ok((errand, thread.begin_work(now)?)));
            match begun {
                Ok((errand, work)) => {
                    let shard = ShardId(at as u16);
                    self.effects.extend(errand.then_some(Effect::Errand(shard)));
                    self.effects.extend(work.map(|work| Effect::Disk(shard, work)));
                }
                Err(error) => {
                    self.effects.push(Effect::Stop(error.to_string()));
                    return false;
                }
            }
        }
        true
    }

    /// Whether all that a shard has for its log is durable.
    pub fn is_synced(&self, shard: usize) -> bool {
        self.logs.get(shard).is_none_or(LogThread::is_synced)
    }

    /// It is told to stop, and writes what it has. False: the disk refused.
    pub fn stop(&mut self) -> bool {
        self.logs.iter_mut().all(|thread| thread.stop().is_ok())
    }

    /// A client's connection is gone.
    pub fn closed(&mut self, connection: u64) {
        self.sessions.remove(&connection);
        let at = connection as usize % self.shards.len();
        self.shards[at].closed(connection);
    }

    /// Hands on what the threads have for each other, until nobody has anything.
    fn settle(&mut self, now: Instant) -> Result<(), String> {
        loop {
            let mut idle = true;
            if !self.feed_logs(now) {
                return Ok(());
            }
            for beat in std::mem::take(&mut self.heart.effects().beats) {
                self.effects.push(Effect::Send(beat.0, Envelope::Beat(beat.1)));
            }
            for notice in std::mem::take(&mut self.heart.effects().notices) {
                idle = false;
                self.control(|control| control.notice(now, notice));
            }
            for at in 0..self.shards.len() {
                let effects = std::mem::take(self.shards[at].effects());
                let from = ShardId(at as u16);
                for (to, shard, message) in effects.messages {
                    self.effects.push(if to == self.identity.node {
                        Effect::Local(from, shard, message)
                    } else {
                        Effect::Send(to, Envelope::Shard(from, shard, message))
                    });
                }
                self.effects.extend(effects.replies.into_iter().map(|(t, reply)| Effect::Reply(t, reply)));
                if !effects.changes.is_empty() {
                    idle = false;
                    self.control(|control| control.changes(now, effects.changes));
                }
            }
            let effects = std::mem::take(self.control.effects());
            if let Some(why) = effects.failed {
                self.effects.push(Effect::Stop(why));
                self.has_failed = true;
                return Ok(());
            }
            for (to, message) in effects.messages {
                self.effects.push(Effect::Send(to, Envelope::Control(message)));
            }
            if let Some(map) = effects.map {
                for shard in 0..self.shards.len() {
                    self.effects.push(Effect::Map(ShardId(shard as u16), map.clone()));
                }
            }
            for input in effects.to_heart {
                idle = false;
                self.heart.input(now, input);
            }
            for (to, question, partitions) in effects.ask_tails {
                idle = false;
                let tails = self.shards.iter().flat_map(|shard| shard.tails(&partitions)).collect();
                self.control(|control| control.tails(now, to, question, tails));
            }
            if idle {
                return Ok(());
            }
        }
    }

    /// Its copies, as they stand at `now` on its own clock.
    pub fn copies(&self, now: Instant) -> impl Iterator<Item = Copy<'_>> {
        self.shards.iter().flat_map(move |shard| {
            let context = Context {
                now,
                lease_until: self.published.lease_until(),
                clock_ms: self.published.clock_ms(now),
                map: shard.acting_map().clone(),
                snapshots_free: 0,
                chunk_bytes: 0,
                evict: Duration::MAX,
                ahead_bytes_max: 0,
            };
            shard.partitions().map(move |partition| Copy {
                partition: usize::from(partition.id().0),
                epoch: partition.epoch().0,
                primary_since: partition.primary_since().0,
                commit: partition.commit().0,
                is_primary: partition.is_primary(),
                serves: partition.standing(&context) == Standing::Serving,
                is_here: partition.is_here(),
                is_incomplete: partition.is_incomplete(),
                log: partition.log(),
                table: partition.table(),
            })
        })
    }

    /// One of its copies.
    pub fn copy(&self, now: Instant, partition: PartitionId) -> Option<Copy<'_>> {
        self.copies(now).find(|copy| copy.partition == usize::from(partition.0))
    }
}

/// Reads a shard's directory. None: nothing of it can be used, which may be where its disk has rotted.
fn read_shard(
    disk: &SimDisk,
    data: &Path,
    config: &RecoverConfig,
    rotten: bool,
) -> Result<Option<recover::Opened<SimDisk>>, String> {
    match recover::open_shard(disk, data, config, &mut |_| {}) {
        Err(error) if rotten && error.is_rot() => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(open) => match open.lost.first() {
            Some((partition, why)) if !rotten => Err(format!("{partition:?} cannot be used: {why}")),
            _ => Ok(Some(open)),
        },
    }
}

/// Makes a shard's directory fit to be written to, as the server does: what it lacks is durably known by now.
fn make_fit(
    disk: &SimDisk,
    data: &Path,
    config: &RecoverConfig,
    open: Option<recover::Opened<SimDisk>>,
) -> Result<recover::Opened<SimDisk>, String> {
    let fit = match open {
        Some(open) => recover::set_rotten_aside(disk, &open).map(|()| open),
        None => recover::begin_anew(disk, data, config).map(|(open, _)| open),
    };
    fit.map_err(|error| error.to_string())
}

/// Says whose files a shard's are.
fn file_identity(settings: &Settings, shard: ShardId) -> [u8; 32] {
    let mut identity = [7; 32];
    identity[..2].copy_from_slice(&settings.node_id.to_le_bytes());
    identity[2..4].copy_from_slice(&shard.0.to_le_bytes());
    identity
}

fn recover_config(settings: &Settings, shard: ShardId, hash_seed: u64) -> RecoverConfig {
    RecoverConfig {
        node: NodeId(settings.node_id),
        shard,
        identity: file_identity(settings, shard),
        hash_seed,
        durability: Durability::of(settings),
        log: ShardLogOptions { segment_bytes: SEGMENT_BYTES },
        ended_at: 0,
    }
}

/// What a shard's loop does at the end of each turn. Here it has all the time it wants.
fn end_turn(shard: &mut Shard, now: Instant) {
    while shard.work(now) {}
    shard.flush(now);
}
