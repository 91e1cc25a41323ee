//! A backup's table holds exactly what is committed, as far as it knows: no more and no less (rule 13). A primary's
//! does where nothing is uncommitted.

use crate::checks::Seat;
use crate::checks::committed::CommittedLogs;
use crate::oracle::Held;
use std::collections::BTreeMap;
use storage::Value;

/// Compares every whole copy of a node with the state that the committed records make.
pub fn check(committed: &CommittedLogs, seat: &Seat<'_>) -> Result<(), String> {
    for copy in seat.process.copies(seat.now) {
        let tail = copy.log.last().lsn.0;
        let is_whole = copy.is_here && !copy.is_incomplete && !(copy.is_primary && copy.commit < tail);
        if !is_whole || committed.is_doubtful(&copy) {
            continue;
        }
        let mut table: BTreeMap<Vec<u8>, Held> = BTreeMap::new();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = copy.table.scan(at, 64, &mut |entry| {
                let Value::String(value) = entry.value;
                table.insert(entry.key.to_vec(), (value.to_vec(), entry.expire_at_ms));
            });
        }
        let expected = committed.oracle.state(copy.partition, copy.commit)?;
        if table != expected {
            let wrong: Vec<String> = table
                .iter()
                .filter(|(key, held)| expected.get(*key) != Some(held))
                .chain(expected.iter().filter(|(key, held)| table.get(*key) != Some(held)))
                .map(|(key, held)| format!("{} = {held:?}", String::from_utf8_lossy(key)))
                .collect();
            return Err(format!(
                "the table of partition {} on node {} (primary: {}) is not what is committed up to {}: {wrong:?}",
                copy.partition,
                seat.node + 1,
                copy.is_primary,
                copy.commit
            ));
        }
    }
    Ok(())
}
