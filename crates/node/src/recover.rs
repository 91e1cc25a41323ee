//! What a shard's disk has kept, read back before the node says a word.
//!
//! A shard has a directory: its log ([`storage::shard_log`]), snapshots of its partitions ([`storage::snapshot_file`]) and a
//! small file that says from where on the log is needed, and with which snapshots ([`crate::log_begin`]). Each copy is made again from its snapshot and the entries since.
//!
//! Where something of it has rotted the node goes on without: those copies are given up, and fetched anew from others. What was
//! there is set aside under another name, never deleted; but only once the node has durably noted what it lacks, since afterwards
//! nothing here would tell ([`begin_anew`]).

use crate::log_begin;
pub use crate::log_begin::LogBegin;
use crate::needed_from::NeededFrom;
use crate::run::Waiter;
use replication::recovery::Recovery;
use replication::{Durability, LogTurn, Partition};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use storage::log_entry::{self, LogEntry};
use storage::shard_log::{self, BATCH_HEADER_BYTES, ShardLog, ShardLogError, ShardLogOptions, Torn};
use storage::snapshot_file::{self, SnapshotError, SnapshotHeader};
use storage::{Corrupt, Disk, Hasher, JournalError, journal};
use thiserror::Error;
use types::planted::{self, Bug};
use types::{NodeId, PartitionId, ShardId};

/// Why a shard's directory cannot be opened.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The log.
    #[error(transparent)]
    Log(#[from] ShardLogError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The file that says where the log begins.
    #[error(transparent)]
    Begin(#[from] JournalError),
    /// All files of the log are gone.
    #[error(
        "{directory} holds no log any more: its files that start with log- are gone. Put them back if they were moved; otherwise \
         remove this directory, and the node fetches its copies anew from others, where they have some",
        directory = directory.display()
    )]
    NoLog {
        /// The shard's directory.
        directory: PathBuf,
    },
    /// The log holds something else than entries, with the right checksum.
    #[error(
        "{directory}: the log at offset {offset} holds what this program does not know: {why}. Start the program that wrote it",
        directory = directory.display()
    )]
    Entry {
        /// The shard's directory.
        directory: PathBuf,
        /// The logical offset of the batch.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Something that cannot be used could not be set aside.
    #[error("cannot set {path} aside: {source}", path = path.display())]
    Aside {
        /// What.
        path: PathBuf,
        /// What the disk said.
        source: std::io::Error,
    },
}

impl RecoverError {
    /// Whether the disk has changed what was on it: the shard's copies are lost, and it can begin anew.
    pub fn is_rot(&self) -> bool {
        matches!(
            self,
            RecoverError::Log(ShardLogError::Rot { .. }) | RecoverError::Begin(JournalError::Rot { .. })
        )
    }
}

/// What a shard is opened with.
#[derive(Clone, Debug)]
pub struct RecoverConfig {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
    /// Says whose files these are: of which cluster, node and shard.
    pub identity: [u8; 32],
    /// The node's hash seed.
    pub hash_seed: u64,
    /// When records are durable.
    pub durability: Durability,
    /// How large files of the log grow.
    pub log: ShardLogOptions,
    /// The logical offset at which the log ended when its writer stopped in order, all of it synced. 0: nobody knows.
    pub ended_at: u64,
}

/// A shard's copies, to be given to its machine.
pub struct Copies {
    pub(crate) partitions: Vec<Partition<Waiter>>,
    /// From where on the log is needed for each that has entries since its snapshot.
    pub(crate) needed_from: NeededFrom,
    /// Of which there is a snapshot on disk.
    pub(crate) snapshots: BTreeSet<PartitionId>,
    pub(crate) log_end: u64,
    /// What has to be put into the log first.
    pub(crate) first: LogTurn,
}

/// A shard's opened directory.
pub struct Opened<D: Disk> {
    /// What the machine goes on with.
    pub copies: Copies,
    /// The log, to be written to.
    pub log: ShardLog<D>,
    /// The file that says where the log begins.
    pub begin: LogBegin<D>,
    /// How many entries were read.
    pub entries: u64,
    /// A torn tail that was cut off.
    pub torn: Option<Torn>,
    /// Copies that cannot be used, and why.
    pub lost: Vec<(PartitionId, String)>,
    /// Snapshots that have rotted ([`set_rotten_aside`]).
    pub rotten: Vec<PathBuf>,
}

/// Where a shard's files are.
pub fn shard_directory(data: &Path, shard: ShardId) -> PathBuf {
    data.join(format!("shard-{shard}"))
}

