//! Requests over several partitions: split and merged (rule 18), on every partition, and WAIT. SCAN is in
//! [`crate::scan`], KEYS in [`crate::listing`], RANDOMKEY in [`crate::random_key`].
//!
//! Each part is a request of its own on one partition, with all that this means: passed on, parked, sent again. The
//! collector has their replies and makes one of them.

use crate::listing::Listing;
use crate::random_key::{Count, RandomKey};
use crate::run::{Origin, OwnedTask, Task};
use crate::scan::Scan;
use crate::shard::{Shard, Ticket};
use bytes::Bytes;
use command::{CommandError, Merge, Reply, Scope, wait};
use replication::Partition;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use types::planted::{self, Bug};
use types::{Instant, PartitionId, Position, partition_of_key};

/// Partitions that a request over all of them asks in one go.
const PARTITIONS_A_STEP: usize = 16;
/// How often WAIT asks.
const WAIT_ASKS: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) enum Collector {
    Gather(Gather),
    Scan(Scan),
    Listing(Listing),
    Wait(Wait),
    RandomKey(RandomKey),
    Count(Count),
}

#[derive(Debug)]
pub(crate) struct Gather {
    origin: Origin,
    merge: Merge,
    /// For [`Merge::InKeyOrder`]: where each part's elements belong.
    places: Vec<Vec<usize>>,
    parts: Vec<Option<Reply<'static>>>,
    missing: usize,
    /// Partitions that have not been asked, with their parts' numbers, and what to ask.
    todo: VecDeque<(usize, PartitionId)>,
    whole: Option<OwnedTask>,
}

#[derive(Debug)]
pub(crate) struct Wait {
    task: OwnedTask,
    wanted: i64,
    deadline: Option<Instant>,
    writes: Vec<(PartitionId, Position)>,
    parts: Vec<Option<Reply<'static>>>,
    missing: usize,
    ask_at: Instant,
    /// What the last round of answers came to.
    counted: Option<Reply<'static>>,
}

impl Shard {
    pub(crate) fn new_collector(&mut self, collector: Collector) -> u64 {
        let id = self.next_collector;
        self.next_collector += 1;
        self.collectors.insert(id, collector);
        id
    }

    /// Splits a request by the partitions of its keys.
    pub(crate) fn split(&mut self, merge: Merge, task: &Task<'_>) {
        let partitions = self.partition_count();
        let step = task.command.keys.step.max(1);
        let mut by_partition: BTreeMap<(PartitionId, usize), (Vec<Bytes>, Vec<usize>)> = BTreeMap::new();
        for (number, at) in task.command.key_positions(task.args).enumerate() {
            let id = partition_of_key(task.args[at], partitions);
            let apart = if planted::is(Bug::TearsApart) { number } else { 0 };
            let (args, places) = by_partition
                .entry((id, apart))
                .or_insert_with(|| (vec![Bytes::copy_from_slice(task.args[0])], Vec::new()));
            let end = (at + step).min(task.args.len());
            args.extend(task.args[at..end].iter().map(|arg| task.kept_argument(arg)));
            places.push(number);
        }
        let (parts, places): (Vec<_>, Vec<_>) =
            by_partition.into_iter().map(|((id, _), (args, places))| ((id, args), places)).unzip();
        self.gather(merge, task, parts, places);
    }

    /// Runs a request on every partition: at the door for cluster-aware clients on those of which this node is primary.
    /// Some are asked at each [`Shard::work`], so the connection's next requests have to wait.
    pub(crate) fn everywhere(&mut self, merge: Merge, scope: Scope, task: &Task<'_>) {
        let mine = self.context.map.each_partition().filter(|(_, state)| self.speaks_of(scope, state));
        let todo: VecDeque<(usize, PartitionId)> = mine.map(|(id, _)| id).enumerate().collect();
        let count = todo.len();
        let whole = Some(OwnedTask { redirects: false, ..task.kept() });
        let parts = vec![None; count];
        let gather =
            Gather { origin: task.origin, merge, places: Vec::new(), parts, missing: count, todo, whole };
        if count == 0 {
            self.hand_over(task.origin, gather.merged(), None, None);
            return;
        }
        let collector = self.new_collector(Collector::Gather(gather));
        self.going_on.push_back(collector);
    }

    /// Asks the next few partitions.
    fn gather_on(&mut self, collector: u64) {
        let Some(Collector::Gather(gather)) = self.collectors.get_mut(&collector) else { return };
        let Some(whole) = gather.whole.clone() else { return };
        let now = gather.todo.len().min(PARTITIONS_A_STEP);
        let asked: Vec<(usize, PartitionId)> = gather.todo.drain(..now).collect();
        if !gather.todo.is_empty() {
            self.going_on.push_back(collector);
        }
        for (index, id) in asked {
            self.start(id, OwnedTask { origin: Origin::Part { collector, index }, ..whole.clone() });
        }
    }

