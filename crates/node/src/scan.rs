//! SCAN: walks from partition to partition until it has shown enough, or through all.
//!
//! A step is a request of its own on one partition, asked from [`Shard::work`], so that others are served between them. At first one
//! partition is asked at a time. While these show little, as in a small database, more are asked ahead, so that many
//! partitions that others answer cost few round trips; what they answer is taken in their order. Answers beyond the end of
//! a call are dropped: the cursor leads to them again, so a key that stays is shown.
//!
//! How much one call looks at is bounded, whatever a pattern hides: a step looks at about COUNT entries, and the call
//! ends at the first partition that has more.

use crate::collect::Collector;
use crate::run::{Origin, OwnedTask, Task};
use crate::shard::Shard;
use bytes::Bytes;
use command::{CommandError, Reply, Scope, scan};
use std::collections::VecDeque;
use types::PartitionId;

/// The partition's bits of a cursor; the rest is the place within it. Cutting the place's last bits off shows a few keys
/// twice, which SCAN may.
const PARTITION_BITS: u32 = 14;
/// The most partitions that are asked at once.
const AHEAD_MAX: usize = 128;
/// The most entries that those asked at once look at, unless one partition's step is more.
const AHEAD_ENTRIES_MAX: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Scan {
    /// Whose partitions.
    scope: Scope,
    pub(crate) task: OwnedTask,
    count: usize,
    /// The next partition to ask, and where in it.
    next: u16,
    inner: u64,
    /// Those asked, in order, with what they answered.
    asked: VecDeque<(u16, Option<Reply<'static>>)>,
    /// How many may be asked at once.
    ahead: usize,
    /// Whether it is in the queue of [`Shard::work`].
    queued: bool,
    walked: usize,
    found: Vec<Reply<'static>>,
}

/// What the answers so far come to.
#[derive(Debug, PartialEq)]
enum Taken {
    /// Others are missing.
    More,
    /// The call ends within a partition, with this cursor.
    Within(u64),
    /// The call ends before this partition, if there is such a one.
    Before(u16),
    Failed(CommandError),
}

impl Shard {
    /// Begins a call of SCAN.
    pub(crate) fn scan(&mut self, scope: Scope, task: &Task<'_>) -> Result<(), CommandError> {
        let request = scan::parse(task.args)?;
        let next = (request.cursor & ((1 << PARTITION_BITS) - 1)) as u16;
        let inner = request.cursor >> PARTITION_BITS << PARTITION_BITS;
        if next >= self.partition_count() {
            return Err(CommandError::InvalidCursor);
        }
        let kept = OwnedTask { redirects: false, ..task.kept() };
        let scan = Scan { scope, next, inner, ..Scan::new(kept, request.count) };
        let collector = self.new_collector(Collector::Scan(scan));
        self.scan_on(collector);
        Ok(())
    }

    /// Asks the next partition, or ends where there is none.
    pub(crate) fn scan_on(&mut self, collector: u64) {
        let Some(Collector::Scan(scan)) = self.collectors.get_mut(&collector) else { return };
        scan.queued = false;
        let (next, scope, is_last) = (scan.next, scan.scope, scan.asked.is_empty());
        let Some(id) = self.scanned_from(next, scope) else {
            if is_last {
                self.scan_done(collector, 0);
            }
            return;
        };
        let Some(Collector::Scan(scan)) = self.collectors.get_mut(&collector) else { return };
        if scan.asked.len() >= scan.ahead {
            return;
        }
        // A place within a partition means nothing in the next.
        let inner = if id.0 == scan.next { scan.inner } else { 0 };
        let mut args = scan.task.args.clone();
        args[1] = Bytes::from(inner.to_string());
        let task = OwnedTask {
            args,
            origin: Origin::Part { collector, index: usize::from(id.0) },
            deadline: self.context.now + self.config.settings.request_timeout(),
            ..scan.task.clone()
        };
        scan.asked.push_back((id.0, None));
        (scan.next, scan.inner) = (id.0 + 1, 0);
        if scan.asked.len() < scan.ahead {
            scan.queued = true;
            self.going_on.push_back(collector);
        }
        self.start(id, task);
    }

    /// The first partition from this one on that is scanned.
    fn scanned_from(&self, first: u16, scope: Scope) -> Option<PartitionId> {
        let map = &self.context.map;
        (first..self.partition_count())
            .map(PartitionId)
            .find(|&id| map.partition(id).is_none_or(|state| self.speaks_of(scope, state)))
    }

    fn scan_done(&mut self, collector: u64, cursor: u64) {
        let Some(Collector::Scan(scan)) = self.collectors.remove(&collector) else { return };
        let reply = Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(scan.found)]);
        self.hand_over(scan.task.origin, reply, None, None);
    }

    /// A partition has shown what it has.
    pub(crate) fn scan_part(&mut self, collector: u64, index: usize, reply: Reply<'static>) {
        let Some(Collector::Scan(scan)) = self.collectors.get_mut(&collector) else { return };
        match scan.take(index, reply) {
            Taken::More => {
                if !std::mem::replace(&mut scan.queued, true) {
                    self.going_on.push_back(collector);
                }
            }
            Taken::Within(cursor) => self.scan_done(collector, cursor),
            Taken::Before(next) => {
                let scope = scan.scope;
                let next = self.scanned_from(next, scope);
                self.scan_done(collector, next.map_or(0, |next| u64::from(next.0)));
            }
            Taken::Failed(error) => {
                let origin = scan.task.origin;
                self.collectors.remove(&collector);
                self.fail(origin, error);
            }
        }
    }
}

