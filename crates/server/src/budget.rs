//! What the doors on the runtime have in hand, in bytes: requests that came and are not answered, and answers that are not taken.
//!
//! The shards keep the same account of their own connections ([`crate::buffers`]). Here whoever would go beyond the bound is refused,
//! while what is small always finds room, so that a few large requests do not shut everybody else out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many bytes of one connection are never refused: connections are bounded in number.
pub(crate) const ALWAYS_BYTES: u64 = 64 * 1024;

/// The bound, and what is in hand. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    most: u64,
    held: Arc<AtomicU64>,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(most: u64) -> Budget {
        Budget { most, held: Arc::default() }
    }

    /// Nothing yet, for one connection or one request.
    pub fn hold(&self) -> Held {
        Held { budget: self.clone(), bytes: 0 }
    }
}

/// One connection's or one request's part, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: u64,
}

impl Held {
    /// It holds so many bytes now. False: there is no room for more, and it should hold less soon.
    pub fn set(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let total = &self.budget.held;
        if bytes <= self.bytes {
            total.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return true;
        }
        let more = bytes - self.bytes;
        self.bytes = bytes;
        let before = total.fetch_add(more, Ordering::Relaxed);
        bytes <= ALWAYS_BYTES || before + more <= self.budget.most
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_waits_and_what_is_small_does_not() {
        let budget = Budget::new(1 << 20);
        let (mut large, mut another, mut small) = (budget.hold(), budget.hold(), budget.hold());
        assert!(large.set(1 << 20));
        assert!(!another.set(100_000));
        assert!(small.set(1000));
        assert!(another.set(0));
        assert!(large.set(900_000) && another.set(100_000));
        drop((large, another, small));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0, "given back");
    }
}
