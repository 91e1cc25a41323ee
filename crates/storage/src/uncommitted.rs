//! What the records of a partition that are ordered but not committed have replaced.
//!
//! It has three uses: what the committed view shows, what a reply waits for, and taking the changes back when a primary is
//! deposed (rule 9).
//!
//! Every write of a partition with a log on disk or with another copy passes through here, and most are committed before the
//! partition gets many more: so a few changes stand in a list that is looked through, and only many in a map.

use crate::prefetch::{fetch, fetch_front, fetch_next};
use crate::table::{Entry, Replaced, Table, copied_entry};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher as StdHasher};
use types::Lsn;

/// So many changes are looked through; more go by a map until all are committed.
const LISTED: usize = 16;
/// A buffer of so many bytes is kept while nothing is in it.
const COPIES_KEPT: usize = 16 * 1024;

/// What the changes of one record replaced, in the order in which they were made. Most records have one.
#[derive(Debug, Default)]
pub struct Undos {
    list: SmallVec<[Undo; 1]>,
    /// What stood in pieces that were written over, as [`Was::Copied`] says.
    bytes: Vec<u8>,
}

/// What one change replaced.
#[derive(Debug)]
struct Undo(Was);

#[derive(Debug)]
pub(crate) enum Was {
    /// A piece that was written over where it lies: where its bytes were copied to, among those of the record, and then among
    /// those of all. Most values are replaced by others of about their length: then nothing is allocated and nothing freed.
    Copied {
        hash: u64,
        at: u64,
        len: u32,
    },
    Absent {
        hash: u64,
        key: Box<[u8]>,
    },
    Present {
        hash: u64,
        piece: Replaced,
    },
    /// Boxed, since it is rare and large.
    Table(Box<Table>),
}

impl Undos {
    /// How many changes there were.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets them, and keeps the buffer.
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }

    pub(crate) fn keep(&mut self, was: Was) {
        self.list.push(Undo(was));
    }

    /// Where to copy what is written over: [`Undos::keep_copied`] follows, or nothing is appended.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The bytes from `start` on are what a key's piece was.
    pub(crate) fn keep_copied(&mut self, hash: u64, start: usize) {
        let len = (self.bytes.len() - start) as u32;
        self.keep(Was::Copied { hash, at: start as u64, len });
    }
}

/// The bytes of pieces that were written over, in the order of the records: a queue without gaps.
#[derive(Debug, Default)]
struct Copies {
    bytes: Vec<u8>,
    /// What the first of the bytes counts as.
    begin: u64,
    /// Those before this one are done with.
    head: u64,
}

impl Copies {
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    fn entry(&self, at: u64, len: u32) -> Entry<'_> {
        let start = (at - self.begin) as usize;
        copied_entry(&self.bytes[start..start + len as usize])
    }

    /// Those before `at` are not asked for any more.
    fn forget_before(&mut self, at: u64) {
        self.head = at;
        let gone = (at - self.begin) as usize;
        if gone == self.bytes.len() {
            self.begin = at;
            self.bytes.clear();
            self.bytes.shrink_to(COPIES_KEPT);
        } else if gone > COPIES_KEPT && gone > self.bytes.len() / 2 {
            self.begin = at;
            self.bytes.drain(..gone);
        }
    }

    /// Those from `at` on are taken back.
    fn forget_from(&mut self, at: u64) {
        self.bytes.truncate((at - self.begin) as usize);
    }
}

impl Undo {
    /// Brings back what was replaced. Changes are taken back newest first.
    fn restore(self, copies: &mut Copies, table: &mut Table) {
        match self.0 {
            Was::Copied { hash, at, len } => {
                let Entry { key, value, expire_at_ms, version, .. } = copies.entry(at, len);
                table.put(hash, key, value, expire_at_ms, version);
                copies.forget_from(at);
            }
            Was::Absent { hash, key } => {
                table.remove(hash, &key);
            }
            Was::Present { hash, piece } => {
                table.insert_or_swap(hash, piece.into_piece());
            }
            Was::Table(old) => *table = *old,
        }
    }

