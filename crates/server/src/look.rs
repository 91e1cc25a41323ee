//! A stopped node's data directory, for who looks into it: its lock, whose it is, and what is in it.
//!
//! The files say of which cluster, node and shard they are, in a way that only who knows the join secret can make. Which node's
//! they are stands nowhere else; so the numbers that nodes may have are tried, the likely ones first.

use crate::StartError;
use crate::data::{self, Last};
use crate::directory::{Directory, SECRET_FILE};
use crate::proof::Secret;
use crate::read_only::ReadOnlyDisk;
use node::look::{self, ControlLook, Finding, Severity, ShardLook, SnapshotPart};
use node::recover::{RecoverConfig, shard_directory};
use replication::Durability;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use storage::{Disk, LogEntry, ShardLogOptions};
use thiserror::Error;
use types::{NodeId, PartitionId, ShardId};

/// Directories of nodes in one that `annulet up` made.
const NODE_PREFIX: &str = "node-";
const SHARD_PREFIX: &str = "shard-";
const CONTROL_FILE: &str = "control.journal";

/// Why a data directory cannot be looked into.
#[derive(Debug, Error)]
pub enum LookError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing of a node is there.
    #[error(
        "{path} is no data directory of a node: it has neither {SECRET_FILE} nor {CONTROL_FILE}. Name the directory that `dir` \
         says, or one that `annulet up` made",
        path = path.display()
    )]
    NoNode {
        /// The directory.
        path: PathBuf,
    },
    /// A node runs on it.
    #[error("a node runs on {path}, and its files change: stop it first", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The join secret is not there or not readable.
    #[error("{0}. Without it nobody can tell whose the files are")]
    Secret(StartError),
    /// The files belong to nobody who knows this secret.
    #[error(
        "the files in {path} are not of the cluster of {SECRET_FILE} in {data}: somebody has copied or moved them, or replaced the \
         secret. Put the right {SECRET_FILE} back",
        path = path.display(), data = data.display()
    )]
    OtherCluster {
        /// The shard's directory.
        path: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
}

/// The data directories in `path`: itself, or those of the nodes that `annulet up` has made in it, in the order of their numbers.
pub fn data_directories(path: &Path) -> Result<Vec<PathBuf>, LookError> {
    let unreadable = |source| LookError::Unreadable { path: path.to_owned(), source };
    let is_node = |names: &[String]| names.iter().any(|name| name == SECRET_FILE || name == CONTROL_FILE);
    let names = ReadOnlyDisk.list(path).map_err(unreadable)?;
    if is_node(&names) {
        return Ok(vec![path.to_owned()]);
    }
    let mut nodes: Vec<u16> =
        names.iter().filter_map(|name| name.strip_prefix(NODE_PREFIX)?.parse().ok()).collect();
    nodes.sort_unstable();
    let directories = nodes.iter().map(|number| path.join(format!("{NODE_PREFIX}{number}")));
    let directories: Vec<PathBuf> =
        directories.filter(|path| ReadOnlyDisk.list(path).is_ok_and(|names| is_node(&names))).collect();
    if directories.is_empty() { Err(LookError::NoNode { path: path.to_owned() }) } else { Ok(directories) }
}

/// What the file beside the shards says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLook {
    /// With how many shards the logs were written.
    pub shards: u16,
    /// Whether the last start ended in order.
    pub clean: bool,
}

/// A stopped node's data directory. It stays stopped as long as this lives.
#[derive(Debug)]
pub struct NodeFiles {
    directory: Directory,
    secret: Secret,
    /// Whose they are. `None`: no file says so.
    pub node: Option<NodeId>,
    /// What the file beside the shards says, where it can be read.
    pub data: Option<DataLook>,
    /// The last start, as that file says.
    last: Option<Last>,
    /// The shards whose directories are there.
    pub shards: Vec<ShardId>,
    /// What is not as it should be beside the shards' own files.
    pub findings: Vec<Finding>,
}

