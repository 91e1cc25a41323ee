//! Clients of a steady rate that check every read. Each has keys of its own and knows of each key how often it wrote it: a value
//! tells its number, so a read shows whether anything acknowledged, or seen before, is gone.
//!
//! A client that repeats writes by itself would hide errors, and might write an old value late. So the cluster-aware ones here do by
//! hand what such a client does: they keep a table of partitions, and follow MOVED. A key whose write has an unknown outcome is
//! written no more.

use super::door::Door;
use crate::cluster::Cluster;
use crate::kill::REPLY_TIMEOUT;
use crate::load::{Fate, fate_of_error, plain_text};
use crate::status::{self, connect};
use history::random::Random;
use redis::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use types::slot::{Slot, partition_of_slot, slot_of_key};

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 64;
/// Keys written or read in one go, before and after the load.
const BATCH: usize = 500;
/// One request in so many is a write.
const WRITE_EVERY: u64 = 2;
/// After a broken connection.
const BREATH: Duration = Duration::from_millis(5);

/// What one client, or all, saw in one step.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub reads_us: Vec<u32>,
    pub writes_us: Vec<u32>,
    /// Requests whose outcome nobody knows.
    pub unknown: u64,
    /// All other errors.
    pub errors: u64,
    /// Reads that showed less than was acknowledged or seen before.
    pub back: u64,
    pub texts: BTreeMap<String, u64>,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Seen) {
        self.reads_us.extend(&other.reads_us);
        self.writes_us.extend(&other.writes_us);
        self.unknown += other.unknown;
        self.errors += other.errors;
        self.back += other.back;
        for (text, count) in &other.texts {
            *self.texts.entry(text.clone()).or_default() += count;
        }
    }
}

/// What a client knows of a key.
#[derive(Clone, Copy, Default)]
struct Key {
    sent: u32,
    acknowledged: u32,
    /// The newest that a read showed.
    shown: u32,
    given_up: bool,
}

/// What a client was told, at its end.
pub(super) struct Told {
    client: u16,
    keys: Vec<Key>,
    /// By step.
    pub seen: Vec<Seen>,
    pub acknowledged: u64,
}

/// What clients are told of the run.
pub(super) struct Shared {
    stop: AtomicBool,
    /// The step that goes on.
    pub step: AtomicUsize,
    steps: usize,
    filled: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// Running clients.
pub(super) struct Clients {
    pub shared: Arc<Shared>,
    threads: Vec<JoinHandle<Told>>,
}

/// How many, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    pub plain: u16,
    pub cluster: u16,
    /// Of all.
    pub per_s: u32,
    pub keys: usize,
}

fn key_name(client: u16, number: usize) -> String {
    format!("s:{client}:{number}")
}

fn value_of(client: u16, number: usize, count: u32) -> String {
    let text = format!("{count}:{client}:{number}:");
    format!("{text:x<VALUE_BYTES$}")
}

/// The number that a value of this key tells; none where it is no such value.
fn count_in(client: u16, number: usize, value: &[u8]) -> Option<u32> {
    let count = std::str::from_utf8(value).ok()?.split(':').next()?.parse().ok()?;
    (value_of(client, number, count).as_bytes() == value).then_some(count)
}

impl Clients {
    /// Starts them, and returns once every key is written.
    pub(super) fn start(
        cluster: &Cluster,
        rate: Rate,
        steps: usize,
        seed: u64,
    ) -> Result<Clients, crate::failure::Failure> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            step: AtomicUsize::new(0),
            steps,
            filled: AtomicU64::new(0),
            faults: Mutex::new(Vec::new()),
        });
        let count = rate.plain + rate.cluster;
        let plain_ports: Vec<u16> = cluster.ids().map(|id| cluster.plain_port(id)).collect();
        let holders = cluster.holders(1)?;
        let owners: Vec<u16> = holders.iter().map(|holders| cluster.cluster_port(holders[0])).collect();
        let mut threads = Vec::new();
        for number in 0..count {
            let home = usize::from(number) % plain_ports.len();
            let client = Client {
                told: Told {
                    client: number,
                    keys: vec![Key::default(); rate.keys / usize::from(count)],
                    seen: vec![Seen::default(); steps],
                    acknowledged: 0,
                },
                doors: plain_ports.clone(),
                home,
                owners: (number >= rate.plain).then(|| owners.clone()),
                connections: BTreeMap::new(),
                shared: shared.clone(),
            };
            let period = Duration::from_secs_f64(f64::from(count) / f64::from(rate.per_s));
            let random = Random::new(seed.wrapping_add(u64::from(number) << 32));
            threads.push(std::thread::spawn(move || client.run(period, random)));
        }
        let clients = Clients { shared, threads };
        while clients.shared.filled.load(Ordering::Relaxed) < u64::from(count) {
            if clients.threads.iter().any(JoinHandle::is_finished) {
                return Err("a client ended before its keys were written".into());
            }
            std::thread::sleep(BREATH);
        }
        Ok(clients)
    }

    /// Ends them. What they were told, and what they say is wrong.
    pub(super) fn stop(self) -> (Vec<Told>, Vec<String>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let told = self.threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
        let faults = std::mem::take(&mut *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner));
        (told, faults)
    }
}

