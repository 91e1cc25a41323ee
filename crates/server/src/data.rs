//! What the data directory says of itself, and opening the logs in it.
//!
//! A small journal beside the shards' directories keeps with how many shards they were written, in which boot of the machine the
//! last start was, with which `fsync`, whether it ended in order, and where the logs ended then. From these and from the logs follows what
//! the node has kept of what it had acknowledged ([`KeptLogs`]), and so whether it keeps its seats.

use crate::StartError;
use crate::disk::RealDisk;
use node::KeptLogs;
use node::recover::{self, Copies, LogBegin, RecoverConfig, RecoverError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use storage::shard_log::Torn;
use storage::{Disk, Journal, JournalError, ShardLog};
use tracing::{error, info, warn};
use types::settings::Fsync;
use types::{PartitionId, ShardId};

pub(crate) const FILE: &str = "data.journal";
/// Room that is held so that a start and a stop can be noted on a full disk, in bytes: enough for the ends of 256 logs.
const ROOM_BYTES: u64 = 8192;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Reading that takes longer than this is shown.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// What a data directory says of itself.
pub struct DataFile {
    journal: Journal<RealDisk>,
    last: Option<Last>,
    path: PathBuf,
}

/// The last start on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    /// With how many shards the logs were written.
    pub(crate) shards: u16,
    boot: String,
    fsync: String,
    /// Whether it ended in order.
    pub(crate) clean: bool,
    /// Where each shard's log ended then, in logical offsets. Empty: nobody noted it, as builds of before did not.
    pub(crate) ends: Vec<u64>,
}

/// What can be said of the end of the logs that a start has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogsEnd {
    /// All that was acknowledged is there: it was synced; or handed to a system that has not stopped since; or nothing was under way.
    Kept,
    /// Something is torn, though the node had stopped in order and synced all.
    TornInOrder,
    /// Something is torn that was not synced. The system has not stopped since, but where a sync had failed it may have dropped what
    /// it had taken.
    TornUnsynced,
    /// The machine has stopped, and not all was synced.
    MachineStopped,
}

impl Last {
    /// What a frame says. `None`: another version wrote it. Lines that nobody asks for are left alone, here and in builds of before.
    pub(crate) fn parse(frame: &[u8]) -> Option<Last> {
        let text = std::str::from_utf8(frame).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let shards: u16 = field("shards")?.parse().ok()?;
        let clean = field("clean")? == "yes";
        let ends: Vec<u64> = match field("ends") {
            Some(ends) => ends.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?,
            None => Vec::new(),
        };
        if !ends.is_empty() && (!clean || ends.len() != usize::from(shards)) {
            return None;
        }
        Some(Last { shards, boot: field("boot")?.to_owned(), fsync: field("fsync")?.to_owned(), clean, ends })
    }

    fn to_frame(&self) -> String {
        let Last { shards, boot, fsync, clean, ends } = self;
        let clean = if *clean { "yes" } else { "no" };
        let mut text = format!("shards {shards}\nboot {boot}\nfsync {fsync}\nclean {clean}\n");
        if !ends.is_empty() {
            let ends: Vec<String> = ends.iter().map(u64::to_string).collect();
            text += &format!("ends {}\n", ends.join(" "));
        }
        text
    }

    /// Where a shard's log has to end at least, in logical offsets.
    pub(crate) fn end_of(&self, shard: ShardId) -> u64 {
        self.ends.get(usize::from(shard.0)).copied().unwrap_or(0)
    }

    /// What can be said of the end of its logs, read in this boot of the machine. `torn`: bytes at an end were no batch.
    fn judge(&self, torn: bool, boot: &str) -> LogsEnd {
        let same_boot = !self.boot.is_empty() && self.boot == boot;
        if self.clean {
            // Where the end was noted all before it is there, or would have been told of as damage.
            return if torn && self.ends.is_empty() { LogsEnd::TornInOrder } else { LogsEnd::Kept };
        }
        if self.fsync == Fsync::Always.to_string() {
            return LogsEnd::Kept;
        }
        match (same_boot, torn) {
            (true, false) => LogsEnd::Kept,
            (true, true) => LogsEnd::TornUnsynced,
            (false, _) => LogsEnd::MachineStopped,
        }
    }
}

fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// What is wrong with the file, and what to do where it is damaged.
pub(crate) fn with_advice(what: &str) -> String {
    format!(
        "{what}. Move this node's data directory aside and let the node join anew, or restore the directory from a backup"
    )
}

impl LogsEnd {
    /// Why something that was acknowledged may be missing.
    fn why_not_whole(self, fsync: &str) -> Option<String> {
        match self {
            LogsEnd::Kept => None,
            LogsEnd::TornInOrder => {
                Some("the log was changed after this node had stopped in order".to_owned())
            }
            LogsEnd::TornUnsynced => Some(format!(
                "the end of the log is torn, and with fsync = {fsync} the last of it may be missing if a sync had failed"
            )),
            LogsEnd::MachineStopped => Some(format!(
                "the machine stopped while this node ran, and with fsync = {fsync} the last of its log may be missing"
            )),
        }
    }
}

/// Tells of a torn end that was cut off, and whether anything in it can have been acknowledged.
fn say_cut(last: &Last, end: LogsEnd, cut: &Torn) {
    let fsync = &last.fsync;
    let what = match end {
        LogsEnd::Kept if last.clean => {
            "what stood behind the place where the log ended when this node stopped in order: it was never acknowledged".to_owned()
        }
        LogsEnd::Kept => "what a crash had left torn: it was never acknowledged".to_owned(),
        LogsEnd::TornInOrder => {
            "what was torn, though this node had stopped in order: it may have been acknowledged".to_owned()
        }
        LogsEnd::TornUnsynced => {
            format!("what was torn: with fsync = {fsync} it may have been acknowledged if a sync had failed")
        }
        LogsEnd::MachineStopped => format!(
            "what was torn when the machine stopped: with fsync = {fsync} the last of it may have been acknowledged"
        ),
    };
    let (file, offset, bytes) = (cut.path.display(), cut.offset, cut.bytes);
    match end {
        LogsEnd::Kept => info!(%file, offset, bytes, "cut off {what}"),
        _ => warn!(%file, offset, bytes, "cut off {what}"),
    }
}

impl DataFile {
    /// Reads it, or makes it.
    pub fn open(directory: &Path) -> Result<DataFile, StartError> {
        let path = directory.join(FILE);
        let failed = |why: String| StartError::Data { path: path.clone(), why };
        let opened = Journal::open_with_room(RealDisk, &path, ROOM_BYTES);
        let (journal, frames) = opened.map_err(|error| match error {
            JournalError::Rot { .. } => failed(with_advice(&error.to_string())),
            error => failed(error.to_string()),
        })?;
        let last = match frames.last() {
            None => None,
            Some(frame) => Some(Last::parse(frame).ok_or_else(|| {
                failed("it was written by another version: start the program that wrote it".into())
            })?),
        };
        Ok(DataFile { journal, last, path })
    }

    /// How many shards the logs were written with.
    pub fn shards(&self) -> Option<u16> {
        self.last.as_ref().map(|last| last.shards)
    }

    /// Where the last start has noted that a shard's log ended when it stopped in order, as a logical offset. 0: nowhere.
    pub fn end_of(&self, shard: ShardId) -> u64 {
        self.last.as_ref().map_or(0, |last| last.end_of(shard))
    }

    /// A start begins. Durable on return.
    fn begin(&mut self, shards: u16, fsync: Fsync) -> Result<(), StartError> {
        let fsync = fsync.to_string();
        self.write(Last { shards, boot: boot_id(), fsync, clean: false, ends: Vec::new() })
    }

    fn write(&mut self, last: Last) -> Result<(), StartError> {
        let last = self.last.insert(last);
        self.journal
            .rewrite(&[last.to_frame()])
            .map_err(|error| StartError::Data { path: self.path.clone(), why: error.to_string() })
    }

    /// All that the logs hold is on disk, and nothing more comes: each shard's ends at this logical offset.
    pub fn ended(mut self, ends: Vec<u64>) {
        // A start has begun.
        let Some(last) = self.last.clone() else { return };
        let ends = if ends.len() == usize::from(last.shards) { ends } else { Vec::new() };
        if let Err(error) = self.write(Last { clean: true, ends, ..last }) {
            warn!("{error}");
        }
    }
}

