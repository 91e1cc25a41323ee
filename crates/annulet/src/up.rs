//! `annulet up`: a cluster on this machine, from one command.
//!
//! Checks what can be checked before anything starts (shape, settings, ports), starts a process a node, waits until the
//! cluster serves, says how to use it, and then watches: a node that dies is reported and the others go on. Ctrl-C stops
//! them all.

use crate::cluster::{Asked, Cluster};
use crate::launch::{Launch, STOP, Stops, TICK, counted};
use crate::{Failure, flags, rolling_restart};
use clap::ArgMatches;
use config::{host_port, settings_file};
use std::path::Path;
use std::process::ExitCode;
use types::settings::Settings;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let (cluster, settings) = plan(matches)?;
    cluster.check_ports()?;
    cluster.write()?;
    let stops = Stops::listen()?;
    if cluster.existed && !cluster.had_logs {
        println!(
            "{} holds a cluster that was stopped. Its data was in memory only (log = off): it starts empty.",
            cluster.dir.display()
        );
    }
    let mut launch = Launch::start(cluster, settings, stops)?;
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
        alone.set(name, value).map_err(|error| settings_file::ConfigError::InFlag { name, error })?;
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
    let settings = settings_file::settings(None, &cluster.node_settings(1))?;
    Ok((cluster, settings))
}

impl Launch {
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
        self.start_one(id)?;
        self.wait_at_rest(id, "was started again")
    }
}

/// How this program was called, to be called so again.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "annulet".to_owned())
}
