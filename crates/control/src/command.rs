//! What the coordinator decides, and how a decision changes the map.
//!
//! Applying is pure and the same on every voter: the map before and the command give the map after. Each change
//! of a partition is a compare-and-set of its own (rule 3), so a command that came late changes nothing.

use crate::hand_over::{drop_void_heir, hand_over, is_valid_release};
use crate::levels::{self, Build};
use crate::message::{Change, Registration};
use crate::shape::{self, Move};
use placement::{ChangeKind, ClusterMap, Member, MemberState, PartitionState, Seat};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use types::planted::{self, Bug};
use types::{Epoch, Incarnation, Level, NodeId, NodeSet, PartitionId};

/// One decision of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster: its nodes, and where each partition's copies belong. Once only.
    Create {
        /// The cluster's id.
        cluster_id: String,
        /// Copies of each partition.
        copies: u16,
        /// Fewest in-sync copies that take writes.
        min_in_sync: u16,
        /// The listed nodes.
        members: Vec<NodeId>,
        /// Those that vote.
        voters: Vec<NodeId>,
        /// Each partition's copies, the preferred primary first.
        placement: Vec<Vec<NodeId>>,
    },
    /// A node has started, or is alive again.
    Up(Registration),
    /// Gives every partition that never had a primary its first in-sync set: its copies that are alive.
    Activate,
    /// Nodes are dead: a majority of voters have granted them nothing for the grace.
    Down {
        /// Each in the incarnation that died.
        nodes: Vec<(NodeId, Incarnation)>,
        /// Whom to promote where several could be: those with the longest logs (rule 7).
        promote: Vec<(PartitionId, NodeId)>,
    },
    /// A primary changes its in-sync set, or hands over.
    Change(Change),
    /// A voter's report of a node is void: the voter hears it again.
    Dismiss {
        /// The voter.
        voter: NodeId,
        /// The node it reported.
        node: NodeId,
        /// In which incarnation.
        incarnation: Incarnation,
    },
    /// An operator accepts the loss of partitions of which every in-sync log is gone: they go on with what one of the
    /// other copies holds, or empty.
    AcceptLoss {
        /// Whose log reaches furthest.
        promote: Vec<(PartitionId, NodeId)>,
    },
    /// A node is about to stop: others take over what it was primary of, and need not wait for it.
    Leave {
        /// The node.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// Partitions whose copies all went down at once, and may all have lost the ends of their logs, go on from the longest.
    Recover {
        /// Whose log reaches furthest.
        promote: Vec<(PartitionId, NodeId)>,
    },
    /// Where each partition's copies belong, now that the listed nodes have told their weights and zones: before anything
    /// is held.
    Place(Vec<Vec<NodeId>>),
    /// Copies are to be made on other nodes, and others are to go once these are there (rule 11).
    Move(Vec<Move>),
    /// Copies that are to go do so, where all others are in sync; each a compare-and-set on the epoch.
    Settle(Vec<(PartitionId, Epoch)>),
    /// A node is to be emptied, or is not.
    Drain {
        /// The node.
        node: NodeId,
        /// Whether it is to go.
        on: bool,
    },
    /// A node that is dead is to be emptied, and one that is empty is no member any more.
    Remove {
        /// The node.
        node: NodeId,
    },
    /// What the cluster keeps of each partition.
    Settings {
        /// Copies of each partition.
        copies: u16,
        /// Fewest in-sync copies that take writes.
        min_in_sync: u16,
    },
    /// Primaries are to hand over: each partition's epoch, and its heir.
    HandOver {
        /// Each a compare-and-set of its own.
        orders: Vec<(PartitionId, Epoch, NodeId)>,
    },
    /// All members' builds have this feature level: the cluster uses it from here on.
    Raise {
        /// The level.
        level: Level,
        /// What each member's build has.
        builds: Vec<Build>,
    },
}

