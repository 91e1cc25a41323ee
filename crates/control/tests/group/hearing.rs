//! A coordinator that does not hear a node which others hear.

use super::*;

impl Group {
    /// Cuts the link between two nodes, both ways.
    fn part(&mut self, one: u16, other: u16) {
        self.cut.extend([(one, other), (other, one)]);
    }

    /// Has a primary drop its backup, and says whether the map shows that soon.
    fn drops_a_backup(&mut self, primary: u16, backup: u16, seen_by: u16) -> bool {
        let map = self.node(primary).control.map().clone();
        let (partition, state) = map
            .each_partition()
            .find(|(_, state)| {
                state.primary == Some(NodeId(primary)) && state.in_sync.contains(NodeId(backup))
            })
            .expect("a partition of that pair");
        let change = Change {
            partition,
            epoch: state.epoch,
            primary: NodeId(primary),
            node: NodeId(backup),
            incarnation: map.member(NodeId(backup)).unwrap().incarnation,
            kind: ChangeKind::Leave,
        };
        let now = self.now;
        self.node(primary).control.changes(now, vec![change]);
        self.run(Duration::from_millis(100));
        !self.node(seen_by).control.map().partition(partition).unwrap().in_sync.contains(NodeId(backup))
    }
}

#[test]
fn a_coordinator_that_does_not_hear_a_node_has_one_lead_that_does() {
    let mut group = Group::formed();
    let (old, [behind, hearing]) = lead(&mut group);
    let term = group.node(old).control.term();
    group.part(old, behind);
    assert!(!group.drops_a_backup(behind, old, hearing), "its word does not arrive");
    let took = group.run_until("another node leads", Duration::from_secs(3), |group| {
        group.node(hearing).control.is_coordinator()
    });
    assert!(took > Duration::from_secs(1), "it may be no more than a moment: {took:?}");
    group.run(Duration::from_millis(200));
    assert!(group.drops_a_backup(behind, old, hearing));
    // Neither end of the cut is dead, and the new one stays.
    group.run(Duration::from_secs(10));
    let map = group.node(hearing).control.map().clone();
    assert!((1..=3).all(|id| map.is_active(NodeId(id))));
    assert_eq!(group.node(hearing).control.term(), term + 1, "one election");
}

#[test]
fn a_lead_is_kept_where_nobody_hears_more() {
    let mut group = Group::of(5);
    let old = group.node(1).control.coordinator().unwrap().0;
    let term = group.node(old).control.term();
    // A ring of cuts: each of them does not hear two others.
    for id in 1..=5 {
        group.part(id, id % 5 + 1);
    }
    group.run(Duration::from_secs(10));
    assert!(group.node(old).control.is_coordinator());
    assert_eq!(group.node(old).control.term(), term);
}

#[test]
fn a_voter_that_does_not_hear_the_coordinator_is_heard_by_it() {
    let mut group = Group::formed();
    let (lead, [deaf, other]) = lead(&mut group);
    group.cut.insert((lead, deaf));
    group.run(Duration::from_secs(3));
    assert!(group.node(lead).control.is_coordinator(), "it hears everybody");
    assert!(group.drops_a_backup(deaf, other, other));
}

#[test]
fn a_voter_that_never_heard_the_new_coordinator_is_told_by_others_who_it_is() {
    let mut group = Group::formed();
    let (old, [new, deaf]) = lead(&mut group);
    group.cut.insert((new, deaf));
    let now = group.now;
    group.node(old).control.step_down(now);
    group.run_until("another node leads", Duration::from_millis(50), |group| {
        group.node(new).control.is_coordinator()
    });
    group.run(Duration::from_secs(3));
    assert!(group.node(new).control.is_coordinator(), "it hears everybody");
    assert!(group.drops_a_backup(deaf, new, old));
}

#[test]
fn a_death_is_declared_though_somebody_else_is_unheard_for_long() {
    let mut group = Group::of(5);
    let old = group.node(1).control.coordinator().unwrap().0;
    let others: Vec<u16> = (1..=5).filter(|&id| id != old).collect();
    // Each of them does not hear somebody, so nobody is to lead rather than the coordinator.
    group.part(old, others[0]);
    group.part(others[1], others[2]);
    group.part(others[1], others[3]);
    group.run(Duration::from_secs(10));
    let term = group.node(old).control.term();
    let dead = others[3];
    group.nodes[usize::from(dead - 1)] = None;
    let took = group.run_until("it is declared dead", Duration::from_secs(3), |group| {
        let map = group.node(old).control.map();
        map.member(NodeId(dead)).unwrap().state == MemberState::Failed
    });
    assert!(took < GRACE + Duration::from_millis(200), "{took:?}");
    assert_eq!(group.node(old).control.term(), term, "nobody else was made to lead before that");
}

#[test]
fn an_old_word_that_overtakes_a_newer_one_is_set_right() {
    let mut group = Group::formed();
    let (new, [old, voter]) = lead(&mut group);
    let id = group.join(3);
    group.run(Duration::from_secs(2));
    assert_eq!(group.node(id).control.coordinator(), Some(NodeId(new)));
    // As where a node that slept loses its seat: the heart still has to tell what an old grant named when the control machine tells
    // it what the consensus group says.
    let (now, from) = (group.now, group.node(voter).me);
    let (sent_at, map_version) = (now.0, group.newest().version);
    let coordinator = Some(NodeId(old));
    let grant = Beat::Grant { sent_at, map_version, wall_ms: 5_000, coordinator, keys: vec![] };
    let node = group.node(id);
    node.heart.beat(now, 5_000, from, grant, node.control.map().voters_since);
    node.heart.input(now, HeartInput::Coordinator(Some(NodeId(new))));
    drain(node, now, &mut Vec::new());
    assert_eq!(node.control.coordinator(), coordinator, "the old word came last");
    group.run(Duration::from_millis(200));
    assert_eq!(group.node(id).control.coordinator(), Some(NodeId(new)));
    // Or the consensus group's is the older one.
    let (now, node) = (group.now, group.node(id));
    node.heart.input(now, HeartInput::Coordinator(coordinator));
    node.control.heart(now, HeartNotice::Coordinator(NodeId(old)));
    assert_eq!(node.control.coordinator(), coordinator);
    group.run(Duration::from_millis(200));
    assert_eq!(group.node(id).control.coordinator(), Some(NodeId(new)));
}
