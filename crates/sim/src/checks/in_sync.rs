//! Every in-sync copy of the newest map holds all that any copy has shown committed (rules 1, 2 and 7), and so, with
//! [`crate::checks::acknowledged`], every write that was acknowledged at `all`.

use crate::checks::Seat;
use crate::checks::committed::CommittedLogs;
use placement::ClusterMap;
use types::{Epoch, Lsn, PartitionId, Position};

/// Checks the partitions of which more is committed than before, or all where the map has changed.
pub fn check(
    committed: &mut CommittedLogs,
    map_changed: bool,
    map: &ClusterMap,
    seats: &[Option<Seat<'_>>],
) -> Result<(), String> {
    let grown = committed.take_grown();
    if !map_changed {
        return grown.into_iter().try_for_each(|partition| check_one(committed, partition, map, seats));
    }
    let mut settled = (0..map.partitions.len()).filter(|&partition| committed.is_settled(partition));
    settled.try_for_each(|partition| check_one(committed, partition, map, seats))
}

fn check_one(
    committed: &CommittedLogs,
    partition: usize,
    map: &ClusterMap,
    seats: &[Option<Seat<'_>>],
) -> Result<(), String> {
    let Some(state) = map.partitions.get(partition) else { return Ok(()) };
    let records = committed.oracle.records(partition);
    let Some(last) = records.last() else { return Ok(()) };
    let end = Position { epoch: Epoch(last.epoch), lsn: Lsn(records.len() as u64) };
    for node in state.in_sync.iter() {
        let Some(seat) = seats[usize::from(node.0) - 1] else { continue };
        let incarnation = map.member(node).map(|member| member.incarnation);
        if incarnation != Some(seat.process.identity().incarnation) {
            continue;
        }
        let copy = seat.process.copy(seat.now, PartitionId(partition as u16));
        // Also one that came back from its disk, and has not heard yet what it is.
        let holds = copy.is_some_and(|copy| copy.log.holds(end) || copy.log.base().lsn > end.lsn);
        if !holds {
            return Err(format!(
                "node {node} is in sync for partition {partition} ({state:?} in version {}) and lacks the \
                 committed {end:?}: its log ends at {:?}",
                map.version,
                copy.map(|copy| (copy.is_here, copy.log.base(), copy.log.last()))
            ));
        }
    }
    Ok(())
}
