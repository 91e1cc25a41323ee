//! `chaos kill`: rounds of SIGKILL and restart under load; what was acknowledged has to be there at the end.

use crate::Common;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::load::{Door, Load, Spec};
use crate::probe::Prober;
use crate::report::{Gaps, Report, counted};
use crate::verify::{self, Summary};
use clap::Args;
use history::random::Random;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The coordinator is the victim at least once in so many rounds.
const COORDINATOR_EVERY: u32 = 3;
/// How long the load goes on after every partition serves again, to see later stalls too.
const AFTER: Duration = Duration::from_secs(1);
/// How long clients wait for a reply: longer than a node lets a request wait.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// What `chaos kill` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// How many nodes are killed, one after the other.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Milliseconds of load before each kill, at least; up to half as many again are added by chance.
    #[arg(long, default_value_t = 1200)]
    calm_ms: u64,
}

/// One round.
#[derive(Debug, Serialize)]
struct Round {
    victim: u16,
    was_coordinator: bool,
    /// How many partitions it led.
    led: usize,
    /// The longest time without success of any partition before the kill: what the measurement can resolve.
    resolution_ms: u64,
    /// Over all partitions, from the last success to the first after the kill.
    outage: Gaps,
    /// The same, over the partitions whose primary was killed.
    outage_led: Gaps,
    /// The longest time without success while the victim came back.
    refill_worst_ms: u64,
    /// From the victim's restart until every node says that all is in sync.
    in_sync_ms: u64,
    /// Errors of clients at the other nodes, by text.
    errors_others: BTreeMap<String, u64>,
    /// Errors of clients at the victim, and of cluster-aware clients.
    errors_victim: BTreeMap<String, u64>,
}

/// The whole run.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    rounds: Vec<Round>,
    writes: Summary,
    /// The worst and the median over the rounds of the worst partition's outage.
    worst_ms: u64,
    median_ms: u64,
}

/// The load that a run's flags ask for.
pub(crate) fn load(common: &Common, avoid: Option<u16>) -> Spec {
    Spec { plain: common.clients, cluster: common.clients.div_ceil(2), avoid, reply_timeout: REPLY_TIMEOUT }
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    let seed = common.seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let cluster = Cluster::start(common.shape()?, &mut random)?;
    let mut report = Report::default();
    let load = Load::start(&cluster, load(common, None));
    let mut rounds = Vec::new();
    for number in 0..flags.rounds {
        let round = round(common, flags, &cluster, &load, number, &mut random, &mut report)?;
        eprintln!("round {}: {}", number + 1, round.line());
        rounds.push(round);
    }
    let journals = load.stop();
    let nodes: Vec<u16> = cluster.ids().collect();
    let writes = verify::check(&cluster, &nodes, &journals, &mut report)?;
    cluster.check_running()?;
    let worst = rounds.iter().map(|round| Duration::from_millis(round.outage.worst_ms)).collect();
    let over = Gaps::of(worst);
    let outcome = Outcome { seed, rounds, writes, worst_ms: over.worst_ms, median_ms: over.median_ms };
    let dir = (!report.is_clean() || common.dir.is_some()).then(|| cluster.keep());
    Ok(report.end(common.json, &outcome, &outcome.text(), dir))
}

