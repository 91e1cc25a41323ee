//! One client's connection: bytes in, requests to the machine, replies out in the order of the requests.
//!
//! ```text
//!   socket ──> scratch ──> parse up to 32 ──> prefetch each ──> run each ──┬─ at once, none before it waits ──> out
//!      │          │ rest of a request                                      ├─ at once ──> pending: Done
//!      │          └──> input                                               └─ later ────> pending: Waiting
//!   socket <────────────────────────────────── out <── from the front, as replies come
//! ```
//!
//! An idle connection holds no buffer to speak of: bytes are read into a scratch buffer that all connections of a
//! thread share, and only the rest of an unfinished request is kept. A client is not read from while it does not
//! read: beyond 1 MiB of replies, 10,000 waiting requests, or 64 MiB of waiting requests.

use crate::clock;
use crate::machine::{Answer, ShardMachine, Ticket};
use command::{Reply, Session};
use mio::net::TcpStream;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::time::Duration;
use types::Instant;
use wire::resp::{self, Parsed, ProtocolError};

/// How many requests are parsed and prefetched before the first of them runs.
const LOOK_AHEAD: usize = 32;
/// Arguments of a batch that need no allocation.
const ARGS_IN_PLACE: usize = 3 * LOOK_AHEAD;
/// Reads from one connection in one turn, each of a scratch buffer at most.
const READS_A_TURN: usize = 4;
/// Requests of one connection in one turn.
const REQUESTS_A_TURN: usize = 1024;
const OUT_BYTES_PAUSE: usize = 1024 * 1024;
const PENDING_PAUSE: usize = 10_000;
const PENDING_BYTES_PAUSE: usize = 64 * 1024 * 1024;
/// A client that has this much to read and reads nothing is closed after [`STUCK_AFTER`].
const OUT_BYTES_STUCK: usize = 64 * 1024 * 1024;
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// A client that lets replies pile up to this is closed at once: a largest value and what may wait before it.
const OUT_BYTES_MAX: usize = types::limits::VALUE_BYTES_MAX + 256 * 1024 * 1024;
/// A buffer that is larger than this is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 16 * 1024;

/// A request whose turn to be answered has not come.
#[derive(Debug)]
enum Slot {
    /// No reply yet. Replies are written in the protocol that was spoken when the request came.
    Waiting { protocol: u8, bytes: usize, command: usize, began: Instant },
    /// Its reply, behind others that wait.
    Done(Vec<u8>),
}

/// The connection has to go, without another word.
#[derive(Debug)]
pub struct Dead;

/// A client's connection.
pub struct Connection {
    /// Names it to the machine.
    pub key: u64,
    stream: TcpStream,
    session: Session,
    decoder: resp::Decoder,
    /// Once it has authenticated; before that, those for strangers.
    limits: resp::Limits,
    /// The rest of an unfinished request; with `backlog`, whole requests too.
    input: Vec<u8>,
    backlog: bool,
    readable: bool,
    writable: bool,
    /// The client has finished sending, or so an event said: read up to the end.
    hung_up: bool,
    read_closed: bool,
    /// Neither side can send any more: a reset, or an error.
    broken: bool,
    /// No more requests are taken; it closes once every reply is out.
    closing: bool,
    out: Vec<u8>,
    sent: usize,
    pending: VecDeque<Slot>,
    pending_bytes: usize,
    /// The number of the request at the front of `pending`.
    front: u64,
    progress_at: Instant,
    active: bool,
    counts: Counts,
}

/// What a connection did since it was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Requests run.
    pub commands: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

impl Connection {
    /// A new connection, as yet not watched.
    pub fn new(
        key: u64,
        stream: TcpStream,
        session: Session,
        limits: resp::Limits,
        now: Instant,
    ) -> Connection {
        Connection {
            key,
            stream,
            session,
            decoder: resp::Decoder::new(),
            limits,
            input: Vec::new(),
            backlog: false,
            readable: false,
            writable: true,
            hung_up: false,
            read_closed: false,
            broken: false,
            closing: false,
            out: Vec::new(),
            sent: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            front: 0,
            progress_at: now,
            active: true,
            counts: Counts::default(),
        }
    }

