//! What may be lost where all machines lose power before the ends of their logs are synced (`fsync` other than `always`).
//!
//! No more than what was not synced: each partition has to go on, under a primary that rule 20 finds, from a log that begins
//! with all the committed records that some in-sync copy's machine had surely kept. What it goes on from is a new beginning: the
//! clients' history is cut there, and each stretch of it has to be linearizable by itself.

use crate::client::{STEP, key_name};
use crate::oracle::Held;
use crate::process::Copy;
use crate::world::{KEYS, MACHINES, PARTITIONS, World};
use history::linearizability::{self, Violation};
use history::{Call, Operation, Outcome, Part, Time};
use std::collections::BTreeMap;
use types::{NodeId, partition_of_key};

/// The client of what a stretch of history begins with.
const BEGINNING: u32 = 998;

/// A partition of which the end may be lost, until it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// When the power failed.
    pub at: Time,
    /// The newest epoch that anybody knew then.
    pub epoch: u64,
    /// How many committed records are surely kept.
    pub kept: usize,
}

/// Where a partition went on.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// When the power failed.
    pub at: Time,
    /// The state that it goes on from.
    pub state: BTreeMap<Vec<u8>, Held>,
}

/// Whether a copy is the primary with which a partition goes on.
pub fn goes_on_with(pending: &Pending, copy: &Copy<'_>) -> bool {
    copy.is_primary && copy.primary_since > pending.epoch
}

impl World {
    /// All machines are about to lose power.
    pub(crate) fn begin_loss(&mut self) {
        let map = self.checks.maps.newest().clone();
        let now = self.now;
        for (at, state) in map.partitions.iter().enumerate() {
            let shard = at % usize::from(self.shards);
            // Up to when a member has surely kept all that was committed.
            let kept_until = |node: usize| {
                let member = map.member(NodeId(node as u16 + 1)).map(|member| member.incarnation);
                let index = node;
                let node = &self.nodes[node];
                let synced_at = match &node.process {
                    // It has lost something already, and the map does not know yet.
                    Some(process) if Some(process.identity().incarnation) != member && !node.whole => 0,
                    None if node.power_lost && !node.stopped => 0,
                    Some(process) if process.is_synced(shard) => now,
                    _ => node.synced_at.get(shard).copied().unwrap_or(0),
                };
                // What it had before it joined may have been synced before it had this.
                let joined_at = self.joined_at.get(&(at, index)).copied().unwrap_or(Time::MAX);
                if joined_at <= synced_at { synced_at } else { 0 }
            };
            let members = state.in_sync.iter().map(|node| usize::from(node.0) - 1);
            let since = members.map(kept_until).min().unwrap_or(0);
            self.checks.committed.may_lose(at, now, state.epoch.0, since);
        }
    }

    /// A newer map may show copies that have joined, or left.
    pub(crate) fn note_members(&mut self) {
        let map = self.checks.maps.newest();
        for (at, state) in map.partitions.iter().enumerate() {
            for node in 0..MACHINES {
                if state.in_sync.contains(NodeId(node as u16 + 1)) {
                    self.joined_at.entry((at, node)).or_insert(self.now);
                } else {
                    self.joined_at.remove(&(at, node));
                }
            }
        }
    }

    /// The history, cut where partitions went on from what was left.
    pub(crate) fn check_history(&self) -> Result<(), Box<Violation>> {
        let operations = self.history.operations();
        if !self.keeping.lossy {
            return linearizability::check(operations);
        }
        (0..PARTITIONS).try_for_each(|partition| {
            let beginnings = self.checks.committed.beginnings(usize::from(partition));
            let is_here = |key: usize| partition_of_key(&key_name(key), PARTITIONS).0 == partition;
            let keys: Vec<usize> = (0..KEYS).filter(|&key| is_here(key)).collect();
            // No operation is on several partitions.
            let here: Vec<Operation> =
                operations.iter().filter(|operation| is_here(operation.parts[0].key)).cloned().collect();
            stretches(&keys, &here, beginnings).iter().try_for_each(|stretch| linearizability::check(stretch))
        })
    }
}

/// The operations on a partition's keys, by stretch of its history.
fn stretches(keys: &[usize], operations: &[Operation], beginnings: &[Beginning]) -> Vec<Vec<Operation>> {
    let mut result = Vec::new();
    let mut from = None;
    for until in beginnings.iter().map(Some).chain([None]) {
        let start = from.map_or(0, |beginning: &Beginning| beginning.at + 1);
        let end = until.map_or(Time::MAX, |beginning| beginning.at);
        let begins_with =
            |beginning| keys.iter().flat_map(move |&key| what_it_begins_with(key, operations, beginning));
        let mut stretch: Vec<Operation> = from.into_iter().flat_map(begins_with).collect();
        stretch.extend(operations.iter().filter(|o| (start..=end).contains(&o.invoked)).cloned());
        result.push(stretch);
        from = until;
    }
    result
}

/// What a stretch begins with, as operations: a write of the value, and the expiry that it carries.
fn what_it_begins_with(key: usize, operations: &[Operation], beginning: &Beginning) -> Vec<Operation> {
    let Some((value, expiry)) = beginning.state.get(&key_name(key)) else { return Vec::new() };
    let Some(value) = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok()) else {
        return Vec::new();
    };
    let expiring =
        operations.iter().flat_map(|operation| operation.on(key)).find_map(|part| match part.call {
            Call::SetExpiring(set, number) if expiry.is_some() && set == value - value % STEP => Some(number),
            _ => None,
        });
    let call = expiring.map_or(Call::Set(value), |number| Call::SetExpiring(value, number));
    let at = beginning.at;
    let operation = |call, returned, outcome| {
        let parts = vec![Part { key, call, answer: None }];
        Operation { client: BEGINNING, parts, invoked: at, returned, outcome }
    };
    let mut result = vec![operation(call, at, Outcome::Answered)];
    result.extend(expiring.map(|number| operation(Call::Expire(number), Time::MAX, Outcome::Unknown)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use history::Answer;

    /// What was acknowledged and is lost makes no stretch wrong; what a stretch begins with counts.
    #[test]
    fn each_stretch_goes_on_from_what_was_left() {
        let operation = |call, invoked, answer| Operation {
            client: 1,
            parts: vec![Part { key: 0, call, answer: Some(answer) }],
            invoked,
            returned: invoked + 5,
            outcome: Outcome::Answered,
        };
        let operations = [
            operation(Call::Set(10_000), 0, Answer::Done),
            operation(Call::Set(20_000), 10, Answer::Done),
            operation(Call::Get, 30, Answer::Value(Some(10_000))),
        ];
        let state = |value: &str| {
            vec![Beginning { at: 20, state: BTreeMap::from([(key_name(0), (value.into(), None))]) }]
        };
        let holds = |beginnings: &[Beginning]| {
            stretches(&[0], &operations, beginnings).iter().all(|s| linearizability::check(s).is_ok())
        };
        assert!(!holds(&[]));
        assert!(holds(&state("10000")));
        assert!(!holds(&state("20000")));
    }
}
