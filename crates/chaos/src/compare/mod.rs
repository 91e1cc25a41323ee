//! `chaos compare`: one node of Annulet beside other servers of the same protocol, on the same machine, at the same time, in turn.
//!
//! Every server runs on one processor and whatever loads it on another, so that none gets what another needs. All are
//! unmodified processes, looked at from outside.
//!
//! | mode | what it measures | by |
//! | --- | --- | --- |
//! | (none) | operations a second, processor time an operation, latency | [`rates`] |
//! | `--memory` | bytes a key | [`memory`] |
//! | `--pauses` | how long a client waits while something big goes on | [`pauses`] |
//! | `--durable` | the same as without a mode, of writes that are kept on disk | [`durable`] |
//! | `--restart` | how long a killed server takes to be whole again | [`restart`] |
//! | `--snapshots` | what writers and memory bear while everything is saved | [`snapshots`] |
//! | `--doors` | the same as without a mode, of each of Annulet's doors, one request at a time | [`doors`] |
//!
//! [`servers`] runs the processes, [`disks`] says how they keep what they are told, [`generator`] runs the outside program that
//! measures rates, [`client`] is a small client that does not get in the way of what is measured, [`stream`] one that writes
//! without a break, [`machine`] says where all this was and whether anybody else was there, and
//! [`section`] puts the outcome into docs/performance.md. Nothing here judges a figure.

mod client;
mod disks;
mod doors;
mod durable;
mod generator;
mod machine;
mod memory;
mod pauses;
mod rates;
mod restart;
pub(crate) mod section;
mod servers;
mod snapshots;
mod spans;
mod stops;
mod stream;
mod taken;

use crate::Common;
use crate::failure::Failure;
use clap::Args;
use disks::FileSystem;
pub(crate) use generator::Figures;
use machine::{Machine, Processors};
use serde::Serialize;
use servers::{Contender, Hosts};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `chaos compare` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// A server to compare with, as NAME=PATH. May be repeated. By default redis=redis-server; with --pauses none.
    #[arg(long = "peer", value_name = "NAME=PATH", value_parser = peer)]
    peers: Vec<(String, String)>,
    /// Measure bytes a key instead.
    #[arg(long, group = "mode")]
    memory: bool,
    /// Measure the longest waits while something big goes on instead.
    #[arg(long, group = "mode")]
    pauses: bool,
    /// Measure writes that are kept on disk instead, synced always and every second.
    #[arg(long, group = "mode")]
    durable: bool,
    /// Measure how long servers that were killed take to be whole again instead, from logs and from snapshots.
    #[arg(long, group = "mode")]
    restart: bool,
    /// Measure what writers and memory bear while everything is saved instead.
    #[arg(long, group = "mode")]
    snapshots: bool,
    /// Measure each of Annulet's doors instead: RESP, the line port, HTTP and gRPC.
    #[arg(long, group = "mode")]
    doors: bool,
    /// Measured runs of each server, command and pipeline: 5 by default. With --restart starts, with --snapshots saves: 3.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Keys that each server holds. By default 1,000,000; with --memory, --restart and --snapshots 5,000,000; with --pauses
    /// 10,000,000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: Option<u64>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
    /// Requests that a connection sends at once.
    #[arg(long, default_value = "1,16,64", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=1000))]
    pipelines: Vec<u64>,
    /// Connections at once.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,
    /// About how long a run takes. With --pauses and --snapshots: how long is looked where nothing goes on but writing.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// The program that measures rates: redis-benchmark, valkey-benchmark or one that prints the same.
    #[arg(long, default_value = "redis-benchmark", value_name = "PATH")]
    generator: String,
    /// MiB of the big value of --pauses; each server holds it several times for a moment.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=512))]
    big_mib: u64,
    /// The processor that servers run on. By default the first that this process may use.
    #[arg(long)]
    server_processor: Option<usize>,
    /// The processor that the load comes from. By default the second that this process may use.
    #[arg(long)]
    load_processor: Option<usize>,
    /// A Markdown file whose marked section is written anew.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Everything that came out, for `--json`.
#[derive(Serialize)]
struct Outcome<'a, T> {
    machine: &'a Machine,
    versions: &'a [String],
    measured: &'a T,
}

fn peer(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() && name != servers::OWN => {
            Ok((name.to_owned(), path.to_owned()))
        }
        _ => Err(format!("expected NAME=PATH, NAME being no other server's and not {}", servers::OWN)),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds from 0.05 to 600".to_owned()),
    }
}

