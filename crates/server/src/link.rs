//! Links: one-way TCP connections between a thread of this node and threads of others.
//!
//! An outgoing link is dialed when there is something to send, and again, after 20 to 500 ms, as long as there is.
//! What could not be sent is lost beyond a bound: the machines send again what matters. Frames of one turn leave
//! in one write. An incoming link has proved who is at its other end before it comes here.
//!
//! Sockets are watched edge-triggered: one that would block is left alone until it is reported again, one that is
//! readable is read until it is empty, over several turns where it has much.
//!
//! What waits for a socket is in an [`outbox`]. A huge message leaves in parts, with others between them.
//!
//! Left out: dialing and proofs (`peers`), and what frames mean.

mod outbox;

use crate::clock;
use crate::peers::{DialRequest, Dialer};
use control::message::Identity;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use node::Published;
use outbox::Outbox;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;
use storage::Rope;
use tracing::{debug, warn};
use types::{Endpoint, Instant, Level, NodeId};
use wire::peer::{FORMAT_PARTS, Frame, FrameReader, format_at};

/// The most bytes that wait for a link that is down.
const DISCONNECTED_BYTES_MAX: usize = 1024 * 1024;
const BACK_OFF_LEAST: Duration = Duration::from_millis(20);
const BACK_OFF_MOST: Duration = Duration::from_millis(500);
/// Reads from one link in one turn, each of a scratch buffer at most.
const READS_A_TURN: usize = 4;

const LINK: usize = 1 << 62;
const OUTGOING: usize = 1 << 61;

/// What the two ends of a link have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The format of frames.
    pub format: u8,
    /// The highest feature level of the other end's build.
    pub level: Level,
}

/// What `peers` tells a thread of its links.
#[derive(Debug)]
pub enum LinkMail {
    /// A node dialed this thread and has proved who it is.
    Accepted {
        /// Nonblocking.
        stream: std::net::TcpStream,
        /// The node.
        identity: Identity,
        /// Its thread.
        from: Endpoint,
        /// What was agreed on.
        spoken: Spoken,
    },
    /// What came of a [`DialRequest`].
    Dialed {
        /// The node.
        node: NodeId,
        /// Its thread.
        to: Endpoint,
        /// Nonblocking; none where it could not be reached or did not prove who it is.
        link: Option<(std::net::TcpStream, Spoken)>,
    },
}

#[derive(Debug)]
enum State {
    /// There has been nothing to send, or the back-off runs until then.
    Down {
        dial_at: Instant,
    },
    Dialing,
    Up {
        stream: TcpStream,
        writable: bool,
        spoken: Spoken,
    },
}

#[derive(Debug)]
struct Outgoing {
    node: NodeId,
    to: Endpoint,
    state: State,
    back_off: Duration,
    out: Outbox,
    dirty: bool,
}

#[derive(Debug)]
struct Incoming {
    stream: TcpStream,
    identity: Identity,
    from: Endpoint,
    level: Level,
    reader: FrameReader,
    /// In `Links::readable`.
    readable: bool,
    /// The other end has finished: read up to the end.
    hung_up: bool,
}

/// A thread's links.
#[derive(Debug)]
pub struct Links {
    own: Endpoint,
    registry: Registry,
    dialer: Dialer,
    /// The most bytes that wait for a link that is up before more is dropped.
    bytes_max: usize,
    /// How often something was dropped.
    drops: u64,
    published: Arc<Published>,
    /// The cluster's level, as last seen.
    level: Level,
    outgoing: Vec<Outgoing>,
    by_target: BTreeMap<(NodeId, Endpoint), usize>,
    incoming: Vec<Option<Incoming>>,
    dirty: Vec<usize>,
    readable: Vec<usize>,
    lost: Vec<NodeId>,
}

/// Whether an event's token is that of a link.
pub fn is_link(token: Token) -> bool {
    token.0 & LINK != 0 && token.0 >> 63 == 0
}

