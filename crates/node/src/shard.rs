//! One data thread's machine: its partitions, and the events that move them.

use crate::account::{AtHand, slow_ns};
use crate::collect::Collector;
use crate::crowd::Crowd;
use crate::following::Followers;
use crate::forward::{Forwarding, Lane};
use crate::last_writes::LastWrites;
use crate::partitions::Partitions;
use crate::published::{Published, ServerFigures, ShardCounters};
use crate::random_key::KeyCounts;
use crate::recover::Copies;
use crate::run::{LARGE_RECORD_BYTES, Parked, Waiter};
use crate::snapshots::{SnapshotJob, Snapshots};
use command::{ClientOrder, Pause, Reply};
use control::{Change, Identity};
use placement::{ClusterMap, PartitionState};
use replication::{Context, Durability, HandOvers, Message, Outbox, Partition, Sender, Tail, Transfers};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::{Changes, Hasher, Rope};
use types::shared_settings::SettingsReader;
use types::{Epoch, Instant, NodeId, PartitionId, Position, ShardId};

/// Snapshots that one shard sends at once.
const SNAPSHOTS_MAX: usize = 8;
/// For this long after a partition got another primary its requests are passed on also at the door for cluster-aware
/// clients: nodes learn of it at different moments, and redirections could go round in circles.
pub(crate) const SETTLING: Duration = Duration::from_secs(1);
/// The same, where the node lets its clients go: as long as it takes until all nodes have the map.
pub(crate) const SETTLING_PARTING: Duration = Duration::from_millis(100);
/// How often a shard's figures are published.
const COUNT: Duration = Duration::from_millis(100);
/// Between two looks at the copies for the statistics.
const LOOK: Duration = Duration::from_millis(100);
/// What had nothing to do is looked at again after this long.
const REST: Duration = Duration::from_millis(100);
/// Slices of active expiry after each tick that find little to remove. One that finds much is followed by another.
const EXPIRY_SLICES: usize = 32;
/// A slice of active expiry that removes so many keys found much: a quarter of what it looked at.
const EXPIRED_MUCH: usize = 16;
/// So many partitions ahead of the one at hand are fetched into the cache where one after the other commits.
const FETCHED_AHEAD: usize = 8;

/// Names a request of a client: which connection, and its number on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The connection.
    pub connection: u64,
    /// The request's number on it.
    pub sequence: u64,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sink was called.
    Now,
    /// A reply with the ticket comes among the effects.
    Later,
    /// The same, and until it is out the connection's next requests are better not run: it may be large.
    Alone,
}

/// Whether a message brings what is large for the log on disk.
fn is_large(message: &Message) -> bool {
    match message {
        Message::Append(append) => append.records.iter().any(|record| record.body.len() > LARGE_RECORD_BYTES),
        Message::Chunk(chunk) => chunk.payload.len() > LARGE_RECORD_BYTES,
        _ => false,
    }
}

/// What a shard wants done.
#[derive(Debug, Default)]
pub struct Effects {
    /// To clients.
    pub replies: Vec<(Ticket, Reply<'static>)>,
    /// To shards, of other nodes or of this one.
    pub messages: Vec<(NodeId, ShardId, Message)>,
    /// To the coordinator, through this node's control machine.
    pub changes: Vec<Change>,
    /// An operator accepts the loss of what no living copy holds: for this node's control machine.
    pub accept_loss: bool,
    /// What operators ask of the cluster: likewise.
    pub orders: Vec<control::Order>,
    /// About snapshots on disk, after the turn of the log that was taken last.
    pub snapshots: Vec<SnapshotJob>,
    /// What clients ask of all connections of this node: the request, and the number of the connection that asks.
    pub client_orders: Vec<(Ticket, u64, ClientOrder)>,
}

/// What a shard is made with.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The node's settings, checked, as this shard sees them.
    pub settings: SettingsReader,
    /// The node.
    pub identity: Identity,
    /// Which of its shards this is.
    pub shard: ShardId,
    /// How many it has.
    pub shards: u16,
    /// Drawn at random, and secret: keys come from strangers.
    pub hash_seed: u64,
    /// How large the chunks of snapshots are that it sends, in bytes: [`replication::CHUNK_BYTES`].
    pub chunk_bytes: usize,
    /// What the node's threads tell each other.
    pub published: Arc<Published>,
}

