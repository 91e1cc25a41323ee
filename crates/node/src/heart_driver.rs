//! The heart of a node, fed with what its shards say of themselves, and its lease published to them.

use crate::published::{Published, View};
use control::{Beat, Heart, HeartConfig, HeartEffects, HeartInput, Identity, Pulse};
use std::sync::Arc;
use std::time::Duration;
use types::Instant;

/// A disk that is at work for the log for so many leases stands still.
const DISK_STALLS: u32 = 4;

/// A node's heart and what it publishes.
pub struct HeartDriver {
    heart: Heart,
    published: Arc<Published>,
    lease: Duration,
    view: View,
}

impl HeartDriver {
    /// A heart that starts to beat at `now`.
    pub fn new(config: HeartConfig, published: Arc<Published>, now: Instant) -> HeartDriver {
        let lease = config.lease;
        HeartDriver { heart: Heart::new(config, now), published, lease, view: View::default() }
    }

    /// Time passes. Called every few milliseconds. `wall_ms` is Unix milliseconds on this machine's wall clock.
    pub fn tick(&mut self, now: Instant, wall_ms: u64) {
        // A shard wakes every few milliseconds even when idle; one that has not for half a lease stands still.
        let stalled = now.since(self.published.oldest_stamp()) > self.lease / 2
            || self.published.log_busy(now) > self.lease * DISK_STALLS;
        let acted_version = self.published.acted_version();
        let keys = self.published.sum(|shard| &shard.keys);
        self.published.stamp_heart(now);
        let voters_since = self.published.voters_since();
        self.heart.tick(now, Pulse { wall_ms, acted_version, stalled, keys, voters_since });
        self.publish();
    }

    /// A heartbeat, or the answer to one.
    pub fn beat(&mut self, now: Instant, wall_ms: u64, from: Identity, beat: Beat) {
        // After the beat has come, and so after it was sent: see the heart.
        self.heart.beat(now, wall_ms, from, beat, self.published.voters_since());
        self.publish();
    }

    /// Word from this node's control machine.
    pub fn input(&mut self, now: Instant, input: HeartInput) {
        self.heart.input(now, input);
    }

    /// What is to be done; the caller empties it.
    pub fn effects(&mut self) -> &mut HeartEffects {
        self.heart.effects()
    }

    fn publish(&mut self) {
        self.published.set_lease_until(self.heart.lease_until());
        if let Some(offset) = self.heart.clock_offset_ms() {
            self.published.set_clock_offset_ms(offset);
        }
        let coordinator = self.heart.coordinator();
        if coordinator != self.view.coordinator || !self.heart.keys().eq(self.view.keys.iter().copied()) {
            self.view = View { coordinator, keys: self.heart.keys().collect() };
            self.published.set_view(self.view.clone());
        }
    }
}
