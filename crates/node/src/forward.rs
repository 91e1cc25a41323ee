//! Requests passed on to a partition's primary (rule 17).
//!
//! A request keeps its number for as long as it is tried. It is sent again where it was surely not ordered, where the
//! partition has a new primary, and where no answer comes; the number lets a primary that has it in its log answer
//! instead of doing it twice. Who gets a passed-on request runs it or refuses it, and never passes it on.

use crate::run::{Origin, Outcome, OwnedTask};
use crate::shard::Shard;
use command::{CommandError, Reply, resolve};
use replication::message::{Forward, ForwardOutcome, Forwarded};
use replication::{Message, Sender};
use std::time::Duration;
use types::{Epoch, Instant, NodeId, PartitionId, RequestId, ShardId};

/// After this long without an answer a request is sent again.
const RESEND: Duration = Duration::from_millis(500);
/// After a refusal, the wait before the next try.
const RETRY: Duration = Duration::from_millis(10);

/// A request that was passed on.
#[derive(Debug)]
pub(crate) struct Forwarding {
    task: OwnedTask,
    partition: PartitionId,
    /// Whom it was sent to last, and in which reign.
    to: Option<(NodeId, ShardId, Epoch)>,
    send_at: Instant,
    /// Whether an earlier sending may have been ordered.
    uncertain: bool,
}

impl Forwarding {
    pub fn link_lost(&mut self, node: NodeId) {
        if self.to.is_some_and(|to| to.0 == node) {
            // Sent again at the next tick: the same number, so not done twice.
            self.send_at = Instant(0);
        }
    }
}

impl Shard {
    /// Where a partition's primary is: node, shard and reign. None where nobody is.
    pub(crate) fn primary_of(&self, id: PartitionId) -> Option<(NodeId, ShardId, Epoch)> {
        let state = self.context.map.partition(id)?;
        let node = state.primary?;
        Some((node, self.context.map.shard_of(node, id)?, state.primary_since))
    }

    pub(crate) fn is_mine(&self, node: NodeId, shard: ShardId) -> bool {
        node == self.config.identity.node && shard == self.config.shard
    }

    /// Passes a request on.
    pub(crate) fn forward(&mut self, id: PartitionId, task: OwnedTask) {
        let sequence = self.next_forward;
        self.next_forward += 1;
        crate::published::ShardCounters::add(&self.counters().forwarded, 1);
        let forwarding = Forwarding { task, partition: id, to: None, send_at: Instant(0), uncertain: false };
        self.forwards.insert(sequence, forwarding);
        self.send_forward(sequence);
    }

    /// Sends a request to its partition's primary as the map shows it now, or runs it where that is this shard.
    fn send_forward(&mut self, sequence: u64) {
        let Some(partition) = self.forwards.get(&sequence).map(|forwarding| forwarding.partition) else {
            return;
        };
        let target = self.primary_of(partition);
        let now = self.context.now;
        let identity = self.config.identity;
        let id = RequestId {
            node: identity.node,
            incarnation: identity.incarnation,
            shard: self.config.shard,
            sequence,
        };
        let Some((node, shard, primary_since)) = target else {
            if let Some(forwarding) = self.forwards.get_mut(&sequence) {
                forwarding.send_at = now + RETRY;
            }
            return;
        };
        if self.is_mine(node, shard) {
            return self.run_own_forward(sequence, id);
        }
        let Some(forwarding) = self.forwards.get_mut(&sequence) else { return };
        forwarding.to = Some((node, shard, primary_since));
        forwarding.send_at = now + RESEND;
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
        self.effects.messages.push((node, shard, Message::Forward(forward)));
    }

    /// A partition moved to this very shard while a request for it was under way elsewhere.
    fn run_own_forward(&mut self, sequence: u64, id: RequestId) {
        let Some(forwarding) = self.forwards.get(&sequence) else { return };
        let (partition, mut task) = (forwarding.partition, forwarding.task.clone());
        // Logged under its number where it was sent before: the reply may be in the log already.
        task.request = forwarding.uncertain.then_some(id);
        match task.with(|task| self.run_here(partition, &task, None)) {
            Outcome::NotServing => {
                if let Some(forwarding) = self.forwards.get_mut(&sequence) {
                    forwarding.send_at = self.context.now + RETRY;
                }
            }
            Outcome::Replied | Outcome::Later => {
                self.forwards.remove(&sequence);
            }
        }
    }

    /// Another shard passed a request on to this one.
    pub(crate) fn on_forward(&mut self, from: Sender, forward: Forward) {
        let reign = forward.primary_since;
        let origin = Origin::Peer { node: from.node, shard: from.shard, id: forward.id, reign };
        let partition = forward.partition;
        // Rule 4: meant for another reign, it is refused, and can never be ordered later.
        let current = self
            .partitions
            .get(&partition)
            .is_some_and(|copy| copy.is_primary() && copy.primary_since() == forward.primary_since);
        let genuine = forward.id.node == from.node && forward.id.incarnation == from.incarnation;
        if !current || !genuine {
            return self.send_outcome(from.node, from.shard, forward.id, reign, ForwardOutcome::NotOrdered);
        }
        let args: Vec<&[u8]> = forward.args.iter().map(|arg| &arg[..]).collect();
        // WAIT's question has arguments of its own; everything else was checked where it came in, and is again.
        let command = match command::lookup(args.first().copied().unwrap_or_default()) {
            Some(command) if matches!(command.handler, command::Handler::Wait) => Ok(command),
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
            read_level: forward.read_level,
            write_level: forward.write_level,
            request: Some(forward.id),
            origin,
            deadline: self.context.now + self.config.settings.request_timeout(),
            redirects: false,
        };
        if let Outcome::NotServing = self.run_here(partition, &task, None) {
            self.send_outcome(from.node, from.shard, forward.id, reign, ForwardOutcome::NotOrdered);
        }
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
                let Some(Forwarding { task, partition, .. }) = self.forwards.remove(&sequence) else {
                    return;
                };
                let reply = Reply::decode_neutral(&reply).unwrap_or_else(|_| {
                    Reply::Error(CommandError::Other("ERR unreadable reply of a peer".into()))
                });
                self.hand_over(task.origin, reply, written.map(|at| (partition, at)), None);
            }
            // Not ordered this time; whether an earlier sending was, its number will tell.
            ForwardOutcome::NotOrdered => forwarding.send_at = self.context.now + RETRY,
            // The next reign's primary may have it in its log.
            ForwardOutcome::Unknown => forwarding.send_at = self.context.now + RETRY,
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
            let Some(forwarding) = self.forwards.remove(&sequence) else { continue };
            if forwarding.task.is_write() && forwarding.uncertain {
                crate::published::ShardCounters::add(&self.counters().unknown_outcomes, 1);
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
            self.send_forward(sequence);
        }
    }

    /// A newer map: what was sent to a primary that is none any more goes to the next one.
    pub(crate) fn reroute(&mut self) {
        let moved: Vec<u64> = self
            .forwards
            .iter()
            .filter(|(_, forwarding)| {
                let target = self.primary_of(forwarding.partition);
                target.is_some() && target != forwarding.to
            })
            .map(|(&sequence, _)| sequence)
            .collect();
        for sequence in moved {
            self.send_forward(sequence);
        }
        self.retry_parked();
    }
}
