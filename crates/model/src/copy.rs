//! One copy of the partition, as the model holds it: the shipping machine, by what it was told.
//!
//! The machine of `replication` is neither cloned nor compared. A [`Copy`] is the list of the inputs that led to it, and a digest of
//! all that the machine holds then ([`digest`]). Its next step plays them again on a new machine and adds one. Two copies of
//! equal digests go on alike, so the outcome of a step is remembered by digest and input ([`Copies`]): most steps of a model were
//! taken before, in another order of what other nodes did.
//!
//! **Time** is the node's own, stands still but for [`Event::Tick`], and then passes for longer than the machine waits for anything
//! ([`TICK`]). So of any moment in the machine only that matters which [`digest`] keeps: how long ago it was, up to a tick.

use crate::digest::{Digest, digest, short};
use bytes::Bytes;
use placement::ClusterMap;
use replication::recovery::Recovery;
use replication::{
    Context, Durability, LogTurn, Message, Outbox, Partition, Release, Sender, Standing, Tail,
};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::effect::{Effect, effects};
use storage::log_entry::entries;
use storage::{Changes, Footprint, Hasher, Value};
use types::planted::Bug;
use types::settings::WriteLevel;
use types::{Epoch, Incarnation, Instant, Lsn, NodeId, PartitionId, Position, ShardId};

/// The only partition.
pub const PARTITION: PartitionId = PartitionId(0);
/// How long a tick takes: longer than anything that the machines wait for, but for the minute that a broken transfer is kept.
pub const TICK: Duration = Duration::from_secs(3);
/// The most ticks of a model: with more a broken transfer could be over, which the digest does not tell.
pub const TICKS_MAX: u8 = 16;
/// The clock of every node when it starts.
const START: Instant = Instant(1_000_000_000_000);
/// The cluster's time, which stands still.
const CLOCK_MS: u64 = 1000;

/// Numbers of writes, as bits.
pub type Writes = u8;

/// A map, with its digest.
#[derive(Clone, Debug)]
pub struct Map {
    /// The map.
    pub map: Arc<ClusterMap>,
    digest: u64,
}

impl Map {
    /// A map of which the digest is not known yet.
    pub fn new(map: ClusterMap) -> Map {
        let mut hasher = DefaultHasher::new();
        map.hash(&mut hasher);
        Map { map: Arc::new(map), digest: hasher.finish() }
    }

    /// The partition's configuration.
    pub fn state(&self) -> &placement::PartitionState {
        &self.map.partitions[0]
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Map {}

impl Hash for Map {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// A message on its way, with its digest.
#[derive(Clone)]
pub struct Wire {
    message: Arc<Message>,
    digest: u64,
}

impl Wire {
    fn new(message: Message) -> Wire {
        let digest = short(&format!("{message:?}"));
        Wire { message: Arc::new(message), digest }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.message.fmt(f)
    }
}

impl PartialEq for Wire {
    fn eq(&self, other: &Wire) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Wire {}

impl Hash for Wire {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// A client's request that waits for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// This write.
    Write(u8),
    /// A read of all keys.
    Read {
        /// What had been acknowledged or shown when it began.
        promised: Writes,
        /// What it saw.
        seen: Writes,
    },
}

/// What a copy is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It takes the map that the input names.
    Map,
    /// A message.
    Message(Sender, Wire),
    /// A client writes. It serves.
    Put(u8),
    /// A client reads all keys. It serves. With what was promised until then.
    Read(Writes),
    /// Time passes.
    Tick,
    /// What it has written is synced.
    Sync,
}

/// An event, with what else the copy knows then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// Whether its node holds a lease.
    pub leased: bool,
    /// The map that its node acts on.
    pub map: Map,
    /// What happens.
    pub event: Event,
}

/// Where a copy keeps its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disk {
    /// In memory alone.
    None,
    /// On a disk that syncs at once.
    Quick,
    /// On a disk that syncs later: [`Event::Sync`].
    Slow,
}

/// What the checks look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Whether it is the primary, by the map that it acts on.
    pub primary: bool,
    /// Whether it would serve with a lease, and without.
    pub serves: [bool; 2],
    /// Whether what it holds counts for nothing yet.
    pub incomplete: bool,
    /// The newest epoch that it knows.
    pub epoch: Epoch,
    /// What it calls committed.
    pub commit: Lsn,
    /// The records that it keeps, after this one.
    pub base: Position,
    /// These.
    pub log: Vec<Position>,
    /// The writes that it holds, in its log or in its table.
    pub holds: Writes,
    /// Whether something that it wrote is not synced.
    pub unsynced: bool,
}

/// What led to a copy.
enum Trail {
    Start { node: NodeId, bytes: Vec<u8> },
    Then(Arc<Trail>, Input),
}

/// One copy. Two of the same digest are the same.
pub struct Copy {
    trail: Arc<Trail>,
    digest: Digest,
    disk: Disk,
    /// What the checks look at.
    pub view: View,
    /// What a restart would find on the disk.
    kept: Vec<u8>,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.view.fmt(f)
    }
}

