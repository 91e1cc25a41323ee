//! What the data directory says of itself, and opening the logs in it.
//!
//! A small journal beside the shards' directories keeps with how many shards they were written, in which boot of the machine the
//! last start was, and whether that start ended in order. From these and from the logs follows what the node has kept of what it
//! had acknowledged ([`KeptLogs`]), and so whether it keeps its seats.

use crate::StartError;
use crate::disk::RealDisk;
use node::KeptLogs;
use node::recover::{self, Copies, LogBegin, RecoverConfig};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use storage::{Disk, Journal, ShardLog};
use tracing::{error, info, warn};
use types::settings::Fsync;
use types::{PartitionId, ShardId};

pub(crate) const FILE: &str = "data.journal";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Reading that takes longer than this is shown.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// What a data directory says of itself.
pub struct DataFile {
    journal: Journal<RealDisk>,
    last: Option<Last>,
    shards: u16,
}

/// The last start on it.
struct Last {
    shards: u16,
    boot: String,
    clean: bool,
}

impl Last {
    fn parse(frame: &[u8]) -> Option<Last> {
        let text = std::str::from_utf8(frame).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(Last {
            shards: field("shards")?.parse().ok()?,
            boot: field("boot")?.to_owned(),
            clean: field("clean")? == "yes",
        })
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

impl DataFile {
    /// Reads it, or makes it.
    pub fn open(directory: &Path) -> Result<DataFile, StartError> {
        let path = directory.join(FILE);
        let failed = |why: String| StartError::Data { path: path.clone(), why };
        let (journal, frames) = Journal::open(RealDisk, &path).map_err(|error| failed(error.to_string()))?;
        let last = match frames.last() {
            None => None,
            Some(frame) => Some(Last::parse(frame).ok_or_else(|| {
                failed("it was written by another version: start the program that wrote it".into())
            })?),
        };
        Ok(DataFile { journal, last, shards: 0 })
    }

    /// How many shards the logs were written with.
    pub fn shards(&self) -> Option<u16> {
        self.last.as_ref().map(|last| last.shards)
    }

    /// A start begins, or ended in order. Durable on return.
    fn write(&mut self, shards: u16, clean: bool) -> Result<(), StartError> {
        self.shards = shards;
        let clean = if clean { "yes" } else { "no" };
        let text = format!("shards {shards}\nboot {}\nclean {clean}\n", boot_id());
        self.journal
            .rewrite(&[text])
            .map_err(|error| StartError::Data { path: FILE.into(), why: error.to_string() })
    }

    /// All that the logs hold is on disk, and nothing more comes.
    pub fn ended(mut self) {
        if let Err(error) = self.write(self.shards, true) {
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

/// Opens the logs of all shards, each on a thread of its own, and says what they have kept.
pub fn open_logs(
    data: &mut DataFile,
    directory: &Path,
    fsync: Fsync,
    configs: Vec<RecoverConfig>,
    partitions: u16,
) -> Result<(Vec<OpenLog>, KeptLogs), StartError> {
    let shards = configs.len() as u16;
    let names = RealDisk.list(directory).unwrap_or_default();
    let any = data.last.is_some();
    let present = |shard: u16| names.contains(&format!("shard-{shard}"));
    let missing: Vec<u16> = (0..shards).filter(|&shard| any && !present(shard)).collect();
    let opened = read_all(directory, &configs)?;
    let mut kept = KeptLogs { any, whole: false, lost: Vec::new() };
    let of_shard = |shard: u16| (shard..partitions).step_by(usize::from(shards)).map(PartitionId);
    for shard in missing {
        error!(
            "the directory of shard {shard} is missing in {}: its copies are fetched anew",
            directory.display()
        );
        kept.lost.extend(of_shard(shard));
    }
    let mut logs = Vec::new();
    for (shard, opened) in opened.into_iter().enumerate() {
        if let Some(torn) = &opened.torn {
            info!(
                file = %torn.path.display(),
                offset = torn.offset,
                bytes = torn.bytes,
                "cut off what a crash had left torn: it was never acknowledged"
            );
        }
        for (partition, why) in &opened.lost {
            match partition {
                Some(partition) => {
                    error!("partition {partition} cannot be used here, and is fetched anew: {why}")
                }
                None => error!("no copy of shard {shard} can be used here, and all are fetched anew: {why}"),
            }
            match partition {
                Some(partition) => kept.lost.push(*partition),
                None => kept.lost.extend(of_shard(shard as u16)),
            }
        }
        logs.push(OpenLog { copies: opened.copies, log: opened.log, begin: opened.begin });
    }
    kept.lost.sort_unstable();
    kept.lost.dedup();
    kept.whole = match &data.last {
        None => false,
        // What was acknowledged was synced; or handed to a system that has not stopped since; or nothing was under way.
        Some(last) => {
            fsync == Fsync::Always || last.clean || (!last.boot.is_empty() && last.boot == boot_id())
        }
    };
    if any && !kept.whole {
        warn!(
            "the machine stopped while this node ran, and with fsync = {fsync} the last of its log may be missing: it gives up its \
             seats, and goes on from other copies where they have more"
        );
    }
    data.write(shards, false)?;
    Ok((logs, kept))
}

fn read_all(
    directory: &Path,
    configs: &[RecoverConfig],
) -> Result<Vec<recover::Opened<RealDisk>>, StartError> {
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
                    let mut first = None;
                    let opened = recover::open_shard(&RealDisk, directory, config, &mut |offset| {
                        let first = *first.get_or_insert(offset);
                        read.store(offset - first, Ordering::Relaxed);
                    });
                    done.fetch_add(1, Ordering::Release);
                    opened
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
    let mut opened = Vec::new();
    for (result, config) in results.into_iter().zip(configs) {
        let shard = ShardId(config.shard.0);
        let result = result.map_err(|_| StartError::Log { shard, why: "reading it back failed".into() })?;
        opened.push(result.map_err(|error| StartError::Log { shard, why: error.to_string() })?);
    }
    let entries: u64 = opened.iter().map(|opened| opened.entries).sum();
    if total > 0 {
        let took_ms = began.elapsed().as_millis() as u64;
        info!(bytes = total, entries, took_ms, "read the log back");
    }
    Ok(opened)
}

fn show(total: u64, read: u64, took: Duration) {
    let percent = (read * 100).checked_div(total).unwrap_or(100).min(100);
    let left =
        if read > 0 { took.as_secs_f64() * total.saturating_sub(read) as f64 / read as f64 } else { 0.0 };
    let megabytes = read / (1 << 20);
    info!("reading the log back: {percent} % ({megabytes} MiB), about {left:.0} s left");
}
