//! RANDOMKEY over many partitions: all say how many keys they have, one is chosen, as likely as it has many, and asked for
//! a key. Where it has none to show (they were removed since, or their time had come), another is chosen among the rest.
//!
//! Asking every partition is dear, so what they said serves every RANDOMKEY of the shard for a while
//! ([`COUNTS_LAST`]), and those that come while the partitions are asked wait for the same answers. Only a choice may rest on
//! old numbers, never the reply that there is no key: for that they are counted after the request came.

use crate::collect::Collector;
use crate::request::in_scope;
use crate::run::{Origin, OwnedTask, Task};
use crate::shard::Shard;
use bytes::Bytes;
use command::{CommandError, Reply, Scope};
use std::sync::Arc;
use std::time::Duration;
use types::settings::ReadLevel;
use types::{Instant, PartitionId};

/// How long counts serve: a key that is younger may not be chosen yet, and a partition that grew is chosen too rarely.
const COUNTS_LAST: Duration = Duration::from_secs(1);

/// How many keys each partition has, or why that is not known.
type Counts = Arc<[Result<u64, CommandError>]>;

/// What the RANDOMKEYs of a shard share, at one read level.
#[derive(Debug, Default)]
pub(crate) struct KeyCounts {
    /// How many times the partitions were asked; the last time's number.
    begun: u64,
    under_way: bool,
    /// Those that wait for the answers.
    waiting: Vec<u64>,
    last: Option<Counted>,
}

#[derive(Clone, Debug)]
struct Counted {
    number: u64,
    at: Instant,
    counts: Counts,
}

/// The partitions are being asked.
#[derive(Debug)]
pub(crate) struct Count {
    pub task: OwnedTask,
    number: u64,
    counts: Vec<Option<Result<u64, CommandError>>>,
    missing: usize,
}

/// One RANDOMKEY.
#[derive(Debug)]
pub(crate) struct RandomKey {
    pub task: OwnedTask,
    /// Whose partitions.
    scope: Scope,
    /// The last count that had begun when it came.
    came_after: u64,
    /// What it chooses by.
    counted: Option<Counted>,
    /// Those that had nothing to show.
    barren: Vec<PartitionId>,
    random: u64,
}

/// The next number that looks random: SplitMix64 (Steele, Lea, Flood 2014).
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// One of many, each as likely as its weight says. None where all weigh nothing.
fn choose(random: u64, mut weights: impl Iterator<Item = u64> + Clone) -> Option<usize> {
    let total: u64 = weights.clone().sum();
    let mut place = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    weights.position(|weight| {
        let is_here = place < weight;
        place = place.saturating_sub(weight);
        is_here
    })
}

impl Shard {
    fn counts_of(&mut self, level: ReadLevel) -> &mut KeyCounts {
        &mut self.key_counts[usize::from(level == ReadLevel::Stale)]
    }

    /// RANDOMKEY: at the door for cluster-aware clients among the partitions of which this node is primary.
    pub(crate) fn random_key(&mut self, scope: Scope, task: &Task<'_>) {
        // The seed is secret, and no two requests have one number at one time.
        let drawn = [self.context.now.0.to_le_bytes(), self.next_collector.to_le_bytes()].concat();
        let random = self.hasher.hash(&drawn);
        let (now, counts) = (self.context.now, self.counts_of(task.read_level));
        let choice = RandomKey {
            task: OwnedTask { redirects: false, ..task.kept() },
            scope,
            came_after: counts.begun,
            counted: counts.last.clone().filter(|last| now.since(last.at) < COUNTS_LAST),
            barren: Vec::new(),
            random,
        };
        let collector = self.new_collector(Collector::RandomKey(choice));
        self.choose_key(collector);
    }

    /// Asks one partition for a key, or waits until it is known which.
    fn choose_key(&mut self, collector: u64) {
        let me = self.config.identity.node;
        let map = self.context.map.clone();
        let Some(Collector::RandomKey(choice)) = self.collectors.get_mut(&collector) else { return };
        let task = choice.task.clone();
        let Some(Counted { number, counts, .. }) = choice.counted.clone() else {
            return self.wait_for_counts(collector, &task);
        };
        let scope = choice.scope;
        let may = |id: PartitionId| map.partition(id).is_some_and(|state| in_scope(scope, me, state));
        let partitions = (0..counts.len() as u16).map(PartitionId);
        let error = partitions.clone().zip(&*counts).find_map(|(id, count)| match count {
            Err(error) if may(id) => Some(error.clone()),
            _ => None,
        });
        if let Some(error) = error {
            return self.random_key_done(collector, Reply::Error(error));
        }
        let drawn = next(&mut choice.random);
        let barren = &choice.barren;
        let weights = partitions.zip(&*counts).map(|(id, count)| match count {
            Ok(count) if may(id) && !barren.contains(&id) => *count,
            _ => 0,
        });
        let Some(chosen) = choose(drawn, weights) else {
            if number > choice.came_after {
                return self.random_key_done(collector, Reply::Null);
            }
            choice.counted = None;
            choice.barren.clear();
            return self.wait_for_counts(collector, &task);
        };
        let args = vec![Bytes::from_static(b"randomkey"), Bytes::from(next(&mut choice.random).to_string())];
        let origin = Origin::Part { collector, index: chosen };
        self.start(PartitionId(chosen as u16), OwnedTask { args, origin, ..task });
    }

