//! The cluster's feature level never goes down, and no start that the map knows runs a build that has less.

use crate::checks::Seat;
use placement::ClusterMap;

/// Compares the newest map with the one before it, and with what runs.
pub fn check(before: &ClusterMap, after: &ClusterMap, seats: &[Option<Seat<'_>>]) -> Result<(), String> {
    if after.level < before.level {
        return Err(format!(
            "the feature level went from {} in version {} to {} in {}",
            before.level, before.version, after.level, after.version
        ));
    }
    for seat in seats.iter().flatten() {
        let identity = seat.process.identity();
        let is_it = after.member(identity.node).is_some_and(|m| m.incarnation == identity.incarnation);
        if is_it && seat.process.level() < after.level {
            return Err(format!(
                "the feature level is {} in version {} of the map, and node {} runs a build that has {}",
                after.level,
                after.version,
                identity.node,
                seat.process.level()
            ));
        }
    }
    Ok(())
}
