//! A shard's log on its way to the disk: a thread of its own takes what has gathered while the last write and sync ran, so that
//! one sync serves all (group commit).
//!
//! The shard hands over the entries of each turn and hears back, by letter, up to which turn they are durable: after the sync
//! with `fsync = always`, otherwise after the write, and then a sync follows within a second (`everysec`).
//!
//! A failed write or sync is final: nobody knows what is on the disk then, so the process says so and ends. Only a full disk is
//! waited for. It shows while there is still room for what is under way, since room is reserved ahead: from then on commands
//! that need more are refused (`Published::set_disk_full`).

use crate::clock;
use crate::mailbox::Post;
use crate::scheduling;
use crate::snapshot_thread::SnapshotOrder;
use crate::stats::allowance;
use crate::threads::Mail;
use crate::work::Freer;
use node::recover::LogBegin;
use node::{Published, ShardCounters, SnapshotJob};
use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storage::{Disk, Rope, ShardLog, ShardLogError};
use tracing::{debug, error, info, warn};
use types::settings::Fsync;
use types::{Instant, PartitionId, ShardId};

/// The exit code of a process whose disk has failed.
const DISK_FAILED: i32 = 3;
/// From one sync to the next, with `everysec`.
const SECOND: Duration = Duration::from_secs(1);
/// Room that is kept for what is ordered already when the disk turns out to be full, in bytes.
const AHEAD_BYTES: usize = 4 << 20;
/// The part of it that is for what a copy has to note whatever comes: that it discards records, holds nothing any more, or
/// begins a reign. Of what else can be refused, nothing is taken any more.
const LAST_BYTES: usize = 1 << 20;
/// Between two attempts to write to a full disk.
const FULL_RETRY: Duration = Duration::from_millis(50);
/// A buffer that one large turn made longer than this is given back.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The shard's end.
#[derive(Clone, Debug, Default)]
pub struct LogFeed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// In order.
    items: Vec<Item>,
    /// A buffer to be used again.
    spare: Rope,
    asleep: bool,
    stop: bool,
}

#[derive(Debug)]
enum Item {
    /// Entries, up to those of a turn.
    Turn(u64, Rope),
    Job(SnapshotJob),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Turn(_, bytes) => bytes.len(),
            Item::Job(_) => 0,
        }
    }
}

impl LogFeed {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over the entries of a turn.
    pub fn push(&self, turn: u64, bytes: &mut Rope) {
        let mut state = self.lock();
        match state.items.last_mut() {
            Some(Item::Turn(last, waiting)) => {
                *last = turn;
                waiting.append(bytes);
            }
            _ => {
                let spare = std::mem::take(&mut state.spare);
                state.items.push(Item::Turn(turn, std::mem::replace(bytes, spare)));
            }
        }
        self.wake(state);
        bytes.clear();
        if bytes.capacity() > BUFFER_BYTES_MAX {
            *bytes = Rope::default();
        }
    }

    /// Hands over what has to be done about snapshots, after what was handed over before.
    pub fn push_jobs(&self, jobs: &mut Vec<SnapshotJob>) {
        let mut state = self.lock();
        state.items.extend(jobs.drain(..).map(Item::Job));
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.0.wake.notify_one();
        }
    }

    /// No more comes: the thread writes and syncs what it has, and ends.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.0.wake.notify_one();
    }
}

/// The thread's end.
pub struct LogThread<D: Disk> {
    /// The log.
    pub log: ShardLog<D>,
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
    /// The file that says where the log begins.
    pub begin: LogBegin<D>,
    /// Where removed files go, whose room is given back when they are dropped.
    pub freer: Freer,
    /// Whether the disk had no room when it was last asked for some.
    pub full: bool,
    /// What is not needed any more, where that was not yet written down.
    pub unneeded: Option<Unneeded>,
}

/// The front of the log, up to an offset: these partitions' snapshots hold what was in it.
pub struct Unneeded {
    offset: u64,
    snapshots: BTreeSet<PartitionId>,
    /// When the first of it was noted.
    since: Instant,
}