/// How much there is to read of a shard, in bytes: its snapshots, and its log from where on it is needed. A crash may have left a bit
/// more than there is. What cannot be told counts as nothing: whoever opens it hears why.
pub fn bytes_to_read<D: Disk>(disk: &D, data: &Path, shard: ShardId) -> u64 {
    let directory = shard_directory(data, shard);
    let begin = journal::look(disk, &directory.join(log_begin::FILE)).ok().flatten();
    let from = begin.map_or(0, |looked| log_begin::parse(&looked.frames).0);
    let log_end = shard_log::log_end_about(disk, &directory).unwrap_or(0);
    snapshot_file::snapshot_bytes(disk, &directory).unwrap_or(0) + log_end.saturating_sub(from)
}

/// Whether a shard has anything on disk. One that had, and now has not, has lost it.
pub fn has_shard<D: Disk>(disk: &D, data: &Path, shard: ShardId) -> bool {
    disk.list(&shard_directory(data, shard)).is_ok_and(|names| !names.is_empty())
}

/// A copy that is being made again.
pub(crate) struct Copy {
    pub(crate) partition: Partition<Waiter>,
    pub(crate) recovery: Recovery,
    /// Entries before this offset are in its snapshot.
    pub(crate) from: u64,
    needed_from: Option<u64>,
    /// Whether one is on disk that can be read.
    pub(crate) has_snapshot: bool,
    pub(crate) lost: Option<String>,
}

/// Opens the directory of a shard in `data`, or makes it, and reads all that it has. `progress` hears how many more bytes were
/// read of what [`bytes_to_read`] counts. Where the log has rotted it is an error ([`RecoverError::is_rot`]), and the files are as they were.
pub fn open_shard<D: Disk + Clone>(
    disk: &D,
    data: &Path,
    config: &RecoverConfig,
    progress: &mut dyn FnMut(u64),
) -> Result<Opened<D>, RecoverError> {
    let directory = shard_directory(data, config.shard);
    let io = |action: &'static str| {
        let path = directory.clone();
        move |source| RecoverError::Log(ShardLogError::Io { action, path, source })
    };
    disk.create_dir_all(&directory).map_err(io("cannot make the directory"))?;
    let mut begin = LogBegin::open(disk.clone(), &directory)?;
    if begin.says() && !shard_log::has_segments(disk, &directory)? {
        return Err(RecoverError::NoLog { directory });
    }
    let mut rotten = Vec::new();
    let mut copies = load_snapshots(disk, &directory, config, begin.snapshots(), &mut rotten, progress)?;
    let (mut entries, mut read_to) = (0, begin.offset());
    let mut unknown = None;
    let keep_from = shard_log::log_end_about(disk, &directory)?.saturating_sub(config.log.segment_bytes);
    let opened = {
        let mut on_batch = |offset: u64, payload: bytes::Bytes| {
            let end = offset + (BATCH_HEADER_BYTES + payload.len()) as u64;
            let taken = copies.take_batch(config, offset, payload, offset >= keep_from);
            // Of the first one, a part may be needed no longer.
            progress(end - std::mem::replace(&mut read_to, end));
            entries += taken.entries;
            if let Some(corrupt) = taken.strange {
                // The checksum was right: another version wrote this, or a bug. Nobody knows whose entries follow.
                unknown.get_or_insert((offset, corrupt.to_string()));
            }
        };
        let (disk, identity, from) = (disk.clone(), config.identity, begin.offset());
        ShardLog::open_ended(disk, &directory, identity, config.log, from, config.ended_at, &mut on_batch)?
    };
    if let Some((offset, why)) = unknown {
        return Err(RecoverError::Entry { directory, offset, why });
    }
    begin.log_is_there()?;
    Ok(Opened { rotten, ..finish(copies, opened, begin, entries) })
}

/// Sets the rotten snapshots of a shard aside. The caller has durably noted that their copies are lost.
pub fn set_rotten_aside<D: Disk>(disk: &D, opened: &Opened<D>) -> Result<(), RecoverError> {
    for path in &opened.rotten {
        let failed = |source| RecoverError::Aside { path: path.clone(), source };
        disk.rename(path, &path.with_extension("snap.rotten")).map_err(failed)?;
    }
    Ok(())
}

/// Begins anew for a shard whose log has rotted or is gone. What is left of it gets another name, which is returned. The caller
/// has durably noted that the shard's copies are lost.
pub fn begin_anew<D: Disk + Clone>(
    disk: &D,
    data: &Path,
    config: &RecoverConfig,
) -> Result<(Opened<D>, Option<PathBuf>), RecoverError> {
    let is_there = has_shard(disk, data, config.shard);
    let aside = is_there.then(|| set_aside(disk, data, &shard_directory(data, config.shard))).transpose()?;
    // The new log has another end than the one that was.
    let config = RecoverConfig { ended_at: 0, ..config.clone() };
    Ok((open_shard(disk, data, &config, &mut |_| {})?, aside))
}

