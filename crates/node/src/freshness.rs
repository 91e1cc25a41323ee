//! Primaries tell the copies how far they have committed, so that a stale read can say how old what it shows may be.
//!
//! All partitions of two shards in one message, a few times a second, whether they are busy or not: a few kilobytes.

use crate::shard::Shard;
use replication::message::CommittedAt;
use replication::{Committed, Message};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Level, NodeId, ShardId};

/// How often.
const TELL: Duration = Duration::from_millis(250);

impl Shard {
    /// Tells the copies in sync, where it is time.
    pub(crate) fn tell_commits(&mut self) {
        let context = &self.context;
        if !self.has_backups || context.now < self.tell_commits_at || !context.map.has(Level::COMMITS_TOLD) {
            return;
        }
        self.tell_commits_at = context.now + TELL;
        let Some(time_ms) = context.clock_ms else { return };
        let mut told: BTreeMap<(NodeId, ShardId), Vec<Committed>> = BTreeMap::new();
        for committed in self.partitions.iter().filter_map(|partition| partition.committed_here(context)) {
            let id = committed.partition;
            let Some(state) = context.map.partition(id) else { continue };
            for node in state.in_sync.iter().filter(|&node| node != self.config.identity.node) {
                if let Some(shard) = context.map.shard_of(node, id) {
                    told.entry((node, shard)).or_default().push(committed);
                }
            }
        }
        for ((node, shard), partitions) in told {
            let message = Message::Committed(CommittedAt { time_ms, partitions });
            self.effects.messages.push((node, shard, message));
        }
    }

    /// A primary's shard has told.
    pub(crate) fn hear_commits(&mut self, told: &CommittedAt) {
        for &committed in &told.partitions {
            if let Some(partition) = self.partitions.get_mut(committed.partition) {
                partition.hear_committed(&self.context, committed, told.time_ms);
            }
        }
    }
}
