//! `chaos storm`: a cluster in network namespaces of its own, hurt in every way there is, in an order that a seed determines, while clients
//! ask for the same few keys; the history of all that they saw is judged.
//!
//! ```text
//! namespaces   a network for each node, one for the clients          schedule   the seed's faults
//! clients      ask, and tell the record what became of it            faults     make them, take them back, wait until all is whole
//! record       histories, which retire and are judged                proxy      a bad network
//! full_disk    one of the faults                                     outage     how long partitions stood still, by kind of fault
//! table        the outcome in words
//! ```
//!
//! A step is some calm, a fault or two, their end, and the wait until every node says that all is served, in sync and where it
//! should be. Then what clients were told is checked: each step's objects are read once more and judged. A violation ends the run; the
//! histories, the nodes' logs and their data stay.
//!
//! The seed determines what is done to the cluster and when, not what the cluster and the clients make of it.

mod clients;
mod faults;
mod full_disk;
pub(crate) mod namespaces;
mod outage;
mod proxy;
mod record;
mod schedule;
mod table;

use crate::Common;
use crate::cluster::{Cluster, Shape};
use crate::compare::section;
use crate::failure::Failure;
use crate::probe::Prober;
use crate::report::Report;
use crate::storm::clients::{Clients, Doors, Rate};
use crate::storm::faults::Hurt;
use crate::storm::namespaces::{Missing, Network};
use crate::storm::outage::{Line, Measured};
use crate::storm::record::{Board, KEYS, Object, READER, Wrong};
use crate::storm::schedule::{Kind, Part, Schedule, Step};
use clap::{Args, ValueEnum};
use history::random::Random;
use history::{Answer, Call};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The exit code where this machine lacks what the run needs.
const LEFT_OUT: u8 = 77;
/// Partitions, where none are asked for: few, so that each can be asked for all the time.
const PARTITIONS: u16 = 16;
/// How long a probe waits before it tries another door.
const PROBE_PATIENCE: Duration = Duration::from_millis(2500);
/// How long what is late still counts to the step that caused it.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a read of a retired object may take.
const LAST_READ: Duration = Duration::from_secs(10);
/// Nodes through which a retired object is read.
const LAST_DOORS: usize = 2;

/// What `chaos storm` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// How long, such as 90s, 5m or 1h. The step that is under way then is finished.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = length)]
    time: Duration,
    /// Only faults of these kinds.
    #[arg(long, value_delimiter = ',', value_name = "KIND,...")]
    only: Vec<Kind>,
    /// Requests a second of all clients together, at most.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// The longest that a fault lasts, in seconds. By default 20, but less in runs of less than three minutes.
    #[arg(long)]
    hold_max: Option<u64>,
    /// MiB of each node's disk, which is in memory.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(384..))]
    disk_mib: u32,
    /// A Markdown file whose marked section is written anew.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The run.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    nodes: u16,
    copies: u16,
    partitions: u16,
    plain: u16,
    cluster: u16,
    rate: u32,
    seconds: u64,
    steps: usize,
    attempted: u64,
    acknowledged: u64,
    unknown: u64,
    refused: u64,
    lost: u64,
    stale: u64,
    undecided: u64,
    /// By fault.
    lines: Vec<Line>,
    /// What clients saw, by text.
    errors: BTreeMap<String, u64>,
    /// Faults that this machine has not the means for.
    left_out: Vec<String>,
}

/// `90s`, `5m`, `1h`, or seconds.
fn length(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1),
        Some('m') => (&text[..text.len() - 1], 60),
        Some('h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| "expected a time such as 90s, 5m or 1h")?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    if !(3..=200).contains(&common.nodes) || common.copies < 2 || common.copies > common.nodes {
        return Err("this takes three nodes and two copies at least, and not more copies than nodes".into());
    }
    if let Some(path) = &flags.report {
        section::check(path, section::STORM)?;
    }
    let mut shape = common.shape()?;
    shape.partitions = common.partitions.unwrap_or(PARTITIONS);
    // The network comes first: while it is made this process may have one thread only.
    let network = match Network::build(shape.nodes, flags.disk_mib) {
        Ok(network) => Arc::new(network),
        Err(Missing(what)) => {
            eprintln!("chaos: left out, since this machine lacks what it takes: {what}");
            return Ok(ExitCode::from(LEFT_OUT));
        }
    };
    let seed = common.seed();
    eprintln!("seed {seed}");
    Storm::start(common, flags, shape, network, seed)?.run()
}

