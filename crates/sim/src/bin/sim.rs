//! Runs seeds of the simulator: `sim --seed N [--trace]`, or `sim --seeds A..B [--jobs J]`; or clusters of growing sizes, to see what
//! their work grows with: `sim --scale 5,10,20`.

use rustix::time::{ClockId, clock_gettime};
use sim::network::MS;
use sim::scale_tables::tables;
use sim::{Failure, Options, Summary, run, scale};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const USAGE: &str =
    "usage: sim --seed N [--trace] | --seeds A..B [--jobs J] [--keep-going] | --scale NODES,NODES...";

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

struct Arguments {
    first: u64,
    end: u64,
    jobs: usize,
    trace: bool,
    keep_going: bool,
}

fn arguments() -> Option<Arguments> {
    let mut parsed = Arguments { first: 0, end: 0, jobs: 1, trace: false, keep_going: false };
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
            _ => return None,
        }
    }
    (parsed.first < parsed.end && parsed.jobs > 0).then_some(parsed)
}

fn replay(seed: u64) -> String {
    format!("cargo run --profile campaign -p annulet-sim --bin sim -- --seed {seed} --trace")
}

fn report(failure: &Failure) {
    // The run is a function of its seed: the same once more, with its last lines.
    let again = run(failure.seed, Options { keep_trace: true, ..Options::default() });
    if let Err(again) = again {
        again.trace.iter().for_each(|line| println!("{line}"));
    }
    println!(
        "seed {} failed at {}: {}\nreplay: {}",
        failure.seed,
        sim::checks::shown(failure.now),
        failure.what,
        replay(failure.seed)
    );
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
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        let seed = SEED.get();
        println!("seed {seed} failed: an assertion does not hold (above)\nreplay: {}", replay(seed));
    }));
    let began = Instant::now();
    let (next, failed, stop) = (AtomicU64::new(arguments.first), AtomicU64::new(0), AtomicBool::new(false));
    let (operations, unknown, lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (transfers, gone_on, voters) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (upgrades, mixed, raised) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let one = arguments.end - arguments.first == 1;
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.end {
                        return;
                    }
                    SEED.set(seed);
                    match run(seed, Options { print_trace: arguments.trace, ..Options::default() }) {
                        Ok(summary) => {
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
                                report(&failure);
                            }
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
