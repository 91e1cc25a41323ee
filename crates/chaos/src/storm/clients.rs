//! Unmodified Redis clients (the `redis` crate's), plain ones and cluster-aware ones, that ask for things of few keys, with few at a time
//! each, so that they meet on them; and what became of each request.
//!
//! A plain client keeps to a node until its connection breaks, then goes to the next. A cluster-aware one is set to repeat nothing, because
//! a request that was done twice is a different history from one that was done once; where it is told of another node, or its connections
//! break, it is made anew, and so learns the cluster's slots again.
//!
//! Some clients have little patience, others more than a node has itself. What is asked while no connection can be made is asked of nobody:
//! it is no operation.

use super::record::{Board, KEYS, Object};
use crate::load::{Fate, fate_of_error, plain_text};
use crate::status;
use history::random::Random;
use history::{Answer, Call};
use redis::cluster::ClusterClient;
use redis::{Cmd, ConnectionLike, ErrorKind, RedisError, Value};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After an error.
const BREATH: Duration = Duration::from_millis(10);
/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a reply may take, for every other client: less than a node lets a request wait, and more.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1500), Duration::from_millis(7000)];
/// Increments between two values that are set, at least.
const VALUE_STEP: i64 = 1000;

/// How clients reach the cluster.
#[derive(Clone)]
pub(super) struct Doors {
    pub plain: Vec<SocketAddr>,
    pub cluster: Vec<SocketAddr>,
    pub password: Option<String>,
}

/// How many, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    pub plain: u16,
    pub cluster: u16,
    /// Of all together.
    pub per_s: u32,
}

/// What clients share.
struct Shared {
    board: Arc<Board>,
    stop: AtomicBool,
    errors: Mutex<BTreeMap<String, u64>>,
    /// Replies that make no sense.
    nonsense: Mutex<Vec<String>>,
}

