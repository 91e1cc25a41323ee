//! A node is about to stop, and others take over what it has (rule 10).
//!
//! The map alone does not tell that they can. Where logs are synced later than they count, a machine that has just lost power lacks
//! the end of its log, and until its next start has registered, or the grace is over, the map shows it in sync. The copy that stops
//! is then the one that has everything, and must not go. So before anything is taken off it, all who are in sync beside it are
//! asked, and count as there only by an answer of the very start that the map shows. Who does not answer is asked again, and is out
//! of the in-sync sets once it is found dead.

use crate::command::{Command, has_left, may_leave};
use crate::coordinator::put_question;
use crate::machine::Control;
use placement::{ClusterMap, MemberState};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{Incarnation, Instant, Level, NodeId, PartitionId};

/// The map with those shown as about to stop who say so. Where the cluster's feature level has no form for that only the coordinator
/// knows, so it decides by this what they may be given; a new coordinator hears it again from them.
pub(crate) fn shown(control: &Control) -> Arc<ClusterMap> {
    let leaving = &control.coordinator.leaving;
    if control.map.has(Level::STOPPING) || leaving.is_empty() {
        return control.map.clone();
    }
    let mut map = ClusterMap::clone(&control.map);
    for member in &mut map.members {
        if member.state == MemberState::Active && leaving.get(&member.id) == Some(&member.incarnation) {
            member.state = MemberState::Stopping;
        }
    }
    Arc::new(map)
}

/// Lets those go who are about to stop, once all who stay have answered.
pub(crate) fn tick(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    let map = control.map.clone();
    let is_current = |node, incarnation| map.member(node).is_some_and(|m| m.incarnation == incarnation);
    let leaving: BTreeMap<NodeId, Incarnation> = control
        .coordinator
        .leaving
        .iter()
        .map(|(&node, &incarnation)| (node, incarnation))
        .filter(|&(node, incarnation)| is_current(node, incarnation) && !has_left(&map, node))
        .collect();
    if leaving.is_empty() {
        control.coordinator.asked_heirs = None;
        return;
    }
    if let Some(asked) = &control.coordinator.asked_heirs
        && asked.dead == leaving
        && !asked.candidates.is_empty()
        && now < asked.deadline
    {
        return;
    }
    let answered = match control.coordinator.asked_heirs.take() {
        Some(asked) if asked.dead == leaving => asked.answered,
        _ => Default::default(),
    };
    let may_go = |node: NodeId| others(&map, node).keys().all(|other| answered.contains(other));
    let (go, stay): (Vec<_>, Vec<_>) = leaving.iter().partition(|&(&node, _)| may_go(node));
    commands.extend(go.into_iter().map(|(&node, &incarnation)| Command::Leave { node, incarnation }));
    if stay.is_empty() {
        return;
    }
    let mut by_node: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
    for (&node, _) in stay {
        for (other, partitions) in others(&map, node) {
            by_node.entry(other).or_default().extend(partitions);
        }
    }
    control.coordinator.asked_heirs = Some(put_question(control, now, leaving, by_node));
}

/// Who else is in sync for the partitions that a node may leave.
fn others(map: &ClusterMap, node: NodeId) -> BTreeMap<NodeId, Vec<PartitionId>> {
    let mut by_node: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
    for (partition, state) in map.each_partition().filter(|(_, state)| may_leave(map, state, node)) {
        for other in state.in_sync.iter().filter(|&other| other != node && map.is_active(other)) {
            by_node.entry(other).or_default().push(partition);
        }
    }
    by_node
}
