//! The slow requests of a node: a ring for each shard, put together by number when somebody looks.
//!
//! A shard locks its own ring, and only for a request that was slow; readers copy pointers out under that lock.

use command::SlowRequest;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use types::ShardId;

type Ring = Mutex<VecDeque<Arc<SlowRequest>>>;

/// A node's slow requests.
#[derive(Debug)]
pub struct SlowLog {
    next_id: AtomicU64,
    rings: Vec<Ring>,
}

fn lock(ring: &Ring) -> MutexGuard<'_, VecDeque<Arc<SlowRequest>>> {
    ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl SlowLog {
    /// For a node of so many shards.
    pub(crate) fn new(shards: u16) -> SlowLog {
        SlowLog { next_id: AtomicU64::new(0), rings: (0..shards.max(1)).map(|_| Ring::default()).collect() }
    }

    /// The number of the next slow request.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// How many there ever were.
    pub fn count(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    /// Keeps a shard's slow request, and `most` of them at most.
    pub(crate) fn push(&self, shard: ShardId, request: SlowRequest, most: usize) {
        let mut ring = lock(&self.rings[usize::from(shard.0)]);
        ring.push_back(Arc::new(request));
        while ring.len() > most {
            ring.pop_front();
        }
    }

    /// The newest, by number.
    pub(crate) fn newest(&self, most: usize) -> Vec<Arc<SlowRequest>> {
        let mut all: Vec<Arc<SlowRequest>> = Vec::new();
        for ring in &self.rings {
            all.extend(lock(ring).iter().cloned());
        }
        all.sort_unstable_by_key(|request| std::cmp::Reverse(request.id));
        all.truncate(most);
        all
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        for ring in &self.rings {
            lock(ring).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_bounded_and_read_as_one() {
        let log = SlowLog::new(2);
        for at in 0..10u16 {
            let request = SlowRequest {
                id: log.next_id(),
                at_unix_seconds: 0,
                took_us: 1,
                args: Vec::new(),
                address: String::new(),
                name: Vec::new(),
            };
            log.push(ShardId(at % 2), request, 3);
        }
        let ids = |most| log.newest(most).iter().map(|request| request.id).collect::<Vec<_>>();
        assert_eq!(ids(100), [9, 8, 7, 6, 5, 4]);
        assert_eq!(ids(3), [9, 8, 7]);
        log.clear();
        assert!(ids(100).is_empty());
    }
}
