//! The voters follow the nodes: a cluster grows from one voter to three and five and shrinks again, dead and drained voters are
//! replaced, and at no moment does a node that is declared dead hold a lease.

use super::*;
use control::Order;

impl Group {
    /// A cluster that so many nodes made.
    pub(super) fn of(founders: u16) -> Group {
        let now = Instant(1_000_000_000);
        let mut group = Group {
            now,
            nodes: (1..=founders)
                .map(|id| Some(start_in(id, founders, u64::from(id) * 11, vec![], now)))
                .collect(),
            cut: BTreeSet::new(),
            control_cut: BTreeSet::new(),
            lost: None,
        };
        group.run_until("a cluster forms", Duration::from_secs(6), |group| {
            let now = group.now;
            group.nodes.iter().flatten().all(|node| {
                node.control.map().partitions.iter().all(|state| state.primary.is_some())
                    && node.control.map().partitions.len() == 16
                    && node.heart.lease_until() > now
            })
        });
        group
    }

    /// A node that nobody listed.
    pub(super) fn join(&mut self, founders: u16) -> u16 {
        let id = self.nodes.len() as u16 + 1;
        self.nodes.push(Some(start_in(id, founders, u64::from(id) * 11, vec![], self.now)));
        id
    }

    /// The newest map that any node knows.
    pub(super) fn newest(&self) -> placement::ClusterMap {
        let maps = self.nodes.iter().flatten().map(|node| node.control.map());
        placement::ClusterMap::clone(maps.max_by_key(|map| map.version).expect("a node runs"))
    }

    /// Whether these vote, the change is over, and nobody else has a seat.
    fn vote(&self, wanted: &[u16]) -> bool {
        let map = self.newest();
        let wanted: Vec<NodeId> = wanted.iter().copied().map(NodeId).collect();
        map.voters == wanted && map.old_voters.is_empty() && map.seats.len() == wanted.len()
    }

    /// Runs until these vote, with copies filled and primaries handed over meanwhile. No node may lose its lease that is not in
    /// `dead`, and none that is declared dead may have one.
    fn run_until_they_vote(&mut self, wanted: &[u16], dead: &[u16]) {
        let began = self.now;
        while !self.vote(wanted) {
            let map = self.newest();
            let seats = (&map.voters, &map.old_voters, &map.seats, map.version);
            assert!(self.now.since(began) < Duration::from_secs(30), "{wanted:?} are to vote: {seats:?}");
            self.step_well(dead);
        }
    }

    fn step_well(&mut self, dead: &[u16]) {
        self.step();
        let by = self.nodes.iter().flatten().find(|node| node.control.is_coordinator());
        if let Some(by) = by.map(|node| node.me.node.0) {
            self.obey(by, ChangeKind::Release);
        }
        let (now, map) = (self.now, self.newest());
        for node in self.nodes.iter().flatten() {
            let (id, lease_until) = (node.me.node, node.heart.lease_until());
            let member = map.member(id).filter(|member| member.incarnation == node.me.incarnation);
            match member.map(|member| member.state) {
                Some(MemberState::Failed) => assert!(lease_until <= now, "node {id} is dead and has a lease"),
                Some(MemberState::Active) if !dead.contains(&id.0) => {
                    let began = node.control.map().version > 0 && lease_until > Instant(0);
                    assert!(!began || lease_until > now, "node {id} lost its lease: {:?}", map.voters);
                }
                _ => {}
            }
        }
    }

    fn run_well(&mut self, time: Duration, dead: &[u16]) {
        let until = self.now + time;
        while self.now < until {
            self.step_well(dead);
        }
    }

    fn order(&mut self, by: u16, order: Order) {
        let now = self.now;
        self.node(by).control.order(now, order);
    }

    fn rests(&mut self) {
        self.run_well(Duration::from_secs(8), &[]);
        let version = self.newest().version;
        self.run_well(Duration::from_secs(20), &[]);
        assert_eq!(self.newest().version, version, "it comes to rest");
    }
}

#[test]
fn a_cluster_grows_from_one_voter_to_five_and_the_first_can_die_and_go() {
    let mut group = Group::of(1);
    assert!(group.vote(&[1]));
    group.join(1);
    group.run_well(Duration::from_secs(5), &[]);
    assert!(group.vote(&[1]), "two nodes have one voter");
    group.join(1);
    group.run_until_they_vote(&[1, 2, 3], &[]);
    group.join(1);
    group.join(1);
    group.run_until_they_vote(&[1, 2, 3, 4, 5], &[]);
    group.rests();
    // The only one that voted at first dies, and nobody but it loses anything.
    group.nodes[0] = None;
    group.run_until("node 1 is declared dead", Duration::from_secs(3), |group| {
        !group.newest().is_active(NodeId(1))
    });
    let coordinator = group.nodes.iter().flatten().find(|node| node.control.is_coordinator()).unwrap();
    let by = coordinator.me.node.0;
    // An operator gives it up: four are left, so three vote.
    group.order(by, Order::Remove(NodeId(1)));
    group.run_until_they_vote(&[2, 3, 4], &[]);
    group.run_until("it is no member any more", Duration::from_secs(20), |group| {
        group.step_well(&[]);
        group.newest().member(NodeId(1)).is_none()
    });
}

