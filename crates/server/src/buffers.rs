//! What all clients of a node together have it keep: each shard tells its sum, and looks at everybody's.
//!
//! Beyond `maxmemory_clients` a shard that keeps at least its even share closes its largest connections, until the
//! whole fits. As long as it does not, some shard keeps that much.

use std::sync::atomic::{AtomicU64, Ordering};
use types::ShardId;

/// The sums of a node's shards, in bytes.
#[derive(Debug)]
pub struct ClientBuffers {
    shards: Vec<AtomicU64>,
    most: u64,
}

impl ClientBuffers {
    /// For so many shards, which together may keep `most` bytes.
    pub fn new(shards: u16, most: u64) -> ClientBuffers {
        ClientBuffers { shards: (0..shards.max(1)).map(|_| AtomicU64::new(0)).collect(), most }
    }

    /// A shard's sum.
    pub fn set(&self, shard: ShardId, bytes: u64) {
        self.shards[usize::from(shard.0)].store(bytes, Ordering::Relaxed);
    }

    /// Whether it is for this shard, which keeps so many bytes, to close some of its connections.
    pub fn asks_for_relief(&self, bytes: u64) -> bool {
        let total: u64 = self.shards.iter().map(|shard| shard.load(Ordering::Relaxed)).sum();
        total > self.most && bytes >= total / self.shards.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_that_keeps_more_than_its_share_gives_way() {
        let buffers = ClientBuffers::new(2, 100);
        let set = |first, second| {
            buffers.set(ShardId(0), first);
            buffers.set(ShardId(1), second);
            (buffers.asks_for_relief(first), buffers.asks_for_relief(second))
        };
        assert_eq!(set(50, 50), (false, false));
        assert_eq!(set(100, 1), (true, false));
        assert_eq!(set(40, 70), (false, true));
        assert_eq!(set(60, 60), (true, true));
    }
}