impl NodeFiles {
    /// Takes the lock of a data directory and finds out whose it is.
    pub fn open(path: &Path) -> Result<NodeFiles, LookError> {
        let unreadable = |source| LookError::Unreadable { path: path.to_owned(), source };
        let directory = Directory::look(path).map_err(|error| match error {
            StartError::DirectoryInUse { path } => LookError::InUse { path },
            StartError::Directory { path, source } => LookError::Unreadable { path, source },
            other => unreadable(io::Error::other(other.to_string())),
        })?;
        let secret = directory.join_secret(false).map_err(LookError::Secret)?;
        let names = ReadOnlyDisk.list(path).map_err(unreadable)?;
        let mut there: Vec<ShardId> = names
            .iter()
            .filter_map(|name| name.strip_prefix(SHARD_PREFIX)?.parse().ok().map(ShardId))
            .filter(|&shard| shard_directory(path, shard).is_dir())
            .collect();
        there.sort_unstable();
        let (last, mut findings) = look_at_data(path);
        let data = last.as_ref().map(|last| DataLook { shards: last.shards, clean: last.clean });
        if let Some(data) = data {
            findings.extend(look_for_shards(path, data.shards, &there));
            there.retain(|shard| shard.0 < data.shards);
        }
        findings.extend(names.iter().filter(|name| name.contains(".aside-")).map(|name| {
            let path = path.join(name);
            let text = format!(
                "{} was set aside by an earlier start, because it could not be used. Remove it once the node's copies are in sync \
                 again",
                path.display()
            );
            Finding::new(Severity::Harmless, &path, text)
        }));
        let node = owner(path, &secret, &there)?;
        Ok(NodeFiles { directory, secret, node, data, last, shards: there, findings })
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Reads the control plane's file.
    pub fn look_at_control(&self) -> ControlLook {
        look::look_at_control(&ReadOnlyDisk, self.path())
    }

    /// How long a shard's files are, in bytes.
    pub fn bytes_of(&self, shard: ShardId) -> u64 {
        let entries = std::fs::read_dir(shard_directory(self.path(), shard)).into_iter().flatten();
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Reads a shard's files. `progress` hears how many more bytes were read.
    pub fn look_at_shard(&self, shard: ShardId, progress: &mut dyn FnMut(u64)) -> ShardLook {
        look::look_at_shard(&ReadOnlyDisk, self.path(), &self.config(shard), progress)
    }

    /// See [`look::walk_log`].
    pub fn walk_log(
        &self,
        shard: ShardId,
        from: u64,
        on_entry: &mut dyn FnMut(u64, LogEntry) -> ControlFlow<()>,
    ) -> Result<(), Box<Finding>> {
        look::walk_log(&ReadOnlyDisk, self.path(), &self.config(shard), from, on_entry)
    }

    /// See [`look::walk_snapshots`].
    pub fn walk_snapshots(
        &self,
        shard: ShardId,
        partition: Option<PartitionId>,
        on_part: &mut dyn FnMut(PartitionId, SnapshotPart<'_>) -> ControlFlow<()>,
    ) -> Vec<Finding> {
        look::walk_snapshots(&ReadOnlyDisk, self.path(), &self.config(shard), partition, on_part)
    }

    fn config(&self, shard: ShardId) -> RecoverConfig {
        // Without a file that says whose it is there is none that a wrong number could refuse.
        let node = self.node.unwrap_or(NodeId(0));
        RecoverConfig {
            node,
            shard,
            identity: self.secret.file_identity(node, shard),
            hash_seed: self.secret.hash_seed(),
            durability: Durability::default(),
            log: ShardLogOptions::default(),
            ended_at: self.last.as_ref().map_or(0, |last| last.end_of(shard)),
        }
    }
}

fn look_at_data(directory: &Path) -> (Option<Last>, Vec<Finding>) {
    let path = directory.join(data::FILE);
    let look::JournalLook { frames, mut findings, .. } = look::look_at_journal(&ReadOnlyDisk, &path);
    for damaged in findings.iter_mut().filter(|finding| finding.severity == Severity::Damaged) {
        damaged.text = data::with_advice(&damaged.text);
    }
    let last = frames.as_deref().and_then(|frames| frames.last());
    let said = last.and_then(|frame| Last::parse(frame));
    if last.is_some() && said.is_none() {
        let text =
            format!("{}: it was written by another version: start the program that wrote it", path.display());
        findings.push(Finding::new(Severity::Unreadable, &path, text));
    }
    (said, findings)
}

/// Whether the directories are those that there should be.
fn look_for_shards(data: &Path, shards: u16, there: &[ShardId]) -> Vec<Finding> {
    let missing = (0..shards).map(ShardId).filter(|shard| !there.contains(shard)).map(|shard| {
        let path = shard_directory(data, shard);
        let text = format!(
            "{} is missing. Put it back if it was moved. Otherwise the node fetches the copies of shard {shard} anew from other \
             nodes at its next start; make sure that these have them",
            path.display()
        );
        Finding { shard: Some(shard), ..Finding::new(Severity::Damaged, &path, text) }
    });
    let beyond = there.iter().filter(|shard| shard.0 >= shards).map(|&shard| {
        let path = shard_directory(data, shard);
        let text = format!("{} is none of the node's {shards} shards, and was not read", path.display());
        Finding { shard: Some(shard), ..Finding::new(Severity::Harmless, &path, text) }
    });
    missing.chain(beyond).collect()
}

/// The node that the shards' files belong to.
fn owner(data: &Path, secret: &Secret, shards: &[ShardId]) -> Result<Option<NodeId>, LookError> {
    let marked =
        shards.iter().find_map(|&shard| Some((shard, look::identity_in(&ReadOnlyDisk, data, shard)?)));
    let Some((shard, identity)) = marked else { return Ok(None) };
    let named = data.file_name().and_then(|name| name.to_str()?.strip_prefix(NODE_PREFIX)?.parse().ok());
    let mut numbers = named.into_iter().chain(0..=u16::MAX).map(NodeId);
    match numbers.find(|&node| secret.file_identity(node, shard) == identity) {
        Some(node) => Ok(Some(node)),
        None => {
            let path = shard_directory(data, shard);
            Err(LookError::OtherCluster { path, data: data.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::testing::TempDir;
    use node::recover::open_shard;

    fn secret_of(data: &Path) -> Secret {
        Directory::open(data).unwrap().join_secret(true).unwrap()
    }

    fn make_shard(data: &Path, node: NodeId, shard: ShardId) {
        let secret = secret_of(data);
        let config = RecoverConfig {
            node,
            shard,
            identity: secret.file_identity(node, shard),
            hash_seed: secret.hash_seed(),
            durability: Durability::default(),
            log: ShardLogOptions { segment_bytes: 4096 },
            ended_at: 0,
        };
        open_shard(&RealDisk, data, &config, &mut |_| {}).unwrap();
    }

    #[test]
    fn the_owner_is_found_by_what_the_files_say() {
        let dir = TempDir::new();
        for (name, node) in [("node-3", 3), ("node-20", 7)] {
            make_shard(&dir.path().join(name), NodeId(node), ShardId(0));
        }
        std::fs::create_dir(dir.path().join("node-4")).unwrap();
        let directories = data_directories(dir.path()).unwrap();
        assert_eq!(directories, [dir.path().join("node-3"), dir.path().join("node-20")]);
        let owners: Vec<_> = directories.iter().map(|path| NodeFiles::open(path).unwrap().node).collect();
        assert_eq!(owners, [Some(NodeId(3)), Some(NodeId(7))]);
        let files = NodeFiles::open(&directories[1]).unwrap();
        let look = files.look_at_shard(ShardId(0), &mut |_| {});
        assert_eq!((look.segments, look.batches, look.findings), (1, 0, Vec::new()));
        assert!(matches!(data_directories(&dir.path().join("node-4")), Err(LookError::NoNode { .. })));
        assert!(matches!(data_directories(&dir.path().join("gone")), Err(LookError::Unreadable { .. })));
    }

    #[test]
    fn files_of_another_cluster_are_told() {
        let dir = TempDir::new();
        make_shard(dir.path(), NodeId(1), ShardId(0));
        let secret = dir.path().join(SECRET_FILE);
        std::fs::remove_file(&secret).unwrap();
        assert!(matches!(NodeFiles::open(dir.path()), Err(LookError::Secret(_))));
        std::fs::write(&secret, "ab".repeat(32)).unwrap();
        assert!(matches!(NodeFiles::open(dir.path()), Err(LookError::OtherCluster { .. })));
    }

    #[test]
    fn shards_that_are_missing_or_too_many_are_told() {
        let found = look_for_shards(Path::new("d"), 2, &[ShardId(1), ShardId(5)]);
        let found: Vec<_> = found.iter().map(|finding| (finding.severity, finding.shard)).collect();
        assert_eq!(found, [(Severity::Damaged, Some(ShardId(0))), (Severity::Harmless, Some(ShardId(5)))]);
    }
}
