//! Shapes change at random, on maps alone: copies are said to be filled, and primaries to be handed over, now and then.

use super::*;
use crate::command::apply;
use crate::message::{Change, Kept, Order};
use types::Incarnation;

/// Draws numbers from a seed (splitmix64; Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

fn registration(node: NodeId, incarnation: u64) -> Registration {
    let since = Incarnation(incarnation.max(2) - 1);
    Registration {
        node,
        incarnation: Incarnation(incarnation),
        directory: u64::from(node.0),
        votes: node.0 <= 3,
        shards: 2,
        kept: Kept { since, log: true, lost: Vec::new() },
        host: "h".into(),
        port: 1,
        cluster_port: 2,
        peer_port: 3,
        http_port: 4,
        line_port: 5,
        weight: 1,
        zone: String::new(),
        level: types::Level::HIGHEST,
        build: String::new(),
        witness: false,
    }
}

/// A coordinator and its map, without anything between them.
struct Cluster {
    map: ClusterMap,
    random: Random,
    moves: Moves,
    now: Instant,
    replace_after: Duration,
    /// Copies that were begun anew.
    begun: usize,
}

impl Cluster {
    fn new(seed: u64, nodes: u16, partitions: u16, copies: u16) -> Cluster {
        let mut cluster = Cluster {
            map: ClusterMap::default(),
            random: Random(seed),
            moves: Moves::default(),
            now: Instant(0),
            replace_after: Duration::from_secs(1),
            begun: 0,
        };
        let members: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let plan: Vec<PlanNode> = members.iter().map(|&id| listed(id, None)).collect();
        let placement = placement::plan_new(partitions, copies, &plan);
        cluster.apply(&Command::Create {
            cluster_id: "c".into(),
            copies,
            min_in_sync: 1,
            voters: members[..3].to_vec(),
            members: members.clone(),
            placement: placement.iter().map(|set| set.iter().collect()).collect(),
        });
        for id in members {
            cluster.apply(&Command::Up(registration(id, 1)));
        }
        cluster.apply(&Command::Activate);
        cluster
    }

    fn apply(&mut self, command: &Command) {
        let before = self.map.clone();
        apply(&mut self.map, command, &mut Vec::new());
        self.map.version += 1;
        if let Command::Move(_) | Command::Settle(_) | Command::Remove { .. } = command {
            for (old, new) in before.partitions.iter().zip(&self.map.partitions) {
                let least = old.in_sync.len().min(usize::from(before.copies));
                assert!(new.in_sync.len() >= least, "{command:?} makes {new:?} of {old:?}");
                assert!(new.in_sync.is_within(new.copies), "{new:?}");
            }
        }
    }

    fn order(&mut self, order: Order) {
        if let Some(command) = shape::command(&self.map, order) {
            self.apply(&command);
        }
    }

    /// One look of the coordinator. Whether anything was due.
    fn look(&mut self) -> bool {
        self.now = self.now + LOOK;
        let nodes = self.moves.nodes(&self.map, self.now, self.replace_after);
        let is_planned =
            self.moves.plan.as_ref().is_some_and(|p| p.nodes == nodes && p.copies == self.map.copies);
        if !is_planned {
            let wanted = wanted(&self.map, &nodes);
            self.moves.plan = Some(Plan { nodes, copies: self.map.copies, wanted });
        }
        let removals = due_removals(&self.map);
        let due = self.moves.plan.as_ref().map(|plan| due_moves(&self.map, &plan.wanted)).unwrap_or_default();
        self.begun += due.iter().map(|step| step.add.len()).sum::<usize>();
        let drops = due_drops(&self.map);
        let any = !removals.is_empty() || !due.is_empty() || !drops.is_empty();
        removals.into_iter().for_each(|node| self.apply(&Command::Remove { node }));
        if !due.is_empty() {
            self.apply(&Command::Move(due));
        }
        if !drops.is_empty() {
            self.apply(&Command::Settle(drops));
        }
        any
    }

