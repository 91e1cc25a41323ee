//! What stands in a stopped node's data directory, read without changing anything.
//!
//! [`look_at_shard`] makes a shard's copies again as a start does ([`crate::recover`]) and throws them away; what is torn, damaged
//! or missing on the way becomes a [`Finding`]. Unlike a start it reads everything that is there, also what is needed no longer,
//! and goes on behind what is damaged. [`walk_log`] and [`walk_snapshots`] hand out what is written, one entry after the other.
//!
//! Left out: whose the files are, and that nobody changes them meanwhile. The caller holds the directory.

use crate::control_driver;
use crate::log_begin;
use crate::recover::{self, CopiesInMaking, Copy, RecoverConfig, shard_directory};
use replication::LogTurn;
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use storage::log_entry::LogEntry;
use storage::shard_log::{self, BATCH_HEADER_BYTES, LogLook, ShardLogError, Torn};
use storage::snapshot_file::{self, Loaded, SnapshotError, SnapshotHeader};
use storage::{Corrupt, Disk, Effect, JournalError, journal, snapshot};
use types::{Incarnation, PartitionId, ShardId};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A crash leaves such things. Nothing is lost.
    Harmless,
    /// Something that was promised is lost or damaged here.
    Damaged,
    /// It cannot be told: the disk refuses, or another program or another node wrote this.
    Unreadable,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Whose files it is in, where they are a shard's.
    pub shard: Option<ShardId>,
    /// Whose copy it concerns, where it is that of one partition.
    pub partition: Option<PartitionId>,
    /// The file or directory.
    pub path: Option<PathBuf>,
    /// The place in the file, in bytes from its start.
    pub offset: Option<u64>,
    /// What it is, where, and what to do.
    pub text: String,
}

impl Finding {
    /// Something about a file.
    pub fn new(severity: Severity, path: &Path, text: String) -> Finding {
        let path = Some(path.to_owned());
        Finding { severity, shard: None, partition: None, path, offset: None, text }
    }

    fn at(mut self, offset: u64) -> Finding {
        self.offset = Some(offset);
        self
    }

    fn of(mut self, partition: Option<PartitionId>) -> Finding {
        self.partition = partition;
        self
    }

    fn then(mut self, consequence: &str) -> Finding {
        self.text = format!("{}. {consequence}", self.text);
        self
    }

    /// The same of those that are damage.
    fn then_if_damaged(self, consequence: &str) -> Finding {
        if self.severity == Severity::Damaged { self.then(consequence) } else { self }
    }

    /// In a log or a snapshot, of which a start helps itself: what becomes of the copies is for the caller to say.
    fn rot(path: &Path, offset: u64) -> Finding {
        let text = format!(
            "{} is damaged at byte {offset}: it was written and synced, and no longer reads back. The disk may be failing. Do not \
             edit the file",
            path.display()
        );
        Finding::new(Severity::Damaged, path, text).at(offset)
    }

    fn torn(torn: &Torn) -> Finding {
        let Torn { path, offset, bytes } = torn;
        let text = format!(
            "{} ends with {bytes} torn bytes, from byte {offset} on. That is harmless: the process ended while it wrote them, \
             nothing says that they were ever synced, and a start cuts them off. (With fsync = everysec or never they may have been \
             acknowledged; where another copy has more, the node goes on from that.)",
            path.display()
        );
        Finding::new(Severity::Harmless, path, text).at(*offset)
    }
}

impl From<&JournalError> for Finding {
    fn from(error: &JournalError) -> Finding {
        let text = error.to_string();
        match error {
            JournalError::Rot { path, offset } => Finding::new(Severity::Damaged, path, text).at(*offset),
            JournalError::Io { path, .. }
            | JournalError::FormatVersion { path, .. }
            | JournalError::TooLarge { path, .. }
            | JournalError::Failed { path } => Finding::new(Severity::Unreadable, path, text),
        }
    }
}

