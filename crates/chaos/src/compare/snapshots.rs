//! Snapshots of everything while writes go on at full speed: what they cost those who write, and in memory.
//!
//! One server after another, each with a log that is synced every second, filled first. Then [`super::stream`] writes, and after a
//! second the figures of some seconds are noted; then BGSAVE is asked for, and figures are noted until it is done. That is
//! repeated on the same server, which saves everything anew: nearly all keys have changed.
//!
//! Beside the load one more connection reads, a request at a time, each millisecond: a read waits for no disk, so how long it takes
//! tells how long the thread that serves stands still. A machine that is shared has pauses of its own, and threads of its own. They are
//! watched for ([`super::stops`], [`super::taken`]), and beside the longest times stand the longest *less* what they took of them.
//!
//! Memory on top is what the process holds more than before at its greatest; with a server that saves in a child process, the pages
//! that it says it had to copy meanwhile (`rdb_last_cow_size`) come to that.

use super::client::{Client, Fill, request};
use super::disks::{EVERYSEC, FileSystem, bytes_below, logged, wait_saved};
use super::servers::{Contender, Hosts, Server};
use super::spans::{Span, Spans, Summary};
use super::stops::{self, Role};
use super::stream::{Heard, LONG, LONG_SILENCE, Stream};
use super::taken::{self, Taken};
use super::{Flags, median};
use crate::failure::Failure;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
/// A read that took so long is noted by itself.
const LONG_READ: Duration = Duration::from_millis(1);
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
    before: Phase,
    during: Phase,
    lasted_s: f64,
    /// Resident before, and what was added to it at the most.
    resident_bytes: f64,
    on_top_bytes: f64,
    disk_bytes: u64,
    runs: Vec<Run>,
}

/// What was seen in a stretch of time.
#[derive(Clone, Default, Serialize)]
struct Phase {
    writes: Part,
    /// Times in which no write was answered to anybody: the longest.
    silence: Longest,
    reads: Part,
    /// How the load's processor stood still.
    stops: Summary,
    /// Who else had the server's.
    taken: Summary,
}

/// How requests fared.
#[derive(Clone, Copy, Default, Serialize)]
struct Part {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    #[serde(flatten)]
    longest: Longest,
}

/// The longest time, and the longest less what the machine took of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Longest {
    longest_ms: f64,
    less_ms: f64,
}