impl Links {
    /// No links yet. `own` is the thread that they begin and end at; so many bytes may wait for one of them.
    pub fn new(
        own: Endpoint,
        registry: Registry,
        dialer: Dialer,
        bytes_max: usize,
        published: Arc<Published>,
    ) -> Links {
        Links {
            own,
            registry,
            dialer,
            bytes_max,
            drops: 0,
            level: published.level(),
            published,
            outgoing: Vec::new(),
            by_target: BTreeMap::new(),
            incoming: Vec::new(),
            dirty: Vec::new(),
            readable: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Queues what `write` appends: whole frames, in the format that it is given: the link's, or while there is none what every
    /// member can read. They leave at the next [`Links::flush`], or are dropped where too much waits already.
    pub fn queue(&mut self, now: Instant, node: NodeId, to: Endpoint, write: impl FnOnce(u8, &mut Rope)) {
        self.queue_as(now, node, to, false, write);
    }

    /// As [`Links::queue`], of one huge frame. It goes in parts, where the other end knows them, and others go between these.
    pub fn queue_huge(
        &mut self,
        now: Instant,
        node: NodeId,
        to: Endpoint,
        write: impl FnOnce(u8, &mut Rope),
    ) {
        self.queue_as(now, node, to, true, write);
    }

    fn queue_as(
        &mut self,
        now: Instant,
        node: NodeId,
        to: Endpoint,
        is_huge: bool,
        write: impl FnOnce(u8, &mut Rope),
    ) {
        let at = *self.by_target.entry((node, to)).or_insert_with(|| {
            self.outgoing.push(Outgoing {
                node,
                to,
                state: State::Down { dial_at: now },
                back_off: BACK_OFF_LEAST,
                out: Outbox::default(),
                dirty: false,
            });
            self.outgoing.len() - 1
        });
        let link = &mut self.outgoing[at];
        let (format, most) = match link.state {
            State::Up { spoken, .. } => (spoken.format, self.bytes_max),
            _ => (format_at(self.level), DISCONNECTED_BYTES_MAX.min(self.bytes_max)),
        };
        let is_taken = if is_huge && format >= FORMAT_PARTS {
            let mut frame = Rope::default();
            write(format, &mut frame);
            link.out.push_huge(most, format, frame)
        } else {
            link.out.push(most, |out| write(format, out))
        };
        if !is_taken {
            self.drops += 1;
        }
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(at);
        }
    }

    /// Writes what waits, as far as the sockets take it, and dials where a link is missing. Ends a turn.
    pub fn flush(&mut self, now: Instant) {
        for at in std::mem::take(&mut self.dirty) {
            let link = &mut self.outgoing[at];
            link.dirty = false;
            match &mut link.state {
                State::Up { .. } => {
                    if let Err(error) = link.write() {
                        self.lose(now, at, &error);
                    }
                }
                State::Down { dial_at } if *dial_at <= now => self.dial(at),
                State::Down { .. } | State::Dialing => {}
            }
        }
    }

    /// Dials again what has waited long enough. To be called every few milliseconds.
    pub fn tick(&mut self, now: Instant) {
        self.cut_those_behind(now);
        for at in 0..self.outgoing.len() {
            let link = &self.outgoing[at];
            if !link.out.is_empty() && matches!(link.state, State::Down { dial_at } if dial_at <= now) {
                self.dial(at);
            }
        }
    }

    /// The cluster's level may have risen: whose build has less is spoken to no more. It dials again, and is told why.
    fn cut_those_behind(&mut self, now: Instant) {
        let level = self.published.level();
        if level <= self.level {
            return;
        }
        self.level = level;
        for at in 0..self.outgoing.len() {
            if matches!(self.outgoing[at].state, State::Up { spoken, .. } if spoken.level < level) {
                self.lose(
                    now,
                    at,
                    &io::Error::other("the node's build has less than the cluster's feature level"),
                );
            }
        }
        for at in 0..self.incoming.len() {
            if self.incoming[at].as_ref().is_some_and(|link| link.level < level) {
                self.drop_incoming(at);
            }
        }
    }

    fn dial(&mut self, at: usize) {
        let link = &mut self.outgoing[at];
        link.state = State::Dialing;
        self.dialer.dial(DialRequest { from: self.own, node: link.node, to: link.to });
    }

    /// A letter from `peers`.
    pub fn mail(&mut self, now: Instant, mail: LinkMail) {
        match mail {
            // The level may have risen since it was agreed on.
            LinkMail::Accepted { spoken, .. } if spoken.level < self.level => {}
            LinkMail::Dialed { node, to, link: Some((_, spoken)) } if spoken.level < self.level => {
                self.mail(now, LinkMail::Dialed { node, to, link: None });
            }
            LinkMail::Accepted { stream, identity, from, spoken } => {
                if let Err(error) = self.accept(stream, identity, from, spoken) {
                    warn!(node = identity.node.0, %error, "cannot watch an incoming link");
                }
            }
            LinkMail::Dialed { node, to, link } => {
                let Some(&at) = self.by_target.get(&(node, to)) else { return };
                match link.map(|(stream, spoken)| self.connected(at, stream, spoken)) {
                    Some(Ok(())) => {}
                    Some(Err(error)) => self.lose(now, at, &error),
                    None => self.outgoing[at].wait(now),
                }
            }
        }
    }

    fn connected(&mut self, at: usize, stream: std::net::TcpStream, spoken: Spoken) -> io::Result<()> {
        let mut stream = TcpStream::from_std(stream);
        let token = Token(LINK | OUTGOING | at);
        self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let link = &mut self.outgoing[at];
        link.state = State::Up { stream, writable: true, spoken };
        link.back_off = BACK_OFF_LEAST;
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(at);
        }
        Ok(())
    }

