//! A shard's log on its way to the disk: a thread of its own takes what has gathered while the last write and sync ran, so that
//! one sync serves all (group commit).
//!
//! The shard hands over the entries of each turn ([`feed`]) and hears back, by letter, up to which turn they are durable: after the sync
//! with `fsync = always`, otherwise after the write. With `everysec` a sync follows within a second, and with both that and `never`
//! syncs and the making of segments are another thread's ([`beside`]): a write waits for none of them, but where a segment has grown to
//! twice its size meanwhile, and with `everysec` where what was written is not yet on disk after two seconds.
//!
//! A failed write or sync is final: nobody knows what is on the disk then, so the process says so and ends. Only a full disk is
//! waited for. It shows while there is still room for what is under way, since room is reserved ahead: from then on commands
//! that need more are refused (`Published::set_disk_full`). What is large may need more than that: so the room that is certain is told
//! as well (`Published::set_log_room`), and a large write that it has no place in is refused before it is ordered.

mod beside;
mod feed;

use crate::clock;
use crate::mailbox::Post;
use crate::scheduling;
use crate::snapshot_thread::SnapshotOrder;
use crate::stats::allowance;
use crate::threads::Mail;
use crate::work::Freer;
pub use beside::Beside;
use beside::{Report, Task, Unneeded};
use feed::Item;
pub use feed::LogFeed;
use node::recover::LogBegin;
use node::{Published, ShardCounters, SnapshotJob};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use storage::{Disk, Rope, ShardLog, ShardLogError};
use tracing::{debug, error, info, warn};
use types::settings::Fsync;
use types::{Instant, PartitionId, ShardId};

/// The exit code of a process whose disk has failed.
const DISK_FAILED: i32 = 3;
/// From one sync to the next, with `everysec`.
const SECOND: Duration = Duration::from_secs(1);
/// What is not durable after so long is waited for, with `everysec`.
const UNSYNCED_MAX: Duration = Duration::from_secs(2);
/// Room that is kept for what is ordered already when the disk turns out to be full, in bytes.
const AHEAD_BYTES: usize = 4 << 20;
/// The part of it that is for what a copy has to note whatever comes: that it discards records, holds nothing any more, or
/// begins a reign. Of what else can be refused, nothing is taken any more.
const LAST_BYTES: usize = 1 << 20;
/// After so many bytes the disk is looked at again, and after a second.
const LOOK_BYTES: usize = 1 << 20;
/// Between two attempts to write to a full disk.
const FULL_RETRY: Duration = Duration::from_millis(50);

/// What a log's threads are made of.
pub struct LogParts<D: Disk> {
    /// The log.
    pub log: ShardLog<D>,
    /// The file that says where the log begins.
    pub begin: LogBegin<D>,
    /// Where entries come from.
    pub feed: LogFeed,
    /// Whose they are.
    pub shard: ShardId,
    /// The shard's letter box.
    pub post: Post<Mail>,
    /// When to sync.
    pub fsync: Fsync,
    /// Where to tell others how it fares.
    pub published: Arc<Published>,
    /// Where snapshots go.
    pub snapshots: Sender<SnapshotOrder>,
    /// Where removed files go, whose room is given back there.
    pub freer: Freer,
}

/// The thread that writes.
pub struct LogThread<D: Disk> {
    log: ShardLog<D>,
    feed: LogFeed,
    shard: ShardId,
    post: Post<Mail>,
    fsync: Fsync,
    published: Arc<Published>,
    snapshots: Sender<SnapshotOrder>,
    /// Orders about snapshots that stand behind a place in the log that is not yet durable.
    held: VecDeque<SnapshotOrder>,
    tasks: Sender<Task<D>>,
    reports: Receiver<Report<D::File>>,
    /// Whether an errand is out.
    is_errand_out: bool,
    /// Whether the front of the log is on its way out.
    is_letting_go: bool,
    /// When the last sync began.
    synced_at: Instant,
    /// All that was written before is durable.
    durable_since: Instant,
    /// Whether the disk had no room when it was last asked for some.
    full: bool,
    /// When the disk was last looked at, which segment was the current one then, and how many bytes were written since.
    looked_at: Instant,
    looked_first: u64,
    unlooked_bytes: usize,
    /// What is not needed any more, and since when, where that was not yet written down.
    unneeded: Option<(Unneeded, Instant)>,
}

