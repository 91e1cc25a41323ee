//! `chaos shape`: the cluster changes its shape, one step after the other, under clients of a steady rate that check every read.
//!
//! [`clients`] has these; [`steps`] does the changes and waits for their ends; [`table`] writes what clients felt of each step into
//! docs/performance.md. A planned change that shows an error to anybody is a broken promise, as is anything lost, or a read that
//! goes back.

mod clients;
mod door;
mod steps;
mod table;

use crate::Common;
use crate::cluster::Cluster;
use crate::compare::section;
use crate::failure::Failure;
use crate::report::Report;
use clap::Args;
use clients::{Clients, Rate, Seen};
use history::random::Random;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `chaos shape` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// How many keys are kept, with values of 64 bytes.
    #[arg(long, default_value_t = 200_000)]
    keys: usize,
    /// Requests a second of all clients together, half of them writes.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Seconds of rest before the first step; the steps are held against these.
    #[arg(long, default_value_t = 5.0)]
    rest_seconds: f64,
    /// Only the time at rest and the rolling restart.
    #[arg(long)]
    restart_only: bool,
    /// A Markdown file whose marked section is written anew.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// One step.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    planned: bool,
    took_ms: u64,
    errors: u64,
    unknown: u64,
    /// Reads that went back.
    back: u64,
    /// By text.
    texts: BTreeMap<String, u64>,
    reads: Times,
    writes: Times,
    /// Copies that came to be on nodes that had none of their partition, and the least that the step needed; none where nothing is
    /// to move.
    moved: Option<(u64, u64)>,
    /// Primaries a node at its end: the fewest and the most.
    primaries: (u64, u64),
}

/// How long requests took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Times {
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

/// The run.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    keys: usize,
    rate: u32,
    plain: u16,
    cluster: u16,
    rows: Vec<Row>,
    acknowledged: u64,
    lost: u64,
    back: u64,
}

impl Times {
    fn of(mut took_us: Vec<u32>) -> Times {
        took_us.sort_unstable();
        let at = |share: f64| {
            let rank = (took_us.len() as f64 * share).ceil() as usize;
            f64::from(took_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)) / 1e3
        };
        Times { count: took_us.len(), p50_ms: at(0.5), p99_ms: at(0.99), longest_ms: at(1.0) }
    }
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    if common.nodes < 3 || common.copies < 2 || common.copies >= common.nodes {
        return Err("this takes three nodes, two copies, and a node more than copies, at least".into());
    }
    if let Some(path) = &flags.report {
        section::check(path, section::SHAPE)?;
    }
    let seed = common.seed();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let cluster = Cluster::start(common.shape()?, &mut random)?;
    let mut report = Report::default();
    let rate = Rate {
        plain: common.clients.max(1),
        cluster: common.clients.div_ceil(2).max(1),
        per_s: flags.rate,
        keys: flags.keys.max(1000),
    };
    let clients = Clients::start(&cluster, rate, steps::MAX, seed)?;
    eprintln!("{} keys written", rate.keys);
    let mut rows = steps::all(&cluster, &clients.shared, flags, &mut random).inspect_err(|_| {
        cluster.keep();
    })?;
    let (told, faults) = clients.stop();
    for fault in faults {
        report.violation(fault);
    }
    if told.len() != usize::from(rate.plain + rate.cluster) {
        report.violation("a client died".to_owned());
    }
    for (at, row) in rows.iter_mut().enumerate() {
        let mut all = Seen::default();
        told.iter().for_each(|one| all.add(&one.seen[at]));
        row.fill(all, &mut report);
        eprintln!("{}", table::line(row));
    }
    let mut lost = 0;
    for id in cluster.ids() {
        lost = clients::lost(cluster.plain_port(id), &told)?.max(lost);
    }
    if lost > 0 {
        report.violation(format!("{lost} keys do not show what was acknowledged"));
    }
    cluster.check_running()?;
    let outcome = Outcome {
        seed,
        keys: rate.keys,
        rate: flags.rate,
        plain: rate.plain,
        cluster: rate.cluster,
        acknowledged: told.iter().map(|one| one.acknowledged).sum(),
        back: rows.iter().map(|row| row.back).sum(),
        lost,
        rows,
    };
    let text = table::text(&outcome, common.copies)?;
    if let Some(path) = &flags.report {
        section::write(path, section::SHAPE, &text)?;
    }
    let dir = (!report.is_clean() || common.dir.is_some()).then(|| cluster.keep());
    Ok(report.end(common.json, &outcome, &text, dir))
}

impl Row {
    /// Takes in what clients saw, and judges it.
    fn fill(&mut self, seen: Seen, report: &mut Report) {
        if seen.errors > 0 || (self.planned && seen.unknown > 0) {
            for (text, count) in &seen.texts {
                report.violation(format!("{}: clients saw {count} x \"{text}\"", self.name));
            }
        }
        self.errors = seen.errors;
        self.unknown = seen.unknown;
        self.back = seen.back;
        self.texts = seen.texts;
        self.reads = Times::of(seen.reads_us);
        self.writes = Times::of(seen.writes_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_all_requests() {
        let times = Times::of((1..=200).map(|ms| ms * 1000).collect());
        assert_eq!((times.p50_ms, times.p99_ms, times.longest_ms), (100.0, 198.0, 200.0));
        assert_eq!(Times::of(Vec::new()).longest_ms, 0.0);
    }
}
