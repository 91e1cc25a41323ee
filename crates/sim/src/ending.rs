//! The end of a run: the cluster has to become whole, every key has to be readable, and all that the clients saw has to
//! make sense.

use crate::client::{Client, STEP, StaleRead, key_name, may_write, value_written};
use crate::follower::Following;
use crate::injure::add;
use crate::keep;
use crate::network::MS;
use crate::run::Summary;
use crate::shape::may_hold;
use crate::world::{Event, KEYS, LAST_CLIENT, LastReader, MENDING, PARTITIONS, World};
use command::{CommandError, Door, Reply};
use history::{Answer, Call, Operation, Outcome, Part, Time};
use placement::PlanNode;
use types::{Level, partition_of_key};

/// By then the cluster has formed, where nothing goes wrong.
const FORMED: Time = 1_500 * MS;
/// How far the nodes' clocks may disagree of what time of the cluster it is.
const CLOCKS_APART: Time = 500 * MS;

/// Questions in which whoever follows a partition sees the rest of it.
const LAST_ASKS_MAX: u32 = 5_000;

impl World {
    /// Whether partition's every copy is gone.
    pub(crate) fn is_lost(&self, partition: usize) -> bool {
        self.checks
            .maps
            .newest()
            .partitions
            .get(partition)
            .is_some_and(|state| state.epoch.0 > 0 && state.in_sync.is_empty())
    }

    /// What is not yet as it should be.
    fn ailment(&self) -> Option<String> {
        let map = self.checks.maps.newest();
        let seats = self.seats();
        if map.partitions.is_empty() {
            return Some("no map".into());
        }
        // With a log on disk no operator is needed.
        let is_lost = |partition: &usize| self.is_lost(*partition) && !self.lost_to_rot.contains(partition);
        let lost = (0..map.partitions.len()).find(is_lost);
        if let Some(partition) = lost.filter(|_| self.keeping.logs()) {
            return Some(format!("partition {partition} is lost: {:?}", map.partitions[partition]));
        }
        for seat in seats.iter().flatten() {
            let identity = seat.process.identity();
            if map.removed.contains(&(identity.node, identity.incarnation)) {
                continue;
            }
            let known = map.is_active(identity.node)
                && map.member(identity.node).is_some_and(|m| m.incarnation == identity.incarnation);
            if !known {
                return Some(format!(
                    "node {} is not active: {:?}",
                    seat.node + 1,
                    map.member(identity.node)
                ));
            }
            if seat.process.lease_until() <= seat.now {
                return Some(format!("node {} has no lease", seat.node + 1));
            }
        }
        for (id, state) in map.each_partition().filter(|(id, _)| !self.is_lost(usize::from(id.0))) {
            let missing = state.copies.iter().find(|&node| !state.in_sync.contains(node));
            if let Some(node) = missing {
                return Some(format!("node {node}'s copy of partition {id} is not in sync: {state:?}"));
            }
            let serves = state
                .primary
                .and_then(|node| seats[usize::from(node.0) - 1])
                .is_some_and(|seat| seat.process.copy(seat.now, id).is_some_and(|copy| copy.serves));
            if !serves {
                return Some(format!("partition {id} is not served: {state:?}"));
            }
        }
        if map.level < Level::HIGHEST {
            return Some(format!(
                "all nodes have feature level {}, and the cluster is at {}",
                Level::HIGHEST,
                map.level
            ));
        }
        if let Some(ailment) = self.wrong_shape().or_else(|| self.wrong_voters()) {
            return Some(ailment);
        }
        if let Some(uneven) = self.unevenness() {
            return Some(uneven);
        }
        let waiting = self.clients.iter().find(|client| client.waiting.is_some());
        waiting.map(|client| format!("client {} still waits", client.number))
    }

    /// Primaries return to balance, and hand-overs come to rest. Not where something is lost, which nobody moves.
    fn unevenness(&self) -> Option<String> {
        let map = self.checks.maps.newest();
        if (0..map.partitions.len()).any(|partition| self.is_lost(partition)) {
            return None;
        }
        let heir = map.each_partition().find(|(_, state)| state.heir.is_some());
        if let Some((id, state)) = heir {
            return Some(format!("partition {id} is being handed over: {state:?}"));
        }
        let nodes: Vec<PlanNode> = map
            .members
            .iter()
            .filter(|member| may_hold(member))
            .map(|m| PlanNode { id: m.id, weight: 1, zone: None })
            .collect();
        let current: Vec<_> = map.partitions.iter().map(|state| (state.primary, state.copies)).collect();
        let due = placement::even_primaries(&current, map.copies, &nodes);
        (!due.is_empty()).then(|| format!("primaries are to move: {due:?}"))
    }

