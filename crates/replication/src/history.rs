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
use types::{Epoch, Instant, Position, Version};

/// How long after the last question a partition counts as followed: longer than a door lets its client take nothing.
const FOLLOWED: Duration = Duration::from_secs(90);
/// Bytes of the log that are kept of one that is.
const FOLLOWED_BYTES: usize = 256 * 1024;
/// And how many records, so that a few large values do not drive everything out at once; within so many bytes.
const FOLLOWED_RECORDS: usize = 16;
const FOLLOWED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether a log of so many bytes and records may forget its oldest while somebody follows.
pub(crate) fn is_more_than_followers_need(bytes: usize, records: usize) -> bool {
    bytes > FOLLOWED_BYTES_MAX || bytes > FOLLOWED_BYTES && records > FOLLOWED_RECORDS
}

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
    /// `is_ours`: it is of a key of this partition, so that a later one than any here is of a history that was lost.
    pub fn place_behind(&self, version: Version, is_ours: bool) -> Option<Position> {
        if version >= self.last_version {
            return (version == self.last_version || !is_ours).then(|| self.newest_place());
        }
        // Where a loss was accepted, a log that begins at the beginning is not all that ever was.
        let mut reaches_back = self.log.base() == Position::default() && self.forced_since == Epoch(0);
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
