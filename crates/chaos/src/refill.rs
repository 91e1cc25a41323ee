//! `chaos refill`: a node that held much comes back and is filled again, while clients of the others notice nothing. With
//! `--set log=off` it comes back empty; otherwise it misses what was written meanwhile.

use crate::Common;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::kill;
use crate::load::{Door, Fate, Journal, Load, unique_key, unique_value};
use crate::probe::Prober;
use crate::report::{Gaps, Report, counted};
use crate::status::connect;
use crate::verify::{self, Summary};
use clap::Args;
use history::random::Random;
use redis::Value;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Keys loaded by one pipeline.
const BATCH: usize = 500;
/// Threads that load the keys. Their writers have numbers from here on.
const LOADERS: u16 = 4;
const FIRST_LOADER: u16 = 2000;
/// From the last partition serving again to the restart: what failover does to clients ends here.
const SETTLE: Duration = Duration::from_secs(1);

/// What `chaos refill` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// How many keys are loaded, with values of 64 bytes.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
}

/// The run.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    keys: usize,
    load_ms: u64,
    victim: u16,
    was_coordinator: bool,
    /// From the kill, over all partitions.
    outage: Gaps,
    /// Of clients of the other nodes, until the failover had settled.
    errors_in_failover: BTreeMap<String, u64>,
    /// The same, from the restart until all was in sync.
    errors_in_refill: BTreeMap<String, u64>,
    /// From the victim's restart until every node says that all is in sync.
    refill_ms: u64,
    /// The longest time in which a partition took no write meanwhile.
    refill_gaps: Gaps,
    /// Acknowledged writes a second of the load: before the kill, and during the refill.
    writes_per_s_before: u64,
    writes_per_s_in_refill: u64,
    second_victim: u16,
    /// From the second kill until every key was read back.
    writes: Summary,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    let seed = common.seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let cluster = Cluster::start(common.shape()?, &mut random)?;
    let mut report = Report::default();
    let ids: Vec<u16> = cluster.ids().collect();
    let started = Instant::now();
    let mut journals = fill(&cluster, flags.keys, &mut report)?;
    let load_ms = started.elapsed().as_millis() as u64;
    eprintln!("{} keys loaded in {load_ms} ms", flags.keys);

    let status = cluster.wait_healthy(&BTreeMap::new())?;
    let victim = random.pick(&ids);
    let others: Vec<u16> = ids.iter().copied().filter(|id| *id != victim).collect();
    let load = Load::start(&cluster, kill::load(common, Some(victim)));
    let prober = match common.probe_ms {
        0 => None,
        period => Some(Prober::start(&cluster, &others, Duration::from_millis(period))?),
    };
    std::thread::sleep(Duration::from_millis(500));
    let (calm, before) = (Instant::now(), load.acknowledged());
    std::thread::sleep(Duration::from_millis(1500));
    let writes_per_s_before = per_second(load.acknowledged() - before, calm);
    let cut = || prober.as_ref().map_or_else(Vec::new, Prober::cut);
    let errors = |since| {
        let mut errors = load.troubles(since, |door| matches!(door, Door::Plain(_)));
        for (text, count) in prober.iter().flat_map(Prober::errors) {
            *errors.entry(text).or_default() += count;
        }
        errors
    };
    cut();
    let killed = cluster.kill_node(victim)?;
    kill::wait_served(&cluster, &prober, killed)?;
    std::thread::sleep(SETTLE);
    let outage = Gaps::of(cut());
    let errors_in_failover = errors(killed);
    kill::check_errors(&errors_in_failover, "failover", &mut report);

    let incarnation = status.node(victim).map_or(0, |node| node.incarnation);
    let (restarted, before) = (Instant::now(), load.acknowledged());
    cluster.start_node(victim)?;
    cluster.wait_healthy(&BTreeMap::from([(victim, incarnation)]))?;
    let refill_ms = restarted.elapsed().as_millis() as u64;
    let writes_per_s_in_refill = per_second(load.acknowledged() - before, restarted);
    let refill_gaps = Gaps::of(cut());
    let errors_in_refill = errors(restarted);
    for (text, count) in &errors_in_refill {
        report.violation(format!("refill: clients of nodes that live saw {count} x \"{text}\""));
    }
    eprintln!("node {victim} is in sync {refill_ms} ms after its restart");
    drop(prober);
    journals.extend(load.stop());

    let second_victim = random.pick(&others);
    cluster.kill_node(second_victim)?;
    let left: Vec<u16> = ids.iter().copied().filter(|id| *id != second_victim).collect();
    let writes = verify::check(&cluster, &left, &journals, &mut report)?;
    cluster.check_running()?;
    let outcome = Outcome {
        seed,
        keys: flags.keys,
        load_ms,
        victim,
        was_coordinator: status.coordinator == Some(victim),
        outage,
        errors_in_failover,
        errors_in_refill,
        refill_ms,
        refill_gaps,
        writes_per_s_before,
        writes_per_s_in_refill,
        second_victim,
        writes,
    };
    let dir = (!report.is_clean() || common.dir.is_some()).then(|| cluster.keep());
    Ok(report.end(common.json, &outcome, &outcome.text(), dir))
}

