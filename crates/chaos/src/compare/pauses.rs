//! How long a client waits while something big goes on at the server: one connection asks for a small key again and again, while
//! another causes what might hold it up. The longest waits of each cause stand beside those of a time in which nothing goes on,
//! which are the machine's own.
//!
//! A probe waits for its answer, and the next is sent 200 us later. So a long wait hides the probes that would have been sent
//! meanwhile; they are counted as if they had been, each with what was left of the wait (the correction of HdrHistogram's
//! `recordValueWithExpectedInterval`). What causes the trouble runs on the probe's processor at the lowest priority, so that it
//! does not hold up the probe itself.
//!
//! A machine that is shared has pauses of its own, and others' work slows it down. So the processor time that all threads of the server
//! took during each wait is read too, and its longest stands beside the waits: no server holds a probe up for longer than that by
//! what it does on its one processor. The rest of a wait was the machine's, the kernel's for others, or the probe's.
//!
//! One server after another, on one processor each time.

use super::Flags;
use super::client::{Client, Fill, Reply, key, request};
use super::servers::{Contender, Hosts, Server};
use crate::failure::Failure;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// From a probe's answer to the next probe.
const PERIOD: Duration = Duration::from_micros(200);
/// How long the probe runs before the cause, and how long after: some of what a command leaves to be done is done later.
const LEAD: Duration = Duration::from_millis(200);
const TAIL: Duration = Duration::from_secs(1);
/// Requests sent at once by what fills the server.
const PIPELINE: u64 = 64;
/// Times that a quick command is repeated.
const REPEATS: usize = 1000;
/// Keys that end at one instant: a tenth of all, and no more than this.
const EXPIRING_MAX: u64 = 1_000_000;
/// How often it is tried to have all of them there before they end.
const ATTEMPTS: u32 = 6;
/// How long the keys of one cause may take to go.
const GONE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(100);
const BIG: &[u8] = b"big";

/// What came out.
#[derive(Serialize)]
pub(super) struct Pauses {
    keys: u64,
    value_bytes: usize,
    big_mib: u64,
    servers: Vec<Seen>,
}

#[derive(Serialize)]
struct Seen {
    server: String,
    causes: Vec<Line>,
}

/// One cause, and how long a client waited meanwhile.
#[derive(Serialize)]
struct Line {
    cause: String,
    lasted_s: f64,
    waits: Waits,
    /// Where the cause failed.
    error: Option<String>,
}

/// The longest waits of the probe.
#[derive(Debug, Serialize, PartialEq)]
struct Waits {
    /// Those sent, and those that a wait hid.
    probes: u64,
    longest_us: u64,
    p9999_us: u64,
    p999_us: u64,
    p50_us: u64,
    /// The most processor time that the server took during one wait.
    ran_us: u64,
    /// Probes that were answered with an error, and the first of these.
    refused: u64,
    first_refusal: Option<String>,
}

impl Waits {
    fn of(mut waits_us: Vec<u64>, ran_us: u64, refusals: Vec<String>) -> Waits {
        waits_us.sort_unstable();
        let count = waits_us.len();
        let at = |share: f64| {
            let rank = (count as f64 * share).ceil() as usize;
            waits_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Waits {
            probes: count as u64,
            longest_us: at(1.0),
            p9999_us: at(0.9999),
            p999_us: at(0.999),
            p50_us: at(0.5),
            ran_us,
            refused: refusals.len() as u64,
            first_refusal: refusals.into_iter().next(),
        }
    }
}

/// Notes a wait and those that it hid.
fn note(waits_us: &mut Vec<u64>, mut wait: Duration) {
    waits_us.push(wait.as_micros() as u64);
    while wait > PERIOD * 2 {
        wait -= PERIOD;
        waits_us.push(wait.as_micros() as u64);
    }
}

/// Probes until it is told to stop.
fn probe(server: &Server<'_>, stop: &AtomicBool) -> Result<Waits, Failure> {
    let mut client = Client::connect(server.port)?;
    let processor = server.processor_clock()?;
    let ran = || processor.now().map(Duration::from).map_err(std::io::Error::from);
    let mut ran_longest = Duration::ZERO;
    let ask = request(&[b"GET", key(0).as_bytes()]);
    let (mut waits_us, mut refusals) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let ran_before = ran()?;
        let sent = Instant::now();
        client.send(&ask)?;
        let reply = client.head(false)?;
        let wait = sent.elapsed();
        note(&mut waits_us, wait);
        // What it did while the probe itself was held up after the answer is not counted.
        ran_longest = ran_longest.max(ran()?.saturating_sub(ran_before).min(wait));
        if let Reply::Error(text) = reply {
            refusals.push(text);
        }
        std::thread::sleep(PERIOD);
    }
    Ok(Waits::of(waits_us, ran_longest.as_micros() as u64, refusals))
}

