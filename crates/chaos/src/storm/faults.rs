//! The faults themselves: how each begins, how it is taken back, and how long the cluster needs to be whole again.
//!
//! Everything is done from the outside: signals, the packet filter of a node's namespace, a proxy there, a file that fills its disk, a
//! tracer that has its syncs fail, and orders that an operator could give. Only for the wall clock the node has a setting, since a clock
//! cannot be set for one process.

use super::full_disk::FullDisk;
use super::proxy::{Badness, MARK, Proxy};
use super::schedule::{Kind, Part, Step};
use crate::cluster::{Cluster, PORT_STEP};
use crate::failure::Failure;
use crate::processes::tie;
use crate::status::Status;
use crate::storm::namespaces::Network;
use history::random::Random;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// From one look at the cluster to the next.
const TICK: Duration = Duration::from_millis(50);
/// How long a node takes at most to notice that its syncs fail.
const NOTICES: Duration = Duration::from_secs(30);
/// The exit code of a process whose disk has failed.
const DISK_FAILED: i32 = 3;
/// How long an order is given again.
const ORDER: Duration = Duration::from_secs(20);

/// The cluster, and what is wrong with it at the moment.
pub(super) struct Hurt<'a> {
    pub cluster: &'a Cluster,
    pub network: Arc<Network>,
    /// The nodes that belong to it.
    pub members: BTreeSet<u16>,
    /// Those that no other fault is to hit meanwhile.
    hit: BTreeSet<u16>,
    tables: u64,
    /// What happened, in words, in order.
    pub said: Vec<String>,
}

/// How a fault is taken back.
enum Undo {
    Nothing,
    Start(Vec<u16>),
    Wake(u16),
    Open { node: u16, table: String },
    Straighten { node: u16, table: String, proxy: Proxy },
    Empty(FullDisk),
    SetClock(u16),
}