    /// A partition has chosen a key, or has none.
    pub(crate) fn random_key_part(&mut self, collector: u64, index: usize, reply: Reply<'static>) {
        let Some(Collector::RandomKey(choice)) = self.collectors.get_mut(&collector) else { return };
        if reply == Reply::Null {
            choice.barren.push(PartitionId(index as u16));
            return self.choose_key(collector);
        }
        self.random_key_done(collector, reply);
    }

    fn random_key_done(&mut self, collector: u64, reply: Reply<'static>) {
        if let Some(Collector::RandomKey(choice)) = self.collectors.remove(&collector) {
            self.hand_over(choice.task.origin, reply, None, None);
        }
    }

    /// Lets a request wait for the next answers, and asks all partitions unless that is under way.
    fn wait_for_counts(&mut self, collector: u64, task: &OwnedTask) {
        let deadline = self.context.now + self.config.settings.request_timeout();
        let partitions = self.partition_count();
        let counts = self.counts_of(task.read_level);
        counts.waiting.push(collector);
        if std::mem::replace(&mut counts.under_way, true) {
            return;
        }
        counts.begun += 1;
        let number = counts.begun;
        // It is nobody's: whoever asked may go.
        let origin = Origin::Part { collector: 0, index: 0 };
        let task =
            OwnedTask { args: vec![Bytes::from_static(b"randomkey")], origin, deadline, ..task.clone() };
        let collector = self.new_collector(Collector::Count(Count {
            task: task.clone(),
            number,
            counts: vec![None; usize::from(partitions)],
            missing: usize::from(partitions),
        }));
        for index in 0..partitions {
            let origin = Origin::Part { collector, index: usize::from(index) };
            self.start(PartitionId(index), OwnedTask { origin, ..task.clone() });
        }
    }

    /// A partition has said how many keys it has.
    pub(crate) fn count_part(&mut self, collector: u64, index: usize, reply: Reply<'static>) {
        let now = self.context.now;
        let Some(Collector::Count(count)) = self.collectors.get_mut(&collector) else { return };
        let said = match reply {
            Reply::Integer(keys) => Ok(u64::try_from(keys).unwrap_or(0)),
            Reply::Error(error) => Err(error),
            _ => Ok(0),
        };
        if count.counts[index].replace(said).is_none() {
            count.missing -= 1;
        }
        if count.missing > 0 {
            return;
        }
        let Some(Collector::Count(count)) = self.collectors.remove(&collector) else { return };
        let said: Counts = count.counts.into_iter().flatten().collect();
        let counted = Counted { number: count.number, at: now, counts: said };
        let counts = self.counts_of(count.task.read_level);
        counts.under_way = false;
        // What failed is asked again by the next.
        counts.last = counted.counts.iter().all(Result::is_ok).then(|| counted.clone());
        for collector in std::mem::take(&mut counts.waiting) {
            if let Some(Collector::RandomKey(choice)) = self.collectors.get_mut(&collector) {
                choice.counted = Some(counted.clone());
                self.choose_key(collector);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heavy_are_chosen_more_often() {
        let weights = [0, 10, 0, 30, 60, 0];
        let (mut random, mut chosen) = (1, [0; 6]);
        for _ in 0..10_000 {
            chosen[choose(next(&mut random), weights.into_iter()).expect("something weighs")] += 1;
        }
        assert_eq!([chosen[0], chosen[2], chosen[5]], [0, 0, 0]);
        for (times, expected) in [(chosen[1], 1000), (chosen[3], 3000), (chosen[4], 6000)] {
            assert!((expected - 200..expected + 200).contains(&times), "{chosen:?}");
        }
    }

    #[test]
    fn nothing_is_chosen_where_nothing_weighs() {
        assert_eq!(choose(u64::MAX, [0, 0].into_iter()), None);
        assert_eq!(choose(u64::MAX, [].into_iter()), None);
        assert_eq!(choose(u64::MAX, [1, 0].into_iter()), Some(0));
        assert_eq!(choose(0, [0, 1].into_iter()), Some(1));
    }
}
