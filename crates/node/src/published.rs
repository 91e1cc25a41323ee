//! What a node's threads tell each other: one writer for each figure, many readers, no lock on the way of a request.

use crate::peer_builds::PeerBuilds;
use crate::slow_log::SlowLog;
use crate::stats::{CommandStats, Totals};
use command::Pause;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use types::{Instant, Level, NodeId, ShardId};

const NO_OFFSET: i64 = i64::MIN;
/// Of a pause: which requests wait.
const PAUSE_BITS: u64 = 3;
const PAUSE_WRITES: u64 = 1;
const PAUSE_ALL: u64 = 2;

/// What one node's threads publish.
#[derive(Debug)]
pub struct Published {
    lease_until: AtomicU64,
    voters_since: AtomicU64,
    clock_offset_ms: AtomicI64,
    shards: Vec<ShardCounters>,
    /// Of the shards' logs on disk.
    logs: Vec<LogFigures>,
    /// Whether the disk has no room for some shard's log.
    disk_full: AtomicBool,
    /// Bytes that the shards' logs may take of the disk, as last looked at; `u64::MAX` where nobody knows.
    disk_free: AtomicU64,
    /// How often a client has wished for snapshots of everything.
    saves_asked: AtomicU64,
    commands: Vec<CommandStats>,
    view: Mutex<View>,
    /// Until when clients are paused, in nanoseconds of the monotonic clock; its two lowest bits say which requests.
    /// 0: they are not.
    pause: AtomicU64,
    /// When the heart and the control plane last ended a turn, in nanoseconds of the monotonic clock.
    heart_stamp: AtomicU64,
    control_stamp: AtomicU64,
    /// Of the process: written by whoever samples them, in the outermost room.
    pub process: ProcessFigures,
    /// Of the control plane: written by its thread.
    pub control: ControlFigures,
    /// Of the whole cluster, as the map shows it: written by the first shard.
    pub cluster: ClusterFigures,
    /// The slow requests.
    pub slow: SlowLog,
    /// What other nodes' builds are.
    pub builds: PeerBuilds,
    /// What the figures were when they were last told to start anew.
    counted_from: Mutex<Option<Totals>>,
}

/// What the heart knows of the cluster beyond the map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The coordinator, as last heard.
    pub coordinator: Option<NodeId>,
    /// Keys of each node's primaries, as last heard.
    pub keys: Vec<(NodeId, u64)>,
}

/// Figures of the process, which only the outermost room can tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerFigures {
    /// Wall time in Unix microseconds.
    pub now_us: u64,
    /// Seconds since the process started.
    pub uptime_seconds: u64,
    /// Resident bytes.
    pub used_memory_rss: u64,
    /// The machine's memory, in bytes.
    pub total_system_memory: u64,
    /// Seconds of processor time in the kernel.
    pub used_cpu_sys: f64,
    /// Seconds of processor time outside of it.
    pub used_cpu_user: f64,
    /// Connections refused for `maxclients`.
    pub rejected_connections: u64,
    /// Seconds of processor time of child processes, in the kernel.
    pub used_cpu_sys_children: f64,
    /// Seconds of processor time of child processes, outside of it.
    pub used_cpu_user_children: f64,
    /// Operating system and machine.
    pub os: String,
    /// Where the binary lies.
    pub executable: String,
}

