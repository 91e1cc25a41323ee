//! Where copies should be, and the next steps there: the coordinator's part of rule 11.
//!
//! It looks at the map alone, again and again: what is wanted ([`wanted`], a plan over the nodes that may hold copies), what of
//! it may begin now ([`due_moves`]), which copies may go ([`due_drops`]), which members are done with. A new coordinator goes on
//! where the last one was, since everything that was begun stands in the map.
//!
//! A plan takes long for many partitions, so it is made only when the nodes that may hold copies, their weights or zones, or the
//! number of copies change, and then followed. Following it makes the state that it was made for, for which any plan is to
//! move nothing: so moves come to an end.
//!
//! Few moves are under way at once: [`FILLS`] for each data thread that takes in, and as many for each that gives. While one
//! of two waits for its records or for the control plane, the other keeps the thread's spare time in use; more would only make
//! each take longer, and take more of the time that clients should have. Copies that come back after an absence count, too:
//! they come first, since a partition's safety hangs on them.
//!
//! Left out: which of the copies is primary, and handing over; a copy that is primary leaves after that.

use crate::command::Command;
use crate::leave;
use crate::machine::Control;
use crate::message::Registration;
use crate::shape::{self, Move, droppable};
use placement::{ClusterMap, Member, MemberState, PartitionState, PlanNode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{Epoch, Instant, NodeId, NodeSet, PartitionId, ShardId};

/// Copies that one data thread takes in at once, and that one gives.
const FILLS: usize = 2;
/// Between two looks at the map.
const LOOK: Duration = Duration::from_millis(50);
/// Between two plans.
const PLAN: Duration = Duration::from_millis(500);

/// What the coordinator remembers of moves within its term.
#[derive(Default)]
pub(crate) struct Moves {
    /// Since when a member is known to be away. A new coordinator counts from its own beginning.
    away_since: BTreeMap<NodeId, Instant>,
    plan: Option<Plan>,
    planned_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// The map that was looked at, where nothing was due in it.
    settled: u64,
}

/// What was planned, and for what.
struct Plan {
    nodes: Vec<PlanNode>,
    copies: u16,
    wanted: Vec<NodeSet>,
}

/// What is due of the cluster's shape.
pub(crate) fn tick(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    let map = leave::shown(control);
    obey(control, &map, commands);
    let replace_after = control.config.replace_after;
    let moves = &mut control.coordinator.moves;
    let is_early = moves.looked_at.is_some_and(|at| now.since(at) < LOOK);
    if is_early || map.partitions.iter().all(|state| state.epoch == Epoch(0)) {
        return;
    }
    moves.looked_at = Some(now);
    let nodes = moves.nodes(&map, now, replace_after);
    let is_planned = moves.plan.as_ref().is_some_and(|plan| plan.nodes == nodes && plan.copies == map.copies);
    if is_planned && moves.settled == map.version {
        return;
    }
    if !is_planned {
        if moves.planned_at.is_some_and(|at| now.since(at) < PLAN) {
            return;
        }
        moves.planned_at = Some(now);
        let wanted = wanted(&map, &nodes);
        moves.plan = Some(Plan { nodes, copies: map.copies, wanted });
    }
    let before = commands.len();
    let removals = due_removals(&map);
    commands.extend(removals.into_iter().map(|node| Command::Remove { node }));
    let due = moves.plan.as_ref().map(|plan| due_moves(&map, &plan.wanted)).unwrap_or_default();
    if !due.is_empty() {
        commands.push(Command::Move(due));
    }
    let drops = due_drops(&map);
    if !drops.is_empty() {
        commands.push(Command::Settle(drops));
    }
    moves.settled = if commands.len() == before { map.version } else { 0 };
}

/// Turns orders into commands. One that is refused, or asks for what is so already, is forgotten.
fn obey(control: &mut Control, map: &ClusterMap, commands: &mut Vec<Command>) {
    let orders = std::mem::take(&mut control.coordinator.orders);
    commands.extend(orders.into_iter().filter_map(|order| shape::command(map, order)));
}

/// The placement of the first copies, where what the listed nodes have told of themselves changes it.
pub(crate) fn first_placement(map: &ClusterMap) -> Option<Command> {
    if map.partitions.iter().any(|state| state.epoch > Epoch(0)) {
        return None;
    }
    let nodes: Vec<PlanNode> = map.members.iter().map(plan_node).collect();
    let placement = placement::plan_new(map.partitions.len() as u16, map.copies, &nodes);
    let differs = placement.iter().zip(&map.partitions).any(|(copies, state)| *copies != state.copies);
    let possible = placement.iter().all(|copies| !copies.is_empty());
    let lists = || placement.iter().map(|copies| copies.iter().collect()).collect();
    (differs && possible).then(|| Command::Place(lists()))
}

/// A listed node in a plan, with what it has told of itself so far.
pub(crate) fn listed(id: NodeId, told: Option<&Registration>) -> PlanNode {
    let mut member = Member::unheard_of(id);
    if let Some(told) = told {
        (member.weight, member.zone) = (told.weight, told.zone.clone());
    }
    plan_node(&member)
}

fn plan_node(member: &Member) -> PlanNode {
    let zone = (!member.zone.is_empty()).then(|| member.zone.clone());
    PlanNode { id: member.id, weight: u32::from(member.weight), zone }
}

impl Moves {
    /// The nodes that may hold copies: those that are alive, and those that have not been away for long and still hold some.
    fn nodes(&mut self, map: &ClusterMap, now: Instant, replace_after: Duration) -> Vec<PlanNode> {
        let is_away = |id: &NodeId| map.member(*id).is_some_and(|m| m.state != MemberState::Active);
        self.away_since.retain(|id, _| is_away(id));
        let away: Vec<NodeId> = map.members.iter().map(|member| member.id).filter(is_away).collect();
        let mut missing = BTreeSet::new();
        for id in away {
            let since = *self.away_since.entry(id).or_insert(now);
            let is_over = replace_after > Duration::ZERO && now.since(since) >= replace_after;
            if is_over || map.is_empty_node(id) {
                missing.insert(id);
            }
        }
        may_hold(map).filter(|member| !missing.contains(&member.id)).map(plan_node).collect()
    }
}

/// The members that may hold copies, dead or alive.
pub(crate) fn may_hold(map: &ClusterMap) -> impl Iterator<Item = &Member> {
    map.members.iter().filter(|member| !member.draining && member.weight > 0)
}

/// Where each partition's copies should be.
///
/// Where too few nodes may hold copies, those that should go stay for as long as they are needed: a drain that would cost a
/// copy does not end, and [`placement::progress`] says why.
pub(crate) fn wanted(map: &ClusterMap, nodes: &[PlanNode]) -> Vec<NodeSet> {
    let current: Vec<(Option<NodeId>, NodeSet)> =
        map.partitions.iter().map(|state| (state.primary, state.staying())).collect();
    let planned = placement::replan(&current, map.copies, nodes);
    planned
        .into_iter()
        .zip(&map.partitions)
        .map(|((_, mut wanted), state)| {
            let useful = |node: &NodeId| {
                let removed = map.member(*node).is_none_or(|m| m.draining && m.state != MemberState::Active);
                !wanted.contains(*node) && (state.in_sync.contains(*node) || !removed)
            };
            let mut kept: Vec<NodeId> = state.copies.iter().filter(useful).collect();
            kept.sort_by_key(|&node| reluctance(map, state, node));
            while wanted.len() < usize::from(map.copies)
                && let Some(node) = kept.pop()
            {
                wanted.insert(node);
            }
            wanted
        })
        .collect()
}

/// Which of the copies that should go are rather kept: the last of this order.
fn reluctance(map: &ClusterMap, state: &PartitionState, node: NodeId) -> (bool, bool, bool, NodeId) {
    (state.in_sync.contains(node), state.primary == Some(node), map.is_active(node), node)
}

/// The data threads that are busy with copies, and with how many.
#[derive(Default)]
struct Busy(BTreeMap<(NodeId, ShardId), usize>);

impl Busy {
    fn has_room(&self, map: &ClusterMap, node: NodeId, partition: PartitionId) -> bool {
        let thread = map.shard_of(node, partition).map(|shard| (node, shard));
        thread.is_some_and(|thread| self.0.get(&thread).is_none_or(|&fills| fills < FILLS))
    }

    fn add(&mut self, map: &ClusterMap, node: NodeId, partition: PartitionId) {
        if let Some(shard) = map.shard_of(node, partition) {
            *self.0.entry((node, shard)).or_default() += 1;
        }
    }
}

/// The moves that may begin now.
pub(crate) fn due_moves(map: &ClusterMap, wanted: &[NodeSet]) -> Vec<Move> {
    let (mut taking, mut giving) = (Busy::default(), Busy::default());
    for (id, state) in map.each_partition() {
        let Some(primary) = state.primary else { continue };
        for node in state.copies.without(state.in_sync).iter().filter(|&node| map.is_active(node)) {
            taking.add(map, node, id);
            giving.add(map, primary, id);
        }
    }
    let mut pending: Vec<(usize, PartitionId, &PartitionState, NodeSet)> = map
        .each_partition()
        .zip(wanted)
        .filter(|((_, state), wanted)| {
            let stays = state.staying();
            // Where nobody orders, or somebody is about to take over, the time is not now.
            let quiet = state.epoch == Epoch(0) || state.primary.is_some() && state.heir.is_none();
            quiet && (stays.len() != wanted.len() || !stays.is_within(**wanted))
        })
        .map(|((id, state), &wanted)| (state.in_sync.len(), id, state, wanted))
        .collect();
    // Those with the fewest copies first.
    pending.sort_by_key(|(in_sync, id, ..)| (*in_sync, *id));
    let mut moves = Vec::new();
    for (_, id, state, wanted) in pending {
        let mut copies = state.copies;
        let mut add = Vec::new();
        let missing = wanted.without(state.copies);
        for node in missing.iter() {
            let free = state.epoch == Epoch(0)
                || state.primary.is_some_and(|primary| giving.has_room(map, primary, id))
                    && taking.has_room(map, node, id);
            if map.is_active(node) && free && copies.insert(node) {
                add.push(node);
                if let Some(primary) = state.primary {
                    taking.add(map, node, id);
                    giving.add(map, primary, id);
                }
            }
        }
        // For each copy that cannot be made yet one stays that should go.
        let mut leave: Vec<NodeId> = copies.without(wanted).iter().collect();
        leave.sort_by_key(|&node| reluctance(map, state, node));
        leave.truncate(leave.len().saturating_sub(missing.len() - add.len()));
        let leaving: NodeSet = leave.iter().copied().collect();
        let same = leaving.len() == state.leaving.len() && leaving.is_within(state.leaving);
        if !add.is_empty() || !same {
            moves.push(Move { partition: id, epoch: state.epoch, add, leave });
        }
    }
    moves
}

/// The partitions of which leaving copies may go.
pub(crate) fn due_drops(map: &ClusterMap) -> Vec<(PartitionId, Epoch)> {
    let due = map.each_partition().filter(|(_, state)| !droppable(map, state).is_empty());
    due.map(|(id, state)| (id, state.epoch)).collect()
}

/// The members that are to go and hold nothing any more.
pub(crate) fn due_removals(map: &ClusterMap) -> Vec<NodeId> {
    let going = map.members.iter().filter(|member| member.draining && map.seat(member.id).is_none());
    going.map(|member| member.id).filter(|&id| map.is_empty_node(id)).collect()
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
