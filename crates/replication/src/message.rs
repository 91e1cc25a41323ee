//! What shards say to each other: records, snapshots, and requests passed on to the primary.
//!
//! Every message names the partition and the epoch under which it was sent (rule 4). The transport adds who sent it:
//! node, incarnation and shard. Messages may be lost, delayed and reordered; none is acted on twice with harm.

use crate::freshness::Committed;
use bytes::Bytes;
pub use storage::SnapshotEnd;
use storage::lent::is_huge;
use storage::{Record, Tailed};
use types::settings::{ReadLevel, WriteLevel};
use types::{Epoch, Incarnation, Lsn, NodeId, PartitionId, Position, RequestId, ShardId};

/// Who sent a message, as the transport has proved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender {
    /// The sending node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its shard.
    pub shard: ShardId,
}

/// A message from one shard to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Primary to copy: records, and how far they are committed.
    Append(Append),
    /// Copy to primary: how far it holds the primary's log.
    Appended(Appended),
    /// Primary to copy: a chunk of a snapshot.
    Chunk(Chunk),
    /// Copy to primary: which chunk it wants next.
    ChunkStored(ChunkStored),
    /// Any shard to the primary's: run this request.
    Forward(Forward),
    /// The primary's shard to the one that forwarded: what came of it.
    Forwarded(Forwarded),
    /// Primaries to their copies, all of two shards at once: how far they are committed. From [`types::Level::COMMITS_TOLD`] on.
    Committed(CommittedAt),
}

impl Message {
    /// Whether it holds a huge value. Such a message may be overtaken by others, since it is long on its way: whoever sends it
    /// sends nothing behind it that may not overtake it.
    pub fn is_huge(&self) -> bool {
        match self {
            Message::Append(append) => append.records.iter().any(|record| is_huge(record.body.len())),
            Message::Chunk(chunk) => is_huge(chunk.payload.len()),
            Message::Forward(forward) => forward.is_huge(),
            Message::Forwarded(Forwarded { outcome: ForwardOutcome::Reply { reply, .. }, .. }) => {
                is_huge(reply.len())
            }
            Message::Forwarded(_)
            | Message::Appended(_)
            | Message::ChunkStored(_)
            | Message::Committed(_) => false,
        }
    }
}

impl Forward {
    /// Whether it has a huge argument.
    pub fn is_huge(&self) -> bool {
        self.args.iter().any(|arg| is_huge(arg.len()))
    }
}

/// How far partitions are committed at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedAt {
    /// The cluster's time, in Unix milliseconds.
    pub time_ms: u64,
    /// The partitions.
    pub partitions: Vec<Committed>,
}

/// Records for a copy. Without any it is a probe, or tells the commit lsn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The partition.
    pub partition: PartitionId,
    /// The primary's epoch.
    pub epoch: Epoch,
    /// Since which epoch the sender has been primary without a break.
    pub primary_since: Epoch,
    /// The record before the first of these.
    pub prev: Position,
    /// The primary's commit lsn.
    pub commit: Lsn,
    /// The records, one after another.
    pub records: Vec<Record>,
}

/// A copy's answer to an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The partition.
    pub partition: PartitionId,
    /// The copy's epoch: newer than the primary's where it was refused for that.
    pub epoch: Epoch,
    /// What it holds.
    pub outcome: AppendOutcome,
}

/// What a copy says of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It durably holds the primary's log up to here.
    Held(Lsn),
    /// It lacks the record before; its own log ends here.
    Behind(Position),
    /// It is an empty or half-filled copy: only a snapshot helps.
    Empty,
    /// It knows a newer epoch and refused.
    Fenced,
}

/// A chunk of a partition's snapshot. Chunks of one session come in order, and fit together. Number 0 empties the copy; a session
/// that goes on with an earlier one begins with a joint ([`Chunk::joint`]) instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The partition.
    pub partition: PartitionId,
    /// The primary's epoch.
    pub epoch: Epoch,
    /// Since which epoch the sender has been primary without a break.
    pub primary_since: Epoch,
    /// Names what was cut in one go: grows under one primary.
    pub session: u64,
    /// The chunk's number, from 0; from where the copy stood where the transfer goes on after a break.
    pub index: u32,
    /// Entries, as `storage::snapshot` writes them; or a joint.
    pub payload: Tailed,
    /// Set on the last chunk.
    pub end: Option<SnapshotEnd>,
}

/// What a joint begins with. No chunk of entries does.
const JOINT_MAGIC: [u8; 2] = *b"AJ";

impl Chunk {
    /// The payload of the first chunk of a session that goes on with an earlier one: it holds no entries, and says that the chunks
    /// before this number are those of session `after`.
    pub fn joint(after: u64) -> Tailed {
        let mut payload = JOINT_MAGIC.to_vec();
        payload.extend_from_slice(&after.to_le_bytes());
        payload.into()
    }

    /// After which session it goes on, where it is a joint.
    pub fn joint_after(&self) -> Option<u64> {
        let rest = self.payload.parts().head.strip_prefix(&JOINT_MAGIC)?;
        rest.try_into().ok().map(u64::from_le_bytes)
    }
}

/// A copy's answer to a [`Chunk`]; and, where it is half filled, to an [`Append`]: there it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkStored {
    /// The partition.
    pub partition: PartitionId,
    /// The copy's epoch.
    pub epoch: Epoch,
    /// The session.
    pub session: u64,
    /// The chunk it wants next; one past the last when it has all.
    pub next: u32,
}

/// A request passed on to a partition's primary. Once only: whoever gets it runs it or refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The forwarder's number for it.
    pub id: RequestId,
    /// The partition that it runs on.
    pub partition: PartitionId,
    /// The reign of the primary that it is meant for (`PartitionState::primary_since`); another's refuses it.
    pub primary_since: Epoch,
    /// When to acknowledge, if it writes.
    pub write_level: WriteLevel,
    /// What to show, if it reads.
    pub read_level: ReadLevel,
    /// The request, its command's name first.
    pub args: Vec<Bytes>,
}

/// What came of a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The forwarder's number for it.
    pub id: RequestId,
    /// The reign that the request was meant for. One that was sent anew, for a later reign, is not answered by this.
    pub primary_since: Epoch,
    /// The outcome.
    pub outcome: ForwardOutcome,
}

/// The outcome of a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// It was run and may be told of.
    Reply {
        /// The reply, in `command::Reply`'s neutral encoding.
        reply: Tailed,
        /// Where its change stands in the log, if it made one: for WAIT.
        written: Option<Position>,
    },
    /// It was surely not ordered: it may be sent again.
    NotOrdered,
    /// It may or may not have happened.
    Unknown,
}
