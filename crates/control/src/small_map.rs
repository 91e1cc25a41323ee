//! A small map for tests: some nodes that live, and one partition with copies on the first three, all in sync.

use placement::{ClusterMap, Member, MemberState, PartitionState};
use types::{Epoch, Incarnation, Level, NodeId, NodeSet};

pub(crate) fn set(nodes: &[u16]) -> NodeSet {
    nodes.iter().copied().map(NodeId).collect()
}

/// Nodes from 1 on, in their first starts. The first is the partition's primary.
pub(crate) fn cluster(nodes: u16) -> ClusterMap {
    let member = |id| Member {
        incarnation: Incarnation(1),
        directory: 1,
        state: MemberState::Active,
        ..Member::unheard_of(NodeId(id))
    };
    let state = PartitionState {
        epoch: Epoch(5),
        primary_since: Epoch(3),
        primary: Some(NodeId(1)),
        in_sync: set(&[1, 2, 3]),
        copies: set(&[1, 2, 3]),
        ..PartitionState::default()
    };
    ClusterMap {
        level: Level::HIGHEST,
        members: (1..=nodes).map(member).collect(),
        partitions: vec![state],
        ..ClusterMap::default()
    }
}
