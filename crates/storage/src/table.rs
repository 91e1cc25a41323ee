//! One partition's keys in memory: the product's heart.
//!
//! **An entry is one heap piece.** Header, version, expiry, key and value lie in one allocation, whose size is one
//! of the allocator's size classes, so that no byte is paid for twice and a new value overwrites the old one
//! wherever both need the same class:
//!
//! ```text
//! 0      1          9                    9|17                                        (+ class padding)
//! +------+----------+--------------------+---------+-----------+-----------+-------------+
//! | head | version  | expiry, if it has  | key len | value len | key bytes | value bytes |
//! | u8   | u64 le   | one: u64 le        | 1,2,4,8 | 1,2,4,8   |           |             |
//! +------+----------+--------------------+---------+-----------+-----------+-------------+
//! head: bits 0-2 kind of value, bit 3 has an expiry, bits 4-5 and 6-7 log2 of the widths of the two lengths
//! ```
//!
//! A 16-byte key with a 64-byte value takes 91 bytes, in the class of 96. Kind 0 is a string; kind 1 is a string that is shared
//! ([`crate::lent`]): its value bytes are the address of a [`bytes::Bytes`] that the piece owns, and it is never written over.
//!
//! **The index is an array of words**, kept in the order of the keys' hashes (ordered linear probing: Amble and
//! Knuth, "Ordered hash tables", 1974; the moves are those of Robin Hood hashing: Celis, 1986). A key's *home* is
//! `hash * homes / 2^64`, so any number of homes will do. Beyond the last home a few spill words follow, so that
//! nothing wraps around. A word is
//!
//! ```text
//! 63       56 55          48 47                       0
//! +----------+--------------+-------------------------+
//! | fraction | displacement | address of the piece    |     0: empty
//! +----------+--------------+-------------------------+
//! ```
//!
//! The fraction is the next 8 bits of `hash * homes / 2^64` after the point; the displacement is how far the word
//! stands behind its home, where 255 says "255 or more, hash the key to know". So a word tells its *order*, (home,
//! fraction), without a look at the piece: a search passes over every other key without a cache miss (but for
//! one in 256 of those with the same home) and ends at the first word of a greater order, also in a full index.
//! Insertion shifts the words behind it up to the next empty one; removal shifts them back, so there are no
//! tombstones and the order is whole at every moment.
//!
//! That makes it cheap to be full. An index grows to the allocator's next size class (by a quarter to a seventh)
//! when 95% of its homes are used, and shrinks when less than a quarter is. Growing hashes every key again, in the order
//! of the index, with the pieces fetched ahead. Tables of one thread do not grow all at once ([`pace`]).
//!
//! **A large table has many indexes**, so that no growth moves more than some thousands of keys (extendible hashing: Fagin
//! and others, 1979). An index of 16 Ki words is not lengthened but split into two [`Segment`]s, by the next bit of the
//! hash; a directory by the hash's first bits tells which segment has a key. Neighbours that have become nearly empty
//! are joined again. A segment is a stretch of hash space, so all that is said here of an index holds of the row of them.
//! Most tables never split, and have no directory.
//!
//! **A scan's cursor is a position in hash space**, not in the index, and a step visits exactly the entries whose
//! hash lies in [cursor, next). No step needs to know of another: whatever is changed, grown or shrunk between
//! them, a key present throughout is visited exactly once.
//!
//! **Keys that come in the order of their hashes**, as another table's scan shows them, all belong at the front of an index
//! that has grown with their number, and stand far behind their homes: each search is a walk over thousands. So who fills
//! a table in that order makes room first ([`Table::reserve`]); then each key stands at home from the beginning.
//!
//! **Freeing is put off**: what a dropped or cleared table held goes to the thread's [`crate::garbage`].
//!
//! Left out: expiry (the keyspace's matter), other types than strings, locks, iteration by key.

mod directory;
mod entry;
mod filling;
mod hash;
mod keeping;
mod pace;
mod piece;
mod segment;
mod word;

pub use entry::{Entry, OwnedEntry, OwnedValue, Value};
pub use hash::Hasher;
pub(crate) use keeping::Put;
pub(crate) use piece::{Piece, Replaced, copied_entry};
pub(crate) use segment::Words;

