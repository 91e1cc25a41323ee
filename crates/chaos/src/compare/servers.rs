//! The servers that are compared: each one process, pinned, on a free port of loopback, its data and its output in files of a
//! directory that is removed at the end.
//!
//! Annulet is one node with one shard, one copy and without a log, everything else as it is by default; `--set` changes that.
//! Peers are started without persistence, everything else as it is by default. Where it is disks that are compared
//! ([`super::disks`]), a contender brings the settings that differ from this.

use super::client::{Client, Reply};
use super::machine::{Processors, ticks_of};
use crate::Common;
use crate::cluster::free_port;
use crate::failure::Failure;
use crate::processes::{Processes, tie};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What Annulet is called in tables.
pub(super) const OWN: &str = "annulet";
/// From one look at a starting server to the next.
const TICK: Duration = Duration::from_millis(50);

/// A server that takes part.
pub(super) struct Contender {
    pub name: String,
    pub version: String,
    pub is_own: bool,
    program: String,
    /// Settings of its own, by the names of their flags.
    settings: Vec<(&'static str, &'static str)>,
}

impl Contender {
    /// Annulet.
    pub(super) fn own(common: &Common) -> Result<Contender, Failure> {
        let program = common.shape()?.annulet.display().to_string();
        let version = version(&program)?;
        let version = format!("{OWN}: {version}");
        Ok(Contender { name: OWN.to_owned(), version, is_own: true, program, settings: Vec::new() })
    }

    /// Another one.
    pub(super) fn peer(name: &str, program: &str) -> Result<Contender, Failure> {
        let version = version(program)?;
        // "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0"
        let useful: Vec<&str> = version
            .split(' ')
            .filter(|word| !["sha=", "bits=", "build="].iter().any(|part| word.starts_with(part)))
            .collect();
        Ok(Contender {
            name: name.to_owned(),
            version: format!("{name}: {}", useful.join(" ")),
            is_own: false,
            program: program.to_owned(),
            settings: Vec::new(),
        })
    }

    /// The same server with further settings, and with files of its own.
    pub(super) fn with(&self, called: &str, settings: &[(&'static str, &'static str)]) -> Contender {
        Contender {
            name: format!("{} {called}", self.name),
            version: self.version.clone(),
            is_own: self.is_own,
            program: self.program.clone(),
            settings: settings.to_vec(),
        }
    }

    /// The same server with the same settings, and with files of its own.
    pub(super) fn also(&self, called: &str) -> Contender {
        self.with(called, &self.settings)
    }

    fn sets(&self, name: &str) -> bool {
        self.settings.iter().any(|(other, _)| *other == name)
    }
}

fn version(program: &str) -> Result<String, Failure> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
        format!("cannot run {program}: {error}; name the servers to compare with by --peer NAME=PATH")
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs servers.
pub(super) struct Hosts {
    dir: PathBuf,
    port: Option<u16>,
    partitions: u16,
    settings: Vec<(String, String)>,
    patience: Duration,
    pub processors: Processors,
    processes: Arc<Processes>,
}

/// A running server. It is ended when this is dropped.
pub(super) struct Server<'a> {
    pub name: String,
    pub port: u16,
    process: u32,
    number: u16,
    hosts: &'a Hosts,
}