macro_rules! counters {
    ($(#[$meta:meta])* $type:ident: $($(#[$doc:meta])* $name:ident,)+) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $type {
            $($(#[$doc])* pub $name: AtomicU64,)+
        }

        impl $type {
            /// Adds those of another.
            pub fn add_all(&self, other: &$type) {
                $(ShardCounters::add(&self.$name, other.$name.load(Ordering::Relaxed));)+
            }
        }
    };
}

counters! {
    /// One shard's figures. Only the shard writes them. Those of two shards share no cache line.
    #[repr(align(128))]
    ShardCounters:
    /// The map that the shard acts on.
    acted_version,
    /// When its last turn ended, in nanoseconds of the monotonic clock.
    stamp,
    /// Keys of the partitions of which it is primary.
    keys,
    /// Those with a time to live.
    expires,
    /// Bytes of its tables.
    table_bytes,
    /// Partitions of which it is primary.
    primaries,
    /// Those of them that serve requests now.
    serving,
    /// Partitions of which it has another copy.
    backups,
    /// Records that its primaries have in their logs.
    last_lsn,
    /// In-sync copies that its primaries lack.
    copies_short,
    /// Records of its primaries that a backup does not hold yet: the most of any backup.
    lag_max,
    /// The same, summed over its primaries' backups.
    lag_sum,
    /// Records of its primaries that are not committed yet.
    uncommitted,
    /// Bytes of them.
    uncommitted_bytes,
    /// Bytes of records that other nodes were sent and have not confirmed.
    ahead_bytes,
    /// Bytes of requests that were passed on and not answered.
    forward_bytes,
    /// Requests that wait until more of their partition is committed.
    crowded,
    /// The same, ever.
    crowded_total,
    /// Bytes that wait for its links.
    link_bytes,
    /// Times that what was to go over a link was dropped, since too much waited for that.
    link_drops,
    /// Records that its logs keep.
    log_records,
    /// Bytes of them.
    log_bytes,
    /// Snapshots that its primaries send now.
    snapshots,
    /// Snapshots that they have begun to send, ever.
    snapshots_begun,
    /// Those that broke off and went on where they had stopped, ever.
    snapshots_gone_on,
    /// Those that came to their end, ever.
    snapshots_done,
    /// Its primaries that were told to hand over, ever.
    hand_overs_begun,
    /// Those that did.
    hand_overs_done,
    /// Those that gave it up, since it took too long.
    hand_overs_given_up,
    /// Commands that its connections have sent.
    commands,
    /// Error replies.
    errors,
    /// Requests passed on to another shard or node.
    forwarded,
    /// Keys removed because their time had come.
    expired,
    /// Requests that wait for something.
    waiting,
    /// Connections now.
    connections,
    /// Connections ever.
    connections_total,
    /// Bytes ever received from clients.
    bytes_in,
    /// Bytes ever sent to clients.
    bytes_out,
    /// Bytes of entries that are ordered, or about to be, and not yet in its log on disk.
    log_queued,
    /// 1 once it has committed all that it ordered, and orders no more.
    retired,
    /// Wishes for snapshots of everything that are granted.
    saves_done,
    /// When the shard last had all the snapshots that were wanted, in Unix seconds; at first when it started.
    saved_at_s,
}

counters! {
    /// One shard's log on disk. Of its threads only one writes each of them at a time.
    #[repr(align(128))]
    LogFigures:
    /// Since when the disk has been at work without a break, in nanoseconds of the monotonic clock; 0 where it is not.
    busy_since,
    /// The same of what is done beside the log's writes.
    busy_beside_since,
    /// 1 where the disk has no room.
    full,
    /// 1 where even the room that the log holds in reserve is nearly used up.
    used_up,
    /// Bytes written.
    bytes_written,
    /// Batches written.
    batches,
    /// Syncs.
    syncs,
    /// Nanoseconds that they took.
    sync_ns,
    /// Bytes that the log's files have.
    disk_bytes,
    /// Bytes for which its current file has room, beyond what it keeps for what is ordered already.
    room,
    /// Snapshots of partitions written.
    snapshots,
    /// Bytes of them.
    snapshot_bytes,
    /// Snapshots that could not be written.
    snapshots_failed,
}

counters! {
    /// Figures of the process that are sampled several times a second. Sizes are in bytes.
    ProcessFigures:
    /// What the allocator has handed out; 0 where it is not asked.
    allocated,
    /// Pages that it uses.
    active,
    /// What it holds of the system.
    resident,
    /// The most that was handed out, as far as samples show.
    peak,
    /// What was handed out at the first sample.
    startup,
    /// Commands a second, lately.
    ops_per_second,
    /// Bytes from clients a second, lately.
    in_per_second,
    /// Bytes to clients a second, lately.
    out_per_second,
}

counters! {
    /// Figures of the control plane, as this node's part of it sees them.
    ControlFigures:
    /// The consensus' term.
    term,
    /// How often that has grown since the start: elections that somebody began.
    elections,
    /// 1 where this node is the coordinator.
    is_coordinator,
    /// How often the coordinator has changed since the start, as seen here.
    coordinator_changes,
    /// The version of the newest map that this node knows.
    map_version,
    /// The cluster's feature level, as far as this node knows. 0 before it is set.
    level,
    /// 1 where this node is about to stop and is not the coordinator, or nobody else can be.
    stepped_down,
    /// The version of the map by which nobody waits for this node, which is about to stop; 0 before.
    left_at,
    /// 1 where the control file could not get all of the room that it holds in reserve.
    lacks_room,
}

counters! {
    /// How the cluster's partitions fare, as the map shows it.
    ClusterFigures:
    /// Partitions.
    partitions,
    /// Those that nobody serves.
    unavailable,
    /// Those with fewer copies in sync than belong to them.
    short,
    /// Those down to the last copy, where more are wanted.
    at_risk,
    /// Those whose every in-sync log is gone.
    lost,
    /// Copies that are not yet where they should be.
    moves_left,
    /// Nodes that are being emptied.
    draining,
}

impl ShardCounters {
    /// Adds to a figure of this shard's own.
    pub fn add(counter: &AtomicU64, more: u64) {
        // One writer: a load and a store do, and cost less than a locked addition.
        counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// Sets a figure of this shard's own.
    pub fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }
}

impl Published {
    /// The cluster's feature level, as far as this node knows.
    pub fn level(&self) -> Level {
        Level(self.control.level.load(Ordering::Relaxed) as u16).max(Level::FIRST)
    }

    /// For a node of so many shards.
    pub fn new(shards: u16) -> Published {
        Published {
            lease_until: AtomicU64::new(0),
            voters_since: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(NO_OFFSET),
            shards: (0..shards.max(1)).map(|_| ShardCounters::default()).collect(),
            commands: (0..shards.max(1)).map(|_| CommandStats::default()).collect(),
            view: Mutex::default(),
            pause: AtomicU64::new(0),
            heart_stamp: AtomicU64::new(0),
            control_stamp: AtomicU64::new(0),
            logs: (0..shards.max(1)).map(|_| LogFigures::default()).collect(),
            disk_full: AtomicBool::new(false),
            disk_free: AtomicU64::new(u64::MAX),
            saves_asked: AtomicU64::new(0),
            process: ProcessFigures::default(),
            control: ControlFigures::default(),
            cluster: ClusterFigures::default(),
            slow: SlowLog::new(shards),
            counted_from: Mutex::default(),
            builds: PeerBuilds::default(),
        }
    }

    /// One shard's figures by command.
    pub fn commands(&self, shard: ShardId) -> &CommandStats {
        &self.commands[usize::from(shard.0)]
    }

    /// The sums over the shards, since the process started.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::zero();
        self.commands.iter().for_each(|stats| totals.add(stats));
        self.shards.iter().for_each(|shard| totals.counters.add_all(shard));
        totals
    }

    /// The same, since they were last told to start anew.
    pub fn totals_since_reset(&self) -> Totals {
        let totals = self.totals();
        match &*self.counted_from.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some(earlier) => totals.since(earlier),
            None => totals,
        }
    }

    /// What [`Published::totals_since_reset`] tells starts anew.
    pub fn reset_totals(&self) {
        let totals = self.totals();
        *self.counted_from.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(totals);
    }

    /// The sum of one figure over the shards, since the figures were last told to start anew.
    pub fn sum_since_reset(&self, figure: impl Fn(&ShardCounters) -> &AtomicU64) -> u64 {
        let sum = self.sum(&figure);
        let from = self.counted_from.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = from.as_ref().map_or(0, |from| figure(&from.counters).load(Ordering::Relaxed));
        sum.saturating_sub(before)
    }

    /// Whether commands that need memory are refused: more is handed out than `maxmemory`, in bytes; 0 is no bound.
    pub fn refuses_memory(&self, maxmemory: u64) -> bool {
        maxmemory > 0 && self.process.allocated.load(Ordering::Relaxed) > maxmemory
    }

    /// When the heart last ended a turn.
    pub fn heart_stamp(&self) -> Instant {
        Instant(self.heart_stamp.load(Ordering::Relaxed))
    }

    pub(crate) fn stamp_heart(&self, now: Instant) {
        self.heart_stamp.store(now.0, Ordering::Relaxed);
    }

    /// When the control plane last ended a turn.
    pub fn control_stamp(&self) -> Instant {
        Instant(self.control_stamp.load(Ordering::Relaxed))
    }

    pub(crate) fn stamp_control(&self, now: Instant) {
        self.control_stamp.store(now.0, Ordering::Relaxed);
    }

    /// Until when this node holds a lease, on its own monotonic clock.
    pub fn lease_until(&self) -> Instant {
        Instant(self.lease_until.load(Ordering::Acquire))
    }

    /// The newest change of the voters that this node's control plane has applied.
    pub fn voters_since(&self) -> u64 {
        self.voters_since.load(Ordering::Acquire)
    }

    pub(crate) fn set_voters_since(&self, version: u64) {
        self.voters_since.store(version, Ordering::Release);
    }

    pub(crate) fn set_lease_until(&self, until: Instant) {
        self.lease_until.store(until.0, Ordering::Release);
    }

    /// The cluster's time at `now`, in Unix milliseconds; none before a majority of voters have told it.
    pub fn clock_ms(&self, now: Instant) -> Option<u64> {
        match self.clock_offset_ms.load(Ordering::Relaxed) {
            NO_OFFSET => None,
            offset => Some(now.as_millis().saturating_add_signed(offset)),
        }
    }

    pub(crate) fn set_clock_offset_ms(&self, offset: i64) {
        self.clock_offset_ms.store(offset, Ordering::Relaxed);
    }

    /// One shard's figures.
    pub fn shard(&self, shard: ShardId) -> &ShardCounters {
        &self.shards[usize::from(shard.0)]
    }

    /// Every shard's figures.
    pub fn shards(&self) -> &[ShardCounters] {
        &self.shards
    }

    /// The sum of one figure over the shards.
    pub fn sum(&self, figure: impl Fn(&ShardCounters) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| figure(shard).load(Ordering::Relaxed)).sum()
    }

    /// The shard moves. It may say so with the time of something earlier, which is no news.
    pub fn stamp(&self, shard: ShardId, now: Instant) {
        let stamp = &self.shard(shard).stamp;
        if now.0 > stamp.load(Ordering::Relaxed) {
            ShardCounters::set(stamp, now.0);
        }
    }

    /// The oldest map that any shard acts on.
    pub fn acted_version(&self) -> u64 {
        self.shards.iter().map(|shard| shard.acted_version.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// When the slowest shard last ended a turn.
    pub fn oldest_stamp(&self) -> Instant {
        Instant(self.shards.iter().map(|shard| shard.stamp.load(Ordering::Relaxed)).min().unwrap_or(0))
    }

    /// The figures of a shard's log on disk.
    pub fn log(&self, shard: ShardId) -> &LogFigures {
        &self.logs[usize::from(shard.0) % self.logs.len()]
    }

    /// Those of all shards.
    pub fn logs(&self) -> &[LogFigures] {
        &self.logs
    }

    /// A client wants a snapshot of everything. Returns the number of its wish.
    pub fn ask_save(&self) -> u64 {
        self.saves_asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How many such wishes there were.
    pub fn saves_asked(&self) -> u64 {
        self.saves_asked.load(Ordering::Relaxed)
    }

    /// All of a shard's snapshots that were wanted up to this wish are on disk.
    pub fn saved(&self, shard: ShardId, wish: u64, now_s: u64) {
        ShardCounters::set(&self.shard(shard).saves_done, wish);
        ShardCounters::set(&self.shard(shard).saved_at_s, now_s);
    }

    /// When the slowest shard last had all the snapshots that were wanted, in Unix seconds.
    pub fn last_save_s(&self) -> u64 {
        self.shards.iter().map(|shard| shard.saved_at_s.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    /// How many wishes are granted by all shards.
    pub fn saves_done(&self) -> u64 {
        self.shards.iter().map(|shard| shard.saves_done.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    /// Since when the disk has been at work for a shard's log without a break; none where it is not.
    pub fn set_log_busy(&self, shard: ShardId, since: Option<Instant>) {
        ShardCounters::set(&self.log(shard).busy_since, since.map_or(0, |since| since.0));
    }

    /// The same of what is done beside the log's writes.
    pub fn set_log_busy_beside(&self, shard: ShardId, since: Option<Instant>) {
        ShardCounters::set(&self.log(shard).busy_beside_since, since.map_or(0, |since| since.0));
    }

    /// The longest that the disk has now been at work for any shard's log.
    pub fn log_busy(&self, now: Instant) -> std::time::Duration {
        let since = self
            .logs
            .iter()
            .flat_map(|log| [&log.busy_since, &log.busy_beside_since])
            .map(|since| since.load(Ordering::Relaxed));
        since
            .filter(|&since| since > 0)
            .min()
            .map_or(std::time::Duration::ZERO, |since| now.since(Instant(since)))
    }

    /// Whether the disk has no room for a shard's log. Returns whether it had none before.
    pub fn set_disk_full(&self, shard: ShardId, full: bool) -> bool {
        let before = self.log(shard).full.swap(u64::from(full), Ordering::SeqCst) > 0;
        if !full {
            self.set_disk_used_up(shard, false);
        }
        if before != full {
            let any = self.logs.iter().any(|log| log.full.load(Ordering::SeqCst) > 0);
            self.disk_full.store(any, Ordering::SeqCst);
        }
        before
    }

    /// Whether of the room that a shard's log holds in reserve only the last part is left.
    pub fn set_disk_used_up(&self, shard: ShardId, used_up: bool) {
        ShardCounters::set(&self.log(shard).used_up, u64::from(used_up));
    }

    /// Whether a shard's log can take only what it has to.
    pub fn is_disk_used_up(&self, shard: ShardId) -> bool {
        self.log(shard).used_up.load(Ordering::Relaxed) > 0
    }

    /// Whether the disk has no room for some shard's log.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// What a shard's log has room for, in bytes: in its current file, and on the disk, which all logs share.
    pub fn set_log_room(&self, shard: ShardId, reserved: u64, disk_free: u64) {
        ShardCounters::set(&self.log(shard).room, reserved);
        self.disk_free.store(disk_free, Ordering::SeqCst);
    }

    /// Whether there is room for so many bytes more in a shard's log, beside the `queued` ones that it has ordered, and those of the
    /// others. If so they count as ordered.
    pub fn claim_room(&self, shard: ShardId, queued: u64, bytes: u64) -> bool {
        let own = &self.shard(shard).log_queued;
        // Said before it is looked at: of two shards that ask at once, one at least sees the other.
        own.store(queued + bytes, Ordering::SeqCst);
        let all: u64 = self.shards.iter().map(|shard| shard.log_queued.load(Ordering::SeqCst)).sum();
        // Looked at after that, since what is written is taken off here first.
        let has_room = queued + bytes <= self.log(shard).room.load(Ordering::Relaxed)
            || all <= self.disk_free.load(Ordering::SeqCst);
        if !has_room {
            own.store(queued, Ordering::SeqCst);
        }
        has_room
    }

    /// Which requests of clients wait just now.
    pub fn pause(&self, now: Instant) -> Pause {
        match self.pause.load(Ordering::Relaxed) {
            0 => Pause::Off,
            until if until & !PAUSE_BITS <= now.0 => Pause::Off,
            until if until & PAUSE_BITS == PAUSE_WRITES => Pause::Writes,
            _ => Pause::All,
        }
    }

    /// Has requests wait until then. As in Redis, what waits already waits no less, and no less long.
    pub(crate) fn set_pause(&self, now: Instant, until: Instant, pause: Pause) {
        let before = self.pause.load(Ordering::Relaxed);
        let (until, pause) = match self.pause(now) {
            Pause::Off => (until.0, pause),
            was => (until.0.max(before & !PAUSE_BITS), pause.max(was)),
        };
        let bits = match pause {
            Pause::Off => return,
            Pause::Writes => PAUSE_WRITES,
            Pause::All => PAUSE_ALL,
        };
        self.pause.store(until & !PAUSE_BITS | bits, Ordering::Relaxed);
    }

    pub(crate) fn end_pause(&self) {
        self.pause.store(0, Ordering::Relaxed);
    }

    /// What the heart knows of the cluster beyond the map.
    pub fn view(&self) -> View {
        self.view.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn set_view(&self, view: View) {
        *self.view.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = view;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bound that was changed holds at once, whenever memory is looked at next.
    #[test]
    fn memory_is_refused_beyond_the_bound() {
        let published = Published::new(1);
        ShardCounters::set(&published.process.allocated, 100);
        let refused = [0, 99, 100].map(|maxmemory| published.refuses_memory(maxmemory));
        assert_eq!(refused, [false, true, false]);
    }

    #[test]
    fn a_pause_ends_by_itself_or_when_told_and_only_ever_grows() {
        let published = Published::new(1);
        let at = |ms: u64| Instant(ms * 1_000_000);
        assert_eq!(published.pause(at(0)), Pause::Off);
        published.set_pause(at(0), at(100), Pause::Writes);
        assert_eq!(published.pause(at(99)), Pause::Writes);
        published.set_pause(at(0), at(50), Pause::All);
        assert_eq!((published.pause(at(99)), published.pause(at(100))), (Pause::All, Pause::Off));
        // The one that is over counts for nothing.
        published.set_pause(at(100), at(200), Pause::Writes);
        assert_eq!(published.pause(at(150)), Pause::Writes);
        published.end_pause();
        assert_eq!(published.pause(at(150)), Pause::Off);
        published.set_pause(at(0), Instant(u64::MAX), Pause::All);
        assert_eq!(published.pause(at(u64::MAX / 1_000_000 - 1)), Pause::All);
    }
}
