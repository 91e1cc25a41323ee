//! Nodes' control machines and hearts, joined by a transport that can cut links: the cluster forms, a death is
//! found after the grace and never before, a restarted voter keeps what it promised, and the voters follow the nodes.

mod hearing;
mod voters;

use control::{
    Beat, Change, Control, ControlConfig, Heart, HeartConfig, HeartInput, HeartNotice, Identity, Kept,
    MapChanges, Message, Pulse, Registration, restore, start_frame,
};
use placement::{ChangeKind, MemberState};
use std::collections::BTreeSet;
use std::time::Duration;
use types::{Incarnation, Instant, Level, NodeId, PartitionId, Position};

const STEP: Duration = Duration::from_millis(5);
const LEASE: Duration = Duration::from_millis(350);
const GRACE: Duration = Duration::from_millis(420);
/// After which a dead voter is replaced.
const REPLACE: Duration = Duration::from_secs(5);

struct Node {
    me: Identity,
    control: Control,
    heart: Heart,
    file: Vec<Vec<u8>>,
}

struct Group {
    now: Instant,
    nodes: Vec<Option<Node>>,
    /// One-way cuts: from, to.
    cut: BTreeSet<(u16, u16)>,
    /// The same for control messages alone.
    control_cut: BTreeSet<(u16, u16)>,
    /// These are lost.
    lost: Option<fn(&Packet) -> bool>,
}

fn registration(me: Identity) -> Registration {
    Registration {
        node: me.node,
        incarnation: me.incarnation,
        directory: me.directory,
        votes: true,
        shards: 2,
        kept: Kept::nothing(me.incarnation),
        host: "127.0.0.1".into(),
        port: 7000 + me.node.0,
        cluster_port: 7100 + me.node.0,
        peer_port: 7200 + me.node.0,
        http_port: 0,
        line_port: 0,
        weight: 1,
        zone: String::new(),
        level: Level::HIGHEST,
        build: String::new(),
        witness: false,
    }
}

fn start(id: u16, file: Vec<Vec<u8>>, now: Instant) -> Node {
    start_in(id, 3, u64::from(id) * 11, file, now)
}

/// Starts a node whose build has this level.
fn start_build(id: u16, file: Vec<Vec<u8>>, now: Instant, level: Level) -> Node {
    start_with(id, 3, u64::from(id) * 11, file, now, level)
}

/// Starts a node of a cluster that so many nodes made, on a data directory.
fn start_in(id: u16, founders: u16, directory: u64, file: Vec<Vec<u8>>, now: Instant) -> Node {
    start_with(id, founders, directory, file, now, Level::HIGHEST)
}

fn start_with(
    id: u16,
    founders: u16,
    directory: u64,
    mut file: Vec<Vec<u8>>,
    now: Instant,
    level: Level,
) -> Node {
    let restored = restore(&file).expect("own frames");
    let is_new = file.is_empty() && directory != u64::from(id) * 11;
    let incarnation = Incarnation(if is_new { directory } else { restored.started.incarnation.0 + 1 });
    let me = Identity { node: NodeId(id), incarnation, directory };
    let rejoins = is_new || restored.started.rejoins;
    file.push(start_frame(
        restored.started.level,
        incarnation,
        me.directory,
        rejoins,
        &Kept::nothing(incarnation),
    ));
    let voters: Vec<NodeId> = (1..=founders).map(NodeId).collect();
    let votes = id <= founders && !rejoins;
    let heart = Heart::new(
        HeartConfig {
            me,
            voters: voters.clone(),
            listed: voters.clone(),
            votes,
            heartbeat: Duration::from_millis(50),
            lease: LEASE,
            grace: GRACE,
            reported: restored.started.reported.clone(),
        },
        now,
    );
    let config = ControlConfig {
        me: Registration { level, votes, ..registration(me) },
        listed: voters.clone(),
        voters,
        voters_max: 5,
        rejoins,
        cluster_id: "c".into(),
        copies: 2,
        min_in_sync: 1,
        partitions: 16,
        replace_after: Duration::ZERO,
        replace_voter_after: REPLACE,
        election: Duration::from_millis(300),
        seed: u64::from(id),
    };
    Node { me, control: Control::new(config, restored, now), heart, file }
}

