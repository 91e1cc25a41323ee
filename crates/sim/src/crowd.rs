//! The clients in the world: they ask, are answered or sent elsewhere, lose connections, and lose patience.

use crate::checks::acknowledged;
use crate::checks::waits::{self, PATIENCE};
use crate::client::{self, StaleRead, Waiting, key_name};
use crate::follower::Told;
use crate::keep::Part;
use crate::network::MS;
use crate::world::{Event, KEYS, MACHINES, World};
use bytes::Bytes;
use command::Reply;
use history::Call;
use node::Ticket;
use types::settings::ReadLevel;

impl World {
    pub(crate) fn client_of(&self, connection: u64) -> Option<usize> {
        self.clients.iter().position(|client| client.connection == connection)
    }

    pub(crate) fn client_asks(&mut self, at: usize) {
        let now = self.now;
        let last = self.last_reader.as_ref().filter(|last| last.client == at).map(|last| last.key);
        let is_over =
            self.healed && self.last_follower != Some(at) || !self.keep.has(Part::Clients, at as u64);
        if self.clients[at].waiting.is_some() || last.is_none() && is_over {
            return;
        }
        let client = &mut self.clients[at];
        let request = match last {
            Some(key) => client::Request {
                args: vec![b"GET".to_vec(), key_name(key)],
                calls: vec![(key, Call::Get)],
                expires_ms: None,
            },
            None => client.draw(KEYS, &mut self.unique),
        };
        if let Some(following) = &client.follows {
            self.checks.committed.forget_begins(following.partition());
        }
        client.sequence += 1;
        let (sequence, node, connection, number) =
            (client.sequence, client.node, client.connection, client.number);
        let stale = (client.stale && last.is_none()).then(|| (request.calls[0].0, now));
        let mut operations = Vec::new();
        if stale.is_none() {
            for calls in client::by_partition(&request.calls) {
                operations.push(self.history.invoke(number, &calls, now));
            }
            for &(key, call) in &request.calls {
                if let (Call::SetExpiring(_, expiry), Some(_)) = (call, request.expires_ms) {
                    // Partition time may run ahead of this clock: from now on it may come.
                    self.history.invoke(number, &[(key, Call::Expire(expiry))], now);
                }
            }
        }
        self.trace.event(now, &[6, at as u64, sequence], || {
            format!("client {number} at node {}: {}", node + 1, client::shown(&request.args))
        });
        let waiting =
            Waiting { sequence, operations, stale, args: request.args, asked_at: now, delivered: false };
        self.clients[at].waiting = Some(waiting);
        let travels = now + self.random.between(MS / 20, MS / 2);
        let start = self.nodes[node].start;
        if self.nodes[node].process.is_none() {
            self.schedule(travels, Event::Broken { client: at, connection });
            return;
        }
        self.schedule(travels, Event::Request { node, start, client: at, connection, sequence });
        self.schedule(now + PATIENCE, Event::Overdue { client: at, connection, sequence });
    }

    pub(crate) fn request_arrives(
        &mut self,
        node: usize,
        at: usize,
        connection: u64,
        sequence: u64,
    ) -> Result<(), String> {
        let client = &mut self.clients[at];
        if client.connection != connection {
            return Ok(());
        }
        let Some(waiting) = client.waiting.as_mut().filter(|waiting| waiting.sequence == sequence) else {
            return Ok(());
        };
        waiting.delivered = true;
        let args: Vec<Bytes> = waiting.args.iter().cloned().map(Bytes::from).collect();
        let ticket = Ticket { connection: client.connection, sequence };
        let level = if client.stale { ReadLevel::Stale } else { ReadLevel::Linearizable };
        let door = client.door;
        self.at_node(node, true, |process, own, _| process.request(own, ticket, door, level, &args))
    }

