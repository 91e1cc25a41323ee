//! Snapshots of everything while writes go on at full speed: what they cost those who write, and in memory.
//!
//! One server after another, each with a log that is synced every second, filled first. Then [`super::stream`] writes, and after a
//! second the figures of some seconds are noted; then BGSAVE is asked for, and figures are noted until it is done. That is
//! repeated on the same server, which saves everything anew: nearly all keys have changed.
//!
//! Beside the load one more connection reads, a request at a time, each millisecond: a read waits for no disk, so how long it takes
//! tells how long the thread that serves stands still. A machine that is shared has pauses of its own, so the processor time that
//! all threads of the server took during each read is noted too, as [`super::pauses`] does: by what it does on its one processor no
//! server makes a read wait longer than that.
//!
//! Memory on top is what the process holds more than before at its greatest; with a server that saves in a child process, the pages
//! that it says it had to copy meanwhile (`rdb_last_cow_size`) come to that.

use super::client::{Client, Fill, request};
use super::disks::{EVERYSEC, FileSystem, bytes_below, logged, wait_saved};
use super::servers::{Contender, Hosts, Server};
use super::stream::{Heard, Stream};
use super::{Flags, median};
use crate::failure::Failure;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const FILL_PIPELINE: u64 = 500;
/// Requests of a batch.
const PIPELINE: u64 = 16;
/// How long is written before anything is noted.
const LEAD: Duration = Duration::from_secs(1);
/// From one look at the process's memory to the next.
const TICK: Duration = Duration::from_millis(20);
/// From one read to the next.
const READ_PERIOD: Duration = Duration::from_millis(1);
/// The reading thread goes before the load's, where the system lets it.
const READ_NICE: i32 = -20;
/// Phases: not noted, before, during; a fourth ends the load.
const PHASES: usize = 3;

/// What came out.
#[derive(Serialize)]
pub(super) struct Snapshots {
    keys: u64,
    value_bytes: usize,
    connections: u64,
    rounds: u32,
    file_system: FileSystem,
    lines: Vec<Line>,
}

/// One server.
#[derive(Serialize)]
struct Line {
    server: String,
    is_own: bool,
    before: Part,
    during: Part,
    reads_before: Reads,
    reads_during: Reads,
    /// The longest time in which no write was answered to anybody.
    silence_before_ms: f64,
    silence_during_ms: f64,
    lasted_s: f64,
    /// Resident before, and what was added to it at the most.
    resident_bytes: f64,
    on_top_bytes: f64,
    disk_bytes: u64,
    runs: Vec<Run>,
}

/// How writes fared in a stretch of time.
#[derive(Clone, Copy, Default, Serialize)]
struct Part {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    longest_ms: f64,
}

/// How reads fared.
#[derive(Clone, Copy, Default, Serialize)]
struct Reads {
    #[serde(flatten)]
    part: Part,
    /// The most processor time that the server took during one of them.
    processor_ms: f64,
}

#[derive(Serialize)]
struct Run {
    before: Part,
    during: Part,
    reads_before: Reads,
    reads_during: Reads,
    /// The longest time in which no write was answered to anybody.
    silence_before_ms: f64,
    silence_during_ms: f64,
    lasted_s: f64,
    resident_bytes: u64,
    on_top_bytes: u64,
}

pub(super) fn measure(
    flags: &Flags,
    contenders: &[Contender],
    hosts: &Hosts,
    file_system: FileSystem,
) -> Result<Snapshots, Failure> {
    let (keys, rounds) = (flags.keys_or(5_000_000), flags.rounds_or(3));
    let mut lines = Vec::new();
    for base in contenders {
        let contender = logged(base, EVERYSEC);
        hosts.clear(&contender)?;
        let server = hosts.start(&contender)?;
        let fill = Fill { value_bytes: flags.value_bytes, pipeline: FILL_PIPELINE, options: &[] };
        fill.run(server.port, 0..keys)?;
        let mut runs = Vec::new();
        for _ in 0..rounds {
            let run = one_round(flags, keys, hosts, &server)?;
            eprintln!(
                "{}: saved in {:.1} s; p99.9 {:.2} ms, longest {:.2} ms; before: {:.2}, {:.2}",
                base.name,
                run.lasted_s,
                run.during.p999_ms,
                run.during.longest_ms,
                run.before.p999_ms,
                run.before.longest_ms
            );
            runs.push(run);
        }
        drop(server);
        let disk_bytes = bytes_below(&hosts.data_dir(&contender))?;
        hosts.clear(&contender)?;
        lines.push(Line::of(base, disk_bytes, runs));
    }
    let (value_bytes, connections) = (flags.value_bytes, flags.connections);
    Ok(Snapshots { keys, value_bytes, connections, rounds, file_system, lines })
}

/// What is seen of the process while writes go on.
#[derive(Default)]
struct Watched {
    before_s: f64,
    during_s: f64,
    resident_bytes: u64,
    on_top_bytes: u64,
}

