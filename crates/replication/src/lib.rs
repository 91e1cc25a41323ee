//! One partition's copies: the primary's machine and the backup's, and what they say to each other.
//!
//! A [`Partition`] is one node's copy of one partition: its table, its log, and a role that the cluster map gives it.
//!
//! - As **primary** ([`primary`]) it runs requests on the table, orders their effects as records, sends the records to
//!   the other copies, and commits what every member of the required set holds (rules 1, 2, 5). It brings copies that
//!   come back up to date, from the log or by a snapshot ([`transfer`]), and proposes their joining (rules 3, 9). Told to by the map, it
//!   hands over to another in-sync copy ([`hand_over`], rule 10).
//! - As **backup** ([`backup`]) it logs what the primary sends, without gaps and under the newest epoch only (rule 4),
//!   and applies what is committed (rule 13).
//!
//! Everything is an event in (a map, a message, a request, time) and effects out ([`Outbox`]). Nothing here does I/O,
//! reads a clock or decides who is primary: that is the control plane's, and arrives as a map.
//!
//! When a record is durable is a setting ([`Durability`]): once it stands in the log in memory (`log = off`), or once
//! [`Partition::on_durable`] has said that it stands in the log on disk. What is to be written gathers in a [`LogTurn`]; reading
//! it back after a restart is [`recovery`]'s.

mod backup;
mod freshness;
mod hand_over;
mod history;
mod log_turn;
pub mod message;
mod partition;
mod peer;
mod primary;
pub mod recovery;
mod requests;
mod transfer;

pub use freshness::Committed;
pub use hand_over::HandOvers;
pub use log_turn::{Durability, LogTurn, Tail};
pub use message::{Message, Sender};
pub use partition::{Partition, Ran, Standing};
pub use requests::Seen;
pub use transfer::Transfers;

use placement::{ChangeKind, ClusterMap};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{Epoch, Incarnation, Instant, NodeId, PartitionId, ShardId};

/// The size of a chunk of a snapshot that is sent to another copy, in bytes.
pub const CHUNK_BYTES: usize = 128 * 1024;

/// What a partition is told with each event.
#[derive(Clone, Debug)]
pub struct Context {
    /// This machine's monotonic clock, read after the event's bytes were.
    pub now: Instant,
    /// Until when this node holds a lease, on the same clock.
    pub lease_until: Instant,
    /// The cluster's time, in Unix milliseconds; none before the voters have told it.
    pub clock_ms: Option<u64>,
    /// The map that the node acts on.
    pub map: Arc<ClusterMap>,
    /// How many more snapshots this shard may send at once.
    pub snapshots_free: usize,
    /// The size of their chunks, in bytes: [`CHUNK_BYTES`].
    pub chunk_bytes: usize,
    /// How long a backup may hold up writes before its primary proposes to remove it.
    pub evict: std::time::Duration,
    /// Bytes of records that the shard sends a node ahead of what that has confirmed.
    pub ahead_bytes_max: usize,
}

impl Context {
    /// Whether the node's lease runs.
    pub fn leased(&self) -> bool {
        self.now < self.lease_until
    }
}

/// A change of its partition that a primary proposes (rules 3 and 10): compare-and-set on the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSyncChange {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch that the primary knows.
    pub epoch: Epoch,
    /// The copy that joins or leaves, or the heir.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// What becomes of it.
    pub kind: ChangeKind,
}

/// What became of a request that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// What it saw and did is committed, as far as its level asks.
    Committed,
    /// It has waited too long. What the request wrote stands in the log, and may yet be committed.
    Overdue,
    /// This copy is not the primary any more. What the request wrote may or may not have happened.
    Deposed,
}

/// What partitions want done. `W` is whatever the node attaches to a waiting request.
#[derive(Debug)]
pub struct Outbox<W> {
    /// To other nodes' shards.
    pub messages: Vec<(NodeId, ShardId, Message)>,
    /// Changes of in-sync sets and primaries, for the coordinator.
    pub changes: Vec<InSyncChange>,
    /// Requests that need not wait any longer.
    pub released: Vec<(W, Release)>,
    /// For the shard's log on disk.
    pub log: LogTurn,
    /// What became of hand-overs.
    pub hand_overs: HandOvers,
    /// Bytes of records that each node was sent and has not confirmed, over the shard's partitions.
    pub ahead: BTreeMap<NodeId, usize>,
    /// What became of transfers.
    pub transfers: Transfers,
}

impl<W> Default for Outbox<W> {
    fn default() -> Self {
        Outbox {
            messages: Vec::new(),
            changes: Vec::new(),
            released: Vec::new(),
            log: LogTurn::default(),
            hand_overs: HandOvers::default(),
            ahead: BTreeMap::new(),
            transfers: Transfers::default(),
        }
    }
}
