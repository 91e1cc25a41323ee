//! Runs seeds of the simulator: `sim --seed N [--trace]`, or `sim --seeds A..B [--jobs J]`; or clusters of growing sizes, to see what
//! their work grows with: `sim --scale 5,10,20`.
//!
//! A seed that fails is made small ([`sim::shrink`]), and what is left of it is printed as one line that runs it again.

use rustix::time::{ClockId, clock_gettime};
use sim::keep::{Keep, PARTS};
use sim::network::MS;
use sim::scale_tables::tables;
use sim::shrink::{Progress, Shrunk, shrink};
use sim::{Failure, Options, Summary, run, scale};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: sim --seed N [--trace] [--no-shrink] [--log-off] [--keep-faults 3,9-12] [--keep-shapes ..] [--keep-hand-overs ..]
                    [--keep-upgrades ..] [--keep-breaks ..] [--keep-clients ..] [--end-ms MS]
       sim --seeds A..B [--jobs J] [--keep-going] [--no-shrink] [--log-off]
       sim --scale NODES,NODES...";

/// What a search for a smaller run may take.
const SHRINK_RUNS_MAX: usize = 400;
const SHRINK_TIME_MAX: Duration = Duration::from_secs(180);
/// Failing seeds of a campaign that goes on that are made small.
const SHRUNK_MAX: usize = 2;

thread_local! {
    static IN_RUN: Cell<bool> = const { Cell::new(false) };
}

struct Arguments {
    first: u64,
    end: u64,
    jobs: usize,
    trace: bool,
    keep_going: bool,
    shrinks: bool,
    log_off: bool,
    keep: Keep,
}

fn arguments() -> Option<Arguments> {
    let mut parsed = Arguments {
        first: 0,
        end: 0,
        jobs: 1,
        trace: false,
        keep_going: false,
        shrinks: true,
        log_off: false,
        keep: Keep::ALL,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => {
                parsed.first = words.next()?.parse().ok()?;
                parsed.end = parsed.first + 1;
            }
            "--seeds" => {
                let range = words.next()?;
                let (first, end) = range.split_once("..")?;
                (parsed.first, parsed.end) = (first.parse().ok()?, end.parse().ok()?);
            }
            "--jobs" => parsed.jobs = words.next()?.parse().ok()?,
            "--trace" => parsed.trace = true,
            "--keep-going" => parsed.keep_going = true,
            "--no-shrink" => parsed.shrinks = false,
            "--log-off" => parsed.log_off = true,
            "--end-ms" => parsed.keep.end_ms = Some(words.next()?.parse().ok()?),
            flag => {
                let part = PARTS.into_iter().find(|part| part.flag() == flag)?;
                parsed.keep.parts.insert(part, words.next()?.parse().ok()?);
            }
        }
    }
    (parsed.first < parsed.end && parsed.jobs > 0).then_some(parsed)
}

impl Arguments {
    fn options(&self) -> Options {
        Options { log_off: self.log_off, keep: self.keep.clone(), ..Options::default() }
    }
}

/// The line that runs a seed again.
fn replay(seed: u64, options: &Options) -> String {
    let log_off = if options.log_off { " --log-off" } else { "" };
    let keep = &options.keep;
    format!("cargo run --profile campaign -p annulet-sim --bin sim -- --seed {seed}{log_off}{keep} --trace")
}

/// Makes a failing run small, and says how far it is now and then.
fn smaller(failure: Failure, options: &Options) -> Shrunk {
    let (began, mut said) = (Instant::now(), Instant::now());
    let (seed, all) = (failure.seed, failure.happened.len());
    shrink(failure, options, &mut |Progress { runs, left }| {
        if said.elapsed() > Duration::from_secs(5) {
            said = Instant::now();
            eprintln!("seed {seed}: {left} of {all} things are left after {runs} runs");
        }
        runs < SHRINK_RUNS_MAX && began.elapsed() < SHRINK_TIME_MAX
    })
}

fn report(failure: Failure, arguments: &Arguments) {
    IN_RUN.set(true);
    let (seed, all) = (failure.seed, failure.happened.len());
    let mut options = arguments.options();
    println!("seed {seed} failed at {}: {}", sim::checks::shown(failure.now), failure.what);
    if arguments.shrinks {
        let Shrunk { keep, failure, runs } = smaller(failure, &options);
        options.keep = keep;
        // The run is a function of its seed and of what is left of it: the same once more, with its last lines.
        let again = run(seed, Options { keep_trace: true, ..options.clone() });
        if let Err(again) = again {
            again.trace.iter().for_each(|line| println!("{line}"));
        }
        println!(
            "seed {seed}, of which {} of {all} things are left after {runs} runs, fails at {}: {}",
            failure.happened.len(),
            sim::checks::shown(failure.now),
            failure.what
        );
    }
    println!("replay: {}", replay(seed, &options));
}

/// How often each sort of thing happened.
fn show_counts(counts: &BTreeMap<String, u64>) {
    let counts: Vec<String> = counts.iter().map(|(sort, count)| format!("{sort} {count}")).collect();
    println!("what happened: {}", counts.join(", "));
}

