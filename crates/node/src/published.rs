//! What a node's threads tell each other: one writer for each figure, many readers, no lock on the way of a request.

use command::Pause;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use types::{Instant, NodeId, ShardId};

const NO_OFFSET: i64 = i64::MIN;
/// Of a pause: which requests wait.
const PAUSE_BITS: u64 = 3;
const PAUSE_WRITES: u64 = 1;
const PAUSE_ALL: u64 = 2;

/// What one node's threads publish.
#[derive(Debug)]
pub struct Published {
    lease_until: AtomicU64,
    clock_offset_ms: AtomicI64,
    shards: Vec<ShardCounters>,
    view: Mutex<View>,
    /// Until when clients are paused, in nanoseconds of the monotonic clock; its two lowest bits say which requests.
    /// 0: they are not.
    pause: AtomicU64,
    /// Bytes that the allocator has handed out.
    used_memory: AtomicU64,
    /// Whether that is more than `maxmemory`.
    out_of_memory: AtomicBool,
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
    /// Bytes that the allocator has handed out; 0 where unknown.
    pub used_memory: u64,
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
    /// Operating system and machine.
    pub os: String,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One shard's figures. Only the shard writes them.
        #[derive(Debug, Default)]
        pub struct ShardCounters {
            $($(#[$doc])* pub $name: AtomicU64,)+
        }
    };
}

counters! {
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
    /// Partitions of which it has another copy.
    backups,
    /// Records that its primaries have in their logs.
    last_lsn,
    /// Commands that its connections have sent.
    commands,
    /// Error replies.
    errors,
    /// Requests passed on to another shard or node.
    forwarded,
    /// Requests answered "outcome unknown".
    unknown_outcomes,
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
    /// For a node of so many shards.
    pub fn new(shards: u16) -> Published {
        Published {
            lease_until: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(NO_OFFSET),
            shards: (0..shards.max(1)).map(|_| ShardCounters::default()).collect(),
            view: Mutex::default(),
            pause: AtomicU64::new(0),
            used_memory: AtomicU64::new(0),
            out_of_memory: AtomicBool::new(false),
        }
    }

    /// Until when this node holds a lease, on its own monotonic clock.
    pub fn lease_until(&self) -> Instant {
        Instant(self.lease_until.load(Ordering::Acquire))
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

    /// The shard's turn has ended: it moves.
    pub fn stamp(&self, shard: ShardId, now: Instant) {
        ShardCounters::set(&self.shard(shard).stamp, now.0);
    }

    /// The oldest map that any shard acts on.
    pub fn acted_version(&self) -> u64 {
        self.shards.iter().map(|shard| shard.acted_version.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// When the slowest shard last ended a turn.
    pub fn oldest_stamp(&self) -> Instant {
        Instant(self.shards.iter().map(|shard| shard.stamp.load(Ordering::Relaxed)).min().unwrap_or(0))
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

    /// Bytes that the allocator has handed out, as last measured; 0 where nobody measures.
    pub fn used_memory(&self) -> u64 {
        self.used_memory.load(Ordering::Relaxed)
    }

    /// Says how much memory is used, and whether that is more than may be.
    pub fn set_used_memory(&self, bytes: u64, out_of_memory: bool) {
        self.used_memory.store(bytes, Ordering::Relaxed);
        self.out_of_memory.store(out_of_memory, Ordering::Relaxed);
    }

    /// Whether commands that may need more memory are refused: `maxmemory`.
    pub fn is_out_of_memory(&self) -> bool {
        self.out_of_memory.load(Ordering::Relaxed)
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
