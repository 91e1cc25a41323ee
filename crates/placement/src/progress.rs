//! How far a cluster is from the shape that it should have, as its map shows.
//!
//! The map says what is under way. What waits for its turn is computed from the quotas: the least number of copies that still
//! have to be made. A node that is dead counts until the coordinator gives it up, which the map does not show.

use crate::map::{ClusterMap, Member, PartitionState};
use crate::plan::PlanNode;
use crate::quota::Quotas;
use std::collections::BTreeMap;
use types::NodeId;

/// How far copies are from where they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Copies that are being filled, on nodes that are alive.
    pub filling: usize,
    /// Copies that go once the others are in sync.
    pub leaving: usize,
    /// Copies that have still to be begun elsewhere, at least.
    pub waiting: usize,
    /// By node, what it holds.
    pub nodes: BTreeMap<NodeId, Held>,
    /// What cannot go on, and why, in words for operators.
    pub blocked: Vec<String>,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Copies, of whatever kind.
    pub copies: usize,
    /// Those that are in sync.
    pub in_sync: usize,
    /// Those that are primaries.
    pub primaries: usize,
    /// Those that go soon.
    pub leaving: usize,
}

impl Progress {
    /// Whether nothing is under way, and nothing waits for its turn.
    pub fn is_done(&self) -> bool {
        self.filling + self.leaving + self.waiting == 0
    }
}

/// Reads a map.
pub fn progress(map: &ClusterMap) -> Progress {
    let mut progress = Progress::default();
    for member in &map.members {
        progress.nodes.insert(member.id, Held::default());
    }
    for state in &map.partitions {
        count(map, state, &mut progress);
    }
    let may_hold = |member: &&Member| !member.draining && member.weight > 0;
    let nodes: Vec<PlanNode> = map.members.iter().filter(may_hold).map(plan_node).collect();
    if !nodes.is_empty() && !map.partitions.is_empty() {
        progress.waiting = waiting(map, &nodes);
    }
    block(map, nodes.len(), &mut progress);
    progress
}

fn plan_node(member: &Member) -> PlanNode {
    let zone = (!member.zone.is_empty()).then(|| member.zone.clone());
    PlanNode { id: member.id, weight: u32::from(member.weight), zone }
}

fn count(map: &ClusterMap, state: &PartitionState, progress: &mut Progress) {
    for node in state.copies.iter() {
        let held = progress.nodes.entry(node).or_default();
        held.copies += 1;
        held.in_sync += usize::from(state.in_sync.contains(node));
        held.primaries += usize::from(state.primary == Some(node));
        held.leaving += usize::from(state.leaving.contains(node));
        progress.filling += usize::from(!state.in_sync.contains(node) && map.is_active(node));
    }
    progress.leaving += state.leaving.len();
}

/// What all nodes together hold less than they should.
fn waiting(map: &ClusterMap, nodes: &[PlanNode]) -> usize {
    let quotas = Quotas::new(map.partitions.len(), usize::from(map.copies), nodes);
    let holds =
        |node: &PlanNode| map.partitions.iter().filter(|state| state.staying().contains(node.id)).count();
    let loads: Vec<usize> = nodes.iter().map(holds).collect();
    let targets = quotas.targets(&loads);
    targets.iter().zip(&loads).map(|(target, load)| target.saturating_sub(*load)).sum()
}

fn block(map: &ClusterMap, holders: usize, progress: &mut Progress) {
    let copies = usize::from(map.copies);
    if holders < copies {
        let one = if holders == 1 { "node may" } else { "nodes may" };
        for member in map.members.iter().filter(|member| member.draining) {
            if progress.nodes.get(&member.id).is_some_and(|held| held.copies > 0) {
                progress.blocked.push(format!(
                    "node {} cannot be emptied: {holders} {one} hold copies, and each partition is to have {copies}; add a \
                     node, or lower copies",
                    member.id
                ));
            }
        }
        if progress.blocked.is_empty() {
            progress.blocked.push(format!(
                "each partition is to have {copies} copies, and {holders} {one} hold any; add a node, or lower copies"
            ));
        }
    }
    for member in map.members.iter().filter(|member| !member.is_alive()) {
        let is_all_there_is = |state: &&PartitionState| {
            state.in_sync.contains(member.id) && !state.in_sync.iter().any(|node| map.is_alive(node))
        };
        let last = map.partitions.iter().filter(is_all_there_is).count();
        if last > 0 {
            progress.blocked.push(format!(
                "node {} is away and holds all that there is of {last} partitions: start it again",
                member.id
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Member, MemberState};
    use types::{Epoch, Incarnation, NodeSet};

    fn member(id: u16) -> Member {
        Member {
            incarnation: Incarnation(1),
            directory: 1,
            state: MemberState::Active,
            ..Member::unheard_of(NodeId(id))
        }
    }

    fn set(nodes: &[u16]) -> NodeSet {
        nodes.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn what_is_under_way_and_what_waits_add_up() {
        let state = |copies: &[u16], in_sync: &[u16], leaving: &[u16]| PartitionState {
            epoch: Epoch(1),
            primary: Some(NodeId(in_sync[0])),
            copies: set(copies),
            in_sync: set(in_sync),
            leaving: set(leaving),
            ..PartitionState::default()
        };
        let mut map = ClusterMap {
            copies: 2,
            members: vec![member(1), member(2), member(3)],
            partitions: vec![state(&[1, 2], &[1, 2], &[]); 3],
            ..ClusterMap::default()
        };
        let fresh = progress(&map);
        assert_eq!((fresh.filling, fresh.leaving, fresh.waiting), (0, 0, 2), "two of six belong on node 3");
        map.partitions[0] = state(&[1, 2, 3], &[1, 2], &[2]);
        let begun = progress(&map);
        assert_eq!((begun.filling, begun.leaving, begun.waiting), (1, 1, 1));
        let held = Held { copies: 3, in_sync: 3, primaries: 0, leaving: 1 };
        assert_eq!(begun.nodes[&NodeId(2)], held);
        map.partitions[0] = state(&[1, 3], &[1, 3], &[]);
        map.partitions[1] = state(&[2, 3], &[2, 3], &[]);
        assert!(progress(&map).is_done());
        map.members[2].draining = true;
        map.copies = 3;
        assert!(progress(&map).blocked[0].contains("node 3 cannot be emptied: 2 nodes may hold copies"));
    }
}