    fn gather(
        &mut self,
        merge: Merge,
        task: &Task<'_>,
        parts: Vec<(PartitionId, Vec<Bytes>)>,
        places: Vec<Vec<usize>>,
    ) {
        let count = parts.len();
        let todo = VecDeque::new();
        let gather = Gather {
            origin: task.origin,
            merge,
            places,
            parts: vec![None; count],
            missing: count,
            todo,
            whole: None,
        };
        if count == 0 {
            self.hand_over(task.origin, gather.merged(), None, None);
            return;
        }
        let collector = self.new_collector(Collector::Gather(gather));
        let whole = task.kept();
        for (index, (id, args)) in parts.into_iter().enumerate() {
            let origin = Origin::Part { collector, index };
            self.start(id, OwnedTask { args, origin, redirects: false, ..whole.clone() });
        }
    }

    /// WAIT: asks the primaries how many backups hold this connection's last writes (rule 19).
    pub(crate) fn wait_for_backups(&mut self, task: &Task<'_>) -> Result<(), CommandError> {
        let (wanted, timeout_ms) = wait::parse(task.args)?;
        let waiting = Wait {
            task: OwnedTask { redirects: false, ..task.kept() },
            wanted,
            deadline: (timeout_ms > 0).then(|| self.context.now + Duration::from_millis(timeout_ms)),
            writes: Vec::new(),
            parts: Vec::new(),
            missing: 0,
            counted: None,
            ask_at: self.context.now,
        };
        let collector = self.new_collector(Collector::Wait(waiting));
        self.ask_holders(collector);
        Ok(())
    }

    fn ask_holders(&mut self, collector: u64) {
        let (now, timeout) = (self.context.now, self.config.settings.request_timeout());
        let Some(Collector::Wait(waiting)) = self.collectors.get(&collector) else { return };
        let Origin::Client(ticket) = waiting.task.origin else { return };
        if self.owes_reply(ticket) {
            // Writes that came before it are still under way: they count too.
            if let Some(Collector::Wait(waiting)) = self.collectors.get_mut(&collector) {
                waiting.ask_at = now + WAIT_ASKS;
            }
            return;
        }
        let writes = self.last_writes.of(ticket.connection);
        if writes.is_empty() {
            // Nothing written: every backup that is in sync holds it.
            let in_sync = self.context.map.partitions.iter().map(|state| state.in_sync.len());
            let backups = in_sync.min().unwrap_or(0).saturating_sub(1);
            self.collectors.remove(&collector);
            self.hand_over(Origin::Client(ticket), Reply::count(backups), None, None);
            return;
        }
        let Some(Collector::Wait(waiting)) = self.collectors.get_mut(&collector) else { return };
        waiting.parts = vec![None; writes.len()];
        waiting.missing = writes.len();
        waiting.writes = writes;
        let (task, writes) = (waiting.task.clone(), waiting.writes.clone());
        for (index, (id, position)) in writes.into_iter().enumerate() {
            let args = vec![
                Bytes::from_static(b"wait"),
                Bytes::from(position.epoch.0.to_string()),
                Bytes::from(position.lsn.0.to_string()),
            ];
            let origin = Origin::Part { collector, index };
            self.start(id, OwnedTask { args, origin, deadline: now + timeout, ..task.clone() });
        }
    }

    /// All primaries have answered.
    fn holders_counted(&mut self, collector: u64) {
        let now = self.context.now;
        let Some(Collector::Wait(waiting)) = self.collectors.get_mut(&collector) else { return };
        waiting.counted = waiting.fewest();
        let reply = match &waiting.counted {
            Some(Reply::Integer(fewest)) if *fewest < waiting.wanted => {
                waiting.ask_at = now + WAIT_ASKS;
                return;
            }
            Some(reply) => reply.clone(),
            None => Reply::Integer(0),
        };
        let origin = waiting.task.origin;
        self.collectors.remove(&collector);
        self.hand_over(origin, reply, None, None);
    }

    /// A connection is gone: what it asked for over several partitions need not be gathered.
    pub(crate) fn drop_collectors(&mut self, connection: u64) {
        self.collectors.retain(|_, collector| collector.connection() != Some(connection));
    }

    /// Whose connection a part is gathered for.
    pub(crate) fn connection_of(&self, collector: u64) -> Option<u64> {
        self.collectors.get(&collector).and_then(Collector::connection)
    }

    /// Whether a request that came on a connection before this one still waits for its reply.
    fn owes_reply(&self, ticket: Ticket) -> bool {
        let earlier = |origin: &Origin| {
            matches!(origin, Origin::Client(other)
                if other.connection == ticket.connection && other.sequence < ticket.sequence)
        };
        self.forwards.values().any(|forwarding| earlier(&forwarding.task.origin))
            || self.parked.values().flatten().any(|task| earlier(&task.origin))
            || self.crowd.tasks().any(|task| earlier(&task.origin))
            || self.collectors.values().any(|collector| earlier(&collector.origin()))
            || self.partitions.iter().flat_map(Partition::waiters).any(|waiter| earlier(&waiter.origin))
    }

