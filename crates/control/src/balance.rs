//! Which primaries are to hand over (rule 10): so that all nodes have their share again some time after a failover, and so that
//! a copy that is to go is primary of nothing.
//!
//! A failover leaves its node without primaries when it is back, and others with too many. Once the cluster is calm (all nodes
//! that hold copies live, all copies are in sync, nothing moves), the plan of [`placement::even_primaries`] is carried out, a few
//! hand-overs at a time: each makes one partition's requests wait for a moment. The plan is empty once the primaries are even, so
//! this comes to rest. A hand-over that was given up is not tried again at once, since it had made requests wait for nothing.
//!
//! Left out: moving copies. Whoever moves them says so in the map (`leaving`, `draining`); here that only gives an heir to a primary
//! that is to go.

use crate::command::Command;
use crate::hand_over::may_inherit;
use crate::leave;
use crate::machine::Control;
use placement::{ClusterMap, Member, MemberState, PartitionState, PlanNode, even_primaries};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use types::{Epoch, Incarnation, Instant, NodeId, PartitionId};

/// Between two looks at the map.
const LOOK: Duration = Duration::from_millis(20);
/// So long after the last change of a member primaries go back: who has just started may stop again.
const CALM: Duration = Duration::from_secs(3);
/// Between two plans.
const PLAN: Duration = Duration::from_secs(1);
/// Between two attempts at one partition.
const RETRY: Duration = Duration::from_secs(5);
/// Hand-overs under way at once in the cluster, and at one node as the old or the new primary.
const UNDER_WAY_MAX: usize = 16;
const UNDER_WAY_AT_NODE_MAX: usize = 4;

/// What tells whether the members have changed.
type Life = (NodeId, Incarnation, MemberState, u16, bool);

/// What the coordinator remembers of hand-overs within its term.
#[derive(Default)]
pub struct Balance {
    /// What nodes have asked for.
    asked: Vec<(PartitionId, NodeId)>,
    /// What is left of the plan.
    planned: VecDeque<(PartitionId, NodeId)>,
    /// When each partition was last told to hand over, for a while.
    ordered: BTreeMap<PartitionId, Instant>,
    lives: Vec<Life>,
    /// Since when the members are what they are.
    calm_since: Option<Instant>,
    look_at: Option<Instant>,
    plan_at: Option<Instant>,
    /// The map in which nothing was left to do.
    even_at: u64,
}

impl Balance {
    /// A node asks for a hand-over.
    pub fn ask(&mut self, partition: PartitionId, heir: NodeId) {
        self.asked.push((partition, heir));
    }

    fn may_try(&self, now: Instant, partition: PartitionId) -> bool {
        self.ordered.get(&partition).is_none_or(|at| now.since(*at) >= RETRY)
    }

    /// Notes how the members are. True once they have been so for a while.
    fn is_calm(&mut self, now: Instant, map: &ClusterMap) -> bool {
        let life = |m: &Member| (m.id, m.incarnation, m.state, m.weight, m.draining);
        let lives: Vec<Life> = map.members.iter().map(life).collect();
        if self.lives != lives {
            self.lives = lives;
            self.calm_since = Some(now);
            self.planned.clear();
        }
        self.calm_since.is_some_and(|since| now.since(since) >= CALM)
    }
}

/// What one look at the map shows.
#[derive(Default)]
struct Load {
    /// Primaries of each node.
    primaries: BTreeMap<NodeId, usize>,
    /// Hand-overs under way at each node.
    under_way_at: BTreeMap<NodeId, usize>,
    under_way: usize,
    /// Whether every copy is in sync and stays, and its node lives.
    whole: bool,
}

impl Load {
    fn of(map: &ClusterMap) -> Load {
        let mut load = Load { whole: true, ..Load::default() };
        for state in &map.partitions {
            load.whole &= state.primary.is_some()
                && state.leaving.is_empty()
                && state.copies.iter().all(|node| state.in_sync.contains(node) && map.is_active(node));
            let Some(primary) = state.primary else { continue };
            *load.primaries.entry(primary).or_default() += 1;
            if let Some(heir) = state.heir {
                load.begin(primary, heir);
            }
        }
        load
    }

    fn begin(&mut self, primary: NodeId, heir: NodeId) {
        self.under_way += 1;
        *self.under_way_at.entry(primary).or_default() += 1;
        *self.under_way_at.entry(heir).or_default() += 1;
    }

    fn primaries_of(&self, node: NodeId) -> usize {
        self.primaries.get(&node).copied().unwrap_or(0)
    }

    fn has_room(&self, primary: NodeId, heir: NodeId) -> bool {
        let busy = |node| self.under_way_at.get(&node).is_some_and(|&count| count >= UNDER_WAY_AT_NODE_MAX);
        self.under_way < UNDER_WAY_MAX && !busy(primary) && !busy(heir)
    }
}

/// Orders the hand-overs that are due.
pub fn tick(control: &mut Control, now: Instant, commands: &mut Vec<Command>) {
    let map = leave::shown(control);
    let balance = &mut control.coordinator.balance;
    let mut orders: Vec<(PartitionId, Epoch, NodeId)> = Vec::new();
    for (partition, heir) in std::mem::take(&mut balance.asked) {
        if let Some(state) = map.partition(partition)
            && may_inherit(&map, state, heir)
        {
            orders.push((partition, state.epoch, heir));
        }
    }
    if balance.even_at != map.version && balance.look_at.is_none_or(|at| now >= at) {
        balance.look_at = Some(now + LOOK);
        look(balance, now, &map, &mut orders);
    }
    if !orders.is_empty() {
        commands.push(Command::HandOver { orders });
    }
}

