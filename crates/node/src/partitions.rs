//! A shard's copies of partitions, found by number in one step: every request asks for one.

use crate::run::Waiter;
use replication::Partition;
use types::{PartitionId, ShardId};

/// A shard's copies. Partition `n` belongs to shard `n` modulo the number of shards, and stands at `n` divided by it.
pub(crate) struct Partitions {
    shard: u16,
    shards: u16,
    /// 2^32 divided by `shards`, and a little more: with it a product tells what a division would.
    reciprocal: u64,
    places: Vec<Option<Box<Partition<Waiter>>>>,
}

impl Partitions {
    pub fn new(shard: ShardId, shards: u16) -> Partitions {
        let shards = shards.max(1);
        let reciprocal = (1 << 32) / u64::from(shards) + 1;
        Partitions { shard: shard.0, shards, reciprocal, places: Vec::new() }
    }

    /// Whether a partition's copy, if the node has one, is this shard's.
    pub fn is_ours(&self, id: PartitionId) -> bool {
        self.divided(id).1 == self.shard
    }

    #[inline]
    pub fn get(&self, id: PartitionId) -> Option<&Partition<Waiter>> {
        self.places.get(self.place(id)?)?.as_deref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition<Waiter>> {
        let place = self.place(id)?;
        self.places.get_mut(place)?.as_deref_mut()
    }

    /// A copy of a partition that is ours.
    pub fn insert(&mut self, partition: Partition<Waiter>) {
        let Some(place) = self.place(partition.id()) else { return };
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(Box::new(partition));
    }

    /// By number.
    pub fn iter(&self) -> impl Iterator<Item = &Partition<Waiter>> {
        self.places.iter().flatten().map(|partition| &**partition)
    }

    /// By number, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Partition<Waiter>> {
        self.places.iter_mut().flatten().map(|partition| &mut **partition)
    }

    /// All, by number, beginning with the first that has this number or a greater one.
    pub fn from(&self, id: PartitionId) -> impl Iterator<Item = &Partition<Waiter>> {
        let first = usize::from(id.0).div_ceil(usize::from(self.shards)).min(self.places.len());
        let (before, behind) = self.places.split_at(first);
        behind.iter().chain(before).flatten().map(|partition| &**partition)
    }

    #[inline]
    fn place(&self, id: PartitionId) -> Option<usize> {
        if self.shards == 1 {
            return Some(usize::from(id.0));
        }
        let (place, shard) = self.divided(id);
        (shard == self.shard).then_some(usize::from(place))
    }

    /// A partition's number divided by the number of shards, and what is left over.
    #[inline]
    fn divided(&self, id: PartitionId) -> (u16, u16) {
        // As exact as a division: what the reciprocal has too much, times the number, stays below 2^32.
        let quotient = ((u64::from(id.0) * self.reciprocal) >> 32) as u16;
        (quotient, id.0 - quotient * self.shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_found_where_a_division_says() {
        for shards in (1..=300).chain([1024, 4095, 16384, 32768, 65535]) {
            let partitions = Partitions::new(ShardId(0), shards);
            for id in (0..=u16::MAX).step_by(if shards < 20 { 1 } else { 17 }).chain([u16::MAX]) {
                assert_eq!(partitions.divided(PartitionId(id)), (id / shards, id % shards), "{id} {shards}");
            }
        }
    }
}
