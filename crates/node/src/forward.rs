//! Requests passed on to a partition's primary (rule 17).
//!
//! A request keeps its number for as long as it is tried. It is sent again where it was surely not ordered, where the
//! partition has a new primary, and where no answer comes; the number lets a primary that has it in its log answer
//! instead of doing it twice. Who gets a passed-on request runs it or refuses it, and never passes it on.
//!
//! Requests for one partition keep their order, also where some of them have to be sent again: a [`Lane`] holds back
//! whatever came after one that was refused or may be lost, until that one is answered; and a primary that has refused
//! one refuses what was sent behind it.

use crate::run::{Origin, Outcome, OwnedTask, outcome_unknown, too_large_to_pass_on};
use crate::shard::Shard;
use command::{CommandError, Handler, Reply, resolve};
use replication::message::{Forward, ForwardOutcome, Forwarded};
use replication::{Message, Sender};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::Lent;
use types::limits::RECORD_BYTES_MAX;
use types::settings::ReadLevel;
use types::{Epoch, Instant, NodeId, PartitionId, RequestId, ShardId};

/// After this long without an answer a request is sent again.
const RESEND: Duration = Duration::from_millis(500);
/// How often that is doubled.
const RESEND_DOUBLINGS_MAX: u32 = 2;
/// What a slow line, and the node behind it, take of passed-on requests in a millisecond, in bytes: 32 MiB a second.
const SLOW_BYTES_A_MS: usize = 32 * 1024;
/// After a refusal, or where too much is under way, the wait before the next try.
const RETRY: Duration = Duration::from_millis(10);
/// The same of a request that waits on purpose: a newer map sends it on at once.
const RETRY_WAITING: Duration = Duration::from_millis(150);

/// For how long a primary refuses what a forwarder sent behind a refused request.
const REFUSAL: Duration = Duration::from_secs(1);
/// Requests of one shard that may be under way elsewhere, or held back.
const FORWARDS_MAX: usize = 200_000;

/// The requests for one partition that this shard has passed on, by number.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    open: BTreeSet<u64>,
    /// The first that was refused or may be lost: what came after it is held back.
    stalled_at: Option<u64>,
}

impl Lane {
    fn stall(&mut self, sequence: u64) {
        self.stalled_at = Some(self.stalled_at.map_or(sequence, |at| at.min(sequence)));
    }

    fn holds_back(&self, sequence: u64) -> bool {
        self.stalled_at.is_some_and(|at| at < sequence)
    }
}

/// A request that was passed on.
#[derive(Debug)]
pub(crate) struct Forwarding {
    pub task: OwnedTask,
    partition: PartitionId,
    /// A stale read, for this node's own copy on another shard.
    own_copy: bool,
    /// Whether it keeps its order among others: not what needs none, nor what waits on purpose.
    in_lane: bool,
    /// Whom it was sent to last, and in which reign.
    to: Option<(NodeId, ShardId, Epoch)>,
    send_at: Instant,
    /// Whether an earlier sending may have been ordered.
    uncertain: bool,
    /// Where its bytes count as under way, and how many they are.
    ahead: Option<(NodeId, usize)>,
    /// Too much was under way when it should have been sent: only for that its lane stands.
    waits_for_room: bool,
    /// How often it was sent to where it belongs now without an answer.
    sendings: u32,
}

/// Whether it keeps its order among others of its lane: not a stale read for a copy of the same node, nor what waits on purpose. A write
/// does, whatever its connection reads.
fn needs_order(forward: &Forward, stale_here: bool) -> bool {
    let name = forward.args.first().map(|name| &name[..]).unwrap_or_default();
    command::lookup(name).is_none_or(|command| {
        !matches!(command.handler, Handler::Changes) && (!stale_here || command.is_write())
    })
}

impl Shard {
    /// Where a partition's primary is: node, shard and reign. None where nobody is.
    pub(crate) fn primary_of(&self, id: PartitionId) -> Option<(NodeId, ShardId, Epoch)> {
        let state = self.context.map.partition(id)?;
        let node = state.primary?;
        Some((node, self.context.map.shard_of(node, id)?, state.primary_since))
    }

