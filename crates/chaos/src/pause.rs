//! `chaos pause`: a node sleeps without noticing it, and wakes with requests in its sockets. What it then says has to be true.

use crate::Common;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::kill;
use crate::load::{Door, Load};
use crate::queue::{Judged, Pace, Queue, Registers, led_by};
use crate::report::{Report, counted};
use crate::verify::{self, Summary};
use clap::Args;
use history::random::Random;
use rustix::process::Signal;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Load before the pause, and after the waking.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// Registers that are overwritten and read.
const REGISTERS: usize = 32;
/// Threads that overwrite them.
const OVERWRITERS: usize = 4;
/// Writers on queues have numbers from here on.
const QUEUES: u16 = 1000;

/// What `chaos pause` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// How long the node sleeps.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// The run.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    victim: u16,
    was_coordinator: bool,
    writes: Summary,
    /// Reads that were answered with a value: at the node that slept, and at the others.
    reads_at_victim: u64,
    reads_elsewhere: u64,
    /// How many of them were stale.
    stale: u64,
    /// Error replies on the connections that wait at the node that slept.
    errors_at_victim: BTreeMap<String, u64>,
    /// The same, at the other nodes.
    errors_elsewhere: BTreeMap<String, u64>,
    /// From waking until every node says that all is in sync.
    in_sync_ms: u64,
}

/// The connections of one kind.
struct Queues<'a> {
    registers: &'a Arc<Registers>,
    stop: &'a Arc<AtomicBool>,
    open: Vec<(bool, Queue)>,
}

impl Queues<'_> {
    fn open(&mut self, port: u16, at_victim: bool, depth: usize, every_us: u64) -> Result<(), Failure> {
        let pace = Pace { depth, every: Duration::from_micros(every_us) };
        let writer = QUEUES + self.open.len() as u16;
        self.open.push((at_victim, Queue::start(port, writer, pace, self.registers, self.stop)?));
        Ok(())
    }

    /// Requests one by one, and requests that pile up, at both doors of a node.
    fn open_all(&mut self, cluster: &Cluster, node: u16, at_victim: bool) -> Result<(), Failure> {
        for port in [cluster.plain_port(node), cluster.cluster_port(node)] {
            self.open(port, at_victim, 1, 0)?;
            self.open(port, at_victim, 32, 500)?;
            if at_victim {
                self.open(port, at_victim, usize::MAX, 2000)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    let seed = common.seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let cluster = Cluster::start(common.shape()?, &mut random)?;
    let mut report = Report::default();
    let status = cluster.wait_healthy(&BTreeMap::new())?;
    let ids: Vec<u16> = cluster.ids().collect();
    let victim = random.pick(&ids);
    let others: Vec<u16> = ids.iter().copied().filter(|id| *id != victim).collect();
    let led = led_by(&cluster, victim, others[0])?;
    if led.is_empty() {
        return Err(format!("node {victim} leads no partition").into());
    }
    let some: Vec<u16> = led.iter().copied().step_by(led.len().div_ceil(REGISTERS)).collect();
    let registers = Arc::new(Registers::new(&some, common.partitions()));
    let stop = Arc::new(AtomicBool::new(false));

    let load = Load::start(&cluster, kill::load(common, None));
    let overwriters: Vec<_> = (0..OVERWRITERS)
        .map(|first| {
            let port = cluster.plain_port(others[first % others.len()]);
            let (registers, stop) = (registers.clone(), stop.clone());
            std::thread::spawn(move || registers.overwrite(first, OVERWRITERS, port, &stop))
        })
        .collect();
    let mut queues = Queues { registers: &registers, stop: &stop, open: Vec::new() };
    queues.open_all(&cluster, victim, true)?;
    queues.open_all(&cluster, others[0], false)?;
    std::thread::sleep(BEFORE);

    let paused = cluster.signal_node(victim, Signal::STOP)?;
    eprintln!("node {victim} sleeps for {} s", flags.seconds);
    std::thread::sleep(Duration::from_secs(flags.seconds) / 2);
    // The kernel takes connections and requests for a process that sleeps.
    queues.open_all(&cluster, victim, true)?;
    std::thread::sleep(Duration::from_secs(flags.seconds).saturating_sub(paused.elapsed()));
    let woken = cluster.signal_node(victim, Signal::CONT)?;
    queues.open_all(&cluster, victim, true)?;
    eprintln!("node {victim} wakes");
    cluster.wait_healthy(&BTreeMap::new())?;
    let in_sync_ms = woken.elapsed().as_millis() as u64;
    std::thread::sleep(AFTER.saturating_sub(woken.elapsed()));
    cluster.wait_healthy(&BTreeMap::new())?;

    stop.store(true, Ordering::Relaxed);
    let errors_others = load.troubles(paused, |door| matches!(door, Door::Plain(node) if node != victim));
    kill::check_errors(&errors_others, "pause", &mut report);
    let mut journals = load.stop();
    for overwriter in overwriters {
        let _ = overwriter.join();
    }
    let [mut at_victim, mut elsewhere] = [Judged::default(), Judged::default()];
    for (is_at_victim, queue) in queues.open {
        let (journal, judged) = queue.join();
        journals.push(journal);
        let sum = if is_at_victim { &mut at_victim } else { &mut elsewhere };
        sum.values += judged.values;
        sum.stale.extend(judged.stale);
        for (text, count) in judged.errors {
            *sum.errors.entry(text).or_default() += count;
        }
    }
    for text in at_victim.stale.iter().chain(&elsewhere.stale) {
        report.violation(format!("stale: {text}"));
    }
    let verifying = Instant::now();
    let writes = verify::check(&cluster, &ids, &journals, &mut report)?;
    eprintln!("read back in {} ms", verifying.elapsed().as_millis());
    cluster.check_running()?;
    for (text, count) in errors_others {
        *elsewhere.errors.entry(text).or_default() += count;
    }
    let outcome = Outcome {
        seed,
        victim,
        was_coordinator: status.coordinator == Some(victim),
        writes,
        reads_at_victim: at_victim.values,
        reads_elsewhere: elsewhere.values,
        stale: (at_victim.stale.len() + elsewhere.stale.len()) as u64,
        errors_at_victim: at_victim.errors,
        errors_elsewhere: elsewhere.errors,
        in_sync_ms,
    };
    let dir = (!report.is_clean() || common.dir.is_some()).then(|| cluster.keep());
    Ok(report.end(common.json, &outcome, &outcome.text(flags.seconds), dir))
}

impl Outcome {
    fn text(&self, seconds: u64) -> String {
        format!(
            "node {}{} slept {seconds} s, seed {}: {} reads answered by it, {} elsewhere, {} stale\n\
             {} writes acknowledged, {} unknown, {} failed, lost={}; in sync {} ms after waking\n\
             errors at the node that slept: {}\nelsewhere: {}",
            self.victim,
            if self.was_coordinator { " (coordinator)" } else { "" },
            self.seed,
            self.reads_at_victim,
            self.reads_elsewhere,
            self.stale,
            self.writes.acknowledged,
            self.writes.unknown,
            self.writes.failed,
            self.writes.lost,
            self.in_sync_ms,
            counted(&self.errors_at_victim),
            counted(&self.errors_elsewhere),
        )
    }
}
