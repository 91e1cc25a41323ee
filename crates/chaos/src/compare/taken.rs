//! Who else had the server's processor. The machine's own threads run there too, for milliseconds at a time where the kernel lets
//! everybody finish a turn, and a hypervisor takes a processor away: a server that waits to run answers nobody, whatever it is like.
//!
//! The kernel keeps a record of that processor: each switch of threads, and a tick of its clock each half a millisecond. A thread that is
//! not the server's has the processor from one switch to the next; where the ticks stop while one of the server's runs, the processor
//! itself was away, or the kernel let no interrupt in. Idle is not taken: the server waits for something. Neither is what the kernel's
//! threads do for the disk and the network, since it is for the server. Nor what is shorter than a quarter of a millisecond.
//!
//! To be shown such records takes a right that root has. Without it nothing is known, and nothing is taken off.

use super::machine::Processors;
use super::servers::Server;
use super::spans::{Span, Spans, Summary};
use super::stops::{self, Role};
use perf_event::events::Software;
use perf_event::{Builder, Clock, Record, SampleFlag, Sampler};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From one tick to the next, in nanoseconds.
const TICK_NS: u64 = 500_000;
/// Two ticks are missing where the processor was away: one may come late.
const AWAY_NS: u64 = 2 * TICK_NS;
/// What is shorter does not count.
const TAKEN_MIN_NS: u64 = 250_000;
/// Room for records, in bytes: a hundred times what gathers from one look at them to the next.
const ROOM_BYTES: usize = 4 << 20;
const DRAIN_PERIOD: Duration = Duration::from_millis(20);
/// What records are called in `linux/perf_event.h`: some were lost (of all kinds, of ticks), a tick, a switch of threads.
const LOST: u32 = 2;
const LOST_SAMPLES: u32 = 13;
const SAMPLE: u32 = 9;
const SWITCH_CPU_WIDE: u32 = 15;
/// Threads of the kernel that work for the server: parts of their names.
const FOR_THE_SERVER: &[&str] = &["ksoftirqd", "kblockd", "flush-", "jbd2", "ext4", "xfs"];

/// What was seen.
#[derive(Default)]
pub(super) struct Taken {
    each: Vec<(Span, String)>,
}

impl Taken {
    pub(super) fn spans(&self) -> Spans {
        Spans::of(self.each.iter().map(|(span, _)| *span).collect())
    }

    /// Those that meet a span.
    pub(super) fn summary(&self, span: Span) -> Summary {
        let inside = self.each.iter().filter(|((start, end), _)| *end > span.0 && *start < span.1);
        let longest = inside.max_by_key(|((start, end), _)| *end - *start);
        Summary { whose: longest.map(|(_, whose)| whose.clone()), ..self.spans().summary(span) }
    }
}

/// Watches until told to end.
pub(super) fn watch(processors: Processors, server: &Server<'_>, ends: &AtomicBool) -> Option<Taken> {
    if processors.load == processors.server {
        return None;
    }
    stops::take_place(Role::Probe);
    let mut records = open(processors.server).ok()?;
    // Both clocks are the same one.
    let zero = (Instant::now(), monotonic_ns()?);
    records.enable().ok()?;
    let mut taken = Taken::default();
    let mut holders = Holders { server: server.process(), ..Holders::default() };
    let mut ended = false;
    while !ended {
        ended = ends.load(Ordering::Relaxed);
        while let Some(record) = records.next_record() {
            match record.ty() {
                SAMPLE | SWITCH_CPU_WIDE => {}
                // What is missing might be anything.
                LOST | LOST_SAMPLES => return None,
                _ => continue,
            }
            let (at, holder) = who_and_when(&record)?;
            holders.has_it(at, holder, &mut |from, to, whose| {
                let instant = |ns: u64| zero.0 + Duration::from_nanos(ns.saturating_sub(zero.1));
                taken.each.push(((instant(from), instant(to)), whose));
            });
        }
        std::thread::sleep(DRAIN_PERIOD);
    }
    Some(taken)
}

fn open(processor: usize) -> io::Result<Sampler> {
    let counter = Builder::new(Software::CPU_CLOCK)
        .any_pid()
        .one_cpu(processor)
        .include_kernel()
        .include_hv()
        .sample_period(TICK_NS)
        .sample(SampleFlag::TID | SampleFlag::TIME)
        .sample_id_all(true)
        .context_switch(true)
        .clockid(Clock::MONOTONIC)
        .build()?;
    counter.sampled(ROOM_BYTES)
}

/// Of the thread that a record is about. With what [`open`] asks for a tick has nothing else, and others end with it: process, thread,
/// nanoseconds.
fn who_and_when(record: &Record<'_>) -> Option<(u64, Holder)> {
    let bytes = record.to_contiguous();
    let (_, bytes) = bytes.split_last_chunk::<16>()?;
    let (process, rest) = bytes.split_first_chunk::<4>()?;
    let (thread, at) = rest.split_first_chunk::<4>()?;
    let holder = Holder { process: u32::from_ne_bytes(*process), thread: u32::from_ne_bytes(*thread) };
    Some((u64::from_ne_bytes(at.try_into().ok()?), holder))
}