fn round(
    common: &Common,
    flags: &Flags,
    cluster: &Cluster,
    load: &Load,
    number: u32,
    random: &mut Random,
    report: &mut Report,
) -> Result<Round, Failure> {
    let status = cluster.wait_healthy(&BTreeMap::new())?;
    load.home();
    let ids: Vec<u16> = cluster.ids().collect();
    let coordinator = status.coordinator.ok_or("there is no coordinator")?;
    let holders = cluster.holders(coordinator)?;
    // A node that leads nothing, since it came back not long ago, is hardly missed.
    let leads = |id: &u16| holders.iter().any(|holders| holders[0] == *id);
    let leaders: Vec<u16> = ids.iter().copied().filter(leads).collect();
    let victim = if number.is_multiple_of(COORDINATOR_EVERY) { coordinator } else { random.pick(&leaders) };
    let others: Vec<u16> = ids.iter().copied().filter(|id| *id != victim).collect();
    let led: Vec<bool> = holders.iter().map(|holders| holders[0] == victim).collect();
    let prober = match common.probe_ms {
        0 => None,
        period => Some(Prober::start(cluster, &others, Duration::from_millis(period))?),
    };
    // Connections are made and warm before anything is measured.
    std::thread::sleep(Duration::from_millis(flags.calm_ms / 3));
    cut(&prober);
    std::thread::sleep(Duration::from_millis(flags.calm_ms * 2 / 3 + random.below(flags.calm_ms.max(2) / 2)));
    let calm = Gaps::of(cut(&prober));
    let killed = cluster.kill_node(victim)?;
    wait_served(cluster, &prober, killed)?;
    std::thread::sleep(AFTER);
    let gaps = cut(&prober);
    let of_led = gaps.iter().zip(&led).filter(|(_, led)| **led).map(|(gap, _)| *gap).collect();

    let incarnation = status.node(victim).map_or(0, |node| node.incarnation);
    let restarted = Instant::now();
    cluster.start_node(victim)?;
    cluster.wait_healthy(&BTreeMap::from([(victim, incarnation)]))?;
    let in_sync_ms = restarted.elapsed().as_millis() as u64;
    let refill = Gaps::of(cut(&prober));
    let mut errors_others = load.troubles(killed, |door| matches!(door, Door::Plain(node) if node != victim));
    for (text, count) in prober.iter().flat_map(Prober::errors) {
        *errors_others.entry(text).or_default() += count;
    }
    check_errors(&errors_others, &format!("round {}", number + 1), report);
    Ok(Round {
        victim,
        was_coordinator: victim == coordinator,
        led: led.iter().filter(|led| **led).count(),
        resolution_ms: calm.worst_ms,
        outage: Gaps::of(gaps),
        outage_led: Gaps::of(of_led),
        refill_worst_ms: refill.worst_ms,
        in_sync_ms,
        errors_others,
        errors_victim: load.troubles(killed, |door| door == Door::Plain(victim) || door == Door::Cluster),
    })
}

/// Clients of a node that lives may only be told that a write's outcome is unknown (design, "What happens when").
pub(crate) fn check_errors(errors: &BTreeMap<String, u64>, when: &str, report: &mut Report) {
    for (text, count) in errors.iter().filter(|(text, _)| !text.starts_with("UNKNOWN")) {
        report.violation(format!("{when}: clients of nodes that live saw {count} x \"{text}\""));
    }
}

fn cut(prober: &Option<Prober>) -> Vec<Duration> {
    prober.as_ref().map_or_else(Vec::new, Prober::cut)
}

/// Waits until every partition answers a request that was sent after a moment.
pub(crate) fn wait_served(cluster: &Cluster, prober: &Option<Prober>, since: Instant) -> Result<(), Failure> {
    let Some(prober) = prober else {
        // Without probes: long enough for a promotion, even on a busy machine.
        std::thread::sleep(Duration::from_secs(2));
        return Ok(());
    };
    loop {
        cluster.check_running()?;
        let silent = prober.silent_since(since);
        if silent.is_empty() {
            return Ok(());
        }
        if since.elapsed() > cluster.shape.patience {
            let dir = cluster.keep().display();
            return Err(format!(
                "{} partitions, {} first, take no write {} s after the fault; logs are in {dir}",
                silent.len(),
                silent[0],
                since.elapsed().as_secs()
            )
            .into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Round {
    fn line(&self) -> String {
        format!(
            "killed node {}{}, primary of {}: outage worst {} ms, median {} ms (of its own partitions {} ms), resolution {} ms; \
             in sync {} ms after restart, worst write gap meanwhile {} ms; errors elsewhere: {}; \
             at the victim or cluster-aware: {}",
            self.victim,
            if self.was_coordinator { " (coordinator)" } else { "" },
            self.led,
            self.outage.worst_ms,
            self.outage.median_ms,
            self.outage_led.median_ms,
            self.resolution_ms,
            self.in_sync_ms,
            self.refill_worst_ms,
            counted(&self.errors_others),
            counted(&self.errors_victim),
        )
    }
}

impl Outcome {
    fn text(&self) -> String {
        format!(
            "{} rounds, seed {}: {} writes acknowledged, {} unknown, {} failed, lost={}\n\
             worst partition's outage: {} ms at worst, {} ms in the median round",
            self.rounds.len(),
            self.seed,
            self.writes.acknowledged,
            self.writes.unknown,
            self.writes.failed,
            self.writes.lost,
            self.worst_ms,
            self.median_ms,
        )
    }
}