    pub(crate) fn reply_arrives(
        &mut self,
        at: usize,
        ticket: Ticket,
        reply: &Reply<'_>,
    ) -> Result<(), String> {
        let now = self.now;
        let client = &mut self.clients[at];
        if client.connection != ticket.connection {
            return Ok(());
        }
        let waiting = client.waiting.take_if(|waiting| waiting.sequence == ticket.sequence);
        let number = client.number;
        let Some(waiting) = waiting else {
            return Err(format!(
                "client {number} got a reply that it does not wait for: {ticket:?} {reply:?}"
            ));
        };
        let numbers = [7, at as u64, ticket.sequence, hash_of(reply)];
        self.trace.event(now, &numbers, || format!("client {number}: {reply:?}"));
        if let Some(following) = &mut self.clients[at].follows {
            if following.answered(&self.checks.committed, &waiting.args, reply)? == Told::NoHistory {
                self.count("Follower begins anew".into());
            }
            if self.last_follower == Some(at) {
                return self.last_followed(at, reply);
            }
        } else if let Some((key, asked)) = waiting.stale {
            if let Some((value, age_ms)) = client::aged_value(reply) {
                if let Some(value) = value {
                    acknowledged::check_stale(&self.checks.committed.oracle, key, value)?;
                }
                self.stale_reads.push(StaleRead { key, value, asked, returned: now, age_ms });
            }
        } else {
            client::end(&mut self.history, &waiting, reply, now)?;
            for &operation in &waiting.operations {
                let operation = &self.history.operations()[operation];
                acknowledged::check(&self.checks.committed.oracle, operation)?;
                self.clients[at].note_seen(operation, reply);
            }
        }
        if let Reply::Error(command::CommandError::Moved { address, .. }) = reply {
            let port: usize = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
            if !(7101..7101 + MACHINES).contains(&port) {
                return Err(format!("client {number} is sent to {address}"));
            }
            self.connect(at, port - 7101);
        }
        if self.last_reader.as_ref().is_some_and(|last| last.client == at) {
            return self.last_read(at, reply);
        }
        let again = now + self.clients[at].pause();
        self.schedule(again, Event::Client { client: at });
        Ok(())
    }

    /// A client connects anew.
    fn connect(&mut self, at: usize, node: usize) {
        let client = &mut self.clients[at];
        let (old, from) = (client.connection, client.node);
        self.connections += 1;
        (client.connection, client.node, client.sequence) = (self.connections, node, 0);
        if let Some(process) = &mut self.nodes[from].process {
            process.closed(old);
        }
    }

    /// A client's connection is gone: whatever it waited for, if it was on its way, may or may not have happened.
    pub(crate) fn give_up(&mut self, at: usize) {
        let (now, founders) = (self.now, self.founders());
        let client = &mut self.clients[at];
        if let Some(waiting) = client.waiting.take() {
            for operation in waiting.operations.into_iter().filter(|_| !waiting.delivered) {
                self.history.refused(operation, now);
            }
        }
        let node = (client.node + 1 + client.random.below(founders as u64 - 1) as usize) % founders;
        let again = now + MS + client.pause();
        self.trace.event(now, &[8, at as u64], || format!("client {at} lost its connection"));
        self.connect(at, node);
        self.schedule(again, Event::Client { client: at });
    }

    /// Every client of a node loses its connection.
    pub(crate) fn break_clients(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            if self.clients[client].node == node {
                let connection = self.clients[client].connection;
                let at = self.now + self.random.between(0, MS);
                self.schedule(at, Event::Broken { client, connection });
            }
        }
    }

    /// A request should have been answered by now, unless the node stood still meanwhile.
    pub(crate) fn overdue(&mut self, at: usize, connection: u64, sequence: u64) -> Result<(), String> {
        let client = &self.clients[at];
        let waits = client.connection == connection
            && client.waiting.as_ref().is_some_and(|waiting| waiting.sequence == sequence);
        if !waits {
            return Ok(());
        }
        let node = &self.nodes[client.node];
        if !waits::is_excused(node, self.now) {
            return Err(waits::violation(client));
        }
        if (node.pauses > 0 || node.is_slow()) && self.random.chance(500) {
            // Its patience ends.
            self.give_up(at);
        } else {
            self.schedule(self.now + PATIENCE, Event::Overdue { client: at, connection, sequence });
        }
        Ok(())
    }
}

fn hash_of(reply: &Reply<'_>) -> u64 {
    let mut bytes = Vec::new();
    reply.encode_neutral(&mut bytes);
    bytes.iter().fold(17, |hash: u64, &byte| hash.wrapping_mul(0x0100_01b3) ^ u64::from(byte))
}