    /// Where a request that is passed on belongs now.
    fn target_of(&self, sequence: u64) -> Option<(NodeId, ShardId, Epoch)> {
        let forwarding = self.forwards.get(&sequence)?;
        let id = forwarding.partition;
        if !forwarding.own_copy {
            return self.primary_of(id);
        }
        let me = self.config.identity.node;
        let state = self.context.map.partition(id)?;
        Some((me, self.context.map.shard_of(me, id)?, state.primary_since))
    }

    pub(crate) fn is_mine(&self, node: NodeId, shard: ShardId) -> bool {
        node == self.config.identity.node && shard == self.config.shard
    }

    /// Passes a request on.
    pub(crate) fn forward(&mut self, id: PartitionId, task: OwnedTask) {
        self.forward_to(id, task, false);
    }

    /// Passes a stale read on to the shard of this node that has the copy.
    pub(crate) fn forward_to_own_copy(&mut self, id: PartitionId, task: OwnedTask) {
        self.forward_to(id, task, true);
    }

    fn forward_to(&mut self, id: PartitionId, task: OwnedTask, own_copy: bool) {
        if self.forwards.len() >= FORWARDS_MAX {
            let why = "too many requests of this node wait for others".into();
            self.fail(task.origin, CommandError::TryAgain { why });
            return;
        }
        let sequence = self.next_forward;
        self.next_forward += 1;
        crate::published::ShardCounters::add(&self.counters().forwarded, 1);
        let in_lane = !own_copy && task.waits_on_purpose().is_zero();
        let forwarding = Forwarding {
            task,
            partition: id,
            own_copy,
            in_lane,
            to: None,
            send_at: Instant(0),
            uncertain: false,
            ahead: None,
            waits_for_room: false,
            sendings: 0,
        };
        self.forwards.insert(sequence, forwarding);
        if in_lane {
            self.lanes.entry(id).or_default().open.insert(sequence);
        }
        self.send_forward(sequence);
    }

