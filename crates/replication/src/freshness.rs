//! How old what a stale read shows may be (rule 13).
//!
//! A primary that holds a lease knows what is committed. Now and then its shard tells the copies in sync, with the cluster's time. A
//! copy that has applied as much as was told shows what was newest at that time, or something newer. So the age is a bound: from that
//! time to now, as far as the nodes' clocks agree.

use crate::partition::{Partition, Role};
use crate::{Context, Standing};
use types::planted::{self, Bug};
use types::{Epoch, Lsn, PartitionId};

/// How far a partition is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The partition.
    pub partition: PartitionId,
    /// The reign that says so.
    pub primary_since: Epoch,
    /// Up to here.
    pub lsn: Lsn,
}

/// What a copy was told.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    /// The last that was told, and when, in the cluster's time: it may not be applied yet.
    told: Option<(Committed, u64)>,
    /// The time of the last that is.
    newest_ms: Option<u64>,
}

impl<W> Partition<W> {
    /// What a primary tells its copies. None where it does not know.
    pub fn committed_here(&self, context: &Context) -> Option<Committed> {
        (self.standing(context) == Standing::Serving).then_some(Committed {
            partition: self.id,
            primary_since: self.primary_since,
            lsn: self.commit,
        })
    }

    /// A copy is told how far its primary had committed at this time.
    pub fn hear_committed(&mut self, committed: Committed, time_ms: u64) {
        if !matches!(self.role, Role::Backup(_)) || committed.primary_since != self.primary_since {
            return;
        }
        self.freshness.newest_ms = self.newest_ms();
        self.freshness.told = Some((committed, time_ms));
    }

    /// The time of the last word that this copy is up to.
    fn newest_ms(&self) -> Option<u64> {
        let applied = self.freshness.told.filter(|(committed, _)| {
            committed.primary_since == self.primary_since
                && (committed.lsn <= self.commit || planted::is(Bug::BelievesUnapplied))
        });
        applied.map(|(_, time_ms)| time_ms).max(self.freshness.newest_ms)
    }

    /// How old what this copy shows may be, in milliseconds. None where that is not known.
    pub fn age_ms(&self, context: &Context) -> Option<u64> {
        match self.standing(context) {
            Standing::Serving => Some(0),
            Standing::Backup => Some(context.clock_ms?.saturating_sub(self.newest_ms()?)),
            Standing::Waiting | Standing::Absent => None,
        }
    }

    /// What was told is of a history that has ended here.
    pub(crate) fn forget_freshness(&mut self) {
        self.freshness = Freshness::default();
    }
}