impl Command {
    /// The feature level that a cluster must have before this may be put into its log: a member of an older build would not
    /// know it, and have another map from then on. What is added here says its level here. (What raises the level is put there by
    /// the coordinator's own care: it knows that all members have it.)
    pub fn needs(&self) -> Level {
        match self {
            Command::Raise { level, .. } => *level,
            _ => Level::FIRST,
        }
    }
}

/// A voter's report that a command has answered: the voter may grant again, by the map that came of it (rule 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The voter, or all of them.
    pub voter: Option<NodeId>,
    /// The node that was reported.
    pub node: NodeId,
    /// Reports of incarnations up to this one.
    pub incarnation: Incarnation,
    /// The entry that holds the command; the caller sets it.
    pub at: u64,
}

/// Applies one command to the map. The caller sets the map's version.
pub fn apply(map: &mut ClusterMap, command: &Command, answered: &mut Vec<Answered>) {
    match command {
        Command::Create { cluster_id, copies, min_in_sync, members, voters, placement } => {
            if map.members.is_empty() {
                create(map, cluster_id, *copies, *min_in_sync, members, voters, placement);
            }
        }
        Command::Up(registration) => {
            if up(map, registration) {
                let incarnation = registration.incarnation;
                answered.push(Answered { voter: None, node: registration.node, incarnation, at: 0 });
            }
        }
        Command::Activate => activate(map),
        Command::Down { nodes, promote } => {
            down(map, nodes, promote);
            let answer = |&(node, incarnation): &(NodeId, Incarnation)| Answered {
                voter: None,
                node,
                incarnation,
                at: 0,
            };
            answered.extend(nodes.iter().map(answer));
        }
        Command::Change(change) => {
            change_partition(map, change);
        }
        Command::Dismiss { voter, node, incarnation } => {
            answered.push(Answered { voter: Some(*voter), node: *node, incarnation: *incarnation, at: 0 });
        }
        Command::AcceptLoss { promote } => accept_loss(map, promote),
        Command::Recover { promote } => recover(map, promote),
        Command::Leave { node, incarnation } => leave(map, *node, *incarnation),
        Command::Place(placement) => shape::place(map, placement),
        Command::Move(moves) => shape::move_copies(map, moves),
        Command::Settle(drops) => shape::settle(map, drops),
        Command::Drain { node, on } => shape::drain(map, *node, *on),
        Command::Remove { node } => shape::remove(map, *node),
        Command::Settings { copies, min_in_sync } => shape::set(map, *copies, *min_in_sync),
        Command::HandOver { orders } => hand_over(map, orders),
        Command::Raise { .. } => levels::apply(map, command),
    }
}

fn create(
    map: &mut ClusterMap,
    cluster_id: &str,
    copies: u16,
    min_in_sync: u16,
    members: &[NodeId],
    voters: &[NodeId],
    placement: &[Vec<NodeId>],
) {
    map.cluster_id = cluster_id.to_owned();
    map.copies = copies;
    map.min_in_sync = min_in_sync;
    map.voters = voters.to_vec();
    map.seats = voters.iter().map(|&node| Seat { node, ..Seat::default() }).collect();
    map.members = members.iter().map(|&id| Member::unheard_of(id)).collect();
    map.members.sort_by_key(|member| member.id);
    map.partitions = placement
        .iter()
        .map(|copies| PartitionState {
            copies: copies.iter().copied().collect(),
            ..PartitionState::default()
        })
        .collect();
}

/// A later start on the same directory, whose lock proves that the earlier one is over; or on another directory, which
/// proves nothing, once the earlier one is known to be dead.
fn later_start(member: &Member, registration: &Registration) -> bool {
    let proves = registration.directory == member.directory || !member.is_alive();
    registration.incarnation > member.incarnation && proves
}

/// Whether the registration says anything new: a later incarnation, a life sign of a node thought dead, or a node that
/// joins. Nothing that a build says which has less than the cluster's level.
pub fn is_news(map: &ClusterMap, registration: &Registration) -> bool {
    if !levels::is_enough(map, registration) {
        return false;
    }
    map.member(registration.node).map_or(shape::may_join(map, registration), |member| {
        later_start(member, registration)
            || (registration.incarnation == member.incarnation
                && registration.directory == member.directory
                && !member.is_alive())
    })
}

