//! A snapshot on its way to another copy, as its primary sees it: which chunks are cut and sent, and where it goes on after a break.
//!
//! Chunks are cut from the table in the order of its hashes, while it goes on changing: whatever one shows of that is in the log
//! after `base` too, and putting it twice is the same as once. So a stretch of the table may be cut again, later and elsewhere. But
//! then its chunks begin and end elsewhere, too, and a late one of the first cutting must not be taken for one of the second: between
//! them keys would be missing. Hence a cutting has a number of its own, its **session**, and chunks of one session fit together.
//!
//! Where a transfer breaks off its place is kept ([`Broken`]): the base, and at which cursor each chunk began. The copy says where it
//! stands, (session, next chunk), and the table is cut from there on, under a new session. Its first chunk is a *joint*
//! ([`Chunk::joint`]): it names that place, and the copy takes it only where it stands just there. So nothing that was lost, late or
//! mistaken makes a gap; at worst the transfer begins anew.
//!
//! A break costs memory for cursors, a few bytes for a chunk, and the log from the base on, for as long as [`Broken::is_over`] allows.

use crate::message::{Chunk, ChunkStored, SnapshotEnd};
use crate::peer::Sending;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use storage::lent::is_huge;
use storage::{Log, TailedBuffer, snapshot};
use types::planted::{self, Bug};
use types::{Instant, Lsn, Position};

/// What became of transfers: how many since this was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Begun from the first chunk.
    pub begun: u64,
    /// Gone on with after a break.
    pub gone_on: u64,
    /// Ended, with all that the copy lacked in it.
    pub done: u64,
}

/// Chunks under way at once.
const CHUNKS_AHEAD: usize = 4;
/// How long a transfer that has broken off is kept.
const KEPT: Duration = Duration::from_secs(60);

/// Where a copy stands in a transfer: the session, and the chunk of it that is next.
type Place = (u64, u32);

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    session: u64,
    base: Position,
    base_time_ms: u64,
    /// Where the next chunk begins; none when all are cut.
    cursor: Option<u64>,
    next_index: u32,
    /// Chunks sent and not confirmed, oldest first.
    under_way: VecDeque<Chunk>,
    /// The cursor at which each chunk begins, also of the one that is cut next.
    cuts: BTreeMap<Place, u64>,
    /// Where the copy stood when this session began, if others came before it.
    joined: Option<Place>,
}

/// A transfer that has broken off.
#[derive(Debug)]
pub(crate) struct Broken {
    base: Position,
    base_time_ms: u64,
    cuts: BTreeMap<Place, u64>,
    /// Where the copy stands, by its own word since.
    at: Option<Place>,
    since: Instant,
}

/// What follows from a copy's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nothing: it is late, or known.
    Nothing,
    /// The transfer has got further.
    Further,
    /// All is in.
    Done,
    /// The copy stands elsewhere than this session goes on from.
    Elsewhere(Place),
    /// It has nothing of what this session goes on from.
    Lost,
}

impl Transfer {
    /// A transfer of the table as it stands.
    pub fn begin(sending: &mut Sending<'_>) -> Transfer {
        *sending.last_session += 1;
        let session = *sending.last_session;
        Transfer {
            session,
            base: sending.log.last(),
            base_time_ms: sending.last_time_ms,
            cursor: Some(0),
            next_index: 0,
            under_way: VecDeque::new(),
            cuts: BTreeMap::from([((session, 0), 0)]),
            joined: None,
        }
    }

    /// Goes on with one that has broken off, from where the copy stands.
    fn go_on(mut broken: Broken, at: Place, cursor: u64, sending: &mut Sending<'_>) -> Transfer {
        *sending.last_session += 1;
        let session = *sending.last_session;
        // What was cut behind that place is cut again.
        broken.cuts.retain(|place, _| *place <= at);
        let (after, index) = at;
        broken.cuts.insert((session, index + 1), cursor);
        let joint = Chunk {
            partition: sending.partition,
            epoch: sending.epoch,
            primary_since: sending.primary_since,
            session,
            index,
            payload: Chunk::joint(after),
            end: None,
        };
        Transfer {
            session,
            base: broken.base,
            base_time_ms: broken.base_time_ms,
            cursor: Some(cursor),
            next_index: index + 1,
            under_way: VecDeque::from([joint]),
            cuts: broken.cuts,
            joined: Some(at),
        }
    }

    /// The log is needed from behind here.
    pub fn base(&self) -> Position {
        self.base
    }

    /// What was sent and not confirmed.
    pub fn unconfirmed(&self) -> Vec<Chunk> {
        self.under_way.iter().cloned().collect()
    }