    /// What nodes do meanwhile: copies are filled, primaries handed over. Whether anything is left to do.
    fn work(&mut self, permille: usize) -> bool {
        let mut any = false;
        for at in 0..self.map.partitions.len() {
            let state = self.map.partitions[at];
            let Some(primary) = state.primary else { continue };
            let missing = state.copies.without(state.in_sync);
            if let Some(node) = missing.iter().find(|&node| self.map.is_active(node)) {
                any = true;
                if self.random.below(1000) < permille {
                    let change = Change {
                        partition: PartitionId(at as u16),
                        epoch: state.epoch,
                        primary,
                        node,
                        incarnation: self.map.member(node).expect("it is a member").incarnation,
                        kind: placement::ChangeKind::Join,
                    };
                    self.apply(&Command::Change(change));
                }
            } else if state.leaving.contains(primary) && state.staying().is_within(state.in_sync) {
                any = true;
                let epoch = state.epoch.next();
                let primary = state.staying().iter().find(|&node| self.map.is_active(node));
                self.map.partitions[at] = PartitionState { epoch, primary_since: epoch, primary, ..state };
            }
        }
        any
    }

    /// Until nothing is left to do: the fixed point.
    fn rest(&mut self) {
        for round in 0.. {
            let (looked, worked) = (self.look(), self.work(700));
            // Who is away counts as gone in the end.
            if !looked && !worked && self.now.since(Instant(0)) > Duration::from_secs(2) && self.no_news() {
                return;
            }
            assert!(round < 20_000, "it does not come to rest");
        }
    }

    fn no_news(&mut self) -> bool {
        (0..30).all(|_| !self.look())
    }

    fn loads(&self) -> BTreeMap<NodeId, usize> {
        let holders = may_hold(&self.map).filter(|m| m.state == MemberState::Active);
        let load = |id| self.map.partitions.iter().filter(|state| state.copies.contains(id)).count();
        holders.map(|member| (member.id, load(member.id))).collect()
    }

    fn check_at_rest(&self, what: &str) {
        let loads = self.loads();
        let copies = usize::from(self.map.copies);
        for state in self.map.partitions.iter().filter(|state| state.primary.is_some()) {
            assert!(state.leaving.is_empty(), "{what}: {state:?}");
            let alive = state.copies.iter().filter(|&node| self.map.is_active(node)).count();
            let possible = self.map.members.iter().filter(|m| m.state == MemberState::Active).count();
            assert!(alive >= copies.min(loads.len()) && alive <= possible, "{what}: {state:?} {loads:?}");
        }
        // Partitions of which nobody alive has anything wait, and count for where they should be.
        let all_served = self.map.partitions.iter().all(|state| state.primary.is_some());
        if loads.len() >= copies && all_served {
            let (least, most) = (loads.values().min(), loads.values().max());
            assert!(most <= least.map(|least| least + 1).as_ref(), "{what}: {loads:?}");
            for member in self.map.members.iter().filter(|member| member.draining) {
                assert!(self.map.is_empty_node(member.id), "{what}: node {} is not empty", member.id);
                assert!(self.map.voters.contains(&member.id), "{what}: node {} is a member", member.id);
            }
        }
    }

    /// Something happens. What it is called.
    fn happen(&mut self, next: &mut u16) -> String {
        let ids: Vec<NodeId> = self.map.members.iter().map(|member| member.id).collect();
        let id = ids[self.random.below(ids.len())];
        let member = self.map.member(id).expect("it is one").clone();
        match self.random.below(6) {
            0 if ids.len() < 9 => {
                let joiner = NodeId(*next);
                *next += 1;
                self.apply(&Command::Up(registration(joiner, 1)));
                format!("node {joiner} joins")
            }
            1 => {
                self.order(Order::Drain { node: id, on: true });
                format!("node {id} is drained")
            }
            2 => {
                self.order(Order::Drain { node: id, on: false });
                format!("node {id} may stay")
            }
            3 if member.state == MemberState::Active => {
                let alive = self.map.members.iter().filter(|m| m.state == MemberState::Active).count();
                if alive > usize::from(self.map.copies) + 1 {
                    let nodes = vec![(id, member.incarnation)];
                    self.apply(&Command::Down { nodes, promote: vec![] });
                }
                format!("node {id} dies")
            }
            3 | 4 if member.state != MemberState::Active => {
                self.apply(&Command::Up(registration(id, member.incarnation.0 + 1)));
                format!("node {id} is back")
            }
            5 => {
                let copies = 1 + self.random.below(4) as u16;
                self.order(Order::Copies(copies));
                format!("{copies} copies")
            }
            _ => {
                self.order(Order::Remove(id));
                format!("node {id} is to be removed")
            }
        }
    }
}