fn up(map: &mut ClusterMap, registration: &Registration) -> bool {
    if !is_news(map, registration) {
        return false;
    }
    let node = registration.node;
    shape::join(map, node);
    let Some(member) = map.member_mut(node) else { return false };
    let restarted = later_start(member, registration);
    let seat = map.seats.iter_mut().find(|seat| seat.node == node);
    if let Some(seat) = seat.filter(|seat| seat.directory == 0 && registration.votes) {
        seat.directory = registration.directory;
    }
    let map_level = map.level;
    let Some(member) = map.member_mut(node) else { return false };
    let (before, draining) = (member.incarnation, member.draining);
    // Below the level that tells of builds, an entry does not hold what the registration said of it.
    let told = |port: u16| if map_level < Level::BUILDS { 0 } else { port };
    *member = Member {
        id: node,
        incarnation: registration.incarnation,
        directory: registration.directory,
        state: MemberState::Active,
        shards: registration.shards.max(1),
        host: registration.host.clone(),
        port: registration.port,
        cluster_port: registration.cluster_port,
        peer_port: registration.peer_port,
        http_port: told(registration.http_port),
        line_port: told(registration.line_port),
        weight: registration.weight,
        zone: registration.zone.clone(),
        draining,
        level: if map_level < Level::BUILDS { Level::FIRST } else { registration.level },
        build: if map_level < Level::BUILDS { String::new() } else { registration.build.clone() },
        witness: map_level >= Level::VOTERS_FOLLOW && registration.witness,
    };
    if restarted {
        // The start proves that the incarnation before it is over: the data directory is one process's alone. Its seats
        // pass to the new start only where its log has kept all that it acknowledged (rule 3).
        let kept = &registration.kept;
        let passes = kept.since <= before || planted::is(Bug::KeepsLostSeats);
        // A start that the map knows has told of its losses already.
        let lost: BTreeSet<PartitionId> =
            kept.lost.iter().filter(|(_, found)| *found > before).map(|(partition, _)| *partition).collect();
        for (at, state) in map.partitions.iter_mut().enumerate() {
            let lost = lost.contains(&PartitionId(at as u16));
            if passes && !lost {
                keep_seat(state, node);
            } else {
                give_up_seat(state, node, kept.log && !lost);
            }
        }
    }
    promote_where_none(map, &[]);
    true
}

/// A restarted node stays what it was, but that a primary begins another reign.
fn keep_seat(state: &mut PartitionState, node: NodeId) {
    if state.epoch == Epoch(0) || !state.copies.contains(node) && !state.in_sync.contains(node) {
        return;
    }
    state.epoch = state.epoch.next();
    if state.primary == Some(node) {
        // Its own log is as long as any: what only it holds it may have acknowledged at a lower level.
        state.primary_since = state.epoch;
        state.heir = None;
    }
    drop_void_heir(state);
}

/// Takes a restarted node out of a partition's configuration. With the last in-sync log gone the set is empty; where the
/// node has kept a log, though maybe without its end, that is remembered (rule 20).
fn give_up_seat(state: &mut PartitionState, node: NodeId, has_log: bool) {
    if state.epoch == Epoch(0) || !state.copies.contains(node) {
        return;
    }
    // Also where it was not in sync: a change under way that names its old incarnation must become void.
    state.epoch = state.epoch.next();
    if state.in_sync.contains(node) && has_log {
        state.doubtful.insert(node);
    } else if !has_log {
        state.doubtful.remove(node);
    }
    state.in_sync.remove(node);
    if state.primary == Some(node) {
        state.primary = None;
    }
    drop_void_heir(state);
}

