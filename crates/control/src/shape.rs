//! The shape of the cluster, as commands change it: who is a member, where copies belong, how many there are.
//!
//! A copy moves in three steps, each an entry in the coordinator's log: [`Move`] makes the new place one of the partition's
//! copies and the old one `leaving`; the primary fills the new copy and takes it in sync, as it does with one that was away;
//! [`settle`] drops the old one, once every copy that stays is in sync (rule 11). Whoever sees that it is no copy any more
//! deletes what it has.
//!
//! What cannot be done changes nothing: [`refusal`] says why, to whoever wants to know before or after.

use crate::message::{Order, Registration};
use placement::{ClusterMap, Member, PartitionState};
use serde::{Deserialize, Serialize};
use types::planted::{self, Bug};
use types::{Epoch, NodeId, NodeSet, PartitionId};

/// The greatest number of a node, as the setting `node_id` has it.
const NODE_MAX: NodeId = NodeId(9999);
/// The most copies, as the setting `copies` has it: one more has to fit while a copy moves.
const COPIES_MAX: u16 = NodeSet::MAX as u16 - 1;

/// Where the copies of one partition are to be: a compare-and-set on its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch that the plan knows; at any other the move is void.
    pub epoch: Epoch,
    /// Nodes that get a copy.
    pub add: Vec<NodeId>,
    /// All of the copies that are to go.
    pub leave: Vec<NodeId>,
}

/// Whether a node that the map does not know may join: its number is possible, and it is not the very start that was removed.
pub fn may_join(map: &ClusterMap, registration: &Registration) -> bool {
    let id = registration.node;
    let was_removed =
        map.removed.iter().any(|&(node, incarnation)| node == id && registration.incarnation <= incarnation);
    !map.members.is_empty() && id > NodeId(0) && id <= NODE_MAX && !was_removed
}

/// Makes a node a member, which holds nothing and does not vote.
pub fn join(map: &mut ClusterMap, id: NodeId) {
    if let Err(at) = map.members.binary_search_by_key(&id, |member| member.id) {
        map.members.insert(at, Member::unheard_of(id));
        map.removed.retain(|(node, _)| *node != id);
    }
}

/// Before anything is held, copies can be anywhere.
pub fn place(map: &mut ClusterMap, placement: &[Vec<NodeId>]) {
    let untouched = map.partitions.iter().all(|state| state.epoch == Epoch(0));
    if !untouched || placement.len() != map.partitions.len() {
        return;
    }
    for (state, copies) in map.partitions.iter_mut().zip(placement) {
        state.copies = copies.iter().copied().collect();
    }
}

/// Says where copies belong.
pub fn move_copies(map: &mut ClusterMap, moves: &[Move]) {
    for Move { partition, epoch, add, leave } in moves {
        let Some(&state) = map.partition(*partition) else { continue };
        let known = add.iter().all(|&node| map.member(node).is_some());
        let leaving: NodeSet = leave.iter().copied().collect();
        let mut copies = state.copies;
        let fits = add.iter().filter(|&&node| !state.copies.contains(node)).all(|&node| copies.insert(node));
        let stays = copies.without(leaving);
        if state.epoch != *epoch || !known || !fits || !leaving.is_within(copies) || stays.is_empty() {
            continue;
        }
        let changed = &mut map.partitions[usize::from(partition.0)];
        if state.epoch == Epoch(0) {
            // Nobody holds anything of it yet.
            changed.copies = stays;
        } else {
            *changed = PartitionState { epoch: state.epoch.next(), copies, leaving, ..state };
        }
    }
}

/// Which of a partition's leaving copies may go now.
///
/// All of them once every copy that stays is in sync, and neither the primary nor whoever it hands over to is among them. One of
/// a dead node at once, where it is not in sync: then others have what it had.
pub fn droppable(map: &ClusterMap, state: &PartitionState) -> NodeSet {
    let none = NodeSet::new();
    let Some(primary) = state.primary else { return none };
    if state.leaving.is_empty() || state.heir.is_some() {
        return none;
    }
    let stays = state.staying();
    let filled = !stays.is_empty() && stays.is_within(state.in_sync) || planted::is(Bug::DropsBeforeFilled);
    if filled && !state.leaving.contains(primary) {
        return state.leaving;
    }
    let dead = |node: &NodeId| !state.in_sync.contains(*node) && !map.is_alive(*node);
    state.leaving.iter().filter(dead).collect()
}