/// A turn whose entries are on their way to the disk: what they reach to, what else they touch, and how many bytes they have.
struct Undurable {
    turn: u64,
    tails: Vec<Tail>,
    touched: Vec<PartitionId>,
    bytes: u64,
}

/// One data thread's machine.
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) context: Context,
    pub(crate) partitions: Partitions,
    /// What the command at hand changes.
    pub(crate) changes: Changes,
    pub(crate) outbox: Outbox<Waiter>,
    pub(crate) effects: Effects,
    /// Partitions that something happened to in this turn.
    pub(crate) dirty: Vec<PartitionId>,
    /// Requests that wait for their partition to be served, in the order in which they came.
    pub(crate) parked: BTreeMap<PartitionId, VecDeque<Parked>>,
    /// Those that wait for room in their partition.
    pub(crate) crowd: Crowd,
    /// Bytes of records that may be ordered and not committed.
    pub(crate) uncommitted_bytes_max: usize,
    /// Bytes of requests that may be under way at another node.
    pub(crate) forward_ahead_bytes: usize,
    /// Those that are, by node.
    pub(crate) forwards_ahead: BTreeMap<NodeId, usize>,
    /// Requests passed on, by number.
    pub(crate) forwards: BTreeMap<u64, Forwarding>,
    /// Those of each partition, in order.
    pub(crate) lanes: BTreeMap<PartitionId, Lane>,
    /// Whom this shard refused last: partition and forwarder; the request's number, and until when it is remembered.
    pub(crate) refusals: BTreeMap<(PartitionId, NodeId, ShardId), (u64, Instant)>,
    pub(crate) next_forward: u64,
    /// Requests that wait for changes.
    pub(crate) followers: Followers,
    /// Requests over several partitions.
    pub(crate) collectors: BTreeMap<u64, Collector>,
    pub(crate) next_collector: u64,
    /// Those that take a step at the next [`Shard::work`].
    pub(crate) going_on: VecDeque<u64>,
    /// Parts of those that are done: collector, index, reply.
    pub(crate) parts: VecDeque<(u64, usize, Reply<'static>)>,
    /// For RANDOMKEY: of linearizable reads, and of stale ones.
    pub(crate) key_counts: [KeyCounts; 2],
    pub(crate) parked_count: usize,
    /// Bytes of values in the replies since the last tick.
    pub(crate) reply_bytes: usize,
    /// When the map last changed a partition's primary, for a while.
    pub(crate) moved_at: BTreeMap<PartitionId, Instant>,
    pub(crate) last_writes: LastWrites,
    /// Whether any partition has a second copy, in sync or not.
    pub(crate) has_backups: bool,
    pub(crate) hasher: Hasher,
    pub(crate) durability: Durability,
    /// The node is about to stop.
    retiring: bool,
    /// It has handed over, and lets its clients go.
    pub(crate) parting: bool,
    /// Oldest first.
    undurable: VecDeque<Undurable>,
    /// Bytes of them.
    pub(crate) undurable_bytes: u64,
    pub(crate) snapshots: Snapshots,
    /// Of its tables, as last counted.
    pub(crate) table_bytes: usize,
    last_turn: u64,
    pub(crate) figures: Arc<dyn Fn() -> ServerFigures + Send + Sync>,
    /// The request at hand, for the statistics.
    pub(crate) at_hand: AtHand,
    /// A request that took its thread this long is kept, in nanoseconds.
    pub(crate) slow_ns: u64,
    expiry_next: PartitionId,
    count_at: Instant,
    /// Slices of active expiry that are due.
    expiry_slices: usize,
    /// When more of them are.
    expire_at: Instant,
    /// The primaries here for which time matters, as last looked at.
    restless: Vec<PartitionId>,
    /// When that is looked at again.
    restless_at: Instant,
    /// When the copies are told how far is committed.
    pub(crate) tell_commits_at: Instant,
    /// When the copies were last looked at for the statistics.
    looked_at: Instant,
}

