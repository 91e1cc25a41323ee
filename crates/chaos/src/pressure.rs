//! `chaos pressure`: some clients ask for more than a cluster can do at once, and others, who ask for little, are watched: they
//! have to be served, and no node may keep more and more memory for the first.
//!
//! One after another: nothing; writes at full speed while a backup stops again and again; a client that writes 100 MB values; a client
//! that sends a million requests and reads nothing. Where a node is stopped, requests for its partitions wait as long, so
//! those of partitions that it does not hold are shown apart.

use crate::Common;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::report::{Report, counted};
use crate::status::{Holders, connect};
use clap::Args;
use history::random::Random;
use redis::{Connection, RedisError};
use rustix::process::Signal;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use types::slot::partition_of_key;

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys of the clients that ask for little.
const LIGHT_KEYS: u64 = 4096;
/// Connections that write at full speed, and their values: so many in one pipeline, and so many keys.
const WRITERS: u16 = 8;
const VALUE_BYTES: usize = 64 * 1024;
const PIPELINE: usize = 64;
const HEAVY_KEYS: u64 = 512;
/// A stopped node stands still and runs for so long in turn: shorter than the grace.
const STOPPED: Duration = Duration::from_millis(150);
const RUNNING: Duration = Duration::from_millis(50);
/// Keys of large values.
const LARGE_KEYS: u64 = 3;
/// Requests that nobody reads the replies of.
const UNREAD: usize = 1_000_000;

/// What `chaos pressure` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// How long each stage takes.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// The size of a large value, in MB.
    #[arg(long, default_value_t = 100)]
    large_mb: usize,
    /// A bound on each node's resident memory, in MiB: beyond it a promise is broken. 0: none.
    #[arg(long, default_value_t = 0)]
    resident_max: u64,
}

/// What clients that asked for little saw in one stage.
#[derive(Debug, Default, Serialize)]
struct Stage {
    name: &'static str,
    /// Requests of partitions that the stopped node does not hold; where none is stopped, all.
    away: Times,
    /// All others.
    at_stopped: Times,
    errors: BTreeMap<String, u64>,
    /// What the demanding clients got done: requests, MiB.
    heavy: u64,
    heavy_mib: u64,
    heavy_errors: BTreeMap<String, u64>,
    /// The most resident memory of each node, in MiB.
    resident_mib: Vec<u64>,
    /// Failovers and copies that left in the meantime: versions of the map.
    versions: u64,
}

#[derive(Debug, Default, Serialize)]
struct Times {
    requests: u64,
    p50_us: u64,
    p99_us: u64,
    longest_us: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    slow: u16,
    stages: Vec<Stage>,
}

/// What the threads of a stage write down.
#[derive(Default)]
struct Notes {
    /// Whether it was away from the stopped node, and microseconds.
    times: Mutex<Vec<(bool, u64)>>,
    errors: Mutex<BTreeMap<String, u64>>,
    heavy: AtomicU64,
    heavy_bytes: AtomicU64,
    heavy_errors: Mutex<BTreeMap<String, u64>>,
    stop: AtomicBool,
}

fn count(errors: &Mutex<BTreeMap<String, u64>>, error: &RedisError) {
    *errors.lock().unwrap_or_else(PoisonError::into_inner).entry(error.to_string()).or_default() += 1;
}