fn show(seed: u64, summary: &Summary) {
    println!(
        "seed {seed}: {} events, {} operations ({} unknown, {} refused), {} stale reads, {} changes followed, {} snapshots, {} transfers ({} gone on), {} faults, {} upgrades ({}{}), {} reigns, {} hand-overs and {} of the lead, \
         {} changes of shape with {} copies moved, {} changes of the voters, \
         {} partitions lost, whole again after {} ms, hash {:016x}",
        summary.events,
        summary.operations,
        summary.unknown,
        summary.refused,
        summary.stale_reads,
        summary.followed,
        summary.snapshots,
        summary.transfers,
        summary.transfers_gone_on,
        summary.faults,
        summary.upgrades,
        if summary.mixed { "mixed builds" } else { "one build" },
        if summary.raised { ", level risen" } else { "" },
        summary.reigns,
        summary.hand_overs,
        summary.leads_given,
        summary.shapes,
        summary.moved,
        summary.voters_changed,
        summary.lost,
        summary.mended / 1_000_000,
        summary.hash
    );
}

/// What this thread has had of the processor, in nanoseconds.
fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs clusters of these sizes, and prints what their work was. None: the sizes do not parse.
fn scale(sizes: &str) -> Option<Result<(), String>> {
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.parse().ok()).collect::<Option<_>>()?;
    let run = |coordinator_dies| -> Result<Vec<scale::Report>, String> {
        let one = |&nodes: &usize| {
            let report = scale::run(nodes, coordinator_dies, processor_ns)?;
            let took: Vec<u64> = report.phases.iter().map(|figures| figures.took / MS).collect();
            eprintln!("{nodes} nodes: {took:?} ms");
            Ok(report)
        };
        sizes.iter().map(one).collect()
    };
    if sizes.iter().any(|nodes| !(3..=1000).contains(nodes)) {
        return None;
    }
    let reports = run(false).and_then(|deaths| Ok((deaths, run(true)?)));
    Some(reports.map(|(deaths, heads)| print!("{}", tables(&deaths, &heads))))
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, sizes] = &words[..]
        && word == "--scale"
    {
        match scale(sizes) {
            Some(Ok(())) => return,
            Some(Err(why)) => eprintln!("{why}"),
            None => eprintln!("{USAGE}"),
        }
        std::process::exit(2);
    }
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let usual = std::panic::take_hook();
    let is_shown = arguments.trace;
    std::panic::set_hook(Box::new(move |info| {
        // A run says itself what did not hold, unless it is the end of the process; where is told to those who look closer.
        if is_shown || cfg!(panic = "abort") || !IN_RUN.get() {
            usual(info);
        }
    }));
    let began = Instant::now();
    let (next, failed, stop) = (AtomicU64::new(arguments.first), AtomicU64::new(0), AtomicBool::new(false));
    let (operations, unknown, lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (transfers, gone_on, voters) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (upgrades, mixed, raised) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (counts, failing) = (Mutex::new(BTreeMap::<String, u64>::new()), Mutex::new(Vec::new()));
    let one = arguments.end - arguments.first == 1;
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.end {
                        return;
                    }
                    IN_RUN.set(true);
                    match run(seed, Options { print_trace: arguments.trace, ..arguments.options() }) {
                        Ok(summary) => {
                            for (sort, count) in &summary.counts {
                                *counts
                                    .lock()
                                    .expect("nobody panics with it")
                                    .entry(sort.clone())
                                    .or_default() += count;
                            }
                            operations.fetch_add(summary.operations as u64, Ordering::Relaxed);
                            unknown.fetch_add(summary.unknown as u64, Ordering::Relaxed);
                            transfers.fetch_add(summary.transfers, Ordering::Relaxed);
                            gone_on.fetch_add(summary.transfers_gone_on, Ordering::Relaxed);
                            upgrades.fetch_add(summary.upgrades as u64, Ordering::Relaxed);
                            mixed.fetch_add(u64::from(summary.mixed), Ordering::Relaxed);
                            raised.fetch_add(u64::from(summary.raised), Ordering::Relaxed);
                            voters.fetch_add(summary.voters_changed as u64, Ordering::Relaxed);
                            lost.fetch_add(summary.lost as u64, Ordering::Relaxed);
                            if one {
                                show(seed, &summary);
                            }
                        }
                        Err(failure) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            if arguments.keep_going {
                                let what: String = failure.what.chars().take(300).collect();
                                println!("seed {seed} failed: {what}");
                            } else {
                                stop.store(true, Ordering::Relaxed);
                            }
                            failing.lock().expect("nobody panics with it").push(failure);
                        }
                    }
                    let done = seed + 1 - arguments.first;
                    if done % 200 == 0 && !one {
                        let rate = done as f64 / began.elapsed().as_secs_f64();
                        println!("{done} seeds, {rate:.1} a second");
                    }
                }
            });
        }
    });
    let failures = failed.load(Ordering::Relaxed);
    let mut failing = failing.into_inner().expect("nobody panicked with it");
    failing.sort_by_key(|failure: &Failure| failure.seed);
    failing.into_iter().take(SHRUNK_MAX).for_each(|failure| report(failure, &arguments));
    show_counts(&counts.into_inner().expect("nobody panicked with it"));
    if !one {
        let seeds = arguments.end - arguments.first;
        println!(
            "{seeds} seeds, {failures} failed, {} operations, {} of unknown outcome, {} transfers of which {} went on after a break, {} nodes upgraded in {} clusters of two builds whose level rose in {} before the end, {} changes of the voters, {} partitions lost, {:.1} s",
            operations.load(Ordering::Relaxed),
            unknown.load(Ordering::Relaxed),
            transfers.load(Ordering::Relaxed),
            gone_on.load(Ordering::Relaxed),
            upgrades.load(Ordering::Relaxed),
            mixed.load(Ordering::Relaxed),
            raised.load(Ordering::Relaxed),
            voters.load(Ordering::Relaxed),
            lost.load(Ordering::Relaxed),
            began.elapsed().as_secs_f64()
        );
    }
    if failures > 0 {
        std::process::exit(1);
    }
}