fn one_round(flags: &Flags, keys: u64, hosts: &Hosts, server: &Server<'_>) -> Result<Run, Failure> {
    let stream = Stream {
        port: server.port,
        connections: flags.connections,
        pipeline: PIPELINE,
        keys,
        value_bytes: flags.value_bytes,
    };
    let phase = AtomicUsize::new(0);
    let (took, reads, watched) = std::thread::scope(|scope| {
        let load = scope.spawn(|| stream.run(&phase, PHASES));
        let reads = scope.spawn(|| read(server, &phase));
        let watched = watch(flags, hosts, server, &phase);
        phase.store(PHASES, Ordering::Relaxed);
        (load.join(), reads.join(), watched)
    });
    server.check_running()?;
    // A panic has ended the program.
    let heard = took.map_err(|_| "the load panicked")??;
    let [_, reads_before, reads_during] = reads.map_err(|_| "the reads panicked")??;
    let watched = watched?;
    let [_, before, during] = <[Heard; PHASES]>::try_from(heard).map_err(|_| "three phases")?;
    Ok(Run {
        silence_before_ms: before.longest_silence.as_secs_f64() * 1e3,
        silence_during_ms: during.longest_silence.as_secs_f64() * 1e3,
        before: Part::of(before.took_us, PIPELINE, watched.before_s),
        during: Part::of(during.took_us, PIPELINE, watched.during_s),
        reads_before: Reads::of(reads_before, watched.before_s),
        reads_during: Reads::of(reads_during, watched.during_s),
        lasted_s: watched.during_s,
        resident_bytes: watched.resident_bytes,
        on_top_bytes: watched.on_top_bytes,
    })
}

/// The reads of a phase: how long each took in microseconds, and the most that the server ran during one.
#[derive(Default)]
struct Noted {
    took_us: Vec<u32>,
    ran_most: Duration,
}

/// Reads until the last phase is over.
fn read(server: &Server<'_>, phase: &AtomicUsize) -> Result<[Noted; PHASES], Failure> {
    let _ = rustix::process::setpriority_process(None, READ_NICE);
    let processor = server.processor_clock()?;
    let ran = || processor.now().map(Duration::from).map_err(std::io::Error::from);
    let mut client = Client::connect(server.port)?;
    let ask = request(&[b"GET", b"nobody writes this"]);
    let mut noted: [Noted; PHASES] = Default::default();
    loop {
        let at = phase.load(Ordering::Relaxed);
        let Some(noted) = noted.get_mut(at) else { break };
        let ran_before = ran()?;
        let sent = Instant::now();
        client.send(&ask)?;
        client.head(false)?;
        let took = sent.elapsed();
        noted.took_us.push(took.as_micros() as u32);
        // What it did while this thread itself was held up after the answer is not counted.
        noted.ran_most = noted.ran_most.max(ran()?.saturating_sub(ran_before).min(took));
        std::thread::sleep(READ_PERIOD);
    }
    Ok(noted)
}

/// Goes through the phases.
fn watch(flags: &Flags, hosts: &Hosts, server: &Server<'_>, phase: &AtomicUsize) -> Result<Watched, Failure> {
    let mut client = Client::connect(server.port)?;
    std::thread::sleep(LEAD);
    let mut watched = Watched::default();
    let began = Instant::now();
    phase.store(1, Ordering::Relaxed);
    while began.elapsed().as_secs_f64() < flags.seconds {
        watched.resident_bytes = watched.resident_bytes.max(server.resident()?.0);
        std::thread::sleep(TICK);
    }
    watched.before_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    phase.store(2, Ordering::Relaxed);
    client.must(&[b"BGSAVE"])?;
    let done = AtomicUsize::new(0);
    let (greatest, saved) = std::thread::scope(|scope| {
        let memory = scope.spawn(|| -> Result<u64, Failure> {
            let mut greatest = 0;
            while done.load(Ordering::Relaxed) == 0 {
                greatest = greatest.max(server.resident()?.0);
                std::thread::sleep(TICK);
            }
            Ok(greatest)
        });
        let saved = wait_saved(&mut client, hosts.patience());
        done.store(1, Ordering::Relaxed);
        (memory.join(), saved)
    });
    saved?;
    watched.during_s = began.elapsed().as_secs_f64();
    phase.store(0, Ordering::Relaxed);
    let greatest = greatest.map_err(|_| "the look at memory panicked")??;
    let copied = client.persistence()?.get("rdb_last_cow_size").and_then(|bytes| bytes.parse::<u64>().ok());
    watched.on_top_bytes = greatest.saturating_sub(watched.resident_bytes) + copied.unwrap_or(0);
    Ok(watched)
}

impl Part {
    fn of(mut took_us: Vec<u32>, requests: u64, lasted_s: f64) -> Part {
        took_us.sort_unstable();
        let at = |share: f64| {
            let rank = (took_us.len() as f64 * share).ceil() as usize;
            f64::from(took_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)) / 1e3
        };
        Part {
            per_s: took_us.len() as f64 * requests as f64 / lasted_s,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            longest_ms: at(1.0),
        }
    }

    /// The medians, and the longest of all.
    fn median(parts: &[Part]) -> Part {
        let all = |pick: fn(&Part) -> f64| parts.iter().map(pick);
        Part {
            per_s: median(all(|part| part.per_s)),
            p50_ms: median(all(|part| part.p50_ms)),
            p99_ms: median(all(|part| part.p99_ms)),
            p999_ms: median(all(|part| part.p999_ms)),
            longest_ms: all(|part| part.longest_ms).fold(0.0, f64::max),
        }
    }
}