fn activate(map: &mut ClusterMap) {
    for at in 0..map.partitions.len() {
        let state = map.partitions[at];
        if state.epoch != Epoch(0) {
            continue;
        }
        let alive: NodeSet = state.copies.iter().filter(|&node| map.is_active(node)).collect();
        let Some(first) = alive.iter().next() else { continue };
        let epoch = Epoch(1);
        map.partitions[at] =
            PartitionState { epoch, primary_since: epoch, primary: Some(first), in_sync: alive, ..state };
    }
}

fn down(map: &mut ClusterMap, nodes: &[(NodeId, Incarnation)], promote: &[(PartitionId, NodeId)]) {
    let dead: Vec<NodeId> = nodes
        .iter()
        .filter(|(node, incarnation)| {
            map.member(*node).is_some_and(|member| member.incarnation == *incarnation && member.is_alive())
        })
        .map(|(node, _)| *node)
        .collect();
    for &node in &dead {
        if let Some(member) = map.member_mut(node) {
            member.state = MemberState::Failed;
        }
    }
    for at in 0..map.partitions.len() {
        let mut state = map.partitions[at];
        if state.epoch == Epoch(0) || !dead.iter().any(|&node| state.copies.contains(node)) {
            continue;
        }
        state.epoch = state.epoch.next();
        // Where nobody alive is left, the dead keep their seats: what they hold is all there is.
        let left: NodeSet = state.in_sync.iter().filter(|&node| map.is_active(node)).collect();
        if !left.is_empty() {
            state.in_sync = left;
        }
        if state.primary.is_some_and(|primary| dead.contains(&primary)) {
            state.primary = None;
        }
        drop_void_heir(&mut state);
        map.partitions[at] = state;
    }
    promote_where_none(map, promote);
}

/// Rule 7: gives each partition that lost its primary a new one, from its in-sync set and from nowhere else.
fn promote_where_none(map: &mut ClusterMap, preferred: &[(PartitionId, NodeId)]) {
    for at in 0..map.partitions.len() {
        let state = map.partitions[at];
        if state.primary.is_some() || state.epoch == Epoch(0) {
            continue;
        }
        let seats = if planted::is(Bug::PromotesOutsider) { state.copies } else { state.in_sync };
        let alive: NodeSet = seats.iter().filter(|&node| map.is_active(node)).collect();
        let wanted = preferred.iter().find(|(id, node)| usize::from(id.0) == at && alive.contains(*node));
        let Some(primary) = wanted.map(|(_, node)| *node).or_else(|| alive.iter().next()) else { continue };
        let epoch = state.epoch.next();
        map.partitions[at] = PartitionState {
            epoch,
            primary_since: epoch,
            primary: Some(primary),
            in_sync: alive,
            heir: None,
            ..state
        };
    }
}

/// Whether a change would be applied to this map: the compare of the compare-and-set.
pub fn is_valid_change(map: &ClusterMap, change: &Change) -> bool {
    let Some(state) = map.partition(change.partition) else { return false };
    let Some(member) = map.member(change.node) else { return false };
    (state.epoch == change.epoch || planted::is(Bug::ChangesAtAnyEpoch))
        && state.primary == Some(change.primary)
        && change.node != change.primary
        && match change.kind {
            ChangeKind::Leave => true,
            ChangeKind::Join => {
                member.incarnation == change.incarnation
                    && map.is_active(change.node)
                    && state.copies.contains(change.node)
                    && !state.in_sync.contains(change.node)
            }
            ChangeKind::Release => is_valid_release(map, state, change.node),
            ChangeKind::Keep => state.heir.is_some(),
        }
}

fn change_partition(map: &mut ClusterMap, change: &Change) {
    if !is_valid_change(map, change) {
        return;
    }
    let state = &mut map.partitions[usize::from(change.partition.0)];
    state.epoch = state.epoch.next();
    match change.kind {
        ChangeKind::Leave => _ = state.in_sync.remove(change.node),
        ChangeKind::Join => {
            state.in_sync.insert(change.node);
            state.doubtful.remove(change.node);
        }
        ChangeKind::Release => {
            // The old primary holds the whole log: it keeps its seat.
            state.primary = Some(change.node);
            state.primary_since = state.epoch;
            state.heir = None;
        }
        ChangeKind::Keep => state.heir = None,
    }
    drop_void_heir(state);
}

