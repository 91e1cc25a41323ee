//! A node that is about to stop, and has handed over, is given nothing any more: no copy of it comes in sync, and it becomes primary
//! of nothing (rule 10). Whatever it were given would wait for it once it has ended.

use placement::{ClusterMap, MemberState};
use types::NodeId;

/// Compares the newest map with the one before it.
pub fn check(before: &ClusterMap, after: &ClusterMap) -> Result<(), String> {
    let stops = |map: &ClusterMap, node: NodeId| {
        map.member(node)
            .filter(|member| member.state == MemberState::Stopping)
            .map(|member| member.incarnation)
    };
    let nodes = before.members.iter().map(|member| member.id);
    let stopping: Vec<NodeId> = nodes
        .filter(|&node| stops(before, node).is_some_and(|start| stops(after, node) == Some(start)))
        .collect();
    if stopping.is_empty() {
        return Ok(());
    }
    for ((id, old), (_, new)) in before.each_partition().zip(after.each_partition()) {
        let given = |node: NodeId| {
            new.in_sync.contains(node) && !old.in_sync.contains(node)
                || new.primary == Some(node) && old.primary != Some(node)
        };
        if let Some(node) = stopping.iter().find(|&&node| given(node)) {
            return Err(format!(
                "node {node} is about to stop, and is given partition {id} in version {}: {old:?} became {new:?}",
                after.version
            ));
        }
    }
    Ok(())
}