impl Notes {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn did(&self, requests: usize, bytes: usize) {
        self.heavy.fetch_add(requests as u64, Ordering::Relaxed);
        self.heavy_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What a stage does beside the clients that ask for little.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pressure {
    None,
    SlowBackup,
    Large,
    Unread,
}

struct Run<'a> {
    cluster: &'a Cluster,
    holders: &'a [Holders],
    partitions: u16,
    slow: u16,
    flags: &'a Flags,
    seed: u64,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    let seed = common.seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let cluster = Cluster::start(common.shape()?, &mut random)?;
    let ids: Vec<u16> = cluster.ids().collect();
    let (slow, partitions) = (random.pick(&ids), common.partitions());
    let holders = cluster.holders(ids[0])?;
    let run = Run { cluster: &cluster, holders: &holders, partitions, slow, flags, seed };
    let mut report = Report::default();
    let mut stages = Vec::new();
    for (name, pressure) in [
        ("nothing else", Pressure::None),
        ("full speed, a slow node", Pressure::SlowBackup),
        ("large values", Pressure::Large),
        ("a million requests, unread", Pressure::Unread),
    ] {
        eprintln!("{name}");
        let stage = run.stage(name, pressure)?;
        cluster.check_running()?;
        cluster.wait_healthy(&BTreeMap::new())?;
        for (text, times) in &stage.errors {
            report.violation(format!("{name}: {times} x \"{text}\" at clients that ask for little"));
        }
        let most = stage.resident_mib.iter().copied().max().unwrap_or(0);
        if flags.resident_max > 0 && most > flags.resident_max {
            report.violation(format!("{name}: a node took {most} MiB"));
        }
        stages.push(stage);
    }
    let outcome = Outcome { seed, slow, stages };
    let dir = (!report.is_clean() || common.dir.is_some()).then(|| cluster.keep());
    Ok(report.end(common.json, &outcome, &outcome.text(), dir))
}

impl Run<'_> {
    fn stage(&self, name: &'static str, pressure: Pressure) -> Result<Stage, Failure> {
        let notes = Notes::default();
        let mut resident_mib = vec![0; self.cluster.ids().count()];
        let version = self.version()?;
        let went = std::thread::scope(|scope| -> Result<(), Failure> {
            for node in self.cluster.ids() {
                let notes = &notes;
                scope.spawn(move || self.ask_little(node, pressure == Pressure::SlowBackup, notes));
            }
            let others = self.cluster.ids().filter(|id| *id != self.slow);
            match pressure {
                Pressure::None => {}
                Pressure::SlowBackup => {
                    let ports: Vec<u16> = others.map(|id| self.cluster.plain_port(id)).collect();
                    for writer in 0..WRITERS {
                        let (notes, port) = (&notes, ports[usize::from(writer) % ports.len()]);
                        scope.spawn(move || self.write_fast(writer, port, notes));
                    }
                }
                Pressure::Large => {
                    let notes = &notes;
                    scope.spawn(move || self.write_large(notes));
                }
                Pressure::Unread => {
                    let notes = &notes;
                    scope.spawn(move || self.send_unread(notes));
                }
            }
            let went = self.watch(pressure == Pressure::SlowBackup, &mut resident_mib);
            notes.stop.store(true, Ordering::Relaxed);
            went
        });
        went?;
        let versions = self.version()?.saturating_sub(version);
        let times = notes.times.into_inner().unwrap_or_else(PoisonError::into_inner);
        let of = |away| Times::of(times.iter().filter(|time| time.0 == away).map(|time| time.1).collect());
        Ok(Stage {
            name,
            away: of(true),
            at_stopped: of(false),
            errors: notes.errors.into_inner().unwrap_or_else(PoisonError::into_inner),
            heavy: notes.heavy.into_inner(),
            heavy_mib: notes.heavy_bytes.into_inner() >> 20,
            heavy_errors: notes.heavy_errors.into_inner().unwrap_or_else(PoisonError::into_inner),
            resident_mib,
            versions,
        })
    }

    fn version(&self) -> Result<u64, Failure> {
        let mut connection = connect(self.cluster.plain_port(1), PATIENCE)?;
        let text: String = redis::cmd("ANNULET").arg("STATUS").query(&mut connection)?;
        let status: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        status["version"].as_u64().ok_or_else(|| "ANNULET STATUS tells no version of the map".into())
    }

