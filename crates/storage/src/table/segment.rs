//! A segment: the index of a stretch of hash space, in the order of the keys' hashes. The head of [`super`] says how
//! it works and draws its words.
//!
//! A segment hashes again what it moves, so it bounds what one operation may cost: see [`Segment::wants_split`].

use super::Hasher;
use super::entry::Entry;
use super::pace;
use super::piece::{Piece, View, size_class};
use super::word::{
    ADDRESS, FAR, FRACTION_BITS, FRACTION_SHIFT, STEP, displacement, fetch_heads, fetch_piece, new_word,
    start_of,
};
use crate::prefetch::fetch;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::DerefMut;

/// A smaller index grows in no time.
const EARLY_HOMES_MIN: usize = 1024;
/// By how much an index grows while many keys come: still a quarter full afterwards.
const FILLING_STEP: usize = 3;
/// For how many words a walk fetches pieces together, while it is at those before: as many as a processor has on their way at once, or nearly.
pub(super) const AHEAD: usize = 16;
pub(super) const WORDS_MIN: usize = 8;
/// A segment of as many words is split rather than lengthened, so that no insertion moves more keys than fit it.
#[cfg(not(test))]
pub(super) const WORDS_MAX: usize = 16 * 1024;
/// Small enough that random tests split and join.
#[cfg(test)]
pub(super) const WORDS_MAX: usize = 128;
/// Two neighbours that hold no more between them become one again.
const JOINED_MAX: usize = WORDS_MAX / 4;
/// The most entries that a segment is asked to make room for: it should not split soon.
pub(super) const RESERVED_MAX: usize = WORDS_MAX / 2;
/// The most spill words that an index begins with.
const SPILL_MAX: usize = 24;

/// The keys whose hashes begin with the same `depth` bits.
pub(super) struct Segment {
    hasher: Hasher,
    /// The index: the homes, then the spill words.
    words: Vec<u64>,
    /// How many of the words are homes. 0 where the index is empty.
    homes: usize,
    len: usize,
    /// The least hash that belongs here.
    start: u64,
    depth: u32,
}

/// What a step of a scan may still do.
pub(super) struct Budget {
    /// Entries to visit. 0: the present order is the last.
    pub entries: usize,
    /// Words to walk over; only empty ones end a step.
    pub walk: usize,
}

impl Segment {
    pub fn new(hasher: Hasher, start: u64, depth: u32) -> Segment {
        Segment { hasher, words: Vec::new(), homes: 0, len: 0, start, depth }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// The least hash of the segment behind it; `None`: it is the last.
    pub fn next_start(&self) -> Option<u64> {
        let span = 1u64.checked_shl(64 - self.depth)?;
        self.start.checked_add(span)
    }

    /// The words that it has room for.
    pub fn capacity(&self) -> usize {
        self.words.capacity()
    }

    /// The words, to be freed with their pieces.
    pub fn into_words(self) -> Vec<u64> {
        self.words
    }

    /// Whether the next insertion should split it.
    #[inline]
    pub fn wants_split(&self) -> bool {
        // In use to the last word, its last homes overflow, which growth would mend too.
        self.words.len() >= WORDS_MAX
            && (self.is_full() || (self.is_crowded() && self.words.last() != Some(&0)))
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.len >= self.homes * 19 / 20
    }

    /// Whether it should grow before this key is inserted. Tables that fill alike, as the partitions of a node do, would
    /// all grow at once: so some of them grow earlier, by the luck of a key's hash.
    ///
    /// Some still meet by chance, and a client waits for all that grow in one batch of its requests. So growth waits until insertions
    /// have paid for the one before ([`pace`]), unless it is urgent.
    #[inline]
    fn should_grow(&self, hash: u64) -> bool {
        if !pace::pay() {
            return self.len >= self.homes * 39 / 40;
        }
        let early = self.homes >= EARLY_HOMES_MIN && self.len >= self.homes * 17 / 20;
        // Once in every twentieth of the homes, on the average.
        self.is_full() || (early && ((hash & 0xffff_ffff) * self.homes as u64) >> 32 < 20)
    }

    #[inline]
    fn is_crowded(&self) -> bool {
        self.len >= self.words.len() / 4 * 3
    }

    /// Whether it and its neighbour should become one.
    pub fn wants_join(&self, other: &Segment) -> bool {
        self.depth == other.depth && self.len + other.len <= JOINED_MAX
    }

    // --- a key

    /// The word under which a key most likely stands; 0 where it is absent.
    #[inline]
    pub fn likely_word(&self, hash: u64) -> u64 {
        let order = self.order(hash);
        let mut position = (order >> FRACTION_BITS) as usize;
        while let Some(&word) = self.words.get(position) {
            if word == 0 || displacement(word) == FAR || self.order_at(position, word) >= order {
                return word;
            }
            position += 1;
        }
        0
    }

    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        let home = (self.order(hash) >> FRACTION_BITS) as usize;
        fetch(self.words.as_ptr().wrapping_add(home));
    }

