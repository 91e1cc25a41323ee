//! The machines that this room drives, as it sees them: an event and the time go in, effects come out.
//!
//! The loops are written against these traits, so that their own tests can put a stand-in for a whole node.

use command::{Reply, Session};
use control::message::{Beat, Change, Identity};
pub use control::{HeartEffects, HeartInput, HeartNotice};
use placement::ClusterMap;
use replication::message::{Message, Sender};
use std::sync::Arc;
use types::{Instant, NodeId, PartitionId, Position, ShardId};

/// Until room `node` has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The connection.
    pub connection: u64,
    /// The request's number on it.
    pub sequence: u64,
}

/// Until room `node` has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sink was called.
    Now,
    /// A reply with the ticket comes among the effects.
    Later,
}

/// Until room `node` has its own.
#[derive(Debug, Default)]
pub struct Effects {
    /// Replies.
    pub replies: Vec<(Ticket, Reply<'static>)>,
    /// Messages.
    pub messages: Vec<(NodeId, ShardId, Message)>,
    /// Changes.
    pub changes: Vec<Change>,
    /// An operator accepts a loss.
    pub accept_loss: bool,
}

/// Until room `node` has its own.
#[derive(Debug, Default)]
pub struct ControlEffects {
    /// Messages.
    pub messages: Vec<(NodeId, control::message::Message)>,
    /// The newest map.
    pub map: Option<Arc<ClusterMap>>,
    /// To the heart.
    pub to_heart: Vec<HeartInput>,
    /// Who asks how far the logs of these partitions reach, and the number of the question.
    pub ask_tails: Vec<(NodeId, u64, Vec<PartitionId>)>,
}

/// One shard of a node.
pub trait ShardMachine {
    /// A client's request. `sink` gets the reply of one that is answered at once.
    fn request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        session: &mut Session,
        args: &[&[u8]],
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Answer;
    /// A request that comes soon: its keys may be fetched into the cache.
    fn prefetch(&mut self, args: &[&[u8]]);
    /// A connection is gone: what it waited for needs no reply.
    fn closed(&mut self, connection: u64);
    /// A message from another shard.
    fn message(&mut self, now: Instant, from: Sender, message: Message);
    /// A newer cluster map.
    fn map(&mut self, now: Instant, map: Arc<ClusterMap>);
    /// Messages to or from a node have been lost.
    fn link_lost(&mut self, now: Instant, node: NodeId);
    /// How far its logs of these partitions reach; without those that lie on other shards.
    fn tails(&mut self, partitions: &[PartitionId]) -> Vec<(PartitionId, Position)>;
    /// Time has passed.
    fn tick(&mut self, now: Instant);
    /// The loop's turn ends.
    fn flush(&mut self, now: Instant);
    /// What it wants done, to be drained.
    fn effects(&mut self) -> &mut Effects;
}

/// A node's heart.
pub trait HeartMachine {
    /// Time has passed.
    fn tick(&mut self, now: Instant, wall_ms: u64);
    /// A heartbeat, or the answer to one.
    fn beat(&mut self, now: Instant, wall_ms: u64, from: Identity, beat: Beat);
    /// Word from this node's control plane.
    fn input(&mut self, now: Instant, input: HeartInput);
    /// What it wants done, to be drained.
    fn effects(&mut self) -> &mut HeartEffects;
}

/// A node's part of the control plane. Its calls may block on the disk.
pub trait ControlMachine {
    /// Time has passed.
    fn tick(&mut self, now: Instant);
    /// A message from another node's control plane.
    fn message(&mut self, now: Instant, from: Identity, message: control::message::Message);
    /// Word from this node's heart.
    fn notice(&mut self, now: Instant, notice: HeartNotice);
    /// Changes of in-sync sets that this node's shards propose.
    fn changes(&mut self, now: Instant, changes: Vec<Change>);
    /// An operator, through a client of this node, accepts the loss of partitions whose every log is gone.
    fn accept_loss(&mut self, now: Instant);
    /// What the shards answer to [`ControlEffects::ask_tails`].
    fn tails(&mut self, now: Instant, to: NodeId, question: u64, tails: Vec<(PartitionId, Position)>);
    /// What it wants done, to be drained.
    fn effects(&mut self) -> &mut ControlEffects;
}
