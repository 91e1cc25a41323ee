//! The cluster map: nodes, partitions, epochs, primaries and in-sync sets, as one versioned value.

use serde::{Deserialize, Serialize};
use types::planted::{self, Bug};
use types::{Epoch, Incarnation, Level, NodeId, NodeSet, PartitionId, ShardId};

/// The map that a node acts on. Its version is the place of the last applied entry in the control plane's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Grows with every applied change. 0: nothing is known yet.
    pub version: u64,
    /// What all members' builds have: nothing is written that needs more. It never goes down.
    pub level: Level,
    /// The cluster's id, 40 hex digits.
    pub cluster_id: String,
    /// How many copies each partition should have.
    pub copies: u16,
    /// Writes to a partition with fewer in-sync copies are refused.
    pub min_in_sync: u16,
    /// Every node of the cluster, by number.
    pub members: Vec<Member>,
    /// The voters of the control plane, by number.
    pub voters: Vec<NodeId>,
    /// Those that were the voters before, while they are being changed: until the change is over a majority of either set is
    /// needed for whatever needs one (rule 6). Empty at all other times.
    pub old_voters: Vec<NodeId>,
    /// The version at which `voters` or `old_voters` last changed.
    pub voters_since: u64,
    /// The consensus group's seats: those of the voters, old ones too, and of nodes that learn the log before they vote, or that
    /// voted until a moment ago. One a node, by number.
    pub seats: Vec<Seat>,
    /// Nodes that were members and were removed, each in its last start: that start does not join again by itself, a later
    /// one does.
    pub removed: Vec<(NodeId, Incarnation)>,
    /// Every partition's configuration; the index is the partition's number.
    pub partitions: Vec<PartitionState>,
}

/// A place in the consensus group. It belongs to one data directory: on another one its node has forgotten what it promised, and
/// needs a new seat (rule 16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seat {
    /// Whose it is.
    pub node: NodeId,
    /// Tells it from every other seat that the node ever had: the version of the map that made it. 0: it is there since the cluster
    /// was made.
    pub number: u64,
    /// The data directory. 0: the node of a first seat has not registered yet.
    pub directory: u64,
}

impl Seat {
    /// As the consensus group numbers its members. Never used for another seat.
    pub fn id(&self) -> u64 {
        self.number << 16 | u64::from(self.node.0)
    }

    /// The node of a member of the consensus group.
    pub fn node_of(id: u64) -> NodeId {
        NodeId(id as u16)
    }
}

/// A node, as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its lasting number.
    pub id: NodeId,
    /// Its newest registered start. 0: it has never registered.
    pub incarnation: Incarnation,
    /// Which data directory that start used: an emptied directory has another.
    pub directory: u64,
    /// Whether it is alive.
    pub state: MemberState,
    /// How many data threads it has. Partition `p` lies on shard `p % shards`.
    pub shards: u16,
    /// Host that clients and peers reach it at.
    pub host: String,
    /// Port for every Redis client.
    pub port: u16,
    /// Port for cluster-aware Redis clients.
    pub cluster_port: u16,
    /// Port for peers.
    pub peer_port: u16,
    /// Port for HTTP and gRPC. Not told before the cluster is at level 2, and 0 where there is none.
    pub http_port: u16,
    /// Port for JSON and text, likewise.
    pub line_port: u16,
    /// How much of the data it should hold beside a node of weight 1. 0: none.
    pub weight: u16,
    /// Copies of a partition are kept in different zones where there are enough of them. Empty: a zone of its own.
    pub zone: String,
    /// An operator has it emptied, to be removed.
    pub draining: bool,
    /// The highest feature level of the build that its newest start runs. Not told before the cluster is at level 2: then the first.
    pub level: Level,
    /// That build's version. Empty: not told.
    pub build: String,
    /// It is there to vote, and holds no data.
    pub witness: bool,
}

/// What the control plane knows of a node's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// Listed, but never registered.
    #[default]
    Joining,
    /// Registered and granted leases.
    Active,
    /// Found dead after the grace.
    Failed,
    /// Alive and granted leases, and about to end in order: it serves what nobody else has, and is given nothing any more (rule 10).
    /// From [`Level::STOPPING`] on.
    Stopping,
}

/// One partition's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartitionState {
    /// The number of this configuration.
    pub epoch: Epoch,
    /// The epoch at which the primary became primary: as long as it stays, the primary has been the same without a break.
    pub primary_since: Epoch,
    /// The copy that orders writes; none while no in-sync copy is alive.
    pub primary: Option<NodeId>,
    /// The copies whose acknowledgement a write at `all` needs. Only these may become primary. Empty: every log of
    /// this partition is gone, and only an operator may accept the loss.
    pub in_sync: NodeSet,
    /// Where the copies belong, whether in sync or still being filled.
    pub copies: NodeSet,
    /// The last epoch at which what was committed may have been lost: an operator accepted it, or no log was known to be whole.
    /// The history of the copy that was made primary then is the partition's. 0: never.
    pub forced_since: Epoch,
    /// Copies that were in sync, and came back with logs that may lack their ends.
    pub doubtful: NodeSet,
    /// The in-sync copy that the primary is to hand over to (rule 10).
    pub heir: Option<NodeId>,
    /// Those of `copies` that go as soon as all others are in sync (rule 11).
    pub leaving: NodeSet,
}