    pub(crate) fn watch(&mut self) -> Result<(), String> {
        match self.ailment() {
            Some(ailment) if self.now > self.heals_at + MENDING => {
                Err(format!("not whole again {} s after all was healed: {ailment}", MENDING / MS / 1000))
            }
            Some(_) => {
                self.schedule(self.now + 50 * MS, Event::Watch);
                Ok(())
            }
            None => {
                let took = self.now - self.heals_at;
                self.mended = Some(took);
                self.trace.event(self.now, &[9], || "the cluster is whole again".into());
                self.begin_last_reads();
                Ok(())
            }
        }
    }

    fn begin_last_reads(&mut self) {
        self.connections += 1;
        self.clients.push(Client {
            number: LAST_CLIENT,
            node: self.random.below(self.founders() as u64) as usize,
            connection: self.connections,
            sequence: 0,
            door: Door::Plain,
            stale: false,
            fat: false,
            follows: None,
            together: false,
            seen: None,
            waiting: None,
            random: self.random.fork(),
        });
        let client = self.clients.len() - 1;
        self.last_reader = Some(LastReader { key: 0, client });
        self.schedule(self.now, Event::Client { client });
    }

    pub(crate) fn last_read(&mut self, client: usize, reply: &Reply<'_>) -> Result<(), String> {
        let Some(last) = &mut self.last_reader else { return Ok(()) };
        let lost = self.checks.maps.newest().partitions
            [usize::from(partition_of_key(&key_name(last.key), PARTITIONS).0)]
        .in_sync
        .is_empty();
        match (reply, lost) {
            (Reply::Error(_), true) => {}
            (Reply::Error(error), false) => {
                return Err(format!("key:{} cannot be read in a whole cluster: {error}", last.key));
            }
            (reply, true) => {
                return Err(format!("key:{} is lost, and yet it is answered with {reply:?}", last.key));
            }
            (_, false) => {}
        }
        last.key += 1;
        if last.key == KEYS {
            self.begin_last_following();
            return Ok(());
        }
        self.clients[client].node = (self.clients[client].node + 1) % self.founders();
        self.connections += 1;
        self.clients[client].connection = self.connections;
        self.schedule(self.now, Event::Client { client });
        Ok(())
    }

    /// At last whoever follows a partition is shown what it has not seen yet.
    fn begin_last_following(&mut self) {
        let follows = |at: &usize| self.clients[*at].follows.is_some();
        let follower = (0..self.clients.len()).find(follows).filter(|&at| {
            let partition = self.clients[at].follows.as_ref().map_or(0, Following::partition);
            !self.is_lost(partition) && self.keep.has(keep::Part::Clients, at as u64)
        });
        let Some(at) = follower else {
            self.done = true;
            return;
        };
        self.last_follower = Some(at);
        self.schedule(self.now, Event::Client { client: at });
    }