fn monotonic_ns() -> Option<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).ok()?;
    u64::try_from(Duration::from(now).as_nanos()).ok()
}

/// A thread that has the processor.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Holder {
    process: u32,
    thread: u32,
}

/// Who had it, one after another.
#[derive(Default)]
struct Holders {
    server: u32,
    /// Who has it, since when, and when that was last seen.
    now: Option<(Holder, u64, u64)>,
}

impl Holders {
    /// At this time, in nanoseconds, this one has the processor: it came, went, or there was a tick. `took` is told from when to when
    /// somebody else had it, and who.
    fn has_it(&mut self, at: u64, holder: Holder, took: &mut impl FnMut(u64, u64, String)) {
        let Some((before, since, seen)) = self.now else {
            self.now = Some((holder, at, at));
            return;
        };
        let is_idle = before.process == 0;
        if at.saturating_sub(seen) > AWAY_NS && !is_idle {
            took(seen + TICK_NS, at, "away".to_owned());
        }
        if before == holder {
            self.now = Some((holder, since, at));
            return;
        }
        self.now = Some((holder, at, at));
        let is_others = before.process != self.server && !is_idle && at.saturating_sub(since) >= TAKEN_MIN_NS;
        if is_others && let Some(whose) = name_of_stranger(before, self.server) {
            took(since, at, whose);
        }
    }
}

/// The name of a thread that has nothing to do with the server.
fn name_of_stranger(holder: Holder, server: u32) -> Option<String> {
    // One that has ended meanwhile may have been the server's child.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", holder.thread)).ok()?;
    stranger(&stat, server)
}

/// By what `/proc` says of it: its name in parentheses, a letter, and its parent, which may be the server.
fn stranger(stat: &str, server: u32) -> Option<String> {
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let parent = rest.split_whitespace().nth(1)?.parse::<u32>().ok()?;
    let is_for_it = parent == server || FOR_THE_SERVER.iter().any(|part| name.contains(part));
    (!is_for_it).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: u32 = 70;

    /// What is taken where the processor is held so: times in microseconds, processes, which are their own threads.
    fn taken(seen: &[(u64, u32)]) -> Vec<(u64, u64, String)> {
        let mut holders = Holders { server: SERVER, now: None };
        let mut taken = Vec::new();
        for (at_us, process) in seen {
            let holder = Holder { process: *process, thread: *process };
            holders.has_it(at_us * 1000, holder, &mut |from, to, whose| {
                taken.push((from / 1000, to / 1000, whose));
            });
        }
        taken
    }

    /// One that does not run any more, or never did.
    const GONE: u32 = u32::MAX;
    /// One that runs, and has nothing to do with anything.
    const OTHER: u32 = 1;

    #[test]
    fn who_else_had_the_processor_is_told_from_when_to_when() {
        let name = std::fs::read_to_string("/proc/1/comm").expect("the first process");
        let of = |from, to| vec![(from, to, name.trim_end().to_owned())];
        // Records of going and coming, and ticks.
        let held = |process| {
            taken(&[
                (0, SERVER),
                (300, SERVER),
                (300, process),
                (800, process),
                (1300, process),
                (1300, SERVER),
            ])
        };
        assert_eq!(held(OTHER), of(300, 1300));
        assert_eq!(held(GONE), [], "it may have been the server's");
        assert_eq!(held(0), [], "idle");
        assert_eq!(held(SERVER), []);
        assert_eq!(taken(&[(0, SERVER), (100, OTHER), (349, OTHER), (349, SERVER)]), [], "a short time");
        assert_eq!(taken(&[(0, SERVER), (100, OTHER), (400, SERVER)]), of(100, 400));
    }

    #[test]
    fn a_processor_that_does_not_tick_is_away() {
        let away = |from, to| vec![(from, to, "away".to_owned())];
        assert_eq!(taken(&[(0, SERVER), (500, SERVER), (1500, SERVER)]), [], "a tick is missing");
        assert_eq!(taken(&[(0, SERVER), (500, SERVER), (6000, SERVER)]), away(1000, 6000));
        assert_eq!(
            taken(&[(0, 0), (6000, SERVER), (6100, SERVER)]),
            [],
            "nobody was there to be kept waiting"
        );
    }

    #[test]
    fn who_works_for_the_server_is_no_stranger() {
        let of = |stat: &str| stranger(stat, SERVER);
        assert_eq!(of("31 (kdamond.0) R 2 0 0").as_deref(), Some("kdamond.0"));
        assert_eq!(of("31 (a (strange) name) S 1 0 0").as_deref(), Some("a (strange) name"));
        assert_eq!(of("31 (kworker/0:1H-kblockd) I 2 0 0"), None);
        assert_eq!(of("31 (ksoftirqd/0) S 2 0 0"), None);
        assert_eq!(of("31 (redis-rdb-bgsave) R 70 0 0"), None, "its child");
    }
}