/// Whether every in-sync log of a partition is gone for good.
pub fn is_lost(state: &PartitionState) -> bool {
    state.in_sync.is_empty() && state.epoch > Epoch(0)
}

fn accept_loss(map: &mut ClusterMap, promote: &[(PartitionId, NodeId)]) {
    for at in 0..map.partitions.len() {
        let state = map.partitions[at];
        if !is_lost(&state) {
            continue;
        }
        let alive: NodeSet = state.copies.iter().filter(|&node| map.is_active(node)).collect();
        let wanted = promote.iter().find(|(id, node)| usize::from(id.0) == at && alive.contains(*node));
        let Some(primary) = wanted.map(|(_, node)| *node).or_else(|| alive.iter().next()) else { continue };
        let epoch = state.epoch.next();
        map.partitions[at] = PartitionState {
            epoch,
            primary_since: epoch,
            primary: Some(primary),
            in_sync: [primary].into_iter().collect(),
            forced_since: epoch,
            doubtful: NodeSet::new(),
            heir: None,
            ..state
        };
    }
}

/// Whether others hold what a node holds of a partition, so that it may go.
pub(crate) fn may_leave(map: &ClusterMap, state: &PartitionState, node: NodeId) -> bool {
    state.in_sync.contains(node) && state.in_sync.iter().any(|other| other != node && map.is_active(other))
}

/// Whether the map shows that a node is about to stop, where it can, and nothing waits for it but what nobody else has.
pub fn has_left(map: &ClusterMap, node: NodeId) -> bool {
    let is_to_stay =
        map.has(Level::STOPPING) && map.member(node).is_some_and(|m| m.state == MemberState::Active);
    !is_to_stay && !map.partitions.iter().any(|state| may_leave(map, state, node))
}

/// Rule 10: the node has committed its tails and orders no more, so its word is the release. From here on it is given nothing: were
/// its copies taken in again, which hold everything, writes would wait for them once it has ended, until it is found dead. Below
/// [`Level::STOPPING`] the map does not show that, and this coordinator alone keeps it in mind ([`crate::leave`]).
fn leave(map: &mut ClusterMap, node: NodeId, incarnation: Incarnation) {
    let is_shown = map.has(Level::STOPPING);
    let Some(member) = map.member_mut(node).filter(|member| member.incarnation == incarnation) else {
        return;
    };
    if is_shown && member.state == MemberState::Active {
        member.state = MemberState::Stopping;
    }
    let mut primaries: BTreeMap<NodeId, usize> = BTreeMap::new();
    for primary in map.partitions.iter().filter_map(|state| state.primary) {
        *primaries.entry(primary).or_default() += 1;
    }
    for at in 0..map.partitions.len() {
        let mut state = map.partitions[at];
        // Also where it is not in sync: its joining may be under way, and must become void.
        let has_no_seat = state.copies.contains(node) && !state.in_sync.contains(node);
        let goes = may_leave(map, &state, node) || is_shown && has_no_seat;
        if !goes || state.epoch == Epoch(0) {
            continue;
        }
        state.epoch = state.epoch.next();
        state.in_sync.remove(node);
        if state.primary == Some(node) {
            // Who was to take over anyway, or whoever has the least to do.
            let heirs = state.in_sync.iter().filter(|&heir| map.is_active(heir));
            let load = |heir: &NodeId| primaries.get(heir).copied().unwrap_or(0);
            let heir = heirs.min_by_key(|heir| (state.heir != Some(*heir), load(heir)));
            state.primary = heir;
            state.primary_since = state.epoch;
            if let Some(heir) = heir {
                *primaries.entry(heir).or_default() += 1;
            }
            state.heir = None;
        }
        drop_void_heir(&mut state);
        map.partitions[at] = state;
    }
}

