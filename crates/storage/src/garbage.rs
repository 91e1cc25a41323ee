//! What is no longer needed, freed a little at a time.
//!
//! A table of millions of keys takes a tenth of a second and more to free, and a value of many megabytes takes the system
//! milliseconds to take back. A thread that serves others cannot wait for that. It says so once, by [`keep`], and from then
//! on tables and large values that are dropped on it go to a queue of the thread's own: [`free`] frees a few pieces of
//! tables, and [`take_large`] hands out what is better dropped by another thread. On every other thread what is dropped is
//! freed at once.
//!
//! The queue is the thread's because things are dropped wherever they end: when a commit forgets an undo, when a copy leaves,
//! when a value is overwritten. None of these has a queue at hand, and whether something is freed now or later changes
//! nothing that can be seen but the memory.
//!
//! Left out: when to free, and how much, which whoever has a clock decides.

use crate::table::{Piece, Words};
use std::cell::RefCell;
use std::collections::VecDeque;

/// What takes at least as many bytes is large.
pub const LARGE_BYTES: usize = 256 * 1024;

/// Something large, to be dropped where nobody waits.
#[derive(Debug)]
pub struct Large(#[expect(dead_code, reason = "it is held to be dropped")] Piece);

#[derive(Default)]
struct Garbage {
    words: VecDeque<Words>,
    large: Vec<Large>,
}

thread_local! {
    static GARBAGE: RefCell<Option<Garbage>> = const { RefCell::new(None) };
}

/// This thread frees by [`free`] and [`take_large`] from now on. It has to call both until they have no more.
pub fn keep() {
    GARBAGE.with_borrow_mut(|garbage| {
        garbage.get_or_insert_default();
    });
}

/// Whether [`free`] has something to free.
pub fn is_waiting() -> bool {
    GARBAGE.with_borrow(|garbage| garbage.as_ref().is_some_and(|garbage| !garbage.words.is_empty()))
}

/// Frees about so many pieces. What of them is large is added to what [`take_large`] gives.
pub fn free(pieces: usize) {
    // Out of the queue while it is worked on: dropping a large piece adds to the queue.
    let take = || GARBAGE.with_borrow_mut(|garbage| garbage.as_mut()?.words.pop_front());
    let mut left = pieces;
    while left > 0
        && let Some(mut words) = take()
    {
        left = words.free(left);
        if !words.is_empty() {
            GARBAGE.with_borrow_mut(|garbage| garbage.get_or_insert_default().words.push_front(words));
        }
    }
}

/// What is large, to be dropped by another thread: dropped on this one it comes again.
pub fn take_large() -> Vec<Large> {
    GARBAGE.with_borrow_mut(|garbage| {
        garbage.as_mut().map(|garbage| std::mem::take(&mut garbage.large)).unwrap_or_default()
    })
}

/// Whether this thread puts off freeing a large piece. Then `piece` makes what is queued.
pub(crate) fn put_off(piece: impl FnOnce() -> Piece) -> bool {
    with_queue(|garbage| garbage.large.push(Large(piece())))
}

/// The index of a table that is no more, with its pieces.
pub(crate) fn add_words(words: Vec<u64>) {
    let mut words = Some(Words::new(words));
    with_queue(|garbage| garbage.words.extend(words.take()));
}

/// False where this thread keeps none; also while the thread ends.
fn with_queue(add: impl FnOnce(&mut Garbage)) -> bool {
    let added = GARBAGE.try_with(|garbage| garbage.borrow_mut().as_mut().map(add).is_some());
    added.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use crate::garbage;
    use crate::table::{Hasher, Table, Value};
    use types::Version;

    fn filled(keys: u32) -> Table {
        let mut table = Table::new(Hasher::new(1));
        for key in 0..keys {
            let name = key.to_le_bytes();
            table.put(table.hasher().hash(&name), &name, Value::String(b"x"), None, Version(1));
        }
        table
    }

    fn put_large(table: &mut Table, bytes: usize) {
        let hash = table.hasher().hash(b"large");
        table.put(hash, b"large", Value::String(&vec![1; bytes]), None, Version(2));
    }

    /// How many calls it takes to free what waits, so many pieces at a time.
    fn calls(pieces: usize) -> usize {
        let mut calls = 0;
        while garbage::is_waiting() {
            garbage::free(pieces);
            calls += 1;
        }
        calls
    }

    #[test]
    fn tables_are_freed_in_slices() {
        drop(filled(1000));
        assert!(!garbage::is_waiting(), "nobody asked to keep it");
        garbage::keep();
        let mut cleared = filled(500);
        cleared.clear();
        assert_eq!(cleared.bytes(), 0);
        drop(filled(500));
        assert!(garbage::is_waiting());
        let calls = calls(10);
        assert!((100..=140).contains(&calls), "{calls}");
    }

    #[test]
    fn large_values_are_handed_out() {
        garbage::keep();
        // Dropped here they would be queued again.
        let handed_out = || {
            let large = garbage::take_large();
            let count = large.len();
            std::thread::spawn(|| drop(large)).join().expect("another thread frees it");
            count
        };
        let mut table = filled(10);
        put_large(&mut table, garbage::LARGE_BYTES);
        put_large(&mut table, garbage::LARGE_BYTES - 64 * 1024);
        assert_eq!(handed_out(), 1, "one was overwritten");
        put_large(&mut table, garbage::LARGE_BYTES);
        drop(table);
        assert_eq!(handed_out(), 0);
        assert!(calls(100) > 0);
        assert_eq!(handed_out(), 1, "one was in a table that was dropped");
    }
}
