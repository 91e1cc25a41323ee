//! `chaos bench`: throughput and latency with redis-benchmark, as a Markdown table for docs/performance.md.
//!
//! | door | how it is measured |
//! | --- | --- |
//! | plain, one node | one redis-benchmark at the first node, which forwards what others serve |
//! | plain, all nodes | one redis-benchmark a node at once, with its share of the clients; sums, and the slowest's percentiles |
//! | cluster-aware | `redis-benchmark --cluster` |
//!
//! Each number is the median of several runs. Clients and nodes share the machine, so these are comparisons, not limits. Nothing is
//! kept on disk, unless `--set log=on` says so.

use crate::Common;
use crate::cluster::Cluster;
use crate::compare::Figures;
use crate::failure::Failure;
use clap::Args;
use history::random::Random;
use serde::Serialize;
use std::process::{Command, ExitCode, Stdio};

/// What `chaos bench` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Requests of a run without pipelines; four times as many with them.
    #[arg(long, default_value_t = 200_000)]
    requests: u64,
    /// Runs of which the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Clients at once.
    #[arg(long, default_value_t = 50)]
    bench_clients: u64,
    /// Requests in a pipeline, where pipelines are used.
    #[arg(long, default_value_t = 16)]
    pipeline: u64,
    /// Different keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// The program that measures.
    #[arg(long, default_value = "redis-benchmark")]
    redis_benchmark: String,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Door {
    PlainOne,
    PlainAll,
    Cluster,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    door: Door,
    pipeline: u64,
    command: &'static str,
    write_level: &'static str,
    figures: Figures,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    let version = Command::new(&flags.redis_benchmark).arg("--version").output().map_err(|error| {
        format!(
            "cannot run {}: {error}; install redis-tools, or see --redis-benchmark",
            flags.redis_benchmark
        )
    })?;
    eprintln!("{}", String::from_utf8_lossy(&version.stdout).trim());
    let mut lines = Vec::new();
    for (write_level, commands) in [("all", &["SET", "GET"][..]), ("one", &["SET"])] {
        let mut shape = common.shape()?;
        shape.settings.push(("write-level".into(), write_level.into()));
        if !shape.settings.iter().any(|(name, _)| name == "log") {
            shape.settings.push(("log".into(), "off".into()));
        }
        let cluster = Cluster::start(shape, &mut Random::new(common.seed()))?;
        for door in [Door::PlainOne, Door::PlainAll, Door::Cluster] {
            for pipeline in [1, flags.pipeline] {
                for command in commands.iter().copied() {
                    let figures = median(flags, &cluster, door, pipeline, command)?;
                    eprintln!("{door:?}, pipeline {pipeline}, {command} at {write_level}: {figures:?}");
                    lines.push(Line { door, pipeline, command, write_level, figures });
                }
            }
        }
        cluster.check_running()?;
    }
    if common.json {
        println!("{}", serde_json::json!({ "ok": true, "lines": lines }));
    } else {
        print!("{}", table(common, flags, &lines));
    }
    Ok(ExitCode::SUCCESS)
}

fn median(
    flags: &Flags,
    cluster: &Cluster,
    door: Door,
    pipeline: u64,
    command: &str,
) -> Result<Figures, Failure> {
    let mut runs = (0..flags.runs.max(1))
        .map(|_| measure(flags, cluster, door, pipeline, command))
        .collect::<Result<Vec<_>, _>>()?;
    runs.sort_by(|one, other| one.per_s.total_cmp(&other.per_s));
    Ok(runs[runs.len() / 2])
}

fn measure(
    flags: &Flags,
    cluster: &Cluster,
    door: Door,
    pipeline: u64,
    command: &str,
) -> Result<Figures, Failure> {
    let ports: Vec<u16> = match door {
        Door::PlainOne => vec![cluster.plain_port(1)],
        Door::PlainAll => cluster.ids().map(|id| cluster.plain_port(id)).collect(),
        Door::Cluster => vec![cluster.cluster_port(1)],
    };
    let share = ports.len() as u64;
    let requests = flags.requests * if pipeline > 1 { 4 } else { 1 } / share;
    let mut running = Vec::new();
    for port in ports {
        let mut benchmark = Command::new(&flags.redis_benchmark);
        for (flag, value) in [
            ("-p", u64::from(port)),
            ("-n", requests),
            ("-c", flags.bench_clients.div_ceil(share)),
            ("-P", pipeline),
            ("-r", flags.keys),
            ("-d", 64),
        ] {
            benchmark.arg(flag).arg(value.to_string());
        }
        benchmark.args(["-t", command, "--csv"]);
        if door == Door::Cluster {
            benchmark.arg("--cluster");
        }
        running.push(benchmark.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    }
    let mut sum = Figures { per_s: 0.0, p50_ms: 0.0, p99_ms: 0.0, max_ms: 0.0 };
    for benchmark in running {
        let output = benchmark.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let one = Figures::parse(&text, command).ok_or_else(|| {
            format!("redis-benchmark says: {text}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        sum.per_s += one.per_s;
        sum.p50_ms = sum.p50_ms.max(one.p50_ms);
        sum.p99_ms = sum.p99_ms.max(one.p99_ms);
        sum.max_ms = sum.max_ms.max(one.max_ms);
    }
    Ok(sum)
}

fn table(common: &Common, flags: &Flags, lines: &[Line]) -> String {
    let mut text = format!(
        "{} nodes, copies {}, {} clients, values of 64 bytes, {} keys; operations a second (p50 / p99 in ms), \
         medians of {}:\n\n\
         | door | pipeline | SET at `all` | SET at `one` | GET |\n| --- | ---: | ---: | ---: | ---: |\n",
        common.nodes, common.copies, flags.bench_clients, flags.keys, flags.runs
    );
    for (door, name) in [
        (Door::PlainOne, "plain, one node"),
        (Door::PlainAll, "plain, all nodes"),
        (Door::Cluster, "cluster-aware"),
    ] {
        for pipeline in [1, flags.pipeline] {
            let cell = |command: &str, level: &str| {
                lines
                    .iter()
                    .find(|line| {
                        (line.door, line.pipeline, line.command, line.write_level)
                            == (door, pipeline, command, level)
                    })
                    .map_or("-".to_owned(), |line| {
                        let Figures { per_s, p50_ms, p99_ms, .. } = line.figures;
                        format!("{per_s:.0} ({p50_ms:.2} / {p99_ms:.2})")
                    })
            };
            text += &format!(
                "| {name} | {pipeline} | {} | {} | {} |\n",
                cell("SET", "all"),
                cell("SET", "one"),
                cell("GET", "all")
            );
        }
    }
    text
}
