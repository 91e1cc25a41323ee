//! The map as builds of feature level 1 write and read it: in the consensus group's snapshots and on the way to other nodes.
//!
//! It says nothing of levels and builds. A partition's configuration is the same in both ([`PartitionState`]).

use crate::map::{self, MemberState, PartitionState, Seat};
use serde::{Deserialize, Serialize};
use types::{Incarnation, Level, NodeId};

/// See [`map::ClusterMap`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the current form says what the fields mean")]
pub struct ClusterMap {
    pub version: u64,
    pub cluster_id: String,
    pub copies: u16,
    pub min_in_sync: u16,
    pub members: Vec<Member>,
    pub voters: Vec<NodeId>,
    pub voter_directories: Vec<(NodeId, u64)>,
    pub removed: Vec<(NodeId, Incarnation)>,
    pub partitions: Vec<PartitionState>,
}

/// See [`map::Member`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the current form says what the fields mean")]
pub struct Member {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub directory: u64,
    pub state: MemberState,
    pub shards: u16,
    pub host: String,
    pub port: u16,
    pub cluster_port: u16,
    pub peer_port: u16,
    pub weight: u16,
    pub zone: String,
    pub draining: bool,
}

/// The first seats of voters, whose data directories are told where they are known.
pub fn seats_of(voters: &[NodeId], directories: &[(NodeId, u64)]) -> Vec<Seat> {
    let told = directories.iter().map(|&(node, directory)| Seat { node, number: 0, directory });
    let untold = voters.iter().filter(|voter| directories.iter().all(|(node, _)| node != *voter));
    let untold = untold.map(|&node| Seat { node, number: 0, directory: 0 });
    let mut seats: Vec<Seat> = told.chain(untold).collect();
    seats.sort_by_key(|seat| seat.node);
    seats
}

/// The data directories of first seats, as far as they are known.
pub fn directories_of(seats: &[Seat]) -> Vec<(NodeId, u64)> {
    let known = seats.iter().filter(|seat| seat.directory != 0);
    known.map(|seat| (seat.node, seat.directory)).collect()
}

impl From<Member> for map::Member {
    fn from(old: Member) -> map::Member {
        map::Member {
            id: old.id,
            incarnation: old.incarnation,
            directory: old.directory,
            state: old.state,
            shards: old.shards,
            host: old.host,
            port: old.port,
            cluster_port: old.cluster_port,
            peer_port: old.peer_port,
            http_port: 0,
            line_port: 0,
            weight: old.weight,
            zone: old.zone,
            draining: old.draining,
            level: Level::FIRST,
            build: String::new(),
            witness: false,
        }
    }
}

impl From<map::Member> for Member {
    fn from(member: map::Member) -> Member {
        Member {
            id: member.id,
            incarnation: member.incarnation,
            directory: member.directory,
            state: member.state,
            shards: member.shards,
            host: member.host,
            port: member.port,
            cluster_port: member.cluster_port,
            peer_port: member.peer_port,
            weight: member.weight,
            zone: member.zone,
            draining: member.draining,
        }
    }
}

impl From<ClusterMap> for map::ClusterMap {
    fn from(old: ClusterMap) -> map::ClusterMap {
        map::ClusterMap {
            version: old.version,
            level: Level::FIRST,
            cluster_id: old.cluster_id,
            copies: old.copies,
            min_in_sync: old.min_in_sync,
            members: old.members.into_iter().map(map::Member::from).collect(),
            seats: seats_of(&old.voters, &old.voter_directories),
            voters: old.voters,
            old_voters: Vec::new(),
            voters_since: 0,
            removed: old.removed,
            partitions: old.partitions,
        }
    }
}

impl From<map::ClusterMap> for ClusterMap {
    fn from(map: map::ClusterMap) -> ClusterMap {
        ClusterMap {
            version: map.version,
            cluster_id: map.cluster_id,
            copies: map.copies,
            min_in_sync: map.min_in_sync,
            members: map.members.into_iter().map(Member::from).collect(),
            voter_directories: directories_of(&map.seats),
            voters: map.voters,
            removed: map.removed,
            partitions: map.partitions,
        }
    }
}
