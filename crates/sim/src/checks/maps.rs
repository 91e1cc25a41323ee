//! One cluster map a version, and one configuration an epoch: whoever knows a version knows the same map, and from
//! version to version epochs only grow, by one configuration at a time.

use crate::checks::Seat;
use placement::{ClusterMap, PartitionState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The map that was the newest, and the one that is now.
pub type Step = (Arc<ClusterMap>, Arc<ClusterMap>);

/// Every map that any node has known.
#[derive(Default)]
pub struct Maps {
    known: BTreeMap<u64, Arc<ClusterMap>>,
    newest: Arc<ClusterMap>,
    seen: BTreeMap<usize, Arc<ClusterMap>>,
    /// How often a primary has handed over to its heir.
    pub hand_overs: u64,
}

impl Maps {
    /// The newest map that any node has known. It was committed, or nobody would know it.
    pub fn newest(&self) -> &Arc<ClusterMap> {
        &self.newest
    }

    /// Looks at the map of a node. Where it is the newest so far: the one before it, and it.
    pub fn look(&mut self, seat: &Seat<'_>) -> Result<Option<Step>, String> {
        // A lone voter that cannot sync has decided something that nobody will ever know.
        if seat.process.has_failed() {
            return Ok(None);
        }
        let map = seat.process.map();
        if self.seen.get(&seat.node).is_some_and(|seen| Arc::ptr_eq(seen, map)) {
            return Ok(None);
        }
        self.seen.insert(seat.node, map.clone());
        match self.known.get(&map.version) {
            Some(known) if known != map => {
                return Err(format!("version {} of the map is two maps: {known:?} and {map:?}", map.version));
            }
            Some(_) => return Ok(None),
            None => {}
        }
        let before = self.known.range(..map.version).next_back().map(|(_, map)| map.clone());
        let after = self.known.range(map.version..).next().map(|(_, map)| map.clone());
        if let Some(before) = before {
            follows(&before, map)?;
        }
        if let Some(after) = after {
            follows(map, &after)?;
        }
        self.known.insert(map.version, map.clone());
        if map.version <= self.newest.version {
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.newest, map.clone());
        self.hand_overs += hand_overs(&before, map);
        Ok(Some((before, map.clone())))
    }
}

/// Heirs that became primary while the old primary kept its seat.
fn hand_overs(before: &ClusterMap, after: &ClusterMap) -> u64 {
    let released = |(old, new): &(&PartitionState, &PartitionState)| {
        old.heir.is_some()
            && new.primary == old.heir
            && old.primary.is_some_and(|primary| new.in_sync.contains(primary))
    };
    before.partitions.iter().zip(&after.partitions).filter(released).count() as u64
}

fn follows(before: &ClusterMap, after: &ClusterMap) -> Result<(), String> {
    for ((id, old), (_, new)) in before.each_partition().zip(after.each_partition()) {
        if new.epoch < old.epoch || new.epoch == old.epoch && new != old && new.epoch.0 > 0 {
            return Err(format!(
                "partition {id}: {old:?} in version {} became {new:?} in {}",
                before.version, after.version
            ));
        }
    }
    let both = before.members.iter().filter_map(|old| Some((old, after.member(old.id)?)));
    for (old, new) in both {
        if new.incarnation < old.incarnation {
            return Err(format!("node {} went back from {old:?} to {new:?}", old.id));
        }
    }
    Ok(())
}