impl Flags {
    fn contenders(&self, common: &Common) -> Result<Vec<Contender>, Failure> {
        let mut contenders = vec![Contender::own(common)?];
        if self.peers.is_empty() && !self.pauses && !self.doors {
            contenders.push(Contender::peer("redis", "redis-server")?);
        }
        for (name, program) in &self.peers {
            if contenders.iter().any(|other| other.name == *name) {
                return Err(format!("two servers are called {name}").into());
            }
            contenders.push(Contender::peer(name, program)?);
        }
        Ok(contenders)
    }

    /// The keys that a server holds, by default as many as `usual`.
    fn keys_or(&self, usual: u64) -> u64 {
        self.keys.unwrap_or(usual)
    }

    /// The runs to be made, by default as many as `usual`.
    fn rounds_or(&self, usual: u32) -> u32 {
        self.rounds.unwrap_or(usual)
    }

    /// The section that the mode writes.
    fn section(&self) -> &'static str {
        match self {
            Flags { memory: true, .. } => section::MEMORY,
            Flags { pauses: true, .. } => section::PAUSES,
            Flags { durable: true, .. } => section::DURABLE,
            Flags { restart: true, .. } => section::RESTART,
            Flags { snapshots: true, .. } => section::SNAPSHOTS,
            Flags { doors: true, .. } => section::DOORS,
            _ => section::RATES,
        }
    }
}

pub(crate) fn run(common: &Common, flags: &Flags) -> Result<ExitCode, Failure> {
    let mode = flags.section();
    // An hour of measuring should not end in a file that cannot be written.
    if let Some(path) = &flags.report {
        section::check(path, mode)?;
    }
    let contenders = flags.contenders(common)?;
    let mut versions: Vec<String> = contenders.iter().map(|one| one.version.clone()).collect();
    if [section::RATES, section::DURABLE].contains(&mode) {
        versions.push(generator::version(&flags.generator)?);
    }
    let processors = Processors::choose(flags.server_processor, flags.load_processor)?;
    // Before the threads and the load's processes: they inherit it.
    processors.pin_load()?;
    let mut machine = Machine::look(&processors)?;
    let hosts = Hosts::new(common, processors)?;
    // Each mode with its own kind of outcome.
    macro_rules! measure {
        ($mode:ident $(, $disk:expr)?) => {{
            let measured = $mode::measure(flags, &contenders, &hosts $(, $disk)?)?;
            finish(common, flags, &mut machine, &versions, &measured, $mode::text(&measured))
        }};
    }
    match mode {
        section::MEMORY => measure!(memory),
        section::PAUSES => measure!(pauses),
        section::DOORS => measure!(doors),
        section::DURABLE => measure!(durable, disk(&hosts, &mut machine)?),
        section::RESTART => measure!(restart, disk(&hosts, &mut machine)?),
        section::SNAPSHOTS => measure!(snapshots, disk(&hosts, &mut machine)?),
        _ => measure!(rates),
    }
}

/// Looks at where files will be.
fn disk(hosts: &Hosts, machine: &mut Machine) -> Result<FileSystem, Failure> {
    let file_system = FileSystem::look(hosts.dir())?;
    if let Some(warning) = file_system.warning() {
        machine.warn(warning);
    }
    Ok(file_system)
}

fn finish<T: Serialize>(
    common: &Common,
    flags: &Flags,
    machine: &mut Machine,
    versions: &[String],
    measured: &T,
    tables: String,
) -> Result<ExitCode, Failure> {
    machine.look_again()?;
    let text = format!("{}\n{tables}", machine.text(versions));
    if common.json {
        let outcome = Outcome { machine, versions, measured };
        println!("{}", serde_json::json!({ "ok": true, "result": outcome }));
    } else {
        print!("{text}");
    }
    if let Some(path) = &flags.report {
        section::write(path, flags.section(), &text)?;
        eprintln!("written to {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A figure of Annulet's beside another's.
fn ratio(own: f64, other: f64) -> String {
    if own > 0.0 && other > 0.0 { format!("{:.2}x", own / other) } else { "-".to_owned() }
}

/// The number in the middle; of an even count the greater of the two.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_have_names_and_paths() {
        assert_eq!(peer("valkey=/a/b=c"), Ok(("valkey".to_owned(), "/a/b=c".to_owned())));
        for wrong in ["valkey", "=a", "valkey=", "annulet=x"] {
            assert!(peer(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
