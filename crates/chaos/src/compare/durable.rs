//! Writes that are kept on disk: operations a second, processor time an operation, latency with its tail.
//!
//! Annulet with a log and without, and the peers with an append-only file, synced always and every second. Logs grow by hundreds
//! of megabytes a run, so each round starts every server anew, in an empty directory, fills it, loads it with each pipeline in
//! turn, ends it and removes its files. So only one of them runs at a time, and another begins each round.
//!
//! Processor time is that of all threads of the server, of those that write and sync, too. What the kernel does on its own
//! threads for a disk is in nobody's figure.

use super::client::{Client, Fill};
use super::disks::{ALWAYS, EVERYSEC, FileSystem, logged};
use super::generator::{Load, Tail};
use super::servers::{Contender, Hosts, Server};
use super::{Flags, median, ratio};
use crate::failure::Failure;
use serde::Serialize;

/// Requests sent at once while servers are filled.
const FILL_PIPELINE: u64 = 500;
/// Requests of the first run, for each request of a pipeline.
const FIRST_REQUESTS: u64 = 5_000;
/// The most of these.
const FIRST_REQUESTS_MAX: u64 = 200_000;
/// What keeps nothing.
const OFF: &str = "off";

/// What came out.
#[derive(Serialize)]
pub(super) struct Durable {
    keys: u64,
    value_bytes: usize,
    connections: u64,
    rounds: u32,
    seconds: f64,
    file_system: FileSystem,
    lines: Vec<Line>,
}

/// One server with one way of syncing and one pipeline.
#[derive(Serialize)]
struct Line {
    pipeline: u64,
    fsync: &'static str,
    server: String,
    is_own: bool,
    per_s: f64,
    per_s_least: f64,
    per_s_most: f64,
    processor_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Copy, Serialize)]
struct Run {
    #[serde(flatten)]
    tail: Tail,
    requests: u64,
    /// The server's processor time for each request.
    processor_us: f64,
}

/// One server with one way of syncing.
struct Entry<'a> {
    base: &'a Contender,
    fsync: &'static str,
    contender: Contender,
    /// For each pipeline: how quick it was last.
    rates: Vec<f64>,
    runs: Vec<Vec<Run>>,
}

pub(super) fn measure(
    flags: &Flags,
    contenders: &[Contender],
    hosts: &Hosts,
    file_system: FileSystem,
) -> Result<Durable, Failure> {
    let (keys, rounds) = (flags.keys_or(1_000_000), flags.rounds_or(5));
    let pipelines = flags.pipelines.len();
    let entry = |base, fsync, contender| Entry {
        base,
        fsync,
        contender,
        rates: vec![0.0; pipelines],
        runs: vec![Vec::new(); pipelines],
    };
    let mut entries = Vec::new();
    for own in contenders.iter().filter(|one| one.is_own) {
        entries.push(entry(own, OFF, own.with(OFF, &[])));
    }
    for fsync in [EVERYSEC, ALWAYS] {
        entries.extend(contenders.iter().map(|base| entry(base, fsync, logged(base, fsync))));
    }
    for round in 0..rounds as usize {
        for turn in 0..entries.len() {
            let at = (round + turn) % entries.len();
            one_round(flags, keys, hosts, &mut entries[at])?;
        }
        eprintln!("round {} of {rounds} is done", round + 1);
    }
    let lines = (0..pipelines)
        .flat_map(|at| entries.iter().map(move |entry| Line::of(flags.pipelines[at], entry, &entry.runs[at])))
        .collect();
    let (value_bytes, connections, seconds) = (flags.value_bytes, flags.connections, flags.seconds);
    Ok(Durable { keys, value_bytes, connections, rounds, seconds, file_system, lines })
}

/// All pipelines on a server of its own.
fn one_round(flags: &Flags, keys: u64, hosts: &Hosts, entry: &mut Entry<'_>) -> Result<(), Failure> {
    hosts.clear(&entry.contender)?;
    let server = hosts.start(&entry.contender)?;
    let fill = Fill { value_bytes: flags.value_bytes, pipeline: FILL_PIPELINE, options: &[] };
    fill.run(server.port, 0..keys)?;
    let held = Client::connect(server.port)?.keys_held()?;
    if held != keys as i64 {
        return Err(format!("{} holds {held} keys of {keys}", server.name).into());
    }
    for (at, pipeline) in flags.pipelines.iter().enumerate() {
        if entry.rates[at] == 0.0 {
            let first = (FIRST_REQUESTS * pipeline).min(FIRST_REQUESTS_MAX);
            entry.rates[at] = run(flags, &server, *pipeline, keys, first)?.tail.figures.per_s;
        }
        let one = run(flags, &server, *pipeline, keys, (entry.rates[at] * flags.seconds) as u64)?;
        let said = one.tail.figures.per_s;
        eprintln!("{}, pipeline {pipeline}: {said:.0}/s, {:.2} us", server.name, one.processor_us);
        entry.rates[at] = said;
        entry.runs[at].push(one);
    }
    drop(server);
    hosts.clear(&entry.contender)
}

