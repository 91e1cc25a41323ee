//! What a shard's thread tells the others of how it fares.

use crate::connection::Counts;
use node::{Published, ShardCounters};
use std::sync::Arc;
use types::{Instant, ShardId};

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

    /// How many clients it has.
    pub fn connections(&self, count: usize) {
        ShardCounters::set(&self.published.shard(self.shard).connections, count as u64);
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