    fn accept(
        &mut self,
        stream: std::net::TcpStream,
        identity: Identity,
        from: Endpoint,
        spoken: Spoken,
    ) -> io::Result<()> {
        let same = |link: &Incoming| link.identity.node == identity.node && link.from == from;
        // A thread has one link to another: a second one means that the first broke at its other end.
        if let Some(at) = self.incoming.iter().position(|link| link.as_ref().is_some_and(same)) {
            let older =
                self.incoming[at].as_ref().is_some_and(|l| l.identity.incarnation > identity.incarnation);
            if older {
                return Ok(());
            }
            self.drop_incoming(at);
        }
        let at = self.incoming.iter().position(Option::is_none).unwrap_or_else(|| {
            self.incoming.push(None);
            self.incoming.len() - 1
        });
        let mut stream = TcpStream::from_std(stream);
        self.registry.register(&mut stream, Token(LINK | at), Interest::READABLE)?;
        let (reader, level) = (FrameReader::open(), spoken.level);
        self.incoming[at] =
            Some(Incoming { stream, identity, from, level, reader, readable: false, hung_up: false });
        Ok(())
    }

    fn drop_incoming(&mut self, at: usize) {
        self.readable.retain(|&other| other != at);
        if let Some(mut link) = self.incoming[at].take() {
            let _ = self.registry.deregister(&mut link.stream);
            self.lost.push(link.identity.node);
        }
    }

    /// An event whose token [`is_link`].
    pub fn event(&mut self, now: Instant, event: &Event) {
        let at = event.token().0 & u32::MAX as usize;
        if event.token().0 & OUTGOING != 0 {
            self.outgoing_event(now, at, event);
        } else if let Some(Some(link)) = self.incoming.get_mut(at) {
            link.hung_up |= event.is_read_closed() || event.is_error();
            if !link.readable {
                link.readable = true;
                self.readable.push(at);
            }
        }
    }

