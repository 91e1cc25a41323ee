//! `annulet up`: a cluster on this machine, from one command.
//!
//! Checks what can be checked before anything starts (shape, settings, ports), starts a process a node, waits until the
//! cluster serves, says how to use it, and then watches: a node that dies is reported and the others go on. Ctrl-C stops
//! them all.

use crate::cluster::{Asked, Cluster, host_port};
use crate::nodes::{Ended, Nodes, tail};
use crate::status::Status;
use crate::{Failure, accept_loss, config, flags, rolling_restart};
use clap::ArgMatches;
use client::{Connection, Options};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use types::settings::Settings;

/// The longest wait for a new cluster to serve.
const START: Duration = Duration::from_secs(60);
/// The longest wait for a node to stop cleanly.
const STOP: Duration = Duration::from_secs(10);
/// The longest wait for every copy to be in sync, before and after a node is restarted.
const AT_REST: Duration = Duration::from_secs(240);
/// From one look at the nodes to the next.
const TICK: Duration = Duration::from_millis(50);

/// What signals have asked for.
#[derive(Clone, Default)]
struct Stops {
    /// How often to stop.
    stops: Arc<AtomicUsize>,
    /// Whether to restart the nodes one after the other.
    restart: Arc<AtomicBool>,
}

impl Stops {
    fn listen() -> Result<Stops, Failure> {
        let asked = Stops::default();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
        let heard = asked.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGUSR1 => heard.restart.store(true, Ordering::Relaxed),
                    _ => _ = heard.stops.fetch_add(1, Ordering::Relaxed),
                }
            }
        })?;
        Ok(asked)
    }

    fn count(&self) -> usize {
        self.stops.load(Ordering::Relaxed)
    }

    fn takes_restart(&self) -> bool {
        self.restart.swap(false, Ordering::Relaxed)
    }
}

/// A running local cluster.
struct Launch {
    cluster: Cluster,
    settings: Settings,
    nodes: Nodes,
    stops: Stops,
    /// How long each node's log was before this run.
    log_starts: Vec<u64>,
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let (cluster, settings) = plan(matches)?;
    cluster.check_ports()?;
    cluster.write()?;
    let log_starts =
        cluster.ids().map(|id| std::fs::metadata(cluster.log_path(id)).map_or(0, |log| log.len())).collect();
    let stops = Stops::listen()?;
    let mut launch = Launch { cluster, settings, nodes: Nodes::default(), stops, log_starts };
    if launch.cluster.existed && !launch.cluster.had_logs {
        println!(
            "{} holds a cluster that was stopped. Its data was in memory only (log = off): it starts empty.",
            launch.cluster.dir.display()
        );
    }
    for id in launch.cluster.ids() {
        launch
            .nodes
            .start(&launch.cluster, id)
            .map_err(|error| format!("cannot start node {id}: {error}"))?;
    }
    if let Err(failure) = launch.wait_until_served() {
        launch.stop()?;
        return Err(failure);
    }
    if launch.stops.count() == 0 {
        println!("{}", launch.welcome());
        launch.watch()?;
    }
    let all_died = launch.nodes.count() == 0;
    launch.stop()?;
    if all_died {
        return Err("every node has ended".into());
    }
    Ok(ExitCode::SUCCESS)
}

/// The cluster that the flags ask for, and its first node's settings, checked.
fn plan(matches: &ArgMatches) -> Result<(Cluster, Settings), Failure> {
    let common = flags::given_settings(matches, flags::DECIDED_BY_UP);
    // Wrong values are told as flags, before a file is touched.
    let mut alone = Settings::default();
    for (name, value) in &common {
        alone.set(name, value).map_err(|error| config::ConfigError::InFlag { name, error })?;
    }
    let was_given = |name: &str| common.iter().any(|(given, _)| *given == name);
    let asked = Asked {
        nodes: matches.get_one("count").or_else(|| matches.get_one("nodes")).copied(),
        port: matches.get_one("port").copied(),
        copies: was_given("copies").then_some(alone.copies),
        partitions: was_given("partitions").then_some(alone.partitions),
    };
    let dir = matches.get_one::<String>("dir").map_or("annulet-data", String::as_str);
    let cluster = Cluster::open(Path::new(dir), asked, common)?;
    let settings = config::settings(None, &cluster.node_settings(1))?;
    Ok((cluster, settings))
}