enum Packet {
    Control(Identity, NodeId, Message),
    Beat(Identity, NodeId, Beat),
}

impl Group {
    fn new() -> Group {
        let now = Instant(1_000_000_000);
        Group {
            now,
            nodes: (1..=3).map(|id| Some(start(id, vec![], now))).collect(),
            cut: BTreeSet::new(),
            control_cut: BTreeSet::new(),
            lost: None,
        }
    }

    fn node(&mut self, id: u16) -> &mut Node {
        self.nodes[usize::from(id - 1)].as_mut().expect("it runs")
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        let now = self.now;
        let mut packets = Vec::new();
        for node in self.nodes.iter_mut().flatten() {
            node.control.tick(now);
            let acted_version = node.control.map().version;
            let voters_since = node.control.map().voters_since;
            let wall_ms = 5_000 + now.as_millis();
            node.heart.tick(now, Pulse { wall_ms, acted_version, voters_since, ..Pulse::default() });
            drain(node, now, &mut packets);
        }
        while let Some(packet) = packets.pop() {
            let (from, to) = match &packet {
                Packet::Control(from, to, _) | Packet::Beat(from, to, _) => (from.node.0, to.0),
            };
            if self.lost.is_some_and(|is_lost| is_lost(&packet)) {
                continue;
            }
            let is_control = matches!(packet, Packet::Control(..));
            if self.cut.contains(&(from, to)) || is_control && self.control_cut.contains(&(from, to)) {
                continue;
            }
            let Some(node) = self.nodes.get_mut(usize::from(to - 1)).and_then(Option::as_mut) else {
                continue;
            };
            match packet {
                Packet::Control(from, _, message) => node.control.message(now, from, message),
                Packet::Beat(from, _, beat) => {
                    let voters_since = node.control.map().voters_since;
                    node.heart.beat(now, 5_000 + now.as_millis(), from, beat, voters_since);
                }
            }
            drain(node, now, &mut packets);
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    fn run_until(&mut self, what: &str, most: Duration, done: impl Fn(&mut Group) -> bool) -> Duration {
        let began = self.now;
        while !done(self) {
            assert!(self.now.since(began) < most, "not within {most:?}: {what}");
            self.step();
        }
        self.now.since(began)
    }

    fn formed() -> Group {
        Group::new().form()
    }

    fn form(self) -> Group {
        let mut group = self;
        group.run_until("a cluster forms", Duration::from_secs(5), |group| {
            let level = (1..=3).map(|id| group.node(id).control.highest_level()).min();
            (1..=3).all(|id| {
                let now = group.now;
                let node = group.node(id);
                let map = node.control.map();
                Some(map.level) == level
                    && map.partitions.len() == 16
                    && map.partitions.iter().all(|state| state.in_sync.len() == 2)
                    && node.heart.lease_until() > now
            })
        });
        group
    }
}

fn drain(node: &mut Node, now: Instant, packets: &mut Vec<Packet>) {
    loop {
        let notices = std::mem::take(&mut node.heart.effects().notices);
        let beats = std::mem::take(&mut node.heart.effects().beats);
        packets.extend(beats.into_iter().map(|(to, beat)| Packet::Beat(node.me, to, beat)));
        for &notice in &notices {
            node.control.heart(now, notice);
        }
        let effects = std::mem::take(node.control.effects());
        if let Some(rewrite) = effects.rewrite {
            node.file = rewrite;
        }
        node.file.extend(effects.frames);
        packets
            .extend(effects.messages.into_iter().map(|(to, message)| Packet::Control(node.me, to, message)));
        let nothing = notices.is_empty() && effects.to_heart.is_empty() && effects.ask_tails.is_empty();
        // Logs are of one length here.
        for (to, question, partitions) in effects.ask_tails {
            let tails = partitions.iter().map(|&partition| (partition, Position::default())).collect();
            node.control.tails(now, to, question, tails);
        }
        for input in effects.to_heart {
            node.heart.input(now, input);
        }
        if nothing {
            return;
        }
    }
}

#[test]
fn a_dead_node_is_found_after_the_grace_and_its_partitions_move() {
    let mut group = Group::formed();
    group.run(Duration::from_millis(137));
    group.nodes[2] = None;
    let took = group.run_until("node 3 is declared dead", Duration::from_secs(3), |group| {
        (1..=2).all(|id| group.node(id).control.map().member(NodeId(3)).unwrap().state == MemberState::Failed)
    });
    assert!(took >= LEASE, "declared dead after {took:?}, while its lease may run");
    assert!(took < GRACE + Duration::from_millis(600), "{took:?}");
    for state in &group.node(1).control.map().partitions {
        assert!(!state.in_sync.contains(NodeId(3)) && state.primary.is_some());
    }
}

#[test]
fn a_dead_coordinator_costs_an_election_beside_the_grace() {
    let mut group = Group::formed();
    let coordinator = group.node(1).control.coordinator().unwrap();
    group.nodes[usize::from(coordinator.0 - 1)] = None;
    let others: Vec<u16> = (1..=3).filter(|&id| id != coordinator.0).collect();
    let took = group.run_until("the coordinator is declared dead", Duration::from_secs(3), |group| {
        others
            .iter()
            .all(|&id| group.node(id).control.map().member(coordinator).unwrap().state == MemberState::Failed)
    });
    assert!(took >= LEASE && took < Duration::from_millis(1000), "{took:?}");
}

/// The coordinator, and the two others.
fn lead(group: &mut Group) -> (u16, [u16; 2]) {
    let lead = group.node(1).control.coordinator().unwrap().0;
    let others: Vec<u16> = (1..=3).filter(|&id| id != lead).collect();
    (lead, [others[0], others[1]])
}

#[test]
fn a_coordinator_that_stops_has_another_lead_before_it_ends() {
    let mut group = Group::formed();
    let (old, others) = lead(&mut group);
    let (now, term) = (group.now, group.node(old).control.term());
    group.node(old).control.step_down(now);
    // Far less than an election takes to begin.
    group.run_until("another node leads", Duration::from_millis(20), |group| {
        group.node(old).control.has_stepped_down()
            && others.iter().any(|&id| group.node(id).control.is_coordinator())
    });
    assert_eq!(group.node(old).control.term(), term + 1, "one election, which nobody contested");
    let now = group.now;
    group.node(old).control.leave(now);
    group.run_until("its seats are passed on", Duration::from_millis(20), |group| {
        group.node(old).control.has_left()
    });
    let now = group.now;
    assert!(group.node(old).heart.lease_until() > now, "it serves what nobody else has");
    // Even where it hears nobody it does not lead again.
    group.run(Duration::from_secs(1));
    for other in others {
        group.cut.insert((other, old));
    }
    group.run(Duration::from_secs(2));
    assert_eq!(group.node(others[0]).control.term(), term + 1, "nobody has stood for election");
}

#[test]
fn a_lead_that_nobody_takes_over_is_kept_and_offered_again() {
    let mut group = Group::formed();
    let (old, [first, second]) = lead(&mut group);
    // Both look alive, and neither hears it.
    group.control_cut.extend([(old, first), (old, second)]);
    let now = group.now;
    group.node(old).control.step_down(now);
    group.run(Duration::from_millis(50));
    assert!(!group.node(old).control.has_stepped_down() && group.node(old).control.is_coordinator());
    group.control_cut.clear();
    group.run_until("another node leads", Duration::from_secs(2), |group| {
        group.node(old).control.has_stepped_down()
            && [first, second].iter().any(|&id| group.node(id).control.is_coordinator())
    });
}

#[test]
fn with_no_other_voter_alive_there_is_nobody_to_lead() {
    let mut group = Group::formed();
    let (old, others) = lead(&mut group);
    for id in others {
        let now = group.now;
        group.node(id).control.leave(now);
        group.run(Duration::from_millis(50));
        assert_eq!(group.node(old).control.map().member(NodeId(id)).unwrap().state, MemberState::Stopping);
    }
    let now = group.now;
    group.node(old).control.step_down(now);
    assert!(group.node(old).control.has_stepped_down(), "both others are about to stop: it waits for nobody");
}

/// Has the primaries propose that all copies of a node join, and returns of how many partitions it is in sync then.
fn seats_after_joining(group: &mut Group, gone: u16, other: u16) -> usize {
    let now = group.now;
    let map = group.node(other).control.map().clone();
    let start = map.member(NodeId(gone)).unwrap().incarnation;
    for (partition, state) in map.each_partition().filter(|(_, state)| state.copies.contains(NodeId(gone))) {
        let primary = state.primary.unwrap();
        let (node, kind) = (NodeId(gone), ChangeKind::Join);
        let change = Change { partition, epoch: state.epoch, primary, node, incarnation: start, kind };
        group.node(primary.0).control.changes(now, vec![change]);
    }
    group.run(Duration::from_millis(50));
    let map = group.node(other).control.map().clone();
    map.partitions.iter().filter(|state| state.in_sync.contains(NodeId(gone))).count()
}

#[test]
fn a_node_that_has_left_is_given_nothing_while_it_lives_and_is_welcome_when_it_starts_again() {
    let mut group = Group::formed();
    let (coordinator, [gone, other]) = lead(&mut group);
    let now = group.now;
    group.node(gone).control.leave(now);
    group.run_until("it has left", Duration::from_millis(50), |group| group.node(gone).control.has_left());
    let joins = |group: &mut Group| seats_after_joining(group, gone, other);
    assert_eq!(joins(&mut group), 0);
    // Nor does another coordinator take it in, which has not heard its word.
    let now = group.now;
    group.node(coordinator).control.step_down(now);
    group.run(Duration::from_millis(50));
    assert_ne!(lead(&mut group).0, coordinator);
    assert_eq!(joins(&mut group), 0);
    let file = group.node(gone).file.clone();
    let now = group.now;
    group.nodes[usize::from(gone - 1)] = Some(start(gone, file, now));
    group.run_until("it is back", Duration::from_secs(2), |group| {
        group.node(other).control.map().is_active(NodeId(gone))
    });
    assert!(joins(&mut group) > 0, "its next start joins");
}

#[test]
fn beside_an_older_build_a_node_that_stops_is_let_go_and_given_nothing() {
    let mut group = Group::new();
    let now = group.now;
    group.nodes[2] = Some(start_build(3, vec![], now, Level::FIRST));
    let mut group = group.form();
    let (coordinator, [gone, other]) = lead(&mut group);
    let now = group.now;
    group.node(gone).control.leave(now);
    group.run_until("it has left", Duration::from_millis(50), |group| group.node(gone).control.has_left());
    assert!(group.node(other).control.map().is_active(NodeId(gone)), "an older build has no word for it");
    assert_eq!(seats_after_joining(&mut group, gone, other), 0);
    let now = group.now;
    group.node(coordinator).control.step_down(now);
    group.run(Duration::from_millis(50));
    assert_ne!(lead(&mut group).0, coordinator);
    assert_eq!(
        seats_after_joining(&mut group, gone, other),
        0,
        "another coordinator has heard its word, too"
    );
}

#[test]
fn one_voter_that_hears_nothing_of_a_node_cannot_depose_it_and_grants_again_once_released() {
    let mut group = Group::formed();
    let coordinator = group.node(1).control.coordinator().unwrap().0;
    let (deaf, other) = if coordinator == 1 { (2, 3) } else { (1, if coordinator == 2 { 3 } else { 2 }) };
    group.cut.insert((other, deaf));
    group.run(Duration::from_secs(2));
    let now = group.now;
    let map = group.node(coordinator).control.map().clone();
    assert_eq!(map.member(NodeId(other)).unwrap().state, MemberState::Active);
    assert!(group.node(other).heart.lease_until() > now);
    group.cut.clear();
    group.run(Duration::from_secs(1));
    // With the third voter gone, the lease hangs on the one that had reported.
    group.nodes[usize::from(coordinator - 1)] = None;
    group.run(Duration::from_secs(2));
    let now = group.now;
    assert!(group.node(other).heart.lease_until() > now, "the voter that had reported grants again");
}

#[test]
fn a_restarted_voter_neither_forgets_its_report_nor_its_vote() {
    let mut group = Group::formed();
    let coordinator = group.node(1).control.coordinator().unwrap().0;
    let followers: Vec<u16> = (1..=3).filter(|&id| id != coordinator).collect();
    let (voter, victim) = (followers[0], followers[1]);
    // The voter hears nothing of the victim and reports; the answer never reaches it, and it restarts.
    group.cut.insert((victim, voter));
    group.run(GRACE + Duration::from_millis(50));
    group.cut.extend([(coordinator, voter), (voter, coordinator)]);
    group.cut.remove(&(victim, voter));
    let file = group.node(voter).file.clone();
    let now = group.now;
    let restored = restore(&file).unwrap();
    assert_eq!(restored.started.reported.iter().map(|r| r.0.0).collect::<Vec<_>>(), vec![victim]);
    group.nodes[usize::from(voter - 1)] = Some(start(voter, file, now));
    group.run(Duration::from_millis(200));
    assert!(group.node(voter).control.map().version > 0, "the map is there again");
    // Cut the victim from the coordinator: only the restarted voter could keep its lease alive.
    group.cut.extend([(coordinator, victim), (victim, coordinator)]);
    // No election either: a later term would void the report.
    group.control_cut.extend([(voter, victim), (victim, voter)]);
    group.run(LEASE + Duration::from_millis(20));
    let now = group.now;
    assert!(group.node(victim).heart.lease_until() <= now, "granted by a voter that had reported it");
}

#[test]
fn a_node_whose_ears_are_cut_says_so_and_is_replaced() {
    let mut group = Group::formed();
    let coordinator = group.node(1).control.coordinator().unwrap().0;
    let victim = if coordinator == 3 { 2 } else { 3 };
    for id in (1..=3).filter(|&id| id != victim) {
        group.cut.insert((id, victim));
    }
    group.run_until("the deaf node is declared dead", Duration::from_secs(3), |group| {
        group.node(coordinator).control.map().member(NodeId(victim)).unwrap().state == MemberState::Failed
    });
}

impl Group {
    /// What primaries propose by the map that a node knows: copies that live join, and who is told to hand over does, or keeps
    /// what it has.
    fn obey(&mut self, by: u16, kind: ChangeKind) {
        let (now, map) = (self.now, self.node(by).control.map().clone());
        for (partition, state) in map.each_partition() {
            let Some(primary) = state.primary else { continue };
            let away = state.copies.iter().find(|&node| map.is_active(node) && !state.in_sync.contains(node));
            let (node, kind) = match (state.heir, away) {
                (Some(heir), _) => (heir, kind),
                (None, Some(node)) => (node, ChangeKind::Join),
                (None, None) => continue,
            };
            let incarnation = map.member(node).unwrap().incarnation;
            let change = Change { partition, epoch: state.epoch, primary, node, incarnation, kind };
            if let Some(primary) = &mut self.nodes[usize::from(primary.0 - 1)] {
                primary.control.changes(now, vec![change]);
            }
        }
    }

    fn primaries_of(&mut self, node: u16) -> usize {
        let map = self.node(node).control.map().clone();
        map.partitions.iter().filter(|state| state.primary == Some(NodeId(node))).count()
    }

    /// A node that is not the coordinator dies and comes back; others are primary of all that it was. It, and the coordinator.
    fn failed_over() -> (Group, u16, u16) {
        let mut group = Group::formed();
        let coordinator = group.node(1).control.coordinator().unwrap().0;
        let victim = if coordinator == 3 { 2 } else { 3 };
        assert!(group.primaries_of(victim) >= 5);
        let file = group.nodes[usize::from(victim - 1)].take().unwrap().file;
        group.run_until("it is declared dead", Duration::from_secs(3), |group| {
            let map = group.node(coordinator).control.map();
            map.member(NodeId(victim)).unwrap().state == MemberState::Failed
        });
        let now = group.now;
        group.nodes[usize::from(victim - 1)] = Some(start(victim, file, now));
        group.run_until("its copies are in sync again", Duration::from_secs(2), |group| {
            group.obey(coordinator, ChangeKind::Keep);
            let map = group.node(coordinator).control.map();
            map.partitions.iter().all(|state| state.in_sync.len() == 2)
        });
        (group, victim, coordinator)
    }
}

#[test]
fn primaries_return_a_few_at_a_time_and_then_nothing_moves() {
    let (mut group, victim, coordinator) = Group::failed_over();
    let now = group.now;
    assert_eq!(group.primaries_of(victim), 0);
    let mut most = 0;
    while group.primaries_of(victim) < 5 {
        assert!(group.now.since(now) < Duration::from_secs(10), "{}", group.primaries_of(victim));
        group.run(Duration::from_millis(50));
        let map = group.node(coordinator).control.map().clone();
        most = most.max(map.partitions.iter().filter(|state| state.heir.is_some()).count());
        group.obey(coordinator, ChangeKind::Release);
    }
    assert!(most > 0 && most <= 4, "{most} at once, all to the same node");
    assert!(group.now.since(now) >= Duration::from_secs(2), "not before all has been calm for a while");
    group.run(Duration::from_secs(2));
    group.obey(coordinator, ChangeKind::Release);
    group.run(Duration::from_secs(1));
    let primaries: Vec<usize> = (1..=3).map(|id| group.primaries_of(id)).collect();
    assert!(primaries.iter().all(|&count| count == 5 || count == 6), "{primaries:?}");
    let version = group.node(coordinator).control.map().version;
    group.run(Duration::from_secs(20));
    assert_eq!(group.node(coordinator).control.map().version, version, "it comes to rest");
}

/// A node that stops is let go once those who stay have answered, and not by the map alone: the machine of one may have stopped a
/// moment ago, and another start of it may lack what it had.
#[test]
fn a_node_that_leaves_waits_for_an_answer_of_the_very_start_that_the_map_shows() {
    let mut group = Group::formed();
    let coordinator = group.node(1).control.coordinator().unwrap().0;
    let leaver = if coordinator == 3 { 2 } else { 3 };
    let heir = 6 - coordinator - leaver;
    let seats = |group: &mut Group| {
        let map = group.node(coordinator).control.map().clone();
        map.partitions.iter().filter(|state| state.in_sync.contains(NodeId(leaver))).count()
    };
    let all = seats(&mut group);
    // The heir's machine stops, and it comes back at once: but nobody hears that it is another start.
    let file = group.nodes[usize::from(heir - 1)].take().unwrap().file;
    let now = group.now;
    group.node(leaver).control.leave(now);
    group.run(Duration::from_millis(100));
    let now = group.now;
    let is_register = |packet: &Packet| matches!(packet, Packet::Control(_, _, Message::Register(_)));
    group.nodes[usize::from(heir - 1)] = Some(start(heir, file, now));
    group.lost = Some(is_register);
    group.run(Duration::from_millis(150));
    assert_eq!(seats(&mut group), all, "an heir that has not answered may lack what the leaver has");
    assert!(!group.node(leaver).control.has_left());
    group.lost = None;
    group.run_until("it is let go", Duration::from_secs(3), |group| group.node(leaver).control.has_left());
}

#[test]
fn a_hand_over_that_is_given_up_is_not_tried_again_at_once() {
    let (mut group, victim, coordinator) = Group::failed_over();
    let mut told = 0;
    for _ in 0..200 {
        group.run(Duration::from_millis(50));
        let map = group.node(coordinator).control.map().clone();
        told += map.partitions.iter().filter(|state| state.heir.is_some()).count();
        group.obey(coordinator, ChangeKind::Keep);
    }
    assert_eq!(group.primaries_of(victim), 0);
    assert!((5..=12).contains(&told), "{told} times in ten seconds, for five partitions");
}

#[test]
fn any_node_may_ask_for_a_hand_over_and_the_coordinator_says_whether_it_may_be() {
    let mut group = Group::formed();
    let now = group.now;
    let map = group.node(1).control.map().clone();
    let state = map.partitions[0];
    let (primary, backup) = (state.primary.unwrap(), state.copies.iter().nth(1).unwrap());
    group.node(2).control.hand_over(now, PartitionId(0), primary);
    group.run(Duration::from_millis(200));
    assert_eq!(group.node(1).control.map().partitions[0].heir, None, "it is primary already");
    let now = group.now;
    group.node(2).control.hand_over(now, PartitionId(0), backup);
    group.run(Duration::from_millis(200));
    assert_eq!(group.node(1).control.map().partitions[0].heir, Some(backup));
    group.obey(1, ChangeKind::Release);
    group.run(Duration::from_millis(200));
    assert_eq!(group.node(3).control.map().partitions[0].primary, Some(backup));
}

#[test]
fn many_changes_are_compacted_and_survive_a_restart_of_all() {
    let mut group = Group::formed();
    for round in 0..40 {
        for _ in 0..100 {
            // A primary that sends its backup away and takes it in again.
            let now = group.now;
            let state = group.node(1).control.map().partitions[0];
            let primary = state.primary.expect("a primary");
            let node = state.copies.iter().find(|&node| node != primary).expect("a backup");
            let kind = if state.in_sync.contains(node) { ChangeKind::Leave } else { ChangeKind::Join };
            let epoch = state.epoch;
            let change =
                Change { partition: PartitionId(0), epoch, primary, node, incarnation: Incarnation(1), kind };
            group.node(primary.0).control.changes(now, vec![change]);
            group.step();
        }
        assert!(group.node(1).file.len() < 40_000, "round {round}");
    }
    let files: Vec<_> = (1..=3).map(|id| group.node(id).file.clone()).collect();
    let version = group.node(1).control.map().version;
    assert!(version > 3000, "{version}");
    let now = group.now;
    group.nodes = files.into_iter().zip(1..).map(|(file, id)| Some(start(id, file, now))).collect();
    group.run_until("all know the map again", Duration::from_secs(5), |group| {
        (1..=3).all(|id| {
            let map = group.node(id).control.map();
            map.version > version
                && map.members.iter().all(|m| m.state == MemberState::Active && m.incarnation.0 == 2)
        })
    });
}

/// A lone voter that starts again replays its map from nothing, and then tells of it as changes since nothing. A node that has
/// just started, too, cannot follow those: they do not say what never changes.
#[test]
fn a_node_without_a_map_asks_for_it_whole() {
    let now = Instant(1_000_000_000);
    let voter = Identity { node: NodeId(1), incarnation: Incarnation(2), directory: 11 };
    let me = Identity { node: NodeId(2), incarnation: Incarnation(2), directory: 22 };
    let config = ControlConfig {
        me: Registration { votes: false, ..registration(me) },
        listed: vec![NodeId(1), NodeId(2)],
        voters: vec![NodeId(1)],
        voters_max: 5,
        rejoins: false,
        cluster_id: "c".into(),
        copies: 2,
        min_in_sync: 1,
        partitions: 16,
        replace_after: Duration::ZERO,
        replace_voter_after: REPLACE,
        election: Duration::from_millis(300),
        seed: 1,
    };
    let mut control = Control::new(config, restore(&[]).unwrap(), now);
    let changes = MapChanges { to: 8, ..MapChanges::default() };
    control.message(now, voter, Message::MapChanges(changes));
    assert_eq!(control.map().version, 0);
    let asked = |(to, message): &(NodeId, Message)| {
        *to == voter.node && matches!(message, Message::AskMap { have: 0 })
    };
    assert!(control.effects().messages.iter().any(asked));
}

#[test]
fn a_voter_that_lost_its_directory_is_none_and_says_so() {
    let mut group = Group::formed();
    let coordinator = group.node(1).control.coordinator().unwrap().0;
    let victim = if coordinator == 3 { 2 } else { 3 };
    group.nodes[usize::from(victim - 1)] = None;
    group.run(Duration::from_secs(1));
    let now = group.now;
    // The same node on an emptied directory, with a later incarnation, and not told to rejoin.
    let mut emptied = start(victim, vec![], now);
    emptied.me.directory += 1;
    let me = Identity { incarnation: Incarnation(9), ..emptied.me };
    let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let config = ControlConfig {
        me: registration(me),
        listed: voters.clone(),
        voters,
        voters_max: 5,
        rejoins: false,
        cluster_id: "c".into(),
        copies: 2,
        min_in_sync: 1,
        partitions: 16,
        replace_after: Duration::ZERO,
        replace_voter_after: REPLACE,
        election: Duration::from_millis(300),
        seed: 1,
    };
    emptied.me = me;
    emptied.control = Control::new(config, restore(&[]).unwrap(), now);
    group.nodes[usize::from(victim - 1)] = Some(emptied);
    group.run_until("it finds out", Duration::from_secs(3), |group| {
        group.node(victim).control.lost_its_vote()
    });
    // Its votes do not count: with one more node gone the two left have no majority between them.
    let other = (1..=3).find(|&id| id != victim && id != coordinator).unwrap();
    group.nodes[usize::from(coordinator - 1)] = None;
    group.run(Duration::from_secs(3));
    assert!(!group.node(other).control.is_coordinator(), "elected with a forgotten vote");
}

/// The format of a control file's frames, and of entries in the group's log.
const FORMATS: [u8; 2] = [3, 4];

#[test]
fn the_level_rises_with_the_last_build_and_files_are_the_older_ones_until_then() {
    let mut group = Group::new();
    let now = group.now;
    group.nodes = (1..=3).map(|id| Some(start_build(id, vec![], now, Level::FIRST))).collect();
    let mut group = group.form();
    let restart = |group: &mut Group, id: u16, level| {
        let (file, now) = (group.node(id).file.clone(), group.now);
        group.nodes[usize::from(id - 1)] = Some(start_build(id, file, now, level));
        group.run_until("it is back", Duration::from_secs(3), |group| {
            let incarnation = group.node(id).me.incarnation;
            (1..=3).all(|at| {
                group.node(at).control.map().member(NodeId(id)).is_some_and(|m| m.incarnation == incarnation)
            })
        });
        group.run(Duration::from_secs(3));
    };
    let levels = |group: &mut Group| [1, 2, 3].map(|id| group.node(id).control.map().level);
    let formats = |group: &mut Group, id: u16| -> BTreeSet<u8> {
        group.node(id).file.iter().map(|frame| frame[0]).collect()
    };
    // There and back again, and on.
    for (id, level) in [(1, Level::HIGHEST), (1, Level::FIRST), (2, Level::HIGHEST), (1, Level::HIGHEST)] {
        restart(&mut group, id, level);
        assert_eq!(levels(&mut group), [Level::FIRST; 3]);
        for id in 1..=3 {
            assert_eq!(formats(&mut group, id), [FORMATS[0]].into(), "node {id}");
        }
    }
    restart(&mut group, 3, Level::HIGHEST);
    assert_eq!(levels(&mut group), [Level::HIGHEST; 3]);
    for id in 1..=3 {
        // The file begins anew, since it tells of the seat now.
        assert_eq!(formats(&mut group, id), [FORMATS[1]].into(), "node {id}");
        let file = group.node(id).file.clone();
        assert_eq!(restore(&file).unwrap().started.level, Level::HIGHEST);
        assert_eq!(group.node(id).control.map().member(NodeId(id)).unwrap().level, Level::HIGHEST);
    }
    // A later start writes as the file says, before it knows a map.
    restart(&mut group, 2, Level::HIGHEST);
    assert_eq!(group.node(2).control.level(), Level::HIGHEST);
}

#[test]
fn a_member_that_is_away_holds_the_level_down() {
    let mut group = Group::new();
    let now = group.now;
    group.nodes[2] = Some(start_build(3, vec![], now, Level::FIRST));
    let mut group = group.form();
    let file = group.node(3).file.clone();
    group.nodes[2] = None;
    group.run(Duration::from_secs(5));
    assert_eq!(group.node(1).control.map().member(NodeId(3)).unwrap().state, MemberState::Failed);
    assert_eq!(group.node(1).control.map().level, Level::FIRST);
    let now = group.now;
    group.nodes[2] = Some(start(3, file, now));
    group.run_until("the level rises", Duration::from_secs(3), |group| {
        (1..=3).all(|id| group.node(id).control.map().level == Level::HIGHEST)
    });
}
