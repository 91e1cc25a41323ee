//! One connection of the line port: reads, finds requests, has each answered, writes.
//!
//! Requests are answered one after the other, in order; answers to several that came together go out together. Text that stands
//! without a newline is a whole request after a while ([`wire::line::framing`]): when that time is over the socket is looked at once
//! more, so that a piece which waits there since then, because the machine was busy, still belongs to it.

use super::LineState;
use super::answers::{Caller, Rest};
use crate::budget::Held;
use crate::clock;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use types::Instant;
use types::limits::UNAUTHENTICATED_BYTES_MAX;
use types::shared_settings::SettingsReader;
use wire::line::{Bounds, Found, Framing, Kind, json, text};

/// Room that a read finds at least.
const READ_BYTES: usize = 16 * 1024;
/// Answers are written once there is so much of them.
const WRITE_BYTES: usize = 64 * 1024;
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES: usize = 64 * 1024;
/// How long a client has to see the end of its connection.
const LINGER: Duration = Duration::from_millis(50);
/// The same, where it may be in the midst of sending, and is to read what was wrong.
const LINGER_REFUSED: Duration = Duration::from_secs(1);
const MIB: u64 = 1024 * 1024;
/// As good as never.
const FAR: Duration = Duration::from_secs(86_400);

pub(super) struct Connection {
    stream: TcpStream,
    asker: Arc<str>,
    state: LineState,
    settings: SettingsReader,
    parting: watch::Receiver<bool>,
    framing: Framing,
    buffer: BytesMut,
    /// The most that this buffer has held: what is cut off its front still takes room.
    largest: usize,
    out: Vec<u8>,
    held: Held,
    authenticated: bool,
    administrates: bool,
    /// What kind of requests it sends: in its last one's manner it is told what is wrong.
    kind: Kind,
    /// When its last request was answered; at first, when it came.
    answered: Instant,
    /// When the first bytes of the request that is not whole came.
    begun: Option<Instant>,
    /// When bytes last came.
    came: Instant,
}

/// What a connection waits for.
enum Woken {
    Read(usize),
    /// The text that is there is a whole request now.
    Whole,
    /// Nothing: it looks again.
    Nothing,
    /// It took too long; in these words, if in any.
    Late(Option<&'static str>),
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        peer: SocketAddr,
        state: LineState,
        parting: watch::Receiver<bool>,
    ) -> Connection {
        let _ = stream.set_nodelay(true);
        let settings = state.http.settings.reader();
        let now = clock::now();
        Connection {
            stream,
            asker: peer.to_string().into(),
            framing: Framing::default(),
            buffer: BytesMut::new(),
            largest: 0,
            out: Vec::new(),
            held: state.http.budget.hold(),
            authenticated: settings.requirepass.as_str().is_empty(),
            administrates: false,
            kind: Kind::Text,
            answered: now,
            begun: None,
            came: now,
            parting,
            settings,
            state,
        }
    }

    /// Serves it to its end.
    pub async fn run(mut self) -> io::Result<()> {
        let (mut ended, mut stands) = (false, false);
        loop {
            self.settings.refresh();
            let whole_at = match self.answer_all(ended, stands).await? {
                Ok(whole_at) => whole_at,
                Err(why) => return self.refuse(&why).await,
            };
            stands = false;
            self.flush().await?;
            let parting = *self.parting.borrow();
            if ended {
                return Ok(());
            }
            // What is being said is heard out, as far as the node's patience goes.
            if parting && self.buffer.is_empty() && !self.has_unread() {
                return self.part(LINGER).await;
            }
            match self.wait(whole_at).await? {
                Woken::Read(0) => ended = true,
                Woken::Read(_) => {
                    let now = clock::now();
                    self.largest = self.largest.max(self.buffer.len());
                    self.came = now;
                    self.framing.came(now);
                    self.begun.get_or_insert(now);
                    if !self.held.set(self.buffer.len()) {
                        let why = "TRYAGAIN this node has too many bytes of clients' requests in hand (maxmemory_clients): ask again \
                                   in a moment, or another node";
                        return self.refuse(why).await;
                    }
                }
                Woken::Whole => stands = true,
                Woken::Nothing => {}
                Woken::Late(Some(why)) => return self.refuse(why).await,
                Woken::Late(None) => return self.part(LINGER).await,
            }
        }
    }

