//! Nodes that a test starts by itself with `annulet serve`, each in a directory of its own, to kill, stop and start them again
//! on the files that they left. Every process is a child of this one and ended by its id, also when a test fails.

use crate::local_cluster::{PATIENCE, annulet, connect, free_base, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// From a node's port to that of the next kind.
const PORT_STEP: u16 = 100;
/// How often a node is started on other ports after somebody else was quicker to take them.
const TRIES: usize = 20;
/// What every node is told, where a test says nothing else.
const USUAL: &[(&str, &str)] = &[("--partitions", "32"), ("--shards", "2")];
/// From one look at nodes to the next.
const BREATH: Duration = Duration::from_millis(20);
/// The exit code of a node that cannot start.
pub const REFUSED: i32 = 2;

/// Nodes, numbered from 1, and the directories that they have.
pub struct ServedNodes {
    dir: PathBuf,
    port: u16,
    settings: Vec<String>,
    running: Vec<Option<Child>>,
    /// The first of them are listed; those beyond have joined.
    listed: u16,
    /// What is to be run with before a node's own command, such as a tracer.
    before: Vec<String>,
    /// The program that nodes are started with, where it is not this build's.
    program: Option<PathBuf>,
}

impl ServedNodes {
    /// Starts so many nodes, and returns once all copies of all partitions are in sync.
    pub fn start(nodes: u16, settings: &[&str]) -> ServedNodes {
        ServedNodes::start_build(None, nodes, settings)
    }

    /// The same with another build's program.
    pub fn start_build(program: Option<&PathBuf>, nodes: u16, settings: &[&str]) -> ServedNodes {
        let mut failure = String::new();
        for _ in 0..TRIES {
            let mut made = ServedNodes::prepare(nodes, settings);
            made.run_build(program);
            made.start_all();
            match made.try_whole() {
                Ok(()) => return made,
                Err(why) if why.contains("cannot listen") => failure = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("no free ports after {TRIES} tries: {failure}");
    }

    /// Directories and ports, and nothing that runs.
    pub fn prepare(nodes: u16, settings: &[&str]) -> ServedNodes {
        static MADE: AtomicU16 = AtomicU16::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("annulet-served-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let secret: String = (0..64).map(|at| if at == 63 { '1' } else { random_digit() }).collect();
        let made = ServedNodes {
            dir,
            port: free_base(),
            settings: settings.iter().map(|&word| word.to_owned()).collect(),
            running: (0..nodes).map(|_| None).collect(),
            listed: nodes,
            before: Vec::new(),
            program: None,
        };
        for id in made.ids() {
            std::fs::create_dir_all(made.data(id)).expect("a directory of this test's own");
            std::fs::write(made.data(id).join("join.secret"), &secret).expect("a file in it");
        }
        made
    }

    /// The numbers of the nodes.
    pub fn ids(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.running.len() as u16
    }

    /// A node's port for every client.
    pub fn port(&self, id: u16) -> u16 {
        self.port + id - 1
    }

    /// All of these.
    pub fn ports(&self) -> Vec<u16> {
        self.ids().map(|id| self.port(id)).collect()
    }

    /// A node's data directory.
    pub fn data(&self, id: u16) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    /// The directory of a node's shard.
    pub fn shard(&self, id: u16, shard: u16) -> PathBuf {
        self.data(id).join(format!("shard-{shard}"))
    }

    /// The files of a shard's log, oldest first.
    pub fn segments(&self, id: u16, shard: u16) -> Vec<PathBuf> {
        segments_in(&self.shard(id, shard))
    }

    /// What a node has said at all its starts.
    pub fn said(&self, id: u16) -> String {
        std::fs::read_to_string(self.said_path(id)).unwrap_or_default()
    }

    /// What it has said since it had said this much.
    pub fn said_since(&self, id: u16, before: &str) -> String {
        self.said(id).strip_prefix(before).unwrap_or_default().to_owned()
    }

    fn said_path(&self, id: u16) -> PathBuf {
        self.dir.join(format!("node-{id}.said"))
    }

    /// Replaces the settings beyond the usual ones, from the next start on.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|&word| word.to_owned()).collect();
    }

    /// Runs nodes under another program, from the next start on.
    pub fn run_under(&mut self, words: &[&str]) {
        self.before = words.iter().map(|&word| word.to_owned()).collect();
    }

    /// Runs nodes under a tracer that does something to their system calls, from the next start on. It is the node's own child, so that
    /// the node is ours.
    pub fn run_under_strace(&mut self, options: &[&str]) {
        self.run_under(&[&["strace", "-D", "-f", "-qq", "-o", "/dev/null"], options].concat());
    }

    /// Starts nodes with another build's program from now on; none: with this one's.
    pub fn run_build(&mut self, program: Option<&PathBuf>) {
        self.program = program.cloned();
    }

    /// The node that was added last has ended, and does not come again.
    pub fn forget(&mut self, id: u16) {
        assert_eq!(usize::from(id), self.running.len(), "not the last one");
        assert!(matches!(self.running.pop(), Some(None)), "node {id} runs");
    }

    fn command(&self, id: u16) -> Command {
        let node = self.program.as_ref().map_or_else(annulet, Command::new);
        let mut command = match self.before.split_first() {
            None => node,
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(node.get_program());
                command
            }
        };
        let peer_port = |id| self.port(id) + 2 * PORT_STEP;
        let peer = |id| format!("127.0.0.1:{}", peer_port(id));
        command.arg("serve");
        if id <= self.listed {
            let peers: Vec<String> = (1..=self.listed).map(|id| format!("{id}={}", peer(id))).collect();
            command.args(["--node-id", &id.to_string(), "--nodes", &peers.join(",")]);
        } else if !self.data(id).join("membership.journal").exists() {
            // At later starts it knows by itself who it is.
            command.args(["--join", &peer(1)]);
        }
        command.arg("--dir").arg(self.data(id));
        let ports = [
            ("--port", self.port(id)),
            ("--cluster-port", self.port(id) + PORT_STEP),
            ("--peer-port", peer_port(id)),
            ("--http-port", self.port(id) + 3 * PORT_STEP),
            ("--line-port", self.port(id) + 4 * PORT_STEP),
        ];
        // The build before has no such port.
        let known = ports.iter().filter(|(flag, _)| self.program.is_none() || *flag != "--line-port");
        for (flag, port) in known {
            command.arg(flag).arg(port.to_string());
        }
        for (flag, value) in USUAL.iter().filter(|(flag, _)| self.settings.iter().all(|given| given != flag))
        {
            command.args([flag, value]);
        }
        command.args(&self.settings);
        if self.before.is_empty() {
            // Should this process be killed, they go, too.
            command.args(["--die-with-parent", &std::process::id().to_string()]);
        }
        command
    }

    /// Starts one more node, which joins by the first, and returns the number that it should get.
    pub fn start_joining(&mut self) -> u16 {
        self.running.push(None);
        let id = self.running.len() as u16;
        std::fs::create_dir_all(self.data(id)).expect("a directory of this test's own");
        let secret = self.data(id).join("join.secret");
        std::fs::copy(self.data(1).join("join.secret"), secret).expect("the first node's secret");
        self.start_node(id);
        id
    }

    /// `annulet ARGS --port`, of a node.
    pub fn annulet(&self, node: u16, args: &[&str]) -> Command {
        let mut command = annulet();
        command.args(args).args(["--port", &self.port(node).to_string()]);
        command
    }

    /// Starts a node that is down.
    pub fn start_node(&mut self, id: u16) {
        let said = File::options().create(true).append(true).open(self.said_path(id)).expect("a log");
        let mut command = self.command(id);
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("another handle")).stderr(said);
        let child = command.spawn().expect("the program starts");
        let before = self.running[usize::from(id) - 1].replace(child);
        assert!(before.is_none(), "node {id} runs already");
    }

    /// Starts all that are down.
    pub fn start_all(&mut self) {
        let down: Vec<u16> = self.ids().filter(|&id| self.running[usize::from(id) - 1].is_none()).collect();
        down.into_iter().for_each(|id| self.start_node(id));
    }

    /// The process of a node that runs.
    pub fn pid(&self, id: u16) -> i32 {
        self.running[usize::from(id) - 1].as_ref().expect("it runs").id() as i32
    }

    /// Waits until a node that runs has ended by itself.
    pub fn wait_end(&mut self, id: u16) -> ExitStatus {
        let mut child = self.running[usize::from(id) - 1].take().expect("it runs");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status;
            }
            if started.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                panic!("node {id} still runs");
            }
            std::thread::sleep(BREATH);
        }
    }

    fn signal(&mut self, id: u16, signal: Signal) {
        let pid = Pid::from_raw(self.pid(id)).expect("a process id");
        kill_process(pid, signal).expect("it is this test's to signal");
    }

    /// Tells a node to end, and does not wait.
    pub fn terminate(&mut self, id: u16) {
        self.signal(id, Signal::TERM);
    }

    /// Ends nodes without a word, all before any is waited for.
    pub fn kill(&mut self, ids: impl IntoIterator<Item = u16>) {
        let ids: Vec<u16> = ids.into_iter().collect();
        ids.iter().for_each(|&id| self.signal(id, Signal::KILL));
        for id in ids {
            self.wait_end(id);
        }
    }

    /// Ends nodes as an operator does. Those that are all there is just stop; others hand over to those that stay.
    pub fn stop(&mut self, ids: impl IntoIterator<Item = u16>) {
        let ids: Vec<u16> = ids.into_iter().collect();
        let all = ids.len() > 1 && ids.len() == self.running.iter().flatten().count();
        self.stop_by(&ids, if all { Signal::INT } else { Signal::TERM });
    }

    /// Ends nodes by a signal.
    pub fn stop_by(&mut self, ids: &[u16], signal: Signal) {
        ids.iter().for_each(|&id| self.signal(id, signal));
        for &id in ids {
            let status = self.wait_end(id);
            assert!(status.success(), "node {id} ended with {status}");
        }
    }

    /// Starts a node that must not come up, and returns what it said. Nothing in its directory may have changed.
    pub fn refused(&mut self, id: u16) -> String {
        let before = Contents::of(&self.data(id));
        let said = self.said(id);
        self.start_node(id);
        let status = self.wait_end(id);
        let said = self.said_since(id, &said);
        assert_eq!(status.code(), Some(REFUSED), "{said}");
        assert_eq!(Contents::of(&self.data(id)), before, "{said}");
        said
    }

    /// Runs a second process with the settings of a node, to its end.
    pub fn run_beside(&self, id: u16) -> std::process::Output {
        self.command(id).stdin(Stdio::null()).output().expect("the program starts")
    }

    /// What a node says of the cluster; `None` where it does not answer.
    pub fn status(&self, id: u16) -> Option<serde_json::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port(id))).ok()?;
        let mut connection = client.get_connection().ok()?;
        connection.set_read_timeout(Some(PATIENCE)).ok()?;
        let text: String = redis::cmd("ANNULET").arg("STATUS").query(&mut connection).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Waits until all nodes say that every copy is in sync.
    pub fn wait_whole(&mut self) {
        if let Err(why) = self.try_whole() {
            panic!("{why}");
        }
    }

    fn try_whole(&mut self) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let whole = |id| {
                self.status(id)
                    .is_some_and(|status| status["ok"] == true && status["partitions"]["short"] == 0)
            };
            if self.ids().all(whole) {
                return Ok(());
            }
            for id in self.ids() {
                let child = self.running[usize::from(id) - 1].as_mut();
                if child.is_some_and(|child| child.try_wait().expect("a child").is_some()) {
                    return Err(format!("node {id} ended:\n{}", tail(&self.said(id))));
                }
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("never whole:\n{}", self.all_tails()));
            }
            std::thread::sleep(BREATH);
        }
    }

    fn all_tails(&self) -> String {
        self.ids().map(|id| format!("node {id}: {:?}\n{}\n", self.status(id), tail(&self.said(id)))).collect()
    }

    /// Waits until a node answers PING.
    pub fn wait_answer(&self, id: u16) {
        until("a node that answers", || self.status(id).is_some());
    }

    /// A client of a node.
    pub fn client(&self, id: u16) -> redis::Connection {
        connect(self.port(id), 2)
    }
}

