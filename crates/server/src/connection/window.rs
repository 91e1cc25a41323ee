//! How many requests of a connection may be under way elsewhere: waiting for a commit, for another shard or another node.
//!
//! Their replies come whatever the client does, and each may be as large as the largest value. So a connection begins
//! with few, is allowed one more with every reply, and no more than would come to a bound at the size of late.

/// Requests that a new connection may have under way.
const FIRST: usize = 8;
/// The most.
const MOST: usize = 10_000;
/// What replies under way may come to, judged by the largest of late.
const BYTES: usize = 32 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Window {
    requests: usize,
    /// The largest reply; each that is smaller takes a bit of it away.
    largest_bytes: usize,
}

impl Default for Window {
    fn default() -> Window {
        Window { requests: FIRST, largest_bytes: 0 }
    }
}

impl Window {
    /// How many may be under way.
    #[inline]
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// A reply of this size has come.
    pub fn replied(&mut self, bytes: usize) {
        self.largest_bytes = bytes.max(self.largest_bytes - self.largest_bytes / 16);
        let most = (BYTES / self.largest_bytes.max(1)).clamp(1, MOST);
        self.requests = (self.requests + 1).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_small_replies_and_shrinks_at_a_large_one() {
        let mut window = Window::default();
        (0..20_000).for_each(|_| window.replied(5));
        assert_eq!(window.requests(), MOST);
        window.replied(12 << 20);
        assert_eq!(window.requests(), 2);
        window.replied(512 << 20);
        assert_eq!(window.requests(), 1);
        (0..1000).for_each(|_| window.replied(5));
        assert!(window.requests() > 500);
    }
}
