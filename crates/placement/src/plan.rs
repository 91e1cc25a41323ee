//! Plans: which nodes hold a partition's copies, and which of them is its primary.
//!
//! A plan is even first and frugal second. [`crate::quota`] says how many copies each node should hold; then
//!
//! 1. copies on nodes that stay are kept, except where a zone or the number of copies has no room for them;
//! 2. a partition that lacks copies walks the ring to the first nodes that fit: under their target, not holding it
//!    yet, in a zone that may take it;
//! 3. nodes above their target give to nodes below, one move each; of the possible moves those that leave the primary
//!    alone come first, then those to the node that the partition's own walk meets first;
//! 4. where no single move helps (the one node with room holds the partition already), a chain of moves does: the
//!    cheapest path through the nodes, as in the assignment problem (augmenting paths; Ford and Fulkerson, 1956);
//! 5. primaries stay where they are, unless their copy left; then the same chains even them out.
//!
//! So with equal weights and without zones, copies and primaries per node differ by at most one, and one node more or
//! less moves about as few copies as can be. There is no randomness and no clock: the same map and the same nodes, in
//! whatever order they are named, give the same plan.
//!
//! Left out: how a plan is carried out (a copy is moved by filling the new before removing the old), which is the
//! coordinator's, and the size of partitions: all count the same.

use crate::quota::Quotas;
use crate::ring::Ring;
use std::collections::BTreeSet;
use types::{NodeId, NodeSet, PartitionId};

/// A node that may hold copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanNode {
    /// Its number.
    pub id: NodeId,
    /// How much it should hold, compared with the others: 1 is the usual. A node of weight 0 is to hold nothing.
    pub weight: u32,
    /// What it may fail together with: copies of a partition go to different zones, as long as there are enough. A
    /// node without one is a zone of its own.
    pub zone: Option<String>,
}

/// The placement of a cluster that holds nothing yet, one set a partition. The first of a set is its primary.
///
/// Each set has `copies` members, or as many as there are nodes of some weight.
pub fn plan_new(partitions: u16, copies: u16, nodes: &[PlanNode]) -> Vec<NodeSet> {
    let empty = vec![(None, NodeSet::new()); usize::from(partitions)];
    let primary_first = |(primary, set): (NodeId, NodeSet)| {
        std::iter::once(primary).filter(|node| node.0 != 0).chain(set.iter()).collect()
    };
    replan(&empty, copies, nodes).into_iter().map(primary_first).collect()
}

/// The even placement that takes the fewest moves from `current`: each partition's primary and copies.
///
/// Copies that stay keep their order, new ones follow. Without any node of some weight the primary is node 0, which is
/// none, and the sets are empty.
pub fn replan(
    current: &[(Option<NodeId>, NodeSet)],
    copies: u16,
    nodes: &[PlanNode],
) -> Vec<(NodeId, NodeSet)> {
    let nodes = of_some_weight(nodes);
    if nodes.is_empty() || copies == 0 {
        return vec![(NodeId::default(), NodeSet::new()); current.len()];
    }
    let mut plan = Plan::keep(current, usize::from(copies).min(NodeSet::MAX), &nodes);
    plan.fill_by_ring();
    plan.move_by_ring();
    plan.mend_by_chains();
    plan.choose_primaries();
    plan.finish()
}

/// The fewest hand-overs that even out the primaries where no copy moves: partitions, and who is to be their primary.
///
/// After them there are none: the same copies and nodes, with these primaries, give an empty list. A partition without a
/// primary gets none here.
pub fn even_primaries(
    current: &[(Option<NodeId>, NodeSet)],
    copies: u16,
    nodes: &[PlanNode],
) -> Vec<(PartitionId, NodeId)> {
    let nodes = of_some_weight(nodes);
    if nodes.is_empty() || copies == 0 {
        return Vec::new();
    }
    let mut plan = Plan::hold(current, usize::from(copies).min(NodeSet::MAX), &nodes);
    plan.choose_primaries();
    let chosen = plan.primary.iter().map(|primary| primary.map(|node| plan.ids[node]));
    chosen
        .zip(current)
        .enumerate()
        .filter(|(_, (chosen, (primary, _)))| primary.is_some() && chosen != primary)
        .filter_map(|(p, (chosen, _))| Some((PartitionId(p as u16), chosen?)))
        .collect()
}

