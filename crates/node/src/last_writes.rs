//! For WAIT: what each connection wrote last to each partition.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use types::{PartitionId, Position};

/// Partitions of one connection that are looked for one by one.
const FEW: usize = 8;

/// What each connection wrote last to each partition.
#[derive(Default)]
pub(crate) struct LastWrites {
    by_connection: HashMap<u64, Writes, BuildHasherDefault<Mixed>>,
}

/// A connection that writes to few partitions has a short list; one that writes to many, a place for each.
enum Writes {
    Few(Vec<(PartitionId, Position)>),
    Many(Vec<Position>),
}

impl LastWrites {
    pub fn note(&mut self, connection: u64, partitions: u16, id: PartitionId, position: Position) {
        let writes = self.by_connection.entry(connection).or_insert_with(|| Writes::Few(Vec::new()));
        if let Writes::Few(few) = writes {
            if let Some(entry) = few.iter_mut().find(|(other, _)| *other == id) {
                entry.1 = position;
                return;
            }
            if few.len() < FEW {
                few.push((id, position));
                return;
            }
            let mut many = vec![Position::default(); usize::from(partitions)];
            for &(id, position) in few.iter() {
                if let Some(place) = many.get_mut(usize::from(id.0)) {
                    *place = position;
                }
            }
            *writes = Writes::Many(many);
        }
        if let Writes::Many(many) = writes
            && let Some(place) = many.get_mut(usize::from(id.0))
        {
            *place = position;
        }
    }

    /// By partition.
    pub fn of(&self, connection: u64) -> Vec<(PartitionId, Position)> {
        match self.by_connection.get(&connection) {
            None => Vec::new(),
            Some(Writes::Few(few)) => {
                let mut few = few.clone();
                few.sort_unstable();
                few
            }
            Some(Writes::Many(many)) => {
                let written = |(at, &position): (usize, &Position)| (PartitionId(at as u16), position);
                many.iter().enumerate().map(written).filter(|(_, at)| *at != Position::default()).collect()
            }
        }
    }

    pub fn forget(&mut self, connection: u64) {
        self.by_connection.remove(&connection);
    }
}

/// Connections' keys are this node's own numbers: one multiplication spreads them.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(self.0.rotate_left(8) ^ u64::from(byte)));
    }
    fn write_u64(&mut self, number: u64) {
        let wide = u128::from(number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (wide as u64) ^ (wide >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Epoch, Lsn};

    #[test]
    fn the_last_write_to_each_partition_counts() {
        let mut writes = LastWrites::default();
        let at = |lsn: u64| Position { epoch: Epoch(1), lsn: Lsn(lsn) };
        for partitions in [3u16, 40] {
            for lsn in 1..200u64 {
                writes.note(7, 64, PartitionId((lsn % u64::from(partitions)) as u16), at(lsn));
            }
            let expected: Vec<_> = (0..partitions)
                .map(|id| {
                    let last = (1..200).rev().find(|lsn| lsn % u64::from(partitions) == u64::from(id));
                    (PartitionId(id), at(last.unwrap()))
                })
                .collect();
            assert_eq!(writes.of(7), expected);
            assert_eq!(writes.of(8), []);
            writes.forget(7);
            assert_eq!(writes.of(7), []);
        }
    }
}
