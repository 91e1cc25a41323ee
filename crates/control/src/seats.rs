//! Seats in the consensus group: who is a member of it, as its own log says, and how a node takes a seat or gives it up.
//!
//! A seat belongs to one data directory and is never given twice ([`Seat::id`] is the member's number), so what the consensus
//! library takes for granted holds: no member ever forgets what it said (rule 16). A node that lost its directory needs another
//! seat. The group's membership changes by entries of its log ([`step`](crate::voters)); whoever applies one writes the outcome into
//! the map ([`take_up`]), and a node that finds a seat of its own there begins to take part as a learner, with nothing: the
//! coordinator sends it the map as a snapshot. A node whose seat is gone from the map forgets all that it had as a member.
//!
//! Why leases stand a change of the voters (rule 6). Let a change begin with entry J, which makes the old voters and the new ones
//! count together, and end with entry L, after which the new ones count alone. L is committed only once a majority of the old voters
//! have it, and each of these had applied J before, durably ([`crate::Control`] syncs it). Their grants from then on name maps as new as J, by
//! which a holder counts both sets. So a lease that is counted by the old voters alone is not renewed after that moment; and
//! because every voter counts the grace anew from when it applies L, and reports from before are void, that lease is over before the new
//! voters can declare its holder dead.

use crate::frames::Restored;
use crate::machine::ControlConfig;
use crate::store::LogStore;
use placement::{ClusterMap, Seat};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use raft::{ProgressState, RawNode, SnapshotStatus};
use std::collections::BTreeSet;
use std::time::Duration;
use types::NodeId;
use types::planted::{self, Bug};

/// The consensus library's clock ticks this often.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Ticks between the coordinator's heartbeats to the other voters.
const HEARTBEAT_TICKS: usize = 5;
/// Entries that a member may lack and count as one that has caught up.
const BEHIND_MAX: u64 = 16;
/// The number of a node among its neighbours, by which their elections come at different times.
const RANKS: u16 = 7;

/// The seat that a node holds when it starts, and the group that it was in as far as its snapshot does not say.
pub(crate) fn at_start(config: &ControlConfig, restored: &Restored) -> Option<(u64, ConfState)> {
    match &restored.seat {
        Some((0, _)) => None,
        Some((id, group)) => Some((*id, group.clone())),
        None if config.rejoins || !config.voters.contains(&config.me.node) => None,
        None => {
            let voters: Vec<u64> = config.voters.iter().map(|voter| u64::from(voter.0)).collect();
            Some((u64::from(config.me.node.0), ConfState::from((voters, Vec::new()))))
        }
    }
}

/// A member of the group that goes on from what its store says.
pub(crate) fn member(config: &ControlConfig, id: u64, store: LogStore, applied: u64) -> RawNode<LogStore> {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&raft_config(config, id, applied), store, &logger)
        .expect("the configuration is valid by construction")
}

/// The library draws election timeouts from a generator of its own thread: a range of one value leaves it no choice,
/// and the value is ours, different for each voter so that they do not stand at once.
fn raft_config(config: &ControlConfig, id: u64, applied: u64) -> raft::Config {
    let base = (config.election.as_millis() / TICK.as_millis()).max(2 * HEARTBEAT_TICKS as u128) as usize;
    let rank = usize::from(config.me.node.0.saturating_sub(1) % RANKS);
    let drawn = (config.seed % 3) as usize;
    let timeout = base + rank * 4 + drawn;
    raft::Config {
        id,
        election_tick: base,
        min_election_tick: timeout,
        max_election_tick: timeout + 1,
        heartbeat_tick: HEARTBEAT_TICKS,
        applied,
        max_size_per_msg: 1024 * 1024,
        max_inflight_msgs: 64,
        check_quorum: true,
        pre_vote: true,
        ..raft::Config::default()
    }
}

