//! The consensus group's log as the `raft` crate wants to see it: in memory, with the map as its snapshot.
//!
//! What must survive a crash leaves through [`crate::ControlEffects::frames`]; this is only the working copy.

use crate::frames::{Frame, encode_frame};
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use types::Level;

#[derive(Default)]
pub struct LogStore {
    hard_state: HardState,
    conf_state: ConfState,
    /// The entry before the first one kept: its index, its term and the map after it.
    base_index: u64,
    base_term: u64,
    entries: Vec<Entry>,
    /// The newest state to hand to a member that is too far behind: index, term, who was in the group, and bytes.
    latest: (u64, u64, ConfState, Vec<u8>),
}

impl LogStore {
    pub fn new(group: ConfState) -> LogStore {
        LogStore { conf_state: group, ..LogStore::default() }
    }

    /// Who is in the group, as far as entries are applied.
    pub fn set_group(&mut self, group: ConfState) {
        self.conf_state = group;
    }

    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// The frame that keeps the term, the vote, and how far the log is committed.
    pub fn hard_state_frame(&self, level: Level) -> Vec<u8> {
        encode_frame(level, &Frame::HardState(self.hard_state.write_to_bytes().unwrap_or_default()))
    }

    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.base_index + 1) as usize;
        assert!(keep <= self.entries.len(), "the consensus log has no gaps");
        self.entries.truncate(keep);
        self.entries.extend_from_slice(entries);
    }

    pub fn entries_after(&self, index: u64) -> &[Entry] {
        let skip = index.saturating_sub(self.base_index) as usize;
        self.entries.get(skip..).unwrap_or(&[])
    }

    /// Forgets everything and goes on from a snapshot.
    pub fn install(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        (self.base_index, self.base_term) = (metadata.index, metadata.term);
        self.conf_state = metadata.get_conf_state().clone();
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.hard_state.term = self.hard_state.term.max(metadata.term);
        self.entries.clear();
        self.latest = (metadata.index, metadata.term, self.conf_state.clone(), snapshot.data.to_vec());
    }

    /// Remembers the state after `index`, the last entry applied, and forgets the entries up to `forget`.
    pub fn compact(&mut self, index: u64, state: Vec<u8>, forget: u64) {
        let Ok(term) = self.term(index) else { return };
        self.latest = (index, term, self.conf_state.clone(), state);
        let forget = forget.min(index);
        if forget > self.base_index
            && let Ok(term) = self.term(forget)
        {
            self.entries.drain(..(forget - self.base_index) as usize);
            (self.base_index, self.base_term) = (forget, term);
        }
    }

    pub fn latest_snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { data: self.latest.3.clone().into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.latest.0, self.latest.1);
        metadata.set_conf_state(self.latest.2.clone());
        snapshot
    }

    pub fn kept(&self) -> usize {
        self.entries.len()
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let from = (low - self.base_index - 1) as usize;
        let to = (high - self.base_index - 1) as usize;
        let Some(wanted) = self.entries.get(from..to) else {
            return Err(Error::Store(StorageError::Unavailable));
        };
        let mut wanted = wanted.to_vec();
        raft::util::limit_size(&mut wanted, max_size.into());
        Ok(wanted)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        if index < self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.entries.get((index - self.base_index - 1) as usize) {
            Some(entry) => Ok(entry.term),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.base_index + self.entries.len() as u64)
    }

    fn snapshot(&self, request_index: u64, _: u64) -> Result<Snapshot> {
        if self.latest.0 < request_index || self.latest.3.is_empty() {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.latest_snapshot())
    }
}