/// A shard's log, opened.
pub struct OpenLog {
    /// What its machine goes on with.
    pub copies: Copies,
    /// The log.
    pub log: ShardLog<RealDisk>,
    /// The file that says where it begins.
    pub begin: LogBegin<RealDisk>,
}

/// Whether a directory has logs.
pub fn has_logs(directory: &Path) -> bool {
    RealDisk.list(directory).is_ok_and(|names| names.iter().any(|name| name == "shard-0"))
}

/// What the logs of all shards hold. Nothing of it was given up yet: that waits until what is lost is durably known.
pub struct ReadLogs {
    /// `None`: of this shard nothing can be used.
    shards: Vec<(RecoverConfig, Option<recover::Opened<RealDisk>>)>,
    /// What they have kept.
    pub kept: KeptLogs,
}

/// What becomes of what cannot be used, where no other node is known to have it.
const WHERE_ALONE: &str = "and unless another node has a copy (annulet status) only a backup of this node's whole data directory brings it \
                           back; annulet accept-loss gives it up";

/// Reads the logs of all shards, each on a thread of its own, and says what they have kept. `is_alone`: it may well be that no other
/// node has a copy of anything.
pub fn read_logs(
    data: &DataFile,
    directory: &Path,
    configs: Vec<RecoverConfig>,
    partitions: u16,
    is_alone: bool,
) -> Result<ReadLogs, StartError> {
    let then = if is_alone { WHERE_ALONE } else { "and is fetched anew from another node" };
    let any = data.last.is_some();
    let shards = configs.len() as u16;
    let of_shard = |shard: ShardId| (shard.0..partitions).step_by(usize::from(shards)).map(PartitionId);
    let mut kept = KeptLogs { any, whole: false, lost: Vec::new() };
    let mut read = Vec::new();
    for (config, opened) in read_all(data, directory, configs, any)? {
        let shard = config.shard;
        match &opened {
            Ok(opened) => {
                for (partition, why) in &opened.lost {
                    error!("partition {partition} cannot be used here, {then}: {why}");
                    kept.lost.push(*partition);
                }
            }
            Err(why) => {
                error!("none of the partitions of shard {shard} can be used here, {then}: {why}");
                kept.lost.extend(of_shard(shard));
            }
        }
        read.push((config, opened.ok()));
    }
    kept.lost.sort_unstable();
    if let Some(last) = &data.last {
        let torn = read.iter().filter_map(|(_, opened)| opened.as_ref()?.torn.as_ref());
        let torn: Vec<&Torn> = torn.collect();
        let end = last.judge(!torn.is_empty(), &boot_id());
        torn.into_iter().for_each(|cut| say_cut(last, end, cut));
        kept.whole = end == LogsEnd::Kept;
        if let Some(why) = end.why_not_whole(&last.fsync) {
            warn!("{why}: this node gives up its seats, and goes on from other copies where they have more");
        }
    }
    Ok(ReadLogs { shards: read, kept })
}

/// Makes logs fit to be written to. What they have lost is durably known. A start has begun on return.
pub fn begin(
    data: &mut DataFile,
    directory: &Path,
    fsync: Fsync,
    read: ReadLogs,
) -> Result<Vec<OpenLog>, StartError> {
    data.begin(read.shards.len() as u16, fsync)?;
    let mut logs = Vec::new();
    for (config, opened) in read.shards {
        let shard = config.shard;
        let failed = |error: RecoverError| StartError::Log { shard, why: error.to_string() };
        let opened = match opened {
            Some(opened) => {
                recover::set_rotten_aside(&RealDisk, &opened).map_err(failed)?;
                opened
            }
            None => {
                let (opened, aside) = recover::begin_anew(&RealDisk, directory, &config).map_err(failed)?;
                if let Some(aside) = aside {
                    warn!("what is left of shard {shard} was set aside as {}", aside.display());
                }
                opened
            }
        };
        logs.push(OpenLog { copies: opened.copies, log: opened.log, begin: opened.begin });
    }
    Ok(logs)
}

