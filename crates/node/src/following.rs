//! CHANGES: what was committed in a partition behind a place in its log.
//!
//! Where there is nothing of interest yet, the request waits here, at the partition's primary, until something is committed or its time
//! is over; then whoever follows asks again, from the place that it was told. So a follower is sent no more than it asks for, and
//! what it has not asked for is kept by nobody but the log ([`replication`]'s history).
//!
//! A request that waits has no place among the requests whose order counts: it is in no [`crate::forward`] lane.

use crate::request::REPLY_BYTES_A_TURN;
use crate::run::{Origin, Outcome, OwnedTask, Task};
use crate::shard::Shard;
use command::changes::{ChangesRequest, Since, Which, change, go_on, parse, reply};
use command::{CommandError, Handler, Reply};
use replication::message::ForwardOutcome;
use replication::{Partition, Standing};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use storage::effect::effects;
use types::{Instant, Lsn, PartitionId, Position};

/// Requests of one shard that may wait for changes.
const FOLLOWERS_MAX: usize = 200_000;
/// How often those that wait are looked at for whether their time is over.
const LOOKS: Duration = Duration::from_millis(20);

/// Requests that wait for something to be committed.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    waiting: BTreeMap<PartitionId, Waiting>,
    count: usize,
    /// How many of each connection: most that is closed has none.
    of_connections: HashMap<u64, usize>,
    look_at: Instant,
}

/// Those of one partition.
#[derive(Debug, Default)]
struct Waiting {
    followers: Vec<Follower>,
    /// Up to where all of them were looked for when something was last committed.
    seen: Lsn,
}

#[derive(Debug)]
struct Follower {
    task: OwnedTask,
    /// Up to here it has been looked for.
    place: Position,
    until: Instant,
}

impl Followers {
    pub fn has(&self, id: PartitionId) -> bool {
        self.count > 0 && self.waiting.contains_key(&id)
    }

    fn add(&mut self, id: PartitionId, follower: Follower) {
        self.count += 1;
        if let Some(connection) = follower.connection() {
            *self.of_connections.entry(connection).or_default() += 1;
        }
        self.waiting.entry(id).or_default().followers.push(follower);
    }

    fn take(&mut self, id: PartitionId) -> Vec<Follower> {
        let taken = self.waiting.remove(&id).unwrap_or_default().followers;
        self.count -= taken.len();
        for connection in taken.iter().filter_map(Follower::connection) {
            self.leave(connection);
        }
        taken
    }

    fn leave(&mut self, connection: u64) {
        if let Some(count) = self.of_connections.get_mut(&connection) {
            *count -= 1;
            if *count == 0 {
                self.of_connections.remove(&connection);
            }
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, connection: u64) {
        if self.of_connections.remove(&connection).is_none() {
            return;
        }
        self.waiting.retain(|_, waiting| {
            waiting.followers.retain(|follower| follower.connection() != Some(connection));
            !waiting.followers.is_empty()
        });
        self.count = self.waiting.values().map(|waiting| waiting.followers.len()).sum();
    }
}

impl Follower {
    fn connection(&self) -> Option<u64> {
        match self.task.origin {
            Origin::Client(ticket) => Some(ticket.connection),
            Origin::Peer { .. } | Origin::Part { .. } => None,
        }
    }
}

impl OwnedTask {
    /// How long it may wait on purpose where it is run.
    pub fn waits_on_purpose(&self) -> Duration {
        match self.command.handler {
            Handler::Changes => command::changes::BLOCK_MAX,
            _ => Duration::ZERO,
        }
    }
}

/// What is of interest behind a place, and up to where it was looked for.
fn found_behind<W>(
    partition: &Partition<W>,
    mut place: Position,
    request: &ChangesRequest<'_>,
) -> (Position, Vec<Reply<'static>>) {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for record in partition.committed_behind(place) {
        place = record.position;
        let of_interest = effects(&record.body).flatten().filter(|effect| request.which.takes(effect.key()));
        let before = found.len();
        found.extend(of_interest.map(|effect| change(&effect)));
        if found.len() > before {
            bytes += record.body.len();
        }
        if bytes >= request.bytes.max(1) {
            break;
        }
    }
    (place, found)
}

