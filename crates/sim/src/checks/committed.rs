//! What is committed stays: no two copies ever show different records committed at one place, so logs agree up to the commit
//! (rules 7 and 8). Who has to hold it is looked at in [`crate::checks::in_sync`].
//!
//! Where a loss is possible ([`crate::losses`]) a partition goes on from what is left, which has to be no less than what was
//! surely kept.

use crate::checks::Seat;
use crate::losses::{Beginning, Pending, goes_on_with};
use crate::oracle::{Committed, Oracle};
use crate::process::Copy;
use history::Time;
use types::Lsn;

/// The oracle, and how far each copy has been compared with it.
pub struct CommittedLogs {
    /// What is committed.
    pub oracle: Oracle,
    /// True time.
    pub now: Time,
    /// When each record was first shown.
    shown_at: Vec<Vec<Time>>,
    pending: Vec<Option<Pending>>,
    beginnings: Vec<Vec<Beginning>>,
    /// The reign with which each partition last went on.
    went_on: Vec<u64>,
    compared: Vec<Vec<u64>>,
    grown: Vec<usize>,
    pub(crate) begins: Vec<u64>,
    partitions: usize,
}

impl CommittedLogs {
    /// Nothing is committed.
    pub fn new(nodes: usize, partitions: usize) -> CommittedLogs {
        let compared = vec![vec![0; partitions]; nodes];
        CommittedLogs {
            oracle: Oracle::new(partitions),
            now: 0,
            shown_at: vec![Vec::new(); partitions],
            pending: vec![None; partitions],
            beginnings: vec![Vec::new(); partitions],
            went_on: vec![0; partitions],
            compared,
            grown: Vec::new(),
            begins: vec![0; partitions],
            partitions,
        }
    }

    /// The power fails everywhere: what was committed since `since` may be lost.
    pub fn may_lose(&mut self, partition: usize, at: Time, epoch: u64, since: Time) {
        let kept = self.shown_at[partition].partition_point(|shown| *shown <= since);
        // Where it has not gone on since the last time, that counts.
        self.pending[partition].get_or_insert(Pending { at, epoch, kept });
    }

    /// Where a partition went on after a loss was possible.
    pub fn beginnings(&self, partition: usize) -> &[Beginning] {
        &self.beginnings[partition]
    }

    /// How many partitions have not gone on yet.
    pub fn pending(&self) -> usize {
        self.pending.iter().flatten().count()
    }

    /// A partition goes on with this copy.
    fn go_on(&mut self, pending: Pending, copy: &Copy<'_>) -> Result<(), String> {
        let at = copy.partition;
        let base = copy.log.base();
        let known = |lsn: Lsn| self.oracle.records(at).get((lsn.0 as usize).wrapping_sub(1)).map(|r| r.epoch);
        if base.lsn.0 > 0 && known(base.lsn) != Some(base.epoch.0) {
            let Some(both) = self.oracle.go_back(at, base.lsn.0, base.epoch.0) else {
                return Err(format!(
                    "partition {at} goes on from {base:?}, which nobody ever showed committed"
                ));
            };
            if both < pending.kept {
                return Err(format!(
                    "partition {at} goes back to {base:?} with {both} committed records, and {} were surely kept",
                    pending.kept
                ));
            }
            self.shown_at[at].truncate(both);
            self.shown_at[at].resize(base.lsn.0 as usize, self.now);
            self.compared.iter_mut().for_each(|compared| compared[at] = compared[at].min(both as u64));
        }
        let records = self.oracle.records(at);
        let log = || copy.log.range(base.lsn.next(), copy.log.last().lsn);
        let old = || log().take_while(|record| record.position.epoch.0 < copy.primary_since);
        let same = old().take_while(|record| {
            let known = records.get(record.position.lsn.0 as usize - 1);
            known.is_some_and(|known| {
                known.epoch == record.position.epoch.0 && known.body == record.body.to_bytes()
            })
        });
        let kept = base.lsn.0 as usize + same.count();
        if kept < pending.kept {
            return Err(format!(
                "partition {at} goes on with {kept} of {} committed records, and {} were surely kept",
                records.len(),
                pending.kept
            ));
        }
        let mut state = self.oracle.state(at, kept as u64)?;
        for record in old().skip(kept - base.lsn.0 as usize) {
            Oracle::apply(&record.body.to_bytes(), &mut state)?;
        }
        self.oracle.forget_after(at, kept);
        self.shown_at[at].truncate(kept);
        self.compared.iter_mut().for_each(|compared| compared[at] = compared[at].min(kept as u64));
        self.beginnings[at].push(Beginning { at: pending.at, state });
        self.pending[at] = None;
        self.went_on[at] = copy.primary_since;
        Ok(())
    }

    /// Whether a copy may still show what was lost: it has nothing of the reign with which its partition went on.
    pub fn is_doubtful(&self, copy: &Copy<'_>) -> bool {
        !copy.is_primary && copy.log.last().epoch.0 < self.went_on[copy.partition]
    }

    /// The process of a node is gone.
    pub fn gone(&mut self, node: usize) {
        self.compared[node] = vec![0; self.partitions];
    }

    /// Compares what a node's copies newly show committed.
    pub fn look(&mut self, seat: &Seat<'_>) -> Result<(), String> {
        for copy in seat.process.copies(seat.now) {
            if let Some(pending) = self.pending[copy.partition].filter(|pending| goes_on_with(pending, &copy))
            {
                self.go_on(pending, &copy)?;
            }
            if copy.is_primary {
                let begins = &mut self.begins[copy.partition];
                *begins = copy.log.base().lsn.0.max(*begins);
            }
            let is_doubtful = self.is_doubtful(&copy);
            let compared = &mut self.compared[seat.node][copy.partition];
            if copy.commit == *compared || is_doubtful {
                continue;
            }
            let from = if copy.commit < *compared { 0 } else { *compared };
            for record in copy.log.range(Lsn(from + 1), Lsn(copy.commit)) {
                let committed = Committed {
                    epoch: record.position.epoch.0,
                    time_ms: record.time_ms,
                    body: record.body.to_bytes().to_vec(),
                };
                let before = self.oracle.records(copy.partition).len();
                self.oracle
                    .witness(copy.partition, record.position.lsn.0, committed)
                    .map_err(|why| format!("node {}: {why}", seat.node + 1))?;
                if self.oracle.records(copy.partition).len() > before {
                    self.grown.push(copy.partition);
                    self.shown_at[copy.partition].push(self.now);
                }
            }
            *compared = copy.commit;
        }
        Ok(())
    }

    /// The partitions of which more is committed than at the last call, but for those of which the end may be lost.
    pub fn take_grown(&mut self) -> Vec<usize> {
        let mut grown = std::mem::take(&mut self.grown);
        grown.dedup();
        grown.retain(|&partition| self.is_settled(partition));
        grown
    }

    /// Whether a partition has gone on since a loss of its end was possible.
    pub fn is_settled(&self, partition: usize) -> bool {
        self.pending[partition].is_none()
    }

    /// How far the logs of a partition's primaries have begun at most, since [`CommittedLogs::forget_begins`].
    pub fn begins(&self, partition: usize) -> u64 {
        self.begins[partition]
    }

    /// Somebody asks for what is in the log of a partition's primary.
    pub fn forget_begins(&mut self, partition: usize) {
        self.begins[partition] = 0;
    }
}
