//! How much memory the process uses, for `maxmemory`: a thread of its own asks the allocator, and says so in
//! `node::Published`, so that a shard looks at one flag.

use node::Published;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tikv_jemalloc_ctl::{epoch, stats};
use tracing::{info, warn};

/// How often it is measured where there is a bound.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often where there is none.
const INTERVAL_UNBOUNDED: Duration = Duration::from_millis(200);

/// The measuring thread. Dropping it stops it.
#[derive(Debug)]
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Measures until dropped. `maxmemory` is in bytes; 0 for no bound.
    pub fn start(published: Arc<Published>, maxmemory: u64) -> std::io::Result<MemoryWatch> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Once before the first request.
        let mut is_full = measure(&published, maxmemory, false);
        let thread = thread::Builder::new().name("memory".into()).spawn(move || {
            let interval = if maxmemory > 0 { INTERVAL } else { INTERVAL_UNBOUNDED };
            while !stopped.load(Ordering::Relaxed) {
                thread::park_timeout(interval);
                is_full = measure(&published, maxmemory, is_full);
            }
        })?;
        Ok(MemoryWatch { stop, thread: Some(thread) })
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Publishes what is used. True where that is more than may be.
fn measure(published: &Published, maxmemory: u64, was_full: bool) -> bool {
    // The allocator's figures stand still until its epoch moves.
    let Ok(used) = epoch::advance().and_then(|_| stats::allocated::read()) else { return was_full };
    let used = used as u64;
    let is_full = maxmemory > 0 && used > maxmemory;
    published.set_used_memory(used, is_full);
    match (was_full, is_full) {
        (false, true) => {
            warn!(used, maxmemory, "more memory is used than maxmemory: writes that need more are refused")
        }
        (true, false) => {
            info!(used, maxmemory, "less memory is used than maxmemory: all writes are taken again")
        }
        _ => {}
    }
    is_full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_measured_against_the_bound() {
        let published = Published::new(1);
        assert!(!measure(&published, 0, false) && !published.is_out_of_memory());
        assert!(published.used_memory() > 0);
        // Whatever this test's process uses is more than one byte, and less than this.
        assert!(measure(&published, 1, false) && published.is_out_of_memory());
        assert!(!measure(&published, u64::MAX, true) && !published.is_out_of_memory());
    }
}
