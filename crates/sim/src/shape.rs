//! The cluster's shape changes while all else happens: nodes join that nobody listed, and operators have nodes drained and
//! removed, and copies and `min_in_sync` changed. The voters follow: one, three or five of the nodes. In some runs the last node to join
//! is a witness.
//!
//! The draws are of their own, so that a seed has the same faults with them and without. At the end the shape has to be what was
//! last asked for: nothing moves any more, drained nodes are empty where that is possible, the others hold even shares, and as many
//! vote as should.

use crate::network::MS;
use crate::occasions::Occasions;
use crate::world::{MACHINES, World};
use control::Order;
use history::Time;
use history::random::Random;
use placement::{Member, PartitionState};
use types::NodeId;

/// When the first change may come: the cluster has formed.
const FIRST: Time = 2000 * MS;

/// What a seed's run has in store.
pub(crate) struct Shapes {
    /// None in some runs.
    pub occasions: Occasions,
    /// Nodes that the cluster is made of: three, in some runs more.
    pub founders: usize,
    /// Those, and machines that may join.
    pub machines: usize,
    /// Seconds after which the copies of a dead node are made anew.
    pub replace_after: u64,
    /// Seconds after which another node votes in place of a dead one.
    pub replace_voter_after: u64,
    /// Whether the last of the machines is a witness.
    pub witness: bool,
    /// Changes so far.
    pub done: usize,
}

impl Shapes {
    /// Drawn from a seed.
    pub fn draw(seed: u64) -> Shapes {
        let mut random = Random::new(seed ^ 0x5a9e_0000_0000_0000);
        let gap = random.chance(600).then(|| random.pick(&[400, 1200, 4000]) * MS);
        let replace_after = if gap.is_some() { random.pick(&[0, 2, 300]) } else { 300 };
        let mut own = Random::new(seed ^ 0x707e_0000_0000_0000);
        let replace_voter_after = own.pick(&[0, 1, 1, 3]);
        let witness = gap.is_some() && own.chance(300);
        let mut size = Random::new(seed ^ 0x512e_0000_0000_0000);
        let founders = size.pick(&[3, 3, 3, 3, 3, 3, 3, 3, 4, 5]);
        let may_join = size.pick(&[2, 2, 2, 2, 3, 4]);
        let machines = if gap.is_some() { MACHINES.min(founders + may_join) } else { founders };
        let gap = gap.map(|gap| (gap / 10, gap * 2));
        let occasions = Occasions::new(random.draw(), gap, FIRST);
        Shapes { occasions, founders, machines, replace_after, replace_voter_after, witness, done: 0 }
    }
}

impl World {
    /// The nodes that the cluster is made of.
    pub(crate) fn founders(&self) -> usize {
        self.shapes.founders
    }

    /// The machines that faults may meet.
    pub(crate) fn machines(&self) -> usize {
        self.shapes.machines
    }

    /// Whether every copy is in sync and stays, in the runs in which they may move.
    pub(crate) fn has_no_moves(&self) -> bool {
        let rests =
            |state: &PartitionState| state.leaving.is_empty() && state.copies.is_within(state.in_sync);
        !self.shapes.occasions.any() || self.checks.maps.newest().partitions.iter().all(rests)
    }

    /// One change.
    pub(crate) fn change_shape(&mut self, number: u64) -> Result<(), String> {
        self.restless_at = self.now;
        self.shapes.done += 1;
        let random = &mut self.shapes.occasions.stream(number);
        let machine = random.below(self.machines() as u64) as usize;
        let node = NodeId(machine as u16 + 1);
        let order = match random.below(10) {
            0..=2 => return self.join(),
            3 | 4 => Order::Drain { node, on: true },
            5 | 6 => Order::Drain { node, on: false },
            7 => Order::Remove(node),
            8 => Order::Copies(random.pick(&[2, 2, 3, 3, 4]) as u16),
            _ => Order::MinInSync(random.pick(&[1, 1, 2]) as u16),
        };
        let asks = random.below(self.founders() as u64) as usize;
        if matches!(order, Order::Drain { on: true, .. } | Order::Remove(_)) && !self.two_others(node) {
            return Ok(());
        }
        self.trace.event(self.now, &[26, asks as u64, machine as u64], || {
            format!("shape {number}: an operator asks node {}: {order:?}", asks + 1)
        });
        if self.nodes[asks].process.is_none() || self.nodes[asks].pauses > 0 {
            return Ok(());
        }
        self.count(format!("Order: {}", name_of(&order)));
        self.at_node(asks, true, |process, own, _| process.order(own, order))
    }

