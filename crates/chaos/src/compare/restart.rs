//! How long a server is gone that is killed and started again: from the start of the process to its first answer, and to the
//! first key that it serves with all of them there.
//!
//! | what is left on disk | how it came there |
//! | --- | --- |
//! | Annulet: log | the fill's writes, synced every second |
//! | Annulet: snapshots | the same, and BGSAVE |
//! | peer: AOF | the fill's writes, synced every second, without preamble |
//! | peer: AOF, preamble | the same, and BGREWRITEAOF, so that it begins with an RDB |
//! | peer: RDB | no log; BGSAVE |
//!
//! All are filled first, each by itself, and killed; then started in turn, looked at and killed again, round after round, so that
//! a slow minute of the machine is everybody's. Their files are in the system's memory then: what is measured is how quickly a
//! server takes in what it reads, not the disk.

use super::client::{Client, Fill, Reply, key};
use super::disks::{self, EVERYSEC, FileSystem, bytes_below, wait_saved};
use super::servers::{Contender, Hosts, Server};
use super::{Flags, median};
use crate::cluster::free_port;
use crate::failure::Failure;
use serde::Serialize;
use std::time::{Duration, Instant};

const FILL_PIPELINE: u64 = 500;
/// From one question to the next at a server that starts.
const TICK: Duration = Duration::from_millis(2);
/// Keys that are read back after each start, spread over all.
const READ_BACK: u64 = 1000;

/// What came out.
#[derive(Serialize)]
pub(super) struct Restart {
    keys: u64,
    value_bytes: usize,
    rounds: u32,
    file_system: FileSystem,
    lines: Vec<Line>,
}

/// One server with one kind of files.
#[derive(Serialize)]
struct Line {
    server: String,
    from: &'static str,
    is_own: bool,
    fill_s: f64,
    save_s: f64,
    disk_bytes: u64,
    first_s: f64,
    whole_s: f64,
    whole_s_least: f64,
    whole_s_most: f64,
    processor_s: f64,
    resident_bytes: f64,
    peak_bytes: f64,
    runs: Vec<Run>,
}

/// One start.
#[derive(Serialize)]
struct Run {
    /// Until the first PONG.
    first_s: f64,
    /// Until a key is served and none is missing.
    whole_s: f64,
    processor_s: f64,
    resident_bytes: u64,
    peak_bytes: u64,
}

/// What is started again.
struct Entry<'a> {
    base: &'a Contender,
    contender: Contender,
    from: &'static str,
    /// The command that saves, where one is given before it is killed.
    save: Option<&'static str>,
    port: u16,
    fill_s: f64,
    save_s: f64,
    disk_bytes: u64,
    runs: Vec<Run>,
}

pub(super) fn measure(
    flags: &Flags,
    contenders: &[Contender],
    hosts: &Hosts,
    file_system: FileSystem,
) -> Result<Restart, Failure> {
    let (keys, rounds) = (flags.keys_or(5_000_000), flags.rounds_or(3));
    let mut entries = Vec::new();
    for base in contenders {
        for (contender, from, save) in kinds(base) {
            let port = free_port(1)?;
            let (fill_s, save_s, disk_bytes, runs) = (0.0, 0.0, 0, Vec::new());
            let mut entry = Entry { base, contender, from, save, port, fill_s, save_s, disk_bytes, runs };
            fill(flags, keys, hosts, &mut entry)?;
            entries.push(entry);
        }
    }
    for round in 0..rounds as usize {
        for turn in 0..entries.len() {
            let at = (round + turn) % entries.len();
            let entry = &mut entries[at];
            let run = start_again(keys, hosts, entry)?;
            eprintln!("{}, {}: whole after {:.2} s", entry.base.name, entry.from, run.whole_s);
            entry.runs.push(run);
        }
    }
    for entry in &entries {
        hosts.clear(&entry.contender)?;
    }
    let lines = entries.into_iter().map(Line::of).collect();
    Ok(Restart { keys, value_bytes: flags.value_bytes, rounds, file_system, lines })
}

/// The kinds of files that a server is started from.
fn kinds(base: &Contender) -> Vec<(Contender, &'static str, Option<&'static str>)> {
    let logged = disks::logged(base, EVERYSEC);
    if base.is_own {
        let with_snapshots = logged.also("saved");
        return vec![(logged, "log", None), (with_snapshots, "snapshots", Some("BGSAVE"))];
    }
    vec![
        (logged, "AOF", None),
        (disks::logged_with_preamble(base), "AOF, preamble", Some("BGREWRITEAOF")),
        (disks::saved(base), "RDB", Some("BGSAVE")),
    ]
}

/// Fills a server, has it save where it is to, and kills it.
fn fill(flags: &Flags, keys: u64, hosts: &Hosts, entry: &mut Entry<'_>) -> Result<(), Failure> {
    hosts.clear(&entry.contender)?;
    let server = hosts.start_at(&entry.contender, entry.port)?;
    let fill = Fill { value_bytes: flags.value_bytes, pipeline: FILL_PIPELINE, options: &[] };
    entry.fill_s = fill.run(server.port, 0..keys)?.as_secs_f64();
    let mut client = Client::connect(server.port)?;
    if let Some(save) = entry.save {
        let began = Instant::now();
        client.must(&[save.as_bytes()])?;
        wait_saved(&mut client, hosts.patience())?;
        entry.save_s = began.elapsed().as_secs_f64();
    }
    let held = client.keys_held()?;
    if held != keys as i64 {
        return Err(format!("{} holds {held} keys of {keys}", server.name).into());
    }
    drop(server);
    entry.disk_bytes = bytes_below(&hosts.data_dir(&entry.contender))?;
    eprintln!(
        "{}, {}: filled in {:.1} s, {} MiB on disk",
        entry.base.name,
        entry.from,
        entry.fill_s,
        entry.disk_bytes >> 20
    );
    Ok(())
}

