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
//! read: beyond 1 MiB of replies, as many waiting requests as [`window`] allows (10,000 with small replies), or 64 MiB of waiting requests. What else it may cost is in
//! [`limits`]; how a huge request is run in [`huge`]; `CLIENT PAUSE` in [`pause`]; its end when the node stops in [`part`].

mod huge;
mod limits;
mod output;
mod part;
mod pause;
mod timing;
mod window;

use crate::clock;
use crate::machine::{Answer, Preview, Request, ShardMachine, Ticket};
use crate::ring::Flight;
use command::clients::describe;
use command::{ClientState, List, Pause, Reply, ReplyMode, Session};
use mio::net::TcpStream;
use output::Output;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use storage::{Rope, Sink};
use timing::{Ran, Timing};
use types::Instant;
use types::settings::Settings;
use window::Window;
use wire::resp::{self, Parsed, ProtocolError};

/// How many requests are parsed and prefetched before the first of them runs.
const LOOK_AHEAD: usize = 32;
/// Arguments of a batch that need no allocation.
const ARGS_IN_PLACE: usize = 3 * LOOK_AHEAD;
/// Reads from one connection in one turn, each of a scratch buffer at most.
const READS_A_TURN: usize = 4;
/// Requests of one connection in one turn.
const REQUESTS_A_TURN: usize = 1024;
/// What one turn writes of a list.
const LIST_BYTES_A_TURN: usize = 256 * 1024;
const OUT_BYTES_PAUSE: usize = 1024 * 1024;
const PENDING_BYTES_PAUSE: usize = 64 * 1024 * 1024;
/// The most that is handed to a ring at once, so that progress shows.
const SEND_BYTES_MAX: usize = 256 * 1024;
/// A buffer that is larger than this is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 16 * 1024;

