//! Telling the processor what memory will be read soon.

use std::collections::VecDeque;

/// Asks for the line of the cache that holds this address.
#[inline]
pub fn fetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches no memory as far as the program can tell, and takes any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// As [`fetch`], into the second level of the cache only. Of what is to come into the first a processor drops all that is asked for while
/// about twenty lines are on their way (Zen 4, measured), and a batch of requests has more; into the second it drops none. But
/// this is for two neighbouring lines, of which both are read: of a line alone, in a page that it does not know, it fetches none.
#[inline]
pub fn fetch_near<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as of `fetch`.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    fetch(address);
}

/// Asks for the two lines behind the first of a value: see [`fetch_near`].
#[inline]
pub fn fetch_behind<T>(value: &T) {
    let start = (&raw const *value).cast::<u8>();
    fetch_near(start.wrapping_add(64));
    fetch_near(start.wrapping_add(128));
}

/// Asks for all lines of the cache that hold this value.
#[inline]
pub fn fetch_all<T>(value: &T) {
    let start = (&raw const *value).cast::<u8>();
    for at in (0..size_of::<T>()).step_by(64) {
        fetch(start.wrapping_add(at));
    }
}

/// Asks for the place where the next element of a queue will stand, if it has room.
#[inline]
pub fn fetch_next<T>(queue: &VecDeque<T>) {
    let (front, back) = queue.as_slices();
    fetch(if back.is_empty() { front.as_ptr_range().end } else { back.as_ptr_range().end });
}

/// Asks for the first element of a queue.
#[inline]
pub fn fetch_front<T>(queue: &VecDeque<T>) {
    if let Some(front) = queue.front() {
        fetch_all(front);
    }
}
