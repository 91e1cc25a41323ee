//! A node's clocks: a monotonic one that began at some other time and runs a little fast or slow, and a wall clock
//! that is off, and may jump.

use history::Time;
use history::random::Random;
use types::Instant;

/// The most that a monotonic clock runs fast or slow, in millionths: 0.05%.
const DRIFT_PPM: u64 = 500;
/// Unix milliseconds at the simulation's start.
const WALL_MS: u64 = 1_700_000_000_000;
/// The most that a wall clock is off, in milliseconds.
pub const WALL_OFF_MS: u64 = 500;

/// One node's clocks.
#[derive(Clone, Debug)]
pub struct Clock {
    began: u64,
    drift_ppm: i64,
    wall_off_ms: i64,
}

impl Clock {
    /// Clocks drawn from a seed.
    pub fn draw(random: &mut Random) -> Clock {
        Clock {
            began: 1_000_000_000 * random.between(10, 1_000_000),
            drift_ppm: random.between(0, 2 * DRIFT_PPM) as i64 - DRIFT_PPM as i64,
            wall_off_ms: random.between(0, 2 * WALL_OFF_MS) as i64 - WALL_OFF_MS as i64,
        }
    }

    /// What the monotonic clock shows at a true time.
    pub fn monotonic(&self, now: Time) -> Instant {
        let drift = now as i64 / 1_000_000 * self.drift_ppm;
        Instant(self.began + now.saturating_add_signed(drift))
    }

    /// What the wall clock shows at a true time, in Unix milliseconds.
    pub fn wall_ms(&self, now: Time) -> u64 {
        (WALL_MS + now / 1_000_000).saturating_add_signed(self.wall_off_ms)
    }

    /// Somebody sets the wall clock.
    pub fn jump(&mut self, random: &mut Random) {
        self.wall_off_ms = random.between(0, 2 * WALL_OFF_MS) as i64 - WALL_OFF_MS as i64;
    }
}
