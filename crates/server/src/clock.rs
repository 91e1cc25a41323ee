//! The two clocks.
//!
//! Leases and timeouts run on CLOCK_BOOTTIME, which nobody sets and which counts while the machine sleeps: a lease
//! that ran out during a suspend has run out. Wall time only sets expiry.

use rustix::time::{ClockId, clock_gettime};
use types::Instant;

/// The monotonic clock.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Instant((time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64))
}

/// Unix milliseconds on this machine's wall clock; 0 where that stands before 1970.
pub fn wall_ms() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    u64::try_from(time.tv_sec).map_or(0, |seconds| seconds * 1000 + time.tv_nsec as u64 / 1_000_000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clocks_run() {
        let (first, second) = (super::now(), super::now());
        assert!(first.0 > 0 && second >= first);
        assert!(super::wall_ms() > 1_700_000_000_000);
    }
}