    /// The socket, to watch it.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// What its socket was reported to be.
    pub fn event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.hung_up |= event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
        self.broken |= event.is_write_closed();
    }

    /// Takes no more requests; closes once those that it took are answered.
    pub fn finish(&mut self) {
        self.closing = true;
        self.backlog = false;
        self.input = Vec::new();
    }

    /// Whether [`Connection::run`] has something to do now.
    pub fn is_runnable(&self) -> bool {
        (self.backlog || (self.readable && !self.read_closed)) && !self.closing && !self.is_full()
    }

    /// Whether it is done with: nothing more comes in, and every reply is out.
    pub fn is_finished(&self) -> bool {
        (self.closing || (self.read_closed && !self.backlog))
            && self.pending.is_empty()
            && self.sent == self.out.len()
    }

    /// What it did since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn is_full(&self) -> bool {
        self.out.len() - self.sent > OUT_BYTES_PAUSE
            || self.pending.len() >= PENDING_PAUSE
            || self.pending_bytes > PENDING_BYTES_PAUSE
    }

    /// Reads and runs what has come, within a turn's share.
    pub fn run<M: ShardMachine>(&mut self, machine: &mut M, scratch: &mut [u8]) -> Result<(), Dead> {
        self.active = true;
        let mut requests = REQUESTS_A_TURN;
        for _ in 0..READS_A_TURN {
            if !self.is_runnable() || requests == 0 {
                return Ok(());
            }
            if self.backlog {
                self.backlog = false;
                self.run_input(clock::now(), machine, &mut requests);
                continue;
            }
            let bytes = match self.stream.read(scratch) {
                Ok(0) => {
                    self.read_closed = true;
                    return Ok(());
                }
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Dead),
            };
            // The clock is read after the bytes, once for all that came with them. Were it read before, a pause of
            // the process between the two (a SIGSTOP, a sleeping laptop) would have the machine check its lease
            // against a time from before the request was even sent: it could serve a read of a state that another
            // primary has long since changed.
            let now = clock::now();
            self.counts.bytes_in += bytes as u64;
            if bytes < scratch.len() && !self.hung_up {
                // The socket was empty; what comes from now on is reported again.
                self.readable = false;
            }
            if self.input.is_empty() {
                let used = self.run_requests(now, machine, &mut scratch[..bytes], &mut requests);
                if !self.closing {
                    self.input.extend_from_slice(&scratch[used..bytes]);
                }
            } else {
                self.input.extend_from_slice(&scratch[..bytes]);
                self.run_input(now, machine, &mut requests);
            }
        }
        Ok(())
    }

    fn run_input<M: ShardMachine>(&mut self, now: Instant, machine: &mut M, requests: &mut usize) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.run_requests(now, machine, &mut input, requests);
        if used == input.len() || self.closing {
            if input.capacity() > BUFFER_BYTES_KEPT {
                return;
            }
            input.clear();
        } else {
            input.drain(..used);
        }
        self.input = input;
    }

    /// Runs the whole requests at the front of `bytes`. Returns how many bytes they took.
    fn run_requests<M: ShardMachine>(
        &mut self,
        now: Instant,
        machine: &mut M,
        bytes: &mut [u8],
        requests: &mut usize,
    ) -> usize {
        let mut used = 0;
        while used < bytes.len() && !self.closing {
            if *requests == 0 || self.is_full() {
                self.backlog = true;
                break;
            }
            // Before the password the limits are tight, and each request may be the one that lifts them.
            let authenticated = self.session.authenticated;
            let most = if authenticated { LOOK_AHEAD.min(*requests) } else { 1 };
            let limits = if authenticated { self.limits } else { resp::Limits::unauthenticated() };
            let mut batch = Batch { end: used, ..Batch::default() };
            let end = batch.parse(&mut self.decoder, &limits, bytes, most);
            let args: SmallVec<[&[u8]; ARGS_IN_PLACE]> = resp::slices(bytes, &batch.spans).collect();
            if batch.requests.len() > 1 {
                for request in &batch.requests {
                    machine.prefetch(&args[request.args.clone()]);
                }
            }
            *requests -= batch.requests.len();
            let mut began = now;
            for (at, request) in batch.requests.iter().enumerate() {
                began = self.run_one(now, began, machine, &args[request.args.clone()], request.bytes);
                used += request.bytes;
                if self.closing {
                    return bytes.len();
                }
                if self.is_full() && can_be_parsed_again(bytes, used, &batch.requests[at + 1..]) {
                    // Long replies: the rest of the batch waits, and is parsed again.
                    self.decoder = resp::Decoder::new();
                    self.backlog = used < bytes.len();
                    return used;
                }
            }
            debug_assert_eq!(used, batch.end);
            match end {
                BatchEnd::Full => {}
                BatchEnd::Incomplete => break,
                BatchEnd::Malformed(error) => {
                    self.reply_now(&error.into());
                    self.finish();
                    return bytes.len();
                }
            }
        }
        used
    }

    /// Runs a request. Returns when it was done with it.
    fn run_one<M: ShardMachine>(
        &mut self,
        now: Instant,
        began: Instant,
        machine: &mut M,
        args: &[&[u8]],
        bytes: usize,
    ) -> Instant {
        let Some(name) = args.first() else { return began };
        self.counts.commands += 1;
        let ticket = Ticket { connection: self.key, sequence: self.front + self.pending.len() as u64 };
        let protocol = self.session.protocol;
        // The one command that changes the protocol is answered in the new one.
        let switches = name.eq_ignore_ascii_case(b"hello");
        let mut switched = None;
        let mut behind = Vec::new();
        let mut error = None;
        let direct = self.pending.is_empty();
        let out = if direct { &mut self.out } else { &mut behind };
        let answer = machine.request(now, ticket, &mut self.session, args, &mut |reply| {
            if let Reply::Error(why) = reply {
                error = Some(why.clone());
            }
            if switches {
                switched = Some(reply.clone().into_owned());
            } else {
                resp::write(reply, protocol, out);
            }
        });
        let done = clock::now();
        let took_ns = done.since(began).as_nanos() as u64;
        let command = machine.ran(&self.session, args, took_ns);
        match answer {
            Answer::Now => {
                machine.answered(command, took_ns, error.as_ref());
                if let Some(reply) = switched {
                    let out = if direct { &mut self.out } else { &mut behind };
                    resp::write(&reply, self.session.protocol, out);
                }
                if direct {
                    self.front += 1;
                } else {
                    self.pending.push_back(Slot::Done(behind));
                }
            }
            Answer::Later => {
                self.pending.push_back(Slot::Waiting { protocol, bytes, command, began });
                self.pending_bytes += bytes;
            }
        }
        if self.session.close_after_reply {
            self.finish();
        }
        done
    }

    /// A reply of this room's own, after those that wait.
    fn reply_now(&mut self, reply: &Reply<'_>) {
        if self.pending.is_empty() {
            resp::write(reply, self.session.protocol, &mut self.out);
            self.front += 1;
        } else {
            let mut out = Vec::new();
            resp::write(reply, self.session.protocol, &mut out);
            self.pending.push_back(Slot::Done(out));
        }
    }

    /// The machine's reply to an earlier request. Returns that request's command, as [`ShardMachine::ran`] numbered it, and
    /// when it began; none where no such request waits.
    pub fn reply(&mut self, sequence: u64, reply: &Reply<'_>) -> Option<(usize, Instant)> {
        let at = usize::try_from(sequence.checked_sub(self.front)?).ok()?;
        let Some(&Slot::Waiting { protocol, bytes, command, began }) = self.pending.get(at) else {
            return None;
        };
        self.pending_bytes -= bytes;
        if at > 0 {
            let mut done = Vec::new();
            resp::write(reply, protocol, &mut done);
            self.pending[at] = Slot::Done(done);
            return Some((command, began));
        }
        resp::write(reply, protocol, &mut self.out);
        self.pending.pop_front();
        self.front += 1;
        while let Some(Slot::Done(_)) = self.pending.front() {
            if let Some(Slot::Done(done)) = self.pending.pop_front() {
                self.out.extend_from_slice(&done);
                self.front += 1;
            }
        }
        Some((command, began))
    }

    /// Whether it has something to write and may.
    pub fn wants_write(&self) -> bool {
        self.writable && self.sent < self.out.len()
    }

    /// Writes what the socket takes.
    pub fn write(&mut self, now: Instant) -> Result<(), Dead> {
        self.active = true;
        if self.broken {
            return Err(Dead);
        }
        while self.wants_write() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(Dead),
                Ok(bytes) => {
                    self.sent += bytes;
                    self.counts.bytes_out += bytes as u64;
                    self.progress_at = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Dead),
            }
        }
        if self.sent == self.out.len() {
            self.sent = 0;
            self.out.clear();
            if self.out.capacity() > BUFFER_BYTES_KEPT {
                self.out = Vec::new();
            }
        } else if self.sent > OUT_BYTES_PAUSE && self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        if self.out.len() - self.sent > OUT_BYTES_MAX { Err(Dead) } else { Ok(()) }
    }

    /// Once a second: gives back the buffers of an idle connection, and gives up on a client that reads nothing.
    pub fn sweep(&mut self, now: Instant) -> Result<(), Dead> {
        let unsent = self.out.len() - self.sent;
        if unsent > OUT_BYTES_STUCK && now.since(self.progress_at) > STUCK_AFTER {
            return Err(Dead);
        }
        if !std::mem::take(&mut self.active) {
            if self.out.is_empty() {
                self.out = Vec::new();
            }
            if self.pending.is_empty() {
                self.pending = VecDeque::new();
            }
            self.input.shrink_to_fit();
        }
        Ok(())
    }

    /// Ends the connection so that what was written still arrives.
    pub fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }
}

