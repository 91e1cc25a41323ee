//! How near each node is, by the client's own traffic, and which copy a stale read goes to.
//!
//! A round trip is smoothed as TCP does it (RFC 6298: an eighth of the newest). A node that was never measured counts as
//! nearest, so each is tried; a node that cannot be reached counts as far. Now and then a read goes to any copy, so
//! that one which has become near again is found.

use crate::map::Address;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One of so many stale reads goes to any copy.
const EXPLORES_ONE_IN: u64 = 64;
/// What an unreachable node counts as, and more than any other does.
const FAR_US: u64 = 60_000_000;

/// One node's smoothed round trip in microseconds; 0 before the first.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip(AtomicU64);

impl RoundTrip {
    /// Takes in a measured round trip.
    pub(crate) fn measured(&self, took: Duration) {
        let newest = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, FAR_US - 1);
        // Two threads at once may lose one measurement, which matters little.
        let smoothed = match self.0.load(Ordering::Relaxed) {
            0 | FAR_US => newest,
            before => (before * 7 + newest).div_ceil(8),
        };
        self.0.store(smoothed, Ordering::Relaxed);
    }

    /// It cannot be reached just now.
    pub(crate) fn unreachable(&self) {
        self.0.store(FAR_US, Ordering::Relaxed);
    }

    fn us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The round trips of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Nearness {
    nodes: Mutex<HashMap<Address, Arc<RoundTrip>>>,
}

impl Nearness {
    /// Where a node's round trips are gathered.
    pub(crate) fn of(&self, address: &Address) -> Arc<RoundTrip> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(address.clone()).or_default().clone()
    }

    /// Forgets all but some.
    pub(crate) fn keep(&self, wanted: impl Fn(&Address) -> bool) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| wanted(address));
    }

    /// The nearest of some nodes, or now and then any of them. `dice` is any random number.
    pub(crate) fn choose<'a>(&self, nodes: &'a [Address], dice: u64) -> Option<&'a Address> {
        if nodes.len() < 2 {
            return nodes.first();
        }
        let known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let us: Vec<u64> = nodes.iter().map(|node| known.get(node).map_or(0, |trip| trip.us())).collect();
        nodes.get(nearest(&us, dice))
    }

    /// Whether a node could not be reached when it was last tried.
    pub(crate) fn is_far(&self, node: &Address) -> bool {
        let known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(node).is_some_and(|trip| trip.us() == FAR_US)
    }
}

/// Which of several round trips to take. Nodes that are alike, such as those not measured yet, take turns by the dice.
fn nearest(us: &[u64], dice: u64) -> usize {
    let count = us.len().max(1);
    let any = (dice / EXPLORES_ONE_IN) as usize % count;
    if dice.is_multiple_of(EXPLORES_ONE_IN) {
        return any;
    }
    let turned = (0..count).map(|step| (any + step) % count);
    turned.min_by_key(|&at| us.get(at).copied().unwrap_or_default()).unwrap_or_default()
}

/// Random numbers for back-off and exploration (SplitMix64, Steele and others 2014), seeded by the system.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new() -> Dice {
        Dice(AtomicU64::new(RandomState::new().hash_one(0u8)))
    }

    pub(crate) fn roll(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_taken_and_others_are_tried_now_and_then() {
        let dice = Dice::new();
        let mut taken = [0u32; 3];
        for _ in 0..64_000 {
            taken[nearest(&[300, 100, 200], dice.roll())] += 1;
        }
        // One in 64 goes to any of the three.
        assert!(taken[1] > 62_000 && taken[0] > 100 && taken[2] > 100, "{taken:?}");
        let mut untried = [0u32; 3];
        (0..6_400).for_each(|_| untried[nearest(&[0, 100, 0], dice.roll())] += 1);
        assert!(untried[0] > 2_000 && untried[2] > 2_000 && untried[1] < 100, "{untried:?}");
    }

    #[test]
    fn round_trips_are_smoothed_and_the_unreachable_are_far() {
        let nearness = Nearness::default();
        let nodes: Vec<Address> = vec!["a:1".into(), "b:1".into()];
        let (a, b) = (nearness.of(&nodes[0]), nearness.of(&nodes[1]));
        a.measured(Duration::from_micros(800));
        b.measured(Duration::from_micros(500));
        assert_eq!(nearness.choose(&nodes, 1).map(|node| &**node), Some("b:1"));
        b.measured(Duration::from_micros(4500));
        assert_eq!(b.us(), 1000);
        assert_eq!(nearness.choose(&nodes, 1).map(|node| &**node), Some("a:1"));
        a.unreachable();
        assert!(nearness.is_far(&nodes[0]));
        assert_eq!(nearness.choose(&nodes, 1).map(|node| &**node), Some("b:1"));
        a.measured(Duration::from_micros(7));
        assert_eq!(a.us(), 7, "what it was before it was lost counts no more");
        nearness.keep(|node| **node == *"b:1");
        assert!(!Arc::ptr_eq(&nearness.of(&nodes[0]), &a));
    }
}
