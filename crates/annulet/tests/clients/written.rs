//! Writers that remember what was acknowledged, reply by reply, also in the middle of a pipeline; and the check that all of it
//! is there.

use crate::local_cluster::{PATIENCE, SetOnDrop, connect, until};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Requests in a pipeline.
const PIPELINE: u64 = 32;
/// One request in so many is an increment.
const INCREMENT_EVERY: u64 = 4;
/// Counters of a writer.
const COUNTERS: u64 = 8;
/// Keys read in one go.
const BATCH: usize = 500;

/// What one writer was told.
#[derive(Debug, Default)]
pub struct Journal {
    writer: u64,
    next: u64,
    /// Numbers of the keys whose SET was acknowledged.
    set: Vec<u64>,
    /// By counter: the greatest value that was acknowledged, and how many increments were sent.
    counted: BTreeMap<u64, (u64, u64)>,
}

fn key(writer: u64, number: u64) -> String {
    format!("k:{writer}:{number}")
}

fn counter(writer: u64, number: u64) -> String {
    format!("c:{writer}:{number}")
}

/// The value of a key; long enough that batches are larger than a page.
fn value(writer: u64, number: u64) -> String {
    format!("{writer}:{number}:{:x<200}", "")
}

impl Journal {
    /// Of writer number `writer`; no two may have the same.
    pub fn new(writer: u64) -> Journal {
        Journal { writer, ..Journal::default() }
    }

    /// Sends one pipeline and notes each reply as it comes. An error says that the connection broke.
    fn pipeline(&mut self, stream: &TcpStream, total: &AtomicU64) -> std::io::Result<()> {
        let numbers: Vec<u64> = (self.next..self.next + PIPELINE).collect();
        self.next += PIPELINE;
        let mut requests = String::new();
        for &number in &numbers {
            if number % INCREMENT_EVERY == 0 {
                let at = number / INCREMENT_EVERY % COUNTERS;
                self.counted.entry(at).or_default().1 += 1;
                requests += &format!("INCR {}\r\n", counter(self.writer, at));
            } else {
                requests += &format!("SET {} {}\r\n", key(self.writer, number), value(self.writer, number));
            }
        }
        (&*stream).write_all(requests.as_bytes())?;
        let mut replies = BufReader::new(stream);
        let mut line = String::new();
        for &number in &numbers {
            line.clear();
            // Half a line was cut off by the end of the connection: it says nothing.
            if replies.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(told) = line.strip_prefix(':') {
                let told = told.trim().parse().expect("a number");
                let at = number / INCREMENT_EVERY % COUNTERS;
                let (least, _) = self.counted.entry(at).or_default();
                assert!(told > *least, "a counter went from {least} to {told}");
                *least = told;
            } else if line == "+OK\r\n" {
                self.set.push(number);
            } else {
                let known = ["-UNKNOWN ", "-TRYAGAIN ", "-CLUSTERDOWN ", "-MISCONF "];
                assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
                continue;
            }
            total.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes until told to stop, at the first of the ports that takes it, and at the next where it breaks.
    pub fn write(&mut self, ports: &[u16], stop: &AtomicBool, total: &AtomicU64) {
        let mut at = self.writer as usize;
        while !stop.load(Ordering::Relaxed) {
            at += 1;
            let Ok(stream) = TcpStream::connect(("127.0.0.1", ports[at % ports.len()])) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
            while !stop.load(Ordering::Relaxed) && self.pipeline(&stream, total).is_ok() {}
        }
    }

    /// Everything that was acknowledged is there, and no more than was sent.
    pub fn check(&self, port: u16) {
        let mut connection = connect(port, 2);
        for numbers in self.set.chunks(BATCH) {
            let keys: Vec<String> = numbers.iter().map(|&number| key(self.writer, number)).collect();
            let values: Vec<Option<String>> = redis::cmd("MGET").arg(&keys).query(&mut connection).unwrap();
            for (&number, found) in numbers.iter().zip(values) {
                let right = value(self.writer, number);
                assert_eq!(found.as_ref(), Some(&right), "{} at port {port}", key(self.writer, number));
            }
        }
        for (&at, &(least, sent)) in &self.counted {
            let name = counter(self.writer, at);
            let now: Option<u64> = redis::cmd("GET").arg(&name).query(&mut connection).unwrap();
            let now = now.unwrap_or(0);
            assert!(
                (least..=sent).contains(&now),
                "{name} is {now} at port {port}: {least} were acknowledged, {sent} sent"
            );
        }
    }
}

/// Runs a writer for each journal while `meanwhile` runs, which is given the count of acknowledged writes.
pub fn while_writing<T>(
    journals: &mut [Journal],
    ports: &[u16],
    meanwhile: impl FnOnce(&AtomicU64) -> T,
) -> T {
    let (stop, total) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for journal in journals {
            let (stop, total) = (&stop, &total);
            scope.spawn(move || journal.write(ports, stop, total));
        }
        let _stop = SetOnDrop(&stop);
        meanwhile(&total)
    })
}

/// Waits for so many more acknowledged writes.
pub fn until_more(total: &AtomicU64, more: u64) {
    let before = total.load(Ordering::Relaxed);
    until("writes are acknowledged", || total.load(Ordering::Relaxed) >= before + more);
}

/// All journals, through all ports.
pub fn check_all(journals: &[Journal], ports: &[u16]) {
    for journal in journals {
        for &port in ports {
            journal.check(port);
        }
    }
}