impl PartialEq for Copy {
    fn eq(&self, other: &Copy) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Copy {}

impl Hash for Copy {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// What came of a step.
pub struct Outcome {
    /// The copy after it.
    pub copy: Arc<Copy>,
    /// What it sends.
    pub sends: Vec<(NodeId, Wire)>,
    /// What it proposes.
    pub changes: Vec<replication::InSyncChange>,
    /// Whom it answers.
    pub answers: Vec<Waiter>,
}

/// A machine at work.
struct Live {
    partition: Partition<Waiter>,
    now: Instant,
    disk: Disk,
    written: Vec<u8>,
    synced: usize,
    tails: Vec<Tail>,
    answers: Vec<Waiter>,
    outbox: Outbox<Waiter>,
}

fn hasher() -> Hasher {
    Hasher::new(7)
}

fn key(write: u8) -> [u8; 2] {
    [b'k', write]
}

impl Live {
    fn start(node: NodeId, disk: Disk, bytes: &[u8]) -> Live {
        let durability = if disk == Disk::None { Durability::Memory } else { Durability::Disk };
        let mut partition = Partition::new(PARTITION, node, hasher(), durability);
        let mut first = LogTurn::default();
        if disk != Disk::None {
            let mut recovery = Recovery::default();
            for entry in entries(Bytes::copy_from_slice(bytes)) {
                let entry = entry.expect("what was synced is whole");
                partition.recover_entry(&mut recovery, entry, true).expect("and follows on itself");
            }
            partition.recovered(&recovery, &mut first).expect("and makes a copy");
        }
        let mut written = bytes.to_vec();
        written.extend_from_slice(&first.bytes.to_vec());
        let synced = written.len();
        let (tails, answers, outbox) = (Vec::new(), Vec::new(), Outbox::default());
        Live { partition, now: START, disk, written, synced, tails, answers, outbox }
    }

    fn play(trail: &Trail, disk: Disk) -> Live {
        let mut inputs = Vec::new();
        let mut trail = trail;
        let (node, bytes) = loop {
            match trail {
                Trail::Then(before, input) => {
                    inputs.push(input);
                    trail = before;
                }
                Trail::Start { node, bytes } => break (*node, bytes),
            }
        };
        let mut live = Live::start(node, disk, bytes);
        for input in inputs.into_iter().rev() {
            live.step(input);
            live.outbox = Outbox::default();
            live.answers.clear();
        }
        live
    }

    fn context(&self, leased: bool, map: &Map) -> Context {
        Context {
            now: self.now,
            lease_until: if leased { self.now + Duration::from_secs(1) } else { Instant(0) },
            clock_ms: Some(CLOCK_MS),
            map: map.map.clone(),
            snapshots_free: 8,
            chunk_bytes: replication::CHUNK_BYTES,
            evict: Duration::from_secs(2),
            ahead_bytes_max: 16 << 20,
        }
    }

    fn step(&mut self, input: &Input) {
        if input.event == Event::Tick {
            self.now = self.now + TICK;
        }
        let context = self.context(input.leased, &input.map);
        match &input.event {
            Event::Map => {
                if self.partition.is_news(input.map.state()) {
                    self.partition.on_map(&context, input.map.state(), &mut self.outbox);
                }
            }
            Event::Message(from, wire) => {
                let message = Message::clone(&wire.message);
                self.partition.on_message(&context, *from, message, &mut self.outbox);
            }
            Event::Put(write) => self.put(&context, *write),
            Event::Read(promised) => self.read(&context, *promised),
            Event::Tick => self.partition.tick(&context, &mut self.outbox),
            Event::Sync => self.sync(),
        }
        self.partition.flush(&context, &mut self.outbox);
        self.written.extend(std::mem::take(&mut self.outbox.log.bytes).to_vec());
        self.tails.append(&mut self.outbox.log.tails);
        if self.disk == Disk::Quick {
            self.sync();
            self.partition.flush(&context, &mut self.outbox);
            self.written.extend(std::mem::take(&mut self.outbox.log.bytes).to_vec());
            self.synced = self.written.len();
        }
        for (waiter, release) in self.outbox.released.drain(..) {
            if release == Release::Committed {
                self.answers.push(waiter);
            }
        }
    }

    fn sync(&mut self) {
        self.synced = self.written.len();
        for tail in std::mem::take(&mut self.tails) {
            self.partition.on_durable(tail.life, tail.lsn, &mut self.outbox);
        }
    }

    fn put(&mut self, context: &Context, write: u8) {
        let (footprint, mut changes) = (Footprint::default(), Changes::default());
        self.partition.begin(context, &mut changes, &footprint).put(
            &key(write),
            Value::String(&[write]),
            None,
        );
        let ran = self.partition.finish(context, &mut changes, &footprint, None, &mut self.outbox.log);
        self.answer_after(ran.wait, Waiter::Write(write));
    }