fn per_second(count: u64, since: Instant) -> u64 {
    (count as f64 / since.elapsed().as_secs_f64()) as u64
}

/// Writes the keys, through every node.
fn fill(cluster: &Cluster, keys: usize, report: &mut Report) -> Result<Vec<Journal>, Failure> {
    let ports: Vec<u16> = cluster.ids().map(|id| cluster.plain_port(id)).collect();
    let share = |loader: u16| {
        keys / usize::from(LOADERS) + usize::from(usize::from(loader) < keys % usize::from(LOADERS))
    };
    let filled: Vec<Result<Journal, Failure>> = std::thread::scope(|scope| {
        let loaders: Vec<_> = (0..LOADERS)
            .map(|loader| {
                let port = ports[usize::from(loader) % ports.len()];
                scope.spawn(move || fill_share(FIRST_LOADER + loader, share(loader), port))
            })
            .collect();
        let died = || Err(Failure::from("a loader died"));
        loaders.into_iter().map(|loader| loader.join().unwrap_or_else(|_| died())).collect()
    });
    let journals = filled.into_iter().collect::<Result<Vec<_>, _>>()?;
    let refused = journals
        .iter()
        .flat_map(|journal| &journal.fates)
        .filter(|fate| **fate != Fate::Acknowledged)
        .count();
    if refused > 0 {
        report.violation(format!("{refused} writes were refused by a healthy cluster"));
    }
    Ok(journals)
}

fn fill_share(writer: u16, count: usize, port: u16) -> Result<Journal, Failure> {
    let mut journal = Journal { writer, ..Journal::default() };
    let mut connection = connect(port, kill::REPLY_TIMEOUT)?;
    while journal.fates.len() < count {
        let first = journal.fates.len();
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for number in first..count.min(first + BATCH) {
            pipe.cmd("SET").arg(unique_key(writer, number)).arg(unique_value(writer, number));
        }
        let replies: Vec<Value> = pipe.query(&mut connection)?;
        journal.fates.extend(
            replies
                .iter()
                .map(|reply| if *reply == Value::Okay { Fate::Acknowledged } else { Fate::Unknown }),
        );
    }
    Ok(journal)
}

impl Outcome {
    fn text(&self) -> String {
        format!(
            "{} keys loaded in {} ms, seed {}; node {}{} killed: outage worst {} ms, median {} ms, errors elsewhere: {}\n\
             refilled and in sync {} ms after its restart; errors elsewhere: {}; worst write gap {} ms, median {} ms; \
             load {} writes/s before, {} writes/s meanwhile\n\
             then node {} killed and everything read back: {} writes acknowledged, {} unknown, {} failed, lost={}",
            self.keys,
            self.load_ms,
            self.seed,
            self.victim,
            if self.was_coordinator { " (coordinator)" } else { "" },
            self.outage.worst_ms,
            self.outage.median_ms,
            counted(&self.errors_in_failover),
            self.refill_ms,
            counted(&self.errors_in_refill),
            self.refill_gaps.worst_ms,
            self.refill_gaps.median_ms,
            self.writes_per_s_before,
            self.writes_per_s_in_refill,
            self.second_victim,
            self.writes.acknowledged,
            self.writes.unknown,
            self.writes.failed,
            self.writes.lost,
        )
    }
}
