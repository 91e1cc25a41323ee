//! A client: one connection, one request at a time, and what its replies mean for the history.
//!
//! Every plain value written is a multiple of [`STEP`] and unique, so a read tells which write it saw and how often
//! that was counted up since.

use crate::follower::Following;
use crate::network::MS;
use crate::world::PARTITIONS;
use command::{Door, ErrorKind, Reply};
use history::random::Random;
use history::{Answer, Call, History, Part, Time};
use std::collections::BTreeMap;
use types::partition_of_key;

/// The distance between two written values: more than any value is counted up.
pub const STEP: i64 = 10_000;

/// Large values: how many keys have them, and how large they are.
const FAT_KEYS: u64 = 64;
const FAT_BYTES: usize = 20_000;

/// A key by its number.
pub fn key_name(key: usize) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

/// A request that waits for its reply.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its number on the connection.
    pub sequence: u64,
    /// Its operations in the history, one a partition. Empty for a stale read.
    pub operations: Vec<usize>,
    /// What is read stale, and when that was asked.
    pub stale: Option<(usize, Time)>,
    /// The command.
    pub args: Vec<Vec<u8>>,
    /// When it was asked.
    pub asked_at: Time,
    /// Whether it may have reached the node.
    pub delivered: bool,
}

/// A value that a stale read has shown.
#[derive(Clone, Copy, Debug)]
pub struct StaleRead {
    /// The key.
    pub key: usize,
    /// What it showed; none: no such key.
    pub value: Option<i64>,
    /// When it was asked.
    pub asked: Time,
    /// When it was answered.
    pub returned: Time,
    /// How old it may be, as it was told.
    pub age_ms: Option<u64>,
}

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its number.
    pub number: u32,
    /// The node that it is connected to, by index.
    pub node: usize,
    /// Its connection: unique over all clients.
    pub connection: u64,
    /// The next request's number.
    pub sequence: u64,
    /// Its door.
    pub door: Door,
    /// Whether it reads stale.
    pub stale: bool,
    /// Whether it does nothing but write large values, so that logs are trimmed and copies need snapshots.
    pub fat: bool,
    /// What it follows, where it does nothing but that.
    pub follows: Option<Following>,
    /// The request under way.
    pub waiting: Option<Waiting>,
    /// Its own chance.
    pub random: Random,
}

/// What a client asks next: the command, and its operations.
pub struct Request {
    /// The command.
    pub args: Vec<Vec<u8>>,
    /// A call a key, in the order of the keys. None for keys that only take up room.
    pub calls: Vec<(usize, Call)>,
    /// When what it sets expires, in milliseconds from now.
    pub expires_ms: Option<u64>,
}

/// Hands out values and numbers of expiries.
#[derive(Clone, Debug, Default)]
pub struct Unique {
    values: i64,
    expiries: u32,
}

impl Unique {
    fn value(&mut self) -> i64 {
        self.values += STEP;
        self.values
    }
}

impl Client {
    /// How long it thinks before its next request.
    pub fn pause(&mut self) -> Time {
        match self.random.below(10) {
            0 => 0,
            1..=7 => self.random.between(0, 500 * MS),
            _ => self.random.between(0, 1500 * MS),
        }
    }

    fn key(&mut self, keys: usize) -> usize {
        let among = if self.random.chance(500) { keys / 4 } else { keys };
        self.random.below(among.max(1) as u64) as usize
    }

    /// Draws its next request.
    pub fn draw(&mut self, keys: usize, unique: &mut Unique) -> Request {
        let key = self.key(keys);
        let name = key_name(key);
        let word = |text: &str| text.as_bytes().to_vec();
        let number = |value: i64| value.to_string().into_bytes();
        let one = |args, call| Request { args, calls: vec![(key, call)], expires_ms: None };
        if self.fat {
            let name = format!("fat:{}", self.random.below(FAT_KEYS)).into_bytes();
            let value = vec![b'a' + self.random.below(26) as u8; FAT_BYTES];
            return Request { args: vec![word("SET"), name, value], calls: Vec::new(), expires_ms: None };
        }
        if let Some(following) = &self.follows {
            return Request { args: following.ask(&mut self.random), calls: Vec::new(), expires_ms: None };
        }
        if self.stale {
            return one(vec![word("GETV"), name, word("AGE")], Call::Get);
        }
        match self.random.below(100) {
            0..40 => one(vec![word("GET"), name], Call::Get),
            40..60 => {
                let value = unique.value();
                one(vec![word("SET"), name, number(value)], Call::Set(value))
            }
            60..72 => one(vec![word("INCR"), name], Call::Increment),
            72..79 => one(vec![word("DEL"), name], Call::Delete),
            79..86 => {
                let value = unique.value();
                let args = vec![word("SET"), name, number(value), word("NX")];
                one(args, Call::SetIfAbsent(value))
            }
            86..90 => {
                let value = unique.value();
                unique.expiries += 1;
                let expires_ms = self.random.between(1, 3000);
                let args =
                    vec![word("SET"), name, number(value), word("PX"), expires_ms.to_string().into_bytes()];
                let call = Call::SetExpiring(value, unique.expiries);
                Request { expires_ms: Some(expires_ms), ..one(args, call) }
            }
            90..95 => {
                let chosen = self.some_keys(keys);
                let mut args = vec![word("MGET")];
                args.extend(chosen.iter().map(|&key| key_name(key)));
                let calls = chosen.into_iter().map(|key| (key, Call::Get)).collect();
                Request { args, calls, expires_ms: None }
            }
            _ => {
                let mut args = vec![word("MSET")];
                let mut calls = Vec::new();
                for key in self.some_keys(keys) {
                    let value = unique.value();
                    args.extend([key_name(key), number(value)]);
                    calls.push((key, Call::Set(value)));
                }
                Request { args, calls, expires_ms: None }
            }
        }
    }