impl Shard {
    /// A shard that knows nothing yet: it serves once a map says what it has.
    pub fn new(config: ShardConfig) -> Shard {
        let context = Context {
            now: Instant(0),
            lease_until: Instant(0),
            clock_ms: None,
            map: Arc::default(),
            snapshots_free: SNAPSHOTS_MAX,
            chunk_bytes: config.chunk_bytes,
            evict: Duration::from_millis(config.settings.evict_ms),
            ahead_bytes_max: 0,
        };
        let hasher = Hasher::new(config.hash_seed);
        let slow_ns = slow_ns(&config.settings);
        let durability = Durability::of(&config.settings);
        let mut shard = Shard {
            context,
            partitions: Partitions::new(config.shard, config.shards),
            config,
            changes: Changes::default(),
            outbox: Outbox::default(),
            effects: Effects::default(),
            dirty: Vec::new(),
            parked: BTreeMap::new(),
            forwards: BTreeMap::new(),
            lanes: BTreeMap::new(),
            refusals: BTreeMap::new(),
            next_forward: 1,
            followers: Followers::default(),
            collectors: BTreeMap::new(),
            next_collector: 1,
            going_on: VecDeque::new(),
            parts: VecDeque::new(),
            key_counts: Default::default(),
            parked_count: 0,
            reply_bytes: 0,
            moved_at: BTreeMap::new(),
            last_writes: LastWrites::default(),
            has_backups: false,
            hasher,
            durability,
            retiring: false,
            parting: false,
            undurable: VecDeque::new(),
            undurable_bytes: 0,
            snapshots: Snapshots::default(),
            table_bytes: 0,
            last_turn: 0,
            figures: Arc::new(ServerFigures::default),
            at_hand: AtHand::default(),
            slow_ns,
            expiry_next: PartitionId(0),
            count_at: Instant(0),
            expiry_slices: 0,
            expire_at: Instant(0),
            restless: Vec::new(),
            restless_at: Instant(0),
            tell_commits_at: Instant(0),
            looked_at: Instant(0),
            crowd: Crowd::default(),
            uncommitted_bytes_max: 0,
            forward_ahead_bytes: 0,
            forwards_ahead: BTreeMap::new(),
        };
        shard.take_settings();
        shard
    }

    /// Where to ask for figures of the process.
    pub fn set_figures(&mut self, figures: Arc<dyn Fn() -> ServerFigures + Send + Sync>) {
        self.figures = figures;
    }

