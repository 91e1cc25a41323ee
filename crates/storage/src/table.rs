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
//! A 16-byte key with a 64-byte value takes 91 bytes, in the class of 96.
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
//! of the index, with the pieces fetched ahead.
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
mod hash;
mod piece;
mod segment;
mod word;

pub use entry::{Entry, OwnedEntry, OwnedValue, Value};
pub use hash::Hasher;
pub(crate) use piece::{Piece, Replaced, copied_entry};
pub(crate) use segment::Words;

use crate::garbage;
use directory::Directory;
use piece::View;
use segment::{Budget, RESERVED_MAX, Segment};
use std::fmt;
use types::Version;

/// The bits of a position that tell the place in a segment; the others tell the segment.
/// What is written over is copied up to this size; to copy more costs more than another piece.
const COPIED_MAX: usize = 1024;
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

/// How [`Table::put_keeping`] has put a value.
pub(crate) enum Put {
    /// The key was absent.
    New,
    /// Over what was there, which was copied.
    Over,
    /// Instead of this.
    Instead(Piece),
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
        self.segment(self.segment_of(hash)).prefetch(hash);
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

    /// Makes room for so many entries in all, in one step. Nothing where it has split already, since then its keys are
    /// spread. Room that is not used is held until keys are removed.
    pub fn reserve(&mut self, entries: usize) {
        if self.split.is_some() {
            return;
        }
        let mut segments = 1;
        while entries / segments > RESERVED_MAX {
            // Numbers are given in turn, so these are all that there are.
            if !(0..segments).all(|number| self.split(number)) {
                return;
            }
            segments *= 2;
        }
        // Hashes do not spread to the last key: four standard deviations more.
        let mean = entries.div_ceil(segments);
        let each = if segments == 1 { mean } else { mean + 4 * mean.isqrt() };
        for number in 0..segments {
            let segment = self.segment_mut(number);
            let before = segment.capacity();
            segment.reserve(each);
            let after = segment.capacity();
            self.words += after - before;
        }
    }

    /// From now on indexes grow by large steps, since many keys are about to come: few of them are moved, but a table may be
    /// two thirds empty. Until [`Table::end_filling`].
    pub fn begin_filling(&mut self) {
        self.filling = true;
    }

    /// No more than usual come: indexes with much more room than they need are made as large as they should be.
    pub fn end_filling(&mut self) {
        if !std::mem::take(&mut self.filling) {
            return;
        }
        let segments = match &mut self.split {
            None => std::slice::from_mut(&mut self.root),
            Some(directory) => directory.segments_mut(),
        };
        let words: usize = segments.iter_mut().map(Segment::tighten).sum();
        self.words = words;
    }