impl Launch {
    fn wait_until_served(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let mut progress = Progress::new();
        let mut connections: Vec<Option<Connection>> = self.cluster.ids().map(|_| None).collect();
        // Why the loss of a stopped cluster's data could not be accepted.
        let mut refused: Option<Failure> = None;
        loop {
            if self.stops.count() > 0 {
                progress.end();
                return Ok(());
            }
            if let Some(ended) = self.nodes.ended()?.first() {
                progress.end();
                return Err(format!("{}The cluster was not started.", self.obituary(ended)).into());
            }
            let seen: Vec<Option<Status>> =
                self.cluster.ids().zip(&mut connections).map(|(id, slot)| self.ask(id, slot)).collect();
            let answering = seen.iter().flatten().count();
            if seen.iter().all(|status| status.as_ref().is_some_and(|status| status.ok)) {
                progress.end();
                return Ok(());
            }
            if answering == seen.len() && self.may_accept_loss(&seen) {
                match connections.iter_mut().flatten().next().map(accept_loss::give_up) {
                    Some(Ok(count)) if count > 0 => {
                        progress.end();
                        println!("{count} partitions restarted empty: no copy of them was left.");
                    }
                    Some(Err(failure)) => refused = Some(failure),
                    _ => {}
                }
            }
            let partitions = seen.iter().flatten().map(|status| &status.partitions).max_by_key(|p| p.served);
            progress.show(&format!(
                "starting: {answering} of {} nodes answer, {} of {} partitions served",
                seen.len(),
                partitions.map_or(0, |p| p.served),
                self.cluster.shape.partitions,
            ));
            if started.elapsed() > START {
                progress.end();
                let refused =
                    refused.map_or_else(String::new, |why| format!("Starting empty failed: {why}\n"));
                return Err(format!("{}{refused}", self.not_served(&seen)).into());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Only a cluster that kept nothing on disk and was stopped as a whole: there is nothing to lose.
    fn may_accept_loss(&self, seen: &[Option<Status>]) -> bool {
        self.cluster.existed
            && !self.cluster.had_logs
            && seen.iter().flatten().any(|status| status.partitions.lost > 0)
            && seen.iter().flatten().all(|status| status.nodes.iter().all(|node| node.state == "ACTIVE"))
    }

    fn ask(&self, id: u16, slot: &mut Option<Connection>) -> Option<Status> {
        if slot.is_none() {
            let password = Some(self.settings.requirepass.0.clone()).filter(|text| !text.is_empty());
            let options = Options {
                password,
                connect_timeout: Duration::from_millis(500),
                request_timeout: Duration::from_secs(2),
            };
            *slot = Connection::connect(&[self.cluster.address(id)], options).ok();
        }
        let asked = Status::ask(slot.as_mut()?);
        if asked.is_err() {
            *slot = None;
        }
        asked.ok().map(|(status, _)| status)
    }

    fn not_served(&self, seen: &[Option<Status>]) -> String {
        let failing =
            seen.iter().position(|status| status.as_ref().is_none_or(|status| !status.ok)).unwrap_or(0);
        let id = failing as u16 + 1;
        let what = match &seen[failing] {
            None => format!("node {id} does not answer"),
            Some(status) => format!(
                "node {id} says that {} of {} partitions are served",
                status.partitions.served, status.partitions.total
            ),
        };
        format!(
            "the cluster does not serve after {} s: {what}. The end of {}:\n{}",
            START.as_secs(),
            self.cluster.log_path(id).display(),
            self.tail(id)
        )
    }

    fn welcome(&self) -> String {
        let Cluster { shape, dir, .. } = &self.cluster;
        let host = match self.cluster.host() {
            "127.0.0.1" => String::new(),
            host => format!("-h {host} "),
        };
        let auth = if self.settings.requirepass.0.is_empty() { "" } else { " -a PASSWORD" };
        let port = shape.port;
        let cluster_port = self.settings.cluster_port;
        let http = host_port(self.cluster.host(), self.cluster.http_port(1));
        let http_ports = match (self.cluster.http_port(1), self.cluster.http_port(shape.nodes)) {
            (first, last) if first == last => format!("port {first}"),
            (first, last) => format!("ports {first} to {last}"),
        };
        let line = self.cluster.line_port(1);
        let line_ports = match (line, self.cluster.line_port(shape.nodes)) {
            (first, last) if first == last => format!("port {first}"),
            (first, last) => format!("ports {first} to {last}"),
        };
        let flags = match (port, self.cluster.host()) {
            (7001, "127.0.0.1") => String::new(),
            (port, "127.0.0.1") => format!(" --port {port}"),
            (port, host) => format!(" --host {host} --port {port}"),
        };
        let flags = if auth.is_empty() { flags } else { format!("{flags} --password PASSWORD") };
        let nodes = counted(usize::from(shape.nodes), "node");
        let last = port + shape.nodes - 1;
        let ports = if shape.nodes == 1 { format!("port {port}") } else { format!("ports {port} to {last}") };
        format!(
            "\nAnnulet serves: {nodes}, {} partitions, copies {}.

  any Redis client:     redis-cli {host}-p {port}{auth}     ({ports}: any node answers any key)
  cluster-aware:        redis-cli {host}-c -p {cluster_port}{auth}
  try:                  {name} cli{flags} put user:1 Alice
  then:                 {name} cli{flags} get user:1
  look:                 {name} status{flags}
  by HTTP:              curl http://{http}/v1/kv/user:1     ({http_ports}; /metrics, /healthz, /readyz)
  by hand:              echo 'GET user:1' | nc {} {line}     ({line_ports}; JSON, too)
  data and logs:        {}/node-*/ (each node's log is the file `log`)

Ctrl-C stops all.",
            shape.partitions,
            shape.copies,
            self.cluster.host(),
            dir.display(),
            name = program(),
        )
    }

    /// Reports nodes that die until a stop is asked for or none is left.
    fn watch(&mut self) -> Result<(), Failure> {
        while self.stops.count() == 0 && self.nodes.count() > 0 {
            for ended in self.nodes.ended()? {
                eprintln!("annulet: {}", self.obituary(&ended));
                eprintln!(
                    "  To bring it back (it then runs by itself; Ctrl-C here does not stop it):\n    {} serve --config {}\n",
                    program(),
                    self.cluster.config_path(ended.id).display()
                );
            }
            if self.stops.takes_restart() {
                self.restart_all()?;
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Restarts the nodes that run, each once all copies of the one before are in sync again, and says how far it is.
    fn restart_all(&mut self) -> Result<(), Failure> {
        let path = rolling_restart::word_path(&self.cluster.dir);
        let say = |word: &str| {
            eprintln!("rolling restart: {word}");
            // Whole or not at all, for whoever reads it.
            let aside = path.with_extension("new");
            std::fs::write(&aside, word).and_then(|()| std::fs::rename(&aside, &path))
        };
        let ids = self.nodes.ids();
        for (at, &id) in ids.iter().enumerate() {
            say(&format!("node {id} ({} of {})", at + 1, ids.len()))?;
            if let Err(why) = self.restart_one(id) {
                return Ok(say(&format!("{}{why}", rolling_restart::GONE_WRONG))?);
            }
        }
        Ok(say(rolling_restart::DONE)?)
    }

    fn restart_one(&mut self, id: u16) -> Result<(), Failure> {
        self.wait_at_rest(id, "is not touched")?;
        let (stops, so_far) = (self.stops.clone(), self.stops.count());
        if !self.nodes.stop_one(id, STOP, &|| stops.count() > so_far)? {
            eprintln!("annulet: node {id} did not stop in time and was killed");
        }
        self.nodes.start(&self.cluster, id).map_err(|error| format!("cannot start node {id}: {error}"))?;
        self.wait_at_rest(id, "was started again")
    }

    /// Waits until a node answers, and says that every copy of everything is where it should be.
    fn wait_at_rest(&mut self, id: u16, what: &str) -> Result<(), Failure> {
        let began = Instant::now();
        let mut connection = None;
        loop {
            if let Some(ended) = self.nodes.ended()?.first() {
                return Err(self.obituary(ended).into());
            }
            let status = self.ask(id, &mut connection);
            if status.as_ref().is_some_and(|status| status.ok && status.is_at_rest()) {
                return Ok(());
            }
            if self.stops.count() > 0 {
                return Err("a stop was asked for".into());
            }
            if began.elapsed() > AT_REST {
                let why = match status {
                    None => "it does not answer".to_owned(),
                    Some(status) => status.moves_words(),
                };
                return Err(format!("node {id} {what}, and after {} s: {why}", AT_REST.as_secs()).into());
            }
            std::thread::sleep(TICK);
        }
    }

    fn obituary(&self, ended: &Ended) -> String {
        let log = self.cluster.log_path(ended.id);
        let tail = self.tail(ended.id);
        let end = if tail.is_empty() {
            format!("  Nothing was logged in {}.\n", log.display())
        } else {
            format!("  The end of {}:\n{tail}", log.display())
        };
        format!("node {} (pid {}) ended: {}.\n{end}", ended.id, ended.pid, ended.status)
    }

    fn tail(&self, id: u16) -> String {
        tail(&self.cluster.log_path(id), self.log_starts.get(usize::from(id) - 1).copied().unwrap_or(0))
    }

    fn stop(&mut self) -> Result<(), Failure> {
        if self.nodes.count() == 0 {
            return Ok(());
        }
        eprintln!(
            "\nStopping {} (up to {} s; Ctrl-C again kills) ...",
            counted(self.nodes.count(), "node"),
            STOP.as_secs()
        );
        let (stops, so_far) = (self.stops.clone(), self.stops.count());
        let killed = self.nodes.stop(STOP, &|| stops.count() > so_far)?;
        for id in killed {
            eprintln!("annulet: node {id} did not stop in time and was killed");
        }
        eprintln!("Stopped.");
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// How this program was called, to be called so again.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "annulet".to_owned())
}

/// One line that is written over and over; nothing where standard error is no terminal, until it ends.
struct Progress {
    live: bool,
    shown: String,
}

impl Progress {
    fn new() -> Progress {
        Progress { live: std::io::stderr().is_terminal(), shown: String::new() }
    }

    fn show(&mut self, text: &str) {
        if text == self.shown {
            return;
        }
        self.shown = text.to_owned();
        if self.live {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&mut self) {
        if self.live && !self.shown.is_empty() {
            eprint!("\r\x1b[K");
            let _ = std::io::stderr().flush();
        }
        self.shown.clear();
    }
}
