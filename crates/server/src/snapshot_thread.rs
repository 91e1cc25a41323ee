//! A node's snapshots on their way to the disk: one thread writes those of all shards, behind all others.
//!
//! A snapshot that cannot be written costs nothing but itself: the log goes on, and stays. Only what a failed sync or rename
//! leaves behind is uncertain, and ends the process, as it does for the log.

use crate::disk::RealDisk;
use crate::log_thread;
use crate::mailbox::Post;
use crate::scheduling;
use crate::threads::Mail;
use node::{Published, ShardCounters, SnapshotJob};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use storage::snapshot_file::{SnapshotError, SnapshotWriter, remove_snapshot};
use tracing::{debug, warn};
use types::{PartitionId, ShardId};

/// The thread's place behind others.
const NICE: i32 = 10;

/// What a shard's log thread passes on, with the offset of the log that it stands at.
#[derive(Debug)]
pub struct SnapshotOrder {
    /// Whose.
    pub shard: ShardId,
    /// Where its log ends.
    pub log_offset: u64,
    /// What to do.
    pub job: SnapshotJob,
}

/// Where a shard's snapshots go.
pub struct SnapshotPlace {
    /// The shard's directory.
    pub directory: PathBuf,
    /// Says whose files these are.
    pub identity: [u8; 32],
    /// The shard's letter box.
    pub post: Post<Mail>,
}

/// One that is being written.
struct Writing {
    partition: PartitionId,
    writer: SnapshotWriter<RealDisk>,
}

/// Writes until the last shard's log thread is gone, and counts what became of it.
pub fn run(places: &[SnapshotPlace], orders: &Receiver<SnapshotOrder>, published: &Published) {
    scheduling::stand_behind(NICE);
    let mut writing: BTreeMap<ShardId, Writing> = BTreeMap::new();
    while let Ok(SnapshotOrder { shard, log_offset, job }) = orders.recv() {
        let Some(place) = places.get(usize::from(shard.0)) else { continue };
        let figures = published.log(shard);
        let done = |partition, written| place.post.send(Mail::SnapshotDone(partition, written));
        let failed = |partition, error: &SnapshotError| {
            refuse(error);
            ShardCounters::add(&figures.snapshots_failed, 1);
            done(partition, false)
        };
        match job {
            SnapshotJob::Begin(partition) => {
                if let Some(left) = writing.remove(&shard) {
                    left.writer.abandon();
                }
                match SnapshotWriter::begin(
                    RealDisk,
                    &place.directory,
                    &place.identity,
                    partition,
                    log_offset,
                ) {
                    Ok(writer) => drop(writing.insert(shard, Writing { partition, writer })),
                    Err(error) => failed(partition, &error),
                }
            }
            SnapshotJob::Piece(piece) => {
                if let Some(mut at_hand) = writing.remove(&shard) {
                    match at_hand.writer.chunk(&piece) {
                        Ok(()) => drop(writing.insert(shard, at_hand)),
                        Err(error) => {
                            at_hand.writer.abandon();
                            failed(at_hand.partition, &error);
                        }
                    }
                }
                place.post.send(Mail::SnapshotPiece);
            }
            SnapshotJob::Finish(end) => {
                let Some(Writing { partition, writer }) = writing.remove(&shard) else { continue };
                match writer.finish(&end) {
                    Ok(bytes) => {
                        debug!(partition = partition.0, bytes, "a snapshot is on disk");
                        ShardCounters::add(&figures.snapshots, 1);
                        ShardCounters::add(&figures.snapshot_bytes, bytes);
                        done(partition, true);
                    }
                    Err(error) => failed(partition, &error),
                }
            }
            SnapshotJob::Abandon => {
                if let Some(left) = writing.remove(&shard) {
                    left.writer.abandon();
                }
            }
            SnapshotJob::Remove(partition) => match remove_snapshot(&RealDisk, &place.directory, partition) {
                Ok(()) => done(partition, true),
                Err(error) => failed(partition, &error),
            },
            // The log thread's own.
            SnapshotJob::Release(..) => {}
        }
    }
}

/// Says why there is no snapshot, or ends the process where nobody knows what is on the disk.
fn refuse(error: &SnapshotError) {
    if error.is_final() {
        log_thread::fail(error);
    }
    warn!("a snapshot cannot be written, so the log grows: {error}");
}
