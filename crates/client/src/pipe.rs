//! One connection that many tasks share: requests go out in the order in which they were queued, and replies come back in that
//! order.
//!
//! A task owns the socket. It opens it when there is a first request, greets the server (RESP3, password, levels), and
//! takes requests from a bounded queue, as many as have come for one write. When the connection breaks, each request is
//! told what became of it: surely not sent, or lost. Then the next request opens it anew.
//!
//! A request is *taken* once its bytes stand in the output. Up to then whoever waits for it may still give it up, and
//! then knows that it was not sent.

use crate::builder::Settings;
use crate::levels::Levels;
use crate::map::{Address, join};
use crate::nearness::RoundTrip;
use crate::retry::Failure;
use crate::signals::Signals;
use bytes::{Buf, Bytes, BytesMut};
use command::{CommandError, Reply};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use wire::resp::ReplyDecoder;

/// Requests that may be under way on one connection, below the 10,000 that a node takes.
const UNDER_WAY_MAX: usize = 4096;
/// Bytes of requests beyond which no more are taken until some were written.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// How much is read at a time.
const READ_BYTES: usize = 32 * 1024;
/// How long a connection owes a reply before the map is asked for anew: its node may be dead, and others know.
const QUIET: Duration = Duration::from_secs(1);
/// How long it may owe one before it is given up. A node answers every request within `request_timeout_ms`, 5 s.
const SILENT: Duration = Duration::from_secs(15);
/// From one look at the silence to the next.
const LOOK: Duration = Duration::from_millis(250);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// A request in a connection's queue.
#[derive(Debug)]
pub(crate) struct Job {
    bytes: Bytes,
    state: Arc<AtomicU8>,
    done: oneshot::Sender<Result<Reply<'static>, Failure>>,
}

/// The end of a job at which its reply comes out. Dropping it gives the request up, if it was not taken yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    state: Arc<AtomicU8>,
    done: oneshot::Receiver<Result<Reply<'static>, Failure>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Waiting {
    /// Whether the request was given up before it was taken.
    fn give_up(&self) -> bool {
        self.state.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire) != Err(TAKEN)
    }

    /// Waits for the reply until `deadline`.
    pub(crate) async fn reply(mut self, deadline: Instant) -> Result<Reply<'static>, Failure> {
        match timeout_at(deadline, &mut self.done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if self.give_up() => Err(Failure::Unsent("the connection's task has ended".into())),
            Ok(Err(_)) => Err(Failure::Lost("the connection's task has ended".into())),
            Err(_) if self.give_up() => {
                Err(Failure::Unsent("the node takes no more requests just now".into()))
            }
            Err(_) => Err(Failure::Lost("no reply came in time".into())),
        }
    }
}

impl Job {
    pub(crate) fn new(bytes: Bytes) -> (Job, Waiting) {
        let (sender, receiver) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITING));
        (Job { bytes, state: state.clone(), done: sender }, Waiting { state, done: receiver })
    }

    fn take(&self) -> bool {
        self.state.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// One connection's task, and what it needs to connect.
pub(crate) struct Pipe {
    pub(crate) address: Address,
    pub(crate) levels: Levels,
    pub(crate) settings: Arc<Settings>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) round_trip: Arc<RoundTrip>,
}

/// A request that was taken.
struct UnderWay {
    /// The bytes of the connection before it.
    start: u64,
    since: Instant,
    done: oneshot::Sender<Result<Reply<'static>, Failure>>,
}

struct Open {
    stream: TcpStream,
    input: BytesMut,
    decoder: ReplyDecoder,
}