type Read = Result<recover::Opened<RealDisk>, String>;

/// What each shard has, or why nothing of it can be used. `any`: each had something.
fn read_all(
    data: &DataFile,
    directory: &Path,
    configs: Vec<RecoverConfig>,
    any: bool,
) -> Result<Vec<(RecoverConfig, Read)>, StartError> {
    let total: u64 =
        configs.iter().map(|config| recover::bytes_to_read(&RealDisk, directory, config.shard)).sum();
    let read: Vec<AtomicU64> = configs.iter().map(|_| AtomicU64::new(0)).collect();
    let done = AtomicU64::new(0);
    let began = Instant::now();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = configs
            .iter()
            .zip(&read)
            .map(|(config, read)| {
                let done = &done;
                scope.spawn(move || {
                    if any && !recover::has_shard(&RealDisk, directory, config.shard) {
                        done.fetch_add(1, Ordering::Release);
                        return None;
                    }
                    let opened = recover::open_shard(&RealDisk, directory, config, &mut |more| {
                        read.fetch_add(more, Ordering::Relaxed);
                    });
                    done.fetch_add(1, Ordering::Release);
                    Some(opened)
                })
            })
            .collect();
        let mut shown = began;
        while done.load(Ordering::Acquire) < configs.len() as u64 {
            std::thread::sleep(Duration::from_millis(5));
            if shown.elapsed() >= SHOWN_AFTER {
                shown = Instant::now();
                let read = read.iter().map(|read| read.load(Ordering::Relaxed)).sum();
                info!("reading back what is on disk: {}", how_far(total, read, began.elapsed()));
            }
        }
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut found = Vec::new();
    for (result, config) in results.into_iter().zip(configs) {
        let shard = config.shard;
        let result = result.map_err(|_| StartError::Log { shard, why: "reading it back failed".into() })?;
        let opened = match result {
            Some(Ok(opened)) => Ok(opened),
            Some(Err(error)) if error.is_rot() => Err(error.to_string()),
            Some(Err(error)) => return Err(StartError::Log { shard, why: error.to_string() }),
            None => {
                let missing = recover::shard_directory(directory, shard);
                Err(format!("{} is gone, or empty", missing.display()))
            }
        };
        found.push((config, opened));
    }
    let opened = || found.iter().filter_map(|(_, opened)| opened.as_ref().ok());
    let torn = opened().any(|opened| opened.torn.is_some());
    let entries: u64 = opened().map(|opened| opened.entries).sum();
    if any {
        let took_ms = began.elapsed().as_millis() as u64;
        let how = match (data.last.as_ref().is_some_and(|last| last.clean), torn) {
            (true, false) => "the last start ended in order, and nothing is torn",
            (true, true) => "the last start ended in order, but something was torn",
            (false, _) => "the last start did not end in order",
        };
        info!(bytes = total, entries, took_ms, "read back what is on disk: {how}");
    }
    Ok(found)
}

