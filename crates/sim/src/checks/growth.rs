//! What only grows: the epoch that a copy knows, and a primary's commit lsn, log and partition time within its reign.

use crate::checks::Seat;

#[derive(Clone, Copy, Default)]
struct Seen {
    epoch: u64,
    reign: u64,
    commit: u64,
    tail: u64,
    time_ms: u64,
}

/// What each copy showed last.
pub struct Growth {
    seen: Vec<Vec<Seen>>,
    partitions: usize,
}

impl Growth {
    /// Nothing has been seen.
    pub fn new(nodes: usize, partitions: usize) -> Growth {
        Growth { seen: vec![vec![Seen::default(); partitions]; nodes], partitions }
    }

    /// The process of a node is gone, and what it knew.
    pub fn gone(&mut self, node: usize) {
        self.seen[node] = vec![Seen::default(); self.partitions];
    }

    /// Looks at a node's copies.
    pub fn look(&mut self, seat: &Seat<'_>) -> Result<(), String> {
        for copy in seat.process.copies(seat.now) {
            let seen = &mut self.seen[seat.node][copy.partition];
            let tail = copy.log.last().lsn.0;
            let time_ms = copy.log.get(copy.log.last().lsn).map_or(seen.time_ms, |record| record.time_ms);
            let fell = |what, from, to| {
                let (partition, node) = (copy.partition, seat.node + 1);
                Err(format!("the {what} of partition {partition} on node {node} fell from {from} to {to}"))
            };
            if copy.epoch < seen.epoch {
                return fell("epoch", seen.epoch, copy.epoch);
            }
            if copy.is_primary && copy.primary_since == seen.reign {
                if copy.commit < seen.commit {
                    return fell("commit lsn", seen.commit, copy.commit);
                }
                if tail < seen.tail {
                    return fell("log", seen.tail, tail);
                }
                if time_ms < seen.time_ms {
                    return fell("time", seen.time_ms, time_ms);
                }
            }
            let reign = if copy.is_primary { copy.primary_since } else { 0 };
            *seen = Seen { epoch: copy.epoch, reign, commit: copy.commit, tail, time_ms };
        }
        Ok(())
    }
}