/// A shard's log thread, and the one beside it.
pub fn new<D: Disk + Clone>(parts: LogParts<D>) -> (LogThread<D>, Beside<D>) {
    let LogParts { log, begin, feed, shard, post, fsync, published, snapshots, freer } = parts;
    let (tasks, to_do) = mpsc::channel();
    let (done, reports) = mpsc::channel();
    let now = clock::now();
    let beside = Beside {
        begin,
        freer,
        tasks: to_do,
        reports: done,
        feed: feed.clone(),
        shard,
        published: published.clone(),
    };
    let thread = LogThread {
        log,
        feed,
        shard,
        post,
        fsync,
        published,
        snapshots,
        held: VecDeque::new(),
        tasks,
        reports,
        is_errand_out: false,
        is_letting_go: false,
        synced_at: now,
        durable_since: now,
        full: false,
        looked_at: now,
        looked_first: 0,
        unlooked_bytes: 0,
        unneeded: None,
    };
    (thread, beside)
}

impl<D: Disk + Clone> LogThread<D> {
    /// Writes until told to stop. Returns the logical offset at which the log ends then, all of it synced.
    pub fn run(mut self) -> u64 {
        let mut items = Vec::new();
        // Replies wait for a write that takes no time, and not for the shard's next pause, where the two share a processor. A sync
        // takes long enough anyway, and the more gathers meanwhile the better.
        if self.fsync != Fsync::Always
            && let Err(error) = scheduling::ask_for_short_turns(None)
        {
            debug!(%error, "the log's thread takes turns like any other");
        }
        ShardCounters::set(&self.published.log(self.shard).disk_bytes, self.log.bytes_on_disk());
        self.reserve();
        self.look(clock::now());
        while self.wait(&mut items) {
            self.take_reports();
            // What is ready beside has to be there before the segment is full.
            self.go_on_beside();
            if !items.is_empty() {
                self.wait_for_the_disk();
                // A disk that has much to write is not one that stands still.
                let bytes = items.iter().map(Item::bytes).sum();
                let now = clock::now();
                self.published.set_log_busy(self.shard, Some(now + allowance(bytes)));
                self.unlooked_bytes += bytes;
                self.write(&mut items, now);
                self.published.set_log_busy(self.shard, None);
            } else {
                if self.full {
                    // While all is refused nothing comes that would find the room.
                    self.reserve();
                }
                self.look_if_due(clock::now());
            }
            self.go_on_beside();
        }
        self.end()
    }

    /// All is written: nothing is left to be done beside, and all is durable.
    fn end(mut self) -> u64 {
        self.wait_for_reports();
        self.sync();
        if let Err(error) = self.log.give_back() {
            fail(&error);
        }
        self.pass_on();
        self.let_go();
        self.wait_for_reports();
        self.log.durable()
    }

    fn write(&mut self, items: &mut Vec<Item>, now: Instant) {
        if self.log.durable() == self.log.end() {
            self.durable_since = clock::now();
        }
        let mut written = None;
        for item in items.drain(..) {
            match item {
                Item::Turn(turn, bytes) => {
                    if written.is_some() {
                        // What waited was too much for one write.
                        self.wait_for_the_disk();
                    }
                    self.append(&bytes);
                    written = Some(turn);
                    self.feed.give_back(bytes);
                }
                Item::Job(SnapshotJob::Release(offset, snapshots)) => self.release(offset, snapshots),
                Item::Job(job) => {
                    self.held.push_back(SnapshotOrder { shard: self.shard, log_offset: self.log.end(), job });
                }
            }
        }
        if let Some(turn) = written {
            if self.fsync == Fsync::Always {
                self.sync();
            }
            // Before the shard hears that it has less on its way.
            self.look_if_due(now);
            self.post.send(Mail::Logged(turn, self.log.end()));
            self.reserve();
            self.look_if_due(now);
        }
        self.pass_on();
    }

    /// Passes on what is to be done about snapshots, in order, up to what stands for a place in the log that has to be there first.
    fn pass_on(&mut self) {
        while let Some(order) = self.held.pop_front_if(|order| !needs_sync(order, self.log.durable())) {
            // The thread that takes them ends after this one.
            let _ = self.snapshots.send(order);
        }
    }

