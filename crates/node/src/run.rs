//! Running a request on a partition of this shard, and handing its reply to whoever asked.

use crate::published::Published;
use crate::shard::{Shard, Ticket};
use bytes::Bytes;
use command::{Command, CommandError, Flags, Handler, Reply, randomkey, scan};
use replication::message::{ForwardOutcome, Forwarded};
use replication::{Message, Release, Seen, Standing};
use std::borrow::Cow;
use storage::{Footprint, Keyspace, Lent, Tailed, TailedBuffer};
use types::limits::RECORD_BYTES_MAX;
use types::planted::{self, Bug};
use types::settings::{ReadLevel, WriteLevel};
use types::{Epoch, Instant, Lsn, NodeId, PartitionId, Position, RequestId, ShardId};

/// What changes more is looked at before it is ordered: whether there is room for it.
pub(crate) const LARGE_RECORD_BYTES: usize = 1 << 20;
/// Room for so many answers is kept from turn to turn.
const RELEASED_KEPT: usize = 16 * 1024;

/// Who wants the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client of this shard.
    Client(Ticket),
    /// Another shard, which passed its client's request on.
    Peer { node: NodeId, shard: ShardId, id: RequestId, reign: Epoch },
    /// A request over several partitions, of which this is a part.
    Part { collector: u64, index: usize },
}

/// A request on one partition, as it is run.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub command: &'static Command,
    pub args: &'a [&'a [u8]],
    /// The hash of its first argument, where that is its one key and the hash is known.
    pub hash: Option<u64>,
    /// Where its arguments lie, so that a huge value need not be copied.
    pub lent: Option<&'a Lent<'a>>,
    pub read_level: ReadLevel,
    pub write_level: WriteLevel,
    /// The forwarder's number, if it was passed on.
    pub request: Option<RequestId>,
    pub origin: Origin,
    /// Until when it may wait.
    pub deadline: Instant,
    /// Whether it came by the door at which another node's key is answered with MOVED.
    pub redirects: bool,
}

/// The same, kept for later.
#[derive(Clone, Debug)]
pub(crate) struct OwnedTask {
    pub command: &'static Command,
    pub args: Vec<Bytes>,
    pub read_level: ReadLevel,
    pub write_level: WriteLevel,
    pub request: Option<RequestId>,
    pub origin: Origin,
    pub deadline: Instant,
    pub redirects: bool,
    /// Whether its connection runs nothing else until it is answered.
    pub alone: bool,
}

/// A request that waits for its partition to be served, or for room in it.
pub(crate) type Parked = OwnedTask;

/// A request whose reply waits for a commit.
#[derive(Debug)]
pub(crate) struct Waiter {
    partition: PartitionId,
    pub origin: Origin,
    reply: Held,
    /// The record that it made; its lsn is 0 where it made none.
    written: Position,
    /// Until when it may wait.
    deadline: Instant,
    /// A read, kept whole: it can simply be run again where this primary is deposed.
    again: Option<Box<OwnedTask>>,
}

/// A reply that waits for a commit. Thousands do at once, and most are short: so it is small, and the others are boxed.
#[derive(Debug)]
enum Held {
    Simple(&'static str),
    Integer(i64),
    Null,
    Other(Box<Reply<'static>>),
}

impl From<Reply<'static>> for Held {
    #[inline]
    fn from(reply: Reply<'static>) -> Held {
        match reply {
            Reply::Simple(Cow::Borrowed(text)) => Held::Simple(text),
            Reply::Integer(number) => Held::Integer(number),
            Reply::Null => Held::Null,
            reply => Held::Other(Box::new(reply)),
        }
    }
}

impl From<Held> for Reply<'static> {
    #[inline]
    fn from(held: Held) -> Reply<'static> {
        match held {
            Held::Simple(text) => Reply::simple(text),
            Held::Integer(number) => Reply::Integer(number),
            Held::Null => Reply::Null,
            Held::Other(reply) => *reply,
        }
    }
}

/// What came of an attempt to run a request here.
pub(crate) enum Outcome {
    /// The reply went to the sink.
    Replied,
    /// It went, or will go, to its origin.
    Later,
    /// This copy cannot run it now.
    NotServing,
    /// It has to wait until some of what the partition has ordered is committed.
    Crowded,
}

impl Waiter {
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline
    }
}

