//! What is committed stays: no two copies ever show different records committed at one place, and every in-sync copy
//! of the newest map holds all that any copy has shown committed (rules 1, 2, 7).

use crate::checks::Seat;
use crate::oracle::{Committed, Oracle};
use placement::ClusterMap;
use types::{Epoch, Lsn, Position};

/// The oracle, and how far each copy has been compared with it.
pub struct CommittedLogs {
    /// What is committed.
    pub oracle: Oracle,
    compared: Vec<Vec<u64>>,
    grown: Vec<usize>,
    partitions: usize,
}

impl CommittedLogs {
    /// Nothing is committed.
    pub fn new(nodes: usize, partitions: usize) -> CommittedLogs {
        let compared = vec![vec![0; partitions]; nodes];
        CommittedLogs { oracle: Oracle::new(partitions), compared, grown: Vec::new(), partitions }
    }

    /// The process of a node is gone.
    pub fn gone(&mut self, node: usize) {
        self.compared[node] = vec![0; self.partitions];
    }

    /// Compares what a node's copies newly show committed.
    pub fn look(&mut self, seat: &Seat<'_>) -> Result<(), String> {
        for copy in seat.process.copies(seat.now) {
            let compared = &mut self.compared[seat.node][copy.partition];
            if copy.commit == *compared {
                continue;
            }
            let from = if copy.commit < *compared { 0 } else { *compared };
            for record in copy.log.range(Lsn(from + 1), Lsn(copy.commit)) {
                let committed = Committed {
                    epoch: record.position.epoch.0,
                    time_ms: record.time_ms,
                    body: record.body.to_vec(),
                };
                let before = self.oracle.records(copy.partition).len();
                self.oracle
                    .witness(copy.partition, record.position.lsn.0, committed)
                    .map_err(|why| format!("node {}: {why}", seat.node + 1))?;
                if self.oracle.records(copy.partition).len() > before {
                    self.grown.push(copy.partition);
                }
            }
            *compared = copy.commit;
        }
        Ok(())
    }

    /// Whether the in-sync copies hold what is committed, of the partitions where either has changed.
    pub fn check(
        &mut self,
        map_changed: bool,
        map: &ClusterMap,
        seats: &[Option<Seat<'_>>],
    ) -> Result<(), String> {
        if map_changed {
            self.grown = (0..map.partitions.len()).collect();
        }
        self.grown.dedup();
        for partition in std::mem::take(&mut self.grown) {
            let Some(state) = map.partitions.get(partition) else { continue };
            let records = self.oracle.records(partition);
            let Some(last) = records.last() else { continue };
            let end = Position { epoch: Epoch(last.epoch), lsn: Lsn(records.len() as u64) };
            for node in state.in_sync.iter() {
                let Some(seat) = seats[usize::from(node.0) - 1] else { continue };
                let incarnation = map.member(node).map(|member| member.incarnation);
                if incarnation != Some(seat.process.identity().incarnation) {
                    continue;
                }
                let copy = seat.process.copy(seat.now, types::PartitionId(partition as u16));
                let holds = copy.is_some_and(|copy| {
                    copy.is_here && (copy.log.holds(end) || copy.log.base().lsn > end.lsn)
                });
                if !holds {
                    return Err(format!(
                        "node {node} is in sync for partition {partition} ({state:?} in version {}) and lacks the \
                         committed {end:?}: its log ends at {:?}",
                        map.version,
                        copy.map(|copy| (copy.is_here, copy.log.base(), copy.log.last()))
                    ));
                }
            }
        }
        Ok(())
    }
}
