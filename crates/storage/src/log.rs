//! A partition's log in memory.
//!
//! The records stand in order and without a gap from a base on: the position before the first record kept. The
//! base moves up as old records are forgotten ([`Log::trim`]) and jumps when a snapshot is loaded
//! ([`Log::reset`]). Beside the records the log keeps at which lsn each epoch begins, and from that alone finds
//! how far it can agree with another log (as Kafka's leader epochs do, KIP-101).
//!
//! Left out: durability. Under `log = off` a restarted node comes back empty.

use crate::prefetch::fetch_next;
use crate::record::Record;
use smallvec::{SmallVec, smallvec};
use std::collections::VecDeque;
use types::{Epoch, Lsn, Position};

/// The records of one partition that are still kept.
#[derive(Debug)]
pub struct Log {
    base: Position,
    records: VecDeque<Record>,
    /// Mostly one.
    epochs: SmallVec<[(Epoch, Lsn); 1]>,
    bytes: usize,
}

impl Default for Log {
    fn default() -> Log {
        Log::new()
    }
}

impl Log {
    /// An empty log, whose first record will have lsn 1.
    pub fn new() -> Log {
        let base = Position::default();
        Log { base, records: VecDeque::new(), epochs: smallvec![(base.epoch, base.lsn)], bytes: 0 }
    }

    /// Adds a record at the end. It has to name the last one as its predecessor: callers check what comes from
    /// elsewhere.
    pub fn append(&mut self, record: Record) {
        assert_eq!(record.prev(), self.last(), "a record that does not follow the log's last");
        assert!(record.position.epoch >= record.prev_epoch, "a record of an older epoch");
        if record.position.epoch > self.last().epoch {
            self.epochs.push((record.position.epoch, record.position.lsn));
        }
        self.bytes += record.bytes();
        self.records.push_back(record);
    }

    /// The position of the last record; the base where there is none.
    pub fn last(&self) -> Position {
        self.records.back().map_or(self.base, |record| record.position)
    }

    /// The position before the first record kept.
    pub fn base(&self) -> Position {
        self.base
    }

    /// The record with this lsn, if it is kept.
    pub fn get(&self, lsn: Lsn) -> Option<&Record> {
        self.records.get(self.index(lsn)?)
    }

    /// The kept records from `from` to `upto`, both included.
    pub fn range(&self, from: Lsn, upto: Lsn) -> impl Iterator<Item = &Record> {
        let first = from.0.saturating_sub(self.base.lsn.0 + 1).min(self.records.len() as u64) as usize;
        let end = upto.0.saturating_sub(self.base.lsn.0).min(self.records.len() as u64) as usize;
        self.records.range(first..end.max(first))
    }

    /// The position with this lsn: the base's or a kept record's.
    pub fn position_at(&self, lsn: Lsn) -> Option<Position> {
        if lsn == self.base.lsn { Some(self.base) } else { self.get(lsn).map(|record| record.position) }
    }

    /// Whether the position is the base or a kept record.
    pub fn holds(&self, position: Position) -> bool {
        self.position_at(position.lsn) == Some(position)
    }

    /// The greatest position of this log that a log which ends at `theirs` can hold too, by the epochs alone.
    ///
    /// `None` where that lies below the base, so that only a snapshot can help. The other log holds the answer
    /// for certain if it knows `theirs.epoch` from here; otherwise it answers in turn with what it has in common.
    pub fn common_with(&self, theirs: Position) -> Option<Position> {
        let after = self.epochs.partition_point(|&(epoch, _)| epoch <= theirs.epoch);
        // The last lsn here of an epoch that theirs may know.
        let end = match self.epochs.get(after) {
            Some(&(_, next)) => Lsn(next.0.saturating_sub(1)),
            None => self.last().lsn,
        };
        let known = after.checked_sub(1).map(|at| self.epochs[at].0)?;
        // Where their last epoch is not known here, at least their last record is not shared.
        let theirs_shared = if known == theirs.epoch { theirs.lsn.0 } else { theirs.lsn.0.saturating_sub(1) };
        self.position_at(Lsn(end.0.min(theirs_shared)))
    }

