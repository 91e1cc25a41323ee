//! Which segment of a large table has a key: a directory by the first bits of the hash, as extendible hashing has it.

use super::Hasher;
use super::segment::Segment;

/// The most bits that a directory goes by.
const DEPTH_MAX: u32 = 32;
/// A directory has at most so many places for each of its segments. Hashes spread evenly need one or two; where keys'
/// hashes have so much in common that more would be needed, a segment grows beyond its size instead.
const PLACES_A_SEGMENT: usize = 8;

/// The segments of a table, in whatever order, and the directory to them.
pub(super) struct Directory {
    /// The number of the segment for each value of the hash's first `depth` bits.
    places: Vec<u32>,
    depth: u32,
    segments: Vec<Segment>,
}

impl Directory {
    /// Of one segment, which has all hashes, and which is about to be split.
    pub fn new(root: Segment) -> Directory {
        Directory { places: vec![0], depth: 0, segments: vec![root] }
    }

    /// The heap that it holds itself, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Directory>()
            + self.places.capacity() * size_of::<u32>()
            + self.segments.capacity() * size_of::<Segment>()
    }

    pub fn into_segments(self) -> Vec<Segment> {
        self.segments
    }

    /// The number of the segment that has a hash.
    #[inline]
    pub fn number_of(&self, hash: u64) -> usize {
        self.places[self.place_of(hash)] as usize
    }

    #[inline]
    fn place_of(&self, hash: u64) -> usize {
        // In two shifts, since one by 64 is none.
        (hash >> 1 >> (63 - self.depth)) as usize
    }

    #[inline]
    pub fn segment(&self, number: usize) -> &Segment {
        &self.segments[number]
    }

    pub fn segments_mut(&mut self) -> &mut [Segment] {
        &mut self.segments
    }

    #[inline]
    pub fn segment_mut(&mut self, number: usize) -> &mut Segment {
        &mut self.segments[number]
    }

    /// The places of a segment.
    fn places_of(&self, segment: &Segment) -> std::ops::Range<usize> {
        let first = self.place_of(segment.start());
        first..first + (1 << (self.depth - segment.depth()))
    }

    /// Splits a segment and returns how many words the two have room for; `None`: it is split no further.
    pub fn split(&mut self, hasher: Hasher, number: usize) -> Option<usize> {
        if self.segments[number].depth() == self.depth {
            if self.depth == DEPTH_MAX || 2 * self.places.len() > PLACES_A_SEGMENT * self.segments.len() {
                return None;
            }
            self.places = self.places.iter().flat_map(|&number| [number, number]).collect();
            self.depth += 1;
        }
        let segment = std::mem::replace(&mut self.segments[number], Segment::new(hasher, 0, 0));
        let (left, right) = segment.split();
        let words = left.capacity() + right.capacity();
        let places = self.places_of(&right);
        self.places[places].fill(self.segments.len() as u32);
        self.segments[number] = left;
        self.segments.push(right);
        Some(words)
    }

    /// Joins a segment with its neighbour while both are nearly empty. Returns by how many words that changed what the
    /// indexes have room for.
    pub fn join(&mut self, hasher: Hasher, mut number: usize) -> isize {
        let mut change = 0;
        while let segment = &self.segments[number]
            && segment.depth() > 0
        {
            let bit = 1 << (64 - segment.depth());
            let other = self.number_of(segment.start() ^ bit);
            if !segment.wants_join(&self.segments[other]) {
                break;
            }
            let (left, right) = if segment.start() & bit == 0 { (number, other) } else { (other, number) };
            let [left_segment, right_segment] = [left, right]
                .map(|number| std::mem::replace(&mut self.segments[number], Segment::new(hasher, 0, 0)));
            change -= (left_segment.capacity() + right_segment.capacity()) as isize;
            let joined = left_segment.join(right_segment);
            change += joined.capacity() as isize;
            let places = self.places_of(&joined);
            self.places[places].fill(left as u32);
            self.segments[left] = joined;
            number = self.remove(right, left);
        }
        self.fold();
        change
    }

    /// Takes a segment that no place names out of the row. Returns the number that `kept` has now.
    fn remove(&mut self, number: usize, kept: usize) -> usize {
        self.segments.swap_remove(number);
        let last = self.segments.len();
        if number < last {
            let places = self.places_of(&self.segments[number]);
            self.places[places].fill(number as u32);
        }
        if kept == last { number } else { kept }
    }

    /// Gives back what the directory no longer needs.
    fn fold(&mut self) {
        let deepest = self.segments.iter().map(Segment::depth).max().unwrap_or(0);
        if deepest < self.depth {
            let step = 1 << (self.depth - deepest);
            self.places = self.places.iter().step_by(step).copied().collect();
            self.depth = deepest;
        }
        if self.segments.len() < self.segments.capacity() / 4 {
            self.segments.shrink_to_fit();
        }
    }

    /// The only segment, where there is one.
    pub fn take_only(&mut self) -> Option<Segment> {
        if self.segments.len() == 1 { self.segments.pop() } else { None }
    }

    /// What has to hold between any two operations.
    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.places.len(), 1 << self.depth);
        let mut named = 0;
        for (number, segment) in self.segments.iter().enumerate() {
            let places = self.places_of(segment);
            named += places.len();
            assert!(self.places[places].iter().all(|&place| place as usize == number));
        }
        assert_eq!(named, self.places.len(), "each place names a segment");
        assert!(self.segments.len() > 1);
    }
}
