//! A disk that is full: something else has taken all of its room, and clients write on. A node's log has room in reserve, so only
//! who writes much finds out; therefore a writer of large values goes with it.

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::status;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of a value.
const VALUE_BYTES: usize = 256 << 10;
/// Keys that are written, again and again.
const KEYS: usize = 32;
/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a refusal.
const BREATH: Duration = Duration::from_millis(20);

/// A full disk, until it is emptied.
pub(super) struct FullDisk {
    pub node: u16,
    ballast: PathBuf,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl FullDisk {
    /// Takes all the room of a node's disk, and begins to write.
    pub(super) fn fill(cluster: &Cluster, node: u16) -> Result<FullDisk, Failure> {
        let dir = cluster.node_dir(node);
        let ballast = dir.join("ballast");
        let file = File::create(&ballast)?;
        let room = statvfs(&dir).map_err(|errno| format!("the disk of node {node}: {errno}"))?;
        let mut bytes = room.f_bavail * room.f_frsize;
        let mut filled = 0;
        // The node takes room meanwhile, or gives some back: whatever is left in the end is less than a page.
        while bytes >= room.f_frsize {
            match fallocate(&file, FallocateFlags::empty(), filled, bytes) {
                Ok(()) => filled += bytes,
                Err(_) => bytes /= 2,
            }
        }
        let (door, password) = (cluster.door(node), cluster.password().map(str::to_owned));
        let [written, refused] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::Builder::new().name("filler".into()).spawn({
            let (stop, written, refused) = (stop.clone(), written.clone(), refused.clone());
            move || write(door, password.as_deref(), &stop, &written, &refused)
        })?;
        Ok(FullDisk { node, ballast, stop, written, refused, writer: Some(writer) })
    }

    /// Gives the room back. What came of it, in words.
    pub(super) fn empty(mut self) -> Result<String, Failure> {
        std::fs::remove_file(&self.ballast)?;
        self.end();
        let megabytes = self.written.load(Ordering::Relaxed) * VALUE_BYTES as u64 / 1_000_000;
        let refused = self.refused.load(Ordering::Relaxed);
        Ok(format!("{megabytes} MB were written meanwhile, and {refused} writes refused for want of room"))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        self.end();
    }
}

fn write(
    door: SocketAddr,
    password: Option<&str>,
    stop: &AtomicBool,
    written: &AtomicU64,
    refused: &AtomicU64,
) {
    let value = vec![b'x'; VALUE_BYTES];
    let mut connection = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let open = match connection.take() {
            None => status::connect_to(door, password, PATIENCE),
            Some(open) => Ok(open),
        };
        let Ok(mut open) = open else {
            std::thread::sleep(BREATH);
            continue;
        };
        number = (number + 1) % KEYS;
        let mut command = redis::cmd("SET");
        command.arg(format!("filler:{number}")).arg(&value).arg("PX").arg(10_000);
        match command.query::<()>(&mut open) {
            Ok(()) => _ = written.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                refused.fetch_add(u64::from(error.code() == Some("MISCONF")), Ordering::Relaxed);
                std::thread::sleep(BREATH);
                // Only an error that the node sent leaves the connection as it was.
                if error.code().is_none() {
                    continue;
                }
            }
        }
        connection = Some(open);
    }
}