/// The next change of who is in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node gets a seat, and learns the log.
    Seat {
        /// The node.
        node: NodeId,
        /// Its data directory.
        directory: u64,
    },
    /// The voters begin to be these alone. They all have seats; those that are to vote no more keep theirs for a while.
    Begin(Vec<NodeId>),
    /// The old voters count no more.
    End,
    /// A node that does not vote gives up its seat.
    Unseat(NodeId),
    /// Another voter is to be the coordinator.
    Transfer(NodeId),
}

/// A step as an entry of the group's log, which will be the one at `index`. None for a transfer, which is none.
pub(crate) fn entry(map: &ClusterMap, step: &Step, index: u64) -> Option<ConfChangeV2> {
    let single = |kind, id| {
        let mut change = ConfChangeSingle::default();
        change.set_change_type(kind);
        change.node_id = id;
        change
    };
    let mut entry = ConfChangeV2::default();
    match step {
        Step::Seat { node, directory } => {
            let seat = Seat { node: *node, number: index, directory: *directory };
            entry.context = directory.to_le_bytes().to_vec().into();
            entry.changes = vec![single(ConfChangeType::AddLearnerNode, seat.id())].into();
        }
        Step::Begin(voters) => {
            let joins = map.seats.iter().filter(|seat| voters.contains(&seat.node));
            let joins = joins.filter(|seat| !map.voters.contains(&seat.node));
            let leaves = map.seats.iter().filter(|seat| map.voters.contains(&seat.node));
            let leaves = leaves.filter(|seat| !voters.contains(&seat.node));
            let joins = joins.map(|seat| single(ConfChangeType::AddNode, seat.id()));
            let leaves = leaves.map(|seat| single(ConfChangeType::AddLearnerNode, seat.id()));
            entry.changes = joins.chain(leaves).collect::<Vec<_>>().into();
            entry.set_transition(ConfChangeTransition::Explicit);
        }
        Step::End => {}
        Step::Unseat(node) => {
            let seat = map.seat(*node)?;
            entry.changes = vec![single(ConfChangeType::RemoveNode, seat.id())].into();
        }
        Step::Transfer(_) => return None,
    }
    Some(entry)
}

/// Writes into the map who is in the group, after the change that entry `index` holds.
pub(crate) fn take_up(map: &mut ClusterMap, group: &ConfState, change: &ConfChangeV2, index: u64) {
    let nodes = |ids: &[u64]| {
        let nodes: BTreeSet<NodeId> = ids.iter().map(|&id| Seat::node_of(id)).collect();
        nodes.into_iter().collect::<Vec<_>>()
    };
    let (voters, mut old) = (nodes(&group.voters), nodes(&group.voters_outgoing));
    if planted::is(Bug::ForgetsOldVoters) {
        old.clear();
    }
    if (&voters, &old) != (&map.voters, &map.old_voters) {
        (map.voters, map.old_voters, map.voters_since) = (voters, old, index);
    }
    let all = [&group.voters, &group.voters_outgoing, &group.learners, &group.learners_next];
    let ids: BTreeSet<u64> = all.into_iter().flatten().copied().collect();
    map.seats.retain(|seat| ids.contains(&seat.id()));
    // What does not say whose it is, is nobody's.
    let directory = <[u8; 8]>::try_from(&change.context[..]).map_or(u64::MAX, u64::from_le_bytes);
    for id in ids {
        if map.seats.iter().all(|seat| seat.id() != id) {
            map.seats.push(Seat { node: Seat::node_of(id), number: id >> 16, directory });
        }
    }
    map.seats.sort_by_key(|seat| (seat.node, seat.number));
}