    fn bounds(&self) -> Bounds {
        let most = usize::try_from(self.settings.max_request_bytes.0).unwrap_or(usize::MAX);
        let idle_ms = self.settings.line_idle_ms;
        Bounds {
            request_bytes_max: if self.authenticated { most } else { most.min(UNAUTHENTICATED_BYTES_MAX) },
            idle: (idle_ms > 0).then(|| Duration::from_millis(idle_ms)),
        }
    }

    /// Answers every request that is there. When what is left will be a whole one, or why it never can.
    async fn answer_all(&mut self, ended: bool, stands: bool) -> io::Result<Result<Option<Instant>, String>> {
        loop {
            let bounds = self.bounds();
            // How long an answer took does not make the text behind its request stand still.
            let now = if stands { clock::now() } else { self.came };
            match self.framing.next(&self.buffer, now, ended, &bounds) {
                Found::Blank(bytes) => drop(self.buffer.split_to(bytes)),
                Found::Request { kind, bytes, taken } => {
                    let mut request = self.buffer.split_to(taken).freeze();
                    request.truncate(bytes);
                    self.kind = kind;
                    if kind == Kind::Text && text::is_of_http(&request) {
                        let why = "this is the line port, not HTTP: see http_port";
                        return Ok(Err(why.to_owned()));
                    }
                    self.answer(kind, request).await?;
                    self.answered = clock::now();
                    self.begun = (!self.buffer.is_empty()).then_some(self.answered);
                    if self.out.len() >= WRITE_BYTES {
                        self.flush().await?;
                    }
                }
                Found::Nothing { whole_at } => {
                    if self.buffer.is_empty() {
                        self.begun = None;
                        if self.largest > KEPT_BYTES {
                            (self.buffer, self.largest) = (BytesMut::new(), 0);
                        }
                    }
                    return Ok(Ok(whole_at));
                }
                Found::CutOff => {
                    return Ok(Err(
                        "text of more than 1400 bytes ends with a newline: nothing was done".into()
                    ));
                }
                Found::TooLong if self.authenticated => {
                    return Ok(Err(format!(
                        "a request may have {} bytes (max_request_bytes)",
                        bounds.request_bytes_max
                    )));
                }
                Found::TooLong => {
                    let most = bounds.request_bytes_max;
                    return Ok(Err(format!(
                        "NOAUTH Authentication required. Before that a request may have {most} bytes"
                    )));
                }
            }
        }
    }

    async fn answer(&mut self, kind: Kind, request: Bytes) -> io::Result<()> {
        let mut caller = Caller {
            state: &self.state,
            asker: &self.asker,
            authenticated: &mut self.authenticated,
            administrates: &mut self.administrates,
        };
        let rest = match kind {
            Kind::Text => {
                caller.text(&request, &mut self.out).await;
                Rest::None
            }
            Kind::Json => caller.json(&request, &mut self.out).await,
        };
        drop(request);
        if let Rest::Keys(list) = rest {
            self.write_keys(list).await?;
        }
        // An answer is there already: what it takes is counted, and whoever comes next may be refused for it.
        self.held.set(self.buffer.len() + self.out.len());
        Ok(())
    }

    /// The answer to KEYS, a piece at a time.
    async fn write_keys(&mut self, mut list: command::List) -> io::Result<()> {
        let (count, mut is_first) = (list.len(), true);
        json::keys_begin(&mut self.out);
        while let Some(chunk) = list.take_chunk() {
            for key in chunk.iter() {
                json::key(key, is_first, &mut self.out);
                is_first = false;
            }
            self.held.set(self.buffer.len() + self.out.len() + list.bytes());
            self.flush().await?;
        }
        json::keys_end(count, &self.state.here(), &mut self.out);
        Ok(())
    }

