//! The cluster under test: each node a process of the `annulet` binary, started by itself so that it can be killed, stopped
//! and started again alone.
//!
//! ```text
//! DIR/node-1/               its data directory, with the join secret that all share
//! DIR/node-1.log            its output, appended to at each start
//! ```
//!
//! The nodes share this machine's loopback, or each has an address of its own in a network of their own ([`crate::storm`]). No way out
//! leaves a process behind: [`crate::processes`].

use crate::failure::Failure;
use crate::processes::{Processes, tie};
use crate::status::{self, Holders, Status};
use crate::storm::namespaces::Network;
use history::random::Random;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From one look at the cluster to the next.
const TICK: Duration = Duration::from_millis(50);
/// How long an answer about the cluster's state may take.
const ASK: Duration = Duration::from_secs(2);
/// From a node's port of one kind to that of the next.
pub(crate) const PORT_STEP: u16 = 100;
/// How many nodes may join those that the cluster is made of.
pub(crate) const JOINING_MAX: u16 = 2;
/// Where free ports are looked for. Below where kernels take the ports of outgoing connections from, lest one of those
/// takes a node's port while the node is down.
const PORTS: std::ops::Range<u16> = 10_000..31_000;

/// What a cluster is like.
#[derive(Clone)]
pub(crate) struct Shape {
    pub annulet: PathBuf,
    pub nodes: u16,
    pub copies: u16,
    pub partitions: u16,
    pub port: Option<u16>,
    pub dir: Option<PathBuf>,
    /// Further settings, by the names of their flags.
    pub settings: Vec<(String, String)>,
    /// The longest wait for anything.
    pub patience: Duration,
}

/// A running cluster.
pub(crate) struct Cluster {
    pub shape: Shape,
    port: u16,
    dir: PathBuf,
    processes: Arc<Processes>,
    /// Where each node has an address of its own.
    network: Option<Arc<Network>>,
    /// Nodes that joined, and so have not been told who the first ones were.
    joined: Mutex<BTreeSet<u16>>,
}

impl Cluster {
    /// Starts all nodes and waits until the cluster is healthy.
    pub(crate) fn start(shape: Shape, random: &mut Random) -> Result<Cluster, Failure> {
        Cluster::start_in(None, shape, random)
    }