    /// Looks at the nodes' memory until the stage is over, and stops the slow node now and then.
    fn watch(&self, stops: bool, resident_mib: &mut [u64]) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(self.flags.seconds) {
            if stops {
                self.cluster.signal_node(self.slow, Signal::STOP)?;
                std::thread::sleep(STOPPED);
                self.cluster.signal_node(self.slow, Signal::CONT)?;
            }
            for (id, most) in self.cluster.ids().zip(&mut *resident_mib) {
                *most = (*most).max(self.cluster.resident_bytes(id)? >> 20);
            }
            std::thread::sleep(RUNNING);
        }
        Ok(())
    }

    /// One request after another, reads and writes in turn, of keys in all partitions.
    fn ask_little(&self, node: u16, stops: bool, notes: &Notes) {
        let mut random = Random::new(self.seed ^ (u64::from(node) << 32));
        let port = self.cluster.plain_port(node);
        let mut connection: Option<Connection> = None;
        let mut times = Vec::new();
        while notes.goes_on() {
            let key = format!("light:{}", random.below(LIGHT_KEYS));
            let holders = &self.holders[usize::from(partition_of_key(key.as_bytes(), self.partitions).0)];
            let away = !stops || node != self.slow && !holders.contains(&self.slow);
            let began = Instant::now();
            let answer =
                connection.take().map_or_else(|| connect(port, PATIENCE), Ok).and_then(|mut open| {
                    let mut command = redis::cmd(if times.len() % 2 == 0 { "SET" } else { "GET" });
                    command.arg(&key);
                    if times.len() % 2 == 0 {
                        command.arg("little");
                    }
                    command.query::<redis::Value>(&mut open).map(|_| open)
                });
            match answer {
                Ok(open) => connection = Some(open),
                Err(error) => count(&notes.errors, &error),
            }
            times.push((away, began.elapsed().as_micros() as u64));
        }
        notes.times.lock().unwrap_or_else(PoisonError::into_inner).extend(times);
    }

    /// As much as goes: pipelines of writes.
    fn write_fast(&self, writer: u16, port: u16, notes: &Notes) {
        let mut random = Random::new(self.seed ^ (u64::from(writer) << 48));
        let value = vec![b'h'; VALUE_BYTES];
        let mut connection = None;
        while notes.goes_on() {
            let mut pipe = redis::pipe();
            for _ in 0..PIPELINE {
                pipe.cmd("SET").arg(format!("heavy:{}", random.below(HEAVY_KEYS))).arg(&value).ignore();
            }
            let open = connection.take().map_or_else(|| connect(port, PATIENCE), Ok);
            match open.and_then(|mut open| pipe.query::<()>(&mut open).map(|()| open)) {
                Ok(open) => {
                    notes.did(PIPELINE, PIPELINE * VALUE_BYTES);
                    connection = Some(open);
                }
                Err(error) => count(&notes.heavy_errors, &error),
            }
        }
    }

    /// Large values, one after the other. What they are made of does not compress.
    fn write_large(&self, notes: &Notes) {
        let mut random = Random::new(self.seed ^ (1 << 60));
        let words = self.flags.large_mb * 1_000_000 / 8;
        let value: Vec<u8> = (0..words).flat_map(|_| random.draw().to_le_bytes()).collect();
        let mut connection = None;
        while notes.goes_on() {
            let key = format!("large:{}", random.below(LARGE_KEYS));
            let open = connection.take().map_or_else(|| connect(self.cluster.plain_port(1), PATIENCE), Ok);
            let answer = open.and_then(|mut open| {
                redis::cmd("SET").arg(&key).arg(&value).query::<()>(&mut open).map(|()| open)
            });
            match answer {
                Ok(open) => {
                    notes.did(1, value.len());
                    connection = Some(open);
                }
                Err(error) => count(&notes.heavy_errors, &error),
            }
        }
    }

    /// Requests whose replies nobody reads. That the node takes no more of them at some point is what it should do.
    fn send_unread(&self, notes: &Notes) {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.cluster.plain_port(1))) else { return };
        let _ = socket.set_write_timeout(Some(Duration::from_millis(100)));
        let value = "u".repeat(1000);
        let mut sent = 0;
        while notes.goes_on() && sent < UNREAD {
            let key = format!("unread:{}", sent % 1000);
            let set = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1000\r\n{value}\r\n", key.len());
            let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
            let mut rest = &format!("{set}{get}").into_bytes()[..];
            while notes.goes_on() && !rest.is_empty() {
                match socket.write(rest) {
                    Ok(bytes) => rest = &rest[bytes..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            if rest.is_empty() {
                sent += 2;
                notes.did(2, set.len() + get.len());
            }
        }
        while notes.goes_on() {
            std::thread::sleep(RUNNING);
        }
    }
}

impl Times {
    fn of(mut us: Vec<u64>) -> Times {
        us.sort_unstable();
        let at =
            |of_thousand: usize| us.get(us.len() * of_thousand / 1000).or(us.last()).copied().unwrap_or(0);
        Times { requests: us.len() as u64, p50_us: at(500), p99_us: at(990), longest_us: at(1000) }
    }

    fn text(&self) -> String {
        let ms = |us: u64| us as f64 / 1000.0;
        match self.requests {
            0 => String::new(),
            requests => format!(
                "{requests}: {:.2} / {:.2} / {:.1}",
                ms(self.p50_us),
                ms(self.p99_us),
                ms(self.longest_us)
            ),
        }
    }
}

impl Outcome {
    fn text(&self) -> String {
        let mut lines = vec![
            format!("Seed {}, node {} is the slow one. Times are p50 / p99 / longest, in ms.\n", self.seed, self.slow),
            "| beside it | others' requests | at the slow node | errors | done beside it | map versions | most memory, MiB |".into(),
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |".into(),
        ];
        for stage in &self.stages {
            let resident: Vec<String> = stage.resident_mib.iter().map(u64::to_string).collect();
            lines.push(format!(
                "| {} | {} | {} | {} | {} requests, {} MiB | {} | {} |",
                stage.name,
                stage.away.text(),
                stage.at_stopped.text(),
                stage.errors.values().sum::<u64>(),
                stage.heavy,
                stage.heavy_mib,
                stage.versions,
                resident.join(", "),
            ));
            if !stage.heavy_errors.is_empty() {
                lines.push(format!("({}: {})", stage.name, counted(&stage.heavy_errors)));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_middle_and_an_end() {
        let times = Times::of((1..=1000).rev().collect());
        assert_eq!((times.requests, times.p50_us, times.p99_us, times.longest_us), (1000, 501, 991, 1000));
        assert_eq!(Times::of(Vec::new()).text(), "");
    }
}
