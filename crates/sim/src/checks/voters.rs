//! The voters change in two entries: from the old ones to old and new together, and from there to the new ones. A seat in the
//! consensus group is one data directory's for good (rules 6 and 16).
//!
//! Only maps that follow each other by one entry of the control plane's log tell the first.

use placement::ClusterMap;
use std::collections::BTreeMap;

/// Who has voted so far.
#[derive(Default)]
pub struct Voters {
    /// How often others became the voters.
    pub changes: usize,
    /// The directory of each seat.
    directories: BTreeMap<u64, u64>,
}

impl Voters {
    /// Compares the newest map with the one before it.
    pub fn look(&mut self, before: &ClusterMap, after: &ClusterMap) -> Result<(), String> {
        for seat in after.seats.iter().filter(|seat| seat.directory != 0) {
            let known = *self.directories.entry(seat.id()).or_insert(seat.directory);
            if known != seat.directory {
                return Err(format!("{seat:?} was that of directory {known}, in version {}", after.version));
            }
        }
        let seated = |node| after.seats.iter().filter(|seat| seat.node == node).count() == 1;
        if let Some(node) = after.voters.iter().chain(&after.old_voters).find(|node| !seated(**node)) {
            return Err(format!(
                "node {node} votes in version {} without one seat: {:?}",
                after.version, after.seats
            ));
        }
        let was = (&before.voters, &before.old_voters);
        let is = (&after.voters, &after.old_voters);
        if was == is || before.voters.is_empty() || after.version != before.version + 1 {
            return Ok(());
        }
        let begins = before.old_voters.is_empty() && after.old_voters == before.voters;
        let ends =
            !before.old_voters.is_empty() && after.old_voters.is_empty() && before.voters == after.voters;
        if !begins && !ends {
            return Err(format!("the voters went from {was:?} to {is:?} in version {}", after.version));
        }
        self.changes += usize::from(begins);
        Ok(())
    }
}