impl From<&ShardLogError> for Finding {
    fn from(error: &ShardLogError) -> Finding {
        let text = error.to_string();
        match error {
            ShardLogError::Rot { path, offset } => Finding::rot(path, *offset),
            ShardLogError::Missing { directory, from, to } => {
                let text = format!(
                    "{} lacks the log's bytes from {from} to {to}: a file that starts with log- is gone, or was cut. Put it back \
                     if it was moved",
                    directory.display()
                );
                Finding::new(Severity::Damaged, directory, text)
            }
            ShardLogError::Io { path, .. }
            | ShardLogError::Full { path, .. }
            | ShardLogError::FormatVersion { path, .. }
            | ShardLogError::OtherIdentity { path }
            | ShardLogError::TooLarge { path, .. }
            | ShardLogError::Failed { path } => Finding::new(Severity::Unreadable, path, text),
        }
    }
}

impl From<&SnapshotError> for Finding {
    fn from(error: &SnapshotError) -> Finding {
        let text = error.to_string();
        match error {
            SnapshotError::Rot { path, offset } => Finding::rot(path, *offset),
            SnapshotError::Chunk { path, offset, .. } => {
                Finding::new(Severity::Unreadable, path, text).at(*offset)
            }
            SnapshotError::Io { path, .. }
            | SnapshotError::Full { path, .. }
            | SnapshotError::FormatVersion { path, .. }
            | SnapshotError::OtherIdentity { path }
            | SnapshotError::Failed { path } => Finding::new(Severity::Unreadable, path, text),
        }
    }
}

/// What becomes of one copy.
const ONE_GIVEN_UP: &str =
    "At its next start the node fetches it anew from another node; make sure that one has it";
/// What becomes of a shard's copies where its log is damaged.
const ALL_GIVEN_UP: &str = "At its next start the node sets this shard's files aside and fetches all copies of the shard anew from \
                            other nodes; make sure that these have them";
/// Where bytes of its log are missing, and may be somewhere.
const NOT_STARTED: &str = "The node does not start before that. Otherwise move this directory aside, and the node fetches all copies of \
                           the shard anew from other nodes; make sure that these have them";