    /// Hands out what is to be done beside the writing.
    fn go_on_beside(&mut self) {
        let now = clock::now();
        if self.release_due().is_some_and(|due| now >= due) {
            self.let_go();
        }
        if self.fsync == Fsync::Always {
            return;
        }
        let wanted = self.sync_due().is_some_and(|due| now >= due)
            || self.held.front().is_some_and(|order| needs_sync(order, self.log.durable()));
        match self.log.errand(wanted) {
            Ok(None) => {}
            Ok(Some(errand)) => {
                if errand.is_sync() {
                    self.synced_at = now;
                }
                self.is_errand_out = true;
                let unsynced = (self.log.end() - self.log.durable()) as usize;
                self.hand_out(Task::Errand(errand, unsynced));
            }
            Err(error) => fail(&error),
        }
    }

    fn hand_out(&self, task: Task<D>) {
        // That thread ends after this one.
        let _ = self.tasks.send(task);
    }

    fn take_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.take_report(report);
        }
    }

    fn wait_for_reports(&mut self) {
        while self.is_errand_out || self.is_letting_go {
            self.wait_for_report();
        }
    }

    fn wait_for_report(&mut self) {
        // It goes only with the process.
        let report = self.reports.recv().unwrap_or_else(|gone| fail(&gone));
        self.take_report(report);
    }

    fn take_report(&mut self, report: Report<D::File>) {
        match report {
            Report::Errand(done) => {
                self.is_errand_out = false;
                let before = self.log.durable();
                match self.log.come_back(Ok(done)) {
                    Ok(durable) if durable > before => self.durable_since = self.synced_at,
                    Ok(_) => {}
                    Err(error) => fail(&error),
                }
                // It may have made the next segment.
                self.look(clock::now());
                self.pass_on();
            }
            Report::Gone(count) => {
                self.is_letting_go = false;
                if let Err(error) = self.log.forget(Ok(count)) {
                    fail(&error);
                }
                ShardCounters::set(&self.published.log(self.shard).disk_bytes, self.log.bytes_on_disk());
            }
            // With the next snapshot it is tried again.
            Report::Kept => self.is_letting_go = false,
        }
    }

    /// No more is written while what was written long ago is not on disk, with `everysec`, nor where a segment has grown far beyond its
    /// size since what would end it takes long.
    fn wait_for_the_disk(&mut self) {
        while self.is_late() || (self.fsync != Fsync::Always && self.log.is_overgrown()) {
            self.go_on_beside();
            if !self.is_errand_out {
                break;
            }
            self.wait_for_report();
        }
    }

    fn is_late(&self) -> bool {
        self.fsync == Fsync::Everysec
            && self.log.durable() < self.log.end()
            && clock::now().since(self.durable_since) >= UNSYNCED_MAX
    }

    /// Takes note of what no partition needs any more. It is let go at once where that makes room, and within a second elsewhere: each of
    /// a thousand snapshots moves the offset a little, and to write that down takes syncs.
    fn release(&mut self, offset: u64, snapshots: BTreeSet<PartitionId>) {
        let since = self.unneeded.take().map_or_else(clock::now, |(_, since)| since);
        self.unneeded = Some((Unneeded { offset, snapshots }, since));
        if self.log.removal(offset).is_some() {
            self.let_go();
        }
    }

    /// When what is not needed any more is let go at the latest.
    fn release_due(&self) -> Option<Instant> {
        let (_, since) = self.unneeded.as_ref().filter(|_| !self.is_letting_go)?;
        Some(*since + SECOND)
    }

    /// Looks at the disk where much may have changed.
    fn look_if_due(&mut self, now: Instant) {
        let first = self.log.segments().last().map_or(0, |segment| segment.first);
        if self.unlooked_bytes >= LOOK_BYTES || first != self.looked_first || now >= self.looked_at + SECOND {
            self.looked_first = first;
            self.look(now);
        }
    }

    /// Tells for how much there is room.
    fn look(&mut self, now: Instant) {
        (self.looked_at, self.unlooked_bytes) = (now, 0);
        let room = self.log.room();
        self.published.set_log_room(
            self.shard,
            room.reserved.saturating_sub((AHEAD_BYTES + LOOK_BYTES) as u64),
            room.beyond.saturating_sub(LOOK_BYTES as u64),
        );
    }

    /// When the next sync is due.
    fn sync_due(&self) -> Option<Instant> {
        let unsynced = self.fsync == Fsync::Everysec && self.log.durable() < self.log.end();
        (unsynced && !self.is_errand_out).then(|| self.synced_at + SECOND)
    }

    fn let_go(&mut self) {
        if !self.is_letting_go
            && let Some((unneeded, _)) = self.unneeded.take()
        {
            self.is_letting_go = true;
            let removal = self.log.removal(unneeded.offset);
            self.hand_out(Task::LetGo(unneeded, removal));
        }
    }

    /// Waits for something to do. False: it is over.
    fn wait(&self, items: &mut Vec<Item>) -> bool {
        let mut looked = false;
        self.feed.take(items, || {
            if self.full {
                return Some(if std::mem::replace(&mut looked, true) { Duration::ZERO } else { FULL_RETRY });
            }
            let due = [self.sync_due(), self.release_due()].into_iter().flatten().min();
            let look_due = self.looked_at + SECOND;
            Some(due.map_or(look_due, |due| due.min(look_due)).since(clock::now()))
        })
    }

    /// Writes entries, whatever it takes: they are ordered.
    fn append(&mut self, bytes: &Rope) {
        loop {
            match self.log.append_rope(bytes) {
                Ok(_) => {
                    let figures = self.published.log(self.shard);
                    ShardCounters::add(&figures.batches, 1);
                    ShardCounters::add(&figures.bytes_written, bytes.len() as u64);
                    ShardCounters::set(&figures.disk_bytes, self.log.bytes_on_disk());
                    return;
                }
                // Nobody was told of these entries, and nobody is left to tell.
                Err(error @ ShardLogError::Full { .. }) if self.feed.is_stopped() => fail(&error),
                Err(error @ ShardLogError::Full { .. }) => {
                    self.set_full(Some(error));
                    self.published.set_disk_used_up(self.shard, true);
                    // The disk does not stand still, it waits for room: reads go on.
                    self.published.set_log_busy(self.shard, None);
                    std::thread::sleep(FULL_RETRY);
                    self.take_reports();
                    self.go_on_beside();
                    let now = clock::now();
                    self.look(now);
                    self.published.set_log_busy(self.shard, Some(now));
                }
                Err(error) => fail(&error),
            }
        }
    }

    fn sync(&mut self) {
        let began = clock::now();
        if let Err(error) = self.log.sync() {
            fail(&error);
        }
        count_sync(&self.published, self.shard, began);
    }

    /// Sees to it that what may come next has room.
    fn reserve(&mut self) {
        match self.log.reserve(AHEAD_BYTES) {
            Ok(()) => self.set_full(None),
            Err(error @ ShardLogError::Full { .. }) => {
                self.set_full(Some(error));
                match self.log.reserve(LAST_BYTES) {
                    Ok(()) => self.published.set_disk_used_up(self.shard, false),
                    Err(ShardLogError::Full { .. }) => self.published.set_disk_used_up(self.shard, true),
                    Err(error) => fail(&error),
                }
            }
            Err(error) => fail(&error),
        }
    }

    fn set_full(&mut self, full: Option<ShardLogError>) {
        self.full = full.is_some();
        let was = self.published.set_disk_full(self.shard, full.is_some());
        match full {
            Some(error) if !was => {
                error!(
                    shard = self.shard.0,
                    "{error}. Until then writes that need room are refused; reads go on"
                );
            }
            None if was => info!(shard = self.shard.0, "the disk has room again: writes go on"),
            _ => {}
        }
    }
}

fn needs_sync(order: &SnapshotOrder, durable: u64) -> bool {
    // It stands for a place in the log, which has to be there when it is.
    matches!(order.job, SnapshotJob::Finish(_) | SnapshotJob::Remove(_)) && durable < order.log_offset
}

fn count_sync(published: &Published, shard: ShardId, began: Instant) {
    let figures = published.log(shard);
    ShardCounters::add(&figures.syncs, 1);
    ShardCounters::add(&figures.sync_ns, clock::now().since(began).as_nanos() as u64);
}

/// The end of a process whose disk has failed. What it had acknowledged is on the disks of the copies that were in sync.
pub(crate) fn fail(error: &dyn std::error::Error) -> ! {
    error!("{error}");
    warn!(
        "this node's disk has failed, so it stops. It acknowledges nothing that is not on disk, and other in-sync copies serve what it \
         did. Look at the disk before it is started again on it; on an empty data directory (`join`) it is filled by the others"
    );
    // No destructor may touch the disk any more, nor another thread answer.
    std::process::exit(DISK_FAILED)
}

#[cfg(test)]
mod tests;
