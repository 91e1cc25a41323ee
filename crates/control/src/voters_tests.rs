//! Who should vote and what is next, without a consensus group.

use super::*;
use placement::Seat;

fn member(id: u16, zone: &str) -> Member {
    Member {
        incarnation: Incarnation(u64::from(id)),
        directory: u64::from(id) * 11,
        state: MemberState::Active,
        zone: zone.into(),
        ..Member::unheard_of(NodeId(id))
    }
}

fn nodes(ids: &[u16]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn set(ids: &[u16]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// So many nodes without zones, of which these vote.
fn cluster(count: u16, voters: &[u16]) -> ClusterMap {
    ClusterMap {
        version: 9,
        members: (1..=count).map(|id| member(id, "")).collect(),
        voters: nodes(voters),
        seats: voters
            .iter()
            .map(|&id| Seat { node: NodeId(id), number: 0, directory: u64::from(id) * 11 })
            .collect(),
        ..ClusterMap::default()
    }
}

/// What the coordinator wants a minute after it began, when all has been as it is since.
fn after_a_minute(map: &ClusterMap) -> Vec<NodeId> {
    let mut voters = Voters::default();
    voters.note(Instant(0), map, &BTreeSet::new());
    let now = Instant(0) + Duration::from_secs(61);
    voters.note(now, map, &BTreeSet::new());
    wanted(map, &voters.roster(now, map, 5, Duration::from_secs(60)))
}

#[test]
fn the_number_of_voters_follows_the_number_of_nodes() {
    for (count, expected) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)] {
        let wanted = after_a_minute(&cluster(count, &[1]));
        assert_eq!(wanted.len(), expected, "{count} nodes: {wanted:?}");
        assert!(wanted.contains(&NodeId(1)), "who votes goes on");
    }
    let map = cluster(5, &[1]);
    let mut voters = Voters::default();
    voters.note(Instant(0), &map, &BTreeSet::new());
    let roster = voters.roster(Instant(0) + STEADY, &map, 3, Duration::ZERO);
    assert_eq!(
        wanted(&map, &roster),
        nodes(&[1, 2, 3]),
        "the setting bounds it, and the longest there come first"
    );
    let roster = voters.roster(Instant(0) + STEADY / 2, &map, 5, Duration::ZERO);
    assert_eq!(wanted(&map, &roster), nodes(&[1]), "who has just started waits");
}

#[test]
fn a_dead_voter_is_replaced_after_a_while_where_somebody_else_can() {
    let mut map = cluster(4, &[1, 2, 3]);
    map.members[1].state = MemberState::Failed;
    let mut voters = Voters::default();
    voters.note(Instant(0), &map, &BTreeSet::new());
    let at = |seconds| Instant(0) + Duration::from_secs(seconds);
    let mut wanted_at = |map: &ClusterMap, seconds, after| {
        voters.note(at(seconds), map, &BTreeSet::new());
        wanted(map, &voters.roster(at(seconds), map, 5, Duration::from_secs(after)))
    };
    assert_eq!(wanted_at(&map, 59, 60), nodes(&[1, 2, 3]));
    assert_eq!(wanted_at(&map, 60, 60), nodes(&[1, 3, 4]));
    assert_eq!(wanted_at(&map, 600, 0), nodes(&[1, 2, 3]), "never by itself");
    // Nobody is there to take its place: it stays, and the cluster is no cluster of one.
    let mut map = cluster(3, &[1, 2, 3]);
    map.members[1].state = MemberState::Failed;
    assert_eq!(after_a_minute(&map), nodes(&[1, 2, 3]));
    map.members[1].draining = true;
    assert_eq!(after_a_minute(&map), nodes(&[1]), "but where an operator gives it up");
    // Of five, two dead ones would leave no more deaths.
    let mut map = cluster(5, &[1, 2, 3, 4, 5]);
    map.members[1].state = MemberState::Failed;
    map.members[4].state = MemberState::Failed;
    assert_eq!(after_a_minute(&map), nodes(&[1, 3, 4]));
}

#[test]
fn voters_are_spread_over_zones_and_witnesses_come_first() {
    let mut map = cluster(5, &[1, 2, 3]);
    for (at, zone) in ["a", "a", "a", "b", "c"].into_iter().enumerate() {
        map.members[at].zone = zone.into();
    }
    map.members.pop();
    let wanted = after_a_minute(&map);
    assert_eq!(wanted.len(), 3);
    assert!(wanted.contains(&NodeId(4)), "one of each zone: {wanted:?}");
    let mut map = cluster(4, &[1, 2, 3]);
    map.members[3].witness = true;
    assert!(after_a_minute(&map).contains(&NodeId(4)));
    let mut map = cluster(3, &[1]);
    map.members[2].witness = true;
    assert_eq!(after_a_minute(&map), nodes(&[1, 2, 3]), "two with data and a witness");
}