    /// Removes the records after `lsn` and returns them, oldest first. The base stays.
    pub fn truncate_after(&mut self, lsn: Lsn) -> Vec<Record> {
        let keep = lsn.0.saturating_sub(self.base.lsn.0).min(self.records.len() as u64) as usize;
        let removed: Vec<Record> = self.records.drain(keep..).collect();
        self.bytes -= removed.iter().map(Record::bytes).sum::<usize>();
        let last = self.last().lsn;
        let kept = self.epochs.partition_point(|&(_, first)| first <= last).max(1);
        self.epochs.truncate(kept);
        removed
    }

    /// Forgets the records up to `upto`, which becomes the base; at most all of them.
    pub fn trim(&mut self, upto: Lsn) {
        let drop = upto.0.saturating_sub(self.base.lsn.0).min(self.records.len() as u64) as usize;
        if drop == 0 {
            return;
        }
        self.base = self.records[drop - 1].position;
        self.bytes -= self.records.drain(..drop).map(|record| record.bytes()).sum::<usize>();
        // The first is the old base's own, so there is one to write over.
        let covered = self.epochs.partition_point(|&(epoch, _)| epoch <= self.base.epoch).max(1);
        self.epochs.drain(..covered - 1);
        self.epochs[0] = (self.base.epoch, self.base.lsn);
        if self.records.capacity() > 64 && self.records.len() < self.records.capacity() / 8 {
            self.records.shrink_to(self.records.len() * 2);
        }
    }

    /// Forgets everything: the log is empty and goes on after `base`.
    pub fn reset(&mut self, base: Position) {
        *self = Log { base, records: VecDeque::new(), epochs: smallvec![(base.epoch, base.lsn)], bytes: 0 };
    }

    /// Goes on after `position` without keeping a record for it: for a partition that has no other copy.
    pub fn pass(&mut self, position: Position) {
        if self.records.capacity() > 0 {
            // With its room: a start from the disk leaves some in each of a thousand partitions.
            self.records = VecDeque::new();
        }
        self.bytes = 0;
        self.base = position;
        self.epochs.clear();
        self.epochs.push((position.epoch, position.lsn));
    }

    /// Asks for the place where the next record will stand.
    #[inline]
    pub fn prefetch_next(&self) {
        fetch_next(&self.records);
    }

    /// The memory that its records take, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many records are kept.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record is kept.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The first lsn of each epoch in the kept range, oldest first. The first pair is the base's own position.
    pub fn epochs(&self) -> &[(Epoch, Lsn)] {
        &self.epochs
    }

