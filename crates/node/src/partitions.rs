//! A shard's copies of partitions, found by number in one step: every request asks for one.

use crate::run::Waiter;
use replication::Partition;
use types::{PartitionId, ShardId};

/// A shard's copies. Partition `n` belongs to shard `n` modulo the number of shards, and stands at `n` divided by it.
pub(crate) struct Partitions {
    shard: u16,
    shards: u16,
    places: Vec<Option<Box<Partition<Waiter>>>>,
}

impl Partitions {
    pub fn new(shard: ShardId, shards: u16) -> Partitions {
        Partitions { shard: shard.0, shards: shards.max(1), places: Vec::new() }
    }

    /// Whether a partition's copy, if the node has one, is this shard's.
    pub fn is_ours(&self, id: PartitionId) -> bool {
        id.0 % self.shards == self.shard
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
        self.is_ours(id).then(|| usize::from(id.0 / self.shards))
    }
}
