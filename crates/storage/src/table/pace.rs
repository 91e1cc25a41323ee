//! How often the indexes of a thread's tables may grow.
//!
//! A growth moves up to some thousands of keys, and takes up to a millisecond. Tables that fill alike want to grow at nearly the same time,
//! and several in one batch of requests are one long wait. So a growth is owed for: each insertion on the thread pays for a few of the
//! keys that it moved, and while anything is owed, another index grows only where it is nearly out of room.
//!
//! On the average an insertion moves some ten keys, so what is owed is paid long before the next growth is due.

use std::cell::Cell;

/// The keys that an insertion pays for.
const PAID: usize = 64;

thread_local! {
    static OWED: Cell<usize> = const { Cell::new(0) };
}

/// A key is about to be inserted. Whether nothing is owed any more.
#[inline]
pub(super) fn pay() -> bool {
    let owed = OWED.get();
    if owed == 0 {
        return true;
    }
    OWED.set(owed.saturating_sub(PAID));
    false
}

/// An index of so many keys grows.
pub(super) fn owe(keys: usize) {
    // What it costs to allocate is not counted: a small one pays for itself.
    OWED.set(OWED.get() + keys);
}