#[test]
fn a_drained_voter_hands_its_vote_over_and_goes_also_the_coordinator() {
    let mut group = Group::of(3);
    let fourth = group.join(3);
    group.run_well(Duration::from_secs(3), &[]);
    assert!(group.vote(&[1, 2, 3]));
    let coordinator = group.node(1).control.coordinator().unwrap();
    group.order(fourth, Order::Drain { node: coordinator, on: true });
    let wanted: Vec<u16> = (1..=4).filter(|&id| id != coordinator.0).collect();
    group.run_until_they_vote(&wanted, &[]);
    group.run_until("it is no member any more", Duration::from_secs(30), |group| {
        group.step_well(&[]);
        group.newest().member(coordinator).is_none()
    });
    assert!(group.node(coordinator.0).control.is_removed());
    group.nodes[usize::from(coordinator.0 - 1)] = None;
    group.rests();
    // Down to one voter, of two nodes.
    let by = wanted[0];
    group.order(by, Order::Drain { node: NodeId(wanted[2]), on: true });
    group.run_until("two nodes are left", Duration::from_secs(30), |group| {
        group.step_well(&[]);
        let map = group.newest();
        map.members.len() == 2 && map.voters.len() == 1 && map.seats.len() == 1
    });
}

#[test]
fn a_dead_voter_is_replaced_after_a_while_and_comes_back_without_its_vote() {
    let mut group = Group::of(3);
    group.join(3);
    group.run_well(Duration::from_secs(3), &[]);
    let file = group.nodes[2].take().unwrap().file;
    group.run_well(REPLACE - Duration::from_millis(500), &[3]);
    assert!(group.vote(&[1, 2, 3]));
    group.run_until_they_vote(&[1, 2, 4], &[3]);
    // It wakes with all that it had: it finds out that its seat is gone, though it can reach no node that votes but one.
    let now = group.now;
    group.nodes[2] = Some(start(3, file, now));
    group.run_until("it follows", Duration::from_secs(3), |group| {
        let now = group.now;
        let node = group.node(3);
        node.control.map().is_active(NodeId(3)) && node.heart.lease_until() > now && node.control.term() == 0
    });
    group.rests();
    assert!(group.vote(&[1, 2, 4]), "nobody is thrown out for it");
    // All stop and start again: the voters find each other, and the other node them.
    let files: Vec<_> = (1..=4).map(|id| group.node(id).file.clone()).collect();
    let (now, version) = (group.now, group.newest().version);
    group.nodes = files.into_iter().zip(1..).map(|(file, id)| Some(start(id, file, now))).collect();
    group.run_until("all are back", Duration::from_secs(5), |group| {
        (1..=4).all(|id| {
            let now = group.now;
            let node = group.node(id);
            node.control.map().version > version && node.heart.lease_until() > now
        })
    });
    assert!(group.vote(&[1, 2, 4]));
}

#[test]
fn a_voter_that_lost_its_directory_becomes_a_new_voter() {
    let mut group = Group::of(3);
    group.nodes[1] = None;
    group.run_until("node 2 is declared dead", Duration::from_secs(3), |group| {
        !group.newest().is_active(NodeId(2))
    });
    let now = group.now;
    group.nodes[1] = Some(start_in(2, 3, 9_999, vec![], now));
    group.run_until("it votes from its new directory", Duration::from_secs(10), |group| {
        let map = group.newest();
        let seat = map.seat(NodeId(2)).copied();
        seat.is_some_and(|seat| seat.directory == 9_999) && map.voters.len() == 3 && map.old_voters.is_empty()
    });
    // Its vote counts: with another one gone, the two go on.
    let other = if group.node(2).control.coordinator() == Some(NodeId(1)) { 1 } else { 3 };
    group.nodes[usize::from(other - 1)] = None;
    group.run_until("the others go on", Duration::from_secs(3), |group| {
        let now = group.now;
        !group.newest().is_active(NodeId(other)) && group.node(2).heart.lease_until() > now
    });
}

/// The voters change while a node hears only of the old ones: when it is declared dead its lease is over, though those who now
/// vote have never granted it anything.
#[test]
fn a_lease_of_the_old_voters_is_over_before_the_new_ones_declare_its_holder_dead() {
    let mut group = Group::of(1);
    let victim = group.join(1);
    group.run_well(Duration::from_secs(3), &[]);
    // It hears node 1's heart, and nothing of what is decided.
    group.control_cut.extend([(1, victim), (victim, 1)]);
    let (third, fourth, fifth) = (group.join(1), group.join(1), group.join(1));
    for other in [third, fourth, fifth] {
        group.cut.extend([(other, victim), (victim, other)]);
    }
    let mut was_dead = false;
    for _ in 0..3000 {
        group.step_well(&[victim]);
        was_dead |= !group.newest().is_active(NodeId(victim));
    }
    assert!(was_dead, "it cannot go on for ever by an old map");
    assert!(group.newest().voters.len() >= 3);
}

