//! What was committed behind a place in a partition's log, for whoever follows its changes (`CHANGES`).
//!
//! The history is the primary's log in memory, so it reaches as far back as that is kept. While somebody follows, more of it is kept,
//! and it is kept also where there is no other copy to keep it for. Only committed records are shown: what was shown is never taken back.
//!
//! Left out: which keys, and how long to wait, which the node knows.

use crate::partition::{Partition, Role};
use std::time::Duration;
use storage::{Record, effect};
use types::planted::{self, Bug};
use types::{Instant, Position, Version};

/// How long after the last question a partition counts as followed.
const FOLLOWED: Duration = Duration::from_secs(10);
/// Bytes of the log that are kept of one that is.
pub(crate) const FOLLOWED_BYTES: usize = 256 * 1024;

impl<W> Partition<W> {
    /// Somebody follows: what comes is kept for a while.
    pub fn keep_history(&mut self, now: Instant) {
        if let Role::Primary(primary) = &mut self.role {
            primary.follow(now + FOLLOWED);
        }
    }

    /// The place behind all that is ordered and told so far: what comes next is behind it.
    pub fn newest_place(&self) -> Position {
        self.log.position_at(self.commit).unwrap_or(self.log.base())
    }

    /// Whether the log leads on from a place that was told earlier.
    pub fn leads_on_from(&self, place: Position) -> bool {
        self.log.holds(place)
    }

    /// The place behind the changes up to a version, which grows along the log. None where it may be further back than the log reaches.
    pub fn place_behind(&self, version: Version) -> Option<Position> {
        if version >= self.last_version {
            return Some(self.newest_place());
        }
        let mut reaches_back = self.log.base() == Position::default();
        let mut place = self.log.base();
        for record in self.committed_behind(place) {
            if let Some(newest) = effect::effects(&record.body).flatten().map(|effect| effect.version()).max()
            {
                if newest > version {
                    break;
                }
                reaches_back = true;
            }
            place = record.position;
        }
        reaches_back.then_some(place)
    }

    /// The committed records behind a place that the log leads on from, in order.
    pub fn committed_behind(&self, place: Position) -> impl Iterator<Item = &Record> {
        let upto = if planted::is(Bug::ShowsUncommitted) { self.log.last().lsn } else { self.commit };
        self.log.range(place.lsn.next(), upto)
    }
}