#[test]
fn after_each_change_all_is_even_with_the_fewest_copies_made() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(seed, 4, 64, 2);
        cluster.rest();
        assert_eq!(cluster.begun, 0, "a fresh cluster is even");
        let (mut made, mut least, mut next) = (0, 0, 5);
        for _ in 0..12 {
            let before = cluster.loads();
            cluster.begun = 0;
            let what = format!("seed {seed}: {}", cluster.happen(&mut next));
            cluster.rest();
            cluster.check_at_rest(&what);
            made += cluster.begun;
            // A copy on a node that may hold none any more is no gain for anybody.
            let grown =
                |(id, load): (NodeId, usize)| load.saturating_sub(before.get(&id).copied().unwrap_or(0));
            least += cluster.loads().into_iter().map(grown).sum::<usize>();
        }
        assert!(made * 10 <= least * 11 + 20, "seed {seed}: {made} copies were made where {least} would do");
    }
}

#[test]
fn changes_on_top_of_each_other_come_to_an_even_end() {
    for seed in 0..150 {
        let mut cluster = Cluster::new(seed ^ 0xabcd, 3 + (seed % 4) as u16, 32, 1 + (seed % 3) as u16);
        let mut next = 20;
        let mut what = Vec::new();
        for _ in 0..15 {
            what.push(cluster.happen(&mut next));
            for _ in 0..cluster.random.below(12) {
                cluster.look();
                cluster.work(300);
            }
        }
        cluster.rest();
        cluster.check_at_rest(&format!("seed {seed}: {what:?}"));
    }
}

#[test]
fn few_copies_are_under_way_at_once() {
    let mut cluster = Cluster::new(1, 3, 256, 2);
    cluster.apply(&Command::Up(registration(NodeId(4), 1)));
    cluster.look();
    let under_way = |cluster: &Cluster| {
        cluster.map.partitions.iter().filter(|state| !state.copies.is_within(state.in_sync)).count()
    };
    assert_eq!(under_way(&cluster), 2 * FILLS, "two shards take in");
    cluster.look();
    assert_eq!(under_way(&cluster), 2 * FILLS, "and no more until these are done");
    cluster.work(1000);
    cluster.look();
    assert_eq!(under_way(&cluster), 2 * FILLS);
    cluster.rest();
    assert_eq!(cluster.loads()[&NodeId(4)], 128);
    assert_eq!(cluster.begun, 128);
}

#[test]
fn a_drain_that_would_cost_a_copy_waits_for_another_node() {
    let mut cluster = Cluster::new(2, 3, 16, 3);
    cluster.order(Order::Drain { node: NodeId(3), on: true });
    cluster.rest();
    assert!(cluster.map.partitions.iter().all(|state| state.in_sync.len() == 3));
    assert!(!placement::progress(&cluster.map).blocked.is_empty());
    cluster.apply(&Command::Up(registration(NodeId(4), 1)));
    cluster.rest();
    assert!(cluster.map.is_empty_node(NodeId(3)));
    assert!(placement::progress(&cluster.map).blocked.is_empty());
    assert!(cluster.map.member(NodeId(3)).is_some_and(|member| member.draining), "it votes, and so it stays");
}

#[test]
fn the_last_copy_of_a_dead_node_is_not_given_up() {
    let mut cluster = Cluster::new(3, 3, 12, 1);
    let nodes = vec![(NodeId(2), Incarnation(1))];
    cluster.apply(&Command::Down { nodes, promote: vec![] });
    cluster.order(Order::Remove(NodeId(2)));
    for _ in 0..100 {
        cluster.look();
        cluster.work(1000);
    }
    let held = cluster.map.partitions.iter().filter(|state| state.in_sync.contains(NodeId(2)));
    assert_eq!(held.count(), 4, "what it holds is all there is");
    cluster.apply(&Command::Up(registration(NodeId(2), 2)));
    cluster.rest();
    assert!(cluster.map.is_empty_node(NodeId(2)));
}