/// A coordinator that stops in the middle of a change leaves it to one of those that go on to vote: only such a one ends it.
#[test]
fn a_coordinator_that_stops_while_the_voters_change_has_one_lead_that_goes_on_to_vote() {
    let mut group = Group::of(3);
    group.join(3);
    group.run_well(Duration::from_secs(3), &[]);
    let old = group.node(1).control.coordinator().unwrap().0;
    let drained = if old == 1 { 2 } else { 1 };
    group.order(old, Order::Drain { node: NodeId(drained), on: true });
    group.run_until("the voters change", Duration::from_secs(30), |group| {
        group.step_well(&[]);
        !group.newest().old_voters.is_empty()
    });
    let (now, term) = (group.now, group.node(old).control.term());
    group.node(old).control.step_down(now);
    group.run_until("another leads", Duration::from_millis(20), |group| {
        group.node(old).control.has_stepped_down()
    });
    let next = group.node(old).control.coordinator().unwrap().0;
    assert!(next != drained && group.newest().voters.contains(&NodeId(next)), "node {next} leads");
    assert_eq!(group.node(next).control.term(), term + 1, "one election, which nobody contested");
    let wanted: Vec<u16> = (1..=4).filter(|&id| id != drained).collect();
    group.run_until_they_vote(&wanted, &[]);
}

/// Who only learns the log cannot lead: a lone voter that stops waits for nobody.
#[test]
fn a_lone_voter_that_stops_does_not_wait_for_nodes_that_learn() {
    let mut group = Group::of(1);
    group.join(1);
    group.join(1);
    group.run_until("the others learn", Duration::from_secs(10), |group| group.newest().seats.len() == 3);
    assert_eq!(group.newest().voters, [NodeId(1)]);
    let now = group.now;
    group.node(1).control.step_down(now);
    assert!(group.node(1).control.has_stepped_down());
}

/// A member that has lost touch with the group, because its seat is gone, learns it from the others' maps.
#[test]
fn a_voter_that_was_replaced_while_it_was_cut_off_gives_up_its_seat() {
    let mut group = Group::of(3);
    group.join(3);
    group.run_well(Duration::from_secs(3), &[]);
    let victim = if group.node(1).control.coordinator() == Some(NodeId(3)) { 2 } else { 3 };
    for other in (1..=4).filter(|&id| id != victim) {
        group.cut.extend([(other, victim), (victim, other)]);
    }
    let wanted: Vec<u16> = (1..=4).filter(|&id| id != victim).collect();
    group.run_until_they_vote(&wanted, &[victim]);
    group.run_well(Duration::from_secs(2), &[victim]);
    group.cut.clear();
    group.run_until("it follows the others", Duration::from_secs(3), |group| {
        let now = group.now;
        let node = group.node(victim);
        node.heart.lease_until() > now && node.control.term() == 0
    });
    group.rests();
}

/// A sole voter commits without anybody's answer, so what tells how far its log is committed is written by itself alone.
#[test]
fn a_sole_voter_that_restarts_grants_by_no_map_older_than_the_one_it_had() {
    let mut group = Group::of(3);
    group.run_well(Duration::from_secs(3), &[]);
    group.order(1, Order::Drain { node: NodeId(3), on: true });
    group.run_until("two nodes are left", Duration::from_secs(30), |group| {
        group.step_well(&[]);
        let map = group.newest();
        map.members.len() == 2 && map.voters.len() == 1 && map.seats.len() == 1
    });
    group.nodes[2] = None;
    group.run_well(Duration::from_secs(1), &[]);
    let voter = group.newest().voters[0].0;
    let other = 3 - voter;
    group.cut.extend([(voter, other), (other, voter)]);
    group.run_until("the other is declared dead", Duration::from_secs(3), |group| {
        !group.node(voter).control.map().is_alive(NodeId(other))
    });
    let deposed_at = group.node(voter).control.map().version;
    group.run(LEASE);
    let file = std::mem::take(&mut group.node(voter).file);
    group.nodes[usize::from(voter - 1)] = Some(start(voter, file, group.now));
    group.cut.clear();
    let until = group.now + Duration::from_secs(2);
    while group.now < until {
        group.step();
        let now = group.now;
        let known = group.node(voter).control.map().version;
        let node = group.node(other);
        let acts_on = node.control.map().version;
        assert!(
            node.heart.lease_until() <= now || acts_on >= deposed_at,
            "it acts on map {acts_on}, was deposed by {deposed_at}, and holds a lease; the voter has {known}"
        );
    }
}