/// A request whose turn to be answered has not come.
#[derive(Debug)]
enum Slot {
    /// No reply yet. Replies are written in the protocol that was spoken when the request came.
    Waiting { protocol: u8, bytes: usize, wanted: bool, command: usize, began: Instant },
    /// Its reply, behind others that wait.
    Done(Rope),
    /// A reply of maybe millions of items, which is written a chunk at a time once it is at the front.
    List { list: List, begun: bool },
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
    settings: Arc<Settings>,
    /// Once it has authenticated; before that, those for strangers.
    limits: resp::Limits,
    /// The rest of an unfinished request; with `backlog`, whole requests too.
    input: Vec<u8>,
    /// At least so many bytes of that request are to come.
    needs: usize,
    /// Whether it is known to be huge.
    is_huge: bool,
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
    /// The node stops: it closes as soon as nothing is under way.
    parts: bool,
    /// When requests last came before earlier ones were answered.
    pipelined_at: Option<Instant>,
    output: Output,
    window: Window,
    /// What a ring has to do with it.
    pub flight: Flight,
    pending: VecDeque<Slot>,
    pending_bytes: usize,
    /// A request whose reply may be large: until that is out, no other runs.
    alone: Option<u64>,
    /// The number of the request at the front of `pending`.
    front: u64,
    /// Waits for the end of a pause.
    held: Option<pause::Held>,
    gauge: limits::Gauge,
    active: bool,
    counts: Counts,
    /// When it last was done with requests.
    ran_at: Instant,
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
        settings: Arc<Settings>,
        now: Instant,
    ) -> Connection {
        let limits = resp::Limits::authenticated(&settings);
        Connection {
            key,
            stream,
            session,
            decoder: resp::Decoder::new(),
            settings,
            limits,
            input: Vec::new(),
            needs: 0,
            is_huge: false,
            backlog: false,
            readable: false,
            writable: true,
            hung_up: false,
            read_closed: false,
            broken: false,
            closing: false,
            parts: false,
            pipelined_at: None,
            output: Output::default(),
            window: Window::default(),
            flight: Flight::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            alone: None,
            front: 0,
            held: None,
            gauge: limits::Gauge::new(now),
            active: true,
            counts: Counts::default(),
            ran_at: now,
        }
    }

    /// The settings have changed.
    pub fn set_settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
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
        self.held = None;
        self.input = Vec::new();
        self.decoder = resp::Decoder::new();
    }

    /// Bytes of the requests that wait to be run.
    pub fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// Whether [`Connection::run`] has something to do now.
    pub fn is_runnable(&self) -> bool {
        (self.backlog || (self.readable && !self.read_closed))
            && !self.closing
            && self.held.is_none()
            && !self.is_full()
    }

    /// Whether it is done with: nothing more comes in, and every reply is out.
    pub fn is_finished(&self) -> bool {
        (self.closing || (self.read_closed && !self.backlog))
            && self.pending.is_empty()
            && self.output.unsent() == 0
            && !self.flight.sending
    }

    /// When it last was done with requests.
    pub fn ran_at(&self) -> Instant {
        self.ran_at
    }

    /// What it did since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn is_full(&self) -> bool {
        self.alone.is_some()
            || self.unread() > OUT_BYTES_PAUSE
            || self.pending.len() >= self.window.requests()
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
            if bytes < scratch.len() && !self.hung_up {
                // The socket was empty; what comes from now on is reported again.
                self.readable = false;
            }
            self.take_in(now, machine, &mut scratch[..bytes], &mut requests);
        }
        Ok(())
    }

    /// Takes bytes that have come, and runs the whole requests among them.
    fn take_in<M: ShardMachine>(
        &mut self,
        now: Instant,
        machine: &mut M,
        bytes: &mut [u8],
        requests: &mut usize,
    ) {
        self.counts.bytes_in += bytes.len() as u64;
        if self.input.is_empty() {
            let used = self.run_requests(now, machine, bytes, requests);
            self.gauge.heard(now, used > 0, true);
            if !self.closing {
                self.input.extend_from_slice(&bytes[used..]);
                self.look_at_size();
            }
        } else {
            self.make_room(bytes.len());
            self.input.extend_from_slice(bytes);
            self.run_input(now, machine, requests);
        }
    }

    fn run_input<M: ShardMachine>(&mut self, now: Instant, machine: &mut M, requests: &mut usize) {
        if self.is_huge && !self.run_huge(now, machine, requests) {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let used = self.run_requests(now, machine, &mut input, requests);
        self.gauge.heard(now, used > 0, false);
        if used == input.len() || self.closing {
            if input.capacity() > BUFFER_BYTES_KEPT {
                return;
            }
            input.clear();
        } else {
            input.drain(..used);
        }
        self.input = input;
        self.look_at_size();
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
        let mut timing = Timing::new(now);
        while used < bytes.len() && !self.closing {
            if *requests == 0 || self.is_full() {
                self.backlog = true;
                break;
            }
            // Before the password the limits are tight, and each request may be the one that lifts them.
            let authenticated = self.session.authenticated;
            let pause = machine.pause(now);
            let ahead = authenticated && pause == Pause::Off;
            let most = if ahead { LOOK_AHEAD.min(*requests) } else { 1 };
            let limits = if authenticated { self.limits } else { resp::Limits::unauthenticated() };
            let mut batch = Batch { end: used, ..Batch::default() };
            let end = batch.parse(&mut self.decoder, &limits, bytes, most);
            let args: SmallVec<[&[u8]; ARGS_IN_PLACE]> = resp::slices(bytes, &batch.spans).collect();
            for request in &mut batch.requests {
                request.preview = machine.preview(&args[request.args.clone()]);
            }
            if batch.requests.len() > 1 || !self.pending.is_empty() {
                self.pipelined_at = Some(now);
            }
            if batch.requests.len() > 1 {
                machine.prefetch(batch.requests.iter().map(|request| &request.preview));
            }
            *requests -= batch.requests.len();
            for request in &batch.requests {
                let args = &args[request.args.clone()];
                used += request.bytes;
                if pause != Pause::Off && !args.is_empty() && pause.holds(args) {
                    self.hold(args, request.bytes);
                    return used;
                }
                let asked = Request { args, preview: request.preview, lent: None };
                self.run_timed(&mut timing, machine, &asked, now, request.bytes);
                if self.closing {
                    return bytes.len();
                }
                if self.is_full() && used < batch.end {
                    // Long replies: the rest of the batch waits, and is parsed again.
                    timing.settle(machine);
                    self.decoder = resp::Decoder::new();
                    self.backlog = true;
                    return used;
                }
            }
            timing.settle(machine);
            self.ran_at = timing.mark();
            debug_assert_eq!(used, batch.end);
            match end {
                BatchEnd::Full => {}
                BatchEnd::Incomplete { need } => {
                    self.needs = need;
                    break;
                }
                BatchEnd::Malformed(error) => {
                    self.reply_now(&error.into());
                    self.finish();
                    return bytes.len();
                }
            }
        }
        used
    }

    fn run_timed<M: ShardMachine>(
        &mut self,
        timing: &mut Timing,
        machine: &mut M,
        request: &Request<'_>,
        now: Instant,
        bytes: usize,
    ) {
        if request.args.is_empty() {
            return;
        }
        let lone = timing::is_lone(machine, &request.preview, bytes);
        if lone {
            timing.settle(machine);
        }
        let ran = self.run_one(now, machine, request, bytes);
        timing.ran(machine, &self.session, request.args, lone, &ran);
    }

    fn run_one<M: ShardMachine>(
        &mut self,
        now: Instant,
        machine: &mut M,
        request: &Request<'_>,
        bytes: usize,
    ) -> Ran {
        self.counts.commands += 1;
        let ticket = Ticket { connection: self.key, sequence: self.front + self.pending.len() as u64 };
        let protocol = self.session.protocol;
        // The one command that changes the protocol is answered in the new one.
        let switches = request.args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"hello"));
        let mut switched = None;
        let mut behind = (!self.pending.is_empty()).then(Rope::default);
        let mut error = None;
        let out = behind.as_mut().unwrap_or(self.output.buffer());
        let start = out.len();
        let answer = machine.request(now, ticket, &mut self.session, request, &mut |reply| {
            if let Reply::Error(why) = reply {
                error = Some(why.clone());
            }
            if switches {
                switched = Some(reply.clone().into_owned());
            } else {
                resp::write(reply, protocol, out);
            }
        });
        let command = machine.command_at_hand();
        let mut ran = Ran { command, error, is_answered: false, bytes: 0 };
        let wanted = self.session.wants_reply();
        match answer {
            Answer::Now => {
                let out = behind.as_mut().unwrap_or(self.output.buffer());
                if let Some(reply) = switched {
                    resp::write(&reply, self.session.protocol, out);
                }
                if !wanted {
                    out.truncate(start);
                }
                ran.is_answered = true;
                ran.bytes = out.len() - start;
                self.gauge.replied(ran.bytes);
                match behind {
                    None => self.front += 1,
                    Some(behind) => self.put_behind(None, behind),
                }
            }
            Answer::Later | Answer::Alone => {
                if answer == Answer::Alone {
                    self.alone = Some(ticket.sequence);
                }
                self.pending.push_back(Slot::Waiting { protocol, bytes, wanted, command, began: now });
                self.pending_bytes += bytes;
            }
        }
        if self.session.close_after_reply {
            self.finish();
        }
        ran
    }

    /// A reply of this room's own, after those that wait.
    fn reply_now(&mut self, reply: &Reply<'_>) {
        if self.session.replies == ReplyMode::Off {
            return;
        }
        if self.pending.is_empty() {
            resp::write(reply, self.session.protocol, self.output.buffer());
            self.front += 1;
        } else {
            let mut out = Rope::default();
            resp::write(reply, self.session.protocol, &mut out);
            self.put_behind(None, out);
        }
    }

    /// The machine's reply to an earlier request. Returns that request's command and when it came; none where no such
    /// request waits.
    pub fn reply(&mut self, sequence: u64, reply: Reply<'_>) -> Option<(usize, Instant)> {
        let at = usize::try_from(sequence.checked_sub(self.front)?).ok()?;
        let Some(&Slot::Waiting { protocol, bytes, wanted, command, began }) = self.pending.get(at) else {
            return None;
        };
        if self.broken {
            // Nobody will read it.
            return None;
        }
        self.pending_bytes -= bytes;
        match reply {
            Reply::List(list) if wanted => self.pending[at] = Slot::List { list, begun: false },
            reply if at > 0 => {
                let mut done = Rope::default();
                if wanted {
                    resp::write(&reply, protocol, &mut done);
                }
                self.gauge.replied(done.len());
                self.window.replied(done.len());
                self.put_behind(Some(at), done);
            }
            reply => {
                let before = self.output.unsent();
                if wanted {
                    resp::write(&reply, protocol, self.output.buffer());
                }
                self.gauge.replied(self.output.unsent() - before);
                self.window.replied(self.output.unsent() - before);
                self.pass_front();
            }
        }
        self.pass_replies();
        self.give_up_if_unread();
        Some((command, began))
    }

    fn pass_front(&mut self) {
        self.pending.pop_front();
        if self.alone == Some(self.front) {
            self.alone = None;
        }
        self.front += 1;
    }

    /// Puts the replies at the front where they are written from; of a list, as much as is worth a write.
    fn pass_replies(&mut self) {
        loop {
            match self.pending.front_mut() {
                Some(Slot::Done(done)) => {
                    self.gauge.behind_bytes -= done.len();
                    self.output.buffer().append(done);
                }
                Some(Slot::List { list, begun }) => {
                    if !std::mem::replace(begun, true) {
                        resp::write_list_head(list.len(), self.output.buffer().bytes());
                    }
                    while self.output.unsent() < LIST_BYTES_A_TURN
                        && let Some(chunk) = list.take_chunk()
                    {
                        resp::write_list_items(&chunk, self.output.buffer().bytes());
                    }
                    if !list.is_empty() {
                        return;
                    }
                }
                Some(Slot::Waiting { .. }) | None => return,
            }
            self.pass_front();
        }
    }

    /// Whether it has more to write, and only leaves others their turn.
    pub fn has_more(&self) -> bool {
        self.wants_write() || (self.writable && matches!(self.pending.front(), Some(Slot::List { .. })))
    }

    /// Its line in `CLIENT LIST`; `asks` if it is the one that asks for it.
    pub fn describe(&self, now: Instant, asks: bool) -> String {
        let behind = self.pending.iter().filter(|slot| matches!(slot, Slot::Done(_))).count();
        let state = ClientState {
            fd: self.stream.as_raw_fd(),
            age_s: self.age_s(now),
            idle_s: now.since(self.gauge.heard_at).as_secs(),
            paused: self.held.is_some(),
            waits: self.pending.len() > usize::from(asks),
            closing: self.closing,
            input_bytes: self.input.len(),
            input_bytes_free: self.input.capacity() - self.input.len(),
            request_bytes: self.pending_bytes,
            output_bytes_room: self.output.room(),
            output_bytes: self.output.unsent(),
            replies_behind: behind,
            replies_behind_bytes: self.gauge.behind_bytes,
        };
        describe(&self.session, &state)
    }

    /// Seconds since it was made.
    pub fn age_s(&self, now: Instant) -> u64 {
        now.since(self.gauge.made_at).as_secs()
    }

    /// What it has said of itself.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether it has something to write and may.
    pub fn wants_write(&self) -> bool {
        self.writable && self.output.unsent() > 0
    }

    /// Writes what the socket takes.
    pub fn write(&mut self, now: Instant) -> Result<(), Dead> {
        self.active = true;
        if self.broken {
            return Err(Dead);
        }
        self.pass_replies();
        while self.writable
            && let Some(bytes) = self.output.next()
        {
            match self.stream.write(bytes) {
                Ok(0) => return Err(Dead),
                Ok(bytes) => self.wrote(now, bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Dead),
            }
        }
        self.check_unread()
    }

    fn wrote(&mut self, now: Instant, bytes: usize) {
        self.output.advance(bytes);
        self.counts.bytes_out += bytes as u64;
        self.gauge.progress_at = now;
    }

    /// Once a second: gives back the buffers of an idle connection, and gives up on a client that takes too long.
    pub fn sweep(&mut self, now: Instant) -> Result<(), Dead> {
        self.check_times(now)?;
        if !std::mem::take(&mut self.active) {
            if !self.flight.sending {
                self.output.shrink();
            }
            if self.pending.is_empty() {
                self.pending = VecDeque::new();
            }
            self.input.shrink_to_fit();
        }
        Ok(())
    }

    // --- over a ring, which reads and writes for it

    /// The socket's number.
    pub fn raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether more should be received.
    pub fn wants_input(&self) -> bool {
        !self.read_closed && !self.closing && !self.backlog && self.held.is_none() && !self.is_full()
    }

    /// Bytes have been received, before `now`.
    pub fn received<M: ShardMachine>(&mut self, now: Instant, machine: &mut M, bytes: &mut [u8]) {
        self.active = true;
        if self.closing {
            return;
        }
        if !self.wants_input() {
            // They came before the end of receiving that was asked for. They wait for their turn.
            self.counts.bytes_in += bytes.len() as u64;
            self.input.extend_from_slice(bytes);
            self.backlog = true;
            return;
        }
        self.take_in(now, machine, bytes, &mut { REQUESTS_A_TURN });
    }

    /// The client has finished sending.
    pub fn input_ended(&mut self) {
        self.read_closed = true;
    }

    /// What is to be sent now, and must stay in place until [`Connection::was_sent`].
    pub fn next_to_send(&mut self) -> Option<&[u8]> {
        self.active = true;
        self.pass_replies();
        let next = self.output.next()?;
        self.writable = false;
        Some(&next[..next.len().min(SEND_BYTES_MAX)])
    }

    /// So many bytes of that have been sent, or an error has come.
    pub fn was_sent(&mut self, now: Instant, result: i32) -> Result<(), Dead> {
        self.writable = true;
        let bytes = usize::try_from(result).map_err(|_| Dead)?;
        self.wrote(now, bytes);
        Ok(())
    }

    /// As [`Connection::was_sent`], but only where that was all and nothing is to be done before more is received: true then.
    pub fn was_sent_whole(&mut self, now: Instant, result: i32) -> bool {
        let is_all = usize::try_from(result).is_ok_and(|bytes| bytes == self.output.unsent());
        if !is_all || !self.pending.is_empty() || !self.flight.receiving || !self.wants_input() {
            return false;
        }
        self.flight.sending = false;
        self.was_sent(now, result).is_ok()
    }

    /// Whether it has to go: an error, or too much that the client does not read.
    pub fn check(&mut self) -> Result<(), Dead> {
        if self.broken { Err(Dead) } else { self.check_unread() }
    }

    /// Ends the connection so that what was written still arrives.
    pub fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }
}