    /// Whether two nodes beside this one may hold copies. A lone copy keeps no log in memory, which the checks read: not looked
    /// into, so no order asks for fewer copies either.
    fn two_others(&self, node: NodeId) -> bool {
        let map = self.checks.maps.newest();
        map.members.iter().filter(|member| member.id != node && may_hold(member)).count() >= 2
    }

    /// A machine that has nothing starts a node that nobody listed.
    fn join(&mut self) -> Result<(), String> {
        let fresh = |at: &usize| self.nodes[*at].start == 0 && !self.nodes[*at].disk_hurt;
        match (self.founders()..self.machines()).find(fresh) {
            Some(at) => {
                self.count("Join".into());
                self.start(at)
            }
            None => Ok(()),
        }
    }

    /// What of the voters is not as it should be once all is well: as many as should vote, who all can, and nobody else has a seat.
    pub(crate) fn wrong_voters(&self) -> Option<String> {
        let map = self.checks.maps.newest();
        let may_vote = |member: &&Member| !member.draining;
        let wanted = match map.members.iter().filter(may_vote).count() {
            0 => return None,
            1 | 2 => 1,
            3 | 4 => 3,
            _ => 5,
        };
        let votes = |member: &Member| {
            let seat = map.seats.iter().find(|seat| seat.node == member.id);
            map.voters.contains(&member.id) && seat.is_some_and(|seat| seat.directory == member.directory)
        };
        let able = map.members.iter().filter(may_vote).filter(|member| votes(member)).count();
        let is_so = able == wanted && map.voters.len() == wanted && map.seats.len() == wanted;
        (!is_so || !map.old_voters.is_empty()).then(|| {
            format!("{wanted} are to vote: {:?} do, {:?} did, {:?}", map.voters, map.old_voters, map.seats)
        })
    }

    /// What of the cluster's shape is not as it should be once all is well and nothing moves any more.
    pub(crate) fn wrong_shape(&self) -> Option<String> {
        let map = self.checks.maps.newest();
        let lost = |state: &PartitionState| state.in_sync.is_empty();
        if map.partitions.iter().any(lost) {
            // What is lost cannot be moved.
            return None;
        }
        if let Some((id, state)) = map.each_partition().find(|(_, state)| !state.leaving.is_empty()) {
            return Some(format!("a copy of partition {id} is still leaving: {state:?}"));
        }
        let copies = usize::from(map.copies);
        let holders: Vec<&Member> = map.members.iter().filter(|member| may_hold(member)).collect();
        // Where too few nodes may hold copies, those that are to go keep theirs, but need not take any.
        let least = copies.min(holders.len());
        let wrong =
            map.each_partition().find(|(_, state)| state.copies.len() < least || state.copies.len() > copies);
        if let Some((id, state)) = wrong {
            return Some(format!("partition {id} is to have {copies} copies: {state:?}"));
        }
        if holders.len() < copies {
            return None;
        }
        let load = |node| map.partitions.iter().filter(|state| state.copies.contains(node)).count();
        if let Some(going) = map.members.iter().find(|member| member.draining && load(member.id) > 0) {
            return Some(format!("node {} is to be empty and holds {} copies", going.id, load(going.id)));
        }
        if let Some(going) = map.members.iter().find(|member| member.draining) {
            return Some(format!("node {} is empty and still a member", going.id));
        }
        let loads: Vec<usize> = holders.iter().map(|member| load(member.id)).collect();
        let uneven = loads.iter().max() > loads.iter().min().map(|least| least + 1).as_ref();
        uneven.then(|| format!("the nodes hold {loads:?} copies"))
    }
}

/// What an order is counted as.
fn name_of(order: &Order) -> &'static str {
    match order {
        Order::Drain { on: true, .. } => "drain",
        Order::Drain { on: false, .. } => "undrain",
        Order::Remove(_) => "remove",
        Order::Copies(_) => "copies",
        Order::MinInSync(_) => "min_in_sync",
    }
}

/// Whether a node may hold copies.
pub(crate) fn may_hold(member: &Member) -> bool {
    !member.draining && !member.witness
}
