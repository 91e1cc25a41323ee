//! What goes wrong with disks: they are slow, refuse to sync, to write and to read, are full, and rot.
//!
//! A disk that rots changes what a segment of a log that is closed, or a snapshot, has had synced, while no process looks: its
//! process is killed, and the next one finds it. (The last bytes of a log cannot rot: nothing tells that from a torn tail. The control
//! file could, and its node would not start any more.) Nothing may be lost by that, so it happens only where every partition that the
//! node holds in sync has another in-sync copy that runs; and until the node's copies are in sync again the others are not killed, nor
//! are their disks hurt. They may still be cut off and be taken out of an in-sync set before the rotten one is: what is lost by that is no
//! failure.

use crate::disk::SimDisk;
use crate::faults::{Death, Kind, lasting};
use crate::injure::Mend;
use crate::network::MS;
use crate::world::{Event, World};
use control::Identity;
use history::random::Random;
use std::path::{Path, PathBuf};
use storage::Disk;
use types::NodeId;

/// The longest that a disk is slow, fails or is full.
const DISK_MAX: u64 = 6_000 * MS;

impl World {
    /// A disk takes its time.
    pub(crate) fn slow_disk(&mut self, node: usize, random: &mut Random) {
        self.nodes[node].disk_takes = random.pick(&[5, 50, 500, 3000]) * MS;
        let until = self.now + lasting(random, DISK_MAX);
        self.schedule(until, Event::Mend(Mend::SlowDisk(node)));
    }

    /// A disk begins to refuse. False: it does already, or nobody holds the room that the control plane needs.
    pub(crate) fn hurt_disk(&mut self, kind: Kind, node: usize, random: &mut Random) -> bool {
        let room = random.below(64 << 10);
        let is_rotten = self.is_any_rotten();
        let hurt = &mut self.nodes[node];
        if is_rotten || kind == Kind::FullDisk && hurt.process.is_none() {
            return false;
        }
        if std::mem::replace(&mut hurt.disk_hurt, true) {
            return false;
        }
        match kind {
            Kind::FailedSync => hurt.disk.fail_sync(true),
            Kind::FailedWrite => hurt.disk.fail_write(true),
            Kind::FailedRead => hurt.disk.fail_read(true),
            _ => hurt.disk.set_room(Some(hurt.disk.used_bytes() + room)),
        }
        let until = self.now + lasting(random, DISK_MAX);
        self.schedule(until, Event::Mend(Mend::HurtDisk(node)));
        true
    }

    /// A disk is well again.
    pub(crate) fn heal_disk(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.disk_hurt = false;
        node.disk.fail_sync(false);
        node.disk.fail_write(false);
        node.disk.fail_read(false);
        node.disk.set_room(None);
    }

    /// A node's process dies, and what its disk has kept is not what was written. False: that could cost something, or there is
    /// nothing that could rot.
    pub(crate) fn rot(&mut self, node: usize, random: &mut Random) -> bool {
        let id = NodeId(node as u16 + 1);
        let is_one_of_many = self.nodes[node].process.is_some() && self.others_hold(id);
        if !is_one_of_many || self.is_any_rotten() || self.nodes.iter().any(|node| node.disk_hurt) {
            return false;
        }
        let files = what_may_rot(&self.nodes[node].disk);
        if files.is_empty() {
            return false;
        }
        let (path, bytes) = files[random.below(files.len() as u64) as usize].clone();
        let (offset, mask) = (random.below(bytes), 1 << random.below(8));
        if !self.nodes[node].disk.damage(&path, offset, mask) {
            return false;
        }
        self.trace.event(self.now, &[27, node as u64, offset], || {
            format!("node {}: byte {offset} of {} rots", node + 1, path.display())
        });
        self.nodes[node].rotten = true;
        self.kill(node, Death::Killed);
        self.start_later(node, random);
        true
    }

    /// Whether some node's copies may be lost to rot, and are not in sync again.
    pub(crate) fn is_any_rotten(&self) -> bool {
        self.nodes.iter().any(|node| node.rotten)
    }

    /// Those that have filled themselves again are whole. Where a node's copies were moved elsewhere meanwhile it has none to fill.
    pub(crate) fn note_filled(&mut self) {
        if !self.is_any_rotten() {
            return;
        }
        let partitions = self.checks.maps.newest().partitions.len();
        let lost: Vec<usize> = (0..partitions).filter(|&partition| self.is_lost(partition)).collect();
        self.lost_to_rot.extend(lost);
        if !self.has_all_in_sync() {
            return;
        }
        let map = self.checks.maps.newest().clone();
        for node in &mut self.nodes {
            // What it lacks it says when it registers.
            let is_known = node.process.as_ref().is_some_and(|process| {
                let Identity { node, incarnation, .. } = process.identity();
                map.member(node).is_some_and(|member| member.incarnation == incarnation)
            });
            node.rotten &= !is_known;
        }
    }

    fn has_all_in_sync(&self) -> bool {
        let map = self.checks.maps.newest();
        map.partitions.iter().all(|state| state.copies.is_within(state.in_sync))
    }
}

/// Files of logs and snapshots of which something is there for good, and how long they are.
fn what_may_rot(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
    let data = Path::new(crate::process::DIRECTORY);
    let mut result = Vec::new();
    let is_shard =
        |name: &&String| name.strip_prefix("shard-").is_some_and(|number| number.parse::<u16>().is_ok());
    let is_log = |name: &&String| name.starts_with("log-") && !name.contains('.');
    for shard in disk.list(data).unwrap_or_default().iter().filter(is_shard) {
        let directory = data.join(shard);
        let names = disk.list(&directory).unwrap_or_default();
        let newest = names.iter().filter(is_log).max();
        let closed = names.iter().filter(is_log).filter(|name| Some(*name) != newest);
        let snapshots = names.iter().filter(|name| name.ends_with(".snap"));
        for name in closed.chain(snapshots) {
            let path = directory.join(name);
            let bytes = disk.content(&path).map_or(0, |content| content.len() as u64);
            if bytes > 0 {
                result.push((path, bytes));
            }
        }
    }
    result
}
