//! A local cluster that runs: its processes, what signals ask for, waiting until it serves or is at rest, and its end.
//!
//! `annulet up` and `annulet demo` are two ways to use one.

use crate::cluster::Cluster;
use crate::nodes::{Ended, Nodes, tail};
use crate::status::Status;
use crate::{Failure, accept_loss};
use client::{Connection, Options};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use types::settings::Settings;

/// The longest wait for a new cluster to serve.
const START: Duration = Duration::from_secs(60);
/// The longest wait for a node to stop cleanly.
pub(crate) const STOP: Duration = Duration::from_secs(10);
/// The longest wait for every copy to be in sync, before and after a node is restarted.
const AT_REST: Duration = Duration::from_secs(240);
/// From one look at the nodes to the next.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// What signals have asked for.
#[derive(Clone, Default)]
pub(crate) struct Stops {
    /// How often to stop.
    stops: Arc<AtomicUsize>,
    /// Whether to restart the nodes one after the other.
    restart: Arc<AtomicBool>,
}

impl Stops {
    /// Listens to this process's signals from here on.
    pub(crate) fn listen() -> Result<Stops, Failure> {
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

    /// How often a stop was asked for.
    pub(crate) fn count(&self) -> usize {
        self.stops.load(Ordering::Relaxed)
    }

    /// Whether a rolling restart was asked for since the last call.
    pub(crate) fn takes_restart(&self) -> bool {
        self.restart.swap(false, Ordering::Relaxed)
    }
}

/// A running local cluster.
pub(crate) struct Launch {
    pub cluster: Cluster,
    pub settings: Settings,
    pub nodes: Nodes,
    pub stops: Stops,
    /// How long each node's log was before this run.
    log_starts: Vec<u64>,
}

impl Launch {
    /// Starts every node of a cluster whose files are written.
    pub(crate) fn start(cluster: Cluster, settings: Settings, stops: Stops) -> Result<Launch, Failure> {
        let length = |id| std::fs::metadata(cluster.log_path(id)).map_or(0, |log| log.len());
        let log_starts = cluster.ids().map(length).collect();
        let mut launch = Launch { cluster, settings, nodes: Nodes::default(), stops, log_starts };
        for id in launch.cluster.ids() {
            launch.start_one(id)?;
        }
        Ok(launch)
    }

    /// Starts one node.
    pub(crate) fn start_one(&mut self, id: u16) -> Result<(), Failure> {
        let started = self.nodes.start(&self.cluster, id);
        started.map_err(|error| format!("cannot start node {id}: {error}").into())
    }

    /// Waits until every node says that all is served, or a stop is asked for. An error: a node ended, or it took too long.
    pub(crate) fn wait_until_served(&mut self) -> Result<(), Failure> {
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

    /// A node's word on the cluster; none where it does not answer.
    pub(crate) fn ask(&self, id: u16, slot: &mut Option<Connection>) -> Option<Status> {
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

    /// Waits until a node answers, and says that every copy of everything is where it should be.
    pub(crate) fn wait_at_rest(&mut self, id: u16, what: &str) -> Result<(), Failure> {
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

    /// What there is to say of a node that ended.
    pub(crate) fn obituary(&self, ended: &Ended) -> String {
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

    /// Stops all nodes, and says so.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
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

/// A number of things, in words.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
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
