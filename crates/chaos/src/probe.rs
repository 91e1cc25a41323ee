//! How long each partition stands still: writes to every partition, all the time, each reply with its time.
//!
//! Replies of one connection come in the order of its requests, so a partition that stands still holds up those behind it.
//! Therefore a connection probes only partitions that have the same primary and the same backups, which a node's end hits
//! alike, and only [`GROUP`] of them. A connection sends a SET for each of its partitions in one go; the next go follows when
//! all are answered and the period is over. A request that waits at the cluster is answered the moment its partition serves
//! again, so the end of an outage is exact; its beginning is the last success before it, up to a period early. Within a group
//! a partition that serves again early may be reported as late as the latest before it: the worst partition is never flattered,
//! the median may look worse than it is. What the resolution is on a busy machine is measured: the longest gap before the fault.
//!
//! Where any node may be hurt, none is a safe door. Then every partition is probed through several at once, by connections of its own, and
//! stands still only while none of them gets an answer ([`Prober::start_each`]).

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::load::plain_text;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use types::slot::partition_of_key;

/// Partitions probed through one connection, at most.
const GROUP: usize = 8;
/// After an error or a lost connection.
const BREATH: Duration = Duration::from_millis(2);
const TURN: Duration = Duration::from_millis(2);

/// What is known of one partition.
#[derive(Clone, Copy)]
struct Partition {
    /// When its last success came.
    last: Instant,
    /// The longest time without success that ended since the last [`Prober::cut`].
    longest: Duration,
    /// When the last request that succeeded was sent.
    sent: Instant,
}

struct State {
    partitions: Vec<Partition>,
    errors: BTreeMap<String, u64>,
}

