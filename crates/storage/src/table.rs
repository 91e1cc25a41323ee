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
//! of the index, with the pieces fetched ahead; partitions are small, so that is thousands of keys.
//!
//! **A scan's cursor is a position in hash space**, not in the index, and a step visits exactly the entries whose
//! hash lies in [cursor, next). No step needs to know of another: whatever is changed, grown or shrunk between
//! them, a key present throughout is visited exactly once.
//!
//! Left out: expiry (the keyspace's matter), other types than strings, locks, iteration by key.

mod entry;
mod hash;
mod piece;
mod word;

pub use entry::{Entry, OwnedEntry, OwnedValue, Value};
pub use hash::Hasher;
pub(crate) use piece::Piece;

use piece::{View, size_class};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::DerefMut;
use types::Version;
use word::{
    ADDRESS, FAR, FRACTION_BITS, FRACTION_SHIFT, STEP, displacement, fetch, fetch_piece, new_word, start_of,
};

/// How many words ahead a walk fetches pieces.
const AHEAD: usize = 8;
const WORDS_MIN: usize = 8;
/// The most spill words that an index begins with.
const SPILL_MAX: usize = 24;

/// One partition's keys. See the module's head for how it works.
///
/// Every operation takes the key's hash, made with [`Table::hasher`], so that a caller hashes once. Another hash
/// than the key's own gives wrong answers, but nothing worse.
pub struct Table {
    hasher: Hasher,
    /// The index: the homes, then the spill words.
    words: Vec<u64>,
    /// How many of the words are homes. 0 where the index is empty.
    homes: usize,
    len: usize,
    volatile_len: usize,
    piece_bytes: usize,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("len", &self.len)
            .field("words", &self.words.len())
            .finish_non_exhaustive()
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
        Table { hasher, words: Vec::new(), homes: 0, len: 0, volatile_len: 0, piece_bytes: 0 }
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
        self.piece_bytes + self.words.capacity() * size_of::<u64>()
    }

    /// How many entries have an expiry.
    pub fn volatile_len(&self) -> usize {
        self.volatile_len
    }

    /// The entry of a key.
    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<Entry<'_>> {
        self.find(hash, key).ok().map(|position| self.entry_at(position))
    }

    /// Asks the processor to fetch a key's entry, to be called some requests before it is used. Reads the index:
    /// where that may be cold too, call [`Table::prefetch_index`] for the whole batch first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        let order = self.order(hash);
        let mut position = (order >> FRACTION_BITS) as usize;
        while let Some(&word) = self.words.get(position) {
            if word == 0 {
                return;
            }
            if displacement(word) == FAR || self.order_at(position, word) >= order {
                return fetch_piece(word);
            }
            position += 1;
        }
    }

    /// Asks the processor to fetch the part of the index where a key stands.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        let home = (self.order(hash) >> FRACTION_BITS) as usize;
        fetch(self.words.as_ptr().wrapping_add(home).cast());
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
        if let Ok(position) = self.find(hash, key) {
            let had_expiry = self.piece(position).has_expiry();
            if self.piece_mut(position).rewrite(value, expire_at_ms, version) {
                self.volatile_len += usize::from(expire_at_ms.is_some());
                self.volatile_len -= usize::from(had_expiry);
            } else {
                drop(self.swap(position, Piece::new(key, value, expire_at_ms, version)));
            }
        } else {
            self.insert(hash, Piece::new(key, value, expire_at_ms, version));
        }
    }

    /// Removes a key. False where it was absent.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        self.take(hash, key).is_some()
    }

    /// Gives a key another expiry and version and leaves its value. False where it is absent.
    pub fn set_expiry(&mut self, hash: u64, key: &[u8], expire_at_ms: Option<u64>, version: Version) -> bool {
        let Ok(position) = self.find(hash, key) else { return false };
        let had_expiry = self.piece(position).has_expiry();
        if self.piece_mut(position).rewrite_expiry(expire_at_ms, version) {
            self.volatile_len += usize::from(expire_at_ms.is_some());
            self.volatile_len -= usize::from(had_expiry);
        } else {
            let entry = self.entry_at(position);
            let piece = Piece::new(entry.key, entry.value, expire_at_ms, version);
            drop(self.swap(position, piece));
        }
        true
    }

    /// Removes every key and gives the memory back.
    pub fn clear(&mut self) {
        let words = std::mem::take(&mut self.words);
        for (at, &word) in words.iter().enumerate() {
            if let Some(&ahead) = words.get(at + AHEAD) {
                fetch_piece(ahead);
            }
            if word != 0 {
                drop(Piece(start_of(word)));
            }
        }
        (self.homes, self.len, self.volatile_len, self.piece_bytes) = (0, 0, 0, 0);
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
        cursor: u64,
        budget: usize,
        visit: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Option<u64> {
        let from = self.order(cursor);
        let mut position = (from >> FRACTION_BITS) as usize;
        let walk_end = position.saturating_add(budget.max(1).saturating_mul(8));
        let mut left = budget.max(1);
        let mut last = None;
        while let Some(&word) = self.words.get(position) {
            if word == 0 {
                // All entries whose home is here or before have been seen.
                if position + 1 >= walk_end && position + 1 < self.homes {
                    return Some(self.first_hash((position as u64 + 1) << FRACTION_BITS));
                }
                position += 1;
                continue;
            }
            if let Some(&ahead) = self.words.get(position + AHEAD) {
                fetch_piece(ahead);
            }
            let order = self.order_at(position, word);
            let view = self.piece(position);
            position += 1;
            // Where the cursor cuts through the entries of one order, the hashes tell on which side they are.
            if order < from || (order == from && self.hasher.hash(view.key()) < cursor) {
                continue;
            }
            // Nothing tells the entries of one order apart without hashing them, so a step ends between orders.
            if left == 0 && last != Some(order) {
                return Some(self.first_hash(order));
            }
            last = Some(order);
            left = left.saturating_sub(1);
            if !visit(view.entry()) {
                left = 0;
            }
        }
        None
    }

    /// An entry chosen by a random number, about evenly: one after a gap in the index is likelier. `None` where
    /// the table is empty.
    pub fn random(&self, random: u64) -> Option<Entry<'_>> {
        if self.len == 0 {
            return None;
        }
        let start = ((u128::from(random) * self.words.len() as u128) >> 64) as usize;
        let after = (start..self.words.len()).chain(0..start);
        let mut used = after.filter(|&position| self.words[position] != 0);
        used.next().map(|position| self.entry_at(position))
    }

    // --- for the keyspace, which keeps what was replaced

    /// Where a key stands, or where it would.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Result<usize, usize> {
        let order = self.order(hash);
        let mut position = (order >> FRACTION_BITS) as usize;
        while let Some(&word) = self.words.get(position) {
            if word == 0 {
                break;
            }
            let here = self.order_at(position, word);
            if here > order {
                break;
            }
            if here == order && self.piece(position).key() == key {
                return Ok(position);
            }
            position += 1;
        }
        Err(position)
    }

    #[inline]
    pub(crate) fn entry_at(&self, position: usize) -> Entry<'_> {
        self.piece(position).entry()
    }

    /// Puts a piece in the place of the one of the same key.
    pub(crate) fn swap(&mut self, position: usize, piece: Piece) -> Piece {
        self.piece_bytes += piece.view().bytes();
        self.volatile_len += usize::from(piece.view().has_expiry());
        let address = piece.0.as_ptr().expose_provenance() as u64;
        std::mem::forget(piece);
        let word = self.words[position];
        self.words[position] = word & !ADDRESS | address;
        self.forget(word)
    }

    /// Puts a piece whose key is absent.
    pub(crate) fn insert(&mut self, hash: u64, piece: Piece) {
        if self.len >= self.homes * 19 / 20 {
            self.grow();
        }
        let (order, position, empty) = loop {
            let order = self.order(hash);
            let position = self.place_after(order);
            let empty = self.empty_from(position);
            if empty < self.words.len() {
                break (order, position, empty);
            }
            // The last homes overflow. Growth spreads them, unless the keys have one hash.
            if self.len >= self.words.len() / 4 * 3 { self.grow() } else { self.lengthen_to(empty + 1) }
        };
        self.piece_bytes += piece.view().bytes();
        self.volatile_len += usize::from(piece.view().has_expiry());
        self.len += 1;
        self.insert_word(position, empty, new_word(piece, order, position));
    }

    fn grow(&mut self) {
        self.resize(size_class((self.words.len() + 1).max(WORDS_MIN) * 8) / 8);
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
        let word = self.words[position];
        self.remove_word(position);
        self.len -= 1;
        let piece = self.forget(word);
        if self.len == 0 {
            self.words = Vec::new();
            self.homes = 0;
        } else if self.len < self.words.len() / 4 && self.words.len() > WORDS_MIN {
            self.resize(size_class((self.len * 3 / 2).max(WORDS_MIN) * 8) / 8);
        }
        piece
    }

    // --- pieces

    /// Takes over the piece of a word that is no longer in the index.
    fn forget(&mut self, word: u64) -> Piece {
        let piece = Piece(start_of(word));
        self.piece_bytes -= piece.view().bytes();
        self.volatile_len -= usize::from(piece.view().has_expiry());
        piece
    }

    #[inline]
    fn piece(&self, position: usize) -> View<'_> {
        View { start: start_of(self.words[position]), piece: PhantomData }
    }

    fn piece_mut(&mut self, position: usize) -> impl DerefMut<Target = Piece> + '_ {
        ManuallyDrop::new(Piece(start_of(self.words[position])))
    }

    // --- the index

    /// Where a hash belongs: its home and, in the lowest 8 bits, what comes after the point.
    #[inline]
    fn order(&self, hash: u64) -> u64 {
        ((u128::from(hash) * self.homes as u128) >> (64 - FRACTION_BITS)) as u64
    }

    /// The least hash that belongs there or later.
    fn first_hash(&self, order: u64) -> u64 {
        (u128::from(order) << (64 - FRACTION_BITS)).div_ceil(self.homes as u128) as u64
    }

    /// Where the key of a word belongs.
    #[inline]
    fn order_at(&self, position: usize, word: u64) -> u64 {
        let far = displacement(word);
        if far == FAR {
            return self.order_by_key(word);
        }
        (position as u64 - far) << FRACTION_BITS | word >> FRACTION_SHIFT
    }

    #[cold]
    fn order_by_key(&self, word: u64) -> u64 {
        let view = View { start: start_of(word), piece: PhantomData };
        self.order(self.hasher.hash(view.key()))
    }

    /// The position behind all that belong there or before.
    fn place_after(&self, order: u64) -> usize {
        let mut position = (order >> FRACTION_BITS) as usize;
        while let Some(&word) = self.words.get(position) {
            if word == 0 || self.order_at(position, word) > order {
                break;
            }
            position += 1;
        }
        position
    }

    /// The first empty word from a position on; the index's length where there is none.
    fn empty_from(&self, position: usize) -> usize {
        let rest = &self.words[position..];
        position + rest.iter().position(|&word| word == 0).unwrap_or(rest.len())
    }

    /// Shifts the words from `position` to `empty` by one and sets the first.
    fn insert_word(&mut self, position: usize, empty: usize, word: u64) {
        self.words.copy_within(position..empty, position + 1);
        for shifted in &mut self.words[position + 1..=empty] {
            *shifted += if displacement(*shifted) == FAR { 0 } else { STEP };
        }
        self.words[position] = word;
    }

    /// Takes a word out and shifts back those behind it that are not at home.
    fn remove_word(&mut self, mut position: usize) {
        while let Some(&next) = self.words.get(position + 1) {
            let far = displacement(next);
            if next == 0 || far == 0 {
                break;
            }
            let still_far = far == FAR && position as u64 - (self.order_by_key(next) >> FRACTION_BITS) >= FAR;
            self.words[position] = if still_far { next } else { next - STEP };
            position += 1;
        }
        self.words[position] = 0;
    }

    /// Makes the index `words` long, or longer where the last homes overflow, and moves every word.
    fn resize(&mut self, words: usize) {
        let old = std::mem::replace(&mut self.words, vec![0; words]);
        self.homes = words - (words / 64).clamp(1, SPILL_MAX);
        let mut tail = 0;
        let mut greatest = 0;
        for (at, &word) in old.iter().enumerate() {
            if let Some(&ahead) = old.get(at + AHEAD) {
                fetch_piece(ahead);
            }
            if word == 0 {
                continue;
            }
            let piece = Piece(start_of(word));
            let order = self.order(self.hasher.hash(piece.key()));
            tail = tail.max((order >> FRACTION_BITS) as usize);
            // Only keys that stood under one order can come out of order here.
            let position = if order >= greatest { tail } else { self.place_after(order) };
            greatest = greatest.max(order);
            let empty = self.empty_from(position);
            self.lengthen_to(empty + 1);
            self.insert_word(position, empty, new_word(piece, order, position));
            tail = tail.max(empty + 1);
        }
    }

    /// Adds spill words up to a length.
    fn lengthen_to(&mut self, words: usize) {
        if words > self.words.len() {
            let words = words.next_multiple_of(WORDS_MIN);
            self.words.reserve_exact(words - self.words.len());
            self.words.resize(words, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Table {
        /// What has to hold between any two operations.
        fn check(&self) {
            let (mut len, mut volatile_len, mut piece_bytes) = (0, 0, 0);
            let mut last = 0;
            let mut end = 0;
            for (position, &word) in self.words.iter().enumerate() {
                if word == 0 {
                    continue;
                }
                let view = self.piece(position);
                let order = self.order(self.hasher.hash(view.key()));
                let home = (order >> FRACTION_BITS) as usize;
                assert_eq!(self.order_at(position, word), order, "the word tells the order");
                assert_eq!(displacement(word), ((position - home) as u64).min(FAR));
                assert!(order >= last, "the words are in order");
                assert!(
                    home >= end || self.words[home..position].iter().all(|&word| word != 0),
                    "no gap before it"
                );
                (last, end) = (order, position);
                len += 1;
                volatile_len += usize::from(view.has_expiry());
                piece_bytes += view.bytes();
            }
            assert_eq!((len, volatile_len, piece_bytes), (self.len, self.volatile_len, self.piece_bytes));
            // Keys that collide in the last home may lengthen the shortest index.
            assert!(self.words.len() <= 2 * WORDS_MIN || self.len >= self.words.len() / 4, "not too empty");
            assert!(self.len <= self.homes, "not too full");
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
        let step =
            prop_oneof![8 => put, 6 => remove, 3 => set, 8 => scan, 1 => random, 1 => Just(Step::Clear)];
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
                    Step::Clear => {
                        table.clear();
                        model.clear();
                        throughout.clear();
                        prop_assert_eq!(table.bytes(), 0);
                    }
                }
                table.check();
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
        let words = table.words.len();
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
                load_least = load_least.min(table.len() as f64 / table.words.len() as f64);
            }
        }
        assert!(load_least > 0.7, "{load_least}");
        let most = table.words.iter().map(|&word| displacement(word)).max();
        assert!(most < Some(FAR), "{most:?}");
        for key in 0..50_000u32 {
            let key = key.to_le_bytes();
            assert!(table.remove(hasher.hash(&key), &key));
        }
        assert_eq!(table.bytes(), 0);
    }

    #[test]
    fn a_new_value_takes_the_old_ones_place() {
        let hasher = Hasher::new(3);
        let mut table = Table::new(hasher);
        let hash = hasher.hash(b"counter");
        let address = |table: &Table| table.words[table.find(hash, b"counter").unwrap()] & ADDRESS;
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