    /// The key that was changed, and what it was; `None`: all keys.
    fn key<'a>(&'a self, copies: &'a Copies) -> Option<(u64, &'a [u8], Option<Entry<'a>>)> {
        match &self.0 {
            Was::Copied { hash, at, len } => {
                let entry = copies.entry(*at, *len);
                Some((*hash, entry.key, Some(entry)))
            }
            Was::Absent { hash, key } => Some((*hash, key, None)),
            Was::Present { hash, piece } => Some((*hash, piece.key(), Some(piece.entry()))),
            Was::Table(_) => None,
        }
    }

    fn hash(&self) -> Option<u64> {
        match &self.0 {
            Was::Copied { hash, .. } | Was::Absent { hash, .. } | Was::Present { hash, .. } => Some(*hash),
            Was::Table(_) => None,
        }
    }
}

/// Where an undo stands: the record, and its number among the record's.
type Place = (Lsn, usize);

/// What the uncommitted records of a partition replaced. Whether there are any, which is asked for every request, stands first.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Uncommitted {
    records: VecDeque<Undone>,
    copies: Copies,
    changed: Changed,
    /// Where all keys were removed, oldest first.
    clears: VecDeque<Place>,
    last_removal: Lsn,
    /// Of the records.
    bytes: usize,
}

#[derive(Debug)]
struct Undone {
    lsn: Lsn,
    bytes: usize,
    undo: SmallVec<[Undo; 1]>,
    removed_any: bool,
}

impl Uncommitted {
    /// Adds what a record of so many bytes replaced, and leaves the buffers empty. Lsns grow from call to call.
    pub fn push(&mut self, lsn: Lsn, bytes: usize, undos: &mut Undos, removed_any: bool) {
        debug_assert!(lsn > self.last(), "uncommitted records come in order");
        let before = self.copies.end();
        self.copies.bytes.extend_from_slice(&undos.bytes);
        undos.bytes.clear();
        let undo = std::mem::take(&mut undos.list);
        for (number, undo) in undo.iter().enumerate() {
            match undo.hash() {
                Some(hash) => self.changed.push(hash, (lsn, number)),
                None => self.clears.push_back((lsn, number)),
            }
        }
        if removed_any {
            self.last_removal = lsn;
        }
        self.bytes += bytes;
        self.records.push_back(Undone { lsn, bytes, undo, removed_any });
        // Only now, where it stays: what was just written in part is slow to be moved as a whole.
        for undo in self.records.back_mut().into_iter().flat_map(|record| &mut record.undo) {
            if let Was::Copied { at, .. } = &mut undo.0 {
                *at += before;
            }
        }
    }

    /// Asks for the places where the next record will be kept.
    #[inline]
    pub fn prefetch_next(&self) {
        fetch_next(&self.records);
        fetch_next(&self.changed.listed);
        fetch(self.copies.bytes.as_ptr_range().end);
    }

    /// Asks for the oldest record, which is committed next.
    #[inline]
    pub fn prefetch_oldest(&self) {
        fetch_front(&self.records);
        fetch_front(&self.changed.listed);
    }

    /// Bytes of the records that are not committed; what they replaced is not counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether every record is committed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The last uncommitted record; 0: there is none.
    pub fn last(&self) -> Lsn {
        self.records.back().map_or(Lsn(0), |record| record.lsn)
    }

    /// The last uncommitted record by which a key became absent; 0: there is none.
    pub fn last_removal(&self) -> Lsn {
        self.last_removal
    }

    /// The last uncommitted record that changed a key with this hash.
    pub fn lsn_of(&self, hash: u64) -> Option<Lsn> {
        self.changed.last(hash).max(self.clears.back().map(|place| place.0))
    }