    /// WAITs whose time is over are answered with what is known; others ask again, or for the first time.
    pub(crate) fn tick_collectors(&mut self) {
        let now = self.context.now;
        let over: Vec<u64> = self
            .collectors
            .iter()
            .filter(|(_, collector)| {
                matches!(collector, Collector::Wait(w) if w.deadline.is_some_and(|deadline| now >= deadline))
            })
            .map(|(&id, _)| id)
            .collect();
        for id in over {
            let Some(Collector::Wait(waiting)) = self.collectors.remove(&id) else { continue };
            let reply = waiting.fewest().unwrap_or(Reply::Integer(0));
            self.hand_over(waiting.task.origin, reply, None, None);
        }
        let due: Vec<u64> = self
            .collectors
            .iter()
            .filter(|(_, collector)| {
                matches!(collector, Collector::Wait(waiting) if waiting.missing == 0 && now >= waiting.ask_at)
            })
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            self.ask_holders(id);
        }
    }

    /// Takes a request over several partitions one step on, so that none of them holds up others.
    pub(crate) fn go_on(&mut self) {
        let Some(id) = self.going_on.pop_front() else { return };
        match self.collectors.get(&id) {
            Some(Collector::Listing(_)) => self.list_on(id),
            Some(Collector::Scan(_)) => self.scan_on(id),
            Some(Collector::Gather(_)) => self.gather_on(id),
            _ => {}
        }
    }

    /// Takes in the parts that are done.
    pub(crate) fn settle_parts(&mut self) {
        while let Some((id, index, reply)) = self.parts.pop_front() {
            match self.collectors.get_mut(&id) {
                Some(Collector::Gather(gather)) => {
                    if gather.take(index, reply)
                        && let Some(Collector::Gather(gather)) = self.collectors.remove(&id)
                    {
                        let origin = gather.origin;
                        self.hand_over(origin, gather.merged(), None, None);
                    }
                }
                Some(Collector::Wait(waiting)) => {
                    let Some(part) = waiting.parts.get_mut(index) else { continue };
                    if part.replace(reply).is_none() {
                        waiting.missing -= 1;
                    }
                    if waiting.missing == 0 {
                        self.holders_counted(id);
                    }
                }
                Some(Collector::Listing(_)) => self.list_part(id, index, &reply),
                Some(Collector::Scan(_)) => self.scan_part(id, index, reply),
                Some(Collector::RandomKey(_)) => self.random_key_part(id, index, reply),
                Some(Collector::Count(_)) => self.count_part(id, index, reply),
                None => {}
            }
        }
    }
}

impl Collector {
    fn origin(&self) -> Origin {
        match self {
            Collector::Gather(gather) => gather.origin,
            Collector::Scan(scan) => scan.task.origin,
            Collector::Listing(listing) => listing.origin,
            Collector::Wait(waiting) => waiting.task.origin,
            Collector::RandomKey(choice) => choice.task.origin,
            Collector::Count(count) => count.task.origin,
        }
    }

    fn connection(&self) -> Option<u64> {
        match self.origin() {
            Origin::Client(ticket) => Some(ticket.connection),
            _ => None,
        }
    }
}

impl Wait {
    /// The fewest backups that any primary counted, or what one of them failed with. None before all have answered.
    fn fewest(&self) -> Option<Reply<'static>> {
        if self.missing > 0 || self.parts.is_empty() {
            return self.counted.clone();
        }
        let mut fewest = i64::MAX;
        for part in self.parts.iter().flatten() {
            match part {
                Reply::Integer(count) => fewest = fewest.min(*count),
                other => return Some(other.clone()),
            }
        }
        Some(Reply::Integer(fewest))
    }
}

impl Gather {
    /// A part is done. True where it was the last.
    fn take(&mut self, index: usize, reply: Reply<'static>) -> bool {
        if self.parts[index].replace(reply).is_none() {
            self.missing -= 1;
        }
        self.missing == 0
    }

    /// One reply of all parts. An error of any part is the whole's: the worst first, which is an unknown outcome.
    fn merged(self) -> Reply<'static> {
        let parts: Vec<Reply<'static>> = self.parts.into_iter().flatten().collect();
        let errors = parts.iter().filter_map(|part| match part {
            Reply::Error(error) => Some(error),
            _ => None,
        });
        let is_unknown = |error: &&CommandError| matches!(error, CommandError::OutcomeUnknown { .. });
        if let Some(error) = errors.clone().find(is_unknown).or_else(|| errors.clone().next()) {
            return Reply::Error(error.clone());
        }
        match self.merge {
            Merge::Sum => Reply::Integer(
                parts.iter().map(|part| if let Reply::Integer(n) = part { *n } else { 0 }).sum(),
            ),
            Merge::AllOk => Reply::ok(),
            Merge::InKeyOrder => {
                let count = self.places.iter().map(Vec::len).sum();
                let mut merged: Vec<Reply<'static>> = vec![Reply::Null; count];
                for (part, places) in parts.into_iter().zip(self.places) {
                    for (element, place) in elements(part).into_iter().zip(places) {
                        merged[place] = element;
                    }
                }
                Reply::Array(merged)
            }
        }
    }
}

fn elements(reply: Reply<'static>) -> Vec<Reply<'static>> {
    match reply {
        Reply::Array(elements) => elements,
        _ => Vec::new(),
    }
}
