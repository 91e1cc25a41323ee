//! A shard's thread: its event loop, its clients, its links, and the machine between them.
//!
//! One turn: wait; take in letters; read links and clients and run what came; let the machine tick; work for a moment on what
//! is long ([`work`]); let the machine flush; carry out its effects; write to each client once and to each link once. Over a ring, who
//! asks for little beside others that ask for much is heard first, and answered before them ([`small_first`]).
//! Nothing here blocks but the wait.

mod asks;
mod completions;
mod connections;
mod small_first;

use crate::buffers::ClientBuffers;
use crate::client_ports::ClientCount;
use crate::clients::Orders;
use crate::clock;
use crate::connection::Connection;
use crate::desk::Asked;
use crate::link::{Links, is_link};
use crate::log_thread::LogFeed;
use crate::machine::{Effects, ShardMachine};
use crate::mailbox::Mailbox;
use crate::parting::Parting;
use crate::ring::{Completion, Ring};
use crate::stats::ShardStats;
use crate::threads::{Mail, Threads};
use crate::work::{self, Work};
use asks::Asks;
use command::{ClientAnswer, ClientOrder, Door, Pause, Reply, Session};
use connections::Connections;
use control::message::Identity;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use replication::message::{Message, Sender};
use small_first::SmallFirst;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::Rope;
use tracing::{debug, error, warn};
use types::settings::IoDriver;
use types::shared_settings::SettingsReader;
use types::{Endpoint, Instant, NodeId, ShardId};
use wire::peer::{Frame, encode_shard};

/// A thread that cannot wait for events tries again after this long.
pub const ERROR_PAUSE: Duration = Duration::from_millis(5);
/// The token of a thread's waker.
pub const WAKER: Token = Token(usize::MAX);
/// Bytes of the buffer that a thread reads all its sockets through.
pub const SCRATCH_BYTES: usize = 64 * 1024;
/// What is kept for a connection is not counted anew for so few bytes.
const SMALL_WEIGHT: usize = 64 * 1024;
const SWEEP: Duration = Duration::from_secs(1);
const EVENTS: usize = 1024;
/// After so many bytes more that clients have it keep, a shard looks at what all shards keep.
const LOOK_EVERY_BYTES: u64 = 1024 * 1024;
const TOO_MUCH_KEPT: &str =
    "ERR the clients of this node have it keep too much (maxmemory_clients), and this one the most";
/// Turns of one shard that may wait at another of this node.
const LOCAL_TURNS_MAX: usize = 256;
/// Messages that are kept for a shard of this node that is that far behind.
const LOCAL_MESSAGES_MAX: usize = 1_000_000;

/// What a shard's thread is made of.
pub struct ShardParts<M> {
    /// Its event loop, with [`WAKER`] registered.
    pub poll: Poll,
    /// Its letter box.
    pub mailbox: Mailbox<Mail>,
    /// Its links.
    pub links: Links,
    /// Its machine.
    pub machine: M,
    /// Who it is.
    pub identity: Identity,
    /// Which shard it is.
    pub shard: ShardId,
    /// Everybody's letter boxes.
    pub threads: Threads,
    /// The node's settings, as this thread sees them.
    pub settings: SettingsReader,
    /// How many clients the node has.
    pub clients: Arc<ClientCount>,
    /// What the node's clients have it keep.
    pub buffers: Arc<ClientBuffers>,
    /// Numbers the node's clients.
    pub client_ids: Arc<AtomicU64>,
    /// Where it tells others how it fares.
    pub stats: ShardStats,
    /// Where it sends what takes long to free.
    pub freer: work::Freer,
    /// Where its log goes, if it is on disk.
    pub log: Option<LogFeed>,
}

