//! Clients that write at full speed and remember what they were told.
//!
//! A writer sets keys that nobody else writes, numbered from 0, each to a value that tells it from all others, and increments
//! counters that all share. Every write ends in one of three [`Fate`]s; a reply that never came is none of the others, so its
//! fate is unknown. [`crate::verify`] holds these journals against the data.
//!
//! The clients are those of the `redis` crate, used as an application would: a plain one connects to one node and goes to the
//! next when its connection breaks; a cluster-aware one follows the cluster's slots. The latter repeats writes by itself, so it
//! increments no counters: a repeated SET of the same value does no harm, a repeated INCR counts twice.

use crate::cluster::Cluster;
use crate::status::connect;
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a unique value.
const VALUE_BYTES: usize = 64;
/// Writes in one pipeline of those writers that use them.
const PIPELINE: usize = 16;
/// How many counters there are.
pub(crate) const COUNTERS: u16 = 64;
/// One write in so many is an increment.
const INCREMENT_EVERY: u64 = 4;
/// After an error: long enough not to spin, short against an outage.
const BREATH: Duration = Duration::from_millis(5);
/// No more errors than this are remembered.
const TROUBLES_MAX: usize = 100_000;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The cluster said that it is done.
    Acknowledged,
    /// The connection broke, or the reply says that nobody knows.
    Unknown,
    /// The reply says that nothing was done.
    Refused,
}

/// Where a client was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The plain port of a node.
    Plain(u16),
    /// The ports for cluster-aware clients, of whichever node.
    Cluster,
}

/// An error that a client saw.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub at: Instant,
    pub door: Door,
    pub text: String,
}

/// Everything that one writer did.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub writer: u16,
    /// By number of the unique key.
    pub fates: Vec<Fate>,
    /// Counter and the value it was said to have, for each acknowledged increment.
    pub counted: Vec<(u16, i64)>,
    /// Increments with unknown outcome, by counter.
    pub perhaps_counted: BTreeMap<u16, u64>,
}

/// The name of a unique key.
pub(crate) fn unique_key(writer: u16, number: usize) -> String {
    format!("u:{writer}:{number}")
}

/// The value of a unique key.
pub(crate) fn unique_value(writer: u16, number: usize) -> String {
    let name = format!("{writer}:{number}:");
    format!("{name:x<VALUE_BYTES$}")
}

/// The name of a counter.
pub(crate) fn counter_key(counter: u16) -> String {
    format!("c:{counter}")
}

/// The fate that an error reply tells of, by its first word.
pub(crate) fn fate_of_error(code: &str) -> Fate {
    match code {
        "TRYAGAIN" | "CLUSTERDOWN" | "NOREPLICAS" | "LOADING" | "MOVED" | "ASK" | "OOM" | "READONLY"
        | "MISCONF" => Fate::Refused,
        _ => Fate::Unknown,
    }
}

/// An error's text without its numbers, so that the same trouble has one name.
pub(crate) fn plain_text(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars().take(200) {
        match letter {
            '0'..='9' if plain.ends_with('#') => {}
            '0'..='9' => plain.push('#'),
            '\r' | '\n' => {}
            _ => plain.push(letter),
        }
    }
    plain
}

/// How much of which load.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    /// Writers on plain ports.
    pub plain: u16,
    /// Cluster-aware writers.
    pub cluster: u16,
    /// A node that plain writers do not connect to.
    pub avoid: Option<u16>,
    /// How long a client waits for a reply.
    pub reply_timeout: Duration,
}

/// What the writers share.
struct Shared {
    stop: AtomicBool,
    /// Grows when plain writers are to go back to the node that they started with.
    homings: AtomicU64,
    acknowledged: AtomicU64,
    troubles: Mutex<Vec<Trouble>>,
    spec: Spec,
}