    /// Forgets what the records up to `upto` replaced: they are committed.
    pub fn commit(&mut self, upto: Lsn) {
        let mut copied = self.copies.head;
        while let Some(record) = self.records.pop_front_if(|record| record.lsn <= upto) {
            self.bytes -= record.bytes;
            self.changed.forget_oldest(record.lsn, &record.undo);
            for undo in &record.undo {
                if let Was::Copied { at, len, .. } = undo.0 {
                    copied = at + u64::from(len);
                }
            }
        }
        self.copies.forget_before(copied);
        while self.clears.pop_front_if(|place| place.0 <= upto).is_some() {}
        if self.records.is_empty() {
            // They begin at their first place again, which is in the cache sooner than another.
            self.records.clear();
            self.changed.listed.clear();
        }
        if self.last_removal <= upto {
            self.last_removal = Lsn(0);
        }
    }

    /// Takes back the changes of the records after `down_to`, newest first.
    pub fn roll_back(&mut self, down_to: Lsn, table: &mut Table) {
        while let Some(record) = self.records.pop_back_if(|record| record.lsn > down_to) {
            self.bytes -= record.bytes;
            self.changed.forget_newest(record.lsn, &record.undo);
            record.undo.into_iter().rev().for_each(|undo| undo.restore(&mut self.copies, table));
        }
        while self.clears.pop_back_if(|place| place.0 > down_to).is_some() {}
        if self.last_removal > down_to {
            let removal = self.records.iter().rev().find(|record| record.removed_any);
            self.last_removal = removal.map_or(Lsn(0), |record| record.lsn);
        }
    }

    /// A key's committed state, where that is not simply what the table says: `None`: no uncommitted record
    /// changed the key; `Some(None)`: it is absent.
    pub fn committed(&self, hash: u64, key: &[u8]) -> Option<Option<Entry<'_>>> {
        match &self.first(hash, key)?.0 {
            Was::Copied { at, len, .. } => Some(Some(self.copies.entry(*at, *len))),
            Was::Absent { .. } => Some(None),
            Was::Present { piece, .. } => Some(Some(piece.entry())),
            Was::Table(table) => Some(table.get(hash, key)),
        }
    }

    /// The oldest undo that concerns a key.
    fn first(&self, hash: u64, key: &[u8]) -> Option<&Undo> {
        let changed = self.changed.first(hash);
        let (lsn, number) = match (changed, self.clears.front().copied()) {
            (Some(changed), Some(cleared)) => changed.min(cleared),
            (changed, cleared) => changed.or(cleared)?,
        };
        let index = self.records.partition_point(|record| record.lsn < lsn);
        // The undo at that place is the one, but for keys of equal hash.
        let mut undos = self.records.range(index..).flat_map(|record| &record.undo).skip(number);
        undos.find(|undo| match &undo.0 {
            Was::Table(_) => true,
            Was::Copied { hash: other, at, len } => *other == hash && self.copies.entry(*at, *len).key == key,
            Was::Absent { hash: other, key: other_key } => *other == hash && **other_key == *key,
            Was::Present { hash: other, piece } => *other == hash && piece.key() == key,
        })
    }

    /// The table that committed state differs from by [`Uncommitted::for_each_change`]: the one that the oldest
    /// removal of all keys replaced, if there was one.
    pub(crate) fn base<'a>(&'a self, table: &'a Table) -> &'a Table {
        let Some(&(lsn, number)) = self.clears.front() else { return table };
        let index = self.records.partition_point(|record| record.lsn < lsn);
        match self.records.get(index).and_then(|record| record.undo.get(number)) {
            Some(Undo(Was::Table(table))) => table,
            _ => table,
        }
    }

    /// Visits each key that was changed between the committed state and the base, with its committed state.
    pub(crate) fn for_each_change(&self, mut visit: impl FnMut(u64, &[u8], Option<Entry<'_>>)) {
        let undos = self.records.iter().flat_map(|record| &record.undo);
        for undo in undos {
            let Some((hash, key, was)) = undo.key(&self.copies) else { return };
            if self.first(hash, key).is_some_and(|first| std::ptr::eq(first, undo)) {
                visit(hash, key, was);
            }
        }
    }

    /// Whether nothing at all is remembered.
    #[cfg(test)]
    pub(crate) fn remembers_nothing(&self) -> bool {
        let Changed { listed, by_hash } = &self.changed;
        self.copies.bytes.is_empty()
            && self.bytes == 0
            && self.records.is_empty()
            && listed.is_empty()
            && by_hash.is_empty()
            && self.clears.is_empty()
    }
}