/// From any cluster, whoever is wanted is wanted again once they vote: nothing goes round in circles.
#[test]
fn what_is_wanted_stays_wanted_once_it_is_so() {
    let mut random = 12345u64;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for round in 0..5000 {
        let count = 1 + below(9) as u16;
        let voters: Vec<u16> = (1..=count).filter(|_| below(3) == 0).collect();
        let mut map = cluster(count, &voters);
        for member in &mut map.members {
            member.zone = ["", "a", "b", "c"][below(4) as usize].into();
            member.witness = below(5) == 0;
            member.draining = below(6) == 0;
            if below(4) == 0 {
                member.state = MemberState::Failed;
            }
        }
        let first = after_a_minute(&map);
        if first.is_empty() {
            continue;
        }
        map.seats = first
            .iter()
            .map(|&node| Seat { node, number: 1, directory: map.member(node).unwrap().directory })
            .collect();
        map.voters.clone_from(&first);
        assert_eq!(after_a_minute(&map), first, "round {round}");
        let caught_up: BTreeSet<NodeId> = first.iter().copied().collect();
        assert_eq!(step(&map, &first, first[0], &caught_up), None, "round {round}");
    }
}

#[test]
fn steps_lead_from_one_voter_to_three_and_back() {
    let mut map = cluster(3, &[1]);
    let wanted = nodes(&[1, 2, 3]);
    let me = NodeId(1);
    let seat = |node: u16| Step::Seat { node: NodeId(node), directory: u64::from(node) * 11 };
    assert_eq!(step(&map, &wanted, me, &set(&[1])), Some(seat(2)));
    map.seats.push(Seat { node: NodeId(2), number: 10, directory: 22 });
    assert_eq!(step(&map, &wanted, me, &set(&[1])), Some(seat(3)));
    map.seats.push(Seat { node: NodeId(3), number: 11, directory: 33 });
    assert_eq!(step(&map, &wanted, me, &set(&[1, 3])), None, "one of them has to catch up");
    let all = set(&[1, 2, 3]);
    assert_eq!(step(&map, &wanted, me, &all), Some(Step::Begin(wanted.clone())));
    (map.voters, map.old_voters) = (wanted.clone(), nodes(&[1]));
    assert_eq!(step(&map, &wanted, me, &set(&[1])), Some(Step::End), "begun is ended");
    map.old_voters.clear();
    assert_eq!(step(&map, &wanted, me, &all), None);
    // The coordinator is to go: another ends the change.
    let wanted = nodes(&[2]);
    assert_eq!(step(&map, &wanted, me, &all), Some(Step::Begin(wanted.clone())));
    (map.old_voters, map.voters) = (nodes(&[1, 2, 3]), wanted.clone());
    assert_eq!(step(&map, &wanted, me, &all), Some(Step::Transfer(NodeId(2))));
    assert_eq!(step(&map, &wanted, NodeId(2), &all), Some(Step::End));
    map.old_voters.clear();
    assert_eq!(step(&map, &wanted, NodeId(2), &all), Some(Step::Unseat(NodeId(1))));
    map.seats.remove(0);
    assert_eq!(step(&map, &wanted, NodeId(2), &all), Some(Step::Unseat(NodeId(3))));
}

#[test]
fn a_voter_on_an_emptied_directory_loses_its_seat_and_gets_another() {
    let mut map = cluster(3, &[1, 2, 3]);
    map.members[1].directory = 99;
    let all = set(&[1, 2, 3]);
    let me = NodeId(1);
    let wanted = after_a_minute(&map);
    assert_eq!(wanted, nodes(&[1, 2, 3]));
    assert_eq!(step(&map, &wanted, me, &all), Some(Step::Begin(nodes(&[1, 3]))));
    map.voters = nodes(&[1, 3]);
    assert_eq!(step(&map, &wanted, me, &all), Some(Step::Unseat(NodeId(2))));
    map.seats.remove(1);
    assert_eq!(step(&map, &wanted, me, &all), Some(Step::Seat { node: NodeId(2), directory: 99 }));
}

#[test]
fn a_learner_that_never_catches_up_makes_room_for_another() {
    let mut map = cluster(4, &[1]);
    map.seats.extend([2, 3].map(|id| Seat { node: NodeId(id), number: 5, directory: u64::from(id) * 11 }));
    let mut voters = Voters::default();
    let mut wanted_at = |seconds, caught_up: &[u16]| {
        let now = Instant(0) + Duration::from_secs(seconds);
        voters.note(now, &map, &set(caught_up));
        wanted(&map, &voters.roster(now, &map, 5, Duration::ZERO))
    };
    wanted_at(0, &[]);
    assert_eq!(wanted_at(5, &[1, 2]), nodes(&[1, 2, 3]));
    assert_eq!(wanted_at(11, &[1, 2]), nodes(&[1, 2, 4]));
}
