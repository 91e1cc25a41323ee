//! RANDOMKEY over many partitions: all say how many keys they have, one is chosen, as likely as it has many, and asked for
//! a key. Where it has none to show any more (their time had come), another is chosen among the rest; when all have
//! been tried there is no key.

use crate::collect::Collector;
use crate::run::{Origin, OwnedTask, Task};
use crate::shard::Shard;
use bytes::Bytes;
use command::Reply;
use types::PartitionId;

#[derive(Debug)]
pub(crate) struct RandomKey {
    pub task: OwnedTask,
    /// Who is asked, and how many keys they have: 0 where they have none, or none to show.
    partitions: Vec<PartitionId>,
    counts: Vec<Option<u64>>,
    missing: usize,
    /// Drawn when the request came.
    random: u64,
    /// Which of them was chosen.
    chosen: Option<usize>,
}

/// The next number that looks random: SplitMix64 (Steele, Lea, Flood 2014).
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl RandomKey {
    /// One of the partitions, as likely as it has many keys. None where there is no key.
    fn choose(&mut self) -> Option<usize> {
        let total: u64 = self.counts.iter().flatten().sum();
        let mut place = ((u128::from(next(&mut self.random)) * u128::from(total)) >> 64) as u64;
        self.counts.iter().position(|count| {
            let count = count.unwrap_or(0);
            let is_here = place < count;
            place = place.saturating_sub(count);
            is_here
        })
    }
}

impl Shard {
    /// RANDOMKEY: at the door for cluster-aware clients among the partitions of which this node is primary.
    pub(crate) fn random_key(&mut self, task: &Task<'_>) {
        let me = self.config.identity.node;
        let map = self.context.map.clone();
        let partitions: Vec<PartitionId> = map
            .each_partition()
            .filter(|(_, state)| !task.redirects || state.primary == Some(me))
            .map(|(id, _)| id)
            .collect();
        if partitions.is_empty() {
            self.hand_over(task.origin, Reply::Null, None, None);
            return;
        }
        // The seed is secret, and no two requests have one number at one time.
        let drawn = [self.context.now.0.to_le_bytes(), self.next_collector.to_le_bytes()].concat();
        let choice = RandomKey {
            task: OwnedTask { redirects: false, ..task.kept() },
            counts: vec![None; partitions.len()],
            missing: partitions.len(),
            random: self.hasher.hash(&drawn),
            chosen: None,
            partitions: partitions.clone(),
        };
        let whole = choice.task.clone();
        let collector = self.new_collector(Collector::RandomKey(choice));
        for (index, id) in partitions.into_iter().enumerate() {
            self.start(id, OwnedTask { origin: Origin::Part { collector, index }, ..whole.clone() });
        }
    }

    /// A partition has said how many keys it has, or which.
    pub(crate) fn random_key_part(&mut self, collector: u64, index: usize, reply: Reply<'static>) {
        let Some(Collector::RandomKey(choice)) = self.collectors.get_mut(&collector) else { return };
        match (reply, choice.chosen) {
            (Reply::Integer(count), None) => {
                if choice.counts[index].replace(u64::try_from(count).unwrap_or(0)).is_none() {
                    choice.missing -= 1;
                }
                if choice.missing > 0 {
                    return;
                }
            }
            (Reply::Null, Some(chosen)) => choice.counts[chosen] = Some(0),
            (Reply::Integer(_), Some(_)) => return,
            // A key, or an error: either is the reply.
            (reply, _) => return self.random_key_done(collector, reply),
        }
        choice.chosen = choice.choose();
        let Some(chosen) = choice.chosen else { return self.random_key_done(collector, Reply::Null) };
        let number = next(&mut choice.random).to_string();
        let (id, task) = (choice.partitions[chosen], choice.task.clone());
        let args = vec![Bytes::from_static(b"randomkey"), Bytes::from(number)];
        self.start(id, OwnedTask { args, origin: Origin::Part { collector, index: chosen }, ..task });
    }

    fn random_key_done(&mut self, collector: u64, reply: Reply<'static>) {
        if let Some(Collector::RandomKey(choice)) = self.collectors.remove(&collector) {
            self.hand_over(choice.task.origin, reply, None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Instant;
    use types::settings::{ReadLevel, WriteLevel};

    fn choice(counts: &[u64], random: u64) -> RandomKey {
        let task = OwnedTask {
            command: command::lookup(b"randomkey").unwrap(),
            args: Vec::new(),
            read_level: ReadLevel::default(),
            write_level: WriteLevel::default(),
            request: None,
            origin: Origin::Part { collector: 0, index: 0 },
            deadline: Instant(0),
            redirects: false,
        };
        RandomKey {
            task,
            partitions: (0..counts.len()).map(|id| PartitionId(id as u16)).collect(),
            counts: counts.iter().map(|&count| Some(count)).collect(),
            missing: 0,
            random,
            chosen: None,
        }
    }

    #[test]
    fn partitions_are_chosen_by_their_sizes() {
        let mut choice = choice(&[0, 10, 0, 30, 60, 0], 1);
        let mut chosen = [0; 6];
        for _ in 0..10_000 {
            chosen[choice.choose().expect("there are keys")] += 1;
        }
        assert_eq!([chosen[0], chosen[2], chosen[5]], [0, 0, 0]);
        for (times, expected) in [(chosen[1], 1000), (chosen[3], 3000), (chosen[4], 6000)] {
            assert!((expected - 200..expected + 200).contains(&times), "{chosen:?}");
        }
    }

    #[test]
    fn without_keys_nothing_is_chosen() {
        assert_eq!(choice(&[0, 0], 7).choose(), None);
        assert_eq!(choice(&[u64::MAX >> 1, 1], 7).choose(), Some(0));
    }
}