/// How much of it was read, and how long the rest may take, where anything was read to go by.
fn how_far(total: u64, read: u64, took: Duration) -> String {
    let percent = (read * 100).checked_div(total).unwrap_or(100).min(100);
    let megabytes = |bytes: u64| bytes / (1 << 20);
    let mut text = format!("{percent} % ({} of {} MiB)", megabytes(read), megabytes(total));
    if read > 0 {
        let left = took.as_secs_f64() * total.saturating_sub(read) as f64 / read as f64;
        text += &format!(", about {left:.0} s left");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;
    use replication::Durability;
    use storage::ShardLogOptions;
    use types::NodeId;

    const SHARDS: u16 = 2;
    const PARTITIONS: u16 = 8;

    /// A boot that is over.
    fn frame(fsync: &str, clean: &str, more: &str) -> Last {
        let text = format!("shards 2\nboot before\nfsync {fsync}\nclean {clean}\n{more}");
        Last::parse(text.as_bytes()).unwrap()
    }

    /// Reads what is there as a start does.
    fn read(directory: &Path) -> Result<ReadLogs, StartError> {
        let data = DataFile::open(directory).unwrap();
        let config = |shard| RecoverConfig {
            node: NodeId(1),
            shard,
            identity: [shard.0 as u8; 32],
            hash_seed: 0,
            durability: Durability::Disk,
            log: ShardLogOptions::default(),
            ended_at: data.end_of(shard),
        };
        read_logs(&data, directory, (0..SHARDS).map(ShardId).map(config).collect(), PARTITIONS, true)
    }

    /// A start that writes two batches to the first shard's log, of one size. Returns where the logs end.
    fn start(directory: &Path, fsync: Fsync) -> (DataFile, Vec<u64>) {
        let mut data = DataFile::open(directory).unwrap();
        let read = read(directory).unwrap();
        let mut logs = begin(&mut data, directory, fsync, read).unwrap();
        for _ in 0..2 {
            let mut entry = Vec::new();
            storage::log_entry::put_wipe(&mut entry, PartitionId(0));
            logs[0].log.append(&entry).unwrap();
        }
        let ends = logs.iter_mut().map(|open| open.log.sync().unwrap()).collect();
        (data, ends)
    }

    /// The first shard's log.
    fn log_file(directory: &Path) -> PathBuf {
        directory.join("shard-0").join("log-0000000000000000")
    }

    fn cut(path: &Path, bytes: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - bytes).unwrap();
    }

    /// Puts bytes at the end that are no batch.
    fn tear(path: &Path) {
        let file = RealDisk.open(path).unwrap();
        RealDisk.append(&file, b"torn").unwrap();
    }

    #[test]
    fn a_stop_in_order_notes_where_the_logs_end_and_a_start_takes_it_away() {
        let directory = TempDir::new();
        let (data, ends) = start(directory.path(), Fsync::Never);
        assert_eq!((ends[0] > 0, ends[1]), (true, 0));
        data.ended(ends.clone());
        let data = DataFile::open(directory.path()).unwrap();
        assert_eq!([0, 1].map(|shard| data.end_of(ShardId(shard))), ends[..]);
        assert!(data.last.unwrap().clean);
        let (data, _) = start(directory.path(), Fsync::Never);
        drop(data);
        let data = DataFile::open(directory.path()).unwrap();
        assert_eq!(data.end_of(ShardId(0)), 0);
        assert!(!data.last.unwrap().clean);
        // The most that there can be has room in reserve.
        let ends = vec![1 << 60; 256];
        let last = Last { shards: 256, ends, clean: true, ..frame("everysec", "no", "") };
        assert!((last.to_frame().len() as u64) < ROOM_BYTES - 64);
    }

    /// Builds of before find the lines that they know by their names, and so does this one.
    #[test]
    fn frames_of_other_builds_are_read() {
        let last = frame("always", "yes", "");
        assert_eq!((last.shards, last.clean, last.end_of(ShardId(1))), (2, true, 0));
        assert_eq!(last.to_frame(), "shards 2\nboot before\nfsync always\nclean yes\n");
        let last = frame("always", "yes", "ends 17 4\nnever heard of\n");
        assert_eq!(last.end_of(ShardId(1)), 4);
        assert_eq!(last.to_frame(), "shards 2\nboot before\nfsync always\nclean yes\nends 17 4\n");
        for bad in ["ends 17", "ends 17 x", "ends "] {
            let text = format!("shards 2\nboot b\nfsync always\nclean yes\n{bad}\n");
            assert_eq!(Last::parse(text.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_log_that_is_short_after_a_stop_in_order_is_no_torn_tail() {
        let directory = TempDir::new();
        let (data, ends) = start(directory.path(), Fsync::Always);
        data.ended(ends.clone());
        assert!(read(directory.path()).unwrap().kept.whole);
        // Something behind the end was never acknowledged.
        tear(&log_file(directory.path()));
        let kept = read(directory.path()).unwrap().kept;
        assert_eq!((kept.whole, kept.lost.len()), (true, 0));
        // In the middle of a batch.
        let whole = std::fs::read(log_file(directory.path())).unwrap();
        cut(&log_file(directory.path()), 1);
        let kept = read(directory.path()).unwrap().kept;
        assert_eq!(kept.lost, [0, 2, 4, 6].map(PartitionId));
        // Between two.
        std::fs::write(log_file(directory.path()), &whole).unwrap();
        let from = ends[0] / 2;
        cut(&log_file(directory.path()), from);
        let Err(error) = read(directory.path()) else { panic!("it was not noticed") };
        assert!(error.to_string().contains(&format!("bytes from {from} to {}", ends[0])), "{error}");
        // What a process has written that was killed may end anywhere.
        cut(&log_file(directory.path()), 1);
        let data = DataFile::open(directory.path()).unwrap().last.unwrap();
        let killed = Last { clean: false, ends: Vec::new(), ..data };
        DataFile::open(directory.path()).unwrap().write(killed).unwrap();
        let kept = read(directory.path()).unwrap().kept;
        assert_eq!((kept.whole, kept.lost.len()), (true, 0), "fsync = always");
    }

    /// What was set aside does not have to be in the log that is begun anew.
    #[test]
    fn a_damaged_log_is_set_aside_though_its_end_is_known() {
        let directory = TempDir::new();
        let (data, ends) = start(directory.path(), Fsync::Always);
        data.ended(ends);
        cut(&log_file(directory.path()), 1);
        let (_, ends) = start(directory.path(), Fsync::Always);
        assert!(ends[0] > 0);
        assert!(directory.path().join("shard-0.aside-1").exists());
        assert!(read(directory.path()).unwrap().kept.lost.is_empty());
    }

    #[test]
    fn what_is_torn_was_never_acknowledged_only_where_that_is_certain() {
        let end = |last: &Last, torn, boot| last.judge(torn, boot);
        for fsync in ["everysec", "never"] {
            let killed = frame(fsync, "no", "");
            assert_eq!(end(&killed, false, "before"), LogsEnd::Kept);
            assert_eq!(end(&killed, true, "before"), LogsEnd::TornUnsynced, "a sync may have failed");
            assert_eq!(end(&killed, false, "now"), LogsEnd::MachineStopped);
            assert_eq!(end(&killed, true, "now"), LogsEnd::MachineStopped);
            let nowhere = Last { boot: String::new(), ..killed };
            assert_eq!(end(&nowhere, false, ""), LogsEnd::MachineStopped);
        }
        for fsync in ["always", "everysec", "never"] {
            let noted = frame(fsync, "yes", "ends 17 4");
            let not_noted = frame(fsync, "yes", "");
            for boot in ["before", "now"] {
                assert_eq!(end(&noted, true, boot), LogsEnd::Kept);
                assert_eq!(end(&not_noted, false, boot), LogsEnd::Kept);
                assert_eq!(end(&not_noted, true, boot), LogsEnd::TornInOrder);
            }
        }
        for (torn, boot) in [(false, "now"), (true, "now"), (true, "before")] {
            assert_eq!(end(&frame("always", "no", ""), torn, boot), LogsEnd::Kept);
        }
    }

    /// In one boot of the machine: a process that was killed.
    #[test]
    fn a_torn_end_without_syncs_costs_the_seats() {
        for (fsync, whole) in [(Fsync::Always, true), (Fsync::Everysec, false), (Fsync::Never, false)] {
            let directory = TempDir::new();
            let (data, _) = start(directory.path(), fsync);
            drop(data);
            assert!(read(directory.path()).unwrap().kept.whole);
            tear(&log_file(directory.path()));
            let kept = read(directory.path()).unwrap().kept;
            assert_eq!((kept.whole, kept.lost.len()), (whole, 0), "{fsync}");
        }
    }

    #[test]
    fn the_time_that_is_left_is_told_once_something_was_read() {
        let seconds = Duration::from_secs;
        assert_eq!(how_far(400 << 20, 0, seconds(9)), "0 % (0 of 400 MiB)");
        assert_eq!(how_far(400 << 20, 100 << 20, seconds(9)), "25 % (100 of 400 MiB), about 27 s left");
        assert_eq!(how_far(400 << 20, 401 << 20, seconds(9)), "100 % (401 of 400 MiB), about 0 s left");
        assert_eq!(how_far(0, 0, seconds(1)), "100 % (0 of 0 MiB)");
    }
}
