//! A word of the index: what of a key's order it tells, and the address of its piece. The head of [`super`] draws its
//! bits.

use super::piece::Piece;
use crate::prefetch::{fetch, fetch_near};
use std::ptr::NonNull;

pub(super) const ADDRESS_BITS: u32 = 48;
pub(super) const ADDRESS: u64 = (1 << ADDRESS_BITS) - 1;
pub(super) const FRACTION_BITS: u32 = 8;
pub(super) const FRACTION_SHIFT: u32 = 64 - FRACTION_BITS;
/// A displacement of this or more: only the key's hash tells its home.
pub(super) const FAR: u64 = 255;
pub(super) const STEP: u64 = 1 << ADDRESS_BITS;

pub(super) fn displacement(word: u64) -> u64 {
    word >> ADDRESS_BITS & 0xff
}

pub(super) fn new_word(piece: Piece, order: u64, position: usize) -> u64 {
    let address = piece.0.as_ptr().expose_provenance() as u64;
    std::mem::forget(piece);
    let far = (position as u64 - (order >> FRACTION_BITS)).min(FAR);
    order << FRACTION_SHIFT | far << ADDRESS_BITS | address
}

/// The piece that a word of the index stands for.
pub(super) fn start_of(word: u64) -> NonNull<u8> {
    let start = std::ptr::with_exposed_provenance_mut((word & ADDRESS) as usize);
    NonNull::new(start).expect("a word in use has an address")
}

/// Fetches a piece that is read whole.
#[inline]
pub(super) fn fetch_piece(word: u64) {
    let start: *const u8 = std::ptr::without_provenance((word & ADDRESS) as usize);
    fetch_near(start);
    // A small piece spans two lines as often as not.
    fetch_near(start.wrapping_add(64));
}

/// Fetches the beginnings of pieces, which is all that a walk reads of most: head and key. Each may wait for the processor to find out
/// where its page lies; it does so for many at once where they are asked for in a row, without anything between them.
#[inline]
pub(super) fn fetch_heads(words: &[u64]) {
    for word in words {
        // An empty word has no piece; what is fetched instead is here already.
        let own = words.as_ptr().addr();
        let start = if *word == 0 { own } else { (*word & ADDRESS) as usize };
        fetch(std::ptr::without_provenance::<u8>(start));
    }
}