/// Ends with this.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'a> Hurt<'a> {
    /// Nothing is wrong with it yet.
    pub(super) fn new(cluster: &'a Cluster, network: Arc<Network>, members: BTreeSet<u16>) -> Hurt<'a> {
        Hurt { cluster, network, members, hit: BTreeSet::new(), tables: 0, said: Vec::new() }
    }

    /// Lets a step's faults happen and takes them back.
    pub(super) fn make(&mut self, step: &Step) -> Result<(), Failure> {
        self.said.clear();
        if let Some(coordinator) = self.coordinator() {
            self.say(format!("node {coordinator} coordinates"));
        }
        let started = Instant::now();
        let mut ahead: Vec<(Duration, &Part)> = step.parts.iter().map(|part| (part.after, part)).collect();
        let mut under_way: Vec<(Duration, Undo)> = Vec::new();
        loop {
            ahead.sort_by_key(|(at, _)| *at);
            under_way.sort_by_key(|(end, _)| *end);
            let begin = ahead.first().map(|(at, _)| *at);
            let end = under_way.first().map(|(end, _)| *end);
            let Some(next) = begin.into_iter().chain(end).min() else { return Ok(()) };
            std::thread::sleep(next.saturating_sub(started.elapsed()));
            if end == Some(next) {
                let (_, undo) = under_way.remove(0);
                self.end(undo)?;
            } else if let Some(end) = end.filter(|_| self.hit.is_superset(&self.members)) {
                // Nobody is left whom it could hit: it comes when the first fault ends.
                ahead[0].0 = end;
            } else {
                let (_, part) = ahead.remove(0);
                let undo = self.begin(part)?;
                under_way.push((started.elapsed() + part.hold, undo));
            }
        }
    }

    fn begin(&mut self, part: &Part) -> Result<Undo, Failure> {
        let mut random = Random::new(part.seed);
        let hold_ms = part.hold.as_millis();
        match part.kind {
            Kind::Kill | Kind::KillCoordinator => {
                let node = if part.kind == Kind::Kill { None } else { self.coordinator() };
                let node = node.map_or_else(|| self.victim(&mut random), Ok)?;
                self.hit.insert(node);
                self.cluster.kill_node(node)?;
                self.say(format!("node {node} killed, for {hold_ms} ms"));
                Ok(Undo::Start(vec![node]))
            }
            Kind::KillAll => {
                let nodes: Vec<u16> = self.members.difference(&self.hit).copied().collect();
                self.hit.extend(&nodes);
                self.cluster.kill_nodes(&nodes)?;
                self.say(format!("nodes {nodes:?} killed, for {hold_ms} ms"));
                Ok(Undo::Start(nodes))
            }
            Kind::Stop => {
                let node = self.victim(&mut random)?;
                self.cluster.signal_node(node, Signal::STOP)?;
                self.say(format!("node {node} stopped, for {hold_ms} ms"));
                Ok(Undo::Wake(node))
            }
            Kind::CutOneWay | Kind::Cut | Kind::CutPair | Kind::Isolate => self.cut(part, &mut random),
            Kind::Proxy => self.bad_network(part, &mut random),
            Kind::FullDisk => {
                let node = self.victim(&mut random)?;
                let disk = FullDisk::fill(self.cluster, node)?;
                self.say(format!("the disk of node {node} is full, for {hold_ms} ms"));
                Ok(Undo::Empty(disk))
            }
            Kind::FailedSync => self.fail_syncs(part, &mut random),
            Kind::Clock => {
                let node = self.victim(&mut random)?;
                let sign = if random.chance(500) { 1 } else { -1 };
                let offset_ms = sign * random.between(1_000, 3_600_000) as i64;
                self.order(node, &["CONFIG", "SET", "chaos_wall_offset_ms", &offset_ms.to_string()])?;
                self.say(format!("the clock of node {node} is wrong by {offset_ms} ms, for {hold_ms} ms"));
                Ok(Undo::SetClock(node))
            }
            Kind::Join => self.join().map(|()| Undo::Nothing),
            Kind::Drain => self.drain(&mut random).map(|()| Undo::Nothing),
            Kind::RollingRestart => self.restart_all().map(|()| Undo::Nothing),
            Kind::Pair => Err("a pair is two parts".into()),
        }
    }

    fn end(&mut self, undo: Undo) -> Result<(), Failure> {
        match undo {
            Undo::Nothing => {}
            Undo::Start(nodes) => {
                for node in nodes {
                    self.cluster.start_node(node)?;
                    self.hit.remove(&node);
                }
            }
            Undo::Wake(node) => {
                self.cluster.signal_node(node, Signal::CONT)?;
                self.hit.remove(&node);
            }
            Undo::Open { node, table } => {
                self.network.filter(node, &format!("delete table ip {table}"))?;
                self.hit.remove(&node);
            }
            Undo::Straighten { node, table, proxy } => {
                // The table stays until the proxy has ended: without it the end of a connection would not be taken for the peer's word.
                self.network.filter(node, &format!("flush table ip {table}"))?;
                let done = proxy.done.clone();
                drop(proxy);
                std::thread::sleep(TICK);
                self.network.filter(node, &format!("delete table ip {table}"))?;
                self.hit.remove(&node);
                let count = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
                self.say(format!(
                    "{} connections went through it, {} bytes, {} times held back, {} broken off",
                    count(&done.connections),
                    count(&done.bytes),
                    count(&done.stalls),
                    count(&done.cuts)
                ));
            }
            Undo::Empty(disk) => {
                self.hit.remove(&disk.node);
                let words = disk.empty()?;
                self.say(words);
            }
            Undo::SetClock(node) => {
                self.order(node, &["CONFIG", "SET", "chaos_wall_offset_ms", "0"])?;
                self.hit.remove(&node);
            }
        }
        Ok(())
    }

    fn say(&mut self, text: String) {
        self.said.push(text);
    }

    /// A member that nothing is wrong with, from here on hit.
    fn victim(&mut self, random: &mut Random) -> Result<u16, Failure> {
        let whole: Vec<u16> = self.members.difference(&self.hit).copied().collect();
        if whole.is_empty() {
            return Err("every node is hit already".into());
        }
        let node = random.pick(&whole);
        self.hit.insert(node);
        Ok(node)
    }

    /// The coordinator's node, unless that is hit already.
    fn coordinator(&self) -> Option<u16> {
        let whole = self.members.difference(&self.hit);
        let seen = whole.filter_map(|id| self.cluster.status(*id).ok()?.coordinator).next();
        seen.filter(|id| self.members.contains(id) && !self.hit.contains(id))
    }

    fn table(&mut self) -> String {
        self.tables += 1;
        format!("storm{}", self.tables)
    }

    fn cut(&mut self, part: &Part, random: &mut Random) -> Result<Undo, Failure> {
        let node = self.victim(random)?;
        let others: Vec<u16> = self.members.iter().copied().filter(|id| *id != node).collect();
        let from = if part.kind == Kind::CutPair { vec![random.pick(&others)] } else { others };
        let addresses: Vec<String> = from.iter().map(|id| self.cluster.host(*id).to_string()).collect();
        let addresses = format!("{{ {} }}", addresses.join(", "));
        let one_way = match part.kind {
            Kind::CutOneWay => true,
            Kind::CutPair => random.chance(500),
            _ => false,
        };
        let is_deaf = random.chance(500);
        let (hears, is_heard) = (one_way && !is_deaf, one_way && is_deaf);
        let (source, target) = match part.kind {
            Kind::Isolate => (String::new(), String::new()),
            _ => (format!("ip saddr {addresses} "), format!("ip daddr {addresses} ")),
        };
        let table = self.table();
        let mut orders = format!("table ip {table} {{\n");
        if !hears {
            orders +=
                &format!("chain in {{ type filter hook input priority 0; {source}iifname eth0 drop; }}\n");
        }
        if !is_heard {
            orders +=
                &format!("chain out {{ type filter hook output priority 0; {target}oifname eth0 drop; }}\n");
        }
        orders += "}";
        self.network.filter(node, &orders)?;
        let what = match (part.kind, hears, is_heard) {
            (Kind::Isolate, ..) => "cut off from everybody".to_owned(),
            (_, false, true) => format!("deaf to {from:?}"),
            (_, true, false) => format!("not heard by {from:?}"),
            _ => format!("cut off from {from:?}"),
        };
        self.say(format!("node {node} {what}, for {} ms", part.hold.as_millis()));
        Ok(Undo::Open { node, table })
    }

    fn bad_network(&mut self, part: &Part, random: &mut Random) -> Result<Undo, Failure> {
        let node = self.victim(random)?;
        let badness = Badness {
            delay_ms_max: random.between(1, 60),
            stall_chance: random.between(0, 8_000),
            stall_ms_max: random.between(200, 3_000),
            cut_chance: random.between(0, 3_000),
            swallow_chance: random.between(0, 1_000),
        };
        let network = self.network.clone();
        let proxy = Proxy::start(badness, random.draw(), move || network.enter(node))?;
        let table = self.table();
        let (first, port) = (self.cluster.peer_port(1), proxy.port);
        let peers = format!("meta mark != {MARK} tcp dport {first}-{}", first + PORT_STEP - 1);
        let orders = format!(
            "table ip {table} {{\n\
             chain reroute {{ type nat hook output priority -100; {peers} redirect to :{port}; }}\n\
             chain renew {{ type filter hook output priority 0; {peers} reject with tcp reset; }}\n}}"
        );
        self.network.filter(node, &orders)?;
        self.say(format!("node {node} sends through a proxy, for {} ms: {badness:?}", part.hold.as_millis()));
        Ok(Undo::Straighten { node, table, proxy })
    }

    fn fail_syncs(&mut self, part: &Part, random: &mut Random) -> Result<Undo, Failure> {
        let node = self.victim(random)?;
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
            .args(["-e", "inject=fsync,fdatasync:error=EIO", "-p"])
            .arg(self.cluster.process_id(node)?.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        tie(&mut command, None);
        let tracer = Tracer(command.spawn().map_err(|error| format!("strace: {error}"))?);
        let began = Instant::now();
        let ended = self.cluster.wait_exit_within(node, NOTICES)?;
        drop(tracer);
        if ended.code() != Some(DISK_FAILED) {
            return Err(format!("node {node}, whose syncs failed, ended so: {ended}").into());
        }
        self.say(format!(
            "the syncs of node {node} failed, it stopped after {} ms, for {} ms",
            began.elapsed().as_millis(),
            part.hold.as_millis()
        ));
        Ok(Undo::Start(vec![node]))
    }

    fn join(&mut self) -> Result<(), Failure> {
        let free = self.network.ids().find(|id| !self.members.contains(id));
        let node = free.ok_or("there is no place for another node")?;
        self.cluster.join_node(node)?;
        self.members.insert(node);
        self.say(format!("node {node} joins"));
        Ok(())
    }

    fn drain(&mut self, random: &mut Random) -> Result<(), Failure> {
        let members: Vec<u16> = self.members.iter().copied().collect();
        let node = random.pick(&members);
        let by = members.iter().copied().find(|id| *id != node).ok_or("it is the only node")?;
        self.order(by, &["ANNULET", "DRAIN", &node.to_string()])?;
        self.cluster.wait_ended(node)?;
        self.members.remove(&node);
        self.say(format!("node {node} drained"));
        Ok(())
    }

    /// As docs/operating.md has it: stopped in order, started again, and the next one once `annulet rebalance --wait` has ended.
    fn restart_all(&mut self) -> Result<(), Failure> {
        for node in self.members.clone() {
            self.cluster.signal_node(node, Signal::TERM)?;
            self.cluster.wait_ended(node)?;
            self.cluster.start_node(node)?;
            self.wait_answer(node)?;
            let mut command = Command::new(&self.cluster.shape.annulet);
            command.args(["rebalance", "--wait", "--host"]).arg(self.cluster.door(node).to_string());
            command.env("ANNULET_PASSWORD", self.cluster.password().unwrap_or_default());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            tie(&mut command, None);
            let output = command.output()?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr);
                return Err(format!("annulet rebalance --wait, at node {node}: {}", why.trim()).into());
            }
        }
        let members = self.members.clone();
        self.say(format!("nodes {members:?} restarted one after the other"));
        Ok(())
    }

    fn wait_answer(&self, node: u16) -> Result<(), Failure> {
        let started = Instant::now();
        while self.cluster.status(node).is_err() {
            self.cluster.check_running()?;
            if started.elapsed() > self.cluster.shape.patience {
                return Err(format!("node {node} was started and does not answer").into());
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Gives an order at a node, again until it is taken: a node that was hurt a moment ago may not know the cluster's state.
    fn order(&self, node: u16, words: &[&str]) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let given = self.cluster.connect(node, Duration::from_secs(2)).and_then(|mut connection| {
                let mut command = redis::cmd(words[0]);
                for word in &words[1..] {
                    command.arg(*word);
                }
                command.query::<()>(&mut connection)
            });
            match given {
                Ok(()) => return Ok(()),
                Err(error) if started.elapsed() > ORDER => {
                    return Err(format!("{} at node {node}: {error}", words.join(" ")).into());
                }
                Err(_) => std::thread::sleep(TICK),
            }
        }
    }

    /// Waits until every member says that all is served, in sync and where it should be. How long that took.
    pub(super) fn wait_whole(&self) -> Result<Duration, Failure> {
        let started = Instant::now();
        loop {
            self.cluster.check_running()?;
            let missing = self.members.iter().find_map(|id| self.missing(*id));
            match missing {
                None => return Ok(started.elapsed()),
                Some(why) if started.elapsed() > self.cluster.shape.patience => {
                    let seconds = self.cluster.shape.patience.as_secs();
                    return Err(
                        format!("the cluster is not whole {seconds} s after its last fault: {why}").into()
                    );
                }
                Some(_) => std::thread::sleep(TICK),
            }
        }
    }

    /// What a member says is not as it should be.
    fn missing(&self, id: u16) -> Option<String> {
        let status: Status = match self.cluster.status(id) {
            Ok(status) => status,
            Err(failure) => return Some(format!("node {id} cannot be asked: {failure}")),
        };
        let known: BTreeSet<u16> = status.nodes.iter().map(|node| node.id).collect();
        let is_whole = status.is_healthy()
            && known == self.members
            && status.moves.left == 0
            && status.moves.handing_over == 0;
        (!is_whole).then(|| format!("node {id} says {status:?}"))
    }
}