    fn read(&mut self, context: &Context, promised: Writes) {
        let (footprint, mut changes) = (Footprint::default(), Changes::default());
        let mut keyspace = self.partition.begin(context, &mut changes, &footprint);
        let mut seen = 0;
        for write in 0..8 {
            seen |= Writes::from(keyspace.get(&key(write)).is_some()) << write;
        }
        let ran = self.partition.finish(context, &mut changes, &footprint, None, &mut self.outbox.log);
        self.answer_after(ran.wait, Waiter::Read { promised, seen });
    }

    /// As `node::Shard` does: what waits for nothing is answered at once.
    fn answer_after(&mut self, wait: Lsn, waiter: Waiter) {
        if wait == Lsn(0) {
            self.answers.push(waiter);
        } else {
            self.partition.wait(wait, WriteLevel::All, waiter);
        }
    }

    fn view(&self) -> View {
        let partition = &self.partition;
        // Of a context only the lease and whether there is a time count for the standing.
        let map = Map { map: Arc::default(), digest: 0 };
        let serves =
            [true, false].map(|leased| partition.standing(&self.context(leased, &map)) == Standing::Serving);
        let log = partition.log();
        let (base, mut holds) = (log.base(), 0);
        let table = partition.table();
        for write in 0..8 {
            let hash = table.hasher().hash(&key(write));
            holds |= Writes::from(table.get(hash, &key(write)).is_some()) << write;
        }
        let mut positions = Vec::new();
        for record in log.range(base.lsn.next(), log.last().lsn) {
            positions.push(record.position);
            for effect in effects(&record.body).flatten() {
                if let Effect::Put { key: [b'k', write], .. } = effect {
                    holds |= 1 << write;
                }
            }
        }
        View {
            primary: partition.is_primary(),
            serves,
            incomplete: partition.is_incomplete(),
            epoch: partition.epoch(),
            commit: partition.commit(),
            base,
            log: positions,
            holds,
            unsynced: self.synced < self.written.len() || !self.tails.is_empty(),
        }
    }

    fn digest(&self) -> Digest {
        let mut text = format!("{:?}", self.partition);
        // The table shows no more of itself than its size.
        self.partition.table().scan(0, 1000, &mut |entry| {
            text.push_str(&format!("{:?} {:?}", entry.key, entry.version));
        });
        let tails = &self.tails;
        text.push_str(&format!("{:?} {} {tails:?}", self.written, self.synced));
        digest(&text, self.now, TICK)
    }

    fn copy(&self, trail: Trail) -> Arc<Copy> {
        Arc::new(Copy {
            trail: Arc::new(trail),
            digest: self.digest(),
            disk: self.disk,
            view: self.view(),
            kept: self.written[..self.synced].to_vec(),
        })
    }
}

impl Copy {
    /// A first start, with nothing.
    pub fn new(node: NodeId, disk: Disk) -> Arc<Copy> {
        Live::start(node, disk, &[]).copy(Trail::Start { node, bytes: Vec::new() })
    }

    /// Another start on the same disk.
    pub fn restarted(&self, node: NodeId) -> Arc<Copy> {
        let bytes = if self.disk == Disk::None { Vec::new() } else { self.kept.clone() };
        let live = Live::start(node, self.disk, &bytes);
        live.copy(Trail::Start { node, bytes })
    }
}

/// The messages' sender.
pub fn sender(node: NodeId, incarnation: Incarnation) -> Sender {
    Sender { node, incarnation, shard: ShardId(0) }
}

const PARTS: usize = 16;

/// An outcome; none where an assertion of the machine failed.
type Remembered = Option<Arc<Outcome>>;

/// Steps that were taken before.
#[derive(Default)]
pub struct Copies {
    parts: [Mutex<HashMap<(Digest, Input), Remembered>>; PARTS],
}

impl Copies {
    /// One step of a copy. None: an assertion of the machine failed.
    pub fn step(&self, copy: &Copy, input: Input, bug: Option<Bug>) -> Remembered {
        let part = &self.parts[(copy.digest.0 as usize) % PARTS];
        let key = (copy.digest, input);
        if let Some(known) = part.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        plant(bug);
        let outcome = catch_unwind(AssertUnwindSafe(|| take(copy, &key.1))).ok();
        plant(None);
        part.lock().unwrap_or_else(PoisonError::into_inner).insert(key, outcome.clone());
        outcome
    }

    /// How many different steps were taken.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn take(copy: &Copy, input: &Input) -> Arc<Outcome> {
    let mut live = Live::play(&copy.trail, copy.disk);
    live.step(input);
    let sends = std::mem::take(&mut live.outbox.messages);
    Arc::new(Outcome {
        copy: live.copy(Trail::Then(copy.trail.clone(), input.clone())),
        sends: sends.into_iter().map(|(to, _, message)| (to, Wire::new(message))).collect(),
        changes: std::mem::take(&mut live.outbox.changes),
        answers: std::mem::take(&mut live.answers),
    })
}

/// Plants a bug in this thread. Without the feature there is none to plant.
#[cfg(feature = "planted")]
pub(crate) fn plant(bug: Option<Bug>) {
    types::planted::plant(bug);
}

#[cfg(not(feature = "planted"))]
pub(crate) fn plant(_: Option<Bug>) {}