/// What a journal says.
#[derive(Clone, Debug, Default)]
pub struct JournalLook {
    /// Whether there is such a file.
    pub is_there: bool,
    /// Its frames; none where there is no file. `None`: it cannot be read.
    pub frames: Option<Vec<Vec<u8>>>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// Reads a journal.
pub fn look_at_journal<D: Disk>(disk: &D, path: &Path) -> JournalLook {
    match journal::look(disk, path) {
        Ok(None) => JournalLook { is_there: false, frames: Some(Vec::new()), findings: Vec::new() },
        Ok(Some(looked)) => {
            let (path, offset, bytes) = (path.to_owned(), looked.end, looked.torn_bytes);
            let findings = match bytes {
                0 => Vec::new(),
                _ => vec![Finding::torn(&Torn { path, offset, bytes })],
            };
            JournalLook { is_there: true, frames: Some(looked.frames), findings }
        }
        Err(error) => JournalLook { is_there: true, frames: None, findings: vec![(&error).into()] },
    }
}

/// What the control plane's file says.
#[derive(Clone, Debug, Default)]
pub struct ControlLook {
    /// How many frames it has. `None`: there is no such file, or it cannot be read.
    pub frames: Option<usize>,
    /// The newest incarnation that it issued.
    pub incarnation: Option<Incarnation>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// Reads the control plane's file in a data directory.
pub fn look_at_control<D: Disk>(disk: &D, data: &Path) -> ControlLook {
    let path = data.join(control_driver::FILE);
    let JournalLook { is_there, frames, findings } = look_at_journal(disk, &path);
    let told = findings.into_iter().map(|finding| finding.then_if_damaged(control_driver::ROT_ADVICE));
    let mut findings: Vec<Finding> = told.collect();
    let Some(frames) = frames.filter(|_| is_there) else {
        return ControlLook { findings, ..ControlLook::default() };
    };
    let incarnation = match control::restore(&frames) {
        Ok(restored) => Some(restored.started.incarnation),
        Err(why) => {
            let text = format!("{}: {why}", path.display());
            findings.push(Finding::new(Severity::Unreadable, &path, text));
            None
        }
    };
    ControlLook { frames: Some(frames.len()), incarnation, findings }
}

/// What a shard's directory holds.
#[derive(Clone, Debug, Default)]
pub struct ShardLook {
    /// Files of the log.
    pub segments: u64,
    /// How long they are, in bytes.
    pub log_bytes: u64,
    /// Batches in them.
    pub batches: u64,
    /// Entries in these.
    pub entries: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// How long they are, in bytes.
    pub snapshot_bytes: u64,
    /// Copies that a start would make again.
    pub copies: u64,
    /// Keys in these, of writes that are known to be committed.
    pub keys: u64,
    /// Records in these of which nobody knows yet whether they are committed: a start finds out with the other copies.
    pub tail: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// Whose the files of a shard are, as far as any of them says so.
pub fn identity_in<D: Disk>(disk: &D, data: &Path, shard: ShardId) -> Option<[u8; 32]> {
    let directory = shard_directory(data, shard);
    if let Ok(Some(identity)) = shard_log::identity_in(disk, &directory) {
        return Some(identity);
    }
    let found = snapshot_file::find_snapshots(disk, &directory).unwrap_or_default();
    found.snapshots.iter().find_map(|(_, path)| snapshot_file::identity_in(disk, path).ok().flatten())
}

/// Reads all that a shard's directory in `data` holds, and makes its copies again in memory. `progress` hears how many more bytes
/// were read.
pub fn look_at_shard<D: Disk>(
    disk: &D,
    data: &Path,
    config: &RecoverConfig,
    progress: &mut dyn FnMut(u64),
) -> ShardLook {
    let directory = shard_directory(data, config.shard);
    let mut look = ShardLook::default();
    let begin = look_at_journal(disk, &directory.join(log_begin::FILE));
    let (from, expected) = begin.frames.as_deref().map(log_begin::parse).unzip();
    look.findings.extend(begin.findings.into_iter().map(|finding| finding.then_if_damaged(ALL_GIVEN_UP)));
    let mut copies = look_at_snapshots(disk, &directory, config, &mut look, progress);
    let missing = copies.miss(config, &expected.unwrap_or_default(), &directory);
    let is_whole = look_at_log(disk, &directory, config, from, &mut copies, &mut look, progress);
    if is_whole {
        let starts = look.findings.iter().all(|finding| finding.severity < Severity::Unreadable);
        for copy in copies.into_sorted() {
            let id = copy.partition.id();
            let Copy { mut partition, recovery, lost, .. } = copy;
            let recovered = partition.recovered(&recovery, &mut LogTurn::default());
            if let Some(why) = lost.or(recovered.err().map(|corrupt| corrupt.to_string())) {
                let finding = given_up(missing.get(&id).unwrap_or(&directory), id, &why);
                // Where something cannot be read a node does not start.
                look.findings.push(if starts { finding.then(ONE_GIVEN_UP) } else { finding });
                continue;
            }
            look.copies += 1;
            look.keys += partition.table().len() as u64;
            look.tail += partition.tail().lsn.0.saturating_sub(partition.commit().0);
        }
    }
    for finding in &mut look.findings {
        finding.shard = Some(config.shard);
    }
    look
}

fn given_up(path: &Path, partition: PartitionId, why: &str) -> Finding {
    let text = format!("partition {partition} cannot be made again here: {why}");
    Finding::new(Severity::Damaged, path, text).of(Some(partition))
}

fn look_at_snapshots<D: Disk>(
    disk: &D,
    directory: &Path,
    config: &RecoverConfig,
    look: &mut ShardLook,
    progress: &mut dyn FnMut(u64),
) -> CopiesInMaking {
    let mut copies = CopiesInMaking::default();
    let found = match snapshot_file::find_snapshots(disk, directory) {
        Ok(found) => found,
        Err(error) => {
            look.findings.push((&error).into());
            return copies;
        }
    };
    for path in found.leftovers {
        let text = format!(
            "{} is a snapshot that was not finished. That is harmless: the one before it counts, and a start removes this one",
            path.display()
        );
        look.findings.push(Finding::new(Severity::Harmless, &path, text));
    }
    for (id, path) in found.snapshots {
        let mut copy = recover::new_copy(config, id);
        look.snapshots += 1;
        let mut on_header = |header: SnapshotHeader| look.snapshot_bytes += header.bytes;
        let mut on_chunk = |chunk: bytes::Bytes| {
            progress(chunk.len() as u64);
            copy.partition.recover_chunk(&chunk)
        };
        match snapshot_file::read_snapshot(disk, &path, &config.identity, &mut on_header, &mut on_chunk) {
            Ok(loaded) => {
                copy.from = loaded.log_offset;
                copy.partition.recover_end(&mut copy.recovery, loaded.end);
            }
            Err(error) => {
                look.findings.push(Finding::from(&error).of(Some(id)));
                copy.lost = Some("its snapshot is damaged, or not to be read".to_owned());
            }
        }
        copies.insert(copy);
    }
    copies
}

/// Whether the copies can be made again from it.
fn look_at_log<D: Disk>(
    disk: &D,
    directory: &Path,
    config: &RecoverConfig,
    from: Option<u64>,
    copies: &mut CopiesInMaking,
    look: &mut ShardLook,
    progress: &mut dyn FnMut(u64),
) -> bool {
    let log = match LogLook::open(disk, directory, &config.identity, from) {
        Ok(log) => log.ended(config.ended_at),
        Err(error) => {
            look.findings.push((&error).into());
            return false;
        }
    };
    let mut is_whole = true;
    let bad = |error: &ShardLogError, findings: &mut Vec<Finding>| {
        let consequence = match error {
            ShardLogError::Missing { .. } => NOT_STARTED,
            _ => ALL_GIVEN_UP,
        };
        findings.push(Finding::from(error).then_if_damaged(consequence));
    };
    if let Some(error) = log.missing() {
        bad(&error, &mut look.findings);
        is_whole = false;
    }
    if let Some(leftover) = log.leftover() {
        let text = format!(
            "{} has no whole header. That is harmless: the process ended while it made the file, nothing was in it yet, and a \
             start removes it",
            leftover.path.display()
        );
        look.findings.push(Finding::new(Severity::Harmless, &leftover.path, text).at(0));
    }
    if let Some(torn) = log.torn_next() {
        let text = format!(
            "{} follows a torn tail: {} bytes. They were written and not yet promised to anybody, and a start removes them",
            torn.path.display(),
            torn.bytes
        );
        look.findings.push(Finding::new(Severity::Harmless, &torn.path, text).at(0));
    }
    for (at, segment) in log.segments().iter().enumerate() {
        look.segments += 1;
        look.log_bytes += segment.bytes;
        let path = log.path_of(segment);
        let (mut batches, mut entries, mut strange) = (0, 0, None);
        let mut on_batch = |offset: u64, payload: bytes::Bytes| {
            batches += 1;
            let end = offset + (BATCH_HEADER_BYTES + payload.len()) as u64;
            // What lies before may belong to copies that were given up since, and starts nowhere.
            let counts = is_whole && from.is_none_or(|from| end > from);
            let taken = if counts && strange.is_none() {
                copies.take_batch(config, offset, payload, false)
            } else {
                recover::count_batch(payload)
            };
            entries += taken.entries;
            if let Some(corrupt) = taken.strange {
                strange.get_or_insert((offset, corrupt));
            }
        };
        let read = log.read(at, &mut on_batch);
        look.batches += batches;
        look.entries += entries;
        progress(segment.bytes);
        if let Some((offset, corrupt)) = strange {
            look.findings.push(strange_entry(&path, segment, offset, corrupt).then(ALL_GIVEN_UP));
            is_whole = false;
        }
        match read {
            Ok(read) => look.findings.extend(read.torn.as_ref().map(Finding::torn)),
            Err(error) => {
                bad(&error, &mut look.findings);
                is_whole = false;
            }
        }
    }
    is_whole
}

/// The checksum of a batch holds, and what is in it does not decode.
fn strange_entry(path: &Path, segment: &shard_log::Segment, offset: u64, corrupt: Corrupt) -> Finding {
    // Segments differ in their first offset alone: their headers are of one length.
    let at = segment.bytes - (segment.end() - segment.first) + (offset - segment.first);
    let text = format!(
        "the batch at byte {at} of {} is as it was written, and this program cannot read it: {corrupt}. Start the program that \
         wrote it",
        path.display()
    );
    Finding::new(Severity::Damaged, path, text).at(at)
}

/// Hands out the entries of a shard's log at or after the logical offset `from`, oldest first, each with the logical offset at
/// which it begins, until `on_entry` breaks or something is in the way, which is returned.
pub fn walk_log<D: Disk>(
    disk: &D,
    data: &Path,
    config: &RecoverConfig,
    from: u64,
    on_entry: &mut dyn FnMut(u64, LogEntry) -> ControlFlow<()>,
) -> Result<(), Box<Finding>> {
    let directory = shard_directory(data, config.shard);
    let begin = look_at_journal(disk, &directory.join(log_begin::FILE)).frames;
    let found = |error: &ShardLogError| Box::new(Finding::from(error));
    let log = LogLook::open(
        disk,
        &directory,
        &config.identity,
        begin.as_deref().map(|frames| log_begin::parse(frames).0),
    )
    .map_err(|error| found(&error))?
    .ended(config.ended_at);
    let segments = log.segments();
    let first = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
    for (at, segment) in segments.iter().enumerate().skip(first) {
        let (mut next, mut strange) = (ControlFlow::Continue(()), None);
        let mut on_batch = |offset: u64, mut rest: bytes::Bytes| {
            let end = offset + (BATCH_HEADER_BYTES + rest.len()) as u64;
            while !rest.is_empty() && next.is_continue() && strange.is_none() {
                let entry_offset = end - rest.len() as u64;
                match LogEntry::decode(&mut rest) {
                    Ok(entry) if entry_offset >= from => next = on_entry(entry_offset, entry),
                    Ok(_) => {}
                    Err(corrupt) => strange = Some((offset, corrupt)),
                }
            }
        };
        let read = log.read(at, &mut on_batch);
        if next.is_break() {
            return Ok(());
        }
        if let Some((offset, corrupt)) = strange {
            return Err(Box::new(strange_entry(&log.path_of(segment), segment, offset, corrupt)));
        }
        read.map_err(|error| found(&error))?;
    }
    match log.missing() {
        Some(error) => Err(found(&error)),
        None => Ok(()),
    }
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug)]
pub enum SnapshotPart<'a> {
    /// What its first bytes say.
    Header(SnapshotHeader),
    /// An entry, as the effect that puts it.
    Entry(Effect<'a>),
    /// Its end: there was nothing wrong with it.
    End(&'a Loaded),
}

/// Hands out the snapshots of a shard, or of one partition, until `on_part` breaks. Those that cannot be read to their end are
/// told of as findings.
pub fn walk_snapshots<D: Disk>(
    disk: &D,
    data: &Path,
    config: &RecoverConfig,
    partition: Option<PartitionId>,
    on_part: &mut dyn FnMut(PartitionId, SnapshotPart<'_>) -> ControlFlow<()>,
) -> Vec<Finding> {
    let found = match snapshot_file::find_snapshots(disk, &shard_directory(data, config.shard)) {
        Ok(found) => found,
        Err(error) => return vec![(&error).into()],
    };
    let mut findings = Vec::new();
    for (id, path) in found.snapshots {
        if partition.is_some_and(|wanted| wanted != id) {
            continue;
        }
        let next = Cell::new(ControlFlow::Continue(()));
        let shown = RefCell::new(&mut *on_part);
        let show = |part: SnapshotPart<'_>| {
            if next.get().is_continue() {
                next.set((shown.borrow_mut())(id, part));
            }
        };
        let mut on_header = |header: SnapshotHeader| show(SnapshotPart::Header(header));
        let mut on_chunk = |chunk: bytes::Bytes| match next.get() {
            // Ends the reading. Nobody hears of it.
            ControlFlow::Break(()) => Err(Corrupt { what: "nobody looks any more" }),
            ControlFlow::Continue(()) => {
                snapshot::show_chunk(&chunk, &mut |put| show(SnapshotPart::Entry(put))).map(|_| ())
            }
        };
        let read = snapshot_file::read_snapshot(disk, &path, &config.identity, &mut on_header, &mut on_chunk);
        if let Ok(loaded) = &read {
            show(SnapshotPart::End(loaded));
        }
        if next.get().is_break() {
            return findings;
        }
        if let Err(error) = read {
            findings.push(Finding::from(&error).of(Some(id)));
        }
    }
    findings
}