impl Hosts {
    pub(super) fn new(common: &Common, processors: Processors) -> Result<Hosts, Failure> {
        let (dir, scratch) = match &common.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let dir = std::env::temp_dir().join(format!("annulet-compare-{}", std::process::id()));
                (dir.clone(), Some(dir))
            }
        };
        std::fs::create_dir_all(&dir)?;
        let processes = Arc::new(Processes::new(scratch));
        processes.guard()?;
        Ok(Hosts {
            dir,
            port: common.port,
            partitions: common.partitions(),
            settings: common.settings.clone(),
            patience: Duration::from_secs(common.patience),
            processors,
            processes,
        })
    }

    /// Where all files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The longest wait for anything.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Where a server's data is.
    pub(super) fn data_dir(&self, contender: &Contender) -> PathBuf {
        self.dir.join(contender.name.replace(' ', "-"))
    }

    /// Removes what a server that has ended has left on disk.
    pub(super) fn clear(&self, contender: &Contender) -> Result<(), Failure> {
        match std::fs::remove_dir_all(self.data_dir(contender)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Starts a server and waits until it takes writes. Call it from the main thread.
    pub(super) fn start(&self, contender: &Contender) -> Result<Server<'_>, Failure> {
        let port = match self.port {
            Some(port) if contender.is_own => port,
            _ => free_port(1)?,
        };
        self.start_at(contender, port)
    }

    /// The same at a port.
    pub(super) fn start_at(&self, contender: &Contender, port: u16) -> Result<Server<'_>, Failure> {
        let server = self.begin(contender, port)?;
        server.wait_ready().map_err(|failure| self.said(contender, &failure))?;
        Ok(server)
    }

    /// A failure of a server's, with what it said.
    pub(super) fn said(&self, contender: &Contender, failure: &Failure) -> Failure {
        let log = std::fs::read_to_string(self.log_path(contender)).unwrap_or_default();
        format!("{}: {failure}. It says:\n{log}", contender.name).into()
    }

    fn log_path(&self, contender: &Contender) -> PathBuf {
        self.data_dir(contender).with_extension("log")
    }

    /// Starts a server and waits for nothing. Call it from the main thread.
    pub(super) fn begin(&self, contender: &Contender, port: u16) -> Result<Server<'_>, Failure> {
        let number = self.processes.running().keys().next_back().map_or(0, |last| last + 1);
        let dir = self.data_dir(contender);
        std::fs::create_dir_all(&dir)?;
        let log = File::create(self.log_path(contender))?;
        let mut command = Command::new(&contender.program);
        if contender.is_own {
            self.own_arguments(&mut command, contender, port, &dir);
        } else {
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(&dir);
            command.args(["--daemonize", "no"]);
            let usual = [("save", ""), ("appendonly", "no")];
            let usual = usual.iter().filter(|(name, _)| !contender.sets(name));
            for (name, value) in usual.chain(&contender.settings) {
                command.arg(format!("--{name}")).arg(value);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        tie(&mut command, Some(self.processors.server));
        let child =
            command.spawn().map_err(|error| format!("cannot start {}: {error}", contender.program))?;
        let process = child.id();
        self.processes.running().insert(number, child);
        Ok(Server { name: contender.name.clone(), port, process, number, hosts: self })
    }

    fn own_arguments(&self, command: &mut Command, contender: &Contender, port: u16, dir: &Path) {
        let usual = [
            ("dir", dir.display().to_string()),
            ("port", port.to_string()),
            ("cluster-port", "0".to_owned()),
            ("peer-port", (port + 200).to_string()),
            ("http-port", (port + 300).to_string()),
            ("line-port", (port + 400).to_string()),
            ("copies", "1".to_owned()),
            ("partitions", self.partitions.to_string()),
            ("shards", "1".to_owned()),
            ("log", "off".to_owned()),
            ("log-level", "warn".to_owned()),
        ];
        command.arg("serve");
        let named = |name: &str| self.settings.iter().any(|(other, _)| other == name);
        for (name, value) in usual.iter().filter(|(name, _)| !named(name) && !contender.sets(name)) {
            command.arg(format!("--{name}")).arg(value);
        }
        for (name, value) in contender.settings.iter().filter(|(name, _)| !named(name)) {
            command.arg(format!("--{name}")).arg(value);
        }
        for (name, value) in &self.settings {
            command.arg(format!("--{name}")).arg(value);
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.processes.end();
    }
}

impl Server<'_> {
    fn wait_ready(&self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            self.check_running()?;
            let said =
                Client::connect(self.port).and_then(|mut client| client.ask(&[b"SET", b"ready", b"?"]));
            match said {
                Ok(Reply::Simple(text)) if text == "OK" => break,
                said if started.elapsed() > self.hosts.patience => {
                    return Err(format!("it is not ready: {said:?}").into());
                }
                _ => std::thread::sleep(TICK),
            }
        }
        Client::connect(self.port)?.must(&[b"DEL", b"ready"])?;
        Ok(())
    }

    /// A server that ended by itself fails the run.
    pub(super) fn check_running(&self) -> Result<(), Failure> {
        let mut running = self.hosts.processes.running();
        let child = running.get_mut(&self.number).ok_or("the server does not run")?;
        match child.try_wait()? {
            None => Ok(()),
            Some(ended) => Err(format!("{} ended by itself: {ended}", self.name).into()),
        }
    }

    /// The number of its process.
    pub(super) fn process(&self) -> u32 {
        self.process
    }

    /// Seconds of processor time that it has had.
    pub(super) fn processor_s(&self) -> Result<f64, Failure> {
        Ok(ticks_of(self.process)? as f64 / super::machine::tick_rate())
    }

    /// The clock of the processor time that its threads have taken.
    pub fn processor_clock(&self) -> Result<nix::time::ClockId, Failure> {
        nix::time::ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(self.process as i32))
            .map_err(|error| format!("the processor time of {} cannot be read: {error}", self.name).into())
    }

    /// Its resident memory now and at its greatest, in bytes.
    pub(super) fn resident(&self) -> Result<(u64, u64), Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        match (bytes("VmRSS:"), bytes("VmHWM:")) {
            (Some(now), Some(most)) => Ok((now, most)),
            _ => Err("/proc does not tell resident memory".into()),
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.hosts.processes.running().remove(&self.number) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
