//! KEYS: every partition is walked by steps of SCAN, and what they show is gathered.
//!
//! A step is a request of its own on one partition, as the parts of other requests over several partitions are. Steps on this
//! shard's partitions are taken from [`Shard::work`], so that others are served between them; of those that others answer, and
//! of those that wait for a commit, a few are under way at once. Each step visits exactly a stretch of a partition's hash
//! space: a key that is there from the request to the reply is shown once, and each stretch is shown as it was at a
//! moment between the two.
//!
//! What is gathered is packed and handed over whole, since a reply begins with its length.

use crate::collect::Collector;
use crate::run::{Origin, OwnedTask, Task};
use crate::shard::Shard;
use bytes::Bytes;
use command::{CommandError, List, Reply, Scope, keys, lookup};
use std::collections::{BTreeSet, VecDeque};
use types::PartitionId;

/// Steps under way at once.
const UNDER_WAY_MAX: usize = 16;
/// The most that one KEYS gathers, in bytes.
const LIST_BYTES_MAX: usize = 1 << 30;

#[derive(Debug)]
pub(crate) struct Listing {
    /// A step's request, but for its arguments and its origin.
    task: OwnedTask,
    pattern: Bytes,
    pub(crate) origin: Origin,
    /// Where to go on.
    todo: VecDeque<(PartitionId, u64)>,
    /// Which partitions are asked just now, each once.
    under_way: BTreeSet<usize>,
    found: List,
}

impl Shard {
    /// Begins a KEYS.
    pub(crate) fn list(&mut self, scope: Scope, task: &Task<'_>) -> Result<(), CommandError> {
        let command = lookup(b"scan").ok_or(CommandError::Syntax)?;
        let all = self.context.map.each_partition();
        let todo = all.filter(|(_, state)| self.speaks_of(scope, state)).map(|(id, _)| (id, 0)).collect();
        let listing = Listing {
            task: OwnedTask { command, redirects: false, ..task.kept() },
            pattern: Bytes::copy_from_slice(task.args[1]),
            origin: task.origin,
            todo,
            under_way: BTreeSet::new(),
            found: List::default(),
        };
        let collector = self.new_collector(Collector::Listing(listing));
        self.going_on.push_back(collector);
        Ok(())
    }

    /// Takes the next step, or hands over what was gathered.
    pub(crate) fn list_on(&mut self, collector: u64) {
        let Some(Collector::Listing(listing)) = self.collectors.get_mut(&collector) else { return };
        if listing.under_way.len() < UNDER_WAY_MAX
            && let Some((id, cursor)) = listing.todo.pop_front()
        {
            listing.under_way.insert(usize::from(id.0));
            let task = OwnedTask {
                args: keys::step(&listing.pattern, cursor).into(),
                origin: Origin::Part { collector, index: usize::from(id.0) },
                deadline: self.context.now + self.config.settings.request_timeout(),
                ..listing.task.clone()
            };
            if listing.under_way.len() < UNDER_WAY_MAX && !listing.todo.is_empty() {
                self.going_on.push_back(collector);
            }
            self.start(id, task);
        } else if listing.under_way.is_empty()
            && let Some(Collector::Listing(listing)) = self.collectors.remove(&collector)
        {
            self.hand_over(listing.origin, Reply::List(listing.found), None, None);
        }
    }

    /// A step is done.
    pub(crate) fn list_part(&mut self, collector: u64, index: usize, reply: &Reply<'_>) {
        let Some(Collector::Listing(listing)) = self.collectors.get_mut(&collector) else { return };
        if !listing.under_way.remove(&index) {
            return;
        }
        if let Err(error) = listing.take(index, reply) {
            let origin = listing.origin;
            self.collectors.remove(&collector);
            self.fail(origin, error);
        } else if !self.going_on.contains(&collector) {
            self.going_on.push_back(collector);
        }
    }
}

impl Listing {
    fn take(&mut self, index: usize, reply: &Reply<'_>) -> Result<(), CommandError> {
        let corrupt =
            || CommandError::Other("ERR a partition answered a step of KEYS with something else".into());
        let (next, found) = match reply {
            Reply::Array(parts) => match &parts[..] {
                [next, Reply::Array(found)] => (next, found),
                _ => return Err(corrupt()),
            },
            Reply::Error(error) => return Err(error.clone()),
            _ => return Err(corrupt()),
        };
        for key in found {
            let Reply::Bulk(key) = key else { return Err(corrupt()) };
            self.found.push(key);
        }
        if self.found.bytes() > LIST_BYTES_MAX {
            let why = format!("ERR KEYS found more than {LIST_BYTES_MAX} bytes of keys: use SCAN");
            return Err(CommandError::Other(why));
        }
        match next {
            Reply::Null => {}
            Reply::Bulk(cursor) => {
                let cursor = std::str::from_utf8(cursor).ok().and_then(|cursor| cursor.parse().ok());
                self.todo.push_front((PartitionId(index as u16), cursor.ok_or_else(corrupt)?));
            }
            _ => return Err(corrupt()),
        }
        Ok(())
    }
}
