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
    /// What was told and may not be applied yet, and when it was, in the cluster's time: the first such word, and the last. Were each replaced
    /// by the next, a copy that is always a little behind would never know.
    told: [Option<(Committed, u64)>; 2],
    /// The time of the last that is applied.
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

    /// A copy is told how far its primary had committed at this time. Its clock may be ahead of this node's: no word is from later than
    /// when it comes.
    pub fn hear_committed(&mut self, context: &Context, committed: Committed, time_ms: u64) {
        let Some(now_ms) = context.clock_ms else { return };
        if !matches!(self.role, Role::Backup(_)) || committed.primary_since != self.primary_since {
            return;
        }
        self.freshness.newest_ms = self.newest_ms();
        let waiting = self.freshness.told.iter().flatten().find(|told| self.waits_for(told)).copied();
        let last = Some((committed, time_ms.min(now_ms)));
        self.freshness.told = if waiting.is_some() { [waiting, last] } else { [last, None] };
    }

    /// Whether what was told is of this reign, and not applied yet.
    fn waits_for(&self, (committed, _): &(Committed, u64)) -> bool {
        committed.primary_since == self.primary_since && committed.lsn > self.commit
    }

    /// The time of the last word that this copy is up to.
    fn newest_ms(&self) -> Option<u64> {
        let is_applied = |(committed, _): &&(Committed, u64)| {
            committed.primary_since == self.primary_since && committed.lsn <= self.commit
        };
        let applied =
            self.freshness.told.iter().flatten().filter(is_applied).map(|(_, time_ms)| *time_ms).max();
        applied.max(self.freshness.newest_ms)
    }

    /// How old what this copy shows may be, in milliseconds. None where that is not known.
    pub fn age_ms(&self, context: &Context) -> Option<u64> {
        match self.standing(context) {
            Standing::Serving => Some(0),
            Standing::Backup if planted::is(Bug::BelievesUnapplied) => Some(0),
            Standing::Backup => Some(context.clock_ms?.saturating_sub(self.newest_ms()?)),
            Standing::Waiting | Standing::Absent => None,
        }
    }

    /// What was told is of a history that has ended here.
    pub(crate) fn forget_freshness(&mut self) {
        self.freshness = Freshness::default();
    }
}