/// Rule 11: that the new copies are in sync is in the log before this.
pub fn settle(map: &mut ClusterMap, drops: &[(PartitionId, Epoch)]) {
    for &(partition, epoch) in drops {
        let Some(&state) = map.partition(partition) else { continue };
        let drop = droppable(map, &state);
        if state.epoch != epoch || drop.is_empty() {
            continue;
        }
        map.partitions[usize::from(partition.0)] = PartitionState {
            epoch: state.epoch.next(),
            copies: state.copies.without(drop),
            in_sync: state.in_sync.without(drop),
            doubtful: state.doubtful.without(drop),
            leaving: state.leaving.without(drop),
            ..state
        };
    }
}

/// A node is to be emptied, or stays after all.
pub fn drain(map: &mut ClusterMap, node: NodeId, on: bool) {
    if let Some(member) = map.member_mut(node) {
        member.draining = on;
    }
}

/// Empties a dead node; ends the membership of one that is empty. A voter stays until it has handed its vote over
/// ([`crate::voters`]).
pub fn remove(map: &mut ClusterMap, node: NodeId) {
    let is_empty = map.is_empty_node(node);
    let votes = map.seat(node).is_some();
    let Some(member) = map.member_mut(node) else { return };
    if member.is_alive() && !member.draining {
        return;
    }
    member.draining = true;
    if is_empty && !votes {
        let incarnation = member.incarnation;
        map.members.retain(|member| member.id != node);
        map.removed.push((node, incarnation));
    }
}

/// Changes how many copies there are to be, and how few take writes.
pub fn set(map: &mut ClusterMap, copies: u16, min_in_sync: u16) {
    if !(1..=COPIES_MAX).contains(&copies) || !(1..=copies).contains(&min_in_sync) {
        return;
    }
    map.copies = copies;
    if map.min_in_sync == min_in_sync {
        return;
    }
    map.min_in_sync = min_in_sync;
    // A primary takes it up with the next epoch.
    for state in map.partitions.iter_mut().filter(|state| state.epoch > Epoch(0)) {
        state.epoch = state.epoch.next();
    }
}

/// Why an order cannot be obeyed by this map. None: it can, or already is.
pub fn refusal(map: &ClusterMap, order: Order) -> Option<String> {
    let known = |node: NodeId| match map.member(node) {
        Some(_) => None,
        None => Some(format!("there is no node {node}")),
    };
    match order {
        Order::Drain { node, .. } => known(node),
        Order::Remove(node) => known(node).or_else(|| {
            let alive = map.member(node).is_some_and(|m| m.is_alive() && !m.draining);
            alive.then(|| format!("node {node} is alive: drain it, and it is removed when it is empty"))
        }),
        Order::Copies(copies) if !(1..=COPIES_MAX).contains(&copies) => {
            Some(format!("a partition can have 1 to {COPIES_MAX} copies, not {copies}"))
        }
        Order::Copies(copies) if copies < map.min_in_sync => Some(format!(
            "min_in_sync is {}, and would be more than {copies} copies: lower it first",
            map.min_in_sync
        )),
        Order::Copies(_) => None,
        Order::MinInSync(min) if !(1..=map.copies).contains(&min) => {
            Some(format!("min_in_sync has to be from 1 to the number of copies, {}, not {min}", map.copies))
        }
        Order::MinInSync(_) => None,
    }
}

/// The command that carries an order out. None where it is refused, or nothing is left to do.
pub fn command(map: &ClusterMap, order: Order) -> Option<crate::Command> {
    if refusal(map, order).is_some() {
        return None;
    }
    let command = match order {
        Order::Drain { node, on } => crate::Command::Drain { node, on },
        Order::Remove(node) => crate::Command::Remove { node },
        Order::Copies(copies) => crate::Command::Settings { copies, min_in_sync: map.min_in_sync },
        Order::MinInSync(min_in_sync) => crate::Command::Settings { copies: map.copies, min_in_sync },
    };
    let mut after = map.clone();
    crate::command::apply(&mut after, &command, &mut Vec::new());
    (after != *map).then_some(command)
}
