//! What is committed, as an outsider sees it: every record that any copy has shown committed, and the state that they
//! make. The effects are read by the table in the documentation (docs/storage.md), not by the product's code.

use std::collections::BTreeMap;

/// A committed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The epoch that ordered it.
    pub epoch: u64,
    /// The partition's time that it names.
    pub time_ms: u64,
    /// Its effects, encoded.
    pub body: Vec<u8>,
}

/// One effect of a record, as the documentation draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// 1 put, 2 remove, 3 expire, 4 clear.
    pub kind: u8,
    /// Its version.
    pub version: u64,
    /// The key; none: all.
    pub key: Option<Vec<u8>>,
    /// When the key expires, in Unix milliseconds.
    pub expiry: Option<u64>,
    /// Its value, where that is put.
    pub value: Option<Vec<u8>>,
}

/// A key's value and its expiry, in Unix milliseconds.
pub type Held = (Vec<u8>, Option<u64>);

/// The committed records of each partition, from lsn 1 on.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    partitions: Vec<Vec<Committed>>,
    /// Histories of each that a loss has cut short, oldest first.
    given_up: Vec<Vec<Vec<Committed>>>,
}

impl Oracle {
    /// Nothing is committed yet.
    pub fn new(partitions: usize) -> Oracle {
        Oracle { partitions: vec![Vec::new(); partitions], given_up: vec![Vec::new(); partitions] }
    }

    /// The committed records of a partition; the first has lsn 1.
    pub fn records(&self, partition: usize) -> &[Committed] {
        &self.partitions[partition]
    }

    /// A copy shows a record as committed. Each has a partition's time that is no earlier than that of the one before, whoever ordered
    /// it (rule 14).
    pub fn witness(&mut self, partition: usize, lsn: u64, record: Committed) -> Result<(), String> {
        let records = &mut self.partitions[partition];
        match records.get(lsn as usize - 1) {
            Some(known) if *known == record => Ok(()),
            Some(known) => Err(format!(
                "two records are committed at lsn {lsn} of partition {partition}: {known:?} and {record:?}"
            )),
            None if records.len() as u64 + 1 == lsn => {
                if let Some(before) = records.last().filter(|before| before.time_ms > record.time_ms) {
                    return Err(format!(
                        "the time of partition {partition} runs back at lsn {lsn}: {before:?} and {record:?}"
                    ));
                }
                records.push(record);
                Ok(())
            }
            None => Err(format!(
                "partition {partition} shows lsn {lsn} committed, and nobody ever showed what follows {}",
                records.len()
            )),
        }
    }

    /// What comes after a partition's first `kept` records is lost, as it may be.
    pub fn forget_after(&mut self, partition: usize, kept: usize) {
        let records = &mut self.partitions[partition];
        if records.len() > kept {
            self.given_up[partition].push(records.clone());
            records.truncate(kept);
        }
    }

    /// A copy goes on from a record that was committed once and given up since: what was written instead is lost, too, and the
    /// copy's disk never had it. Then that history counts again, up to there. Returns how many records both begin with; `None`:
    /// there never was such a record.
    pub fn go_back(&mut self, partition: usize, lsn: u64, epoch: u64) -> Option<usize> {
        let at = lsn as usize - 1;
        let has_it = |history: &&Vec<Committed>| history.get(at).is_some_and(|record| record.epoch == epoch);
        let history = self.given_up[partition].iter().rev().find(has_it)?[..=at].to_vec();
        let present = std::mem::replace(&mut self.partitions[partition], history);
        let both = present.iter().zip(&self.partitions[partition]).take_while(|(a, b)| a == b).count();
        self.given_up[partition].push(present);
        Some(both)
    }

    /// Adds a record's effects to a state.
    pub fn apply(body: &[u8], state: &mut BTreeMap<Vec<u8>, Held>) -> Result<(), String> {
        apply(body, state).ok_or_else(|| format!("bad effects: {body:?}"))
    }