/// Whether all copies of a partition went down at once, none is known to have kept all that it acknowledged, and all that had
/// it last are back with what they have (rule 20).
pub fn is_doubtful(map: &ClusterMap, state: &PartitionState) -> bool {
    is_lost(state) && !state.doubtful.is_empty() && state.doubtful.iter().all(|node| map.is_active(node))
}

/// Goes on from the longest logs that are left. What they lack may have been committed, and a copy that was away may have it: it
/// learns so that it is to be discarded.
fn recover(map: &mut ClusterMap, promote: &[(PartitionId, NodeId)]) {
    for &(partition, primary) in promote {
        let Some(&state) = map.partition(partition) else { continue };
        if !is_doubtful(map, &state) || !state.doubtful.contains(primary) {
            continue;
        }
        let epoch = state.epoch.next();
        map.partitions[usize::from(partition.0)] = PartitionState {
            epoch,
            primary_since: epoch,
            primary: Some(primary),
            in_sync: [primary].into_iter().collect(),
            forced_since: epoch,
            doubtful: NodeSet::new(),
            heir: None,
            ..state
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Kept;

    fn registration(node: u16, incarnation: u64) -> Registration {
        Registration {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            directory: 7,
            votes: true,
            shards: 2,
            kept: Kept::nothing(Incarnation(incarnation)),
            host: "127.0.0.1".into(),
            port: 1,
            cluster_port: 2,
            peer_port: 3,
            http_port: 4,
            line_port: 5,
            weight: 1,
            zone: String::new(),
            level: Level::HIGHEST,
            build: String::new(),
            witness: false,
        }
    }

    fn run(map: &mut ClusterMap, commands: &[Command]) -> Vec<Answered> {
        let mut answered = Vec::new();
        for command in commands {
            apply(map, command, &mut answered);
            map.version += 1;
        }
        answered
    }

    fn cluster() -> ClusterMap {
        let mut map = ClusterMap::default();
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let placement =
            vec![vec![NodeId(1), NodeId(2)], vec![NodeId(2), NodeId(3)], vec![NodeId(3), NodeId(1)]];
        run(
            &mut map,
            &[
                Command::Create {
                    cluster_id: "c".into(),
                    copies: 2,
                    min_in_sync: 1,
                    members: nodes.clone(),
                    voters: nodes,
                    placement,
                },
                Command::Up(registration(1, 1)),
                Command::Up(registration(2, 1)),
                Command::Up(registration(3, 1)),
                Command::Activate,
            ],
        );
        map
    }

    fn set(nodes: &[u16]) -> NodeSet {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn down(node: u16, incarnation: u64) -> Command {
        Command::Down { nodes: vec![(NodeId(node), Incarnation(incarnation))], promote: vec![] }
    }

    #[test]
    fn a_death_promotes_the_in_sync_copy_and_removes_the_dead_backup_in_one_entry() {
        let mut map = cluster();
        run(&mut map, &[down(1, 1)]);
        let state = map.partitions[0];
        assert_eq!((state.primary, state.in_sync), (Some(NodeId(2)), set(&[2])));
        assert_eq!(state.primary_since, state.epoch);
        let state = map.partitions[2];
        assert_eq!(
            (state.primary, state.in_sync, state.primary_since),
            (Some(NodeId(3)), set(&[3]), Epoch(1))
        );
        assert!(state.epoch > Epoch(1));
        assert_eq!(map.partitions[1].epoch, Epoch(1));
    }

    #[test]
    fn the_last_copy_keeps_its_seat_and_serves_again_when_it_is_back_with_its_memory() {
        let mut map = cluster();
        run(&mut map, &[down(1, 1), down(2, 1)]);
        let state = map.partitions[0];
        assert_eq!((state.primary, state.in_sync), (None, set(&[2])));
        // The other copy, emptied, is no help.
        run(&mut map, &[Command::Up(registration(1, 2))]);
        assert_eq!(map.partitions[0].primary, None);
        run(&mut map, &[Command::Up(registration(2, 1))]);
        assert_eq!(map.partitions[0].primary, Some(NodeId(2)));
    }

    #[test]
    fn a_restart_gives_up_its_seats_at_once() {
        let mut map = cluster();
        let before = map.partitions[0].epoch;
        let answered = run(&mut map, &[Command::Up(registration(1, 2))]);
        assert_eq!(answered.len(), 1);
        let state = map.partitions[0];
        assert_eq!((state.primary, state.in_sync), (Some(NodeId(2)), set(&[2])));
        assert!(state.epoch > before);
        // Both restarted: no log is left, and only an operator may say that this is acceptable.
        run(&mut map, &[Command::Up(registration(2, 2))]);
        assert_eq!((map.partitions[0].primary, map.partitions[0].in_sync), (None, set(&[])));
        run(&mut map, &[Command::Activate]);
        assert_eq!(map.partitions[0].primary, None);
        let promote = vec![(PartitionId(0), NodeId(2)), (PartitionId(1), NodeId(3))];
        run(&mut map, &[Command::AcceptLoss { promote }]);
        let state = map.partitions[0];
        assert_eq!((state.primary, state.forced_since), (Some(NodeId(2)), state.epoch));
        assert_eq!(map.partitions[1].forced_since, Epoch(0), "nothing was lost there");
    }

    #[test]
    fn a_restart_that_kept_its_log_keeps_its_seats() {
        let mut map = cluster();
        let kept = |node, incarnation, since| {
            let lost = vec![(PartitionId(2), Incarnation(incarnation))];
            let kept = Kept { since: Incarnation(since), log: true, lost };
            Command::Up(Registration { kept, ..registration(node, incarnation) })
        };
        let before = map.partitions[0];
        run(&mut map, &[kept(1, 2, 1)]);
        let state = map.partitions[0];
        assert_eq!((state.primary, state.in_sync), (Some(NodeId(1)), set(&[1, 2])));
        assert!(state.epoch > before.epoch && state.primary_since == state.epoch, "another reign");
        // What it has lost of one partition costs that seat alone.
        assert_eq!(map.partitions[2].in_sync, set(&[3]));
        // Its log was broken by a start that never came to register: no seat passes from before that.
        run(&mut map, &[kept(1, 9, 4)]);
        assert_eq!((map.partitions[0].primary, map.partitions[0].in_sync), (Some(NodeId(2)), set(&[2])));
    }

    /// A start that sets a rotten log aside and ends before it is heard leaves a log without a fault to the next.
    #[test]
    fn a_loss_counts_until_the_start_that_found_it_is_known() {
        let mut map = cluster();
        let lost = vec![(PartitionId(2), Incarnation(2))];
        let told = |incarnation| {
            let kept = Kept { since: Incarnation(1), log: true, lost: lost.clone() };
            Command::Up(Registration { kept, ..registration(1, incarnation) })
        };
        run(&mut map, &[told(3)]);
        assert_eq!(map.partitions[2].in_sync, set(&[3]));
        map.partitions[2].in_sync = set(&[1, 3]);
        run(&mut map, &[told(4)]);
        assert_eq!(map.partitions[2].in_sync, set(&[1, 3]), "what it has got since stays");
    }

    #[test]
    fn where_all_went_down_and_none_kept_all_the_longest_log_goes_on() {
        let mut map = cluster();
        let torn = |node, incarnation| {
            let kept = Kept { since: Incarnation(incarnation), log: true, lost: vec![] };
            Command::Up(Registration { kept, ..registration(node, incarnation) })
        };
        run(&mut map, &[torn(1, 2)]);
        assert_eq!(map.partitions[0].in_sync, set(&[2]), "the other may live, and then has all");
        run(&mut map, &[torn(2, 2)]);
        let state = map.partitions[0];
        assert_eq!((state.primary, state.in_sync, state.doubtful), (None, set(&[]), set(&[1, 2])));
        assert!(is_doubtful(&map, &state));
        run(&mut map, &[Command::Recover { promote: vec![(PartitionId(0), NodeId(3))] }]);
        assert_eq!(map.partitions[0].primary, None, "it never had it");
        run(&mut map, &[Command::Recover { promote: vec![(PartitionId(0), NodeId(2))] }]);
        let state = map.partitions[0];
        assert_eq!(
            (state.primary, state.in_sync, state.forced_since),
            (Some(NodeId(2)), set(&[2]), state.epoch)
        );
    }

    #[test]
    fn a_node_that_leaves_hands_over_what_others_have_too() {
        let mut map = cluster();
        run(&mut map, &[Command::Leave { node: NodeId(1), incarnation: Incarnation(7) }]);
        assert_eq!(map.partitions[0].primary, Some(NodeId(1)), "another start of it");
        run(&mut map, &[Command::Leave { node: NodeId(1), incarnation: Incarnation(1) }]);
        let state = map.partitions[0];
        assert_eq!((state.primary, state.in_sync), (Some(NodeId(2)), set(&[2])));
        assert_eq!(state.primary_since, state.epoch);
        assert_eq!(map.partitions[2].in_sync, set(&[3]), "nobody waits for it as a backup either");
        assert!(has_left(&map, NodeId(1)));
        // The last copy stays what it is.
        let before = map.clone();
        assert!(has_left(&map, NodeId(2)) || map.partitions[1].in_sync == set(&[2, 3]));
        run(&mut map, &[Command::Leave { node: NodeId(2), incarnation: Incarnation(1) }]);
        assert_eq!(map.partitions[0], before.partitions[0]);
        assert_eq!((map.partitions[1].primary, map.partitions[1].in_sync), (Some(NodeId(3)), set(&[3])));
    }

    #[test]
    fn late_changes_are_void() {
        let mut map = cluster();
        run(&mut map, &[down(2, 1), Command::Up(registration(2, 2))]);
        let join = Change {
            partition: PartitionId(0),
            epoch: map.partitions[0].epoch,
            primary: NodeId(1),
            node: NodeId(2),
            incarnation: Incarnation(1),
            kind: ChangeKind::Join,
        };
        let before = map.clone();
        for wrong in [
            join,
            Change { incarnation: Incarnation(2), epoch: Epoch(1), ..join },
            Change { incarnation: Incarnation(2), primary: NodeId(3), ..join },
            Change { incarnation: Incarnation(1), node: NodeId(3), ..join },
        ] {
            run(&mut map, &[Command::Change(wrong)]);
            assert_eq!(map.partitions, before.partitions, "{wrong:?}");
        }
        let right = Change { incarnation: Incarnation(2), ..join };
        run(&mut map, &[Command::Change(right)]);
        assert_eq!(map.partitions[0].in_sync, set(&[1, 2]));
        let after = map.partitions[0];
        run(&mut map, &[Command::Change(right), down(2, 1)]);
        assert_eq!(map.partitions[0], after, "a repeat, and the death of an old incarnation");
    }

    #[test]
    fn of_several_in_sync_the_named_one_is_promoted_and_an_outsider_never() {
        let mut map = cluster();
        map.partitions[0].in_sync = set(&[1, 2, 3]);
        map.partitions[0].copies = set(&[1, 2, 3]);
        map.partitions[1].in_sync = set(&[2]);
        map.partitions[1].primary = Some(NodeId(2));
        let promote = vec![(PartitionId(0), NodeId(3)), (PartitionId(1), NodeId(3))];
        let nodes = vec![(NodeId(1), Incarnation(1)), (NodeId(2), Incarnation(1))];
        run(&mut map, &[Command::Down { nodes, promote }]);
        assert_eq!(map.partitions[0].primary, Some(NodeId(3)));
        assert_eq!(map.partitions[1].primary, None);
        assert_eq!(map.partitions[1].in_sync, set(&[2]));
    }
}