    async fn wait(&mut self, whole_at: Option<Instant>) -> io::Result<Woken> {
        let (until, late) = self.patience();
        self.buffer.reserve(READ_BYTES);
        let now = clock::now();
        let left = |at: Option<Instant>| at.map_or(FAR, |at| at.since(now)).min(FAR);
        let (stands, patience) = (tokio::time::sleep(left(whole_at)), tokio::time::sleep(left(until)));
        tokio::select! {
            biased;
            read = self.stream.read_buf(&mut self.buffer) => return Ok(Woken::Read(read?)),
            _ = self.parting.changed() => return Ok(Woken::Nothing),
            () = stands => {}
            () = patience => return Ok(Woken::Late(late)),
        }
        if self.has_unread() {
            return Ok(Woken::Read(self.stream.read_buf(&mut self.buffer).await?));
        }
        Ok(if whole_at.is_some() { Woken::Whole } else { Woken::Nothing })
    }

    /// Until when it may go on as it does, and what it is told then.
    fn patience(&self) -> (Option<Instant>, Option<&'static str>) {
        let settings = &self.settings;
        let ms = Duration::from_millis;
        let incomplete = self.begun.map(|begun| {
            let allowance = Duration::from_secs(self.buffer.len() as u64 / MIB);
            (
                begun + ms(settings.request_incomplete_timeout_ms) + allowance,
                "the request did not come whole in time",
            )
        });
        let stranger = (!self.authenticated).then(|| {
            (
                self.answered + ms(settings.authentication_timeout_ms),
                "NOAUTH Authentication required. It was not said in time",
            )
        });
        let bound = [incomplete, stranger].into_iter().flatten().min_by_key(|(at, _)| *at);
        match bound {
            Some((at, why)) => (Some(at), Some(why)),
            None if settings.timeout > 0 => {
                (Some(self.answered.max(self.came) + Duration::from_secs(settings.timeout)), None)
            }
            None => (None, None),
        }
    }

    /// Whether the system holds bytes of it that were not read.
    fn has_unread(&self) -> bool {
        rustix::io::ioctl_fionread(&self.stream).is_ok_and(|bytes| bytes > 0)
    }

    async fn flush(&mut self) -> io::Result<()> {
        let unread = Duration::from_millis(self.settings.reply_unread_timeout_ms);
        let mut written = 0;
        while written < self.out.len() {
            let wrote = tokio::time::timeout(unread, self.stream.write(&self.out[written..])).await;
            match wrote.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                bytes => written += bytes,
            }
        }
        self.out.clear();
        if self.out.capacity() > KEPT_BYTES {
            self.out = Vec::new();
        }
        self.held.set(self.buffer.len());
        Ok(())
    }

    /// Says what is wrong, and ends the connection: there is no telling where the next request begins.
    async fn refuse(mut self, why: &str) -> io::Result<()> {
        let is_json = match self.buffer.first() {
            Some(byte) => *byte == b'{',
            None => self.kind == Kind::Json,
        };
        match is_json {
            true => json::Answer::Error { message: why, code: None }.write(&self.state.here(), &mut self.out),
            false => text::Answer::Error(why).write(&mut self.out),
        }
        self.buffer = BytesMut::new();
        self.flush().await?;
        self.part(LINGER_REFUSED).await
    }

    /// Ends this side, and reads on for a moment: were the socket closed at once, a reset could overtake the last answer.
    async fn part(mut self, linger: Duration) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut scratch = [0; 4096];
        let unread = async { while self.stream.read(&mut scratch).await.is_ok_and(|bytes| bytes > 0) {} };
        let _ = tokio::time::timeout(linger, unread).await;
        Ok(())
    }
}