impl Shared {
    fn trouble(&self, door: Door, text: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() < TROUBLES_MAX {
            troubles.push(Trouble { at: Instant::now(), door, text: plain_text(text) });
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Running writers.
pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Journal>>,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster, spec: Spec) -> Load {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            homings: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            troubles: Mutex::new(Vec::new()),
            spec,
        });
        let doors: Vec<(u16, u16)> = cluster
            .ids()
            .filter(|id| Some(*id) != spec.avoid)
            .map(|id| (id, cluster.plain_port(id)))
            .collect();
        let seeds: Vec<String> =
            cluster.ids().map(|id| format!("redis://127.0.0.1:{}", cluster.cluster_port(id))).collect();
        let mut writers = Vec::new();
        for writer in 0..spec.plain {
            let (shared, doors) = (shared.clone(), doors.clone());
            writers.push(std::thread::spawn(move || Plain::new(writer, doors, shared).run()));
        }
        for writer in spec.plain..spec.plain + spec.cluster {
            let (shared, seeds) = (shared.clone(), seeds.clone());
            writers.push(std::thread::spawn(move || run_cluster(writer, &seeds, &shared)));
        }
        Load { shared, writers }
    }

    /// Has every plain writer go back to the node that it started with.
    pub(crate) fn home(&self) {
        self.shared.homings.fetch_add(1, Ordering::Relaxed);
    }

    /// How many writes were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The errors from a moment on, counted by text: those of clients for whose door `wanted` holds.
    pub(crate) fn troubles(&self, from: Instant, wanted: impl Fn(Door) -> bool) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let troubles = self.shared.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        for trouble in troubles.iter().filter(|trouble| trouble.at >= from && wanted(trouble.door)) {
            *counts.entry(trouble.text.clone()).or_default() += 1;
        }
        counts
    }

    /// Ends the writers and returns what they did.
    pub(crate) fn stop(self) -> Vec<Journal> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.writers.into_iter().filter_map(|writer| writer.join().ok()).collect()
    }
}

#[derive(Clone, Copy)]
enum Write {
    Unique(usize),
    Increment(u16),
}

/// A writer on plain ports.
struct Plain {
    journal: Journal,
    /// Node ids and ports.
    doors: Vec<(u16, u16)>,
    /// The door it starts with, and the one it is at.
    home: usize,
    at: usize,
    batch: usize,
    writes: u64,
    shared: Arc<Shared>,
}

impl Plain {
    fn new(writer: u16, doors: Vec<(u16, u16)>, shared: Arc<Shared>) -> Plain {
        let home = usize::from(writer) % doors.len();
        // Each door gets clients of both kinds.
        let pipelines = (usize::from(writer) / doors.len()) % 2 == 1;
        let batch = if pipelines { PIPELINE } else { 1 };
        let journal = Journal { writer, ..Journal::default() };
        Plain { journal, doors, home, at: home, batch, writes: 0, shared }
    }

    fn run(mut self) -> Journal {
        let mut connection: Option<Connection> = None;
        let mut homings = 0;
        while !self.shared.stopped() {
            let wanted = self.shared.homings.load(Ordering::Relaxed);
            if wanted != homings {
                (homings, self.at, connection) = (wanted, self.home, None);
            }
            let door = Door::Plain(self.doors[self.at].0);
            let open = match &mut connection {
                Some(open) => open,
                None => match connect(self.doors[self.at].1, self.shared.spec.reply_timeout) {
                    Ok(opened) => connection.insert(opened),
                    Err(error) => {
                        self.shared.trouble(door, &format!("connecting: {error}"));
                        self.at = (self.at + 1) % self.doors.len();
                        std::thread::sleep(BREATH);
                        continue;
                    }
                },
            };
            let writes: Vec<Write> = (0..self.batch).map(|_| self.next()).collect();
            match send(open, self.journal.writer, &writes) {
                Ok(replies) => {
                    for (write, reply) in writes.iter().zip(&replies) {
                        self.note(*write, reply, door);
                    }
                }
                Err(error) => {
                    self.shared.trouble(door, &error.to_string());
                    for write in writes {
                        self.settle(write, Fate::Unknown, None);
                    }
                    connection = None;
                    self.at = (self.at + 1) % self.doors.len();
                    std::thread::sleep(BREATH);
                }
            }
        }
        self.journal
    }

    fn next(&mut self) -> Write {
        self.writes += 1;
        if self.writes.is_multiple_of(INCREMENT_EVERY) {
            return Write::Increment((self.writes / INCREMENT_EVERY % u64::from(COUNTERS)) as u16);
        }
        self.journal.fates.push(Fate::Unknown);
        Write::Unique(self.journal.fates.len() - 1)
    }

