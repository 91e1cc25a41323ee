//! What the threads of a node post to each other.

use crate::desk::Asked;
use crate::link::LinkMail;
use crate::machine::{HeartInput, HeartNotice};
use crate::mailbox::Post;
use command::{ClientAnswer, ClientOrder, Door};
use control::message::{Change, Order};
use placement::ClusterMap;
use replication::message::{Message, Sender};
use std::net::TcpStream;
use std::sync::Arc;
use types::{Endpoint, Instant, NodeId, PartitionId, Position, ShardId};

/// A letter to a thread.
#[derive(Debug)]
pub enum Mail {
    /// To any: a link was made, or could not be.
    Link(LinkMail),
    /// To a shard: a client's connection.
    Client(TcpStream, Door),
    /// To a shard: what a door on the runtime asks.
    Asked(Asked),
    /// To a shard: what another shard of this node said in one turn.
    Shard(Sender, Vec<Message>),
    /// To a shard: a newer map.
    Map(Arc<ClusterMap>),
    /// To the control plane: changes that a shard proposes.
    Changes(Vec<Change>),
    /// To the control plane: an operator accepts a loss.
    AcceptLoss,
    /// To the control plane: what an operator asks of the cluster.
    Order(Order),
    /// To the control plane, from the heart.
    Notices(Vec<HeartNotice>),
    /// To the heart, from the control plane.
    Inputs(Vec<HeartInput>),
    /// To a shard: a node's coordinator asks how far the logs of these partitions reach.
    AskTails(NodeId, u64, Arc<[PartitionId]>),
    /// To the control plane: a shard's part of the answer.
    Tails(NodeId, u64, Vec<(PartitionId, Position)>),
    /// To a shard: a client of another shard of this node asks this of all connections. The answer goes to that shard,
    /// with the number.
    ClientOrder(ShardId, u64, ClientOrder),
    /// To a shard: another's answer.
    ClientAnswer(u64, ClientAnswer),
    /// To a shard: its log is durable up to the entries of this turn, and reaches to this offset.
    Logged(u64, u64),
    /// To a shard: a piece of its snapshot is written.
    SnapshotPiece,
    /// To a shard: a snapshot is on disk, or could not be written.
    SnapshotDone(PartitionId, bool),
    /// To the control plane: the node is about to stop, and another is to be the coordinator.
    StepDown,
    /// To a shard: the node is about to stop, and hands over what it can.
    Retire,
    /// To the control plane: the shards order no more.
    Leave,
    /// To a shard: the node stops, and lets its clients go, each when nothing of it is under way; all of them by then.
    Part(Instant),
    /// To any: finish.
    Stop,
}

/// The letter boxes of this node's threads.
#[derive(Clone, Debug)]
pub struct Threads {
    /// Of the shards, by number.
    pub shards: Vec<Post<Mail>>,
    /// Of the control plane.
    pub control: Post<Mail>,
    /// Of the heart.
    pub heart: Post<Mail>,
}

impl Threads {
    /// The letter box of a thread; none where this node has no such shard.
    pub fn post(&self, endpoint: Endpoint) -> Option<&Post<Mail>> {
        match endpoint {
            Endpoint::Shard(shard) => self.shards.get(usize::from(shard.0)),
            Endpoint::Control => Some(&self.control),
            Endpoint::Heart => Some(&self.heart),
        }
    }
}
