//! Ids and positions. All are plain numbers in types of their own, so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// A node's lasting number, from 1. 0 is no node.
    NodeId(u16)
);
number!(
    /// A partition: a run of slots, from 0.
    PartitionId(u16)
);
number!(
    /// A data thread of one node, from 0.
    ShardId(u16)
);
number!(
    /// The number of a partition's configuration. Grows at every change; 0 is "never configured".
    Epoch(u64)
);
number!(
    /// A record's place in its partition's log. The first record has 1; 0 is "nothing yet".
    Lsn(u64)
);
number!(
    /// Grows each time that a node's process starts on its data directory. 0 is "never started".
    Incarnation(u64)
);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl Lsn {
    /// The place after this one.
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// A record's full name: the epoch it was ordered under, and its place.
///
/// Compares by epoch first: of two log ends the greater is the one that the newer primary wrote (rule 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The epoch under which the record was ordered.
    pub epoch: Epoch,
    /// Its place in the partition's log.
    pub lsn: Lsn,
}

/// A forwarder's number for a request (rule 17): unique for ever, because incarnations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The node that forwards.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The shard that forwards: each numbers for itself.
    pub shard: ShardId,
    /// Grows by one a request.
    pub sequence: u64,
}

/// A thread of a node that sends and receives peer messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A data thread.
    Shard(ShardId),
    /// The control plane: consensus, registrations, changes of in-sync sets, the cluster map.
    Control,
    /// Heartbeats and lease grants.
    Heart,
}

/// A small ordered set of nodes, held in place so that a cluster map copies without allocating.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NodeSet {
    len: u8,
    ids: [NodeId; NodeSet::MAX],
}

impl NodeSet {
    /// The most members: the copies that a partition can have (7), and one more on its way while another leaves.
    pub const MAX: usize = 8;

    /// The empty set.
    pub fn new() -> NodeSet {
        NodeSet::default()
    }

    /// Its members, in the order in which they were added.
    pub fn as_slice(&self) -> &[NodeId] {
        &self.ids[..self.len as usize]
    }

    /// Its members, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.as_slice().iter().copied()
    }

    /// Whether `node` is a member.
    pub fn contains(&self, node: NodeId) -> bool {
        self.as_slice().contains(&node)
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a member at the end. False where it was one already or the set is full.
    pub fn insert(&mut self, node: NodeId) -> bool {
        if self.contains(node) || self.len() == Self::MAX {
            return false;
        }
        self.ids[self.len as usize] = node;
        self.len += 1;
        true
    }

    /// Removes a member and keeps the others' order. False where it was none.
    pub fn remove(&mut self, node: NodeId) -> bool {
        let Some(at) = self.as_slice().iter().position(|&n| n == node) else { return false };
        self.ids.copy_within(at + 1..self.len as usize, at);
        self.len -= 1;
        self.ids[self.len as usize] = NodeId::default();
        true
    }

    /// Those that are not in `other`, in the same order.
    pub fn without(&self, other: NodeSet) -> NodeSet {
        self.iter().filter(|node| !other.contains(*node)).collect()
    }

    /// Whether every member is one of `other`.
    pub fn is_within(&self, other: NodeSet) -> bool {
        self.iter().all(|node| other.contains(node))
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        let mut set = NodeSet::new();
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|n| n.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_set_keeps_order_and_refuses_twins() {
        let mut set: NodeSet = [3, 1, 2].map(NodeId).into_iter().collect();
        assert!(!set.insert(NodeId(1)));
        assert!(set.remove(NodeId(1)));
        assert!(!set.remove(NodeId(1)));
        assert_eq!(set.as_slice(), &[NodeId(3), NodeId(2)]);
        let same: NodeSet = [3, 2].map(NodeId).into_iter().collect();
        assert_eq!(set, same);
        for id in 10..30 {
            set.insert(NodeId(id));
        }
        assert_eq!(set.len(), NodeSet::MAX);
    }

    #[test]
    fn a_newer_epoch_beats_a_longer_log() {
        let long = Position { epoch: Epoch(1), lsn: Lsn(100) };
        let newer = Position { epoch: Epoch(2), lsn: Lsn(7) };
        assert!(newer > long);
    }
}