/// Reads every key back through a port. How many show less than was acknowledged.
pub(super) fn lost(port: u16, told: &[Told]) -> Result<u64, crate::failure::Failure> {
    let mut connection = connect(port, REPLY_TIMEOUT)?;
    let mut lost = 0;
    for one in told {
        for (batch, keys) in one.keys.chunks(BATCH).enumerate() {
            let first = batch * BATCH;
            let mut pipe = redis::pipe();
            for number in first..first + keys.len() {
                pipe.cmd("GET").arg(key_name(one.client, number));
            }
            let values: Vec<Option<Vec<u8>>> = pipe.query(&mut connection)?;
            for ((number, key), value) in (first..).zip(keys).zip(values) {
                let count = value.and_then(|value| count_in(one.client, number, &value));
                lost += u64::from(!count.is_some_and(|count| (key.acknowledged..=key.sent).contains(&count)));
            }
        }
    }
    Ok(lost)
}

enum Answer {
    Reply(Value),
    /// A reply that is an error, and what became of the request.
    Error(Fate, String),
    /// Nobody could be asked: nothing was sent.
    Unsent(String),
}

struct Client {
    told: Told,
    /// The nodes' plain ports.
    doors: Vec<u16>,
    home: usize,
    /// By partition the port of its primary, where the client is cluster-aware.
    owners: Option<Vec<u16>>,
    /// By port.
    connections: BTreeMap<u16, Door>,
    shared: Arc<Shared>,
}

