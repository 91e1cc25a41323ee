//! A client's request: what it is, where it belongs, and what to do where nobody serves it just now.

use crate::account::AtHand;
use crate::host::NodeHost;
use crate::published::ShardCounters;
use crate::run::{Origin, Outcome, OwnedTask, Parked, Task};
use crate::shard::{Answer, SETTLING, SETTLING_PARTING, Shard, Ticket};
use command::{
    Command, CommandError, Door, Flags, Handler, KeySpec, Over, Reply, Scope, Session, resolve, resolve_from,
};
use placement::PartitionState;
use std::collections::VecDeque;
use storage::{Lent, Table};
use types::planted::{self, Bug};
use types::settings::ReadLevel;
use types::{Instant, Level, NodeId, PartitionId, Slot, partition_of_key, partition_of_slot, slot_of_key};

/// Requests of one shard that may wait for partitions that nobody serves.
const PARKED_MAX: usize = 200_000;
/// Once parked requests have made replies of so many bytes, the others wait for the next tick: a thousand requests for
/// a large value must not be a thousand copies of it at once.
pub(crate) const REPLY_BYTES_A_TURN: usize = 64 * 1024 * 1024;

/// What was found out of a request before it is run, by [`Shard::preview`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Preview {
    /// The command that its first word names.
    command: Option<&'static Command>,
    /// The partition of its key, where the command has just one.
    partition: Option<PartitionId>,
    /// That key's hash, where the partition is here.
    hash: Option<u64>,
}

/// A client's request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its arguments, its command's name first.
    pub args: &'a [&'a [u8]],
    /// What [`Shard::preview`] found of them; a default one will do, but costs more.
    pub preview: Preview,
    /// Where they lie, so that a huge value need not be copied.
    pub lent: Option<&'a Lent<'a>>,
}

impl Preview {
    /// Whether the request takes little time, unless it or its reply is long.
    pub fn is_quick(&self) -> bool {
        self.partition.is_some()
            && self
                .command
                .is_some_and(|command| command.flags.contains(Flags::FAST) || command.name == "set")
    }
}

/// Whether keys of one partition are taken apart, too. Never, but where that bug is planted.
fn tears_apart(over: Over, task: &Task<'_>) -> bool {
    planted::is(Bug::TearsApart)
        && matches!(over, Over::Split(_))
        && task.command.key_positions(task.args).count() > 1
}

impl Shard {
    /// A client's request. The sink gets a reply that need not wait.
    ///
    /// `now` must have been read after the request's bytes were: a lease that ran then covers whatever the table says
    /// afterwards, however long the process was paused in between, because the table changes only in this thread.
    pub fn request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        session: &mut Session,
        request: &Request<'_>,
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Answer {
        self.at(now);
        let asking = std::mem::take(&mut session.asking);
        self.at_hand = AtHand { command: None, rejected: true };
        let answer = match self.dispatch(ticket, session, request, sink) {
            Ok(answer) => {
                self.at_hand.rejected = false;
                answer
            }
            Err(error) => {
                sink(&Reply::Error(error));
                Answer::Now
            }
        };
        // ASKING holds for one command, and is itself one.
        session.asking &= !asking;
        ShardCounters::add(&self.counters().commands, 1);
        answer
    }

    /// Looks at a request that comes soon: finds its command and its partition, and fetches that partition into the
    /// cache. What it found is given to [`Shard::request`].
    pub fn preview(&self, args: &[&[u8]]) -> Preview {
        let Some(command) = args.first().and_then(|name| command::lookup(name)) else {
            return Preview::default();
        };
        let mut preview = Preview { command: Some(command), ..Preview::default() };
        let partitions = self.partition_count();
        if command.keys != KeySpec::ONE || partitions == 0 {
            return preview;
        }
        let Some(key) = args.get(1) else { return preview };
        let id = partition_of_key(key, partitions);
        preview.partition = Some(id);
        if let Some(partition) = self.partitions.get(id) {
            partition.prefetch();
            if self.notes_writes() && command.is_write() {
                partition.prefetch_for_write();
            }
            preview.hash = Some(self.hasher.hash(key));
        }
        preview
    }

