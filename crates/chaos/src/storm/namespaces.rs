//! A network of the run's own: a namespace for each node, one for the clients, and one whose bridge joins them, so that every node has an
//! address that can be cut off, and several runs never meet.
//!
//! ```text
//! node-1  10.77.0.1 ──┐
//! node-2  10.77.0.2 ──┤ bridge │── 10.77.0.250  clients: this program's own threads
//! node-3  10.77.0.3 ──┘
//! ```
//!
//! Nothing of it can be left behind. The names live in a mount namespace of this process, as do the nodes' disks, which are file systems
//! in memory; so both are gone with the last process of the run, however that ends, and `ip netns list` elsewhere never shows them.
//!
//! This program moves into the clients' namespace as a whole, before it has a second thread: every client is there by itself. What has to
//! be elsewhere (a node, the packet filter's program, a proxy) enters there by `setns`.

use crate::cluster::JOINING_MAX;
use crate::failure::Failure;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";
/// The clients' address.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 250);
/// The nodes' password: it protects nothing, but nodes want one elsewhere than on loopback.
const PASSWORD: &str = "storm";

/// What this machine lacks for such a network.
#[derive(Debug)]
pub(crate) struct Missing(pub String);

/// The namespaces.
pub(crate) struct Network {
    spaces: BTreeMap<u16, Arc<File>>,
    /// Whether connections can be sent elsewhere, as the proxy needs it.
    pub redirects: bool,
    disk_mib: u32,
}

impl Network {
    /// Makes the network, with room for nodes that join, and moves this process into the clients' part of it. To be called
    /// while this process has one thread. A node's disk will have so many MiB.
    pub(crate) fn build(nodes: u16, disk_mib: u32) -> Result<Network, Missing> {
        if !rustix::process::geteuid().is_root() {
            return Err(Missing("root: network namespaces cannot be made without".to_owned()));
        }
        // SAFETY: this process has one thread, so no other is surprised by what it sees of the file system.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
            .map_err(|errno| Missing(format!("mount namespaces: unshare: {errno}")))?;
        run(&["mount", "--make-rprivate", "/"])?;
        std::fs::create_dir_all(NAMES).map_err(|error| Missing(format!("{NAMES}: {error}")))?;
        run(&["mount", "-t", "tmpfs", "annulet-storm", NAMES])?;
        run(&["ip", "netns", "add", "bridge"])?;
        run(&["ip", "-n", "bridge", "link", "add", "bridge", "type", "bridge"])?;
        run(&["ip", "-n", "bridge", "link", "set", "bridge", "up"])?;
        let clients = add_space("clients", CLIENTS)?;
        let mut spaces = BTreeMap::new();
        for id in 1..=nodes + JOINING_MAX {
            spaces.insert(id, Arc::new(add_space(&format!("node-{id}"), address(id))?));
        }
        enter(&clients).map_err(|error| Missing(format!("network namespaces: setns: {error}")))?;
        let mut network = Network { spaces, redirects: false, disk_mib };
        let filter = |text: &str| network.filter(1, text).map_err(|failure| Missing(failure.to_string()));
        filter(
            "table ip try { chain in { type filter hook input priority 0; ip saddr 10.77.0.99 drop; }; }",
        )?;
        filter("delete table ip try")?;
        let redirect =
            "table ip try { chain out { type nat hook output priority -100; tcp dport 1 redirect to :2; }; }";
        network.redirects = filter(redirect).and_then(|()| filter("delete table ip try")).is_ok();
        Ok(network)
    }

    /// The nodes that there is a place for.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> {
        self.spaces.keys().copied()
    }

    /// A node's address.
    pub(crate) fn address(&self, id: u16) -> Ipv4Addr {
        address(id)
    }

    /// What the nodes want to hear from clients.
    pub(crate) fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Has the process to be begin in a node's namespace.
    pub(crate) fn send_into(&self, id: u16, command: &mut Command) {
        let Some(space) = self.spaces.get(&id).cloned() else { return };
        // SAFETY: between fork and exec only one system call is made, without allocation or locks.
        unsafe {
            command.pre_exec(move || enter(&space));
        }
    }

    /// Moves the calling thread into a node's namespace.
    pub(crate) fn enter(&self, id: u16) -> Result<(), Failure> {
        let space = self.spaces.get(&id).ok_or_else(|| format!("there is no place for node {id}"))?;
        Ok(enter(space)?)
    }

    /// Gives the packet filter of a node's namespace orders, all or none of which take effect.
    pub(crate) fn filter(&self, id: u16, orders: &str) -> Result<(), Failure> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        self.send_into(id, &mut command);
        let mut child = command.spawn().map_err(|error| format!("nft (package nftables): {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(orders.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        match output.status.success() {
            true => Ok(()),
            false => {
                Err(format!("nft refused {orders:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
            }
        }
    }

    /// Puts a file system in memory where a node's data directory is.
    pub(crate) fn mount_disk(&self, at: &Path) -> Result<(), Failure> {
        let size = format!("size={}m", self.disk_mib);
        let at = at.display().to_string();
        run(&["mount", "-t", "tmpfs", "-o", &size, "annulet-storm", &at]).map_err(|missing| missing.0.into())
    }
}

fn address(id: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, id as u8)
}

fn enter(space: &File) -> std::io::Result<()> {
    Ok(move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// A namespace with an address, and its end at the bridge.
fn add_space(name: &str, address: Ipv4Addr) -> Result<File, Missing> {
    run(&["ip", "netns", "add", name])?;
    run(&["ip", "-n", "bridge", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name])?;
    run(&["ip", "-n", "bridge", "link", "set", name, "master", "bridge", "up"])?;
    run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
    run(&["ip", "-n", name, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
    run(&["ip", "-n", name, "link", "set", "eth0", "up"])?;
    let path = format!("{NAMES}/{name}");
    File::open(&path).map_err(|error| Missing(format!("{path}: {error}")))
}

fn run(words: &[&str]) -> Result<(), Missing> {
    let said = words.join(" ");
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Missing(format!("`{said}` cannot run: {error}")))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(Missing(format!("`{said}` failed: {}", why.trim())))
        }
    }
}