    /// How many entries fit before an index has to grow: about, and in a table that has not split.
    pub(crate) fn room(&self) -> usize {
        if self.split.is_some() { usize::MAX } else { self.words / 6 * 5 }
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
            let entry = segment.piece(place).entry();
            let piece = Piece::new(entry.key, entry.value, expire_at_ms, version);
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

    /// As [`Table::put`]. What was there is appended to `old` where it is written over, and handed out where it is replaced.
    pub(crate) fn put_keeping(
        &mut self,
        hash: u64,
        key: &[u8],
        value: Value<'_>,
        expire_at_ms: Option<u64>,
        version: Version,
        old: &mut Vec<u8>,
    ) -> Put {
        let number = self.segment_of(hash);
        let segment = self.segment_mut(number);
        let place = match segment.find(hash, key) {
            Ok(place) => place,
            Err(place) => {
                self.insert_at(number, place, hash, Piece::new(key, value, expire_at_ms, version));
                return Put::New;
            }
        };
        let start = old.len();
        let view = segment.piece(place);
        let had_expiry = view.has_expiry();
        if view.bytes() <= COPIED_MAX {
            old.extend_from_slice(view.written());
            if segment.piece_mut(place).rewrite(value, expire_at_ms, version) {
                self.volatile_len += usize::from(expire_at_ms.is_some());
                self.volatile_len -= usize::from(had_expiry);
                return Put::Over;
            }
            old.truncate(start);
        }
        Put::Instead(self.swap(number << PLACE_BITS | place, Piece::new(key, value, expire_at_ms, version)))
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

    /// Puts a piece, in the place of the one of its key where there is one, which is returned.
    pub(crate) fn insert_or_swap(&mut self, hash: u64, piece: Piece) -> Option<Piece> {
        match self.find(hash, piece.key()) {
            Ok(position) => Some(self.swap(position, piece)),
            Err(_) => {
                self.insert(hash, piece);
                None
            }
        }
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
mod tests {
    use super::piece::size_class;
    use super::segment::WORDS_MAX;
    use super::word::{ADDRESS, FAR, displacement};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Table {
        /// What has to hold between any two operations.
        fn check(&self) {
            self.check_all(false);
        }

        fn check_all(&self, reserved: bool) {
            let (mut len, mut volatile_len, mut piece_bytes, mut words) = (0, 0, 0, 0);
            for segment in self.segments() {
                let sums = segment.check(reserved);
                (len, volatile_len, piece_bytes) =
                    (len + sums.0, volatile_len + sums.1, piece_bytes + sums.2);
                words += segment.capacity();
            }
            let sums = (self.len, self.volatile_len, self.piece_bytes, self.words);
            assert_eq!((len, volatile_len, piece_bytes, words), sums);
            if let Some(directory) = &self.split {
                directory.check();
                assert_eq!(self.root.len(), 0);
            }
        }

        fn segments(&self) -> Vec<&Segment> {
            let mut segments = vec![self.segment(self.segment_of(0))];
            while let Some(next) = segments[segments.len() - 1].next_start() {
                segments.push(self.segment(self.segment_of(next)));
            }
            segments
        }

        fn words(&self) -> impl Iterator<Item = u64> {
            self.segments().into_iter().flat_map(|segment| segment.words().iter().copied())
        }

        fn entries(&self) -> BTreeMap<Vec<u8>, OwnedEntry> {
            let mut entries = BTreeMap::new();
            let end = self.scan(0, usize::MAX, &mut |entry| {
                assert!(entries.insert(entry.key.to_vec(), entry.to_owned()).is_none());
            });
            assert_eq!(end, None);
            entries
        }
    }

    const MASKS: [u64; 5] = [u64::MAX, 0, 0xff << 56, 0xffff_0000_0000_00ff, 0x3f << 50];

    fn masked(mask: u64) -> Hasher {
        Hasher::new(7).masked(mask)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put { key: u16, keys: u16, value_len: usize, expire_at_ms: Option<u64> },
        Remove { key: u16, keys: u16 },
        Expire { key: u16, keys: u16, expire_at_ms: Option<u64> },
        Scan { budget: usize },
        Random { random: u64 },
        Reserve { entries: usize },
        Fill,
        EndFill,
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let keys = || (0u16..700, prop_oneof![8 => 1u16..4, 1 => 1u16..400]);
        let value_len = prop_oneof![6 => 0usize..100, 2 => 100usize..400, 1 => Just(70_000)];
        let expire = || any::<Option<u64>>();
        let put = (keys(), value_len, expire()).prop_map(|((key, keys), value_len, expire_at_ms)| {
            let keys = if value_len > 1000 { keys.min(3) } else { keys };
            Step::Put { key, keys, value_len, expire_at_ms }
        });
        let remove = keys().prop_map(|(key, keys)| Step::Remove { key, keys });
        let set = (keys(), expire()).prop_map(|((key, keys), expire_at_ms)| Step::Expire {
            key,
            keys,
            expire_at_ms,
        });
        let scan = prop_oneof![0usize..4, 0usize..100].prop_map(|budget| Step::Scan { budget });
        let random = any::<u64>().prop_map(|random| Step::Random { random });
        let reserve = (0usize..2000).prop_map(|entries| Step::Reserve { entries });
        let step = prop_oneof![
            8 => put, 6 => remove, 3 => set, 8 => scan, 1 => random, 1 => reserve, 1 => Just(Step::Clear),
            1 => Just(Step::Fill), 1 => Just(Step::EndFill)
        ];
        proptest::collection::vec(step, 0..60)
    }

    /// Keys of 0 to 300 bytes, so that their lengths take one byte and two.
    fn key_of(number: u16) -> Vec<u8> {
        let mut key = number.to_le_bytes().to_vec();
        key.resize(2 + if number.is_multiple_of(50) { 298 } else { number as usize % 20 }, number as u8);
        key
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// The table does what an ordered map does, at every moment of a scan too: each step visits exactly the
        /// entries in its stretch of hash space.
        #[test]
        fn a_table_is_a_map(steps in steps(), mask in proptest::sample::select(&MASKS[..])) {
            let mut table = Table::new(masked(mask));
            let mut model: BTreeMap<Vec<u8>, OwnedEntry> = BTreeMap::new();
            let mut version = Version(0);
            let mut cursor = 0;
            let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            let mut throughout: Vec<Vec<u8>> = Vec::new();
            let mut reserved = false;
            for step in steps {
                version = Version(version.0 + 1);
                match step {
                    Step::Put { key, keys, value_len, expire_at_ms } => {
                        for key in (key..key + keys).map(key_of) {
                            let value = vec![version.0 as u8; value_len];
                            table.put(table.hasher().hash(&key), &key, Value::String(&value), expire_at_ms, version);
                            let value = OwnedValue::String(value.into());
                            model.insert(key, OwnedEntry { value, expire_at_ms, version });
                        }
                    }
                    Step::Remove { key, keys } => {
                        for key in (key..key + keys).map(key_of) {
                            let removed = table.remove(table.hasher().hash(&key), &key);
                            prop_assert_eq!(removed, model.remove(&key).is_some());
                            throughout.retain(|other| *other != key);
                        }
                    }
                    Step::Expire { key, keys, expire_at_ms } => {
                        for key in (key..key + keys).map(key_of) {
                            let set = table.set_expiry(table.hasher().hash(&key), &key, expire_at_ms, version);
                            prop_assert_eq!(set, model.contains_key(&key));
                            if let Some(entry) = model.get_mut(&key) {
                                (entry.expire_at_ms, entry.version) = (expire_at_ms, version);
                            }
                        }
                    }
                    Step::Scan { budget } => {
                        if cursor == 0 {
                            seen.clear();
                            throughout = model.keys().cloned().collect();
                        }
                        let mut visited = BTreeMap::new();
                        let next = table.scan(cursor, budget, &mut |entry| {
                            *seen.entry(entry.key.to_vec()).or_default() += 1;
                            visited.insert(entry.key.to_vec(), entry.to_owned());
                        });
                        prop_assert!(next.is_none_or(|next| next > cursor));
                        if mask == u64::MAX {
                            // Two of 700 keys stand under one order now and then.
                            prop_assert!(visited.len() <= budget.max(1) + 2);
                        }
                        let mut expected = model.clone();
                        expected.retain(|key, _| {
                            let hash = table.hasher().hash(key);
                            hash >= cursor && next.is_none_or(|next| hash < next)
                        });
                        prop_assert_eq!(visited, expected);
                        if next.is_none() {
                            for key in &throughout {
                                prop_assert_eq!(seen.get(key), Some(&1));
                            }
                        }
                        cursor = next.unwrap_or(0);
                    }
                    Step::Random { random } => {
                        let entry = table.random(random);
                        prop_assert_eq!(entry.is_some(), !model.is_empty());
                        if let Some(entry) = entry {
                            prop_assert_eq!(model.get(entry.key), Some(&entry.to_owned()));
                        }
                    }
                    Step::Reserve { entries } => {
                        table.reserve(entries);
                        reserved = true;
                    }
                    Step::Fill => {
                        table.begin_filling();
                        reserved = true;
                    }
                    Step::EndFill => {
                        let filling = table.filling;
                        table.end_filling();
                        if filling {
                            // Room that was asked for goes with what filling has left over.
                            reserved = false;
                        }
                    }
                    Step::Clear => {
                        reserved = table.filling;
                        table.clear();
                        model.clear();
                        throughout.clear();
                        prop_assert_eq!(table.bytes(), 0);
                    }
                }
                table.check_all(reserved);
            }
            for (key, entry) in &model {
                let hash = table.hasher().hash(key);
                table.prefetch_index(hash);
                table.prefetch(hash);
                let found = table.get(hash, key).map(Entry::to_owned);
                prop_assert_eq!(found.as_ref(), Some(entry));
            }
            prop_assert_eq!(table.entries(), model);
        }
    }

    #[test]
    fn a_step_over_emptiness_is_short() {
        let hasher = Hasher::new(1);
        let mut table = Table::new(hasher);
        for key in 0..100_000u32 {
            let key = key.to_le_bytes();
            table.put(hasher.hash(&key), &key, Value::String(b""), None, Version(1));
        }
        // Empty all but a quarter of hash space, which is not empty enough to shrink.
        for key in 0..100_000u32 {
            let key = key.to_le_bytes();
            let hash = hasher.hash(&key);
            if hash >> 62 != 3 || hash >> 54 == 0x3ff {
                table.remove(hash, &key);
            }
        }
        table.check();
        let (mut cursor, mut steps, mut seen) = (0, 0, 0);
        while let Some(next) = table.scan(cursor, 10, &mut |_| seen += 1) {
            (cursor, steps) = (next, steps + 1);
        }
        assert_eq!(seen, table.len());
        let words = table.words;
        assert!(
            steps >= words / 90 && steps <= words / 80 + table.len() / 10 + 1,
            "{steps} steps, {words} words"
        );
    }

    #[test]
    fn an_index_follows_the_number_of_keys() {
        let hasher = Hasher::new(3);
        let mut table = Table::new(hasher);
        let mut load_least = 1.0f64;
        for key in 0..50_000u32 {
            let key = key.to_le_bytes();
            table.put(hasher.hash(&key), &key, Value::String(b"x"), None, Version(1));
            if key[1] > 1 {
                load_least = load_least.min(table.len() as f64 / table.words as f64);
            }
        }
        assert!(load_least > 0.7, "{load_least}");
        let most = table.words().map(displacement).max();
        assert!(most < Some(FAR), "{most:?}");
        for key in 0..50_000u32 {
            let key = key.to_le_bytes();
            assert!(table.remove(hasher.hash(&key), &key));
        }
        assert_eq!(table.bytes(), 0);
    }

    /// With room made, keys that come in the order of their hashes stand near their homes, and no index grows.
    #[test]
    fn room_is_made_in_one_step() {
        for keys in [1, 50, 96, 97, 3000, 20_000u32] {
            let hasher = Hasher::new(4);
            let mut table = Table::new(hasher);
            table.reserve(keys as usize);
            table.check_all(true);
            let (words, segments) = (table.words, table.segments().len());
            assert!(words >= keys as usize && words <= keys as usize * 3 + 64, "{words} for {keys}");
            let mut names: Vec<[u8; 4]> = (0..keys).map(u32::to_le_bytes).collect();
            names.sort_by_key(|name| hasher.hash(name));
            for name in &names {
                table.put(hasher.hash(name), name, Value::String(b"x"), None, Version(1));
            }
            table.check_all(true);
            // The last homes of one of hundreds overflow.
            assert!(table.words - words <= words / 100, "{} of {words} for {keys}", table.words);
            assert_eq!(table.segments().len(), segments, "{keys}");
            let most = table.words().map(displacement).max();
            assert!(most < Some(60), "{most:?} of {keys}");
            for name in &names {
                assert!(table.remove(hasher.hash(name), name));
            }
            assert_eq!(table.bytes(), 0, "what is not used is given back in the end");
        }
    }

    /// Segments come and go with the keys, none is longer than it may be, and keys that one hash ties together do not
    /// make the directory grow without end.
    #[test]
    fn a_large_table_has_many_small_indexes() {
        for (mask, longest) in [(u64::MAX, WORDS_MAX), (0, usize::MAX), (0x3f << 50, usize::MAX)] {
            let hasher = Hasher::new(5).masked(mask);
            let mut table = Table::new(hasher);
            let mut most = 0;
            // One hash makes each find a walk over all.
            let keys = if mask == u64::MAX { 20_000u32 } else { 1500 };
            for key in 0..keys {
                let key = key.to_le_bytes();
                table.put(hasher.hash(&key), &key, Value::String(b"x"), None, Version(1));
                most = most.max(table.segments().len());
            }
            table.check();
            let lengths: Vec<usize> = table.segments().iter().map(|segment| segment.words().len()).collect();
            assert!(lengths.iter().all(|&words| words <= longest), "{lengths:?}");
            if mask == u64::MAX {
                assert!(most > 150, "{most} segments");
            } else {
                assert!((2..60).contains(&most), "{most} segments");
            }
            for key in 0..keys {
                let key = key.to_le_bytes();
                assert!(table.get(hasher.hash(&key), &key).is_some());
            }
            for key in 0..keys - 10 {
                let key = key.to_le_bytes();
                assert!(table.remove(hasher.hash(&key), &key));
                if key[0] == 0 {
                    table.check();
                }
            }
            assert!(table.split.is_none(), "ten keys need one index");
        }
    }

    #[test]
    fn a_new_value_takes_the_old_ones_place() {
        let hasher = Hasher::new(3);
        let mut table = Table::new(hasher);
        let hash = hasher.hash(b"counter");
        let address = |table: &Table| table.root.words()[table.find(hash, b"counter").unwrap()] & ADDRESS;
        table.put(hash, b"counter", Value::String(b"9"), None, Version(1));
        let first = address(&table);
        table.put(hash, b"counter", Value::String(b"10"), None, Version(2));
        assert!(table.set_expiry(hash, b"counter", Some(5), Version(3)));
        assert_eq!((address(&table), table.volatile_len()), (first, 1));
        let entry = table.get(hash, b"counter").unwrap();
        assert_eq!(
            (entry.value, entry.expire_at_ms, entry.version),
            (Value::String(b"10"), Some(5), Version(3))
        );
    }

    #[test]
    fn tables_change_threads() {
        fn sent<T: Send>(_: &T) {}
        sent(&Table::new(Hasher::new(1)));
    }

    #[test]
    fn seeds_make_different_hashes() {
        let hashes = |seed| [b"a".as_slice(), b"", b"aa"].map(|key| Hasher::new(seed).hash(key));
        assert_eq!(hashes(1), hashes(1));
        assert_ne!(hashes(1), hashes(2));
        assert_ne!(Hasher::new(1).hash(b"a\0"), Hasher::new(1).hash(b"a"));
    }

    #[test]
    fn classes_are_those_of_jemalloc() {
        let classes =
            [(1, 16), (17, 32), (91, 96), (97, 112), (128, 128), (129, 160), (257, 320), (1025, 1280)];
        for (bytes, class) in classes {
            assert_eq!(size_class(bytes), class);
            assert_eq!(size_class(class), class);
        }
        assert_eq!(Piece::new(&[0; 16], Value::String(&[0; 64]), None, Version(1)).view().bytes(), 96);
    }
}
