//! From where on a shard's log is needed, for each of its partitions. Asked for with every record that gets durable, so it is
//! looked up in one step.

use types::PartitionId;

/// An offset of the log for each partition that has entries which its snapshot lacks.
#[derive(Debug, Default)]
pub(crate) struct NeededFrom {
    /// By the partition's number; [`NONE`] where nothing is needed.
    offsets: Vec<u64>,
}

const NONE: u64 = u64::MAX;

impl NeededFrom {
    /// Notes that the log is needed from here on, unless more of it already is.
    #[inline]
    pub fn note(&mut self, partition: PartitionId, offset: u64) {
        match self.offsets.get_mut(usize::from(partition.0)) {
            Some(known) if *known != NONE => {}
            Some(known) => *known = offset,
            None => self.set(partition, Some(offset)),
        }
    }

    /// Whether anything of the log is needed.
    pub fn contains(&self, partition: PartitionId) -> bool {
        self.offsets.get(usize::from(partition.0)).is_some_and(|&offset| offset != NONE)
    }

    /// A snapshot was made: the log is needed from here on, or not any more.
    pub fn set(&mut self, partition: PartitionId, offset: Option<u64>) {
        let at = usize::from(partition.0);
        if self.offsets.len() <= at {
            self.offsets.resize(at + 1, NONE);
        }
        self.offsets[at] = offset.unwrap_or(NONE);
    }

    /// The partitions of which anything is needed, by number.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.each().map(|(partition, _)| partition)
    }

    /// The partition that needs most of the log, and from where on.
    pub fn oldest(&self) -> Option<(PartitionId, u64)> {
        self.each().min_by_key(|&(_, offset)| offset)
    }

    fn each(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        let numbered = (0..).map(PartitionId).zip(self.offsets.iter().copied());
        numbered.filter(|&(_, offset)| offset != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offset_stays_until_a_snapshot_is_made() {
        let mut needed = NeededFrom::default();
        assert!(needed.oldest().is_none() && !needed.contains(PartitionId(3)));
        for (partition, offset) in [(7, 50), (3, 60), (7, 70), (9, 70)] {
            needed.note(PartitionId(partition), offset);
        }
        assert_eq!(needed.oldest(), Some((PartitionId(7), 50)));
        assert_eq!(needed.partitions().map(|id| id.0).collect::<Vec<_>>(), [3, 7, 9]);
        needed.set(PartitionId(7), Some(65));
        assert_eq!(needed.oldest(), Some((PartitionId(3), 60)));
        needed.set(PartitionId(3), None);
        assert!(!needed.contains(PartitionId(3)) && needed.contains(PartitionId(7)));
        needed.note(PartitionId(3), 80);
        needed.set(PartitionId(7), None);
        assert_eq!(needed.oldest(), Some((PartitionId(9), 70)));
    }
}