    fn note(&mut self, write: Write, reply: &Value, door: Door) {
        match (write, reply) {
            (Write::Unique(_), Value::Okay) => self.settle(write, Fate::Acknowledged, None),
            (Write::Increment(_), Value::Int(value)) => {
                self.settle(write, Fate::Acknowledged, Some(*value));
            }
            (_, Value::ServerError(error)) => {
                let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
                self.shared.trouble(door, &text);
                self.settle(write, fate_of_error(error.code()), None);
            }
            (_, other) => {
                self.shared.trouble(door, &format!("a reply that makes no sense: {other:?}"));
                self.settle(write, Fate::Unknown, None);
            }
        }
    }

    fn settle(&mut self, write: Write, fate: Fate, value: Option<i64>) {
        if fate == Fate::Acknowledged {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        match (write, fate) {
            (Write::Unique(number), fate) => self.journal.fates[number] = fate,
            (Write::Increment(counter), Fate::Acknowledged) => {
                self.journal.counted.push((counter, value.unwrap_or_default()));
            }
            (Write::Increment(counter), Fate::Unknown) => {
                *self.journal.perhaps_counted.entry(counter).or_default() += 1;
            }
            (Write::Increment(_), Fate::Refused) => {}
        }
    }
}

/// All in one pipeline. A reply each, which may be an error.
fn send(connection: &mut Connection, writer: u16, writes: &[Write]) -> redis::RedisResult<Vec<Value>> {
    let mut pipe = redis::pipe();
    pipe.ignore_errors();
    for write in writes {
        match write {
            Write::Unique(number) => {
                pipe.cmd("SET").arg(unique_key(writer, *number)).arg(unique_value(writer, *number))
            }
            Write::Increment(counter) => pipe.cmd("INCR").arg(counter_key(*counter)),
        };
    }
    pipe.query(connection)
}

fn run_cluster(writer: u16, seeds: &[String], shared: &Shared) -> Journal {
    let mut journal = Journal { writer, ..Journal::default() };
    let mut connection: Option<ClusterConnection> = None;
    while !shared.stopped() {
        let open = match &mut connection {
            Some(open) => open,
            None => match connect_cluster(seeds, shared.spec.reply_timeout) {
                Ok(opened) => connection.insert(opened),
                Err(error) => {
                    shared.trouble(Door::Cluster, &format!("connecting: {error}"));
                    std::thread::sleep(BREATH);
                    continue;
                }
            },
        };
        let number = journal.fates.len();
        let (key, value) = (unique_key(writer, number), unique_value(writer, number));
        journal.fates.push(match redis::cmd("SET").arg(key).arg(value).query::<Value>(open) {
            Ok(Value::Okay) => {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Fate::Acknowledged
            }
            Ok(other) => {
                shared.trouble(Door::Cluster, &format!("a reply that makes no sense: {other:?}"));
                Fate::Unknown
            }
            // The client may have sent it several times: an error tells of the last time only.
            Err(error) => {
                shared.trouble(Door::Cluster, &error.to_string());
                if error.is_unrecoverable_error() {
                    connection = None;
                }
                std::thread::sleep(BREATH);
                Fate::Unknown
            }
        });
    }
    journal
}

fn connect_cluster(seeds: &[String], reply_timeout: Duration) -> redis::RedisResult<ClusterConnection> {
    ClusterClient::builder(seeds.iter().map(String::as_str))
        .connection_timeout(Duration::from_secs(1))
        .response_timeout(reply_timeout)
        .min_retry_wait(5)
        .max_retry_wait(100)
        .build()?
        .get_connection()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_keys_apart_and_have_one_length() {
        assert_eq!(unique_value(3, 141).len(), VALUE_BYTES);
        assert!(unique_value(3, 141).starts_with("3:141:xx"));
        assert_ne!(unique_value(1, 11), unique_value(11, 1));
    }

    #[test]
    fn the_same_trouble_has_one_name() {
        assert_eq!(plain_text("MOVED 3999 127.0.0.1:7102\r\n"), "MOVED # #.#.#.#:#");
    }

    #[test]
    fn only_what_says_that_nothing_was_done_is_refused() {
        assert_eq!(fate_of_error("CLUSTERDOWN"), Fate::Refused);
        assert_eq!(fate_of_error("UNKNOWN"), Fate::Unknown);
        assert_eq!(fate_of_error("ERR"), Fate::Unknown);
    }
}