    /// A request was refused, or may be lost: nobody overtakes it.
    fn stall(&mut self, id: PartitionId, sequence: u64, send_at: Instant) {
        // What needs no order, such as a stale read, is in no lane.
        if let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.open.contains(&sequence)) {
            lane.stall(sequence);
        }
        if let Some(forwarding) = self.forwards.get_mut(&sequence) {
            forwarding.send_at = send_at;
            forwarding.sendings = 0;
        }
    }

    /// After a refusal, the wait before the next try. Those in a lane wait for one of them; the others may be many.
    fn retry_of(&self, sequence: u64) -> Duration {
        match self.forwards.get(&sequence) {
            Some(forwarding) if !forwarding.task.waits_on_purpose().is_zero() => RETRY_WAITING,
            _ => RETRY,
        }
    }

    /// A request is done with. What was held back for it goes on.
    fn close_forward(&mut self, sequence: u64) -> Option<Forwarding> {
        let forwarding = self.forwards.remove(&sequence)?;
        self.count_forward_out(forwarding.ahead);
        let id = forwarding.partition;
        let Some(lane) = self.lanes.get_mut(&id) else { return Some(forwarding) };
        lane.open.remove(&sequence);
        if lane.stalled_at == Some(sequence) {
            lane.stalled_at = None;
            for next in lane.open.range(sequence..).copied().collect::<Vec<_>>() {
                self.send_forward(next);
            }
        }
        if self.lanes.get(&id).is_some_and(|lane| lane.open.is_empty()) {
            self.lanes.remove(&id);
        }
        Some(forwarding)
    }

    /// Messages to or from a node may have been lost: what is under way there is sent again, in order.
    pub(crate) fn forwards_lost(&mut self, node: NodeId) {
        let mut first: BTreeMap<PartitionId, u64> = BTreeMap::new();
        let mut unordered = Vec::new();
        for (&sequence, forwarding) in self.forwards.iter().filter(|(_, forwarding)| !forwarding.own_copy) {
            if forwarding.to.is_none_or(|to| to.0 != node) {
                continue;
            }
            if forwarding.in_lane {
                first.entry(forwarding.partition).or_insert(sequence);
            } else {
                unordered.push((forwarding.partition, sequence));
            }
        }
        for (id, sequence) in first.into_iter().chain(unordered) {
            self.stall(id, sequence, Instant(0));
        }
    }

    /// Sends a request to its partition's primary as the map shows it now, or runs it where that is this shard.
    fn send_forward(&mut self, sequence: u64) {
        let Some(partition) = self.forwards.get(&sequence).map(|forwarding| forwarding.partition) else {
            return;
        };
        let own_copy = self.forwards.get(&sequence).is_some_and(|forwarding| forwarding.own_copy);
        let in_lane = self.forwards.get(&sequence).is_some_and(|forwarding| forwarding.in_lane);
        if in_lane && self.lanes.get(&partition).is_some_and(|lane| lane.holds_back(sequence)) {
            return;
        }
        let target = self.target_of(sequence);
        let now = self.context.now;
        let identity = self.config.identity;
        let id = RequestId {
            node: identity.node,
            incarnation: identity.incarnation,
            shard: self.config.shard,
            sequence,
        };
        let Some((node, shard, primary_since)) = target else {
            return self.stall(partition, sequence, now + self.retry_of(sequence));
        };
        if self.is_mine(node, shard) && !own_copy {
            return self.run_own_forward(sequence, id);
        }
        let Some(forwarding) = self.forwards.get(&sequence) else { return };
        if node != identity.node && forwarding.task.frame_bytes() > RECORD_BYTES_MAX {
            // An earlier sending went to a shard of this node.
            let unknown = forwarding.uncertain && forwarding.task.is_write();
            let Some(Forwarding { task, .. }) = self.close_forward(sequence) else { return };
            let error = if unknown { outcome_unknown() } else { too_large_to_pass_on("a request") };
            self.fail(task.origin, error);
            return;
        }
        let had_waited = forwarding.waits_for_room;
        if !self.count_forward_in(sequence, node) {
            return self.stall(partition, sequence, now + RETRY);
        }
        let ahead = self.forwards_ahead.get(&node).copied().unwrap_or(0);
        let Some(forwarding) = self.forwards.get_mut(&sequence) else { return };
        let target = Some((node, shard, primary_since));
        forwarding.sendings = if forwarding.to == target { forwarding.sendings + 1 } else { 1 };
        forwarding.to = target;
        let doublings = (forwarding.sendings - 1).min(RESEND_DOUBLINGS_MAX);
        let takes = Duration::from_millis(((ahead + forwarding.task.bytes()) / SLOW_BYTES_A_MS) as u64);
        forwarding.send_at = now + RESEND * (1 << doublings) + takes + forwarding.task.waits_on_purpose();
        forwarding.uncertain = true;
        let task = &forwarding.task;
        let forward = Forward {
            id,
            partition,
            primary_since,
            write_level: task.write_level,
            read_level: task.read_level,
            args: task.args.clone(),
        };
        let is_huge = forward.is_huge();
        self.effects.messages.push((node, shard, Message::Forward(forward)));
        if is_huge && let Some(lane) = self.lanes.get_mut(&partition).filter(|_| in_lane) {
            // What is sent behind it would overtake it.
            lane.stall(sequence);
        } else if had_waited {
            self.lane_goes_on(partition, sequence);
        }
    }

    /// What had to wait for room was sent: those behind it follow, as far as there is more.
    fn lane_goes_on(&mut self, id: PartitionId, sequence: u64) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.stalled_at == Some(sequence)) else {
            return;
        };
        lane.stalled_at = None;
        for next in lane.open.range(sequence + 1..).copied().collect::<Vec<_>>() {
            self.send_forward(next);
            if self.lanes.get(&id).is_none_or(|lane| lane.stalled_at.is_some()) {
                break;
            }
        }
    }

    /// Counts a request's bytes as under way at a node. False: too many are, and it has to wait for answers (backpressure).
    fn count_forward_in(&mut self, sequence: u64, node: NodeId) -> bool {
        let Some(forwarding) = self.forwards.get_mut(&sequence) else { return false };
        forwarding.waits_for_room = false;
        if forwarding.ahead.is_some_and(|(other, _)| other == node) {
            return true;
        }
        // One counts for half of what may be under way at most, so that a huge value does not hold up whatever else goes there.
        let bytes = forwarding.task.bytes().min(self.forward_ahead_bytes / 2);
        let ahead = self.forwards_ahead.get(&node).copied().unwrap_or(0);
        if ahead > 0 && ahead + bytes > self.forward_ahead_bytes {
            forwarding.waits_for_room = true;
            return false;
        }
        let before = forwarding.ahead.replace((node, bytes));
        self.count_forward_out(before);
        *self.forwards_ahead.entry(node).or_default() += bytes;
        true
    }

    fn count_forward_out(&mut self, counted: Option<(NodeId, usize)>) {
        let Some((node, bytes)) = counted else { return };
        if let Some(ahead) = self.forwards_ahead.get_mut(&node) {
            *ahead -= bytes;
        }
    }

    /// A partition moved to this very shard while a request for it was under way elsewhere.
    fn run_own_forward(&mut self, sequence: u64, id: RequestId) {
        let Some(forwarding) = self.forwards.get(&sequence) else { return };
        let (partition, mut task) = (forwarding.partition, forwarding.task.clone());
        // Logged under its number where it was sent before: the reply may be in the log already.
        task.request = forwarding.uncertain.then_some(id);
        match task.with(|task| self.run_here(partition, &task, None)) {
            Outcome::NotServing | Outcome::Crowded => {
                self.stall(partition, sequence, self.context.now + self.retry_of(sequence));
            }
            Outcome::Replied | Outcome::Later => {
                self.close_forward(sequence);
            }
        }
    }

    /// Another shard passed a request on to this one.
    pub(crate) fn on_forward(&mut self, from: Sender, forward: Forward) {
        let reign = forward.primary_since;
        let origin = Origin::Peer { node: from.node, shard: from.shard, id: forward.id, reign };
        let partition = forward.partition;
        // Rule 4: meant for another reign, it is refused, and can never be ordered later.
        let stale_here = forward.read_level == ReadLevel::Stale && from.node == self.config.identity.node;
        let current = self.partitions.get(partition).is_some_and(|copy| {
            (copy.is_primary() || stale_here) && copy.primary_since() == forward.primary_since
        });
        let genuine = forward.id.node == from.node && forward.id.incarnation == from.incarnation;
        let lane = (partition, from.node, from.shard);
        // What needs no order is in no lane: it neither shuts one nor opens it for what was sent behind a refused request.
        let in_lane = needs_order(&forward, stale_here);
        let behind = in_lane
            && self
                .refusals
                .get(&lane)
                .is_some_and(|&(sequence, until)| forward.id.sequence > sequence && self.context.now < until);
        if !current || !genuine || behind {
            if in_lane && !behind {
                self.refuse(lane, forward.id.sequence);
            }
            return self.send_outcome(from.node, from.shard, forward.id, reign, ForwardOutcome::NotOrdered);
        }
        if in_lane {
            self.refusals.remove(&lane);
        }
        let args: Vec<&[u8]> = forward.args.iter().map(|arg| &arg[..]).collect();
        // The questions of WAIT and RANDOMKEY have arguments of their own; everything else was checked where it came in, and is again.
        let command = match command::lookup(args.first().copied().unwrap_or_default()) {
            Some(command) if matches!(command.handler, Handler::Wait | Handler::RandomKey) => Ok(command),
            _ => resolve(&args),
        };
        let command = match command {
            Ok(command) => command,
            Err(error) => {
                self.fail(origin, error);
                return;
            }
        };
        let task = crate::run::Task {
            command,
            args: &args,
            hash: None,
            lent: Some(&Lent::Args(&forward.args)),
            read_level: forward.read_level,
            write_level: forward.write_level,
            request: Some(forward.id),
            origin,
            deadline: self.context.now + self.config.settings.request_timeout(),
            redirects: false,
        };
        if self.crowd.is_ahead_of(partition, &task) {
            return self.crowd_in(partition, task.kept());
        }
        match self.run_here(partition, &task, None) {
            Outcome::Replied | Outcome::Later => {}
            Outcome::Crowded => self.crowd_in(partition, task.kept()),
            Outcome::NotServing => {
                if in_lane {
                    self.refuse(lane, forward.id.sequence);
                }
                self.send_outcome(from.node, from.shard, forward.id, reign, ForwardOutcome::NotOrdered);
            }
        }
    }

    /// Remembers a refused request, so that what its forwarder had sent behind it does not overtake it.
    pub(crate) fn refuse(&mut self, lane: (PartitionId, NodeId, ShardId), sequence: u64) {
        self.refusals.insert(lane, (sequence, self.context.now + REFUSAL));
    }

    /// What came of a request that this shard passed on.
    pub(crate) fn on_forwarded(&mut self, forwarded: Forwarded) {
        let sequence = forwarded.id.sequence;
        let identity = self.config.identity;
        let own = forwarded.id.node == identity.node
            && forwarded.id.incarnation == identity.incarnation
            && forwarded.id.shard == self.config.shard;
        let Some(forwarding) = self.forwards.get_mut(&sequence).filter(|_| own) else { return };
        // Sent anew for another reign since: that sending may still be run, so its answer alone counts.
        if forwarding.to.is_none_or(|(_, _, reign)| reign != forwarded.primary_since) {
            return;
        }
        match forwarded.outcome {
            ForwardOutcome::Reply { reply, written } => {
                let Some(Forwarding { task, partition, .. }) = self.close_forward(sequence) else {
                    return;
                };
                let reply = Reply::decode_neutral(&reply).unwrap_or_else(|_| {
                    Reply::Error(CommandError::Other("ERR unreadable reply of a peer".into()))
                });
                self.hand_over(task.origin, reply, written.map(|at| (partition, at)), None);
            }
            // Not ordered this time; whether an earlier sending was, its number will tell. Where the outcome is unknown,
            // the next reign's primary may have it in its log.
            ForwardOutcome::NotOrdered | ForwardOutcome::Unknown => {
                let id = forwarding.partition;
                self.stall(id, sequence, self.context.now + self.retry_of(sequence));
            }
        }
    }

    /// Sends what is due again, and ends what has waited too long.
    pub(crate) fn retry_forwards(&mut self) {
        let now = self.context.now;
        let over: Vec<u64> = self
            .forwards
            .iter()
            .filter(|(_, f)| now >= f.task.deadline)
            .map(|(&sequence, _)| sequence)
            .collect();
        for sequence in over {
            let Some(forwarding) = self.close_forward(sequence) else { continue };
            if forwarding.task.is_write() && forwarding.uncertain {
                self.fail(
                    forwarding.task.origin,
                    CommandError::OutcomeUnknown {
                        why: "no answer from the partition's primary in time; the write may or may not have happened"
                            .into(),
                    },
                );
            } else {
                let error = self.not_served(forwarding.partition);
                self.fail(forwarding.task.origin, error);
            }
        }
        let due: Vec<u64> =
            self.forwards.iter().filter(|(_, f)| now >= f.send_at).map(|(&sequence, _)| sequence).collect();
        for sequence in due {
            // It may have gone along with one before it.
            if self.forwards.get(&sequence).is_some_and(|forwarding| now >= forwarding.send_at) {
                self.send_forward(sequence);
            }
        }
        self.refusals.retain(|_, (_, until)| now < *until);
    }

    /// A newer map: what was sent to a primary that is none any more goes to the next one.
    pub(crate) fn reroute(&mut self) {
        let mut first: BTreeMap<PartitionId, u64> = BTreeMap::new();
        let mut unordered = Vec::new();
        for (&sequence, forwarding) in &self.forwards {
            let target = self.target_of(sequence);
            if target.is_none() || target == forwarding.to {
                continue;
            }
            let lane = self.lanes.get(&forwarding.partition).filter(|_| forwarding.in_lane);
            if lane.is_some_and(|lane| lane.holds_back(sequence)) {
                // It follows the one that it waits for, which may well be on its way to where it belongs.
                continue;
            }
            if forwarding.in_lane {
                first.entry(forwarding.partition).or_insert(sequence);
            } else {
                unordered.push((forwarding.partition, sequence));
            }
        }
        for (id, sequence) in unordered {
            self.stall(id, sequence, self.context.now);
            self.send_forward(sequence);
        }
        for (id, sequence) in first {
            self.stall(id, sequence, self.context.now);
            let first = self.lanes.get(&id).and_then(|lane| lane.stalled_at).unwrap_or(sequence);
            self.send_forward(first.min(sequence));
        }
        self.retry_parked();
    }
}