#[test]
fn a_removed_node_comes_back_with_a_later_start_alone() {
    let mut cluster = Cluster::new(4, 3, 12, 2);
    cluster.apply(&Command::Up(registration(NodeId(4), 5)));
    cluster.rest();
    cluster.order(Order::Drain { node: NodeId(4), on: true });
    cluster.rest();
    assert_eq!(cluster.map.member(NodeId(4)), None);
    assert!(!crate::command::is_news(&cluster.map, &registration(NodeId(4), 5)));
    for wrong in [0, 10_000] {
        assert!(!crate::command::is_news(&cluster.map, &registration(NodeId(wrong), 5)));
    }
    cluster.apply(&Command::Up(registration(NodeId(4), 6)));
    cluster.rest();
    assert_eq!(cluster.loads()[&NodeId(4)], 6);
    assert!(cluster.map.removed.is_empty());
}

#[test]
fn a_copy_that_leaves_stays_until_the_others_are_in_sync() {
    let mut cluster = Cluster::new(5, 3, 1, 2);
    let state = cluster.map.partitions[0];
    let primary = state.primary.expect("it is served");
    let old = state.copies.iter().find(|&node| node != primary).expect("there are two");
    let new = (1..=3).map(NodeId).find(|&node| !state.copies.contains(node)).expect("there are three");
    let step = |epoch| Move { partition: PartitionId(0), epoch, add: vec![new], leave: vec![old] };
    cluster.apply(&Command::Move(vec![step(Epoch(9))]));
    assert_eq!(cluster.map.partitions[0], state, "a move for another epoch is void");
    cluster.apply(&Command::Move(vec![step(state.epoch)]));
    let filling = cluster.map.partitions[0];
    assert_eq!((filling.copies.len(), filling.in_sync.len()), (3, 2));
    cluster.apply(&Command::Settle(vec![(PartitionId(0), filling.epoch)]));
    assert_eq!(cluster.map.partitions[0], filling);
    cluster.work(1000);
    let filled = cluster.map.partitions[0];
    cluster.apply(&Command::Settle(vec![(PartitionId(0), filling.epoch)]));
    assert_eq!(cluster.map.partitions[0], filled, "late");
    cluster.apply(&Command::Settle(vec![(PartitionId(0), filled.epoch)]));
    let settled = cluster.map.partitions[0];
    assert!(!settled.copies.contains(old) && settled.copies == settled.in_sync && settled.leaving.is_empty());
}

#[test]
fn an_order_that_cannot_be_obeyed_says_why_and_changes_nothing() {
    let cluster = Cluster::new(6, 3, 4, 2);
    for (order, why) in [
        (Order::MinInSync(3), "copies"),
        (Order::Copies(0), "1 to 7"),
        (Order::Copies(8), "1 to 7"),
        (Order::Drain { node: NodeId(9), on: true }, "no node 9"),
        (Order::Remove(NodeId(1)), "drain it"),
    ] {
        let told = shape::refusal(&cluster.map, order).unwrap_or_default();
        assert!(told.contains(why), "{order:?}: {told}");
        assert_eq!(shape::command(&cluster.map, order), None);
    }
    assert_eq!(shape::command(&cluster.map, Order::Copies(2)), None, "it is so already");
}

#[test]
fn first_copies_follow_the_weights_that_nodes_have_told() {
    let mut cluster = Cluster::new(7, 3, 60, 1);
    assert_eq!(first_placement(&cluster.map), None, "too late");
    for state in &mut cluster.map.partitions {
        *state = PartitionState { copies: state.copies, ..PartitionState::default() };
    }
    assert_eq!(first_placement(&cluster.map), None, "nothing changes");
    cluster.map.members[2].weight = 4;
    let command = first_placement(&cluster.map).expect("weights count");
    cluster.apply(&command);
    cluster.apply(&Command::Activate);
    assert_eq!(cluster.loads(), [(1, 10), (2, 10), (3, 40)].map(|(id, load)| (NodeId(id), load)).into());
}
