//! A client that follows the changes of one partition (`CHANGES`), and what must hold of what it is shown: behind the place that it
//! named, exactly what was committed there, in order, up to the place that leads on. It is told that the changes are not kept any more
//! only where some primary's log began behind its place while it asked, or a loss has cut the history short. Once all is whole again it is
//! shown everything up to the end.
//!
//! Its draws are of its own, so that a seed has the same other clients with it and without.

use crate::checks::committed::CommittedLogs;
use crate::client::{Client, shown};
use crate::oracle::{Oracle, Seen};
use crate::world::PARTITIONS;
use command::{CommandError, Door, ErrorKind, Reply};
use history::random::Random;
use types::{PartitionId, slots_of_partition};

/// Keys of other clients than the one that writes large values.
const PREFIX: &[u8] = b"key:";

/// What it follows, and up to where it has been shown.
#[derive(Clone, Debug)]
pub struct Following {
    partition: PartitionId,
    /// Only keys that begin with [`PREFIX`].
    some: bool,
    /// Epoch and lsn.
    place: Option<(u64, u64)>,
    /// Changes that it was shown.
    pub shown: usize,
}

/// What a reply was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Changes, perhaps none.
    Changes,
    /// They are not kept any more.
    NoHistory,
    /// To try again.
    Nothing,
}

/// The client of a seed.
pub(crate) fn draw(seed: u64, number: usize, nodes: usize) -> Client {
    let mut random = Random::new(seed ^ 0xf011_0000_0000_0000);
    let following = Following {
        partition: PartitionId(random.below(PARTITIONS.into()) as u16),
        some: random.chance(500),
        place: None,
        shown: 0,
    };
    Client {
        number: number as u32,
        node: random.below(nodes as u64) as usize,
        connection: number as u64 + 1,
        sequence: 0,
        door: Door::Plain,
        stale: false,
        fat: false,
        follows: Some(following),
        together: false,
        seen: None,
        waiting: None,
        random,
    }
}

impl Following {
    /// The next question.
    pub fn ask(&self, random: &mut Random) -> Vec<Vec<u8>> {
        let slot = slots_of_partition(self.partition, PARTITIONS).0;
        let mut words = vec!["CHANGES".to_owned(), slot.0.to_string()];
        match self.place {
            Some((epoch, lsn)) => words.extend(["AFTER".into(), epoch.to_string(), lsn.to_string()]),
            None => words.push("NOW".into()),
        }
        words.extend(["BLOCK".into(), random.pick(&[0, 10, 300, 1000]).to_string()]);
        words.extend(["BYTES".into(), random.pick(&[1, 100, 100_000]).to_string()]);
        let mut args: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
        if self.some {
            args.extend([b"PREFIX".to_vec(), PREFIX.to_vec()]);
        }
        args
    }

    /// The partition that it follows.
    pub fn partition(&self) -> usize {
        usize::from(self.partition.0)
    }

    /// Up to which lsn it has been shown.
    pub fn shown_to(&self) -> Option<u64> {
        self.place.map(|(_, lsn)| lsn)
    }

    /// It is answered.
    pub fn answered(
        &mut self,
        committed: &CommittedLogs,
        asked: &[Vec<u8>],
        reply: &Reply<'_>,
    ) -> Result<Told, String> {
        let (oracle, partition) = (&committed.oracle, self.partition());
        let unexpected = || format!("{} was answered {reply:?}", shown(asked));
        match (reply, self.place) {
            // What it was shown is no longer where the log begins: from now on it begins anew.
            (Reply::Error(CommandError::NoHistory), Some((_, lsn))) => {
                let begins = committed.begins(partition);
                if begins <= lsn && !oracle.has_given_up(partition) {
                    return Err(format!("{}, and no primary's log begins behind {begins}", unexpected()));
                }
                self.place = None;
                return Ok(Told::NoHistory);
            }
            (Reply::Error(error), _) if error.kind() != ErrorKind::Final => return Ok(Told::Nothing),
            _ => {}
        }
        let Reply::Array(parts) = reply else { return Err(unexpected()) };
        let [Reply::Integer(epoch), Reply::Integer(lsn), Reply::Array(found)] = &parts[..] else {
            return Err(unexpected());
        };
        let (epoch, lsn) = (*epoch as u64, *lsn as u64);
        let found = found.iter().map(read).collect::<Option<Vec<Seen>>>().ok_or_else(unexpected)?;
        let Some(before) = self.place.replace((epoch, lsn)) else {
            return if found.is_empty() { Ok(Told::Changes) } else { Err(unexpected()) };
        };
        let records = oracle.records(partition);
        let has = |(epoch, lsn): (u64, u64)| {
            lsn == 0 || records.get(lsn as usize - 1).is_some_and(|record| record.epoch == epoch)
        };
        if !has(before) || !has((epoch, lsn)) {
            // Where a loss has cut the history short, it may have been shown what is no more.
            return if oracle.has_given_up(partition) {
                Ok(Told::Changes)
            } else {
                Err(format!("{}: what nobody ever showed committed", unexpected()))
            };
        }
        if lsn < before.1 {
            return Err(format!("{}: it goes back", unexpected()));
        }
        let mut expected = Vec::new();
        for record in &records[before.1 as usize..lsn as usize] {
            let seen = Oracle::seen(&record.body)?;
            let takes =
                |seen: &Seen| !self.some || seen.key.as_ref().is_none_or(|key| key.starts_with(PREFIX));
            expected.extend(seen.into_iter().filter(takes));
        }
        if found != expected {
            return Err(format!("{}: committed was {expected:?}", unexpected()));
        }
        self.shown += found.len();
        Ok(Told::Changes)
    }
}

/// A change as it is told.
fn read(change: &Reply<'_>) -> Option<Seen> {
    let Reply::Array(parts) = change else { return None };
    let bulk = |at: usize| match parts.get(at) {
        Some(Reply::Bulk(bytes)) => Some(bytes.to_vec()),
        _ => None,
    };
    let number = |at: usize| match parts.get(at) {
        Some(Reply::Integer(number)) => Some(*number),
        _ => None,
    };
    let version = number(1)? as u64;
    let end = |at: usize| number(at).map(|at| u64::try_from(at).ok());
    let (kind, key, expiry, value) = match (&bulk(0)?[..], parts.len()) {
        (b"set", 5) => (1, Some(bulk(2)?), end(3)?, Some(bulk(4)?)),
        (b"del", 3) => (2, Some(bulk(2)?), None, None),
        (b"expire", 4) => (3, Some(bulk(2)?), end(3)?, None),
        (b"flush", 2) => (4, None, None, None),
        _ => return None,
    };
    Some(Seen { kind, version, key, expiry, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That the changes are not kept any more is believed only where a primary's log begins behind the place that was named.
    #[test]
    fn history_is_gone_only_where_a_log_begins_later() {
        let mut committed = CommittedLogs::new(1, usize::from(PARTITIONS));
        let mut following =
            Following { partition: PartitionId(3), some: false, place: Some((1, 5)), shown: 0 };
        let mut told = |begins| {
            committed.begins[3] = begins;
            following.place = Some((1, 5));
            following.answered(&committed, &[], &Reply::Error(CommandError::NoHistory))
        };
        assert!(told(0).is_err() && told(5).is_err());
        assert_eq!(told(6), Ok(Told::NoHistory));
        assert_eq!(following.shown_to(), None);
    }
}