impl Client {
    fn run(mut self, period: Duration, mut random: Random) -> Told {
        if let Err(failure) = self.fill() {
            self.fault(format!("filling: {failure}"));
            return self.told;
        }
        self.shared.filled.fetch_add(1, Ordering::Relaxed);
        let mut due = Instant::now() + Duration::from_nanos(random.below(period.as_nanos() as u64));
        let mut free = due;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < due {
                std::thread::sleep(due - now);
            }
            // A request that had to wait for the one before has waited since it was due.
            let sent = if free > due { due } else { Instant::now() };
            let number = random.below(self.told.keys.len() as u64) as usize;
            let write = random.below(WRITE_EVERY) == 0 && !self.told.keys[number].given_up;
            if write {
                self.write(number)
            } else {
                self.read(number)
            };
            free = Instant::now();
            let took_us = free.duration_since(sent).as_micros() as u32;
            let seen = self.seen();
            if write {
                seen.writes_us.push(took_us)
            } else {
                seen.reads_us.push(took_us)
            };
            due += period;
        }
        self.told
    }

    fn fault(&self, text: String) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn fill(&mut self) -> Result<(), crate::failure::Failure> {
        let client = self.told.client;
        let mut connection = connect(self.doors[self.home], REPLY_TIMEOUT)?;
        for (batch, keys) in self.told.keys.chunks_mut(BATCH).enumerate() {
            let mut pipe = redis::pipe();
            for number in batch * BATCH..batch * BATCH + keys.len() {
                pipe.cmd("SET").arg(key_name(client, number)).arg(value_of(client, number, 1));
            }
            let _: Vec<Value> = pipe.query(&mut connection)?;
            keys.fill(Key { sent: 1, acknowledged: 1, ..Key::default() });
            self.told.acknowledged += keys.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, number: usize) {
        let client = self.told.client;
        let key = &mut self.told.keys[number];
        key.sent += 1;
        let count = key.sent;
        let answer = self.ask(number, &["SET", &key_name(client, number), &value_of(client, number, count)]);
        let key = &mut self.told.keys[number];
        match answer {
            Answer::Reply(Value::Okay) => {
                key.acknowledged = count;
                self.told.acknowledged += 1;
            }
            other => {
                key.given_up = true;
                self.trouble(other);
            }
        }
    }

    fn read(&mut self, number: usize) {
        let client = self.told.client;
        match self.ask(number, &["GET", &key_name(client, number)]) {
            Answer::Reply(Value::BulkString(value)) => {
                let key = &mut self.told.keys[number];
                let least = key.acknowledged.max(key.shown);
                match count_in(client, number, &value) {
                    Some(count) if (least..=key.sent).contains(&count) => key.shown = count,
                    other => {
                        let sent = key.sent;
                        self.seen().back += 1;
                        self.fault(format!(
                            "{} shows {other:?}, not {least} to {sent}",
                            key_name(client, number)
                        ));
                    }
                }
            }
            Answer::Reply(Value::Nil) => {
                self.seen().back += 1;
                self.fault(format!("{} shows nothing", key_name(client, number)));
            }
            other => self.trouble(other),
        }
    }

    /// Where it is noted what becomes of a request: with the step in which it ends, since that is what has held it up or broken it off.
    fn seen(&mut self) -> &mut Seen {
        let step = self.shared.step.load(Ordering::Relaxed).min(self.shared.steps - 1);
        &mut self.told.seen[step]
    }

    fn trouble(&mut self, answer: Answer) {
        let kind = if self.owners.is_some() { "cluster-aware" } else { "plain" };
        let seen = self.seen();
        let text = match answer {
            Answer::Reply(other) => {
                seen.errors += 1;
                format!("a reply that makes no sense: {other:?}")
            }
            Answer::Error(Fate::Unknown, text) => {
                seen.unknown += 1;
                text
            }
            Answer::Error(_, text) | Answer::Unsent(text) => {
                seen.errors += 1;
                text
            }
        };
        *seen.texts.entry(format!("{kind}: {}", plain_text(&text))).or_default() += 1;
    }

    /// One request, sent where it belongs.
    fn ask(&mut self, number: usize, words: &[&str]) -> Answer {
        let slot = slot_of_key(key_name(self.told.client, number).as_bytes());
        let began = Instant::now();
        while began.elapsed() < REPLY_TIMEOUT {
            let port = self.port_for(slot);
            if self.connections.get(&port).is_some_and(Door::is_ended) {
                self.connections.remove(&port);
                self.go_on(port);
                continue;
            }
            let door = match self.connections.entry(port) {
                std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => match Door::open(port, REPLY_TIMEOUT) {
                    Ok(opened) => place.insert(opened),
                    // As every client does: where one node cannot be reached another is asked.
                    Err(error) => {
                        self.go_on(port);
                        std::thread::sleep(BREATH);
                        if self.shared.stop.load(Ordering::Relaxed) {
                            return Answer::Unsent(format!("connecting: {error}"));
                        }
                        continue;
                    }
                },
            };
            match door.ask(words) {
                Ok(Value::ServerError(error)) if error.code() == "MOVED" && self.owners.is_some() => {
                    let target = error.details().and_then(|text| text.rsplit(':').next()?.parse().ok());
                    let Some(target) = target else {
                        return Answer::Error(Fate::Refused, "MOVED to nowhere".to_owned());
                    };
                    self.learn(slot, target);
                }
                Ok(Value::ServerError(error)) => {
                    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
                    return Answer::Error(fate_of_error(error.code()), text);
                }
                Ok(reply) => return Answer::Reply(reply),
                Err(error) => {
                    self.connections.remove(&port);
                    self.go_on(port);
                    return Answer::Error(Fate::Unknown, error.to_string());
                }
            }
        }
        Answer::Unsent("nobody to send it to, in all the time that a reply may take".to_owned())
    }

    fn port_for(&self, slot: Slot) -> u16 {
        if let Some(owners) = &self.owners {
            return owners[usize::from(partition_of_slot(slot, owners.len() as u16).0)];
        }
        self.doors[self.home]
    }

    fn learn(&mut self, slot: Slot, port: u16) {
        if let Some(owners) = &mut self.owners {
            let partition = partition_of_slot(slot, owners.len() as u16).0;
            owners[usize::from(partition)] = port;
        }
    }

    /// A node does not answer: plain clients go to the next, cluster-aware ones ask another who owns what.
    fn go_on(&mut self, dead: u16) {
        let Some(owners) = &mut self.owners else {
            self.home = (self.home + 1) % self.doors.len();
            return;
        };
        let step = crate::cluster::PORT_STEP;
        for door in &self.doors {
            if door + step == dead {
                continue;
            }
            if let Ok(mut connection) = connect(*door, Duration::from_secs(2)) {
                let same = (1..=u16::MAX).map(|port| (port, port)).collect();
                if let Ok(holders) = status::holders(&mut connection, owners.len() as u16, &same) {
                    *owners = holders.iter().map(|holders| holders[0]).collect();
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_number_and_belongs_to_one_key() {
        let value = value_of(2, 31, 7);
        assert_eq!(value.len(), VALUE_BYTES);
        assert_eq!(count_in(2, 31, value.as_bytes()), Some(7));
        assert_eq!(count_in(2, 3, value.as_bytes()), None);
    }
}