impl Task<'_> {
    /// Whether it may show what any copy has: then it waits for nobody.
    pub fn is_stale_read(&self) -> bool {
        !self.is_write() && self.read_level == ReadLevel::Stale
    }

    /// Whether it may overtake others, and be overtaken: a stale read, and what waits for changes.
    pub fn needs_no_order(&self) -> bool {
        self.is_stale_read() || matches!(self.command.handler, Handler::Changes)
    }

    pub fn is_write(&self) -> bool {
        self.command.is_write()
    }

    /// An argument for later: shared, where it is huge.
    pub fn kept_argument(&self, arg: &[u8]) -> Bytes {
        self.lent.and_then(|lent| lent.share(arg)).unwrap_or_else(|| Bytes::copy_from_slice(arg))
    }

    pub fn kept(&self) -> OwnedTask {
        OwnedTask {
            command: self.command,
            args: self.args.iter().map(|arg| self.kept_argument(arg)).collect(),
            read_level: self.read_level,
            write_level: self.write_level,
            request: self.request,
            origin: self.origin,
            deadline: self.deadline,
            redirects: self.redirects,
            alone: false,
        }
    }
}

impl OwnedTask {
    pub fn is_stale_read(&self) -> bool {
        !self.is_write() && self.read_level == ReadLevel::Stale
    }

    pub fn is_write(&self) -> bool {
        self.command.is_write()
    }

    /// Bytes of its arguments.
    pub fn bytes(&self) -> usize {
        self.args.iter().map(Bytes::len).sum()
    }

    /// Bytes that its arguments take in a frame, each with its length.
    pub fn frame_bytes(&self) -> usize {
        self.bytes() + self.args.len() * 5
    }

    /// Calls `run` with the task as it is run.
    pub fn with<R>(&self, run: impl FnOnce(Task<'_>) -> R) -> R {
        let args: smallvec::SmallVec<[&[u8]; 8]> = self.args.iter().map(|arg| &arg[..]).collect();
        run(Task {
            command: self.command,
            args: &args,
            hash: None,
            lent: Some(&Lent::Args(&self.args)),
            read_level: self.read_level,
            write_level: self.write_level,
            request: self.request,
            origin: self.origin,
            deadline: self.deadline,
            redirects: self.redirects,
        })
    }
}

/// Runs a command on one partition.
#[inline]
fn run_command<'t>(
    command: &'static Command,
    keyspace: &'t mut Keyspace<'_>,
    args: &[&[u8]],
) -> Result<Reply<'t>, CommandError> {
    match command.handler {
        Handler::Keys { run, .. } | Handler::Everywhere { run, .. } | Handler::Slot { run, .. } => {
            run(keyspace, args)
        }
        Handler::Scan => {
            let request = scan::parse(args)?;
            let mut found = Vec::new();
            let next = scan::run_partition(keyspace, request.cursor, &request, &mut found);
            let next = next.map_or(Reply::Null, |cursor| Reply::bulk(cursor.to_string()));
            Ok(Reply::Array(vec![next, Reply::Array(found.into_iter().map(Reply::bulk).collect())]))
        }
        Handler::RandomKey => Ok(randomkey::run_partition(keyspace, args)),
        Handler::Session(_) | Handler::Clients(_) | Handler::Wait | Handler::Listing | Handler::Changes => {
            Err(CommandError::Syntax)
        }
    }
}

