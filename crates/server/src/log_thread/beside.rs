//! What is done for a shard's log beside its thread, so that no write waits for it: syncs where they are not wanted at once, the making
//! of segments, and the removal of those that snapshots have made unnecessary. One task after another.

use super::{LogFeed, fail};
use crate::clock;
use crate::scheduling;
use crate::stats::allowance;
use crate::work::{Freer, Large};
use node::Published;
use node::recover::LogBegin;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use storage::Disk;
use storage::shard_log::{Done, Errand, Removal};
use types::{PartitionId, ShardId};

/// The front of the log, up to an offset, is not needed any more: these partitions' snapshots hold what was in it.
pub(super) struct Unneeded {
    pub offset: u64,
    pub snapshots: BTreeSet<PartitionId>,
}

/// What is to be done.
pub(super) enum Task<D: Disk> {
    /// With so many bytes in the log that are not durable.
    Errand(Errand<D>, usize),
    /// That is noted, and the segments that are before it are removed.
    LetGo(Unneeded, Option<Removal<D>>),
}

/// What came of it.
pub(super) enum Report<F> {
    Errand(Done<F>),
    /// So many segments are gone.
    Gone(usize),
    /// There was no room to note it.
    Kept,
}

/// The thread.
pub struct Beside<D: Disk> {
    pub(super) begin: LogBegin<D>,
    pub(super) freer: Freer,
    pub(super) tasks: Receiver<Task<D>>,
    pub(super) reports: Sender<Report<D::File>>,
    /// Where the log's thread waits.
    pub(super) feed: LogFeed,
    pub(super) shard: ShardId,
    pub(super) published: Arc<Published>,
}

impl<D: Disk<File = File>> Beside<D> {
    /// Works until the log's thread is gone. A failure is the end of the process.
    pub fn run(mut self) {
        // Where it shares a processor, others go on between two pieces of its work.
        let _ = scheduling::ask_for_short_turns(None);
        while let Ok(task) = self.tasks.recv() {
            // A disk that has much to write is not one that stands still.
            let bytes = if let Task::Errand(_, unsynced) = task { unsynced } else { 0 };
            self.published.set_log_busy_beside(self.shard, Some(clock::now() + allowance(bytes)));
            let report = self.work(task).unwrap_or_else(|error| fail(&*error));
            self.published.set_log_busy_beside(self.shard, None);
            // The log's thread waits for what is under way before it ends.
            let _ = self.reports.send(report);
            self.feed.nudge();
        }
    }

    fn work(&mut self, task: Task<D>) -> Result<Report<File>, Box<dyn Error>> {
        match task {
            Task::Errand(errand, _) => {
                let (is_sync, began) = (errand.is_sync(), clock::now());
                let done = errand.run()?;
                if is_sync {
                    super::count_sync(&self.published, self.shard, began);
                }
                Ok(Report::Errand(done))
            }
            Task::LetGo(Unneeded { offset, snapshots }, removal) => {
                match self.begin.advance(offset, &snapshots) {
                    Ok(()) => {}
                    Err(error) if error.is_full() => return Ok(Report::Kept),
                    Err(error) => return Err(error.into()),
                }
                let count = removal.as_ref().map_or(0, Removal::count);
                for file in removal.map(Removal::run).transpose()?.unwrap_or_default() {
                    // The free thread ends after this one.
                    let _ = self.freer.send(Large::File(file));
                }
                Ok(Report::Gone(count))
            }
        }
    }
}
