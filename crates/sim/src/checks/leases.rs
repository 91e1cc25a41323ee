//! When a node is declared dead its lease has lapsed, on its own clock: the grace is longer (rule 6).

use crate::checks::Seat;
use placement::{ClusterMap, MemberState};

/// Compares the newest map with the one before it.
pub fn check(before: &ClusterMap, after: &ClusterMap, seats: &[Option<Seat<'_>>]) -> Result<(), String> {
    for member in after.members.iter().filter(|member| member.state == MemberState::Failed) {
        let Some(seat) = seats[usize::from(member.id.0) - 1] else { continue };
        let same = seat.process.identity().incarnation == member.incarnation;
        if before.is_alive(member.id) && same && seat.process.lease_until() > seat.now {
            return Err(format!(
                "node {} is declared dead in version {} while its lease runs: until {}, and its clock shows {}",
                member.id,
                after.version,
                seat.process.lease_until().0,
                seat.now.0
            ));
        }
    }
    Ok(())
}