fn start_again(keys: u64, hosts: &Hosts, entry: &Entry<'_>) -> Result<Run, Failure> {
    let began = Instant::now();
    let server = hosts.begin(&entry.contender, entry.port)?;
    let run = watch(&server, began, keys, hosts.patience());
    let run = run.map_err(|failure| hosts.said(&entry.contender, &failure))?;
    read_back(&server, keys)?;
    Ok(run)
}

/// Asks until all is there.
fn watch(server: &Server<'_>, began: Instant, keys: u64, patience: Duration) -> Result<Run, Failure> {
    let mut first = None;
    let mut look = |client: &mut Client| -> Result<String, Failure> {
        match client.ask(&[b"PING"])? {
            Reply::Simple(_) => first.get_or_insert_with(|| began.elapsed()),
            other => return Ok(format!("PING is answered {other:?}")),
        };
        match client.ask(&[b"GET", key(0).as_bytes()])? {
            Reply::Bulk(_) => {}
            other => return Ok(format!("GET is answered {other:?}")),
        }
        let held = client.keys_held()?;
        Ok(if held == keys as i64 { String::new() } else { format!("it holds {held} keys of {keys}") })
    };
    let mut client = None;
    let whole = loop {
        server.check_running()?;
        let seen = match &mut client {
            None => Client::connect(server.port).map(|made| {
                client = Some(made);
                "nothing yet".to_owned()
            }),
            Some(client) => look(client),
        };
        match seen {
            Ok(missing) if missing.is_empty() => break began.elapsed(),
            seen if began.elapsed() > patience => {
                return Err(format!("not all is there after {} s: {seen:?}", patience.as_secs()).into());
            }
            Ok(_) => {}
            Err(_) => client = None,
        }
        std::thread::sleep(TICK);
    };
    let (resident_bytes, peak_bytes) = server.resident()?;
    Ok(Run {
        first_s: first.unwrap_or(whole).as_secs_f64(),
        whole_s: whole.as_secs_f64(),
        processor_s: server.processor_s()?,
        resident_bytes,
        peak_bytes,
    })
}

/// That keys are counted is not that they are there.
fn read_back(server: &Server<'_>, keys: u64) -> Result<(), Failure> {
    let mut client = Client::connect(server.port)?;
    for number in (0..keys).step_by((keys / READ_BACK).max(1) as usize) {
        match client.ask(&[b"GET", key(number).as_bytes()])? {
            Reply::Bulk(_) => {}
            other => return Err(format!("{}: {} is answered {other:?}", server.name, key(number)).into()),
        }
    }
    Ok(())
}

impl Line {
    fn of(entry: Entry<'_>) -> Line {
        let all = |pick: fn(&Run) -> f64| entry.runs.iter().map(pick);
        Line {
            server: entry.base.name.clone(),
            from: entry.from,
            is_own: entry.base.is_own,
            fill_s: entry.fill_s,
            save_s: entry.save_s,
            disk_bytes: entry.disk_bytes,
            first_s: median(all(|run| run.first_s)),
            whole_s: median(all(|run| run.whole_s)),
            whole_s_least: all(|run| run.whole_s).fold(f64::INFINITY, f64::min),
            whole_s_most: all(|run| run.whole_s).fold(0.0, f64::max),
            processor_s: median(all(|run| run.processor_s)),
            resident_bytes: median(all(|run| run.resident_bytes as f64)),
            peak_bytes: median(all(|run| run.peak_bytes as f64)),
            runs: entry.runs,
        }
    }
}

pub(super) fn text(restart: &Restart) -> String {
    let mut text = format!(
        "{} keys of 16 bytes with values of {} bytes, killed with SIGKILL and started again; {} starts each, in turn; medians. {} They \
         are in the system's memory at a start. *Whole*: a key is served and none is missing; from the start of the process.\n\n\
         | server | from | filled in, s | saved in, s | on disk, MiB | first PONG, s | whole, s | least to most | processor, s \
         | keys/s | resident, MiB | greatest, MiB |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        restart.keys,
        restart.value_bytes,
        restart.rounds,
        restart.file_system.text()
    );
    let mib = |bytes: f64| bytes / 1_048_576.0;
    for line in &restart.lines {
        let saved = if line.save_s > 0.0 { format!("{:.1}", line.save_s) } else { String::new() };
        text += &format!(
            "| {} | {} | {:.1} | {saved} | {:.0} | {:.2} | {:.2} | {:.2} to {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |\n",
            line.server,
            line.from,
            line.fill_s,
            mib(line.disk_bytes as f64),
            line.first_s,
            line.whole_s,
            line.whole_s_least,
            line.whole_s_most,
            line.processor_s,
            restart.keys as f64 / line.whole_s,
            mib(line.resident_bytes),
            mib(line.peak_bytes)
        );
    }
    text
}