/// The nodes that are to hold something, by number.
fn of_some_weight(nodes: &[PlanNode]) -> Vec<PlanNode> {
    let mut nodes: Vec<PlanNode> = nodes.iter().filter(|node| node.weight > 0).cloned().collect();
    nodes.sort_by_key(|node| node.id);
    nodes.dedup_by_key(|node| node.id);
    nodes
}

/// A plan in the making. Nodes are indexes into a list ordered by id.
struct Plan {
    ids: Vec<NodeId>,
    quotas: Quotas,
    /// How many copies each node should hold.
    target: Vec<usize>,
    /// Each partition's nodes in the order of its walk, and each node's place in it.
    walk: Vec<Vec<usize>>,
    rank: Vec<Vec<usize>>,
    /// Each partition's copies: before, and as planned so far.
    before: Vec<Vec<usize>>,
    held: Vec<Vec<usize>>,
    /// The same by node: ordered, so that a plan can be repeated.
    on_node: Vec<BTreeSet<usize>>,
    primary: Vec<Option<usize>>,
}

/// One copy of `partition` that goes from one node to another.
#[derive(Clone, Copy)]
struct Move {
    partition: usize,
    from: usize,
    to: usize,
}

impl Plan {
    fn keep(current: &[(Option<NodeId>, NodeSet)], copies: usize, nodes: &[PlanNode]) -> Plan {
        let mut plan = Plan::hold(current, copies, nodes);
        plan.set_targets();
        plan.drop_excess();
        // Dropping changes who holds more than the floor, so round again.
        plan.set_targets();
        plan
    }

    /// All copies stay where they are.
    fn hold(current: &[(Option<NodeId>, NodeSet)], copies: usize, nodes: &[PlanNode]) -> Plan {
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let index = |id: NodeId| ids.binary_search(&id).ok();
        let quotas = Quotas::new(current.len(), copies, nodes);
        let ring = Ring::new(nodes.iter().map(|node| (node.id, node.weight)));
        let walk: Vec<Vec<usize>> = (0..current.len())
            .map(|p| ring.walk(PartitionId(p as u16)).into_iter().filter_map(index).collect())
            .collect();
        let rank = walk
            .iter()
            .map(|walk| {
                let mut rank = vec![0; ids.len()];
                walk.iter().enumerate().for_each(|(place, &node)| rank[node] = place);
                rank
            })
            .collect();
        let before: Vec<Vec<usize>> =
            current.iter().map(|(_, set)| set.iter().filter_map(index).collect()).collect();
        let mut on_node = vec![BTreeSet::new(); ids.len()];
        for (p, copies) in before.iter().enumerate() {
            copies.iter().for_each(|&node| _ = on_node[node].insert(p));
        }
        let primary = current.iter().map(|(primary, _)| primary.and_then(index)).collect();
        let held = before.clone();
        let target = vec![0; ids.len()];
        Plan { ids, quotas, target, walk, rank, before, held, on_node, primary }
    }

    fn set_targets(&mut self) {
        let loads: Vec<usize> = self.on_node.iter().map(BTreeSet::len).collect();
        self.target = self.quotas.targets(&loads);
    }

    /// Drops copies beyond the number wanted, or that share a zone beyond its limit: from the node that is most above
    /// its target, and the primary's last.
    fn drop_excess(&mut self) {
        for p in 0..self.held.len() {
            loop {
                let crowded =
                    |node: usize| self.zone_count(p, self.quotas.zone[node]) > self.quotas.zone_limit;
                let any_crowded = self.held[p].iter().any(|&node| crowded(node));
                if self.held[p].len() <= self.quotas.copies && !any_crowded {
                    break;
                }
                let worst =
                    self.held[p].iter().copied().filter(|&node| !any_crowded || crowded(node)).max_by_key(
                        |&node| {
                            let above = self.load(node) as i64 - self.target[node] as i64;
                            (self.primary[p] != Some(node), above, self.rank[p][node])
                        },
                    );
                let Some(worst) = worst else { break };
                self.remove(p, worst);
            }
        }
    }

    fn fill_by_ring(&mut self) {
        for p in 0..self.held.len() {
            for at in 0..self.walk[p].len() {
                if self.held[p].len() >= self.quotas.copies {
                    break;
                }
                let node = self.walk[p][at];
                if self.below(node) && self.takes(p, node, None) {
                    self.add(p, node);
                }
            }
        }
    }