impl<D: Disk> LogThread<D>
where
    D::File: Send + 'static,
{
    /// Writes until told to stop.
    pub fn run(mut self) {
        let mut items = Vec::new();
        let mut synced_at = clock::now();
        // Replies wait for a write that takes no time, and not for the shard's next pause, where the two share a processor. A sync
        // takes long enough anyway, and the more gathers meanwhile the better.
        if self.fsync != Fsync::Always
            && let Err(error) = scheduling::ask_for_short_turns()
        {
            debug!(%error, "the log's thread takes turns like any other");
        }
        ShardCounters::set(&self.published.log(self.shard).disk_bytes, self.log.bytes_on_disk());
        self.reserve();
        while self.wait(&mut items, synced_at) {
            if !items.is_empty() {
                // A disk that has much to write is not one that stands still.
                let bytes = items.iter().map(Item::bytes).sum();
                self.published.set_log_busy(self.shard, Some(clock::now() + allowance(bytes)));
                self.write(&mut items);
                self.published.set_log_busy(self.shard, None);
            } else if self.full {
                // While all is refused nothing comes that would find the room.
                self.reserve();
            }
            if self.release_due().is_some_and(|due| clock::now() >= due) {
                self.published.set_log_busy(self.shard, Some(clock::now()));
                self.let_go();
                self.published.set_log_busy(self.shard, None);
            }
            if self.fsync == Fsync::Everysec && clock::now().since(synced_at) >= SECOND {
                synced_at = clock::now();
                if self.log.durable() < self.log.end() {
                    self.published.set_log_busy(self.shard, Some(synced_at));
                    self.sync();
                    self.published.set_log_busy(self.shard, None);
                }
            }
        }
        self.sync();
        self.let_go();
    }

    fn write(&mut self, items: &mut Vec<Item>) {
        let mut written = None;
        let mut orders = Vec::new();
        for item in items.drain(..) {
            match item {
                Item::Turn(turn, bytes) => {
                    self.append(&bytes);
                    written = Some(turn);
                    self.give_back(bytes);
                }
                Item::Job(SnapshotJob::Release(offset, snapshots)) => self.release(offset, snapshots),
                Item::Job(job) => {
                    orders.push(SnapshotOrder { shard: self.shard, log_offset: self.log.end(), job });
                }
            }
        }
        if let Some(turn) = written {
            if self.fsync == Fsync::Always {
                self.sync();
            }
            self.post.send(Mail::Logged(turn, self.log.end()));
            self.reserve();
        }
        for order in orders {
            if matches!(order.job, SnapshotJob::Finish(_) | SnapshotJob::Remove(_))
                && self.log.durable() < self.log.end()
            {
                // It stands for a place in the log, which has to be there when it is.
                self.sync();
            }
            // The thread that takes them ends after this one.
            let _ = self.snapshots.send(order);
        }
    }

    fn give_back(&self, mut bytes: Rope) {
        if bytes.capacity() <= BUFFER_BYTES_MAX {
            bytes.clear();
            self.feed.lock().spare = bytes;
        }
    }

    /// Takes note of what no partition needs any more. It is let go at once where that makes room, and within a second elsewhere: each of
    /// a thousand snapshots moves the offset a little, and to write that down takes syncs for which every write waits.
    fn release(&mut self, offset: u64, snapshots: BTreeSet<PartitionId>) {
        let since = self.unneeded.take().map_or_else(clock::now, |before| before.since);
        self.unneeded = Some(Unneeded { offset, snapshots, since });
        if self.log.has_before(offset) {
            self.let_go();
        }
    }

    /// When what is not needed any more is let go at the latest.
    fn release_due(&self) -> Option<Instant> {
        self.unneeded.as_ref().map(|unneeded| unneeded.since + SECOND)
    }

    fn let_go(&mut self) {
        let Some(Unneeded { offset, snapshots, .. }) = self.unneeded.take() else { return };
        match self.begin.advance(offset, &snapshots) {
            Ok(()) => {}
            // With the next snapshot it is tried again.
            Err(error) if error.is_full() => return,
            Err(error) => fail(&error),
        }
        match self.log.remove_before(offset) {
            // The free thread ends after this one.
            Ok(files) => files.into_iter().for_each(|file| drop(self.freer.send(Box::new(file)))),
            Err(error) => fail(&error),
        }
        ShardCounters::set(&self.published.log(self.shard).disk_bytes, self.log.bytes_on_disk());
    }

    /// Waits for something to do, or until a sync is due. False: it is over.
    fn wait(&self, items: &mut Vec<Item>, synced_at: Instant) -> bool {
        let mut state = self.feed.lock();
        let mut looked = false;
        while state.items.is_empty() {
            if state.stop {
                return false;
            }
            state.asleep = true;
            let unsynced = self.fsync == Fsync::Everysec && self.log.durable() < self.log.end();
            let due =
                [unsynced.then_some(synced_at + SECOND), self.release_due()].into_iter().flatten().min();
            let left = match (due, self.full) {
                (None, false) => {
                    state = self.feed.0.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                (_, true) if looked => break,
                (_, true) => FULL_RETRY,
                (Some(due), false) => due.since(clock::now()),
            };
            if left.is_zero() {
                break;
            }
            looked = true;
            (state, _) = self.feed.0.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        std::mem::swap(&mut state.items, items);
        true
    }

    /// Writes entries, whatever it takes: they are ordered.
    fn append(&mut self, bytes: &Rope) {
        loop {
            match self.log.append_rope(bytes) {
                Ok(_) => {
                    if self.fsync != Fsync::Always {
                        self.log.write_back();
                    }
                    let figures = self.published.log(self.shard);
                    ShardCounters::add(&figures.batches, 1);
                    ShardCounters::add(&figures.bytes_written, bytes.len() as u64);
                    ShardCounters::set(&figures.disk_bytes, self.log.bytes_on_disk());
                    return;
                }
                // Nobody was told of these entries, and nobody is left to tell.
                Err(error @ ShardLogError::Full { .. }) if self.feed.lock().stop => fail(&error),
                Err(error @ ShardLogError::Full { .. }) => {
                    self.set_full(Some(error));
                    self.published.set_disk_used_up(self.shard, true);
                    // The disk does not stand still, it waits for room: reads go on.
                    self.published.set_log_busy(self.shard, None);
                    std::thread::sleep(FULL_RETRY);
                    self.published.set_log_busy(self.shard, Some(clock::now()));
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
        let figures = self.published.log(self.shard);
        ShardCounters::add(&figures.syncs, 1);
        ShardCounters::add(&figures.sync_ns, clock::now().since(began).as_nanos() as u64);
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

/// The end of a process whose disk has failed. What it had acknowledged is on the disks of the copies that were in sync.
pub(crate) fn fail(error: &dyn std::error::Error) -> ! {
    error!("{error}");
    warn!("this node's disk has failed, so it stops. It acknowledges nothing that is not on disk");
    // No destructor may touch the disk any more, nor another thread answer.
    std::process::exit(DISK_FAILED)
}