impl Scan {
    fn new(task: OwnedTask, count: usize) -> Scan {
        Scan {
            scope: Scope::Cluster,
            task,
            count,
            next: 0,
            inner: 0,
            asked: VecDeque::new(),
            ahead: 1,
            queued: false,
            walked: 0,
            found: Vec::new(),
        }
    }

    /// Takes in an answer, and what came before it of those behind it.
    fn take(&mut self, index: usize, reply: Reply<'static>) -> Taken {
        let is_it = |asked: &&mut (u16, Option<Reply<'static>>)| usize::from(asked.0) == index;
        let Some((_, answer)) = self.asked.iter_mut().find(is_it) else { return Taken::More };
        answer.get_or_insert(reply);
        while let Some((partition, answer)) = self.asked.pop_front() {
            let Some(answer) = answer else {
                self.asked.push_front((partition, None));
                break;
            };
            let (next, keys) = match read_step(answer) {
                Ok(step) => step,
                Err(error) => return Taken::Failed(error),
            };
            self.found.extend(keys);
            self.walked += 1;
            if let Some(inner) = next {
                return Taken::Within(inner >> PARTITION_BITS << PARTITION_BITS | u64::from(partition));
            }
            if self.found.len() >= self.count {
                return Taken::Before(self.asked.front().map_or(self.next, |asked| asked.0));
            }
        }
        self.ahead = ahead(self.count, self.walked, self.found.len());
        Taken::More
    }
}

/// How many partitions to ask at once: as many as are likely to show what is missing, judged by those before, no more
/// than were walked, and not too many.
fn ahead(count: usize, walked: usize, found: usize) -> usize {
    let likely = match found {
        0 => usize::MAX,
        found => (count.saturating_sub(found)).saturating_mul(walked).div_ceil(found),
    };
    likely.min(walked).min(AHEAD_MAX).min(AHEAD_ENTRIES_MAX / count.max(1)).max(1)
}

/// What a step within a partition answered: where to go on in it, unless it is through, and keys.
fn read_step(reply: Reply<'static>) -> Result<(Option<u64>, Vec<Reply<'static>>), CommandError> {
    let corrupt =
        || CommandError::Other("ERR a partition answered a step of SCAN with something else".into());
    let [next, keys] = match reply {
        Reply::Array(parts) => <[Reply<'static>; 2]>::try_from(parts).map_err(|_| corrupt())?,
        Reply::Error(error) => return Err(error),
        _ => return Err(corrupt()),
    };
    let next = match next {
        Reply::Null => None,
        Reply::Bulk(text) => {
            let inner = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            Some(inner.ok_or_else(corrupt)?)
        }
        _ => return Err(corrupt()),
    };
    match keys {
        Reply::Array(keys) => Ok((next, keys)),
        _ => Err(corrupt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use command::lookup;
    use types::Instant;
    use types::settings::{ReadLevel, WriteLevel};

    fn scan(count: usize, asked: std::ops::Range<u16>) -> Scan {
        let task = OwnedTask {
            command: lookup(b"scan").unwrap(),
            args: Vec::new(),
            read_level: ReadLevel::default(),
            write_level: WriteLevel::default(),
            request: None,
            origin: Origin::Part { collector: 0, index: 0 },
            deadline: Instant(0),
            redirects: false,
            alone: false,
        };
        let (next, asked) = (asked.end, asked.map(|partition| (partition, None)).collect());
        Scan { asked, next, ..Scan::new(task, count) }
    }

    fn step(next: Option<u64>, keys: usize) -> Reply<'static> {
        let next = next.map_or(Reply::Null, |inner| Reply::bulk(inner.to_string()));
        Reply::Array(vec![next, Reply::Array(vec![Reply::bulk("key"); keys])])
    }

    #[test]
    fn answers_are_taken_in_the_order_of_their_partitions() {
        let mut scan = scan(10, 3..7);
        assert_eq!(scan.take(5, step(Some(1 << 20), 9)), Taken::More);
        assert_eq!(scan.take(4, step(None, 2)), Taken::More);
        assert_eq!((scan.found.len(), scan.walked), (0, 0), "the first is missing");
        assert_eq!(scan.take(4, step(None, 2)), Taken::More, "again");
        assert_eq!(scan.take(3, step(None, 1)), Taken::Within(1 << 20 | 5));
        assert_eq!(scan.found.len(), 12);
    }

    #[test]
    fn a_call_ends_where_it_has_shown_enough_and_drops_the_rest() {
        let mut scan = scan(3, 0..4);
        assert_eq!(scan.take(2, step(None, 9)), Taken::More);
        assert_eq!(scan.take(3, Reply::Error(CommandError::Syntax)), Taken::More, "may never be reached");
        assert_eq!(scan.take(0, step(None, 1)), Taken::More);
        assert_eq!(scan.take(1, step(None, 2)), Taken::Before(2), "the cursor leads to what was dropped");
        assert_eq!(scan.found.len(), 3);
    }

    #[test]
    fn an_error_ends_it_in_its_turn() {
        let mut scan = scan(3, 0..2);
        assert_eq!(scan.take(1, Reply::Error(CommandError::Syntax)), Taken::More);
        assert_eq!(scan.take(0, step(None, 0)), Taken::Failed(CommandError::Syntax));
        let mut scan = self::scan(3, 0..1);
        assert!(matches!(scan.take(0, Reply::Null), Taken::Failed(_)), "never an end without the rest");
    }

    #[test]
    fn more_are_asked_ahead_where_little_is_found() {
        assert_eq!(ahead(10, 1, 0), 1);
        assert_eq!(ahead(10, 50, 0), 50);
        assert_eq!(ahead(10, 1000, 3), AHEAD_MAX);
        assert_eq!(ahead(10, 4, 8), 1, "one more is likely to do");
        assert_eq!(ahead(10_000, 1000, 0), 10);
        // All of a cluster of 1024 where there is nothing: in this many rounds.
        let (mut walked, mut rounds) = (0, 0);
        while walked < 1024 {
            walked += ahead(10, walked, 0);
            rounds += 1;
        }
        assert!(rounds < 20, "{rounds}");
    }
}