/// Running clients.
pub(super) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them in the network namespace of this thread.
    pub(super) fn start(
        board: &Arc<Board>,
        doors: &Doors,
        rate: Rate,
        seed: u64,
    ) -> std::io::Result<Clients> {
        let shared = Arc::new(Shared {
            board: board.clone(),
            stop: AtomicBool::new(false),
            errors: Mutex::new(BTreeMap::new()),
            nonsense: Mutex::new(Vec::new()),
        });
        let count = rate.plain + rate.cluster;
        let period = Duration::from_secs_f64(f64::from(count) / f64::from(rate.per_s.max(1)));
        let mut random = Random::new(seed);
        let mut threads = Vec::new();
        for number in 0..count {
            let client = Client {
                number: u32::from(number) + 1,
                doors: doors.clone(),
                at: usize::from(number) % doors.plain.len(),
                aware: number >= rate.plain,
                patience: PATIENCE[usize::from(number) % PATIENCE.len()],
                connection: None,
                values: 0,
                random: random.fork(),
                shared: shared.clone(),
            };
            let name = format!("client-{}", number + 1);
            threads.push(std::thread::Builder::new().name(name).spawn(move || client.run(period))?);
        }
        Ok(Clients { shared, threads })
    }

    /// Replies that make no sense, since the last call.
    pub(super) fn nonsense(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.nonsense.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends them. The errors that they saw, by text.
    pub(super) fn stop(self) -> BTreeMap<String, u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        std::mem::take(&mut *self.shared.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request: what is sent, and what that means.
struct Request {
    command: Cmd,
    calls: Vec<(usize, Call)>,
    /// How long what it sets lives, where it expires.
    lives: Duration,
}

struct Client {
    number: u32,
    doors: Doors,
    at: usize,
    /// Of the cluster's slots.
    aware: bool,
    patience: Duration,
    connection: Option<Box<dyn ConnectionLike + Send>>,
    values: i64,
    random: Random,
    shared: Arc<Shared>,
}

impl Client {
    fn run(mut self, period: Duration) {
        let mut due = Instant::now() + Duration::from_nanos(self.random.below(period.as_nanos() as u64));
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < due {
                std::thread::sleep((due - now).min(Duration::from_millis(100)));
                continue;
            }
            // What an outage kept from being asked is not asked for later: the rate is one of a client that waits for replies.
            due = due.max(now.checked_sub(period).unwrap_or(now)) + period;
            self.turn();
        }
    }

    /// One request, where anybody can be asked.
    fn turn(&mut self) {
        let mut connection = match self.connection.take() {
            Some(open) => open,
            None => match self.connect() {
                Ok(opened) => opened,
                Err(error) => {
                    self.note(&format!("connecting: {error}"));
                    self.at += 1;
                    std::thread::sleep(BREATH);
                    return;
                }
            },
        };
        let place = self.random.below(self.shared.board.len());
        let object = self.shared.board.object(place);
        let request = self.draw(&object);
        let board = &self.shared.board;
        let operation = object.invoke(board, self.number, &request.calls, request.lives);
        board.counts.attempted.fetch_add(1, Ordering::Relaxed);
        match request.command.query::<Value>(&mut *connection) {
            Ok(reply) => match answers(&request.calls, &reply) {
                Some(answers) => {
                    object.answered(board, operation, &answers);
                    board.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                None => {
                    board.counts.unknown.fetch_add(1, Ordering::Relaxed);
                    self.complain(format!("{:?} was answered {reply:?}", request.calls));
                }
            },
            Err(error) => {
                match fate(&error) {
                    Fate::Refused => {
                        object.refused(board, operation);
                        board.counts.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => _ = board.counts.unknown.fetch_add(1, Ordering::Relaxed),
                }
                if !is_explained(error.code()) {
                    self.complain(format!("{:?} was answered with {error}", request.calls));
                }
                self.note(&error.to_string());
                std::thread::sleep(BREATH);
                // An error that a node sent leaves the connection as good as it was, unless it says that this is the wrong node.
                if error.code().is_none() || error.code() == Some("MOVED") {
                    self.at += 1;
                    return;
                }
            }
        }
        self.connection = Some(connection);
    }

    /// Notes an answer that no fault explains: the storm is over.
    fn complain(&self, text: String) {
        self.shared.nonsense.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn note(&self, text: &str) {
        let kind = if self.aware { "cluster-aware" } else { "plain" };
        let text = format!("{kind}: {}", plain_text(text));
        *self.shared.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(text).or_default() += 1;
    }

    fn connect(&self) -> Result<Box<dyn ConnectionLike + Send>, RedisError> {
        let password = self.doors.password.as_deref();
        if self.aware {
            let nodes = self.doors.cluster.iter().map(|door| status::url(*door, password));
            let opened = ClusterClient::builder(nodes)
                .connection_timeout(CONNECT)
                .response_timeout(self.patience)
                .retries(0)
                .build()?
                .get_connection()?;
            return Ok(Box::new(opened));
        }
        let door = self.doors.plain[self.at % self.doors.plain.len()];
        let client = redis::Client::open(status::url(door, password))?;
        let opened = client.get_connection_with_timeout(CONNECT)?;
        opened.set_read_timeout(Some(self.patience))?;
        opened.set_write_timeout(Some(self.patience))?;
        Ok(Box::new(opened))
    }

    fn value(&mut self) -> i64 {
        self.values += 1;
        (i64::from(self.number) << 40) + self.values * VALUE_STEP
    }

    fn draw(&mut self, object: &Object) -> Request {
        let key = self.random.below(KEYS as u64) as usize;
        let name = object.key(key);
        let mut lives = Duration::ZERO;
        let (command, calls) = match self.random.below(100) {
            0..33 => (words(&["GET", &name]), vec![(key, Call::Get)]),
            33..51 => {
                let value = self.value();
                (words(&["SET", &name, &value.to_string()]), vec![(key, Call::Set(value))])
            }
            51..58 => {
                let value = self.value();
                let command = words(&["SET", &name, &value.to_string(), "NX"]);
                (command, vec![(key, Call::SetIfAbsent(value))])
            }
            58..68 => (words(&["INCR", &name]), vec![(key, Call::Increment)]),
            68..74 => (words(&["DEL", &name]), vec![(key, Call::Delete)]),
            74..80 => {
                let value = self.value();
                let lives_ms = self.random.between(100, 3000);
                lives = Duration::from_millis(lives_ms);
                let command = words(&["SET", &name, &value.to_string(), "PX", &lives_ms.to_string()]);
                (command, vec![(key, Call::SetExpiring(value, object.expiry_number()))])
            }
            80..88 => {
                let new = self.value();
                // What somebody saw last; now and then what nobody ever set.
                let expected = object.seen(key).unwrap_or(VALUE_STEP / 2);
                let command = words(&["SET", &name, &new.to_string(), "IFEQ", &expected.to_string()]);
                (command, vec![(key, Call::CompareAndSet { expected, new })])
            }
            88..94 => {
                let names: Vec<String> = (0..KEYS).map(|key| object.key(key)).collect();
                let mut command = redis::cmd("MGET");
                command.arg(names);
                (command, (0..KEYS).map(|key| (key, Call::Get)).collect())
            }
            _ => {
                let mut command = redis::cmd("MSET");
                let mut calls = Vec::new();
                for key in 0..KEYS {
                    let value = self.value();
                    command.arg(object.key(key)).arg(value);
                    calls.push((key, Call::Set(value)));
                }
                (command, calls)
            }
        };
        Request { command, calls, lives }
    }
}

fn words(words: &[&str]) -> Cmd {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command
}

/// What became of a request that was answered with an error, or not at all.
fn fate(error: &RedisError) -> Fate {
    match error.code() {
        Some(code) => fate_of_error(code),
        // The cluster-aware client, which connects when it is asked, had nobody to send it to.
        None if error.kind() == ErrorKind::ClusterConnectionNotFound => Fate::Refused,
        None if error.is_connection_refusal() => Fate::Refused,
        None => Fate::Unknown,
    }
}

/// Whether a fault may be why a node answers with this error; none: the answer is missing. Any other error is a mistake of the node's, since
/// clients ask for nothing that is wrong, and for no more than fits.
fn is_explained(code: Option<&str>) -> bool {
    code.is_none_or(|code| {
        ["TRYAGAIN", "UNKNOWN", "CLUSTERDOWN", "MOVED", "MISCONF", "NOREPLICAS"].contains(&code)
    })
}

/// A reply as the answers of the parts; none where it makes no sense.
fn answers(calls: &[(usize, Call)], reply: &Value) -> Option<Vec<Answer>> {
    let [(_, call)] = calls else {
        return match (calls[0].1, reply) {
            (Call::Get, Value::Array(values)) if values.len() == calls.len() => {
                values.iter().map(|value| shown(value).map(Answer::Value)).collect()
            }
            (Call::Set(_), Value::Okay) => Some(vec![Answer::Done; calls.len()]),
            _ => None,
        };
    };
    let answer = match (call, reply) {
        (Call::Get, value) => Answer::Value(shown(value)?),
        (Call::Set(_) | Call::SetExpiring(..), Value::Okay) => Answer::Done,
        (Call::SetIfAbsent(_) | Call::CompareAndSet { .. }, Value::Okay) => Answer::Changed(true),
        (Call::SetIfAbsent(_) | Call::CompareAndSet { .. }, Value::Nil) => Answer::Changed(false),
        (Call::Increment, Value::Int(count)) => Answer::Counted(*count),
        (Call::Delete, Value::Int(count @ 0..=1)) => Answer::Changed(*count == 1),
        _ => return None,
    };
    Some(vec![answer])
}

/// The number that a reply shows, or that there is none; nothing where it shows neither.
pub(super) fn shown(value: &Value) -> Option<Option<i64>> {
    match value {
        Value::Nil => Some(None),
        Value::BulkString(bytes) => Some(Some(std::str::from_utf8(bytes).ok()?.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_and_nonsense_is_none() {
        let number = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let one = |call, reply| answers(&[(0, call)], &reply).map(|answers| answers[0]);
        assert_eq!(one(Call::Get, number("7")), Some(Answer::Value(Some(7))));
        assert_eq!(one(Call::Get, Value::Nil), Some(Answer::Value(None)));
        assert_eq!(one(Call::Get, number("x")), None);
        assert_eq!(one(Call::SetIfAbsent(1), Value::Nil), Some(Answer::Changed(false)));
        assert_eq!(one(Call::Set(1), Value::Nil), None);
        assert_eq!(one(Call::Delete, Value::Int(2)), None);
        let both = [(0, Call::Get), (1, Call::Get)];
        let reply = Value::Array(vec![number("7"), Value::Nil]);
        assert_eq!(answers(&both, &reply), Some(vec![Answer::Value(Some(7)), Answer::Value(None)]));
        assert_eq!(answers(&both, &Value::Array(vec![Value::Nil])), None);
    }

    #[test]
    fn an_error_that_no_fault_explains_is_noticed() {
        let code = |line: &str| {
            let read = redis::parse_redis_value(line.as_bytes()).and_then(Value::extract_error);
            read.expect_err("an error").code().map(str::to_owned)
        };
        assert!(is_explained(None));
        assert!(is_explained(code("-TRYAGAIN partition 7 is not served just now\r\n").as_deref()));
        assert!(!is_explained(code("-ERR unknown command 'GTE'\r\n").as_deref()));
        assert!(!is_explained(code("-OOM command not allowed\r\n").as_deref()));
    }
}