fn reply_or_error(result: Result<Reply<'_>, CommandError>) -> Reply<'_> {
    result.unwrap_or_else(Reply::Error)
}

/// A record's partition and position, if there is one.
fn of_record(partition: PartitionId, written: Position) -> Option<(PartitionId, Position)> {
    (written.lsn > Lsn(0)).then_some((partition, written))
}

fn neutral(reply: &Reply<'_>) -> Tailed {
    let mut bytes = TailedBuffer::default();
    reply.encode_neutral(&mut bytes);
    bytes.finished(0)
}

impl Shard {
    /// Runs a request on this shard's copy of a partition, if that can. The sink, where there is one, gets a reply
    /// that need not wait.
    pub(crate) fn run_here(
        &mut self,
        id: PartitionId,
        task: &Task<'_>,
        sink: Option<&mut dyn FnMut(&Reply<'_>)>,
    ) -> Outcome {
        let Some(partition) = self.partitions.get_mut(id) else { return Outcome::NotServing };
        let standing = partition.standing(&self.context);
        let is_write = task.is_write();
        if matches!(task.command.handler, Handler::Wait) {
            return self.count_holders(id, task, standing);
        }
        if matches!(task.command.handler, Handler::Changes) {
            return self.show_changes(id, task, standing, sink);
        }
        if task.is_stale_read() {
            if standing == Standing::Absent {
                return Outcome::NotServing;
            }
            let footprint = Footprint::default();
            let mut keyspace = match planted::is(Bug::StaleShowsUncommitted) && standing == Standing::Serving
            {
                true => partition.begin(&self.context, &mut self.changes, &footprint),
                false => partition.committed(&self.context, &mut self.changes, &footprint),
            };
            let reply = reply_or_error(run_command(task.command, &mut keyspace, task.args));
            self.config.published.commands(self.config.shard).looked_up(footprint.looked_up());
            let reply = reply.into_owned();
            return self.hand_over(task.origin, reply, None, sink);
        }
        if standing != Standing::Serving {
            return Outcome::NotServing;
        }
        if is_write {
            if let Some(request) = task.request {
                match partition.seen(request) {
                    Seen::Never => {}
                    seen => return self.repeat(id, task, seen),
                }
            }
            let enough = partition.enough_in_sync();
            let crowded = partition.is_crowded(&self.outbox.log, self.uncommitted_bytes_max);
            if let Some(error) = self.refusal(task, enough) {
                return self.refuse_write(id, task, error, sink);
            }
            if crowded {
                return Outcome::Crowded;
            }
        }
        let Some(partition) = self.partitions.get_mut(id) else { return Outcome::NotServing };
        let footprint = Footprint::default();
        let mut keyspace = partition.begin(&self.context, &mut self.changes, &footprint);
        keyspace.lend(task.lent);
        if let (Some(hash), Some(key)) = (task.hash, task.args.get(1)) {
            keyspace.know(key, hash);
        }
        let reply = reply_or_error(run_command(task.command, &mut keyspace, task.args));
        if !is_write {
            self.config.published.commands(self.config.shard).looked_up(footprint.looked_up());
        }
        let request = task.request.filter(|_| is_write);
        if footprint.is_clean() && request.is_none() {
            // Nothing that it saw is uncommitted or about to expire: straight from the table to the wire.
            return match (sink, task.origin) {
                (Some(sink), Origin::Client(_)) => {
                    sink(&reply);
                    Outcome::Replied
                }
                (sink, origin) => {
                    let reply = reply.into_owned();
                    self.hand_over(origin, reply, None, sink)
                }
            };
        }
        let reply = reply.into_owned();
        let bytes = self.changes.body.len();
        if bytes > LARGE_RECORD_BYTES {
            let room = self
                .durability
                .logs()
                .then(|| (self.undurable_bytes + self.outbox.log.len() as u64, &*self.config.published));
            if let Some(error) = refusal_of_large(bytes, self.config.shard, room)
                && partition.take_back(&mut self.changes)
            {
                return self.refuse_write(id, task, error, sink);
            }
        }
        let request = request.map(|request| (request, neutral(&reply).into_bytes()));
        let ran =
            partition.finish(&self.context, &mut self.changes, &footprint, request, &mut self.outbox.log);
        let written = Position { epoch: partition.epoch(), lsn: ran.written };
        if ran.written > Lsn(0) && partition.wants_flush() {
            self.dirty.push(id);
        }
        let held_at_once = is_write && task.write_level == WriteLevel::One && !self.durability.logs();
        let wait = if held_at_once { Lsn(0) } else { ran.wait };
        if wait == Lsn(0) {
            return self.hand_over(task.origin, reply, of_record(id, written), sink);
        }
        let level = if is_write { task.write_level } else { WriteLevel::All };
        let again = (!is_write).then(|| Box::new(task.kept()));
        let waiter = Waiter {
            partition: id,
            origin: task.origin,
            reply: reply.into(),
            written,
            deadline: task.deadline,
            again,
        };
        partition.wait(wait, level, waiter);
        Outcome::Later
    }

    /// Why a write is not even begun. Only what a client asks for: what this copy has to apply as a backup is never refused.
    fn refusal(&self, task: &Task<'_>, enough_in_sync: bool) -> Option<CommandError> {
        let published = &self.config.published;
        let grows = task.command.flags.contains(Flags::DENYOOM);
        if grows && published.refuses_memory(self.config.settings.maxmemory.0) {
            return Some(CommandError::OutOfMemory);
        }
        if grows && self.durability.logs() && published.is_disk_full() {
            return Some(CommandError::DiskFull);
        }
        // What is left is for what has to be noted whatever comes.
        if self.durability.logs() && published.is_disk_used_up(self.config.shard) {
            return Some(CommandError::DiskFull);
        }
        (!enough_in_sync).then_some(CommandError::NoReplicas)
    }

    /// Refuses a write. A forwarded one may have been sent twice, and may not be run when it comes again: whoever asked for it
    /// is told that it was not done (rule 17).
    fn refuse_write(
        &mut self,
        id: PartitionId,
        task: &Task<'_>,
        error: CommandError,
        sink: Option<&mut dyn FnMut(&Reply<'_>)>,
    ) -> Outcome {
        let reply = Reply::Error(error);
        if let Some(request) = task.request
            && let Some(partition) = self.partitions.get_mut(id)
        {
            self.changes.clear();
            let told = Some((request, neutral(&reply).into_bytes()));
            let saw = Footprint::default();
            partition.finish(&self.context, &mut self.changes, &saw, told, &mut self.outbox.log);
        }
        self.hand_over(task.origin, reply, None, sink)
    }

    /// A forwarded write that was seen before is answered, not done again (rule 17).
    fn repeat(&mut self, id: PartitionId, task: &Task<'_>, seen: Seen) -> Outcome {
        let Some(partition) = self.partitions.get_mut(id) else { return Outcome::NotServing };
        let (lsn, bytes, changed) = match seen {
            Seen::Done(lsn, bytes) if !bytes.is_empty() => (lsn, bytes, true),
            Seen::Unchanged(lsn, bytes) if !bytes.is_empty() => (lsn, bytes, false),
            _ => return self.fail(task.origin, outcome_unknown()),
        };
        let Ok(reply) = Reply::decode_neutral(&Tailed::from(bytes)) else {
            return self.fail(task.origin, outcome_unknown());
        };
        let written = partition.log().position_at(lsn).filter(|_| changed);
        if lsn <= partition.commit() {
            return self.hand_over(task.origin, reply, written.map(|at| (id, at)), None);
        }
        let waiter = Waiter {
            partition: id,
            origin: task.origin,
            reply: reply.into(),
            written: written.unwrap_or_default(),
            deadline: task.deadline,
            again: None,
        };
        partition.wait(lsn, task.write_level.max(WriteLevel::Quorum), waiter);
        self.dirty.push(id);
        Outcome::Later
    }

    /// WAIT's question to a primary: how many backups hold this position?
    fn count_holders(&mut self, id: PartitionId, task: &Task<'_>, standing: Standing) -> Outcome {
        if standing != Standing::Serving {
            return Outcome::NotServing;
        }
        let number = |at: usize| {
            task.args.get(at).and_then(|arg| std::str::from_utf8(arg).ok()).and_then(|text| text.parse().ok())
        };
        let (Some(epoch), Some(lsn)) = (number(1), number(2)) else {
            return self.fail(task.origin, CommandError::Syntax);
        };
        let position = Position { epoch: types::Epoch(epoch), lsn: Lsn(lsn) };
        let holders = self.partitions.get(id).and_then(|partition| partition.backups_holding(position));
        let reply = match holders {
            Some(count) => Reply::count(count),
            None => Reply::Error(CommandError::OutcomeUnknown {
                why: "a write of this connection was lost with the primary that had ordered it".into(),
            }),
        };
        self.hand_over(task.origin, reply, None, None)
    }

    pub(crate) fn fail(&mut self, origin: Origin, error: CommandError) -> Outcome {
        self.hand_over(origin, Reply::Error(error), None, None)
    }

    /// Gives a reply to whoever asked.
    pub(crate) fn hand_over(
        &mut self,
        origin: Origin,
        reply: Reply<'static>,
        written: Option<(PartitionId, Position)>,
        sink: Option<&mut dyn FnMut(&Reply<'_>)>,
    ) -> Outcome {
        if let Origin::Client(ticket) = origin {
            self.remember_write(ticket.connection, written);
            if let Some(sink) = sink {
                sink(&reply);
                return Outcome::Replied;
            }
        }
        match origin {
            Origin::Client(ticket) => {
                if let Reply::Bulk(bytes) = &reply {
                    self.reply_bytes += bytes.len();
                }
                self.effects.replies.push((ticket, reply));
            }
            Origin::Part { collector, index } => {
                if let Some(connection) = self.connection_of(collector) {
                    self.remember_write(connection, written);
                }
                self.parts.push_back((collector, index, reply));
            }
            Origin::Peer { node, shard, id, reign } => {
                let mut told = neutral(&reply);
                if told.len() > RECORD_BYTES_MAX && node != self.config.identity.node {
                    told = neutral(&Reply::Error(too_large_to_pass_on("a reply")));
                }
                let outcome = ForwardOutcome::Reply { reply: told, written: written.map(|(_, at)| at) };
                self.send_outcome(node, shard, id, reign, outcome);
            }
        }
        Outcome::Later
    }

    pub(crate) fn send_outcome(
        &mut self,
        node: NodeId,
        shard: ShardId,
        id: RequestId,
        primary_since: Epoch,
        outcome: ForwardOutcome,
    ) {
        self.effects.messages.push((
            node,
            shard,
            Message::Forwarded(Forwarded { id, primary_since, outcome }),
        ));
    }

    /// For WAIT: what a connection wrote last, in each partition that has backups.
    pub(crate) fn remember_write(&mut self, connection: u64, written: Option<(PartitionId, Position)>) {
        if let Some((partition, position)) = written
            && self.has_backups
        {
            self.last_writes.note(connection, self.partition_count(), partition, position);
        }
    }

    /// Answers whose wait is over.
    pub(crate) fn release(&mut self) {
        let mut released = std::mem::take(&mut self.outbox.released);
        for (waiter, release) in released.drain(..) {
            let Waiter { partition, origin, reply, written, deadline: _, again } = waiter;
            match (release, again) {
                (Release::Committed, _) => {
                    self.hand_over(origin, reply.into(), of_record(partition, written), None);
                }
                (Release::Deposed, Some(task)) => self.start(partition, *task),
                (Release::Deposed, None) => self.unknown(origin),
                (Release::Overdue, Some(_)) => {
                    let error = self.not_served(partition);
                    self.fail(origin, error);
                }
                (Release::Overdue, None) => {
                    let why =
                        "a copy did not confirm this write in time; it may or may not take effect".into();
                    self.fail(origin, CommandError::OutcomeUnknown { why });
                }
            }
        }
        if self.outbox.released.is_empty() && released.capacity() <= RELEASED_KEPT {
            self.outbox.released = released;
        }
    }

    /// Nobody can say any more whether a write happened.
    pub(crate) fn unknown(&mut self, origin: Origin) {
        match origin {
            // The forwarder asks the next primary, which may have it in its log.
            Origin::Peer { node, shard, id, reign } => {
                self.send_outcome(node, shard, id, reign, ForwardOutcome::Unknown);
            }
            _ => {
                self.fail(origin, outcome_unknown());
            }
        }
    }
}

/// Why what a request has changed is not ordered, where that is much: how much, is known only once it has run. `room`, where the shard
/// has a log on disk: what is on its way there.
#[cold]
fn refusal_of_large(bytes: usize, shard: ShardId, room: Option<(u64, &Published)>) -> Option<CommandError> {
    if bytes > RECORD_BYTES_MAX {
        return Some(CommandError::Other(format!(
            "ERR a request changes {RECORD_BYTES_MAX} bytes of a partition at most: its keys have to come in several requests"
        )));
    }
    let has_room = room.is_none_or(|(queued, published)| published.claim_room(shard, queued, bytes as u64));
    (!has_room).then_some(CommandError::DiskFull)
}

/// What no frame between nodes can hold. The node that has the keys can be asked itself, or for fewer of them.
pub(crate) fn too_large_to_pass_on(what: &str) -> CommandError {
    CommandError::Other(format!(
        "ERR {what} of more than {RECORD_BYTES_MAX} bytes cannot be passed on from node to node: ask for fewer keys at once"
    ))
}

pub(crate) fn outcome_unknown() -> CommandError {
    CommandError::OutcomeUnknown {
        why:
            "the partition's primary changed while this write was under way; it may or may not have happened"
                .into(),
    }
}