fn finish<D: Disk + Clone>(
    copies: CopiesInMaking,
    opened: shard_log::Opened<D>,
    begin: LogBegin<D>,
    entries: u64,
) -> Opened<D> {
    let mut lost = Vec::new();
    let mut result = Copies {
        partitions: Vec::new(),
        needed_from: NeededFrom::default(),
        snapshots: BTreeSet::new(),
        log_end: opened.log.end(),
        first: LogTurn::default(),
    };
    for mut copy in copies.into_sorted() {
        let id = copy.partition.id();
        let usable = match copy.lost {
            Some(why) => Err(why),
            None => copy
                .partition
                .recovered(&copy.recovery, &mut result.first)
                .map_err(|corrupt| corrupt.to_string()),
        };
        if let Err(why) = usable {
            lost.push((id, why));
            copy.partition.abandon(&mut result.first);
        }
        if let Some(offset) = copy.needed_from {
            result.needed_from.set(id, Some(offset));
        }
        if copy.has_snapshot {
            result.snapshots.insert(id);
        }
        result.partitions.push(copy.partition);
    }
    Opened { copies: result, log: opened.log, begin, entries, torn: opened.torn, lost, rotten: Vec::new() }
}

pub(crate) fn new_copy(config: &RecoverConfig, id: PartitionId) -> Copy {
    let hasher = Hasher::new(config.hash_seed);
    Copy {
        partition: Partition::new(id, config.node, hasher, config.durability),
        recovery: Recovery::default(),
        from: 0,
        needed_from: None,
        has_snapshot: false,
        lost: None,
    }
}

fn load_snapshots<D: Disk + Clone>(
    disk: &D,
    directory: &Path,
    config: &RecoverConfig,
    expected: &[PartitionId],
    rotten: &mut Vec<PathBuf>,
    progress: &mut dyn FnMut(u64),
) -> Result<CopiesInMaking, RecoverError> {
    let mut copies = CopiesInMaking::default();
    for (id, path) in snapshot_file::list_snapshots(disk, directory)? {
        let mut copy = new_copy(config, id);
        let (mut whole, mut read) = (0, 0);
        let mut on_header = |header: SnapshotHeader| whole = header.bytes;
        let mut on_chunk = |chunk: bytes::Bytes| -> Result<(), Corrupt> {
            copy.partition.recover_chunk(&chunk)?;
            read += chunk.len() as u64;
            progress(chunk.len() as u64);
            Ok(())
        };
        let loaded =
            snapshot_file::read_snapshot(disk, &path, &config.identity, &mut on_header, &mut on_chunk);
        // What is between the chunks, and behind damage.
        progress(whole.saturating_sub(read));
        match loaded {
            Ok(loaded) => {
                (copy.from, copy.has_snapshot) = (loaded.log_offset, true);
                copy.partition.recover_end(&mut copy.recovery, loaded.end);
            }
            Err(error @ SnapshotError::Rot { .. }) => {
                copy.lost = Some(error.to_string());
                rotten.push(path);
            }
            Err(error) => return Err(error.into()),
        }
        copies.insert(copy);
    }
    copies.miss(config, expected, directory);
    Ok(copies)
}

/// What is said of a copy whose snapshot is not there though the log before it is gone.
fn snapshot_is_gone(path: &Path) -> String {
    format!(
        "{} is gone: it was written and synced, and the log before it was removed. Where no other node has the partition \
         (annulet status), restore this node's whole data directory from a backup",
        path.display()
    )
}

impl Copy {
    fn take(&mut self, offset: u64, entry: LogEntry, keeps: bool) {
        if offset < self.from {
            return;
        }
        self.needed_from.get_or_insert(offset);
        if matches!(entry, LogEntry::Wipe { .. }) {
            // Whatever was wrong with what it held before, it is gone.
            self.lost = None;
        }
        if self.lost.is_none()
            && let Err(corrupt) = self.partition.recover_entry(&mut self.recovery, entry, keeps)
        {
            self.lost = Some(format!("the log at offset {offset}: {corrupt}"));
        }
    }
}

/// How many entries are decoded, and what they need fetched, before the first of them is taken.
const ENTRIES_AHEAD: usize = 32;

/// The copies of a shard that are being made again.
#[derive(Default)]
pub(crate) struct CopiesInMaking {
    copies: Vec<Copy>,
    /// By the partition's number, the place of its copy, plus one. 0: there is none.
    places: Vec<u32>,
    /// Entries that were decoded, and are taken next. Empty between batches.
    ahead: Vec<LogEntry>,
}

/// What [`CopiesInMaking::take_batch`] has found.
pub(crate) struct Taken {
    /// How many entries.
    pub(crate) entries: u64,
    /// Why what follows them is none.
    pub(crate) strange: Option<Corrupt>,
}