    fn outgoing_event(&mut self, now: Instant, at: usize, event: &Event) {
        let Some(link) = self.outgoing.get_mut(at) else { return };
        let State::Up { stream, writable, .. } = &mut link.state else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            // The acceptor says nothing on this link, so that all it can tell is that it has gone.
            let error = match stream.read(&mut [0; 16]) {
                Ok(0) => Some(ErrorKind::UnexpectedEof.into()),
                Ok(_) => Some(io::Error::other("the acceptor spoke on a one-way link")),
                Err(error) if is_transient(&error) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                return self.lose(now, at, &error);
            }
        }
        if event.is_writable() {
            *writable = true;
            if !link.dirty && !link.out.is_empty() {
                link.dirty = true;
                self.dirty.push(at);
            }
        }
    }

    fn lose(&mut self, now: Instant, at: usize, error: &io::Error) {
        let link = &mut self.outgoing[at];
        debug!(node = link.node.0, to = ?link.to, %error, "a link broke");
        if let State::Up { stream, .. } = &mut link.state {
            let _ = self.registry.deregister(stream);
        }
        // The peer may have had a part of the first frame: none of this can go over another connection.
        link.out = Outbox::default();
        link.wait(now);
        self.lost.push(link.node);
    }

    /// Whether some link has more to read, so that the loop must not sleep.
    pub fn has_backlog(&self) -> bool {
        !self.readable.is_empty()
    }

    /// Bytes of unfinished frames on the links that are read next: the most of any.
    pub fn input_bytes(&self) -> usize {
        let open = self.readable.iter().filter_map(|&at| self.incoming[at].as_ref());
        open.map(|link| link.reader.waiting_bytes()).max().unwrap_or(0)
    }

    /// Reads what has come, through `scratch`, and hands over each frame with its sender and the time.
    pub fn read(&mut self, scratch: &mut [u8], mut deliver: impl FnMut(Instant, Identity, Endpoint, Frame)) {
        for at in std::mem::take(&mut self.readable) {
            let Some(link) = &mut self.incoming[at] else { continue };
            match link.read(scratch, &mut deliver) {
                Ok(true) => self.readable.push(at),
                Ok(false) => link.readable = false,
                Err(error) => {
                    debug!(node = link.identity.node.0, from = ?link.from, %error, "an incoming link broke");
                    self.drop_incoming(at);
                }
            }
        }
    }

    /// Bytes that wait for all links.
    pub fn waiting_bytes(&self) -> usize {
        self.outgoing.iter().map(|link| link.out.waiting()).sum()
    }

    /// How often something was dropped because too much waited for its link.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// Nodes to or from which messages have been lost since the last call.
    pub fn take_lost(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.lost)
    }
}

impl Outgoing {
    /// Writes until all is out or the socket is full.
    fn write(&mut self) -> io::Result<()> {
        let State::Up { stream, writable, .. } = &mut self.state else { return Ok(()) };
        if *writable {
            *writable = !self.out.write_to(stream)?;
        }
        Ok(())
    }

    fn wait(&mut self, now: Instant) {
        self.state = State::Down { dial_at: now + self.back_off };
        self.back_off = (self.back_off * 2).min(BACK_OFF_MOST);
    }
}

impl Incoming {
    /// Whether there may be more to read.
    fn read(
        &mut self,
        scratch: &mut [u8],
        deliver: &mut impl FnMut(Instant, Identity, Endpoint, Frame),
    ) -> io::Result<bool> {
        for _ in 0..READS_A_TURN {
            let bytes = match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // After the bytes, never before: were the process paused between the two, a machine would check its
            // lease against a time that had long passed when the message was read.
            let now = clock::now();
            self.reader.push(&scratch[..bytes]);
            while let Some(frame) = self.reader.next_frame().map_err(io::Error::other)? {
                deliver(now, self.identity, self.from, frame);
            }
            if bytes < scratch.len() && !self.hung_up {
                // The socket was empty; what comes from now on is reported again.
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