impl Reads {
    fn of(noted: Noted, lasted_s: f64) -> Reads {
        let processor_ms = noted.ran_most.as_secs_f64() * 1e3;
        Reads { part: Part::of(noted.took_us, 1, lasted_s), processor_ms }
    }

    /// The medians, and the longest of all.
    fn median(reads: &[Reads]) -> Reads {
        let parts: Vec<Part> = reads.iter().map(|reads| reads.part).collect();
        let processor_ms = reads.iter().map(|reads| reads.processor_ms).fold(0.0, f64::max);
        Reads { part: Part::median(&parts), processor_ms }
    }
}

impl Line {
    fn of(base: &Contender, disk_bytes: u64, runs: Vec<Run>) -> Line {
        let part = |pick: fn(&Run) -> Part| Part::median(&runs.iter().map(pick).collect::<Vec<_>>());
        let reads = |pick: fn(&Run) -> Reads| Reads::median(&runs.iter().map(pick).collect::<Vec<_>>());
        Line {
            server: base.name.clone(),
            is_own: base.is_own,
            before: part(|run| run.before),
            during: part(|run| run.during),
            reads_before: reads(|run| run.reads_before),
            reads_during: reads(|run| run.reads_during),
            silence_before_ms: runs.iter().map(|run| run.silence_before_ms).fold(0.0, f64::max),
            silence_during_ms: runs.iter().map(|run| run.silence_during_ms).fold(0.0, f64::max),
            lasted_s: median(runs.iter().map(|run| run.lasted_s)),
            resident_bytes: median(runs.iter().map(|run| run.resident_bytes as f64)),
            on_top_bytes: median(runs.iter().map(|run| run.on_top_bytes as f64)),
            disk_bytes,
            runs,
        }
    }
}

pub(super) fn text(snapshots: &Snapshots) -> String {
    let mut text = format!(
        "{} keys of 16 bytes with values of {} bytes, {} connections that write at full speed, {PIPELINE} requests at once, to a log \
         synced every second. {} Before, and while BGSAVE writes everything: how long a batch of {PIPELINE} took, the longest time \
         in which nobody's write was answered, and how long a read on a connection of its own, which waits for no disk, with the most processor time that the server took during \
         one. Medians of {} saves, the longest of all. *On top*: memory \
         beyond what the process held before, copied pages of a child process counted.\n\n\
         | server | when | operations/s | p50, ms | p99, ms | p99.9, ms | longest, ms | nobody answered, ms | reads: p99.9, ms | longest, ms | processor, ms | lasted, s | resident, MiB | on top, MiB | on top |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        snapshots.keys,
        snapshots.value_bytes,
        snapshots.connections,
        snapshots.file_system.text(),
        snapshots.rounds
    );
    let mib = |bytes: f64| bytes / 1_048_576.0;
    for line in &snapshots.lines {
        let phases = [
            ("before", &line.before, line.silence_before_ms, &line.reads_before),
            ("BGSAVE", &line.during, line.silence_during_ms, &line.reads_during),
        ];
        for (when, part, silence_ms, reads) in phases {
            text += &format!(
                "| {} | {when} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {silence_ms:.1} | {:.2} | {:.1} | {:.2} |",
                line.server,
                part.per_s,
                part.p50_ms,
                part.p99_ms,
                part.p999_ms,
                part.longest_ms,
                reads.part.p999_ms,
                reads.part.longest_ms,
                reads.processor_ms
            );
            text += &match when {
                "before" => format!("  | {:.0} |  |  |\n", mib(line.resident_bytes)),
                _ => format!(
                    " {:.1} |  | {:.0} | {:.0}% |\n",
                    line.lasted_s,
                    mib(line.on_top_bytes),
                    100.0 * line.on_top_bytes / line.resident_bytes
                ),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_batches() {
        let part = Part::of((1..=2000).map(|ms| ms * 1000).collect(), PIPELINE, 4.0);
        assert_eq!(
            (part.per_s, part.p50_ms, part.p99_ms, part.p999_ms, part.longest_ms),
            (8000.0, 1000.0, 1980.0, 1998.0, 2000.0)
        );
        assert_eq!(Part::of(Vec::new(), PIPELINE, 1.0).longest_ms, 0.0);
        let slow = Part { longest_ms: 9.0, p99_ms: 1.0, ..Part::default() };
        let all = Part::median(&[
            slow,
            Part { p99_ms: 3.0, ..Part::default() },
            Part { p99_ms: 2.0, ..Part::default() },
        ]);
        assert_eq!((all.longest_ms, all.p99_ms), (9.0, 2.0));
    }
}
