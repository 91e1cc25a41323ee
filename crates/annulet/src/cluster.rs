//! A local cluster on disk: its shape, remembered from start to start, and what each node is told.
//!
//! ```text
//! DIR/cluster.toml          the shape: nodes, port, copies, partitions
//! DIR/node-1/node.toml      the first node's settings, written at every start
//! DIR/node-1/log            its output
//! DIR/node-1/join.secret    what the nodes know each other by; the same in every directory
//! DIR/node-1/shard-*/       its data, and other files of its own
//! ```

use config::host_port;
use config::settings_file::{self, Given};
use serde::{Deserialize, Serialize};
use server::disk::RealDisk;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use storage::Disk;
use thiserror::Error;
use types::settings::Settings;

/// From one kind of port to the next.
const PORT_STEP: u16 = 100;
/// How many ports that are taken are named.
const PORTS_SHOWN: usize = 4;
/// The file in a node's directory that stands beside its logs.
const LOGS_FILE: &str = "data.journal";

/// Why a local cluster cannot be laid out.
#[derive(Debug, Error)]
pub(crate) enum ClusterError {
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not what `annulet up` wrote there: {source}", path.display())]
    Shape { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "{} holds a cluster with {name} = {remembered}, not {asked}; leave out --{name}, or start another cluster with --dir",
        dir.display()
    )]
    Conflict { dir: PathBuf, name: &'static str, remembered: u16, asked: u16 },
    #[error("another `annulet up` runs the cluster in {}; stop it first, or start another with --dir and --port", dir.display())]
    Running { dir: PathBuf },
    #[error("--port {port} leaves no room: node {nodes}'s line port would be {highest}; choose a lower one")]
    NoRoom { port: u16, nodes: u16, highest: u32 },
    #[error("in use: {}; stop what listens there, or move the whole cluster with --port (say --port {})", ports.join(", "), suggestion)]
    InUse { ports: Vec<String>, suggestion: u16 },
    #[error("cannot listen on {host}: {source}; see --bind")]
    Bind { host: String, source: io::Error },
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ClusterError + use<'a> {
    move |source| ClusterError::File { what, path: path.to_owned(), source }
}

/// What stays the same as long as a local cluster lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    pub nodes: u16,
    pub port: u16,
    pub copies: u16,
    pub partitions: u16,
}

/// What the command line says of the shape.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub nodes: Option<u16>,
    pub port: Option<u16>,
    pub copies: Option<u16>,
    pub partitions: Option<u16>,
}

impl Shape {
    /// What is remembered, where that is what was asked for; else what was asked for.
    fn agree(dir: &Path, remembered: Option<Shape>, asked: Asked) -> Result<Shape, ClusterError> {
        let usual = Settings::default();
        let known = remembered.unwrap_or(Shape {
            nodes: asked.nodes.unwrap_or(3),
            port: asked.port.unwrap_or(usual.port),
            copies: asked.copies.unwrap_or(usual.copies),
            partitions: asked.partitions.unwrap_or(usual.partitions),
        });
        let pairs = [
            ("nodes", known.nodes, asked.nodes),
            ("port", known.port, asked.port),
            ("copies", known.copies, asked.copies),
            ("partitions", known.partitions, asked.partitions),
        ];
        for (name, remembered, asked) in pairs {
            if let Some(asked) = asked.filter(|&asked| asked != remembered) {
                return Err(ClusterError::Conflict { dir: dir.to_owned(), name, remembered, asked });
            }
        }
        let highest = u32::from(known.port) + 4 * u32::from(PORT_STEP) + u32::from(known.nodes) - 1;
        if highest > u32::from(u16::MAX) {
            return Err(ClusterError::NoRoom { port: known.port, nodes: known.nodes, highest });
        }
        Ok(known)
    }
}

/// A local cluster that is about to run. Its directory is locked while this lives.
pub(crate) struct Cluster {
    pub dir: PathBuf,
    pub shape: Shape,
    /// Whether the directory held a cluster before.
    pub existed: bool,
    /// Whether its nodes have kept anything on disk.
    pub had_logs: bool,
    /// Settings that every node gets.
    pub common: Given,
    _lock: File,
}

