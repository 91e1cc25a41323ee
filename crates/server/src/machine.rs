//! The machines that this room drives, as it sees them: an event and the time go in, effects come out.
//!
//! The loops are written against these traits, so that their own tests can put a stand-in for a whole node.

use crate::clock;
use command::{CommandError, Pause, Reply, Session};
use control::message::{Beat, Change, Identity};
pub use control::{HeartEffects, HeartInput, HeartNotice};
pub use node::{Answer, DriverEffects, Effects, Preview, Request, Ticket};
use placement::ClusterMap;
use replication::message::{Message, Sender};
use std::sync::Arc;
use storage::{Disk, Rope};
use types::{Instant, NodeId, PartitionId, Position};

/// One shard of a node.
pub trait ShardMachine {
    /// A client's request. `sink` gets the reply of one that is answered at once.
    fn request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        session: &mut Session,
        request: &Request<'_>,
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Answer;
    /// Looks at a request that comes soon.
    fn preview(&self, args: &[&[u8]]) -> Preview;
    /// Fetches what the requests that were looked at need into the cache.
    fn prefetch<'r>(&self, previews: impl Iterator<Item = &'r Preview> + Clone);
    /// Which requests of clients have to wait just now.
    fn pause(&self, now: Instant) -> Pause;
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
    /// Does a little of what waits to be done beside requests. True where there is more.
    fn work(&mut self, now: Instant) -> bool;
    /// The loop's turn ends.
    fn flush(&mut self, now: Instant);
    /// The node is about to stop: it orders no more of what others can take over.
    fn retire(&mut self, now: Instant);
    /// The node has handed over, and lets its clients go.
    fn part(&mut self);
    /// Hands over the entries for its log on disk, if there are any, with the numbers of their turns: [`node::Shard::take_log`].
    fn take_log(&mut self, bytes: &mut Rope, hand_over: impl FnMut(u64, &mut Rope));
    /// The log is durable up to the entries of this turn, and reaches to this offset.
    fn logged(&mut self, now: Instant, turn: u64, offset: u64);
    /// A piece of its snapshot is written.
    fn snapshot_piece_written(&mut self);
    /// A snapshot is on disk, or could not be written.
    fn snapshot_done(&mut self, partition: PartitionId, written: bool);
    /// What it wants done, to be drained.
    fn effects(&mut self) -> &mut Effects;
    /// A turn begins: settings may have changed.
    fn refresh_settings(&mut self);
    /// The place in the command table of the request that was last given; `usize::MAX` where it was refused before it ran.
    fn command_at_hand(&mut self) -> usize;
    /// So many requests of a command were answered, each so long after it had begun.
    fn answered(&mut self, command: usize, count: u64, took_ns: u64, error: Option<&CommandError>);
    /// A request was refused before it ran.
    fn refused(&mut self, error: &CommandError);
    /// From how many nanoseconds on a request is slow.
    fn slow_ns(&self) -> u64;
    /// The request that was last given kept this thread busy for so long, which is slow.
    fn slow(&mut self, session: &Session, args: &[&[u8]], took_ns: u64);
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
    /// An operator, through a client of this node, asks for a change of the cluster.
    fn order(&mut self, now: Instant, order: control::Order);
    /// What the shards answer to [`DriverEffects::ask_tails`].
    fn tails(&mut self, now: Instant, to: NodeId, question: u64, tails: Vec<(PartitionId, Position)>);
    /// This node is about to stop: another is to be the coordinator.
    fn step_down(&mut self, now: Instant);
    /// This node is about to stop, and its shards order no more.
    fn leave(&mut self, now: Instant);
    /// What it wants done, to be drained.
    fn effects(&mut self) -> &mut DriverEffects;
}

impl ShardMachine for node::Shard {
    fn request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        session: &mut Session,
        request: &Request<'_>,
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Answer {
        node::Shard::request(self, now, ticket, session, request, sink)
    }

    fn preview(&self, args: &[&[u8]]) -> Preview {
        node::Shard::preview(self, args)
    }