    fn move_by_ring(&mut self) {
        let mut candidates = Vec::new();
        let givers: Vec<usize> = (0..self.ids.len()).filter(|&node| self.above(node)).collect();
        let takers: Vec<usize> = (0..self.ids.len()).filter(|&node| self.below(node)).collect();
        for &from in &givers {
            for &p in &self.on_node[from] {
                let leads = self.primary[p] == Some(from);
                candidates.extend(takers.iter().map(|&to| (leads, self.rank[p][to], p, from, to)));
            }
        }
        candidates.sort_unstable();
        for (_, _, partition, from, to) in candidates {
            let fits = self.above(from) && self.below(to) && self.held[partition].contains(&from);
            if fits && self.takes(partition, to, Some(from)) {
                self.apply(Move { partition, from, to });
            }
        }
    }

    fn mend_by_chains(&mut self) {
        for p in 0..self.held.len() {
            while self.held[p].len() < self.quotas.copies {
                let starts: Vec<usize> =
                    self.walk[p].iter().copied().filter(|&node| self.takes(p, node, None)).collect();
                let (start, chain) = self.chain(&starts, Some(p)).expect("the targets can be met");
                chain.into_iter().rev().for_each(|step| self.apply(step));
                self.add(p, start);
            }
        }
        loop {
            let starts: Vec<usize> = (0..self.ids.len()).filter(|&node| self.above(node)).collect();
            if starts.is_empty() {
                break;
            }
            let (_, chain) = self.chain(&starts, None).expect("the targets can be met");
            chain.into_iter().rev().for_each(|step| self.apply(step));
        }
    }

    /// The cheapest chain of moves from one of `starts` to a node below its target: the start, and the moves.
    ///
    /// A move costs where it copies data that the node it leaves had before. Where the cheapest search finds nothing,
    /// the shortest one does: on a shortest chain no partition stands in the way of itself.
    fn chain(&self, starts: &[usize], avoid: Option<usize>) -> Option<(usize, Vec<Move>)> {
        self.search(starts, avoid, true).or_else(|| self.search(starts, avoid, false))
    }

    fn search(&self, starts: &[usize], avoid: Option<usize>, weigh: bool) -> Option<(usize, Vec<Move>)> {
        const COPY: usize = 1 << 20;
        let mut cost = vec![usize::MAX; self.ids.len()];
        let mut reached_by: Vec<Option<Move>> = vec![None; self.ids.len()];
        let mut open: BTreeSet<(usize, usize)> = starts.iter().map(|&node| (0, node)).collect();
        starts.iter().for_each(|&node| cost[node] = 0);
        while let Some((so_far, from)) = open.pop_first() {
            let chain = path_to(from, &reached_by);
            if self.below(from) {
                let start = chain.first().map_or(from, |step| step.from);
                return Some((start, chain));
            }
            let used = |p: usize| Some(p) == avoid || (weigh && chain.iter().any(|step| step.partition == p));
            for &partition in self.on_node[from].iter().filter(|&&p| !used(p)) {
                for to in 0..self.ids.len() {
                    let had = |node| self.before[partition].contains(&node);
                    let copies_data = weigh && had(from) && !had(to);
                    let total = so_far + 1 + if copies_data { COPY } else { 0 };
                    if total < cost[to] && self.takes(partition, to, Some(from)) {
                        open.remove(&(cost[to], to));
                        open.insert((total, to));
                        cost[to] = total;
                        reached_by[to] = Some(Move { partition, from, to });
                    }
                }
            }
        }
        None
    }