    /// Where a key stands, or where it would.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Result<usize, usize> {
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
    pub fn piece(&self, position: usize) -> View<'_> {
        View { start: start_of(self.words[position]), piece: PhantomData }
    }

    pub fn piece_mut(&mut self, position: usize) -> impl DerefMut<Target = Piece> + '_ {
        ManuallyDrop::new(Piece(start_of(self.words[position])))
    }

    /// Puts a piece in the place of the one of the same key.
    pub fn swap(&mut self, position: usize, piece: Piece) -> Piece {
        let address = piece.0.as_ptr().expose_provenance() as u64;
        std::mem::forget(piece);
        let word = self.words[position];
        self.words[position] = word & !ADDRESS | address;
        Piece(start_of(word))
    }

    /// Puts a piece whose key is absent, at the place where [`Segment::find`] has just not found it. It comes back where
    /// the index has to change for it first.
    #[inline]
    pub fn insert_at(&mut self, position: usize, hash: u64, piece: Piece) -> Result<(), Piece> {
        let empty = self.empty_from(position);
        if empty == self.words.len() || self.should_grow(hash) || self.wants_split() {
            return Err(piece);
        }
        self.len += 1;
        self.insert_word(position, empty, new_word(piece, self.order(hash), position));
        Ok(())
    }

    /// Puts a piece whose key is absent. While many come (`filling`) the index grows by large steps.
    pub fn insert(&mut self, hash: u64, piece: Piece, filling: bool) {
        if self.should_grow(hash) {
            self.grow(filling);
        }
        let (order, position, empty) = loop {
            let order = self.order(hash);
            let position = self.place_after(order);
            let empty = self.empty_from(position);
            if empty < self.words.len() {
                break (order, position, empty);
            }
            // The last homes overflow. Growth spreads them, unless the keys have one hash.
            if self.is_crowded() { self.grow(filling) } else { self.lengthen_to(empty + 1) }
        };
        self.len += 1;
        self.insert_word(position, empty, new_word(piece, order, position));
    }

    /// Removes what stands at a position and returns its piece, and whether the index became smaller.
    pub fn take(&mut self, position: usize) -> (Piece, bool) {
        let word = self.words[position];
        self.remove_word(position);
        self.len -= 1;
        let shrinks = if self.len == 0 {
            self.words = Vec::new();
            self.homes = 0;
            true
        } else if self.len < self.words.len() / 4 && self.words.len() > WORDS_MIN {
            self.resize(size_class((self.len * 3 / 2).max(WORDS_MIN) * 8) / 8);
            true
        } else {
            false
        };
        (Piece(start_of(word)), shrinks)
    }

    // --- walks

    /// Visits entries from a cursor on. Returns where to go on; `None`: the end of the segment.
    pub fn scan(
        &self,
        cursor: u64,
        budget: &mut Budget,
        visit: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Option<u64> {
        let from = self.order(cursor);
        let begin = (from >> FRACTION_BITS) as usize;
        let (mut position, mut fetched) = (begin, begin);
        let walk_end = position.saturating_add(budget.walk);
        let mut last = None;
        while let Some(&word) = self.words.get(position) {
            if word == 0 {
                // All entries whose home is here or before have been seen.
                if position + 1 >= walk_end && position + 1 < self.homes {
                    return self.first_hash((position as u64 + 1) << FRACTION_BITS);
                }
                position += 1;
                continue;
            }
            if position + AHEAD / 2 >= fetched {
                let (from, to) =
                    (fetched.max(position), (fetched.max(position) + AHEAD).min(self.words.len()));
                self.words[from..to].iter().for_each(|&word| fetch_piece(word));
                fetched = to;
            }
            let order = self.order_at(position, word);
            let view = self.piece(position);
            position += 1;
            // Where the cursor cuts through the entries of one order, the hashes tell on which side they are.
            if order < from || (order == from && self.hasher.hash(view.key()) < cursor) {
                continue;
            }
            // Nothing tells the entries of one order apart without hashing them, so a step ends between orders.
            if budget.entries == 0 && last != Some(order) {
                return self.first_hash(order);
            }
            last = Some(order);
            budget.entries = budget.entries.saturating_sub(1);
            if !visit(view.entry()) {
                budget.entries = 0;
            }
        }
        budget.walk = budget.walk.saturating_sub(position - begin);
        None
    }

    /// The first entry at or behind a share of the index, of 2^64.
    pub fn entry_from(&self, share: u64) -> Option<Entry<'_>> {
        let start = ((u128::from(share) * self.words.len() as u128) >> 64) as usize;
        let position = (start..self.words.len()).find(|&position| self.words[position] != 0)?;
        Some(self.piece(position).entry())
    }

    /// The hash of the key that stands last.
    pub fn last_hash(&self) -> Option<u64> {
        let word = self.words.iter().rfind(|&&word| word != 0)?;
        let view = View { start: start_of(*word), piece: PhantomData };
        Some(self.hasher.hash(view.key()))
    }

    /// Where in it a hash lies, as a share of 2^64.
    #[inline]
    pub fn share(&self, hash: u64) -> u64 {
        hash << self.depth
    }

    // --- order

    /// Where a hash belongs: its home and, in the lowest 8 bits, what comes after the point.
    #[inline]
    fn order(&self, hash: u64) -> u64 {
        ((u128::from(self.share(hash)) * self.homes as u128) >> (64 - FRACTION_BITS)) as u64
    }

    /// The least hash that belongs there or later; `None`: that is behind this segment, and behind all others.
    fn first_hash(&self, order: u64) -> Option<u64> {
        let share = (u128::from(order) << (64 - FRACTION_BITS)).div_ceil(self.homes as u128);
        let hash = share.div_ceil(1 << self.depth) + u128::from(self.start);
        u64::try_from(hash).ok()
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

    // --- words

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

    /// Makes room for so many entries, [`RESERVED_MAX`] at most, so that it does not grow, not even early, before it
    /// has them.
    pub fn reserve(&mut self, entries: usize) {
        let words = entries + entries / 5 + WORDS_MIN + SPILL_MAX;
        let words = (size_class(words * 8) / 8).min(WORDS_MAX);
        if words > self.words.len() {
            self.resize(words);
        }
    }

    fn grow(&mut self, filling: bool) {
        pace::owe(self.len);
        let words = self.words.len();
        let more = if filling { (words * FILLING_STEP).min(WORDS_MAX) } else { 0 };
        self.resize(size_class(more.max(words + 1).max(WORDS_MIN) * 8) / 8);
    }

    /// Gives back room that was made for keys that did not come, where it is much. Returns the words that it has room for now.
    pub fn tighten(&mut self) -> usize {
        if self.len == 0 {
            self.words = Vec::new();
            self.homes = 0;
        } else if self.words.len() > (self.len + self.len / 2).max(2 * WORDS_MIN) {
            // As much room as an index has on the average.
            self.resize(size_class((self.len + self.len / 5 + WORDS_MIN) * 8) / 8);
        }
        self.capacity()
    }

    /// Makes the index `words` long, or longer where the last homes overflow, and moves every word.
    fn resize(&mut self, words: usize) {
        let old = std::mem::take(&mut self.words);
        let hasher = self.hasher;
        let mut filling = Filling::new(self, words);
        for_each_piece(&old, |piece| filling.push(hasher.hash(piece.key()), piece));
    }

    /// Takes it apart in the middle of its stretch.
    pub fn split(mut self) -> (Segment, Segment) {
        let old = std::mem::take(&mut self.words);
        let bit = 1 << (63 - self.depth);
        let middle = (self.homes as u64) << FRACTION_BITS >> 1;
        let is_left = |&(at, &word): &(usize, &u64)| word != 0 && self.order_at(at, word) < middle;
        let before = old.iter().enumerate().filter(is_left).count();
        let mut left = Segment::new(self.hasher, self.start, self.depth + 1);
        let mut right = Segment::new(self.hasher, self.start | bit, self.depth + 1);
        let mut left_filling = Filling::new(&mut left, words_for(before));
        let mut right_filling = Filling::new(&mut right, words_for(self.len - before));
        for_each_piece(&old, |piece| {
            let hash = self.hasher.hash(piece.key());
            if hash & bit == 0 { left_filling.push(hash, piece) } else { right_filling.push(hash, piece) }
        });
        (left.settled(), right.settled())
    }

    /// Makes one of two neighbours of the same depth, of which this is the first.
    pub fn join(mut self, mut other: Segment) -> Segment {
        let len = self.len + other.len;
        let mut joined = Segment::new(self.hasher, self.start, self.depth - 1);
        let mut filling = Filling::new(&mut joined, words_for(len));
        for words in [std::mem::take(&mut self.words), std::mem::take(&mut other.words)] {
            for_each_piece(&words, |piece| filling.push(self.hasher.hash(piece.key()), piece));
        }
        joined.settled()
    }

    /// Without the index that was made ready for keys that did not come.
    fn settled(self) -> Segment {
        if self.len == 0 { Segment::new(self.hasher, self.start, self.depth) } else { self }
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

/// The words for an index of so many keys, with some room for more.
fn words_for(len: usize) -> usize {
    size_class((len + len / 9 + WORDS_MIN) * 8) / 8
}

/// Takes the pieces out of an index, in its order, fetched ahead. Whoever gets them owns them.
fn for_each_piece(words: &[u64], mut take: impl FnMut(Piece)) {
    let mut chunks = words.chunks(AHEAD).peekable();
    fetch_heads(chunks.peek().copied().unwrap_or_default());
    while let Some(chunk) = chunks.next() {
        fetch_heads(chunks.peek().copied().unwrap_or_default());
        for &word in chunk.iter().filter(|word| **word != 0) {
            take(Piece(start_of(word)));
        }
    }
}

/// Fills an empty index with pieces that come about in the order of their hashes.
struct Filling<'s> {
    segment: &'s mut Segment,
    tail: usize,
    greatest: u64,
}

impl<'s> Filling<'s> {
    fn new(segment: &'s mut Segment, words: usize) -> Filling<'s> {
        segment.words = vec![0; words];
        segment.homes = words - (words / 64).clamp(1, SPILL_MAX);
        segment.len = 0;
        Filling { segment, tail: 0, greatest: 0 }
    }

    fn push(&mut self, hash: u64, piece: Piece) {
        let segment = &mut *self.segment;
        let order = segment.order(hash);
        self.tail = self.tail.max((order >> FRACTION_BITS) as usize);
        // Only keys that stood under one order can come out of order here.
        let position = if order >= self.greatest { self.tail } else { segment.place_after(order) };
        self.greatest = self.greatest.max(order);
        // Behind the last home there may be no word yet.
        segment.lengthen_to(position);
        let empty = segment.empty_from(position);
        segment.lengthen_to(empty + 1);
        segment.insert_word(position, empty, new_word(piece, order, position));
        segment.len += 1;
        self.tail = self.tail.max(empty + 1);
    }
}

/// An index that is no more, with its pieces.
#[derive(Debug)]
pub(crate) struct Words(Vec<u64>);

impl Words {
    pub fn new(words: Vec<u64>) -> Words {
        Words(words)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Frees up to so many pieces, where eight empty words count as one, and returns how many are left to be freed
    /// elsewhere.
    pub fn free(&mut self, mut pieces: usize) -> usize {
        let mut empty = 0;
        while pieces > 0
            && let Some(word) = self.0.pop()
        {
            if self.0.len().is_multiple_of(AHEAD) {
                let end = self.0.len().saturating_sub(AHEAD);
                fetch_heads(&self.0[end.saturating_sub(AHEAD)..end]);
            }
            if word != 0 {
                drop(Piece(start_of(word)));
            } else {
                empty += 1;
            }
            if word != 0 || empty % 8 == 0 {
                pieces -= 1;
            }
        }
        pieces
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.free(usize::MAX);
    }
}

#[cfg(test)]
impl Segment {
    /// The words, for tests that look at the layout.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// What has to hold between any two operations: returns entries, entries with an expiry, and their bytes. Where
    /// room was made for keys that may not have come, it may be as empty as it likes.
    pub fn check(&self, reserved: bool) -> (usize, usize, usize) {
        let (mut len, mut volatile_len, mut piece_bytes) = (0, 0, 0);
        let (mut last, mut end) = (0, 0);
        for (position, &word) in self.words.iter().enumerate() {
            if word == 0 {
                continue;
            }
            let view = self.piece(position);
            let hash = self.hasher.hash(view.key());
            assert!(
                hash >= self.start && self.next_start().is_none_or(|next| hash < next),
                "it belongs here"
            );
            let order = self.order(hash);
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
        assert_eq!(len, self.len);
        // Keys that collide in the last home may lengthen the shortest index.
        let is_used = self.words.len() <= 2 * WORDS_MIN || self.len >= self.words.len() / 4;
        assert!(is_used || reserved, "not too empty");
        assert!(self.len <= self.homes, "not too full");
        (len, volatile_len, piece_bytes)
    }
}
