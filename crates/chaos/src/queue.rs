//! Requests that wait in a sleeping node's sockets: connections that send without waiting for replies, and judge each reply by
//! what was known when its request was sent.
//!
//! A register is a key that one writer overwrites with growing numbers, one at a time, and starts anew under another name as
//! soon as an outcome is unknown. So a read has to show at least the number that was acknowledged last before it was sent:
//! anything less is stale.

use crate::cluster::Cluster;
use crate::load::{Fate, Journal, fate_of_error, plain_text, unique_key, unique_value};
use crate::status::connect;
use redis::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use types::slot::partition_of_key;

/// Bits of a register's state that hold its number; those above hold its generation.
const NUMBER_BITS: u32 = 40;
/// One request in so many is a write.
const WRITE_EVERY: usize = 4;
/// The longest wait for replies once no more requests are sent.
const DRAIN: Duration = Duration::from_secs(20);
/// Between looks at whether there is room for one more request.
const LOOK: Duration = Duration::from_micros(200);

/// The registers: for each, the hash tag that puts it into its partition, and the last acknowledged (generation, number).
pub(crate) struct Registers {
    tags: Vec<String>,
    acknowledged: Vec<AtomicU64>,
}

impl Registers {
    /// A register in each of the given partitions.
    pub(crate) fn new(among: &[u16], partitions: u16) -> Registers {
        let tag_in = |partition: u16| {
            (0u64..)
                .map(|number| format!("r{number}"))
                .find(|tag| partition_of_key(tag.as_bytes(), partitions).0 == partition)
                .unwrap_or_default()
        };
        Registers {
            tags: among.iter().map(|partition| tag_in(*partition)).collect(),
            acknowledged: among.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn count(&self) -> usize {
        self.tags.len()
    }

    fn key(&self, register: usize, generation: u64) -> String {
        format!("{{{}}}:{generation}", self.tags[register])
    }

    /// What a read that is sent now has to show: the key to read, and the least number.
    fn floor(&self, register: usize) -> (String, u64) {
        let state = self.acknowledged[register].load(Ordering::SeqCst);
        (self.key(register, state >> NUMBER_BITS), state & ((1 << NUMBER_BITS) - 1))
    }

    /// Overwrites the registers whose number modulo `step` is `first`, through one port, until told to stop.
    pub(crate) fn overwrite(&self, first: usize, step: usize, port: u16, stop: &AtomicBool) {
        let mut connection = None;
        let mut next: BTreeMap<usize, (u64, u64)> =
            (first..self.count()).step_by(step).map(|register| (register, (0, 1))).collect();
        while !stop.load(Ordering::Relaxed) {
            for (register, (generation, number)) in &mut next {
                let open = match &mut connection {
                    Some(open) => open,
                    None => match connect(port, Duration::from_secs(15)) {
                        Ok(opened) => connection.insert(opened),
                        Err(_) => {
                            std::thread::sleep(Duration::from_millis(5));
                            continue;
                        }
                    },
                };
                let key = self.key(*register, *generation);
                match redis::cmd("SET").arg(key).arg(*number).query::<Value>(open) {
                    Ok(_) => {
                        self.acknowledged[*register]
                            .store((*generation << NUMBER_BITS) | *number, Ordering::SeqCst);
                        *number += 1;
                    }
                    Err(error) => {
                        // It may still be done, at any time: nothing more can be said of this key.
                        (*generation, *number) = (*generation + 1, 1);
                        if error.code().is_none() {
                            connection = None;
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            }
        }
    }
}

/// How a connection sends.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// At most so many requests without reply.
    pub depth: usize,
    /// Between two requests.
    pub every: Duration,
}

/// What a request expects.
enum Expected {
    AtLeast { key: String, floor: u64 },
    Write { number: usize },
}

#[derive(Default)]
struct Wire {
    waiting: VecDeque<Expected>,
    journal: Journal,
    judged: Judged,
    broken: bool,
}

/// What came of one connection.
#[derive(Default)]
pub(crate) struct Judged {
    /// Reads that showed a value, all new enough or counted as stale.
    pub values: u64,
    /// Reads that showed less than was acknowledged before they were sent.
    pub stale: Vec<String>,
    /// Error replies by text.
    pub errors: BTreeMap<String, u64>,
}

/// A connection that sends by itself.
pub(crate) struct Queue {
    wire: Arc<Mutex<Wire>>,
    threads: [JoinHandle<()>; 2],
}

impl Queue {
    /// Connects and begins. `writer` names it among all writers.
    pub(crate) fn start(
        port: u16,
        writer: u16,
        pace: Pace,
        registers: &Arc<Registers>,
        stop: &Arc<AtomicBool>,
    ) -> std::io::Result<Queue> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let wire = Arc::new(Mutex::new(Wire::default()));
        lock(&wire).journal.writer = writer;
        let receive = {
            let (wire, stop, stream) = (wire.clone(), stop.clone(), stream.try_clone()?);
            std::thread::spawn(move || receive(stream, &wire, &stop))
        };
        let send = {
            let (wire, stop, registers) = (wire.clone(), stop.clone(), registers.clone());
            std::thread::spawn(move || send(stream, &wire, &registers, pace, &stop))
        };
        Ok(Queue { wire, threads: [send, receive] })
    }

    /// Waits for the end, which `stop` asks for.
    pub(crate) fn join(self) -> (Journal, Judged) {
        for thread in self.threads {
            let _ = thread.join();
        }
        let mut wire = lock(&self.wire);
        (std::mem::take(&mut wire.journal), std::mem::take(&mut wire.judged))
    }
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(mut stream: TcpStream, wire: &Mutex<Wire>, registers: &Registers, pace: Pace, stop: &AtomicBool) {
    for request in 0usize.. {
        loop {
            let wire = lock(wire);
            if stop.load(Ordering::Relaxed) || wire.broken {
                return;
            }
            if wire.waiting.len() < pace.depth {
                break;
            }
            drop(wire);
            std::thread::sleep(LOOK);
        }
        let text = {
            let mut wire = lock(wire);
            if request.is_multiple_of(WRITE_EVERY) {
                let number = wire.journal.fates.len();
                wire.journal.fates.push(Fate::Unknown);
                wire.waiting.push_back(Expected::Write { number });
                let writer = wire.journal.writer;
                encode(&["SET", &unique_key(writer, number), &unique_value(writer, number)])
            } else {
                let (key, floor) = registers.floor(request % registers.count());
                let text = encode(&["GET", &key]);
                wire.waiting.push_back(Expected::AtLeast { key, floor });
                text
            }
        };
        if stream.write_all(text.as_bytes()).is_err() {
            lock(wire).broken = true;
            return;
        }
        if !pace.every.is_zero() {
            std::thread::sleep(pace.every);
        }
    }
}

fn encode(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text
}

fn receive(mut stream: TcpStream, wire: &Mutex<Wire>, stop: &AtomicBool) {
    let mut received = Vec::new();
    let mut buffer = [0; 65536];
    let mut stopped: Option<Instant> = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            let since = *stopped.get_or_insert_with(Instant::now);
            let wire = lock(wire);
            if wire.waiting.is_empty() || wire.broken || since.elapsed() > DRAIN {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(_) => break,
        }
        let mut wire = lock(wire);
        let mut taken = 0;
        while let Some((reply, length)) = parse(&received[taken..]) {
            taken += length;
            wire.judge(&reply);
        }
        received.drain(..taken);
    }
    lock(wire).broken = true;
}

#[derive(Debug, PartialEq)]
enum Reply {
    Okay,
    Value(Option<Vec<u8>>),
    Error(String),
    Other(String),
}

/// A whole reply and its length, if there is one.
fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(bytes.get(1..end)?).into_owned();
    match bytes[0] {
        b'+' if line == "OK" => Some((Reply::Okay, end + 2)),
        b'-' => Some((Reply::Error(line), end + 2)),
        b'$' => match line.parse::<usize>() {
            Ok(length) => {
                let start = end + 2;
                let value = bytes.get(start..start + length + 2)?[..length].to_vec();
                Some((Reply::Value(Some(value)), start + length + 2))
            }
            Err(_) => Some((Reply::Value(None), end + 2)),
        },
        _ => Some((Reply::Other(line), end + 2)),
    }
}

impl Wire {
    fn judge(&mut self, reply: &Reply) {
        let Some(expected) = self.waiting.pop_front() else {
            self.judged.stale.push(format!("a reply that nobody asked for: {reply:?}"));
            return;
        };
        match (expected, reply) {
            (Expected::AtLeast { key, floor }, Reply::Value(value)) => {
                self.judged.values += 1;
                let shown = value.as_ref().map_or(Some(0), |value| {
                    std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok())
                });
                if shown.is_none_or(|shown| shown < floor) {
                    let text =
                        format!("{key} was {floor} before it was asked for, and is shown as {shown:?}");
                    self.judged.stale.push(text);
                }
            }
            (Expected::Write { number }, Reply::Okay) => self.journal.fates[number] = Fate::Acknowledged,
            (expected, Reply::Error(text)) => {
                *self.judged.errors.entry(plain_text(text)).or_default() += 1;
                if let Expected::Write { number } = expected {
                    let code = text.split(' ').next().unwrap_or_default();
                    self.journal.fates[number] = fate_of_error(code);
                }
            }
            (_, reply) => {
                *self.judged.errors.entry(format!("makes no sense: {reply:?}")).or_default() += 1;
            }
        }
    }
}

/// The partitions that a node leads, by what another says.
pub(crate) fn led_by(cluster: &Cluster, node: u16, asked: u16) -> Result<Vec<u16>, crate::failure::Failure> {
    let holders = cluster.holders(asked)?;
    Ok((0..)
        .zip(&holders)
        .filter(|(_, holders)| holders[0] == node)
        .map(|(partition, _)| partition)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_parsed_where_they_are_whole() {
        assert_eq!(parse(b"+OK\r\n+"), Some((Reply::Okay, 5)));
        assert_eq!(parse(b"$2\r\n12\r\n"), Some((Reply::Value(Some(b"12".to_vec())), 8)));
        assert_eq!(parse(b"$-1\r\n"), Some((Reply::Value(None), 5)));
        assert_eq!(parse(b"$2\r\n12"), None);
        assert_eq!(parse(b"-MOVED 1"), None);
        assert_eq!(parse(b"-ERR no\r\n"), Some((Reply::Error("ERR no".into()), 9)));
    }

    #[test]
    fn a_stale_read_is_seen() {
        let registers = Registers::new(&[3], 8);
        registers.acknowledged[0].store((2 << NUMBER_BITS) | 7, Ordering::SeqCst);
        let (key, floor) = registers.floor(0);
        assert!(key.ends_with(":2") && floor == 7, "{key}");
        assert_eq!(partition_of_key(key.as_bytes(), 8).0, 3);
        let mut wire = Wire::default();
        for shown in [Some(b"7".to_vec()), Some(b"8".to_vec()), Some(b"6".to_vec()), None] {
            wire.waiting.push_back(Expected::AtLeast { key: key.clone(), floor });
            wire.judge(&Reply::Value(shown));
        }
        assert_eq!((wire.judged.values, wire.judged.stale.len()), (4, 2));
    }

    #[test]
    fn a_write_ends_as_its_reply_says() {
        let mut wire = Wire::default();
        wire.journal.fates = vec![Fate::Unknown; 3];
        let replies = [
            Reply::Okay,
            Reply::Error("TRYAGAIN soon".into()),
            Reply::Error("UNKNOWN outcome unknown: x".into()),
        ];
        for (number, reply) in replies.iter().enumerate() {
            wire.waiting.push_back(Expected::Write { number });
            wire.judge(reply);
        }
        assert_eq!(wire.journal.fates, [Fate::Acknowledged, Fate::Refused, Fate::Unknown]);
    }
}