    /// A record's effects.
    pub fn seen(body: &[u8]) -> Result<Vec<Seen>, String> {
        effects(body).ok_or_else(|| format!("bad effects: {body:?}"))
    }

    /// Whether a loss has ever cut a partition's history short.
    pub fn has_given_up(&self, partition: usize) -> bool {
        !self.given_up[partition].is_empty()
    }

    /// The state after a partition's first `lsn` records.
    pub fn state(&self, partition: usize, lsn: u64) -> Result<BTreeMap<Vec<u8>, Held>, String> {
        let mut state = BTreeMap::new();
        for record in self.partitions[partition].iter().take(lsn as usize) {
            Oracle::apply(&record.body, &mut state)?;
        }
        Ok(state)
    }

    /// Whether some committed record of a partition gives a key this value.
    pub fn has_put(&self, partition: usize, key: &[u8], value: &[u8]) -> bool {
        let puts = |record: &Committed| {
            let mut state = BTreeMap::new();
            apply(&record.body, &mut state).is_some() && state.get(key).is_some_and(|held| held.0 == value)
        };
        self.partitions[partition].iter().rev().any(puts)
    }
}

/// Reads a record's body: a run of effects.
fn effects(mut body: &[u8]) -> Option<Vec<Seen>> {
    let mut effects = Vec::new();
    while let Some((&head, rest)) = body.split_first() {
        let (version, rest) = rest.split_first_chunk::<8>()?;
        body = rest;
        let kind = head & 15;
        let expiry = if head & 16 != 0 { Some(number(&mut body)?) } else { None };
        let key = if (1..4).contains(&kind) { Some(string(&mut body)?) } else { None };
        let value = if kind == 1 { Some(string(&mut body)?) } else { None };
        if !(1..=4).contains(&kind) {
            return None;
        }
        effects.push(Seen { kind, version: u64::from_le_bytes(*version), key, expiry, value });
    }
    Some(effects)
}

fn apply(body: &[u8], state: &mut BTreeMap<Vec<u8>, Held>) -> Option<()> {
    for Seen { kind, key, expiry, value, .. } in effects(body)? {
        match (kind, key, value) {
            (1, Some(key), Some(value)) => {
                state.insert(key, (value, expiry));
            }
            (2, Some(key), _) => {
                state.remove(&key);
            }
            (3, Some(key), _) => {
                if let Some(held) = state.get_mut(&key) {
                    held.1 = expiry;
                }
            }
            _ => state.clear(),
        }
    }
    Some(())
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

fn string(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let length = number(bytes)? as usize;
    let (string, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(string.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_read_as_the_documentation_draws_them() {
        let mut body = vec![1];
        body.extend([0; 8]);
        body.extend([1, b'k', 2, b'v', b'w']);
        body.push(1 | 16);
        body.extend([0; 8]);
        body.extend([0x80, 1, 1, b'j', 1, b'x']);
        let mut state = BTreeMap::new();
        apply(&body, &mut state).unwrap();
        assert_eq!(state[&b"k"[..]], (b"vw".to_vec(), None));
        assert_eq!(state[&b"j"[..]], (b"x".to_vec(), Some(128)));
    }

    #[test]
    fn a_second_record_at_a_committed_place_is_noticed() {
        let mut oracle = Oracle::new(1);
        let record = |epoch| Committed { epoch, time_ms: 0, body: Vec::new() };
        oracle.witness(0, 1, record(1)).unwrap();
        oracle.witness(0, 1, record(1)).unwrap();
        assert!(oracle.witness(0, 1, record(2)).is_err());
        assert!(oracle.witness(0, 3, record(1)).is_err());
    }

    #[test]
    fn a_time_that_runs_back_is_noticed() {
        let mut oracle = Oracle::new(1);
        let record = |epoch, time_ms| Committed { epoch, time_ms, body: Vec::new() };
        oracle.witness(0, 1, record(1, 5)).unwrap();
        oracle.witness(0, 2, record(2, 5)).unwrap();
        assert!(oracle.witness(0, 3, record(3, 4)).is_err());
    }
}
