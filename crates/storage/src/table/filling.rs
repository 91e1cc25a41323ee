//! Making a table ready for many keys: room for a known number ([`Table::reserve`]), as a snapshot's chunks tell it, or large
//! steps of growth for an unknown one ([`Table::begin_filling`]), as the replay of a log needs them.
//!
//! Left out: who decides which of the two.

use super::Table;
use super::segment::{RESERVED_MAX, Segment};

impl Table {
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

    /// How many entries fit before the index has to grow, about, in a table that has not split.
    pub(crate) fn room(&self) -> usize {
        self.words / 6 * 5
    }

    /// Whether it has several indexes.
    pub(crate) fn has_split(&self) -> bool {
        self.split.is_some()
    }

    /// The greatest of its keys' hashes, or nearly: of keys with the same order any. In a table that has not split.
    pub(crate) fn last_hash(&self) -> Option<u64> {
        self.root.last_hash()
    }
}