    /// Keys for one command. The cluster door takes those of one slot alone.
    fn some_keys(&mut self, keys: usize) -> Vec<usize> {
        let most = if self.door == Door::Cluster { 1 } else { 3 };
        let mut chosen: Vec<usize> = (0..most).map(|_| self.key(keys)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }
}

/// The operations of a request: what it asks of the keys of one partition takes effect at one instant (rule 18).
pub fn by_partition(calls: &[(usize, Call)]) -> Vec<Vec<(usize, Call)>> {
    let mut operations: BTreeMap<u16, Vec<(usize, Call)>> = BTreeMap::new();
    for &(key, call) in calls {
        operations.entry(partition_of_key(&key_name(key), PARTITIONS).0).or_default().push((key, call));
    }
    operations.into_values().collect()
}

/// Ends a request's operations by what a reply says of them. An error where no such reply was to be expected.
pub fn end(history: &mut History, waiting: &Waiting, reply: &Reply<'_>, now: Time) -> Result<(), String> {
    let unexpected = || format!("{} was answered {reply:?}", shown(&waiting.args));
    if let Reply::Error(error) = reply {
        match error.kind() {
            ErrorKind::UnknownOutcome => {}
            // What it asked of another partition may have been done.
            ErrorKind::Retryable if waiting.operations.len() > 1 => {}
            ErrorKind::Retryable => waiting.operations.iter().for_each(|&one| history.refused(one, now)),
            ErrorKind::Final => return Err(unexpected()),
        }
        return Ok(());
    }
    let mut shown = match reply {
        Reply::Array(items) => Some(items.iter()),
        _ => None,
    };
    // By key, in the order of the command: its operations have them by partition.
    let mut keys: Vec<usize> = waiting
        .operations
        .iter()
        .flat_map(|&one| &history.operations()[one].parts)
        .map(|part| part.key)
        .collect();
    keys.sort_unstable();
    let replies: BTreeMap<usize, &Reply<'_>> = match &mut shown {
        Some(items) if items.len() == keys.len() => keys.into_iter().zip(items).collect(),
        Some(_) => return Err(unexpected()),
        None => keys.into_iter().map(|key| (key, reply)).collect(),
    };
    for &one in &waiting.operations {
        let parts = &history.operations()[one].parts;
        let answers = parts.iter().map(|part| answer(part.call, replies[&part.key]));
        let answers: Vec<Answer> = answers.collect::<Option<_>>().ok_or_else(unexpected)?;
        history.answered(one, now, &answers);
    }
    Ok(())
}

fn answer(call: Call, reply: &Reply<'_>) -> Option<Answer> {
    match (call, reply) {
        (Call::Get, reply) => value(reply).map(Answer::Value),
        (Call::Set(_) | Call::SetExpiring(..), Reply::Simple(text)) if text == "OK" => Some(Answer::Done),
        (Call::SetIfAbsent(_), Reply::Simple(text)) if text == "OK" => Some(Answer::Changed(true)),
        (Call::SetIfAbsent(_), Reply::Null) => Some(Answer::Changed(false)),
        (Call::Increment, Reply::Integer(value)) => Some(Answer::Counted(*value)),
        (Call::Delete, Reply::Integer(count @ (0 | 1))) => Some(Answer::Changed(*count == 1)),
        _ => None,
    }
}

/// The plain value that a call writes, whenever it does.
fn value_of(call: Call) -> Option<i64> {
    match call {
        Call::Set(value)
        | Call::SetExpiring(value, _)
        | Call::SetIfAbsent(value)
        | Call::SetIfAllAbsent(value)
        | Call::CompareAndSet { new: value, .. } => Some(value),
        Call::Get | Call::Increment | Call::Delete | Call::CompareAndDelete(_) | Call::Expire(_) => None,
    }
}

/// The plain value that was surely written.
pub fn value_written(part: &Part) -> Option<i64> {
    let written = match (part.call, part.answer?) {
        (Call::CompareAndSet { expected, .. }, Answer::Value(shown)) => shown == Some(expected),
        (_, answer) => matches!(answer, Answer::Done | Answer::Changed(true)),
    };
    value_of(part.call).filter(|_| written)
}

/// The plain value that was written, or may have been.
pub fn may_write(part: &Part) -> Option<i64> {
    if part.answer.is_some() { value_written(part) } else { value_of(part.call) }
}

/// A value that a reply shows. The outer none: it shows something else.
pub fn value(reply: &Reply<'_>) -> Option<Option<i64>> {
    match reply {
        Reply::Null => Some(None),
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok().map(Some),
        _ => None,
    }
}

/// What a stale read tells: the value, and how old it may be.
pub fn aged_value(reply: &Reply<'_>) -> Option<(Option<i64>, Option<u64>)> {
    let Reply::Array(parts) = reply else { return None };
    let [_, _, shown, age] = &parts[..] else { return None };
    let age_ms = match age {
        Reply::Integer(age) => u64::try_from(*age).ok(),
        _ => None,
    };
    value(shown).map(|value| (value, age_ms))
}

/// A command for people.
pub fn shown(args: &[Vec<u8>]) -> String {
    let short = |arg: &Vec<u8>| String::from_utf8_lossy(&arg[..arg.len().min(40)]).into_owned();
    args.iter().map(short).collect::<Vec<_>>().join(" ")
}