    /// The same, in a network of its own where one is given.
    pub(crate) fn start_in(
        network: Option<Arc<Network>>,
        shape: Shape,
        random: &mut Random,
    ) -> Result<Cluster, Failure> {
        let (dir, scratch) = match &shape.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let name = format!("annulet-chaos-{}-{:x}", std::process::id(), random.below(1 << 32));
                let dir = std::env::temp_dir().join(name);
                (dir.clone(), Some(dir))
            }
        };
        let port = match (shape.port, &network) {
            (Some(port), _) => port,
            (None, Some(_)) => PORTS.start,
            (None, None) => free_port(shape.nodes + JOINING_MAX)?,
        };
        let processes = Arc::new(Processes::new(scratch));
        processes.guard()?;
        let joined = Mutex::new(BTreeSet::new());
        let cluster = Cluster { shape, port, dir, processes, network, joined };
        if let Some(network) = &cluster.network {
            for id in network.ids() {
                std::fs::create_dir_all(cluster.node_dir(id))?;
                network.mount_disk(&cluster.node_dir(id))?;
            }
        }
        let secret = draw_secret()?;
        for id in cluster.ids() {
            let dir = cluster.node_dir(id);
            std::fs::create_dir_all(&dir)?;
            write_private(&dir.join("join.secret"), &secret)?;
        }
        for id in cluster.ids() {
            cluster.start_node(id)?;
        }
        cluster.wait_healthy(&BTreeMap::new())?;
        Ok(cluster)
    }

    /// The numbers of the nodes that it is made of.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.shape.nodes
    }

    /// The address that a node listens on.
    pub(crate) fn host(&self, id: u16) -> Ipv4Addr {
        self.network.as_ref().map_or(Ipv4Addr::LOCALHOST, |network| network.address(id))
    }

    /// Where every client may ask a node.
    pub(crate) fn door(&self, id: u16) -> SocketAddr {
        (self.host(id), self.plain_port(id)).into()
    }

    /// Elsewhere than on loopback a node wants one.
    pub(crate) fn password(&self) -> Option<&str> {
        self.network.as_ref().map(|network| network.password())
    }

    /// A connection to where every client may ask a node.
    pub(crate) fn connect(
        &self,
        id: u16,
        patience: Duration,
    ) -> Result<redis::Connection, redis::RedisError> {
        status::connect_to(self.door(id), self.password(), patience)
    }

    /// A node's port for every client.
    pub(crate) fn plain_port(&self, id: u16) -> u16 {
        self.port + id - 1
    }

    /// A node's port for cluster-aware clients.
    pub(crate) fn cluster_port(&self, id: u16) -> u16 {
        self.plain_port(id) + PORT_STEP
    }

    /// A node's port for the other nodes.
    pub(crate) fn peer_port(&self, id: u16) -> u16 {
        self.plain_port(id) + 2 * PORT_STEP
    }

    /// A node's data directory.
    pub(crate) fn node_dir(&self, id: u16) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    fn log_path(&self, id: u16) -> PathBuf {
        self.dir.join(format!("node-{id}.log"))
    }

    /// Starts one node. Call it from the main thread: the kernel kills the node when its starter's thread ends.
    pub(crate) fn start_node(&self, id: u16) -> Result<(), Failure> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(id))?;
        let peers: Vec<String> =
            self.ids().map(|id| format!("{id}={}:{}", self.host(id), self.peer_port(id))).collect();
        let mut command = Command::new(&self.shape.annulet);
        command.arg("serve");
        let way_in = match self.joined().contains(&id) {
            false => ("nodes", peers.join(",")),
            true => {
                let running = self.processes.running();
                let by = running.keys().copied().find(|by| *by != id).unwrap_or(1);
                ("join", format!("{}:{}", self.host(by), self.peer_port(by)))
            }
        };
        let own = [
            ("node-id", id.to_string()),
            way_in,
            ("dir", self.node_dir(id).display().to_string()),
            ("port", self.plain_port(id).to_string()),
            ("cluster-port", self.cluster_port(id).to_string()),
            ("peer-port", self.peer_port(id).to_string()),
            ("http-port", (self.plain_port(id) + 3 * PORT_STEP).to_string()),
            ("line-port", (self.plain_port(id) + 4 * PORT_STEP).to_string()),
            ("copies", self.shape.copies.to_string()),
            ("partitions", self.shape.partitions.to_string()),
        ];
        for (name, value) in own.iter().map(|(name, value)| (*name, value)) {
            command.arg(format!("--{name}")).arg(value);
        }
        for (name, value) in &self.shape.settings {
            command.arg(format!("--{name}")).arg(value);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        tie(&mut command, None);
        if let Some(network) = &self.network {
            command.arg("--bind").arg(self.host(id).to_string()).arg("--requirepass").arg(network.password());
            network.send_into(id, &mut command);
        }
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.shape.annulet.display()))?;
        self.processes.running().insert(id, child);
        Ok(())
    }

    /// Starts a node with nothing in its directory, which joins by another that runs.
    pub(crate) fn join_node(&self, id: u16) -> Result<(), Failure> {
        let by = self.processes.running().keys().copied().find(|by| *by != id).ok_or("no node runs")?;
        let secret = std::fs::read_to_string(self.node_dir(by).join("join.secret"))?;
        let dir = self.node_dir(id);
        std::fs::create_dir_all(&dir)?;
        // The directory itself may be where a file system is mounted.
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path())?,
                false => std::fs::remove_file(entry.path())?,
            }
        }
        write_private(&dir.join("join.secret"), &secret)?;
        self.joined().insert(id);
        self.start_node(id)
    }

    fn joined(&self) -> std::sync::MutexGuard<'_, BTreeSet<u16>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a node has ended by itself, in order.
    pub(crate) fn wait_ended(&self, id: u16) -> Result<(), Failure> {
        let ended = self.wait_exit_within(id, self.shape.patience)?;
        if !ended.success() {
            self.keep();
            return Err(format!("node {id} ended out of order: {ended}").into());
        }
        Ok(())
    }

    /// Waits until a node has ended by itself, and tells how.
    pub(crate) fn wait_exit_within(&self, id: u16, patience: Duration) -> Result<ExitStatus, Failure> {
        let started = Instant::now();
        let ended = loop {
            if let Some(child) = self.processes.running().get_mut(&id)
                && let Some(ended) = child.try_wait()?
            {
                break ended;
            }
            if started.elapsed() > patience {
                self.keep();
                return Err(format!("node {id} does not end").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.processes.running().remove(&id);
        Ok(ended)
    }

    /// A running node's process id.
    pub(crate) fn process_id(&self, id: u16) -> Result<u32, Failure> {
        let running = self.processes.running();
        running.get(&id).map(|child| child.id()).ok_or_else(|| format!("node {id} does not run").into())
    }

    /// Ends a node the hard way. Returns when.
    pub(crate) fn kill_node(&self, id: u16) -> Result<Instant, Failure> {
        let mut child =
            self.processes.running().remove(&id).ok_or_else(|| format!("node {id} does not run"))?;
        let at = Instant::now();
        child.kill()?;
        child.wait()?;
        Ok(at)
    }

    /// Ends nodes the hard way, all before any is waited for.
    pub(crate) fn kill_nodes(&self, ids: &[u16]) -> Result<(), Failure> {
        for id in ids {
            self.signal_node(*id, Signal::KILL)?;
        }
        ids.iter().try_for_each(|id| self.kill_node(*id).map(|_| ()))
    }

    /// Sends a signal to a node, which goes on counting as running.
    pub(crate) fn signal_node(&self, id: u16, signal: Signal) -> Result<Instant, Failure> {
        let running = self.processes.running();
        let child = running.get(&id).ok_or_else(|| format!("node {id} does not run"))?;
        // The child has not been waited for, so its id is still its own.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("a process id is positive")?;
        let at = Instant::now();
        kill_process(pid, signal).map_err(|errno| format!("cannot signal node {id}: {errno}"))?;
        Ok(at)
    }

    /// Resident bytes of a node's process.
    pub(crate) fn resident_bytes(&self, id: u16) -> Result<u64, Failure> {
        let running = self.processes.running();
        let child = running.get(&id).ok_or_else(|| format!("node {id} does not run"))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| format!("node {id} tells no resident memory").into())
    }

    /// What a node says of the cluster.
    pub(crate) fn status(&self, id: u16) -> Result<Status, Failure> {
        Status::ask(&mut self.connect(id, ASK)?)
    }

    /// Who holds each partition, as a node sees it.
    pub(crate) fn holders(&self, id: u16) -> Result<Vec<Holders>, Failure> {
        let id_of = (1..=self.shape.nodes + JOINING_MAX).map(|id| (self.cluster_port(id), id)).collect();
        status::holders(&mut self.connect(id, ASK)?, self.shape.partitions, &id_of)
    }

    /// Waits until every node says that all is well, and those named have a newer incarnation than the one given. Returns
    /// what the first node says.
    pub(crate) fn wait_healthy(&self, older: &BTreeMap<u16, u64>) -> Result<Status, Failure> {
        let started = Instant::now();
        loop {
            self.check_running()?;
            let mut seen = Vec::new();
            for id in self.ids() {
                match self.status(id) {
                    Ok(status) => seen.push(Ok(status)),
                    Err(failure) => {
                        seen.push(Err(format!("node {id} cannot be asked: {failure}")));
                        break;
                    }
                }
            }
            let renewed = |status: &Status| {
                older.iter().all(|(id, older)| status.node(*id).is_some_and(|node| node.incarnation > *older))
            };
            if seen
                .iter()
                .all(|seen| seen.as_ref().is_ok_and(|status| status.is_healthy() && renewed(status)))
                && let Some(Ok(first)) = seen.first()
            {
                return Ok(first.clone());
            }
            if started.elapsed() > self.shape.patience {
                self.keep();
                let views: Vec<String> = seen.iter().map(|seen| format!("{seen:?}")).collect();
                return Err(format!(
                    "the cluster is not healthy after {} s; logs are in {}\n{}",
                    self.shape.patience.as_secs(),
                    self.dir.display(),
                    views.join("\n")
                )
                .into());
            }
            std::thread::sleep(TICK);
        }
    }

    /// A node that ended by itself fails the run.
    pub(crate) fn check_running(&self) -> Result<(), Failure> {
        for (id, child) in self.processes.running().iter_mut() {
            if let Some(ended) = child.try_wait()? {
                self.keep();
                let log = std::fs::read_to_string(self.log_path(*id)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(15)..].join("\n    ");
                return Err(format!(
                    "node {id} ended by itself: {ended}. The end of {}:\n    {tail}",
                    self.log_path(*id).display()
                )
                .into());
            }
        }
        Ok(())
    }

    /// Leaves the nodes' directories and logs where they are. Returns where.
    pub(crate) fn keep(&self) -> &Path {
        self.processes.keep_scratch();
        &self.dir
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.processes.end();
    }
}

/// A first port such that all that nodes take from it are free.
pub(crate) fn free_port(nodes: u16) -> Result<u16, Failure> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut random = Random::new(u64::from_le_bytes(bytes));
    for _ in 0..200 {
        let port = PORTS.start + random.below(u64::from(PORTS.end - PORTS.start)) as u16;
        let taken = (0..5)
            .flat_map(|kind| (0..nodes).map(move |node| port + kind * PORT_STEP + node))
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect::<Result<Vec<_>, _>>();
        if taken.is_ok() {
            return Ok(port);
        }
    }
    Err("no free ports found; name them with --port".into())
}

/// 32 random bytes in hex.
fn draw_secret() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
}

fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