impl Drop for ServedNodes {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.all_tails());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn random_digit() -> char {
    use std::io::Read;
    let mut byte = [0];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut byte)).expect("random bytes");
    char::from_digit(u32::from(byte[0] % 16), 16).expect("a digit")
}

/// The files of a log, oldest first.
pub fn segments_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a shard's directory").flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_segment(path)).collect();
    found.sort();
    found
}

fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"))
}

/// Every file below a directory, with what is in it. What holds nothing but room in reserve (`*.new`) comes and goes, with older builds too.
#[derive(PartialEq, Eq)]
pub struct Contents(std::collections::BTreeMap<PathBuf, Vec<u8>>);

impl Contents {
    /// As they are now.
    pub fn of(directory: &Path) -> Contents {
        let mut found = std::collections::BTreeMap::new();
        let mut directories = vec![directory.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
                if entry.path().is_dir() {
                    directories.push(entry.path());
                } else if entry.path().extension().is_none_or(|end| end != "new")
                    || entry.metadata().is_ok_and(|file| file.len() > 0)
                {
                    found.insert(entry.path(), std::fs::read(entry.path()).expect("a file"));
                }
            }
        }
        Contents(found)
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes = self.0.iter().map(|(path, bytes)| (path, bytes.len()));
        formatter.debug_map().entries(sizes).finish()
    }
}