    fn prefetch<'r>(&self, previews: impl Iterator<Item = &'r Preview> + Clone) {
        node::Shard::prefetch(self, previews);
    }

    fn pause(&self, now: Instant) -> Pause {
        node::Shard::pause(self, now)
    }

    fn closed(&mut self, connection: u64) {
        node::Shard::closed(self, connection);
    }

    fn message(&mut self, now: Instant, from: Sender, message: Message) {
        node::Shard::message(self, now, from, message);
    }

    fn map(&mut self, now: Instant, map: Arc<ClusterMap>) {
        node::Shard::map(self, now, map);
    }

    fn link_lost(&mut self, now: Instant, node: NodeId) {
        node::Shard::link_lost(self, now, node);
    }

    fn tails(&mut self, partitions: &[PartitionId]) -> Vec<(PartitionId, Position)> {
        node::Shard::tails(self, partitions)
    }

    fn tick(&mut self, now: Instant) {
        node::Shard::tick(self, now);
    }

    fn work(&mut self, now: Instant) -> bool {
        node::Shard::work(self, now)
    }

    fn flush(&mut self, now: Instant) {
        node::Shard::flush(self, now);
    }

    fn retire(&mut self, now: Instant) {
        node::Shard::retire(self, now);
    }

    fn part(&mut self) {
        node::Shard::part(self);
    }

    fn take_log(&mut self, bytes: &mut Rope, hand_over: impl FnMut(u64, &mut Rope)) {
        node::Shard::take_log(self, bytes, hand_over);
    }

    fn logged(&mut self, now: Instant, turn: u64, offset: u64) {
        node::Shard::logged(self, now, turn, offset);
    }

    fn snapshot_piece_written(&mut self) {
        node::Shard::snapshot_piece_written(self);
    }

    fn snapshot_done(&mut self, partition: PartitionId, written: bool) {
        node::Shard::snapshot_done(self, partition, written);
    }

    fn effects(&mut self) -> &mut Effects {
        node::Shard::effects(self)
    }

    fn refresh_settings(&mut self) {
        node::Shard::refresh_settings(self);
    }

    fn command_at_hand(&mut self) -> usize {
        node::Shard::command_at_hand(self)
    }

    fn answered(&mut self, command: usize, count: u64, took_ns: u64, error: Option<&CommandError>) {
        node::Shard::answered(self, command, count, took_ns, error);
    }

    fn refused(&mut self, error: &CommandError) {
        node::Shard::refused(self, error);
    }

    fn slow_ns(&self) -> u64 {
        node::Shard::slow_ns(self)
    }

    fn slow(&mut self, session: &Session, args: &[&[u8]], took_ns: u64) {
        node::Shard::slow(self, session, args, took_ns, clock::wall_ms());
    }
}

impl<D: Disk> ControlMachine for node::ControlDriver<D> {
    fn tick(&mut self, now: Instant) {
        node::ControlDriver::tick(self, now);
    }

    fn message(&mut self, now: Instant, from: Identity, message: control::message::Message) {
        node::ControlDriver::message(self, now, from, message);
    }

    fn notice(&mut self, now: Instant, notice: HeartNotice) {
        node::ControlDriver::notice(self, now, notice);
    }

    fn changes(&mut self, now: Instant, changes: Vec<Change>) {
        node::ControlDriver::changes(self, now, changes);
    }

    fn accept_loss(&mut self, now: Instant) {
        node::ControlDriver::accept_loss(self, now);
    }

    fn order(&mut self, now: Instant, order: control::Order) {
        node::ControlDriver::order(self, now, order);
    }

    fn tails(&mut self, now: Instant, to: NodeId, question: u64, tails: Vec<(PartitionId, Position)>) {
        node::ControlDriver::tails(self, now, to, question, tails);
    }

    fn step_down(&mut self, now: Instant) {
        node::ControlDriver::step_down(self, now);
    }

    fn leave(&mut self, now: Instant) {
        node::ControlDriver::leave(self, now);
    }

    fn effects(&mut self) -> &mut DriverEffects {
        node::ControlDriver::effects(self)
    }
}