    /// What is to be done; the caller empties it.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// Its copies of partitions, by number.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition<impl Sized + use<>>> {
        self.partitions.iter()
    }

    /// The map that it acts on.
    pub fn acting_map(&self) -> &Arc<ClusterMap> {
        &self.context.map
    }

    pub(crate) fn counters(&self) -> &ShardCounters {
        self.config.published.shard(self.config.shard)
    }

    /// Sets the time of the event at hand. `now` was read after the event's bytes: see [`replication::Context`].
    pub(crate) fn at(&mut self, now: Instant) {
        self.context.now = now;
        self.context.lease_until = self.config.published.lease_until();
        self.context.clock_ms = self.config.published.clock_ms(now);
    }

    /// Which requests of clients wait just now.
    pub fn pause(&self, now: Instant) -> Pause {
        self.config.published.pause(now)
    }

    /// A connection is gone: what it waited for needs no reply.
    pub fn closed(&mut self, connection: u64) {
        self.last_writes.forget(connection);
        self.drop_collectors(connection);
        self.crowd.forget(connection);
        self.followers.forget(connection);
    }

    /// A newer cluster map.
    pub fn map(&mut self, now: Instant, map: Arc<ClusterMap>) {
        if map.version <= self.context.map.version {
            return;
        }
        self.at(now);
        let before = std::mem::replace(&mut self.context.map, map.clone());
        for (id, state) in map.each_partition() {
            let moved = |was: &PartitionState| {
                was.primary_since > Epoch(0) && was.primary_since != state.primary_since
            };
            if before.partition(id).is_some_and(moved) {
                self.moved_at.insert(id, now);
            }
        }
        // What was refused in an earlier reign holds nobody back in this one, who may have been primary a moment ago.
        let moved_at = &self.moved_at;
        self.refusals.retain(|(id, ..), _| moved_at.get(id).is_none_or(|at| *at != now));
        self.has_backups = map.partitions.iter().any(|state| state.copies.len().max(state.in_sync.len()) > 1);
        let me = self.config.identity.node;
        // A map without this node may be old; one that tells of the removal of this very start has nothing for it to keep.
        let incarnation = self.config.identity.incarnation;
        let is_removed = map.removed.iter().any(|&(node, last)| node == me && incarnation <= last);
        for (id, state) in map.each_partition() {
            if !self.partitions.is_ours(id) {
                continue;
            }
            if self.partitions.get(id).is_none() {
                if !state.copies.contains(me) && !state.in_sync.contains(me) {
                    continue;
                }
                self.partitions.insert(Partition::new(id, me, self.hasher, self.durability));
            }
            if !self.is_current(me) && !is_removed {
                // The map speaks of another start of this node: nothing in it is meant for this one.
                continue;
            }
            if let Some(partition) = self.partitions.get_mut(id)
                && partition.is_news(state)
            {
                partition.on_map(&self.context, state, &mut self.outbox);
                if self.retiring {
                    partition.retire();
                }
                self.dirty.push(id);
                self.restless_at = now;
            }
        }
        self.count_cluster();
        self.counters().acted_version.store(map.version, Ordering::Release);
        self.reroute();
        self.settle();
    }

    /// Whether the map shows this very start of the node.
    fn is_current(&self, me: NodeId) -> bool {
        self.context
            .map
            .member(me)
            .is_some_and(|member| member.incarnation == self.config.identity.incarnation)
    }

    /// A message from another shard.
    pub fn message(&mut self, now: Instant, from: Sender, mut message: Message) {
        self.at(now);
        if self.durability.logs() && self.config.published.is_disk_used_up(self.config.shard) {
            // As if it were lost. A copy that can take nothing leaves the in-sync set, and what room there is stays for what it
            // has to note: what it discards, and that it becomes primary.
            match &mut message {
                Message::Append(append) => append.records.clear(),
                Message::Chunk(_) => return self.settle(),
                _ => {}
            }
        }
        if self.durability.logs() && is_large(&message) && !self.has_room_for(&message) {
            // The same, of what is large alone: the log would wait for room with all that comes behind it.
            match &mut message {
                Message::Append(append) => append.records.clear(),
                _ => return self.settle(),
            }
        }
        match message {
            Message::Forward(forward) => self.on_forward(from, forward),
            Message::Forwarded(forwarded) => self.on_forwarded(forwarded),
            Message::Append(ref append) => self.on_partition_message(append.partition, from, message),
            Message::Appended(ref appended) => self.on_partition_message(appended.partition, from, message),
            Message::Chunk(ref chunk) => self.on_partition_message(chunk.partition, from, message),
            Message::Committed(ref told) => self.hear_commits(told),
            Message::ChunkStored(ref stored) => self.on_partition_message(stored.partition, from, message),
        }
        self.settle();
    }

    #[cold]
    fn has_room_for(&self, message: &Message) -> bool {
        let bytes: usize = match message {
            Message::Append(append) => append.records.iter().map(|record| record.body.len()).sum(),
            Message::Chunk(chunk) => chunk.payload.len(),
            _ => 0,
        };
        let queued = self.undurable_bytes + self.outbox.log.len() as u64;
        self.config.published.claim_room(self.config.shard, queued, bytes as u64)
    }

    fn on_partition_message(&mut self, id: PartitionId, from: Sender, message: Message) {
        if let Some(partition) = self.partitions.get_mut(id) {
            partition.on_message(&self.context, from, message, &mut self.outbox);
            if partition.is_primary() {
                self.dirty.push(id);
            }
        }
    }

    /// Messages to or from a node may have been lost.
    pub fn link_lost(&mut self, now: Instant, node: NodeId) {
        self.at(now);
        self.forwards_lost(node);
    }

    /// How far this shard's logs of these partitions reach; without those that lie elsewhere.
    pub fn tails(&self, partitions: &[PartitionId]) -> Vec<(PartitionId, Position)> {
        let tail = |id: &PartitionId| self.partitions.get(*id).map(|partition| (*id, partition.tail()));
        partitions.iter().filter_map(tail).collect()
    }

    /// Time passes. Called every few milliseconds, and at least as often as that even when idle.
    pub fn tick(&mut self, now: Instant) {
        self.at(now);
        self.tick_partitions(now);
        if now >= self.expire_at {
            self.expiry_slices = EXPIRY_SLICES;
        }
        self.reply_bytes = 0;
        self.retry_parked();
        self.retry_crowd();
        self.retry_forwards();
        self.tick_collectors();
        self.look_at_followers();
        self.tell_commits();
        self.tick_snapshots(now);
        if self.retiring && !self.partitions.iter().any(Partition::is_retiring) {
            ShardCounters::set(&self.counters().retired, 1);
        }
        self.moved_at.retain(|_, at| now.since(*at) < SETTLING);
        self.settle();
        if now >= self.count_at {
            self.count_at = now + COUNT;
            self.count();
        }
        if now.since(self.looked_at) >= LOOK {
            self.looked_at = now;
            self.count_ahead_anew();
            self.count_copies();
        }
    }

    /// Tells the partitions for which time matters that it passes. Which they are is looked at now and then: the others are
    /// not touched, so that a shard with nothing to do does nothing.
    fn tick_partitions(&mut self, now: Instant) {
        if now >= self.restless_at {
            self.restless_at = now + REST;
            let restless =
                self.partitions.iter().filter(|partition| partition.is_primary() && !partition.is_quiet());
            self.restless = restless.map(Partition::id).collect();
        }
        let ids = std::mem::take(&mut self.restless);
        let under_way = |id: &PartitionId| self.partitions.get(*id).map_or(0, Partition::snapshots_under_way);
        let mut free = SNAPSHOTS_MAX.saturating_sub(ids.iter().map(under_way).sum());
        for &id in &ids {
            let Some(partition) = self.partitions.get_mut(id) else { continue };
            self.context.snapshots_free = free;
            let before = partition.snapshots_under_way();
            partition.tick(&self.context, &mut self.outbox);
            partition.give_up(|waiter| waiter.is_over(now), &mut self.outbox);
            let begun = partition.snapshots_under_way().saturating_sub(before);
            free = free.saturating_sub(begun);
        }
        self.context.snapshots_free = 0;
        self.restless = ids;
    }

    /// The node is about to stop: what another copy can take over is handed over once all that was ordered is committed
    /// and told. Requests for it wait for the next primary, and go on there.
    pub fn retire(&mut self, now: Instant) {
        self.at(now);
        self.retiring = true;
        for partition in self.partitions.iter_mut() {
            partition.retire();
        }
    }

    /// The node has handed over what others can take over, and lets its clients go. Cluster-aware ones are told where to go instead
    /// sooner than usual.
    pub fn part(&mut self) {
        self.parting = true;
    }

    /// Does a little of what has to be done beside requests: a step of a request over all partitions, and a slice of
    /// active expiry, some tens of microseconds each. True where there is more. Whoever calls it has the clock, and says
    /// how often; whatever it leaves waits, so it should be called again before the shard sleeps.
    pub fn work(&mut self, now: Instant) -> bool {
        if !self.has_work() {
            return false;
        }
        self.at(now);
        self.go_on();
        self.expire();
        self.cut_piece();
        self.settle();
        self.has_work()
    }

    fn has_work(&self) -> bool {
        self.expiry_slices > 0 || !self.going_on.is_empty() || self.has_piece_to_cut()
    }

    /// Removes keys whose time has come: one slice of one partition.
    fn expire(&mut self) {
        if self.expiry_slices == 0 {
            return;
        }
        let is_volatile = |partition: &&Partition<Waiter>| partition.table().volatile_len() > 0;
        let Some(id) = self.partitions.from(self.expiry_next).find(is_volatile).map(Partition::id) else {
            // Nothing expires, so it is not looked for before a while.
            self.expiry_slices = 0;
            self.expire_at = self.context.now + REST;
            return;
        };
        let Some(partition) = self.partitions.get_mut(id) else { return };
        let expired = partition.expire(&self.context, &mut self.changes, &mut self.outbox.log);
        if expired > 0 {
            ShardCounters::add(&self.config.published.shard(self.config.shard).expired, expired as u64);
            self.dirty.push(id);
        }
        if expired >= EXPIRED_MUCH {
            self.expiry_next = id;
        } else {
            self.expiry_next = PartitionId(id.0.wrapping_add(1));
            self.expiry_slices -= 1;
        }
    }

    /// The end of a turn: commits, answers, and sends what this turn made.
    pub fn flush(&mut self, now: Instant) {
        self.at(now);
        self.settle();
    }

    /// Lets everything that can go on go on, until nothing more can.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut dirty = std::mem::take(&mut self.dirty);
            dirty.sort_unstable();
            dirty.dedup();
            for (at, &id) in dirty.iter().enumerate() {
                if let Some(next) = dirty.get(at + FETCHED_AHEAD)
                    && let Some(partition) = self.partitions.get(*next)
                {
                    partition.prefetch_oldest();
                }
                if let Some(partition) = self.partitions.get_mut(id) {
                    partition.flush(&self.context, &mut self.outbox);
                }
                if self.parked.contains_key(&id) {
                    // It may just have begun to serve.
                    self.retry_parked_of(id);
                }
                if self.crowd.count > 0 {
                    self.retry_crowd_of(id);
                }
                if self.followers.has(id) {
                    self.wake_followers(id);
                }
            }
            if self.dirty.is_empty() {
                dirty.clear();
                self.dirty = dirty;
            }
            self.release();
            self.settle_parts();
            if self.dirty.is_empty() && self.parts.is_empty() && self.outbox.released.is_empty() {
                break;
            }
        }
        self.effects.messages.append(&mut self.outbox.messages);
        self.count_hand_overs();
        self.count_transfers();
        let primary = self.config.identity.node;
        self.effects.changes.extend(self.outbox.changes.drain(..).map(|change| Change {
            partition: change.partition,
            epoch: change.epoch,
            primary,
            node: change.node,
            incarnation: change.incarnation,
            kind: change.kind,
        }));
    }

    fn count_hand_overs(&mut self) {
        let news = std::mem::take(&mut self.outbox.hand_overs);
        if news != HandOvers::default() {
            let counters = self.counters();
            ShardCounters::add(&counters.hand_overs_begun, news.begun);
            ShardCounters::add(&counters.hand_overs_done, news.done);
            ShardCounters::add(&counters.hand_overs_given_up, news.given_up);
        }
    }

    /// What was sent to nodes and not confirmed goes uncounted where a map no longer names them.
    fn count_ahead_anew(&mut self) {
        self.outbox.ahead.clear();
        for partition in self.partitions.iter_mut() {
            partition.count_ahead_anew(&mut self.outbox.ahead);
        }
    }

    fn count_transfers(&mut self) {
        let news = std::mem::take(&mut self.outbox.transfers);
        if news != Transfers::default() {
            let counters = self.counters();
            ShardCounters::add(&counters.snapshots_begun, news.begun);
            ShardCounters::add(&counters.snapshots_gone_on, news.gone_on);
            ShardCounters::add(&counters.snapshots_done, news.done);
        }
    }

    // ------------------------------------------------------------------------------------------ the log on disk

    /// Copies that the disk has kept, before the first map comes.
    pub fn adopt(&mut self, copies: Copies) {
        for partition in copies.partitions {
            self.partitions.insert(partition);
        }
        self.outbox.log = copies.first;
        self.snapshots = Snapshots::new(copies.needed_from, copies.snapshots, copies.log_end);
    }

    /// Hands over the entries that came together since the last call, with the number of their turn: they have to be put at the end of
    /// this shard's log, in order; [`Shard::logged`] tells once they are durable. Where they are too many for one write they come as
    /// several turns. `bytes` is an empty buffer, and `hand_over` leaves one.
    pub fn take_log(&mut self, bytes: &mut Rope, mut hand_over: impl FnMut(u64, &mut Rope)) {
        while let Some((tails, touched)) = self.outbox.log.take(bytes) {
            self.last_turn += 1;
            let (turn, count) = (self.last_turn, bytes.len() as u64);
            self.undurable.push_back(Undurable { turn, tails, touched, bytes: count });
            self.undurable_bytes += count;
            hand_over(turn, bytes);
        }
        ShardCounters::set(&self.counters().log_queued, self.undurable_bytes);
        // Once all of it is taken: what this puts into the log stands behind the snapshot's place.
        self.begin_snapshot();
    }

    /// The number of the last turn that was taken.
    pub(crate) fn last_turn(&self) -> u64 {
        self.last_turn
    }

    /// The log is durable up to the entries of this turn.
    pub fn logged(&mut self, now: Instant, turn: u64, offset: u64) {
        self.at(now);
        while let Some(done) = self.undurable.pop_front_if(|undurable| undurable.turn <= turn) {
            let Undurable { turn: number, tails, touched, bytes } = done;
            self.undurable_bytes -= bytes;
            // Where its entries begin is known of the whole batch alone.
            let end = if number == turn { offset } else { 0 };
            let partitions = tails.iter().map(|tail| tail.partition).chain(touched);
            self.snapshots.logged(number, end, partitions);
            for (at, &Tail { partition: id, life, lsn }) in tails.iter().enumerate() {
                if let Some(next) = tails.get(at + FETCHED_AHEAD)
                    && let Some(partition) = self.partitions.get(next.partition)
                {
                    partition.prefetch_for_write();
                }
                let Some(partition) = self.partitions.get_mut(id) else { continue };
                partition.on_durable(life, lsn, &mut self.outbox);
                if partition.is_primary() {
                    self.dirty.push(id);
                }
            }
        }
        self.settle();
    }

    /// Publishes this shard's figures.
    fn count(&mut self) {
        let mut sums = [0u64; 6];
        for partition in self.partitions.iter() {
            sums[2] += partition.table().bytes() as u64;
            if partition.is_primary() {
                sums[0] += partition.table().len() as u64;
                sums[1] += partition.table().volatile_len() as u64;
                sums[3] += 1;
                sums[5] += partition.tail().lsn.0;
            } else if partition.is_here() {
                sums[4] += 1;
            }
        }
        self.table_bytes = sums[2] as usize;
        let counters = self.counters();
        ShardCounters::set(&counters.keys, sums[0]);
        ShardCounters::set(&counters.expires, sums[1]);
        ShardCounters::set(&counters.table_bytes, sums[2]);
        ShardCounters::set(&counters.primaries, sums[3]);
        ShardCounters::set(&counters.backups, sums[4]);
        ShardCounters::set(&counters.last_lsn, sums[5]);
        let parked: usize = self.parked.values().map(VecDeque::len).sum();
        ShardCounters::set(
            &counters.waiting,
            (parked + self.crowd.count + self.forwards.len() + self.collectors.len()) as u64,
        );
        ShardCounters::set(&counters.crowded, self.crowd.count as u64);
        ShardCounters::set(&counters.uncommitted_bytes, self.outbox.log.uncommitted_bytes as u64);
        ShardCounters::set(&counters.ahead_bytes, self.outbox.ahead.values().sum::<usize>() as u64);
        ShardCounters::set(&counters.forward_bytes, self.forwards_ahead.values().sum::<usize>() as u64);
    }
}