fn run(flags: &Flags, server: &Server<'_>, pipeline: u64, keys: u64, requests: u64) -> Result<Run, Failure> {
    server.check_running()?;
    let load = Load {
        program: &flags.generator,
        command: "SET",
        requests: requests.max(flags.connections * pipeline),
        connections: flags.connections,
        pipeline,
        keys,
        value_bytes: flags.value_bytes,
    };
    let before = server.processor_s()?;
    let tail = load.run_with_tail(server.port)?;
    let processor_s = server.processor_s()? - before;
    Ok(Run { tail, requests: load.requests, processor_us: processor_s * 1e6 / load.requests as f64 })
}

impl Line {
    fn of(pipeline: u64, entry: &Entry<'_>, runs: &[Run]) -> Line {
        let all = |pick: fn(&Run) -> f64| runs.iter().map(pick);
        Line {
            pipeline,
            fsync: entry.fsync,
            server: entry.base.name.clone(),
            is_own: entry.base.is_own,
            per_s: median(all(|run| run.tail.figures.per_s)),
            per_s_least: all(|run| run.tail.figures.per_s).fold(f64::INFINITY, f64::min),
            per_s_most: all(|run| run.tail.figures.per_s).fold(0.0, f64::max),
            processor_us: median(all(|run| run.processor_us)),
            p50_ms: median(all(|run| run.tail.figures.p50_ms)),
            p99_ms: median(all(|run| run.tail.figures.p99_ms)),
            p999_ms: median(all(|run| run.tail.p999_ms)),
            max_ms: all(|run| run.tail.figures.max_ms).fold(0.0, f64::max),
            runs: runs.to_vec(),
        }
    }

    /// Of Annulet's own lines: which share of the rate without a log is left. Of a peer's: Annulet's figures, synced alike.
    fn ratios(&self, lines: &[Line]) -> [String; 3] {
        let own = |fsync: &str| {
            lines.iter().find(|own| own.is_own && own.pipeline == self.pipeline && own.fsync == fsync)
        };
        let none = String::new;
        match (self.is_own, own(if self.is_own { OFF } else { self.fsync })) {
            (true, Some(off)) if self.fsync != OFF => [ratio(self.per_s, off.per_s), none(), none()],
            (false, Some(own)) => {
                [none(), ratio(own.per_s, self.per_s), ratio(own.processor_us, self.processor_us)]
            }
            _ => [none(), none(), none()],
        }
    }
}

pub(super) fn text(durable: &Durable) -> String {
    let mut text = format!(
        "SET, {} keys, values of {} bytes, {} connections; {} runs of about {} s each, each server by itself, started anew and filled \
         for each round. {} Logs are not rewritten, nor snapshots made, during a run. Medians; *processor* is the server's processor \
         time for an operation, *busy* what part of its processor that makes. *of off*: Annulet's rate as a part of its own without \
         a log. The last two columns: Annulet's figure, synced alike, to that server's.\n\n\
         | pipeline | sync | server | operations/s | least to most | processor, us | busy | p50, ms | p99, ms | p99.9, ms | longest, ms \
         | of off | Annulet: operations/s | Annulet: processor |\n\
         | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        durable.keys,
        durable.value_bytes,
        durable.connections,
        durable.rounds,
        durable.seconds,
        durable.file_system.text()
    );
    for line in &durable.lines {
        let [of_off, per_s, processor] = line.ratios(&durable.lines);
        text += &format!(
            "| {} | {} | {} | {:.0} | {:.0} to {:.0} | {:.2} | {:.0}% | {:.3} | {:.3} | {:.3} | {:.1} | {of_off} | {per_s} | {processor} |\n",
            line.pipeline,
            line.fsync,
            line.server,
            line.per_s,
            line.per_s_least,
            line.per_s_most,
            line.processor_us,
            line.processor_us * line.per_s / 1e4,
            line.p50_ms,
            line.p99_ms,
            line.p999_ms,
            line.max_ms,
        );
    }
    text
}
