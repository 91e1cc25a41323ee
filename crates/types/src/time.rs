//! Time as the machines see it: a monotonic instant that the outermost room reads from a clock, and the hybrid
//! logical clock that versions a key.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on this machine's monotonic clock (CLOCK_BOOTTIME), in nanoseconds. Never wall time, and never
/// compared between machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// How long it has been since `earlier`; zero where that lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole milliseconds on the same clock.
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(duration.as_nanos() as u64))
    }
}

/// A key's version: a hybrid logical clock of 48 bits of Unix milliseconds and 16 bits of counter, so that one
/// number serves compare-and-set, watches and timestamps (Kulkarni et al., "Logical Physical Clocks", 2014).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version that follows `self` for a change made at `now_ms` (Unix milliseconds of the partition's time).
    pub fn next(self, now_ms: u64) -> Version {
        Version((self.0 + 1).max(now_ms << 16))
    }

    /// Its timestamp in Unix milliseconds.
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_even_when_time_stands_still() {
        let a = Version::default().next(1000);
        let b = a.next(1000);
        let c = b.next(999);
        assert!(a < b && b < c);
        assert_eq!((a.millis(), c.millis()), (1000, 1000));
        assert_eq!(c.next(2000).millis(), 2000);
    }
}
