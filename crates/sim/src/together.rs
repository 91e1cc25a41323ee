//! What a client asks of several keys of one partition, which has to take effect at one instant (rule 18); and what it writes over the
//! value that it has seen, which has to be there yet.

use crate::client::{Client, Request, STEP, Unique, key_name};
use crate::world::PARTITIONS;
use command::Reply;
use history::{Answer, Call, Operation};
use types::partition_of_key;

/// What a client has seen last.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    key: usize,
    value: i64,
    /// The version that it was shown with.
    version: Option<i64>,
}

/// The groups of keys that share a partition.
fn groups(keys: usize) -> Vec<Vec<usize>> {
    let partition = |key: &usize| partition_of_key(&key_name(*key), PARTITIONS);
    let with = |key: usize| (0..keys).filter(|other| partition(other) == partition(&key)).collect::<Vec<_>>();
    let mut groups: Vec<Vec<usize>> = (0..keys).map(with).filter(|group| group.len() > 1).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn words<const N: usize>(words: [&str; N]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

impl Client {
    /// A command on several keys of one partition.
    pub(crate) fn draw_together(&mut self, keys: usize, unique: &mut Unique) -> Request {
        let groups = groups(keys);
        // Half of the time one of two, so that clients meet.
        let among = if self.random.chance(500) { 2 } else { groups.len() as u64 };
        let mut group = groups[self.random.below(among) as usize].clone();
        if group.len() > 2 && self.random.chance(300) {
            group.remove(self.random.below(3) as usize);
        }
        let (name, writes) = match self.random.below(10) {
            0..=4 => ("MGET", None),
            5..=7 => ("MSET", Some(Call::Set as fn(i64) -> Call)),
            8 => ("MSETNX", Some(Call::SetIfAllAbsent as fn(i64) -> Call)),
            _ => ("DEL", None),
        };
        let mut args = words([name]);
        let mut calls = Vec::new();
        for key in group {
            args.push(key_name(key));
            let call = match writes {
                Some(call) => {
                    let value = unique.value();
                    args.push(value.to_string().into_bytes());
                    call(value)
                }
                None if name == "DEL" => Call::Delete,
                None => Call::Get,
            };
            calls.push((key, call));
        }
        Request { args, calls, expires_ms: None }
    }

    /// A write over what it has seen last, if it has seen something.
    pub(crate) fn draw_over_seen(&mut self, unique: &mut Unique) -> Option<Request> {
        let Sight { key, value, version } = self.seen.take().filter(|_| self.random.chance(300))?;
        let new = unique.value();
        let (key_text, new_text) = (String::from_utf8_lossy(&key_name(key)).into_owned(), new.to_string());
        let set = Call::CompareAndSet { expected: value, new };
        // A value that was counted up from nothing may come again, with another version.
        let version = version.filter(|_| value >= STEP).map(|version| version.to_string());
        let (args, call) = match version {
            Some(version) if self.random.chance(300) => {
                (words(["DELV", &key_text, "IFVERSION", &version]), Call::CompareAndDelete(value))
            }
            Some(version) => (words(["SETV", &key_text, &new_text, "IFVERSION", &version]), set),
            None => {
                let mut args = words(["SET", &key_text, &new_text, "IFEQ", &value.to_string()]);
                args.extend(self.random.chance(300).then(|| b"GET".to_vec()));
                (args, set)
            }
        };
        Some(Request { args, calls: vec![(key, call)], expires_ms: None })
    }

    /// Keeps in mind what it was shown by an operation.
    pub(crate) fn note_seen(&mut self, operation: &Operation, reply: &Reply<'_>) {
        let version = match reply {
            Reply::Array(parts) => match parts.first() {
                Some(Reply::Integer(version)) => Some(*version),
                _ => None,
            },
            _ => None,
        };
        for part in operation.parts.iter().filter(|part| part.call == Call::Get) {
            if let Some(Answer::Value(Some(value))) = part.answer {
                self.seen = Some(Sight { key: part.key, value, version });
            }
        }
    }
}