/// A shard's thread.
pub struct ShardLoop<M> {
    parts: ShardParts<M>,
    connections: Connections,
    /// Connections to be run in this turn.
    runnable: Vec<usize>,
    /// Connections that may have something to write.
    dirty: Vec<usize>,
    /// Empty: takes the place of one of those two while that is gone through.
    spare: Vec<usize>,
    scratch: Vec<u8>,
    /// Reads and writes for the clients, where there is one; otherwise epoll says when to.
    ring: Option<Ring>,
    completions: Vec<Completion>,
    small_first: SmallFirst,
    /// Entries on their way to the log.
    log_bytes: Rope,
    work: Work,
    outgoing: BTreeMap<(NodeId, ShardId), Vec<Message>>,
    /// What the doors on the runtime asked.
    asks: Asks,
    /// What clients asked of all connections.
    orders: Orders,
    /// Connections with a request that waits for the end of a pause.
    held: Vec<usize>,
    /// Bytes that this shard keeps for its clients, and how many of them were added since it last looked at the sum.
    kept: u64,
    kept_anew: u64,
    /// Connections closed since the last sweep because all together had the node keep too much.
    closed_for_memory: u64,
    next_tick: Instant,
    /// When what the last wait brought was there.
    woke_at: Instant,
    /// When the last turn ended.
    ended_at: Instant,
    next_sweep: Instant,
    /// Clients are let go, and all of them by then.
    part_until: Option<Instant>,
    parting: Parting,
    stops: bool,
}

impl<M: ShardMachine> ShardLoop<M> {
    /// A thread that has not begun.
    pub fn new(parts: ShardParts<M>) -> ShardLoop<M> {
        let now = clock::now();
        ShardLoop {
            parts,
            connections: Connections::default(),
            runnable: Vec::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            ring: None,
            completions: Vec::new(),
            small_first: SmallFirst::default(),
            log_bytes: Rope::default(),
            work: Work::default(),
            outgoing: BTreeMap::new(),
            asks: Asks::default(),
            orders: Orders::default(),
            held: Vec::new(),
            kept: 0,
            kept_anew: 0,
            closed_for_memory: 0,
            next_tick: now,
            woke_at: now,
            ended_at: now,
            next_sweep: now + SWEEP,
            part_until: None,
            parting: Parting::default(),
            stops: false,
        }
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        work::keep_garbage();
        self.make_ring();
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_stopped() {
            let busy = !self.runnable.is_empty()
                || !self.dirty.is_empty()
                || self.work.is_left()
                || self.orders.can_begin()
                || self.asks.has_second()
                || self.parts.links.has_backlog();
            let timeout = if busy { Duration::ZERO } else { self.next_tick.since(self.ended_at) };
            if let Err(error) = self.wait(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                error!(%error, "a shard cannot wait for events");
                std::thread::sleep(ERROR_PAUSE);
            }
            self.turn(&events);
        }
        if let Some(ring) = self.ring.take() {
            ring.close(self.connections.places.into_iter().filter_map(|place| place.connection));
        }
    }