/// The bytes of what was found.
fn bytes_of(found: &[Reply<'_>]) -> usize {
    let of = |part: &Reply<'_>| if let Reply::Bulk(bytes) = part { bytes.len() } else { 0 };
    let parts = found.iter().filter_map(|change| match change {
        Reply::Array(parts) => Some(parts),
        _ => None,
    });
    parts.flatten().map(of).sum()
}

impl Shard {
    /// Answers a CHANGES, or lets it wait.
    pub(crate) fn show_changes(
        &mut self,
        id: PartitionId,
        task: &Task<'_>,
        standing: Standing,
        sink: Option<&mut dyn FnMut(&Reply<'_>)>,
    ) -> Outcome {
        if standing != Standing::Serving {
            return Outcome::NotServing;
        }
        let now = self.context.now;
        let request = match parse(task.args) {
            Ok(request) => request,
            Err(error) => return self.hand_over(task.origin, Reply::Error(error), None, sink),
        };
        let Some(partition) = self.partitions.get_mut(id) else { return Outcome::NotServing };
        partition.keep_history(now);
        let place = match request.since {
            Since::Now => Some(partition.newest_place()),
            Since::Position(place) => partition.leads_on_from(place).then_some(place),
            Since::Version(version) => {
                partition.place_behind(version, matches!(request.which, Which::Key(_)))
            }
        };
        let Some(place) = place else {
            return self.hand_over(task.origin, Reply::Error(CommandError::NoHistory), None, sink);
        };
        let (place, found) = found_behind(partition, place, &request);
        self.reply_bytes += bytes_of(&found);
        let waits = found.is_empty() && request.since != Since::Now && !request.block.is_zero();
        if !waits {
            return self.hand_over(task.origin, reply(place, found), None, sink);
        }
        if self.followers.count >= FOLLOWERS_MAX {
            let why = "too many requests of this node wait for changes: ask another node".into();
            return self.hand_over(task.origin, Reply::Error(CommandError::TryAgain { why }), None, sink);
        }
        // Whoever passed it on waits no longer than to its deadline.
        let until = now + request.block.min(task.deadline.since(now) / 2);
        self.followers.add(id, Follower { task: task.kept(), place, until });
        Outcome::Later
    }

    /// Something may have been committed: whoever waits for it is answered, as far as this turn has room for replies. The others are
    /// answered at one of the next looks.
    pub(crate) fn wake_followers(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get(id) else { return };
        // Who finds it not served any more is told at the next look.
        let commit = partition.commit();
        let is_news = self.followers.waiting.get(&id).is_some_and(|waiting| commit > waiting.seen);
        if !is_news || partition.standing(&self.context) != Standing::Serving {
            return;
        }
        let mut seen = commit;
        for follower in self.followers.take(id) {
            let place = follower.place;
            let Some(partition) = self.partitions.get(id).filter(|copy| copy.leads_on_from(place)) else {
                self.followers.add(id, follower);
                continue;
            };
            if self.reply_bytes > REPLY_BYTES_A_TURN {
                seen = Lsn(0);
                self.followers.add(id, follower);
                continue;
            }
            let looked = follower
                .task
                .with(|task| parse(task.args).map(|request| found_behind(partition, place, &request)));
            match looked {
                Ok((place, found)) if found.is_empty() => {
                    self.followers.add(id, Follower { place, ..follower });
                }
                Ok((place, found)) => {
                    self.reply_bytes += bytes_of(&found);
                    self.hand_over(follower.task.origin, reply(place, found), None, None);
                }
                Err(error) => {
                    self.fail(follower.task.origin, error);
                }
            }
        }
        if let Some(waiting) = self.followers.waiting.get_mut(&id) {
            waiting.seen = seen;
        }
    }

    /// Answers those whose time is over, and sends those on whose partition is not served here any more.
    pub(crate) fn look_at_followers(&mut self) {
        let now = self.context.now;
        if self.followers.count == 0 || now < self.followers.look_at {
            return;
        }
        self.followers.look_at = now + LOOKS;
        for id in self.followers.waiting.keys().copied().collect::<Vec<_>>() {
            let serves = |partition: &Partition<_>| partition.standing(&self.context) == Standing::Serving;
            let served = self.partitions.get(id).is_some_and(serves);
            if served {
                // Those for whom a turn had no room.
                self.wake_followers(id);
            }
            let seen = self.followers.waiting.get(&id).map_or(Lsn(0), |waiting| waiting.seen);
            for follower in self.followers.take(id) {
                if !served {
                    self.follow_elsewhere(id, follower);
                } else if now >= follower.until {
                    self.hand_over(follower.task.origin, reply(follower.place, Vec::new()), None, None);
                } else {
                    self.followers.add(id, follower);
                }
            }
            if let Some(waiting) = self.followers.waiting.get_mut(&id) {
                waiting.seen = seen;
            }
        }
    }

    /// The partition has no primary here any more.
    fn follow_elsewhere(&mut self, id: PartitionId, follower: Follower) {
        let Follower { mut task, place, .. } = follower;
        match task.origin {
            Origin::Peer { node, shard, id, reign } => {
                self.send_outcome(node, shard, id, reign, ForwardOutcome::NotOrdered);
            }
            Origin::Client(_) | Origin::Part { .. } => {
                task.args = go_on(&task.args, place);
                self.start(id, task);
            }
        }
    }
}
