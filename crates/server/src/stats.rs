//! What a shard's thread tells the others of how it fares.

use crate::connection::Counts;
use node::{Published, ShardCounters};
use std::sync::Arc;
use std::time::Duration;
use types::{Instant, ShardId};

/// Work with no more bytes than these takes no time to speak of.
const LONG_BYTES: usize = 1024 * 1024;
/// What a slow machine, or its disk, does in a millisecond, in bytes: 32 MiB a second.
const SLOW_BYTES_A_MS: usize = 32 * 1024;

/// How much longer than usual a thread may be at work with so many bytes: a log of 100 MB is written in one go, a chunk of as much is
/// checked in one, and the thread that does so moves, though it may end no turn. The heart must not take it for one that stands still.
pub fn allowance(bytes: usize) -> Duration {
    if bytes < LONG_BYTES { Duration::ZERO } else { Duration::from_millis((bytes / SLOW_BYTES_A_MS) as u64) }
}

/// One shard's place in what the node publishes.
#[derive(Clone, Debug)]
pub struct ShardStats {
    published: Arc<Published>,
    shard: ShardId,
}

impl ShardStats {
    /// The place of one shard.
    pub fn new(published: Arc<Published>, shard: ShardId) -> ShardStats {
        ShardStats { published, shard }
    }

    /// A turn has ended: the shard moves.
    pub fn turn(&self, now: Instant) {
        self.published.stamp(self.shard, now);
    }

    /// The shard begins work with so many bytes, which may take long.
    pub fn begin(&self, now: Instant, bytes: usize) {
        let allowance = allowance(bytes);
        if !allowance.is_zero() {
            self.published.stamp(self.shard, now + allowance);
        }
    }

    /// How many clients it has.
    pub fn connections(&self, count: usize) {
        ShardCounters::set(&self.published.shard(self.shard).connections, count as u64);
    }

    /// What waits for its links, in bytes, and how often more was dropped.
    pub fn links(&self, bytes: usize, drops: u64) {
        let counters = self.published.shard(self.shard);
        ShardCounters::set(&counters.link_bytes, bytes as u64);
        ShardCounters::set(&counters.link_drops, drops);
    }

    /// A client has come.
    pub fn welcomed(&self) {
        ShardCounters::add(&self.published.shard(self.shard).connections_total, 1);
    }

    /// What a connection did.
    pub fn add(&self, counts: Counts) {
        let counters = self.published.shard(self.shard);
        ShardCounters::add(&counters.bytes_in, counts.bytes_in);
        ShardCounters::add(&counters.bytes_out, counts.bytes_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_is_allowed_its_time_and_no_more() {
        let published = Arc::new(Published::new(1));
        let stats = ShardStats::new(published.clone(), ShardId(0));
        let at = |ms: u64| Instant(ms * 1_000_000);
        stats.begin(at(1000), 64 * 1024);
        stats.turn(at(1000));
        assert_eq!(published.oldest_stamp(), at(1000));
        stats.begin(at(1000), 64 << 20);
        stats.turn(at(1010));
        assert_eq!(published.oldest_stamp(), at(3048));
        stats.turn(at(4000));
        assert_eq!(published.oldest_stamp(), at(4000));
    }
}