/// Which hashes were changed: of each record the first place for each hash, oldest first.
#[derive(Debug, Default)]
struct Changed {
    /// All of them; none where there are so many that they stand in `by_hash`.
    listed: VecDeque<(u64, Place)>,
    by_hash: HashMap<u64, Places, BuildHasherDefault<Identity>>,
}

/// One place or more: most keys are changed by one uncommitted record, and an empty queue takes no heap.
#[derive(Debug)]
struct Places {
    first: Place,
    rest: VecDeque<Place>,
}

impl Places {
    fn last(&self) -> Place {
        self.rest.back().copied().unwrap_or(self.first)
    }
}

/// Keys' hashes need no hashing.
#[derive(Default)]
struct Identity(u64);

impl StdHasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Changed {
    fn push(&mut self, hash: u64, place: Place) {
        if self.by_hash.is_empty() && self.listed.len() < LISTED {
            let of_record = self.listed.iter().rev().take_while(|(_, other)| other.0 == place.0);
            if of_record.into_iter().all(|(other, _)| *other != hash) {
                self.listed.push_back((hash, place));
            }
            return;
        }
        for (hash, place) in self.listed.drain(..).chain([(hash, place)]) {
            let places =
                self.by_hash.entry(hash).or_insert_with(|| Places { first: place, rest: VecDeque::new() });
            if places.last().0 != place.0 {
                places.rest.push_back(place);
            }
        }
    }

    fn first(&self, hash: u64) -> Option<Place> {
        if self.by_hash.is_empty() {
            return self.listed.iter().find(|(other, _)| *other == hash).map(|(_, place)| *place);
        }
        self.by_hash.get(&hash).map(|places| places.first)
    }

    fn last(&self, hash: u64) -> Option<Lsn> {
        if self.by_hash.is_empty() {
            return self.listed.iter().rev().find(|(other, _)| *other == hash).map(|(_, place)| place.0);
        }
        self.by_hash.get(&hash).map(|places| places.last().0)
    }

    /// Forgets the oldest record's changes.
    fn forget_oldest(&mut self, lsn: Lsn, undo: &[Undo]) {
        if self.by_hash.is_empty() {
            while self.listed.pop_front_if(|(_, place)| place.0 <= lsn).is_some() {}
            return;
        }
        for (number, hash) in undo.iter().enumerate().filter_map(|(at, undo)| Some((at, undo.hash()?))) {
            let Some(places) = self.by_hash.get_mut(&hash).filter(|places| places.first == (lsn, number))
            else {
                continue;
            };
            match places.rest.pop_front() {
                Some(next) => places.first = next,
                None => drop(self.by_hash.remove(&hash)),
            }
        }
        self.settle();
    }

    /// Forgets the newest record's changes.
    fn forget_newest(&mut self, lsn: Lsn, undo: &[Undo]) {
        if self.by_hash.is_empty() {
            while self.listed.pop_back_if(|(_, place)| place.0 >= lsn).is_some() {}
            return;
        }
        for (number, hash) in undo.iter().enumerate().filter_map(|(at, undo)| Some((at, undo.hash()?))) {
            if let Some(places) = self.by_hash.get_mut(&hash).filter(|places| places.last() == (lsn, number))
                && places.rest.pop_back().is_none()
            {
                self.by_hash.remove(&hash);
            }
        }
        self.settle();
    }

    /// An empty map gives its room back: it may have been large once.
    fn settle(&mut self) {
        if self.by_hash.is_empty() {
            self.by_hash = HashMap::default();
        }
    }
}