impl ClusterMap {
    /// The member with this number.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.binary_search_by_key(&id, |member| member.id).ok().map(|at| &self.members[at])
    }

    /// The member with this number, to change it.
    pub fn member_mut(&mut self, id: NodeId) -> Option<&mut Member> {
        self.members.binary_search_by_key(&id, |member| member.id).ok().map(|at| &mut self.members[at])
    }

    /// One partition's configuration.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionState> {
        self.partitions.get(usize::from(id.0))
    }

    /// Every partition's number and configuration.
    pub fn each_partition(&self) -> impl Iterator<Item = (PartitionId, &PartitionState)> {
        self.partitions.iter().enumerate().map(|(at, state)| (PartitionId(at as u16), state))
    }

    /// Whether the cluster is made: before that the map says nothing.
    pub fn is_made(&self) -> bool {
        !self.members.is_empty()
    }

    /// The seat of a node in the consensus group.
    pub fn seat(&self, id: NodeId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.node == id)
    }

    /// Whether a node on this data directory may speak as the holder of its seat. True also where nothing is known of the seat yet.
    pub fn holds_vote(&self, id: NodeId, directory: u64) -> bool {
        self.seat(id).is_none_or(|seat| seat.directory == 0 || seat.directory == directory)
    }

    /// Whether a node votes: also one that is about to vote no more.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.old_voters.contains(&id)
    }

    /// Whether a node is one of the voters that whatever needs a majority cannot do without. While the voters are being changed these are the
    /// old ones still: should most of them be lost then, the new ones alone decide nothing.
    pub fn is_voter_yet(&self, id: NodeId) -> bool {
        let counted = if self.old_voters.is_empty() { &self.voters } else { &self.old_voters };
        counted.contains(&id)
    }

    /// Whether those of the voters for which this is so are a majority, of both sets while they are being changed.
    pub fn is_majority(&self, is_so: impl Fn(NodeId) -> bool) -> bool {
        let of = |set: &[NodeId]| set.iter().filter(|&&voter| is_so(voter)).count() > set.len() / 2;
        of(&self.voters) && (self.old_voters.is_empty() || of(&self.old_voters))
    }

    /// Whether no partition has anything to do with a node: it holds no copy, and nobody waits for one of its logs.
    pub fn is_empty_node(&self, id: NodeId) -> bool {
        let has = |state: &PartitionState| {
            [state.copies, state.in_sync, state.doubtful].iter().any(|set| set.contains(id))
        };
        !self.partitions.iter().any(has)
    }

    /// Whether the cluster uses what comes with a feature level: all members know it. Whoever makes something new asks this first.
    pub fn has(&self, level: Level) -> bool {
        self.level >= level || planted::is(Bug::UsesEarly)
    }

    /// Whether a node is registered, alive, and here to stay: only such a one is given anything.
    pub fn is_active(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|member| {
            member.state == MemberState::Active
                || planted::is(Bug::GivesToStopping) && member.state == MemberState::Stopping
        })
    }

    /// Whether a node is registered and alive, be it about to stop.
    pub fn is_alive(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(Member::is_alive)
    }

    /// The shard of `node` on which `partition` lies.
    pub fn shard_of(&self, node: NodeId, partition: PartitionId) -> Option<ShardId> {
        self.member(node).map(|member| member.shard_of(partition))
    }
}

impl PartitionState {
    /// Where the copies are to be: without those that leave.
    pub fn staying(&self) -> NodeSet {
        self.copies.without(self.leaving)
    }
}

impl Member {
    /// A member of which nothing is known but its number.
    pub fn unheard_of(id: NodeId) -> Member {
        Member {
            id,
            incarnation: Incarnation(0),
            directory: 0,
            state: MemberState::Joining,
            shards: 1,
            host: String::new(),
            port: 0,
            cluster_port: 0,
            peer_port: 0,
            http_port: 0,
            line_port: 0,
            weight: 1,
            zone: String::new(),
            draining: false,
            level: Level::FIRST,
            build: String::new(),
            witness: false,
        }
    }

    /// Whether it is registered and not known to be dead.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, MemberState::Active | MemberState::Stopping)
    }

    /// The shard of this node on which `partition` lies.
    pub fn shard_of(&self, partition: PartitionId) -> ShardId {
        ShardId(partition.0 % self.shards.max(1))
    }
}

/// The plain form in which a partition's configuration is written: sets as lists, no primary as 0.
#[derive(Serialize, Deserialize)]
struct Written {
    epoch: Epoch,
    primary_since: Epoch,
    primary: NodeId,
    in_sync: Vec<NodeId>,
    copies: Vec<NodeId>,
    forced_since: Epoch,
    doubtful: Vec<NodeId>,
    heir: NodeId,
    leaving: Vec<NodeId>,
}

impl Serialize for PartitionState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written {
            epoch: self.epoch,
            primary_since: self.primary_since,
            primary: self.primary.unwrap_or_default(),
            in_sync: self.in_sync.iter().collect(),
            copies: self.copies.iter().collect(),
            forced_since: self.forced_since,
            doubtful: self.doubtful.iter().collect(),
            heir: self.heir.unwrap_or_default(),
            leaving: self.leaving.iter().collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PartitionState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Ok(PartitionState {
            epoch: written.epoch,
            primary_since: written.primary_since,
            primary: (written.primary != NodeId(0)).then_some(written.primary),
            in_sync: written.in_sync.into_iter().collect(),
            copies: written.copies.into_iter().collect(),
            forced_since: written.forced_since,
            doubtful: written.doubtful.into_iter().collect(),
            heir: (written.heir != NodeId(0)).then_some(written.heir),
            leaving: written.leaving.into_iter().collect(),
        })
    }
}