#[derive(Serialize)]
struct Run {
    before: Phase,
    during: Phase,
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
                run.during.writes.p999_ms,
                run.during.writes.longest.longest_ms,
                run.before.writes.p999_ms,
                run.before.writes.longest.longest_ms
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
struct Watched {
    before: Span,
    during: Span,
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
    let ends = AtomicBool::new(false);
    let (took, reads, stops, taken, watched) = std::thread::scope(|scope| {
        let stops = scope.spawn(|| stops::watch(hosts.processors, &ends));
        let taken = scope.spawn(|| taken::watch(hosts.processors, server, &ends));
        let load = scope.spawn(|| stream.run(&phase, PHASES));
        let reads = scope.spawn(|| read(server, &phase));
        let watched = scope.spawn(|| watch(flags, hosts, server, &phase)).join();
        phase.store(PHASES, Ordering::Relaxed);
        let (took, reads) = (load.join(), reads.join());
        ends.store(true, Ordering::Relaxed);
        (took, reads, stops.join(), taken.join(), watched)
    });
    server.check_running()?;
    // A panic has ended the program.
    let heard = took.map_err(|_| "the load panicked")??;
    let [_, reads_before, reads_during] = reads.map_err(|_| "the reads panicked")??;
    let stops = stops.map_err(|_| "the look at the clock panicked")?;
    let taken = taken.map_err(|_| "the look at the processor panicked")?;
    let machine = [stops.clone(), taken.as_ref().map(Taken::spans)];
    let machine = machine.iter().flatten().fold(Spans::default(), |all, spans| all.and(spans));
    let watched = watched.map_err(|_| "the look at the process panicked")??;
    let [_, before, during] = <[Heard; PHASES]>::try_from(heard).map_err(|_| "three phases")?;
    let phase = |heard: Heard, reads: Noted, span: Span| {
        let lasted_s = (span.1 - span.0).as_secs_f64();
        Phase {
            silence: Longest::of(&heard.silences, LONG_SILENCE, &machine),
            writes: {
                let longest = Longest::of(&heard.long, longest_below(&heard.took_us, LONG), &machine);
                Part::of(heard.took_us, longest, PIPELINE, lasted_s)
            },
            reads: {
                let longest = Longest::of(&reads.long, longest_below(&reads.took_us, LONG_READ), &machine);
                Part::of(reads.took_us, longest, 1, lasted_s)
            },
            stops: stops.as_ref().map(|stops| stops.summary(span)).unwrap_or_default(),
            taken: taken.as_ref().map(|taken| taken.summary(span)).unwrap_or_default(),
        }
    };
    Ok(Run {
        before: phase(before, reads_before, watched.before),
        during: phase(during, reads_during, watched.during),
        lasted_s: (watched.during.1 - watched.during.0).as_secs_f64(),
        resident_bytes: watched.resident_bytes,
        on_top_bytes: watched.on_top_bytes,
    })
}

/// The reads of a phase: how long each took in microseconds, and those that took long.
#[derive(Default)]
struct Noted {
    took_us: Vec<u32>,
    long: Vec<Span>,
}

/// Reads until the last phase is over.
fn read(server: &Server<'_>, phase: &AtomicUsize) -> Result<[Noted; PHASES], Failure> {
    stops::take_place(Role::Probe);
    let mut client = Client::connect(server.port)?;
    let ask = request(&[b"GET", b"nobody writes this"]);
    let mut noted: [Noted; PHASES] = Default::default();
    loop {
        let at = phase.load(Ordering::Relaxed);
        let Some(noted) = noted.get_mut(at) else { break };
        let sent = Instant::now();
        client.send(&ask)?;
        client.head(false)?;
        let answered = Instant::now();
        noted.took_us.push((answered - sent).as_micros() as u32);
        if answered - sent >= LONG_READ {
            noted.long.push((sent, answered));
        }
        std::thread::sleep(READ_PERIOD);
    }
    Ok(noted)
}

/// Goes through the phases.
fn watch(flags: &Flags, hosts: &Hosts, server: &Server<'_>, phase: &AtomicUsize) -> Result<Watched, Failure> {
    stops::take_place(Role::Probe);
    let mut client = Client::connect(server.port)?;
    std::thread::sleep(LEAD);
    let mut resident_bytes = 0;
    let began = Instant::now();
    phase.store(1, Ordering::Relaxed);
    while began.elapsed().as_secs_f64() < flags.seconds {
        resident_bytes = server.resident()?.0.max(resident_bytes);
        std::thread::sleep(TICK);
    }
    let save_began = Instant::now();
    phase.store(2, Ordering::Relaxed);
    client.must(&[b"BGSAVE"])?;
    let done = AtomicUsize::new(0);
    let (greatest, saved) = std::thread::scope(|scope| {
        let memory = scope.spawn(|| -> Result<u64, Failure> {
            let mut greatest = 0;
            stops::take_place(Role::Probe);
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
    let save_ended = Instant::now();
    phase.store(0, Ordering::Relaxed);
    let greatest = greatest.map_err(|_| "the look at memory panicked")??;
    let copied = client.persistence()?.get("rdb_last_cow_size").and_then(|bytes| bytes.parse::<u64>().ok());
    Ok(Watched {
        before: (began, save_began),
        during: (save_began, save_ended),
        resident_bytes,
        on_top_bytes: greatest.saturating_sub(resident_bytes) + copied.unwrap_or(0),
    })
}

impl Longest {
    /// Of those that were noted, and the longest beside them, of which nothing is taken off.
    fn of(spans: &[Span], beside: Duration, machine: &Spans) -> Longest {
        let longest = spans.iter().map(|(from, to)| *to - *from).max().unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Longest { longest_ms: ms(longest.max(beside)), less_ms: ms(machine.longest_less(spans).max(beside)) }
    }

    /// The longest of all, each by itself.
    fn most(all: impl Iterator<Item = Longest>) -> Longest {
        all.fold(Longest::default(), |most, one| Longest {
            longest_ms: most.longest_ms.max(one.longest_ms),
            less_ms: most.less_ms.max(one.less_ms),
        })
    }
}

/// The longest that took less than so long.
fn longest_below(took_us: &[u32], least: Duration) -> Duration {
    let took = took_us.iter().map(|us| Duration::from_micros(u64::from(*us)));
    took.filter(|took| *took < least).max().unwrap_or_default()
}

impl Part {
    fn of(mut took_us: Vec<u32>, longest: Longest, requests: u64, lasted_s: f64) -> Part {
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
            longest,
        }
    }

    /// The medians, and the longest of all.
    fn median(parts: &[Part]) -> Part {
        let all = |pick: fn(&Part) -> f64| median(parts.iter().map(pick));
        Part {
            per_s: all(|part| part.per_s),
            p50_ms: all(|part| part.p50_ms),
            p99_ms: all(|part| part.p99_ms),
            p999_ms: all(|part| part.p999_ms),
            longest: Longest::most(parts.iter().map(|part| part.longest)),
        }
    }
}

impl Phase {
    fn median(phases: &[Phase]) -> Phase {
        let part = |pick: fn(&Phase) -> Part| Part::median(&phases.iter().map(pick).collect::<Vec<_>>());
        Phase {
            writes: part(|phase| phase.writes),
            silence: Longest::most(phases.iter().map(|phase| phase.silence)),
            reads: part(|phase| phase.reads),
            stops: Summary::all(phases.iter().map(|phase| &phase.stops)),
            taken: Summary::all(phases.iter().map(|phase| &phase.taken)),
        }
    }
}

impl Line {
    fn of(base: &Contender, disk_bytes: u64, runs: Vec<Run>) -> Line {
        let phase =
            |pick: fn(&Run) -> &Phase| Phase::median(&runs.iter().map(pick).cloned().collect::<Vec<_>>());
        Line {
            server: base.name.clone(),
            is_own: base.is_own,
            before: phase(|run| &run.before),
            during: phase(|run| &run.during),
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
         in which nobody's write was answered, and how long a read on a connection of its own, which waits for no disk. Medians of {} \
         saves, the longest of all. *Less*: the longest less what the machine took of it. *Stops*: how often, and for how long at most, the \
         load's processor stood still, as a thread saw that goes before all others there and only looks at the clock. *Taken*: the same of the \
         server's processor, which another thread of the machine had, or nobody in it (away), and whose the longest was. From 0.25 ms on, away from 1 ms on. \
         *On top*: memory beyond what the process held before, copied pages of a child process counted.\n\n\
         | server | when | operations/s | p50, ms | p99, ms | p99.9, ms | longest, ms | less | nobody answered, ms | less | reads: p99.9, ms | longest, ms | less | stops | taken | lasted, s | resident, MiB | on top, MiB | on top |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        snapshots.keys,
        snapshots.value_bytes,
        snapshots.connections,
        snapshots.file_system.text(),
        snapshots.rounds
    );
    let mib = |bytes: f64| bytes / 1_048_576.0;
    for line in &snapshots.lines {
        for (when, phase) in [("before", &line.before), ("BGSAVE", &line.during)] {
            let Phase { writes, silence, reads, stops, taken } = phase;
            // Where nothing is known nothing was taken off.
            let less = |longest: &Longest| match stops.are_known || taken.are_known {
                true => format!("{:.1} | {:.1}", longest.longest_ms, longest.less_ms),
                false => format!("{:.1} |  ", longest.longest_ms),
            };
            text += &format!(
                "| {} | {when} | {:.0} | {:.2} | {:.2} | {:.2} | {} | {} | {:.2} | {} | {} | {} |",
                line.server,
                writes.per_s,
                writes.p50_ms,
                writes.p99_ms,
                writes.p999_ms,
                less(&writes.longest),
                less(silence),
                reads.p999_ms,
                less(&reads.longest),
                stops.text(),
                taken.text(),
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
    fn the_longest_is_no_less_than_what_was_not_noted() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let machine = Spans::of(vec![(at(10), at(18))]);
        let below = longest_below(&[2900, 3000, 10_000, 400], LONG);
        let longest = Longest::of(&[(at(10), at(20))], below, &machine);
        assert_eq!(longest, Longest { longest_ms: 10.0, less_ms: 2.9 });
        let longest = Longest::of(&[(at(10), at(20)), (at(30), at(34))], below, &machine);
        assert_eq!(longest, Longest { longest_ms: 10.0, less_ms: 4.0 });
        let longest = Longest::of(&[], below, &machine);
        assert_eq!(longest, Longest { longest_ms: 2.9, less_ms: 2.9 });
    }

    #[test]
    fn percentiles_are_of_all_batches() {
        let longest = Longest { longest_ms: 2000.0, less_ms: 1500.0 };
        let part = Part::of((1..=2000).map(|ms| ms * 1000).collect(), longest, PIPELINE, 4.0);
        assert_eq!(
            (part.per_s, part.p50_ms, part.p99_ms, part.p999_ms, part.longest),
            (8000.0, 1000.0, 1980.0, 1998.0, longest)
        );
        assert_eq!(Part::of(Vec::new(), Longest::default(), PIPELINE, 1.0).p50_ms, 0.0);
        let slow =
            Part { longest: Longest { longest_ms: 9.0, less_ms: 1.0 }, p99_ms: 1.0, ..Part::default() };
        let other = Longest { longest_ms: 3.0, less_ms: 3.0 };
        let all = Part::median(&[
            slow,
            Part { p99_ms: 3.0, longest: other, ..Part::default() },
            Part { p99_ms: 2.0, ..Part::default() },
        ]);
        assert_eq!((all.longest, all.p99_ms), (Longest { longest_ms: 9.0, less_ms: 3.0 }, 2.0));
    }
}