impl Cluster {
    /// Opens or makes the directory of a cluster, and checks that the command line agrees with what it remembers.
    pub(crate) fn open(dir: &Path, asked: Asked, common: Given) -> Result<Cluster, ClusterError> {
        RealDisk.create_dir_all(dir).map_err(at("make the directory", dir))?;
        let dir = dir.canonicalize().map_err(at("find", dir))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(at("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(ClusterError::Running { dir }),
            Err(std::fs::TryLockError::Error(source)) => return Err(at("lock", &lock_path)(source)),
        }
        // Who wants something of the launcher finds it here, and knows that it lives as long as the lock is held.
        lock.set_len(0)
            .and_then(|()| (&lock).write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(at("write", &lock_path))?;
        let path = dir.join("cluster.toml");
        let remembered = match std::fs::read_to_string(&path) {
            Ok(text) => Some(
                toml::from_str(&text)
                    .map_err(|source| ClusterError::Shape { path, source: Box::new(source) })?,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(at("read", &path)(source)),
        };
        let shape = Shape::agree(&dir, remembered, asked)?;
        let existed = remembered.is_some();
        let mut cluster = Cluster { dir, shape, existed, had_logs: false, common, _lock: lock };
        cluster.had_logs = cluster.ids().any(|id| cluster.node_dir(id).join(LOGS_FILE).exists());
        Ok(cluster)
    }

    /// The numbers of its nodes.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.shape.nodes
    }

    /// A node's directory.
    pub(crate) fn node_dir(&self, id: u16) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    /// The file with a node's settings.
    pub(crate) fn config_path(&self, id: u16) -> PathBuf {
        self.node_dir(id).join("node.toml")
    }

    /// The file that a node's output goes to.
    pub(crate) fn log_path(&self, id: u16) -> PathBuf {
        self.node_dir(id).join("log")
    }

    /// A node's port for clients.
    pub(crate) fn port(&self, id: u16) -> u16 {
        self.shape.port + id - 1
    }

    /// A node's port for HTTP.
    pub(crate) fn http_port(&self, id: u16) -> u16 {
        self.port(id) + 3 * PORT_STEP
    }

    /// A node's port for JSON and text.
    pub(crate) fn line_port(&self, id: u16) -> u16 {
        self.port(id) + 4 * PORT_STEP
    }

    /// The host at which this machine reaches its nodes.
    pub(crate) fn host(&self) -> &str {
        match self.common_value("bind") {
            None | Some("0.0.0.0") => "127.0.0.1",
            Some("::") => "::1",
            Some(host) => host,
        }
    }

    /// Where clients reach a node.
    pub(crate) fn address(&self, id: u16) -> String {
        host_port(self.host(), self.port(id))
    }

    /// The value that every node gets for a setting, where one was given.
    pub(crate) fn common_value(&self, name: &str) -> Option<&str> {
        self.common.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// Everything that a node is told.
    pub(crate) fn node_settings(&self, id: u16) -> Given {
        let peers: Vec<String> = self
            .ids()
            .map(|id| format!("{id}={}", host_port(self.host(), self.port(id) + 2 * PORT_STEP)))
            .collect();
        let mut given: Given = vec![
            ("node_id", id.to_string()),
            ("nodes", peers.join(",")),
            ("dir", self.node_dir(id).display().to_string()),
            ("announce", self.host().to_owned()),
            ("port", self.port(id).to_string()),
            ("cluster_port", (self.port(id) + PORT_STEP).to_string()),
            ("peer_port", (self.port(id) + 2 * PORT_STEP).to_string()),
            ("http_port", self.http_port(id).to_string()),
            ("line_port", self.line_port(id).to_string()),
            ("copies", self.shape.copies.to_string()),
            ("partitions", self.shape.partitions.to_string()),
        ];
        given.extend(
            self.common.iter().filter(|(name, _)| !matches!(*name, "copies" | "partitions")).cloned(),
        );
        given
    }

    /// Says which ports are taken, all at once, and where there would be room.
    pub(crate) fn check_ports(&self) -> Result<(), ClusterError> {
        let mut ports = self.taken_ports(self.shape.port)?;
        if ports.is_empty() {
            return Ok(());
        }
        if let Some(more) = ports.len().checked_sub(PORTS_SHOWN).filter(|more| *more > 0) {
            ports.truncate(PORTS_SHOWN);
            ports.push(format!("{more} more"));
        }
        let usual = Settings::default().port;
        let above = (1..60).filter_map(|step: u16| self.shape.port.checked_add(step * 1000));
        let others = above.chain((0..50).map(|step| usual + step * 1000)).filter(|port| *port < 64_000);
        let is_free = |port: &u16| self.taken_ports(*port).is_ok_and(|taken| taken.is_empty());
        let suggestion = { others }.find(is_free).unwrap_or(usual);
        Err(ClusterError::InUse { ports, suggestion })
    }

    /// Which of its ports are taken, were `base` the first of them.
    fn taken_ports(&self, base: u16) -> Result<Vec<String>, ClusterError> {
        let host = self.common_value("bind").unwrap_or("127.0.0.1");
        let mut ports = Vec::new();
        for id in self.ids() {
            for (offset, what) in
                [(0, "clients"), (1, "cluster-aware clients"), (2, "peers"), (3, "HTTP"), (4, "lines")]
            {
                let port = base + (id - 1) + offset * PORT_STEP;
                match TcpListener::bind((host, port)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        ports.push(format!("port {port} (node {id}, for {what})"));
                    }
                    Err(source) => {
                        return Err(ClusterError::Bind { host: host_port(host, port), source });
                    }
                }
            }
        }
        Ok(ports)
    }

    /// Writes what the nodes need: directories, settings, the join secret; last of all the shape.
    pub(crate) fn write(&self) -> Result<(), ClusterError> {
        let secret = self.secret()?;
        for id in self.ids() {
            let dir = self.node_dir(id);
            RealDisk.create_dir_all(&dir).map_err(at("make the directory", &dir))?;
            let path = dir.join("join.secret");
            if !path.exists() {
                write_private(&path, &secret)?;
            }
            let comment = "Written by `annulet up` at every start: changes here do not last.";
            write_private(&self.config_path(id), &settings_file::render(comment, &self.node_settings(id)))?;
        }
        let text = toml::to_string(&self.shape).expect("four numbers are always TOML");
        let path = self.dir.join("cluster.toml");
        let text = format!("# The shape of this cluster, remembered by `annulet up`.\n{text}");
        std::fs::write(&path, text).map_err(at("write", &path))
    }

    /// The join secret that a node has already, or a new one: 32 random bytes in hex.
    fn secret(&self) -> Result<String, ClusterError> {
        for id in self.ids() {
            let path = self.node_dir(id).join("join.secret");
            match std::fs::read_to_string(&path) {
                Ok(secret) => return Ok(secret),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(at("read", &path)(source)),
            }
        }
        let source = Path::new("/dev/urandom");
        let mut bytes = [0; 32];
        File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(at("read", source))?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
    }
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<(), ClusterError> {
    config::write_private(path, text).map_err(at("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let dir = std::env::temp_dir().join(format!("annulet-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            Scratch(dir)
        }

        fn open(&self, asked: Asked) -> Result<Cluster, ClusterError> {
            Cluster::open(&self.0, asked, vec![("copies", "3".into()), ("log_level", "debug".into())])
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_shape_is_remembered_and_a_conflict_refused() {
        let scratch = Scratch::new("shape");
        let asked = Asked { nodes: Some(5), copies: Some(3), port: Some(8001), partitions: None };
        let cluster = scratch.open(asked).unwrap();
        assert!(!cluster.existed);
        cluster.write().unwrap();
        let shape = cluster.shape;
        assert!(matches!(scratch.open(asked), Err(ClusterError::Running { .. })));
        drop(cluster);
        let again = scratch.open(Asked::default()).unwrap();
        assert!(again.existed);
        assert_eq!(again.shape, shape);
        drop(again);
        let error = scratch.open(Asked { nodes: Some(4), ..Asked::default() }).err().unwrap().to_string();
        assert!(error.contains("holds a cluster with nodes = 5, not 4; leave out --nodes"), "{error}");
    }

    #[test]
    fn every_node_is_told_its_place_and_shares_the_secret() {
        let scratch = Scratch::new("nodes");
        let cluster = scratch.open(Asked { copies: Some(3), ..Asked::default() }).unwrap();
        cluster.write().unwrap();
        let settings = settings_file::settings(Some(&cluster.config_path(2)), &Given::new()).unwrap();
        assert_eq!(
            (settings.node_id, settings.port, settings.cluster_port, settings.peer_port),
            (2, 7002, 7102, 7202)
        );
        assert_eq!((settings.http_port, settings.line_port), (7302, 7402));
        assert_eq!(settings.nodes.as_str(), "1=127.0.0.1:7201,2=127.0.0.1:7202,3=127.0.0.1:7203");
        assert_eq!((settings.copies, settings.partitions, settings.log_level.as_str()), (3, 1024, "debug"));
        let secret = |id: u16| std::fs::read_to_string(cluster.node_dir(id).join("join.secret")).unwrap();
        assert_eq!(secret(1).trim().len(), 64);
        assert_eq!((secret(1), secret(2)), (secret(2), secret(3)));
        let mode = std::fs::metadata(cluster.node_dir(1).join("join.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = secret(1);
        cluster.write().unwrap();
        assert_eq!(secret(1), before, "a secret stays");
    }

    #[test]
    fn taken_ports_are_named_with_the_way_out() {
        let scratch = Scratch::new("ports");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let cluster = scratch.open(Asked { nodes: Some(1), port: Some(port), ..Asked::default() });
        // The system may give a port so high that the peers' does not fit.
        let Ok(cluster) = cluster else { return };
        let error = cluster.check_ports().unwrap_err();
        let ClusterError::InUse { suggestion, .. } = error else { panic!("{error}") };
        assert!(suggestion != port && cluster.taken_ports(suggestion).is_ok());
        let error = error.to_string();
        assert!(error.contains(&format!("port {port} (node 1, for clients)")), "{error}");
        assert!(error.contains(&format!("--port (say --port {suggestion})")), "{error}");
    }

    #[test]
    fn ports_that_cannot_be_are_refused() {
        let scratch = Scratch::new("room");
        let error = scratch.open(Asked { port: Some(65400), ..Asked::default() }).err().unwrap().to_string();
        assert!(error.contains("node 3's line port would be 65802"), "{error}");
    }
}