/// Settings that make a node do more of what may go wrong, unless others are asked for.
fn add_settings(shape: &mut Shape) {
    for (name, value) in [("shards", "2"), ("snapshot-log-bytes", "33554432")] {
        if shape.settings.iter().all(|(given, _)| given != name) {
            shape.settings.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// The kinds that are asked for and that this machine has the means for; and which it has not.
fn kinds(only: &[Kind], network: &Network) -> Result<(BTreeSet<Kind>, Vec<String>), Failure> {
    let mut kinds: BTreeSet<Kind> = match only {
        [] => Kind::value_variants().iter().copied().collect(),
        some => some.iter().copied().collect(),
    };
    let mut left_out = Vec::new();
    let tracer = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has_tracer = tracer.is_ok_and(|status| status.success());
    let means = [
        (Kind::FailedSync, has_tracer, "failed-sync, since there is no strace"),
        (Kind::Proxy, network.redirects, "proxy, since the kernel's packet filter redirects nothing"),
    ];
    for (kind, is_there, words) in means {
        if !is_there && kinds.remove(&kind) {
            eprintln!("left out: {words}");
            left_out.push(words.to_owned());
        }
    }
    if kinds.is_empty() {
        return Err("no kind of fault is left".into());
    }
    Ok((kinds, left_out))
}

struct Storm<'a> {
    common: &'a Common,
    flags: &'a Flags,
    seed: u64,
    cluster: Cluster,
    network: Arc<Network>,
    board: Arc<Board>,
    rate: Rate,
    kinds: BTreeSet<Kind>,
    left_out: Vec<String>,
    /// The nodes that belong to the cluster.
    members: BTreeSet<u16>,
    report: Report,
    measured: Vec<Measured>,
    lost: u64,
    stale: u64,
    undecided: u64,
}

impl<'a> Storm<'a> {
    fn start(
        common: &'a Common,
        flags: &'a Flags,
        mut shape: Shape,
        network: Arc<Network>,
        seed: u64,
    ) -> Result<Storm<'a>, Failure> {
        add_settings(&mut shape);
        let (kinds, left_out) = kinds(&flags.only, &network)?;
        let cluster = Cluster::start_in(Some(network.clone()), shape, &mut Random::new(seed))?;
        Ok(Storm {
            members: cluster.ids().collect(),
            common,
            flags,
            seed,
            cluster,
            network,
            board: Arc::new(Board::new()),
            rate: Rate {
                plain: common.clients.max(1),
                cluster: common.clients.div_ceil(2).max(1),
                per_s: flags.rate,
            },
            kinds,
            left_out,
            report: Report::default(),
            measured: Vec::new(),
            lost: 0,
            stale: 0,
            undecided: 0,
        })
    }

    fn run(mut self) -> Result<ExitCode, Failure> {
        let began = Instant::now();
        let doors = Doors {
            // Also of nodes that are not there yet.
            plain: self.network.ids().map(|id| self.cluster.door(id)).collect(),
            cluster: self
                .network
                .ids()
                .map(|id| (self.cluster.host(id), self.cluster.cluster_port(id)).into())
                .collect(),
            password: self.cluster.password().map(str::to_owned),
        };
        let clients = Clients::start(&self.board, &doors, self.rate, self.seed)?;
        if let Err(failure) = self.steps(began, &clients) {
            self.report.violation(format!("step {}: {failure}", self.measured.len() + 1));
        }
        for text in clients.nonsense() {
            self.report.violation(text);
        }
        let errors = clients.stop();
        if self.report.is_clean() {
            let retired = self.board.retire(true);
            if let Err(failure) = self.judge(retired) {
                self.report.violation(format!("the last reads: {failure}"));
            }
        }
        self.finish(began, errors)
    }

    /// Steps until the time is over or something is wrong.
    fn steps(&mut self, began: Instant, clients: &Clients) -> Result<(), Failure> {
        let short = (self.flags.time.as_secs() / 9).clamp(3, 20);
        let hold_max = Duration::from_secs(self.flags.hold_max.unwrap_or(short));
        let mut schedule = Schedule::new(self.seed, &self.kinds, hold_max);
        while began.elapsed() < self.flags.time && self.report.is_clean() {
            let step = schedule.draw();
            let has_place = self.network.ids().any(|id| !self.members.contains(&id));
            let may_go = self.members.len() > usize::from(self.cluster.shape.nodes);
            let steps = match step.kind {
                Kind::Join if !has_place => vec![instead(&step, Kind::Drain)],
                Kind::Drain if !may_go => vec![instead(&step, Kind::Join), step],
                _ => vec![step],
            };
            for step in steps {
                let number = self.measured.len() + 1;
                let (measured, said) = self.step(&step)?;
                let done = &self.board.counts;
                eprintln!(
                    "step {number}, {} s, {step}: longest outage {} ms ({} ms before), whole after {} ms; {} of {} operations \
                     acknowledged; {}",
                    began.elapsed().as_secs(),
                    measured.outage.as_millis(),
                    measured.calm.as_millis(),
                    measured.whole.as_millis(),
                    done.acknowledged.load(Ordering::Relaxed),
                    done.attempted.load(Ordering::Relaxed),
                    said.join("; "),
                );
                self.measured.push(measured);
                for text in clients.nonsense() {
                    self.report.violation(text);
                }
                let retired = self.board.retire(false);
                self.judge(retired)?;
            }
        }
        Ok(())
    }

    /// One step: what was measured, and what happened.
    fn step(&mut self, step: &Step) -> Result<(Measured, Vec<String>), Failure> {
        // A new one for each, so that every partition is asked for through every member when the fault comes.
        let through: Vec<u16> = self.members.iter().copied().collect();
        let period = Duration::from_millis(self.common.probe_ms.max(1)) * through.len() as u32;
        let prober = Prober::start_each(&self.cluster, &through, period, PROBE_PATIENCE)?;
        let mut hurt = Hurt::new(&self.cluster, self.network.clone(), self.members.clone());
        // Connections are made and warm before anything is measured.
        std::thread::sleep(step.calm / 3);
        prober.cut();
        std::thread::sleep(step.calm);
        let calm = longest(&prober.cut());
        if step.parts.iter().any(|part| part.kind == Kind::Clock) {
            self.board.clocks_jump();
        }
        let made = hurt.make(step).and_then(|()| hurt.wait_whole());
        let (members, said) = (hurt.members, hurt.said);
        let whole =
            made.map_err(|failure| -> Failure { format!("{step} ({}): {failure}", said.join("; ")).into() })?;
        self.members = members;
        self.wait_served(&prober)?;
        std::thread::sleep(SETTLE);
        let outage = longest(&prober.cut());
        // What came to be meanwhile may still live by the wrong clock.
        if step.parts.iter().any(|part| part.kind == Kind::Clock) {
            self.board.clocks_jump();
        }
        Ok((Measured { kind: step.kind, calm, outage, whole }, said))
    }

    /// Waits until every partition has taken a write that was sent from now on.
    fn wait_served(&self, prober: &Prober) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let silent = prober.silent_since(since);
            if silent.is_empty() {
                return Ok(());
            }
            if since.elapsed() > self.cluster.shape.patience {
                return Err(format!("partitions {silent:?} take no write though the cluster is whole").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads retired objects once more, judges their histories, and removes them.
    fn judge(&mut self, retired: Vec<Arc<Object>>) -> Result<(), Failure> {
        for object in &retired {
            object.begin_last_reads();
        }
        let mut doors: Vec<u16> = self.members.iter().copied().collect();
        let first = self.measured.len() % doors.len().max(1);
        doors.rotate_left(first);
        for door in doors.iter().take(LAST_DOORS) {
            let mut connection = self.cluster.connect(*door, LAST_READ)?;
            for object in &retired {
                for key in 0..KEYS {
                    let operation = object.invoke(&self.board, READER, &[(key, Call::Get)], Duration::ZERO);
                    let reply = redis::cmd("GET").arg(object.key(key)).query(&mut connection)?;
                    let value = clients::shown(&reply).ok_or("a value that is none was read")?;
                    object.answered(&self.board, operation, &[Answer::Value(value)]);
                }
            }
        }
        for object in &retired {
            let Some(verdict) = object.judge() else { continue };
            match verdict.wrong {
                Wrong::Lost => self.lost += 1,
                Wrong::Stale => self.stale += 1,
                Wrong::Undecided => self.undecided += 1,
            }
            let kept = object.keep(self.cluster.keep())?;
            self.report.violation(format!(
                "{:?}: {}\nits history: {}",
                verdict.wrong,
                verdict.text,
                kept.display()
            ));
        }
        if self.report.is_clean()
            && let Some(door) = doors.first()
        {
            let mut connection = self.cluster.connect(*door, LAST_READ)?;
            for object in &retired {
                let mut command = redis::cmd("DEL");
                command.arg((0..KEYS).map(|key| object.key(key)).collect::<Vec<_>>());
                command.query::<()>(&mut connection)?;
            }
        }
        Ok(())
    }

    fn finish(mut self, began: Instant, errors: BTreeMap<String, u64>) -> Result<ExitCode, Failure> {
        if self.report.is_clean()
            && let Err(failure) = self.cluster.check_running()
        {
            self.report.violation(failure.to_string());
        }
        let count = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
        let counts = &self.board.counts;
        let (attempted, acknowledged) = (count(&counts.attempted), count(&counts.acknowledged));
        if self.report.is_clean() && acknowledged < attempted / 2 {
            self.report.violation(format!(
                "of {attempted} operations {acknowledged} were acknowledged: fewer than half"
            ));
        }
        let outcome = Outcome {
            seed: self.seed,
            nodes: self.cluster.shape.nodes,
            copies: self.cluster.shape.copies,
            partitions: self.cluster.shape.partitions,
            plain: self.rate.plain,
            cluster: self.rate.cluster,
            rate: self.rate.per_s,
            seconds: began.elapsed().as_secs(),
            steps: self.measured.len(),
            attempted,
            acknowledged,
            unknown: count(&counts.unknown),
            refused: count(&counts.refused),
            lost: self.lost,
            stale: self.stale,
            undecided: self.undecided,
            lines: outage::lines(&self.measured),
            errors,
            left_out: std::mem::take(&mut self.left_out),
        };
        let text = table::text(&outcome)?;
        eprintln!("{}", table::errors(&outcome));
        let is_clean = self.report.is_clean();
        if let Some(path) = self.flags.report.as_ref().filter(|_| is_clean) {
            section::write(path, section::STORM, &text)?;
        }
        if !is_clean {
            self.keep_disks();
            eprintln!("to do the same to a cluster again: {}", self.replay());
        }
        let dir = (!is_clean || self.common.dir.is_some()).then(|| self.cluster.keep());
        Ok(self.report.end(self.common.json, &outcome, &text, dir))
    }

    /// The nodes' disks are in memory, and gone with this process: what is on them is copied beside them.
    fn keep_disks(&self) {
        for id in self.network.ids() {
            let from = self.cluster.node_dir(id);
            let to = from.with_extension("kept");
            let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(&from).arg(&to).status();
            if !copied.is_ok_and(|status| status.success()) {
                eprintln!("what is in {} could not be kept", from.display());
            }
        }
    }

    /// What repeats this run's faults.
    fn replay(&self) -> String {
        let mut words = vec![
            "chaos storm".to_owned(),
            format!("--seed {}", self.seed),
            format!("--for {}s", self.flags.time.as_secs()),
            format!("--nodes {}", self.common.nodes),
            format!("--copies {}", self.common.copies),
            format!("--rate {}", self.flags.rate),
            format!("--clients {}", self.common.clients),
        ];
        if let Some(partitions) = self.common.partitions {
            words.push(format!("--partitions {partitions}"));
        }
        words.extend(self.common.settings.iter().map(|(name, value)| format!("--set {name}={value}")));
        if let Some(hold_max) = self.flags.hold_max {
            words.push(format!("--hold-max {hold_max}"));
        }
        if !self.flags.only.is_empty() {
            let only: Vec<String> = self.flags.only.iter().map(Kind::to_string).collect();
            words.push(format!("--only {}", only.join(",")));
        }
        words.join(" ")
    }
}

fn longest(gaps: &[Duration]) -> Duration {
    gaps.iter().copied().max().unwrap_or_default()
}

/// The same step with a fault of another kind.
fn instead(step: &Step, kind: Kind) -> Step {
    let parts = step.parts.iter().map(|part| Part { kind, ..*part }).collect();
    Step { kind, calm: step.calm, parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(length("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(length("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(length("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(length("7"), Ok(Duration::from_secs(7)));
        assert!(length("").is_err() && length("x").is_err() && length("h").is_err());
        assert!(length(&format!("{}h", u64::MAX)).is_err());
    }
}
