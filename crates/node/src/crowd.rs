//! Writes that are not even ordered, since their partition is crowded: so much of it is ordered and not committed already, or
//! was when they came (backpressure; [`replication::Partition::is_crowded`]).
//!
//! They wait in the order in which they came, and are run once there is room. A client's connection runs nothing more until
//! then ([`Answer::Alone`]) and is not read from: so each has at most one request here, and who writes to other partitions, or
//! reads, does not notice. Requests that the connection does not wait for (parts of one over several partitions, passed-on ones, those that
//! were parked) are *loose*: where there are some, reads of the partition queue behind them, so that none overtakes an earlier
//! write of its own connection.
//!
//! A write that waits too long is refused: it was surely not done. One that was passed on is only dropped, since its forwarder
//! may send it again; that one tells its client when the time is up.

use crate::published::ShardCounters;
use crate::request::REPLY_BYTES_A_TURN;
use crate::run::{Origin, Outcome, Parked, Task};
use crate::shard::Shard;
use command::CommandError;
use replication::message::ForwardOutcome;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::{PartitionId, RequestId};

/// What waits for room, by partition.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    queues: BTreeMap<PartitionId, Queue>,
    /// Those that were passed on: they may come twice.
    forwards: BTreeSet<RequestId>,
    /// How many there are.
    pub count: usize,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Parked>,
    loose: usize,
}

fn is_loose(task: &Parked) -> bool {
    !task.alone
}

impl Crowd {
    /// Everything that waits.
    pub fn tasks(&self) -> impl Iterator<Item = &Parked> {
        self.queues.values().flat_map(|queue| &queue.tasks)
    }

    /// Whether a request must queue behind others that wait for its partition.
    pub fn is_ahead_of(&self, id: PartitionId, task: &Task<'_>) -> bool {
        let Some(queue) = self.queues.get(&id) else { return false };
        !task.needs_no_order() && (task.is_write() || queue.loose > 0)
    }

    fn push(&mut self, id: PartitionId, task: Parked) {
        if let Origin::Peer { id: request, .. } = task.origin
            && !self.forwards.insert(request)
        {
            // Sent again: the first still waits.
            return;
        }
        let queue = self.queues.entry(id).or_default();
        queue.loose += usize::from(is_loose(&task));
        queue.tasks.push_back(task);
        self.count += 1;
    }

    fn take(&mut self, id: PartitionId) -> VecDeque<Parked> {
        let tasks = self.queues.remove(&id).map(|queue| queue.tasks).unwrap_or_default();
        self.count -= tasks.len();
        for task in &tasks {
            if let Origin::Peer { id, .. } = task.origin {
                self.forwards.remove(&id);
            }
        }
        tasks
    }

    /// A connection is gone: what it alone waits for is not done any more.
    pub fn forget(&mut self, connection: u64) {
        if self.queues.is_empty() {
            return;
        }
        let is_its =
            |task: &Parked| matches!(task.origin, Origin::Client(ticket) if ticket.connection == connection);
        for queue in self.queues.values_mut() {
            queue.tasks.retain(|task| is_loose(task) || !is_its(task));
        }
        self.queues.retain(|_, queue| !queue.tasks.is_empty());
        self.count = self.queues.values().map(|queue| queue.tasks.len()).sum();
    }
}

impl Shard {
    /// A request waits for room in its partition.
    pub(crate) fn crowd_in(&mut self, id: PartitionId, task: Parked) {
        ShardCounters::add(&self.counters().crowded_total, 1);
        self.crowd.push(id, task);
    }

    /// Runs what waits for room in this partition, as far as there is some.
    pub(crate) fn retry_crowd_of(&mut self, id: PartitionId) {
        let mut tasks = self.crowd.take(id);
        while let Some(task) = tasks.pop_front() {
            if self.context.now >= task.deadline {
                self.end_in_crowd(id, &task);
                continue;
            }
            match task.with(|task| self.run_here(id, &task, None)) {
                Outcome::Replied | Outcome::Later => {}
                Outcome::Crowded => {
                    tasks.push_front(task);
                    break;
                }
                Outcome::NotServing => self.leave_crowd(id, task),
            }
            if self.reply_bytes > REPLY_BYTES_A_TURN {
                break;
            }
        }
        tasks.into_iter().for_each(|task| self.crowd.push(id, task));
    }

    /// This copy does not serve any more: the request goes on where it belongs.
    fn leave_crowd(&mut self, id: PartitionId, task: Parked) {
        match task.origin {
            Origin::Peer { node, shard, id: request, reign } => {
                self.refuse((id, node, shard), request.sequence);
                self.send_outcome(node, shard, request, reign, ForwardOutcome::NotOrdered);
            }
            _ => self.start(id, task),
        }
    }

    fn end_in_crowd(&mut self, id: PartitionId, task: &Parked) {
        if matches!(task.origin, Origin::Peer { .. }) {
            return;
        }
        let why = format!(
            "partition {id} has as many writes under way as it may (uncommitted_bytes_max): one of its copies, or this node's disk, is slow"
        );
        self.fail(task.origin, CommandError::TryAgain { why: why.into() });
    }

    /// Time passes: also other partitions may have made room.
    pub(crate) fn retry_crowd(&mut self) {
        for id in self.crowd.queues.keys().copied().collect::<Vec<_>>() {
            self.retry_crowd_of(id);
        }
    }
}

#[cfg(test)]
mod tests;
