//! What each door costs: the same requests through RESP, the line port, HTTP and gRPC, one at a time over many connections.
//!
//! One node, whose data thread and whose threads of the doors share one processor; the load comes from one thread on another, the same
//! for each door but for the bytes ([`speak`]). Doors take turns, round after round, and another begins each round.

mod speak;

use super::client::{Client, Fill, key};
use super::servers::{Contender, Hosts, Server};
use super::{Flags, median};
use crate::failure::Failure;
use history::random::Random;
use serde::Serialize;
use speak::{Door, Speaker};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 5;
const FILL_PIPELINE: u64 = 500;
/// How long a run goes on before it is measured: connections are made meanwhile.
const WARM_UP: Duration = Duration::from_millis(300);

/// What came out.
#[derive(Serialize)]
pub(super) struct Doors {
    keys: u64,
    value_bytes: usize,
    connections: u64,
    rounds: u32,
    seconds: f64,
    lines: Vec<Line>,
}

/// One door with one command.
#[derive(Serialize)]
struct Line {
    command: &'static str,
    door: &'static str,
    runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Copy, Serialize)]
struct Run {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// The server's processor time for each request.
    processor_us: f64,
}

pub(super) fn measure(flags: &Flags, contenders: &[Contender], hosts: &Hosts) -> Result<Doors, Failure> {
    let (keys, rounds) = (flags.keys_or(1_000_000), flags.rounds_or(ROUNDS));
    let own = contenders.iter().find(|one| one.is_own).ok_or("there is no node to measure")?;
    let server = hosts.start(own)?;
    let fill = Fill { value_bytes: flags.value_bytes, pipeline: FILL_PIPELINE, options: &[] };
    fill.run(server.port, 0..keys)?;
    let held = Client::connect(server.port)?.keys_held()?;
    if held != keys as i64 {
        return Err(format!("the node holds {held} keys of {keys}").into());
    }
    let mut lines = Vec::new();
    for command in ["PUT", "GET"] {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); Door::ALL.len()];
        for round in 0..rounds as usize {
            for turn in 0..Door::ALL.len() {
                let at = (round + turn) % Door::ALL.len();
                runs[at].push(run(flags, keys, &server, Door::ALL[at], command == "PUT")?);
            }
        }
        for (door, runs) in Door::ALL.into_iter().zip(runs) {
            let line = Line { command, door: door.name(), runs };
            eprintln!(
                "{} {}: {:.0}/s, {:.1} us",
                line.command,
                line.door,
                line.of(|run| run.per_s),
                line.of(|run| run.processor_us)
            );
            lines.push(line);
        }
    }
    Ok(Doors {
        keys,
        value_bytes: flags.value_bytes,
        connections: flags.connections,
        rounds,
        seconds: flags.seconds,
        lines,
    })
}

/// When a run is measured, and what was.
struct Measured {
    from: Instant,
    to: Instant,
    took_us: RefCell<Vec<u32>>,
}

fn run(flags: &Flags, keys: u64, server: &Server<'_>, door: Door, puts: bool) -> Result<Run, Failure> {
    server.check_running()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let from = Instant::now() + WARM_UP;
    let to = from + Duration::from_secs_f64(flags.seconds);
    let measured = Rc::new(Measured { from, to, took_us: RefCell::default() });
    let value = Rc::new(vec![b'y'; flags.value_bytes]);
    let local = tokio::task::LocalSet::new();
    let (port, connections) = (server.port, flags.connections);
    let processor_s = local.block_on(&runtime, async {
        let mut speaking = Vec::new();
        for number in 0..connections {
            let (measured, value) = (measured.clone(), value.clone());
            speaking.push(tokio::task::spawn_local(async move {
                let mut speaker = Speaker::connect(door, port).await?;
                let mut random = Random::new(number + 1);
                while Instant::now() < measured.to {
                    let key = key(random.below(keys));
                    let began = Instant::now();
                    match puts {
                        true => speaker.put(key.as_bytes(), &value).await?,
                        false => speaker.get(key.as_bytes(), &value).await?,
                    }
                    if began >= measured.from {
                        let took = began.elapsed().as_micros();
                        measured.took_us.borrow_mut().push(u32::try_from(took).unwrap_or(u32::MAX));
                    }
                }
                Ok::<(), Failure>(())
            }));
        }
        tokio::time::sleep_until(from.into()).await;
        let before = server.processor_s()?;
        for one in speaking {
            one.await.map_err(|error| format!("a connection by {} failed: {error}", door.name()))??;
        }
        Ok::<f64, Failure>(server.processor_s()? - before)
    })?;
    let mut took_us = measured.took_us.take();
    took_us.sort_unstable();
    let at = |share: f64| {
        let rank = (took_us.len() as f64 * share).ceil() as usize;
        f64::from(took_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)) / 1e3
    };
    let requests = took_us.len().max(1) as f64;
    Ok(Run {
        per_s: requests / flags.seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        processor_us: processor_s * 1e6 / requests,
    })
}

impl Line {
    fn of(&self, pick: fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(pick))
    }
}

pub(super) fn text(doors: &Doors) -> String {
    let mut text = format!(
        "{} keys, values of {} bytes, {} connections with one request at a time; {} runs of {} s each, doors in turn. Medians, and the least \
         and most of operations a second. *Processor* is the node's processor time for an operation, all its threads; *busy* what part \
         of its processor that makes: a node that is not near 100% waited for the load.\n\n\
         | command | door | operations/s | least to most | processor, us | busy | p50, ms | p99, ms |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        doors.keys, doors.value_bytes, doors.connections, doors.rounds, doors.seconds
    );
    for line in &doors.lines {
        let per_s = || line.runs.iter().map(|run| run.per_s);
        text += &format!(
            "| {} | {} | {:.0} | {:.0} to {:.0} | {:.1} | {:.0}% | {:.3} | {:.3} |\n",
            line.command,
            line.door,
            line.of(|run| run.per_s),
            per_s().fold(f64::INFINITY, f64::min),
            per_s().fold(0.0, f64::max),
            line.of(|run| run.processor_us),
            line.of(|run| run.processor_us) * line.of(|run| run.per_s) / 1e4,
            line.of(|run| run.p50_ms),
            line.of(|run| run.p99_ms),
        );
    }
    text
}