    /// A ring belongs to the thread that makes it.
    fn make_ring(&mut self) {
        let driver = self.parts.settings.io_driver;
        if driver == IoDriver::Epoll {
            return;
        }
        match Ring::new(self.parts.poll.as_raw_fd()) {
            Ok(ring) => self.ring = Some(ring),
            Err(error) if driver == IoDriver::IoUring => {
                warn!(%error, "io_uring cannot be used here: epoll serves instead");
            }
            Err(error) => debug!(%error, "io_uring cannot be used here: epoll serves"),
        }
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        let Some(ring) = &mut self.ring else {
            let waited = self.parts.poll.poll(events, Some(timeout));
            self.woke_at = clock::now();
            return waited;
        };
        events.clear();
        ring.wait(timeout)?;
        ring.take(&mut self.completions);
        self.woke_at = clock::now();
        self.pass_sent();
        if self.completions.is_empty() && !timeout.is_zero() && self.woke_at < self.next_tick {
            // What was handed over is out, which is seldom news. Nobody else has anything to do yet.
            let Some(ring) = &mut self.ring else { return Ok(()) };
            ring.wait(self.next_tick.since(self.woke_at))?;
            ring.take(&mut self.completions);
            self.woke_at = clock::now();
        }
        let watched = |completion: &Completion| matches!(completion, Completion::Watched);
        // At each tick too: links and letters must not depend on one more notice.
        if self.completions.iter().any(watched) || self.woke_at >= self.next_tick {
            self.parts.poll.poll(events, Some(Duration::ZERO))?;
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stops && self.parting.is_over()
    }

    fn turn(&mut self, events: &Events) {
        let mut woken = false;
        if self.parts.settings.refresh() {
            let settings = self.parts.settings.current();
            for place in &mut self.connections.places {
                if let Some(connection) = &mut place.connection {
                    connection.set_settings(settings.clone());
                }
            }
        }
        self.parts.machine.refresh_settings();
        let now = self.woke_at;
        for event in events {
            let token = event.token();
            if token == WAKER {
                woken = true;
            } else if is_link(token) {
                self.parts.links.event(now, event);
            } else if let Some(place) = self.connections.places.get_mut(token.0)
                && let Some(connection) = &mut place.connection
            {
                connection.event(event);
                self.touch(token.0);
            }
        }
        // Here, where it is known who has sent something: a turn that took long must not be laid at clients' doors.
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        if woken {
            self.open_mail();
        }
        self.read_links();
        self.take_completions();
        self.run_connections();
        self.asks.run_second(&mut self.parts.machine);
        self.end_turn();
    }

    /// Queues a connection for whatever it can do this turn.
    fn touch(&mut self, at: usize) {
        let place = &mut self.connections.places[at];
        let Some(connection) = &place.connection else { return };
        if connection.is_runnable() && !place.is_runnable {
            place.is_runnable = true;
            self.runnable.push(at);
        }
        if !place.is_dirty {
            place.is_dirty = true;
            self.dirty.push(at);
        }
    }

    fn open_mail(&mut self) {
        self.parts.mailbox.arm();
        while let Some(mail) = self.parts.mailbox.take() {
            // Another thread posted this before now: the same order as with a socket's bytes.
            let now = clock::now();
            match mail {
                Mail::Link(mail) => self.parts.links.mail(now, mail),
                Mail::Client(stream, door) => self.welcome(now, stream, door),
                Mail::Asked(asked) => self.ask(now, asked),
                Mail::Shard(from, messages) => {
                    self.parts.stats.begin(now, messages.iter().map(passed_on_bytes).max().unwrap_or(0));
                    for message in messages {
                        self.parts.machine.message(now, from, message);
                    }
                }
                Mail::Map(map) => self.parts.machine.map(now, map),
                Mail::AskTails(to, question, partitions) => {
                    let tails = self.parts.machine.tails(&partitions);
                    self.parts.threads.control.send(Mail::Tails(to, question, tails));
                }
                Mail::Logged(turn, offset) => self.parts.machine.logged(now, turn, offset),
                Mail::SnapshotPiece => self.parts.machine.snapshot_piece_written(),
                Mail::SnapshotDone(partition, written) => {
                    self.parts.machine.snapshot_done(partition, written);
                }
                Mail::Retire => self.parts.machine.retire(now),
                Mail::Part(until) => self.begin_parting(until),
                Mail::Stop => self.stops = true,
                Mail::ClientOrder(from, number, order) => {
                    let answer = self.carry_out_order(now, None, &order);
                    if let Some(post) = self.parts.threads.post(Endpoint::Shard(from)) {
                        post.send(Mail::ClientAnswer(number, answer));
                    }
                }
                Mail::ClientAnswer(number, answer) => {
                    if let Some((ticket, reply)) = self.orders.answered(number, answer) {
                        self.parts.machine.effects().replies.push((ticket, reply));
                    }
                }
                _ => debug_assert!(false, "a letter that is not for a shard"),
            }
        }
    }

    fn welcome(&mut self, now: Instant, stream: std::net::TcpStream, door: Door) {
        if self.part_until.is_some() {
            self.parts.clients.leave();
            return;
        }
        let id = self.parts.client_ids.fetch_add(1, Ordering::Relaxed);
        let mut session = Session::new(id, door, &self.parts.settings);
        let text = |address: std::io::Result<std::net::SocketAddr>| {
            address.map_or_else(|_| String::new(), |address| address.to_string())
        };
        session.address = text(stream.peer_addr());
        session.local_address = text(stream.local_addr());
        session.created_ms = clock::wall_ms();
        let (at, key) = self.connections.reserve();
        let settings = self.parts.settings.clone();
        let mut connection =
            Connection::new(key, TcpStream::from_std(stream), session, settings.current().clone(), now);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.parts.poll.registry();
        if self.ring.is_none()
            && let Err(error) = registry.register(connection.stream(), Token(at), interest)
        {
            warn!(%error, "cannot watch a client's connection");
            self.connections.free.push(at);
            self.parts.clients.leave();
            return;
        }
        self.connections.put(at, connection);
        self.touch(at);
        self.parts.stats.welcomed();
        self.parts.stats.connections(self.connections.count);
    }

    fn ask(&mut self, now: Instant, asked: Asked) {
        let bytes = asked.question.args.iter().map(|arg| arg.len()).sum();
        self.parts.stats.begin(now, bytes);
        let id = self.parts.client_ids.fetch_add(1, Ordering::Relaxed);
        self.asks.ask(now, &mut self.parts.machine, asked, id, &self.parts.settings);
    }

    fn read_links(&mut self) {
        self.parts.stats.begin(self.woke_at, self.parts.links.input_bytes());
        let ShardParts { links, machine, .. } = &mut self.parts;
        links.read(&mut self.scratch, |now, identity, from, frame| match (from, frame) {
            (Endpoint::Shard(shard), Frame::Shard(messages)) => {
                let from = Sender { node: identity.node, incarnation: identity.incarnation, shard };
                for message in messages {
                    machine.message(now, from, message);
                }
            }
            (from, _) => debug!(node = identity.node.0, ?from, "a frame that is not for a shard"),
        });
        for node in links.take_lost() {
            machine.link_lost(clock::now(), node);
        }
    }

    fn run_connections(&mut self) {
        let mut runnable = std::mem::replace(&mut self.runnable, std::mem::take(&mut self.spare));
        for at in runnable.drain(..) {
            let place = &mut self.connections.places[at];
            place.is_runnable = false;
            let Some(connection) = &mut place.connection else { continue };
            self.parts.stats.begin(self.woke_at, connection.input_bytes());
            if connection.run(&mut self.parts.machine, &mut self.scratch).is_err() {
                self.close(at);
            } else {
                if connection.is_held() {
                    self.held.push(at);
                }
                self.parts.stats.turn(connection.ran_at());
                self.weigh(at);
                self.touch(at);
            }
        }
        self.spare = runnable;
    }

    /// Counts what is kept for a connection, and looks at the whole after each MiB.
    fn weigh(&mut self, at: usize) {
        let place = &mut self.connections.places[at];
        let weight = place.connection.as_ref().map_or(0, |connection| connection.weight());
        let before = std::mem::replace(&mut place.weight, weight);
        self.kept = self.kept + weight as u64 - before as u64;
        self.kept_anew += weight.saturating_sub(before) as u64;
        if self.kept_anew > LOOK_EVERY_BYTES {
            self.look_at_buffers();
        }
    }

    /// Closes the largest connections while the node keeps too much for its clients.
    fn look_at_buffers(&mut self) {
        self.kept_anew = 0;
        self.parts.buffers.set(self.parts.shard, self.kept);
        while self.parts.buffers.asks_for_relief(self.kept) {
            let open = self.connections.places.iter().enumerate().filter_map(|(at, place)| {
                let connection = place.connection.as_ref()?;
                if connection.is_closing() && !connection.is_unread_mostly() {
                    return None;
                }
                Some((!connection.is_spared(), place.weight, at))
            });
            let Some((_, _, at)) = open.max().filter(|&(_, weight, _)| weight > 0) else { return };
            self.closed_for_memory += 1;
            match &mut self.connections.places[at].connection {
                Some(connection) if !connection.is_unread_mostly() && !connection.is_closing() => {
                    connection.refuse(TOO_MUCH_KEPT);
                    self.weigh_only(at);
                    self.touch(at);
                }
                _ => self.close(at),
            }
            self.parts.buffers.set(self.parts.shard, self.kept);
        }
    }

    fn weigh_only(&mut self, at: usize) {
        let place = &mut self.connections.places[at];
        let weight = place.connection.as_ref().map_or(0, |connection| connection.weight());
        self.kept = self.kept + weight as u64 - std::mem::replace(&mut place.weight, weight) as u64;
    }

    /// Lets go on what a pause held, once it is over.
    fn resume_held(&mut self, now: Instant) {
        if self.held.is_empty() && !self.asks.is_held() || self.parts.machine.pause(now) == Pause::All {
            return;
        }
        for asked in self.asks.take_held() {
            self.ask(now, asked);
        }
        for at in std::mem::take(&mut self.held) {
            let Some(connection) = &mut self.connections.places[at].connection else { continue };
            connection.resume(now, &mut self.parts.machine);
            if connection.is_held() {
                self.held.push(at);
            }
            self.touch(at);
        }
    }

    /// Does with this shard's own connections what a client asked; `asker` is its number, if it is here.
    fn carry_out_order(&mut self, now: Instant, asker: Option<u64>, order: &ClientOrder) -> ClientAnswer {
        let mut answer = ClientAnswer::default();
        for at in 0..self.connections.places.len() {
            let Some(connection) = &mut self.connections.places[at].connection else { continue };
            let id = connection.session().id;
            let is_meant = match order {
                ClientOrder::Info => Some(id) == asker,
                ClientOrder::List(filter) | ClientOrder::Kill { filter, .. } => {
                    filter.takes(connection.session(), connection.age_s(now))
                }
            };
            match order {
                _ if !is_meant => {}
                ClientOrder::Info | ClientOrder::List(_) => {
                    answer.lines.push((id, connection.describe(now, Some(id) == asker)))
                }
                ClientOrder::Kill { .. } => {
                    answer.closed += 1;
                    if Some(id) == asker {
                        // As in Redis, it is told first.
                        connection.finish();
                        self.touch(at);
                    } else {
                        self.close(at);
                    }
                }
            }
        }
        answer
    }

    fn end_turn(&mut self) {
        let now = clock::now();
        if now >= self.next_tick {
            self.next_tick = now + self.parts.settings.tick();
            self.resume_held(now);
            self.look_at_buffers();
            self.parts.machine.tick(now);
            self.parts.links.tick(now);
            self.parts.stats.links(self.parts.links.waiting_bytes(), self.parts.links.drops());
            self.go_on_parting(now);
        }
        self.work.run(now, &mut self.parts.machine, &self.parts.freer);
        self.parts.machine.flush(now);
        if let Some(log) = &self.parts.log {
            self.parts.machine.take_log(&mut self.log_bytes, |turn, bytes| log.push(turn, bytes));
            let snapshots = &mut self.parts.machine.effects().snapshots;
            if !snapshots.is_empty() {
                log.push_jobs(snapshots);
            }
        }
        self.carry_out(now);
        self.parts.links.flush(now);
        self.write_connections(now);
        self.parts.stats.turn(now);
        self.ended_at = now;
    }

    fn carry_out(&mut self, now: Instant) {
        self.orders.add(&mut self.parts.machine.effects().client_orders);
        if let Some(own) = self.orders.begin(self.parts.shard, &self.parts.threads) {
            let answer = self.carry_out_order(now, Some(own.asker), &own.order);
            if let Some(reply) = self.orders.answered_here(&own, answer) {
                self.parts.machine.effects().replies.push(reply);
            }
        }
        let ShardParts { machine, links, threads, identity, shard, .. } = &mut self.parts;
        let Effects { replies, messages, changes, accept_loss, orders, .. } = machine.effects();
        let mut answered = std::mem::take(replies);
        for (node, to, message) in messages.drain(..) {
            self.outgoing.entry((node, to)).or_default().push(message);
        }
        if !changes.is_empty() {
            threads.control.send(Mail::Changes(std::mem::take(changes)));
        }
        if std::mem::take(accept_loss) {
            threads.control.send(Mail::AcceptLoss);
        }
        for order in orders.drain(..) {
            threads.control.send(Mail::Order(order));
        }
        let from = Sender { node: identity.node, incarnation: identity.incarnation, shard: *shard };
        for (&(node, to), messages) in self.outgoing.iter_mut().filter(|(_, messages)| !messages.is_empty()) {
            if node == identity.node {
                send_local(threads, from, to, messages);
                continue;
            }
            let encode = |format: u8, messages: &[Message], out: &mut Rope| {
                let too_large = encode_shard(format, messages, out);
                if too_large > 0 {
                    error!(node = node.0, too_large, "messages that no frame can hold");
                }
            };
            if messages.iter().any(Message::is_huge) {
                for message in messages.extract_if(.., |message| message.is_huge()) {
                    links.queue_huge(now, node, Endpoint::Shard(to), |format, out| {
                        encode(format, &[message], out);
                    });
                }
            }
            if !messages.is_empty() {
                links.queue(now, node, Endpoint::Shard(to), |format, out| encode(format, messages, out));
            }
            messages.clear();
        }
        // Partitions commit in turns of their own. In the order of its requests a connection's replies go straight out.
        answered.sort_unstable_by_key(|(ticket, _)| (ticket.connection, ticket.sequence));
        for (ticket, reply) in answered.drain(..) {
            if Asks::is_question(ticket) {
                self.asks.reply(now, &mut self.parts.machine, ticket.connection, reply);
                continue;
            }
            let Some(at) = self.connections.place_of(ticket.connection) else {
                // Gone meanwhile: the machine must not remember it because of this reply.
                self.parts.machine.closed(ticket.connection);
                continue;
            };
            if let Some(connection) = &mut self.connections.places[at].connection {
                let error = if let Reply::Error(error) = &reply { Some(error.clone()) } else { None };
                if let Some((command, began)) = connection.reply(ticket.sequence, reply) {
                    let took_ns = now.since(began).as_nanos() as u64;
                    self.parts.machine.answered(command, 1, took_ns, error.as_ref());
                }
            }
            self.touch(at);
        }
        // The vector goes back with its capacity, unless the machine has begun another.
        let replies = &mut self.parts.machine.effects().replies;
        if replies.is_empty() {
            *replies = answered;
        }
    }

    fn write_connections(&mut self, now: Instant) {
        let mut dirty = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
        for at in dirty.drain(..) {
            let place = &mut self.connections.places[at];
            place.is_dirty = false;
            let Some(connection) = &mut place.connection else { continue };
            let counts = connection.take_counts();
            connection.part_with_reply(now);
            let alive = match &mut self.ring {
                None => connection.write(now),
                Some(ring) => ring.serve(connection),
            };
            let alive = alive.is_ok();
            let written = connection.take_counts();
            self.parts.stats.add(counts);
            self.parts.stats.add(written);
            let weight = connection.weight();
            self.kept = self.kept + weight as u64 - std::mem::replace(&mut place.weight, weight) as u64;
            if !alive {
                self.close(at);
            } else if connection.is_finished() {
                let _ = connection.shut_down();
                if self.part_until.is_some() {
                    self.parting.keep(now, connection.stream());
                }
                self.close(at);
            } else {
                if connection.is_runnable() && !place.is_runnable {
                    place.is_runnable = true;
                    self.runnable.push(at);
                }
                if connection.has_more() {
                    place.is_dirty = true;
                    self.dirty.push(at);
                }
            }
        }
        self.spare = dirty;
    }

    fn sweep(&mut self, now: Instant) {
        // Said once a second at most: strangers must not fill the log.
        let closed = std::mem::take(&mut self.closed_for_memory);
        if closed > 0 {
            warn!(closed, "clients had this node keep more than maxmemory_clients: the largest were closed");
        }
        for at in 0..self.connections.places.len() {
            let Some(connection) = &mut self.connections.places[at].connection else { continue };
            if connection.sweep(now).is_err() {
                self.close(at);
            } else if connection.is_closing() {
                self.touch(at);
            }
        }
    }

    fn close(&mut self, at: usize) {
        let Some(mut connection) = self.connections.take(at) else { return };
        self.kept -= std::mem::take(&mut self.connections.places[at].weight) as u64;
        self.parts.machine.closed(connection.key);
        match &mut self.ring {
            None => drop(self.parts.poll.registry().deregister(connection.stream())),
            Some(ring) => ring.bury(connection),
        }
        self.parts.clients.leave();
        self.parts.stats.connections(self.connections.count);
    }

    /// The node stops: clients are let go.
    fn begin_parting(&mut self, until: Instant) {
        self.part_until = Some(until);
        self.parts.machine.part();
        for place in &mut self.connections.places {
            if let Some(connection) = &mut place.connection {
                connection.part();
            }
        }
        // At once, where there is no patience.
        self.next_tick = self.woke_at;
    }

    fn go_on_parting(&mut self, now: Instant) {
        let Some(until) = self.part_until else { return };
        self.parting.tick(now, &mut self.scratch);
        for at in 0..self.connections.places.len() {
            let Some(connection) = &mut self.connections.places[at].connection else { continue };
            if now >= until {
                connection.finish();
            } else {
                connection.part_if_quiet(now);
            }
            if connection.is_closing() {
                self.touch(at);
            }
        }
    }
}

/// Bytes of a request that was passed on.
fn passed_on_bytes(message: &Message) -> usize {
    match message {
        Message::Forward(forward) => forward.args.iter().map(|arg| arg.len()).sum(),
        _ => 0,
    }
}

/// Hands messages to another shard of this node; what finds no room waits for the next turn.
fn send_local(threads: &Threads, from: Sender, to: ShardId, messages: &mut Vec<Message>) {
    let Some(post) = threads.post(Endpoint::Shard(to)) else {
        messages.clear();
        return;
    };
    if let Err(Mail::Shard(_, kept)) =
        post.send_below(LOCAL_TURNS_MAX, Mail::Shard(from, std::mem::take(messages)))
    {
        *messages = kept;
        if messages.len() > LOCAL_MESSAGES_MAX {
            warn!(shard = to.0, lost = messages.len(), "a shard is too far behind for what another tells it");
            messages.clear();
        }
    }
}
