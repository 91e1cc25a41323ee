//! A cluster of real processes, started by `annulet up`: on ports that are free, in a directory of its own, and stopped
//! so that nothing stays behind.

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// The nodes of every cluster here.
pub const NODES: u16 = 3;
/// From a node's port to its port for cluster-aware clients, and on to the one for peers.
const PORT_STEP: u16 = 100;
/// Where base ports are looked for: below those that the system gives to outgoing connections.
const BASES: std::ops::Range<u16> = 12_000..31_000;
/// A process of tests takes ports in blocks of so many, and goes through so many of these in turn.
const BLOCK: u16 = 500;
const BLOCKS: usize = 4;
/// How often a cluster is started on other ports after somebody else was quicker to take them.
const TRIES: usize = 20;
/// The longest wait for anything. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running `annulet up`. Dropping it stops it, and fails the test if something of it stays.
pub struct LocalCluster {
    pub port: u16,
    dir: PathBuf,
    launcher: Child,
    serves: bool,
    /// Nodes that a test has started again.
    restarted: Vec<Child>,
}

impl LocalCluster {
    /// Starts one, and returns once it serves.
    pub fn start(settings: &[&str]) -> LocalCluster {
        LocalCluster::start_nodes(NODES, settings)
    }

    /// As [`LocalCluster::start`], with another number of nodes, of which there are at most [`NODES`].
    pub fn start_nodes(nodes: u16, settings: &[&str]) -> LocalCluster {
        static STARTED: AtomicU16 = AtomicU16::new(0);
        let mut failure = String::new();
        for _ in 0..TRIES {
            let number = STARTED.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("annulet-clients-{}-{number}", std::process::id()));
            match LocalCluster::try_start(nodes, free_base(), dir, settings) {
                Ok(cluster) => return cluster,
                Err(why) if why.contains("in use") => failure = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("no free ports after {TRIES} tries: {failure}");
    }

    fn try_start(nodes: u16, port: u16, dir: PathBuf, settings: &[&str]) -> Result<LocalCluster, String> {
        std::fs::create_dir(&dir).expect("a directory of this test's own");
        let mut launcher = launch(nodes, port, &dir, settings);
        let lines = BufReader::new(launcher.stdout.take().expect("its output is piped"));
        let mut cluster = LocalCluster { port, dir, launcher, serves: false, restarted: Vec::new() };
        cluster.wait_served(lines).map(|()| cluster)
    }

    fn wait_served(&mut self, mut lines: BufReader<ChildStdout>) -> Result<(), String> {
        let mut text = String::new();
        loop {
            let start = text.len();
            if lines.read_line(&mut text).expect("the launcher writes text") == 0 {
                let errors = std::fs::read_to_string(self.dir.join("launcher-errors"));
                return Err(format!("the cluster did not start:\n{text}{}", errors.unwrap_or_default()));
            }
            if text[start..].starts_with("Annulet serves") {
                break;
            }
        }
        self.serves = true;
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Ok(())
    }

    /// Stops it and starts it again on the same directory, with the same settings or others.
    pub fn up_again(&mut self, settings: &[&str]) {
        self.stop().expect("a clean stop");
        let mut launcher = launch(NODES, self.port, &self.dir, settings);
        let lines = launcher.stdout.take().expect("its output is piped");
        self.launcher = launcher;
        if let Err(why) = self.wait_served(BufReader::new(lines)) {
            panic!("{why}");
        }
    }

    /// The ports for every client, node by node.
    pub fn ports(&self) -> [u16; NODES as usize] {
        std::array::from_fn(|at| self.port + at as u16)
    }

    /// The ports for cluster-aware clients, node by node.
    pub fn cluster_ports(&self) -> [u16; NODES as usize] {
        self.ports().map(|port| port + PORT_STEP)
    }

    /// The ports for peers, node by node.
    pub fn peer_ports(&self) -> [u16; NODES as usize] {
        self.ports().map(|port| port + 2 * PORT_STEP)
    }

    /// The ports for HTTP, node by node.
    pub fn http_ports(&self) -> [u16; NODES as usize] {
        self.ports().map(|port| port + 3 * PORT_STEP)
    }

    /// The ports for JSON and text, node by node.
    pub fn line_ports(&self) -> [u16; NODES as usize] {
        self.ports().map(|port| port + 4 * PORT_STEP)
    }

    /// `annulet ARGS --port`, of one node.
    pub fn annulet(&self, node: usize, subcommand: &str) -> Command {
        let mut command = annulet();
        command.arg(subcommand).args(["--port", &self.ports()[node].to_string()]);
        command
    }

    /// The process of a node, by its number from 1, as the process table has it: a child of the launcher.
    pub fn node_pid(&self, id: u16) -> i32 {
        let config = self.config(id);
        let found = children(self.launcher.id()).into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).split('\0').any(|word| Path::new(word) == config)
        });
        found.expect("the launcher runs this node")
    }

    /// Kills a node, by its number from 1, without a word.
    pub fn kill_node(&self, id: u16) {
        send(self.node_pid(id), Signal::KILL);
    }

    /// Starts a node again, as the launcher says to.
    pub fn restart_node(&mut self, id: u16) {
        let log = File::options().append(true).open(self.dir.join(format!("cluster/node-{id}/log")));
        let log = log.expect("the node's log of before");
        let child = annulet()
            .args(["serve", "--config"])
            .arg(self.config(id))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("another handle of the log"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.restarted.push(child);
    }

    /// Whether all nodes still run.
    pub fn is_whole(&self) -> bool {
        children(self.launcher.id()).len() == usize::from(NODES)
    }

    /// A node's data directory, by its number from 1.
    pub fn data_directory(&self, id: u16) -> PathBuf {
        self.dir.join(format!("cluster/node-{id}"))
    }

    /// Says how the logs of its nodes end, for whoever has to find out why a test failed.
    fn tell_logs(&self) {
        for id in 1..=NODES {
            let log = std::fs::read_to_string(self.dir.join(format!("cluster/node-{id}/log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of node {id}'s log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }

    fn config(&self, id: u16) -> PathBuf {
        self.dir.canonicalize().expect("it exists").join(format!("cluster/node-{id}/node.toml"))
    }

    fn stop(&mut self) -> Result<(), String> {
        for child in &mut self.restarted {
            send(child.id() as i32, Signal::TERM);
            let status = child.wait().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("a restarted node ended with {status}"));
            }
        }
        if self.launcher.try_wait().map_err(|error| error.to_string())?.is_none() {
            let nodes = children(self.launcher.id());
            send(self.launcher.id() as i32, Signal::TERM);
            let status = self.launcher.wait().map_err(|error| error.to_string())?;
            if self.serves && !status.success() {
                return Err(format!("the launcher ended with {status}"));
            }
            let left: Vec<_> = nodes.into_iter().filter(|&pid| is_annulet(pid)).collect();
            if !left.is_empty() {
                return Err(format!("the launcher left processes behind: {left:?}"));
            }
        }
        let errors = std::fs::read_to_string(self.dir.join("launcher-errors")).unwrap_or_default();
        match errors.contains("did not stop in time") {
            true => Err(errors),
            false => Ok(()),
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        let stopped = self.stop();
        for child in &mut self.restarted {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() || stopped.is_err() {
            let _ = self.launcher.kill();
            let _ = self.launcher.wait();
            self.tell_logs();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            stopped.expect("a clean stop");
        }
    }
}

fn launch(nodes: u16, port: u16, dir: &Path, settings: &[&str]) -> Child {
    let errors = File::create(dir.join("launcher-errors")).expect("a file in it");
    annulet()
        .args(["up", "--nodes", &nodes.to_string(), "--port", &port.to_string(), "--dir"])
        .arg(dir.join("cluster"))
        .args(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .expect("the binary starts")
}

/// Clusters that tests share, so that two tests can run at once.
static SHARED: [Mutex<Option<LocalCluster>>; 2] = [const { Mutex::new(None) }; 2];

/// A cluster that tests share, one test at a time. It is started for the first one, and stopped when this process ends.
pub struct Shared(MutexGuard<'static, Option<LocalCluster>>);

impl Shared {
    /// Waits for a turn at one of them. It is whole, and empty.
    pub fn turn() -> Shared {
        static TURNS: AtomicUsize = AtomicUsize::new(0);
        let turn = TURNS.fetch_add(1, Ordering::Relaxed);
        if turn == 0 {
            // SAFETY: a function that needs nothing and does not unwind.
            let registered = unsafe { libc::atexit(stop_shared) };
            assert_eq!(registered, 0, "somebody has to stop the cluster");
        }
        let taken = |place: &'static Mutex<_>| match place.try_lock() {
            Ok(place) => Some(place),
            Err(TryLockError::Poisoned(place)) => Some(place.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let wait = || SHARED[turn % SHARED.len()].lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = SHARED.iter().find_map(taken).unwrap_or_else(wait);
        let cluster = place.get_or_insert_with(|| LocalCluster::start(&[]));
        assert!(cluster.is_whole(), "an earlier test brought a node down");
        let flushed: String = redis::cmd("FLUSHALL").query(&mut connect(cluster.port, 2)).unwrap();
        assert_eq!(flushed, "OK");
        Shared(place)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(cluster) = self.0.as_ref()
        {
            cluster.tell_logs();
        }
    }
}

/// All tests are over.
extern "C" fn stop_shared() {
    let stop = |place: &Mutex<Option<LocalCluster>>| {
        let cluster = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        catch_unwind(AssertUnwindSafe(|| drop(cluster))).is_ok()
    };
    // All of them, before one that failed ends it.
    let stopped = SHARED.each_ref().map(stop);
    if stopped.contains(&false) {
        // SAFETY: nothing of this process is needed any more.
        unsafe { libc::_exit(101) };
    }
}

impl std::ops::Deref for Shared {
    type Target = LocalCluster;

    fn deref(&self) -> &LocalCluster {
        self.0.as_ref().expect("started when it was taken")
    }
}

/// A connection of the `redis` crate that fails instead of waiting for ever.
pub fn connect(port: u16, protocol: u8) -> redis::Connection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp{protocol}"));
    let connection = client.expect("a valid address").get_connection().expect("the node answers");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    connection
}

/// Sets a flag when it goes, also when a test fails: then the threads that look at the flag end, and the failure is told.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until the answer is yes.
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ask() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// Whether system calls can be made to fail or to last; says so where not.
pub fn has_strace() -> bool {
    let tracer = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = tracer.is_ok_and(|status| status.success());
    if !found {
        left_out("what a failing disk does: there is no strace (apt install strace)");
    }
    found
}

/// Says what was not tested, where no test harness keeps it to itself.
pub fn left_out(what: &str) {
    let _ = writeln!(std::io::stderr(), "\nLEFT OUT: {what}\n");
}

/// The binary under test, without what the environment of whoever runs the tests may say to it.
pub fn annulet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annulet"));
    command.env_remove("ANNULET_PASSWORD");
    command
}

/// Runs a program to its end. One that is missing fails the test with a word on how to get it.
pub fn output(command: &mut Command, advice: &str) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{}: {error}; {advice}", command.get_program().to_string_lossy());
    })
}

/// What a program printed; it has to succeed.
pub fn printed(command: &mut Command, advice: &str) -> String {
    let output = output(command, advice);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Blocks of ports that no other process of tests has meanwhile, also while nodes on them are down; by the lock of a file.
fn own_blocks() -> &'static [u16] {
    static OWN: OnceLock<(Vec<u16>, Vec<File>)> = OnceLock::new();
    let take = || {
        let dir = std::env::temp_dir().join("annulet-test-ports");
        std::fs::create_dir_all(&dir).expect("a directory for locks");
        let count = (BASES.end - BASES.start) / BLOCK;
        // Several that begin at the same time start their search at different places.
        let start = (std::process::id() % u32::from(count)) as u16;
        let blocks = (0..count).map(|at| BASES.start + (start + at) % count * BLOCK);
        let locked = blocks.filter_map(|block| {
            let file = File::options().create(true).append(true).open(dir.join(block.to_string())).ok()?;
            flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some((block, file))
        });
        locked.take(BLOCKS).unzip()
    };
    &OWN.get_or_init(take).0
}

/// The next base port on whose ports nobody listens.
pub fn free_base() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let blocks = own_blocks();
    let step = 2 * NODES;
    let in_block = usize::from((BLOCK - 4 * PORT_STEP) / step);
    for _ in 0..blocks.len() * in_block {
        let at = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = blocks[at / in_block % blocks.len()] + (at % in_block) as u16 * step;
        let mut ports = (0..5).flat_map(|kind| (0..NODES).map(move |node| base + kind * PORT_STEP + node));
        if ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no free ports between {} and {}: other tests or programs have them", BASES.start, BASES.end);
}

/// The processes whose parent this one is.
fn children(parent: u32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("a process table").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fields(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// A process' state and parent.
fn fields(pid: i32) -> Option<(char, u32)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, brackets too.
    let mut words = line.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

fn is_annulet(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim() == "annulet" && fields(pid).is_some_and(|(state, _)| state != 'Z')
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("it is this test's to signal");
}