/// Probes that run.
pub(crate) struct Prober {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A key in each partition.
pub(crate) fn keys(partitions: u16) -> Vec<String> {
    let mut keys = vec![String::new(); usize::from(partitions)];
    let mut missing = keys.len();
    for number in 0u64.. {
        let key = format!("p:{number}");
        let slot = &mut keys[usize::from(partition_of_key(key.as_bytes(), partitions).0)];
        if slot.is_empty() {
            *slot = key;
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    keys
}

impl Prober {
    /// Probes through the plain ports of the given nodes.
    pub(crate) fn start(cluster: &Cluster, through: &[u16], period: Duration) -> Result<Prober, Failure> {
        let holders = cluster.holders(through[0])?;
        let mut alike: BTreeMap<&[u16], Vec<u16>> = BTreeMap::new();
        for (partition, holders) in (0..).zip(&holders) {
            alike.entry(holders).or_default().push(partition);
        }
        let groups = alike.values().flat_map(|partitions| partitions.chunks(GROUP));
        Prober::run(cluster, through, groups.enumerate().collect(), period, None)
    }

    /// Probes every partition through the plain port of each of the given nodes. A door that does not answer for as long as `patience`
    /// is left for the next.
    pub(crate) fn start_each(
        cluster: &Cluster,
        through: &[u16],
        period: Duration,
        patience: Duration,
    ) -> Result<Prober, Failure> {
        let partitions: Vec<u16> = (0..cluster.shape.partitions).collect();
        let doors = 0..through.len();
        let groups = doors.flat_map(|door| partitions.chunks(1).map(move |one| (door, one)));
        Prober::run(cluster, through, groups.collect(), period, Some(patience))
    }

    /// `groups`: at which door a connection begins, and which partitions it probes.
    fn run(
        cluster: &Cluster,
        through: &[u16],
        groups: Vec<(usize, &[u16])>,
        period: Duration,
        patience: Option<Duration>,
    ) -> Result<Prober, Failure> {
        let keys = keys(cluster.shape.partitions);
        let doors: Vec<SocketAddr> = through.iter().map(|id| cluster.door(*id)).collect();
        let greeting = cluster.password().map_or_else(Vec::new, |password| {
            format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len()).into_bytes()
        });
        let now = Instant::now();
        let count = groups.len().max(1) as u32;
        let mut links: Vec<Link> = (0..)
            .zip(groups)
            .map(|(at, (door, partitions))| {
                let mut link = Link::new(door, partitions, &keys, now + period * at / count);
                (link.greeting, link.patience) = (greeting.clone(), patience);
                link
            })
            .collect();
        let fresh = Partition { last: now, longest: Duration::ZERO, sent: now };
        let state =
            Arc::new(Mutex::new(State { partitions: vec![fresh; keys.len()], errors: BTreeMap::new() }));
        let stop = Arc::new(AtomicBool::new(false));
        let poll = Poll::new()?;
        let thread = std::thread::Builder::new().name("probes".into()).spawn({
            let (state, stop) = (state.clone(), stop.clone());
            move || turn(poll, &mut links, &doors, period, &state, &stop)
        })?;
        Ok(Prober { state, stop, thread: Some(thread) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a phase: the longest time without success of each partition that ended in it, or still lasts. The next phase begins.
    pub(crate) fn cut(&self) -> Vec<Duration> {
        let now = Instant::now();
        let gaps = |partition: &mut Partition| {
            std::mem::take(&mut partition.longest).max(now.saturating_duration_since(partition.last))
        };
        self.state().partitions.iter_mut().map(gaps).collect()
    }

    /// The partitions that have not yet answered a request that was sent after a moment.
    pub(crate) fn silent_since(&self, moment: Instant) -> Vec<u16> {
        let state = self.state();
        (0..).zip(&state.partitions).filter(|(_, seen)| seen.sent <= moment).map(|(id, _)| id).collect()
    }

    /// The errors since the last call, by text.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.state().errors)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection and the partitions that it probes.
struct Link {
    partitions: Vec<u16>,
    requests: Vec<u8>,
    /// What a new connection begins with: a request with one reply, or nothing.
    greeting: Vec<u8>,
    /// Whether its reply is still to come.
    greeted: bool,
    /// How long an answer may take before another door is tried; none where it is waited for.
    patience: Option<Duration>,
    door: usize,
    stream: Option<TcpStream>,
    /// When the requests under way were sent, and how many of them are answered.
    sent: Instant,
    answered: usize,
    outgoing: Vec<u8>,
    unsent: usize,
    received: Vec<u8>,
    /// When the next go is due, where none is under way.
    due: Option<Instant>,
}

impl Link {
    fn new(at: usize, partitions: &[u16], keys: &[String], due: Instant) -> Link {
        let mut requests = Vec::new();
        for partition in partitions {
            let key = &keys[usize::from(*partition)];
            let text = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1\r\n1\r\n", key.len());
            requests.extend_from_slice(text.as_bytes());
        }
        Link {
            partitions: partitions.to_vec(),
            requests,
            greeting: Vec::new(),
            greeted: true,
            patience: None,
            door: at,
            stream: None,
            sent: due,
            answered: 0,
            outgoing: Vec::new(),
            unsent: 0,
            received: Vec::new(),
            due: Some(due),
        }
    }

    /// Begins the next go.
    fn go(&mut self, token: Token, doors: &[SocketAddr], poll: &Poll, now: Instant) -> std::io::Result<()> {
        self.outgoing.clear();
        if self.stream.is_none() {
            let mut stream = TcpStream::connect(doors[self.door % doors.len()])?;
            let _ = stream.set_nodelay(true);
            poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.stream = Some(stream);
            self.received.clear();
            self.outgoing.extend_from_slice(&self.greeting);
            self.greeted = self.greeting.is_empty();
        }
        self.outgoing.extend_from_slice(&self.requests);
        (self.sent, self.answered, self.unsent, self.due) = (now, 0, self.outgoing.len(), None);
        self.write()
    }

    fn write(&mut self) -> std::io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.unsent > 0 {
            match stream.write(&self.outgoing[self.outgoing.len() - self.unsent..]) {
                Ok(count) => self.unsent -= count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in what has come.
    fn read(&mut self, period: Duration, state: &Mutex<State>) -> std::io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let now = Instant::now();
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        while let Some(length) = self.received[taken..].iter().position(|byte| *byte == b'\n') {
            let line = &self.received[taken..taken + length];
            taken += length + 1;
            if !std::mem::replace(&mut self.greeted, true) {
                continue;
            }
            let Some(id) = self.partitions.get(self.answered) else {
                return Err(std::io::Error::other("a reply that nobody asked for"));
            };
            self.answered += 1;
            if line.starts_with(b"+OK") {
                let partition = &mut state.partitions[usize::from(*id)];
                partition.longest = partition.longest.max(now.saturating_duration_since(partition.last));
                (partition.last, partition.sent) = (now, self.sent);
            } else {
                let text = plain_text(String::from_utf8_lossy(line).trim_start_matches('-'));
                *state.errors.entry(text).or_default() += 1;
            }
        }
        self.received.drain(..taken);
        if self.answered == self.partitions.len() && self.due.is_none() {
            self.due = Some((self.sent + period).max(now));
        }
        Ok(())
    }
}

/// The loop of the thread that probes.
fn turn(
    mut poll: Poll,
    links: &mut [Link],
    doors: &[SocketAddr],
    period: Duration,
    state: &Mutex<State>,
    stop: &AtomicBool,
) {
    let mut events = Events::with_capacity(1024);
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (at, link) in links.iter_mut().enumerate() {
            // The connection goes first, so that nothing of it is heard any more.
            if link.due.is_none() && link.patience.is_some_and(|patience| now > link.sent + patience) {
                after(link, Err(ErrorKind::TimedOut.into()), state);
            }
            if link.due.is_some_and(|due| due <= now) {
                let gone = link.go(Token(at), doors, &poll, now);
                after(link, gone, state);
            }
        }
        match poll.poll(&mut events, Some(TURN)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("polling sockets: {error}"),
            _ => {}
        }
        for event in &events {
            let link = &mut links[event.token().0];
            let done = link.write().and_then(|()| link.read(period, state));
            after(link, done, state);
        }
    }
}

/// A connection that broke is opened anew, at the next door.
fn after(link: &mut Link, outcome: std::io::Result<()>, state: &Mutex<State>) {
    if let Err(error) = outcome {
        link.stream = None;
        link.door += 1;
        link.due = Some(Instant::now() + BREATH);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.errors.entry(plain_text(&format!("connection: {error}"))).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn every_partition_has_its_key() {
        for partitions in [1, 8, 1024] {
            let keys = keys(partitions);
            for (at, key) in keys.iter().enumerate() {
                assert_eq!(usize::from(partition_of_key(key.as_bytes(), partitions).0), at);
            }
        }
    }

    #[test]
    fn a_gap_counts_where_it_ends_and_while_it_lasts() {
        let mut link = Link::new(0, &[0, 1], &keys(2), Instant::now());
        let early = Instant::now() - Duration::from_millis(500);
        let fresh = Partition { last: early, longest: Duration::ZERO, sent: early };
        let state = Mutex::new(State { partitions: vec![fresh; 2], errors: BTreeMap::new() });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        link.stream = Some(TcpStream::from_std(stream));
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"+OK\r\n-UNKNOWN 12\r\n").unwrap();
        while link.answered < 2 {
            link.read(Duration::ZERO, &state).unwrap();
        }
        let prober = Prober { state: Arc::new(state), stop: Arc::new(AtomicBool::new(false)), thread: None };
        let gaps = prober.cut();
        assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(500)), "{gaps:?}");
        assert_eq!(prober.errors(), BTreeMap::from([("UNKNOWN #".to_owned(), 1)]));
        assert!(prober.cut()[1] >= Duration::from_millis(500), "it still lasts");
        assert_eq!(prober.silent_since(early), [1]);
    }
}
