//! What the data directory says of itself, and opening the logs in it.
//!
//! A small journal beside the shards' directories keeps with how many shards they were written, in which boot of the machine the
//! last start was, with which `fsync`, and whether it ended in order. From these and from the logs follows what the node has kept of what it
//! had acknowledged ([`KeptLogs`]), and so whether it keeps its seats.

use crate::StartError;
use crate::disk::RealDisk;
use node::KeptLogs;
use node::recover::{self, Copies, LogBegin, RecoverConfig, RecoverError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use storage::{Disk, Journal, JournalError, ShardLog};
use tracing::{error, info, warn};
use types::settings::Fsync;
use types::{PartitionId, ShardId};

pub(crate) const FILE: &str = "data.journal";
/// Room that is held so that a start and a stop can be noted on a full disk, in bytes.
const ROOM_BYTES: u64 = 4096;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Reading that takes longer than this is shown.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// What a data directory says of itself.
pub struct DataFile {
    journal: Journal<RealDisk>,
    last: Option<Last>,
    path: PathBuf,
    /// The start that has begun.
    shards: u16,
    fsync: Fsync,
}

/// The last start on it.
struct Last {
    shards: u16,
    boot: String,
    /// Whether what it acknowledged was synced.
    synced: bool,
    clean: bool,
}

impl Last {
    fn parse(frame: &[u8]) -> Option<Last> {
        let text = std::str::from_utf8(frame).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(Last {
            shards: field("shards")?.parse().ok()?,
            boot: field("boot")?.to_owned(),
            synced: field("fsync")? == Fsync::Always.to_string(),
            clean: field("clean")? == "yes",
        })
    }

    /// Whether all that it acknowledged is there: it was synced; or handed to a system that has not stopped since; or nothing was
    /// under way.
    fn kept_all(&self) -> bool {
        self.synced || self.clean || (!self.boot.is_empty() && self.boot == boot_id())
    }
}

/// What the last frame says: with how many shards the logs were written, and whether the last start ended in order. `None`: another
/// version wrote it.
pub(crate) fn read_frame(frame: &[u8]) -> Option<(u16, bool)> {
    Last::parse(frame).map(|last| (last.shards, last.clean))
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
        Ok(DataFile { journal, last, path, shards: 0, fsync: Fsync::Never })
    }

    /// How many shards the logs were written with.
    pub fn shards(&self) -> Option<u16> {
        self.last.as_ref().map(|last| last.shards)
    }

    /// A start begins. Durable on return.
    fn begin(&mut self, shards: u16, fsync: Fsync) -> Result<(), StartError> {
        (self.shards, self.fsync) = (shards, fsync);
        self.write(false)
    }

    fn write(&mut self, clean: bool) -> Result<(), StartError> {
        let (shards, fsync, boot) = (self.shards, self.fsync, boot_id());
        let clean = if clean { "yes" } else { "no" };
        let text = format!("shards {shards}\nboot {boot}\nfsync {fsync}\nclean {clean}\n");
        self.journal
            .rewrite(&[text])
            .map_err(|error| StartError::Data { path: self.path.clone(), why: error.to_string() })
    }

    /// All that the logs hold is on disk, and nothing more comes.
    pub fn ended(mut self) {
        if let Err(error) = self.write(true) {
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

/// Reads the logs of all shards, each on a thread of its own, and says what they have kept.
pub fn read_logs(
    data: &DataFile,
    directory: &Path,
    fsync: Fsync,
    configs: Vec<RecoverConfig>,
    partitions: u16,
) -> Result<ReadLogs, StartError> {
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
                    error!("partition {partition} cannot be used here, and is fetched anew: {why}");
                    kept.lost.push(*partition);
                }
            }
            Err(why) => {
                error!(
                    "no copy of shard {shard} can be used here, and all are fetched anew from other nodes: {why}"
                );
                kept.lost.extend(of_shard(shard));
            }
        }
        read.push((config, opened.ok()));
    }
    kept.lost.sort_unstable();
    kept.whole = data.last.as_ref().is_some_and(|last| last.kept_all());
    if any && !kept.whole {
        warn!(
            "the machine stopped while this node ran, and with fsync = {fsync} the last of its log may be missing: it gives up its \
             seats, and goes on from other copies where they have more"
        );
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
                    let mut first = None;
                    let opened = recover::open_shard(&RealDisk, directory, config, &mut |offset| {
                        let first = *first.get_or_insert(offset);
                        read.store(offset - first, Ordering::Relaxed);
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
                show(total, read.iter().map(|read| read.load(Ordering::Relaxed)).sum(), began.elapsed());
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
    let mut torn = false;
    for cut in opened().filter_map(|opened| opened.torn.as_ref()) {
        torn = true;
        info!(
            file = %cut.path.display(),
            offset = cut.offset,
            bytes = cut.bytes,
            "cut off what a crash had left torn: it was never acknowledged"
        );
    }
    let entries: u64 = opened().map(|opened| opened.entries).sum();
    if any {
        let took_ms = began.elapsed().as_millis() as u64;
        let how = match (data.last.as_ref().is_some_and(|last| last.clean), torn) {
            (true, false) => "the last start ended in order, and nothing is torn",
            (true, true) => "the last start ended in order, but something was torn",
            (false, _) => "the last start did not end in order",
        };
        info!(bytes = total, entries, took_ms, "read the log back: {how}");
    }
    Ok(found)
}

fn show(total: u64, read: u64, took: Duration) {
    let percent = (read * 100).checked_div(total).unwrap_or(100).min(100);
    let left =
        if read > 0 { took.as_secs_f64() * total.saturating_sub(read) as f64 / read as f64 } else { 0.0 };
    let megabytes = read / (1 << 20);
    info!("reading the log back: {percent} % ({megabytes} MiB), about {left:.0} s left");
}
