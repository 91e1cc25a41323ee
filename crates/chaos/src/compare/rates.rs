//! Operations a second, processor time an operation, and latency.
//!
//! All servers run and hold their keys from the beginning. For each command and pipeline they are measured in turn, round after
//! round, and another begins each round, so that a slow minute of the machine is everybody's. A first, short run is not counted:
//! it tells how many requests make a run of the time wanted.
//!
//! Processor time is the server's own, of all its threads, by the kernel (`/proc/PID/stat`, exact to 20 ms a run). What the
//! kernel does in interrupts on behalf of a server is in nobody's figure.

use super::client::{Client, Fill};
use super::generator::{Figures, Load};
use super::servers::{Contender, Hosts, OWN, Server};
use super::{Flags, median, ratio};
use crate::failure::Failure;
use serde::Serialize;

/// Requests sent at once while servers are filled.
const FILL_PIPELINE: u64 = 500;
/// Requests of the first run, for each request of a pipeline.
const FIRST_REQUESTS: u64 = 10_000;
/// The most of these.
const FIRST_REQUESTS_MAX: u64 = 200_000;
/// Runs of each server, where no number is named.
const ROUNDS: u32 = 5;

/// What came out.
#[derive(Serialize)]
pub(super) struct Rates {
    keys: u64,
    value_bytes: usize,
    connections: u64,
    rounds: u32,
    seconds: f64,
    lines: Vec<Line>,
}

/// One server with one command and pipeline.
#[derive(Serialize)]
struct Line {
    command: &'static str,
    pipeline: u64,
    server: String,
    per_s: f64,
    per_s_least: f64,
    per_s_most: f64,
    processor_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Copy, Serialize)]
struct Run {
    figures: Figures,
    requests: u64,
    /// The server's processor time for each request.
    processor_us: f64,
}

pub(super) fn measure(flags: &Flags, contenders: &[Contender], hosts: &Hosts) -> Result<Rates, Failure> {
    let (keys, rounds) = (flags.keys_or(1_000_000), flags.rounds_or(ROUNDS));
    let mut servers = Vec::new();
    for contender in contenders {
        let server = hosts.start(contender)?;
        let fill = Fill { value_bytes: flags.value_bytes, pipeline: FILL_PIPELINE, options: &[] };
        let took = fill.run(server.port, 0..keys)?;
        let held = Client::connect(server.port)?.keys_held()?;
        if held != keys as i64 {
            return Err(format!("{} holds {held} keys of {keys}", server.name).into());
        }
        eprintln!("{} holds {keys} keys after {:.1} s", server.name, took.as_secs_f64());
        servers.push(server);
    }
    let mut lines = Vec::new();
    for command in ["SET", "GET"] {
        for pipeline in flags.pipelines.iter().copied() {
            lines.extend(measure_one(flags, keys, &servers, command, pipeline)?);
        }
    }
    Ok(Rates {
        keys,
        value_bytes: flags.value_bytes,
        connections: flags.connections,
        rounds,
        seconds: flags.seconds,
        lines,
    })
}

fn measure_one(
    flags: &Flags,
    keys: u64,
    servers: &[Server<'_>],
    command: &'static str,
    pipeline: u64,
) -> Result<Vec<Line>, Failure> {
    let run = |server: &Server<'_>, requests: u64| -> Result<Run, Failure> {
        server.check_running()?;
        let load = Load {
            program: &flags.generator,
            command,
            requests: requests.max(flags.connections * pipeline),
            connections: flags.connections,
            pipeline,
            keys,
            value_bytes: flags.value_bytes,
        };
        let before = server.processor_s()?;
        let figures = load.run(server.port)?;
        let processor_s = server.processor_s()? - before;
        Ok(Run { figures, requests: load.requests, processor_us: processor_s * 1e6 / load.requests as f64 })
    };
    let mut runs: Vec<Vec<Run>> = Vec::new();
    let mut rates = Vec::new();
    for server in servers {
        rates.push(run(server, (FIRST_REQUESTS * pipeline).min(FIRST_REQUESTS_MAX))?.figures.per_s);
        runs.push(Vec::new());
    }
    for round in 0..flags.rounds_or(ROUNDS) as usize {
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            let one = run(&servers[at], (rates[at] * flags.seconds) as u64)?;
            rates[at] = one.figures.per_s;
            runs[at].push(one);
        }
    }
    let lines = servers.iter().zip(runs).map(|(server, runs)| Line::of(command, pipeline, server, runs));
    Ok(lines.inspect(|line| eprintln!("{}", line.said())).collect())
}

impl Line {
    fn of(command: &'static str, pipeline: u64, server: &Server<'_>, runs: Vec<Run>) -> Line {
        let all = |pick: fn(&Run) -> f64| runs.iter().map(pick);
        Line {
            command,
            pipeline,
            server: server.name.clone(),
            per_s: median(all(|run| run.figures.per_s)),
            per_s_least: all(|run| run.figures.per_s).fold(f64::INFINITY, f64::min),
            per_s_most: all(|run| run.figures.per_s).fold(0.0, f64::max),
            processor_us: median(all(|run| run.processor_us)),
            p50_ms: median(all(|run| run.figures.p50_ms)),
            p99_ms: median(all(|run| run.figures.p99_ms)),
            max_ms: all(|run| run.figures.max_ms).fold(0.0, f64::max),
            runs,
        }
    }

    fn said(&self) -> String {
        format!(
            "{} pipeline {}: {}: {:.0}/s ({:.0} to {:.0}), {:.2} us",
            self.command,
            self.pipeline,
            self.server,
            self.per_s,
            self.per_s_least,
            self.per_s_most,
            self.processor_us
        )
    }
}

pub(super) fn text(rates: &Rates) -> String {
    let mut text = format!(
        "{} keys, values of {} bytes, {} connections; {} runs of about {} s each, servers in turn. Medians, and the least and \
         most of operations a second. *Processor* is the server's processor time for an operation, *busy* what part of its \
         processor that makes; a server that is not near 100% waited for the load. Ratios are Annulet's figure to that server's.\n\n\
         | command | pipeline | server | operations/s | least to most | processor, us | busy | p50, ms | p99, ms | longest, ms \
         | Annulet: operations/s | Annulet: processor |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        rates.keys, rates.value_bytes, rates.connections, rates.rounds, rates.seconds
    );
    for line in &rates.lines {
        let own = rates
            .lines
            .iter()
            .find(|own| {
                (own.command, own.pipeline) == (line.command, line.pipeline)
                    && own.server == OWN
                    && line.server != OWN
            })
            .map(|own| (ratio(own.per_s, line.per_s), ratio(own.processor_us, line.processor_us)))
            .unwrap_or_default();
        text += &format!(
            "| {} | {} | {} | {:.0} | {:.0} to {:.0} | {:.2} | {:.0}% | {:.3} | {:.3} | {:.1} | {} | {} |\n",
            line.command,
            line.pipeline,
            line.server,
            line.per_s,
            line.per_s_least,
            line.per_s_most,
            line.processor_us,
            line.processor_us * line.per_s / 1e4,
            line.p50_ms,
            line.p99_ms,
            line.max_ms,
            own.0,
            own.1
        );
    }
    text
}