use crate::garbage;
use bytes::Bytes;
use directory::Directory;
use piece::View;
use segment::{Budget, Segment};
use smallvec::SmallVec;
use std::fmt;
use types::Version;
use word::fetch_piece;

/// The bits of a position that tell the place in a segment; the others tell the segment.
const PLACE_BITS: u32 = 32;
const PLACE: usize = (1 << PLACE_BITS) - 1;

/// One partition's keys. See the module's head for how it works.
///
/// Every operation takes the key's hash, made with [`Table::hasher`], so that a caller hashes once. Another hash
/// than the key's own gives wrong answers, but nothing worse.
pub struct Table {
    hasher: Hasher,
    /// All keys, unless `split` has them.
    root: Segment,
    split: Option<Box<Directory>>,
    len: usize,
    volatile_len: usize,
    piece_bytes: usize,
    /// The words that the indexes have room for.
    words: usize,
    /// Whether indexes grow by large steps for now.
    filling: bool,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len).field("words", &self.words).finish_non_exhaustive()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Table {
    /// An empty table. It takes no heap until something is put.
    pub fn new(hasher: Hasher) -> Table {
        let root = Segment::new(hasher, 0, 0);
        Table { hasher, root, split: None, len: 0, volatile_len: 0, piece_bytes: 0, words: 0, filling: false }
    }

    /// The hash that its keys have.
    pub fn hasher(&self) -> Hasher {
        self.hasher
    }

    /// How many entries it holds, also those whose time to expire has come.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The heap that it holds, in bytes, rounded as the allocator does.
    pub fn bytes(&self) -> usize {
        let directory = self.split.as_ref().map_or(0, |directory| directory.bytes());
        self.piece_bytes + self.words * size_of::<u64>() + directory
    }

    /// How many entries have an expiry.
    pub fn volatile_len(&self) -> usize {
        self.volatile_len
    }

    /// The entry of a key.
    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<Entry<'_>> {
        let segment = self.segment(self.segment_of(hash));
        segment.find(hash, key).ok().map(|place| segment.piece(place).entry())
    }

    /// Asks the processor to fetch a key's entry, to be called some requests before it is used. Reads the index:
    /// where that may be cold too, call [`Table::prefetch_index`] for the whole batch first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        fetch_piece(self.likely_word(hash));
    }

    /// As [`Table::prefetch`], of many keys.
    pub fn prefetch_all<'t>(keys: impl Iterator<Item = (&'t Table, u64)>) {
        let words: SmallVec<[u64; 32]> = keys.map(|(table, hash)| table.likely_word(hash)).collect();
        for word in words {
            fetch_piece(word);
        }
    }

    #[inline]
    fn likely_word(&self, hash: u64) -> u64 {
        self.segment(self.segment_of(hash)).likely_word(hash)
    }

    /// Asks the processor to fetch the part of the index where a key stands.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.segment(self.segment_of(hash)).prefetch_index(hash);
    }

    /// Gives a key this value, expiry and version, whatever it had.
    pub fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        value: Value<'_>,
        expire_at_ms: Option<u64>,
        version: Version,
    ) {
        let number = self.segment_of(hash);
        let segment = self.segment_mut(number);
        let place = match segment.find(hash, key) {
            Ok(place) => place,
            Err(place) => {
                return self.insert_at(number, place, hash, Piece::new(key, value, expire_at_ms, version));
            }
        };
        let had_expiry = segment.piece(place).has_expiry();
        if segment.piece_mut(place).rewrite(value, expire_at_ms, version) {
            self.volatile_len += usize::from(expire_at_ms.is_some());
            self.volatile_len -= usize::from(had_expiry);
        } else {
            drop(self.swap(number << PLACE_BITS | place, Piece::new(key, value, expire_at_ms, version)));
        }
    }

    /// As [`Table::put`], of a value that is shared instead of copied.
    pub fn share(
        &mut self,
        hash: u64,
        key: &[u8],
        value: Bytes,
        expire_at_ms: Option<u64>,
        version: Version,
    ) {
        drop(self.insert_or_swap(hash, Piece::sharing(key, value, expire_at_ms, version)));
    }

    /// Removes a key. False where it was absent.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        self.take(hash, key).is_some()
    }

    /// Gives a key another expiry and version and leaves its value. False where it is absent.
    pub fn set_expiry(&mut self, hash: u64, key: &[u8], expire_at_ms: Option<u64>, version: Version) -> bool {
        let number = self.segment_of(hash);
        let segment = self.segment_mut(number);
        let Ok(place) = segment.find(hash, key) else { return false };
        let had_expiry = segment.piece(place).has_expiry();
        if segment.piece_mut(place).rewrite_expiry(expire_at_ms, version) {
            self.volatile_len += usize::from(expire_at_ms.is_some());
            self.volatile_len -= usize::from(had_expiry);
        } else {
            let piece = Piece::again(segment.piece(place).entry(), expire_at_ms, version);
            drop(self.swap(number << PLACE_BITS | place, piece));
        }
        true
    }

    /// Removes every key. Its memory is given back as [`crate::garbage`] says: here, or later in slices.
    pub fn clear(&mut self) {
        let root = std::mem::replace(&mut self.root, Segment::new(self.hasher, 0, 0));
        let split = self.split.take();
        let segments = split.into_iter().flat_map(|directory| directory.into_segments());
        for segment in std::iter::once(root).chain(segments).filter(|segment| segment.len() > 0) {
            garbage::add_words(segment.into_words());
        }
        (self.len, self.volatile_len, self.piece_bytes, self.words) = (0, 0, 0, 0);
    }

    /// Visits the entries whose hash is `cursor` or more, about in the order of their hashes, and returns from
    /// where to go on; `None`: there are no more. A scan of the whole table begins at 0.
    ///
    /// A step visits exactly the entries whose hash lies in [cursor, next), so a key that is there during the
    /// whole scan is visited once, whatever happens to others between the steps. It visits at most `budget`
    /// entries (0 counts as 1; the few that stand under one order come together) and walks at most eight times
    /// as many empty words of the index, so that a step over an empty stretch is as short as another.
    pub fn scan(&self, cursor: u64, budget: usize, visit: &mut dyn FnMut(Entry<'_>)) -> Option<u64> {
        self.scan_while(cursor, budget, &mut |entry| {
            visit(entry);
            true
        })
    }

    /// As [`Table::scan`]; ends early, with the entries of the present order, after `visit` has said false.
    pub(crate) fn scan_while(
        &self,
        mut cursor: u64,
        budget: usize,
        visit: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Option<u64> {
        let entries = budget.max(1);
        let mut budget = Budget { entries, walk: entries.saturating_mul(8) };
        loop {
            let segment = self.segment(self.segment_of(cursor));
            if let Some(next) = segment.scan(cursor, &mut budget, visit) {
                return Some(next);
            }
            cursor = segment.next_start()?;
            if budget.entries == 0 || budget.walk == 0 {
                return Some(cursor);
            }
        }
    }

    /// An entry chosen by a random number, about evenly: one after a gap in the index is likelier. `None` where
    /// the table is empty.
    pub fn random(&self, random: u64) -> Option<Entry<'_>> {
        if self.len == 0 {
            return None;
        }
        let mut segment = self.segment(self.segment_of(random));
        let mut share = segment.share(random);
        loop {
            if let Some(entry) = segment.entry_from(share) {
                return Some(entry);
            }
            segment = self.segment(self.segment_of(segment.next_start().unwrap_or(0)));
            share = 0;
        }
    }

    // --- for the keyspace, which keeps what was replaced

    /// Where a key stands, or where it would. Good until the next change of the table.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Result<usize, usize> {
        let number = self.segment_of(hash);
        let at = |place| number << PLACE_BITS | place;
        self.segment(number).find(hash, key).map(at).map_err(at)
    }

    #[inline]
    pub(crate) fn entry_at(&self, position: usize) -> Entry<'_> {
        self.piece(position).entry()
    }

    /// Puts a piece in the place of the one of the same key.
    pub(crate) fn swap(&mut self, position: usize, piece: Piece) -> Piece {
        self.piece_bytes += piece.view().bytes();
        self.volatile_len += usize::from(piece.view().has_expiry());
        let old = self.segment_mut(position >> PLACE_BITS).swap(position & PLACE, piece);
        self.forget(old)
    }

    /// Puts a piece whose key is absent.
    pub(crate) fn insert(&mut self, hash: u64, piece: Piece) {
        self.count(&piece);
        self.insert_counted(hash, piece);
    }

    /// As [`Table::insert`], where the place is known at which a search for the key has ended.
    #[inline]
    fn insert_at(&mut self, number: usize, place: usize, hash: u64, piece: Piece) {
        self.count(&piece);
        let segment = self.segment_mut(number);
        if let Err(piece) = segment.insert_at(place, hash, piece) {
            self.insert_counted(hash, piece);
        }
    }

    /// A piece is about to be put for a key that was absent.
    #[inline]
    fn count(&mut self, piece: &Piece) {
        self.piece_bytes += piece.view().bytes();
        self.volatile_len += usize::from(piece.view().has_expiry());
        self.len += 1;
    }

    fn insert_counted(&mut self, hash: u64, piece: Piece) {
        let filling = self.filling;
        let mut number = self.segment_of(hash);
        while self.segment(number).wants_split() && self.split(number) {
            number = self.segment_of(hash);
        }
        let segment = self.segment_mut(number);
        let before = segment.capacity();
        segment.insert(hash, piece, filling);
        let after = segment.capacity();
        self.words += after - before;
    }

    /// Removes a key and returns its piece.
    pub(crate) fn take(&mut self, hash: u64, key: &[u8]) -> Option<Piece> {
        let position = self.find(hash, key).ok()?;
        Some(self.take_at(position))
    }

    /// Removes what stands at a position and returns its piece.
    pub(crate) fn take_at(&mut self, position: usize) -> Piece {
        let number = position >> PLACE_BITS;
        let segment = self.segment_mut(number);
        let before = segment.capacity();
        let (piece, shrunk) = segment.take(position & PLACE);
        let after = segment.capacity();
        self.words -= before - after;
        self.len -= 1;
        if shrunk && self.split.is_some() {
            self.join(number);
        }
        self.forget(piece)
    }

    /// Takes over a piece that is no longer in the index.
    fn forget(&mut self, piece: Piece) -> Piece {
        self.piece_bytes -= piece.view().bytes();
        self.volatile_len -= usize::from(piece.view().has_expiry());
        piece
    }

    #[inline]
    fn piece(&self, position: usize) -> View<'_> {
        self.segment(position >> PLACE_BITS).piece(position & PLACE)
    }

    // --- segments

    /// The number of the segment that has a hash.
    #[inline]
    fn segment_of(&self, hash: u64) -> usize {
        match &self.split {
            None => 0,
            Some(directory) => directory.number_of(hash),
        }
    }

    #[inline]
    fn segment(&self, number: usize) -> &Segment {
        match &self.split {
            None => &self.root,
            Some(directory) => directory.segment(number),
        }
    }

    #[inline]
    fn segment_mut(&mut self, number: usize) -> &mut Segment {
        match &mut self.split {
            None => &mut self.root,
            Some(directory) => directory.segment_mut(number),
        }
    }

    /// Splits a segment in two. False where that would not spread the keys.
    #[cold]
    fn split(&mut self, number: usize) -> bool {
        let hasher = self.hasher;
        let root = &mut self.root;
        let directory = self.split.get_or_insert_with(|| {
            let root = std::mem::replace(root, Segment::new(hasher, 0, 0));
            Box::new(Directory::new(root))
        });
        let before = directory.segment(number).capacity();
        let Some(after) = directory.split(hasher, number) else { return false };
        self.words = self.words - before + after;
        true
    }

    /// Joins a segment that became smaller with its neighbours, as far as that is cheap.
    #[cold]
    fn join(&mut self, number: usize) {
        let Some(directory) = &mut self.split else { return };
        self.words = (self.words as isize + directory.join(self.hasher, number)) as usize;
        if let Some(root) = directory.take_only() {
            self.root = root;
            self.split = None;
        }
    }
}

#[cfg(test)]
mod tests;
