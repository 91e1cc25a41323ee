//! What a shard's thread tells the others of how it fares.

use crate::connection::Counts;
use types::Instant;

/// One shard's place in what the node publishes.
#[derive(Debug, Default)]
pub struct ShardStats {}

impl ShardStats {
    /// A turn has ended: the shard moves.
    pub fn turn(&self, _now: Instant) {}

    /// How many clients it has.
    pub fn connections(&self, _count: usize) {}

    /// What a connection did.
    pub fn add(&self, _counts: Counts) {}
}