fn look(
    balance: &mut Balance,
    now: Instant,
    map: &ClusterMap,
    orders: &mut Vec<(PartitionId, Epoch, NodeId)>,
) {
    balance.ordered.retain(|_, at| now.since(*at) < RETRY);
    let calm = balance.is_calm(now, map);
    let mut load = Load::of(map);
    let mut left = false;
    for (partition, state) in map.each_partition().filter(|(_, state)| has_to_go(map, state)) {
        left = true;
        if state.heir.is_some() || !balance.may_try(now, partition) {
            continue;
        }
        let Some((primary, heir)) = successor(map, state, &load) else { continue };
        if load.has_room(primary, heir) {
            load.begin(primary, heir);
            *load.primaries.entry(heir).or_default() += 1;
            balance.ordered.insert(partition, now);
            orders.push((partition, state.epoch, heir));
        }
    }
    if !calm || !load.whole {
        return;
    }
    if balance.planned.is_empty() && load.under_way == 0 && balance.plan_at.is_none_or(|at| now >= at) {
        balance.plan_at = Some(now + PLAN);
        balance.planned = plan(map).into();
        if balance.planned.is_empty() && !left {
            balance.even_at = map.version;
        }
    }
    for (partition, heir) in std::mem::take(&mut balance.planned) {
        let Some(state) = map.partition(partition).filter(|state| may_inherit(map, state, heir)) else {
            continue;
        };
        let Some(primary) = state.primary.filter(|_| balance.may_try(now, partition)) else { continue };
        if !load.has_room(primary, heir) {
            balance.planned.push_back((partition, heir));
            continue;
        }
        load.begin(primary, heir);
        balance.ordered.insert(partition, now);
        orders.push((partition, state.epoch, heir));
    }
}

/// Whether a partition's primary is to be another.
fn has_to_go(map: &ClusterMap, state: &PartitionState) -> bool {
    let drains = |node| map.member(node).is_some_and(|member| member.draining);
    state.primary.is_some_and(|primary| state.leaving.contains(primary) || drains(primary))
}

/// The primary that has to go, and who takes over: of the copies that stay the one whose node has the fewest primaries. Nobody before
/// they all are in sync: a change of primaries begins the filling of a copy anew.
fn successor(map: &ClusterMap, state: &PartitionState, load: &Load) -> Option<(NodeId, NodeId)> {
    let primary = state.primary?;
    let others = || state.copies.iter().filter(|&node| node != primary && !state.leaving.contains(node));
    if !others().all(|node| state.in_sync.contains(node) && map.is_active(node)) {
        return None;
    }
    let stays = |node: &NodeId| map.member(*node).is_some_and(|member| !member.draining);
    let heir = others().filter(stays).min_by_key(|&node| (load.primaries_of(node), node))?;
    may_inherit(map, state, heir).then_some((primary, heir))
}

fn plan(map: &ClusterMap) -> Vec<(PartitionId, NodeId)> {
    let current: Vec<_> = map.partitions.iter().map(|state| (state.primary, state.copies)).collect();
    let active = map.members.iter().filter(|member| member.state == MemberState::Active && !member.draining);
    let nodes: Vec<PlanNode> = active
        .map(|member| PlanNode {
            id: member.id,
            weight: u32::from(member.weight),
            zone: (!member.zone.is_empty()).then(|| member.zone.clone()),
        })
        .collect();
    even_primaries(&current, map.copies, &nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_map::{cluster, set};

    fn next(map: &ClusterMap) -> Option<u16> {
        let state = &map.partitions[0];
        if !has_to_go(map, state) {
            return None;
        }
        successor(map, state, &Load::of(map)).map(|(_, heir)| heir.0)
    }

    #[test]
    fn a_primary_whose_copy_goes_hands_over_once_all_that_stay_are_in_sync() {
        let mut map = cluster(4);
        assert_eq!(next(&map), None, "nothing is to go");
        map.partitions[0].leaving = set(&[1]);
        assert_eq!(next(&map), Some(2));
        map.members[1].state = MemberState::Stopping;
        assert_eq!(next(&map), None, "a copy that stays is about to stop");
        map.members[1].state = MemberState::Active;
        map.partitions[0].copies = set(&[1, 2, 3, 4]);
        assert_eq!(next(&map), None, "the new copy is being filled by this primary");
        map.partitions[0].in_sync = set(&[1, 2, 3, 4]);
        map.partitions[0].leaving = set(&[1, 2, 3]);
        assert_eq!(next(&map), Some(4));
    }

    #[test]
    fn a_node_that_drains_hands_over_to_one_that_does_not_and_has_the_least_to_do() {
        let mut map = cluster(4);
        map.members[0].draining = true;
        assert_eq!(next(&map), Some(2));
        map.members[1].draining = true;
        assert_eq!(next(&map), Some(3));
        map.members[1].draining = false;
        let other = PartitionState { primary: Some(NodeId(2)), ..map.partitions[0] };
        map.partitions.push(other);
        assert_eq!(next(&map), Some(3), "node 2 is primary of another");
        map.members[2].state = MemberState::Failed;
        assert_eq!(next(&map), None, "a copy that stays is away");
    }
}