/// Whether a member holds all of the leader's log but for what may be on its way: while there is much to decide the log goes on as
/// soon as a majority has it, and the others are always a little behind.
pub(crate) fn has_caught_up(raft: &RawNode<LogStore>, id: u64) -> bool {
    let last = raft.raft.raft_log.last_index();
    id == raft.raft.id
        || raft.raft.prs().get(id).is_some_and(|progress| {
            // Where nothing new is decided, the library goes on probing one that has taken in a snapshot and has all.
            let is_close = progress.matched > 0 && progress.matched + BEHIND_MAX >= last;
            progress.state != ProgressState::Snapshot && progress.recent_active && is_close
        })
}

/// The members that have been sent a snapshot which they have not taken in.
pub(crate) fn awaiting_snapshot(raft: &RawNode<LogStore>) -> BTreeSet<u64> {
    let progress = raft.raft.prs().iter();
    progress.filter(|(_, member)| member.state == ProgressState::Snapshot).map(|(id, _)| *id).collect()
}

/// A snapshot may have been lost on its way, and the library waits until it is told.
pub(crate) fn send_snapshot_again(raft: &mut RawNode<LogStore>, id: u64) {
    raft.report_snapshot(id, SnapshotStatus::Failure);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u16, number: u64) -> u64 {
        Seat { node: NodeId(node), number, directory: 0 }.id()
    }

    fn nodes(ids: &[u16]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_seat_is_its_own_and_names_its_node() {
        let seat = Seat { node: NodeId(9), number: 70_000, directory: 1 };
        assert_eq!((Seat::node_of(seat.id()), seat.id() >> 16), (NodeId(9), 70_000));
        assert_eq!(id(3, 0), 3, "the first seats are the nodes' numbers");
        assert_ne!(id(9, 70_000), id(9, 70_001));
    }

    #[test]
    fn the_map_follows_the_group() {
        let mut map = ClusterMap {
            voters: nodes(&[1]),
            seats: vec![Seat { node: NodeId(1), number: 0, directory: 11 }],
            ..ClusterMap::default()
        };
        let step = Step::Seat { node: NodeId(2), directory: 22 };
        let change = entry(&map, &step, 7).unwrap();
        let group = ConfState { voters: vec![1], learners: vec![id(2, 7)], ..ConfState::default() };
        take_up(&mut map, &group, &change, 7);
        assert_eq!(map.seat(NodeId(2)), Some(&Seat { node: NodeId(2), number: 7, directory: 22 }));
        assert_eq!((map.voters_since, map.is_voter(NodeId(2))), (0, false), "a learner is no voter");

        let change = entry(&map, &Step::Begin(nodes(&[2])), 8).unwrap();
        assert_eq!(change.changes.len(), 2);
        let mut group = ConfState { voters: vec![id(2, 7)], ..ConfState::default() };
        (group.voters_outgoing, group.learners_next) = (vec![1], vec![1]);
        take_up(&mut map, &group, &change, 8);
        assert_eq!((&map.voters, &map.old_voters, map.voters_since), (&nodes(&[2]), &nodes(&[1]), 8));
        assert!(map.is_voter(NodeId(1)) && !map.is_majority(|node| node == NodeId(2)));
        let shown = |map: &ClusterMap| [1, 2].map(|node| map.is_voter_yet(NodeId(node)));
        assert_eq!(shown(&map), [true, false], "nothing is decided without the old one");

        let group = ConfState { voters: vec![id(2, 7)], learners: vec![1], ..ConfState::default() };
        let change = entry(&map, &Step::End, 9).unwrap();
        take_up(&mut map, &group, &change, 9);
        assert_eq!((map.old_voters.len(), map.voters_since, map.seats.len()), (0, 9, 2));
        assert!(map.is_majority(|node| node == NodeId(2)));
        assert_eq!(shown(&map), [false, true]);
        let change = entry(&map, &Step::Unseat(NodeId(1)), 10).unwrap();
        let group = ConfState { voters: vec![id(2, 7)], ..ConfState::default() };
        take_up(&mut map, &group, &change, 10);
        assert_eq!((map.seat(NodeId(1)), map.voters_since), (None, 9));
    }
}
