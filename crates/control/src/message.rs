//! What the nodes' control planes and hearts say to each other.
//!
//! The transport adds who sent it (node, incarnation, data directory).

use placement::{ChangeKind, ClusterMap, PartitionState, Seat};
use serde::{Deserialize, Serialize};
use types::{Epoch, Incarnation, Level, NodeId, PartitionId, Position};

/// Who sent a message, as the transport has proved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The number of its data directory: an emptied one has another.
    pub directory: u64,
}

/// A message from one node's control plane to another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// A message of the consensus library, in its own encoding.
    Raft(Vec<u8>),
    /// Node to voters: I have started. Repeated until the map says so; and to the coordinator, from time to time, while the cluster's
    /// level is below what the node has.
    Register(Registration),
    /// Primary to coordinator: change in-sync sets, or hand over. Repeated until the map shows a newer epoch.
    Propose(Vec<Change>),
    /// Voter to coordinator: these have had no grant from me for the grace.
    Report {
        /// The term of the coordinator that it is meant for; void in any other.
        term: u64,
        /// The newest entry that the voter had applied when it said so: a later answer makes this void.
        applied: u64,
        /// The nodes, each in the incarnation that fell silent.
        silent: Vec<(NodeId, Incarnation)>,
        /// Nodes reported before that are heard again: the voter asks to be released from its report.
        heard: Vec<(NodeId, Incarnation)>,
    },
    /// Coordinator to possible primaries: how far do your logs of these partitions reach?
    AskTails {
        /// Echoed in the answer.
        question: u64,
        /// The partitions.
        partitions: Vec<PartitionId>,
    },
    /// The answer to [`Message::AskTails`].
    Tails {
        /// The question.
        question: u64,
        /// Each partition's last position.
        tails: Vec<(PartitionId, Position)>,
    },
    /// Node to voter: my map has this version; send what is newer.
    AskMap {
        /// The asker's version.
        have: u64,
    },
    /// Voter to node: the map, whole.
    Map(Box<ClusterMap>),
    /// Voter to node: what changed in the map.
    MapChanges(MapChanges),
    /// An operator accepts that partitions of which every log is gone start empty.
    AcceptLoss,
    /// Node to coordinator: an operator has asked for this.
    Order(Order),
    /// Node to coordinator: it is about to stop, has committed all that it ordered, and orders no more (rule 10).
    Leave(Incarnation),
    /// Node to coordinator: hand this partition over to that in-sync copy (rule 10). Void where that cannot be.
    HandOver {
        /// The partition.
        partition: PartitionId,
        /// Who is to be its primary.
        heir: NodeId,
    },
}

/// What an operator asks of the cluster. Each can be asked again: it says how things should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Moves all copies off a node and then removes it; or lets it stay after all.
    Drain {
        /// The node.
        node: NodeId,
        /// Whether it is to go.
        on: bool,
    },
    /// Makes the copies of a dead node anew elsewhere at once, and removes it.
    Remove(NodeId),
    /// How many copies each partition should have.
    Copies(u16),
    /// Fewest in-sync copies that take writes.
    MinInSync(u16),
}

/// What changed between two versions of the map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MapChanges {
    /// The version that it applies to.
    pub from: u64,
    /// The version that it makes.
    pub to: u64,
    /// The cluster's level.
    pub level: Level,
    /// Copies of each partition.
    pub copies: u16,
    /// Fewest in-sync copies that take writes.
    pub min_in_sync: u16,
    /// Members that changed, or are new.
    pub members: Vec<placement::Member>,
    /// Members that are no more.
    pub gone: Vec<NodeId>,
    /// All nodes that were ever removed, and are not back.
    pub removed: Vec<(NodeId, Incarnation)>,
    /// The voters.
    pub voters: Vec<NodeId>,
    /// Those that were the voters before, while they are being changed.
    pub old_voters: Vec<NodeId>,
    /// The version at which these last changed.
    pub voters_since: u64,
    /// The seats in the consensus group.
    pub seats: Vec<Seat>,
    /// Partitions that changed.
    pub partitions: Vec<(PartitionId, PartitionState)>,
}

/// A node's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Who starts.
    pub node: NodeId,
    /// Grows at every start.
    pub incarnation: Incarnation,
    /// Its data directory's number.
    pub directory: u64,
    /// Whether it takes a seat that was made for it with the cluster: not where its directory is new and an earlier one had its vote.
    pub votes: bool,
    /// Its data threads.
    pub shards: u16,
    /// What its logs on disk have kept.
    pub kept: Kept,
    /// Host that clients and peers reach it at.
    pub host: String,
    /// Port for every Redis client.
    pub port: u16,
    /// Port for cluster-aware Redis clients.
    pub cluster_port: u16,
    /// Port for peers.
    pub peer_port: u16,
    /// Port for HTTP and gRPC; 0: none. Not told over a link that has no levels.
    pub http_port: u16,
    /// Port for JSON and text, likewise.
    pub line_port: u16,
    /// How much of the data it should hold beside a node of weight 1. 0: none.
    pub weight: u16,
    /// Copies of a partition are kept in different zones where there are enough of them. Empty: a zone of its own.
    pub zone: String,
    /// The highest feature level of its build. Not told over a link that has none: then the first.
    pub level: Level,
    /// Its build's version. Empty: not told.
    pub build: String,
    /// It is there to vote, and holds no data.
    pub witness: bool,
}

/// What a node's logs have kept of what it held before it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The oldest start of which all that was acknowledged since is there: seats pass to this start from that one and any
    /// later (rule 3). The registered start itself where that is not known of an earlier one.
    pub since: Incarnation,
    /// Whether there is a log at all, though maybe without its end.
    pub log: bool,
    /// Partitions of which nothing can be used, since their part of the log has rotted or is missing; and the start that
    /// found it so. Said again at later starts, since that one may have ended before it was heard.
    pub lost: Vec<(PartitionId, Incarnation)>,
}

impl Kept {
    /// Nothing: a new directory, or logs in memory only.
    pub fn nothing(start: Incarnation) -> Kept {
        Kept { since: start, log: false, lost: Vec::new() }
    }
}

/// A change of one partition's in-sync set or primary: compare-and-set on its epoch (rule 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Change {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch that the proposer knows; at any other the change is void.
    pub epoch: Epoch,
    /// The primary that proposes.
    pub primary: NodeId,
    /// The copy that joins or leaves, or the heir.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// What becomes of it.
    pub kind: ChangeKind,
}

/// Heartbeats and what answers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub enum Beat {
    /// Node to every voter.
    Heartbeat {
        /// When it was sent, on the sender's own clock (nanoseconds); echoed in the answer.
        sent_at: u64,
        /// Set where a shard or the disk stands still: then nothing is granted.
        stalled: bool,
        /// Keys of the partitions of which it is primary.
        keys: u64,
    },
    /// Voter to node: your lease runs from when you sent that.
    Grant {
        /// The heartbeat that it answers.
        sent_at: u64,
        /// The voter's map: the grant counts once its holder acts on one as new.
        map_version: u64,
        /// The voter's wall clock, in Unix milliseconds.
        wall_ms: u64,
        /// The coordinator, as the voter knows it.
        coordinator: Option<NodeId>,
        /// Keys of each node's primaries, as the voter last heard.
        keys: Vec<(NodeId, u64)>,
    },
    /// Voter to node: nothing is granted.
    Refusal {
        /// The heartbeat that it answers.
        sent_at: u64,
        /// The voter's map.
        map_version: u64,
        /// The coordinator, as the voter knows it.
        coordinator: Option<NodeId>,
    },
}
