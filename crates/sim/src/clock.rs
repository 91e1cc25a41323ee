//! A node's clocks: a monotonic one that began at some other time and runs a little fast or slow, and a wall clock
//! that is off, and may jump, run at any pace, or stand still.
//!
//! Leases run on the first (`CLOCK_BOOTTIME`): it never jumps, and its pace stays within [`DRIFT_PPM`], which the grace allows for. Of
//! the second nothing is promised.

use crate::network::MS;
use history::Time;
use history::random::Random;
use types::Instant;

/// The most that a monotonic clock runs fast or slow, in millionths: 0.05%.
const DRIFT_PPM: u64 = 500;
/// Unix milliseconds at the simulation's start.
const WALL_MS: u64 = 1_700_000_000_000;
/// The most that a wall clock is off where nothing is wrong with it, in milliseconds.
pub const WALL_OFF_MS: u64 = 500;
/// The furthest that one leaps, in milliseconds.
const LEAP_MS: u64 = 600_000;
/// The most that a wall clock that is wrong runs fast or slow, in millionths: 30%.
const WALL_DRIFT_PPM: u64 = 300_000;
/// One second in a second.
const PACE_PPM: u64 = 1_000_000;

/// A clock that has run at one pace since some true time.
#[derive(Clone, Copy, Debug)]
struct Hand {
    since: Time,
    /// What it showed then, in nanoseconds.
    shown: u64,
    /// Nanoseconds in a million true ones.
    pace_ppm: u64,
}

impl Hand {
    fn at(&self, now: Time) -> u64 {
        let passed = u128::from(now.saturating_sub(self.since)) * u128::from(self.pace_ppm);
        self.shown + (passed / u128::from(PACE_PPM)) as u64
    }

    /// From now on it runs at another pace.
    fn turn(&mut self, now: Time, pace_ppm: u64) {
        *self = Hand { since: now, shown: self.at(now), pace_ppm };
    }
}

/// One node's clocks.
#[derive(Clone, Debug)]
pub struct Clock {
    monotonic: Hand,
    wall: Hand,
}

fn pace(random: &mut Random, drift_ppm: u64) -> u64 {
    PACE_PPM - drift_ppm + random.between(0, 2 * drift_ppm)
}

fn wall_about(now: Time, random: &mut Random, off_ms: u64) -> u64 {
    (WALL_MS - off_ms + random.between(0, 2 * off_ms)) * MS + now
}

impl Clock {
    /// Clocks drawn from a seed.
    pub fn draw(random: &mut Random) -> Clock {
        let shown = 1_000_000_000 * random.between(10, 1_000_000);
        let monotonic = Hand { since: 0, shown, pace_ppm: pace(random, DRIFT_PPM) };
        let wall = Hand { since: 0, shown: wall_about(0, random, WALL_OFF_MS), pace_ppm: PACE_PPM };
        Clock { monotonic, wall }
    }

    /// What the monotonic clock shows at a true time.
    pub fn monotonic(&self, now: Time) -> Instant {
        Instant(self.monotonic.at(now))
    }

    /// What the wall clock shows at a true time, in Unix milliseconds.
    pub fn wall_ms(&self, now: Time) -> u64 {
        self.wall.at(now) / MS
    }

    /// How far the wall clock is off, in milliseconds.
    pub fn off_ms(&self, now: Time) -> u64 {
        self.wall_ms(now).abs_diff(WALL_MS + now / MS)
    }

    /// Somebody sets the wall clock.
    pub fn jump(&mut self, now: Time, random: &mut Random) {
        self.wall = Hand { since: now, shown: wall_about(now, random, WALL_OFF_MS), pace_ppm: PACE_PPM };
    }

    /// Somebody sets the wall clock to something else.
    pub fn leap(&mut self, now: Time, random: &mut Random) {
        self.wall = Hand { shown: wall_about(now, random, LEAP_MS), since: now, ..self.wall };
    }

    /// Both clocks change their pace: the monotonic one as much as it may, the wall clock by a lot.
    pub fn drift(&mut self, now: Time, random: &mut Random) {
        self.monotonic.turn(now, pace(random, DRIFT_PPM));
        self.wall.turn(now, pace(random, WALL_DRIFT_PPM));
    }

    /// The wall clock stands still.
    pub fn stop(&mut self, now: Time) {
        self.wall.turn(now, 0);
    }

    /// The wall clock has its right pace again, from what it shows.
    pub fn go_on(&mut self, now: Time) {
        self.wall.turn(now, PACE_PPM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is done to the clocks of a node: leases rest on this.
    #[test]
    fn the_monotonic_clock_keeps_to_its_bound() {
        let mut random = Random::new(3);
        let mut clock = Clock::draw(&mut random);
        for step in 0..1000 {
            let now = step * 100 * MS;
            match random.below(5) {
                0 => clock.jump(now, &mut random),
                1 => clock.leap(now, &mut random),
                2 => clock.drift(now, &mut random),
                3 => clock.stop(now),
                _ => clock.go_on(now),
            }
            let passed = clock.monotonic(now + 100 * MS).0 - clock.monotonic(now).0;
            assert!(passed.abs_diff(100 * MS) <= 100 * MS * DRIFT_PPM / PACE_PPM + 1, "{passed}");
        }
    }

    #[test]
    fn a_wall_clock_stands_still_and_goes_on_from_there() {
        let mut clock = Clock::draw(&mut Random::new(4));
        let before = clock.wall_ms(0);
        clock.stop(1000 * MS);
        assert_eq!(clock.wall_ms(9000 * MS), before + 1000);
        clock.go_on(9000 * MS);
        assert_eq!(clock.wall_ms(9500 * MS), before + 1500);
        assert!(clock.off_ms(9500 * MS) >= 8000 - WALL_OFF_MS);
        clock.leap(9500 * MS, &mut Random::new(6));
        assert!(clock.off_ms(9500 * MS) > WALL_OFF_MS && clock.off_ms(9500 * MS) <= LEAP_MS);
    }
}