/// Requests parsed ahead.
#[derive(Default)]
struct Batch {
    /// Where all their arguments lie.
    spans: SmallVec<[resp::Span; ARGS_IN_PLACE]>,
    requests: SmallVec<[Found; LOOK_AHEAD]>,
    /// Where the last whole request ends.
    end: usize,
}

struct Found {
    /// Which of the batch's arguments are its own.
    args: Range<usize>,
    bytes: usize,
    preview: Preview,
}

enum BatchEnd {
    /// As many as were wanted, or no bytes left over.
    Full,
    /// The next request has not wholly come: so many bytes are missing, or more.
    Incomplete { need: usize },
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
            let inline = bytes[start] != b'*';
            if inline && !self.requests.is_empty() {
                // Parsing takes the quotes off its words where they stand, so it could not be parsed again.
                return BatchEnd::Full;
            }
            let used = match decoder.parse(&mut bytes[start..], limits) {
                Ok(Parsed::Complete(used)) => used,
                Ok(Parsed::Incomplete { need }) => return BatchEnd::Incomplete { need },
                Err(error) => return BatchEnd::Malformed(error),
            };
            let first = self.spans.len();
            self.spans.extend(decoder.arguments().iter().map(|&(from, to)| (start + from, start + to)));
            let preview = Preview::default();
            self.requests.push(Found { args: first..self.spans.len(), bytes: used, preview });
            self.end += used;
            if inline {
                break;
            }
        }
        BatchEnd::Full
    }
}

#[cfg(test)]
mod tests;