    /// Bytes that were sent and not confirmed. A value is never cut, so that a chunk with a large one is as large.
    pub fn under_way_bytes(&self) -> usize {
        self.under_way.iter().map(|chunk| chunk.payload.len()).sum()
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < CHUNKS_AHEAD && self.under_way_bytes() < CHUNKS_AHEAD * crate::CHUNK_BYTES
    }

    /// Cuts the chunks that may be sent now. With the last one: what has to be committed before the snapshot counts.
    pub fn cut(&mut self, sending: &Sending<'_>) -> (Vec<Chunk>, Option<Lsn>) {
        let (mut cut, mut complete_at) = (Vec::new(), None);
        while let Some(cursor) = self.cursor
            && self.has_room()
        {
            let mut payload = TailedBuffer::default();
            self.cursor = snapshot::write_chunk(sending.table, cursor, sending.chunk_bytes, &mut payload);
            if self.cursor.is_none() && cursor < u64::MAX && is_huge(payload.len()) {
                // The end may be long, and this may need a frame to itself.
                self.cursor = Some(u64::MAX);
            }
            let end = self.cursor.is_none().then(|| {
                let (requests, forgotten) = sending.requests.export(self.base.lsn);
                SnapshotEnd {
                    base: self.base,
                    complete_at: sending.log.last().lsn,
                    time_ms: self.base_time_ms,
                    version: sending.last_version,
                    requests,
                    forgotten,
                }
            });
            complete_at = end.as_ref().map(|end| end.complete_at);
            let chunk = Chunk {
                partition: sending.partition,
                epoch: sending.epoch,
                primary_since: sending.primary_since,
                session: self.session,
                index: self.next_index,
                payload: payload.finished(0),
                end,
            };
            self.next_index += 1;
            if let Some(cursor) = self.cursor {
                self.cuts.insert((self.session, self.next_index), cursor);
            }
            self.under_way.push_back(chunk.clone());
            cut.push(chunk);
        }
        (cut, complete_at)
    }

    /// The copy says which chunk it wants next.
    pub fn on_stored(&mut self, stored: &ChunkStored) -> Stored {
        let place = (stored.session, stored.next);
        if stored.session != self.session {
            // A copy only ever gets further: what lies before is late.
            let is_news = self.joined.is_some_and(|joined| place > joined && self.cuts.contains_key(&place));
            return if is_news { Stored::Elsewhere(place) } else { Stored::Nothing };
        }
        if self.joined.is_some_and(|(_, index)| stored.next <= index) {
            return Stored::Lost;
        }
        let before = self.under_way.len();
        while self.under_way.pop_front_if(|chunk| chunk.index < stored.next).is_some() {}
        if self.under_way.len() == before {
            return Stored::Nothing;
        }
        if self.cursor.is_none() && self.under_way.is_empty() { Stored::Done } else { Stored::Further }
    }

    /// It breaks off: what was not confirmed is given up.
    pub fn break_off(self, now: Instant) -> Broken {
        Broken { base: self.base, base_time_ms: self.base_time_ms, cuts: self.cuts, at: None, since: now }
    }
}

impl Broken {
    /// The log is needed from behind here.
    pub fn base(&self) -> Position {
        self.base
    }

    /// Whether nothing is known of where the copy stands.
    pub fn is_in_doubt(&self) -> bool {
        self.at.is_none()
    }

    /// Another start of the copy: where the earlier one stood it may not.
    pub fn on_restart(&mut self) {
        self.at = None;
    }

    /// The copy says where it stands.
    pub fn on_stored(&mut self, stored: &ChunkStored) {
        let place = (stored.session, stored.next);
        if self.cuts.contains_key(&place) {
            self.at = self.at.max(Some(place));
        }
    }

    /// The same, where that was found out while the transfer went on.
    pub fn stands_at(&mut self, place: Place) {
        self.at = Some(place);
    }

    /// Goes on, where the copy's place is known.
    pub fn go_on(self, sending: &mut Sending<'_>) -> Option<Transfer> {
        let at = self.at?;
        let mut cursor = *self.cuts.get(&at)?;
        if planted::is(Bug::ResumesTooFar) {
            let mut skipped = TailedBuffer::default();
            cursor = snapshot::write_chunk(sending.table, cursor, sending.chunk_bytes, &mut skipped)?;
        }
        Some(Transfer::go_on(self, at, cursor, sending))
    }

    /// Whether it is not worth keeping any more: it has been long, or the log that is kept for it has grown beyond `bytes_max`.
    pub fn is_over(&self, now: Instant, log: &Log, bytes_max: usize) -> bool {
        let records = log.last().lsn.0.saturating_sub(self.base.lsn.0) as usize;
        let bytes = log.bytes() / log.len().max(1) * records;
        now.since(self.since) > KEPT || bytes > bytes_max
    }
}