    fn index(&self, lsn: Lsn) -> Option<usize> {
        usize::try_from(lsn.0.checked_sub(self.base.lsn.0 + 1)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn at(epoch: u64, lsn: u64) -> Position {
        Position { epoch: Epoch(epoch), lsn: Lsn(lsn) }
    }

    fn extend(log: &mut Log, epochs: &[u64]) {
        for &epoch in epochs {
            let last = log.last();
            let position = Position { epoch: Epoch(epoch), lsn: last.lsn.next() };
            let body = Bytes::from_static(b"body");
            log.append(Record {
                position,
                prev_epoch: last.epoch,
                time_ms: 0,
                request: None,
                body: body.into(),
            });
        }
    }

    fn log(epochs: &[u64]) -> Log {
        let mut log = Log::new();
        extend(&mut log, epochs);
        log
    }

    #[test]
    fn ranges_and_positions_follow_the_base() {
        let mut log = log(&[1, 1, 2, 2, 4]);
        let lsns = |log: &Log, from, upto| -> Vec<u64> {
            log.range(Lsn(from), Lsn(upto)).map(|record| record.position.lsn.0).collect()
        };
        assert_eq!(lsns(&log, 0, 9), [1, 2, 3, 4, 5]);
        assert_eq!(
            log.epochs(),
            [(Epoch(0), Lsn(0)), (Epoch(1), Lsn(1)), (Epoch(2), Lsn(3)), (Epoch(4), Lsn(5))]
        );
        log.trim(Lsn(3));
        assert_eq!((log.base(), log.last()), (at(2, 3), at(4, 5)));
        assert_eq!(log.epochs(), [(Epoch(2), Lsn(3)), (Epoch(4), Lsn(5))]);
        assert_eq!(lsns(&log, 0, u64::MAX), [4, 5]);
        assert_eq!(lsns(&log, 5, 4), []);
        assert_eq!(lsns(&log, 9, 12), []);
        assert!(log.get(Lsn(3)).is_none() && log.get(Lsn(6)).is_none() && log.get(Lsn(0)).is_none());
        assert_eq!(log.position_at(Lsn(3)), Some(at(2, 3)));
        assert!(log.holds(at(4, 5)) && log.holds(at(2, 3)) && !log.holds(at(2, 5)) && !log.holds(at(1, 2)));
        let removed = log.truncate_after(Lsn(3));
        assert_eq!(removed.iter().map(|record| record.position.lsn.0).collect::<Vec<_>>(), [4, 5]);
        assert_eq!((log.last(), log.bytes(), log.is_empty()), (at(2, 3), 0, true));
        assert_eq!(log.epochs(), [(Epoch(2), Lsn(3))]);
        extend(&mut log, &[7]);
        assert_eq!(log.last(), at(7, 4));
        log.reset(at(9, 100));
        extend(&mut log, &[9]);
        assert_eq!(log.last(), at(9, 101));
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_gap_is_refused() {
        let mut gap = log(&[1, 1]).truncate_after(Lsn(1));
        log(&[2]).append(gap.remove(0));
    }

    #[test]
    fn below_the_base_only_a_snapshot_helps() {
        let mut log = log(&[1, 1, 3, 3, 3]);
        log.trim(Lsn(4));
        assert_eq!(log.common_with(at(3, 4)), Some(at(3, 4)));
        assert_eq!(log.common_with(at(3, 9)), Some(at(3, 5)));
        assert_eq!(log.common_with(at(3, 3)), None);
        assert_eq!(log.common_with(at(1, 2)), None);
        assert_eq!(log.common_with(at(2, 7)), None);
        assert_eq!(log.common_with(at(0, 0)), None);
        assert_eq!(Log::new().common_with(at(5, 3)), Some(at(0, 0)));
    }

    #[test]
    fn the_last_record_of_an_unknown_epoch_is_not_shared() {
        assert_eq!(log(&[1, 1, 3]).common_with(at(2, 2)), Some(at(1, 1)));
        assert_eq!(log(&[1, 1, 3]).common_with(at(1, 2)), Some(at(1, 2)));
        assert_eq!(log(&[1, 1, 3]).common_with(at(2, 9)), Some(at(1, 2)));
    }

    proptest! {
        /// Two logs that part somewhere: asking back and forth ends at the last position that both hold.
        #[test]
        fn asking_in_turn_finds_the_last_common_position(
            common in proptest::collection::vec(0u64..3, 0..12),
            ours in proptest::collection::vec(0u64..3, 0..6),
            theirs in proptest::collection::vec(0u64..3, 0..6),
        ) {
            // An epoch has one primary, so after the fork the two sides share no epoch of their own making.
            let epochs = |steps: &[u64], from: u64, by: u64| -> Vec<u64> {
                steps.iter().scan(from, |epoch, step| { *epoch += step * by; Some(*epoch) }).collect()
            };
            let shared = epochs(&common, 2, 2);
            let end = shared.last().copied().unwrap_or(2);
            // One side may go on in the epoch where they part, the other only in a new one.
            let mut a = log(&shared);
            extend(&mut a, &epochs(&ours, end, 2));
            let mut b = log(&shared);
            extend(&mut b, &epochs(&theirs, end + 1, 2));
            let mut fork = Position::default();
            for lsn in 0..=shared.len() as u64 {
                fork = a.position_at(Lsn(lsn)).unwrap();
            }
            for (asker, answerer) in [(&a, &b), (&b, &a)] {
                let mut guess = asker.last();
                let mut rounds = 0;
                let (mut me, mut other) = (answerer, asker);
                loop {
                    let next = me.common_with(guess).unwrap();
                    prop_assert!(next.lsn >= fork.lsn, "what both hold is never given up");
                    if next == guess && other.holds(next) && me.holds(next) { break; }
                    guess = next;
                    std::mem::swap(&mut me, &mut other);
                    rounds += 1;
                    prop_assert!(rounds < 40);
                }
                prop_assert_eq!(guess, fork);
            }
        }
    }
}