impl Pipe {
    /// Serves the queue until all its senders are gone.
    pub(crate) async fn run(self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.recv().await {
            match self.open().await {
                Ok(open) => Serving::new(&self, open).run(first, &mut queue).await,
                Err(failure) => {
                    self.round_trip.unreachable();
                    let _ = first.done.send(Err(failure.clone()));
                    while let Ok(job) = queue.try_recv() {
                        let _ = job.done.send(Err(failure.clone()));
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<Open, Failure> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        match timeout_at(deadline, self.connect()).await {
            Ok(opened) => opened,
            Err(_) => {
                let ms = self.settings.connect_timeout.as_millis();
                Err(Failure::Unsent(format!("{} let nobody in within {ms} ms", self.address)))
            }
        }
    }

    async fn connect(&self) -> Result<Open, Failure> {
        let unsent = |error: io::Error| Failure::Unsent(format!("{}: {error}", self.address));
        let stream = TcpStream::connect(&*self.address).await.map_err(unsent)?;
        stream.set_nodelay(true).map_err(unsent)?;
        let mut open =
            Open { stream, input: BytesMut::with_capacity(READ_BYTES), decoder: ReplyDecoder::new() };
        let greetings = self.greetings();
        let mut output = Vec::new();
        for greeting in &greetings {
            let args: Vec<&[u8]> = greeting.iter().map(|arg| arg.as_bytes()).collect();
            wire::resp::encode_request(&args, &mut output);
        }
        open.stream.write_all(&output).await.map_err(unsent)?;
        let mut replies = Vec::with_capacity(greetings.len());
        while replies.len() < greetings.len() {
            match next_reply(&mut open.decoder, &mut open.input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => match open.stream.read_buf(&mut open.input).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return Err(unsent(error)),
                },
                Err(why) => return Err(Failure::Unsent(format!("{}: {why}", self.address))),
            }
        }
        self.welcome(&replies).map(|()| open)
    }

    /// What is said first on a connection, before any request; the order is that of [`Pipe::welcome`].
    fn greetings(&self) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut hello = words(&["HELLO", "3"]);
        if let Some(password) = &self.settings.password {
            hello.extend(words(&["AUTH", "default", password]));
        }
        let mut greetings = vec![hello];
        greetings.extend(self.levels.command());
        // The door that answers any key: only connections to it know it by themselves.
        greetings.push(words(&["CONFIG", "GET", "port"]));
        greetings.push(words(&["CLIENT", "SETINFO", "LIB-NAME", "annulet-client"]));
        greetings.push(words(&["CLIENT", "SETINFO", "LIB-VER", env!("CARGO_PKG_VERSION")]));
        greetings
    }

    fn welcome(&self, replies: &[Reply<'_>]) -> Result<(), Failure> {
        let asked = if self.levels.command().is_some() { 2 } else { 1 };
        for reply in replies.iter().take(asked) {
            if let Reply::Error(error) = reply {
                return Err(self.refusal(error));
            }
        }
        let [Reply::Map(hello), ..] = replies else {
            return Err(Failure::Unsent(format!("{} closed the connection while greeted", self.address)));
        };
        if replies.len() < asked {
            return Err(Failure::Unsent(format!("{} closed the connection while greeted", self.address)));
        }
        let mode = hello.iter().find(|(key, _)| *key == Reply::bulk("mode")).map(|(_, value)| value);
        if mode == Some(&Reply::bulk("standalone")) {
            self.signals.plain_door(&self.address, Some(self.address.clone()));
        } else {
            self.signals
                .plain_door(&self.address, replies.get(asked).and_then(|reply| self.plain_port(reply)));
        }
        Ok(())
    }

    fn plain_port(&self, reply: &Reply<'_>) -> Option<Address> {
        let port = match reply {
            Reply::Map(pairs) => pairs.first().map(|(_, value)| value)?,
            Reply::Array(items) => items.get(1)?,
            _ => return None,
        };
        let Reply::Bulk(port) = port else { return None };
        let port = std::str::from_utf8(port).ok()?.parse().ok().filter(|&port: &u16| port > 0)?;
        Some(join("", port, &self.address))
    }

    /// An error to a greeting is final, unless it is one that passes.
    fn refusal(&self, error: &CommandError) -> Failure {
        let passes = error.kind() != command::ErrorKind::Final
            || error.to_string().starts_with("ERR max number of clients");
        match passes {
            true => Failure::Unsent(format!("{}: {error}", self.address)),
            false => Failure::Refused { address: self.address.to_string(), error: error.clone() },
        }
    }
}

/// A connection at work.
struct Serving<'a> {
    pipe: &'a Pipe,
    open: Open,
    output: BytesMut,
    /// Bytes that were taken, and that were written.
    taken: u64,
    written: u64,
    under_way: VecDeque<UnderWay>,
    heard: Instant,
}

impl<'a> Serving<'a> {
    fn new(pipe: &'a Pipe, open: Open) -> Serving<'a> {
        Serving {
            pipe,
            open,
            output: BytesMut::new(),
            taken: 0,
            written: 0,
            under_way: VecDeque::new(),
            heard: Instant::now(),
        }
    }

    /// Serves requests until the connection breaks, or nobody needs it any more.
    async fn run(mut self, first: Job, queue: &mut mpsc::Receiver<Job>) {
        self.take(first);
        let why = match self.serve(queue).await {
            Ok(()) => return,
            Err(why) => format!("{}: {why}", self.pipe.address),
        };
        for request in self.under_way {
            let failure = match request.start < self.written {
                true => Failure::Lost(why.clone()),
                // Not a byte of it left this process.
                false => Failure::Unsent(why.clone()),
            };
            let _ = request.done.send(Err(failure));
        }
        self.pipe.signals.refresh();
    }

    async fn serve(&mut self, queue: &mut mpsc::Receiver<Job>) -> Result<(), String> {
        let Open { stream, input, decoder } = &mut self.open;
        let (mut reader, mut writer) = stream.split();
        input.reserve(READ_BYTES);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wanted = true;
        loop {
            if !wanted && self.under_way.is_empty() {
                return Ok(());
            }
            let has_room = self.under_way.len() < UNDER_WAY_MAX && self.output.len() < OUTPUT_BYTES_MAX;
            tokio::select! {
                read = reader.read_buf(input) => {
                    match read {
                        Ok(0) => return Err("it closed the connection".into()),
                        Ok(_) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                    let now = Instant::now();
                    self.heard = now;
                    while let Some(reply) = next_reply(decoder, input)? {
                        let Some(request) = self.under_way.pop_front() else {
                            return Err("it answered what was not asked".into());
                        };
                        self.pipe.round_trip.measured(now.saturating_duration_since(request.since));
                        let reply = match reply {
                            Reply::Error(error) => Err(Failure::Said(error)),
                            reply => Ok(reply),
                        };
                        let _ = request.done.send(reply);
                    }
                    input.reserve(READ_BYTES);
                }
                wrote = writer.write_buf(&mut self.output), if self.output.has_remaining() => {
                    self.written += wrote.map_err(|error| error.to_string())? as u64;
                }
                job = queue.recv(), if has_room && wanted => {
                    let Some(job) = job else {
                        wanted = false;
                        continue;
                    };
                    Self::put(&mut self.output, &mut self.under_way, &mut self.taken, job);
                    while self.under_way.len() < UNDER_WAY_MAX && self.output.len() < OUTPUT_BYTES_MAX {
                        let Ok(job) = queue.try_recv() else { break };
                        Self::put(&mut self.output, &mut self.under_way, &mut self.taken, job);
                    }
                }
                _ = look.tick(), if !self.under_way.is_empty() => {
                    let oldest = self.under_way.front().map_or(self.heard, |request| request.since);
                    let silence = oldest.max(self.heard).elapsed();
                    if silence > SILENT {
                        return Err(format!("it said nothing for {} s", SILENT.as_secs()));
                    }
                    if silence > QUIET {
                        self.pipe.signals.refresh();
                    }
                }
            }
        }
    }

    fn take(&mut self, job: Job) {
        Self::put(&mut self.output, &mut self.under_way, &mut self.taken, job);
    }

    fn put(output: &mut BytesMut, under_way: &mut VecDeque<UnderWay>, taken: &mut u64, job: Job) {
        if !job.take() {
            return;
        }
        output.extend_from_slice(&job.bytes);
        under_way.push_back(UnderWay { start: *taken, since: Instant::now(), done: job.done });
        *taken += job.bytes.len() as u64;
    }
}

/// The next whole reply in `input`. What a server pushes unasked is passed over.
fn next_reply(decoder: &mut ReplyDecoder, input: &mut BytesMut) -> Result<Option<Reply<'static>>, String> {
    loop {
        let pushed = input.first() == Some(&b'>');
        match decoder.decode(input) {
            Ok(Some((reply, used))) => {
                input.advance(used);
                if !pushed {
                    return Ok(Some(reply));
                }
            }
            Ok(None) => return Ok(None),
            Err(error) => return Err(format!("it does not speak the Redis protocol ({error})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_given_up_or_taken_but_never_both() {
        let (job, waiting) = Job::new(Bytes::from_static(b"x"));
        assert!(waiting.give_up());
        assert!(waiting.give_up(), "it stays so");
        assert!(!job.take());
        let (job, waiting) = Job::new(Bytes::from_static(b"x"));
        assert!(job.take());
        assert!(!waiting.give_up());
        let (job, waiting) = Job::new(Bytes::from_static(b"x"));
        drop(waiting);
        assert!(!job.take(), "nobody waits for it any more");
    }

    #[test]
    fn pushes_are_passed_over_however_they_arrive() {
        let bytes = b">2\r\n$1\r\na\r\n_\r\n+OK\r\n>1\r\n:1\r\n:7\r\n";
        let (mut decoder, mut input, mut replies) = (ReplyDecoder::new(), BytesMut::new(), Vec::new());
        for byte in bytes {
            input.extend_from_slice(&[*byte]);
            replies.extend(next_reply(&mut decoder, &mut input).unwrap());
        }
        assert_eq!(replies, [Reply::ok(), Reply::Integer(7)]);
        input.extend_from_slice(b"nonsense\r\n");
        assert!(next_reply(&mut decoder, &mut input).is_err());
    }
}