    /// It was answered in a whole cluster, in which nobody writes any more.
    pub(crate) fn last_followed(&mut self, at: usize, reply: &Reply<'_>) -> Result<(), String> {
        self.last_asks += 1;
        let Some(following) = &self.clients[at].follows else { return Ok(()) };
        let (partition, shown_to) = (following.partition(), following.shown_to());
        let end = self.checks.committed.oracle.records(partition).len() as u64;
        match reply {
            Reply::Error(CommandError::NoHistory) => {}
            Reply::Error(error) => {
                return Err(format!("partition {partition} cannot be followed in a whole cluster: {error}"));
            }
            _ if shown_to.is_some_and(|lsn| lsn >= end) => {
                self.done = true;
                return Ok(());
            }
            _ => {}
        }
        if self.last_asks > LAST_ASKS_MAX {
            return Err(format!("who follows partition {partition} is shown {shown_to:?} of {end} records"));
        }
        self.schedule(self.now, Event::Client { client: at });
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<Summary, String> {
        if !self.done {
            return Err("nothing is left to happen".into());
        }
        self.check_tables()?;
        let name = |key| String::from_utf8_lossy(&key_name(key)).into_owned();
        self.check_history().map_err(|violation| violation.explain(name))?;
        self.check_stale_reads()?;
        self.check_quiet()?;
        let operations = self.history.operations();
        let count = |outcome| operations.iter().filter(|operation| operation.outcome == outcome).count();
        let expiries = operations.iter().filter(|operation| operation.is_expiry()).count();
        let map = self.checks.maps.newest().clone();
        let mut transfers = self.transfers;
        self.nodes.iter().for_each(|node| add(&mut transfers, node.process.as_ref()));
        let [transfers, transfers_gone_on] = transfers;
        Ok(Summary {
            hash: self.trace.hash(),
            events: self.trace.events(),
            operations: operations.len() - expiries,
            unknown: count(Outcome::Unknown) - expiries,
            refused: count(Outcome::Refused),
            stale_reads: self.stale_reads.len(),
            followed: self.clients.iter().filter_map(|client| client.follows.as_ref()).map(|f| f.shown).sum(),
            snapshots: self.snapshots,
            transfers,
            transfers_gone_on,
            upgrades: self.upgrades.done,
            mixed: self.upgrades.mixed,
            raised: self.upgrades.raised,
            faults: self.faults,
            shapes: self.shapes.done,
            moved: self.checks.moves.gone,
            voters_changed: self.checks.voters.changes,
            reigns: map.partitions.iter().map(|state| state.primary_since.0).sum(),
            hand_overs: self.checks.maps.hand_overs,
            leads_given: self.leads_given,
            counts: self.counts.clone(),
            lost: (0..map.partitions.len()).filter(|&partition| self.is_lost(partition)).count(),
            mended: self.mended.unwrap_or(0),
        })
    }

    /// Where nothing goes wrong nobody sees an error once the cluster has formed, however often partitions are handed over
    /// (rule 10): but for redirections.
    fn check_quiet(&self) -> Result<(), String> {
        let redirected = |operation: &Operation| {
            self.clients.iter().any(|c| c.number == operation.client && c.door == Door::Cluster)
        };
        let harmed = |operation: &&Operation| match operation.outcome {
            _ if operation.invoked < FORMED || operation.is_expiry() => false,
            Outcome::Unknown => true,
            Outcome::Refused => !redirected(operation),
            Outcome::Answered => false,
        };
        match self.history.operations().iter().find(harmed) {
            Some(operation) if self.plan.kinds.is_empty() && self.upgrades.done == 0 => {
                Err(format!("nothing went wrong, and yet {operation:?}"))
            }
            _ => Ok(()),
        }
    }

    /// A stale read is no older than it says: what it shows had not been overwritten that long before.
    fn check_age(&self, read: &StaleRead) -> Result<(), String> {
        let Some(age_ms) = read.age_ms else { return Ok(()) };
        let partition = usize::from(partition_of_key(&key_name(read.key), PARTITIONS).0);
        if self.checks.committed.oracle.has_given_up(partition) {
            // What had overwritten it may have been lost.
            return Ok(());
        }
        // Where wall clocks were far off, nodes that hear of it at different times differ as far.
        let apart = CLOCKS_APART.max(2 * self.wall_off_ms * MS);
        let since = read.asked.saturating_sub(age_ms * MS + apart);
        let Some(value) = read.value else { return self.check_absence(read, since) };
        let base = value - value % STEP;
        let writes = |(_, part): &(&Operation, &Part)| value_written(part) == Some(base);
        let Some((written, _)) = self.on_key(read.key).find(writes) else { return Ok(()) };
        let overwrites = |(operation, part): &(&Operation, &Part)| {
            let removes = part.call == Call::Delete || matches!(part.call, Call::CompareAndDelete(_));
            (value_written(part).is_some() || removes && part.answer == Some(Answer::Changed(true)))
                && operation.invoked > written.returned
                && operation.returned < since
        };
        match self.on_key(read.key).find(overwrites) {
            Some((later, _)) => {
                Err(format!("a stale read is older than it says: {read:?} was overwritten by {later:?}"))
            }
            None => Ok(()),
        }
    }

    /// What was asked of a key.
    fn on_key(&self, key: usize) -> impl Iterator<Item = (&Operation, &Part)> {
        let on_it = move |operation: &'_ Operation| operation.parts.iter().position(|part| part.key == key);
        let operations = self.history.operations().iter();
        operations.filter_map(move |operation| Some((operation, &operation.parts[on_it(operation)?])))
    }

    /// A stale read that shows no key: none had been there for good that long before.
    fn check_absence(&self, read: &StaleRead, since: Time) -> Result<(), String> {
        let stays = |(written, part): &(&Operation, &Part)| {
            let is_it = matches!((part.call, part.answer), (Call::Set(_), Some(_)));
            // Whatever may have removed it since, or given it an end.
            let ends = |(other, part): (&Operation, &Part)| {
                matches!(
                    part.call,
                    Call::Delete | Call::CompareAndDelete(_) | Call::SetExpiring(..) | Call::Expire(_)
                ) && other.outcome != Outcome::Refused
                    && other.returned > written.invoked
                    && other.invoked <= read.returned
            };
            is_it && written.returned < since && !self.on_key(read.key).any(ends)
        };
        match self.on_key(read.key).find(stays) {
            Some((written, _)) => {
                Err(format!("a stale read is older than it says: {read:?} does not show {written:?}"))
            }
            None => Ok(()),
        }
    }

    /// A stale read shows what somebody had asked to write, never what was refused, and nothing from the future.
    fn check_stale_reads(&self) -> Result<(), String> {
        for read in &self.stale_reads {
            self.check_age(read)?;
            let Some(value) = read.value else { continue };
            let base = value - value % STEP;
            let asked = || {
                self.on_key(read.key)
                    .filter(|(o, _)| o.invoked <= read.returned && o.outcome != Outcome::Refused)
            };
            let written = base == 0 || asked().any(|(_, part)| may_write(part) == Some(base));
            let counted = asked().filter(|(_, part)| part.call == Call::Increment).count() as i64;
            if !written || counted < value % STEP {
                return Err(format!("a stale read shows what nobody wrote: {read:?}"));
            }
        }
        Ok(())
    }
}