/// The probe beside a cause.
fn watched<F>(server: &Server<'_>, cause: String, action: F) -> Result<Line, Failure>
where
    F: FnOnce() -> Result<(), Failure> + Send,
{
    let stop = AtomicBool::new(false);
    let (waits, lasted, done) = std::thread::scope(|scope| {
        let probe = scope.spawn(|| probe(server, &stop));
        std::thread::sleep(LEAD);
        let started = Instant::now();
        let done = scope.spawn(|| {
            // Of this thread alone, and only a matter of precision.
            let _ = rustix::process::nice(19);
            action()
        });
        let done = done.join();
        let lasted = started.elapsed();
        std::thread::sleep(TAIL);
        stop.store(true, Ordering::Relaxed);
        (probe.join(), lasted, done)
    });
    server.check_running()?;
    // A panic has ended the program.
    let waits = waits.map_err(|_| "the probe panicked")??;
    let error = done.map_err(|_| "the cause panicked")?.err().map(|failure| failure.to_string());
    let line = Line { cause, lasted_s: lasted.as_secs_f64(), waits, error };
    eprintln!("{}: {}: {}", server.name, line.cause, line.cell());
    Ok(line)
}

pub(super) fn measure(flags: &Flags, contenders: &[Contender], hosts: &Hosts) -> Result<Pauses, Failure> {
    let keys = flags.keys_or(10_000_000);
    let mut servers = Vec::new();
    for contender in contenders {
        let server = hosts.start(contender)?;
        let causes = causes(flags, keys, &server)?;
        servers.push(Seen { server: server.name.clone(), causes });
    }
    Ok(Pauses { keys, value_bytes: flags.value_bytes, big_mib: flags.big_mib, servers })
}

fn causes(flags: &Flags, keys: u64, server: &Server<'_>) -> Result<Vec<Line>, Failure> {
    let port = server.port;
    let fill = Fill { value_bytes: flags.value_bytes, pipeline: PIPELINE, options: &[] };
    let ask = |arguments: &[&[u8]]| -> Result<(), Failure> {
        Client::connect(port)?.must(arguments)?;
        Ok(())
    };
    let repeat = |name: &[u8]| -> Result<(), Failure> {
        let mut client = Client::connect(port)?;
        (0..REPEATS).try_for_each(|_| client.must(&[name]).map(|_| ()))
    };
    let mut lines = Vec::new();
    lines.push(watched(server, "nothing".to_owned(), || {
        std::thread::sleep(Duration::from_secs_f64(flags.seconds));
        Ok(())
    })?);
    let growth = watched(server, format!("{keys} new keys"), || fill.run(port, 0..keys).map(|_| ()))?;
    if let Some(error) = growth.error {
        return Err(format!("{} cannot be filled: {error}", server.name).into());
    }
    let key_s = growth.lasted_s / keys as f64;
    lines.push(growth);
    let again = keys.div_ceil(5);
    lines
        .push(watched(server, format!("{again} keys overwritten"), || fill.run(port, 0..again).map(|_| ()))?);
    lines.extend(big_causes(flags.big_mib, server)?);
    lines.push(watched(server, "KEYS *".to_owned(), || ask(&[b"KEYS", b"*"]))?);
    lines.push(watched(server, "SCAN of all, 1000 at a time".to_owned(), || scan_all(port))?);
    lines.push(watched(server, format!("DBSIZE, {REPEATS} times"), || repeat(b"DBSIZE"))?);
    lines.push(watched(server, format!("RANDOMKEY, {REPEATS} times"), || repeat(b"RANDOMKEY"))?);
    lines.push(expiry(flags, keys, key_s, server)?);
    lines.push(watched(server, format!("FLUSHALL of {keys} keys"), || {
        ask(&[b"FLUSHALL"])?;
        gone(port, 0)
    })?);
    Ok(lines)
}

/// What is done with one big value.
fn big_causes(mib: u64, server: &Server<'_>) -> Result<Vec<Line>, Failure> {
    let port = server.port;
    let big = request(&[b"SET", BIG, &vec![b'x'; (mib << 20) as usize]]);
    let store = || -> Result<(), Failure> {
        let mut client = Client::connect(port)?;
        client.send(&big)?;
        match client.head(true)? {
            Reply::Error(text) => Err(format!("SET is answered: {text}").into()),
            _ => Ok(()),
        }
    };
    let ask = |arguments: &[&[u8]]| -> Result<(), Failure> {
        match Client::connect(port)?.must(arguments)? {
            // Nothing is measured where nothing was there.
            Reply::Integer(0) => Err("the big value is not there".into()),
            _ => Ok(()),
        }
    };
    let mut lines = Vec::new();
    lines.push(watched(server, format!("SET of {mib} MiB"), store)?);
    lines.push(watched(server, format!("SET of {mib} MiB over as many"), store)?);
    lines.push(watched(server, format!("SET of 1 byte over {mib} MiB"), || ask(&[b"SET", BIG, b"x"]))?);
    for command in ["DEL", "UNLINK"] {
        let stored = store();
        lines.push(watched(server, format!("{command} of {mib} MiB"), || {
            stored?;
            ask(&[command.as_bytes(), BIG])
        })?);
    }
    Ok(lines)
}

fn scan_all(port: u16) -> Result<(), Failure> {
    let mut client = Client::connect(port)?;
    let mut cursor = b"0".to_vec();
    loop {
        cursor = client.scan(&cursor)?.0;
        if cursor == b"0" {
            return Ok(());
        }
    }
}

/// Many keys end at one instant.
fn expiry(flags: &Flags, keys: u64, key_s: f64, server: &Server<'_>) -> Result<Line, Failure> {
    let port = server.port;
    let count = keys.div_ceil(10).min(EXPIRING_MAX);
    let before = Client::connect(port)?.keys_held()?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Late enough for all of them to be there by then; later where the machine was slower than before.
    let mut lead = Duration::from_secs_f64(3.0 * key_s * count as f64) + TAIL;
    let mut attempts = 1;
    let (end, held) = loop {
        let end = now() + lead;
        let end_ms = end.as_millis().to_string();
        let options: [&[u8]; 2] = [b"PXAT", end_ms.as_bytes()];
        let fill = Fill { value_bytes: flags.value_bytes, pipeline: PIPELINE, options: &options };
        fill.run(port, keys..keys + count)?;
        let held = Client::connect(port)?.keys_held()?;
        if held == before + count as i64 && now() < end || attempts == ATTEMPTS {
            break (end, held);
        }
        gone(port, before)?;
        attempts += 1;
        lead *= 2;
    };
    std::thread::sleep(end.saturating_sub(now() + TICK));
    watched(server, format!("{count} keys that end at one instant"), move || {
        if held != before + count as i64 {
            return Err(format!("{held} keys were there, not {before} and {count} that end").into());
        }
        gone(port, before)
    })
}

/// Waits until no more keys are there.
fn gone(port: u16, left: i64) -> Result<(), Failure> {
    let mut client = Client::connect(port)?;
    let started = Instant::now();
    loop {
        let held = client.keys_held()?;
        if held <= left {
            return Ok(());
        }
        if started.elapsed() > GONE {
            return Err(format!("after {} s {} keys too many are there", GONE.as_secs(), held - left).into());
        }
        std::thread::sleep(TICK);
    }
}

impl Line {
    fn cell(&self) -> String {
        let ms = |us: u64| us as f64 / 1e3;
        let waits = &self.waits;
        let mut cell = format!(
            "{:.2} ({:.2}, {:.2}), ran {:.2}, {:.1} s",
            ms(waits.longest_us),
            ms(waits.p9999_us),
            ms(waits.p999_us),
            ms(waits.ran_us),
            self.lasted_s
        );
        if let Some(error) = &self.error {
            cell = format!("failed: {}", error.replace('|', "/"));
        }
        if let Some(refusal) = &waits.first_refusal {
            cell += &format!("; {} refused: {}", waits.refused, refusal.replace('|', "/"));
        }
        cell
    }
}

pub(super) fn text(pauses: &Pauses) -> String {
    let mut text = format!(
        "{} keys of 16 bytes with values of {} bytes; Annulet with one shard. A GET of a small key every {} us: its longest wait in \
         ms (99.99%, 99.9%), the most processor time in ms that the server took during one wait, and how long the cause lasted.\n\n| meanwhile |",
        pauses.keys,
        pauses.value_bytes,
        PERIOD.as_micros()
    );
    for seen in &pauses.servers {
        text += &format!(" {} |", seen.server);
    }
    text += &format!("\n| --- |{}\n", " --- |".repeat(pauses.servers.len()));
    let causes = pauses.servers.first().map_or(&[][..], |seen| &seen.causes);
    for (at, cause) in causes.iter().enumerate() {
        text += &format!("| {} |", cause.cause);
        for seen in &pauses.servers {
            text += &format!(" {} |", seen.causes.get(at).map_or("-".to_owned(), Line::cell));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_counts_for_the_probes_that_it_hid() {
        let mut waits_us = Vec::new();
        note(&mut waits_us, Duration::from_micros(150));
        note(&mut waits_us, Duration::from_micros(1000));
        assert_eq!(waits_us, [150, 1000, 800, 600, 400]);
        let waits = Waits::of(waits_us, 0, Vec::new());
        assert_eq!((waits.probes, waits.longest_us, waits.p50_us), (5, 1000, 600));
        assert_eq!(Waits::of(Vec::new(), 0, Vec::new()).longest_us, 0);
    }

    #[test]
    fn percentiles_are_of_all_waits() {
        let waits = Waits::of((1..=10_000).collect(), 7, vec!["TRYAGAIN".to_owned()]);
        assert_eq!((waits.longest_us, waits.p9999_us, waits.p999_us), (10_000, 9999, 9990));
        assert_eq!((waits.refused, waits.first_refusal.as_deref()), (1, Some("TRYAGAIN")));
    }
}