    fn choose_primaries(&mut self) {
        let bounds: Vec<(usize, usize)> =
            self.quotas.shares.iter().map(|share| share.split(self.quotas.copies)).collect();
        let mut leads: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.ids.len()];
        for p in 0..self.held.len() {
            match self.primary[p].filter(|node| self.held[p].contains(node)) {
                Some(node) => _ = leads[node].insert(p),
                None => self.primary[p] = None,
            }
        }
        for p in 0..self.held.len() {
            if self.primary[p].is_some() {
                continue;
            }
            // A copy that has the data before one that has to be filled, then by the walk.
            let best = self.held[p].iter().copied().min_by_key(|&node| {
                (!self.before[p].contains(&node), leads[node].len() >= bounds[node].1, self.rank[p][node])
            });
            if let Some(node) = best {
                leads[node].insert(p);
                self.primary[p] = Some(node);
            }
        }
        let (low, high) = (|node: usize| bounds[node].0, |node: usize| bounds[node].1);
        type Wanted<'a> = &'a dyn Fn(usize, usize) -> bool;
        let rounds: [(Wanted<'_>, Wanted<'_>); 3] = [
            (&|node, count| count > high(node), &|node, count| count < low(node)),
            (&|node, count| count > high(node), &|node, count| count < high(node)),
            (&|node, count| count > low(node), &|node, count| count < low(node)),
        ];
        for (gives, takes) in rounds {
            while let Some(chain) = self.hand_over(&leads, gives, takes) {
                for step in chain {
                    leads[step.from].remove(&step.partition);
                    leads[step.to].insert(step.partition);
                    self.primary[step.partition] = Some(step.to);
                }
            }
        }
    }

    /// The shortest chain of hand-overs from a node that gives to one that takes, by their numbers of primaries.
    fn hand_over(
        &self,
        leads: &[BTreeSet<usize>],
        gives: &dyn Fn(usize, usize) -> bool,
        takes: &dyn Fn(usize, usize) -> bool,
    ) -> Option<Vec<Move>> {
        let mut reached_by: Vec<Option<Move>> = vec![None; self.ids.len()];
        let mut queue: Vec<usize> =
            (0..self.ids.len()).filter(|&node| gives(node, leads[node].len())).collect();
        let mut seen: Vec<bool> = vec![false; self.ids.len()];
        queue.iter().for_each(|&node| seen[node] = true);
        let mut next = 0;
        while next < queue.len() {
            let from = queue[next];
            next += 1;
            if takes(from, leads[from].len()) {
                return Some(path_to(from, &reached_by));
            }
            // Copies that have the data first: a primary that must first be filled is late.
            for filled in [true, false] {
                for &partition in &leads[from] {
                    for &to in &self.held[partition] {
                        if !seen[to] && self.before[partition].contains(&to) == filled {
                            seen[to] = true;
                            reached_by[to] = Some(Move { partition, from, to });
                            queue.push(to);
                        }
                    }
                }
            }
        }
        None
    }

    fn finish(self) -> Vec<(NodeId, NodeSet)> {
        for (node, &target) in self.target.iter().enumerate() {
            assert_eq!(self.load(node), target, "node {} holds what it should", self.ids[node]);
        }
        let name = |node: usize| self.ids[node];
        self.held
            .iter()
            .zip(&self.before)
            .zip(&self.primary)
            .map(|((held, before), primary)| {
                let kept = before.iter().filter(|node| held.contains(node));
                let new = held.iter().filter(|node| !before.contains(node));
                (primary.map_or(NodeId::default(), name), kept.chain(new).map(|&node| name(node)).collect())
            })
            .collect()
    }

    fn load(&self, node: usize) -> usize {
        self.on_node[node].len()
    }

    fn above(&self, node: usize) -> bool {
        self.load(node) > self.target[node]
    }

    fn below(&self, node: usize) -> bool {
        self.load(node) < self.target[node]
    }

    fn zone_count(&self, p: usize, zone: usize) -> usize {
        self.held[p].iter().filter(|&&node| self.quotas.zone[node] == zone).count()
    }

    /// Whether `node` may take a copy of partition `p`, once `leaving` has given its own.
    fn takes(&self, p: usize, node: usize, leaving: Option<usize>) -> bool {
        let zone = self.quotas.zone[node];
        let freed = leaving.is_some_and(|other| self.quotas.zone[other] == zone);
        !self.held[p].contains(&node)
            && self.zone_count(p, zone) - usize::from(freed) < self.quotas.zone_limit
    }

    fn add(&mut self, p: usize, node: usize) {
        self.held[p].push(node);
        self.on_node[node].insert(p);
    }

    fn remove(&mut self, p: usize, node: usize) {
        self.held[p].retain(|&other| other != node);
        self.on_node[node].remove(&p);
    }

    fn apply(&mut self, step: Move) {
        debug_assert!(self.takes(step.partition, step.to, Some(step.from)));
        self.remove(step.partition, step.from);
        self.add(step.partition, step.to);
    }
}

/// The steps by which a search came to `node`, in order.
fn path_to(mut node: usize, reached_by: &[Option<Move>]) -> Vec<Move> {
    let mut path = Vec::new();
    while let Some(step) = reached_by[node] {
        path.push(step);
        node = step.from;
    }
    path.reverse();
    path
}