/// Whether parsing leaves these requests, the first of which starts at `start`, as they were. It takes the quotes off
/// the words of an inline one.
fn can_be_parsed_again(bytes: &[u8], mut start: usize, requests: &[Request]) -> bool {
    requests.iter().all(|request| {
        let first = bytes.get(start);
        start += request.bytes;
        first == Some(&b'*')
    })
}

/// Requests parsed ahead.
#[derive(Default)]
struct Batch {
    /// Where all their arguments lie.
    spans: SmallVec<[resp::Span; ARGS_IN_PLACE]>,
    requests: SmallVec<[Request; LOOK_AHEAD]>,
    /// Where the last whole request ends.
    end: usize,
}

struct Request {
    /// Which of the batch's arguments are its own.
    args: Range<usize>,
    bytes: usize,
}

enum BatchEnd {
    /// As many as were wanted, or no bytes left over.
    Full,
    /// The next request has not wholly come.
    Incomplete,
    /// What follows is no request.
    Malformed(ProtocolError),
}

impl Batch {
    /// Parses up to `most` requests of `bytes` from `end` on.
    fn parse(
        &mut self,
        decoder: &mut resp::Decoder,
        limits: &resp::Limits,
        bytes: &mut [u8],
        most: usize,
    ) -> BatchEnd {
        while self.requests.len() < most && self.end < bytes.len() {
            let start = self.end;
            let used = match decoder.parse(&mut bytes[start..], limits) {
                Ok(Parsed::Complete(used)) => used,
                Ok(Parsed::Incomplete { .. }) => return BatchEnd::Incomplete,
                Err(error) => return BatchEnd::Malformed(error),
            };
            let first = self.spans.len();
            self.spans.extend(decoder.arguments().iter().map(|&(from, to)| (start + from, start + to)));
            self.requests.push(Request { args: first..self.spans.len(), bytes: used });
            self.end += used;
        }
        BatchEnd::Full
    }
}

#[cfg(test)]
mod tests;