    /// Fetches the entries of requests that were looked at into the cache, and where writes will be noted. Each step reads what the one
    /// before has fetched, so all of them take one before the first takes the next.
    pub fn prefetch<'r>(&self, previews: impl Iterator<Item = &'r Preview> + Clone) {
        let keys = previews.clone().filter_map(|preview| {
            let partition = self.partitions.get(preview.partition?)?;
            Some((partition.table(), preview.hash?))
        });
        keys.clone().for_each(|(table, hash)| table.prefetch_index(hash));
        Table::prefetch_all(keys);
        if self.notes_writes() {
            let is_write = |preview: &&Preview| preview.command.is_some_and(Command::is_write);
            for id in previews.filter(is_write).filter_map(|preview| preview.partition) {
                if let Some(partition) = self.partitions.get(id) {
                    partition.prefetch_next();
                }
            }
        }
    }

    /// Whether writes are noted until they are committed, rather than committed at once.
    fn notes_writes(&self) -> bool {
        self.durability.logs() || self.has_backups
    }

    fn dispatch(
        &mut self,
        ticket: Ticket,
        session: &mut Session,
        request: &Request<'_>,
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Result<Answer, CommandError> {
        let Request { args, preview, lent } = *request;
        self.at_hand.command = preview.command;
        let resolved = match preview.command {
            Some(command) => resolve_from(command, args),
            None => resolve(args),
        };
        if let Ok(command) = &resolved {
            self.at_hand.command = Some(command);
        }
        let command = match resolved {
            // A stranger learns nothing of the table but that a password is needed.
            Err(_) if !session.authenticated => return Err(CommandError::NoAuth),
            other => other?,
        };
        if !session.authenticated && !command.flags.contains(Flags::NO_AUTH) {
            return Err(CommandError::NoAuth);
        }
        command::check_session(session, command)?;
        command::check_rights(session, command, &self.config.settings)?;
        session.last_command = Some(command);
        if let Handler::Session(run) = command.handler {
            // Whatever it says from here on, it was run.
            self.at_hand.rejected = false;
            let mut host = NodeHost { shard: self };
            let reply = run(session, &mut host, args)?;
            sink(&reply);
            return Ok(Answer::Now);
        }
        if let Handler::Clients(order) = command.handler {
            self.effects.client_orders.push((ticket, session.id, order(session, args)?));
            return Ok(Answer::Later);
        }
        if self.context.map.partitions.is_empty() {
            return Err(CommandError::ClusterDown { why: "the cluster is still forming".into() });
        }
        let task = Task {
            command,
            args,
            hash: preview.hash,
            lent,
            read_level: session.effective_read_level(),
            write_level: session.write_level,
            request: None,
            origin: Origin::Client(ticket),
            deadline: self.context.now + self.config.settings.request_timeout(),
            redirects: session.door == Door::Cluster,
        };
        let scope = session.door.scope();
        match command.handler {
            Handler::Keys { over, .. } => match preview.partition {
                Some(id) => self.on_one(id, &task, sink),
                None => self.over_keys(over, &task, sink),
            },
            Handler::Slot { at, .. } => self.on_one(self.partition_of_argument(args, at)?, &task, sink),
            Handler::Changes => {
                if !self.context.map.has(Level::CHANGES_SHOWN) {
                    let why =
                        "a node of an older build is in the cluster, which does not know CHANGES".into();
                    return Err(CommandError::TryAgain { why });
                }
                // Only the primary knows what is committed.
                let task = Task { read_level: ReadLevel::Linearizable, ..task };
                self.on_one(self.partition_of_argument(args, 1)?, &task, sink)
            }
            Handler::Everywhere { merge, .. } => {
                self.everywhere(merge, scope, &task);
                Ok(Answer::Alone)
            }
            Handler::Listing => self.list(scope, &task).map(|()| Answer::Alone),
            Handler::Scan => self.scan(scope, &task).map(|()| Answer::Later),
            Handler::RandomKey => {
                self.random_key(scope, &task);
                Ok(Answer::Later)
            }
            Handler::Wait => self.wait_for_backups(&task).map(|()| Answer::Later),
            Handler::Session(_) | Handler::Clients(_) => Err(CommandError::Syntax),
        }
    }

    /// Whether a command over all keys, asked with this scope, speaks of a partition.
    pub(crate) fn speaks_of(&self, scope: Scope, state: &PartitionState) -> bool {
        in_scope(scope, self.config.identity.node, state)
    }

    pub(crate) fn partition_count(&self) -> u16 {
        self.context.map.partitions.len() as u16
    }

    /// The partition of the slot that an argument names.
    fn partition_of_argument(&self, args: &[&[u8]], at: usize) -> Result<PartitionId, CommandError> {
        let slot = args.get(at).and_then(|arg| std::str::from_utf8(arg).ok()?.parse::<u16>().ok());
        let slot = slot.filter(|&slot| slot < types::SLOTS);
        let slot = slot.ok_or_else(|| CommandError::Other("ERR Invalid slot".into()))?;
        Ok(partition_of_slot(Slot(slot), self.partition_count()))
    }

    /// A request with keys: on one partition, or split over several (rule 18).
    fn over_keys(
        &mut self,
        over: Over,
        task: &Task<'_>,
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Result<Answer, CommandError> {
        let partitions = self.partition_count();
        let mut keys = task.command.key_positions(task.args);
        let Some(first) = keys.next() else { return Err(CommandError::Syntax) };
        let first_slot = slot_of_key(task.args[first]);
        let id = partition_of_slot(first_slot, partitions);
        let mut same_slot = true;
        let mut same_partition = true;
        for at in keys {
            let slot = slot_of_key(task.args[at]);
            same_slot &= slot == first_slot;
            same_partition &= partition_of_slot(slot, partitions) == id;
        }
        // Cluster-aware clients split by slot themselves, as with Redis.
        if task.redirects && !same_slot {
            return Err(CommandError::CrossSlot);
        }
        match over {
            _ if same_partition && !tears_apart(over, task) => self.on_one(id, task, sink),
            Over::One => Err(CommandError::CrossSlot),
            Over::Split(merge) => {
                let crowd = self.crowd.count;
                self.split(merge, task);
                Ok(if self.crowd.count > crowd { Answer::Alone } else { Answer::Later })
            }
        }
    }

    /// A client's request on one partition.
    #[inline]
    fn on_one(
        &mut self,
        id: PartitionId,
        task: &Task<'_>,
        sink: &mut dyn FnMut(&Reply<'_>),
    ) -> Result<Answer, CommandError> {
        let ordered = !task.is_stale_read();
        if ordered && (self.parked.contains_key(&id) || self.lanes.contains_key(&id)) {
            // Others wait for this partition, and came first.
            self.start(id, task.kept());
            return Ok(Answer::Later);
        }
        if self.crowd.count > 0 && self.crowd.is_ahead_of(id, task) {
            self.crowd_in(id, OwnedTask { alone: true, ..task.kept() });
            return Ok(Answer::Alone);
        }
        match self.run_here(id, task, Some(sink)) {
            Outcome::Replied => Ok(Answer::Now),
            Outcome::Later => Ok(Answer::Later),
            Outcome::NotServing => {
                if let Some(moved) = self.moved(id, task) {
                    return Err(moved);
                }
                self.start(id, task.kept());
                Ok(Answer::Later)
            }
            Outcome::Crowded => {
                self.crowd_in(id, OwnedTask { alone: true, ..task.kept() });
                Ok(Answer::Alone)
            }
        }
    }

    /// The redirection for a key of another node, at the door for cluster-aware clients (rule 19).
    fn moved(&self, id: PartitionId, task: &Task<'_>) -> Option<CommandError> {
        let (node, _, _) = self.primary_of(id).filter(|_| task.redirects)?;
        if node == self.config.identity.node || self.passes_on(id) {
            return None;
        }
        if task.is_stale_read() && self.has_backup(id) {
            return None;
        }
        let member = self.context.map.member(node)?;
        let slot = match task.command.key_positions(task.args).next() {
            Some(at) => slot_of_key(task.args[at]),
            None => types::slots_of_partition(id, self.partition_count()).0,
        };
        Some(CommandError::Moved {
            slot: slot.0,
            address: format!("{}:{}", member.host, member.cluster_port),
        })
    }

    /// Whether requests for this partition are passed on though another node's are redirected: it moved a moment ago.
    fn passes_on(&self, id: PartitionId) -> bool {
        let settling = if self.parting { SETTLING_PARTING } else { SETTLING };
        self.moved_at.get(&id).is_some_and(|at| self.context.now.since(*at) < settling)
    }

    /// Whether this node, on whatever shard, holds an in-sync copy.
    fn has_backup(&self, id: PartitionId) -> bool {
        self.context.map.partition(id).is_some_and(|state| state.in_sync.contains(self.config.identity.node))
    }

    /// Starts a request that is kept: here, elsewhere, or once somebody serves its partition.
    pub(crate) fn start(&mut self, id: PartitionId, task: OwnedTask) {
        if self.parked.contains_key(&id) && !task.is_stale_read() {
            self.park(id, task);
        } else {
            self.try_start(id, task);
        }
    }

    fn try_start(&mut self, id: PartitionId, task: OwnedTask) {
        if let Some(moved) = task.with(|task| self.moved(id, &task)) {
            self.fail(task.origin, moved);
            return;
        }
        let stale_here = task.is_stale_read() && self.has_backup(id);
        let own_shard = self.context.map.shard_of(self.config.identity.node, id);
        match self.primary_of(id) {
            // Passed on before it moved here, and not answered: those come first.
            Some((node, shard, _)) if self.is_mine(node, shard) && self.lanes.contains_key(&id) => {
                self.forward(id, task);
            }
            Some((node, shard, _)) if self.is_mine(node, shard) => self.run_or_park(id, task),
            _ if stale_here && own_shard == Some(self.config.shard) => self.run_or_park(id, task),
            _ if stale_here && !matches!(task.origin, Origin::Peer { .. }) => {
                self.forward_to_own_copy(id, task)
            }
            Some(_) if !matches!(task.origin, Origin::Peer { .. }) => self.forward(id, task),
            Some(_) => {
                // Passed on once already: whoever did finds the primary itself.
                self.unknown(task.origin);
            }
            None => self.park(id, task),
        }
    }

    fn run_or_park(&mut self, id: PartitionId, task: OwnedTask) {
        if task.with(|task| self.crowd.is_ahead_of(id, &task)) {
            return self.crowd_in(id, task);
        }
        match task.with(|task| self.run_here(id, &task, None)) {
            Outcome::NotServing => self.park(id, task),
            Outcome::Crowded => self.crowd_in(id, task),
            Outcome::Replied | Outcome::Later => {}
        }
    }

    fn park(&mut self, id: PartitionId, task: Parked) {
        if self.parked_count >= PARKED_MAX {
            let why = "too many requests of this node wait for partitions that nobody serves just now".into();
            self.fail(task.origin, CommandError::TryAgain { why });
            return;
        }
        self.parked_count += 1;
        self.parked.entry(id).or_default().push_back(task);
    }

    /// Tries again whatever waits for a partition.
    pub(crate) fn retry_parked(&mut self) {
        for id in self.parked.keys().copied().collect::<Vec<_>>() {
            self.retry_parked_of(id);
        }
    }

    /// Tries again what waits for this partition, in order, and ends what has waited too long.
    pub(crate) fn retry_parked_of(&mut self, id: PartitionId) {
        let now = self.context.now;
        let Some(queue) = self.parked.remove(&id) else { return };
        self.parked_count -= queue.len();
        let (over, mut queue): (VecDeque<Parked>, VecDeque<Parked>) =
            queue.into_iter().partition(|task| now >= task.deadline);
        for task in over {
            let error = self.not_served(id);
            self.fail(task.origin, error);
        }
        while let Some(task) = queue.pop_front() {
            self.try_start(id, task);
            if self.parked.contains_key(&id) || self.reply_bytes > REPLY_BYTES_A_TURN {
                break;
            }
        }
        // What parked itself again came before those that were not tried.
        if let Some(again) = self.parked.remove(&id) {
            self.parked_count -= again.len();
            queue = again.into_iter().chain(queue).collect();
        }
        if !queue.is_empty() {
            self.parked_count += queue.len();
            self.parked.insert(id, queue);
        }
    }

    pub(crate) fn not_served(&self, id: PartitionId) -> CommandError {
        not_served(&self.context.map, id)
    }
}

/// Whether a command over all keys, asked of this node with this scope, speaks of a partition.
pub(crate) fn in_scope(scope: Scope, node: NodeId, state: &PartitionState) -> bool {
    match scope {
        Scope::Cluster => true,
        Scope::Primaries => state.primary == Some(node),
        Scope::Held => state.in_sync.contains(node),
    }
}

/// Why nobody serves a partition, for whoever waited for it in vain.
fn not_served(map: &placement::ClusterMap, id: PartitionId) -> CommandError {
    match map.partition(id) {
        Some(state) if state.primary.is_some() => CommandError::TryAgain {
            why: format!(
                "partition {id} is not served just now: its primary holds no lease, or this node cannot reach it"
            )
            .into(),
        },
        Some(state) if state.in_sync.is_empty() && state.epoch.0 > 0 => CommandError::ClusterDown {
            why: format!(
                "every in-sync copy of partition {id} is gone for good; an operator may accept the loss: \
                 annulet accept-loss"
            )
            .into(),
        },
        _ => CommandError::ClusterDown { why: format!("no in-sync copy of partition {id} is alive").into() },
    }
}