/// Looks at the entries of a batch only.
pub(crate) fn count_batch(payload: bytes::Bytes) -> Taken {
    let mut taken = Taken { entries: 0, strange: None };
    for entry in log_entry::entries(payload) {
        match entry {
            Ok(_) => taken.entries += 1,
            Err(corrupt) => taken.strange = Some(corrupt),
        }
    }
    taken
}

impl CopiesInMaking {
    /// Adds the copy of a partition that has none yet.
    pub(crate) fn insert(&mut self, copy: Copy) {
        let number = usize::from(copy.partition.id().0);
        if number >= self.places.len() {
            self.places.resize(number + 1, 0);
        }
        self.copies.push(copy);
        self.places[number] = self.copies.len() as u32;
    }

    /// Gives the entries of a batch at a logical offset to their copies. `keeps`: see [`Partition::recover_entry`].
    pub(crate) fn take_batch(
        &mut self,
        config: &RecoverConfig,
        offset: u64,
        payload: bytes::Bytes,
        keeps: bool,
    ) -> Taken {
        let mut entries = log_entry::entries(payload);
        let mut taken = Taken { entries: 0, strange: None };
        let mut ahead = std::mem::take(&mut self.ahead);
        loop {
            for entry in entries.by_ref().take(ENTRIES_AHEAD) {
                match entry {
                    Ok(entry) => {
                        let place = self.place_of(config, entry.partition());
                        self.copies[place].partition.recover_prefetch_self();
                        ahead.push(entry);
                    }
                    Err(corrupt) => taken.strange = Some(corrupt),
                }
            }
            if ahead.is_empty() {
                self.ahead = ahead;
                return taken;
            }
            taken.entries += ahead.len() as u64;
            let mut hashes = [0; ENTRIES_AHEAD];
            for (entry, hash) in ahead.iter().zip(&mut hashes) {
                let copy = self.copy_mut(config, entry.partition());
                *hash = copy.partition.recover_prefetch(&mut copy.recovery, entry);
            }
            for (entry, hash) in ahead.iter().zip(hashes) {
                self.copy_mut(config, entry.partition()).partition.recover_prefetch_piece(hash);
            }
            for entry in ahead.drain(..) {
                self.copy_mut(config, entry.partition()).take(offset, entry, keeps);
            }
        }
    }

    /// Partitions of which a snapshot is expected and not found are lost, unless the log says that they hold nothing any more.
    /// Returns the files that are not there.
    pub(crate) fn miss(
        &mut self,
        config: &RecoverConfig,
        expected: &[PartitionId],
        directory: &Path,
    ) -> BTreeMap<PartitionId, PathBuf> {
        let mut missing = BTreeMap::new();
        let is_blind = planted::is(Bug::MissesNoSnapshot);
        for &id in expected.iter().filter(|_| !is_blind) {
            let is_there = self.places.get(usize::from(id.0)).is_some_and(|&place| place > 0);
            if !is_there {
                let path = snapshot_file::snapshot_path(directory, id);
                let lost = Some(snapshot_is_gone(&path));
                self.insert(Copy { lost, ..new_copy(config, id) });
                missing.insert(id, path);
            }
        }
        missing
    }

    /// All of them, by their partitions' numbers.
    pub(crate) fn into_sorted(mut self) -> Vec<Copy> {
        self.copies.sort_unstable_by_key(|copy| copy.partition.id());
        self.copies
    }

    #[inline]
    fn copy_mut(&mut self, config: &RecoverConfig, id: PartitionId) -> &mut Copy {
        let place = self.place_of(config, id);
        &mut self.copies[place]
    }

    /// Where the copy of a partition is, which is made where there was none.
    #[inline]
    fn place_of(&mut self, config: &RecoverConfig, id: PartitionId) -> usize {
        match self.places.get(usize::from(id.0)) {
            Some(&place) if place > 0 => place as usize - 1,
            _ => {
                self.insert(new_copy(config, id));
                self.copies.len() - 1
            }
        }
    }
}

/// Gives a shard's directory another name.
fn set_aside<D: Disk>(disk: &D, data: &Path, directory: &Path) -> Result<PathBuf, RecoverError> {
    let failed = |source| RecoverError::Aside { path: directory.to_owned(), source };
    let names = disk.list(data).map_err(failed)?;
    let base = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let free = (1..).map(|number| format!("{base}.aside-{number}")).find(|name| !names.contains(name));
    let aside = data.join(free.unwrap_or_else(|| format!("{base}.aside")));
    disk.rename(directory, &aside).map_err(failed)?;
    disk.sync_dir(data).map_err(failed)?;
    Ok(aside)
}
